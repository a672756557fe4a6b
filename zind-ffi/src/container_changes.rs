//! `zind_container`: what it has changed.

use std::ffi::{c_char, c_void};

use zind_core::Container;

use crate::container::{on, zind_container};
use crate::error::{zind_error, zind_status};
use crate::guard::Out;
use crate::image::{Told, commit_options, compression, zind_image, zind_progress};
use crate::layers::{snapshots_json, zind_changes};
use crate::process::{question, zind_interrupted};
use crate::strings::{give_string, optional_text, path, text};

/// What it has changed of its root since it was made, or since a snapshot, as zind_layers_diff(). One that runs goes on.
/// since: NULL for the beginning. changes: receives the handle; free it with zind_changes_free().
/// Returns also ZIND_STATUS_STATE if its changes are not on disk (the root of this machine, ZIND_CONTAINER_AUTO_REMOVE),
/// _NOT_FOUND, and _SYS with the path of what this user cannot read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_diff(
    container: *const zind_container,
    since: *const c_char,
    changes: *mut *mut zind_changes,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let changes = Out::handle(changes, "changes")?;
            changes.give(zind_changes::of(container.diff(optional_text(since, "since")?)?));
            Ok(())
        })
    }
}

/// Makes an image of what it has changed: one layer over its image, or, of a root directory, all of it, in the store of the same
/// place. pause: one that runs is stopped meanwhile, so that the image is of one moment; that takes a spec with resources.
/// options: as of zind_layers_commit(). image: receives the handle; free it with zind_image_free().
/// Returns also ZIND_STATUS_STATE as zind_container_diff() and zind_container_pause() do, and if it is read-only; and what
/// zind_layers_commit() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_commit(
    container: *const zind_container,
    options: *const c_char,
    pause: bool,
    progress: zind_progress,
    data: *mut c_void,
    image: *mut *mut zind_image,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let image = Out::handle(image, "image")?;
            let options = commit_options(options)?;
            image.give(zind_image::new(container.commit(&options, pause, &mut Told::new(progress, data))?));
            Ok(())
        })
    }
}

/// Writes its root, without what is mounted in it, as a tar: as zind_image_export(). One that runs goes on.
/// Returns also ZIND_STATUS_STATE as zind_container_diff() does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_export(
    container: *const zind_container,
    file: *const c_char,
    method: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let method = compression(optional_text(method, "method")?)?;
            Ok(container.export(path(file, "file")?, method, &mut Told::new(progress, data)).map(drop)?)
        })
    }
}

/// The body of a function about a snapshot.
///
/// # Safety
/// As for [`on`]; `name` is NULL or a string.
unsafe fn by_name(
    container: *const zind_container,
    name: *const c_char,
    err: *mut *mut zind_error,
    change: impl FnOnce(&Container, &str) -> zind_core::Result<()>,
) -> zind_status {
    // SAFETY: the caller's promise.
    unsafe { on(container, err, |container| Ok(change(container, text(name, "name")?)?)) }
}

/// Gives the present state of its root a name. The cost depends neither on the size of the root nor on that of the changes.
/// name: 1 to 255 bytes of UTF-8 without control characters.
/// Returns also ZIND_STATUS_STATE if it runs, if the name is taken, and as zind_container_diff() does; _SPEC, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_snapshot(
    container: *const zind_container,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { by_name(container, name, err, Container::snapshot) }
}

/// As zind_container_snapshot(), and asks as zind_container_pause_interruptible(). There is no such snapshot then.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_snapshot_interruptible(
    container: *const zind_container,
    name: *const c_char,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        by_name(container, name, err, |container, name| {
            container.snapshot_interruptible(name, &mut question(interrupted, data))
        })
    }
}

/// Throws away what it has changed since: its next start begins as it was at that snapshot.
/// Returns also ZIND_STATUS_NOT_FOUND, _STATE if it runs, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_restore(
    container: *const zind_container,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { by_name(container, name, err, Container::restore) }
}

/// As zind_container_restore(), and asks as zind_container_pause_interruptible(). Nothing is thrown away then.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_restore_interruptible(
    container: *const zind_container,
    name: *const c_char,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        by_name(container, name, err, |container, name| {
            container.restore_interruptible(name, &mut question(interrupted, data))
        })
    }
}

/// Forgets a snapshot. The present state does not change. Returns also ZIND_STATUS_NOT_FOUND, _STATE if it runs, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_remove_snapshot(
    container: *const zind_container,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { by_name(container, name, err, Container::remove_snapshot) }
}

/// As zind_container_remove_snapshot(), and asks as zind_container_pause_interruptible(). The snapshot is still there then.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_remove_snapshot_interruptible(
    container: *const zind_container,
    name: *const c_char,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        by_name(container, name, err, |container, name| {
            container.remove_snapshot_interruptible(name, &mut question(interrupted, data))
        })
    }
}

/// Its snapshots, oldest first, as zind_layers_snapshots_json(). json: receives a string; free it with zind_string_free().
/// Returns also ZIND_STATUS_NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_snapshots_json(
    container: *const zind_container,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let json = Out::handle(json, "json")?;
            give_string(json, snapshots_json(container.snapshots()?));
            Ok(())
        })
    }
}
