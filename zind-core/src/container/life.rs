//! Starting, waiting for, ending and deleting a container.
#![forbid(unsafe_code)]

mod deleting;
mod exit;
mod starting;
mod waiting;

use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use zind_init::monitor::request;

use super::monitor::ask;
use super::state::{self, Phase, Record, Running, Waiting};
use super::{Container, Restarting};
use crate::error::{Error, Result, Step};
use crate::process::Exit;
use crate::process::launch::{SLICE, wait_readable};
use crate::sys::descriptors::pidfd_send_signal;
pub(super) use exit::{exit_of, fault_of, restarting_of, told_of};
pub(super) use starting::run_of;

/// How long something may take that mostly takes no time.
const PATIENCE: Duration = Duration::from_secs(10);

/// When it is started again.
fn again(waiting: &Waiting) -> String {
    let left = state::time_of(waiting.until_ns).duration_since(SystemTime::now()).unwrap_or_default();
    match left.as_millis().div_ceil(1000) {
        0 => "is being started again".to_owned(),
        seconds => format!("waits to be started again, in {seconds} s"),
    }
}

impl Container {
    /// The error about a container that does not run.
    pub(super) fn not_running(&self, what: &str) -> Error {
        let (record, phase) = match self.phase() {
            Ok(found) => found,
            Err(error) => return error,
        };
        let why = match &phase {
            Phase::Running(Running { waiting: Some(waiting), .. }) => format!("it has ended and {}", again(waiting)),
            // It was to be met, and was not.
            Phase::Running(_) => "it has just ended".to_owned(),
            _ => format!("it is {}; start it first", self.state_of(&record, &phase).name()),
        };
        Error::State(format!("cannot {what} container {}: {why}", self.short_id()))
    }

    /// What is wrong with what takes one that does not run; `cure` ends it.
    pub(super) fn still_runs(&self, phase: &Phase, cure: &str) -> Error {
        let why = match phase {
            Phase::Running(Running { waiting: Some(waiting), .. }) => again(waiting),
            _ => "is running".to_owned(),
        };
        Error::State(format!("container {} {why}{cure}", self.short_id()))
    }

    /// Set while it has ended and its monitor is about to start it again, by its restart policy. Its state is
    /// [`State::Running`](super::State::Running) then, since nobody need start it, and nothing of it runs.
    pub fn restarting(&self) -> Result<Option<Restarting>> {
        let (record, phase) = self.phase()?;
        Ok(restarting_of(&record, &phase))
    }

    /// Takes away what is left of a container whose monitor was killed, before or after it had the container.
    pub(super) fn settle(&self, record: &Record, phase: &Phase, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let Some(run) = &record.run else { return Ok(()) };
        if matches!(phase, Phase::Ended(None)) {
            self.containers().tell_lost_end(&record.id, run.number);
        }
        // Who has told the end of this very start has taken everything away.
        let is_told = matches!(phase, Phase::Ended(Some(ended)) if ended.head.run == run.number);
        if is_told || state::boot_id()? != run.boot_id {
            return Ok(());
        }
        if let Some(group) = &run.group {
            group.remove(PATIENCE)?;
        }
        let Some((number, running)) = self.dir().running()? else { return Ok(()) };
        let Some(pidfd) = Some(running).filter(|_| number == run.number).and_then(|running| running.pidfd()) else {
            return Ok(());
        };
        let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        let deadline = Instant::now() + PATIENCE;
        while !wait_readable(pidfd.as_fd(), Some(SLICE), interrupted)? {
            if Instant::now() >= deadline {
                return Err(Error::sys(Step::Kill, "pidfd_send_signal", "", Errno::ETIMEDOUT));
            }
        }
        Ok(())
    }

