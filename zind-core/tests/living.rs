//! Containers that live on without who started them, on the real kernel. Run as root, all of it is run again as an ordinary
//! user.
#![allow(missing_docs)]

mod support;
#[path = "support/user.rs"]
mod user;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::Traces;
use zind_core::container::{AttachOptions, Filter, LogOptions, LogQuery, Ready, Size, State, Stream, What};
use zind_core::{
    Command, Container, Containers, Error, Exec, ExitKind, Layers, Mount, Overlay, Resources, Restart, Rootfs, Spec,
    Stdio,
};

static TURN: Mutex<()> = Mutex::new(());

/// A place of its own, which must be empty of processes at the end.
struct Place {
    dir: PathBuf,
    containers: Containers,
}

impl Place {
    fn new() -> Place {
        let dir = std::env::temp_dir().join(format!("zind-living-{}-{:x}", std::process::id(), unique()));
        let containers = Containers::open(Some(&dir)).unwrap();
        Place { dir, containers }
    }

    fn make(&self, script: &str) -> Container {
        Container::builder(sh(script)).containers(&self.containers).create().unwrap_or_else(|error| panic!("{error}"))
    }

    fn started(&self, script: &str) -> Container {
        let container = self.make(script);
        container.start().unwrap_or_else(|error| panic!("{error}"));
        container
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for container in self.containers.list(&Filter::default()).unwrap() {
            container.delete(true).unwrap();
        }
        self.containers.prune().unwrap();
        let left: Vec<_> =
            fs::read_dir(self.dir.join("containers")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn sh(script: &str) -> Spec {
    let mut spec = Spec::new(["sh", "-c", script]);
    // In memory is quicker, and most tests do not care.
    spec.die_with_owner = true;
    spec
}

fn alone(body: impl FnOnce(&Place)) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Command::new("true").output().unwrap();
    let before = Traces::now();
    let place = Place::new();
    body(&place);
    drop(place);
    before.assert_same();
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn log(container: &Container) -> String {
    let records = container.logs(LogQuery::default()).unwrap();
    records.map(|record| String::from_utf8(record.unwrap().bytes).unwrap()).collect()
}

#[test]
fn a_container_goes_through_its_states() {
    alone(|place| {
        let container = Container::builder(sh("echo out; echo err >&2; read line; echo got $line; exit 3"))
            .containers(&place.containers)
            .name("web")
            .label("a", "1")
            .stdin_open(true)
            .create()
            .unwrap();
        assert_eq!(container.state().unwrap(), State::Created);
        assert_eq!(container.exit().unwrap(), None);
        assert!(matches!(container.wait(None), Err(Error::State(_))));
        container.start().unwrap();
        assert_eq!(container.state().unwrap(), State::Running);
        assert!(matches!(container.start(), Err(Error::State(_))));
        assert!(matches!(container.delete(false), Err(Error::State(_))));
        let found = place.containers.find("web").unwrap();
        assert_eq!(found.id(), container.id());
        assert_eq!(place.containers.find(&container.id()[..5]).unwrap().id(), container.id());
        assert!(found.pid().unwrap().is_some());
        let mut attached = found.attach(&AttachOptions::default()).unwrap();
        fs::File::from(attached.take_input().unwrap()).write_all(b"hello\n").unwrap();
        let exit = found.wait(Some(Duration::from_secs(30))).unwrap().unwrap();
        assert_eq!((exit.kind, exit.code), (ExitKind::Exited, Some(3)));
        assert_eq!(container.state().unwrap(), State::Stopped);
        // The two streams have no order between them.
        let said = attached.map(Result::unwrap).filter(|chunk| chunk.stream == Stream::Stdout);
        let said: Vec<u8> = said.flat_map(|chunk| chunk.bytes).collect();
        assert!(String::from_utf8(said).unwrap().ends_with("got hello\n"));
        let records: Vec<_> = container.logs(LogQuery::default()).unwrap().map(Result::unwrap).collect();
        let of = |stream| -> Vec<u8> {
            records.iter().filter(|record| record.stream == stream).flat_map(|record| record.bytes.clone()).collect()
        };
        assert_eq!((of(Stream::Stdout), of(Stream::Stderr)), (b"out\ngot hello\n".to_vec(), b"err\n".to_vec()));
        assert!(matches!(container.kill(15), Err(Error::State(_))));
        container.delete(false).unwrap();
        assert!(matches!(container.state(), Err(Error::NotFound { .. })));
        assert!(matches!(place.containers.find("web"), Err(Error::NotFound { .. })));
    });
}

/// A root directory with a static busybox, or `None` with a word why.
fn root(place: &Place) -> Option<PathBuf> {
    let Ok(busybox) = fs::read("/bin/busybox") else {
        println!("skipped: busybox-static is not installed");
        return None;
    };
    let root = place.dir.join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("bin/busybox"), busybox).unwrap();
    fs::set_permissions(root.join("bin/busybox"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["sh", "cat", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    Some(root)
}

#[test]
fn it_starts_again_with_what_it_changed() {
    alone(|place| {
        let Some(root) = root(place) else { return };
        for (is_removed, expected) in [(false, "again\nagain\nagain\n"), (true, "")] {
            let mut spec = sh("cat /etc/x 2>/dev/null; echo again >> /etc/x");
            spec.rootfs = Rootfs::Path(root.clone());
            let builder = Container::builder(spec).containers(&place.containers);
            let container = builder.auto_remove(is_removed).create().unwrap();
            if is_removed {
                assert_eq!(container.spec().unwrap().overlay, Overlay::Tmpfs);
                container.start().unwrap();
                assert_eq!(container.wait(None).unwrap().unwrap().code, Some(0));
                assert!(matches!(container.state(), Err(Error::NotFound { .. })));
                continue;
            }
            for _ in 0..3 {
                // By who knows of it only what is written down.
                let found = place.containers.find(container.id()).unwrap();
                found.start().unwrap();
                assert_eq!(found.wait(None).unwrap().unwrap().code, Some(0));
            }
            assert_eq!(log(&container), expected);
            assert!(!root.join("etc/x").exists());
        }
    });
}

#[test]
fn relative_paths_are_those_of_its_maker() {
    alone(|place| {
        let here = std::env::current_dir().unwrap();
        let mut spec = sh("true");
        let memory = Mount::new("tmpfs", Some(Path::new("none")), "/mnt/memory", []).unwrap();
        spec.mounts = vec![Mount::bind("there", "/mnt/there"), memory];
        let container = Container::builder(spec).containers(&place.containers).create().unwrap();
        let found = place.containers.find(container.id()).unwrap();
        let mounts = &found.inspect().unwrap()["config"]["mounts"];
        let sources: Vec<_> = mounts.as_array().unwrap().iter().filter_map(|mount| mount["source"].as_str()).collect();
        assert!(sources.contains(&here.join("there").to_str().unwrap()), "{sources:?}");
        assert!(sources.iter().all(|source| !source.ends_with("/none")), "{sources:?}");
    });
}

#[test]
fn layers_are_its_own_until_it_ends() {
    alone(|place| {
        let Some(root) = root(place) else { return };
        let layers = Layers::create(place.dir.join("layers"), [root]).unwrap();
        let on_them = |script: &str| {
            let mut spec = sh(script);
            spec.rootfs = Rootfs::Layers(layers.clone());
            Container::builder(spec).containers(&place.containers).create().unwrap()
        };
        let first = on_them("echo mine > /etc/mine; echo done; exec sleep 1000");
        first.start().unwrap();
        until("its file is there", || log(&first).contains("done"));
        let second = on_them("cat /etc/mine");
        assert!(matches!(second.start(), Err(Error::State(_))));
        first.kill(9).unwrap();
        first.wait(None).unwrap();
        second.start().unwrap();
        assert_eq!(second.wait(None).unwrap().unwrap().code, Some(0));
        assert_eq!(log(&second), "mine\n");
        layers.delete().unwrap();
    });
}

#[test]
fn who_attaches_at_the_start_gets_the_first_byte() {
    alone(|place| {
        for _ in 0..20 {
            let container = place.make("echo first; echo last");
            let attached = container.start_attached(&mut || false).unwrap();
            let said: Vec<u8> = attached.flat_map(|chunk| chunk.unwrap().bytes).collect();
            assert_eq!(said, b"first\nlast\n");
        }
    });
}

#[test]
fn a_time_that_no_clock_comes_to_is_waited_for_without_end() {
    alone(|place| {
        let ever = Duration::MAX;
        let mut events = place.containers.events().unwrap();
        let container = place.started("echo ready; exec sleep 1000");
        container.wait_ready(&Ready::Line("ready".into()), ever).unwrap();
        container.wait_ready(&Ready::Command(Box::new(Exec::new(["true"]))), ever).unwrap();
        assert!(events.next_within(Some(ever), &mut || false).unwrap().is_some());
        let exit = container.stop(ever).unwrap();
        assert_eq!(exit.signal, Some(libc::SIGTERM));
        assert_eq!(container.wait(Some(ever)).unwrap(), Some(exit));
        let mut logs = container.logs(LogQuery { follow: true, ..LogQuery::default() }).unwrap();
        assert_eq!(logs.next_within(Some(ever), &mut || false).unwrap().unwrap().bytes, b"ready\n");
        let mut lines = container.logs(LogQuery { follow: true, ..LogQuery::default() }).unwrap().lines();
        assert_eq!(lines.next_within(Some(ever), &mut || false).unwrap().unwrap().text, b"ready");
        assert!(lines.next_within(Some(ever), &mut || false).unwrap().is_none());
    });
}

#[test]
fn readiness_is_a_port_a_line_or_a_command() {
    alone(|place| {
        let seconds = Duration::from_secs;
        let container = place.started("echo starting; sleep 0.1; echo now ready; exec sleep 1000");
        container.wait_ready(&Ready::Line("ready".into()), seconds(30)).unwrap();
        container.wait_ready(&Ready::Command(Box::new(Exec::new(["true"]))), seconds(30)).unwrap();
        let failing = Ready::Command(Box::new(Exec::new(["false"])));
        let error = container.wait_ready(&failing, Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("now ready"), "{error}");
        assert!(container.wait_ready(&Ready::Port(80), Duration::from_millis(20)).is_err());
        container.stop(seconds(10)).unwrap();
        assert!(container.wait_ready(&Ready::Line("never".into()), seconds(30)).is_err());
        let Some(root) = root(place) else { return };
        let mut spec = Spec::new(["/bin/busybox", "nc", "-l", "-p", "8080"]);
        spec.rootfs = Rootfs::Path(root);
        let container = Container::builder(spec).containers(&place.containers).stdin_open(true).create().unwrap();
        container.start().unwrap();
        container.wait_ready(&Ready::Port(8080), seconds(30)).unwrap();
        container.kill(9).unwrap();
        container.wait(None).unwrap();
    });
}

#[test]
fn a_full_disk_costs_records_and_never_the_payload() {
    alone(|place| {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: an ordinary user mounts no small disk here");
            return;
        }
        let disk = place.dir.join("disk");
        fs::create_dir(&disk).unwrap();
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "none"]).arg(&disk).status();
        assert!(mount.unwrap().success());
        let containers = Containers::open(Some(&disk.join("z"))).unwrap();
        let script = "i=0; while [ $i -lt 100 ]; do head -c 10000 /dev/zero; i=$((i+1)); done; exit 5";
        let container = Container::builder(sh(script)).containers(&containers).create().unwrap();
        container.start().unwrap();
        assert_eq!(container.wait(Some(Duration::from_secs(60))).unwrap().unwrap().code, Some(5));
        let lost = container.inspect().unwrap()["log"]["lost_bytes"].as_u64().unwrap();
        let logs = container.logs(LogQuery::default()).unwrap();
        let kept = logs.map(|record| record.unwrap().bytes.len() as u64).sum::<u64>();
        assert!(lost > 0 && kept > 0 && kept + lost == 1_000_000, "{kept} {lost}");
        let told: u64 = container.logs(LogQuery::default()).unwrap().map(|record| record.unwrap().lost).sum();
        let lines = container.logs(LogQuery::default()).unwrap().lines().map(|line| line.unwrap().lost).sum::<u64>();
        assert_eq!((told, lines), (lost, lost));
        container.delete(false).unwrap();
        // Its monitor may be there for a moment longer.
        until("unmounted", || std::process::Command::new("umount").arg(&disk).status().unwrap().success());
    });
}

/// A program that is killed at any moment of a container's life leaves nothing that the next one does not find.
#[test]
fn a_kill_at_any_system_call_leaves_nothing() {
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    alone(|place| {
        for call in ["openat", "rename", "sendmsg", "recvmsg", "clone3", "unlink,rmdir"] {
            for nth in [1, 2, 4, 7, 12] {
                let name = format!("n{}{nth}", call.replace(',', ""));
                let mut traced = std::process::Command::new("strace");
                traced.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
                traced.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
                traced.arg(std::env::current_exe().unwrap());
                traced.args(["--exact", "another_program", "--test-threads=1"]);
                traced.env("ZIND_TEST_ROLE", format!("whole {name} {}", place.dir.display()));
                let mut child =
                    traced.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
                child.wait().unwrap();
                // Whatever is left can be used, or deleted.
                let containers = Containers::open(Some(&place.dir)).unwrap();
                for container in containers.list(&Filter { all: true, ..Filter::default() }).unwrap() {
                    until("it settles", || container.state().map_or(true, |state| state != State::Creating));
                    container.delete(true).unwrap();
                }
                Container::builder(sh("true"))
                    .containers(&containers)
                    .name(&*name)
                    .create()
                    .unwrap()
                    .delete(false)
                    .unwrap();
            }
        }
    });
}

#[test]
fn what_happens_to_all_of_them_is_told_in_order() {
    alone(|place| {
        let mut events = place.containers.events().unwrap();
        let container = place.started("echo here; exec sleep 1000");
        until("here", || log(&container).contains("here"));
        let mut told = Vec::new();
        let mut next = |until: What| {
            while told.last() != Some(&until) {
                let event = events.next_interruptible(&mut || false).unwrap();
                assert_eq!(event.id, container.id());
                told.push(event.what);
            }
        };
        next(What::Started);
        container.kill(9).unwrap();
        next(What::Died);
        container.delete(false).unwrap();
        next(What::Deleted);
        assert_eq!(told, [What::Created, What::Started, What::Died, What::Deleted]);
    });
}

#[test]
fn of_two_that_start_it_at_once_one_does() {
    alone(|place| {
        for _ in 0..5 {
            let container = place.make("exec sleep 1000");
            let results: Vec<bool> = std::thread::scope(|scope| {
                let start = || place.containers.find(container.id()).unwrap().start();
                let all: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
                all.into_iter()
                    .map(|one| match one.join().unwrap() {
                        Ok(()) => true,
                        Err(Error::State(_)) => false,
                        Err(error) => panic!("{error}"),
                    })
                    .collect()
            });
            assert_eq!(results.iter().filter(|started| **started).count(), 1);
            container.delete(true).unwrap();
        }
    });
}

#[test]
fn who_is_attached_loses_nothing_and_who_goes_away_stops_nobody() {
    alone(|place| {
        let script = "read go; i=0; while [ $i -lt 400 ]; do head -c 5000 /dev/zero; i=$((i+1)); done; exit 6";
        let container = Container::builder(sh(script)).containers(&place.containers).stdin_open(true).create().unwrap();
        container.start().unwrap();
        let mut slow = container.attach(&AttachOptions::default()).unwrap();
        let gone = container.attach(&AttachOptions::default()).unwrap();
        fs::File::from(slow.take_input().unwrap()).write_all(b"go\n").unwrap();
        // It takes nothing for a while, and then all of it.
        std::thread::sleep(Duration::from_millis(100));
        drop(gone);
        let said: usize = slow.map(|chunk| chunk.unwrap().bytes.len()).sum();
        assert_eq!(said, 2_000_000);
        assert_eq!(container.wait(Some(Duration::from_secs(30))).unwrap().unwrap().code, Some(6));
        let logs = container.logs(LogQuery::default()).unwrap();
        assert_eq!(logs.map(|record| record.unwrap().bytes.len()).sum::<usize>(), 2_000_000);
    });
}

#[test]
fn a_storm_of_kills_leaves_nothing() {
    alone(|place| {
        let all: Vec<Container> = (0..24).map(|_| place.started("sleep 1000 & exec sleep 1000")).collect();
        for (number, container) in all.iter().enumerate() {
            let pid = container.pid().unwrap().unwrap();
            match number % 3 {
                0 => kill_monitor(pid),
                1 => container.kill(9).unwrap(),
                _ => {
                    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap()
                }
            }
        }
        for container in &all {
            assert_eq!(container.wait(Some(Duration::from_secs(30))).unwrap().unwrap().signal, Some(9));
        }
        assert_eq!(place.containers.prune().unwrap().containers.len(), 24);
    });
}

#[test]
fn further_programs_run_in_it() {
    alone(|place| {
        let container = place.started("echo here; exec sleep 1000");
        let found = place.containers.find(container.id()).unwrap();
        let mut exec = Exec::new(["sh", "-c", "echo $$ $HOME; cat /proc/1/comm"]);
        exec.stdout = Stdio::Pipe;
        let process = found.exec(&exec).unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut fs::File::from(process.take_stdout().unwrap()), &mut said).unwrap();
        assert_eq!(process.wait(None).unwrap().unwrap().code, Some(0));
        assert!(said.contains("zind-init"), "{said}");
        container.stop(Duration::from_secs(10)).unwrap();
        assert!(matches!(found.exec(&exec), Err(Error::State(_))));
    });
}

#[test]
fn a_signal_and_a_stop_end_it() {
    alone(|place| {
        let container = place.started("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done");
        until("ready", || log(&container).contains("ready"));
        assert_eq!(container.stop(Duration::from_secs(20)).unwrap().code, Some(7));
        assert_eq!(container.stop(Duration::from_secs(20)).unwrap().code, Some(7));
        let container = place.started("trap '' TERM; echo ready; while :; do sleep 0.05; done");
        until("ready", || log(&container).contains("ready"));
        assert_eq!(container.stop(Duration::from_millis(50)).unwrap().signal, Some(9));
    });
}

#[test]
fn names_are_unique_and_can_change() {
    alone(|place| {
        let named = |name: &str| Container::builder(sh("true")).containers(&place.containers).name(name).create();
        let one = named("one").unwrap();
        assert!(matches!(named("one"), Err(Error::Exists { .. })));
        let two = named("two").unwrap();
        assert!(matches!(two.rename("one"), Err(Error::Exists { .. })));
        one.rename("three").unwrap();
        two.rename("one").unwrap();
        assert_eq!(place.containers.find("one").unwrap().id(), two.id());
        assert!(matches!(place.containers.find("two"), Err(Error::NotFound { .. })));
        for bad in ["", "..", "../x", "a/b", "\u{e9}", &"a".repeat(300)] {
            assert!(matches!(named(bad), Err(Error::Spec { field: "name", .. })), "{bad}");
            assert!(matches!(place.containers.find(bad), Err(Error::NotFound { .. })), "{bad}");
        }
        assert_eq!(place.containers.prune().unwrap().containers.len(), 2);
    });
}

#[test]
fn it_ends_with_who_started_it_unless_it_is_detached() {
    alone(|place| {
        for detached in [false, true] {
            let script = format!("{} {}", if detached { "detached" } else { "owned" }, place.dir.display());
            let mut child = helper("start", &script);
            assert!(child.wait().unwrap().success());
            let container = place.containers.find(if detached { "detached" } else { "owned" }).unwrap();
            if detached {
                assert_eq!(container.state().unwrap(), State::Running);
                assert!(log(&container).contains("here"));
                assert_eq!(container.stop(Duration::from_secs(20)).unwrap().signal, Some(15));
            } else {
                let exit = container.wait(Some(Duration::from_secs(30))).unwrap().unwrap();
                assert_eq!((exit.kind, exit.signal), (ExitKind::Signaled, Some(9)));
            }
        }
    });
}

/// This program again, as another one that uses the library.
fn helper(what: &str, with: &str) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_program", "--nocapture", "--test-threads=1"])
        .env("ZIND_TEST_ROLE", format!("{what} {with}"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn another_program() {
    let Ok(role) = std::env::var("ZIND_TEST_ROLE") else { return };
    let words: Vec<&str> = role.split(' ').collect();
    if let ["whole", name, dir] = words[..] {
        let containers = Containers::open(Some(Path::new(dir))).unwrap();
        let container = Container::builder(sh("true")).containers(&containers).name(name).create().unwrap();
        container.start().unwrap();
        container.wait(None).unwrap();
        container.delete(false).unwrap();
        std::process::exit(0);
    }
    if let ["start", name, dir] = words[..] {
        let containers = Containers::open(Some(Path::new(dir))).unwrap();
        let mut spec = sh("trap 'kill -TERM $$' TERM; echo here; exec sleep 1000");
        spec.die_with_owner = name != "detached";
        let container = Container::builder(spec).containers(&containers).name(name).create().unwrap();
        container.start().unwrap();
        until("here", || log(&container).contains("here"));
        std::process::exit(0);
    }
}

#[test]
fn a_monitor_that_was_killed_takes_its_container_along() {
    alone(|place| {
        let container = place.started("echo here; exec sleep 1000");
        until("here", || log(&container).contains("here"));
        let pid = container.pid().unwrap().unwrap();
        kill_monitor(pid);
        let exit = container.wait(Some(Duration::from_secs(30))).unwrap().unwrap();
        assert_eq!((exit.kind, exit.signal), (ExitKind::Signaled, Some(9)));
        assert!(!Path::new(&format!("/proc/{pid}")).exists() || zombie(pid));
        let fault = container.inspect().unwrap()["fault"].clone();
        assert_eq!(fault, "its monitor was killed");
        container.start().unwrap();
        container.stop(Duration::ZERO).unwrap();
    });
}

fn zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"))
}

/// The parent of a container's first process, or the one above that.
fn kill_monitor(pid: i32) {
    let mut pid = pid;
    for _ in 0..3 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let ppid = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
        pid = ppid;
        if fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() == "zind-monitor" {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
            return;
        }
    }
    panic!("no monitor above {pid}");
}

#[test]
fn limits_and_readings_are_found_again() {
    alone(|place| {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: an ordinary user has no groups here");
            return;
        }
        let mut spec = sh("echo here; exec sleep 1000");
        spec.resources = Some(Resources::new().memory(64 << 20).pids(20));
        let container = Container::builder(spec).containers(&place.containers).create().unwrap();
        container.start().unwrap();
        let other = place.containers.find(container.id()).unwrap();
        until("here", || log(&other).contains("here"));
        assert_eq!(other.stats().unwrap().memory_limit, Some(64 << 20));
        other.update(&Resources::new().memory(96 << 20)).unwrap();
        assert_eq!(other.stats().unwrap().memory_limit, Some(96 << 20));
        assert!(other.processes().unwrap().iter().any(|process| process.name == "sleep"));
        other.pause().unwrap();
        assert_eq!(container.state().unwrap(), State::Paused);
        assert!(matches!(container.pause(), Err(Error::State(_))));
        other.resume().unwrap();
        assert!(matches!(container.resume(), Err(Error::State(_))));
        other.pause().unwrap();
        let exit = container.stop(Duration::from_secs(20)).unwrap();
        assert_eq!(exit.signal, Some(15), "{exit:?}");
        assert!(container.stats().unwrap().memory_peak > Some(0), "{:?}", container.stats());
        let groups = container.inspect().unwrap()["cgroup"].clone();
        for path in groups.as_array().unwrap() {
            assert!(!Path::new(path.as_str().unwrap()).exists(), "{path}");
        }
        // Each start that follows has what was changed, whether it ran then or not.
        container.update(&Resources::new().pids(30)).unwrap();
        let refused = container.update(&Resources::new().memory(1));
        assert!(matches!(refused, Err(Error::Spec { .. })), "{refused:?}");
        assert_eq!(container.inspect().unwrap()["config"]["linux"]["resources"]["pids"]["limit"], 30);
        container.start().unwrap();
        assert_eq!(other.stats().unwrap().memory_limit, Some(96 << 20));
        container.kill(9).unwrap();
        container.wait(None).unwrap();
        let hog = "exec dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null";
        let mut spec = sh(hog);
        spec.resources = Some(Resources::new().memory(32 << 20).swap(0));
        let container = Container::builder(spec).containers(&place.containers).create().unwrap();
        container.start().unwrap();
        assert_eq!(container.wait(None).unwrap().unwrap().kind, ExitKind::Oom);
    });
}

