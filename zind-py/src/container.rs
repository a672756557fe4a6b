//! Containers that live: what `zind.Container` and `zind.Containers` are made of.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use zind_core::container::{
    AttachOptions, ContainerEvent, Filter, Hook, HookPoint, Hooks, LogOptions, LogQuery, Ready, Restart, Size, State,
    Stream,
};
use zind_core::{Error, Result};

use crate::convert::to_python;
use crate::copy::Root;
use crate::errors::{detached, raise, stoppable};
use crate::events::{self, Events, TriggerTuple};
use crate::images::{Cancel, CommitTuple, Image, PackTuple, Watch, commit_options, compression, pack_tuple, watched};
use crate::layers::{ChangeTuple, SnapshotTuple, change_tuple, snapshot_tuple};
use crate::mount::Mount;
use crate::options;
use crate::process::{ExitTuple, Process, RunTuple, duration, exit_tuple, run_tuple, to_end};
use crate::stats::Stats;

/// when it is run, path, args, env, timeout
type HookTuple = (String, PathBuf, Vec<OsString>, Vec<OsString>, Option<f64>);
/// time, stream, text, whole, lost
type LineTuple<'py> = (f64, &'static str, Bound<'py, PyBytes>, bool, u64);
/// time, what, id, name, exit, number
type EventTuple = (f64, &'static str, String, Option<String>, Option<ExitTuple>, u64);
/// follow, tail, since, until, stdout, stderr
type QueryTuple = (bool, Option<u64>, Option<f64>, Option<f64>, bool, bool);

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Attachment>()?;
    module.add_class::<Container>()?;
    module.add_class::<ContainerEvents>()?;
    module.add_class::<Containers>()?;
    module.add_class::<Ending>()?;
    module.add_class::<Logs>()
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn time_of(seconds: f64) -> Result<SystemTime> {
    let since = Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    let time = since.and_then(|since| UNIX_EPOCH.checked_add(since));
    time.ok_or_else(|| Error::Spec { field: "since", rule: format!("{seconds} is no time") })
}

fn hooks_of(given: Vec<HookTuple>) -> Result<Hooks> {
    let mut hooks = Hooks::default();
    for (when, path, args, env, timeout) in given {
        let list = match when.as_str() {
            "prestart" => &mut hooks.prestart,
            "createRuntime" => &mut hooks.create_runtime,
            "createContainer" => &mut hooks.create_container,
            "startContainer" => &mut hooks.start_container,
            "poststart" => &mut hooks.poststart,
            "poststop" => &mut hooks.poststop,
            _ => {
                let rule = format!(
                    "{when:?} is none of prestart, createRuntime, createContainer, startContainer, poststart, poststop"
                );
                return Err(Error::Spec { field: "hooks", rule });
            }
        };
        let mut hook = Hook::default();
        (hook.path, hook.args, hook.env) = (path, args, env);
        hook.timeout = timeout.map(|timeout| zind_core::parse_duration("hooks", timeout)).transpose()?;
        list.push(hook);
    }
    Ok(hooks)
}

/// The containers of one place.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Containers(zind_core::Containers);

#[pymethods]
impl Containers {
    #[new]
    #[pyo3(signature = (place=None))]
    fn new(py: Python<'_>, place: Option<PathBuf>) -> PyResult<Containers> {
        detached(py, |_| zind_core::Containers::open(place.as_deref())).map(Containers)
    }

    #[getter]
    fn place(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// A new container: what runs in it, what it is, and who may stop the making.
    fn create(
        &self,
        py: Python<'_>,
        argv: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
        given: &Bound<'_, PyDict>,
        cancel: Option<Py<Cancel>>,
    ) -> PyResult<Container> {
        let spec = options::spec(py, argv, options, false)?;
        let mut builder = zind_core::Container::builder(spec).containers(&self.0);
        let failed = |error: Error| raise(py, &error);
        for (key, value) in given {
            let key: String = key.extract()?;
            builder = match key.as_str() {
                "name" => builder.name(value.extract::<String>()?),
                "labels" => {
                    let labels: Vec<(String, String)> = value.extract()?;
                    labels.into_iter().fold(builder, |builder, (name, value)| builder.label(name, value))
                }
                "restart" => builder.restart(Restart::parse(&value.extract::<String>()?).map_err(failed)?),
                "log" => {
                    let (size, files) = value.extract::<(Bound<'_, PyAny>, u32)>()?;
                    builder.log(LogOptions { size: options::size_of_object("log", &size)?, files })
                }
                "stdin_open" => builder.stdin_open(value.extract::<bool>()?),
                "auto_remove" => builder.auto_remove(value.extract::<bool>()?),
                "stop_signal" => builder.stop_signal(signal_of(&value)?),
                "hooks" => builder.hooks(hooks_of(value.extract()?).map_err(failed)?),
                _ => return Err(crate::errors::spec(py, "container", &format!("{key:?} is unknown"))),
            };
        }
        stoppable(py, cancel, |interrupted| builder.create_interruptible(interrupted)).map(Container::of)
    }

    fn find(&self, py: Python<'_>, name: &str) -> PyResult<Container> {
        detached(py, |_| self.0.find(name)).map(Container::of)
    }

    fn list(
        &self,
        py: Python<'_>,
        all: bool,
        labels: Vec<(String, Option<String>)>,
        name: Option<String>,
        states: Vec<String>,
    ) -> PyResult<Vec<Container>> {
        let states = states.iter().map(|state| state_of(state)).collect::<Result<_>>();
        let filter = Filter { all, labels, name, states: states.map_err(|error| raise(py, &error))? };
        let found = detached(py, |_| self.0.list(&filter))?;
        Ok(found.into_iter().map(Container::of).collect())
    }

    /// Ids of containers, and control groups.
    fn prune(&self, py: Python<'_>) -> PyResult<(Vec<String>, Vec<PathBuf>)> {
        detached(py, |_| self.0.prune()).map(|pruned| (pruned.containers, pruned.groups))
    }

    /// From a number on, or from now on.
    fn events(&self, py: Python<'_>, since: Option<u64>) -> PyResult<ContainerEvents> {
        let events = detached(py, |_| match since {
            Some(number) => self.0.events_from(number),
            None => self.0.events(),
        })?;
        Ok(ContainerEvents { fd: events.fd().as_raw_fd(), events: Closable::new(events) })
    }
}

fn size_of((rows, cols): (u16, u16)) -> Size {
    Size { rows, cols }
}

fn signal_of(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    match value.extract::<i32>() {
        Ok(number) => Ok(number),
        Err(_) => zind_core::parse_signal(&value.extract::<String>()?).map_err(|error| raise(value.py(), &error)),
    }
}

fn state_of(name: &str) -> Result<State> {
    let all = [State::Creating, State::Created, State::Running, State::Paused, State::Stopped];
    let rule = || format!("{name:?} is none of creating, created, running, paused, stopped");
    all.into_iter().find(|state| state.name() == name).ok_or_else(|| Error::Spec { field: "states", rule: rule() })
}

/// A container in its place on disk.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Container {
    container: zind_core::Container,
    /// Of the run that began then.
    pidfd: Mutex<Option<(SystemTime, OwnedFd)>>,
}

impl Container {
    fn of(container: zind_core::Container) -> Container {
        Container { container, pidfd: Mutex::new(None) }
    }

    fn call<T: Send>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&zind_core::Container) -> Result<T> + Send,
    ) -> PyResult<T> {
        detached(py, |_| body(&self.container))
    }
}

