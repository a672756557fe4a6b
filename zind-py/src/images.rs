//! The store and its images: what `zind.Store` and `zind.Image` are made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use zind_core::{
    ArchiveFormat, Auth, CommitOptions, Compression, Error, ImageConfig, Mirror, PackStats, Platform, Progress,
    ProgressEvent, PullOptions, PullPolicy, PushOptions, RegistryOptions, Result, RunConfig, parse_duration,
};

use crate::convert::to_python;
use crate::copy::Root;
use crate::errors::{raise, spec as spec_error};

/// How often Python hears of the same piece of work.
const PAUSE: Duration = Duration::from_millis(50);

/// Stops work on another thread.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Cancel(pub(crate) AtomicBool);

#[pymethods]
impl Cancel {
    #[new]
    fn new() -> Cancel {
        Cancel(AtomicBool::new(false))
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Kind and layer of the last event that Python heard of, and when.
type Heard = (&'static str, Option<(usize, usize)>, Instant);

/// Tells Python of long work, and stops it for a signal, an exception of the callback, or a [`Cancel`].
pub(crate) struct Told {
    callback: Option<Py<PyAny>>,
    cancel: Option<Py<Cancel>>,
    raised: Option<PyErr>,
    last: Option<Heard>,
}

impl Progress for Told {
    fn step(&mut self, event: &ProgressEvent<'_>) {
        let Some(callback) = &self.callback else { return };
        if self.raised.is_some() {
            return;
        }
        let name = event.kind.name();
        let is_same =
            |(kind, layer, at): &(&str, _, Instant)| *kind == name && *layer == event.layer && at.elapsed() < PAUSE;
        if event.done > 0 && Some(event.done) != event.total && self.last.as_ref().is_some_and(is_same) {
            return;
        }
        self.last = Some((name, event.layer, Instant::now()));
        let (layer, layers) = event.layer.unzip();
        let digest = event.digest.map(ToString::to_string);
        let told = (name, layer, layers, digest, event.done, event.total);
        self.raised = Python::attach(|py| callback.call1(py, told)).err();
    }

    fn interrupted(&mut self) -> bool {
        if self.raised.is_none() {
            self.raised = Python::attach(|py| py.check_signals()).err();
        }
        let is_cancelled = self.cancel.as_ref().is_some_and(|cancel| cancel.get().0.load(Ordering::Acquire));
        is_cancelled || self.raised.is_some()
    }
}

/// `progress` and `cancel` of a call.
pub(crate) type Watch = (Option<Py<PyAny>>, Option<Py<Cancel>>);

/// Runs `body` without the GIL.
pub(crate) fn watched<T: Send>(
    py: Python<'_>,
    (callback, cancel): Watch,
    body: impl FnOnce(&mut Told) -> Result<T> + Send,
) -> PyResult<T> {
    let mut told = Told { callback, cancel, raised: None, last: None };
    let result = py.detach(|| body(&mut told));
    match (result, told.raised) {
        (_, Some(exception)) => Err(exception),
        (Ok(value), None) => Ok(value),
        (Err(error), None) => Err(raise(py, &error)),
    }
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Cancel>()?;
    module.add_class::<Image>()?;
    module.add_class::<Store>()?;
    module.add_class::<Builder>()
}

/// entries, whiteouts, bytes, skipped
pub(crate) type PackTuple = (u64, u64, u64, u64);

pub(crate) fn pack_tuple(stats: PackStats) -> PackTuple {
    (stats.entries, stats.whiteouts, stats.bytes, stats.skipped)
}

pub(crate) fn compression(py: Python<'_>, name: &str) -> PyResult<Compression> {
    Compression::from_name(name)
        .ok_or_else(|| spec_error(py, "compression", &format!("{name:?} is none of \"none\", \"gzip\", \"zstd\"")))
}

fn format(py: Python<'_>, name: &str) -> PyResult<ArchiveFormat> {
    match name {
        "oci" => Ok(ArchiveFormat::OciArchive),
        "oci-dir" => Ok(ArchiveFormat::OciDirectory),
        "docker" => Ok(ArchiveFormat::DockerArchive),
        _ => Err(spec_error(py, "format", &format!("{name:?} is none of \"oci\", \"oci-dir\", \"docker\""))),
    }
}

/// The object that is `config` in the configuration of an image, as JSON text.
fn run_config(py: Python<'_>, text: Option<&str>) -> PyResult<Option<RunConfig>> {
    let parse = |text: &str| -> Result<RunConfig> {
        let value = serde_json::from_str(text).map_err(|error| Error::spec("config", error.to_string()))?;
        RunConfig::of_json(&value)
    };
    text.map(parse).transpose().map_err(|error| raise(py, &error))
}

/// tags, config as JSON, author, message, created, compression
pub(crate) type CommitTuple = (Vec<String>, Option<String>, Option<String>, Option<String>, Option<String>, String);

pub(crate) fn commit_options(py: Python<'_>, given: CommitTuple) -> PyResult<CommitOptions> {
    let (tags, config, author, message, created, name) = given;
    let mut options = CommitOptions::new().compression(compression(py, &name)?);
    options.config = run_config(py, config.as_deref())?;
    (options.tags, options.author, options.message, options.created) = (tags, author, message, created);
    Ok(options)
}

/// An image of a store.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Image(pub(crate) zind_core::Image);

#[pymethods]
impl Image {
    #[getter]
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    #[getter]
    fn digest(&self) -> String {
        self.0.digest().to_string()
    }

    #[getter]
    fn tags(&self) -> Vec<String> {
        self.0.tags().to_vec()
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    #[getter]
    fn created(&self) -> Option<&str> {
        self.0.created()
    }

    #[getter]
    fn platform(&self) -> String {
        self.0.platform().to_string()
    }

    #[getter]
    fn place(&self) -> &Path {
        self.0.store().place()
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let value = py.detach(|| self.0.to_json()).map_err(|error| raise(py, &error))?;
        to_python(py, &value)
    }

    fn mount(&self, py: Python<'_>, watch: Watch) -> PyResult<Root> {
        watched(py, watch, |told| self.0.mount(told)).map(Root)
    }

    fn unpack(&self, py: Python<'_>, watch: Watch) -> PyResult<()> {
        watched(py, watch, |told| self.0.store().unpack(&self.0, &zind_core::Owners::of_caller(), told))
    }

    fn export(&self, py: Python<'_>, path: PathBuf, name: &str, watch: Watch) -> PyResult<PackTuple> {
        let compression = compression(py, name)?;
        watched(py, watch, |told| self.0.export(&path, compression, told)).map(pack_tuple)
    }
}

/// policy of credentials: "files", "anonymous", "basic", "identity", "bearer"; and up to two texts for it
type AuthTuple = (String, String, String);
/// auth, auth_file, tls_verify, cert_dir, mirrors, proxy, timeout, retries, parallel
type RegistryTuple = (
    AuthTuple,
    Option<PathBuf>,
    bool,
    Option<PathBuf>,
    BTreeMap<String, Vec<(String, bool)>>,
    Option<String>,
    Option<f64>,
    Option<u32>,
    Option<usize>,
);

fn registry(py: Python<'_>, given: RegistryTuple) -> PyResult<RegistryOptions> {
    let ((kind, first, second), auth_file, tls_verify, cert_dir, mirrors, proxy, timeout, retries, parallel) = given;
    let mut options = RegistryOptions::default();
    options.auth = match kind.as_str() {
        "files" => Auth::Files,
        "anonymous" => Auth::Anonymous,
        "basic" => Auth::Basic { user: first, password: second },
        "identity" => Auth::Identity(first),
        "bearer" => Auth::Bearer(first),
        _ => return Err(spec_error(py, "auth", "is None, \"anonymous\", (user, password) or a dict")),
    };
    let mirror = |(location, insecure)| Mirror { location, insecure };
    options.mirrors = mirrors.into_iter().map(|(host, list)| (host, list.into_iter().map(mirror).collect())).collect();
    (options.auth_file, options.tls_verify, options.cert_dir, options.proxy) = (auth_file, tls_verify, cert_dir, proxy);
    if let Some(seconds) = timeout {
        options.timeout = parse_duration("timeout", seconds).map_err(|error| raise(py, &error))?;
    }
    options.retries = retries.unwrap_or(options.retries);
    options.parallel = parallel.unwrap_or(options.parallel);
    Ok(options)
}

/// Images on disk.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Store(pub(crate) zind_core::Store);

#[pymethods]
impl Store {
    #[new]
    #[pyo3(signature = (place=None, limits=Vec::new()))]
    fn new(py: Python<'_>, place: Option<PathBuf>, limits: Vec<(String, u64)>) -> PyResult<Store> {
        let mut all = zind_core::Limits::default();
        limits.iter().try_for_each(|(name, value)| all.set(name, *value)).map_err(|error| raise(py, &error))?;
        let open = || zind_core::Store::open_with(place, all);
        watched(py, (None, None), |told| zind_core::interruptible(told, open)).map(Store)
    }

    fn limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyDict>> {
        let all = pyo3::types::PyDict::new(py);
        self.0.limits().pairs().iter().try_for_each(|(name, value)| all.set_item(name, value))?;
        Ok(all)
    }

    #[getter]
    fn place(&self) -> &Path {
        self.0.place()
    }

    fn image(&self, py: Python<'_>, name: &str) -> PyResult<Image> {
        py.detach(|| self.0.image(name)).map(Image).map_err(|error| raise(py, &error))
    }

    fn images(&self, py: Python<'_>) -> PyResult<Vec<Image>> {
        let list = py.detach(|| self.0.images()).map_err(|error| raise(py, &error))?;
        Ok(list.into_iter().map(Image).collect())
    }

    fn tag(&self, py: Python<'_>, image: &Image, name: &str) -> PyResult<()> {
        watched(py, (None, None), |told| zind_core::interruptible(told, || self.0.tag(&image.0, name)))
    }

    fn remove(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        watched(py, (None, None), |told| zind_core::interruptible(told, || self.0.remove(name)))
    }

    fn gc<'py>(&self, py: Python<'py>, watch: Watch) -> PyResult<Bound<'py, PyAny>> {
        let collected = watched(py, watch, |told| self.0.gc_with(told))?;
        to_python(py, &collected.to_json())
    }

    fn usage<'py>(&self, py: Python<'py>, watch: Watch) -> PyResult<Bound<'py, PyAny>> {
        let usage = watched(py, watch, |told| self.0.usage_with(told))?;
        to_python(py, &usage.to_json())
    }

