//! Limits, events and readings for whoever runs this, wherever groups can be made: as root in a hybrid or a version 2 tree,
//! below systemd's managers, and as an ordinary user with a delegated subtree. `make test-vm` runs it in each of them.
#![allow(missing_docs)]

use std::fs;
use std::time::Duration;

use zind_core::cgroup::Layout;
use zind_core::{Command, Error, EventKind, ExitKind, Resources, Stdio};

/// A request for a shell in a control group.
fn sh(script: &str, resources: Resources) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let spec = command.spec_mut();
    spec.resources = Some(resources);
    spec.stdout = Stdio::Pipe;
    spec.stdin = Stdio::Null;
    command
}

fn limits(change: impl FnOnce(&mut Resources)) -> Resources {
    let mut resources = Resources::new();
    change(&mut resources);
    resources
}

/// True where this user can be given a group with memory and pids: elsewhere the refusal says how to get there.
fn can_limit() -> bool {
    let limits = limits(|r| (r.memory, r.pids) = (Some(256 << 20), Some(50)));
    match sh("true", limits).output() {
        Ok(_) => true,
        Err(Error::Unsupported { needs, .. }) if !nix::unistd::geteuid().is_root() => {
            assert!(needs.contains("Delegate=yes") || needs.contains("chown"), "{needs}");
            println!("skipped: an ordinary user without a delegated subtree");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn limits_are_met_and_nothing_is_left() {
    if !can_limit() {
        return;
    }
    let resources = limits(|r| (r.memory, r.pids, r.swap) = (Some(48 << 20), Some(20), None));
    let output = sh("exec tail /dev/zero", resources.clone()).output().unwrap();
    assert_eq!(output.exit.kind, ExitKind::Oom, "{output:?}");
    assert!(output.stats.oom_kills.unwrap_or(0) >= 1, "{:?}", output.stats);
    assert!(output.stats.memory_peak.unwrap_or(0) > 24 << 20, "{:?}", output.stats);
    let forks = "for i in $(seq 60); do sleep 20 & done 2>/dev/null; wait";
    let output = sh(forks, resources).output().unwrap();
    assert!(!output.exit.success(), "{output:?}");
    for group in &output.isolation.cgroup {
        assert!(!group.exists(), "{} is left", group.display());
    }
}

#[test]
fn the_payload_is_in_the_group_that_is_reported() {
    if !can_limit() {
        return;
    }
    let process = sh("sleep 60", limits(|r| r.memory = Some(64 << 20))).spawn().unwrap();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
    let reported = &process.isolation().cgroup;
    assert!(!reported.is_empty());
    for dir in reported {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        assert!(groups.contains(&name), "{groups} {}", dir.display());
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        assert!(procs.lines().any(|line| line == process.pid().to_string()), "{procs}");
    }
    assert!(process.stats().unwrap().memory_current.unwrap() > 0);
    process.kill().unwrap();
    process.wait(None).unwrap();
}

#[test]
fn events_tell_of_memory_that_ran_out_and_of_the_end() {
    if !can_limit() {
        return;
    }
    let process = sh("exec tail /dev/zero", limits(|r| r.memory = Some(48 << 20))).spawn().unwrap();
    let mut events = process.events(&[]).unwrap();
    let mut kinds = Vec::new();
    while let Some(event) = events.next_within(Some(Duration::from_secs(60))).unwrap() {
        kinds.push(event.kind);
    }
    assert!(kinds.contains(&EventKind::Oom) && kinds.contains(&EventKind::OomKill), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&EventKind::Empty));
    assert_eq!(process.wait(None).unwrap().unwrap().kind, ExitKind::Oom);
    let after: Vec<_> = process.events(&[]).unwrap().map(|event| event.unwrap().kind).collect();
    assert!(after.contains(&EventKind::OomKill), "told after the end too: {after:?}");
}

/// What the machine this runs on is, for the log of the virtual machine.
#[test]
fn the_tree_is_understood() {
    let layout = Layout::read().unwrap();
    let own = layout.v2.as_ref().and_then(|v2| v2.own.clone());
    println!("{} {own:?}", layout.kind());
    assert_ne!(layout.kind(), "none");
}
