//! What was set is read back, by other calls than those that set it: a kernel, a security module or a filter around us may say
//! that something was done which was not. A start whose reading differs from its plan fails.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::part::{MARK, MARK_ERRNO, Part, READING, READING_SIZE};
use crate::plan::{FsKind, FsOp, MEASURE, QUICK, READ_BACK, Str, Topology};
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys;
use crate::{At, Done, Failure};

const PR_GET_DUMPABLE: i32 = 3;
const PR_GET_PDEATHSIG: i32 = 2;
const PR_CAPBSET_READ: i32 = 23;
const PR_GET_NO_NEW_PRIVS: i32 = 39;
const PR_CAP_AMBIENT: i32 = 47;
const PR_CAP_AMBIENT_IS_SET: usize = 1;

/// Fails unless both are the same.
pub fn expect(plan: &PlanFile, part: Part, expected: u64, found: u64) -> Done {
    if expected == found { Ok(()) } else { Err(differs(plan, part, expected, found)) }
}

/// The failure, of which the library hears the two numbers first.
pub fn differs(plan: &PlanFile, part: Part, expected: u64, found: u64) -> Failure {
    // A program in a running container has closed the socket by then.
    if plan.topology != Topology::Exec {
        let mut message = [READING; READING_SIZE];
        let numbers = expected.to_ne_bytes().into_iter().chain(found.to_ne_bytes());
        message.iter_mut().skip(1).zip(numbers).for_each(|(to, from)| *to = from);
        sys::send(plan.socket, &message, -1);
    }
    Failure(Step::ReadBack, part as usize, sys::EPROTO)
}

/// The mount that `/` is on. It is another one in each copy of a mount namespace.
pub fn root_mount() -> Result<u64, Failure> {
    sys::mount_id(sys::AT_FDCWD, c"/".as_ptr().cast()).at_index(Step::ReadBack, Part::Mounts as usize)
}

/// A link below `/proc/self/ns`, as a number; none without a procfs.
pub fn namespace(plan: &PlanFile, path: sys::CStr) -> Option<u64> {
    let mut text = [0u8; 64];
    let len = if plan.proc < 0 { return None } else { sys::readlinkat(plan.proc, path, &mut text).ok()? };
    let digits = text.get(..len)?.iter().filter(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number: u64, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))))
}

/// `before`: the namespace that was ours before we made another one.
pub fn is_new(plan: &PlanFile, part: Part, before: Option<u64>, path: sys::CStr) -> Done {
    match (before, namespace(plan, path)) {
        (Some(before), Some(now)) if before == now => Err(differs(plan, part, 0, now)),
        _ => Ok(()),
    }
}

/// We are in the namespace with this inode. Of pid namespaces it is our children who are.
pub fn has_joined(plan: &PlanFile, flags: u32, inode: u64) -> Done {
    const LINKS: [(u32, sys::CStr); 8] = [
        (0x80, c"self/ns/time".as_ptr().cast()),
        (0x2_0000, c"self/ns/mnt".as_ptr().cast()),
        (0x0200_0000, c"self/ns/cgroup".as_ptr().cast()),
        (0x0400_0000, c"self/ns/uts".as_ptr().cast()),
        (0x0800_0000, c"self/ns/ipc".as_ptr().cast()),
        (0x1000_0000, c"self/ns/user".as_ptr().cast()),
        (0x2000_0000, c"self/ns/pid_for_children".as_ptr().cast()),
        (0x4000_0000, c"self/ns/net".as_ptr().cast()),
    ];
    let link = LINKS.iter().find(|(flag, _)| *flag == flags);
    match link.and_then(|(_, path)| namespace(plan, *path)) {
        Some(found) => expect(plan, Part::Joined, inode, found),
        None => Ok(()),
    }
}

/// The network namespace is another one than that in which the report socket was made.
pub fn network_is_new(plan: &PlanFile) -> Done {
    let part = Part::Net as usize;
    // Kernels before 5.14 have no cookie.
    let Ok(theirs) = sys::network_cookie(plan.socket) else { return Ok(()) };
    let socket = crate::files::Fd(sys::local_socket().at_index(Step::ReadBack, part)?);
    let ours = sys::network_cookie(socket.0).at_index(Step::ReadBack, part)?;
    if ours == theirs { Err(differs(plan, Part::Net, 0, ours)) } else { Ok(()) }
}

/// Who is about to fork, and whose child that is. In another pid namespace one of the two numbers can be the same again.
#[derive(Clone, Copy, PartialEq)]
pub struct Forker(i32, i32);

impl Forker {
    pub fn now() -> Forker {
        Forker(sys::getpid(), sys::getppid())
    }
}

/// Who forked us is somebody else; and in a new pid namespace we are the first.
pub fn is_own_process(plan: &PlanFile, above: Forker, is_first: bool) -> Done {
    let own = Forker::now();
    if is_first {
        expect(plan, Part::Process, 1, own.0 as u64)
    } else if own == above {
        Err(differs(plan, Part::Process, 0, own.0 as u64))
    } else {
        Ok(())
    }
}

