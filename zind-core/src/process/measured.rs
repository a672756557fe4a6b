//! What the launcher reads back of itself, on the side of the library: the question that a filter begins with, the mounts that
//! are looked at, and the words of an error.
#![forbid(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use zind_init::measured::{MARK, MARK_ERRNO, Part, READING_SIZE};
use zind_init::plan::{self as wire, FsKind};

use crate::error::{Error, Step};
use crate::rootfs::ops::Op;
use crate::security::capabilities::CapSet;
use crate::security::seccomp::Instruction;

/// What was expected and what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(super) expected: u64,
    pub(super) found: u64,
}

impl Reading {
    /// Of a message of [`READING_SIZE`].
    pub(super) fn decode(message: &[u8]) -> Option<Reading> {
        let word = |at: usize| Some(u64::from_ne_bytes(message.get(at..at + 8)?.try_into().ok()?));
        (message.len() == READING_SIZE).then_some(())?;
        Some(Reading { expected: word(1)?, found: word(9)? })
    }
}

/// The most instructions of a filter: `BPF_MAXINSNS`.
const MOST_INSTRUCTIONS: usize = 4096;

/// A filter with the launcher's question at its beginning, and whether there was room for it. It costs a call two instructions,
/// and those that the kernel knows to be allowed at any rate nothing.
pub(super) fn marked(program: &[Instruction]) -> (Vec<u64>, bool) {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;
    const RET_ERRNO: u32 = 0x0005_0000;
    // `struct sock_filter`: code, jt, jf, k.
    let instruction = |code: u16, jt: u8, jf: u8, k: u32| {
        let [c, d] = code.to_ne_bytes();
        let [e, f, g, h] = k.to_ne_bytes();
        u64::from_ne_bytes([c, d, jt, jf, e, f, g, h])
    };
    let question = [
        instruction(LOAD, 0, 0, NUMBER),
        instruction(JUMP_IF_EQUAL, 0, 3, libc::SYS_prctl as u32),
        instruction(LOAD, 0, 0, FIRST_ARGUMENT),
        instruction(JUMP_IF_EQUAL, 0, 1, MARK),
        instruction(RETURN, 0, 0, RET_ERRNO | MARK_ERRNO),
    ];
    let has_room = program.len() + question.len() <= MOST_INSTRUCTIONS;
    let question = question.into_iter().filter(|_| has_room);
    (question.chain(program.iter().map(|instruction| instruction.to_bits())).collect(), has_room)
}

/// Chooses the operations whose result the launcher looks at: those that nothing after them can have covered.
pub(super) fn choose(ops: &mut [Op]) {
    let has_mounts = ops.iter().any(|op| op.mount.is_some() || op.of_device.is_some());
    for op in ops {
        let is_whole = op.kind == FsKind::Setattr && op.path.as_c_str() == c"/" && op.attr_set != 0;
        let is_chosen = match op.kind {
            FsKind::Mask | FsKind::Readonly => true,
            FsKind::Mount => !has_mounts && op.is_in_root() && op.flags & wire::NO_SYMLINKS != 0,
            FsKind::Setattr => op.is_in_root() && (is_whole || !has_mounts && op.attr_set != 0),
            _ => false,
        };
        if is_chosen {
            op.flags |= wire::READ_BACK;
        }
    }
}

/// The words for a difference.
pub(super) fn differs(part: Part, reading: Option<Reading>) -> Error {
    let words = reading.map_or_else(|| unsaid(part), |reading| said(part, reading));
    error(part.call(), part.word(), &words)
}

/// The same of a mount: four `MOUNT_ATTR_*`.
pub(super) fn mount_differs(path: std::path::PathBuf, reading: Option<Reading>) -> Error {
    let names = |set: u64| -> String {
        let all = [(1, "ro"), (2, "nosuid"), (4, "nodev"), (8, "noexec")];
        let names: Vec<&str> = all.iter().filter(|(bit, _)| set & bit != 0).map(|(_, name)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(",") }
    };
    let words = match reading {
        Some(Reading { expected, found }) if expected & !found != 0 => {
            format!("expected {}, found {}", names(expected), names(found))
        }
        _ => "expected a mount of its own, found what was there before".to_owned(),
    };
    match error("statfs", "", &words) {
        Error::Sys { syscall, errno, hint, .. } => {
            Error::Sys { step: Step::ReadMount, syscall, object: path, errno, hint }
        }
        other => other,
    }
}

