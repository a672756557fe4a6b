//! Running processes: what `run`, `Popen` and `aio` of the package are made of.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use zind_core::{Captured, Command, Exit, Spec, parse_duration};

use crate::bytes::from_captured;
use crate::convert::to_python;
use crate::copy::Root;
use crate::errors::{detached, raise, stoppable};
use crate::events::{self, Events, TriggerTuple};
use crate::images::{Cancel, CommitTuple, Image, Watch, commit_options, watched};
use crate::mount::Mount;
use crate::options;
use crate::seccomp::{Notifier, Violations};
use crate::stats::Stats;

/// kind, code, signal
pub(crate) type ExitTuple = (&'static str, Option<i32>, Option<i32>);
/// exit, stats, isolation, stdout, stderr
pub(crate) type RunTuple<'py> = (ExitTuple, Stats, Isolation, Bound<'py, PyBytes>, Bound<'py, PyBytes>);

pub(crate) fn exit_tuple(exit: Exit) -> ExitTuple {
    (exit.kind.name(), exit.code, exit.signal)
}

/// Runs a container to its end: exit, stats, isolation, stdout, stderr. Streams that were not piped are empty.
#[pyfunction]
pub(crate) fn run<'py>(
    py: Python<'py>,
    argv: &Bound<'py, PyAny>,
    options: &Bound<'py, PyDict>,
    input: &[u8],
) -> PyResult<RunTuple<'py>> {
    let spec = options::spec(py, argv, options, false)?;
    let input = input.to_vec();
    let output = detached(py, |interrupted| Command::run(spec, input, interrupted))?;
    run_tuple(py, output)
}

pub(crate) fn run_tuple(py: Python<'_>, output: zind_core::Output) -> PyResult<RunTuple<'_>> {
    let stdout = from_captured(py, output.stdout)?;
    let stderr = from_captured(py, output.stderr)?;
    Ok((exit_tuple(output.exit), Stats(output.stats), Isolation(output.isolation), stdout, stderr))
}

/// Sets the size of a terminal's window by a descriptor of either end.
#[pyfunction]
pub(crate) fn resize(py: Python<'_>, fd: RawFd, rows: u16, cols: u16) -> PyResult<()> {
    // SAFETY: the package hands over a descriptor that stays open meanwhile.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    zind_core::terminal::resize(fd, zind_core::terminal::Size::new(rows, cols)).map_err(|error| raise(py, &error))
}

/// What was in force, not yet turned into objects: most callers never look.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Isolation(zind_core::Isolation);

#[pymethods]
impl Isolation {
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &self.0.to_json())
    }
}

/// Starts a container and waits until its program runs.
#[pyfunction]
#[pyo3(signature = (argv, options, low_level, cancel=None))]
pub(crate) fn spawn(
    py: Python<'_>,
    argv: &Bound<'_, PyAny>,
    options: &Bound<'_, PyDict>,
    low_level: bool,
    cancel: Option<Py<Cancel>>,
) -> PyResult<Process> {
    let spec = options::spec(py, argv, options, low_level)?;
    stoppable(py, cancel, |interrupted| begin_spec(spec, interrupted)?.finish_interruptible(interrupted)).map(Process)
}

/// Begins a start, for an event loop.
#[pyfunction]
pub(crate) fn begin(py: Python<'_>, argv: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Start> {
    let spec = options::spec(py, argv, options, false)?;
    let start = detached(py, |interrupted| begin_spec(spec, interrupted))?;
    Ok(Start(Mutex::new(Some(start))))
}

fn begin_spec(spec: Spec, interrupted: &mut dyn FnMut() -> bool) -> zind_core::Result<zind_core::Start> {
    Command::from(spec).begin_interruptible(interrupted)
}

/// A start that is under way.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Start(Mutex<Option<zind_core::Start>>);

#[pymethods]
impl Start {
    /// Becomes readable when `finish` will not block for long.
    fn fileno(&self) -> RawFd {
        let slot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.as_ref().map_or(-1, |start| start.fd().as_raw_fd())
    }

    /// Waits until the program runs.
    fn finish(&self, py: Python<'_>) -> PyResult<Process> {
        let start = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let start =
            start.ok_or_else(|| raise(py, &zind_core::Error::State("the start was finished before".to_owned())))?;
        detached(py, |interrupted| start.finish_interruptible(interrupted)).map(Process)
    }

    /// Gives the start up; nothing of it is left.
    fn cancel(&self, py: Python<'_>) {
        let start = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        py.detach(|| drop(start));
    }
}

/// A running container.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Process(pub(crate) zind_core::Process);

#[pymethods]
impl Process {
    #[getter]
    fn pid(&self) -> i32 {
        self.0.pid()
    }

