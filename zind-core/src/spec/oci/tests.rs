//! What goes out comes back, and what comes from elsewhere is understood or refused by name.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cgroup::{DeviceKind, DeviceRule, IoLimit, RdmaLimit};
use crate::device::{Console, Device};
use crate::error::Error;
use crate::mount::Mount;
use crate::namespace::idmap::{IdMap, IdMaps};
use crate::namespace::kind::Kind;
use crate::rootfs::layers::Layers;
use crate::rootfs::{Overlay, Rootfs};
use crate::security::capabilities::{CapSet, CapSets};
use crate::security::landlock::{Landlock, LandlockPolicy};
use crate::spec::{
    Binfmt, Hook, Hooks, Resources, Rlimit, Scheduler, Seccomp, Session, Source, Spec, Stdio, TimeOffsets, User,
};

/// xorshift64: the same numbers on every run, so that a failure can be looked at.
struct Chance(u64);

impl Chance {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    fn flag(&mut self) -> bool {
        self.number() & 8 != 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Chance) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    fn some<T>(&mut self, make: impl Fn(&mut Chance) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| make(self)).collect()
    }

    /// Any number, the borders more often.
    fn wide(&mut self) -> u64 {
        match self.below(4) {
            0 => self.pick(&[0, 1, u64::from(u32::MAX), i64::MAX as u64, u64::MAX - 1]),
            1 => self.number(),
            _ => self.number() % 100_000,
        }
    }

    fn small(&mut self) -> u32 {
        (self.wide() % (u64::from(u32::MAX) + 1)) as u32
    }

    fn text(&mut self) -> String {
        self.pick(&[
            "",
            "a",
            "b c",
            "é",
            "\u{1f980}",
            "a\"b\\",
            "x=y",
            "\n\t\r\u{7f}",
            "null",
            "{\"a\":1}",
            "5",
            "\u{fffd}",
        ])
        .to_owned()
    }

    /// Also what is no UTF-8.
    fn os(&mut self) -> OsString {
        match self.below(4) {
            0 => OsString::from_vec((0..self.below(6)).map(|_| self.number() as u8).collect()),
            1 => OsString::from_vec(b"a\xff\xfe/b".to_vec()),
            _ => self.text().into(),
        }
    }

    fn path(&mut self) -> PathBuf {
        let mut path = b"/p".to_vec();
        path.extend(self.os().into_vec());
        PathBuf::from(OsString::from_vec(path))
    }

    fn caps(&mut self) -> CapSet {
        CapSet(self.number() & ((1 << 41) - 1))
    }

    fn ids(&mut self) -> Vec<IdMap> {
        let map = |chance: &mut Chance| IdMap { container: chance.small(), host: chance.small(), size: chance.small() };
        (0..1 + self.below(3)).map(|_| map(self)).collect()
    }
}

fn mount(chance: &mut Chance) -> Mount {
    let target = chance.path();
    let mut mount = match chance.below(8) {
        0 => Mount::bind(chance.path(), target).recursive(chance.flag()),
        1 => Mount::tmpfs(target).size(chance.wide()).mode(0o755),
        2 => {
            let kind = chance.pick(&["proc", "sysfs", "cgroup2", "volume", "bind", "zind:file", "overlay", ""]);
            Mount::file_system(kind, target)
        }
        3 => {
            let mount = Mount::overlay(target, chance.some(Chance::path));
            if chance.flag() { mount.upper(chance.path(), chance.path()) } else { mount }
        }
        4 => Mount::file(target, chance.os().into_vec(), chance.small()),
        5 => {
            let mount = Mount::volume(chance.text(), target).copy_up(chance.flag());
            if chance.flag() { mount.volumes_in(chance.path()) } else { mount }
        }
        6 => Mount::new("ext4", Some(&chance.path()), target, ["remount", "bind", "data=x,y"]).unwrap(),
        _ => Mount::new("none", Some(&chance.path()), target, ["rbind", "rslave", "rro"]).unwrap(),
    };
    for words in [["ro", "noexec", "sync"], ["rnosuid", "rnoatime", "x=a=b:c"], ["rw", "ridmap", "lazytime"]] {
        if let (true, Ok(more)) = (chance.flag(), mount.clone().with_options(words)) {
            mount = more;
        }
    }
    if chance.flag() {
        mount = mount.read_only(chance.flag());
    }
    if chance.below(4) == 0 {
        mount = mount.idmap(chance.ids(), chance.ids());
    }
    mount.create(chance.below(4) != 0)
}

fn device(chance: &mut Chance) -> Device {
    let device = match chance.below(3) {
        0 => Device::new(chance.path()).at(chance.path()),
        _ => Device::node(chance.pick(&['c', 'b', 'p', 'u']), chance.path(), 5, 7).unwrap(),
    };
    let device = device.access(chance.pick(&["rwm", "rw", "r", "m"])).unwrap();
    let device = if chance.flag() { device.mode(chance.pick(&[0o600, 0o666, 0o1777])) } else { device };
    device.owner(chance.maybe(Chance::small), chance.maybe(Chance::small))
}

