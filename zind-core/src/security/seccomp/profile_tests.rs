use std::sync::Arc;

use serde_json::{Value, json};

use super::super::tests::{Call, assert_valid, errno_of, install, run};
use super::*;

/// The same numbers each time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.next() as usize % list.len()].clone()
    }
}

fn error(value: &Value) -> String {
    Profile::from_json(&value.to_string()).unwrap_err().to_string()
}

fn profile(value: &Value) -> Arc<Profile> {
    Profile::from_json(&value.to_string()).unwrap()
}

const NAMES: [&str; 12] = [
    "read",
    "write",
    "openat",
    "clone",
    "ioctl",
    "socket",
    "personality",
    "mmap2",
    "socketcall",
    "execve",
    "breakpoint",
    "mseal",
];
const OPS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];
const ACTIONS: [(&str, u32, bool); 9] = [
    ("SCMP_ACT_KILL", 0, false),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000, false),
    ("SCMP_ACT_KILL_THREAD", 0, false),
    ("SCMP_ACT_TRAP", 0x3_0000, false),
    ("SCMP_ACT_ERRNO", 0x5_0000, true),
    ("SCMP_ACT_TRACE", 0x7ff0_0000, true),
    ("SCMP_ACT_ALLOW", 0x7fff_0000, false),
    ("SCMP_ACT_LOG", 0x7ffc_0000, false),
    ("SCMP_ACT_NOTIFY", 0x7fc0_0000, false),
];
/// Where comparisons turn.
const VALUES: [u64; 14] = [
    0,
    1,
    2,
    7,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x1_ffff_ffff,
    0x2_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    0xffff_ffff_ffff_fffe,
    u64::MAX,
];

fn value_of(chance: &mut Chance) -> u64 {
    let (one, other) = (chance.pick(&VALUES), chance.next());
    match chance.next() % 4 {
        0 => other,
        1 => one.wrapping_add(1),
        _ => one,
    }
}

fn random_action(chance: &mut Chance) -> (Value, Option<u64>) {
    let (name, _, takes_errno) = chance.pick(&ACTIONS);
    let errno = (takes_errno && chance.next().is_multiple_of(2)).then(|| chance.next() % 4096);
    (json!(name), errno)
}

fn random_profile(chance: &mut Chance) -> Value {
    let (action, errno) = random_action(chance);
    let mut all = json!({"defaultAction": action, "syscalls": []});
    if let Some(errno) = errno {
        all["defaultErrnoRet"] = json!(errno);
    }
    let sets: [&[&str]; 5] = [
        &[],
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        &["SCMP_ARCH_X32"],
        &["SCMP_ARCH_X86", "SCMP_ARCH_MIPS64"],
        &["SCMP_ARCH_AARCH64"],
    ];
    all["architectures"] = json!(chance.pick(&sets));
    for _ in 0..chance.next() % 12 {
        let (action, errno) = random_action(chance);
        let names: Vec<_> = (0..1 + chance.next() % 3).map(|_| chance.pick(&NAMES)).collect();
        let mut entry = json!({"names": names, "action": action});
        if let Some(errno) = errno {
            entry["errnoRet"] = json!(errno);
        }
        let mut args = Vec::new();
        for _ in 0..chance.next() % 4 {
            let index = chance.next() % 3;
            let (value, second, op) = (value_of(chance), value_of(chance), chance.pick(&OPS));
            args.push(json!({"index": index, "value": value, "valueTwo": second, "op": op}));
        }
        entry["args"] = json!(args);
        let caps = [&["CAP_CHOWN"][..], &["CAP_SYS_ADMIN"], &["CAP_CHOWN", "CAP_SYS_ADMIN"]];
        match chance.next() % 6 {
            0 => entry["includes"] = json!({"caps": chance.pick(&caps)}),
            1 => entry["excludes"] = json!({"caps": chance.pick(&caps)}),
            _ => {}
        }
        all["syscalls"].as_array_mut().unwrap().push(entry);
    }
    all
}

