//! `zind_layers`: a root that stays, and `zind_changes`: what differs in it.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::json;
use zind_core::{Change, ChangeKind, Error, FileType, Layers, Metadata, Rootfs, Snapshot};

use crate::error::{zind_error, zind_status};
use crate::exit::{OfSize, Target};
use crate::guard::{Out, Outcome, free, guard, handle, quiet};
use crate::spec::{set, zind_spec};
use crate::strings::{c_string, give_string, list, optional_text, path, text};

/// A root file system in a directory of overlay layers: it stays from one container to the next, has snapshots to go
/// back to and clones to branch off. The handle is only the path; several processes may use the same directory, one at
/// a time. While a container runs on it, and until its end was waited for, functions that change it return
/// ZIND_STATUS_STATE, all but zind_layers_clone(); so does a directory whose file "state" is damaged or of a later version.
pub struct zind_layers(pub(crate) Layers);

/// What differs, sorted by path. All strings are borrowed from it until zind_changes_free().
pub struct zind_changes(Vec<Row>);

struct Row {
    change: Change,
    path: CString,
    old_target: CString,
    new_target: CString,
}

/// What happened to a path. Numbers are never reused, and new ones come at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum zind_change_kind {
    /// There is no change of that number.
    None = 0,
    /// It was not there.
    Added = 1,
    /// It is something else, or has other content or metadata.
    Modified = 2,
    /// It is gone, and all below it.
    Deleted = 3,
}

/// The type of a file. Numbers are never reused, and new ones come at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum zind_file_type {
    /// There is no file.
    None = 0,
    /// A regular file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A character device.
    CharDevice = 4,
    /// A block device.
    BlockDevice = 5,
    /// A FIFO.
    Fifo = 6,
    /// A socket.
    Socket = 7,
}

/// What is known of a file besides its content. Begin with ZIND_METADATA_INIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_metadata {
    /// sizeof(zind_metadata), set by the caller; no more than this is written.
    pub struct_size: usize,
    /// A zind_file_type.
    pub file_type: i32,
    /// Permission bits, with set-uid, set-gid and sticky: up to 07777.
    pub mode: u32,
    /// Owner, as the last container saw it: 65534 for an id outside of its map.
    pub uid: u32,
    /// Group, likewise.
    pub gid: u32,
    /// Bytes of a regular file or of a link's target; 0 for anything else.
    pub size: u64,
    /// Time of the last change of the content, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Major number of a device; 0 for anything else.
    pub device_major: u32,
    /// Minor number of a device; 0 for anything else.
    pub device_minor: u32,
    /// Where a symbolic link leads; NULL for anything else. Borrowed from the zind_changes.
    pub target: *const c_char,
}

// SAFETY: repr(C), numbers and a pointer that owns nothing.
unsafe impl OfSize for zind_metadata {
    const FIRST_SIZE: usize = 48 + size_of::<*const c_char>();
}

/// Makes layers in a directory, with nothing changed yet.
/// dir: must be missing or empty. base: ends with NULL; a root file system, or several, topmost first. They are never
/// written to. layers: receives the handle; free it with zind_layers_free().
/// Returns also ZIND_STATUS_SPEC for no base or one that is in dir or has it inside, _STATE if there is something in
/// dir, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_create(
    dir: *const c_char,
    base: *const *const c_char,
    layers: *mut *mut zind_layers,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let layers = Out::handle(layers, "layers")?;
            let base = list(base, "base")?;
            layers.give(zind_layers(Layers::create(path(dir, "dir")?, base)?));
            Ok(())
        })
    }
}

/// The layers in a directory. What a crash has left there is removed, unless they are in use.
/// layers: receives the handle; free it with zind_layers_free().
/// Returns also ZIND_STATUS_NOT_FOUND if there are none, _STATE for a damaged file "state", and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_open(
    dir: *const c_char,
    layers: *mut *mut zind_layers,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let layers = Out::handle(layers, "layers")?;
            layers.give(zind_layers(Layers::open(path(dir, "dir")?)?));
            Ok(())
        })
    }
}

/// Layers as root of a container: what it changes goes there and stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_layers(
    spec: *mut zind_spec,
    layers: *const zind_layers,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.rootfs = Rootfs::Layers(handle(layers, "layers")?.0.clone());
            Ok(())
        })
    }
}

/// The body of a function that gives text.
///
/// # Safety
/// As for [`guard`]; `layers` is NULL or live, `string` NULL or writable.
unsafe fn give(
    layers: *const zind_layers,
    string: *mut *mut c_char,
    err: *mut *mut zind_error,
    read: impl FnOnce(&Layers) -> zind_core::Result<Vec<u8>>,
) -> zind_status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(err, || {
            let string = Out::handle(string, "string")?;
            give_string(string, read(&handle(layers, "layers")?.0)?);
            Ok(())
        })
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Where the layers are: an absolute path. string: receives it; free it with zind_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_dir(
    layers: *const zind_layers,
    string: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { give(layers, string, err, |layers| Ok(bytes(layers.dir()))) }
}