/// Host and domain name; those that are empty were not set.
pub fn names(plan: &PlanFile, hostname: &[u8], domainname: &[u8]) -> Done {
    const LENGTH: usize = 65;
    let mut uname = [0u8; 6 * LENGTH];
    for (part, wanted, place) in [(Part::Hostname, hostname, 1), (Part::Domainname, domainname, 5)] {
        if wanted.is_empty() {
            continue;
        }
        sys::uname(&mut uname).at_index(Step::ReadBack, part as usize)?;
        let found = uname.get(place * LENGTH..).unwrap_or(&[]);
        if found.get(..wanted.len()) != Some(wanted) || found.get(wanted.len()) != Some(&0) {
            return Err(differs(plan, part, 0, 0));
        }
    }
    Ok(())
}

/// Of the first descriptors none is open but those of `keep`, which ascend.
pub fn descriptors_are_closed(plan: &PlanFile, keep: &[i32]) -> Done {
    const MANY: usize = 128;
    const POLLNVAL: i16 = 32;
    let mut fds = [sys::PollFd { fd: 0, events: 0, revents: 0 }; MANY];
    for (number, slot) in fds.iter_mut().enumerate() {
        slot.fd = number as i32;
    }
    let mut fds = fds.as_mut_slice();
    if poll(fds) == Err(sys::EINVAL) {
        // As many as a process may have open here, which is fewer.
        const RLIMIT_NOFILE: u64 = 7;
        let part = Part::Descriptors as usize;
        let [most, _] = sys::get_limit(RLIMIT_NOFILE).at_index(Step::ReadBack, part)?;
        fds = fds.split_at_mut(MANY.min(most as usize)).0;
        poll(fds).at_index(Step::ReadBack, part)?;
    }
    let is_other = |slot: &&sys::PollFd| slot.revents & POLLNVAL == 0 && !keep.contains(&slot.fd);
    match fds.iter().find(is_other) {
        Some(open) => Err(differs(plan, Part::Descriptors, 0, open.fd as u64)),
        None => Ok(()),
    }
}

/// What a signal interrupts says nothing of any descriptor.
fn poll(fds: &mut [sys::PollFd]) -> sys::Result {
    loop {
        match sys::poll_for(fds, 0) {
            Err(sys::EINTR) => {}
            other => return other,
        }
    }
}

/// The payload gets none of the launcher's own descriptors.
pub fn descriptors_end(plan: &PlanFile, is_closed_already: bool) -> Done {
    const FD_CLOEXEC: usize = 1;
    let list = plan.list(plan.fds);
    // Where a listener goes has moved, perhaps to the number of one that is closed.
    let is_none_of_them = |fd: i32| fd != plan.handover && list.iter().all(|map| map.to != fd);
    for &fd in plan.list(plan.keep).iter().filter(|&&fd| is_none_of_them(fd)) {
        match sys::descriptor_flags(fd) {
            Err(_) => {}
            Ok(flags) if flags & FD_CLOEXEC != 0 && !is_closed_already => {}
            Ok(_) => return Err(differs(plan, Part::Descriptors, 0, fd as u64)),
        }
    }
    Ok(())
}

/// What was dropped from the bounding set is not in it.
pub fn bounding_set(plan: &PlanFile, wanted: u64) -> Done {
    for capability in (0..64).filter(|bit| wanted >> bit & 1 == 0) {
        match sys::prctl(PR_CAPBSET_READ, capability, 0) {
            Err(sys::EINVAL) => break,
            Ok(0) => {}
            _ => return Err(differs(plan, Part::Bounding, wanted, wanted | 1 << capability)),
        }
    }
    Ok(())
}

/// The three sets of capget(2), and the ambient one.
pub fn capabilities(plan: &PlanFile, [effective, permitted, inheritable]: [u64; 3], ambient: u64) -> Done {
    let found = sys::capget().at_index(Step::ReadBack, Part::Effective as usize)?;
    expect(plan, Part::Effective, effective, found[0])?;
    expect(plan, Part::Permitted, permitted, found[1])?;
    expect(plan, Part::Inheritable, inheritable, found[2])?;
    // No others can be ambient.
    for capability in (0..64).filter(|bit| (permitted & inheritable) >> bit & 1 != 0) {
        let is_set = matches!(sys::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability), Ok(1..));
        if is_set != (ambient >> capability & 1 != 0) {
            return Err(differs(plan, Part::Ambient, ambient, ambient ^ 1 << capability));
        }
    }
    Ok(())
}

/// Real, effective and saved id.
pub fn ids(plan: &PlanFile, part: Part, wanted: u32, found: sys::Result<[u32; 3]>) -> Done {
    let found = found.at_index(Step::ReadBack, part as usize)?;
    let other = found.iter().copied().find(|id| *id != wanted).unwrap_or(wanted);
    expect(plan, part, u64::from(wanted), u64::from(other))
}