#[test]
fn a_log_turns_over_and_is_followed_without_loss() {
    alone(|place| {
        let container = Container::builder(sh("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"))
            .containers(&place.containers)
            .log(LogOptions { size: 1 << 20, files: 3 })
            .create()
            .unwrap();
        container.start().unwrap();
        let lines = container.logs(LogQuery { follow: true, ..LogQuery::default() }).unwrap().lines();
        let all: Vec<String> = lines.map(|line| String::from_utf8(line.unwrap().text).unwrap()).collect();
        assert_eq!(all, (0..3000).map(|number| format!("line {number}")).collect::<Vec<_>>());
        let tail = container.logs(LogQuery { tail: Some(2), ..LogQuery::default() }).unwrap().lines();
        let tail: Vec<String> = tail.map(|line| String::from_utf8(line.unwrap().text).unwrap()).collect();
        assert_eq!(tail, ["line 2998", "line 2999"]);
        let container = Container::builder(sh("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"))
            .containers(&place.containers)
            .log(LogOptions { size: 8 << 10, files: 3 })
            .create()
            .unwrap();
        container.start().unwrap();
        container.wait(None).unwrap();
        let kept = log(&container);
        assert!(kept.ends_with("line 2999\n") && kept.len() < 24 << 10, "{}", kept.len());
        assert!(container.place().join("log.2").exists() && !container.place().join("log.3").exists());
    });
}

