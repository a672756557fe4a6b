//! The low level: `zind.unshare`, `zind.mount`, `zind.proc` and their like.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt};
use zind_core::proc::Proc as CoreProc;
use zind_core::{Result, flags, lowlevel, proc as core_proc};

use crate::convert::to_python;
use crate::errors::{detached, raise};

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, value) in [lowlevel::CLONE, flags::MS, flags::MNT, flags::MOUNT_ATTR].into_iter().flatten() {
        module.add(*name, *value)?;
    }
    module.add_class::<Proc>()?;
    module.add_function(wrap_pyfunction!(unshare, module)?)?;
    module.add_function(wrap_pyfunction!(setns, module)?)?;
    module.add_function(wrap_pyfunction!(mount, module)?)?;
    module.add_function(wrap_pyfunction!(umount, module)?)?;
    module.add_function(wrap_pyfunction!(pivot_root, module)?)?;
    module.add_function(wrap_pyfunction!(chroot, module)?)?;
    module.add_function(wrap_pyfunction!(sethostname, module)?)?;
    module.add_function(wrap_pyfunction!(setdomainname, module)?)?;
    module.add_function(wrap_pyfunction!(namespaces, module)?)?;
    module.add_function(wrap_pyfunction!(doctor, module)?)
}

/// Runs a call of the engine without the GIL.
fn call<T: Send>(py: Python<'_>, body: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    detached(py, |_| body())
}

#[pyfunction]
#[pyo3(signature = (flags, /))]
fn unshare(py: Python<'_>, flags: u64) -> PyResult<()> {
    // On the calling thread: namespaces of a thread are its own.
    lowlevel::unshare(flags).map_err(|error| raise(py, &error))
}

/// `target`: a descriptor or an object with `fileno()`, or a path; `pid=` joins by process.
#[pyfunction]
#[pyo3(signature = (target=None, flags=0, *, pid=None))]
fn setns(py: Python<'_>, target: Option<Bound<'_, PyAny>>, flags: u64, pid: Option<i32>) -> PyResult<()> {
    let result = match (target, pid) {
        (None, Some(pid)) => lowlevel::setns_pid(pid, flags),
        (Some(target), None) => {
            let number = match target.cast::<PyInt>() {
                Ok(number) => Some(number.extract::<i32>()?),
                Err(_) if target.hasattr("fileno")? => Some(target.call_method0("fileno")?.extract()?),
                Err(_) => None,
            };
            match number {
                // SAFETY: only passed to setns(2), which refuses a number that is not open.
                Some(number) if number >= 0 => lowlevel::setns(unsafe { BorrowedFd::borrow_raw(number) }, flags),
                Some(number) => return Err(crate::errors::spec(py, "target", &format!("{number} is no descriptor"))),
                None => lowlevel::setns_path(&target.extract::<PathBuf>()?, flags),
            }
        }
        _ => return Err(crate::errors::spec(py, "target", "or pid must be given, and not both")),
    };
    result.map_err(|error| raise(py, &error))
}

#[pyfunction]
#[pyo3(signature = (source, target, fstype=None, flags=0, data=None))]
fn mount(
    py: Python<'_>,
    source: Option<OsString>,
    target: PathBuf,
    fstype: Option<String>,
    flags: u64,
    data: Option<OsString>,
) -> PyResult<()> {
    use std::os::unix::ffi::OsStrExt;
    call(py, || {
        lowlevel::mount(source.as_deref(), &target, fstype.as_deref(), flags, data.as_deref().map(OsStr::as_bytes))
    })
}

#[pyfunction]
#[pyo3(signature = (target, flags=0))]
fn umount(py: Python<'_>, target: PathBuf, flags: u64) -> PyResult<()> {
    call(py, || lowlevel::umount(&target, flags))
}

#[pyfunction]
fn pivot_root(py: Python<'_>, new_root: PathBuf, put_old: PathBuf) -> PyResult<()> {
    lowlevel::pivot_root(&new_root, &put_old).map_err(|error| raise(py, &error))
}

#[pyfunction]
fn chroot(py: Python<'_>, path: PathBuf) -> PyResult<()> {
    lowlevel::chroot(&path).map_err(|error| raise(py, &error))
}

#[pyfunction]
fn sethostname(py: Python<'_>, name: OsString) -> PyResult<()> {
    lowlevel::sethostname(&name).map_err(|error| raise(py, &error))
}

#[pyfunction]
fn setdomainname(py: Python<'_>, name: OsString) -> PyResult<()> {
    lowlevel::setdomainname(&name).map_err(|error| raise(py, &error))
}

