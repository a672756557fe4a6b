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

/// Hides and protects, with the sources at `base`, in the staging area.
pub(crate) fn operations(base: &str, with_sysfs: bool) -> Vec<Op> {
    let shown = |path: &&&str| with_sysfs || !path.starts_with("/sys");
    let masks = masked_paths().iter().filter(shown).map(|path| mask(base, path));
    let readonly = readonly_paths().iter().map(|path| Op::new(FsKind::Readonly, &c(path)));
    masks.chain(readonly).map(|op| op.in_root().flags(plan::NO_SYMLINKS)).collect()
}

/// The same by name, with the sources at absolute paths. What is named is below a procfs and a sysfs that were just
/// mounted, and nobody else is in them yet.
pub(crate) fn quick_operations(with_sysfs: bool) -> Vec<Op> {
    let mut ops = Vec::new();
    for (top, is_there) in [("/proc", true), ("/sys", with_sysfs)] {
        let below = |path: &str| path.strip_prefix(top).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned);
        if !is_there {
            continue;
        }
        ops.push(Op::new(FsKind::Enter, &c(top)).in_root().flags(plan::NO_SYMLINKS));
        let quick = |path: String| {
            let mut op = mask("/", &path).flags(plan::QUICK);
            // The likelier one first: the kernel takes its time to refuse a file over a directory.
            if Path::new(top).join(&path).is_dir() {
                std::mem::swap(&mut op.source, &mut op.source2);
            }
            op
        };
        ops.extend(masked_paths().iter().filter_map(|path| below(path)).map(quick));
        let flags = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        let readonly = |path: String| Op::new(FsKind::Readonly, &c(&path)).attr(flags).flags(plan::QUICK);
        ops.extend(readonly_paths().iter().filter_map(|path| below(path)).map(readonly));
    }
    ops.push(Op::new(FsKind::Leave, c"/"));
    ops
}

fn mask(base: &str, path: &str) -> Op {
    let (source, source2) = (Some(c(&format!("{base}mask-file"))), Some(c(&format!("{base}mask-dir"))));
    Op { source, source2, ..Op::new(FsKind::Mask, &c(path)) }
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}
