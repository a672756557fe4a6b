//! Paths of `/proc` and `/sys` that are hidden or read-only: OCI `maskedPaths` and `readonlyPaths`, with the lists that
//! Docker's engine uses, and what tells of the kernel's own memory and addresses.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use zind_init::plan::{self, FsKind};

use super::ops::{Op, attr};

pub(crate) const MASKED: [&str; 19] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/pagetypeinfo",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

pub(crate) const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const CPUS: &str = "/sys/devices/system/cpu";
const THROTTLE: &str = "thermal_throttle";

/// Whether a path is what Intel's CPUs have each, and what is masked too: how often one was too hot tells what others do there.
pub(crate) fn is_throttle(path: &str) -> bool {
    let cpu = path.strip_prefix(CPUS).and_then(|rest| rest.strip_suffix(THROTTLE)).unwrap_or_default();
    cpu.strip_prefix('/').and_then(|cpu| cpu.strip_suffix('/')).is_some_and(is_cpu)
}

/// `cpu` and a number.
fn is_cpu(name: &str) -> bool {
    let number = name.strip_prefix("cpu").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Of the CPUs in a directory like that.
fn throttles(cpus: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(cpus) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<String> = names
        .filter(|name| is_cpu(name) && cpus.join(name).join(THROTTLE).is_dir())
        .map(|name| format!("{}/{name}/{THROTTLE}", cpus.display()))
        .collect();
    found.sort();
    found
}

/// The masked paths this kernel has: another procfs of it has the same. What the machine's root alone may read needs no mask where
/// the caller is neither that nor has any capability: nobody in a container of theirs is.
pub(crate) fn masked_paths() -> &'static [&'static str] {
    static FOUND: OnceLock<[Vec<&'static str>; 2]> = OnceLock::new();
    let [all, of_everybody] = FOUND.get_or_init(|| {
        let mut all = present(&MASKED);
        // Once in a process: they are as static as the others.
        all.extend(throttles(Path::new(CPUS)).into_iter().map(|path| &*path.leak()));
        let of_everybody = all.iter().copied().filter(|path| !is_roots_alone(Path::new(path))).collect();
        [all, of_everybody]
    });
    let has_none = || rustix::thread::capabilities(None).is_ok_and(|sets| sets.permitted.is_empty());
    if !rustix::process::geteuid().is_root() && has_none() { of_everybody } else { all }
}

/// A file of root's that nobody else may read.
fn is_roots_alone(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.mode() & 0o077 == 0)
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

/// Hides and protects what is in `/proc`, with the sources at `base`. No part of a path may be a link: the
/// caller may have mounted something of somebody else's there.
pub(crate) fn operations(base: &str) -> Vec<Op> {
    let masks = masked_paths().iter().filter(|path| path.starts_with("/proc/")).map(|path| mask(base, path));
    let readonly = readonly_paths().iter().map(|path| Op::new(FsKind::Readonly, &c(path)));
    masks.chain(readonly).map(|op| op.in_root().flags(plan::NO_SYMLINKS)).collect()
}

/// What is masked and read-only in `/proc`, by name, with the sources at absolute paths: it is below a procfs that was just
/// mounted, and nobody else is in it yet.
pub(crate) fn quick_operations() -> Vec<Op> {
    let below = |path: &&str| path.strip_prefix("/proc/").map(str::to_owned);
    let quick = |path: String| {
        let mut op = mask("/", &path).flags(plan::QUICK);
        // The likelier one first: the kernel takes its time to refuse a file over a directory.
        if Path::new("/proc").join(&path).is_dir() {
            std::mem::swap(&mut op.source, &mut op.source2);
        }
        op
    };
    let flags = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let readonly = |path: String| Op::new(FsKind::Readonly, &c(&path)).attr(flags).flags(plan::QUICK);
    let mut ops = vec![Op::new(FsKind::Enter, c"/proc").in_root().flags(plan::NO_SYMLINKS)];
    ops.extend(masked_paths().iter().filter_map(below).map(quick));
    ops.extend(readonly_paths().iter().filter_map(below).map(readonly));
    ops.push(Op::new(FsKind::Leave, c"/"));
    ops
}

/// What is masked in `/sys`, with nothing but new file systems: the sources are out of reach once the root has changed.
pub(crate) fn sysfs_operations() -> Vec<Op> {
    let hidden = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let mount = |path: &&str| {
        // The caller may have mounted something else at /sys.
        let flags = plan::NO_SYMLINKS | plan::OPTIONAL;
        Op::mount(c"tmpfs", &c(path), &[("size", "4k")], hidden).in_root().flags(flags)
    };
    masked_paths().iter().filter(|path| path.starts_with("/sys/")).map(mount).collect()
}

fn mask(base: &str, path: &str) -> Op {
    let (source, source2) = (Some(c(&format!("{base}mask-file"))), Some(c(&format!("{base}mask-dir"))));
    Op { source, source2, ..Op::new(FsKind::Mask, &c(path)) }
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_cpu_tells_of_its_heat_is_masked() {
        let temp = std::env::temp_dir().join(format!("zind-test-cpus-{}", std::process::id()));
        for path in ["cpu0/thermal_throttle", "cpu11/thermal_throttle", "cpu2/cache", "cpufreq/thermal_throttle", "cpu"]
        {
            std::fs::create_dir_all(temp.join(path)).unwrap();
        }
        let found = throttles(&temp);
        std::fs::remove_dir_all(&temp).unwrap();
        assert_eq!(found, ["cpu0", "cpu11"].map(|cpu| format!("{}/{cpu}/thermal_throttle", temp.display())));
        assert_eq!(throttles(&temp), Vec::<String>::new());
        assert!(is_throttle("/sys/devices/system/cpu/cpu0/thermal_throttle"));
        for other in ["cpu/thermal_throttle", "cpu0x/thermal_throttle", "cpu0/../cpu1/thermal_throttle", "cpu0/cache"] {
            assert!(!is_throttle(&format!("{CPUS}/{other}")), "{other}");
        }
    }
}
