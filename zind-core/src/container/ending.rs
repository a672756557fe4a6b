//! [`Ending`]: waiting for the end of a container in an event loop.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::time::Duration;

use zind_init::monitor::request;

use super::Container;
use super::monitor::{Connection, ask};
use super::running::is_paused;
use super::state::Phase;
use crate::error::{Error, Result};
use crate::process::Exit;

/// A wait for the end of a container, through all restarts, by a descriptor: [`Container::ending`].
#[derive(Debug)]
pub struct Ending {
    container: Container,
    connection: Connection,
}

impl Container {
    /// Begins to wait for its end, for an event loop. `None`: it has ended, or is being started or ended just now; ask
    /// [`Container::wait`].
    ///
    /// Errors: [`Error::State`] if it was never started.
    pub fn ending(&self) -> Result<Option<Ending>> {
        match self.phase() {
            // It was deleted at its end, of which it has told us.
            Err(Error::NotFound { .. }) if self.knows_its_end() => return Ok(None),
            result => match result?.1 {
                Phase::Created => return Err(self.not_running("wait for")),
                Phase::Running(_) => {}
                _ => return Ok(None),
            },
        }
        Ok(self.await_end()?.map(|connection| Ending { container: self.clone(), connection }))
    }

    /// Asks it to end by its stop signal, and that it is not started again, without waiting: the first half of
    /// [`Container::stop`]. False if it has ended already, or is being started, when there is nobody to ask yet.
    ///
    /// Errors: [`Error::State`] if it was never started.
    pub fn begin_stop(&self) -> Result<bool> {
        let (record, phase) = match self.phase() {
            Err(Error::NotFound { .. }) if self.knows_its_end() => return Ok(false),
            result => result?,
        };
        match phase {
            Phase::Created => return Err(self.not_running("stop")),
            Phase::Running(_) => {}
            _ => return Ok(false),
        }
        ask(self.dir(), request::NO_RESTART, 0)?;
        if is_paused(&record) {
            let _ = self.resume();
        }
        ask(self.dir(), request::SIGNAL, record.stop_signal as u8).map(|told| told.is_some())
    }
}

impl Ending {
    /// Becomes readable at the end.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.connection.fd()
    }

    /// How it ended, once [`Ending::fd`] is readable; `None` if it has not: as many wait for it as can be told.
    ///
    /// Errors: [`Error::NotFound`] if it was deleted without an end; those of [`Container::wait`].
    pub fn exit(&self) -> Result<Option<Exit>> {
        self.container.wait_holding(Some(&self.connection), Some(Duration::ZERO), &mut || false)
    }
}
