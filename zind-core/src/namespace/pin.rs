//! Keeping a namespace by binding it to a file, as `unshare --net=FILE` and `ip netns add` do.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};

use super::kind::Kind;
use crate::error::{At, Result, Step};

/// Binds namespaces of the process `pid` to files; undoes all of it if one fails.
pub(crate) fn pin(pid: i32, pins: &[(Kind, PathBuf)]) -> Result<()> {
    for (done, (kind, path)) in pins.iter().enumerate() {
        if let Err(error) = pin_one(pid, *kind, path) {
            pins[..done].iter().for_each(|(_, path)| unpin(path));
            return Err(error.with_hint("binding a namespace to a file needs root in the caller's mount namespace"));
        }
    }
    Ok(())
}

fn pin_one(pid: i32, kind: Kind, path: &Path) -> Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).open(path).is_ok();
    // Children's, because a pid namespace made by unshare(2) does not hold its maker.
    let name = if kind == Kind::Pid { "pid_for_children" } else { kind.name() };
    let source = PathBuf::from(format!("/proc/{pid}/ns/{name}"));
    let result = nix::mount::mount(Some(&source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    if result.is_err() && created {
        let _ = std::fs::remove_file(path);
    }
    result.at(Step::Pin, "mount", path)
}

/// Gives a pinned namespace up; the file stays.
pub(crate) fn unpin(path: &Path) {
    let _ = nix::mount::umount2(path, MntFlags::MNT_DETACH);
}