fn resources(chance: &mut Chance) -> Resources {
    let io = |chance: &mut Chance| {
        let device = chance.pick(&["8:0", "/dev/no-such-disk", "254:16"]);
        let mut limit =
            IoLimit::of(device).bps(chance.maybe(Chance::wide), Some(1)).iops(None, chance.maybe(Chance::wide));
        limit.latency_us = chance.maybe(Chance::wide);
        limit.weight = chance.maybe(|chance| 1 + chance.wide() % 10_000);
        limit
    };
    let rule = |chance: &mut Chance| DeviceRule {
        allow: chance.flag(),
        kind: chance.pick(&[DeviceKind::All, DeviceKind::Block, DeviceKind::Char]),
        major: chance.maybe(Chance::small),
        minor: chance.maybe(Chance::small),
        access: chance.pick(&["rwm", "r", "mw"]).to_owned(),
    };
    let named = |chance: &mut Chance| -> BTreeMap<String, u64> {
        chance.some(|chance| (chance.text(), chance.wide())).into_iter().collect()
    };
    Resources {
        memory: chance.maybe(Chance::wide),
        memory_high: chance.maybe(Chance::wide),
        memory_low: chance.maybe(Chance::wide),
        memory_min: chance.maybe(Chance::wide),
        swap: chance.maybe(|chance| chance.pick(&[0, 5000, u64::MAX])),
        oom_group: chance.maybe(Chance::flag),
        oom_kill_disable: chance.maybe(Chance::flag),
        swappiness: chance.maybe(Chance::wide),
        cpus: chance.maybe(|chance| chance.pick(&[0.5, 0.1, 1.0 / 3.0, 1e-300, 12_345.678_9])),
        cpu_quota_us: chance.maybe(|chance| chance.wide() as i64),
        cpu_period_us: chance.maybe(Chance::wide),
        cpu_burst_us: chance.maybe(Chance::wide),
        cpu_weight: chance.maybe(Chance::wide),
        cpu_shares: chance.maybe(Chance::wide),
        cpu_idle: chance.maybe(Chance::flag),
        cpuset_cpus: chance.maybe(Chance::text),
        cpuset_mems: chance.maybe(Chance::text),
        cpu_rt_runtime_us: chance.maybe(|chance| chance.wide() as i64),
        cpu_rt_period_us: chance.maybe(Chance::wide),
        pids: chance.maybe(Chance::wide),
        io_weight: chance.maybe(Chance::wide),
        io: chance.some(io),
        hugetlb: named(chance),
        rdma: named(chance)
            .into_keys()
            .map(|name| {
                (name, RdmaLimit { hca_handles: chance.maybe(Chance::small), hca_objects: chance.maybe(Chance::small) })
            })
            .collect(),
        misc: named(chance),
        devices: chance.some(rule),
        net_classid: chance.maybe(Chance::small),
        net_priorities: named(chance).into_iter().map(|(name, number)| (name, number as u32)).collect(),
        unified: chance.some(|chance| (chance.text(), chance.text())).into_iter().collect(),
    }
}

fn hooks(chance: &mut Chance) -> Hooks {
    let hook = |chance: &mut Chance| Hook {
        path: chance.path(),
        args: chance.some(Chance::os),
        env: chance.some(Chance::os),
        timeout: chance.maybe(|chance| Duration::from_secs(1 + chance.wide() / 2)),
    };
    Hooks {
        prestart: chance.some(hook),
        create_runtime: chance.some(hook),
        create_container: chance.some(hook),
        start_container: chance.some(hook),
        poststart: chance.some(hook),
        poststop: chance.some(hook),
    }
}

fn stdio(chance: &mut Chance) -> Stdio {
    match chance.below(5) {
        0 => Stdio::Null,
        1 => Stdio::Pipe,
        2 => Stdio::Stdout,
        3 => Stdio::File(chance.os().into()),
        _ => Stdio::Inherit,
    }
}

fn namespaces(chance: &mut Chance) -> BTreeMap<Kind, Source> {
    let mut all = BTreeMap::new();
    for kind in Kind::ALL {
        let source = match chance.below(5) {
            0 => Source::New,
            1 => Source::Host,
            2 => Source::Path(chance.path()),
            3 => Source::Pid(chance.number() as i32),
            _ => continue,
        };
        all.insert(kind, source);
    }
    all
}

