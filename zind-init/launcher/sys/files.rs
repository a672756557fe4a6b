//! Files, directories and links, by descriptor of a directory and name.

use super::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, CStr, EAGAIN, EINTR, O_CLOEXEC, Result, again_if_interrupted};

#[repr(C)]
pub struct Stat {
    device: u64,
    inode: u64,
    links: u64,
    mode: u32,
    ids: [u32; 3],
    rdev: u64,
    size: i64,
    rest: [u64; 11],
}

impl Stat {
    /// What makes a file the same as another.
    pub fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    pub fn is_dir(&self) -> bool {
        self.mode & 0o170000 == 0o040000
    }

    pub fn is_file(&self) -> bool {
        self.mode & 0o170000 == 0o100000
    }

    /// Both are character devices, block devices or FIFOs, of one number.
    pub fn is_same_device(&self, other: &Stat) -> bool {
        let kind = self.mode & 0o170000;
        matches!(kind, 0o020000 | 0o060000 | 0o010000) && kind == other.mode & 0o170000 && self.rdev == other.rdev
    }

    pub fn size(&self) -> usize {
        self.size as usize
    }
}

pub fn fstat(fd: i32) -> Result<Stat> {
    let mut stat = Stat { device: 0, inode: 0, links: 0, mode: 0, ids: [0; 3], rdev: 0, size: 0, rest: [0; 11] };
    call!(FSTAT, fd, &raw mut stat)?;
    Ok(stat)
}

/// `f_type` of fstatfs(2).
pub fn statfs_type(fd: i32) -> Result<u64> {
    let mut buffer = [0u64; 15];
    call!(FSTATFS, fd, buffer.as_mut_ptr())?;
    Ok(buffer[0])
}

/// `f_flags` of fstatfs(2).
pub fn statfs_flags(fd: i32) -> Result<u64> {
    const FLAGS_WORD: usize = 10;
    let mut buffer = [0u64; 15];
    call!(FSTATFS, fd, buffer.as_mut_ptr())?;
    Ok(buffer[FLAGS_WORD])
}

/// `f_type` and `f_flags` of statfs(2).
pub fn statfs(path: CStr) -> Result<(u64, u64)> {
    const FLAGS_WORD: usize = 10;
    let mut buffer = [0u64; 15];
    call!(STATFS, path, buffer.as_mut_ptr())?;
    Ok((buffer[0], buffer[FLAGS_WORD]))
}

/// Entries of a directory, as `struct linux_dirent64`.
pub fn getdents(dir: i32, buffer: &mut [u8]) -> Result {
    call!(GETDENTS64, dir, buffer.as_mut_ptr(), buffer.len())
}

pub fn link(dir: i32, from: CStr, to: CStr) -> Result {
    call!(LINKAT, dir, from, dir, to, 0)
}

pub fn rmdir_at(dir: i32, path: CStr) -> Result {
    const AT_REMOVEDIR: usize = 0x200;
    call!(UNLINKAT, dir, path, AT_REMOVEDIR)
}

pub fn rename(dir: i32, from: CStr, to: CStr) -> Result {
    call!(RENAMEAT, dir, from, dir, to)
}

pub fn unlink(dir: i32, path: CStr) -> Result {
    call!(UNLINKAT, dir, path, 0)
}

pub fn rmdir(path: CStr) -> Result {
    const AT_REMOVEDIR: usize = 0x200;
    call!(UNLINKAT, AT_FDCWD, path, AT_REMOVEDIR)
}

pub fn exists(path: CStr) -> bool {
    call!(FACCESSAT, AT_FDCWD, path, 0).is_ok()
}

pub fn umask(mask: u32) -> u32 {
    call!(UMASK, mask).unwrap_or(0o022) as u32
}

pub fn chdir(path: CStr) -> Result {
    call!(CHDIR, path)
}

pub fn fchdir(fd: i32) -> Result {
    call!(FCHDIR, fd)
}

pub fn chroot(path: CStr) -> Result {
    call!(CHROOT, path)
}

pub fn openat(dir: i32, path: CStr, flags: u32, mode: u32) -> Result<i32> {
    again_if_interrupted(|| call!(OPENAT, dir, path, flags | O_CLOEXEC, mode)).map(|fd| fd as i32)
}

/// Retries where a concurrent rename made the kernel unsure.
pub fn openat2(dir: i32, path: CStr, flags: u32, resolve: u64) -> Result<i32> {
    let how = [u64::from(flags | O_CLOEXEC), 0, resolve];
    let mut tries = 0;
    loop {
        match call!(OPENAT2, dir, path, how.as_ptr(), size_of_val(&how)) {
            Err(EAGAIN) if tries < 128 => tries += 1,
            Err(EINTR) => {}
            other => return other.map(|fd| fd as i32),
        }
    }
}

pub fn mkdirat(dir: i32, path: CStr, mode: u32) -> Result {
    call!(MKDIRAT, dir, path, mode)
}

pub fn mknodat(dir: i32, path: CStr, mode: u32, device: u64) -> Result {
    call!(MKNODAT, dir, path, mode, device)
}

pub fn chown(dir: i32, path: CStr, uid: u32, gid: u32) -> Result {
    call!(FCHOWNAT, dir, path, uid, gid, AT_SYMLINK_NOFOLLOW)
}

pub fn symlinkat(target: CStr, dir: i32, path: CStr) -> Result {
    call!(SYMLINKAT, target, dir, path)
}

pub fn readlinkat(dir: i32, path: CStr, buffer: &mut [u8]) -> Result {
    call!(READLINKAT, dir, path, buffer.as_mut_ptr(), buffer.len())
}

pub fn fchmod(fd: i32, mode: u32) -> Result {
    call!(FCHMOD, fd, mode)
}

pub fn fchown(fd: i32, uid: u32, gid: u32) -> Result {
    call!(FCHOWN, fd, uid, gid)
}
