//! From a blob to the tar in it: gzip, zstd (also zstd:chunked) or plain, told apart by their first bytes.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use super::limits::Limits;
use crate::error::Error;

/// How a blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the first bytes. Six are enough.
    pub(crate) fn of(begin: &[u8]) -> Compression {
        match begin {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A frame to be skipped, as zstd:chunked may begin with.
            [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50 => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// What else archives are compressed by, and nobody reads here. By the first six bytes.
pub(crate) fn foreign(begin: &[u8]) -> Option<&'static str> {
    match begin {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Some("bzip2"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
        _ => None,
    }
}

/// Reads what is compressed in `input`, to its very end: what follows compressed data and is none is an error.
pub(crate) fn reader<'a, R: BufRead + 'a>(mut input: R, limits: &Limits) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match Compression::of(input.fill_buf()?) {
        Compression::None => match foreign(input.fill_buf()?) {
            None => Box::new(input),
            Some(name) => {
                let rule = format!("is compressed by {name}: decompress it first; gzip and zstd are read");
                return Err(io::Error::other(Error::image("layer", rule)));
            }
        },
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(limits.zstd_window_log)?;
            Box::new(decoder)
        }
    })
}

/// Counts what goes in and what comes out, and stops bombs.
pub(crate) struct Watched<R> {
    inner: R,
    limits: Limits,
    out: u64,
    taken: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl<R: Read> Watched<R> {
    /// `taken` is how many compressed bytes were read so far, by whoever reads them.
    pub(crate) fn new(inner: R, limits: Limits, taken: std::sync::Arc<std::sync::atomic::AtomicU64>) -> Watched<R> {
        Watched { inner, limits, out: 0, taken }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.out += count as u64;
        let taken = self.taken.load(std::sync::atomic::Ordering::Relaxed);
        let too_much = |rule: String| Err(io::Error::other(Error::image("layer", rule)));
        if self.out > self.limits.layer_size {
            return too_much(format!("is larger than {} bytes when unpacked", self.limits.layer_size));
        }
        if self.out > self.limits.ratio_from && self.out / self.limits.ratio.max(1) > taken {
            return too_much(format!(
                "becomes more than {} times larger when unpacked: {taken} bytes have given {} so far",
                self.limits.ratio, self.out
            ));
        }
        Ok(count)
    }
}

/// Counts the bytes that are read.
pub(crate) struct Counted<R> {
    pub(crate) inner: R,
    pub(crate) count: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(count)
    }
}
