//! Launchers that run no program: they make a namespace or a root, or work in a container that runs.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};

use super::{Starting, go};
use crate::copy::Root;
use crate::error::{At, Result, Step};
use crate::namespace::idmap;
use crate::namespace::idmap::IdMap;
use crate::process::plan::{self, Inside};
use crate::process::watched::Above;
use crate::rootfs::ops::Ops;
use crate::spec::Spec;
use crate::sys::clone;

/// Makes a mount namespace by `ops`; `take` gets hold of it by the pid of who is in it.
pub(crate) fn make_mount_namespace<T>(ops: &Ops, take: impl FnOnce(i32) -> Result<T>) -> Result<T> {
    let prepared = plan::prepare_mount_namespace(ops);
    let mut starting = Starting::start(prepared, None, Instant::now(), &mut || false)?;
    let Some(message) = starting.next_message(&mut || false)? else { return Err(starting.died_early()) };
    match (Step::from_number(message.report.step), starting.waiter.as_ref().and_then(Above::launcher_pid)) {
        (Some(Step::Ready), Some(pid)) => {
            let result = take(pid);
            go(&starting.socket).at(Step::Report, "send", "")?;
            result
        }
        _ => Err(starting.failure(&message.report)),
    }
}

/// Makes the root of a container as it is without the caller's mounts, and lets `look` look at it.
pub(crate) fn look_at_root<T>(
    spec: &Spec,
    interrupted: &mut dyn FnMut() -> bool,
    look: impl FnOnce(&Root, &mut dyn FnMut() -> bool) -> Result<T>,
) -> Result<T> {
    let prepared = plan::prepare_look(spec, clone::have_clone3())?;
    let mut starting = Starting::start(prepared, None, Instant::now(), &mut || false)?;
    let mut is_waiting = starting.prepared.needs_answer();
    let pid = loop {
        let Some(message) = starting.next_message(interrupted)? else { return Err(starting.died_early()) };
        match Step::from_number(message.report.step) {
            Some(Step::Ready) if is_waiting => starting.answer(message.pid, &mut |_| Ok(()))?,
            Some(Step::Ready) => break message.pid.or(starting.waiter.as_ref().and_then(Above::launcher_pid)),
            _ => return Err(starting.failure(&message.report)),
        }
        is_waiting = false;
    };
    let path = PathBuf::from(format!("/proc/{}/root", pid.unwrap_or_default()));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&path, flags, Mode::empty()).at(Step::OpenRoot, "open", &path)?;
    look(&Root::of(dir, path), interrupted)
}

/// Carries out operations on the file system inside a running container.
pub(crate) fn carry_out_inside(inside: Inside, ops: Ops) -> Result<()> {
    let mut starting = Starting::start(plan::prepare_inside(inside, ops)?, None, Instant::now(), &mut || false)?;
    let Some(message) = starting.next_message(&mut || false)? else { return Err(starting.died_early()) };
    match Step::from_number(message.report.step) {
        Some(Step::Ready) => Ok(()),
        _ => Err(starting.failure(&message.report)),
    }
}

/// A user namespace with these maps and nobody in it, for the ids of a mount.
pub(crate) fn make_user_namespace(uid: &[IdMap], gid: &[IdMap]) -> Result<OwnedFd> {
    let maps = idmap::ReadyMaps::of_root(uid.to_vec(), gid.to_vec());
    let mut starting = Starting::start(plan::prepare_user_namespace(maps), None, Instant::now(), &mut || false)?;
    let Some(message) = starting.next_message(&mut || false)? else { return Err(starting.died_early()) };
    let (Some(Step::Ready), Some(pid)) = (Step::from_number(message.report.step), message.pid) else {
        return Err(starting.failure(&message.report));
    };
    if let Some(maps) = &starting.prepared.maps {
        idmap::write(pid, maps)?;
    }
    let path = format!("/proc/{pid}/ns/user");
    std::fs::File::open(&path).map(OwnedFd::from).at(Step::OpenNamespace, "open", path)
}

/// A launcher that serves in a user namespace with these maps, behind its socket; see [`super::deputy`]. Dropping it ends it.
pub(crate) fn start_deputy(maps: idmap::ReadyMaps) -> Result<Starting> {
    let mut starting = Starting::start(plan::prepare_deputy(maps), None, Instant::now(), &mut || false)?;
    let mut is_mapped = false;
    loop {
        let Some(message) = starting.next_message(&mut || false)? else { return Err(starting.died_early()) };
        match Step::from_number(message.report.step) {
            Some(Step::Ready) if !is_mapped => starting.answer(message.pid, &mut |_| Ok(()))?,
            Some(Step::Ready) => return Ok(starting),
            _ => return Err(starting.failure(&message.report)),
        }
        is_mapped = true;
    }
}
