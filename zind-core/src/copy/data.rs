//! The content of a file: holes stay holes, and the kernel copies where it can.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, copy_file_range, fstat, ftruncate, seek};
use rustix::io::{Errno, pread, pwrite, read};

use super::Pause;
use crate::rootfs::fault::{By, Fault};

/// So much is asked of the kernel at once, in bytes; in between a signal is answered.
const AT_ONCE: u64 = 32 << 20;
const BUFFER: usize = 256 << 10;
/// Files that claim to be empty are read as far as this, in bytes: those of `/proc` and `/sys` have no size.
const UNSIZED: u64 = 16 << 20;

/// Why a copy ended early.
pub(crate) enum Stop {
    Fault(Fault),
    Interrupted,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

/// Copies the content of a regular file into an empty one; the number of bytes of data. What is appended to the source
/// meanwhile is left out; if it shrinks, the copy is as long as what could be read.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64, pause: &mut Pause<'_>) -> Result<u64, Stop> {
    if size == 0 {
        return copy_unsized(from, to, pause);
    }
    let mut copier = Copier { from, to, by_kernel: true, buffer: Vec::new() };
    let (mut at, mut copied, mut length) = (0, 0, size);
    'file: while let Some((start, end)) = next_data(from, at, size)? {
        at = start;
        while at < end {
            if pause.interrupted() {
                return Err(Stop::Interrupted);
            }
            let count = copier.some(at, (end - at).min(AT_ONCE), pause)?;
            if count == 0 {
                length = at;
                break 'file;
            }
            at += count;
            copied += count;
        }
    }
    // A hole at the end looks like a file that has become shorter.
    let left = u64::try_from(fstat(from).by("fstat")?.st_size).unwrap_or_default();
    ftruncate(to, length.min(left.max(at))).by("ftruncate")?;
    Ok(copied)
}

/// The next stretch of data at or after `at`, below `size`; none if only a hole is left.
fn next_data(file: BorrowedFd<'_>, at: u64, size: u64) -> Result<Option<(u64, u64)>, Fault> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) if start >= size => return Ok(None),
        Ok(start) => start.max(at),
        Err(Errno::NXIO) => return Ok(None),
        // A file system that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::SPIPE) => return Ok(Some((at, size))),
        Err(errno) => return Err(Fault::new("lseek", errno)),
    };
    let end = seek(file, SeekFrom::Hole(start)).map_or(size, |end| end.min(size));
    Ok(Some((start, end.max(start + 1))))
}

struct Copier<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    by_kernel: bool,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    /// Copies up to `count` bytes at an offset; 0 at the end of the file.
    fn some(&mut self, at: u64, count: u64, pause: &mut Pause<'_>) -> Result<u64, Stop> {
        while self.by_kernel {
            let (mut from, mut to) = (at, at);
            match copy_file_range(self.from, Some(&mut from), self.to, Some(&mut to), count as usize) {
                // Zero is also what some file systems say that cannot.
                Ok(0) => self.by_kernel = false,
                Ok(copied) => return Ok(copied as u64),
                Err(Errno::INTR) => pause.answer()?,
                Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                    return Err(Fault::new("copy_file_range", errno).into());
                }
                // EXDEV, EINVAL, EOPNOTSUPP and others: what it is about is found out by reading.
                Err(_) => self.by_kernel = false,
            }
        }
        self.buffer.resize(BUFFER, 0);
        let count = self.buffer.len().min(count as usize);
        let read = loop {
            match pread(self.from, &mut self.buffer[..count], at) {
                // A file system in a program of somebody's can let a read wait for ever.
                Err(Errno::INTR) => pause.answer()?,
                result => break result.by("pread")?,
            }
        };
        write_all(self.to, &self.buffer[..read], at)?;
        Ok(read as u64)
    }
}

fn copy_unsized(from: BorrowedFd<'_>, to: BorrowedFd<'_>, pause: &mut Pause<'_>) -> Result<u64, Stop> {
    let mut at = 0;
    // Most files without a size are just empty: they need no large buffer.
    let mut buffer = vec![0; 4096];
    loop {
        let count = match read(from, &mut buffer[..]) {
            Ok(0) => return Ok(at),
            Err(Errno::INTR) => {
                pause.answer()?;
                continue;
            }
            Err(Errno::AGAIN) => {
                let hint = "it has nothing to read now: it is no file with an end";
                return Err(Fault::new("read", Errno::AGAIN).hint(hint).into());
            }
            result => result.by("read")?,
        };
        if at + count as u64 > UNSIZED {
            // A file that was empty and grows has a size by now: the rest of it came after the copy began.
            return if fstat(from).by("fstat")?.st_size > 0 { Ok(at) } else { Err(too_long().into()) };
        }
        write_all(to, &buffer[..count], at)?;
        at += count as u64;
        if pause.interrupted() {
            return Err(Stop::Interrupted);
        }
        buffer.resize(BUFFER, 0);
    }
}

fn too_long() -> Fault {
    Fault::new("read", Errno::FBIG).hint("the file says that it is empty, but has more than 16 MiB")
}

/// Writes all of it at an offset.
pub(crate) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8], mut at: u64) -> Result<(), Fault> {
    while !bytes.is_empty() {
        let count = retry(|| pwrite(to, bytes, at)).by("pwrite")?;
        bytes = &bytes[count..];
        at += count as u64;
    }
    Ok(())
}

/// Reads to the end, or `limit` bytes and one more.
pub(crate) fn read_all(from: BorrowedFd<'_>, limit: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while bytes.len() as u64 <= limit {
        let left = usize::try_from(limit - bytes.len() as u64).unwrap_or(usize::MAX).saturating_add(1);
        let room = left.min(buffer.len());
        match retry(|| read(from, &mut buffer[..room])).by("read")? {
            0 => break,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(bytes)
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn what_would_wait_is_no_end() {
        let (from, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
        let to = memfd_create("copy", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&writer, b"part").unwrap();
        let mut nobody = || false;
        let stop = copy(from.as_fd(), to.as_fd(), 0, &mut Pause::new(&mut nobody));
        assert!(matches!(stop, Err(Stop::Fault(Fault { errno: Errno::AGAIN, .. }))));
        rustix::io::write(&writer, b"rest").unwrap();
        drop(writer);
        assert!(matches!(copy(from.as_fd(), to.as_fd(), 0, &mut Pause::new(&mut nobody)), Ok(4)));
    }

    #[test]
    fn a_file_that_shrinks_is_copied_as_far_as_it_goes() {
        let [from, to] = ["from", "to"].map(|name| memfd_create(name, MemfdFlags::CLOEXEC).unwrap());
        write_all(from.as_fd(), b"short", 0).unwrap();
        let mut nobody = || false;
        assert!(copy(from.as_fd(), to.as_fd(), 100, &mut Pause::new(&mut nobody)).is_ok());
        assert_eq!(fstat(&to).unwrap().st_size, 5);
    }
}
