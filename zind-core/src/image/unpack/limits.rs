//! [`Limits`]: how much a layer may ask for.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

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

impl Limits {
    /// All bounds by their names, those of the fields.
    pub fn pairs(&self) -> [(&'static str, u64); 9] {
        [
            ("entries", self.entries),
            ("file_size", self.file_size),
            ("layer_size", self.layer_size),
            ("ratio", self.ratio),
            ("ratio_from", self.ratio_from),
            ("depth", self.depth as u64),
            ("header", self.header),
            ("document", self.document),
            ("zstd_window_log", u64::from(self.zstd_window_log)),
        ]
    }

    /// Sets a bound by its name. Errors: [`Error::Spec`] for an unknown name, and a window that zstd does not know (10 to 31).
    pub fn set(&mut self, name: &str, value: u64) -> Result<()> {
        match name {
            "entries" => self.entries = value,
            "file_size" => self.file_size = value,
            "layer_size" => self.layer_size = value,
            "ratio" => self.ratio = value,
            "ratio_from" => self.ratio_from = value,
            "depth" => self.depth = usize::try_from(value).unwrap_or(usize::MAX),
            "header" => self.header = value,
            "document" => self.document = value,
            "zstd_window_log" => match u32::try_from(value) {
                Ok(log) if (10..=31).contains(&log) => self.zstd_window_log = log,
                _ => return Err(Error::spec("limits", "has a zstd_window_log that is not 10 to 31")),
            },
            _ => {
                let known = self.pairs().map(|(name, _)| name).join(", ");
                return Err(Error::spec("limits", format!("has {name:?}, which is none of {known}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_has_its_name() {
        let mut limits = Limits::default();
        for (number, (name, usual)) in Limits::default().pairs().into_iter().enumerate() {
            limits.set(name, 11 + number as u64).unwrap();
            assert_eq!(limits.pairs()[number], (name, 11 + number as u64));
            limits.set(name, usual).unwrap();
        }
        assert_eq!(limits, Limits::default());
        for (name, value) in [("zstd_window_log", 9), ("zstd_window_log", 1 << 40), ("size", 1)] {
            assert_eq!(limits.set(name, value).unwrap_err().field(), Some("limits"));
        }
    }
}
