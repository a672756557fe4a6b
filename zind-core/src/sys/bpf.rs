//! bpf(2), as far as device rules of control groups need it: instructions, loading, attaching to a group.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// One instruction of the kernel's virtual machine.
///
/// Source: `struct bpf_insn`; <https://www.kernel.org/doc/html/latest/bpf/standardization/instruction-set.html>
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    /// The destination in the lower four bits, the source in the upper.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) number: i32,
}

/// A register by its number; 0 holds the answer, 1 the context.
#[derive(Clone, Copy)]
pub(crate) struct Register(pub(crate) u8);

const fn instruction(code: u8, to: Register, from: Register, offset: i16, number: i32) -> Instruction {
    Instruction { code, registers: to.0 | from.0 << 4, offset, number }
}

/// `to = *(u32 *)(from + offset)`
pub(crate) const fn load_word(to: Register, from: Register, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}

/// `to = from`
pub(crate) const fn copy(to: Register, from: Register) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

/// `to &= number`
pub(crate) const fn and(to: Register, number: i32) -> Instruction {
    instruction(0x57, to, Register(0), 0, number)
}

/// `to >>= number`
pub(crate) const fn shift_right(to: Register, number: i32) -> Instruction {
    instruction(0x77, to, Register(0), 0, number)
}

/// `if register == number` the next `skip` instructions are left out.
pub(crate) const fn is_equal(register: Register, number: i32, skip: i16) -> Instruction {
    instruction(0x15, register, Register(0), skip, number)
}

/// `if register != number` the next `skip` instructions are left out.
pub(crate) const fn is_not_equal(register: Register, number: i32, skip: i16) -> Instruction {
    instruction(0x55, register, Register(0), skip, number)
}

/// `return number`
pub(crate) const fn answer(number: i32) -> [Instruction; 2] {
    [instruction(0xb7, Register(0), Register(0), 0, number), instruction(0x95, Register(0), Register(0), 0, 0)]
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of the groups above and below are asked too, and each must agree.
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest for zero.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The same for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The same for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// The same for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// # Safety
/// `attr` is the command's structure, and every pointer in it is valid as the command demands.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: the structure is live and of the size said; its pointers are the caller's promise.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) })
}

/// Loads a program that answers for accesses to devices.
pub(crate) fn load_device_program(code: &[Instruction]) -> Result<OwnedFd, Errno> {
    let mut prog_name = [0; 16];
    prog_name[..12].copy_from_slice(b"zind_devices");
    let mut attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name,
        ..Load::default()
    };
    // SAFETY: the instructions and the name of the licence are live; the kernel only reads them, and there is no log.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr) }?;
    // SAFETY: fresh, and nobody else's; the kernel makes it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a program to a group, by its directory. It stays as long as the group does.
pub(crate) fn attach_device_program(group: BorrowedFd<'_>, program: &OwnedFd) -> Result<(), Errno> {
    let mut attr = Attach {
        target_fd: group.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
        ..Attach::default()
    };
    // SAFETY: numbers only.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }.map(drop)
}

/// The ids of the programs that are attached to the group itself.
pub(crate) fn device_programs(group: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    // The kernel lets no more than 64 of them be attached.
    let mut ids = [0u32; 64];
    let mut attr = Query {
        target_fd: group.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..Query::default()
    };
    // SAFETY: the kernel writes at most `prog_cnt` numbers into the live array.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    Ok(ids[..(attr.prog_cnt as usize).min(ids.len())].to_vec())
}

/// Takes a program off a group again.
pub(crate) fn detach_device_program(group: BorrowedFd<'_>, id: u32) -> Result<(), Errno> {
    let mut by_id = ById { id, ..ById::default() };
    // SAFETY: numbers only.
    let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut by_id) }?;
    // SAFETY: fresh, and nobody else's.
    let program = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let mut attr = Attach {
        target_fd: group.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        ..Attach::default()
    };
    // SAFETY: numbers only.
    unsafe { bpf(BPF_PROG_DETACH, &mut attr) }.map(drop)
}