    fn verify<'py>(&self, py: Python<'py>, watch: Watch) -> PyResult<Bound<'py, PyAny>> {
        let faults = watched(py, watch, |told| self.0.verify(told))?;
        to_python(py, &faults.iter().map(zind_core::Fault::to_json).collect())
    }

    fn load(&self, py: Python<'_>, path: PathBuf, watch: Watch) -> PyResult<Vec<Image>> {
        let images = watched(py, watch, |told| self.0.load(&path, told))?;
        Ok(images.into_iter().map(Image).collect())
    }

    fn import_rootfs(
        &self,
        py: Python<'_>,
        source: PathBuf,
        tag: Option<&str>,
        config: Option<&str>,
        watch: Watch,
    ) -> PyResult<Image> {
        let mut whole = ImageConfig::new();
        whole.config = run_config(py, config)?.unwrap_or_default();
        watched(py, watch, |told| self.0.import_rootfs(&source, tag, whole, told)).map(Image)
    }

    fn save(&self, py: Python<'_>, images: Vec<Py<Image>>, path: PathBuf, name: &str, watch: Watch) -> PyResult<()> {
        let format = format(py, name)?;
        let images: Vec<zind_core::Image> = images.iter().map(|image| image.get().0.clone()).collect();
        watched(py, watch, |told| self.0.save(&images, &path, format, told))
    }

    #[expect(clippy::too_many_arguments, reason = "the options of a pull")]
    fn pull(
        &self,
        py: Python<'_>,
        reference: &str,
        find: bool,
        policy: &str,
        platform: Option<&str>,
        foreign_layers: bool,
        unpack: bool,
        given: RegistryTuple,
        watch: Watch,
    ) -> PyResult<Image> {
        let mut options = PullOptions::default();
        options.policy = PullPolicy::from_name(policy).ok_or_else(|| {
            spec_error(py, "pull", &format!("{policy:?} is none of \"missing\", \"always\", \"never\""))
        })?;
        options.platform = platform.map(Platform::parse).transpose().map_err(|error| raise(py, &error))?;
        (options.foreign_layers, options.unpack) = (foreign_layers, unpack);
        options.registry = registry(py, given)?;
        let work = |told: &mut Told| match find {
            true => self.0.get(reference, &options, told),
            false => self.0.pull(reference, &options, told),
        };
        watched(py, watch, work).map(Image)
    }

    #[expect(clippy::too_many_arguments, reason = "the options of a push")]
    fn push(
        &self,
        py: Python<'_>,
        image: &Image,
        reference: &str,
        chunk_size: Option<u64>,
        mount_from: Option<String>,
        extra_tags: Vec<String>,
        given: RegistryTuple,
        watch: Watch,
    ) -> PyResult<()> {
        let mut options = PushOptions::default();
        (options.chunk_size, options.mount_from, options.extra_tags) = (chunk_size, mount_from, extra_tags);
        options.registry = registry(py, given)?;
        watched(py, watch, |told| self.0.push(&image.0, reference, &options, told))
    }
}

