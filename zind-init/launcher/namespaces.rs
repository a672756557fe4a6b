//! Joining and making namespaces, and what is set in them before the file system is built.

use crate::plan::{Enter, LOOPBACK, OWNER, SETUP_IDS, Str, TIME_OFFSETS};
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys;
use crate::{At, Done};

const PR_SET_DUMPABLE: i32 = 4;
const CLONE_NEWTIME: u32 = 0x80;

/// Joins and makes namespaces, in the order of the plan.
pub fn enter(plan: &PlanFile) -> Done {
    if plan.has(OWNER) {
        sys::setgroups(&[]).at(Step::Setgroups)?;
        sys::setgid(plan.owner_gid).at(Step::Setgid)?;
        sys::setuid(plan.owner_uid).at(Step::Setuid)?;
    }
    let list = plan.list(plan.enter);
    if list.iter().any(|entry| entry.fd >= 0) {
        // Who is already in there must neither trace us nor take our descriptors (CVE-2016-9962).
        let _ = sys::prctl(PR_SET_DUMPABLE, 0, 0);
    }
    for (index, &Enter { fd, flags }) in list.iter().enumerate() {
        if fd < 0 {
            sys::unshare(u64::from(flags)).at_index(Step::Unshare, index)?;
        } else {
            sys::setns(fd, flags).at_index(Step::Setns, index)?;
            sys::close(fd);
        }
    }
    Ok(())
}

/// Ids, clocks, names and the loopback interface of the namespaces we are in.
pub fn set_up(plan: &PlanFile) -> Done {
    if plan.has(SETUP_IDS) {
        sys::setgid(plan.setup_gid).at(Step::SetupIds)?;
        sys::setuid(plan.setup_uid).at_index(Step::SetupIds, 1)?;
        // The change of ids made /proc/self root's; nobody else is in the container yet.
        let _ = sys::prctl(PR_SET_DUMPABLE, 1, 0);
        // The capabilities came over the execution as ambient ones, which end here: the payload must not inherit them.
        let [effective, permitted, _] = sys::capget().at(Step::SetupIds)?;
        sys::capset(effective, permitted, 0).at(Step::SetupIds)?;
    }
    if plan.hostname != Str(0) {
        sys::sethostname(plan.text(plan.hostname)).at(Step::Hostname)?;
    }
    if plan.domainname != Str(0) {
        sys::setdomainname(plan.text(plan.domainname)).at(Step::Domainname)?;
    }
    if plan.has(LOOPBACK) {
        sys::loopback_up().at(Step::Loopback)?;
    }
    Ok(())
}

/// Joins the network namespace that somebody else has been making meanwhile; waits for it if need be.
pub fn join_network(plan: &PlanFile) -> Done {
    const CLONE_NEWNET: u32 = 0x4000_0000;
    let mut fds = [plan.network_ready, plan.network, plan.owner].map(sys::PollFd::readable);
    while sys::poll(&mut fds) == Err(sys::EINTR) {}
    if fds[0].revents == 0 {
        // Its maker is gone, or the caller's process.
        return Err(sys::ECHILD).at(Step::Unshare);
    }
    let mut word = [0u8; 8];
    sys::read(plan.network_ready, &mut word).at(Step::Unshare)?;
    match u64::from_ne_bytes(word) {
        1 => sys::setns(plan.network, CLONE_NEWNET).at(Step::Setns)?,
        errno => return Err((errno as i32).wrapping_sub(2)).at(Step::Unshare),
    };
    sys::close(plan.network);
    sys::close(plan.network_ready);
    Ok(())
}

/// Makes the time namespace, if one is wanted.
pub fn set_clocks(plan: &PlanFile) -> Done {
    if plan.has(TIME_OFFSETS) {
        enter_new_time_namespace(plan).at(Step::TimeOffsets)?;
    }
    Ok(())
}

/// A time namespace takes offsets only while nobody is in it, so it is made for our children first and entered then.
fn enter_new_time_namespace(plan: &PlanFile) -> sys::Result<()> {
    sys::unshare(u64::from(CLONE_NEWTIME))?;
    let offsets = plan.text(plan.time_offsets);
    if !offsets.is_empty() {
        let file = sys::openat(plan.proc, c"self/timens_offsets".as_ptr().cast(), sys::O_WRONLY, 0)?;
        let result = sys::write_all(file, offsets);
        sys::close(file);
        result?;
    }
    let namespace = sys::openat(plan.proc, c"self/ns/time_for_children".as_ptr().cast(), 0, 0)?;
    let result = sys::setns(namespace, CLONE_NEWTIME);
    sys::close(namespace);
    result.map(drop)
}
