//! What those in a container can take hold of in a process that joins it, at each of its system calls: CVE-2016-9962.
//!
//! Who joins is stopped before each of its calls, and a process of the container looks at it meanwhile, so that no window is too
//! short to be seen.
#![cfg(target_arch = "x86_64")]
#![allow(missing_docs)]

#[path = "support/tracer.rs"]
mod tracer;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command as Host;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::stat::Mode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracer::Stand;
use zind_core::{
    CapSet, Command, Container, Containers, Exec, Hook, Hooks, Kind, Mount, Restart, Source, Spec, Stdio, User,
};

const NAME: &str = "it";
/// How long a program sleeps that must not be there.
const STAYS: &str = "1234.5";

/// For each number that it is told, what this process can see and open of that one.
const LOOK: &str = r#"
exec 3<"$1/ask" 4>"$1/answer"
while read -r pid <&3; do
    ls -l "/proc/$pid" "/proc/$pid/fd" >&4 2>/dev/null
    for file in auxv environ maps mem pagemap; do
        { true <"/proc/$pid/$file"; } 2>/dev/null && echo "file $file" >&4
    done
    echo end >&4
done
"#;

/// One who looks, by what it has.
#[derive(Clone, Copy)]
struct Looker {
    name: &'static str,
    capabilities: CapSet,
    user: Option<u32>,
    has_user_namespace: bool,
}

fn lookers() -> Vec<Looker> {
    let root = Looker { name: "root", capabilities: CapSet::EMPTY, user: None, has_user_namespace: false };
    let in_namespace = Looker {
        name: "all rights of a user namespace",
        capabilities: CapSet::all(),
        has_user_namespace: true,
        ..root
    };
    if !nix::unistd::geteuid().is_root() {
        return vec![in_namespace];
    }
    let user = Looker { name: "a user", user: Some(1000), ..root };
    let tracing = Looker { name: "root that may trace", capabilities: tracer_rights(), ..root };
    vec![root, user, tracing, in_namespace]
}

fn tracer_rights() -> CapSet {
    CapSet::SYS_PTRACE
}

/// A container of whose processes one looks.
struct Inside {
    dir: PathBuf,
    ask: File,
    answer: File,
    container: Container,
    changes_ids: bool,
}

impl Inside {
    fn new(looker: Looker) -> Inside {
        tracer::adopt_orphans();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zind-test-joining-{}-{number}", std::process::id()));
        let eyes = dir.join("eyes");
        fs::create_dir_all(&eyes).unwrap();
        fs::set_permissions(&eyes, Permissions::from_mode(0o777)).unwrap();
        let [ask, answer] = ["ask", "answer"].map(|name| {
            let path = eyes.join(name);
            nix::unistd::mkfifo(&path, Mode::empty()).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
            // Both ways: nobody waits for the other end.
            OpenOptions::new().read(true).write(true).open(path).unwrap()
        });
        let mut spec = Spec::new(["sh", "-c", LOOK, "look"]);
        spec.argv.push(eyes.clone().into());
        spec.mounts = vec![Mount::bind(&eyes, &eyes)];
        spec.capabilities = Some(looker.capabilities);
        spec.user = looker.user.map(|id| User::Ids(id, Some(id)));
        if looker.has_user_namespace {
            spec.namespaces.insert(Kind::User, Source::New);
        }
        let place = Containers::open(Some(&dir.join("place"))).unwrap();
        let container = Container::builder(spec).containers(&place).name(NAME).create().unwrap();
        container.start().unwrap();
        Inside { dir, ask, answer, container, changes_ids: looker.user.is_some() }
    }

    /// What the one inside sees of this process of the container.
    fn look_at(&mut self, number: i32) -> BTreeSet<String> {
        writeln!(self.ask, "{number}").unwrap();
        let mut said = String::new();
        while !said.ends_with("end\n") {
            let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
            let is_there = poll(&mut [PollFd::new(&self.answer, PollFlags::IN)], Some(&patience)).unwrap() == 1;
            assert!(is_there, "who looks does not answer: {said}");
            let mut bytes = [0; 4096];
            let len = self.answer.read(&mut bytes).unwrap();
            said.push_str(&String::from_utf8_lossy(&bytes[..len]));
        }
        // Of what ls(1) lists, the links that can be read.
        let link = |line: &str| {
            let (head, target) = line.split_once(" -> ")?;
            Some(format!("{} {target}", head.rsplit(' ').next()?))
        };
        said.lines()
            .filter_map(|line| line.starts_with("file ").then(|| line.to_owned()).or_else(|| link(line)))
            .collect()
    }