/// kind, id, dev, processes, uid, command, parent, owner, netnsid
type NamespaceTuple = (&'static str, u64, u64, Vec<i32>, Option<u32>, String, Option<u64>, Option<u64>, Option<u32>);

#[pyfunction]
fn namespaces(py: Python<'_>) -> PyResult<Vec<NamespaceTuple>> {
    let list = call(py, zind_core::namespaces)?;
    Ok(list
        .into_iter()
        .map(|n| (n.kind.name(), n.id, n.dev, n.processes, n.owner_uid, n.command, n.parent, n.owner, n.netnsid))
        .collect())
}

/// The checks as a dict, and the table as text.
#[pyfunction]
fn doctor(py: Python<'_>) -> PyResult<(Bound<'_, PyAny>, String)> {
    let doctor = py.detach(zind_core::doctor);
    Ok((to_python(py, &doctor.to_json())?, doctor.to_string()))
}

/// `/proc/<pid>`, held by a descriptor: a later process with the same number does not answer.
#[pyclass(frozen, module = "zind._zind")]
struct Proc(CoreProc);

impl Proc {
    fn read<T>(&self, py: Python<'_>, body: impl FnOnce(&CoreProc) -> Result<T>) -> PyResult<T> {
        body(&self.0).map_err(|error| raise(py, &error))
    }
}

/// start, end, permissions, offset, device, inode, path
type MapTuple = (u64, u64, String, u64, u64, u64, Option<PathBuf>);
type IdMapTuple = (u32, u32, u32);

#[pymethods]
impl Proc {
    #[new]
    fn new(py: Python<'_>, pid: i32) -> PyResult<Proc> {
        CoreProc::open(pid).map(Proc).map_err(|error| raise(py, &error))
    }

    #[getter]
    fn pid(&self) -> i32 {
        self.0.pid()
    }

    #[getter]
    fn cmdline(&self, py: Python<'_>) -> PyResult<Vec<OsString>> {
        self.read(py, CoreProc::cmdline)
    }

    #[getter]
    fn cwd(&self, py: Python<'_>) -> PyResult<OsString> {
        self.read(py, CoreProc::cwd).map(PathBuf::into_os_string)
    }

    #[getter]
    fn root(&self, py: Python<'_>) -> PyResult<OsString> {
        self.read(py, CoreProc::root).map(PathBuf::into_os_string)
    }

    #[getter]
    fn exe(&self, py: Python<'_>) -> PyResult<OsString> {
        self.read(py, CoreProc::exe).map(PathBuf::into_os_string)
    }

    #[getter]
    fn environ<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in self.read(py, CoreProc::environ)? {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    #[getter]
    fn fds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for fd in self.read(py, CoreProc::fds)? {
            dict.set_item(fd.number, fd.target.into_os_string())?;
        }
        Ok(dict)
    }

    #[getter]
    fn maps(&self, py: Python<'_>) -> PyResult<Vec<MapTuple>> {
        let letter = |is: bool, letter: char| if is { letter } else { '-' };
        let row = |map: core_proc::Map| {
            let perms = map.perms;
            let last = if perms.shared { 's' } else { 'p' };
            let text =
                [letter(perms.read, 'r'), letter(perms.write, 'w'), letter(perms.exec, 'x'), last].iter().collect();
            (map.start, map.end, text, map.offset, map.dev, map.inode, map.path)
        };
        Ok(self.read(py, CoreProc::maps)?.into_iter().map(row).collect())
    }

    fn mem<'py>(&self, py: Python<'py>, offset: u64, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.read(py, |proc| proc.mem(offset, size))?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[getter]
    fn stat<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stat = self.read(py, CoreProc::stat)?;
        let dict = PyDict::new(py);
        for (name, value) in stat.numbers() {
            dict.set_item(name, value)?;
        }
        dict.set_item("pid", stat.pid)?;
        dict.set_item("comm", &stat.comm)?;
        dict.set_item("state", stat.state.to_string())?;
        Ok(dict)
    }

    #[getter]
    fn statm<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in self.read(py, CoreProc::statm)?.numbers() {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    #[getter]
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in self.read(py, CoreProc::status)?.fields() {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    /// Inodes by kind, `pid_for_children` and `time_for_children` included.
    #[getter]
    fn ns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (kind, id) in self.read(py, CoreProc::namespaces)? {
            dict.set_item(kind.name(), id.inode)?;
        }
        for (kind, id) in self.read(py, CoreProc::children_namespaces)? {
            dict.set_item(format!("{}_for_children", kind.name()), id.inode)?;
        }
        Ok(dict)
    }

    #[getter]
    fn idmaps(&self, py: Python<'_>) -> PyResult<(Vec<IdMapTuple>, Vec<IdMapTuple>)> {
        let maps = self.read(py, CoreProc::id_maps)?;
        let rows =
            |list: Vec<zind_core::IdMap>| list.into_iter().map(|map| (map.container, map.host, map.size)).collect();
        Ok((rows(maps.uid), rows(maps.gid)))
    }

    #[getter]
    fn cgroup(&self, py: Python<'_>) -> PyResult<Vec<(u32, Vec<String>, OsString)>> {
        let list = self.read(py, CoreProc::cgroup)?;
        Ok(list.into_iter().map(|entry| (entry.hierarchy, entry.controllers, entry.path.into_os_string())).collect())
    }

    fn __repr__(&self) -> String {
        format!("zind.proc({})", self.0.pid())
    }
}
