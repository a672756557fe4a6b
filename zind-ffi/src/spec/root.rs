//! Setters: what `/` is, and what is mounted in it.

use std::ffi::c_char;
use std::sync::Arc;

use zind_core::{Binfmt, Console, Device, Mount, Overlay, Rootfs};

use super::namespaces::{id_maps, zind_id_map};
use super::{set, zind_spec};
use crate::error::{zind_error, zind_status};
use crate::guard::Outcome;
use crate::strings::{duplicate, optional_bytes, optional_path, optional_text, path, slice, text};

/// What the container sees as "/".
/// rootfs: "host" for the system directories of this machine below a copy-on-write layer, with empty /home, /root,
/// /tmp, /run and a minimal /etc; else the path of a directory (write "./host" for one of that name); NULL for the
/// caller's own root, as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_rootfs(
    spec: *mut zind_spec,
    rootfs: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.rootfs = match optional_path(rootfs) {
                None => Rootfs::Unchanged,
                Some(path) if path.as_os_str() == "host" => Rootfs::Host,
                Some(path) => Rootfs::Path(path.into()),
            };
            Ok(())
        })
    }
}

/// Where changes to the root go.
/// overlay: "tmpfs" for memory, gone with the container; "none" for the root itself (not with rootfs "host"); else the
/// path of a directory in which they stay, below upper/.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_overlay(
    spec: *mut zind_spec,
    overlay: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let overlay = path(overlay, "overlay")?;
            spec.overlay = match overlay.as_os_str().as_encoded_bytes() {
                b"tmpfs" => Overlay::Tmpfs,
                b"none" => Overlay::None,
                _ => Overlay::Dir(overlay.into()),
            };
            Ok(())
        })
    }
}

/// Nothing of the root can be changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_read_only(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.read_only = on;
            Ok(())
        })
    }
}

/// Limit in bytes of all that is changed, where that is kept in memory. size: 0 for half of the machine's memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_tmpfs_size(
    spec: *mut zind_spec,
    size: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.tmpfs_size = (size > 0).then_some(size);
            Ok(())
        })
    }
}

/// A file or directory of the host in the container.
/// source: where it is on the host. target: where it is in the container, an absolute path; made if it is missing.
/// read_only: nothing below it can be changed. recursive: with the mounts below the source.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_bind(
    spec: *mut zind_spec,
    source: *const c_char,
    target: *const c_char,
    read_only: bool,
    recursive: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let (source, target) = (path(source, "source")?, path(target, "target")?);
            spec.mounts.push(Mount::bind(source, target).read_only(read_only).recursive(recursive));
            Ok(())
        })
    }
}

/// An empty file system in memory.
/// target: where it is in the container, an absolute path. size: its limit in bytes; 0 for half of the machine's
/// memory. mode: of its top directory, 01777 for one that everybody may write to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_tmpfs(
    spec: *mut zind_spec,
    target: *const c_char,
    size: u64,
    mode: u32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let mount = Mount::tmpfs(path(target, "target")?).mode(mode);
            spec.mounts.push(if size > 0 { mount.size(size) } else { mount });
            Ok(())
        })
    }
}

/// The mount that four arguments stand for.
///
/// # Safety
/// As zind_spec_add_mount() demands of them.
pub(crate) unsafe fn mount_of(
    r#type: *const c_char,
    source: *const c_char,
    target: *const c_char,
    options: *const *const c_char,
) -> Outcome<Mount> {
    // SAFETY: the caller's promise.
    unsafe {
        let kind = text(r#type, "type")?;
        let mut words = Vec::new();
        let mut next = options;
        while !next.is_null() && !(*next).is_null() {
            words.push(text(*next, "options")?);
            next = next.add(1);
        }
        Ok(Mount::new(kind, optional_path(source), path(target, "target")?, words)?)
    }
}

/// Any mount in the words of OCI's runtime-spec and mount(8).
/// type: "bind", "tmpfs", "proc", "overlay", "ext4", ... source: NULL where there is none. target: an absolute path in the
/// container. options: names such as "ro", "rslave", "size=1m", the last entry NULL; NULL for none.
/// Returns also ZIND_STATUS_SPEC (options that exclude each other), _UTF8 (type, options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_mount(
    spec: *mut zind_spec,
    r#type: *const c_char,
    source: *const c_char,
    target: *const c_char,
    options: *const *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.mounts.push(mount_of(r#type, source, target, options)?);
            Ok(())
        })
    }
}

/// A file with the given bytes, in memory.
/// target: an absolute path in the container. content: len bytes; NULL only with len 0. mode: 0644 for most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_file(
    spec: *mut zind_spec,
    target: *const c_char,
    content: *const u8,
    len: usize,
    mode: u32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let content = slice(content, len, "content")?;
            spec.mounts.push(Mount::file(path(target, "target")?, content, mode));
            Ok(())
        })
    }
}

/// A bind of which the ids are mapped, for root: what is the id `container` of a map on the disk is the host's id `host` in
/// the container. maps: len of them, for users and groups.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_idmapped_bind(
    spec: *mut zind_spec,
    source: *const c_char,
    target: *const c_char,
    maps: *const zind_id_map,
    len: usize,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let maps = id_maps(maps, len)?;
            let mount = Mount::bind(path(source, "source")?, path(target, "target")?);
            spec.mounts.push(mount.idmap(maps.clone(), maps));
            Ok(())
        })
    }
}

