//! What a process has in its memory: mappings, and the bytes themselves.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;

use super::Proc;
use crate::error::{Error, Result, Step};

const MEMORY_CHUNK: usize = 1 << 20;

/// A mapping of a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// What the process may do with it.
    pub perms: Perms,
    /// Offset of the first byte in the file, in bytes.
    pub offset: u64,
    /// Device of the file, as `st_dev` of stat(2); 0 without a file.
    pub dev: u64,
    /// Inode of the file; 0 without a file.
    pub inode: u64,
    /// The file, or a name in brackets such as `[heap]`; as the kernel words it: a newline is `\012`, and a file
    /// without a name has ` (deleted)` at the end.
    pub path: Option<PathBuf>,
}

/// Permissions of a [`Map`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perms {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub exec: bool,
    /// Writes are seen by the others who map the file; private (copy on write) otherwise.
    pub shared: bool,
}

impl Proc {
    /// The memory mappings by address; empty for kernel threads and for processes that have ended.
    ///
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_maps.5.html>
    pub fn maps(&self) -> Result<Vec<Map>> {
        self.read_lines("maps", parse_map)
    }

    /// Up to `len` bytes of the process's memory from the address `offset` on; less where the mapped memory ends.
    ///
    /// Errors: as for every reading; [`Error::Sys`] with `EIO` if nothing is mapped at `offset`, with `ESRCH` for a
    /// process that has no memory (kernel threads; one that has ended and was not waited for).
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_mem.5.html>
    pub fn mem(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let file = self.open_file("mem").map_err(|error| match error {
            Error::NotFound { .. } if self.exists() => {
                Error::sys(Step::Proc, "openat", self.path.join("mem"), Errno::ESRCH)
                    .with_hint("the process has no memory: it is a kernel thread, or it has ended")
            }
            other => other,
        })?;
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let done = bytes.len();
            bytes.resize(done + (len - done).min(MEMORY_CHUNK), 0);
            let read = match offset.checked_add(done as u64) {
                Some(at) => rustix::io::pread(&file, &mut bytes[done..], at),
                None => Ok(0),
            };
            bytes.truncate(done + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => break,
                Ok(_) => (),
                Err(rustix::io::Errno::INTR) => (),
                Err(_) if done > 0 => break,
                Err(errno) => {
                    let error = self.error("mem", "pread64", errno);
                    return Err(match errno {
                        rustix::io::Errno::IO => {
                            error.with_hint(format!("nothing readable is mapped at {offset:#x}; see maps"))
                        }
                        _ => error,
                    });
                }
            }
        }
        Ok(bytes)
    }
}

pub(super) fn parse_map(line: &[u8]) -> Option<Map> {
    // Five words without spaces, then padding, then a path that may hold anything.
    let mut rest = line;
    let mut word = || {
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail.strip_prefix(b" ").unwrap_or(tail);
        std::str::from_utf8(word).ok()
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = word()?.split_once('-')?;
    let perms = word()?.as_bytes();
    let offset = hex(word()?)?;
    let (major, minor) = word()?.split_once(':')?;
    let dev = rustix::fs::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = word()?.parse().ok()?;
    let path = rest.trim_ascii_start();
    let [read, write, exec, shared] = perms else { return None };
    Some(Map {
        start: hex(start)?,
        end: hex(end)?,
        perms: Perms { read: *read == b'r', write: *write == b'w', exec: *exec == b'x', shared: *shared == b's' },
        offset,
        dev,
        inode,
        path: (!path.is_empty()).then(|| OsStr::from_bytes(path).into()),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn maps_keep_spaces_of_paths() {
        let map = parse_map(b"7f5c000-7f5d000 r-xs 00002000 fe:01 77      /a dir/ f (deleted)").unwrap();
        assert_eq!((map.start, map.end, map.offset, map.inode), (0x7f5c000, 0x7f5d000, 0x2000, 77));
        assert_eq!(map.dev, rustix::fs::makedev(254, 1));
        assert_eq!(map.perms, Perms { read: true, write: false, exec: true, shared: true });
        assert_eq!(map.path.as_deref(), Some(Path::new("/a dir/ f (deleted)")));
        assert_eq!(parse_map(b"1000-2000 ---p 00000000 00:00 0 ").unwrap().path, None);
        assert_eq!(parse_map(b"1000-2000 ---p 00000000 00:00"), None);
    }

    #[test]
    fn memory_is_read_up_to_the_end_of_the_mapping() {
        let own = Proc::current().unwrap();
        let secret = *b"seen through /proc";
        assert_eq!(own.mem(secret.as_ptr().addr() as u64, secret.len()).unwrap(), secret);
        let maps = own.maps().unwrap();
        let stack = maps.iter().find(|map| map.path.as_deref() == Some(Path::new("[stack]"))).unwrap();
        assert_eq!(own.mem(stack.end - 10, usize::MAX).unwrap().len(), 10);
        assert_eq!(own.mem(0, 1).unwrap_err().errno(), Some(Errno::EIO));
        assert!(own.mem(0, 0).unwrap().is_empty());
        assert!(own.mem(u64::MAX, 1).is_err());
    }
}