/// A reader that comes late to what is thrown away, and one that is slow, are told how much they miss, to the byte.
#[test]
fn what_a_reader_misses_of_a_log_is_told() {
    alone(|place| {
        let total = "first\n".len() + (0..3000).map(|number| format!("line {number}\n").len()).sum::<usize>();
        for files in [1, 2] {
            let container = Container::builder(sh(
                "echo first; read go; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; printf end",
            ))
            .containers(&place.containers)
            .log(LogOptions { size: 8 << 10, files })
            .stdin_open(true)
            .create()
            .unwrap();
            let follow = || container.logs(LogQuery { follow: true, ..LogQuery::default() }).unwrap();
            let (mut records, mut late) = (follow(), follow().lines());
            container.start().unwrap();
            let mut lines = follow().lines();
            let first = lines.next().unwrap().unwrap();
            assert_eq!((&first.text[..], first.lost), (&b"first"[..], 0));
            assert_eq!(records.next().unwrap().unwrap().lost, 0);
            let mut attached = container.attach(&AttachOptions::default()).unwrap();
            rustix::io::write(attached.input().unwrap(), b"go\n").unwrap();
            attached.close_input().unwrap();
            drop(attached);
            assert_eq!(container.wait(Some(Duration::from_secs(60))).unwrap().unwrap().code, Some(0));
            let whole = (total + "end".len()) as u64;
            let (mut said, mut lost, mut gaps) = ("first\n".len() as u64, 0, 0);
            for record in &mut records {
                let record = record.unwrap();
                said += record.bytes.len() as u64;
                (lost, gaps) = (lost + record.lost, gaps + u64::from(record.lost > 0));
            }
            assert!(lost > 0 && gaps == 1 && said + lost == whole, "{said} {lost} {gaps}");
            for (lines, mut said) in [(&mut lines, "first\n".len()), (&mut late, 0)] {
                let (mut lost, mut gaps, mut last) = (0, 0, Vec::new());
                for line in lines {
                    let line = line.unwrap();
                    said += line.text.len() + usize::from(line.is_whole);
                    (lost, gaps, last) = (lost + line.lost, gaps + u64::from(line.lost > 0), line.text);
                }
                assert!(lost > 0 && gaps == 1 && said as u64 + lost == whole, "{said} {lost} {gaps}");
                assert_eq!(last, b"end");
            }
            // Who comes afterwards asks for what there is.
            let kept: Vec<_> = container.logs(LogQuery::default()).unwrap().map(Result::unwrap).collect();
            assert!(kept.iter().all(|record| record.lost == 0));
            let kept = kept.iter().map(|record| record.bytes.len() as u64).sum::<u64>();
            let log = container.inspect().unwrap()["log"].clone();
            assert_eq!((log["rotated_bytes"].as_u64(), log["lost_bytes"].as_u64()), (Some(whole - kept), Some(0)));
            let tail = container.logs(LogQuery { tail: Some(2), ..LogQuery::default() }).unwrap().lines();
            let tail: Vec<_> = tail.map(|line| line.unwrap()).map(|line| (line.text, line.lost)).collect();
            assert_eq!(tail, [(b"line 2999".to_vec(), 0), (b"end".to_vec(), 0)]);
        }
    });
}

