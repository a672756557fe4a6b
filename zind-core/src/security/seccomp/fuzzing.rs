//! What the fuzzer makes of a profile.
#![allow(clippy::unwrap_used)]

use super::filter::LONGEST;
use super::profile::{Mode, compiled};
use super::{Instruction, Profile};
use crate::security::capabilities::CapSet;
use crate::security::syscalls::Arch;

/// A profile that is taken makes programs that the kernel takes, which do what the rules say; and what is written of it for
/// OCI means the same.
pub(crate) fn profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(profile) = Profile::from_json(text) else { return };
    for capabilities in [CapSet::EMPTY, CapSet::all()] {
        let plain = Profile::from_json(&profile.to_oci(capabilities).to_string()).unwrap();
        // Entries that are no filter together are refused both times.
        let made = profile.filter(capabilities);
        assert_eq!(plain.filter(capabilities).is_ok(), made.is_ok());
        let Ok((filter, _)) = made else { continue };
        assert_eq!(plain.filter(capabilities).unwrap().0, filter);
        for mode in [Mode::Plain, Mode::Watched] {
            let Ok(made) = compiled(Some(&profile), capabilities, mode) else { continue };
            assert!((1..=LONGEST).contains(&made.program.len()));
            let wanted = if mode == Mode::Watched { filter.watched() } else { filter.clone() };
            // Arguments from the text itself reach the values in it.
            let word = |at: usize| {
                bytes.get(at..at + 8).map_or(at as u64, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
            };
            for at in 0..32 {
                let arguments = [at as u64, word(at), word(2 * at), 0, u64::MAX, word(at) >> 32];
                for arch in [Arch::X86_64, Arch::X86, Arch::X32, Arch::Arm] {
                    let number = bytes.get(3 * at).map_or(0, |byte| u32::from(*byte) * 2);
                    let number = if arch == Arch::X32 { number | 0x4000_0000 } else { number };
                    let action = wanted.action(arch.audit(), number, &arguments);
                    assert_eq!(run(&made.program, number, arch.audit(), &arguments), action.code());
                }
            }
        }
    }
}

/// Runs a program as the kernel does.
fn run(program: &[Instruction], number: u32, audit: u32, arguments: &[u64; 6]) -> u32 {
    let (mut at, mut a) = (0, 0u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |holds| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => {
                a = match k {
                    0 => number,
                    4 => audit,
                    _ => (arguments[(k as usize - 16) / 8] >> (k % 8 * 8)) as u32,
                }
            }
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(a == k),
            0x25 => at += branch(a > k),
            0x35 => at += branch(a >= k),
            0x45 => at += branch(a & k != 0),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}
