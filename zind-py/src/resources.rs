//! `zind.Resources`: what stands behind the class of the package, and readings as objects.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString};
use zind_core::cgroup::sweep;
use zind_core::{DeviceRule, IoLimit, RdmaLimit};

use crate::convert::to_python;
use crate::errors::{detached, raise, spec as spec_error};
use crate::options::{size_of_object, type_error};

/// Checked resources.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Resources(pub(crate) zind_core::Resources);

#[pymethods]
impl Resources {
    #[new]
    fn new(py: Python<'_>, values: &Bound<'_, PyDict>) -> PyResult<Resources> {
        let mut resources = zind_core::Resources::new();
        for (key, value) in values {
            if !value.is_none() {
                set(&mut resources, &key.extract::<String>()?, &value)?;
            }
        }
        resources.check().map_err(|error| raise(py, &error))?;
        Ok(Resources(resources))
    }

    /// From the text of OCI's `linux.resources`.
    #[staticmethod]
    fn from_oci(py: Python<'_>, text: &str) -> PyResult<Resources> {
        zind_core::Resources::from_oci_json(text).map(Resources).map_err(|error| raise(py, &error))
    }

    fn to_oci<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &self.0.to_oci().map_err(|error| raise(py, &error))?)
    }

    /// The values as the constructor takes them.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let r = &self.0;
        let dict = PyDict::new(py);
        for (name, value) in [
            ("memory", r.memory),
            ("memory_high", r.memory_high),
            ("memory_low", r.memory_low),
            ("memory_min", r.memory_min),
            ("swap", r.swap),
            ("swappiness", r.swappiness),
            ("cpu_period_us", r.cpu_period_us),
            ("cpu_burst_us", r.cpu_burst_us),
            ("cpu_weight", r.cpu_weight),
            ("cpu_shares", r.cpu_shares),
            ("cpu_rt_period_us", r.cpu_rt_period_us),
            ("pids", r.pids),
            ("io_weight", r.io_weight),
        ] {
            match value {
                Some(u64::MAX) => dict.set_item(name, "max")?,
                Some(value) => dict.set_item(name, value)?,
                None => {}
            }
        }
        for (name, value) in
            [("oom_group", r.oom_group), ("oom_kill_disable", r.oom_kill_disable), ("cpu_idle", r.cpu_idle)]
        {
            value.map(|value| dict.set_item(name, value)).transpose()?;
        }
        for (name, value) in [("cpu_quota_us", r.cpu_quota_us), ("cpu_rt_runtime_us", r.cpu_rt_runtime_us)] {
            value.map(|value| dict.set_item(name, value)).transpose()?;
        }
        match r.cpus {
            Some(f64::INFINITY) => dict.set_item("cpus", "max")?,
            Some(cpus) => dict.set_item("cpus", cpus)?,
            None => {}
        }
        r.cpuset_cpus.as_ref().map(|list| dict.set_item("cpuset", list)).transpose()?;
        r.cpuset_mems.as_ref().map(|list| dict.set_item("cpuset_mems", list)).transpose()?;
        r.net_classid.map(|class| dict.set_item("net_classid", class)).transpose()?;
        if !r.io.is_empty() {
            let one = |limit: &IoLimit| {
                let device = limit.device.clone().into_os_string();
                (device, limit.rbps, limit.wbps, limit.riops, limit.wiops, limit.latency_us, limit.weight)
            };
            dict.set_item("io", r.io.iter().map(one).collect::<Vec<_>>())?;
        }
        if !r.devices.is_empty() {
            let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
            let one = |rule: &DeviceRule| {
                let (major, minor) = (number(rule.major), number(rule.minor));
                (format!("{} {major}:{minor} {}", rule.kind.letter(), rule.access), rule.allow)
            };
            dict.set_item("devices", r.devices.iter().map(one).collect::<Vec<_>>())?;
        }
        if !r.rdma.is_empty() {
            let rdma = PyDict::new(py);
            for (name, limit) in &r.rdma {
                rdma.set_item(name, (limit.hca_handles, limit.hca_objects))?;
            }
            dict.set_item("rdma", rdma)?;
        }
        for (name, map) in [("hugetlb", &r.hugetlb), ("misc", &r.misc)] {
            if !map.is_empty() {
                dict.set_item(name, map.clone())?;
            }
        }
        if !r.net_priorities.is_empty() {
            dict.set_item("net_priorities", r.net_priorities.clone())?;
        }
        if !r.unified.is_empty() {
            dict.set_item("unified", r.unified.clone())?;
        }
        Ok(dict)
    }
}

