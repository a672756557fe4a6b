//! Deleting a container, ended first where that is asked for.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use zind_init::monitor::request;

use super::PATIENCE;
use crate::container::monitor::{Connection, ask};
use crate::container::state::{self, Phase};
use crate::container::{Container, HookPoint};
use crate::error::{Error, Result, Step};
use crate::spec::Spec;
use crate::sys::clone;
use crate::sys::descriptors::pidfd_send_signal;

impl Container {
    /// Deletes it with all it has: changes, log, name. With `force` one that runs is ended first, and one whose state cannot
    /// be read is taken away, too.
    ///
    /// Errors: [`Error::State`] if it runs; [`Error::Sys`] at [`Step::Container`].
    pub fn delete(&self, force: bool) -> Result<()> {
        self.delete_interruptible(force, &mut || false)
    }

    /// As [`Container::delete`], and [`Container::wait_interruptible`].
    pub fn delete_interruptible(&self, force: bool, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let result = self.delete_all(force, interrupted);
        if let Ok(()) | Err(Error::NotFound { .. }) = result {
            self.reap_programs();
        }
        result
    }

    /// It has ended, and so have the programs that were run in it by this value: none of their launchers stays a zombie of this
    /// process.
    pub(super) fn reap_programs(&self) {
        self.0.launchers.end();
        clone::reap_orphans();
    }

    fn delete_all(&self, force: bool, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let dir = self.dir();
        let mut killed = None;
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let mut told = Ok(());
            {
                let _lock = match dir.lock(interrupted) {
                    // It was to be deleted at its end, and its monitor was quicker.
                    Err(Error::NotFound { .. }) if killed.is_some() => {
                        let connection: Option<Connection> = killed.flatten();
                        // It tells when it is done.
                        return self.end_of_the_gone(connection.as_ref(), None, interrupted).map(drop).or_else(
                            |error| match error {
                                Error::NotFound { .. } => Ok(()),
                                error => Err(error),
                            },
                        );
                    }
                    result => result?,
                };
                let record = match dir.record() {
                    Err(Error::State(_)) if force => None,
                    result => Some(result?),
                };
                let phase = match &record {
                    Some(record) => dir.phase(record)?,
                    // Nobody can say any more what it was; whether it has a monitor can be seen.
                    None if dir.has_monitor()? => Phase::Starting,
                    None => {
                        self.0.places.forget_names(dir.id());
                        return self.0.places.remove(dir, None);
                    }
                };
                if let (Some(record), Phase::Created | Phase::Ended(_)) = (&record, &phase) {
                    self.settle(record, &phase, interrupted)?;
                    let spec = self.spec().unwrap_or_else(|_| Spec::new([""; 0]));
                    let state = self.hook_state(record, &spec, "stopped", None);
                    self.0.places.remove(dir, record.name.as_deref())?;
                    self.run_leniently(HookPoint::Poststop, &spec.hooks.poststop, &state, interrupted);
                    return Ok(());
                }
                if !force {
                    return Err(self.still_runs(&phase, ": stop it first, or delete it by force"));
                }
                let mine = self.await_end()?;
                match ask(dir, request::SIGNAL, libc::SIGKILL as u8) {
                    Ok(_) => {}
                    Err(error) => {
                        told = Err(error);
                        // Its monitor may be stopped; what it holds has to end all the same.
                        if let Phase::Running(running) = &phase
                            && let Some(pidfd) = running.pidfd()
                        {
                            let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                        }
                    }
                }
                if let Some(run) = record.as_ref().and_then(|record| record.run.as_ref()).filter(|run| !run.is_init)
                    && let Some(Ok(group)) = run.group.as_ref().map(|group| group.open())
                {
                    let _ = group.kill();
                }
                // It may have ended by itself meanwhile, and been deleted by who waits for it.
                killed = Some(mine);
            }
            // Not by `wait`, which may delete it itself.
            let has_ended = state::wait_until(PATIENCE, interrupted, || match dir.has_monitor() {
                Ok(lives) => Ok(!lives),
                Err(Error::NotFound { .. }) => Ok(true),
                Err(error) => Err(error),
            })?;
            if !has_ended && Instant::now() >= deadline {
                return Err(told.err().unwrap_or_else(|| {
                    Error::sys(Step::Kill, "", "zind-monitor", Errno::ETIMEDOUT)
                        .with_hint("the monitor of the container does not end: is it stopped?")
                }));
            }
        }
    }
}