/// What the document says of a call, read anew: what the kernel may be told. Which of several entries counts that say different
/// things is for `overlap_tests`.
fn expected(all: &Value, capabilities: CapSet, arch: Arch, number: u32, arguments: &[u64; 6]) -> Vec<u32> {
    let code = |action: &Value, errno: Option<&Value>| {
        let (_, code, takes_errno) = ACTIONS.into_iter().find(|(name, ..)| action == name).unwrap();
        if takes_errno { code | errno.map_or(1, |errno| errno.as_u64().unwrap() as u32) } else { code }
    };
    let default = code(&all["defaultAction"], all.get("defaultErrnoRet"));
    let listed = all["architectures"].as_array().unwrap().iter().any(|name| name == arch.oci_name());
    if !listed && arch != Arch::X86_64 {
        return vec![0x8000_0000];
    }
    let Some(name) = arch.name(number) else { return vec![default] };
    let has = |caps: &Value| -> Vec<bool> {
        caps.as_array()
            .unwrap()
            .iter()
            .map(|cap| capabilities.intersects(CapSet::from_name(cap.as_str().unwrap()).unwrap()))
            .collect()
    };
    let holds = |arg: &Value| {
        let number = |name: &str| arg[name].as_u64().unwrap();
        let (is, value) = (arguments[number("index") as usize], number("value"));
        match arg["op"].as_str().unwrap() {
            "SCMP_CMP_NE" => is != value,
            "SCMP_CMP_LT" => is < value,
            "SCMP_CMP_LE" => is <= value,
            "SCMP_CMP_EQ" => is == value,
            "SCMP_CMP_GE" => is >= value,
            "SCMP_CMP_GT" => is > value,
            _ => is & value == number("valueTwo") & value,
        }
    };
    let entries: Vec<&Value> = all["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["names"].as_array().unwrap().iter().any(|known| known == name))
        .filter(|entry| entry.get("includes").is_none_or(|it| has(&it["caps"]).iter().all(|has| *has)))
        .filter(|entry| entry.get("excludes").is_none_or(|it| !has(&it["caps"]).iter().any(|has| *has)))
        .filter(|entry| {
            let (action, errno) = (&entry["action"], entry.get("errnoRet"));
            // The two names of one action are one.
            code(action, errno) != default
        })
        .collect();
    let args = |entry: &Value| entry["args"].as_array().unwrap().clone();
    if let Some(entry) = entries.iter().find(|entry| args(entry).is_empty()) {
        return vec![code(&entry["action"], entry.get("errnoRet"))];
    }
    let mut codes = Vec::new();
    for entry in entries {
        let args = args(entry);
        let mut indices: Vec<u64> = args.iter().map(|arg| arg["index"].as_u64().unwrap()).collect();
        indices.sort_unstable();
        indices.dedup();
        let is = if indices.len() < args.len() { args.iter().any(holds) } else { args.iter().all(holds) };
        if is {
            codes.push(code(&entry["action"], entry.get("errnoRet")));
        }
    }
    if codes.is_empty() { vec![default] } else { codes }
}

#[test]
fn programs_do_what_random_profiles_say() {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let (mut longest, mut refused) = (0, 0);
    for _ in 0..400 {
        let value = random_profile(&mut chance);
        let capabilities = chance.pick(&[CapSet::EMPTY, CapSet::CHOWN, CapSet::SYS_ADMIN, CapSet::all()]);
        let Ok((filter, _)) = profile(&value).filter(capabilities) else {
            refused += 1;
            continue;
        };
        let program = filter.assemble();
        assert_valid(&program);
        longest = longest.max(program.len());
        for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
            let numbers: Vec<u32> = NAMES.iter().filter_map(|name| arch.number(name)).collect();
            for _ in 0..60 {
                let number =
                    if chance.next().is_multiple_of(8) { chance.next() as u32 % 600 } else { chance.pick(&numbers) };
                let number = if arch == Arch::X32 { number | 0x4000_0000 } else { number };
                let arguments = [(); 6].map(|()| value_of(&mut chance));
                let mut call = Call { arch: arch.audit(), ..Call::new(number, &arguments) };
                let wanted = expected(&value, capabilities, arch, number, &arguments);
                let answer = run(&program, &mut call);
                assert!(wanted.contains(&answer), "{arch:?} {number} {arguments:x?} of {value}: {answer:x}");
                assert_eq!(filter.action(arch.audit(), number, &arguments).code(), answer);
            }
        }
    }
    assert!(longest > 200 && refused < 40, "{longest} {refused}");
}