    #[getter]
    fn pidfd(&self) -> RawFd {
        self.0.pidfd().as_raw_fd()
    }

    /// Becomes readable when the container has ended.
    #[getter]
    fn end_fd(&self) -> RawFd {
        self.0.end_fd().as_raw_fd()
    }

    #[getter]
    fn isolation<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &self.0.isolation().to_json())
    }

    /// Our ends of the pipes, -1 where there is none; the caller closes them.
    fn take_streams(&self) -> (RawFd, RawFd, RawFd) {
        let raw = |fd: Option<OwnedFd>| fd.map_or(-1, IntoRawFd::into_raw_fd);
        (raw(self.0.take_stdin()), raw(self.0.take_stdout()), raw(self.0.take_stderr()))
    }

    /// Our end of the terminal, -1 where there is none; the caller closes it.
    fn take_terminal(&self) -> RawFd {
        self.0.take_terminal().map_or(-1, IntoRawFd::into_raw_fd)
    }

    /// Connects the terminal to the caller's descriptors until the program has ended.
    fn interact(&self, py: Python<'_>, input: RawFd, output: RawFd) -> PyResult<()> {
        // SAFETY: the package hands over descriptors that stay open meanwhile.
        let (input, output) = unsafe { (BorrowedFd::borrow_raw(input), BorrowedFd::borrow_raw(output)) };
        detached(py, |interrupted| self.0.interact(input, output, interrupted).map(drop))
    }

    /// Runs a further program in the container.
    #[pyo3(signature = (argv, options, cancel=None))]
    fn exec(
        &self,
        py: Python<'_>,
        argv: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
        cancel: Option<Py<Cancel>>,
    ) -> PyResult<Process> {
        let exec = options::exec(py, argv, options)?;
        stoppable(py, cancel, |interrupted| self.0.exec_interruptible(&exec, interrupted)).map(Process)
    }

    /// The same to its end: exit, stats, isolation, stdout, stderr.
    fn exec_to_end<'py>(
        &self,
        py: Python<'py>,
        argv: &Bound<'py, PyAny>,
        options: &Bound<'py, PyDict>,
        input: &[u8],
    ) -> PyResult<RunTuple<'py>> {
        let exec = options::exec(py, argv, options)?;
        let input = input.to_vec();
        let output =
            detached(py, |interrupted| to_end(&self.0.exec_interruptible(&exec, interrupted)?, input, interrupted))?;
        run_tuple(py, output)
    }

    /// Begins the same, for an event loop.
    fn begin_exec(&self, py: Python<'_>, argv: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Start> {
        let exec = options::exec(py, argv, options)?;
        let start = detached(py, |_| self.0.begin_exec(&exec))?;
        Ok(Start(Mutex::new(Some(start))))
    }

    fn poll(&self, py: Python<'_>) -> PyResult<Option<ExitTuple>> {
        let exit = self.0.try_wait().map_err(|error| raise(py, &error))?;
        Ok(exit.map(exit_tuple))
    }

    /// `None` when the time is over first.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<ExitTuple>> {
        let timeout = duration(py, timeout)?;
        let exit = detached(py, |interrupted| self.0.wait_interruptible(timeout, interrupted))?;
        Ok(exit.map(exit_tuple))
    }

    fn stats(&self, py: Python<'_>) -> PyResult<Stats> {
        detached(py, |_| self.0.stats()).map(Stats)
    }

    fn update(&self, py: Python<'_>, resources: &Bound<'_, PyAny>) -> PyResult<()> {
        let resources = crate::resources::of_object(resources)?;
        detached(py, |_| self.0.update(&resources))
    }

    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, |_| self.0.pause())
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, |_| self.0.resume())
    }

    fn is_paused(&self, py: Python<'_>) -> PyResult<bool> {
        detached(py, |_| self.0.is_paused())
    }

    fn processes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let all = detached(py, |_| self.0.processes())?;
        all.iter().map(|info| to_python(py, &info.to_json())).collect()
    }

    #[getter]
    fn root(&self, py: Python<'_>) -> PyResult<Root> {
        self.0.root().map(Root).map_err(|error| raise(py, &error))
    }

    #[getter]
    fn image(&self) -> Option<Image> {
        self.0.image().cloned().map(Image)
    }

    fn commit(&self, py: Python<'_>, options: CommitTuple, watch: Watch) -> PyResult<Image> {
        let options = commit_options(py, options)?;
        watched(py, watch, |told| self.0.commit(&options, told)).map(Image)
    }

    fn stop(&self, py: Python<'_>, patience: f64) -> PyResult<ExitTuple> {
        let patience = duration(py, Some(patience))?.unwrap_or_default();
        detached(py, |interrupted| self.0.stop(patience, interrupted)).map(exit_tuple)
    }

    /// How it is asked to stop.
    #[getter]
    fn stop_signal(&self) -> i32 {
        self.0.stop_signal()
    }

    fn events(&self, py: Python<'_>, pressure: Vec<TriggerTuple>) -> PyResult<Events> {
        let triggers: Vec<_> = pressure.into_iter().map(|given| events::trigger(py, given)).collect::<PyResult<_>>()?;
        self.0.events(&triggers).map(Events::of).map_err(|error| raise(py, &error))
    }

    /// Whoever decides about the calls that its profile asks about, once.
    fn take_notifier(&self) -> Option<Notifier> {
        self.0.take_notifier().map(Notifier::of)
    }

    /// Ends it, and says so, if it waits for answers that nobody gives.
    fn expect_no_questions(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.expect_no_questions()).map_err(|error| raise(py, &error))
    }

    fn violations(&self, py: Python<'_>) -> PyResult<Violations> {
        self.0.violations().map(Violations).map_err(|error| raise(py, &error))
    }

    /// The JSON of the profile that lets through what was called.
    fn learned(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.0.learned()).map_err(|error| raise(py, &error))
    }

    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        self.0.kill().map_err(|error| raise(py, &error))
    }

    fn mount(&self, py: Python<'_>, mount: &Mount) -> PyResult<()> {
        let mount = mount.0.clone();
        detached(py, |_| self.0.mount(&mount))
    }

    fn umount(&self, py: Python<'_>, target: std::path::PathBuf) -> PyResult<()> {
        detached(py, |_| self.0.umount(target))
    }

    /// Kills the container because its time is over.
    fn expire(&self, py: Python<'_>) -> PyResult<()> {
        self.0.expire().map_err(|error| raise(py, &error))
    }

    fn signal(&self, py: Python<'_>, signal: i32) -> PyResult<()> {
        self.0.signal(signal).map_err(|error| raise(py, &error))
    }
}

