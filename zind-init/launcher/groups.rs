//! The control groups that somebody else has been moving us into meanwhile.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::part::Part;
use crate::plan::CGROUP_NAMESPACE;
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys;
use crate::{At, Done, Failure, measured};

const CLONE_NEWCGROUP: u64 = 0x0200_0000;
/// No element of a list.
const NOBODY: usize = u16::MAX as usize;

static JOINED: AtomicBool = AtomicBool::new(false);

/// Waits until we are in our groups, which have to be everybody's who comes after us; then they are the roots of a new
/// namespace. The second time nothing happens.
pub fn join(plan: &PlanFile) -> Done {
    if JOINED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    if plan.groups_ready >= 0 {
        wait(plan)?;
    }
    if plan.has(CGROUP_NAMESPACE) {
        let link: sys::CStr = c"self/ns/cgroup".as_ptr().cast();
        let before = measured::namespace(plan, link);
        sys::unshare(CLONE_NEWCGROUP).at_index(Step::Unshare, NOBODY)?;
        measured::is_new(plan, Part::Cgroup, before, link)?;
    }
    Ok(())
}

fn wait(plan: &PlanFile) -> Done {
    let mut fds = [plan.groups_ready, plan.owner].map(sys::PollFd::readable);
    while sys::poll(&mut fds) == Err(sys::EINTR) {}
    if fds[0].revents == 0 {
        // The caller's process is gone.
        return Err(sys::ECHILD).at_index(Step::JoinCgroup, NOBODY);
    }
    let mut told = [0u8; 8];
    if sys::read(plan.groups_ready, &mut told).at_index(Step::JoinCgroup, NOBODY)? != told.len() {
        return Err(sys::ECHILD).at_index(Step::JoinCgroup, NOBODY);
    }
    sys::close(plan.groups_ready);
    let [a, b, c, d, e, f, g, h] = told;
    match i32::from_ne_bytes([e, f, g, h]) {
        0 => Ok(()),
        errno => Err(Failure(Step::JoinCgroup, i32::from_ne_bytes([a, b, c, d]) as usize, errno)),
    }
}
