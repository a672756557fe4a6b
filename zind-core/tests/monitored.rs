//! What a container's monitor does when nobody else is there, on the real kernel. Run as root, all of it is run again as an
//! ordinary user.
#![allow(missing_docs)]

#[path = "support/place.rs"]
mod place;
mod support;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use place::{Place, alone};
use zind_core::container::{ContainerEvent, ContainerEvents, HookPoint, LogQuery, Size, State, What};
use zind_core::{Container, Containers, Error, ExitKind, Hook, Hooks, IdMap, Mount, Resources, Restart, Step};

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Place {
    fn make(&self, script: &str) -> Container {
        Container::builder(self.spec(script)).containers(&self.containers).create().unwrap()
    }

    fn brief(&self, script: &str) -> Container {
        let builder = Container::builder(self.spec(script)).containers(&self.containers);
        builder.name("brief").auto_remove(true).label("a", "b").create().unwrap()
    }

    fn restarted(&self, script: &str, policy: &str, hooks: Hooks) -> Container {
        let builder = Container::builder(self.spec(script)).containers(&self.containers).hooks(hooks);
        builder.restart(Restart::parse(policy).unwrap()).create().unwrap()
    }

    /// Nothing of any container is there.
    fn is_empty(&self) -> bool {
        let entries = |path: &str| fs::read_dir(self.dir.join(path)).unwrap().count();
        (entries("containers"), entries("names")) == (3, 0)
            && ["containers/.new", "containers/.trash", "containers/.auto"].iter().all(|path| entries(path) == 0)
    }

    fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default().lines().count()
    }

    /// A hook that writes a line to a file.
    fn marking(&self, name: &str, and: &str) -> Hook {
        let text = format!("cat > /dev/null; echo x >> {}; {and}", self.dir.join(name).display());
        let mut hook = Hook::new("/bin/sh", ["-c", &text]);
        hook.env = vec!["PATH=/usr/bin:/bin".into()];
        hook
    }
}

fn no_more() -> bool {
    false
}

fn all_of(events: &mut ContainerEvents, last: What, times: usize) -> Vec<ContainerEvent> {
    let mut told = Vec::new();
    while told.iter().filter(|event: &&ContainerEvent| event.what == last).count() < times {
        told.push(events.next_interruptible(&mut no_more).unwrap());
    }
    told
}

fn kinds(told: &[ContainerEvent]) -> Vec<What> {
    told.iter().map(|event| event.what).collect()
}

/// The monitor of a container: the parent of its first process, or of that one's.
fn monitor_of(container: &Container) -> i32 {
    let mut pid = container.pid().unwrap().unwrap();
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        if field("Name:") == "zind-monitor" {
            return pid;
        }
        pid = field("PPid:").parse().unwrap();
        assert!(pid > 1);
    }
}

fn kill_monitor(container: &Container) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor_of(container)), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
}

