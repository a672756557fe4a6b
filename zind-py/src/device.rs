//! `zind.Device`: devices of the container's.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::errors::raise;

/// A device of a container's.
#[pyclass(frozen, module = "zind", from_py_object)]
#[derive(Clone)]
pub(crate) struct Device(pub(crate) zind_core::Device);

fn finish(
    py: Python<'_>,
    device: zind_core::Device,
    access: &str,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
) -> PyResult<Device> {
    let device = device.access(access).map_err(|error| raise(py, &error))?.owner(uid, gid);
    Ok(Device(mode.map_or(device.clone(), |mode| device.mode(mode))))
}

#[pymethods]
impl Device {
    #[new]
    #[pyo3(signature = (path, target=None, *, access="rwm", mode=None, uid=None, gid=None))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        target: Option<PathBuf>,
        access: &str,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> PyResult<Device> {
        let device = zind_core::Device::new(path);
        let device = target.map_or(device.clone(), |target| device.at(target));
        finish(py, device, access, mode, uid, gid)
    }

    #[staticmethod]
    #[pyo3(signature = (r#type, path, major=0, minor=0, *, access="rwm", mode=None, uid=None, gid=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn node(
        py: Python<'_>,
        r#type: char,
        path: PathBuf,
        major: u32,
        minor: u32,
        access: &str,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> PyResult<Device> {
        let device = zind_core::Device::node(r#type, path, major, minor).map_err(|error| raise(py, &error))?;
        finish(py, device, access, mode, uid, gid)
    }

    #[staticmethod]
    fn parse(py: Python<'_>, text: &str) -> PyResult<Device> {
        zind_core::Device::parse(text).map(Device).map_err(|error| raise(py, &error))
    }

    /// Where it is in the container.
    #[getter]
    fn target(&self) -> PathBuf {
        self.0.target().to_owned()
    }

    /// `"rwm"` or parts of it.
    #[getter]
    fn access(&self) -> String {
        self.0.rights()
    }

    fn __repr__(&self) -> String {
        format!("zind.Device({}, {:?})", self.0.target().display(), self.0.rights())
    }
}
