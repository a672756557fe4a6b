//! A payload in a container that runs already, whose processes may be waiting for us.
//!
//! Three processes, so that nothing of value is ever within the container's reach. The *watcher* stays outside: in the
//! caller's namespaces, with the report socket. The *joiner* has its memory (and is quick to make), but descriptors,
//! namespaces and ids of its own: it joins the container, which does not see it, since a pid namespace is joined by children
//! only, and gives up all descriptors, ids and capabilities that the payload does not get. Then it forks the payload's
//! process, a child of the watcher with memory of its own, which is what the container sees: with nothing to steal from.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::again::{Standing, Turn};
use crate::next::Next;
use crate::payload::{self, Others};
use crate::plan::{CAPABILITIES, Str};
use crate::planfile::PlanFile;
use crate::shortage::Shortage;
use crate::step::Step;
use crate::sys;
use crate::watch::{self, Role};
use crate::{At, Done, Failure, is_reported, labels, measured, namespaces, terminal};

const PR_SET_DUMPABLE: i32 = 4;
const PR_SET_CHILD_SUBREAPER: i32 = 36;
const PAGE: usize = 4096;

/// What watcher and joiner share.
struct Shared<'a> {
    plan: &'a mut PlanFile,
    outcome: Outcome,
    result: Result<i32, Failure>,
}

/// How the payload's process fared before its program: words of a page that it shares with us. Somebody who may trace
/// it can write there whatever he likes.
#[derive(Clone, Copy)]
pub struct Outcome(*mut u32);

impl Outcome {
    /// Of a page of its own.
    pub fn new() -> sys::Result<Outcome> {
        sys::map_shared_page().map(Outcome)
    }

    /// The same words, for a child of which more can fail than of a payload's process.
    pub fn told(&self) -> payload::Told {
        payload::Told::new(self.0)
    }

    /// Nobody asks any more.
    pub fn forget(self) {
        sys::unmap(self.0.cast(), PAGE);
    }

    fn word(&self, number: usize) -> &AtomicU32 {
        // SAFETY: a page of its own, unmapped when nobody asks any more; `number` is below 5.
        unsafe { AtomicU32::from_ptr(self.0.add(number)) }
    }

    pub fn set(&self, Failure(step, index, errno): Failure) {
        self.word(1).store(index as u32, Ordering::Relaxed);
        self.word(2).store(errno as u32, Ordering::Relaxed);
        self.word(0).store(u32::from(step as u16), Ordering::Release);
    }

    /// Whether the watcher ends is written here by the kernel.
    pub fn watch_over(&self) {
        self.word(3).store(sys::getpid() as u32, Ordering::Relaxed);
        let _ = sys::mark_at_death(self.0.wrapping_add(3));
    }

    /// The watcher has ended. Asked by a child of it that is killed with it from now on: so it is not that it ended before.
    pub fn is_abandoned(&self) -> bool {
        self.word(3).load(Ordering::Relaxed) & sys::OWNER_DIED != 0
    }

    /// By a joiner with memory of its own, when the payload's process executes its program or has ended, and so cannot write here.
    pub fn set_payload(&self, pid: i32) {
        self.word(4).store(pid as u32, Ordering::Release);
    }

    /// The process that such a joiner has forked; 0: none, or nothing is known of it.
    fn payload(&self) -> i32 {
        self.word(4).load(Ordering::Acquire) as i32
    }

    /// Nothing but failures of a payload, and of who forks it.
    fn failure(&self) -> Option<Failure> {
        let step = match self.word(0).load(Ordering::Acquire) {
            0 => return None,
            number if number == Step::Interpreter as u32 => Step::Interpreter,
            number => PAYLOAD_STEPS.into_iter().find(|step| *step as u32 == number).unwrap_or(Step::Exec),
        };
        let index = self.word(1).load(Ordering::Relaxed) as usize & 0xffff;
        Some(Failure(step, index, self.word(2).load(Ordering::Relaxed) as i32))
    }
}

/// What the payload's process does by itself, or a joiner that was made ready.
const PAYLOAD_STEPS: [Step; 12] = [
    Step::ArrangeFds,
    Step::Fork,
    Step::ReadBack,
    Step::Setsid,
    Step::Setpgid,
    Step::ControllingTerminal,
    Step::Foreground,
    Step::ParentDeath,
    Step::NoNewPrivileges,
    Step::Landlock,
    Step::Seccomp,
    Step::Exec,
];

