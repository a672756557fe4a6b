//! Events of a running container.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use zind_core::{Error, EventsCloser, PressureOf, PressureTrigger, parse_duration};

use crate::errors::{detached, raise};

/// resource, full, stall, window
pub(crate) type TriggerTuple = (String, bool, f64, f64);
/// kind, count, resource
type EventTuple = (&'static str, u64, Option<&'static str>);

pub(crate) fn trigger(py: Python<'_>, given: TriggerTuple) -> PyResult<PressureTrigger> {
    let (name, full, stall, window) = given;
    let of = PressureOf::from_name(&name)
        .ok_or_else(|| Error::Spec { field: "pressure", rule: format!("{name:?} is none of cpu, memory, io") });
    let seconds = |value| parse_duration("pressure", value);
    let made = of.and_then(|of| Ok(PressureTrigger { of, full, stall: seconds(stall)?, window: seconds(window)? }));
    made.map_err(|error| raise(py, &error))
}

/// What happens in a container, as it happens.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Events {
    events: Mutex<Option<zind_core::Events>>,
    /// Somebody who waits in another thread holds the lock.
    closer: EventsCloser,
    /// Its number, which stays the same while it is open.
    fd: RawFd,
}

impl Events {
    pub(crate) fn of(events: zind_core::Events) -> Events {
        Events { fd: events.as_fd().as_raw_fd(), closer: events.closer(), events: Mutex::new(Some(events)) }
    }
}

#[pymethods]
impl Events {
    /// Readable when there is something to be told; -1 once it is closed.
    fn fileno(&self) -> RawFd {
        if self.closer.is_closed() { -1 } else { self.fd }
    }

    /// The next event; `None` when the time is over first, or there will be no more.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<EventTuple>> {
        let clamp = |seconds: f64| parse_duration("timeout", if seconds < 0.0 { 0.0 } else { seconds });
        let timeout: Option<Duration> = timeout.map(clamp).transpose().map_err(|error| raise(py, &error))?;
        let event = detached(py, |interrupted| {
            let mut slot = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            slot.as_mut().map_or(Ok(None), |events| events.next_interruptible(timeout, interrupted))
        })?;
        Ok(event.map(|event| (event.kind.name(), event.count, event.kind.resource())))
    }

    /// True once the end was told, or it is closed.
    #[getter]
    fn is_over(&self) -> bool {
        self.closer.is_over()
    }

    /// Ends the wait of another thread, too.
    fn close(&self, py: Python<'_>) {
        self.closer.close();
        py.detach(|| drop(self.events.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}
