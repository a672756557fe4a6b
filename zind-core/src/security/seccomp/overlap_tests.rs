//! Which entry counts, compared with what libseccomp itself makes of the same ones.
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};

use serde_json::{Value, json};

use super::tests::{Call, run};
use super::{Instruction, Profile};
use crate::security::capabilities::CapSet;

/// `struct scmp_arg_cmp`
#[derive(Clone, Copy)]
#[repr(C)]
struct Arg {
    index: c_uint,
    op: c_int,
    value: u64,
    second: u64,
}

const OPS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];
const EQUAL: usize = 3;
const MASKED: usize = 6;

#[derive(Clone)]
struct Entry {
    errno: u32,
    args: Vec<Arg>,
}

type Init = unsafe extern "C" fn(u32) -> *mut c_void;
type Add = unsafe extern "C" fn(*mut c_void, u32, c_int, c_uint, *const Arg) -> c_int;
type Export = unsafe extern "C" fn(*const c_void, c_int) -> c_int;
type Release = unsafe extern "C" fn(*mut c_void);

/// libseccomp.so.2, which is not linked to.
struct Library {
    init: Init,
    add: Add,
    export: Export,
    release: Release,
}

impl Library {
    #[allow(unsafe_code)]
    fn open() -> Library {
        // SAFETY: the name is a C string; the library's constructors do nothing.
        let library = unsafe { libc::dlopen(c"libseccomp.so.2".as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "this is compared with libseccomp: apt-get install libseccomp2");
        let symbol = |name: &CStr| {
            // SAFETY: an open library and a C string.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr() as *const c_char) };
            assert!(!symbol.is_null(), "{name:?}");
            symbol
        };
        // SAFETY: these are the types that seccomp.h gives to these functions; the library is never closed.
        unsafe {
            Library {
                init: std::mem::transmute::<*mut c_void, Init>(symbol(c"seccomp_init")),
                add: std::mem::transmute::<*mut c_void, Add>(symbol(c"seccomp_rule_add_array")),
                export: std::mem::transmute::<*mut c_void, Export>(symbol(c"seccomp_export_bpf")),
                release: std::mem::transmute::<*mut c_void, Release>(symbol(c"seccomp_release")),
            }
        }
    }

    /// The program for these entries of `getppid`, everything else being allowed; or the errno.
    #[allow(unsafe_code)]
    fn program(&self, entries: &[Entry]) -> Result<Vec<Instruction>, i32> {
        // SAFETY: the functions are called as seccomp_init(3), seccomp_rule_add(3) and seccomp_export_bpf(3) have it, with a
        // context that lives until it is released, and arrays of as many elements as are told.
        unsafe {
            let context = (self.init)(libc::SECCOMP_RET_ALLOW);
            for entry in entries {
                let action = libc::SECCOMP_RET_ERRNO | entry.errno;
                let number = libc::SYS_getppid as c_int;
                match (self.add)(context, action, number, entry.args.len() as c_uint, entry.args.as_ptr()) {
                    0 => {}
                    errno => {
                        (self.release)(context);
                        return Err(-errno);
                    }
                }
            }
            let file = libc::memfd_create(c"program".as_ptr(), libc::MFD_CLOEXEC);
            let mut file = std::fs::File::from_raw_fd(file);
            assert_eq!((self.export)(context, file.as_raw_fd()), 0);
            (self.release)(context);
            let mut bytes = Vec::new();
            std::io::Seek::rewind(&mut file).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap());
            let instruction = |bits: u64| Instruction {
                code: bits as u16,
                jt: (bits >> 16) as u8,
                jf: (bits >> 24) as u8,
                k: (bits >> 32) as u32,
            };
            Ok(bytes.chunks_exact(8).map(|bytes| instruction(word(bytes))).collect())
        }
    }
}

fn profile(entries: &[Entry]) -> Value {
    let arg = |arg: &Arg| {
        let op = OPS[arg.op as usize - 1];
        json!({"index": arg.index, "op": op, "value": arg.value, "valueTwo": arg.second})
    };
    let entry = |entry: &Entry| {
        let args: Vec<Value> = entry.args.iter().map(arg).collect();
        json!({"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": entry.errno, "args": args})
    };
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": entries.iter().map(entry).collect::<Vec<_>>()})
}

/// The same numbers each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % bound
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn entry(&mut self, ops: &[usize], most: usize, values: &[u64]) -> Entry {
        let first = self.below(3) as u32;
        let count = 1 + self.below(most) as u32;
        let mut args: Vec<Arg> = (0..count)
            .map(|at| Arg {
                index: (first + at) % 3,
                op: self.pick(ops) as c_int + 1,
                value: self.pick(values),
                second: self.pick(values),
            })
            .collect();
        // An argument with no bits that count is nothing to ask for.
        args.iter_mut().filter(|arg| arg.op as usize - 1 == MASKED && arg.value == 0).for_each(|arg| arg.value = 1);
        Entry { errno: 1 + self.below(3) as u32, args }
    }
}

