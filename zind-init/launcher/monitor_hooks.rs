//! Hooks that a monitor runs, when it starts its container again and when it has deleted it. They are programs of the host's.

use crate::hooks::{self, MOST_TEXT, State};
use crate::plan::{Str, When};
use crate::planfile::PlanFile;
use crate::sys;

/// Somebody who runs them one after the other while the monitor goes on.
pub struct Runner {
    pub pid: i32,
    pub pidfd: i32,
}

impl Runner {
    pub const NONE: Runner = Runner { pid: 0, pidfd: -1 };

    /// Nobody, if there is nothing to run.
    pub fn start(plan: &PlanFile, when: When, pid: i32) -> Option<Runner> {
        if !plan.list(plan.hooks).iter().any(|hook| hook.when == when) {
            return None;
        }
        let mut pidfd = -1;
        match sys::clone(0, &mut pidfd) {
            Ok(0) => {
                // Above all the lock that says that there is a monitor.
                let _ = sys::close_range(0, u32::MAX, 0);
                sys::exit(i32::from(!run(plan, when, Some(pid))))
            }
            Ok(child) => Some(Runner { pid: child, pidfd }),
            // It cannot be run, so it has failed.
            Err(_) => Some(Runner::NONE),
        }
    }

    /// True if it has ended, and all went well.
    pub fn reap(&mut self) -> bool {
        let status = sys::wait_for(self.pid);
        sys::close(self.pidfd);
        *self = Runner::NONE;
        status == Ok(0)
    }

    /// Ends it, and with it what it runs.
    pub fn end(&mut self) {
        if self.pid > 0 {
            let _ = sys::kill(self.pid, sys::SIGKILL);
            self.reap();
        }
    }
}

/// Runs those of a moment: up to the first that fails, or all where that is no more than a warning.
pub fn run(plan: &PlanFile, when: When, pid: Option<i32>) -> bool {
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
        is_well &= hooks::run(plan, hook, state, -1, |_| Ok(()), &mut said, &mut length).is_ok();
        if !is_well && is_strict {
            break;
        }
    }
    is_well
}