#[test]
fn what_is_to_be_removed_is_gone_with_nobody_looking() {
    alone(|place| {
        let container = place.brief("exit 3");
        container.start().unwrap();
        until("it is gone", || place.is_empty());
        // Who has started it hears of it all the same, as often as it asks.
        for _ in 0..2 {
            let exit = container.wait(None).unwrap().unwrap();
            assert_eq!((exit.kind, exit.code), (ExitKind::Exited, Some(3)));
        }
        assert!(matches!(container.state(), Err(Error::NotFound { .. })));
        assert!(matches!(container.start(), Err(Error::NotFound { .. })));
        // By the name that it has at the end, and with somebody else who waits.
        let container = place.brief("exec sleep 1000");
        container.start().unwrap();
        let other = place.containers.find("brief").unwrap();
        other.rename("another").unwrap();
        let (begins, begun) = std::sync::mpsc::channel();
        // It is asked when it waits; somebody who comes when it is gone is told that it is not there.
        let mut asked = move || {
            let _ = begins.send(());
            false
        };
        let waits = std::thread::spawn(move || other.wait_interruptible(None, &mut asked).unwrap().unwrap());
        begun.recv().unwrap();
        assert_eq!(place.containers.find("another").unwrap().stop(Duration::from_secs(20)).unwrap().signal, Some(15));
        assert_eq!(waits.join().unwrap().signal, Some(15));
        until("it is gone", || place.is_empty());
        let container = place.brief("exec sleep 1000");
        container.start().unwrap();
        container.delete(true).unwrap();
        assert!(place.is_empty());
        for _ in 0..10 {
            let container = place.brief("echo hello; exit 4");
            let attached = container.start_attached(&mut no_more).unwrap();
            let said: Vec<u8> = attached.flat_map(|chunk| chunk.unwrap().bytes).collect();
            assert_eq!((said.as_slice(), container.wait(None).unwrap().unwrap().code), (&b"hello\n"[..], Some(4)));
            assert!(place.is_empty());
        }
        let container = place.brief("exit 5");
        container.start().unwrap();
        loop {
            match container.ending() {
                Ok(Some(ending)) => {
                    while ending.exit().unwrap().is_none() {}
                    break;
                }
                Ok(None) if container.wait(Some(Duration::ZERO)).unwrap().is_some() => break,
                Ok(None) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(container.wait(None).unwrap().unwrap().code, Some(5));
    });
}

#[test]
fn hooks_after_the_end_are_run_by_who_deletes() {
    alone(|place| {
        let mut hooks = Hooks::default();
        hooks.poststop = vec![place.marking("after", "exit 1"), place.marking("after", "")];
        let builder = Container::builder(place.spec("exit 0")).containers(&place.containers).hooks(hooks);
        let container = builder.auto_remove(true).label("a", "b").create().unwrap();
        let called = Arc::new(Mutex::new(Vec::new()));
        let same = Arc::clone(&called);
        container.on(HookPoint::Poststop, move |state| {
            same.lock().unwrap().push((state.status, state.annotations["a"].clone()));
            Ok(())
        });
        container.start().unwrap();
        until("both have run", || place.lines("after") == 2);
        container.wait(None).unwrap();
        container.wait(None).unwrap();
        assert_eq!(*called.lock().unwrap(), [("stopped", "b".to_owned())]);
    });
}

#[test]
fn a_monitor_that_was_killed_leaves_it_to_the_next() {
    alone(|place| {
        let container = place.brief("exec sleep 1000");
        container.start().unwrap();
        kill_monitor(&container);
        until("it has ended", || container.state().is_ok_and(|state| state == State::Stopped));
        Containers::open(Some(&place.dir)).unwrap();
        assert!(place.is_empty());
    });
}

#[test]
fn everything_is_told_once_and_in_order_however_fast_it_is() {
    alone(|place| {
        let mut events = place.containers.events().unwrap();
        let mut ids = Vec::new();
        for number in 0..20 {
            let builder = Container::builder(place.spec("exit 7")).containers(&place.containers);
            let container = builder.auto_remove(number % 2 == 0).name(format!("n{number}")).create().unwrap();
            container.start().unwrap();
            container.wait(None).unwrap();
            if number % 2 != 0 {
                container.rename(&format!("r{number}")).unwrap();
                container.delete(false).unwrap();
            }
            ids.push(container.id().to_owned());
        }
        let told = all_of(&mut events, What::Deleted, 20);
        assert!(told.windows(2).all(|pair| pair[0].number + 1 == pair[1].number), "{told:?}");
        for (number, id) in ids.iter().enumerate() {
            let its: Vec<ContainerEvent> = told.iter().filter(|event| &event.id == id).cloned().collect();
            let usual = [What::Created, What::Started, What::Died, What::Deleted];
            let renamed = [What::Created, What::Started, What::Died, What::Renamed, What::Deleted];
            assert_eq!(kinds(&its), if number % 2 == 0 { &usual[..] } else { &renamed[..] });
            assert_eq!(its[2].exit.unwrap().code, Some(7));
            let name = its[3].name.as_deref().unwrap();
            assert_eq!(name, if number % 2 == 0 { format!("n{number}") } else { format!("r{number}") });
        }
        assert_eq!(events.try_next().unwrap(), None);
        // Later, by somebody else, from any of them on.
        let mut again = place.containers.events_from(told[5].number).unwrap();
        for event in &told[5..] {
            let same = again.try_next().unwrap().unwrap();
            assert_eq!((same.number, same.what, &same.id), (event.number, event.what, &event.id));
        }
    });
}

#[test]
fn restarts_are_told_and_so_is_the_end_of_one_whose_monitor_was_killed() {
    alone(|place| {
        let mut events = place.containers.events().unwrap();
        let mut others: Vec<_> = (0..3).map(|_| place.containers.events().unwrap()).collect();
        let container = place.restarted("exit 1", "on-failure:2", Hooks::default());
        container.start().unwrap();
        container.wait(None).unwrap();
        let told = all_of(&mut events, What::Died, 3);
        let run = [What::Started, What::Died];
        assert_eq!(kinds(&told), [&[What::Created][..], &run, &run, &run].concat());
        let container = place.make("exec sleep 1000");
        container.start().unwrap();
        kill_monitor(&container);
        assert_eq!(kinds(&all_of(&mut events, What::Died, 1)), [What::Created, What::Started, What::Died]);
        for other in &mut others {
            all_of(other, What::Died, 4);
        }
        container.start().unwrap();
        container.delete(true).unwrap();
        let last = [What::Started, What::Died, What::Deleted];
        assert_eq!(kinds(&all_of(&mut events, What::Deleted, 1)), last);
        for other in &mut others {
            assert_eq!(kinds(&all_of(other, What::Deleted, 1)), last);
        }
    });
}

#[test]
fn pauses_and_want_of_memory_are_told() {
    alone(|place| {
        if !is_root() {
            println!("skipped: an ordinary user has no groups here");
            return;
        }
        let mut events = place.containers.events().unwrap();
        let mut spec = place.spec("exec sleep 1000");
        spec.resources = Some(Resources::new().memory(64 << 20));
        let container = Container::builder(spec).containers(&place.containers).create().unwrap();
        container.start().unwrap();
        container.pause().unwrap();
        container.resume().unwrap();
        container.delete(true).unwrap();
        let told = [What::Created, What::Started, What::Paused, What::Resumed, What::Died, What::Deleted];
        assert_eq!(kinds(&all_of(&mut events, What::Deleted, 1)), told);
        // Once for want of memory, then for another reason: each run for itself.
        let seen = place.dir.join("seen");
        let hog = "exec dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null";
        let script = format!("[ -e {0} ] && exit 3; touch {0}; {hog}", seen.display());
        let mut spec = place.spec(&script);
        spec.resources = Some(Resources::new().memory(32 << 20).swap(0));
        let builder = Container::builder(spec).containers(&place.containers);
        let container = builder.restart(Restart::parse("on-failure:1").unwrap()).create().unwrap();
        container.start().unwrap();
        let exit = container.wait(None).unwrap().unwrap();
        assert_eq!((exit.kind, exit.code, container.restarts().unwrap()), (ExitKind::Exited, Some(3), 1));
        assert_eq!(container.stats().unwrap().oom_kills, Some(0));
        let told = all_of(&mut events, What::Died, 2);
        let expected = [What::Created, What::Started, What::Oom, What::Died, What::Started, What::Died];
        assert_eq!(kinds(&told), expected);
        assert_eq!(told[3].exit.unwrap().kind, ExitKind::Oom);
        // And told to who waits for one that is gone then.
        let mut spec = place.spec(hog);
        spec.resources = Some(Resources::new().memory(32 << 20).swap(0));
        let container = Container::builder(spec).containers(&place.containers).auto_remove(true).create().unwrap();
        container.start().unwrap();
        assert_eq!(container.wait(None).unwrap().unwrap().kind, ExitKind::Oom);
    });
}

#[test]
fn hooks_are_run_at_each_restart() {
    alone(|place| {
        let mut hooks = Hooks::default();
        hooks.prestart = vec![place.marking("prestart", "")];
        hooks.create_runtime = vec![place.marking("createRuntime", "")];
        hooks.create_container = vec![place.marking("createContainer", "")];
        hooks.start_container = vec![place.marking("startContainer", "")];
        hooks.poststart = vec![place.marking("poststart", "")];
        let container = place.restarted("exit 1", "on-failure:2", hooks);
        container.start().unwrap();
        container.wait(None).unwrap();
        assert_eq!(container.restarts().unwrap(), 2);
        for name in ["prestart", "createRuntime", "createContainer", "startContainer"] {
            assert_eq!(place.lines(name), 3, "{name}");
        }
        // The last one may have been running when the monitor went.
        assert!(place.lines("poststart") >= 1);
        // One that fails then, and one that never ends.
        // A number of our own: no hook's child is to stay.
        let stays = format!("1000.{}", std::process::id());
        let endless = format!("sleep {stays}");
        for (end, name) in [("false", "failing"), (endless.as_str(), "endless")] {
            let again = format!("[ $(wc -l < {}) -lt 2 ] || {end}", place.dir.join(name).display());
            let mut hooks = Hooks::default();
            hooks.create_runtime = vec![place.marking(name, &again)];
            let container = place.restarted("exit 1", "on-failure:1", hooks);
            container.start().unwrap();
            if name == "endless" {
                until("it is run again", || place.lines(name) == 2);
                container.kill(9).unwrap();
            }
            container.wait(None).unwrap();
            let is_left = || {
                let all = fs::read_dir("/proc")
                    .unwrap()
                    .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
                all.into_iter().any(|line| line == format!("sleep\0{stays}\0").as_bytes())
            };
            until("what the hook has started has ended", || !is_left());
            let fault = container.inspect().unwrap()["fault"].clone();
            assert!(fault.as_str().is_some_and(|text| text.contains("could not be started again")), "{name}: {fault}");
            if name == "failing" {
                assert!(fault.as_str().unwrap().contains(Step::Hook.words()), "{fault}");
            }
        }
    });
}

#[test]
fn what_takes_a_detached_tree_starts_again_too() {
    alone(|place| {
        if !is_root() {
            println!("skipped: an ordinary user maps no ids of mounts");
            return;
        }
        let shared = place.dir.join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("file"), "").unwrap();
        let mut spec = place.spec("stat -c %u /mnt/file; exit 1");
        let maps = vec![IdMap { container: 0, host: 1234, size: 1 }];
        spec.mounts.push(Mount::bind(&shared, "/mnt").idmap(maps.clone(), maps));
        let builder = Container::builder(spec).containers(&place.containers);
        let container = builder.restart(Restart::parse("on-failure:2").unwrap()).create().unwrap();
        match container.start() {
            Err(Error::Unsupported { .. }) => return println!("skipped: kernels before 6.15 copy no detached tree"),
            result => result.unwrap(),
        }
        container.wait(None).unwrap();
        assert_eq!(container.restarts().unwrap(), 2, "{}", container.inspect().unwrap()["fault"]);
        let records = container.logs(LogQuery::default()).unwrap();
        let said: String = records.map(|record| String::from_utf8(record.unwrap().bytes).unwrap()).collect();
        assert_eq!(said, "1234\n1234\n1234\n");
    });
}

#[test]
fn a_terminal_and_a_restart_policy_go_together() {
    alone(|place| {
        let builder = Container::builder(place.spec("test -t 0 && test -t 1 && stty size; exit 1"));
        let builder = builder.containers(&place.containers).terminal(Size { rows: 33, cols: 77 });
        let container = builder.restart(Restart::parse("on-failure:2").unwrap()).create().unwrap();
        let attached = container.start_attached(&mut no_more).unwrap();
        let said: Vec<u8> = attached.flat_map(|chunk| chunk.unwrap().bytes).collect();
        assert_eq!(String::from_utf8(said).unwrap(), "33 77\r\n".repeat(3));
        assert_eq!(container.wait(None).unwrap().unwrap().code, Some(1));
        assert_eq!(container.restarts().unwrap(), 2);
    });
}

#[test]
fn a_kill_while_it_is_started_is_told_as_one() {
    alone(|place| {
        let container = place.make("exit 0");
        let same = place.containers.find(container.id()).unwrap();
        container.on(HookPoint::CreateRuntime, move |_| same.kill(9).map_err(|error| error.to_string()));
        let error = container.start().unwrap_err();
        assert!(matches!(&error, Error::State(text) if text.contains("killed while")), "{error}");
        assert_eq!(container.state().unwrap(), State::Created);
    });
}

#[test]
fn a_stop_while_it_is_started_stops_it_when_it_runs() {
    alone(|place| {
        let container = place.make("exec sleep 1000");
        let same = place.containers.find(container.id()).unwrap();
        let (waits, is_waiting) = std::sync::mpsc::channel();
        let stopping = Arc::new(Mutex::new(None));
        let (thread, is_waiting) = (stopping.clone(), Mutex::new(is_waiting));
        container.on(HookPoint::CreateRuntime, move |_| {
            let (same, waits) = (same.clone(), waits.clone());
            let until = Instant::now() + Duration::from_secs(60);
            let mut interrupted = move || {
                let _ = waits.send(());
                Instant::now() > until
            };
            let stop = move || same.stop_interruptible(Duration::from_secs(20), &mut interrupted);
            *thread.lock().unwrap() = Some(std::thread::spawn(stop));
            is_waiting.lock().unwrap().recv().map_err(|error| error.to_string())
        });
        container.start().unwrap();
        let thread = stopping.lock().unwrap().take().unwrap();
        assert_eq!(thread.join().unwrap().unwrap().signal, Some(libc::SIGTERM));
        assert_eq!(container.state().unwrap(), State::Stopped);
    });
}

#[test]
fn a_monitor_s_place_is_as_long_as_it_likes() {
    alone(|place| {
        let deep = place.dir.join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        let containers = Containers::open(Some(Path::new(&deep))).unwrap();
        let container =
            Container::builder(place.spec("exit 2")).containers(&containers).auto_remove(true).create().unwrap();
        container.start().unwrap();
        assert_eq!(container.wait(None).unwrap().unwrap().code, Some(2));
    });
}

#[test]
fn all_of_it_as_an_ordinary_user() {
    place::once_more_as_an_ordinary_user();
}
