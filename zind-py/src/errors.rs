//! From [`zind_core::Error`] to the exceptions of `zind.errors`.

use std::sync::atomic::Ordering;

use pyo3::BoundObject as _;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use zind_core::{Errno, Error};

use crate::images::Cancel;

/// `zind.errors.<name>`, called with `arguments`.
fn exception<'py>(py: Python<'py>, name: &str, arguments: impl IntoPyObject<'py, Target = PyTuple>) -> PyErr {
    let build = || -> PyResult<PyErr> {
        static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
        let module = MODULE.get_or_try_init(py, || py.import("zind.errors").map(Bound::unbind))?;
        let arguments = arguments.into_pyobject(py).map_err(Into::<PyErr>::into)?;
        Ok(PyErr::from_value(module.bind(py).getattr(name)?.call(arguments.as_borrowed(), None)?))
    };
    build().unwrap_or_else(|error| error)
}

/// The Python exception for an error of the engine.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Sys { step, syscall, object, errno, .. } => {
            let hint = error.hint().unwrap_or_default();
            let filename = (!object.as_os_str().is_empty()).then(|| object.as_os_str());
            let name = match errno {
                Errno::ENOENT => "NotFoundSysError",
                Errno::EACCES | Errno::EPERM => "PermissionSysError",
                Errno::ENOTDIR => "NotADirectorySysError",
                Errno::EEXIST => "ExistsSysError",
                Errno::ESRCH => "ProcessLookupSysError",
                _ => "SysError",
            };
            exception(
                py,
                name,
                (*errno as i32, zind_core::describe(*errno), filename, step.name(), *syscall, hint, message),
            )
        }
        Error::Spec { field, .. } => exception(py, "SpecError", (message, *field)),
        Error::Unsupported { feature, needs } => {
            exception(py, "UnsupportedError", (message, feature.as_str(), needs.as_str()))
        }
        Error::NotFound { .. } => exception(py, "NotFoundError", (message,)),
        Error::Exists { .. } => exception(py, "ExistsError", (message,)),
        Error::Registry { registry, status, code, .. } => {
            let hint = error.hint().unwrap_or_default();
            exception(py, "RegistryError", (message, registry.as_str(), *status, code.as_str(), hint))
        }
        Error::Image { what, .. } => exception(py, "ImageError", (message, what.as_str())),
        Error::Failed { what, argv, exit } => {
            let exit = (exit.kind.name(), exit.code, exit.signal);
            exception(py, "StepFailed", (what.as_str(), argv.clone(), exit))
        }
        Error::State(_) => exception(py, "StateError", (message,)),
        Error::Timeout(after) => exception(py, "StartTimeout", (message, after.as_secs_f64())),
        _ => exception(py, "Error", (message,)),
    }
}

/// An error about an option, by its name.
pub(crate) fn spec(py: Python<'_>, field: &str, rule: &str) -> PyErr {
    exception(py, "SpecError", (format!("{field}: {rule}"), field))
}

/// Something this version does not have.
pub(crate) fn unsupported(py: Python<'_>, feature: &str, needs: &str) -> PyErr {
    exception(py, "UnsupportedError", (format!("{feature} is not available here: {needs}"), feature, needs))
}

/// Runs `body` without the GIL. `body` gets a function that lets Python handle its signals; if a handler raises, that
/// exception comes out.
pub(crate) fn detached<T: Send>(
    py: Python<'_>,
    body: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let result = py.detach(|| {
        body(&mut || {
            raised = Python::attach(|py| py.check_signals()).err();
            raised.is_some()
        })
    });
    match (result, raised) {
        (_, Some(exception)) => Err(exception),
        (Ok(value), None) => Ok(value),
        (Err(error), None) => Err(raise(py, &error)),
    }
}

/// As [`detached`], and a [`Cancel`] of another thread ends it, too.
pub(crate) fn stoppable<T: Send>(
    py: Python<'_>,
    cancel: Option<Py<Cancel>>,
    body: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<T, Error> + Send,
) -> PyResult<T> {
    detached(py, |interrupted| {
        let is_cancelled = || cancel.as_ref().is_some_and(|cancel| cancel.get().0.load(Ordering::Acquire));
        body(&mut || is_cancelled() || interrupted())
    })
}
