//! Waiting for the end of a container, also of one that is deleted then.
#![forbid(unsafe_code)]

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zind_init::monitor::request;

use super::exit::{exit_of, exit_told};
use crate::container::monitor::Connection;
use crate::container::state::Phase;
use crate::container::{Container, HookPoint, HookState};
use crate::error::{Error, Result};
use crate::process::Exit;
use crate::process::launch::wait_readable;
use crate::spec::Spec;

impl Container {
    /// Waits for its end, through all restarts. `None` when `timeout` is over first; the container goes on then. One that is
    /// `auto_remove` is deleted then.
    ///
    /// Errors: [`Error::State`] if it was never started.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<Exit>> {
        self.wait_interruptible(timeout, &mut || false)
    }

    /// As [`Container::wait`]; `interrupted` is asked now and then, and ends the wait with [`Error::Interrupted`] when it says
    /// so.
    pub fn wait_interruptible(
        &self,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Exit>> {
        self.wait_holding(None, timeout, interrupted)
    }

    /// Has this value told of the end of a container that is deleted then.
    pub(in crate::container) fn hold(&self) -> Result<()> {
        let held = self.await_end()?;
        if held.is_some() {
            *self.held() = held;
        }
        Ok(())
    }

    /// The connection by which who started a container that is deleted at its end, or is attached to it, is told of that.
    pub(in crate::container) fn held(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was started by this value, or a clone of it, and is deleted at its end: what it tells then is heard.
    pub(in crate::container) fn knows_its_end(&self) -> bool {
        self.held().is_some() || self.0.told.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// A connection to be told of the end by. `None`: there is no monitor any more.
    pub(in crate::container) fn await_end(&self) -> Result<Option<Connection>> {
        let opened = match Connection::open(self.dir()) {
            Err(Error::NotFound { .. }) => return Ok(None),
            result => result?,
        };
        let Some(connection) = opened else { return Ok(None) };
        Ok(if connection.send(request::AWAIT, 0)? { Some(connection) } else { None })
    }

    /// What is known of the end of a container that is gone; `None` when `timeout` is over first.
    pub(super) fn end_of_the_gone(
        &self,
        mine: Option<&Connection>,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Exit>> {
        let gone = || Error::NotFound { what: "container", name: self.id().to_owned() };
        let known = || *self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exit) = known() {
            return Ok(Some(exit));
        }
        let copy = || self.held().as_ref().map(Connection::try_clone).transpose();
        let held = if mine.is_some() { None } else { copy()? };
        let Some(connection) = mine.or(held.as_ref()) else { return Err(gone()) };
        if !wait_readable(connection.fd(), timeout, interrupted)? {
            return Ok(None);
        }
        let told =
            |connection: &Connection| connection.reply().map(|reply| reply.map(|(_, value, _)| exit_told(value)));
        let mut heard = told(connection)?;
        // Its monitor looked for the last time before it was asked there; by the start's it has told.
        if heard.is_none()
            && mine.is_some()
            && let Some(held) = copy()?
        {
            if !wait_readable(held.fd(), timeout, interrupted)? {
                return Ok(None);
            }
            heard = told(&held)?;
        }
        // Another thread may have heard it.
        let exit = heard.or_else(known).ok_or_else(gone)?;
        let is_first = self.0.told.lock().unwrap_or_else(PoisonError::into_inner).replace(exit).is_none();
        *self.held() = None;
        self.reap_programs();
        if is_first {
            self.after_its_deletion(interrupted);
        }
        Ok(Some(exit))
    }

    /// Calls the functions of this process, once, for a container that its monitor has deleted.
    fn after_its_deletion(&self, interrupted: &mut dyn FnMut() -> bool) {
        if !self.has_functions(HookPoint::Poststop) {
            return;
        }
        let spec = self.spec().unwrap_or_else(|_| Spec::new([""; 0]));
        let labels = self.0.labels.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = HookState::new(self.dir(), &labels, &spec, "stopped", None);
        self.run_leniently(HookPoint::Poststop, &[], &state, interrupted);
    }

    /// Waits; `mine` was asked to tell the end before.
    pub(in crate::container) fn wait_holding(
        &self,
        mine: Option<&Connection>,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Exit>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // What has told of an end that was not written down yet, or of that of its monitor.
        let mut last: Option<Connection> = None;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let (record, phase) = match self.phase() {
                // Somebody else has deleted it since, its monitor above all.
                Err(Error::NotFound { .. }) => {
                    let last = last.as_ref().filter(|_| self.held().is_none());
                    return self.end_of_the_gone(mine.or(last), left, interrupted);
                }
                result => result?,
            };
            match phase {
                Phase::Created => return Err(self.not_running("wait for")),
                Phase::Ended(_) => {
                    let exit = exit_of(&record, &phase);
                    self.settle(&record, &phase, interrupted)?;
                    self.reap_programs();
                    if record.auto_remove {
                        let _ = self.delete(false);
                    }
                    return Ok(exit);
                }
                Phase::Starting | Phase::Running(_) => {}
            }
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            let connection = match phase {
                Phase::Running(_) => self.await_end()?,
                _ => None,
            };
            let Some(connection) = connection else {
                if interrupted() {
                    return Err(Error::Interrupted);
                }
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            if wait_readable(connection.fd(), left, interrupted)? {
                match self.phase() {
                    Err(Error::NotFound { .. }) => {
                        return self.end_of_the_gone(Some(&connection), left, interrupted);
                    }
                    // It is told by what is written, which says more. Or it has hung up.
                    _ => last = Some(connection),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

    use super::super::exit::told_of;
    use super::*;
    use crate::container::Containers;
    use crate::container::state::Dir;
    use crate::process::ExitKind;

    /// Its monitor took in whoever asked at last, but heard no question of theirs any more.
    #[test]
    fn who_asks_too_late_is_told_by_what_was_asked_at_the_start() {
        let place = std::env::temp_dir().join(format!("zind-life-{}", std::process::id()));
        let gone = Container::new(Containers::open(Some(&place)).unwrap(), Dir(place.join("gone")), None);
        let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (late, held) = (pair(), pair());
        drop(late.1);
        let late = Connection::of(late.0);
        let wait = || gone.end_of_the_gone(Some(&late), None, &mut || false);
        assert!(matches!(wait(), Err(Error::NotFound { .. })));
        // A time that no clock comes to is no end of the wait.
        assert!(matches!(gone.wait(Some(Duration::MAX)), Err(Error::NotFound { .. })));
        let end = Exit { kind: ExitKind::Exited, code: Some(5), signal: None };
        let reply = [0i32.to_ne_bytes(), told_of(end).to_ne_bytes()].concat();
        send(&held.1, &reply, SendFlags::empty()).unwrap();
        *gone.held() = Some(Connection::of(held.0));
        assert_eq!(wait().unwrap(), Some(end));
        // And whoever asks after that.
        assert_eq!(gone.end_of_the_gone(None, None, &mut || false).unwrap(), Some(end));
        std::fs::remove_dir_all(&place).unwrap();
    }
}
