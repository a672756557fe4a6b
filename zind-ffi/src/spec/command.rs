//! Setters: the program, its arguments, its environment, its directory.

use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt;

use zind_core::Error;

use super::{set, zind_spec};
use crate::error::{zind_error, zind_status};
use crate::strings::{bytes, list, optional_bytes, optional_path, owned};

/// The program and its arguments. The program is looked up in the container's PATH unless it has a slash.
/// args: an array that ends with NULL, as for execv(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_args(
    spec: *mut zind_spec,
    args: *const *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.argv = owned(list(args, "args")?);
            Ok(())
        })
    }
}

/// One more argument; the first one is the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_arg(
    spec: *mut zind_spec,
    arg: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.argv.push(bytes(arg, "arg")?.to_owned());
            Ok(())
        })
    }
}

/// What the program sees as argv[0]. name: NULL for the program as it was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_argv0(
    spec: *mut zind_spec,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.argv0 = optional_bytes(name).map(Into::into);
            Ok(())
        })
    }
}

/// Sets a variable, or changes it. The caller's own variables are not passed on, see zind_spec_set_inherit_env().
/// value: NULL takes back what was set here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_env(
    spec: *mut zind_spec,
    name: *const c_char,
    value: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let name = bytes(name, "name")?;
            spec.env.retain(|(known, _)| known != name);
            if let Some(value) = optional_bytes(value) {
                spec.env.push((name.to_owned(), value.to_owned()));
            }
            Ok(())
        })
    }
}

/// All variables at once, in place of those set here so far: "NAME=VALUE" each.
/// variables: an array that ends with NULL, as environ(7).
/// Returns also ZIND_STATUS_SPEC for an entry without "=".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_environ(
    spec: *mut zind_spec,
    variables: *const *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let mut env = Vec::new();
            for entry in list(variables, "variables")? {
                let entry = entry.as_bytes();
                let Some(at) = entry.iter().position(|byte| *byte == b'=') else {
                    return Err(
                        Error::spec("env", format!("{:?} has no \"=\"", entry.escape_ascii().to_string())).into()
                    );
                };
                env.push((OsStr::from_bytes(&entry[..at]).to_owned(), OsStr::from_bytes(&entry[at + 1..]).to_owned()));
            }
            spec.env = env;
            Ok(())
        })
    }
}

/// Start from nothing: not even PATH, HOME and LANG are set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_clear_env(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.clear_env = on;
            Ok(())
        })
    }
}

/// Start from the caller's environment, as it is at the start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_inherit_env(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.inherit_env = on;
            Ok(())
        })
    }
}

/// With clear_env: keep this variable of the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_keep_env(
    spec: *mut zind_spec,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.keep_env.push(bytes(name, "name")?.to_owned());
            Ok(())
        })
    }
}

/// Working directory in the container, an absolute path. path: NULL for the default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_cwd(
    spec: *mut zind_spec,
    path: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.cwd = optional_path(path).map(Into::into);
            Ok(())
        })
    }
}