/// A device of the host, or every device of a directory.
/// source: its path on the host. target: where it is in the container, an absolute path; NULL for the same. access: letters
/// of "rwm" (read, write, make further nodes); NULL for all. Less than "rw" takes a call by root without a user namespace.
/// Returns also ZIND_STATUS_SPEC (access), _UTF8 (access).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_device(
    spec: *mut zind_spec,
    source: *const c_char,
    target: *const c_char,
    access: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let source = path(source, "source")?;
            let device = Device::new(source).at(optional_path(target).unwrap_or(source));
            spec.devices.push(device.access(optional_text(access, "access")?.unwrap_or("rwm"))?);
            Ok(())
        })
    }
}

/// A device by its numbers, as in linux.devices of OCI's runtime-spec: root only, but for a FIFO, or where the host has that
/// device at the same path.
/// type: 'c' or 'u' (character), 'b' (block), 'p' (FIFO; major and minor do not matter). path: where it is in the container.
/// mode, uid, gid: of the node; UINT32_MAX for 0666 and 0. Returns also ZIND_STATUS_SPEC (type, numbers).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_device_node(
    spec: *mut zind_spec,
    r#type: c_char,
    path: *const c_char,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let given = |number: u32| (number != u32::MAX).then_some(number);
            let device = Device::node(char::from(r#type as u8), self::path(path, "path")?, major, minor)?;
            let device = device.owner(given(uid), given(gid));
            spec.devices.push(given(mode).map_or(device.clone(), |mode| device.mode(mode)));
            Ok(())
        })
    }
}

/// A pseudo-terminal as /dev/console.
/// fd: either end of it; borrowed, the spec keeps a duplicate. Returns also ZIND_STATUS_SYS (EBADF).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_console_fd(
    spec: *mut zind_spec,
    fd: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.console = Some(Console::Fd(Arc::new(duplicate(fd)?)));
            Ok(())
        })
    }
}

/// A pseudo-terminal as /dev/console. path: of the terminal, such as "/dev/pts/3"; NULL for no console.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_console(
    spec: *mut zind_spec,
    path: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.console = optional_path(path).map(|path| Console::Path(path.into()));
            Ok(())
        })
    }
}

/// Nothing of the volume can be changed.
pub const ZIND_VOLUME_READ_ONLY: u64 = 1;
/// A fresh volume begins empty, not with what the root has at the target.
pub const ZIND_VOLUME_NO_COPY: u64 = 2;

/// A named directory that outlives the container; made if it is missing, and then filled with what the root has at target,
/// once. Nobody can remove it while a container has it.
/// name, place: as of zind_volume_create(). target: an absolute path in the container. flags: ZIND_VOLUME_READ_ONLY and
/// the like, or-ed together. maps: len of them, as of zind_spec_add_idmapped_bind(); NULL and 0 for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_volume(
    spec: *mut zind_spec,
    name: *const c_char,
    target: *const c_char,
    place: *const c_char,
    flags: u64,
    maps: *const zind_id_map,
    len: usize,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            if flags & !(ZIND_VOLUME_READ_ONLY | ZIND_VOLUME_NO_COPY) != 0 {
                return Err(zind_core::Error::spec("flags", format!("{flags:#x} has unknown flags")).into());
            }
            let mount = Mount::volume(text(name, "name")?, path(target, "target")?)
                .read_only(flags & ZIND_VOLUME_READ_ONLY != 0)
                .copy_up(flags & ZIND_VOLUME_NO_COPY == 0);
            let mount = optional_path(place).into_iter().fold(mount, Mount::volumes_in);
            let maps = id_maps(maps, len)?;
            spec.mounts.push(if maps.is_empty() { mount } else { mount.idmap(maps.clone(), maps) });
            Ok(())
        })
    }
}

/// Mount a fresh /proc, /dev and /sys, and hide what has to be hidden: on for containers, off for the low level.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_system_mounts(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.system_mounts = on;
            Ok(())
        })
    }
}

/// For the low level: a fresh procfs at this place. path: NULL for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_mount_proc(
    spec: *mut zind_spec,
    path: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.mount_proc = optional_path(path).map(Into::into);
            Ok(())
        })
    }
}

/// For the low level: a binfmt_misc of the user namespace's own.
/// path: where to mount it; NULL for none. interpreter: a line for its register file; NULL for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_binfmt(
    spec: *mut zind_spec,
    path: *const c_char,
    interpreter: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let interpreter = optional_bytes(interpreter).map(Into::into);
            spec.binfmt = optional_path(path).map(|path| Binfmt { path: path.into(), interpreter });
            Ok(())
        })
    }
}

/// For the low level: chroot(2). path: NULL for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_chroot(
    spec: *mut zind_spec,
    path: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.chroot = optional_path(path).map(Into::into);
            Ok(())
        })
    }
}

/// For the low level: the propagation of all mounts of a new mount namespace.
/// flags: MS_PRIVATE, MS_SLAVE or MS_SHARED of <sys/mount.h>; 0 leaves it as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_propagation(
    spec: *mut zind_spec,
    flags: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.propagation = flags;
            Ok(())
        })
    }
}
