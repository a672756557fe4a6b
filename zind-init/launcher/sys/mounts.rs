//! The mount interfaces, new and old: mount_setattr(2), fsopen(2), move_mount(2), mount(2).

use super::{AT_EMPTY_PATH, AT_FDCWD, CStr, EMPTY, OPEN_TREE_CLOEXEC, Result};

/// `mount(2)`: the older interface, one call for a whole mount.
pub fn mount(source: CStr, target: CStr, kind: CStr, flags: u64, data: CStr) -> Result {
    call!(MOUNT, source, target, kind, flags, data)
}

pub fn fsopen(kind: CStr) -> Result<i32> {
    call!(FSOPEN, kind, 1).map(|fd| fd as i32)
}

/// An empty value sets a flag.
pub fn fsconfig(context: i32, key: CStr, value: &[u8]) -> Result {
    const SET_FLAG: usize = 0;
    const SET_STRING: usize = 1;
    if value.is_empty() {
        call!(FSCONFIG, context, SET_FLAG, key, 0, 0)
    } else {
        call!(FSCONFIG, context, SET_STRING, key, value.as_ptr(), 0)
    }
}

pub fn fsconfig_create(context: i32) -> Result {
    const CMD_CREATE: usize = 6;
    call!(FSCONFIG, context, CMD_CREATE, 0, 0, 0)
}

pub fn fsmount(context: i32, attributes: u64) -> Result<i32> {
    call!(FSMOUNT, context, 1, attributes).map(|fd| fd as i32)
}

/// Attaches the tree `from` on `to`.
pub fn attach(from: i32, to: i32) -> Result {
    const F_EMPTY_T_EMPTY: usize = 0x04 | 0x40;
    call!(MOVE_MOUNT, from, EMPTY, to, EMPTY, F_EMPTY_T_EMPTY)
}

/// Attaches the tree `from` at a path.
pub fn attach_at(from: i32, path: CStr) -> Result {
    const F_EMPTY: usize = 0x04;
    call!(MOVE_MOUNT, from, EMPTY, AT_FDCWD, path, F_EMPTY)
}

/// Which mount a path is on: `stx_mnt_id` of statx(2).
pub fn mount_id(dir: i32, path: CStr) -> Result<u64> {
    const STATX_MNT_ID: usize = 0x1000;
    const MNT_ID_WORD: usize = 18;
    let mut buffer = [0u64; 32];
    call!(STATX, dir, path, AT_EMPTY_PATH, STATX_MNT_ID, buffer.as_mut_ptr())?;
    Ok(buffer[MNT_ID_WORD])
}

pub fn open_tree(dir: i32, path: CStr, flags: u32) -> Result<i32> {
    call!(OPEN_TREE, dir, path, flags | OPEN_TREE_CLOEXEC).map(|fd| fd as i32)
}

/// `struct mount_attr`: set, clear, propagation, user namespace.
pub fn mount_setattr(dir: i32, path: CStr, flags: u32, set: u64, clear: u64, propagation: u64) -> Result {
    let attributes = [set, clear, propagation, 0];
    call!(MOUNT_SETATTR, dir, path, flags, attributes.as_ptr(), size_of_val(&attributes))
}

pub fn pivot_root_here() -> Result {
    call!(PIVOT_ROOT, c".".as_ptr(), c".".as_ptr())
}

pub fn umount(path: CStr, flags: u32) -> Result {
    call!(UMOUNT2, path, flags)
}