#[test]
fn what_is_unknown_is_refused_by_name() {
    let with = |at: &str, part: Value| {
        let mut all = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]});
        let place = at.rsplit_once('/').unwrap();
        all.pointer_mut(place.0).unwrap()[place.1] = part;
        error(&all)
    };
    for (at, part, words) in [
        ("/defaultAction", json!("SCMP_ACT_DENY"), "defaultAction: \"SCMP_ACT_DENY\" is no known action"),
        ("/defaultErrnoRet", json!(1), "takes no errno"),
        (
            "/architectures",
            json!(["SCMP_ARCH_X86_46"]),
            "architectures[0]: \"SCMP_ARCH_X86_46\" is no known architecture",
        ),
        ("/architectures", json!("SCMP_ARCH_X86"), "is no list"),
        ("/archMap", json!([{"architecture": "SCMP_ARCH_X86_64"}]), "excludes architectures"),
        ("/flags", json!(["SECCOMP_FILTER_FLAG_FAST"]), "flags[0]: \"SECCOMP_FILTER_FLAG_FAST\" is no known flag"),
        ("/listenerMetadata", json!("x"), "needs listenerPath"),
        ("/syscalls/0/names", json!(["opne"]), "syscalls[0].names[0]: \"opne\" is no system call"),
        ("/syscalls/0/names", json!([]), "syscalls[0].names: is missing or empty"),
        ("/syscalls/0/names", json!([7]), "is no text"),
        ("/syscalls/0/action", json!("ALLOW"), "syscalls[0].action: \"ALLOW\" is no known action"),
        ("/syscalls/0/errnoRet", json!(4096), "is no errno"),
        ("/syscalls/0/errnoRet", json!(-1), "whole number"),
        ("/syscalls/0/args/0/op", json!("=="), "syscalls[0].args[0].op: \"==\" is no known operator"),
        ("/syscalls/0/args/0/index", json!(6), "syscalls[0].args[0].index: 6 is no argument"),
        ("/syscalls/0/args/0/value", json!(-1), "-1 is no whole number"),
        ("/syscalls/0/args/0/value", json!(1.5), "is no whole number"),
        (
            "/syscalls/0/includes",
            json!({"caps": ["CAP_FLY"]}),
            "syscalls[0].includes.caps[0]: \"CAP_FLY\" is no known capability",
        ),
        ("/syscalls/0/excludes", json!({"minKernel": "new"}), "is no version of a kernel"),
        ("/syscalls", json!([[]]), "syscalls[0]: [] is no object"),
    ] {
        let text = with(at, part);
        assert!(text.contains(words), "{at}: {text}");
    }
    for (text, words) in [
        ("[]", "is no object"),
        ("{}", "defaultAction: is missing"),
        ("{", "is no JSON"),
        ("{\"defaultAction\": 1}", "is no text"),
    ] {
        let found = Profile::from_json(text).unwrap_err().to_string();
        assert!(found.contains(words), "{found}");
    }
    let many: Vec<_> = (0..100_000).map(|_| "read").collect();
    assert!(
        Profile::from_value(
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": many, "action": "SCMP_ACT_LOG"}]})
        )
        .unwrap_err()
        .1
        .contains("too many")
    );
    let long: Vec<_> = (0..2000u32)
        .map(|value| {
            let arg = json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
            json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [arg]})
        })
        .collect();
    let long = profile(&json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": long}));
    assert!(long.compile(CapSet::EMPTY, Mode::Plain).unwrap_err().to_string().contains("instructions"));
}