/// The steps of an image that is to be built.
#[pyclass(module = "zind._zind")]
pub(crate) struct Builder(zind_core::Builder);

#[pymethods]
impl Builder {
    #[new]
    fn new(
        py: Python<'_>,
        store: &Store,
        base: Option<&Image>,
        uid_map: Option<Bound<'_, PyAny>>,
        gid_map: Option<Bound<'_, PyAny>>,
        cache: bool,
    ) -> PyResult<Builder> {
        let mut builder = zind_core::Builder::new(&store.0);
        builder.cache(cache).id_maps(crate::options::id_maps(py, (uid_map, gid_map))?);
        if let Some(base) = base {
            builder.from(&base.0);
        }
        Ok(Builder(builder))
    }

    fn run(
        &mut self,
        py: Python<'_>,
        argv: &Bound<'_, PyAny>,
        options: &Bound<'_, pyo3::types::PyDict>,
    ) -> PyResult<()> {
        let spec = crate::options::spec(py, argv, options, false)?;
        self.0.run_command(&spec.into());
        Ok(())
    }

    fn copy(&mut self, source: PathBuf, target: PathBuf, owner: String) {
        self.0.copy_as(source, target, owner);
    }

    /// A step that changes the configuration only.
    fn configure(&mut self, py: Python<'_>, what: &str, values: Vec<String>) -> PyResult<()> {
        self.0.configure(what, values).map_err(|error| raise(py, &error))?;
        Ok(())
    }

    fn commit<'py>(&self, py: Python<'py>, options: CommitTuple, watch: Watch) -> PyResult<(Image, Bound<'py, PyAny>)> {
        let options = commit_options(py, options)?;
        let builder = self.0.clone();
        let built = watched(py, watch, |told| builder.commit(&options, told))?;
        let steps = to_python(py, &built.steps_json())?;
        Ok((Image(built.image), steps))
    }
}
