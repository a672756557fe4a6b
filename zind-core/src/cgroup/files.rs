//! Small files of the kernel's, below a directory that is held open.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};

use crate::error::IntoErrno;
use crate::sys::descriptors::openat;

/// More than any file here has; one that goes on is cut off.
const MOST: usize = 4 << 20;

/// Files of many records, of which a read(2) need not give all that there would be room for.
const LISTS: [&str; 3] = ["cgroup.procs", "cgroup.threads", "tasks"];

/// The whole of a small file. All others are of one record, which comes whole as far as there is room.
pub(super) fn read(dir: BorrowedFd<'_>, name: &str) -> Result<String, Errno> {
    let lossy = |error: std::string::FromUtf8Error| String::from_utf8_lossy(error.as_bytes()).into_owned();
    read_bytes(dir, name).map(|bytes| String::from_utf8(bytes).unwrap_or_else(lossy))
}

/// The same where a name of somebody else's may be in it.
pub(super) fn read_bytes(dir: BorrowedFd<'_>, name: &str) -> Result<Vec<u8>, Errno> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(IntoErrno::into_errno)?;
    let mut bytes = Vec::with_capacity(4096);
    while bytes.len() < MOST {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len());
        }
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => break,
            Ok(_) if bytes.len() < bytes.capacity() && !LISTS.contains(&name) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into_errno()),
        }
    }
    Ok(bytes)
}

/// Writes a text in one call.
pub(super) fn write(dir: BorrowedFd<'_>, name: &str, text: &str) -> Result<(), Errno> {
    let file = openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(IntoErrno::into_errno)?;
    write_to(file.as_fd(), text)
}

/// Writes a text to an open file in one call.
pub(super) fn write_to(file: BorrowedFd<'_>, text: &str) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::io::write(file, text.as_bytes())).map(drop).map_err(IntoErrno::into_errno)
}

/// True if there is such a file.
pub(super) fn exists(dir: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::accessat(dir, name, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok()
}

/// A directory, to begin paths at.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    open_dir_at(rustix::fs::CWD, path)
}

/// The same below another one.
pub(super) fn open_dir_at(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, path, flags, Mode::empty()).map_err(IntoErrno::into_errno)
}

/// The value after `key` in a text of `key value` lines.
pub(super) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The values after several keys, in one pass.
pub(super) fn values_of<const N: usize>(text: &str, keys: [&str; N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(at) = keys.iter().position(|known| *known == key) {
            found[at] = value.trim().parse().ok();
        }
    }
    found
}

/// A number, where `max` is none.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// True if a word is in a text of words.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    text.split_ascii_whitespace().any(|other| other == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_whole_keys() {
        let text = "low 0\nmax 7\noom 3\noom_kill 2\noom_group_kill x\nodd\n";
        assert_eq!(values_of(text, ["oom_kill", "oom", "high"]), [Some(2), Some(3), None]);
        assert_eq!(values_of(text, ["oom_group_kill", "odd"]), [None, None]);
        assert_eq!(["oom_kill", "oom", "high"].map(|key| value_of(text, key)), [Some(2), Some(3), None]);
    }
}