#[test]
fn it_is_started_again_by_its_monitor() {
    alone(|place| {
        let make = |script: &str, restart| {
            let mut spec = sh(script);
            spec.die_with_owner = true;
            let container = Container::builder(spec).containers(&place.containers).restart(restart).create().unwrap();
            container.start().unwrap();
            container
        };
        let container = make("echo turn; exit 4", Restart::OnFailure { most: Some(2) });
        let exit = container.wait(Some(Duration::from_secs(60))).unwrap().unwrap();
        assert_eq!(
            (exit.code, container.restarts().unwrap(), log(&container).as_str()),
            (Some(4), 2, "turn\nturn\nturn\n")
        );
        let container = make("echo turn; exit 0", Restart::OnFailure { most: None });
        assert_eq!(container.wait(None).unwrap().unwrap().code, Some(0));
        let container = make("echo turn; exec sleep 0.01", Restart::Always);
        until("three turns", || log(&container).matches("turn").count() >= 3);
        container.stop(Duration::from_secs(10)).unwrap();
        assert_eq!(container.state().unwrap(), State::Stopped);
    });
}

/// Between two runs there is no process, and what needs one says why.
#[test]
fn between_two_runs_nothing_of_it_runs() {
    alone(|place| {
        let make = || {
            let container = Container::builder(sh("exit 3"))
                .containers(&place.containers)
                .restart(Restart::Always)
                .create()
                .unwrap();
            container.start().unwrap();
            container
        };
        let container = make();
        // The pauses become longer: sooner or later all of it is within one.
        loop {
            let Some(before) = container.restarting().unwrap() else { continue };
            let errors = [
                ("exec", container.exec(&Exec::new(["true"])).err()),
                ("pidfd", container.pidfd().err()),
                ("pause", container.pause().err()),
                ("resume", container.resume().err()),
                ("kill", container.kill(15).err()),
                ("root", container.root().err()),
                ("mount", container.mount(&Mount::tmpfs("/tmp/x")).err()),
                ("start", container.start().err()),
                ("delete", container.delete(false).err()),
                ("snapshot", container.snapshot("a").err()),
            ];
            let changed = container.update(&Resources::new().pids(30));
            let (pid, state, exit) = (container.pid().unwrap(), container.state().unwrap(), container.exit().unwrap());
            let (processes, document) = (container.processes().unwrap(), container.inspect().unwrap());
            let listed = place.containers.summaries(&Filter::default()).unwrap();
            if container.restarting().unwrap() != Some(before) {
                continue;
            }
            for (what, error) in errors {
                let text = error.as_ref().map(ToString::to_string).unwrap_or_default();
                assert!(matches!(error, Some(Error::State(_))) && text.contains("started again"), "{what}: {error:?}");
            }
            changed.unwrap();
            assert_eq!(document["config"]["linux"]["resources"]["pids"]["limit"], 30);
            assert_eq!((pid, state, exit, processes), (None, State::Running, None, Vec::new()));
            assert_eq!(before.exit.code, Some(3));
            assert!(before.finished < before.at, "{before:?}");
            assert!(document["pid"].is_null() && document["exit"].is_null(), "{document}");
            assert_eq!(document["restarting"]["exit"]["code"], 3);
            let [one] = &listed[..] else { panic!("{listed:?}") };
            assert_eq!((one.pid, one.state, one.exit, one.restarting), (None, State::Running, None, Some(before)));
            break;
        }
        let exit = container.stop(Duration::from_secs(20)).unwrap();
        // It may just have been started again.
        assert!(exit.code == Some(3) || exit.signal == Some(15), "{exit:?}");
        assert_eq!((container.state().unwrap(), container.restarting().unwrap()), (State::Stopped, None));
        let container = make();
        until("it waits", || container.restarting().unwrap().is_some());
        container.kill(9).unwrap();
        container.wait(Some(Duration::from_secs(60))).unwrap().unwrap();
        assert_eq!(container.state().unwrap(), State::Stopped);
        let container = make();
        until("it waits", || container.restarting().unwrap().is_some());
        container.delete(true).unwrap();
        assert!(matches!(container.state(), Err(Error::NotFound { .. })));
    });
}

#[test]
fn a_terminal_is_its_own() {
    alone(|place| {
        let script =
            "test -t 0 && test -t 1 && tty >/dev/null && echo terminal; stty size; read line; stty size; echo $line";
        let container = Container::builder(sh(script))
            .containers(&place.containers)
            .terminal(Size { rows: 11, cols: 22 })
            .create()
            .unwrap();
        container.start().unwrap();
        until("its size", || log(&container).contains("11 22"));
        let attached = container.attach(&AttachOptions::default()).unwrap();
        container.resize(Size { rows: 33, cols: 44 }).unwrap();
        rustix::io::write(attached.input().unwrap(), b"typed\n").unwrap();
        assert_eq!(container.wait(Some(Duration::from_secs(30))).unwrap().unwrap().code, Some(0));
        let said = log(&container);
        assert!(said.contains("terminal\r\n") && said.contains("33 44\r\n") && said.ends_with("typed\r\n"), "{said:?}");
    });
}

#[test]
fn all_of_it_as_an_ordinary_user() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if std::env::var_os("ZIND_TEST_ROLE").is_some() {
        return;
    }
    user::run_all_as_an_ordinary_user();
}