/// Anything that can be asked for, sensible or not.
fn any(chance: &mut Chance) -> Spec {
    let wide = |chance: &mut Chance| Duration::new(chance.wide(), (chance.number() % 1_000_000_000) as u32);
    let resources = chance.maybe(resources);
    let caps = chance.below(3);
    let mut numbers: Vec<u32> = (0..16).collect();
    numbers.retain(|_| chance.below(4) == 0);
    let rlimit = |resource: &u32, chance: &mut Chance| Rlimit {
        resource: *resource,
        soft: chance.maybe(Chance::wide),
        hard: chance.maybe(Chance::wide),
    };
    let scheduler = |chance: &mut Chance| Scheduler {
        policy: chance.pick(&[0, 1, 2, 3, 5, 6]),
        priority: chance.small(),
        flags: chance.number() & 0x7f,
        deadline_ns: (chance.wide(), chance.wide(), chance.wide()),
    };
    let name = |chance: &mut Chance| {
        let mut name = chance.os().into_vec();
        name.retain(|byte| *byte != b'=');
        name.push(b'N');
        OsString::from_vec(name)
    };
    Spec {
        argv: chance.some(Chance::os),
        argv0: chance.maybe(Chance::os),
        env: chance.some(|chance| match chance.below(3) {
            0 => ("HOME".into(), chance.pick(&["/root", "/x"]).into()),
            1 => ("LANG".into(), "C.UTF-8".into()),
            _ => (name(chance), chance.os()),
        }),
        clear_env: chance.flag(),
        inherit_env: chance.flag(),
        keep_env: chance.some(Chance::os),
        cwd: chance.maybe(|chance| chance.os().into()),
        rootfs: match chance.below(6) {
            0 => Rootfs::Host,
            1 => Rootfs::Lowers(chance.some(Chance::path)),
            2 => Rootfs::Layers(Layers::at(chance.path())),
            3 => Rootfs::Unchanged,
            4 => Rootfs::Path("zind:host".into()),
            _ => Rootfs::Path(chance.path()),
        },
        entrypoint: chance.maybe(|chance| chance.some(Chance::os)),
        of_image: chance.flag(),
        origin: None,
        make_dirs: chance.some(Chance::path),
        sealed: chance.flag(),
        overlay: match chance.below(3) {
            0 => Overlay::Tmpfs,
            1 => Overlay::None,
            _ => Overlay::Dir(chance.os().into()),
        },
        read_only: chance.flag(),
        tmpfs_size: chance.maybe(Chance::wide),
        mounts: chance.some(mount),
        devices: chance.some(device),
        console: chance.maybe(|chance| Console::Path(chance.path())),
        system_mounts: chance.flag(),
        mount_proc: chance.maybe(Chance::path),
        binfmt: chance.maybe(|chance| Binfmt { path: chance.path(), interpreter: chance.maybe(Chance::os) }),
        chroot: chance.maybe(Chance::path),
        directories: chance.some(Chance::path),
        propagation: chance.wide(),
        namespaces: namespaces(chance),
        pins: chance.some(|chance| (chance.pick(&Kind::ALL), chance.path())),
        time_offsets: chance.maybe(|chance| TimeOffsets {
            monotonic_ns: chance.number() as i64,
            boottime_ns: chance.pick(&[0, -1, i64::MIN, i64::MAX]),
        }),
        hostname: chance.maybe(Chance::text),
        domainname: chance.maybe(Chance::text),
        id_maps: match chance.below(4) {
            0 => IdMaps::Single,
            1 => IdMaps::Auto,
            2 => IdMaps::Explicit { uid: chance.ids(), gid: chance.ids() },
            _ => IdMaps::ByPrivilege,
        },
        setgroups: chance.maybe(Chance::flag),
        owner: chance.maybe(|chance| (chance.small(), chance.small())),
        stdin: stdio(chance),
        stdout: stdio(chance),
        stderr: stdio(chance),
        pass_fds: Vec::new(),
        user: match chance.below(5) {
            0 => None,
            1 => Some(User::Ids(chance.small(), None)),
            2 => Some(User::Name(chance.text())),
            _ => Some(User::Ids(chance.pick(&[0, 1000, u32::MAX]), Some(chance.small()))),
        },
        groups: chance
            .maybe(|chance| chance.some(|chance| chance.pick(&["5", "05", "wheel", "4294967295", "-1"]).to_owned())),
        umask: chance.maybe(Chance::small),
        rlimits: numbers.iter().map(|number| rlimit(number, chance)).collect(),
        oom_score_adj: chance.maybe(|chance| chance.number() as i32),
        nice: chance.maybe(|chance| chance.number() as i32),
        scheduler: chance.maybe(scheduler),
        session: Session {
            setsid: chance.flag(),
            pgid: chance.maybe(|chance| chance.number() as i32),
            setctty: chance.flag(),
            noctty: chance.flag(),
            ctty: chance.number() as i32,
            foreground: chance.flag(),
        },
        personality: chance.maybe(|chance| chance.pick(&[0, 8, 0x0040_0000, u32::MAX])),
        pdeathsig: chance.maybe(|chance| chance.number() as i32),
        ptrace: chance.flag(),
        cgroup: None,
        cgroup_parent: resources.as_ref().and_then(|_| chance.maybe(Chance::path)),
        resources,
        capabilities: (caps == 0).then(|| chance.caps()),
        ambient: if chance.flag() { chance.caps() } else { CapSet::EMPTY },
        cap_sets: (caps == 1).then(|| CapSets {
            permitted: chance.caps(),
            effective: chance.caps(),
            inheritable: chance.caps(),
            bounding: chance.caps(),
            ambient: chance.caps(),
        }),
        keep_caps: chance.flag(),
        privileged: chance.flag(),
        no_new_privileges: chance.flag(),
        seccomp: chance.pick(&[Seccomp::Default, Seccomp::None, Seccomp::Learn, Seccomp::Profile(profile())]),
        violations: chance.flag(),
        landlock: chance.pick(&landlocks()),
        apparmor: chance.maybe(|chance| format!("p{}", chance.text())),
        selinux: chance.maybe(|chance| format!("u{}", chance.text())),
        mount_label: chance.maybe(|chance| format!("m{}", chance.text())),
        keyring: chance.flag(),
        sysctl: chance.some(|chance| (chance.text(), chance.text())).into_iter().collect(),
        init: chance.flag(),
        die_with_owner: chance.flag(),
        forward_signals: chance.flag(),
        timeout: chance.maybe(wide),
        require: chance.some(Chance::text),
        terminal: None,
        console_size: chance.maybe(|chance| (chance.number() as u16, chance.number() as u16)),
        hooks: hooks(chance),
        annotations: chance.some(|chance| (chance.text(), chance.text())).into_iter().collect(),
    }
}

fn landlocks() -> [LandlockPolicy; 4] {
    let some =
        Landlock::parse("ro=/a\\,b,make_dir+read=/c,connect=1,bind=any,handle=fs+net,scope=none,best_effort").unwrap();
    let odd = Landlock::new().read(OsString::from_vec(vec![b'/', 255, b',', b'\\']));
    let rules = [some, odd].map(LandlockPolicy::Rules);
    let [some, odd] = rules;
    [LandlockPolicy::Default, LandlockPolicy::None, some, odd]
}