/// A size or number, where -1 and `"max"` are no limit.
fn limit(field: &'static str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if value.is_instance_of::<PyBool>() {
        return Err(type_error(field, "a number", value));
    }
    if value.cast::<PyString>().is_ok_and(|text| text == "max") {
        return Ok(u64::MAX);
    }
    if value.is_instance_of::<PyInt>() && value.eq(-1)? {
        return Ok(u64::MAX);
    }
    if value.is_instance_of::<PyInt>() && value.lt(0)? {
        return Err(spec_error(value.py(), "resources", &format!("{field}: {value} is negative")));
    }
    let text_is_fine = size_of_object(field, value);
    if value.is_instance_of::<PyString>() {
        return text_is_fine.map_err(|_| {
            spec_error(value.py(), "resources", &format!("{field}: {value:?} is no size; write \"64m\" or a number"))
        });
    }
    text_is_fine
}

fn number<'py, T: for<'a> FromPyObject<'a, 'py>>(field: &str, value: &Bound<'py, PyAny>) -> PyResult<T> {
    if value.is_instance_of::<PyBool>() || value.is_instance_of::<PyFloat>() {
        return Err(type_error(field, "a whole number", value));
    }
    value.extract().map_err(|_| match value.is_instance_of::<PyInt>() {
        true => spec_error(value.py(), "resources", &format!("{field}: {value} is out of range")),
        false => type_error(field, "a whole number", value),
    })
}

fn flag(field: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.extract().map_err(|_| type_error(field, "a bool", value))
}

