//! Time that is lost waiting: triggers that the kernel, or their own totals, set off.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::event::epoll::EventFlags;
use rustix::fs::{Mode, OFlags};

use super::counts::Group;
use super::{Event, EventKind, Events, FIRST_TRIGGER, PressureOf};
use crate::cgroup::files;
use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::sys::descriptors::openat;

/// Asks to be told when more than `stall` of any `window` was lost waiting. Needs version 2 and Linux 5.2.
///
/// Source: <https://docs.kernel.org/accounting/psi.html#monitoring-for-pressure-thresholds>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureTrigger {
    /// What is waited for.
    pub of: PressureOf,
    /// When all tasks wait; else, when at least one does.
    pub full: bool,
    /// The time lost, above 0 and at most the window.
    pub stall: Duration,
    /// The time it is measured in, 500 ms to 10 s; for an ordinary user a multiple of 2 s.
    pub window: Duration,
}

impl PressureTrigger {
    /// Some task waits for `stall` in any `window`.
    pub fn some(of: PressureOf, stall: Duration, window: Duration) -> PressureTrigger {
        PressureTrigger { of, full: false, stall, window }
    }

    pub(super) fn check(&self) -> Result<()> {
        let within = Duration::from_millis(500)..=Duration::from_secs(10);
        if !within.contains(&self.window) {
            return Err(Error::spec("pressure", format!("a window of {:?} is not within 0.5 and 10 s", self.window)));
        }
        if self.stall.is_zero() || self.stall > self.window {
            return Err(Error::spec("pressure", format!("{:?} is not a part of {:?}", self.stall, self.window)));
        }
        Ok(())
    }

    fn file(&self) -> String {
        format!("{}.pressure", self.of.name())
    }

    fn line(&self) -> &'static str {
        if self.full { "full" } else { "some" }
    }
}

/// A trigger that is set, and the state of its total when it was last looked at.
pub(super) struct Armed {
    trigger: PressureTrigger,
    pub(super) file: File,
    total: u64,
    since: Instant,
}

impl Events {
    pub(super) fn arm(&mut self, trigger: PressureTrigger) -> Result<()> {
        let Some((dir, path)) = &self.group.v2 else {
            return Err(Error::unsupported("pressure events", "a group in the version 2 hierarchy"));
        };
        let name = trigger.file();
        let path = path.join(&name);
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(dir, &*name, flags, Mode::empty()).map_err(IntoErrno::into_errno);
        let file = file.map_err(|errno| match errno {
            Errno::ENOENT | Errno::EOPNOTSUPP => Error::unsupported(
                "pressure events",
                "a kernel with CONFIG_PSI, and psi=1 on its command line where it is off by default",
            ),
            _ => Error::sys(Step::Watch, "openat", &path, errno),
        })?;
        let line = format!("{} {} {}\0", trigger.line(), trigger.stall.as_micros(), trigger.window.as_micros());
        rustix::io::write(&file, line.as_bytes()).at(Step::Watch, "write", &path).map_err(|error| {
            match error.errno() {
                Some(Errno::EINVAL) => error.with_hint(format!(
                    "{:?} is not to the kernel's liking: without CAP_SYS_RESOURCE a window is a multiple of 2 s",
                    trigger.line().to_owned() + " " + &format!("{:?}", trigger.window)
                )),
                Some(Errno::EBUSY) => {
                    error.with_hint("somebody else watches it already, and this kernel lets only one")
                }
                _ => error,
            }
        })?;
        let token = FIRST_TRIGGER + self.triggers.len() as u64;
        self.add(token, file.as_fd(), EventFlags::PRI)?;
        let file = File::from(file);
        let total = total(&self.group, &trigger).unwrap_or(0);
        self.triggers.push(Armed { trigger, file, total, since: Instant::now() });
        Ok(())
    }

    /// Triggers that fired. The kernel tells each only once, to whoever asks first: that is the caller's event loop where it
    /// waits for our descriptor. So, `woken` by nothing else, it must have been one whose total has grown enough.
    pub(super) fn pressure(&mut self, signaled: &[usize], woken: bool) {
        for (at, armed) in self.triggers.iter_mut().enumerate() {
            let now = total(&self.group, &armed.trigger).unwrap_or(armed.total);
            let stall = u64::try_from(armed.trigger.stall.as_micros()).unwrap_or(u64::MAX);
            let fired = signaled.contains(&at) || woken && now.saturating_sub(armed.total) >= stall;
            if fired {
                self.queue.push_back(Event { kind: EventKind::Pressure(armed.trigger.of), count: 1 });
            }
            if fired || armed.since.elapsed() > armed.trigger.window {
                (armed.total, armed.since) = (now, Instant::now());
            }
        }
    }
}

/// Microseconds lost in all.
fn total(group: &Group, trigger: &PressureTrigger) -> Option<u64> {
    let (dir, _) = group.v2.as_ref()?;
    let text = files::read(dir.as_fd(), &trigger.file()).ok()?;
    let line = text.lines().find(|line| line.starts_with(trigger.line()))?;
    line.rsplit_once("total=")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_have_bounds() {
        let trigger = |stall, window| {
            PressureTrigger::some(PressureOf::Cpu, Duration::from_millis(stall), Duration::from_millis(window)).check()
        };
        assert!(trigger(150, 1000).is_ok());
        for (stall, window) in [(0, 1000), (150, 499), (150, 10_001), (1001, 1000)] {
            assert_eq!(trigger(stall, window).unwrap_err().field(), Some("pressure"), "{stall} {window}");
        }
    }
}