pub(crate) fn error(call: &'static str, object: &str, words: &str) -> Error {
    let hint = format!(
        "{words}: the call that was to set it did not fail, but had no effect; a filter or tracer around this process, or the kernel, says what is not so"
    );
    Error::sys(Step::ReadBack, call, object, Errno::EPROTO).with_hint(hint)
}

fn unsaid(part: Part) -> String {
    match part {
        Part::Seccomp => "expected the filter to answer, found none that does".to_owned(),
        Part::NoNewPrivileges => "expected it to be set, found that it is not".to_owned(),
        _ => "found something else than was set".to_owned(),
    }
}

fn said(part: Part, Reading { expected, found }: Reading) -> String {
    let set = |bits: u64| match CapSet(bits & CapSet::all().0) {
        set if set.is_empty() => "none".to_owned(),
        set => set.to_string(),
    };
    match part {
        Part::Mounts | Part::Net | Part::Cgroup | Part::Time => "expected a new one, found the one before".to_owned(),
        Part::Process if expected == 0 => "expected a new process, found the one before".to_owned(),
        Part::Process => format!("expected the first process of a new namespace, found number {found}"),
        Part::Hostname | Part::Domainname => "expected the one that was asked for, found another".to_owned(),
        Part::Root => "expected the directory that was asked for, found another".to_owned(),
        Part::Descriptors => format!("expected descriptor {found} to be closed, found it open"),
        Part::Bounding => format!("bounding: expected {}, found {}", set(expected), set(found)),
        Part::Effective => format!("effective: expected {}, found {}", set(expected), set(found)),
        Part::Permitted => format!("permitted: expected {}, found {}", set(expected), set(found)),
        Part::Inheritable => format!("inheritable: expected {}, found {}", set(expected), set(found)),
        Part::Ambient => format!("ambient: expected {}, found {}", set(expected), set(found)),
        Part::NoNewPrivileges => unsaid(part),
        Part::Gid => format!("group: expected {expected}, found {found}"),
        _ => format!("expected {expected}, found {found}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::seccomp;

    #[test]
    fn a_filter_with_the_question_is_longer_by_five_instructions_if_they_have_room() {
        let program = seccomp::default_filter(CapSet::EMPTY);
        let (bits, is_marked) = marked(&program);
        assert!(is_marked && bits.len() == program.len() + 5);
        let long: Vec<Instruction> = std::iter::repeat_n(program[0], MOST_INSTRUCTIONS - 4).collect();
        let (bits, is_marked) = marked(&long);
        assert!(!is_marked && bits.len() == long.len());
    }

    #[test]
    fn readings_have_their_size_and_their_words() {
        let mut message = vec![b'='; READING_SIZE];
        message[1..9].copy_from_slice(&1u64.to_ne_bytes());
        message[9..].copy_from_slice(&3u64.to_ne_bytes());
        let reading = Reading::decode(&message);
        assert_eq!(reading, Some(Reading { expected: 1, found: 3 }));
        assert_eq!(Reading::decode(&message[1..]), None);
        for part in Part::ALL {
            assert_eq!(Part::from_number(*part as u16), Some(*part));
            for reading in [reading, None] {
                let Error::Sys { step, hint, errno, .. } = differs(*part, reading) else { panic!("{part:?}") };
                assert!(step == Step::ReadBack && errno == Errno::EPROTO && hint.contains("found"), "{hint}");
            }
        }
        let text = mount_differs("/proc/sys".into(), reading).to_string();
        assert!(text.contains("/proc/sys") && text.contains("found what was there"), "{text}");
        let reading = Some(Reading { expected: 1, found: 2 });
        assert!(mount_differs("/x".into(), reading).to_string().contains("expected ro, found nosuid"));
    }
}