    /// Looks at all who do `work`, a role of [`worker`], from their first moment in the container. What was seen, where.
    fn watch(mut self, work: &str) -> Vec<Sight> {
        let home = fs::read_link(format!("/proc/{}/ns/pid", self.container.pid().unwrap().unwrap())).unwrap();
        let mut command = Host::new(std::env::current_exe().unwrap());
        command.args(["worker", "--exact", "--nocapture"]);
        command.env("ZIND_TEST_WORKER", work).env("ZIND_TEST_DIR", self.dir.join("place"));
        let mut sights = Vec::new();
        let outcome = tracer::look(&mut command, &mut |pid, stand| {
            if fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|its| its == home) {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
                let of = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim();
                let number = of("NSpid:").rsplit('\t').next().unwrap().parse().unwrap();
                let rights = u64::from_str_radix(of("CapPrm:"), 16).unwrap();
                sights.push(Sight { stand, rights, seen: self.look_at(number) });
            }
        });
        assert!(!outcome.hangs && outcome.said.contains("<done>"), "{}", outcome.said);
        self.container.delete(true).unwrap();
        fs::remove_dir_all(&self.dir).unwrap();
        let executed = sights.iter().filter(|sight| sight.stand == Stand::Executed).count();
        assert_eq!((executed, sights.len() > 4), (1, true), "{sights:#?}");
        // A change of ids can make who changes them dumpable (`fs.suid_dumpable`), so it has to be said again.
        let mut has_changed = false;
        for calls in outcome.calls.values() {
            let Some(last) = calls.iter().rposition(|call| call.kind == libc::SYS_setresuid) else { continue };
            assert_eq!(calls.get(last + 1).map(|call| call.kind), Some(libc::SYS_prctl), "{calls:?}");
            has_changed = true;
        }
        assert!(has_changed || !self.changes_ids);
        sights
    }
}

/// What was seen of a process at a moment.
#[derive(Debug)]
struct Sight {
    stand: Stand,
    /// Its permitted capabilities.
    rights: u64,
    seen: BTreeSet<String>,
}

/// What a process of its own does for a test. A test that is none, without the variable.
#[test]
fn worker() {
    let Ok(work) = std::env::var("ZIND_TEST_WORKER") else { return };
    let dir = std::env::var_os("ZIND_TEST_DIR").unwrap();
    let place = Containers::open(Some(Path::new(&dir))).unwrap();
    if HOOKS.contains(&&*work) {
        let container = with_a_hook(&work, &place, Path::new(&dir).parent().unwrap());
        tracer::pause();
        if container.start().is_ok() {
            // Not of a monitor that was killed.
            let _ = container.wait(None);
        }
        tracer::pause();
        let _ = container.delete(true);
        println!("<done>");
        std::process::exit(0);
    }
    let container = place.find(NAME).unwrap();
    let pid = container.pid().unwrap().unwrap();
    tracer::pause();
    match &*work {
        "given up" => {
            let mut exec = Exec::new(["sleep", STAYS]);
            (exec.stdin, exec.stdout, exec.stderr) = (Stdio::Null, Stdio::Null, Stdio::Null);
            assert!(container.exec(&exec).is_err());
        }
        _ if KINDS.contains(&&*work) => {
            if let Ok(process) = of_kind(&work, pid).spawn() {
                process.kill().unwrap();
                process.wait(None).unwrap();
            }
        }
        "exec" => {
            let mut exec = Exec::new(["true"]);
            (exec.stdin, exec.stdout, exec.stderr) = (Stdio::Null, Stdio::Null, Stdio::Null);
            exec.cwd = Some("/usr".into());
            container.exec(&exec).unwrap().wait(None).unwrap();
        }
        _ => {
            let mut command = Command::new("true");
            command.stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null);
            command.namespace(Kind::Pid, Source::Pid(pid));
            if work == "beside, with users" {
                command.namespace(Kind::User, Source::New);
                // Its /proc would be that of a namespace which is not its own.
                command.spec_mut().system_mounts = false;
            }
            command.spec_mut().init = false;
            command.status().unwrap();
        }
    }
    tracer::pause();
    println!("<done>");
    std::process::exit(0);
}

/// That the program itself is seen shows that looking works.
fn assert_program_is_seen(sight: &Sight) {
    assert!(sight.seen.iter().any(|item| item.starts_with("exe /usr/") && item.ends_with("/true")), "{sight:#?}");
    assert!(sight.seen.contains("file mem") && sight.seen.contains("0 /dev/null"), "{sight:#?}");
}