#[test]
fn what_means_nothing_here_is_told() {
    let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ARM", "SCMP_ARCH_X86_64"], "syscalls": [
        {"names": ["s390_sthyi", "read", "mmap2"], "action": "SCMP_ACT_ERRNO"}]});
    let compiled = profile(&value).compile(CapSet::EMPTY, Mode::Plain).unwrap();
    assert_eq!(
        *compiled.notes,
        [
            "SCMP_ARCH_ARM: never seen by this machine",
            "mmap2: a system call of other architectures",
            "s390_sthyi: a system call of other architectures"
        ]
    );
    // As libseccomp has it, and not in silence.
    let value = json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": [
        {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 0x5412, "op": "SCMP_CMP_EQ"}]},
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW"}]});
    let compiled = profile(&value).compile(CapSet::EMPTY, Mode::Plain).unwrap();
    assert_eq!(*compiled.notes, ["ioctl: the first entry for it without args counts, and no other"]);
    // With i386 there is an mmap2.
    let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["mmap2"], "action": "SCMP_ACT_ERRNO"}]});
    assert!(profile(&value).compile(CapSet::EMPTY, Mode::Plain).unwrap().notes.is_empty());
}

#[test]
fn a_profile_is_compiled_once() {
    let value =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_ERRNO"}]});
    let (one, other) = (profile(&value), profile(&value));
    assert!(Arc::ptr_eq(&one, &other));
    let program = |profile: &Profile, mode| profile.compile(CapSet::EMPTY, mode).unwrap().program;
    assert!(Arc::ptr_eq(&program(&one, Mode::Plain), &program(&other, Mode::Plain)));
    assert!(!Arc::ptr_eq(&program(&one, Mode::Plain), &program(&one, Mode::Watched)));
}

#[test]
fn dockers_words_are_resolved_for_oci() {
    let value = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOSYS",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
        "syscalls": [
            {"name": "read", "action": "SCMP_ACT_ALLOW", "comment": "x"},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
            {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.1"}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
            {"names": ["cacheflush"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm"]}}]});
    let plain = profile(&value).to_oci(CapSet::EMPTY);
    assert_eq!(
        plain,
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}, {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW"}]})
    );
    let filter = |value| profile(value).filter(CapSet::EMPTY).unwrap().0;
    assert_eq!(filter(&plain), filter(&value));
    assert!(profile(&value).to_oci(CapSet::all()).to_string().contains("bpf"));
}

#[test]
fn watched_filters_ask_where_plain_ones_refuse() {
    let compiled = compiled(None, CapSet::EMPTY, Mode::Watched).unwrap();
    assert_valid(&compiled.program);
    let plain = Policy::standard(CapSet::EMPTY).compile();
    for number in 0..600 {
        for arguments in [[0; 6], [16, 3, 9, 0, 0, 0], [u64::MAX; 6]] {
            let refused = run(&plain, &mut Call::new(number, &arguments));
            let wanted = if refused & 0xffff_0000 == 0x5_0000 { 0x7fc0_0000 } else { refused };
            assert_eq!(run(&compiled.program, &mut Call::new(number, &arguments)), wanted);
            assert_eq!(compiled.filter.action(Arch::X86_64.audit(), number, &arguments).code(), refused);
        }
    }
    let notifying =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_NOTIFY"}]});
    assert!(profile(&notifying).compile(CapSet::EMPTY, Mode::Watched).is_err());
}

/// A filter holds for the thread that installs it.
#[test]
fn kernel_follows_a_profile() {
    let arg = |index, value: u64, op: &str| json!({"index": index, "value": value, "op": op});
    let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71, "args": [arg(0, 5, "SCMP_CMP_GT"), arg(1, 1 << 33, "SCMP_CMP_LT")]},
        {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 72, "args": [arg(1, 1 << 40, "SCMP_CMP_EQ")]},
        {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]});
    let (filter, _) = profile(&value).filter(CapSet::EMPTY).unwrap();
    std::thread::spawn(move || {
        install(&filter.assemble()).unwrap();
        let answer = |which: i64, who: i64| errno_of(libc::SYS_getpriority, [which, who, 0]);
        assert_eq!(answer(6, 0), 71);
        assert_eq!(answer(-1, (1 << 33) - 1), 71);
        assert_eq!(answer(6, 1 << 33), libc::EINVAL);
        assert_eq!(answer(0, 1 << 40), 72);
        assert_eq!(answer(0, 0), 0);
        assert_eq!(errno_of(libc::SYS_sethostname, [0, 0, 0]), libc::EPERM);
    })
    .join()
    .unwrap();
}
