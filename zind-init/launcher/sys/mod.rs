//! System calls, without a C library: one thin function each, no state, no allocation.
//!
//! This is the launcher's room of unsafe code. Pointers handed in here come from the plan (which outlives every call)
//! or from locals of the caller; the kernel checks them all and answers `EFAULT` for a bad one.

use core::arch::asm;

/// Calls by name with up to six arguments of any integer or pointer type.
macro_rules! call {
    ($number:ident) => { call!(@ $number, 0, 0, 0, 0, 0, 0) };
    ($number:ident, $a:expr) => { call!(@ $number, $a, 0, 0, 0, 0, 0) };
    ($number:ident, $a:expr, $b:expr) => { call!(@ $number, $a, $b, 0, 0, 0, 0) };
    ($number:ident, $a:expr, $b:expr, $c:expr) => { call!(@ $number, $a, $b, $c, 0, 0, 0) };
    ($number:ident, $a:expr, $b:expr, $c:expr, $d:expr) => { call!(@ $number, $a, $b, $c, $d, 0, 0) };
    ($number:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => { call!(@ $number, $a, $b, $c, $d, $e, 0) };
    ($number:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        call!(@ $number, $a, $b, $c, $d, $e, $f)
    };
    (@ $number:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        $crate::sys::raw($crate::sys::number::$number, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize)
    };
}

mod clone;
mod descriptors;
mod errno;
mod files;
mod mounts;
mod namespaces;
mod number;
mod processes;
mod rights;
mod sockets;
mod terminals;

pub use clone::*;
pub use descriptors::*;
pub use errno::*;
pub use files::*;
pub use mounts::*;
pub use namespaces::*;
pub use processes::*;
pub use rights::*;
pub use sockets::*;
pub use terminals::*;

pub type Result<T = usize> = core::result::Result<T, i32>;

pub const AT_FDCWD: i32 = -100;
pub const AT_EMPTY_PATH: u32 = 0x1000;
pub const AT_RECURSIVE: u32 = 0x8000;
pub const OPEN_TREE_CLONE: u32 = 1;
pub const OPEN_TREE_CLOEXEC: u32 = 0o2000000;
pub const O_WRONLY: u32 = 1;
pub const O_RDWR: u32 = 2;
pub const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
pub const O_CREAT: u32 = 0o100;
pub const O_EXCL: u32 = 0o200;
pub const O_NOCTTY: u32 = 0o400;
pub const O_DIRECTORY: u32 = 0o200000;
pub const O_NOFOLLOW: u32 = 0o400000;
pub const O_CLOEXEC: u32 = 0o2000000;
pub const O_PATH: u32 = 0o10000000;
pub const RESOLVE_NO_XDEV: u64 = 0x01;
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
pub const RESOLVE_BENEATH: u64 = 0x08;
pub const RESOLVE_IN_ROOT: u64 = 0x10;
pub const CLONE_VM: u64 = 0x100;
pub const CLONE_VFORK: u64 = 0x4000;
pub const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
pub const SIGKILL: i32 = 9;
pub const SIGTRAP: i32 = 5;
pub const SIGCHLD: i32 = 17;
pub const SIGSTOP: i32 = 19;
pub const MNT_DETACH: u32 = 2;
pub const WNOHANG: i32 = 1;

/// One system call with six arguments; unused ones are 0.
#[inline(always)]
fn raw(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> Result {
    let result: isize;
    // SAFETY: the x86_64 system call convention; rcx and r11 are what the instruction clobbers. What a call does to
    // memory is bounded by the pointers its wrapper below passes on.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    if result < 0 { Err(-result as i32) } else { Ok(result as usize) }
}

/// A call that somebody else has put together.
pub fn by_number(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> Result {
    loop {
        match raw(number, a, b, c, d, e, f) {
            Err(EINTR) => {}
            other => return other,
        }
    }
}

/// A NUL-terminated string of the plan, or a literal.
pub type CStr = *const u8;

pub const EMPTY: CStr = c"".as_ptr().cast();

/// Makes a call until no signal interrupts it.
fn again_if_interrupted(mut call: impl FnMut() -> Result) -> Result {
    loop {
        match call() {
            Err(EINTR) => {}
            other => return other,
        }
    }
}

/// It is the call that is hidden: the kernel itself has no such answer to it.
pub fn is_hidden(errno: i32) -> bool {
    matches!(errno, ENOSYS | EPERM)
}
