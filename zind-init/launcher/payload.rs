//! The last mile: from a process in a finished container to the payload's program.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::part::Part;
use crate::plan::{
    AMBIENT, CAPABILITIES, FOREGROUND, GID, GROUPS, KEEP_CAPS, KEYRING, LISTENER, MARKED, NICE, NO_NEW_PRIVILEGES,
    NOCTTY, PDEATHSIG, PERSONALITY, PTRACE, SCHEDULER, SECCOMP, SETCTTY, SETPGID, SETSID, Str, Topology, UID, UMASK,
};
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys::{self, AT_FDCWD};
use crate::{At, Done, Failure, hooks, labels, landlock, listener, measured};

const PR_SET_PDEATHSIG: i32 = 1;
const PR_GET_DUMPABLE: i32 = 3;
const PR_SET_DUMPABLE: i32 = 4;
const PR_SET_KEEPCAPS: i32 = 8;
const PR_CAPBSET_READ: i32 = 23;
const PR_CAPBSET_DROP: i32 = 24;
const PR_SET_SECUREBITS: i32 = 28;
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_CAP_AMBIENT: i32 = 47;
const PR_CAP_AMBIENT_RAISE: usize = 2;

/// Becomes the payload; comes back only with a failure.
pub fn become_payload(plan: &mut PlanFile) -> Failure {
    match prepare(plan) {
        Err(failure) => failure,
        Ok(()) => execute(plan),
    }
}

fn prepare(plan: &mut PlanFile) -> Done {
    join_session(plan)?;
    // While procfs is open. It counts for what is executed next, by the hooks, too.
    labels::set(plan)?;
    arrange_descriptors(plan, Others::CloseOnExec)?;
    take_terminal(plan)?;
    hooks::before_the_payload(plan)?;
    settle(plan)?;
    seal(plan)
}

/// Becomes the payload in a process that has its descriptors, limits and ids already.
pub fn become_settled_payload(plan: &mut PlanFile) -> Failure {
    match join_session(plan).and_then(|()| take_terminal(plan)).and_then(|()| seal(plan)) {
        Err(failure) => failure,
        Ok(()) => execute(plan),
    }
}

/// The same in one that has its filter, too.
pub fn become_confined_payload(plan: &mut PlanFile) -> Failure {
    if let Err(failure) = join_session(plan).and_then(|()| die_in_time(plan)) {
        return failure;
    }
    let _ = sys::set_all_signals_blocked(false);
    execute(plan)
}

/// Limits, directory, keyring, ids and capabilities: what takes privileges, and gives them up.
pub fn settle(plan: &PlanFile) -> Done {
    if plan.has(UMASK) {
        sys::umask(plan.umask);
    }
    // Before a limit of open files, and with the rights to look everywhere.
    landlock::make(plan)?;
    for (index, limit) in plan.list(plan.rlimits).iter().enumerate() {
        sys::prlimit(limit.resource, limit.soft, limit.hard).at_index(Step::Rlimit, index)?;
        let [soft, hard] = sys::get_limit(limit.resource).at_index(Step::Rlimit, index)?;
        measured::expect(plan, Part::Rlimit, limit.soft, soft)?;
        measured::expect(plan, Part::Rlimit, limit.hard, hard)?;
    }
    if plan.has(NICE) {
        sys::set_nice(plan.nice).at(Step::Nice)?;
    }
    if plan.has(SCHEDULER) {
        sys::sched_setattr(&plan.scheduler).at(Step::Scheduler)?;
    }
    // As root first, since the directory may be root's alone; as the user where root is refused (network file systems).
    let entered = change_directory(plan);
    if plan.has(KEYRING) {
        let made = sys::new_session_keyring().at(Step::Keyring)?;
        let found = sys::session_keyring().at_index(Step::ReadBack, Part::Keyring as usize)?;
        // Serial numbers begin at 1.
        measured::expect(plan, Part::Keyring, made.max(1) as u64, found as u64)?;
    }
    if plan.has(PERSONALITY) {
        sys::personality(plan.personality).at(Step::Personality)?;
    }
    if !plan.has(NO_NEW_PRIVILEGES) {
        // Without no_new_privs only a privileged process may install a filter, so before the privileges go.
        landlock::restrict(plan)?;
        if plan.has(SECCOMP) {
            install_filter(plan)?;
        }
    }
    change_credentials(plan)?;
    if let Err(sys::EACCES) = entered {
        change_directory(plan).at(Step::Chdir)?;
    } else {
        entered.at(Step::Chdir)?;
    }
    Ok(())
}

