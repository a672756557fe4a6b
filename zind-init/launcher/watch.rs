//! The process above the payload: PID 1 of the container, or a watcher outside of it.
//!
//! It reaps, forwards signals, ends with the caller's process, and reports how the payload ended.

use crate::exec::Outcome;
use crate::plan::{FORWARD_SIGNALS, KILL_DESCENDANTS, OOM_SCORE_ADJ, PTRACE, ROOT_MOVED, UNMOUNT_LATER};
use crate::planfile::PlanFile;
use crate::report::{Report, Usage};
use crate::shortage::Shortage;
use crate::step::Step;
use crate::sys::{self, PollFd};
use crate::{At, Failure, build, groups, is_reported, measured, payload, report, report_all};

const PR_SET_DUMPABLE: i32 = 4;
const PR_SET_CHILD_SUBREAPER: i32 = 36;
const CAP_KILL: u64 = 1 << 5;
const CLONE_NEWPID: u64 = 0x2000_0000;

/// Which process we are.
#[derive(Clone, Copy, PartialEq)]
pub enum Role {
    /// PID 1: our end is everybody's.
    Init,
    /// Outside: the payload has to be ended by name.
    Watcher,
}

/// Starts the payload as a child and stays above it as PID 1. Returns the exit status.
pub fn start_as_init(plan: &mut PlanFile) -> Result<i32, Failure> {
    static mut STACK: [u8; 16384] = [0; 16384];
    groups::join(plan)?;
    set_oom_score(plan)?;
    let signals = sys::signalfd().at(Step::Fork)?;
    // From here on the payload must find nothing to trace in us.
    sys::prctl(PR_SET_DUMPABLE, 0, 0).at(Step::Fork)?;
    measured::not_dumpable(plan)?;
    let own = sys::pidfd_open(sys::getpid()).at(Step::Fork)?;
    let shortage = Shortage::begin(plan);
    let mut pidfd = -1;
    let socket = plan.socket;
    let mut told = [0u32; 3];
    let mut shared = Shared { plan, told: payload::Told::new(told.as_mut_ptr()), above: measured::Forker::now() };
    // SAFETY: the one use of the stack; there is one thread.
    let stack = unsafe { &mut *(&raw mut STACK) };
    let pid = sys::vfork(stack, &mut pidfd, payload_in_our_memory, (&raw mut shared).cast()).at(Step::Fork)?;
    let plan = shared.plan;
    // The payload has our memory but descriptors of its own, and moved the socket out of the way among those.
    plan.set_socket(socket);
    if let Some(failure) = shared.told.failure() {
        return Err(failure);
    }
    sys::close(pidfd);
    report(plan, Step::Started, usize::from(plan.has(ROOT_MOVED)), pid, own);
    // A mistake of ours must not be worth anything to the payload; KILL is for payloads of another user.
    let _ = sys::capset(CAP_KILL, CAP_KILL, 0);
    let mounts = if plan.has(UNMOUNT_LATER) { sys::mount_namespace(own).unwrap_or(-1) } else { -1 };
    let status = watch(plan, signals, pid, Role::Init, [mounts, -1], shortage);
    if mounts >= 0 {
        // Taking all mounts down costs several grace periods of the kernel; nobody needs to wait for that.
        sys::close_later(mounts);
    }
    status
}

/// Forks into the namespaces of `fork_flags`. `None` in the child; the parent's exit status in the parent, once the child
/// has ended.
pub fn go_on_in_a_child(plan: &mut PlanFile) -> Result<Option<i32>, Failure> {
    groups::join(plan)?;
    plan.set_above(Outcome::new().at(Step::Fork)?);
    let mut pidfd = -1;
    let (above, is_first) = (measured::Forker::now(), plan.fork_flags & CLONE_NEWPID != 0);
    let pid = sys::clone(plan.fork_flags, &mut pidfd).at(Step::Fork)?;
    if pid == 0 {
        measured::is_own_process(plan, above, is_first)?;
        payload::die_with_the_watcher(plan)?;
        return Ok(None);
    }
    let _ = sys::close_range(0, u32::MAX, 0);
    loop {
        match sys::wait_any(0) {
            Ok((ended, status)) if ended == pid => return Ok(Some(End::of(status).exit_status())),
            Ok(_) | Err(sys::EINTR) => {}
            Err(_) => return Ok(Some(crate::FAILED)),
        }
    }
}

struct Shared<'a> {
    plan: &'a mut PlanFile,
    told: payload::Told,
    /// PID 1.
    above: measured::Forker,
}