#[pymethods]
impl Container {
    #[getter]
    fn id(&self) -> &str {
        self.container.id()
    }

    #[getter]
    fn place(&self) -> PathBuf {
        self.container.place().to_owned()
    }

    #[getter]
    fn containers(&self) -> Containers {
        Containers(self.container.containers().clone())
    }

    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.call(py, zind_core::Container::name)
    }

    #[getter]
    fn labels(&self, py: Python<'_>) -> PyResult<BTreeMap<String, String>> {
        self.call(py, zind_core::Container::labels)
    }

    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.call(py, |container| container.state().map(State::name))
    }

    #[getter]
    fn pid(&self, py: Python<'_>) -> PyResult<Option<i32>> {
        self.call(py, zind_core::Container::pid)
    }

    /// The same number as long as the same first process runs.
    #[getter]
    fn pidfd(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.call(py, |container| {
            let began = container.started()?.unwrap_or(UNIX_EPOCH);
            let mut slot = self.pidfd.lock().unwrap_or_else(PoisonError::into_inner);
            let pidfd = container.pidfd()?;
            match &*slot {
                Some((of, pidfd)) if *of == began => Ok(pidfd.as_raw_fd()),
                _ => Ok(slot.insert((began, pidfd)).1.as_raw_fd()),
            }
        })
    }

    /// A wait for its end; `None` if it has ended, or is about to.
    fn ending(&self, py: Python<'_>) -> PyResult<Option<Ending>> {
        self.call(py, zind_core::Container::ending).map(|ending| ending.map(Ending))
    }

    #[getter]
    fn exit(&self, py: Python<'_>) -> PyResult<Option<ExitTuple>> {
        self.call(py, zind_core::Container::exit).map(|exit| exit.map(exit_tuple))
    }

    #[getter]
    fn created(&self, py: Python<'_>) -> PyResult<f64> {
        self.call(py, zind_core::Container::created).map(seconds)
    }

    #[getter]
    fn started(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.call(py, zind_core::Container::started).map(|time| time.map(seconds))
    }

    #[getter]
    fn finished(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.call(py, zind_core::Container::finished).map(|time| time.map(seconds))
    }

    #[getter]
    fn restarts(&self, py: Python<'_>) -> PyResult<u32> {
        self.call(py, zind_core::Container::restarts)
    }

    #[getter]
    fn image(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.call(py, zind_core::Container::image)
    }

    #[getter]
    fn has_terminal(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, zind_core::Container::has_terminal)
    }

    #[getter]
    fn stop_signal(&self, py: Python<'_>) -> PyResult<i32> {
        self.call(py, zind_core::Container::stop_signal)
    }

    #[getter]
    fn isolation<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let isolation = self.call(py, zind_core::Container::isolation)?;
        isolation.map(|isolation| to_python(py, &isolation)).transpose()
    }

    fn inspect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &self.call(py, zind_core::Container::inspect)?)
    }

    /// Has a function called at a point of its life, with the state as a dictionary.
    fn on(&self, py: Python<'_>, when: &str, function: Py<PyAny>) -> PyResult<()> {
        let points = [HookPoint::CreateRuntime, HookPoint::Poststart, HookPoint::Poststop];
        let Some(point) = points.into_iter().find(|point| point.name() == when) else {
            let rule = format!(
                "a function of this program is called at createRuntime, poststart and poststop, not at {when:?}"
            );
            return Err(crate::errors::spec(py, "hooks", &rule));
        };
        self.container.on(point, move |state| {
            Python::attach(|py| {
                let state = to_python(py, &state.to_json())?;
                function.call1(py, (state,)).map(drop)
            })
            .map_err(|error| error.to_string())
        });
        Ok(())
    }

    /// What hooks complained of since it was asked last.
    fn take_warnings(&self) -> Vec<String> {
        self.container.take_warnings()
    }

    fn start(&self, py: Python<'_>, cancel: Option<Py<Cancel>>) -> PyResult<()> {
        stoppable(py, cancel, |interrupted| self.container.start_interruptible(interrupted))
    }

    /// `None` when the time is over first.
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<ExitTuple>> {
        let timeout = duration(py, timeout)?;
        let exit = detached(py, |interrupted| self.container.wait_interruptible(timeout, interrupted))?;
        Ok(exit.map(exit_tuple))
    }

    fn kill(&self, py: Python<'_>, signal: &Bound<'_, PyAny>) -> PyResult<()> {
        let signal = signal_of(signal)?;
        self.call(py, |container| container.kill(signal))
    }

    fn stop(&self, py: Python<'_>, patience: f64, cancel: Option<Py<Cancel>>) -> PyResult<ExitTuple> {
        let patience = duration(py, Some(patience))?.unwrap_or_default();
        stoppable(py, cancel, |interrupted| self.container.stop_interruptible(patience, interrupted)).map(exit_tuple)
    }

    /// Without waiting; false if it has ended.
    fn begin_stop(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, zind_core::Container::begin_stop)
    }

    fn restart(&self, py: Python<'_>, patience: f64, cancel: Option<Py<Cancel>>) -> PyResult<()> {
        let patience = duration(py, Some(patience))?.unwrap_or_default();
        stoppable(py, cancel, |interrupted| self.container.restart_interruptible(patience, interrupted))
    }

    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, |interrupted| self.container.pause_interruptible(interrupted))
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, zind_core::Container::resume)
    }

    fn update(&self, py: Python<'_>, resources: &Bound<'_, PyAny>) -> PyResult<()> {
        let resources = crate::resources::of_object(resources)?;
        detached(py, |interrupted| self.container.update_interruptible(&resources, interrupted))
    }

    fn detach(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, |interrupted| self.container.detach_interruptible(interrupted))
    }

    fn rename(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        detached(py, |interrupted| self.container.rename_interruptible(name, interrupted))
    }

    fn delete(&self, py: Python<'_>, force: bool, cancel: Option<Py<Cancel>>) -> PyResult<()> {
        stoppable(py, cancel, |interrupted| self.container.delete_interruptible(force, interrupted))
    }

    fn resize(&self, py: Python<'_>, rows: u16, cols: u16) -> PyResult<()> {
        self.call(py, |container| container.resize(size_of((rows, cols))))
    }

    fn stats(&self, py: Python<'_>) -> PyResult<Stats> {
        self.call(py, zind_core::Container::stats).map(Stats)
    }

    fn processes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let all = self.call(py, zind_core::Container::processes)?;
        all.iter().map(|info| to_python(py, &info.to_json())).collect()
    }

    fn events(&self, py: Python<'_>, pressure: Vec<TriggerTuple>) -> PyResult<Events> {
        let triggers: Vec<_> = pressure.into_iter().map(|given| events::trigger(py, given)).collect::<PyResult<_>>()?;
        self.call(py, |container| container.events(&triggers)).map(Events::of)
    }

    #[getter]
    fn root(&self, py: Python<'_>) -> PyResult<Root> {
        self.call(py, zind_core::Container::root).map(Root)
    }

    fn mount(&self, py: Python<'_>, mount: &Mount) -> PyResult<()> {
        let mount = mount.0.clone();
        self.call(py, |container| container.mount(&mount))
    }

    fn umount(&self, py: Python<'_>, target: PathBuf) -> PyResult<()> {
        self.call(py, |container| container.umount(target))
    }

    fn logs(&self, py: Python<'_>, query: QueryTuple) -> PyResult<Logs> {
        let (follow, tail, since, until, stdout, stderr) = query;
        let lines = self.call(py, |container| {
            let (since, until) = (since.map(time_of).transpose()?, until.map(time_of).transpose()?);
            Ok(container.logs(LogQuery { follow, tail, since, until, stdout, stderr })?.lines())
        })?;
        Ok(Logs { lines: Closable::new(lines), fd: AtomicI32::new(-1), is_over: AtomicBool::new(false) })
    }

    /// Starts it; the attachment misses nothing.
    fn start_attached(&self, py: Python<'_>) -> PyResult<Attachment> {
        let attachment = detached(py, |interrupted| self.container.start_attached(interrupted))?;
        Ok(Attachment::of(attachment))
    }

    /// Until a port listens, or a line is there, or a program exits with 0.
    fn wait_ready(
        &self,
        py: Python<'_>,
        port: Option<u16>,
        line: Option<String>,
        argv: &Bound<'_, PyAny>,
        timeout: f64,
        cancel: Option<Py<Cancel>>,
    ) -> PyResult<()> {
        let ready = match (port, line) {
            (Some(port), _) => Ready::Port(port),
            (None, Some(line)) => Ready::Line(line),
            (None, None) => Ready::Command(Box::new(options::exec(py, argv, &PyDict::new(py))?)),
        };
        let timeout = duration(py, Some(timeout))?.unwrap_or_default();
        stoppable(py, cancel, |interrupted| self.container.wait_ready_interruptible(&ready, timeout, interrupted))
    }

    /// Runs a further program in it.
    #[pyo3(signature = (argv, options, cancel=None))]
    fn exec(
        &self,
        py: Python<'_>,
        argv: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
        cancel: Option<Py<Cancel>>,
    ) -> PyResult<Process> {
        let exec = options::exec(py, argv, options)?;
        stoppable(py, cancel, |interrupted| self.container.exec_interruptible(&exec, interrupted)).map(Process)
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
        let output = detached(py, |interrupted| {
            to_end(&self.container.exec_interruptible(&exec, interrupted)?, input, interrupted)
        })?;
        run_tuple(py, output)
    }

    fn diff(&self, py: Python<'_>, since: Option<&str>) -> PyResult<Vec<ChangeTuple>> {
        let changes = self.call(py, |container| container.diff(since))?;
        Ok(changes.into_iter().map(change_tuple).collect())
    }

    fn commit(&self, py: Python<'_>, options: CommitTuple, pause: bool, watch: Watch) -> PyResult<Image> {
        let options = commit_options(py, options)?;
        watched(py, watch, |told| self.container.commit(&options, pause, told)).map(Image)
    }

    fn export(&self, py: Python<'_>, path: PathBuf, name: &str, watch: Watch) -> PyResult<PackTuple> {
        let compression = compression(py, name)?;
        watched(py, watch, |told| self.container.export(&path, compression, told)).map(pack_tuple)
    }

    fn snapshot(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        detached(py, |interrupted| self.container.snapshot_interruptible(name, interrupted))
    }

    fn restore(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        detached(py, |interrupted| self.container.restore_interruptible(name, interrupted))
    }

    fn remove_snapshot(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        detached(py, |interrupted| self.container.remove_snapshot_interruptible(name, interrupted))
    }

    fn snapshots(&self, py: Python<'_>) -> PyResult<Vec<SnapshotTuple>> {
        let list = self.call(py, zind_core::Container::snapshots)?;
        Ok(list.into_iter().map(snapshot_tuple).collect())
    }

    fn attach(&self, py: Python<'_>, size: Option<(u16, u16)>) -> PyResult<Attachment> {
        let options = AttachOptions { size: size.map(size_of) };
        let attachment = self.call(py, |container| container.attach(&options))?;
        Ok(Attachment::of(attachment))
    }
}

