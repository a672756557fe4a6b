//! Hooks that a monitor runs, when it starts its container again and when it has deleted it. They are programs of the host's.

use crate::hooks::{self, MOST_TEXT, State};
use crate::plan::{Str, When};
use crate::planfile::PlanFile;
use crate::sys::{self, PollFd};

/// Somebody who runs them one after the other while the monitor goes on.
pub struct Runner {
    pub pid: i32,
    pub pidfd: i32,
    /// A pipe that nobody writes to: with its end, be it that of the monitor, what is run is ended.
    hold: i32,
}

impl Runner {
    pub const NONE: Runner = Runner { pid: 0, pidfd: -1, hold: -1 };

    /// Nobody, if there is nothing to run.
    pub fn start(plan: &PlanFile, when: When, pid: i32) -> Option<Runner> {
        if !plan.list(plan.hooks).iter().any(|hook| hook.when == when) {
            return None;
        }
        // What cannot be run has failed.
        let Ok([stop, hold]) = sys::pipe() else { return Some(Runner::NONE) };
        let mut pidfd = -1;
        let child = sys::clone(0, &mut pidfd);
        if child == Ok(0) {
            // Above all the lock that says that there is a monitor.
            let _ = sys::dup_to(stop, 0);
            let _ = sys::close_range(1, u32::MAX, 0);
            sys::exit(i32::from(!run(plan, when, Some(pid), 0)))
        }
        sys::close(stop);
        match child {
            Ok(child) => Some(Runner { pid: child, pidfd, hold }),
            Err(_) => {
                sys::close(hold);
                Some(Runner::NONE)
            }
        }
    }

    /// True if it has ended, and all went well.
    pub fn reap(&mut self) -> bool {
        let status = sys::wait_for(self.pid);
        [self.pidfd, self.hold].into_iter().for_each(sys::close);
        *self = Runner::NONE;
        status == Ok(0)
    }

    /// Ends it, and with it what it runs.
    pub fn end(&mut self) {
        const PATIENCE: i64 = 1_000_000_000;
        if self.pid > 0 {
            sys::close(self.hold);
            self.hold = -1;
            if sys::poll_for(&mut [PollFd::readable(self.pidfd)], PATIENCE) != Ok(1) {
                let _ = sys::kill(self.pid, sys::SIGKILL);
            }
            self.reap();
        }
    }
}

/// Runs those of a moment: up to the first that fails, or all where that is no more than a warning. What runs is ended when
/// `stop` hangs up.
pub fn run(plan: &PlanFile, when: When, pid: Option<i32>, stop: i32) -> bool {
    let texts = plan.hook_states;
    let text = match when {
        When::Poststart => texts.running,
        When::Poststop => texts.stopped,
        _ => texts.creating,
    };
    let is_strict = when == When::CreateRuntime;
    let mut is_well = true;
    for hook in plan.list(plan.hooks).iter().filter(|hook| hook.when == when && text != Str(0)) {
        let (mut said, mut length) = ([0u8; MOST_TEXT + 1], 0);
        let state = State { text: plan.text(text), pid };
        is_well &= hooks::run(plan, hook, state, -1, stop, |_| Ok(()), &mut said, &mut length).is_ok();
        if !is_well && is_strict {
            break;
        }
    }
    is_well
}