/// The last things before the program.
pub fn seal(plan: &PlanFile) -> Done {
    die_in_time(plan)?;
    if plan.has(PTRACE) {
        sys::ptrace_me().at(Step::Ptrace)?;
    }
    if plan.has(NO_NEW_PRIVILEGES) {
        sys::prctl(PR_SET_NO_NEW_PRIVS, 1, 0).at(Step::NoNewPrivileges)?;
        measured::no_new_privileges(plan)?;
        landlock::restrict(plan)?;
        measured::from_outside(plan)?;
        if plan.has(SECCOMP) {
            install_filter(plan)?;
        }
    } else {
        measured::from_outside(plan)?;
    }
    Ok(())
}

/// With whom the plan says. The change of ids has cleared what was set before.
fn die_in_time(plan: &PlanFile) -> Done {
    if plan.has(PDEATHSIG) {
        sys::prctl(PR_SET_PDEATHSIG, plan.pdeathsig as usize, 0).at(Step::ParentDeath)?;
        end_if_abandoned(plan);
        measured::parent_death(plan, plan.pdeathsig)
    } else if plan.topology != Topology::Init {
        die_with_the_watcher(plan)
    } else {
        Ok(())
    }
}

/// `no_new_privs` and the filter, for a process that forks the payload's: it still makes calls of its own.
pub fn confine(plan: &PlanFile) -> Done {
    if plan.has(NO_NEW_PRIVILEGES) {
        sys::prctl(PR_SET_NO_NEW_PRIVS, 1, 0).at(Step::NoNewPrivileges)?;
        measured::no_new_privileges(plan)?;
        if plan.has(SECCOMP) {
            put_filter(plan)?;
        }
    }
    Ok(())
}

/// From here on the filter judges our own calls, too, so there are as few as can be.
fn install_filter(plan: &PlanFile) -> Done {
    let filter = plan.list(plan.seccomp);
    if plan.has(LISTENER) {
        return listener::install(plan, filter);
    }
    let _ = sys::set_all_signals_blocked(false);
    put_filter(plan)
}

fn put_filter(plan: &PlanFile) -> Done {
    sys::seccomp(plan.list(plan.seccomp), plan.seccomp_flags).at(Step::Seccomp)?;
    if plan.has(MARKED) { measured::filter_answers() } else { Ok(()) }
}

/// Whoever kills the watcher means us; it is a process with one thread, so its end is not that of a thread only.
pub fn die_with_the_watcher(plan: &PlanFile) -> Done {
    if plan.owner < 0 { Ok(()) } else { die_with_the_forker(plan) }
}

/// Whether there is an owner or not.
pub fn die_with_the_forker(plan: &PlanFile) -> Done {
    sys::prctl(PR_SET_PDEATHSIG, sys::SIGKILL as usize, 0).at(Step::ParentDeath)?;
    end_if_abandoned(plan);
    measured::parent_death(plan, sys::SIGKILL)
}

/// A watcher that has ended before we said so kills nobody any more. Whoever asked for it takes it for one that has never been.
pub fn end_if_abandoned(plan: &PlanFile) {
    if plan.is_abandoned() {
        sys::exit(crate::FAILED)
    }
}

fn join_session(plan: &PlanFile) -> Done {
    if plan.has(SETSID) {
        sys::setsid().at(Step::Setsid)?;
        let session = sys::getsid().at_index(Step::ReadBack, Part::Session as usize)?;
        measured::expect(plan, Part::Session, sys::getpid() as u64, session as u64)?;
    }
    if plan.has(SETPGID) {
        sys::setpgid(plan.pgid).at(Step::Setpgid)?;
    }
    Ok(())
}

/// What becomes of the descriptors that the payload does not get; as the flags of `close_range(2)`.
#[derive(Clone, Copy, PartialEq)]
#[repr(u32)]
pub enum Others {
    /// Closed at once, the report socket too.
    Close = 0,
    /// Closed by the execution of the program.
    CloseOnExec = 4,
}