/// A wait for the end of a container.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Ending(zind_core::container::Ending);

#[pymethods]
impl Ending {
    /// Readable at the end.
    fn fileno(&self) -> RawFd {
        self.0.fd().as_raw_fd()
    }

    fn exit(&self, py: Python<'_>) -> PyResult<Option<ExitTuple>> {
        detached(py, |_| self.0.exit()).map(|exit| exit.map(exit_tuple))
    }
}

/// What a thread waits in, and another one may close meanwhile: the wait is over then.
struct Closable<T> {
    slot: Mutex<Option<T>>,
    is_closed: AtomicBool,
}

impl<T: Send> Closable<T> {
    fn new(value: T) -> Closable<T> {
        Closable { slot: Mutex::new(Some(value)), is_closed: AtomicBool::new(false) }
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// What `body` finds; `None`, too, once it is closed.
    fn wait<R: Send>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&mut T, &mut dyn FnMut() -> bool) -> Result<Option<R>> + Send,
    ) -> PyResult<Option<R>> {
        detached(py, |interrupted| {
            let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(value) = slot.as_mut().filter(|_| !self.is_closed()) else { return Ok(None) };
            unless_closed(&self.is_closed, body(value, &mut || self.is_closed() || interrupted()))
        })
    }

    /// On return it is gone.
    fn close(&self, py: Python<'_>) {
        self.is_closed.store(true, Ordering::Release);
        py.detach(|| drop(self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}

/// A wait that ended because it was closed found nothing.
fn unless_closed<R>(is_closed: &AtomicBool, found: Result<Option<R>>) -> Result<Option<R>> {
    match found {
        Err(Error::Interrupted) if is_closed.load(Ordering::Acquire) => Ok(None),
        found => found,
    }
}

/// The log of a container, line by line.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Logs {
    lines: Closable<zind_core::container::LogLines>,
    /// As they were after the last line, for who asks while somebody waits.
    fd: AtomicI32,
    is_over: AtomicBool,
}

#[pymethods]
impl Logs {
    /// Readable when there may be more; -1 while there is none to watch.
    fn fileno(&self) -> RawFd {
        if self.lines.is_closed() { -1 } else { self.fd.load(Ordering::Acquire) }
    }

    /// The next line; `None` when the time is over first, or there will be no more.
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<LineTuple<'py>>> {
        let timeout = duration(py, timeout)?;
        let line = self.lines.wait(py, |lines, interrupted| {
            let line = lines.next_within(timeout, interrupted);
            self.fd.store(lines.fd().map_or(-1, |fd| fd.as_raw_fd()), Ordering::Release);
            self.is_over.store(lines.is_over(), Ordering::Release);
            line
        })?;
        Ok(line.map(|line| {
            (seconds(line.time), line.stream.name(), PyBytes::new(py, &line.text), line.is_whole, line.lost)
        }))
    }

    /// True once the last line was told, or it is closed.
    #[getter]
    fn is_over(&self) -> bool {
        self.lines.is_closed() || self.is_over.load(Ordering::Acquire)
    }

    /// Ends the wait of another thread, too.
    fn close(&self, py: Python<'_>) {
        self.lines.close(py);
    }
}