/// The directory that containers write to now; snapshots and restores change it.
/// string: receives the path; free it with zind_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_upper(
    layers: *const zind_layers,
    string: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { give(layers, string, err, |layers| layers.upper().map(|path| bytes(&path))) }
}

/// All snapshots, oldest first, as JSON: a list of objects with "name", "parent" (the snapshot it came after, or null)
/// and "time_ns" (nanoseconds since 1970). string: receives it; free it with zind_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_snapshots_json(
    layers: *const zind_layers,
    string: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    let read = |layers: &Layers| Ok(snapshots_json(layers.snapshots()?).into_bytes());
    // SAFETY: the header's demand.
    unsafe { give(layers, string, err, read) }
}

pub(crate) fn snapshots_json(list: Vec<Snapshot>) -> String {
    let object = |snapshot: Snapshot| {
        let time = snapshot.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        json!({"name": snapshot.name, "parent": snapshot.parent, "time_ns": time_ns})
    };
    let list: Vec<_> = list.into_iter().map(object).collect();
    serde_json::Value::from(list).to_string()
}

/// The body of a function that changes layers by a name.
///
/// # Safety
/// As for [`guard`]; `layers` is NULL or live, `name` NULL or a string.
unsafe fn by_name(
    layers: *const zind_layers,
    name: *const c_char,
    err: *mut *mut zind_error,
    change: impl FnOnce(&Layers, &str) -> zind_core::Result<()>,
) -> zind_status {
    // SAFETY: the caller's promise.
    unsafe { guard(err, || Ok(change(&handle(layers, "layers")?.0, text(name, "name")?)?)) }
}

/// Gives the present state a name. The cost depends neither on the size of the root nor on that of the changes.
/// name: 1 to 255 bytes of UTF-8 without control characters.
/// Returns also ZIND_STATUS_STATE if the layers are in use, the name is taken, or 500 layers lie on each other, which is
/// all an overlay can have; _SPEC for a name that is none; and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_snapshot(
    layers: *const zind_layers,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { by_name(layers, name, err, Layers::snapshot) }
}

/// Throws away what was changed since and is exactly as it was at a snapshot; those made after it stay.
/// Returns also ZIND_STATUS_NOT_FOUND, _STATE and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_restore(
    layers: *const zind_layers,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { by_name(layers, name, err, Layers::restore) }
}

/// Forgets a snapshot and removes the layers nothing else stands on. The present state does not change.
/// Returns also ZIND_STATUS_NOT_FOUND, _STATE, and _SYS for files that cannot be removed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_remove(
    layers: *const zind_layers,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { by_name(layers, name, err, Layers::remove) }
}

/// Syncs nothing when a container ends: faster, but what was written may be torn after a crash of the machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_set_volatile(
    layers: *const zind_layers,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(layers, "layers")?.0.set_volatile(on)?)) }
}

/// Another root in the present state. Both go their own ways from then on; the layers up to now are shared and stay
/// where they are, so this directory can only be deleted after its clones, and neither of the two may be moved.
/// While a container runs on them, what was changed since the last snapshot is copied instead, at a cost that is
/// proportional to it. Pause the container meanwhile (SIGSTOP), for the copy to be of one moment.
/// dir: must be missing or empty. clone: receives the handle; free it with zind_layers_free().
/// Returns also ZIND_STATUS_STATE and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_clone(
    layers: *const zind_layers,
    dir: *const c_char,
    clone: *mut *mut zind_layers,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let clone = Out::handle(clone, "clone")?;
            clone.give(zind_layers(handle(layers, "layers")?.0.clone_to(path(dir, "dir")?)?));
            Ok(())
        })
    }
}

/// Removes the directory and everything in it; the handle is still to be freed.
/// Returns also ZIND_STATUS_STATE if the layers are in use or have clones, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_delete(layers: *const zind_layers, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(layers, "layers")?.0.delete()?)) }
}

/// Frees the handle; the layers stay. layers: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_free(layers: *mut zind_layers) {
    // SAFETY: the header's demand.
    unsafe { free(layers) }
}

/// What differs between a snapshot and the present state. The cost depends on what was changed, not on the size of the
/// root. A directory that is gone is one change, whatever was in it; the times of a directory are none, since they
/// follow from its entries.
/// since: NULL for the base. changes: receives the handle; free it with zind_changes_free().
/// Returns also ZIND_STATUS_NOT_FOUND, _STATE, and _SYS with the path of what this user cannot read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_diff(
    layers: *const zind_layers,
    since: *const c_char,
    changes: *mut *mut zind_changes,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let changes = Out::handle(changes, "changes")?;
            let found = handle(layers, "layers")?.0.diff(optional_text(since, "since")?)?;
            changes.give(zind_changes::of(found));
            Ok(())
        })
    }
}

impl zind_changes {
    pub(crate) fn of(found: Vec<Change>) -> zind_changes {
        zind_changes(found.into_iter().map(row).collect())
    }
}