#[test]
fn who_waits_inside_gets_nothing_of_who_joins() {
    for looker in lookers() {
        for sight in Inside::new(looker).watch("exec") {
            let name = looker.name;
            if sight.stand == Stand::Executed {
                assert_program_is_seen(&sight);
            } else if looker.capabilities == tracer_rights() {
                // It sees what there is: nothing that the program does not get.
                assert!(sight.seen.contains("file mem"), "{name}: {sight:#?}");
                for item in &sight.seen {
                    let (what, where_to) = item.split_once(' ').unwrap();
                    let is_fair = match what {
                        "cwd" => where_to == "/usr",
                        "root" => where_to == "/",
                        "exe" => where_to.starts_with("/memfd:zind-init"),
                        "0" | "1" | "2" => where_to == "/dev/null",
                        _ => what == "file",
                    };
                    assert!(is_fair, "{name}: {item} of {sight:#?}");
                }
                assert_eq!(sight.rights & !looker.capabilities.0, 0, "{name}: {sight:#?}");
            } else {
                assert_eq!(sight.seen, BTreeSet::new(), "{name}: {sight:#?}");
            }
        }
    }
}

/// A field of `/proc/<pid>/status`.
fn status_of(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":")).unwrap().trim().to_owned()
}

/// Kills the parent of one that stands still, and waits until that has ended.
fn kill_above(pid: i32) {
    kill_high_above(pid, 1);
}

/// Kills the parent of one that stands still (1), or that one's parent (2), with which it ends, and waits until they have ended.
fn kill_high_above(pid: i32, height: usize) {
    let mut above = vec![pid];
    for _ in 0..height {
        above.push(status_of(above[above.len() - 1], "PPid").parse().unwrap());
    }
    tracer::kill(above[height]);
    let is_there = |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while above[1..].iter().any(|pid| is_there(*pid)) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Whether it stays. It may be dying still, and is ours to reap: until then its container cannot end.
fn is_left(program: i32) -> bool {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let is_there = || {
        tracer::reap(program);
        Path::new(&format!("/proc/{program}")).exists()
    };
    while is_there() && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let is_left = is_there();
    if is_left {
        tracer::kill(program);
        while is_there() {}
    }
    is_left
}

/// Starts in which a launcher forks one that is to end with it.
const KINDS: [&str; 5] = [
    "an init in a joined namespace",
    "without an init",
    "without an init, as a user",
    "low level",
    "low level, with a signal of its own",
];

/// A start of that kind, beside a container with this process.
fn of_kind(kind: &str, pid: i32) -> Command {
    let is_low_level = kind.starts_with("low level");
    let mut command = if is_low_level { Command::low_level("sleep") } else { Command::new("sleep") };
    command.arg(STAYS).stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null);
    match kind {
        "an init in a joined namespace" => _ = command.namespace(Kind::Uts, Source::Pid(pid)),
        _ if is_low_level => _ = command.namespace(Kind::User, Source::New).namespace(Kind::Pid, Source::New),
        _ => command.spec_mut().init = false,
    }
    if kind.ends_with("as a user") {
        command.user(1000, 1000);
    }
    if kind.ends_with("of its own") {
        (command.spec_mut().die_with_owner, command.spec_mut().pdeathsig) = (false, Some(libc::SIGKILL));
    }
    command
}

