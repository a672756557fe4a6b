//! `/dev`: six devices, the links of the standard streams, and nothing of the host's.
#![forbid(unsafe_code)]

use std::ffi::CString;

use zind_init::plan::{self, FsKind};

use super::ops::{Op, attr};

/// Name, major, minor.
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

const DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];

const S_IFCHR: u32 = 0o020_000;

/// The devices of a container's `/dev`, for the isolation report.
pub(crate) fn names() -> Vec<String> {
    DEVICES.iter().map(|(name, ..)| format!("/dev/{name}")).collect()
}

fn path(base: &str, name: &str) -> CString {
    CString::new(format!("{base}/{name}")).unwrap_or_default()
}

/// A `/dev` in the staging area, with nodes of its own: needs `CAP_MKNOD` in the initial user namespace. `open`: the caller
/// will mount something into it.
pub(crate) fn with_nodes(base: &str, open: bool) -> Vec<Op> {
    let mut ops = vec![
        Op::mkdir(&path(base, ""), 0o755),
        Op::mount(c"tmpfs", &path(base, ""), &[("mode", "0755"), ("size", "64k")], attr::NOSUID | attr::NOEXEC),
    ];
    for (name, major, minor) in DEVICES {
        let device = (minor & 0xff) | (major << 8);
        ops.push(Op { device, mode: S_IFCHR | 0o666, ..Op::new(FsKind::Mknod, &path(base, name)) });
    }
    ops.extend(furniture(base, 0));
    if !open {
        ops.push(Op::new(FsKind::Setattr, &path(base, "")).attr(attr::RDONLY));
    }
    ops
}

/// A `/dev` in the container's root, with the host's nodes bound into it: works without privilege.
pub(crate) fn with_binds(open: bool) -> Vec<Op> {
    let mut ops = vec![
        Op::mount(c"tmpfs", c"/dev", &[("mode", "0755"), ("size", "64k")], attr::NOSUID | attr::NOEXEC)
            .in_root()
            .flags(plan::CREATE | plan::NO_SYMLINKS),
    ];
    for (name, ..) in DEVICES {
        let bind = Op::bind(&path("/dev", name), &path("/dev", name));
        // The host's own node: who is its owner inside must not change its mode.
        ops.push(bind.attr(attr::RDONLY).in_root().flags(plan::CREATE | plan::NO_SYMLINKS));
    }
    ops.extend(furniture("/dev", plan::IN_ROOT));
    if !open {
        ops.push(Op::new(FsKind::Setattr, c"/dev").attr(attr::RDONLY).in_root().flags(plan::NO_SYMLINKS));
    }
    ops
}

fn furniture(base: &str, flags: u32) -> Vec<Op> {
    let dirs = DIRECTORIES.iter().map(|name| Op::mkdir(&path(base, name), 0o755).flags(flags));
    let links = LINKS
        .iter()
        .map(|(target, name)| Op::symlink(&CString::new(*target).unwrap_or_default(), &path(base, name)).flags(flags));
    dirs.chain(links).collect()
}