/// Feeds a further program in a container and waits for it; interrupted, it is ended.
pub(crate) fn to_end(
    process: &zind_core::Process,
    input: Vec<u8>,
    interrupted: &mut dyn FnMut() -> bool,
) -> zind_core::Result<zind_core::Output> {
    process.expect_no_questions()?;
    process.communicate(input, interrupted).inspect_err(|_| {
        let _ = process.kill();
        let _ = process.wait(None);
    })
}

pub(crate) fn duration(py: Python<'_>, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    // Negative is "now", as in subprocess.
    let clamp = |seconds: f64| parse_duration("timeout", if seconds < 0.0 { 0.0 } else { seconds });
    seconds.map(clamp).transpose().map_err(|error| raise(py, &error))
}

/// The exchange of data with a container, which survives a timeout.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Exchange(Mutex<Option<zind_core::Exchange>>);

#[pymethods]
impl Exchange {
    /// Takes descriptors over (-1: none) and feeds `input` to the first.
    #[new]
    fn new(py: Python<'_>, stdin: RawFd, stdout: RawFd, stderr: RawFd, input: &[u8]) -> PyResult<Exchange> {
        // SAFETY: the package hands over descriptors that it owns and forgets.
        let owned = |fd: RawFd| (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
        let exchange = zind_core::Exchange::of([owned(stdin), owned(stdout), owned(stderr)], input.to_vec());
        Ok(Exchange(Mutex::new(Some(exchange.map_err(|error| raise(py, &error))?))))
    }

    /// True when the container has ended and everything is read; false when the time is over first.
    #[pyo3(signature = (process, timeout=None))]
    fn serve(&self, py: Python<'_>, process: &Process, timeout: Option<f64>) -> PyResult<bool> {
        let until = duration(py, timeout)?.and_then(|timeout| Instant::now().checked_add(timeout));
        detached(py, |interrupted| {
            let mut slot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match slot.as_mut() {
                Some(exchange) => exchange.serve(&process.0, until, interrupted),
                None => Ok(true),
            }
        })
    }

    /// Copies of what was read so far.
    fn so_far<'py>(&self, py: Python<'py>) -> (Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
        let slot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let copy = |captured: &Captured| PyBytes::new(py, &captured.to_vec());
        match slot.as_ref().map(zind_core::Exchange::captured) {
            Some((out, err)) => (copy(out), copy(err)),
            None => (PyBytes::new(py, b""), PyBytes::new(py, b"")),
        }
    }

    /// What was read, once.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let exchange = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let (out, err) = exchange.map(zind_core::Exchange::into_captured).unwrap_or_default();
        Ok((from_captured(py, out)?, from_captured(py, err)?))
    }
}
