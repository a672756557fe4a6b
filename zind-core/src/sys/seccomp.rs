//! The calls of a seccomp listener, and of the memory of who waits for an answer.
//!
//! Source: <https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html>

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// `struct seccomp_notif`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Notification {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    pub(crate) flags: u32,
    pub(crate) number: i32,
    pub(crate) arch: u32,
    pub(crate) instruction_pointer: u64,
    pub(crate) arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) value: i64,
    pub(crate) error: i32,
    pub(crate) flags: u32,
}

/// `struct seccomp_notif_addfd`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct AddFd {
    pub(crate) id: u64,
    pub(crate) flags: u32,
    pub(crate) source: u32,
    pub(crate) target: u32,
    pub(crate) target_flags: u32,
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`
pub(crate) const CONTINUE: u32 = 1;
/// `SECCOMP_ADDFD_FLAG_SETFD`
pub(crate) const SETFD: u32 = 1;
/// `SECCOMP_ADDFD_FLAG_SEND`
pub(crate) const SEND: u32 = 2;

const RECEIVE: libc::c_ulong = 0xc050_2100;
const RESPOND: libc::c_ulong = 0xc018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;
const ADD_FD: libc::c_ulong = 0x4018_2103;

/// The next call. It blocks while there is none.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> Result<Notification, Errno> {
    let mut notification = Notification::default();
    // SAFETY: the kernel fills in a structure of the size that is part of the number; it wants it zeroed before.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut notification) })?;
    Ok(notification)
}

/// Answers a call.
pub(crate) fn respond(listener: BorrowedFd<'_>, response: &Response) -> Result<(), Errno> {
    let mut response = *response;
    // SAFETY: the kernel reads a structure of the size that is part of the number.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), RESPOND, &raw mut response) }).map(drop)
}

/// Whether a call still waits.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads a number of 64 bits.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const id) }).map(drop)
}

/// Gives who waits a descriptor: its number there.
pub(crate) fn add_fd(listener: BorrowedFd<'_>, add: &AddFd) -> Result<i32, Errno> {
    // SAFETY: the kernel reads a structure of the size that is part of the number; the source is borrowed by the caller.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), ADD_FD, &raw const *add) })
}

/// `process_vm_readv(2)`: how many bytes of another process were read; less than asked for at the end of what is mapped.
pub(crate) fn read_memory(pid: i32, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: the local piece is the buffer; the other address is the other process's, which the kernel checks.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    Errno::result(read).map(|read| read as usize)
}

/// `process_vm_writev(2)`: the same in the other direction.
pub(crate) fn write_memory(pid: i32, address: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the local piece is only read; the other address is the other process's, which the kernel checks.
    let written = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    Errno::result(written).map(|written| written as usize)
}

/// Keeps every signal from the calling thread, for as long as that lives: they are for the program's own threads.
pub(crate) fn block_signals() {
    // SAFETY: an all-zero set is a valid object to be filled in, and both calls get live pointers.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}
