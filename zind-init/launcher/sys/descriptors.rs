//! Descriptors: reading and writing, waiting for them, closing and moving them, and memory mapped from them.

use core::sync::atomic::{AtomicI32, Ordering};

use super::{CStr, EBADF, EINTR, O_CLOEXEC, Result, again_if_interrupted, is_hidden};

const F_SETFD: usize = 2;

pub fn read(fd: i32, buffer: &mut [u8]) -> Result {
    again_if_interrupted(|| call!(READ, fd, buffer.as_mut_ptr(), buffer.len()))
}

pub fn write_all(fd: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match call!(WRITE, fd, bytes.as_ptr(), bytes.len()) {
            Err(EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(n) => bytes = bytes.get(n..).unwrap_or(&[]),
        }
    }
    Ok(())
}

pub fn close(fd: i32) {
    let _ = call!(CLOSE, fd);
}

/// Where close_range(2) is hidden: no descriptor of ours is above it, once those that came with us were looked through. -1: not so.
static HIGHEST: AtomicI32 = AtomicI32::new(-1);

/// How many descriptors are opened here beyond those that are kept; many times as many as there ever are.
const MOST_OPENED: i32 = 4096;

/// close_range(2) is hidden, and of what is open now `highest` is the last: from here on it is done one by one.
pub fn set_highest_descriptor(highest: i32) {
    HIGHEST.store(highest.saturating_add(MOST_OPENED), Ordering::Relaxed);
}

/// `flags`: 0 closes, 4 marks close-on-exec.
pub fn close_range(first: u32, last: u32, flags: u32) -> Result {
    const FD_CLOEXEC: usize = 1;
    let errno = match call!(CLOSE_RANGE, first, last, flags) {
        Err(errno) if is_hidden(errno) => errno,
        other => return other,
    };
    let Ok(highest) = u32::try_from(HIGHEST.load(Ordering::Relaxed)) else { return Err(errno) };
    for fd in first..=last.min(highest) {
        match if flags == 0 { call!(CLOSE, fd) } else { call!(FCNTL, fd, F_SETFD, FD_CLOEXEC) } {
            Ok(_) | Err(EBADF | EINTR) => {}
            // What close(2) has to say besides is about what was written.
            Err(_) if flags == 0 => {}
            other => return other,
        }
    }
    Ok(0)
}

pub fn dup_above(fd: i32, least: i32) -> Result<i32> {
    const F_DUPFD_CLOEXEC: usize = 1030;
    let fd = call!(FCNTL, fd, F_DUPFD_CLOEXEC, least)? as i32;
    if HIGHEST.load(Ordering::Relaxed) >= 0 {
        HIGHEST.fetch_max(fd, Ordering::Relaxed);
    }
    Ok(fd)
}

pub fn dup_to(from: i32, to: i32) -> Result {
    call!(DUP3, from, to, 0)
}

/// Takes close-on-exec away.
pub fn keep_over_exec(fd: i32) -> Result {
    call!(FCNTL, fd, F_SETFD, 0)
}

/// Maps a file privately, for reading and writing.
pub fn map_private(fd: i32, len: usize) -> Result<*mut u8> {
    const PROT_READ_WRITE: usize = 3;
    const MAP_PRIVATE_POPULATE: usize = 0x2 | 0x8000;
    call!(MMAP, 0, len, PROT_READ_WRITE, MAP_PRIVATE_POPULATE, fd, 0).map(|address| address as *mut u8)
}

/// Nobody uses what is there any more.
pub fn unmap(address: *mut u8, len: usize) {
    let _ = call!(MUNMAP, address, len);
}

/// One page that a forked child shares with us.
pub fn map_shared_page() -> Result<*mut u32> {
    const PROT_READ_WRITE: usize = 3;
    const MAP_SHARED_ANONYMOUS: usize = 0x1 | 0x20;
    call!(MMAP, 0, 4096, PROT_READ_WRITE, MAP_SHARED_ANONYMOUS, -1i32, 0).map(|address| address as *mut u32)
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PollFd {
    pub fd: i32,
    pub events: i16,
    pub revents: i16,
}

pub const POLLIN: i16 = 1;
pub const POLLPRI: i16 = 2;

impl PollFd {
    pub fn readable(fd: i32) -> PollFd {
        PollFd { fd, events: POLLIN, revents: 0 }
    }
}

pub fn poll(fds: &mut [PollFd]) -> Result {
    call!(PPOLL, fds.as_mut_ptr(), fds.len(), 0, 0, 0)
}

/// As [`poll`], for `timeout_ns` at most; negative: for as long as it takes.
pub fn poll_for(fds: &mut [PollFd], timeout_ns: i64) -> Result {
    if timeout_ns < 0 {
        return poll(fds);
    }
    let time = [timeout_ns / 1_000_000_000, timeout_ns % 1_000_000_000];
    call!(PPOLL, fds.as_mut_ptr(), fds.len(), time.as_ptr(), 0, 0)
}

/// Writes two pieces in one call: how many bytes of them.
pub fn write_both(fd: i32, one: &[u8], other: &[u8]) -> Result {
    let pieces = [Iov(one.as_ptr(), one.len()), Iov(other.as_ptr(), other.len())];
    again_if_interrupted(|| call!(WRITEV, fd, pieces.as_ptr(), pieces.len()))
}

pub fn pread(fd: i32, buffer: &mut [u8], at: u64) -> Result {
    again_if_interrupted(|| call!(PREAD64, fd, buffer.as_mut_ptr(), buffer.len(), at))
}

pub fn pwrite(fd: i32, bytes: &[u8], at: u64) -> Result {
    again_if_interrupted(|| call!(PWRITE64, fd, bytes.as_ptr(), bytes.len(), at))
}

/// Locks a file for us alone, if nobody has it locked.
pub fn lock_now(fd: i32) -> Result {
    const LOCK_EX_NB: usize = 2 | 4;
    again_if_interrupted(|| call!(FLOCK, fd, LOCK_EX_NB))
}

pub fn truncate(fd: i32, length: u64) -> Result {
    again_if_interrupted(|| call!(FTRUNCATE, fd, length))
}

pub fn pipe() -> Result<[i32; 2]> {
    let mut pair = [-1i32; 2];
    call!(PIPE2, pair.as_mut_ptr(), O_CLOEXEC)?;
    Ok(pair)
}

/// A file in memory, with nothing in it.
pub fn memory_file(name: CStr) -> Result<i32> {
    const MFD_CLOEXEC: usize = 1;
    call!(MEMFD_CREATE, name, MFD_CLOEXEC).map(|fd| fd as i32)
}

/// `struct iovec`.
#[repr(C)]
pub(super) struct Iov(pub(super) *const u8, pub(super) usize);

/// `FD_CLOEXEC` or nothing.
pub fn descriptor_flags(fd: i32) -> Result {
    const F_GETFD: usize = 1;
    call!(FCNTL, fd, F_GETFD, 0)
}