/// A connection to the streams of a container.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Attachment {
    /// Who waits for output keeps nobody from writing, and from all else but closing it.
    attachment: RwLock<Option<zind_core::container::Attachment>>,
    /// Of who reads.
    turn: Mutex<()>,
    is_closed: AtomicBool,
    /// Its number, which stays the same while it is open.
    fd: RawFd,
}

impl Attachment {
    fn of(attachment: zind_core::container::Attachment) -> Attachment {
        Attachment {
            fd: attachment.fd().as_raw_fd(),
            attachment: RwLock::new(Some(attachment)),
            turn: Mutex::new(()),
            is_closed: AtomicBool::new(false),
        }
    }

    fn with<T: Send>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&zind_core::container::Attachment, &mut dyn FnMut() -> bool) -> Result<T> + Send,
    ) -> PyResult<T> {
        detached(py, |interrupted| {
            let slot = self.attachment.read().unwrap_or_else(PoisonError::into_inner);
            body(slot.as_ref().ok_or_else(closed)?, interrupted)
        })
    }
}

fn closed() -> Error {
    Error::State("the attachment is closed".to_owned())
}

#[pymethods]
impl Attachment {
    /// Readable when there is output, or at the end; -1 once it is closed.
    fn fileno(&self) -> RawFd {
        if self.is_closed.load(Ordering::Acquire) { -1 } else { self.fd }
    }

