//! Setters: namespaces, names, ids.

use std::ffi::c_char;
use std::sync::Arc;

use zind_core::{Error, IdMap, IdMaps, Kind, Source, Spec, TimeOffsets};

use super::{set, zind_spec};
use crate::error::{zind_error, zind_status};
use crate::guard::Outcome;
use crate::strings::{duplicate, optional_text, path, slice, text};

/// A range of ids of a user namespace: user_namespaces(7).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_id_map {
    /// The first id in the container.
    pub container: u32,
    /// The first id on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// A kind of namespace by its name.
///
/// # Safety
/// `name` is NULL or a NUL-terminated string.
unsafe fn kind(name: *const c_char) -> Outcome<Kind> {
    // SAFETY: the caller's promise.
    let name = unsafe { text(name, "kind")? };
    Ok(Kind::from_name(name).ok_or_else(|| {
        let kinds = Kind::ALL.map(Kind::name).join(", ");
        Error::spec("namespaces", format!("{name:?} is none of {kinds}"))
    })?)
}

/// The explicit maps of users and groups, empty ones if there were others.
fn explicit(spec: &mut Spec) -> (&mut Vec<IdMap>, &mut Vec<IdMap>) {
    if !matches!(spec.id_maps, IdMaps::Explicit { .. }) {
        spec.id_maps = IdMaps::Explicit { uid: Vec::new(), gid: Vec::new() };
    }
    match &mut spec.id_maps {
        IdMaps::Explicit { uid, gid } => (uid, gid),
        _ => unreachable!("set above"),
    }
}

/// Copies an array of ranges.
///
/// # Safety
/// `maps` is NULL or has `len` elements.
pub(super) unsafe fn id_maps(maps: *const zind_id_map, len: usize) -> Outcome<Vec<IdMap>> {
    // SAFETY: the caller's promise.
    let maps = unsafe { slice(maps, len, "maps")? };
    Ok(maps.iter().map(|map| IdMap { container: map.container, host: map.host, size: map.size }).collect())
}

/// Where the container gets a namespace from.
/// kind: "user", "mnt", "pid", "net", "uts", "ipc", "cgroup" or "time" (also "mount", "network").
/// source: "new" for one of its own; "host" for the caller's; else the path of a file that stands for one:
/// "/proc/1/ns/net", or one it was pinned to.
/// Returns also ZIND_STATUS_UTF8 or _SPEC for a kind that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_namespace(
    spec: *mut zind_spec,
    kind: *const c_char,
    source: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let source = path(source, "source")?;
            let source = match source.as_os_str().as_encoded_bytes() {
                b"new" => Source::New,
                b"host" => Source::Host,
                _ => Source::Path(source.into()),
            };
            spec.namespaces.insert(self::kind(kind)?, source);
            Ok(())
        })
    }
}

/// As zind_spec_set_namespace(), the namespace that a process is in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_namespace_pid(
    spec: *mut zind_spec,
    kind: *const c_char,
    pid: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.namespaces.insert(self::kind(kind)?, Source::Pid(pid));
            Ok(())
        })
    }
}

/// As zind_spec_set_namespace(), the namespace that a descriptor stands for.
/// fd: borrowed; the spec keeps a duplicate. Returns also ZIND_STATUS_SYS (EBADF).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_namespace_fd(
    spec: *mut zind_spec,
    kind: *const c_char,
    fd: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let kind = self::kind(kind)?;
            spec.namespaces.insert(kind, Source::Fd(Arc::new(duplicate(fd)?)));
            Ok(())
        })
    }
}

/// Binds a new namespace to a file, so that it stays after the container. path: made if it is missing; umount(2) gives
/// it up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_pin_namespace(
    spec: *mut zind_spec,
    kind: *const c_char,
    path: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.pins.push((self::kind(kind)?, self::path(path, "path")?.into()));
            Ok(())
        })
    }
}

/// What is added to the clocks of a new time namespace, in nanoseconds: time_namespaces(7).
/// Needs the namespace "time" to be "new".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_time_offsets_ns(
    spec: *mut zind_spec,
    monotonic_ns: i64,
    boottime_ns: i64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.time_offsets = Some(TimeOffsets { monotonic_ns, boottime_ns });
            Ok(())
        })
    }
}

/// The host name, 1 to 64 bytes. name: NULL for the default. Returns also ZIND_STATUS_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_hostname(
    spec: *mut zind_spec,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.hostname = optional_text(name, "hostname")?.map(Into::into);
            Ok(())
        })
    }
}

/// The NIS domain name. name: NULL for the default. Returns also ZIND_STATUS_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_domainname(
    spec: *mut zind_spec,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.domainname = optional_text(name, "domainname")?.map(Into::into);
            Ok(())
        })
    }
}

/// The ids of a user namespace, by rule.
/// mode: "single" for one id, the caller's, under the number the payload runs as; "auto" for the caller as 0 and the
/// range of /etc/subuid and /etc/subgid from 1 on; NULL for the default, which goes by the caller's privilege.
/// Returns also ZIND_STATUS_UTF8 or _SPEC for another mode.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_id_maps(
    spec: *mut zind_spec,
    mode: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.id_maps = match optional_text(mode, "mode")? {
                None => IdMaps::ByPrivilege,
                Some("single") => IdMaps::Single,
                Some("auto") => IdMaps::Auto,
                Some(other) => {
                    return Err(Error::spec("uid_map", format!("{other:?} is neither single nor auto")).into());
                }
            };
            Ok(())
        })
    }
}

/// The user ids of a user namespace, line by line; it needs zind_spec_set_gid_map() too.
/// maps: len elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_uid_map(
    spec: *mut zind_spec,
    maps: *const zind_id_map,
    len: usize,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            *explicit(spec).0 = id_maps(maps, len)?;
            Ok(())
        })
    }
}

/// The group ids of a user namespace, line by line; it needs zind_spec_set_uid_map() too.
/// maps: len elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_gid_map(
    spec: *mut zind_spec,
    maps: *const zind_id_map,
    len: usize,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            *explicit(spec).1 = id_maps(maps, len)?;
            Ok(())
        })
    }
}

/// Whether setgroups(2) is allowed in the user namespace. allow: 1 yes, 0 no, -1 wherever that is possible.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_setgroups(
    spec: *mut zind_spec,
    allow: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.setgroups = (allow >= 0).then_some(allow != 0);
            Ok(())
        })
    }
}

/// User and group that own the new user namespace. UINT32_MAX for both: nobody in particular.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_owner(
    spec: *mut zind_spec,
    uid: u32,
    gid: u32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.owner = ((uid, gid) != (u32::MAX, u32::MAX)).then_some((uid, gid));
            Ok(())
        })
    }
}
