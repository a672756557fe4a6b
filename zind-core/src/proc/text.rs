//! Texts of the kernel's, in which a process may have put anything: paths, arguments, environments.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A path of mountinfo, in which the kernel shows spaces, tabs, newlines and backslashes as `\040` and the like.
pub(crate) fn unescape_path(word: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..] if *first == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = behind;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out).into()
}

/// The strings that each end in NUL; the last one may lack it.
pub(super) fn split_nul(text: &[u8]) -> Vec<OsString> {
    if text.is_empty() {
        return Vec::new();
    }
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    text.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

pub(super) fn parse_environ(text: &[u8]) -> Vec<(OsString, OsString)> {
    let entries = split_nul(text).into_iter().filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let bytes = entry.as_bytes();
            // A leading `=` belongs to the name, as std and the shells have it.
            match bytes.iter().skip(1).position(|byte| *byte == b'=') {
                Some(at) => {
                    (OsStr::from_bytes(&bytes[..=at]).to_owned(), OsStr::from_bytes(&bytes[at + 2..]).to_owned())
                }
                None => (entry, OsString::new()),
            }
        })
        .collect()
}

/// The text with control characters replaced, so that it cannot act on a terminal.
pub(crate) fn printable(text: &OsStr) -> String {
    text.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_may_be_empty_and_need_no_final_nul() {
        assert_eq!(split_nul(b""), Vec::<OsString>::new());
        assert_eq!(split_nul(b"\0"), [""]);
        assert_eq!(split_nul(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(split_nul(b"overwritten title"), ["overwritten title"]);
        assert_eq!(split_nul(b"\xff\0")[0].as_bytes(), b"\xff");
    }

    #[test]
    fn environment_splits_at_the_first_equals_sign() {
        let pairs = parse_environ(b"A=1=2\0B=\0junk\0=C:=x\0\0");
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.to_str().unwrap(), v.to_str().unwrap())).collect();
        assert_eq!(pairs, [("A", "1=2"), ("B", ""), ("junk", ""), ("=C:", "x")]);
    }
}
