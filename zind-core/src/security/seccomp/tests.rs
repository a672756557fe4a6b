//! What the tests of filters share: a machine that runs programs as the kernel does, and the kernel itself.

use std::io;

use super::{Instruction, Rule};
use crate::security::syscalls::{self, Arch};

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const KILL: u32 = 0x8000_0000;
pub(super) const EPERM: u32 = 0x0005_0001;
pub(super) const ENOSYS: u32 = 0x0005_0026;
pub(super) const EAFNOSUPPORT: u32 = 0x0005_0061;

/// `struct seccomp_data`, and whether an argument of it was looked at.
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) arguments: [u64; 6],
    pub(super) judged: bool,
}

impl Call {
    pub(super) fn new(number: u32, arguments: &[u64]) -> Call {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        Call { number, arch: Arch::X86_64.audit(), arguments: all, judged: false }
    }

    fn word(&mut self, offset: u32) -> u32 {
        self.judged |= offset >= 16;
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => (self.arguments[(offset as usize - 16) / 8] >> (offset % 8 * 8)) as u32,
            _ => panic!("load of the instruction pointer or beyond: {offset}"),
        }
    }
}

/// Runs a program as the kernel does; like the kernel's check it knows only what a seccomp filter may use.
pub(super) fn run(program: &[Instruction], call: &mut Call) -> u32 {
    let (mut at, mut a) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |holds| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => a = call.word(k),
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(a == k),
            0x25 => at += branch(a > k),
            0x35 => at += branch(a >= k),
            0x45 => at += branch(a & k != 0),
            0x06 => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

pub(super) fn answer(program: &[Instruction], number: u32, arguments: &[u64]) -> u32 {
    run(program, &mut Call::new(number, arguments))
}

pub(super) fn answer_by_name(program: &[Instruction], name: &str, arguments: &[u64]) -> u32 {
    answer(program, syscalls::number(name).unwrap(), arguments)
}

/// What the rules say, without a compiler.
pub(super) fn expected(rule: &Rule, arguments: &[u64; 6]) -> u32 {
    match rule {
        Rule::Do(action) => action.code(),
        Rule::Match { argument, mask, arms, otherwise } => {
            let value = arguments[usize::from(*argument)] as u32 & mask;
            let arm = arms.iter().find(|(candidate, _)| *candidate == value).map(|(_, rule)| rule);
            expected(arm.unwrap_or(otherwise), arguments)
        }
        Rule::First(..) => panic!("tested by profiles"),
    }
}

/// The checks of `bpf_check_classic()` and `seccomp_check_filter()`.
pub(super) fn assert_valid(program: &[Instruction]) {
    assert!((1..=4096).contains(&program.len()));
    assert_eq!(program.last().unwrap().code, 0x06);
    for (at, instruction) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match instruction.code {
            0x05 => assert!((instruction.k as usize) < left),
            0x15 | 0x25 | 0x35 | 0x45 => {
                assert!(usize::from(instruction.jt) < left && usize::from(instruction.jf) < left);
            }
            0x20 => assert!(instruction.k < 64 && instruction.k % 4 == 0),
            0x06 | 0x54 => assert_eq!((instruction.jt, instruction.jf), (0, 0)),
            other => panic!("instruction {other:#x}"),
        }
    }
}

#[allow(unsafe_code)]
pub(super) fn install(program: &[Instruction]) -> io::Result<()> {
    let filter =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: the arguments are numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel reads `len` instructions at `filter`, which has their layout and outlives the call.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The errno of a call that fails; 0 where it does not.
#[allow(unsafe_code)]
pub(super) fn errno_of(number: i64, arguments: [i64; 3]) -> i32 {
    let [a, b, c] = arguments;
    // SAFETY: the test passes no addresses, and only calls that make nothing when they fail, as they have to.
    match unsafe { libc::syscall(number, a, b, c) } {
        -1 => io::Error::last_os_error().raw_os_error().unwrap_or(0),
        _ => 0,
    }
}