/// Gives every descriptor its number.
pub fn arrange_descriptors(plan: &mut PlanFile, others: Others) -> Done {
    let list = plan.list(plan.fds);
    // Sources, and the report socket or what stands for it, move out of the way of the numbers to come.
    let above = list.last().map_or(0, |last| last.to + 1);
    if plan.handover >= 0 {
        let handover = sys::dup_above(plan.handover, above).at(Step::ArrangeFds)?;
        plan.set_handover(handover);
    }
    if plan.socket < above && others == Others::CloseOnExec {
        let socket = sys::dup_above(plan.socket, above).at(Step::ArrangeFds)?;
        plan.set_socket(socket);
    }
    let mut moved = [-1i32; MAX_MOVED];
    for (index, map) in list.iter().enumerate() {
        if map.from < above && map.from != map.to {
            let slot = moved.get_mut(index).ok_or(Failure(Step::ArrangeFds, index, sys::EINVAL))?;
            *slot = sys::dup_above(map.from, above).at_index(Step::ArrangeFds, index)?;
        }
    }
    for (index, map) in list.iter().enumerate() {
        let from = match moved.get(index) {
            Some(&fd) if fd >= 0 => fd,
            _ => map.from,
        };
        if from != map.to {
            sys::dup_to(from, map.to).at_index(Step::ArrangeFds, index)?;
        }
    }
    let mut next = 0;
    for (index, map) in list.iter().enumerate() {
        if map.to as u32 > next {
            sys::close_range(next, map.to as u32 - 1, others as u32).at_index(Step::ArrangeFds, index)?;
        }
        next = map.to as u32 + 1;
    }
    if plan.handover >= 0 {
        // It stays until the program is executed.
        let kept = plan.handover as u32;
        if kept > next {
            sys::close_range(next, kept - 1, others as u32).at(Step::ArrangeFds)?;
        }
        next = kept + 1;
    }
    sys::close_range(next, u32::MAX, others as u32).at(Step::ArrangeFds)?;
    measured::descriptors_end(plan, others == Others::Close)
}

/// How many descriptors can change their number; the library refuses more.
const MAX_MOVED: usize = 1024;

fn take_terminal(plan: &PlanFile) -> Done {
    if plan.has(NOCTTY) {
        sys::drop_controlling_terminal(plan.ctty).at(Step::ControllingTerminal)?;
    }
    if plan.has(SETCTTY) {
        sys::set_controlling_terminal(plan.ctty).at(Step::ControllingTerminal)?;
    }
    if plan.has(FOREGROUND) {
        let group = if plan.has(SETPGID) && plan.pgid != 0 { plan.pgid } else { sys::getpid() };
        sys::set_foreground(plan.ctty, group).at(Step::Foreground)?;
    }
    Ok(())
}

/// Never through `/proc/self/fd` and its like, which could lead out of the root (CVE-2024-21626).
fn change_directory(plan: &PlanFile) -> sys::Result<()> {
    if plan.cwd == Str(0) {
        return Ok(());
    }
    let flags = sys::O_PATH | sys::O_DIRECTORY;
    let dir = sys::openat2(AT_FDCWD, plan.str(plan.cwd), flags, sys::RESOLVE_NO_MAGICLINKS)?;
    let result = sys::fchdir(dir);
    sys::close(dir);
    result.map(drop)
}

/// Drops from the bounding set what no program of the payload may give.
pub fn shrink_bounding_set(plan: &PlanFile) -> Done {
    if !plan.has(CAPABILITIES) {
        return Ok(());
    }
    for capability in (0..64).filter(|bit| plan.capabilities.bounding >> bit & 1 == 0) {
        // Each that is dropped makes new credentials; a launcher that has done so before asks first.
        if plan.topology == Topology::Exec && sys::prctl(PR_CAPBSET_READ, capability, 0) == Ok(0) {
            continue;
        }
        match sys::prctl(PR_CAPBSET_DROP, capability, 0) {
            Err(sys::EINVAL) => break,
            other => other.at_index(Step::BoundingSet, capability)?,
        };
    }
    measured::bounding_set(plan, plan.capabilities.bounding)
}

