//! Paths of `/proc` and `/sys` that are hidden or read-only: OCI `maskedPaths` and `readonlyPaths`, with the lists that
//! Docker's engine uses.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::path::Path;
use std::sync::OnceLock;

use zind_init::plan::{self, FsKind};

use super::ops::{Op, attr};

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The masked paths this kernel has: another procfs of it has the same.
pub(crate) fn masked_paths() -> &'static [&'static str] {
    static FOUND: OnceLock<Vec<&'static str>> = OnceLock::new();
    FOUND.get_or_init(|| present(&MASKED))
}

/// The read-only paths this kernel has.
pub(crate) fn readonly_paths() -> &'static [&'static str] {
    static FOUND: OnceLock<Vec<&'static str>> = OnceLock::new();
    FOUND.get_or_init(|| present(&READONLY))
}

fn present(paths: &[&'static str]) -> Vec<&'static str> {
    // Without a procfs of our own to look at, try them all; what is missing inside is passed over there.
    let blind = !Path::new("/proc/self").exists();
    paths.iter().copied().filter(|path| blind || Path::new(path).exists()).collect()
}

/// Empty things to put over masked paths: zind's own, never the container's `/dev/null`. `base`: the staging area.
pub(crate) fn sources(base: &str) -> Vec<Op> {
    let file = CString::new(format!("{base}mask-file")).unwrap_or_default();
    let dir = CString::new(format!("{base}mask-dir")).unwrap_or_default();
    let hidden = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    vec![
        Op::file(&file, 0o444, Vec::new()),
        Op::mkdir(&dir, 0o555),
        Op::bind(&file, &file).attr(hidden),
        Op::bind(&dir, &dir).attr(hidden),
    ]
}

/// Hides and protects, with the sources at `base`.
pub(crate) fn operations(base: &str, with_sysfs: bool) -> Vec<Op> {
    let wanted = |path: &&&str| with_sysfs || !path.starts_with("/sys");
    let c = |path: &str| CString::new(path).unwrap_or_default();
    let mask = |path: &&str| Op {
        source: Some(c(&format!("{base}mask-file"))),
        source2: Some(c(&format!("{base}mask-dir"))),
        ..Op::new(FsKind::Mask, &c(path))
    };
    let readonly = |path: &&str| Op::new(FsKind::Readonly, &c(path));
    masked_paths()
        .iter()
        .filter(wanted)
        .map(mask)
        .chain(readonly_paths().iter().map(readonly))
        .map(|op| op.in_root().flags(plan::NO_SYMLINKS))
        .collect()
}