#[test]
fn agrees_with_libseccomp() {
    const SMALL: [u64; 4] = [0, 1, 2, 3];
    const WIDE: [u64; 6] = [1, 3, 1 << 32, (1 << 32) + 1, 0xffff_ffff, 5 << 32];
    let library = Library::open();
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut compared, mut unlike_the_list) = (0, 0, 0);
    // libseccomp is followed as far as it has an order: see `overlap`.
    let kinds: [(&[usize], usize); 4] =
        [(&[EQUAL, MASKED], 3), (&[EQUAL, 0], 1), (&[EQUAL, 1, 2], 1), (&[EQUAL, 4, 5], 1)];
    for round in 0..1200 {
        let (ops, most) = kinds[if round % 2 == 0 { 0 } else { round / 2 % 4 }];
        // Ranges of one argument with the same upper half.
        let values: &[u64] = if round % 4 == 0 || most == 1 { &SMALL } else { &WIDE };
        let entries: Vec<Entry> = (0..2 + chance.below(3)).map(|_| chance.entry(ops, most, values)).collect();
        let value = profile(&entries);
        let ours = Profile::from_json(&value.to_string()).unwrap().filter(CapSet::EMPTY);
        let theirs = library.program(&entries);
        assert_eq!(ours.is_err(), theirs.is_err(), "{value} {theirs:?}");
        let (Ok((filter, _)), Ok(theirs)) = (ours, theirs) else {
            refused += 1;
            continue;
        };
        let program = filter.assemble();
        for _ in 0..40 {
            let near = |chance: &mut Chance| chance.pick(values).saturating_add(chance.pick(&[0, 0, 1]));
            let arguments = [(); 3].map(|()| near(&mut chance));
            let answer = |program: &[Instruction]| run(program, &mut Call::new(libc::SYS_getppid as u32, &arguments));
            assert_eq!(answer(&program), answer(&theirs), "{arguments:x?} {value}");
            compared += 1;
            unlike_the_list += usize::from(answer(&theirs) != first_of(&entries, &arguments));
        }
    }
    // It is not the order of the profile.
    assert!(refused > 30 && compared > 20_000 && unlike_the_list > 1_000, "{refused} {compared} {unlike_the_list}");
}

/// What the first entry says that holds.
fn first_of(entries: &[Entry], arguments: &[u64; 3]) -> u32 {
    let holds = |arg: &Arg| {
        let is = arguments[arg.index as usize];
        match OPS[arg.op as usize - 1] {
            "SCMP_CMP_NE" => is != arg.value,
            "SCMP_CMP_LT" => is < arg.value,
            "SCMP_CMP_LE" => is <= arg.value,
            "SCMP_CMP_EQ" => is == arg.value,
            "SCMP_CMP_GE" => is >= arg.value,
            "SCMP_CMP_GT" => is > arg.value,
            _ => is & arg.value == arg.second & arg.value,
        }
    };
    let entry = entries.iter().find(|entry| entry.args.iter().all(holds));
    entry.map_or(libc::SECCOMP_RET_ALLOW, |entry| libc::SECCOMP_RET_ERRNO | entry.errno)
}

#[test]
fn what_overlaps_is_told_or_refused() {
    let entry = |errno: u32, args: &[(u32, u64)]| Entry {
        errno,
        args: args.iter().map(|(index, value)| Arg { index: *index, op: 4, value: *value, second: 0 }).collect(),
    };
    let made = |entries: &[Entry]| Profile::from_json(&profile(entries).to_string()).unwrap().filter(CapSet::EMPTY);
    let narrow_last = [entry(1, &[(0, 5)]), entry(2, &[(0, 5), (1, 6)])];
    let (_, notes) = made(&narrow_last).unwrap();
    assert_eq!(notes, ["getppid: an entry asks for more than one before it, and is never reached"]);
    let [first, second] = narrow_last;
    let narrow_first = made(&[second.clone(), first.clone()]).unwrap_err().to_string();
    assert!(narrow_first.contains("seccomp: getppid: an entry asks for no more than another one"), "{narrow_first}");
    assert!(made(&[first.clone(), Entry { errno: 3, ..first.clone() }]).is_err());
    // The same action is no conflict, and nothing to tell of.
    let same = [second, Entry { errno: 2, ..first }];
    assert!(made(&same).unwrap().1.is_empty());
}