/// Groups and ids; then what is left of the capabilities.
fn change_credentials(plan: &PlanFile) -> Done {
    let wanted = &plan.capabilities;
    if plan.has(CAPABILITIES) {
        sys::prctl(PR_SET_KEEPCAPS, 1, 0).at(Step::Capabilities)?;
    }
    if plan.has(GROUPS) {
        let groups = plan.list(plan.groups);
        sys::setgroups(groups).at(Step::Setgroups)?;
        measured::groups(plan, groups)?;
    }
    if plan.has(GID) {
        sys::setgid(plan.gid).at(Step::Setgid)?;
        measured::ids(plan, Part::Gid, plan.gid, sys::group_ids())?;
    }
    if plan.has(UID) {
        let is_same = sys::user_ids().at(Step::Setuid)?.iter().all(|id| *id == plan.uid);
        let was_dumpable = is_same && sys::prctl(PR_GET_DUMPABLE, 0, 0) == Ok(1);
        sys::setuid(plan.uid).at(Step::Setuid)?;
        // As a change leaves it, but where `fs.suid_dumpable` says 1: those with the same id must find nothing in us, nor in who
        // lends us its memory.
        sys::prctl(PR_SET_DUMPABLE, usize::from(was_dumpable), 0).at(Step::Setuid)?;
        measured::ids(plan, Part::Uid, plan.uid, sys::user_ids())?;
        if !was_dumpable {
            measured::not_dumpable(plan)?;
        }
    }
    if plan.securebits >= 0 {
        sys::prctl(PR_SET_SECUREBITS, plan.securebits as usize, 0).at(Step::Securebits)?;
    }
    if plan.has(CAPABILITIES) {
        sys::capset(wanted.effective, wanted.permitted, wanted.inheritable).at(Step::Capabilities)?;
        raise_ambient(wanted.ambient)?;
        measured::capabilities(plan, [wanted.effective, wanted.permitted, wanted.inheritable], wanted.ambient)?;
    } else if plan.has(AMBIENT) || plan.has(KEEP_CAPS) {
        let [effective, permitted, inheritable] = sys::capget().at(Step::Capabilities)?;
        let ambient = if plan.has(KEEP_CAPS) { permitted } else { wanted.ambient };
        sys::capset(effective, permitted, inheritable | ambient).at(Step::Capabilities)?;
        raise_ambient(ambient)?;
    }
    Ok(())
}

fn raise_ambient(set: u64) -> Done {
    for capability in (0..64).filter(|bit| set >> bit & 1 != 0) {
        sys::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability).at_index(Step::Ambient, capability)?;
    }
    Ok(())
}

/// Tries the programs in order, as execvp(3) does: a missing one is passed over, a forbidden one remembered.
fn execute(plan: &mut PlanFile) -> Failure {
    let argv = plan.pointers(plan.argv);
    let envp = plan.pointers(plan.envp);
    let mut failure = Failure(Step::Exec, 0, sys::ENOENT);
    if !plan.has(SECCOMP) {
        let _ = sys::set_all_signals_blocked(false);
    }
    for (index, &entry) in plan.list(plan.programs).iter().enumerate() {
        let program = plan.str(Str(entry.0));
        match sys::execve(program, argv, envp) {
            sys::ENOENT if sys::exists(program) => return Failure(Step::Interpreter, index, sys::ENOENT),
            sys::ENOENT | sys::ENOTDIR => {}
            sys::EACCES => failure = Failure(Step::Exec, index, sys::EACCES),
            errno => return Failure(Step::Exec, index, errno),
        }
    }
    failure
}

/// How the process that became the payload in vain tells who is above it, in memory that both have: its filter may refuse
/// every call.
pub struct Told(*mut u32);

impl Told {
    /// Of a page, or three words, that both have for as long as they live, and that are zero.
    pub fn new(words: *mut u32) -> Told {
        Told(words)
    }

    fn word(&self, number: usize) -> &AtomicU32 {
        // SAFETY: three words, as `new` asks for.
        unsafe { AtomicU32::from_ptr(self.0.add(number)) }
    }

    /// Ends the process.
    pub fn give_up(&self, Failure(step, index, errno): Failure) -> ! {
        self.word(1).store(index as u32, Ordering::Relaxed);
        self.word(2).store(errno as u32, Ordering::Relaxed);
        self.word(0).store(u32::from(step as u16), Ordering::Release);
        sys::exit(crate::FAILED)
    }

    /// What it told, if it did.
    pub fn failure(&self) -> Option<Failure> {
        let step = Step::from_number(self.word(0).load(Ordering::Acquire) as u16)?;
        let index = self.word(1).load(Ordering::Relaxed) as usize;
        Some(Failure(step, index, self.word(2).load(Ordering::Relaxed) as i32))
    }
}
