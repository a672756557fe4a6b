//! Readings as Python objects: put together when somebody looks at them, and straight from their fields.

use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use zind_core::{IoStats, Pressure, PressureStats, Stall};

/// device, read_bytes, write_bytes, reads, writes
type IoTuple = (String, u64, u64, u64, u64);
/// avg10, avg60, avg300, total
type StallTuple = (f64, f64, f64, f64);
/// some, full
type PressureTuple = (StallTuple, StallTuple);

/// What was used, not yet turned into objects: most callers never look.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Stats(pub(crate) zind_core::Stats);

#[pymethods]
impl Stats {
    /// All of it, in the order of the fields of `zind.Stats`.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let s = &self.0;
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64()).into_bound_py_any(py);
        let number = |number: Option<u64>| number.into_bound_py_any(py);
        let io = s.io.as_ref().map(|list| list.iter().map(io).collect::<Vec<_>>());
        let values = [
            seconds(s.cpu_user)?,
            seconds(s.cpu_system)?,
            number(s.max_rss)?,
            s.wall.as_secs_f64().into_bound_py_any(py)?,
            number(s.memory_peak)?,
            number(s.pids_peak)?,
            io.into_bound_py_any(py)?,
            seconds(s.cpu_throttled)?,
            number(s.cpu_throttled_periods)?,
            number(s.memory_current)?,
            number(s.memory_anon)?,
            number(s.memory_file)?,
            number(s.memory_shmem)?,
            number(s.memory_kernel)?,
            number(s.memory_swap)?,
            number(s.memory_limit)?,
            number(s.memory_high_events)?,
            number(s.oom_events)?,
            number(s.oom_kills)?,
            number(s.pids)?,
            number(s.pids_limited)?,
            s.pressure.as_ref().map(pressures).into_bound_py_any(py)?,
        ];
        PyTuple::new(py, values)
    }
}

fn io(io: &IoStats) -> IoTuple {
    (format!("{}:{}", io.device.0, io.device.1), io.read_bytes, io.write_bytes, io.reads, io.writes)
}

fn pressures(all: &PressureStats) -> [Option<PressureTuple>; 3] {
    let stall = |stall: Stall| (stall.avg10, stall.avg60, stall.avg300, stall.total.as_secs_f64());
    [all.cpu, all.memory, all.io].map(|one: Option<Pressure>| one.map(|one| (stall(one.some), stall(one.full))))
}