/// Field by field; a new field of [`Spec`] does not build without its line.
macro_rules! same {
    ($one:expr, $two:expr; $($field:ident)*; shown $($shown:ident)*) => {{
        let Spec { $($field: _,)* $($shown: _,)* } = $one;
        let mut differing: Vec<String> = Vec::new();
        $(if $one.$field != $two.$field {
            differing.push(format!("{}: {:?} became {:?}", stringify!($field), $one.$field, $two.$field));
        })*
        $(if format!("{:?}", $one.$shown) != format!("{:?}", $two.$shown) {
            differing.push(format!("{}: {:?} became {:?}", stringify!($shown), $one.$shown, $two.$shown));
        })*
        differing
    }};
}

fn differences(one: &Spec, two: &Spec) -> Vec<String> {
    same!(one, two;
        argv argv0 env clear_env inherit_env keep_env cwd rootfs entrypoint of_image make_dirs sealed overlay read_only tmpfs_size
        mounts devices system_mounts mount_proc binfmt chroot directories propagation pins time_offsets hostname domainname
        id_maps setgroups owner pass_fds user groups umask rlimits oom_score_adj nice scheduler session personality pdeathsig ptrace
        resources cgroup_parent capabilities ambient cap_sets keep_caps privileged no_new_privileges seccomp violations landlock apparmor selinux mount_label keyring sysctl init
        die_with_owner forward_signals timeout require terminal console_size hooks annotations;
        shown origin console namespaces stdin stdout stderr cgroup)
}

fn again(spec: &Spec) -> Spec {
    let text = spec.to_oci().unwrap();
    Spec::from_oci(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn anything_that_can_be_asked_for_comes_back_as_it_was() {
    let mut chance = Chance(0x5eed);
    for round in 0..400 {
        let spec = any(&mut chance);
        let back = again(&spec);
        assert_eq!(differences(&spec, &back), Vec::<String>::new(), "round {round}: {}", spec.to_oci().unwrap());
        assert_eq!(back.to_oci().unwrap(), spec.to_oci().unwrap());
    }
}

#[test]
fn the_usual_ones_come_back() {
    for spec in [Spec::new(["true"]), Spec::low_level(["true"]), Spec::default(), Spec::of_oci()] {
        let spec = Spec { rootfs: Rootfs::Path("/r".into()), ..spec };
        assert_eq!(differences(&spec, &again(&spec)), Vec::<String>::new());
        let other = Spec { nice: Some(3), stdin: Stdio::Pipe, ..spec.clone() };
        assert_eq!(differences(&spec, &other).len(), 2);
    }
}

#[test]
fn what_cannot_be_written_down_is_an_error_by_its_name() {
    use std::sync::Arc;
    let fd = || Arc::new(std::fs::File::open("/dev/null").unwrap().into());
    let good = || Spec::new(["true"]);
    let cases: Vec<(&str, Spec)> = vec![
        ("stdin", Spec { stdin: Stdio::Fd(fd()), ..good() }),
        ("stdout", Spec { stdout: Stdio::Fd(fd()), ..good() }),
        ("stderr", Spec { stderr: Stdio::Fd(fd()), ..good() }),
        ("pass_fds", Spec { pass_fds: vec![5], ..good() }),
        ("console", Spec { console: Some(Console::Fd(fd())), ..good() }),
        ("cgroup_fd", Spec { cgroup: Some(fd()), ..good() }),
        ("namespaces", Spec { namespaces: [(Kind::Net, Source::Fd(fd()))].into(), ..good() }),
        ("namespaces", Spec { namespaces: [(Kind::Net, Source::Path("".into()))].into(), ..good() }),
        ("env", Spec { env: vec![("A=B".into(), "c".into())], ..good() }),
        ("env", Spec { env: vec![("".into(), "c".into())], ..good() }),
        ("rlimits", Spec { rlimits: vec![Rlimit { resource: 99, soft: None, hard: None }], ..good() }),
        ("rlimits", Spec { rlimits: vec![Rlimit { resource: 7, soft: None, hard: None }; 2], ..good() }),
        ("capabilities", Spec { capabilities: Some(CapSet(1 << 63)), ..good() }),
        ("scheduler", Spec { scheduler: Some(Scheduler { policy: 99, ..Scheduler::default() }), ..good() }),
        ("uid_map", Spec { id_maps: IdMaps::Explicit { uid: vec![], gid: vec![] }, ..good() }),
        ("cgroup_parent", Spec { cgroup_parent: Some("/x".into()), ..good() }),
        ("annotations", Spec { annotations: [("org.zind.x".to_owned(), String::new())].into(), ..good() }),
        ("config", Spec { argv: vec!["x".repeat(17 << 20).into()], ..good() }),
    ];
    for (field, spec) in cases {
        assert_eq!(spec.to_oci().unwrap_err().field(), Some(field));
    }
    let short = Hook { timeout: Some(Duration::from_millis(5)), ..Hook::new("/x", [] as [&str; 0]) };
    let hooks = Hooks { poststop: vec![short], ..Hooks::default() };
    assert_eq!(Spec { hooks, ..good() }.to_oci().unwrap_err().field(), Some("hooks"));
}

/// The least a document may say.
fn least() -> Value {
    json!({"ociVersion": "1.0.2", "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/"}, "root": {"path": "rootfs"}})
}

fn of(document: &Value) -> Spec {
    Spec::from_oci(&document.to_string()).unwrap()
}

/// The field and the whole message of what is wrong with a document.
fn refused(document: &Value) -> (&'static str, String) {
    let error = Spec::from_oci(&document.to_string()).expect_err(&format!("{document}"));
    (error.field().unwrap_or("none"), error.to_string())
}

/// The least document with something more at a JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = least();
    let mut at = &mut document;
    for part in pointer.split('/').skip(1) {
        at = &mut at[part];
    }
    *at = value;
    document
}