/// Killed before the process that it has forked has said that it ends with it, and each further time that this has to be said since a
/// change of ids has made the kernel forget it.
#[test]
fn nobody_outlives_a_launcher_that_was_killed_before_it_was_said() {
    tracer::adopt_orphans();
    let dir = std::env::temp_dir().join(format!("zind-test-outlives-{}", std::process::id()));
    let place = Containers::open(Some(&dir.join("place"))).unwrap();
    let container = Container::builder(Spec::new(["sleep", "1000"])).containers(&place).name(NAME).create().unwrap();
    container.start().unwrap();
    let mut left = Vec::new();
    // Others are root's to join, and to be.
    let is_roots = |kind: &str| kind == "an init in a joined namespace" || kind.ends_with("as a user");
    let is_ours = |kind: &&str| nix::unistd::geteuid().is_root() || !is_roots(kind);
    for kind in KINDS.into_iter().filter(is_ours) {
        let mut command = Host::new(std::env::current_exe().unwrap());
        command.args(["worker", "--exact", "--nocapture"]);
        command.env("ZIND_TEST_WORKER", kind).env("ZIND_TEST_DIR", dir.join("place"));
        for number in 0.. {
            let (mut child, mut said, mut is_met) = (None, 0, false);
            let outcome = tracer::look(&mut command, &mut |pid, stand| {
                let is_launcher = |pid: i32| status_of(pid, "Name") == "zind-init";
                if stand == Stand::Born
                    && child.is_none()
                    && is_launcher(pid)
                    && is_launcher(status_of(pid, "PPid").parse().unwrap())
                {
                    child = Some(pid);
                }
                if child != Some(pid) || is_met {
                    return;
                }
                if stand == Stand::Call {
                    let [call, option, signal] = tracer::call_of(pid);
                    let is_said = [call, option] == [libc::SYS_prctl, i64::from(libc::PR_SET_PDEATHSIG)];
                    said += usize::from(is_said && signal == i64::from(libc::SIGKILL));
                }
                // Before anything at all, then before each time that it is said.
                if (number, stand) == (0, Stand::Born) || number == said && stand == Stand::Call {
                    is_met = true;
                    kill_above(pid);
                }
            });
            assert!(!outcome.hangs && outcome.said.contains("<done>"), "{kind}: {}", outcome.said);
            if is_left(child.expect(kind)) {
                left.push(format!("{kind}, {number}"));
            }
            if !is_met {
                // It is said at least once, and once more where it ends with its owner and ids may have been changed.
                let is_once = kind == "an init in a joined namespace" || kind.ends_with("of its own");
                let least = if is_once { 2 } else { 3 };
                assert!(number >= least, "{kind}: {number}");
                break;
            }
        }
    }
    container.delete(true).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// Hooks that a launcher or a monitor runs. Nobody waits for one of `poststart`, which ends with a program that ends at once; the
/// monitor runs it as those of `createRuntime`.
const HOOKS: [&str; 5] = ["createContainer", "startContainer", "startContainer, as a user", AT_A_RESTART, "poststop"];
/// Run by the caller at first, and then by a monitor that starts the container again.
const AT_A_RESTART: &str = "createRuntime";

/// A container that ends by itself, with one hook: if there is a file `stays` it does so, but not before there is a file `begun`.
fn with_a_hook(hook: &str, place: &Containers, dir: &Path) -> Container {
    let here = dir.display();
    let stay = format!("[ -e {here}/stays ] && [ -e {here}/begun ] && exec sleep {STAYS}");
    let mut program = Hook::new("/bin/sh", ["-c", &format!("{stay}; [ -e {here}/begun ] || : > {here}/begun")]);
    program.env = vec!["PATH=/usr/bin:/bin".into()];
    let mut hooks = Hooks::default();
    *match hook {
        "createContainer" => &mut hooks.create_container,
        "createRuntime" => &mut hooks.create_runtime,
        "poststop" => &mut hooks.poststop,
        _ => &mut hooks.start_container,
    } = vec![program];
    let mut spec = Spec::new(["sh", "-c", "exit 1"]);
    spec.mounts = vec![Mount::bind(dir, dir)];
    if hook.contains("Container") {
        // With a pid namespace of its own the kernel would end it.
        spec.init = false;
        spec.namespaces.insert(Kind::Pid, Source::Host);
    }
    spec.user = hook.ends_with("as a user").then_some(User::Ids(1000, Some(1000)));
    let mut builder = Container::builder(spec).containers(place).hooks(hooks).auto_remove(hook == "poststop");
    if hook == AT_A_RESTART {
        builder = builder.restart(Restart::parse("on-failure:1").unwrap());
    }
    builder.create().unwrap()
}

/// This one is about to become such a hook: it and those above it are of zind's, up to who is no more.
fn is_a_hook(hook: &str, pid: i32) -> bool {
    let mut line = [String::new(), String::new(), String::new(), String::new()];
    let mut one = pid;
    for name in &mut line {
        if one > 1 {
            *name = status_of(one, "Name");
            one = status_of(one, "PPid").parse().unwrap();
        }
    }
    let (launcher, monitor) = ("zind-init", "zind-monitor");
    let line = line.each_ref().map(String::as_str);
    match hook {
        "poststop" => line[..2] == [monitor; 2] && line[2] != monitor,
        AT_A_RESTART => line[..3] == [monitor; 3],
        _ => line == [launcher, launcher, launcher, monitor],
    }
}

/// Whoever forks a hook is killed before that one has said that it ends with it, by itself or with who watches over it.
#[test]
fn no_hook_outlives_who_was_killed_as_it_was_made() {
    tracer::adopt_orphans();
    let dir = std::env::temp_dir().join(format!("zind-test-hooks-{}", std::process::id()));
    fs::create_dir_all(dir.join("place")).unwrap();
    let mut left = Vec::new();
    let is_ours = |hook: &&str| nix::unistd::geteuid().is_root() || !hook.ends_with("as a user");
    for hook in HOOKS.into_iter().filter(is_ours) {
        let mut command = Host::new(std::env::current_exe().unwrap());
        command.args(["worker", "--exact", "--nocapture"]);
        command.env("ZIND_TEST_WORKER", hook).env("ZIND_TEST_DIR", dir.join("place"));
        let height = if hook.contains("Container") { 2 } else { 1 };
        // How often it says so; then it is killed before each time, and before anything at all.
        let mut points = None;
        let mut number = 0;
        while points.is_none_or(|points| number <= points) {
            for (name, is_there) in [("begun", hook != AT_A_RESTART), ("stays", points.is_some())] {
                let _ = fs::remove_file(dir.join(name));
                if is_there {
                    fs::write(dir.join(name), "").unwrap();
                }
            }
            let (mut child, mut said, mut is_met) = (None, 0, false);
            let outcome = tracer::look(&mut command, &mut |pid, stand| {
                if stand != Stand::Call || is_met {
                    return;
                }
                let [call, option, signal] = tracer::call_of(pid);
                let is_first = call == libc::SYS_setsid && child.is_none() && is_a_hook(hook, pid);
                if is_first {
                    child = Some(pid);
                } else if child != Some(pid) {
                    return;
                }
                let is_said = [call, option] == [libc::SYS_prctl, i64::from(libc::PR_SET_PDEATHSIG)];
                let is_said = is_said && signal == i64::from(libc::SIGKILL);
                said += usize::from(is_said);
                if points.is_some() && (is_first && number == 0 || is_said && number == said) {
                    is_met = true;
                    kill_high_above(pid, height);
                }
            });
            assert!(!outcome.hangs && outcome.said.contains("<done>"), "{hook}, {number}: {}", outcome.said);
            let child = child.unwrap_or_else(|| panic!("{hook}, {number}: {:?}", outcome.names));
            if points.is_some() {
                assert!(is_met, "{hook}, {number}");
                if is_left(child) {
                    left.push(format!("{hook}, {number}"));
                }
                number += 1;
            } else {
                // Once more where ids may have been changed.
                assert!(said >= if hook.starts_with("startContainer") { 2 } else { 1 }, "{hook}: {said}");
                points = Some(said);
            }
        }
    }
    fs::remove_dir_all(&dir).unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// Killed, or given up by who asked for it, in the moment in which the program's process is there and does not end with it yet.
#[test]
fn a_program_does_not_outlive_a_launcher_that_was_killed_as_it_was_made() {
    tracer::adopt_orphans();
    let dir = std::env::temp_dir().join(format!("zind-test-given-up-{}", std::process::id()));
    let place = Containers::open(Some(&dir.join("place"))).unwrap();
    let container = Container::builder(Spec::new(["sleep", "1000"])).containers(&place).name(NAME).create().unwrap();
    container.start().unwrap();
    let home = fs::read_link(format!("/proc/{}/ns/pid", container.pid().unwrap().unwrap())).unwrap();
    let mut command = Host::new(std::env::current_exe().unwrap());
    command.args(["worker", "--exact", "--nocapture"]);
    command.env("ZIND_TEST_WORKER", "given up").env("ZIND_TEST_DIR", dir.join("place"));
    let mut killed = Vec::new();
    let outcome = tracer::look(&mut command, &mut |pid, stand| {
        let is_new = stand == Stand::Born && killed.is_empty();
        if is_new && fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|its| its == home) {
            kill_above(pid);
            killed.push(pid);
        }
    });
    assert!(!outcome.hangs && outcome.said.contains("<done>") && killed.len() == 1, "{}", outcome.said);
    let is_left = is_left(killed[0]);
    assert!(!container.processes().unwrap().iter().any(|one| one.cmdline.iter().any(|word| word == STAYS)));
    container.delete(true).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert!(!is_left, "the program is left in the container");
}

/// A container that is made in the pid namespace of another one is put together before the eyes of that one. A pid namespace is
/// joined by who has all rights over it: root, here.
#[test]
fn who_is_in_a_pid_namespace_that_is_joined_gets_nothing_of_who_builds() {
    for looker in lookers().into_iter().filter(|looker| looker.name == "root") {
        for work in ["beside", "beside, with users"] {
            let sights = Inside::new(looker).watch(work);
            let is_open = |(_, sight): &(usize, &Sight)| sight.stand != Stand::Executed && !sight.seen.is_empty();
            let open: Vec<_> = sights.iter().enumerate().filter(is_open).collect();
            assert!(open.is_empty(), "{work}: {} of {}: {:#?}", open.len(), sights.len(), open[0]);
        }
    }
}
