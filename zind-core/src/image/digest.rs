//! [`Digest`]: the name of a blob, `sha256:…`, and its check while reading.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::Digest as _;

use crate::error::{Error, Result};

/// The algorithm of a [`Digest`]. Source: <https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256: what everybody uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// `"sha256"` or `"sha512"`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Length of the digest in bytes.
    fn len(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// The digest of a blob: what it is called, and what it must be.
///
/// Only well-formed ones exist: the algorithm is known, the number has its full length in lower case. So the text is fit to
/// be a file name.
#[derive(Clone, Copy)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 64],
}

impl Digest {
    /// Reads `"sha256:<64 hex digits>"` or `"sha512:<128 hex digits>"`, in lower case.
    /// Errors: [`Error::Image`].
    pub fn parse(text: &str) -> Result<Digest> {
        // The number is quoted only as far as a good one goes: a bad one may be of any length.
        let wrong = |rule: &str| {
            let quoted: String = text.chars().take(136).collect();
            Error::image(format!("digest {quoted:?}"), rule)
        };
        let (name, hex) = text.split_once(':').ok_or_else(|| wrong("has no algorithm: it is written sha256:<hex>"))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(wrong("has an algorithm other than sha256 and sha512")),
        };
        if hex.len() != algorithm.len() * 2 {
            return Err(wrong("has not as many digits as its algorithm gives"));
        }
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
                return Err(wrong("has something else than the digits 0-9 and a-f"));
            };
            *byte = high << 4 | low;
        }
        Ok(Digest { algorithm, bytes })
    }

    /// The SHA-256 of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The number without the algorithm, in lower case.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(self.as_bytes().len() * 2);
        for byte in self.as_bytes() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        text
    }

    /// The first twelve digits, as lists show it.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// The number.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.len()]
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        Digest::parse(text)
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Digest) -> bool {
        self.algorithm == other.algorithm && self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Digest {}

impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.algorithm.hash(state);
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Digest) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Digest {
    fn cmp(&self, other: &Digest) -> Ordering {
        self.algorithm.cmp(&other.algorithm).then_with(|| self.as_bytes().cmp(other.as_bytes()))
    }
}

/// Computes a digest bit by bit.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Box<sha2::Sha256>),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// A digest of nothing yet.
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Sha256 => State::Sha256(Box::default()),
            Algorithm::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 64];
        let algorithm = match self.0 {
            State::Sha256(state) => {
                bytes[..32].copy_from_slice(&state.finalize());
                Algorithm::Sha256
            }
            State::Sha512(state) => {
                bytes.copy_from_slice(&state.finalize());
                Algorithm::Sha512
            }
        };
        Digest { algorithm, bytes }
    }
}

/// Reads a blob and checks it meanwhile: the last read fails if size or digest are wrong. Nothing that was read is to be
/// believed before the end was reached.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    left: u64,
}

impl<R: Read> Verified<R> {
    /// Reads `inner`, which must have `size` bytes and be `expected`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Verified<R> {
        Verified { inner, hasher: Some(Hasher::new(expected.algorithm())), expected, left: size }
    }

    fn wrong(&self, rule: String) -> io::Error {
        io::Error::other(Error::image(format!("blob {}", self.expected), rule))
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        let Some(hasher) = &mut self.hasher else { return Ok(0) };
        match u64::try_from(count) {
            Ok(read) if read <= self.left => self.left -= read,
            _ => return Err(self.wrong("is longer than its descriptor says".to_owned())),
        }
        hasher.update(&buffer[..count]);
        if count == 0 {
            let hasher = self.hasher.take();
            if self.left > 0 {
                return Err(self.wrong(format!("ends {} bytes too early", self.left)));
            }
            match hasher.map(Hasher::finish) {
                Some(found) if found != self.expected => {
                    return Err(self.wrong(format!("is not what its digest says, but {found}")));
                }
                _ => {}
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_back() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::parse(EMPTY).unwrap(), Digest::of(b""));
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"a");
        let digest = hasher.finish();
        assert!(digest.to_string().starts_with("sha512:1f40fc92da241694"), "{digest}");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert_eq!(digest.short(), "1f40fc92da24");
    }

    #[test]
    fn only_well_formed_digests_exist() {
        let upper = EMPTY.to_uppercase().replace("SHA", "sha");
        let path = format!("sha256:../{}", &EMPTY[10..]);
        let long = format!("{EMPTY}0");
        let huge = format!("sha256:{}", "a".repeat(1 << 20));
        for bad in ["", "sha256", "sha256:", &EMPTY[..70], &long, &upper, &path, &huge, "md5:00", "sha512:e3b0", "é:é"]
        {
            let error = Digest::parse(bad).unwrap_err();
            assert!(matches!(&error, Error::Image { .. }));
            assert!(error.to_string().len() < 500);
        }
    }

    #[test]
    fn a_blob_is_checked_while_it_is_read() {
        let read = |bytes: &[u8], size| {
            let mut out = Vec::new();
            Verified::new(bytes, Digest::of(b"hello"), size).read_to_end(&mut out).map(|_| out)
        };
        assert_eq!(read(b"hello", 5).unwrap(), b"hello");
        assert!(read(b"hello", 6).unwrap_err().to_string().contains("1 bytes too early"));
        assert!(read(b"hello", 4).unwrap_err().to_string().contains("longer"));
        assert!(read(b"hallo", 5).unwrap_err().to_string().contains("is not what its digest says"));
    }
}
