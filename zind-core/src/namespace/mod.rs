//! Namespaces: what kinds there are, how a container gets each of them, and who is in them.

pub mod idmap;
pub mod kind;
pub mod list;
pub(crate) mod netnsid;
pub(crate) mod pin;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// How a container comes by a namespace of one kind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source {
    /// A new one, of its own.
    New,
    /// The caller's.
    Host,
    /// The one this file stands for: `/proc/<pid>/ns/net`, or a file it was pinned to.
    Path(PathBuf),
    /// The one this process is in.
    Pid(i32),
    /// The one this descriptor stands for.
    Fd(Arc<OwnedFd>),
}

/// Offsets of the clocks in a new time namespace, in nanoseconds: `time_namespaces(7)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOffsets {
    /// Added to `CLOCK_MONOTONIC`.
    pub monotonic_ns: i64,
    /// Added to `CLOCK_BOOTTIME`.
    pub boottime_ns: i64,
}

impl TimeOffsets {
    /// The text for `/proc/<pid>/timens_offsets`.
    pub(crate) fn text(self) -> String {
        let line = |name: &str, offset: i64| {
            format!("{name} {} {}\n", offset.div_euclid(1_000_000_000), offset.rem_euclid(1_000_000_000))
        };
        line("monotonic", self.monotonic_ns) + &line("boottime", self.boottime_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_offsets_keep_nanoseconds_positive() {
        let offsets = TimeOffsets { monotonic_ns: -1, boottime_ns: 2_500_000_000 };
        assert_eq!(offsets.text(), "monotonic -1 999999999\nboottime 2 500000000\n");
    }
}
