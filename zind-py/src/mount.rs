//! `zind.Mount`: the caller's mounts.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{raise, spec as spec_error};
use crate::options::{lines, size_of_object};

/// A mount of a container's.
#[pyclass(frozen, module = "zind", from_py_object)]
#[derive(Clone)]
pub(crate) struct Mount(pub(crate) zind_core::Mount);

fn with_options(py: Python<'_>, mount: zind_core::Mount, options: &[String]) -> PyResult<Mount> {
    mount.with_options(options.iter().map(String::as_str)).map(Mount).map_err(|error| raise(py, &error))
}

fn plain(py: Python<'_>, kind: &str, target: PathBuf, options: &[String]) -> PyResult<Mount> {
    with_options(py, zind_core::Mount::file_system(kind, target), options)
}

#[pymethods]
impl Mount {
    #[new]
    #[pyo3(signature = (*, r#type, target, source=None, options=Vec::new()))]
    fn new(
        py: Python<'_>,
        r#type: &str,
        target: PathBuf,
        source: Option<PathBuf>,
        options: Vec<String>,
    ) -> PyResult<Mount> {
        let options = options.iter().map(String::as_str);
        zind_core::Mount::new(r#type, source.as_deref(), target, options).map(Mount).map_err(|error| raise(py, &error))
    }

    #[staticmethod]
    #[pyo3(signature = (source, target, *, read_only=false, recursive=true, propagation="private", create=true, idmap=None, options=Vec::new()))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn bind(
        py: Python<'_>,
        source: PathBuf,
        target: PathBuf,
        read_only: bool,
        recursive: bool,
        propagation: &str,
        create: bool,
        idmap: Option<Bound<'_, PyAny>>,
        mut options: Vec<String>,
    ) -> PyResult<Mount> {
        let mut mount = zind_core::Mount::bind(source, target).read_only(read_only).recursive(recursive).create(create);
        if let Some(maps) = idmap {
            let maps = lines("mounts", &maps)?;
            mount = mount.idmap(maps.clone(), maps);
        }
        const KNOWN: [&str; 8] =
            ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];
        if !KNOWN.contains(&propagation) {
            return Err(spec_error(
                py,
                "mounts",
                &format!("propagation {propagation:?} is none of {}", KNOWN.join(", ")),
            ));
        }
        if propagation != "private" {
            options.push(propagation.to_owned());
        }
        with_options(py, mount, &options)
    }

    #[staticmethod]
    #[pyo3(signature = (target, *, size=None, mode=0o1777, options=Vec::new()))]
    fn tmpfs(
        py: Python<'_>,
        target: PathBuf,
        size: Option<Bound<'_, PyAny>>,
        mode: u32,
        options: Vec<String>,
    ) -> PyResult<Mount> {
        let mut mount = zind_core::Mount::tmpfs(target).mode(mode);
        if let Some(size) = size {
            mount = mount.size(size_of_object("mounts", &size)?);
        }
        with_options(py, mount, &options)
    }

    #[staticmethod]
    #[pyo3(signature = (target, *, lower, upper=None, work=None, read_only=false, options=Vec::new()))]
    fn overlay(
        py: Python<'_>,
        target: PathBuf,
        lower: Vec<PathBuf>,
        upper: Option<PathBuf>,
        work: Option<PathBuf>,
        read_only: bool,
        options: Vec<String>,
    ) -> PyResult<Mount> {
        let mount = zind_core::Mount::overlay(target, lower).read_only(read_only);
        let mount = match (upper, work) {
            (Some(upper), Some(work)) => mount.upper(upper, work),
            (None, None) => mount,
            _ => return Err(spec_error(py, "mounts", "upper and work go together")),
        };
        with_options(py, mount, &options)
    }

    #[staticmethod]
    #[pyo3(signature = (target, content, *, mode=0o644, read_only=false))]
    fn file(target: PathBuf, content: &Bound<'_, PyBytes>, mode: u32, read_only: bool) -> Mount {
        Mount(zind_core::Mount::file(target, content.as_bytes(), mode).read_only(read_only))
    }

    #[staticmethod]
    #[pyo3(signature = (name, target, *, read_only=false, copy_up=true, create=true, idmap=None, place=None, options=Vec::new()))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn volume(
        py: Python<'_>,
        name: String,
        target: PathBuf,
        read_only: bool,
        copy_up: bool,
        create: bool,
        idmap: Option<Bound<'_, PyAny>>,
        place: Option<PathBuf>,
        options: Vec<String>,
    ) -> PyResult<Mount> {
        let mount = zind_core::Mount::volume(name, target).read_only(read_only).copy_up(copy_up).create(create);
        let mount = place.into_iter().fold(mount, zind_core::Mount::volumes_in);
        let maps = idmap.map(|maps| lines("mounts", &maps)).transpose()?;
        let mount = maps.into_iter().fold(mount, |mount, maps| mount.idmap(maps.clone(), maps));
        with_options(py, mount, &options)
    }

    #[staticmethod]
    #[pyo3(signature = (target=PathBuf::from("/proc"), *, options=Vec::new()))]
    fn proc(py: Python<'_>, target: PathBuf, options: Vec<String>) -> PyResult<Mount> {
        plain(py, "proc", target, &options)
    }

    #[staticmethod]
    #[pyo3(signature = (target=PathBuf::from("/sys"), *, options=vec!["ro".to_owned()]))]
    fn sysfs(py: Python<'_>, target: PathBuf, options: Vec<String>) -> PyResult<Mount> {
        plain(py, "sysfs", target, &options)
    }

    #[staticmethod]
    #[pyo3(signature = (target=PathBuf::from("/dev/pts"), *, options=vec!["ptmxmode=0666".to_owned(), "mode=0620".to_owned()]))]
    fn devpts(py: Python<'_>, target: PathBuf, options: Vec<String>) -> PyResult<Mount> {
        plain(py, "devpts", target, &options)
    }

    #[staticmethod]
    #[pyo3(signature = (target=PathBuf::from("/dev/mqueue"), *, options=Vec::new()))]
    fn mqueue(py: Python<'_>, target: PathBuf, options: Vec<String>) -> PyResult<Mount> {
        plain(py, "mqueue", target, &options)
    }

    #[staticmethod]
    #[pyo3(signature = (target=PathBuf::from("/sys/fs/cgroup"), *, options=vec!["ro".to_owned()]))]
    fn cgroup(py: Python<'_>, target: PathBuf, options: Vec<String>) -> PyResult<Mount> {
        plain(py, "cgroup2", target, &options)
    }

    /// Where it is in the container.
    #[getter]
    fn target(&self) -> PathBuf {
        self.0.target().to_owned()
    }

    /// `"bind"`, `"overlay"`, `"file"`, `"volume"`, or the type of the file system.
    #[getter]
    fn r#type(&self) -> &str {
        self.0.kind()
    }

    fn __repr__(&self) -> String {
        format!("zind.{:?}", self.0)
    }
}