    /// Where input goes, once; -1 where there is none. The caller closes it.
    fn take_input(&self, py: Python<'_>) -> PyResult<RawFd> {
        detached(py, |_| {
            let mut slot = self.attachment.write().unwrap_or_else(PoisonError::into_inner);
            let attachment = slot.as_mut().ok_or_else(closed)?;
            // What gives the terminal another size stays here.
            if !attachment.has_terminal() {
                return Ok(attachment.take_input().map_or(-1, IntoRawFd::into_raw_fd));
            }
            let copy = attachment.input().map(|fd| fd.try_clone_to_owned()).transpose();
            let failed = |error| {
                let errno = zind_core::IntoErrno::into_errno(error);
                Error::sys(zind_core::Step::AskMonitor, "dup", "", errno)
            };
            Ok(copy.map_err(failed)?.map_or(-1, IntoRawFd::into_raw_fd))
        })
    }

    fn close_input(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |attachment, _| attachment.end_input())
    }

    fn resize(&self, py: Python<'_>, rows: u16, cols: u16) -> PyResult<()> {
        self.with(py, |attachment, _| attachment.resize(size_of((rows, cols))))
    }

    #[getter]
    fn has_terminal(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |attachment, _| Ok(attachment.has_terminal()))
    }

    /// The next output; `None` when the time is over first, or it is closed meanwhile, and without bytes at the end.
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Option<(&'static str, Bound<'py, PyBytes>)>> {
        let timeout = duration(py, timeout)?;
        let is_closed = || self.is_closed.load(Ordering::Acquire);
        let chunk = detached(py, |interrupted| {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = self.attachment.read().unwrap_or_else(PoisonError::into_inner);
            let attachment = slot.as_ref().filter(|_| !is_closed()).ok_or_else(closed)?;
            let waited = attachment.wait_interruptible(timeout, &mut || is_closed() || interrupted());
            match unless_closed(&self.is_closed, waited.map(Some))? {
                Some(true) => {}
                _ => return Ok(None),
            }
            let chunk = attachment.try_next()?;
            Ok(Some(chunk.map_or((Stream::Stdout, Vec::new()), |chunk| (chunk.stream, chunk.bytes))))
        })?;
        Ok(chunk.map(|(stream, bytes)| (stream.name(), PyBytes::new(py, &bytes))))
    }

    /// Ends the wait of another thread, too.
    fn close(&self, py: Python<'_>) {
        self.is_closed.store(true, Ordering::Release);
        py.detach(|| drop(self.attachment.write().unwrap_or_else(PoisonError::into_inner).take()));
    }
}

/// What happens to the containers of one place.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct ContainerEvents {
    events: Closable<zind_core::container::ContainerEvents>,
    /// Its number, which stays the same while it is open.
    fd: RawFd,
}

fn event_tuple(event: ContainerEvent) -> EventTuple {
    (seconds(event.time), event.what.name(), event.id, event.name, event.exit.map(exit_tuple), event.number)
}

#[pymethods]
impl ContainerEvents {
    /// Readable when something may have happened; -1 once it is closed.
    fn fileno(&self) -> RawFd {
        if self.events.is_closed() { -1 } else { self.fd }
    }

    /// The next event; `None` when the time is over first, or it is closed.
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<EventTuple>> {
        let timeout = duration(py, timeout)?;
        Ok(self.events.wait(py, |events, interrupted| events.next_within(timeout, interrupted))?.map(event_tuple))
    }

    /// Ends the wait of another thread, too.
    fn close(&self, py: Python<'_>) {
        self.events.close(py);
    }
}