#[test]
fn the_least_document_means_what_it_says_and_no_more() {
    let spec = of(&least());
    assert_eq!(spec.rootfs, Rootfs::Path("rootfs".into()));
    assert_eq!((spec.overlay.clone(), spec.read_only, spec.clear_env, spec.init), (Overlay::None, false, true, false));
    assert!(spec.namespaces.is_empty() && spec.capabilities.is_none() && spec.resources.is_none());
    assert_eq!((&spec.seccomp, spec.no_new_privileges, spec.umask), (&Seccomp::None, false, Some(0o022)));
    assert!(spec.system_mounts);
    assert_eq!(differences(&spec, &again(&spec)), Vec::<String>::new());
}

#[test]
fn wrong_types_are_refused_with_their_path() {
    for (pointer, value, field, place) in [
        ("/ociVersion", json!(1), "ociVersion", "1 is no text"),
        ("/ociVersion", json!("0.5.0-dev"), "ociVersion", "no version"),
        ("/ociVersion", json!("2.0.0"), "ociVersion", "no version"),
        ("/ociVersion", json!("1.x.0"), "ociVersion", "no version"),
        ("/process", json!([]), "process", "a list is no object"),
        ("/process/user", json!("root"), "process.user", "is no object"),
        ("/process/user/uid", json!(-1), "process.user", "uid: -1"),
        ("/process/user/uid", json!(1u64 << 32), "process.user", "uid: 4294967296"),
        ("/process/user/additionalGids", json!([1, "x"]), "process.user", "additionalGids[1]"),
        ("/process/args", json!({"0": "sh"}), "process.args", "an object is no list"),
        ("/process/args", json!(["sh", 5]), "process.args", "[1]: 5 is no text"),
        ("/process/env", json!(["A=1", "B"]), "process.env", "[1]: is not NAME=value"),
        ("/process/env", json!(["=x"]), "process.env", "[0]"),
        ("/process/cwd", json!(null), "process.cwd", "is missing"),
        ("/process/terminal", json!("yes"), "process", "terminal: \"yes\""),
        ("/process/consoleSize", json!({"height": 70000, "width": 1}), "process.consoleSize", "height: 70000"),
        ("/process/capabilities", json!(["CAP_KILL"]), "process.capabilities", "a list is no object"),
        ("/process/capabilities", json!({"bounding": ["CAP_MAGIC"]}), "process.capabilities", "bounding[0]"),
        ("/process/rlimits", json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]), "process.rlimits", "[0].type"),
        ("/process/rlimits", json!([{"type": "RLIMIT_CPU", "soft": 1.5, "hard": 1}]), "process.rlimits", "[0].soft"),
        ("/process/oomScoreAdj", json!(1u64 << 40), "process.oomScoreAdj", "is no whole number"),
        ("/process/scheduler", json!({"policy": "SCHED_X"}), "process.scheduler", "policy: is no policy"),
        ("/root", json!(null), "root", "is missing"),
        ("/root/path", json!(""), "root", "path: is empty"),
        ("/root/readonly", json!(1), "root", "readonly: 1"),
        ("/hostname", json!([]), "hostname", "no text"),
        ("/mounts", json!([{"type": "proc"}]), "mounts", "[0].destination: is missing"),
        ("/mounts", json!([{"destination": "/x", "type": "tmpfs", "options": "ro"}]), "mounts", "[0].options"),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "tmpfs", "options": ["ro", "rw"]}]),
            "mounts",
            "[0]: option rw",
        ),
        ("/mounts", json!([{"destination": "/x", "type": "bind"}]), "mounts", "needs a source"),
        ("/mounts", json!([{"destination": "/x"}]), "mounts", "[0].type: is missing"),
        ("/hooks/poststop", json!([{"path": "x"}]), "hooks", "poststop[0]: the path is not absolute"),
        ("/hooks/poststop", json!([{"path": "/x", "timeout": 0}]), "hooks", "poststop[0]: the timeout"),
        ("/annotations", json!({"a": 1}), "annotations", "a: 1 is no text"),
        ("/linux/namespaces", json!([{"type": "magic"}]), "linux.namespaces", "[0].type"),
        ("/linux/namespaces", json!([{"type": "pid"}, {"type": "pid"}]), "linux.namespaces", "[1]: is of a kind"),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 1}]),
            "linux.uidMappings",
            "other mappings",
        ),
        ("/linux/timeOffsets", json!({"boottime": {"secs": i64::MAX}}), "linux.timeOffsets", "boottime: is more"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "z"}]), "linux.devices", "[0].type"),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": 1}]),
            "linux.devices",
            "[0].minor: is missing",
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o4666}]),
            "linux.devices",
            "[0].fileMode",
        ),
        ("/linux/resources", json!({"memory": {"limit": "64m"}}), "linux.resources", "memory.limit"),
        ("/linux/cgroupsPath", json!("machine.slice:libpod:abc"), "linux.cgroupsPath", "for systemd"),
        ("/linux/personality", json!({"domain": "BSD"}), "linux.personality", "domain"),
    ] {
        let (refused_field, message) = refused(&with(pointer, value));
        assert_eq!(refused_field, field, "{message}");
        assert!(message.contains(place), "{message} lacks {place:?}");
    }
}

