//! `zind._zind`: the part of the Python module that is written in Rust. Its types are in `_zind.pyi`; what users see is
//! put together in `python/zind/`.

mod bytes;
mod container;
mod convert;
mod copy;
mod device;
mod errors;
mod events;
mod images;
mod layers;
mod lowlevel;
mod mount;
mod options;
mod process;
mod resources;
mod seccomp;
mod stats;

use pyo3::prelude::*;

#[pymodule]
fn _zind(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("LAUNCHER_SIZE", zind_core::LAUNCHER_SIZE)?;
    module.add_class::<device::Device>()?;
    module.add_class::<events::Events>()?;
    module.add_class::<layers::Layers>()?;
    module.add_class::<mount::Mount>()?;
    module.add_class::<process::Isolation>()?;
    module.add_class::<process::Process>()?;
    module.add_class::<process::Start>()?;
    module.add_class::<resources::Resources>()?;
    module.add_class::<process::Exchange>()?;
    module.add_class::<seccomp::Notifier>()?;
    module.add_class::<seccomp::Violations>()?;
    module.add_class::<stats::Stats>()?;
    module.add_function(wrap_pyfunction!(process::run, module)?)?;
    module.add_function(wrap_pyfunction!(process::spawn, module)?)?;
    module.add_function(wrap_pyfunction!(process::begin, module)?)?;
    module.add_function(wrap_pyfunction!(process::resize, module)?)?;
    module.add_function(wrap_pyfunction!(options::landlock, module)?)?;
    module.add_function(wrap_pyfunction!(options::to_oci, module)?)?;
    module.add_function(wrap_pyfunction!(resources::sweep_groups, module)?)?;
    container::add(module)?;
    copy::add(module)?;
    images::add(module)?;
    lowlevel::add(module)
}
