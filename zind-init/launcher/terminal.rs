//! The payload's terminal: of the container's own devpts, so that it has a name there.

use crate::files::Fd;
use crate::plan::UID;
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys::{self, AT_FDCWD, CStr};
use crate::{At, Done, report};

const PTMX: CStr = c"dev/pts/ptmx".as_ptr().cast();

/// Makes one in the root that we are in, for a payload whose ids we do not have yet, and hands its other end over.
pub fn open_here(plan: &PlanFile) -> Done {
    let root = Fd(sys::openat(AT_FDCWD, c"/".as_ptr().cast(), sys::O_PATH | sys::O_DIRECTORY, 0).at(Step::Terminal)?);
    if plan.has(UID) {
        // It belongs to who opens it.
        sys::setfsuid(plan.uid);
    }
    open(plan, root.0).at(Step::Terminal).map(drop)
}

/// Makes one below `root`, gives it to the payload's user, and hands its other end over. The terminal itself.
pub fn open(plan: &PlanFile, root: i32) -> sys::Result<i32> {
    const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
    // No link, and no file system but devpts: the container may have put anything there (CVE-2025-52565).
    let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_SYMLINKS | sys::RESOLVE_NO_MAGICLINKS;
    let place = Fd(sys::openat2(root, PTMX, sys::O_PATH, resolve)?);
    if sys::statfs_type(place.0)? != DEVPTS_SUPER_MAGIC {
        return Err(sys::ENODEV);
    }
    let master = Fd(sys::openat2(root, PTMX, sys::O_RDWR | sys::O_NOCTTY, resolve)?);
    if sys::fstat(master.0)?.identity() != sys::fstat(place.0)?.identity() {
        return Err(sys::ESTALE);
    }
    sys::unlock_terminal(master.0)?;
    let terminal = Fd(sys::terminal_of(master.0)?);
    let (rows, cols) = (plan.terminal_size as u16, (plan.terminal_size >> 16) as u16);
    sys::set_window_size(master.0, rows, cols)?;
    if plan.has(UID) {
        // Refused where the ids of who opened it are not known here; then it goes by its descriptors alone.
        let _ = sys::fchown(terminal.0, plan.uid, u32::MAX);
    }
    sys::dup_to(terminal.0, plan.terminal)?;
    report(plan, Step::HandedTerminal, 0, 0, master.0);
    Ok(plan.terminal)
}