#[test]
fn what_zind_cannot_do_is_refused_by_its_name() {
    for (pointer, value, field) in [
        ("/process/apparmorProfile", json!(5), "process.apparmorProfile"),
        ("/process/selinuxLabel", json!(["x"]), "process.selinuxLabel"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 1}), "process.ioPriority"),
        ("/process/execCPUAffinity", json!({"initial": "0"}), "process.execCPUAffinity"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_DENY"}), "linux.seccomp"),
        ("/linux/seccomp", json!({"syscalls": []}), "linux.seccomp"),
        ("/linux/seccomp", json!("default"), "linux.seccomp"),
        ("/linux/mountLabel", json!(["x"]), "linux.mountLabel"),
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"}), "linux.memoryPolicy"),
        ("/linux/netDevices", json!({"eth0": {}}), "linux.netDevices"),
        ("/linux/rootfsPropagation", json!("shared"), "linux.rootfsPropagation"),
        ("/linux/maskedPaths", json!(["/proc/kcore", "/opt/secret"]), "linux.maskedPaths"),
        ("/linux/readonlyPaths", json!(["/etc"]), "linux.readonlyPaths"),
        ("/windows", json!({"layerFolders": ["x"]}), "windows"),
        ("/vm", json!({"kernel": {"path": "/x"}}), "vm"),
        ("/mounts", json!([{"destination": "/dev", "type": "tmpfs", "options": ["huge=always"]}]), "mounts"),
    ] {
        assert_eq!(refused(&with(pointer, value)).0, field);
    }
    // What says nothing is no wish.
    for (pointer, value) in [
        ("/process/apparmorProfile", json!("")),
        ("/linux/sysctl", json!({})),
        ("/linux/seccomp", json!(null)),
        ("/linux/maskedPaths", json!([])),
        ("/linux/rootfsPropagation", json!("rprivate")),
        ("/linux/cgroupsPath", json!("")),
    ] {
        let _ = of(&with(pointer, value));
    }
}

/// A filter as OCI has it, with all that there is.
fn profile() -> Arc<crate::Profile> {
    let value = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/run/agent", "listenerMetadata": "meta",
        "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 2114060288u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}],
    });
    crate::Profile::from_json(&value.to_string()).unwrap()
}

#[test]
fn a_filter_has_one_place() {
    let mut document = with("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    assert!(matches!(of(&document).seccomp, Seccomp::Profile(_)));
    document["annotations"] = json!({"org.zind.version": "1", "org.zind.seccomp": "\"default\""});
    assert_eq!(refused(&document).0, "annotations");
    let document = with(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["opne"], "action": "SCMP_ACT_LOG"}]}),
    );
    let (field, rule) = refused(&document);
    assert_eq!((field, rule.contains("syscalls[0].names[0]: \"opne\"")), ("linux.seccomp", true), "{rule}");
}

#[test]
fn properties_of_a_newer_version_are_ignored() {
    let mut document = with("/process/futureField", json!({"a": [1, 2]}));
    document["ociVersion"] = json!("1.99.0-rc.1+build");
    document["somethingNew"] = json!([{"x": 1}]);
    document["linux"]["quantum"] = json!(true);
    document["mounts"] = json!([{"destination": "/x", "type": "tmpfs", "novelty": 1}]);
    let spec = of(&document);
    assert_eq!(
        differences(&spec, &of(&with("/mounts", json!([{"destination": "/x", "type": "tmpfs"}])))),
        Vec::<String>::new()
    );
}

#[test]
fn annotations_of_zinds_own_are_understood_or_refused() {
    let note = |name: &str, text: &str| {
        let mut document = least();
        document["annotations"] = json!({"org.zind.version": "1", name: text, "com.example": "kept"});
        document
    };
    let spec = of(&note("org.zind.seccomp", "\"default\""));
    assert_eq!((spec.seccomp, spec.annotations["com.example"].as_str()), (Seccomp::Default, "kept"));
    assert_eq!(spec.annotations.len(), 1);
    for (name, text) in [
        ("org.zind.magic", "true"),
        ("org.zind.init", "maybe"),
        ("org.zind.init", "1"),
        ("org.zind.init", ""),
        ("org.zind.seccomp", "\"strict\""),
        ("org.zind.session", "{\"setsid\": true, \"novelty\": 1}"),
        ("org.zind.timeout", "[1, 1000000000]"),
        ("org.zind.version", "2"),
        ("org.zind.bytes", "{\"process.args[7]\": \"/w==\"}"),
        ("org.zind.bytes", "{\"process.cwd\": \"YQ==\"}"),
        ("org.zind.mounts", "{\"0\": {}}"),
        ("org.zind.devices", "{\"x\": {}}"),
        ("org.zind.resources", "{}"),
        ("org.zind.capabilities", "\"one-set\""),
        ("org.zind.system_mounts", "true"),
        ("org.zind.rootfs", "\"host\""),
        ("org.zind.user", "\"ann\""),
        ("org.zind.cwd", "\"/x\""),
        ("org.zind.namespaces", "{\"pid\": 5}"),
        (
            "org.zind.rootfs",
            "{\"image\": {\"store\": \"/nowhere\", \"mediaType\": \"x\", \"digest\": \"sha256:0\", \"size\": 1}}",
        ),
    ] {
        let (field, message) = refused(&note(name, text));
        assert!(["annotations", "root", "process.user", "process.cwd", "mounts"].contains(&field), "{name}: {message}");
    }
    let mut document = note("org.zind.init", "true");
    document["annotations"].as_object_mut().unwrap().remove("org.zind.version");
    assert!(refused(&document).1.contains("org.zind.version: is missing"));
}

