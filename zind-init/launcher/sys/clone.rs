//! How processes and threads are begun: clone(2), clone3(2), execve(2).

use core::arch::asm;

use super::{
    AT_EMPTY_PATH, CLONE_INTO_CGROUP, CLONE_PIDFD, CLONE_VFORK, CLONE_VM, CStr, EMPTY, Result, SIGCHLD, number,
};

/// Executes the program behind a descriptor.
pub fn execute(program: i32, argv: *const CStr, envp: *const CStr) -> i32 {
    call!(EXECVEAT, program, EMPTY, argv, envp, AT_EMPTY_PATH).err().unwrap_or(0)
}

/// Forks with `flags`; the parent sleeps until the child executes a program or ends. 0 in the child.
pub fn fork(flags: u64, pidfd: &mut i32) -> Result<i32> {
    clone(flags | CLONE_VFORK, pidfd)
}

/// Forks with `flags`; both go on. 0 in the child.
///
/// The older clone(2) knows all the flags there are in use here, and is let through where a filter hides clone3(2).
pub fn clone(flags: u64, pidfd: &mut i32) -> Result<i32> {
    call!(CLONE, flags | CLONE_PIDFD | SIGCHLD as u64, 0, &raw mut *pidfd).map(|pid| pid as i32)
}

/// As [`vfork`], with new namespaces, and born into the group of version 2 behind `cgroup`, if that is not negative. Only
/// this one wants clone3(2).
pub fn vfork_into(
    stack: &mut [u8],
    flags: u64,
    cgroup: i32,
    pidfd: &mut i32,
    child: extern "C" fn(*const u8) -> !,
    argument: *const u8,
) -> Result<i32> {
    if cgroup < 0 {
        return vfork_with(stack, flags, pidfd, child, argument);
    }
    let flags = flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_INTO_CGROUP;
    clone3_on(stack, flags, pidfd, cgroup, child, argument)
}

/// clone3(2), whose child runs `child` in our memory, on `stack`.
fn clone3_on(
    stack: &mut [u8],
    flags: u64,
    pidfd: *mut i32,
    cgroup: i32,
    child: extern "C" fn(*const u8) -> !,
    argument: *const u8,
) -> Result<i32> {
    let (bottom, size) = (stack.as_mut_ptr() as u64, (stack.len() & !15) as u64);
    // `struct clone_args`: flags, pidfd, child_tid, parent_tid, exit_signal, stack, its size, tls, set_tid, its size, cgroup.
    let arguments = [flags, pidfd as u64, 0, 0, SIGCHLD as u64, bottom, size, 0, 0, 0, cgroup as u64];
    let result: isize;
    // SAFETY: as in `clone_on`; the array is the structure of clone3(2), version 2.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") number::CLONE3 as isize => result,
            in("rdi") arguments.as_ptr(),
            in("rsi") size_of_val(&arguments),
            in("r12") child,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(-result as i32) } else { Ok(result as i32) }
}

/// Like vfork(2): the child runs `child` in our memory, on `stack`, while we sleep until it executes a program or ends.
pub fn vfork(
    stack: &mut [u8],
    pidfd: &mut i32,
    child: extern "C" fn(*const u8) -> !,
    argument: *const u8,
) -> Result<i32> {
    vfork_with(stack, 0, pidfd, child, argument)
}

fn vfork_with(
    stack: &mut [u8],
    flags: u64,
    pidfd: &mut i32,
    child: extern "C" fn(*const u8) -> !,
    argument: *const u8,
) -> Result<i32> {
    let flags = flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD as u64;
    clone_on(stack, flags, pidfd, child, argument)
}

/// clone(2), whose child runs `child` in our memory, on `stack`.
fn clone_on(
    stack: &mut [u8],
    flags: u64,
    pidfd: *mut i32,
    child: extern "C" fn(*const u8) -> !,
    argument: *const u8,
) -> Result<i32> {
    let top = (stack.as_mut_ptr() as usize + stack.len()) & !15;
    let result: isize;
    // SAFETY: the child starts on the top of its own stack, calls a function that never returns and touches nothing
    // of this frame; the parent goes on after the call with all registers but rax, rcx and r11 as they were.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") number::CLONE as isize => result,
            in("rdi") flags,
            in("rsi") top,
            in("rdx") pidfd,
            in("r10") 0,
            in("r8") 0,
            in("r12") child,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(-result as i32) } else { Ok(result as i32) }
}

/// [`vfork`] whose child is born into the control group behind a descriptor, and for which nobody needs another.
pub fn vfork_into_group(
    group: i32,
    stack: &mut [u8],
    child: extern "C" fn(*const u8) -> !,
    argument: *const u8,
) -> Result<i32> {
    clone3_on(stack, CLONE_VM | CLONE_VFORK | CLONE_INTO_CGROUP, core::ptr::null_mut(), group, child, argument)
}

/// A second thread of this process, which runs `child` on `stack`. Signals that are blocked here are blocked there.
pub fn thread(stack: &mut [u8], child: extern "C" fn(*const u8) -> !, argument: *const u8) -> Result<i32> {
    // CLONE_VM, _FS, _FILES, _SIGHAND, _THREAD and _SYSVSEM: what threads share.
    const FLAGS: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
    clone_on(stack, FLAGS, core::ptr::null_mut(), child, argument)
}

/// Forks a child of our parent's, and sleeps until it executes a program or ends. 0 in the child.
pub fn fork_sibling() -> Result<i32> {
    const CLONE_PARENT: u64 = 0x8000;
    call!(CLONE, CLONE_PARENT | CLONE_VFORK | SIGCHLD as u64, 0, 0).map(|pid| pid as i32)
}

pub fn execve(program: CStr, argv: *const CStr, envp: *const CStr) -> i32 {
    call!(EXECVE, program, argv, envp).err().unwrap_or(0)
}
