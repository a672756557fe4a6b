//! Copying into and out of roots, and volumes: what `zind.Root` and `zind.Volumes` are made of.

use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zind_core::{CopyOptions, CopyStats};

use crate::errors::{detached, raise};

/// files, directories, symlinks, hard_links, nodes, bytes, skipped, not_kept
type StatsTuple = (u64, u64, u64, u64, u64, u64, u64, u64);

fn stats_tuple(stats: CopyStats) -> StatsTuple {
    let CopyStats { files, directories, symlinks, hard_links, nodes, bytes, skipped, not_kept, .. } = stats;
    (files, directories, symlinks, hard_links, nodes, bytes, skipped, not_kept)
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Root>()?;
    module.add_class::<Volumes>()?;
    module.add_class::<Volume>()
}

/// The inside of a root, held by a descriptor.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Root(pub(crate) zind_core::Root);

fn options(owner: Option<(u32, u32)>, follow_links: bool, overwrite: bool, strict: bool) -> CopyOptions {
    let options = CopyOptions::new().follow_links(follow_links).overwrite(overwrite).strict(strict);
    match owner {
        Some((uid, gid)) => options.owner(uid, gid),
        None => options,
    }
}

#[pymethods]
impl Root {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Root> {
        detached(py, |_| zind_core::Root::open(&path)).map(Root)
    }

    #[getter]
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fileno(&self) -> RawFd {
        use std::os::fd::AsFd;
        self.0.as_fd().as_raw_fd()
    }

    #[pyo3(signature = (source, target, *, owner=None, follow_links=false, overwrite=true, strict=false))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn copy_in(
        &self,
        py: Python<'_>,
        source: PathBuf,
        target: PathBuf,
        owner: Option<(u32, u32)>,
        follow_links: bool,
        overwrite: bool,
        strict: bool,
    ) -> PyResult<StatsTuple> {
        let options = options(owner, follow_links, overwrite, strict);
        let copied = detached(py, |asked| self.0.copy_in_interruptible(&source, &target, &options, asked));
        copied.map(stats_tuple)
    }

    #[pyo3(signature = (source, target, *, owner=None, follow_links=false, overwrite=true, strict=false))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn copy_out(
        &self,
        py: Python<'_>,
        source: PathBuf,
        target: PathBuf,
        owner: Option<(u32, u32)>,
        follow_links: bool,
        overwrite: bool,
        strict: bool,
    ) -> PyResult<StatsTuple> {
        let options = options(owner, follow_links, overwrite, strict);
        let copied = detached(py, |asked| self.0.copy_out_interruptible(&source, &target, &options, asked));
        copied.map(stats_tuple)
    }

    fn read_file<'py>(&self, py: Python<'py>, path: PathBuf, limit: u64) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = detached(py, |_| self.0.read_file(&path, limit))?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn write_file(&self, py: Python<'_>, path: PathBuf, data: &[u8], mode: u32) -> PyResult<()> {
        detached(py, |_| self.0.write_file(&path, data, mode))
    }
}

/// The place where volumes are.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Volumes(zind_core::Volumes);

#[pymethods]
impl Volumes {
    #[new]
    #[pyo3(signature = (place=None))]
    fn new(py: Python<'_>, place: Option<PathBuf>) -> PyResult<Volumes> {
        zind_core::Volumes::open(place).map(Volumes).map_err(|error| raise(py, &error))
    }

    #[getter]
    fn place(&self) -> &Path {
        self.0.place()
    }

    fn create(&self, py: Python<'_>, name: &str) -> PyResult<Volume> {
        self.0.create(name).map(Volume).map_err(|error| raise(py, &error))
    }

    fn get(&self, py: Python<'_>, name: &str) -> PyResult<Volume> {
        self.0.get(name).map(Volume).map_err(|error| raise(py, &error))
    }

    fn get_or_create(&self, py: Python<'_>, name: &str) -> PyResult<Volume> {
        self.0.get_or_create(name).map(Volume).map_err(|error| raise(py, &error))
    }

    fn list(&self, py: Python<'_>) -> PyResult<Vec<Volume>> {
        let list = self.0.list().map_err(|error| raise(py, &error))?;
        Ok(list.into_iter().map(Volume).collect())
    }

    fn remove(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        detached(py, |_| self.0.remove(name))
    }
}

/// A named directory that outlives containers.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Volume(zind_core::Volume);

#[pymethods]
impl Volume {
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.0.path()
    }

    #[getter]
    fn is_fresh(&self) -> bool {
        self.0.is_fresh()
    }

    /// A descriptor that holds the volume; the caller closes it.
    fn hold(&self, py: Python<'_>) -> PyResult<RawFd> {
        let hold = detached(py, |_| self.0.hold())?;
        Ok(hold.into_fd().into_raw_fd())
    }

    fn fill_from(&self, py: Python<'_>, root: &Root, path: PathBuf) -> PyResult<Option<StatsTuple>> {
        let filled = detached(py, |asked| self.0.fill_from_interruptible(&root.0, &path, asked))?;
        Ok(filled.map(stats_tuple))
    }

    fn mark_used(&self, py: Python<'_>) -> PyResult<()> {
        self.0.mark_used().map_err(|error| raise(py, &error))
    }
}