#[test]
fn a_document_that_was_edited_is_not_misread() {
    let mut spec = Spec::new(["sh"]);
    spec.user = Some(User::Name("ann".into()));
    spec.mounts = vec![Mount::file("/etc/x", "content", 0o600)];
    spec.devices = vec![Device::new("/dev/fuse")];
    spec.resources = Some(Resources::new().cpus(0.5).memory(1 << 20));
    spec.capabilities = Some(CapSet::KILL);
    let text = spec.to_oci().unwrap();
    let edit = |pointer: &str, value: Value| {
        let mut document: Value = serde_json::from_str(&text).unwrap();
        *document.pointer_mut(pointer).unwrap() = value;
        Spec::from_oci(&document.to_string())
    };
    // What OCI says by itself can be changed.
    let changed = edit("/process/args", json!(["bash", "-l"])).unwrap();
    assert_eq!((changed.argv.len(), changed.user.clone()), (2, spec.user.clone()));
    // The three that a start adds are written for others, and not taken for the caller's unless somebody changed them.
    let path = Spec { rootfs: Rootfs::Path("/r".into()), ..Spec::new(["sh"]) };
    let mut document: Value = serde_json::from_str(&path.to_oci().unwrap()).unwrap();
    assert_eq!(document["process"]["env"].as_array().unwrap().len(), 3);
    document["process"]["env"][1] = json!("HOME=/srv");
    assert_eq!(of(&document).env, [("HOME".into(), "/srv".into())]);
    for (pointer, value) in [
        ("/process/user/uid", json!(0)),
        ("/root/path", json!("/srv/root")),
        ("/mounts/1/type", json!("devtmpfs")),
        ("/mounts/6/destination", json!("/etc/y")),
        ("/linux/devices/0/path", json!("/dev/kvm")),
        ("/linux/resources/cpu/quota", json!(1)),
        ("/process/capabilities/effective", json!([])),
    ] {
        assert!(edit(pointer, value.clone()).is_err(), "{pointer} {value}");
    }
}

#[test]
fn hostile_documents_are_refused_soon() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut nested = least();
    nested["annotations"] = json!({"org.zind.version": "1", "org.zind.mounts": deep});
    for text in [
        String::new(),
        "{".repeat(1_000_000),
        deep.clone(),
        format!("{{\"ociVersion\": {deep}}}"),
        nested.to_string(),
        " ".repeat((16 << 20) + 1),
        "[]".to_owned(),
        "\u{feff}{}".to_owned(),
        r#"{"ociVersion":"1.0.0","ociVersion":"1.0.1"}"#.to_owned(),
        r#"{"ociVersion":"1.0.0","process":{"cwd":"/","cwd":"/x"}}"#.to_owned(),
        r#"{"ociVersion":"1.0.0"} x"#.to_owned(),
    ] {
        let error = Spec::from_oci(&text).unwrap_err();
        assert!(matches!(error, Error::Spec { .. }), "{error}");
        assert!(error.to_string().len() < 500, "{}", error.to_string().len());
    }
    let place = std::env::temp_dir().join(format!("zind-oci-{}", std::process::id()));
    std::fs::create_dir(&place).unwrap();
    let file = place.join("config.json");
    std::fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
    assert_eq!(Spec::from_bundle(&place).unwrap_err().field(), Some("config"));
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert_eq!(Spec::from_oci_file(&file).unwrap_err().field(), Some("config"));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(Spec::from_bundle(&place).unwrap_err().errno(), Some(nix::errno::Errno::ENOENT));
    std::fs::write(
        &file,
        with("/mounts", json!([{"destination": "/x", "type": "bind", "source": "data"}])).to_string(),
    )
    .unwrap();
    let spec = Spec::from_bundle(&place).unwrap();
    assert_eq!(spec.rootfs, Rootfs::Path(place.join("rootfs")));
    assert_eq!(spec.mounts[0].source(), Some(place.join("data").as_path()));
    std::fs::remove_dir_all(&place).unwrap();
}

/// Cuts, swaps and flips of good documents: whatever becomes of them is read or refused, and what is read is written again.
#[test]
fn broken_documents_are_read_or_refused() {
    let mut chance = Chance(0xbad);
    for _ in 0..100 {
        let mut bytes = any(&mut chance).to_oci().unwrap().into_bytes();
        for _ in 0..1 + chance.below(3) {
            let (at, to) = (chance.below(bytes.len()), chance.below(bytes.len()));
            match chance.below(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.swap(at, to),
                2 => bytes[at] = chance.pick(b"0123456789\"{}[]:,-tfn "),
                _ => drop(bytes.splice(at.min(to)..at.max(to), []).collect::<Vec<u8>>()),
            }
            if bytes.is_empty() {
                break;
            }
        }
        if let Ok(spec) = Spec::from_oci(&String::from_utf8_lossy(&bytes)) {
            let _ = spec.to_oci();
        }
    }
}

fn document(name: &str) -> Value {
    let text = match name {
        "runc" => include_str!("../../../tests/oci/runc.json"),
        "runc-rootless" => include_str!("../../../tests/oci/runc-rootless.json"),
        "crun" => include_str!("../../../tests/oci/crun.json"),
        "podman" => include_str!("../../../tests/oci/podman.json"),
        _ => include_str!("../../../tests/oci/full.json"),
    };
    serde_json::from_str(text).unwrap()
}

