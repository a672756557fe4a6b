//! [`Limits`]: how much a layer may ask for.
#![forbid(unsafe_code)]

/// Bounds on foreign archives. What goes beyond is [`crate::Error::Image`], and the space is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Entries of one layer.
    pub entries: u64,
    /// Bytes of one file.
    pub file_size: u64,
    /// Bytes of a layer, unpacked.
    pub layer_size: u64,
    /// A layer may not become so many times larger by decompression, once it is over [`Limits::ratio_from`].
    pub ratio: u64,
    /// Bytes from which [`Limits::ratio`] counts.
    pub ratio_from: u64,
    /// Directories in directories.
    pub depth: usize,
    /// Bytes of extended headers of one entry: long names, attributes.
    pub header: u64,
    /// Bytes of a manifest, index or configuration.
    pub document: u64,
    /// The window of zstd, as a power of two: it is memory that decompression takes.
    pub zstd_window_log: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 1_000_000,
            file_size: 64 << 30,
            layer_size: 1 << 40,
            ratio: 200,
            ratio_from: 100 << 20,
            depth: 4096,
            header: 1 << 20,
            document: 4 << 20,
            zstd_window_log: 26,
        }
    }
}
