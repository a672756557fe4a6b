//! The end of a payload: waiting for it, and how it came.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use zind_init::report::{KILLED_FOR_MEMORY, Report, SPARED};

use super::{Process, State, lock};
use crate::cgroup::{self, Stats};
use crate::error::{Result, Step};
use crate::process::launch::{Received, receive, wait_readable};
use crate::rootfs::layers;

/// In what way a payload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitKind {
    /// It exited by itself.
    Exited,
    /// A signal ended it.
    Signaled,
    /// zind killed it because its time was over.
    Timeout,
    /// The kernel killed it because memory ran out: the limit of its own control group, or the machine's.
    Oom,
}

impl ExitKind {
    /// `"exited"`, `"signaled"`, `"timeout"`, `"oom"`.
    pub const fn name(self) -> &'static str {
        match self {
            ExitKind::Exited => "exited",
            ExitKind::Signaled => "signaled",
            ExitKind::Timeout => "timeout",
            ExitKind::Oom => "oom",
        }
    }
}

/// How a payload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// In what way.
    pub kind: ExitKind,
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// Exited with code 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }

    /// As `subprocess` has it: the exit code, or the negative signal number.
    pub fn returncode(self) -> i32 {
        self.code.unwrap_or_else(|| -self.signal.unwrap_or(libc::SIGKILL))
    }
}

impl Process {
    /// The exit, if the container has ended.
    pub fn try_wait(&self) -> Result<Option<Exit>> {
        let mut state = lock(&self.state);
        let (waiter, lock, server, hold) = match &mut *state {
            State::Ended(exit, _) => return Ok(Some(*exit)),
            State::Running(waiter, _, lock, server, hold) => (waiter, lock, server, hold),
        };
        let (status, last) = match hold {
            None => {
                let Some(status) = waiter.try_reap() else { return Ok(None) };
                (status, self.last_report()?)
            }
            // The launcher goes on.
            Some(_) => match receive(self.socket.as_fd()) {
                Ok(Received::Report(message)) => (0, Some(message.report).filter(is_end)),
                Ok(Received::Log(_) | Received::Reading(_)) => return Ok(None),
                Ok(Received::End) => {
                    // It was killed.
                    let _ = wait_readable(waiter.pidfd(), Some(Duration::from_secs(10)), &mut || false);
                    (waiter.try_reap().unwrap_or(128 + libc::SIGKILL), None)
                }
                Err(error) if error.errno() == Some(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        self.launchers.end();
        // With its last process the container's mounts are gone too.
        lock.iter().for_each(|lock| layers::release(lock.as_fd()));
        if let Some(server) = server.take() {
            server.end();
        }
        let wall = self.began.elapsed();
        let (exit, stats) = match &last {
            Some(report) => (exit_of(report), stats_of(report, wall)),
            None => (killed(status), Stats { wall, ..Stats::default() }),
        };
        let (stats, ran_out) = self.close_group(stats);
        // Who has watched over it knows better than a count of all that were killed.
        let ran_out = match last.as_ref().map(|report| usize::from(report.index)) {
            Some(KILLED_FOR_MEMORY) => true,
            Some(SPARED) => false,
            _ => ran_out,
        };
        let killed = exit.signal == Some(libc::SIGKILL);
        // Who is killed by us tells nothing: what PID 1 has told was before, whatever we did then.
        let by_us = self.was_killed.load(Ordering::Acquire) && !(self.is_init && last.is_some());
        let exit = if killed && ran_out && !by_us {
            Exit { kind: ExitKind::Oom, ..exit }
        } else if killed && self.timed_out.load(Ordering::Acquire) {
            Exit { kind: ExitKind::Timeout, ..exit }
        } else {
            exit
        };
        let before = std::mem::replace(&mut *state, State::Ended(exit, Box::new(stats)));
        if let (State::Running(waiter, .., Some(hold)), true) = (before, last.is_some()) {
            hold.release(waiter);
        }
        Ok(Some(exit))
    }

    /// Waits for the end. `None` when `timeout` is over first; the container goes on then.
    ///
    /// The time limit of the request itself (`timeout` of the spec) kills the container when it is over.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<Exit>> {
        self.wait_interruptible(timeout, &mut || false)
    }

    /// As [`Process::wait`]; `interrupted` is asked when a signal arrives, and ends the wait with
    /// [`Error::Interrupted`](crate::Error::Interrupted) when it says so.
    pub fn wait_interruptible(
        &self,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Exit>> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(Some(exit));
            }
            let next =
                [until, self.deadline.filter(|_| !self.timed_out.load(Ordering::Acquire))].into_iter().flatten().min();
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            if !wait_readable(self.end.as_fd(), left, interrupted)? {
                if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    self.expire()?;
                }
                if until.is_some_and(|until| Instant::now() >= until) {
                    return self.try_wait();
                }
            }
        }
    }

    /// Kills the container because its time is over.
    pub fn expire(&self) -> Result<()> {
        self.timed_out.store(true, Ordering::Release);
        self.kill()
    }

    /// What the group has counted over the container's life, and whether memory ran out; then the group goes.
    fn close_group(&self, reported: Stats) -> (Stats, bool) {
        let Some(group) = &self.group else { return (reported, false) };
        let stats = group.last_stats().at_the_end(&reported);
        let ran_out = stats.oom_kills.is_some_and(|count| count > 0);
        // What could not be removed now is removed by a later start; the exit is what counts here.
        if group.delete().is_err() {
            cgroup::abandon(group.clone());
        }
        (stats, ran_out)
    }

    /// The last thing the launcher said, if that was how the payload ended.
    fn last_report(&self) -> Result<Option<Report>> {
        let mut last = None;
        loop {
            match receive(self.socket.as_fd()) {
                Ok(Received::Report(message)) => last = Some(message.report),
                Ok(Received::Log(_) | Received::Reading(_)) => {}
                Ok(Received::End) => break,
                Err(error) if error.errno() == Some(Errno::EAGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(last.filter(is_end))
    }
}

fn is_end(report: &Report) -> bool {
    [Step::Exited as u16, Step::Signaled as u16].contains(&report.step)
}

fn exit_of(report: &Report) -> Exit {
    if report.step == Step::Exited as u16 {
        Exit { kind: ExitKind::Exited, code: Some(report.value), signal: None }
    } else {
        Exit { kind: ExitKind::Signaled, code: None, signal: Some(report.value) }
    }
}

/// Nobody was left to report: whoever watched over the payload was killed, and the payload with it.
fn killed(status: i32) -> Exit {
    let signal = if status > 128 { status - 128 } else { libc::SIGKILL };
    Exit { kind: ExitKind::Signaled, code: None, signal: Some(signal) }
}

fn stats_of(report: &Report, wall: Duration) -> Stats {
    Stats {
        cpu_user: Some(Duration::from_micros(report.usage.user_us)),
        cpu_system: Some(Duration::from_micros(report.usage.system_us)),
        max_rss: Some(report.usage.max_rss),
        wall,
        ..Stats::default()
    }
}
