//! [`DetachKeys`]: the keys that leave a terminal without ending what runs in it.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// A sequence of keys, as `docker attach --detach-keys` takes it, and how much of it was typed so far.
///
/// What was typed of it is held back until it is clear whether the rest follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

/// What came of some bytes that were typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// What is to be passed on.
    pub bytes: Vec<u8>,
    /// How many of the bytes were used: what follows the detach keys is not.
    pub used: usize,
    /// The keys were there.
    pub detach: bool,
}

impl Default for DetachKeys {
    /// ctrl-p, ctrl-q.
    fn default() -> DetachKeys {
        DetachKeys { keys: vec![0x10, 0x11], typed: 0 }
    }
}

impl DetachKeys {
    /// No keys leave.
    pub fn none() -> DetachKeys {
        DetachKeys { keys: Vec::new(), typed: 0 }
    }

    /// Keys with commas between them: a character, or `ctrl-` and one of `a` to `z`, `@`, `[`, `\`, `]`, `^`, `_`. Empty: none.
    ///
    /// Errors: [`Error::Spec`].
    pub fn parse(text: &str) -> Result<DetachKeys> {
        if text.is_empty() {
            return Ok(DetachKeys::none());
        }
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        let keys = keys.ok_or_else(|| {
            Error::spec("detach_keys", format!("{text:?} has something else than characters and ctrl-a and its like"))
        })?;
        Ok(DetachKeys { keys, typed: 0 })
    }

    /// Takes what was typed.
    pub fn feed(&mut self, typed: &[u8]) -> Typed {
        let mut bytes = Vec::with_capacity(typed.len());
        if self.keys.is_empty() {
            bytes.extend_from_slice(typed);
            return Typed { used: typed.len(), bytes, detach: false };
        }
        for (index, &byte) in typed.iter().enumerate() {
            // What was held back and does not go on goes out, as far as it cannot be the beginning of the keys.
            while self.typed > 0 && self.keys.get(self.typed) != Some(&byte) {
                let held = self.keys.get(..self.typed).unwrap_or_default();
                let again = (1..self.typed).find(|&skip| self.keys.starts_with(held.get(skip..).unwrap_or_default()));
                let skip = again.unwrap_or(self.typed);
                bytes.extend_from_slice(held.get(..skip).unwrap_or_default());
                self.typed -= skip;
            }
            if self.keys.get(self.typed) == Some(&byte) {
                self.typed += 1;
            } else {
                bytes.push(byte);
            }
            if self.typed == self.keys.len() {
                self.typed = 0;
                return Typed { bytes, used: index + 1, detach: true };
            }
        }
        Typed { bytes, used: typed.len(), detach: false }
    }
}

fn key(text: &str) -> Option<u8> {
    match (text.as_bytes(), text.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([byte], _) if byte.is_ascii_graphic() || *byte == b' ' => Some(*byte),
        (_, Some([byte])) => match byte.to_ascii_uppercase() {
            byte @ b'@'..=b'_' => Some(byte - b'@'),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(keys: &mut DetachKeys, typed: &[u8]) -> (Vec<u8>, bool) {
        let typed = keys.feed(typed);
        (typed.bytes, typed.detach)
    }

    #[test]
    fn docker_s_syntax() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").unwrap(), DetachKeys::default());
        assert_eq!(DetachKeys::parse("").unwrap(), DetachKeys::none());
        assert_eq!(DetachKeys::parse("ctrl-@,a,ctrl-],ctrl-_").unwrap().keys, [0, b'a', 29, 31]);
        for bad in ["ctrl-", "ctrl-1", "ab", ",", "ctrl-p,", "é", "\n"] {
            assert_eq!(DetachKeys::parse(bad).unwrap_err().field(), Some("detach_keys"), "{bad:?}");
        }
    }

    #[test]
    fn keys_are_found_across_pieces_and_nothing_else_is_lost() {
        let mut keys = DetachKeys::default();
        assert_eq!(feed(&mut keys, b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(feed(&mut keys, b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(feed(&mut keys, b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.feed(b"\x11rest"), Typed { bytes: vec![], used: 1, detach: true });
        assert_eq!(feed(&mut keys, b"\x11"), (b"\x11".to_vec(), false));
    }

    #[test]
    fn keys_that_begin_like_themselves() {
        let mut keys = DetachKeys::parse("a,a,b").unwrap();
        assert_eq!(keys.feed(b"aaab"), Typed { bytes: b"a".to_vec(), used: 4, detach: true });
        let mut keys = DetachKeys::parse("a,b,a,c").unwrap();
        assert_eq!(keys.feed(b"ababac"), Typed { bytes: b"ab".to_vec(), used: 6, detach: true });
        assert_eq!(DetachKeys::none().feed(b"\x10\x11").bytes, b"\x10\x11");
    }
}
