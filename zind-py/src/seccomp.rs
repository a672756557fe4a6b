//! Listeners of filters, and what filters refuse.

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zind_core::{Call, Error, Result, parse_duration};

use crate::convert::to_python;
use crate::errors::{detached, raise};

/// id, pid, number, name, architecture, arguments, instruction pointer
type CallTuple = (u64, i32, u32, Option<&'static str>, Option<&'static str>, [u64; 6], u64);

fn wait(py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Duration>> {
    let clamp = |seconds: f64| parse_duration("timeout", if seconds < 0.0 { 0.0 } else { seconds });
    timeout.map(clamp).transpose().map_err(|error| raise(py, &error))
}

/// Whoever decides about the calls that a profile asks about.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Notifier(Mutex<State>);

struct State {
    notifier: Option<Arc<zind_core::Notifier>>,
    /// Taken, and not answered.
    calls: Vec<Call>,
}

impl Notifier {
    pub(crate) fn of(notifier: zind_core::Notifier) -> Notifier {
        Notifier(Mutex::new(State { notifier: Some(Arc::new(notifier)), calls: Vec::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, py: Python<'_>) -> PyResult<Arc<zind_core::Notifier>> {
        let closed = || raise(py, &Error::State("the notifier is closed".to_owned()));
        self.lock().notifier.clone().ok_or_else(closed)
    }

    /// The call of that number, for an answer.
    fn with<T>(
        &self,
        py: Python<'_>,
        id: u64,
        is_last: bool,
        work: impl FnOnce(&zind_core::Notifier, &Call) -> Result<T> + Send,
    ) -> PyResult<T>
    where
        T: Send,
    {
        let notifier = self.open(py)?;
        let mut state = self.lock();
        let place = state.calls.iter().position(|call| call.id == id);
        let gone = || raise(py, &Error::State("the call was answered before".to_owned()));
        let place = place.ok_or_else(gone)?;
        let call = if is_last { state.calls.swap_remove(place) } else { state.calls[place] };
        drop(state);
        py.detach(|| work(&notifier, &call)).map_err(|error| raise(py, &error))
    }
}

#[pymethods]
impl Notifier {
    /// Readable when a call waits, or there will be none; -1 once it is closed.
    fn fileno(&self) -> RawFd {
        self.lock().notifier.as_ref().map_or(-1, |notifier| notifier.fd().as_raw_fd())
    }

    /// The next call; `None` when the time is over first, or there will be no more.
    #[pyo3(signature = (timeout=None))]
    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<CallTuple>> {
        let timeout = wait(py, timeout)?;
        let notifier = self.open(py)?;
        let Some(call) = detached(py, |interrupted| notifier.receive_interruptible(timeout, interrupted))? else {
            return Ok(None);
        };
        let mut state = self.lock();
        // Whoever was killed while it waited is not answered any more.
        state.calls.retain(|call| notifier.is_waiting(call));
        state.calls.push(call);
        let arch = call.arch.map(|arch| arch.oci_name());
        Ok(Some((call.id, call.pid, call.number, call.name(), arch, call.arguments, call.instruction_pointer)))
    }

    #[getter]
    fn is_over(&self) -> bool {
        self.lock().notifier.as_ref().is_none_or(|notifier| notifier.is_over())
    }

    fn answer(&self, py: Python<'_>, id: u64, value: i64) -> PyResult<()> {
        self.with(py, id, true, |notifier, call| notifier.answer(call, value))
    }

    fn refuse(&self, py: Python<'_>, id: u64, errno: i32) -> PyResult<()> {
        if !(1..=4095).contains(&errno) {
            return Err(raise(py, &Error::Spec { field: "errno", rule: format!("{errno} is not within 1 to 4095") }));
        }
        self.with(py, id, true, |notifier, call| notifier.refuse(call, errno))
    }

    fn proceed(&self, py: Python<'_>, id: u64) -> PyResult<()> {
        self.with(py, id, true, |notifier, call| notifier.proceed(call))
    }

    fn is_waiting(&self, py: Python<'_>, id: u64) -> bool {
        self.with(py, id, false, |notifier, call| Ok(notifier.is_waiting(call))).unwrap_or(false)
    }

    fn add_fd(&self, py: Python<'_>, id: u64, fd: RawFd, target: Option<u32>, close_on_exec: bool) -> PyResult<i32> {
        self.with(py, id, false, |notifier, call| notifier.add_fd(call, borrowed(fd)?, target, close_on_exec))
    }

    fn answer_fd(&self, py: Python<'_>, id: u64, fd: RawFd, close_on_exec: bool) -> PyResult<i32> {
        self.with(py, id, true, |notifier, call| notifier.answer_fd(call, borrowed(fd)?, close_on_exec))
    }

    fn read<'py>(&self, py: Python<'py>, id: u64, address: u64, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        const MOST: usize = 16 << 20;
        let mut buffer = vec![0; size.min(MOST)];
        let length = self.with(py, id, false, |notifier, call| notifier.read_memory(call, address, &mut buffer))?;
        Ok(PyBytes::new(py, buffer.get(..length).unwrap_or_default()))
    }

    fn read_text<'py>(&self, py: Python<'py>, id: u64, address: u64, most: usize) -> PyResult<Bound<'py, PyBytes>> {
        let text = self.with(py, id, false, |notifier, call| notifier.read_text(call, address, most))?;
        Ok(PyBytes::new(py, &text))
    }

    fn write(&self, py: Python<'_>, id: u64, address: u64, bytes: &[u8]) -> PyResult<usize> {
        self.with(py, id, false, |notifier, call| notifier.write_memory(call, address, bytes))
    }

    /// The listener's number, which is the caller's from now on; the notifier is closed.
    fn detach(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.open(py)?;
        let busy = || raise(py, &Error::State("another thread uses the notifier".to_owned()));
        let mut state = self.lock();
        let notifier = state.notifier.take();
        match notifier.map(Arc::try_unwrap) {
            Some(Ok(notifier)) => Ok(notifier.into_fd().into_raw_fd()),
            Some(Err(shared)) => {
                state.notifier = Some(shared);
                Err(busy())
            }
            None => Err(busy()),
        }
    }

    /// Calls that wait, and all later ones, fail.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.lock().notifier.take()));
    }
}

fn borrowed<'a>(fd: RawFd) -> Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(Error::Spec { field: "fd", rule: format!("{fd} is no descriptor") });
    }
    // SAFETY: the package hands over a descriptor that stays open meanwhile; the kernel checks the number.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// What a filter refuses, as it happens.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Violations(pub(crate) zind_core::Violations);

#[pymethods]
impl Violations {
    fn fileno(&self) -> RawFd {
        self.0.fd().as_raw_fd()
    }

    #[pyo3(signature = (timeout=None))]
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let timeout = wait(py, timeout)?;
        let found = detached(py, |interrupted| self.0.next_interruptible(timeout, interrupted))?;
        found.map(|violation| to_python(py, &violation.to_json())).transpose()
    }

    #[getter]
    fn is_over(&self) -> bool {
        self.0.is_over()
    }

    #[getter]
    fn lost(&self) -> u64 {
        self.0.lost()
    }
}
