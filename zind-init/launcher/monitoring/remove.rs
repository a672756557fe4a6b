//! Deleting a container that has ended, as the library would.

use super::events::lock;
use crate::files::Fd;
use crate::monitor::Monitor;
use crate::planfile::PlanFile;
use crate::sys::{self, CStr, O_DIRECTORY, O_NOFOLLOW, O_RDWR};

/// How long somebody else may be at it.
const PATIENCE: u64 = 2_000_000_000;
/// Of an entry of a directory: where its type and its name are.
const TYPE: usize = 18;
const NAME: usize = 19;
const DT_DIR: u8 = 4;
const HERE: CStr = c".".as_ptr().cast();

/// Takes the container away, with its name and its files. False: somebody else is at it, or nothing could be changed; then it
/// is left as it is. `room` is for lists of directories.
pub fn remove(plan: &PlanFile, monitor: &Monitor, room: &mut [u8]) -> bool {
    if monitor.home < 0 || take_away(plan, monitor, room).is_err() {
        return false;
    }
    let _ = sys::unlink(monitor.home, plan.str(monitor.mark));
    while remove_files(monitor.dir, room) {}
    // What is not empty now the next one to open the place sees to.
    let _ = sys::rmdir_at(monitor.home, plan.str(monitor.trash));
    true
}

/// Out of the sight of everybody, in one step.
fn take_away(plan: &PlanFile, monitor: &Monitor, room: &mut [u8]) -> sys::Result<()> {
    let deadline = sys::now_ns(true) + PATIENCE;
    let state = Fd(sys::openat(monitor.dir, c"lock".as_ptr().cast(), O_RDWR | O_NOFOLLOW, 0)?);
    lock(state.0, deadline)?;
    // A descriptor of our own: a lock belongs to those who share one.
    let names = Fd(sys::openat(monitor.names, HERE, O_DIRECTORY, 0)?);
    lock(names.0, deadline)?;
    sys::rename(monitor.home, plan.str(monitor.id), plan.str(monitor.trash))?;
    each(names.0, room, |name, _| {
        let mut found = [0u8; 65];
        let is_its =
            sys::readlinkat(names.0, name, &mut found) == Ok(64) && found.get(..64) == Some(plan.text(monitor.id));
        if is_its {
            let _ = sys::unlink(names.0, name);
        }
        is_its
    });
    Ok(())
}

/// One pass over the files of a directory; true if some went.
fn remove_files(dir: i32, room: &mut [u8]) -> bool {
    let Ok(open) = sys::openat(dir, HERE, O_DIRECTORY, 0).map(Fd) else { return false };
    let mut went = false;
    each(open.0, room, |name, kind| {
        went |= kind != DT_DIR && sys::unlink(dir, name).is_ok();
        false
    });
    went
}

/// Every entry of a directory by name and type, until `is_done`.
fn each(dir: i32, room: &mut [u8], mut is_done: impl FnMut(CStr, u8) -> bool) {
    while let Ok(len @ 1..) = sys::getdents(dir, room) {
        let mut at = 0;
        while let Some(entry) = room.get(at..len).filter(|entry| entry.len() > NAME) {
            let step = usize::from(u16::from_ne_bytes([entry[16], entry[17]]));
            if step == 0 || is_done(entry.as_ptr().wrapping_add(NAME), entry[TYPE]) {
                return;
            }
            at += step;
        }
    }
}
