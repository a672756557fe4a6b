//! Hooks of OCI and functions of this process, on the real kernel. Run as root, all of it is run again as an ordinary user.
#![allow(missing_docs)]

#[path = "support/place.rs"]
mod place;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use place::{Place, alone};
use serde_json::Value;
use zind_core::container::{HookPoint, State};
use zind_core::{Container, Error, Hook, Hooks, Step};

impl Place {
    fn log(&self) -> PathBuf {
        self.dir.join("told")
    }

    fn told(&self) -> Vec<String> {
        fs::read_to_string(self.log()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// A program of this machine that writes a line: its name, what it was told, and the namespaces it is in.
    fn hook(&self, name: &str) -> Hook {
        self.script(name, "", "exit 0")
    }

    fn script(&self, name: &str, before: &str, end: &str) -> Hook {
        let kinds = "user pid mnt net ipc uts cgroup";
        let text = format!(
            "{before}\nstate=$(cat)\nlinks=\nfor kind in {kinds}; do links=\"$links $kind=$(readlink /proc/self/ns/$kind)\"; done\n\
             echo \"{name}|$state|$links|$(id -u)|$1|$VAR|$(pwd)|$(hostname)\" >> {}\n{end}",
            self.log().display()
        );
        self.shell(&text)
    }

    fn shell(&self, text: &str) -> Hook {
        let mut hook = Hook::new("/bin/sh", ["-c", text, "hook", "argument"]);
        hook.env = vec!["VAR=value".into(), "PATH=/usr/bin:/bin".into()];
        hook
    }

    fn make(&self, script: &str, hooks: Hooks) -> Container {
        let builder = Container::builder(self.spec(script)).containers(&self.containers).hooks(hooks);
        builder.label("a", "b").create().unwrap_or_else(|error| panic!("{error}"))
    }
}

fn links(pid: &str) -> String {
    let link = |kind: &str| format!(" {kind}={}", fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display());
    ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"].map(link).concat()
}

#[test]
fn each_hook_runs_at_its_moment_in_its_namespaces_with_the_state() {
    alone(|place| {
        let mut hooks = Hooks::default();
        hooks.prestart = vec![place.hook("prestart")];
        hooks.create_runtime = vec![place.hook("createRuntime"), place.hook("createRuntime2")];
        hooks.create_container = vec![place.hook("createContainer")];
        hooks.start_container = vec![place.hook("startContainer")];
        hooks.poststart = vec![place.hook("poststart")];
        hooks.poststop = vec![place.hook("poststop")];
        let script = format!("echo payload >> {}; exec sleep 1000", place.log().display());
        let container = place.make(&script, hooks);
        assert_eq!(place.told(), [""; 0]);
        container.start().unwrap_or_else(|error| panic!("{error}"));
        let pid = container.pid().unwrap().unwrap().to_string();
        let (ours, inside) = (links("self"), links(&pid));
        container.kill(9).unwrap();
        container.wait(None).unwrap();
        container.delete(false).unwrap();
        assert_eq!(container.take_warnings(), [""; 0]);
        let lines: Vec<String> = place.told().into_iter().filter(|line| line != "payload").collect();
        let expected = [
            ("prestart", "creating", &ours, &*pid),
            ("createRuntime", "creating", &ours, &pid),
            ("createRuntime2", "creating", &ours, &pid),
            ("createContainer", "creating", &inside, "1"),
            ("startContainer", "created", &inside, "1"),
            ("poststart", "running", &ours, &pid),
            ("poststop", "stopped", &ours, ""),
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, (name, status, links, pid)) in lines.iter().zip(expected) {
            let fields: Vec<&str> = line.split('|').collect();
            let [told, state, seen, user, argument, variable, cwd, host] = fields[..] else { panic!("{line}") };
            assert_eq!((told, argument, variable), (name, "argument", "value"));
            assert_eq!(seen, links, "{name}");
            let state: Value = serde_json::from_str(state).unwrap();
            assert_eq!((state["status"].as_str(), state["id"].as_str()), (Some(status), Some(container.id())));
            assert_eq!(state["pid"].as_i64().map(|pid| pid.to_string()).unwrap_or_default(), pid, "{name}");
            assert_eq!(state["bundle"].as_str(), container.place().to_str());
            assert_eq!((&state["annotations"]["a"], &state["ociVersion"]), (&"b".into(), &"1.2.0".into()));
            if seen == inside {
                assert_eq!(host, "zind", "{name}");
                // Before the change of the root it is found by no path of this machine, so the program begins in there.
                let root = if name == "createContainer" { "/r" } else { "/" };
                assert_eq!(cwd, root, "{name}");
                assert_eq!(user, "0", "{name}");
            }
        }
    });
}

/// What the container may not do its own programs may not do before it either; the host's may.
#[test]
fn a_program_of_the_container_has_the_rights_of_its_payload() {
    alone(|place| {
        let status = format!(
            "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):|^Uid' /proc/self/status >> {}",
            place.log().display()
        );
        let mut hooks = Hooks::default();
        hooks.create_container = vec![place.shell(&format!("cat >/dev/null; {status}; [ -d usr ] && [ -d proc ]"))];
        hooks.start_container = vec![place.shell(&format!("cat >/dev/null; {status}"))];
        let mut spec = place.spec(&status);
        spec.user = Some(zind_core::User::Ids(0, Some(0)));
        let container = Container::builder(spec).containers(&place.containers).hooks(hooks).create().unwrap();
        container.start().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(container.wait(None).unwrap().unwrap().code, Some(0));
        let lines = place.told();
        assert_eq!(lines.len(), 15, "{lines:#?}");
        assert_eq!(lines[5..10], lines[10..15]);
        let of = |name: &str| {
            let field = |line: &String| line.strip_prefix(name).map(|value| value.trim().to_owned());
            lines.iter().filter_map(field).collect::<Vec<_>>()
        };
        let full = "0".repeat(16);
        assert_ne!(of("CapEff:")[0], full);
        assert_eq!(of("CapEff:")[1], full);
        assert_eq!((of("NoNewPrivs:")[0].as_str(), of("Seccomp:")[0].as_str()), ("0", "0"));
        assert_eq!((of("NoNewPrivs:")[1].as_str(), of("Seccomp:")[1].as_str()), ("1", "2"));
        container.delete(false).unwrap();
    });
}

fn each_list(hooks: &mut Hooks) -> [&mut Vec<Hook>; 6] {
    [
        &mut hooks.prestart,
        &mut hooks.create_runtime,
        &mut hooks.create_container,
        &mut hooks.start_container,
        &mut hooks.poststart,
        &mut hooks.poststop,
    ]
}

const NAMES: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// How each of them may fail: the hook, and words of the error or warning.
fn failing(place: &Place) -> Vec<(Hook, &'static str)> {
    vec![
        (place.shell("echo the reason >&2; exit 7"), "exited with 7: the reason"),
        (place.shell("kill -9 $$"), "was ended by signal 9"),
        (Hook::new("/nonexistent/hook", ["x"]), "/nonexistent/hook"),
    ]
}

#[test]
fn a_hook_that_fails_ends_the_start_or_is_a_warning() {
    alone(|place| {
        for (at, name) in NAMES.into_iter().enumerate() {
            for (hook, words) in failing(place) {
                let mut hooks = Hooks::default();
                each_list(&mut hooks)[at].push(hook.clone());
                // The others run all the same where it is a warning, and no further one where it is not.
                let marker = place.dir.join("further");
                let further = place.shell(&format!("cat > /dev/null; touch {}", marker.display()));
                each_list(&mut hooks)[at].push(further);
                let ran = place.dir.join("ran");
                let container = place.make(&format!("touch {}", ran.display()), hooks);
                let result = container.start();
                let is_warning = at >= 4;
                if is_warning {
                    result.unwrap();
                    assert_eq!(container.wait(None).unwrap().unwrap().code, Some(0));
                    container.delete(false).unwrap();
                    let warnings = container.take_warnings();
                    assert_eq!(warnings.len(), 1, "{warnings:?}");
                    assert!(warnings[0].contains(words), "{words}: {warnings:?}");
                } else {
                    let error = result.unwrap_err();
                    assert_eq!(error.step(), Some(Step::Hook), "{} {words}: {error}", name);
                    assert!(error.to_string().contains(words), "{} {words}: {error}", name);
                    assert_eq!(container.state().unwrap(), State::Created);
                    container.delete(false).unwrap();
                }
                assert_eq!((ran.exists(), marker.exists()), (is_warning, is_warning), "{} {words}", name);
                let _ = (fs::remove_file(&ran), fs::remove_file(&marker));
            }
        }
    });
}

/// All at once, since OCI's limits are whole seconds.
#[test]
fn a_hook_that_takes_too_long_is_killed_and_has_failed() {
    alone(|place| {
        std::thread::scope(|scope| {
            for (at, name) in NAMES.into_iter().enumerate() {
                scope.spawn(move || {
                    // What it has started ends with it.
                    let stays = "1000.".to_owned() + &std::process::id().to_string();
                    let mut hook = place.shell(&format!("trap '' TERM; echo waiting; sleep {stays} & wait"));
                    hook.timeout = Some(Duration::from_secs(1));
                    let mut hooks = Hooks::default();
                    each_list(&mut hooks)[at].push(hook);
                    let container = place.make("exit 0", hooks);
                    let said = match container.start() {
                        Ok(()) => {
                            container.wait(None).unwrap();
                            container.delete(false).unwrap();
                            container.take_warnings().join("")
                        }
                        Err(error) => {
                            assert_eq!(error.errno(), Some(zind_core::Errno::ETIMEDOUT), "{}: {error}", name);
                            container.delete(false).unwrap();
                            error.to_string()
                        }
                    };
                    assert!(said.contains("had not ended within 1 s"), "{}: {said}", name);
                });
            }
        });
        let stays = format!("sleep\u{0}1000.{}\u{0}", std::process::id());
        let is_there =
            |entry: &fs::DirEntry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|text| text == stays);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| is_there(&entry)) {
            assert!(std::time::Instant::now() < deadline, "{stays} is left");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn functions_are_called_with_the_state_by_who_acts() {
    alone(|place| {
        let mut hooks = Hooks::default();
        hooks.create_runtime = vec![place.hook("program")];
        let container = place.make("exit 0", hooks);
        let seen = Arc::new(Mutex::new(Vec::new()));
        for point in [HookPoint::CreateRuntime, HookPoint::Poststart, HookPoint::Poststop] {
            let (seen, same) = (Arc::clone(&seen), container.containers().find(container.id()).unwrap());
            let log = place.log();
            container.on(point, move |state| {
                assert_eq!(state.id, same.id());
                // The programs of the moment are done, and the namespaces are there.
                assert!(fs::read_to_string(&log).unwrap().starts_with("program|"));
                if point == HookPoint::CreateRuntime {
                    assert_ne!(links(&state.pid.unwrap().to_string()), links("self"));
                }
                seen.lock().unwrap().push((point, state.status, state.pid.is_some()));
                if point == HookPoint::CreateRuntime { Ok(()) } else { Err(format!("no {}", point.name())) }
            });
        }
        container.clone().start().unwrap();
        container.wait(None).unwrap();
        container.delete(false).unwrap();
        let expected = [
            (HookPoint::CreateRuntime, "creating", true),
            (HookPoint::Poststart, "running", true),
            (HookPoint::Poststop, "stopped", false),
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
        let warnings = container.take_warnings();
        assert!(warnings[0].contains("no poststart") && warnings[1].contains("no poststop"), "{warnings:?}");
        assert_eq!(warnings.len(), 2);
        let container = place.make("exit 0", Hooks::default());
        container.on(HookPoint::CreateRuntime, |_| Err("because".to_owned()));
        let error = container.start().unwrap_err();
        assert_eq!(error.step(), Some(Step::Hook));
        assert!(error.to_string().contains("because"), "{error}");
        // Another one that found it has no functions.
        place.containers.find(container.id()).unwrap().start().unwrap();
        assert_eq!(container.wait(None).unwrap().unwrap().code, Some(0));
        container.delete(false).unwrap();
    });
}

#[test]
fn a_start_is_interrupted_in_any_hook() {
    alone(|place| {
        for (at, name) in NAMES.into_iter().enumerate().take(4) {
            let mut hooks = Hooks::default();
            each_list(&mut hooks)[at].push(place.shell("echo here; exec sleep 1000"));
            let container = place.make("exit 0", hooks);
            let began = std::time::Instant::now();
            let error =
                container.start_interruptible(&mut || began.elapsed() > Duration::from_millis(300)).unwrap_err();
            assert!(matches!(error, Error::Interrupted), "{}: {error}", name);
            assert_eq!(container.state().unwrap(), State::Created);
            container.delete(true).unwrap();
        }
    });
}

/// Whoever wants to change it meanwhile waits until its hooks have run, or gives that up.
#[test]
fn who_waits_for_a_hook_of_somebody_else_can_give_up() {
    alone(|place| {
        let mut hooks = Hooks::default();
        hooks.create_container = vec![place.shell("exec sleep 1000")];
        let container = place.make("exit 0", hooks);
        let other = place.containers.find(container.id()).unwrap();
        let mut is_asked = false;
        let result = container.start_interruptible(&mut || {
            let stop = &mut || true;
            for (what, result) in [
                ("pause", other.pause_interruptible(stop)),
                ("detach", other.detach_interruptible(stop)),
                ("rename", other.rename_interruptible("another", stop)),
                ("snapshot", other.snapshot_interruptible("s", stop)),
                ("restore", other.restore_interruptible("s", stop)),
                ("remove_snapshot", other.remove_snapshot_interruptible("s", stop)),
            ] {
                assert!(matches!(result, Err(Error::Interrupted)), "{what}: {result:?}");
            }
            is_asked = true;
            true
        });
        assert!(matches!(result, Err(Error::Interrupted)) && is_asked, "{result:?}");
        assert!(matches!(place.containers.find("another"), Err(Error::NotFound { .. })));
        container.delete(true).unwrap();
    });
}

#[test]
fn a_hook_is_an_absolute_path_and_its_script_runs_by_its_first_line() {
    alone(|place| {
        let mut hooks = Hooks::default();
        hooks.create_container = vec![Hook::new("relative", ["x"])];
        let made = Container::builder(place.spec("true")).containers(&place.containers).hooks(hooks).create();
        assert_eq!(made.unwrap_err().field(), Some("hooks"));
        let path = place.dir.join("script");
        let text = format!("#!/bin/sh\ncat > /dev/null; echo \"$1 $VAR\" >> {}\n", place.log().display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut hook = Hook::new(&path, ["given"]);
        hook.env = vec!["VAR=value".into()];
        let mut hooks = Hooks::default();
        each_list(&mut hooks).into_iter().for_each(|list| list.push(hook.clone()));
        let container = place.make("exit 0", hooks);
        container.start().unwrap_or_else(|error| panic!("{error}"));
        container.wait(None).unwrap();
        container.delete(false).unwrap();
        assert_eq!(container.take_warnings(), [""; 0]);
        assert_eq!(place.told(), ["given value"; 6]);
    });
}

#[test]
fn it_is_the_same_without_an_init_and_in_namespaces_of_the_hosts() {
    alone(|place| {
        for is_host in [false, true] {
            let mut hooks = Hooks::default();
            hooks.create_container = vec![place.hook("createContainer")];
            hooks.start_container = vec![place.hook("startContainer")];
            let mut spec = place.spec("exec sleep 1000");
            spec.init = false;
            if is_host {
                spec.namespaces.insert(zind_core::Kind::Pid, zind_core::Source::Host);
                spec.namespaces.insert(zind_core::Kind::Net, zind_core::Source::Host);
            }
            let container = Container::builder(spec).containers(&place.containers).hooks(hooks).create().unwrap();
            container.start().unwrap_or_else(|error| panic!("{error}"));
            let pid = container.pid().unwrap().unwrap();
            let inside = links(&pid.to_string());
            container.kill(9).unwrap();
            container.wait(None).unwrap();
            container.delete(false).unwrap();
            let lines = place.told();
            assert_eq!(lines.len(), 2);
            for line in &lines {
                assert!(line.contains(&inside), "{line} {inside}");
                let state: Value = serde_json::from_str(line.split('|').nth(1).unwrap()).unwrap();
                assert_eq!(state["pid"].as_i64(), Some(if is_host { i64::from(pid) } else { 1 }));
            }
            fs::remove_file(place.log()).unwrap();
        }
    });
}

#[test]
fn all_of_it_as_an_ordinary_user() {
    place::once_more_as_an_ordinary_user();
}
