//! Named volumes: making, looking, removing.

use std::ffi::c_char;
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};
use zind_core::{Volume, Volumes};

use crate::copy::{zind_copy_stats, zind_root};
use crate::error::{zind_error, zind_status};
use crate::exit::Target;
use crate::guard::{Out, Outcome, guard, handle};
use crate::strings::{give_string, optional_path, text};

/// # Safety
/// `place` is NULL or a string.
unsafe fn volumes(place: *const c_char) -> Outcome<Volumes> {
    // SAFETY: the caller's promise.
    Ok(Volumes::open(unsafe { optional_path(place) }.map(Into::into))?)
}

/// # Safety
/// `place` is NULL or a string, and so is `name`.
unsafe fn volume(place: *const c_char, name: *const c_char) -> Outcome<Volume> {
    // SAFETY: the caller's promise.
    unsafe {
        let name = text(name, "name")?;
        Ok(volumes(place)?.get(name)?)
    }
}

fn described(volume: &Volume) -> Value {
    let path = volume.path();
    let path = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    json!({"name": volume.name(), "path": path, "fresh": volume.is_fresh()})
}

/// Makes a volume: a named directory that outlives containers. zind_spec_add_volume() makes one that is missing, too.
/// place: the directory in which volumes are, made if it is missing; NULL for /var/lib/zind/volumes (root) or
/// $XDG_DATA_HOME/zind/volumes (an ordinary user); so for all functions of volumes.
/// name: letters, digits, "_", "." and "-", a letter or digit first, at most 255.
/// Returns also ZIND_STATUS_SPEC (another name), _SYS (EEXIST if there is one).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_volume_create(
    place: *const c_char,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let name = text(name, "name")?;
            Ok(volumes(place)?.create(name).map(drop)?)
        })
    }
}

/// Removes a volume and all that is in it.
/// Returns also ZIND_STATUS_STATE (somebody uses it), _NOT_FOUND, _SPEC (what cannot be a name), _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_volume_remove(
    place: *const c_char,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let name = text(name, "name")?;
            Ok(volumes(place)?.remove(name)?)
        })
    }
}

/// All volumes, as a JSON array of objects with "name", "path" (the directory that containers see) and "fresh" (it was
/// neither filled nor used yet). json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_volumes_json(
    place: *const c_char,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            let all: Vec<Value> = volumes(place)?.list()?.iter().map(described).collect();
            give_string(json, Value::from(all).to_string());
            Ok(())
        })
    }
}

/// One volume, as an object of zind_volumes_json(). Returns also ZIND_STATUS_NOT_FOUND, _SPEC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_volume_json(
    place: *const c_char,
    name: *const c_char,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            give_string(json, described(&volume(place, name)?).to_string());
            Ok(())
        })
    }
}

/// Uses a volume: it cannot be removed until fd and all its duplicates are closed, with the process at the latest.
/// fd: receives a descriptor that the caller closes. Returns also ZIND_STATUS_NOT_FOUND, _SPEC, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_volume_hold(
    place: *const c_char,
    name: *const c_char,
    fd: *mut i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let fd = Out::new(fd, "fd")?;
            fd.put(volume(place, name)?.hold()?.into_fd().into_raw_fd());
            Ok(())
        })
    }
}

/// Fills a fresh volume with what is in the directory path of root, as the first start that mounts it does.
/// filled: NULL, or receives false if there was nothing to do: it was used before, has something in it, or the root has no
/// such directory. stats: NULL, or begin with ZIND_COPY_STATS_INIT.
/// Returns also ZIND_STATUS_SYS (the volume stays fresh), _NOT_FOUND, _SPEC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_volume_fill_from(
    place: *const c_char,
    name: *const c_char,
    root: *const zind_root,
    path: *const c_char,
    filled: *mut bool,
    stats: *mut zind_copy_stats,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let stats = Target::optional(stats, "stats")?;
            let inside = crate::strings::path(path, "path")?;
            let copied = volume(place, name)?.fill_from(&handle(root, "root")?.0, inside)?;
            if let Some(filled) = filled.as_mut() {
                *filled = copied.is_some();
            }
            if let (Some(stats), Some(copied)) = (stats, copied) {
                stats.put(copied.into());
            }
            Ok(())
        })
    }
}

/// Says that a volume was used: it is not filled any more. Returns also ZIND_STATUS_NOT_FOUND, _SPEC, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_volume_mark_used(
    place: *const c_char,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(volume(place, name)?.mark_used()?)) }
}
