//! The joiner of the next program in a container, made ready before anybody asks for it.
//!
//! A program is mostly let in as the one before it was: into the same container, as the same user, with the same rights and the same
//! filter. All of that can be done in advance, by a process with a memory of its own that was forked for it. It is where every
//! joiner is: in the container's namespaces, but for that of pids, so that nothing in there sees it or can name it. It has the
//! program's rights, and two sockets of ours. When a plan comes it gives up both, closes what the program does not get, forks the
//! program's process, and ends.
//!
//! It serves one program. If that is to be let in otherwise, or if this one has ended, the launcher does it all by itself.

use crate::again::{self, Standing};
use crate::exec::Outcome;
use crate::payload::{self, Others};
use crate::plan::{AGAIN_NUMBERS, CAPABILITIES};
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys::{self, PollFd};
use crate::{At, Done, Failure, measured, watch};

/// How long one that is to end may take for it, in nanoseconds.
const PATIENCE: i64 = 1_000_000_000;

/// A joiner that is ready, or nearly so.
pub struct Next {
    pub pid: i32,
    /// Tells that it has begun.
    pub relay: i32,
    pub outcome: Outcome,
}

impl Next {
    /// Forks it, for programs that are let in as that of this plan is.
    pub fn make(plan: &mut PlanFile, standing: &Standing) -> Option<Next> {
        let outcome = Outcome::new().ok()?;
        let made = Next::fork(plan, standing, outcome);
        if made.is_none() {
            outcome.forget();
        }
        made
    }

    fn fork(plan: &mut PlanFile, standing: &Standing, outcome: Outcome) -> Option<Next> {
        let low = sys::message_pair().ok()?;
        // What comes with a plan takes the lowest numbers.
        let high = low.map(|fd| sys::dup_above(fd, AGAIN_NUMBERS));
        low.into_iter().for_each(sys::close);
        let [Ok(relay), Ok(theirs)] = high else {
            high.into_iter().flatten().for_each(sys::close);
            return None;
        };
        outcome.watch_over();
        let (above, mut pidfd) = (sys::getpid(), -1);
        let forked = sys::clone(0, &mut pidfd);
        if let Ok(0) = forked {
            let made = make_ready(plan, standing, theirs, above);
            if made.is_ok()
                && let Err(failure) = serve(plan, standing.ready, theirs, outcome)
            {
                outcome.set(failure);
            }
            // What went wrong before is found again, and told, by who does it all anew.
            sys::exit(crate::FAILED)
        }
        sys::close(theirs);
        match forked {
            Ok(pid) => {
                sys::close(pidfd);
                Some(Next { pid, relay, outcome })
            }
            Err(_) => {
                sys::close(relay);
                None
            }
        }
    }

    /// It has something to say, or has ended; in time.
    pub fn is_heard(&self) -> bool {
        sys::poll_for(&mut [PollFd::readable(self.relay)], PATIENCE) == Ok(1)
    }

    /// Whether it has begun, if it is heard: its report socket is the plan's then.
    pub fn begun(&self, plan: &mut PlanFile) -> bool {
        let (mut word, mut fds) = ([0u8; 1], [-1i32; 1]);
        let has_begun = sys::receive(self.relay, &mut word, &mut fds) == Ok(1) && fds[0] >= 0;
        if has_begun {
            sys::close(self.relay);
            plan.set_socket(fds[0]);
        }
        has_begun
    }

    /// Ends it.
    pub fn dismiss(self) -> again::Turn {
        let _ = sys::kill(self.pid, sys::SIGKILL);
        sys::reap(self.pid);
        sys::close(self.relay);
        self.outcome.forget();
        again::Turn::Over
    }
}

/// Into the container, and out of everything else, as who asked before.
fn make_ready(plan: &mut PlanFile, standing: &Standing, relay: i32, above: i32) -> Done {
    watch::close_all_but(&[standing.ready, standing.container, relay], &[]);
    for (index, entry) in plan.list(plan.enter).iter().enumerate() {
        sys::setns(standing.container, entry.flags).at_index(Step::Setns, index)?;
    }
    sys::close(standing.container);
    if plan.has(CAPABILITIES) {
        payload::shrink_bounding_set(plan)?;
    }
    sys::chdir(c"/".as_ptr().cast()).at(Step::Chdir)?;
    payload::settle(plan)?;
    payload::confine(plan)?;
    // With who has forked us, unless that has ended already.
    payload::die_with_the_watcher(plan)?;
    measured::not_dumpable(plan)?;
    if sys::getppid() == above { Ok(()) } else { Err(Failure(Step::ParentDeath, 0, sys::ECHILD)) }
}

/// Waits for a plan, and carries it out.
fn serve(plan: &mut PlanFile, ready: i32, relay: i32, outcome: Outcome) -> Done {
    if !again::receive(ready, plan) || sys::tell(relay, &[0], plan.socket).is_err() {
        sys::exit(crate::FAILED);
    }
    payload::arrange_descriptors(plan, Others::Close)?;
    match sys::fork_sibling().at(Step::Fork)? {
        0 => {
            payload::die_with_the_watcher(plan)?;
            if plan.owner >= 0 && outcome.is_abandoned() {
                // Whoever asked for it takes it for one that has never been.
                sys::exit(crate::FAILED)
            }
            Err(payload::become_confined_payload(plan))
        }
        pid => {
            outcome.set_payload(pid);
            sys::exit(0)
        }
    }
}