    /// Sends a signal to its program; SIGKILL ends the whole container, and it is not started again.
    ///
    /// Errors: [`Error::State`] if it does not run; [`Error::Spec`] for a number that is no signal.
    pub fn kill(&self, signal: i32) -> Result<()> {
        if !(1..=64).contains(&signal) {
            return Err(Error::spec("signal", format!("{signal} is not within 1 to 64")));
        }
        let (record, phase) = self.phase()?;
        let none = || self.not_running("signal");
        if !matches!(phase, Phase::Running(_) | Phase::Starting) {
            return Err(none());
        }
        let told = ask(self.dir(), request::SIGNAL, signal as u8)?;
        if signal == libc::SIGKILL
            && let Some(run) = record.run.as_ref().filter(|run| !run.is_init)
            && let Some(Ok(group)) = run.group.as_ref().map(|group| group.open())
        {
            group.kill()?;
        }
        told.map(drop).ok_or_else(none)
    }

    /// Asks it to end by its stop signal, and ends it when `patience` is over. It is not started again. One that has ended
    /// already is left alone, and one that is being started is stopped when it runs.
    ///
    /// Errors: [`Error::State`] if it was never started.
    pub fn stop(&self, patience: Duration) -> Result<Exit> {
        self.stop_interruptible(patience, &mut || false)
    }

    /// As [`Container::stop`], and [`Container::wait_interruptible`].
    pub fn stop_interruptible(&self, patience: Duration, interrupted: &mut dyn FnMut() -> bool) -> Result<Exit> {
        let (record, phase) = loop {
            match self.phase() {
                Err(Error::NotFound { .. }) => {
                    return self.end_of_the_gone(None, None, interrupted)?.ok_or(Error::Interrupted);
                }
                Ok((_, Phase::Created)) => return Err(self.not_running("stop")),
                // There is nobody yet to send the signal to, but there will be.
                Ok((_, Phase::Starting)) => {
                    if interrupted() {
                        return Err(Error::Interrupted);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                result => break result?,
            }
        };
        let mut mine = None;
        if let Phase::Running(_) = phase {
            // One that is deleted at its end cannot be asked for that later.
            mine = self.await_end()?;
            ask(self.dir(), request::NO_RESTART, 0)?;
            if super::running::is_paused(&record) {
                let _ = self.resume();
            }
            ask(self.dir(), request::SIGNAL, record.stop_signal as u8)?;
            if let Some(exit) = self.wait_holding(mine.as_ref(), Some(patience), interrupted)? {
                return Ok(exit);
            }
            match self.kill(libc::SIGKILL) {
                // It has ended just now.
                Ok(()) | Err(Error::State(_) | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.wait_holding(mine.as_ref(), None, interrupted)?.ok_or(Error::Interrupted)
    }

    /// Stops it, if it runs, and starts it.
    pub fn restart(&self, patience: Duration) -> Result<()> {
        self.restart_interruptible(patience, &mut || false)
    }

    /// As [`Container::restart`], and [`Container::wait_interruptible`].
    pub fn restart_interruptible(&self, patience: Duration, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        if let Phase::Running(_) = self.phase()?.1 {
            self.stop_interruptible(patience, interrupted)?;
        }
        self.start_interruptible(interrupted)
    }

    /// Lets it go on when the program that has started it, or is going to, ends.
    pub fn detach(&self) -> Result<()> {
        self.detach_interruptible(&mut || false)
    }

    /// As [`Container::detach`], and [`Container::pause_interruptible`].
    pub fn detach_interruptible(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        self.is_apart("detach", "and ends with it; started with --name or -d it is apart")?;
        let _lock = self.dir().lock(interrupted)?;
        let mut record = self.record()?;
        if !record.detached {
            record.detached = true;
            self.dir().write_record(&record)?;
        }
        ask(self.dir(), request::FORGET_OWNER, 0).map(drop)
    }

    /// Gives it another name.
    ///
    /// Errors: [`Error::Exists`]; [`Error::Spec`] for a name that is none.
    pub fn rename(&self, name: &str) -> Result<()> {
        self.rename_interruptible(name, &mut || false)
    }

    /// As [`Container::rename`], and [`Container::pause_interruptible`].
    pub fn rename_interruptible(&self, name: &str, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        self.0.places.rename(self, name, interrupted)
    }
}