fn row(change: Change) -> Row {
    let target = |meta: &Option<Metadata>| {
        let target = meta.as_ref().and_then(|meta| meta.target.as_deref());
        c_string(target.map(bytes).unwrap_or_default())
    };
    Row {
        path: c_string(bytes(&change.path)),
        old_target: target(&change.old),
        new_target: target(&change.new),
        change,
    }
}

/// Reads one change; `otherwise` where there is none.
///
/// # Safety
/// `changes` is NULL or live.
unsafe fn at<T>(changes: *const zind_changes, index: usize, otherwise: T, read: impl FnOnce(&Row) -> T) -> T {
    // SAFETY: the caller's promise.
    let changes = unsafe { changes.as_ref() };
    quiet(None, || changes.and_then(|changes| changes.0.get(index)).map(read)).unwrap_or(otherwise)
}

/// How many there are; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_changes_count(changes: *const zind_changes) -> usize {
    // SAFETY: the header's demand.
    unsafe { changes.as_ref() }.map_or(0, |changes| changes.0.len())
}

/// What happened, as a zind_change_kind. index: from 0 on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_changes_kind(changes: *const zind_changes, index: usize) -> i32 {
    let number = |row: &Row| match row.change.kind {
        ChangeKind::Added => zind_change_kind::Added,
        ChangeKind::Modified => zind_change_kind::Modified,
        ChangeKind::Deleted => zind_change_kind::Deleted,
        _ => zind_change_kind::None,
    };
    // SAFETY: the header's demand.
    unsafe { at(changes, index, zind_change_kind::None, number) as i32 }
}

/// Where: an absolute path of the container, borrowed from the changes; NULL if there is none of that number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_changes_path(changes: *const zind_changes, index: usize) -> *const c_char {
    // SAFETY: the header's demand.
    unsafe { at(changes, index, std::ptr::null(), |row| row.path.as_ptr()) }
}

/// What was there. metadata: begin with ZIND_METADATA_INIT; its type is ZIND_FILE_TYPE_NONE for what was added.
/// Returns also ZIND_STATUS_NOT_FOUND for a number beyond the last, and _SPEC for a struct_size that is too small.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_changes_old(
    changes: *const zind_changes,
    index: usize,
    metadata: *mut zind_metadata,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { side(changes, index, metadata, err, |row| (row.change.old.as_ref(), &row.old_target)) }
}

/// What is there now. metadata: begin with ZIND_METADATA_INIT; its type is ZIND_FILE_TYPE_NONE for what was deleted.
/// Returns also ZIND_STATUS_NOT_FOUND for a number beyond the last, and _SPEC for a struct_size that is too small.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_changes_new(
    changes: *const zind_changes,
    index: usize,
    metadata: *mut zind_metadata,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { side(changes, index, metadata, err, |row| (row.change.new.as_ref(), &row.new_target)) }
}

/// The metadata of one side.
///
/// # Safety
/// As for [`guard`] and [`Target::new`]; `changes` is NULL or live.
unsafe fn side(
    changes: *const zind_changes,
    index: usize,
    metadata: *mut zind_metadata,
    err: *mut *mut zind_error,
    pick: impl FnOnce(&Row) -> (Option<&Metadata>, &CString),
) -> zind_status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(err, || {
            let target = Target::new(metadata, "metadata")?;
            let row = row_of(&handle(changes, "changes")?.0, index)?;
            let (meta, link) = pick(row);
            target.put(metadata_of(meta, link));
            Ok(())
        })
    }
}

fn row_of(rows: &[Row], index: usize) -> Outcome<&Row> {
    let none = || Error::NotFound { what: "change", name: index.to_string() };
    Ok(rows.get(index).ok_or_else(none)?)
}

fn metadata_of(meta: Option<&Metadata>, link: &CString) -> zind_metadata {
    let file_type = meta.map_or(zind_file_type::None, |meta| match meta.file_type {
        FileType::File => zind_file_type::File,
        FileType::Directory => zind_file_type::Directory,
        FileType::Symlink => zind_file_type::Symlink,
        FileType::CharDevice => zind_file_type::CharDevice,
        FileType::BlockDevice => zind_file_type::BlockDevice,
        FileType::Fifo => zind_file_type::Fifo,
        FileType::Socket => zind_file_type::Socket,
        _ => zind_file_type::None,
    });
    let number = |read: fn(&Metadata) -> u32| meta.map_or(0, read);
    let (device_major, device_minor) = meta.and_then(|meta| meta.device).unwrap_or_default();
    zind_metadata {
        struct_size: 0,
        file_type: file_type as i32,
        mode: number(|meta| meta.mode),
        uid: number(|meta| meta.uid),
        gid: number(|meta| meta.gid),
        size: meta.map_or(0, |meta| meta.size),
        mtime_ns: meta.map_or(0, |meta| meta.mtime_ns),
        device_major,
        device_minor,
        target: if file_type == zind_file_type::Symlink { link.as_ptr() } else { std::ptr::null() },
    }
}

/// Frees a list of changes. changes: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_changes_free(changes: *mut zind_changes) {
    // SAFETY: the header's demand.
    unsafe { free(changes) }
}