/// Starts the payload and watches over it; then the next one, if there is to be one. Returns the last exit status.
pub fn start(plan: &mut PlanFile) -> Result<i32, Failure> {
    crate::groups::join(plan)?;
    watch::set_oom_score(plan)?;
    // Copied to whoever is forked: nobody in the container may look into it (CVE-2016-9962).
    sys::prctl(PR_SET_DUMPABLE, 0, 0).at(Step::Fork)?;
    measured::not_dumpable(plan)?;
    if plan.has(crate::plan::KILL_DESCENDANTS) {
        sys::prctl(PR_SET_CHILD_SUBREAPER, 1, 0).at(Step::Fork)?;
    }
    if plan.has(crate::plan::JOIN_TIME) {
        const CLONE_NEWTIME: u32 = 0x80;
        sys::setns(plan.container, CLONE_NEWTIME).at(Step::Setns)?;
    }
    let mut standing = Standing::new(plan)?;
    let mut turn = Turn::Plan;
    let mut status = 0;
    loop {
        let outcome = match turn {
            Turn::Over => return Ok(status),
            Turn::Plan => {
                let outcome = Outcome::new().at(Step::Fork)?;
                status = run(plan, &standing, outcome)?;
                outcome
            }
            Turn::Begun(next) => {
                status = follow(plan, &standing, &next)?;
                next.outcome
            }
        };
        outcome.forget();
        turn = standing.wait(plan);
    }
}

/// A joiner that was made ready has begun with a program.
fn follow(plan: &PlanFile, standing: &Standing, next: &Next) -> Result<i32, Failure> {
    sys::reap(next.pid);
    match next.outcome.payload() {
        0 => Err(next.outcome.failure().unwrap_or(Failure(Step::Fork, 0, sys::ECHILD))),
        pid => watch_over(plan, standing, pid, next.outcome),
    }
}

fn run(plan: &mut PlanFile, standing: &Standing, outcome: Outcome) -> Result<i32, Failure> {
    static mut STACK: [u8; 16384] = [0; 16384];
    let group = plan.group;
    outcome.watch_over();
    let mut shared = Shared { plan, outcome, result: Err(Failure(Step::Fork, 0, sys::ECHILD)) };
    let argument = (&raw mut shared).cast_const().cast();
    // SAFETY: one use of the stack at a time; there is one thread.
    let stack = unsafe { &mut *(&raw mut STACK) };
    let joiner = if group >= 0 {
        sys::vfork_into_group(group, stack, join, argument)
            .at_index(Step::JoinCgroup, shared.plan.list(shared.plan.group_files).len())?
    } else {
        let mut pidfd = -1;
        let joiner = sys::vfork(stack, &mut pidfd, join, argument).at(Step::Fork)?;
        sys::close(pidfd);
        joiner
    };
    sys::reap(joiner);
    let pid = shared.result?;
    watch_over(shared.plan, standing, pid, outcome)
}

/// The payload's process has executed its program, or ended.
fn watch_over(plan: &PlanFile, standing: &Standing, pid: i32, outcome: Outcome) -> Result<i32, Failure> {
    if let Some(failure) = outcome.failure() {
        sys::reap(pid);
        return Err(failure);
    }
    let pidfd = sys::pidfd_open(pid).at(Step::Fork)?;
    if !is_reported(plan, Step::Started, 0, pid, pidfd) {
        let _ = sys::kill(pid, sys::SIGKILL);
        sys::exit(crate::FAILED);
    }
    sys::close(pidfd);
    standing.lay_down();
    watch::watch(plan, standing.signals, pid, Role::Watcher, standing.sockets(), Shortage::begin(plan))
}

/// The joiner, in the watcher's memory, which sleeps meanwhile.
extern "C" fn join(shared: *const u8) -> ! {
    // SAFETY: `start` sleeps until we are gone; the structure is ours alone meanwhile.
    let shared = unsafe { &mut *shared.cast::<Shared<'_>>().cast_mut() };
    shared.result = enter(shared.plan).and_then(|()| sys::fork_sibling().at(Step::Fork));
    if let Ok(0) = shared.result {
        let failure = match payload::die_with_the_watcher(shared.plan) {
            // Whoever asked for it takes it for one that has never been.
            Ok(()) if shared.plan.owner >= 0 && shared.outcome.is_abandoned() => sys::exit(crate::FAILED),
            Ok(()) => payload::become_settled_payload(shared.plan),
            Err(failure) => failure,
        };
        shared.outcome.set(failure);
        sys::exit(crate::FAILED);
    }
    sys::exit(0)
}

/// Into the container, and out of everything else.
fn enter(plan: &mut PlanFile) -> Done {
    // Inherited by the payload's process, which has no way to the machine's procfs.
    labels::set(plan)?;
    for (index, &file) in plan.list(plan.group_files).iter().enumerate() {
        sys::write_all(file, b"0").at_index(Step::JoinCgroup, index)?;
    }
    namespaces::enter(plan)?;
    if plan.root >= 0 {
        sys::fchdir(plan.root).at(Step::Chroot)?;
        sys::chroot(c".".as_ptr().cast()).at(Step::Chroot)?;
    }
    if plan.has(CAPABILITIES) {
        payload::shrink_bounding_set(plan)?;
    }
    if plan.terminal >= 0 {
        terminal::open_here(plan)?;
    }
    payload::arrange_descriptors(plan, Others::Close)?;
    if plan.cwd == Str(0) {
        // Not where the caller was.
        sys::chdir(c"/".as_ptr().cast()).at(Step::Chdir)?;
    }
    payload::settle(plan)
}