/// `runc spec` and `crun spec`: the standard mounts are zind's own, what is left is the control groups.
#[test]
fn documents_of_other_runtimes_are_understood() {
    for name in ["runc", "crun"] {
        let spec = of(&document(name));
        assert_eq!(
            (spec.argv.len(), spec.terminal.is_some(), spec.read_only, spec.init),
            (1, true, true, false),
            "{name}"
        );
        assert!(spec.system_mounts && spec.no_new_privileges && spec.hostname.as_deref() == Some(name));
        let kinds: Vec<_> = spec.mounts.iter().map(|mount| (mount.kind(), mount.target().to_owned())).collect();
        assert_eq!(kinds, [("cgroup", "/sys/fs/cgroup".into())], "{name}");
        let three = CapSet::AUDIT_WRITE | CapSet::KILL | CapSet::NET_BIND_SERVICE;
        let sets = spec.cap_sets.unwrap();
        assert_eq!((sets.bounding, sets.effective, sets.permitted), (three, three, three));
        assert_eq!((sets.inheritable, sets.ambient), (CapSet::EMPTY, CapSet::EMPTY));
        assert_eq!(spec.resources.as_ref().unwrap().devices.len(), 1);
        assert_eq!(spec.namespaces.len(), 6);
        assert_eq!(spec.rlimits, [Rlimit { resource: 7, soft: Some(1024), hard: Some(1024) }]);
        assert_eq!(differences(&spec, &again(&spec)), Vec::<String>::new());
    }
    let spec = of(&document("runc-rootless"));
    assert_eq!(spec.mounts.iter().map(Mount::kind).collect::<Vec<_>>(), ["bind"]);
    assert!(matches!(&spec.id_maps, IdMaps::Explicit { uid, .. } if uid[0].host == 1000));
    assert_eq!((spec.resources, spec.namespaces.contains_key(&Kind::Net)), (None, false));
}

#[test]
fn a_document_of_podman_is_understood_but_for_what_zind_lacks() {
    let mut document = document("podman");
    assert_eq!(refused(&document).0, "linux.maskedPaths");
    document["linux"].as_object_mut().unwrap().remove("maskedPaths");
    let spec = of(&document);
    assert!(matches!(spec.seccomp, Seccomp::Profile(_)));
    assert_eq!(spec.mounts.len(), 6);
    assert_eq!(spec.devices, [Device::node('c', "/dev/fuse", 10, 229).unwrap().mode(0o666).owner(Some(0), Some(0))]);
    assert_eq!(spec.cgroup_parent.as_deref(), Some("/libpod_parent/libpod-0f3a".as_ref()));
    assert_eq!(spec.groups, Some(vec!["0".to_owned(), "10".to_owned()]));
    assert!(matches!(&spec.namespaces[&Kind::Net], Source::Path(path) if path.ends_with("netns-5d1e")));
    assert_eq!(spec.hooks.poststop[0].timeout, Some(Duration::from_secs(60)));
    assert_eq!(spec.annotations.len(), 3);
    assert_eq!(differences(&spec, &again(&spec)), Vec::<String>::new());
}

/// Every field that both know, in the words of the specification.
#[test]
fn everything_that_both_know_comes_and_goes() {
    let mut document = document("full");
    let spec = of(&document);
    assert_eq!(spec.console_size, Some((25, 80)));
    assert_eq!((spec.user.clone(), spec.umask), (Some(User::Ids(1, Some(1))), Some(63)));
    assert_eq!(spec.env[1], ("A".into(), "".into()));
    assert_eq!(spec.cap_sets.unwrap().ambient, CapSet::NET_BIND_SERVICE);
    assert_eq!(spec.rlimits[1], Rlimit { resource: 7, soft: Some(1024), hard: None });
    assert_eq!(spec.scheduler, Some(Scheduler { policy: 3, flags: 1, ..Scheduler::default() }));
    assert_eq!((spec.nice, spec.oom_score_adj, spec.personality), (Some(5), Some(100), Some(8)));
    assert_eq!(spec.domainname.as_deref(), Some("foobarbaz.test"));
    let offsets = TimeOffsets { monotonic_ns: 172_800_000_000_005, boottime_ns: -604_800_000_000_000 };
    assert_eq!(spec.time_offsets, Some(offsets));
    assert_eq!(spec.hooks.lists().map(|(_, list)| list.len()), [1; 6]);
    assert_eq!(spec.mounts.len(), 3);
    assert!(spec.mounts[1].idmap.is_some());
    assert_eq!(differences(&spec, &again(&spec)), Vec::<String>::new());
    // And as the document was, but for the order of words and what says nothing.
    let back: Value = serde_json::from_str(&spec.to_oci().unwrap()).unwrap();
    for name in ["apparmorProfile", "selinuxLabel"] {
        document["process"].as_object_mut().unwrap().remove(name);
    }
    for pointer in [
        "/process",
        "/root",
        "/hostname",
        "/domainname",
        "/hooks",
        "/linux/devices",
        "/linux/resources",
        "/linux/uidMappings",
        "/linux/cgroupsPath",
        "/linux/personality",
    ] {
        assert_eq!(back.pointer(pointer), document.pointer(pointer), "{pointer}");
    }
    assert_eq!(back["annotations"]["com.example.key1"], "value1");
}

#[test]
fn a_root_that_is_no_directory_is_nothing_to_another_runtime() {
    let spec = Spec { rootfs: Rootfs::Host, user: Some(User::Name("ann".into())), ..Spec::new(["sh"]) };
    let document: Value = serde_json::from_str(&spec.to_oci().unwrap()).unwrap();
    assert_eq!(document["root"]["path"], "zind:host");
    assert_eq!((&document["process"]["user"]["uid"], &document["ociVersion"]), (&json!(65534), &json!("1.0.2")));
    assert_eq!(document["mounts"][1]["destination"], "/dev");
    assert_eq!(document["linux"]["maskedPaths"].as_array().unwrap().len(), 19);
}