fn dict<'a, 'py>(field: &str, value: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyDict>> {
    value.cast::<PyDict>().map_err(|_| type_error(field, "a dict", value))
}

fn name(field: &str, key: &Bound<'_, PyAny>) -> PyResult<String> {
    key.extract().map_err(|_| type_error(field, "a dict with str as keys", key))
}

fn set(r: &mut zind_core::Resources, key: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match key {
        "memory" => r.memory = Some(limit("memory", value)?),
        "memory_high" => r.memory_high = Some(limit("memory_high", value)?),
        "memory_low" => r.memory_low = Some(limit("memory_low", value)?),
        "memory_min" => r.memory_min = Some(limit("memory_min", value)?),
        "swap" => r.swap = Some(limit("swap", value)?),
        "oom_group" => r.oom_group = Some(flag(key, value)?),
        "oom_kill_disable" => r.oom_kill_disable = Some(flag(key, value)?),
        "swappiness" => r.swappiness = Some(number(key, value)?),
        "cpus" => {
            let is_max = value.cast::<PyString>().is_ok_and(|text| text == "max") || value.eq(-1)?;
            let cpus: PyResult<f64> = if is_max { Ok(f64::INFINITY) } else { value.extract() };
            r.cpus = Some(cpus.map_err(|_| type_error("cpus", "a number or \"max\"", value))?);
        }
        "cpu_quota_us" => r.cpu_quota_us = Some(number(key, value)?),
        "cpu_period_us" => r.cpu_period_us = Some(number(key, value)?),
        "cpu_burst_us" => r.cpu_burst_us = Some(number(key, value)?),
        "cpu_weight" => r.cpu_weight = Some(number(key, value)?),
        "cpu_shares" => r.cpu_shares = Some(number(key, value)?),
        "cpu_idle" => r.cpu_idle = Some(flag(key, value)?),
        "cpuset" => r.cpuset_cpus = Some(text(key, value)?),
        "cpuset_mems" => r.cpuset_mems = Some(text(key, value)?),
        "cpu_rt_runtime_us" => r.cpu_rt_runtime_us = Some(number(key, value)?),
        "cpu_rt_period_us" => r.cpu_rt_period_us = Some(number(key, value)?),
        "pids" => r.pids = Some(limit("pids", value)?),
        "io_weight" => r.io_weight = Some(number(key, value)?),
        "io" => {
            let items = value.try_iter().map_err(|_| type_error("io", "a sequence of zind.IoLimit", value))?;
            r.io = items.map(|item| io_limit(&item?)).collect::<PyResult<_>>()?;
        }
        "hugetlb" => {
            for (size, bytes) in dict(key, value)? {
                r.hugetlb.insert(name(key, &size)?, limit("hugetlb", &bytes)?);
            }
        }
        "rdma" => {
            for (device, limits) in dict(key, value)? {
                let limits: PyResult<(Option<u32>, Option<u32>)> = limits.extract();
                let (hca_handles, hca_objects) =
                    limits.map_err(|_| type_error("rdma", "a dict with (handles, objects) as values", value))?;
                r.rdma.insert(name(key, &device)?, RdmaLimit { hca_handles, hca_objects });
            }
        }
        "misc" => {
            for (what, most) in dict(key, value)? {
                r.misc.insert(name(key, &what)?, limit("misc", &most)?);
            }
        }
        "devices" => {
            let items =
                value.try_iter().map_err(|_| type_error("devices", "a sequence of zind.DeviceRule or text", value))?;
            r.devices = items.map(|item| device_rule(&item?)).collect::<PyResult<_>>()?;
        }
        "net_classid" => r.net_classid = Some(number(key, value)?),
        "net_priorities" => {
            for (interface, priority) in dict(key, value)? {
                r.net_priorities.insert(name(key, &interface)?, number(key, &priority)?);
            }
        }
        "unified" => {
            for (file, text) in dict(key, value)? {
                r.unified.insert(name(key, &file)?, self::text("unified", &text)?);
            }
        }
        _ => return Err(spec_error(value.py(), "resources", &format!("{key:?} is unknown"))),
    }
    Ok(())
}

fn text(field: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    value.extract().map_err(|_| type_error(field, "str", value))
}

/// A `zind.IoLimit`: device, rbps, wbps, riops, wiops, latency_us, weight.
fn io_limit(value: &Bound<'_, PyAny>) -> PyResult<IoLimit> {
    type Parts<'py> = [Bound<'py, PyAny>; 7];
    let parts: PyResult<Parts<'_>> = value.extract();
    let [device, rbps, wbps, riops, wiops, latency_us, weight] = match parts {
        Ok(parts) if !value.is_instance_of::<PyString>() => parts,
        _ => return Err(type_error("io", "a sequence of zind.IoLimit", value)),
    };
    let device: PathBuf = device.extract().map_err(|_| type_error("io: device", "a path or numbers", &device))?;
    let rate = |name: &'static str, value: Bound<'_, PyAny>| match value.is_none() {
        true => Ok(None),
        false => limit(name, &value).map(Some),
    };
    let whole = |name: &str, value: Bound<'_, PyAny>| match value.is_none() {
        true => Ok(None),
        false => number(name, &value).map(Some),
    };
    let mut limit = IoLimit::of(device)
        .bps(rate("io: rbps", rbps)?, rate("io: wbps", wbps)?)
        .iops(rate("io: riops", riops)?, rate("io: wiops", wiops)?);
    (limit.latency_us, limit.weight) = (whole("io: latency_us", latency_us)?, whole("io: weight", weight)?);
    Ok(limit)
}

/// A `zind.DeviceRule`, or the text of one that allows.
fn device_rule(value: &Bound<'_, PyAny>) -> PyResult<DeviceRule> {
    let (text, allow): (String, bool) = match value.extract::<String>() {
        Ok(text) => (text, true),
        Err(_) => value.extract().map_err(|_| type_error("devices", "a sequence of zind.DeviceRule or text", value))?,
    };
    DeviceRule::parse(&text, allow).map_err(|error| raise(value.py(), &error))
}

/// The resources of an option: a `zind.Resources`.
pub(crate) fn of_object(value: &Bound<'_, PyAny>) -> PyResult<zind_core::Resources> {
    let inner = value.getattr("_inner").ok();
    let inner = inner.as_ref().and_then(|inner| inner.cast::<Resources>().ok());
    inner.map(|inner| inner.get().0.clone()).ok_or_else(|| type_error("resources", "a zind.Resources", value))
}

/// Removes the groups that processes left behind which are gone.
#[pyfunction]
#[pyo3(signature = (parent=None))]
pub(crate) fn sweep_groups(py: Python<'_>, parent: Option<PathBuf>) -> PyResult<Vec<PathBuf>> {
    detached(py, |_| sweep(parent.as_deref()))
}
