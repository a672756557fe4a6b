//! Joining and making namespaces, and what is set in them before the file system is built.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::part::Part;
use crate::plan::{Enter, FORK_FIRST, LOOPBACK, NEW_NETWORK, OWNER, SETUP_IDS, Str, TEMPLATE, TIME_OFFSETS, Topology};
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys;
use crate::{At, Done, measured};

const PR_SET_DUMPABLE: i32 = 4;
const CLONE_NEWTIME: u32 = 0x80;
pub const CLONE_NEWNS: u32 = 0x2_0000;
const CLONE_NEWPID: u32 = 0x2000_0000;

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
            let before = measured::root_mount()?;
            sys::unshare(u64::from(flags)).at_index(Step::Unshare, index)?;
            let now = measured::root_mount()?;
            if flags & CLONE_NEWNS != 0 && before == now {
                return Err(measured::differs(plan, Part::Mounts, 0, now));
            }
        } else {
            let inode = sys::fstat(fd).at_index(Step::Setns, index)?.identity().1;
            sys::setns(fd, flags).at_index(Step::Setns, index)?;
            sys::close(fd);
            measured::has_joined(plan, flags, inode)?;
        }
    }
    Ok(())
}

/// Ids, clocks, names and the loopback interface of the namespaces we are in.
pub fn set_up(plan: &PlanFile) -> Done {
    if plan.has(SETUP_IDS) {
        become_setup_ids(plan)?;
        // Some are in there already, to whom a root of the host's could be worth something; and in a pid namespace that is joined
        // they see us, whatever else is new. With `fs.suid_dumpable` the change of ids may have made us dumpable.
        let is_seen = |entry: &Enter| entry.fd >= 0 && (plan.has(TEMPLATE) || entry.flags & CLONE_NEWPID != 0);
        let is_visitor = plan.list(plan.enter).iter().any(is_seen);
        // Else the change made /proc/self root's, where nobody else is in the container yet.
        let _ = sys::prctl(PR_SET_DUMPABLE, usize::from(!is_visitor), 0);
        if plan.has(FORK_FIRST) || plan.topology != Topology::Init {
            // It was cleared with the ids.
            crate::payload::die_with_the_watcher(plan)?;
        }
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
    measured::names(plan, plan.text(plan.hostname), plan.text(plan.domainname))?;
    if plan.has(NEW_NETWORK) && plan.network < 0 {
        measured::network_is_new(plan)?;
    }
    if plan.has(LOOPBACK) {
        sys::loopback_up().at(Step::Loopback)?;
    }
    Ok(())
}

/// The user and group of the plan, in the user namespace we are in.
pub fn become_setup_ids(plan: &PlanFile) -> Done {
    sys::setgid(plan.setup_gid).at(Step::SetupIds)?;
    sys::setuid(plan.setup_uid).at_index(Step::SetupIds, 1).map(drop)
}

/// What has been read of `network_ready` so far: the high half says that the namespace is there, the low half how it went
/// with its loopback interface.
static NETWORK: AtomicU64 = AtomicU64::new(0);

/// Joins the network namespace that somebody else has been making meanwhile; waits for it if need be.
pub fn join_network(plan: &PlanFile) -> Done {
    const CLONE_NEWNET: u32 = 0x4000_0000;
    let word = read_network(plan)?;
    if word >> 32 == 0 {
        return Err((word as i32).wrapping_sub(2)).at(Step::Unshare);
    }
    sys::setns(plan.network, CLONE_NEWNET).at(Step::Setns)?;
    measured::network_is_new(plan)
}

/// Waits until the loopback interface of that namespace is up: the last thing before the payload.
pub fn finish_network(plan: &PlanFile) -> Done {
    if plan.network < 0 {
        return Ok(());
    }
    while NETWORK.load(Ordering::Relaxed) as u32 == 0 {
        read_network(plan)?;
    }
    match NETWORK.load(Ordering::Relaxed) as u32 {
        1 => Ok(()),
        errno => Err(errno as i32 - 2).at(Step::Loopback),
    }
}

fn read_network(plan: &PlanFile) -> Result<u64, crate::Failure> {
    let mut fds = [plan.network_ready, plan.network, plan.owner].map(sys::PollFd::readable);
    while sys::poll(&mut fds) == Err(sys::EINTR) {}
    if fds[0].revents == 0 {
        // Its maker is gone, or the caller's process.
        return Err(sys::ECHILD).at(Step::Unshare);
    }
    let mut word = [0u8; 8];
    sys::read(plan.network_ready, &mut word).at(Step::Unshare)?;
    let word = u64::from_ne_bytes(word);
    Ok(NETWORK.fetch_add(word, Ordering::Relaxed) + word)
}

/// Makes the time namespace, if one is wanted.
pub fn set_clocks(plan: &PlanFile) -> Done {
    if plan.has(TIME_OFFSETS) {
        let link: sys::CStr = c"self/ns/time".as_ptr().cast();
        let before = measured::namespace(plan, link);
        enter_new_time_namespace(plan).at(Step::TimeOffsets)?;
        measured::is_new(plan, Part::Time, before, link)?;
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