extern "C" fn payload_in_our_memory(shared: *const u8) -> ! {
    // SAFETY: `start_as_init` sleeps until we are gone; the structure is ours alone meanwhile.
    let shared = unsafe { &mut *shared.cast::<Shared<'_>>().cast_mut() };
    let failure = match measured::is_own_process(shared.plan, shared.above, false) {
        Err(failure) => failure,
        Ok(()) => payload::become_payload(shared.plan),
    };
    shared.told.give_up(failure)
}

/// Forks the process that builds the container and becomes the payload, and stays outside.
pub fn start_as_watcher(plan: &mut PlanFile) -> Result<i32, Failure> {
    groups::join(plan)?;
    let signals = sys::signalfd().at(Step::Fork)?;
    let outcome = Outcome::new().at(Step::Fork)?;
    let told = outcome.told();
    plan.set_above(outcome);
    if plan.has(KILL_DESCENDANTS) {
        sys::prctl(PR_SET_CHILD_SUBREAPER, 1, 0).at(Step::Fork)?;
    }
    let shortage = Shortage::begin(plan);
    let mut pidfd = -1;
    let (above, is_first) = (measured::Forker::now(), plan.fork_flags & CLONE_NEWPID != 0);
    let pid = sys::fork(plan.fork_flags, &mut pidfd).at(Step::Fork)?;
    if pid == 0 {
        let own = measured::is_own_process(plan, above, is_first);
        // The score first: where somebody sees us the change of ids makes /proc/self root's for good.
        let ready = own.and_then(|()| payload::die_with_the_watcher(plan)).and_then(|()| set_oom_score(plan));
        let failure = match ready.and_then(|()| build(plan)) {
            Err(failure) => failure,
            Ok(()) => payload::become_payload(plan),
        };
        told.give_up(failure)
    }
    if let Some(failure) = told.failure() {
        return Err(failure);
    }
    sys::prctl(PR_SET_DUMPABLE, 0, 0).at(Step::Fork)?;
    if !is_reported(plan, Step::Started, 0, pid, pidfd) {
        let _ = sys::kill(pid, sys::SIGKILL);
        sys::exit(crate::FAILED);
    }
    sys::close(pidfd);
    watch(plan, signals, pid, Role::Watcher, [-1; 2], shortage)
}

pub fn set_oom_score(plan: &PlanFile) -> Result<(), Failure> {
    if !plan.has(OOM_SCORE_ADJ) {
        return Ok(());
    }
    let mut text = [0u8; 12];
    let digits = decimal(plan.oom_score_adj, &mut text);
    let file = sys::openat(plan.proc, c"self/oom_score_adj".as_ptr().cast(), sys::O_WRONLY, 0).at(Step::OomScoreAdj)?;
    let result = sys::write_all(file, digits);
    sys::close(file);
    result.at(Step::OomScoreAdj)
}

/// The decimal digits of a small number, at the end of `text`.
pub fn decimal(number: i32, text: &mut [u8; 12]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut start = text.len();
    loop {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 || start == 1 {
            break;
        }
    }
    if number < 0 {
        start -= 1;
        text[start] = b'-';
    }
    &text[start..]
}

/// How the payload ended.
#[derive(Clone, Copy)]
struct End {
    step: Step,
    value: i32,
}

impl End {
    fn of(status: i32) -> End {
        match status & 0x7f {
            0 => End { step: Step::Exited, value: status >> 8 & 0xff },
            signal => End { step: Step::Signaled, value: signal },
        }
    }

    /// As a shell has it.
    fn exit_status(self) -> i32 {
        if self.step as u16 == Step::Exited as u16 { self.value } else { 128 + self.value }
    }
}

/// Until the payload has ended; `keep` are further descriptors to keep, or -1. A watcher that has one goes on afterwards, so it
/// tells what this payload has used, not what all have.
pub fn watch(
    plan: &PlanFile,
    signals: i32,
    payload: i32,
    role: Role,
    keep: [i32; 2],
    mut shortage: Shortage,
) -> Result<i32, Failure> {
    let proc = if plan.has(KILL_DESCENDANTS) { plan.proc } else { -1 };
    let [kills, news] = shortage.fds();
    let [one, other] = keep;
    close_all_but(
        &[signals, plan.owner, plan.socket, plan.container, proc, one, other, kills, news],
        plan.list(plan.holds),
    );
    let _ = sys::chdir(c"/".as_ptr().cast());
    let [signal, owner, socket, container] = [signals, plan.owner, plan.socket, plan.container].map(PollFd::readable);
    let mut fds = [signal, owner, socket, container, shortage.news()];
    let mut used = (0, 0, 0);
    let end = loop {
        let Ok(ready) = sys::poll_for(&mut fds, shortage.patience()) else { continue };
        if fds[4].revents != 0 || ready == 0 {
            shortage.look(fds[4].revents != 0, payload);
            fds[4] = shortage.news();
        }
        if fds[1].revents != 0 {
            // The caller's process is gone.
            if role == Role::Init {
                sys::exit(128 + sys::SIGKILL);
            }
            let _ = sys::kill(payload, sys::SIGKILL);
            fds[1].fd = -1;
        }
        if fds[2].revents != 0 && !obey(plan, payload) {
            fds[2].fd = -1;
        }
        if fds[3].revents != 0 {
            // The container that we are a guest of has ended.
            let _ = sys::kill(payload, sys::SIGKILL);
            fds[3].fd = -1;
        }
        if fds[0].revents != 0 {
            forward(plan, signals, payload);
            if let Some(end) = reap(plan, payload, &mut used) {
                break end;
            }
        }
    };
    let was_killed = end.step as u16 == Step::Signaled as u16 && end.value == sys::SIGKILL;
    let why = if was_killed { shortage.verdict() } else { 0 };
    end_the_others(plan, role);
    let goes_on = role == Role::Watcher && one >= 0;
    let (user_us, system_us, max_rss) = if goes_on { used } else { sys::usage_of_children() };
    let usage = Usage { user_us, system_us, max_rss };
    report_all(plan, &Report { usage, ..Report::new(end.step, why, end.value) }, -1);
    Ok(end.exit_status())
}

/// The payload's streams above all: a reader waits for their last holder.
pub fn close_all_but(keep: &[i32], holds: &[i32]) {
    let mut next = 0;
    while let Some(fd) = keep.iter().chain(holds).copied().filter(|&fd| fd >= next).min() {
        if fd > next {
            let _ = sys::close_range(next as u32, fd as u32 - 1, 0);
        }
        next = fd + 1;
    }
    let _ = sys::close_range(next as u32, u32::MAX, 0);
}

/// Passes on what the library asks for: each byte is a signal. False when the library has hung up.
fn obey(plan: &PlanFile, payload: i32) -> bool {
    let mut words = [0u8; 64];
    match sys::read(plan.socket, &mut words) {
        Ok(0) | Err(_) => false,
        Ok(len) => {
            for &signal in words.get(..len).unwrap_or(&[]) {
                let _ = sys::kill(payload, i32::from(signal));
            }
            true
        }
    }
}

/// What is sent to us is meant for the payload.
fn forward(plan: &PlanFile, signals: i32, payload: i32) {
    let mut info = [0u8; 128];
    if sys::read(signals, &mut info).is_err() {
        return;
    }
    let signal = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
    if signal != sys::SIGCHLD {
        let to = if plan.has(FORWARD_SIGNALS) { -payload } else { payload };
        let _ = sys::kill(to, signal);
    }
}

/// Reaps whoever has ended; the payload's end is ours. `used`: by the payload.
fn reap(plan: &PlanFile, payload: i32, used: &mut (u64, u64, u64)) -> Option<End> {
    let mut end = None;
    while let Ok((pid, status, usage)) = sys::wait_any_and_usage(sys::WNOHANG) {
        if pid == 0 {
            break;
        }
        let stopped = status & 0xff == 0x7f;
        if stopped {
            if pid == payload && plan.has(PTRACE) && status >> 8 & 0xff == sys::SIGTRAP {
                // Before its first instruction; whoever wants to trace it finds it stopped.
                let _ = sys::ptrace_detach(pid, sys::SIGSTOP);
            }
        } else if pid == payload {
            end = Some(End::of(status));
            *used = usage;
        }
    }
    end
}

/// Ends what the payload left running, and waits for it, so that its use counts and nothing outlives the report.
fn end_the_others(plan: &PlanFile, role: Role) {
    loop {
        let found = match role {
            Role::Init => sys::kill(-1, sys::SIGKILL).is_ok(),
            Role::Watcher => plan.has(KILL_DESCENDANTS) && kill_children(plan),
        };
        if !found || sys::wait_any(0).is_err() {
            return;
        }
    }
}

/// Kills every child there is now; true if there was one. Orphans of theirs become ours in turn.
fn kill_children(plan: &PlanFile) -> bool {
    let Ok(file) = sys::openat(plan.proc, c"thread-self/children".as_ptr().cast(), 0, 0) else { return false };
    let mut text = [0u8; 4096];
    let len = sys::read(file, &mut text).unwrap_or(0);
    sys::close(file);
    let mut pid = 0i32;
    let mut found = false;
    for &byte in text.get(..len).unwrap_or(&[]) {
        if byte.is_ascii_digit() {
            pid = pid.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
        } else if pid > 0 {
            found |= sys::kill(pid, sys::SIGKILL).is_ok();
            pid = 0;
        }
    }
    found
}