/// The kernel sorts them.
pub fn groups(plan: &PlanFile, wanted: &[u32]) -> Done {
    let mut found = [0u32; 64];
    let count = sys::group_count().at_index(Step::ReadBack, Part::Groups as usize)?;
    expect(plan, Part::Groups, wanted.len() as u64, count as u64)?;
    if count == 0 || count > found.len() {
        return Ok(());
    }
    sys::getgroups(&mut found).at_index(Step::ReadBack, Part::Groups as usize)?;
    match found.iter().take(count).find(|group| !wanted.contains(group)) {
        Some(other) => Err(differs(plan, Part::Groups, u64::from(wanted[0]), u64::from(*other))),
        None => Ok(()),
    }
}

pub fn no_new_privileges(plan: &PlanFile) -> Done {
    expect(plan, Part::NoNewPrivileges, 1, sys::prctl(PR_GET_NO_NEW_PRIVS, 0, 0).unwrap_or(0) as u64)
}

pub fn not_dumpable(plan: &PlanFile) -> Done {
    expect(plan, Part::Dumpable, 0, sys::prctl(PR_GET_DUMPABLE, 0, 0).unwrap_or(1) as u64)
}

pub fn parent_death(plan: &PlanFile, signal: i32) -> Done {
    let mut found = 0i32;
    let _ = sys::prctl(PR_GET_PDEATHSIG, (&raw mut found) as usize, 0);
    expect(plan, Part::ParentDeath, signal as u64, found as u64)
}

/// Lets the library look at us from outside, as we are but for the filter, and waits for its word.
pub fn from_outside(plan: &PlanFile) -> Done {
    if !plan.has(MEASURE) {
        return Ok(());
    }
    crate::report(plan, Step::LookAtMe, 0, sys::getpid(), -1);
    crate::wait_for_go(plan)
}

/// Every filter of a start begins with a question that it alone answers so.
pub fn filter_answers() -> Done {
    match sys::prctl(MARK as i32, 0, 0) {
        Err(errno) if errno == MARK_ERRNO as i32 => Ok(()),
        // It may refuse every call by now: nothing more is said.
        _ => Err(Failure(Step::ReadBack, Part::Seccomp as usize, sys::EPROTO)),
    }
}

/// A detached tree has these `MOUNT_ATTR_*`, as far as they are the first four.
pub fn attributes(plan: &PlanFile, tree: i32, wanted: u64) -> Done {
    let wanted = wanted & 0xf;
    if wanted == 0 {
        return Ok(());
    }
    let found = sys::statfs_flags(tree).at(Step::ReadMount)? & 0xf;
    if found & wanted == wanted {
        return Ok(());
    }
    let Failure(_, _, errno) = differs(plan, Part::Mounts, wanted, found);
    Err(Failure(Step::ReadMount, 0, errno))
}

/// Up to which operation the mounts have been looked at.
static LOOKED_AT: AtomicU64 = AtomicU64::new(0);

/// Looks at what the operations before `end` that the library has chosen have mounted or protected, in the root that is ours by
/// now. What was passed over is not there, and what covers the rest is not writable.
pub fn mounts(plan: &PlanFile, end: usize) -> Done {
    let begin = LOOKED_AT.swap(end as u64, Ordering::Relaxed) as usize;
    let mut is_in_proc = false;
    for (index, op) in plan.list(plan.fs).iter().enumerate().take(end).skip(begin) {
        if op.flags & READ_BACK == 0 {
            continue;
        }
        if op.flags & QUICK != 0 && !is_in_proc {
            is_in_proc = true;
            sys::chdir(c"/proc".as_ptr().cast()).at_index(Step::ReadMount, index)?;
        }
        mount(plan, index, op)?;
    }
    if is_in_proc {
        sys::chdir(c"/".as_ptr().cast()).at(Step::ReadMount)?;
    }
    Ok(())
}

fn mount(plan: &PlanFile, index: usize, op: &FsOp) -> Done {
    const READ_ONLY: u64 = 1;
    const KINDS: [(&[u8], u64); 5] = [
        (b"tmpfs", 0x0102_1994),
        (b"proc", PROC),
        (b"sysfs", 0x6265_6572),
        (b"devpts", 0x1cd1),
        (b"mqueue", 0x1980_0202),
    ];
    const PROC: u64 = 0x9fa0;
    let (kind, flags) = match sys::statfs(plan.str(op.path)) {
        // Neither was there anything to do.
        Err(sys::ENOENT | sys::ENOTDIR) => return Ok(()),
        other => other.at_index(Step::ReadMount, index)?,
    };
    let wanted = match op.kind {
        FsKind::Mask | FsKind::Readonly => READ_ONLY,
        _ => op.attr_set & 0xf,
    };
    // Of mounts of a type the type is looked at, too; what is masked is in a procfs.
    let is_bare = match op.kind {
        FsKind::Mask => kind == PROC,
        FsKind::Mount if op.source != Str(0) => {
            KINDS.iter().any(|(name, magic)| *name == plan.text(op.source) && *magic != kind)
        }
        _ => false,
    };
    if flags & wanted == wanted && !is_bare {
        return Ok(());
    }
    let Failure(_, _, errno) = differs(plan, Part::Mounts, wanted, flags & 0xf);
    Err(Failure(Step::ReadMount, index, errno))
}
