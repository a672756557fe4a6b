//! Limits and readings, on the real kernel: whatever hierarchies this machine has. Run as root, all of it is run again where
//! only version 1 is mounted, and as an ordinary user to whom groups were handed over.
#![allow(missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::Traces;
use zind_core::cgroup::{Layout, sweep};
use zind_core::{Cgroup, Command, Errno, Error, ExitKind, IoLimit, Process, Resources, Stdio, Step};

static TURN: Mutex<()> = Mutex::new(());

/// The group that was handed over to the ordinary user who runs this, as a path from the root.
fn delegated() -> Option<String> {
    std::env::var("ZIND_TEST_DELEGATED").ok()
}

/// The groups of this process: their names begin with its pid and namespace.
fn groups() -> BTreeSet<PathBuf> {
    let layout = Layout::read().unwrap();
    let mine = format!("-{}-", std::process::id());
    let mut found = BTreeSet::new();
    for hierarchy in layout.v2.iter().chain(&layout.v1) {
        let own = hierarchy.own.as_ref().unwrap_or(&hierarchy.mount);
        for dir in own.ancestors().take_while(|dir| dir.starts_with(&hierarchy.mount)) {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with("zind-") && name.contains(&mine) {
                    found.insert(entry.path());
                }
            }
        }
    }
    found
}

fn alone(body: impl FnOnce()) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !is_root() && delegated().is_none() {
        println!("skipped: an ordinary user has no groups here");
        return;
    }
    // What zind keeps for good is made before somebody looks.
    let _ = Command::new("true").resources(Resources::new().pids(30)).output();
    let before = Traces::now();
    body();
    assert_eq!(groups(), BTreeSet::new(), "groups are left");
    before.assert_same();
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn sh(script: &str, resources: Resources) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).resources(resources);
    command
}

fn text(bytes: &zind_core::Captured) -> String {
    String::from_utf8_lossy(&bytes.to_vec()).into_owned()
}

fn running(script: &str, resources: Resources) -> Process {
    let mut command = sh(script, resources);
    command.spec_mut().stdout = Stdio::Pipe;
    let process = command.spawn().unwrap_or_else(|error| panic!("{error}"));
    // The script says a word when it is under way.
    let out = process.take_stdout().unwrap();
    rustix::io::read(&out, &mut [0u8; 8]).unwrap();
    process
}

#[test]
fn a_start_without_resources_touches_no_group() {
    alone(|| {
        let output = Command::new("cat").arg("/proc/self/cgroup").output().unwrap();
        assert!(!text(&output.stdout).contains("zind"), "{}", text(&output.stdout));
        assert_eq!(output.isolation.cgroup, Vec::<PathBuf>::new());
        assert_eq!(output.stats.memory_peak, None);
    });
}

#[test]
fn who_is_in_a_group_sees_it_as_the_root() {
    alone(|| {
        let command = sh("cat /proc/self/cgroup", Resources::new().memory(64 << 20).pids(10).cpus(0.5));
        let output = command.output().unwrap();
        let said = text(&output.stdout);
        assert!(!output.isolation.cgroup.is_empty() && output.isolation.in_force().contains("memory"));
        for controller in ["memory", "pids", "cpu"] {
            let line = said.lines().find(|line| {
                line.split(':').nth(1).is_some_and(|names| names.split(',').any(|name| name == controller))
            });
            let line = line.or(said.lines().find(|line| line.starts_with("0::"))).unwrap();
            assert!(line.ends_with(":/"), "{controller}: {said}");
        }
    });
}

#[test]
fn memory_beyond_the_limit_is_out_of_memory() {
    alone(|| {
        let hog = "exec dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null";
        let output = sh(hog, Resources::new().memory(32 << 20).swap(0)).output().unwrap();
        assert_eq!((output.exit.kind, output.exit.signal), (ExitKind::Oom, Some(9)), "{:?}", output.stats);
        assert!(output.stats.oom_kills >= Some(1) && output.stats.memory_peak > Some(16 << 20), "{:?}", output.stats);
        let output = sh(hog, Resources::new().memory(256 << 20)).output().unwrap();
        assert!(output.exit.success(), "{:?}", output.exit);
        assert_eq!(output.stats.oom_kills, Some(0));
        assert!(output.stats.memory_peak > Some(90 << 20), "{:?}", output.stats);
        // A kill of another kind is none.
        let output = sh("kill -9 $$", Resources::new().memory(32 << 20)).output().unwrap();
        assert_eq!(output.exit.kind, ExitKind::Signaled);
    });
}

#[test]
fn a_full_tmpfs_counts_as_memory() {
    alone(|| {
        let fill = "exec dd if=/dev/zero of=/tmp/x bs=1M count=200 2>/dev/null";
        let output = sh(fill, Resources::new().memory(32 << 20).swap(0)).output().unwrap();
        assert_eq!(output.exit.kind, ExitKind::Oom, "{:?} {:?}", output.exit, output.stats);
    });
}

#[test]
fn pids_count_the_payload_s_own() {
    alone(|| {
        let one = sh("echo alone", Resources::new().pids(1)).output().unwrap();
        assert!(one.exit.success(), "{}", text(&one.stderr));
        assert_eq!(text(&one.stdout), "alone\n");
        let forks = "sleep 0 & sleep 0 & wait; echo all";
        let refused = sh(forks, Resources::new().pids(1)).output().unwrap();
        assert!(!refused.exit.success() && text(&refused.stderr).contains("ork"), "{}", text(&refused.stderr));
        assert!(refused.stats.pids_limited >= Some(1));
        let fine = sh(forks, Resources::new().pids(3)).output().unwrap();
        assert_eq!(text(&fine.stdout), "all\n", "{}", text(&fine.stderr));
        if let Some(peak) = fine.stats.pids_peak {
            assert_eq!(peak, 3);
        }
    });
}

#[test]
fn a_fork_bomb_is_held_and_ends_at_once() {
    alone(|| {
        // Enough memory for that many shells: it is the number that is to hold them.
        let mut command = sh("b() { b | b & }; (b) & exec sleep 60", Resources::new().pids(50).memory(256 << 20));
        command.timeout(Duration::from_secs(3));
        let output = command.output().unwrap();
        assert_eq!(output.exit.kind, ExitKind::Timeout);
        // The same without a PID 1 whose end is everybody's.
        let mut command = sh("b() { b | b & }; (b) & exec sleep 60", Resources::new().pids(50));
        command.init(false).timeout(Duration::from_secs(3));
        assert_eq!(command.output().unwrap().exit.kind, ExitKind::Timeout);
    });
}

#[test]
fn the_cpu_is_shared_as_asked() {
    alone(|| {
        let mut command = sh("while :; do :; done", Resources::new().cpus(0.2));
        command.timeout(Duration::from_secs(3));
        let output = command.output().unwrap();
        assert_eq!(output.exit.kind, ExitKind::Timeout);
        let stats = &output.stats;
        let cpu = stats.cpu_user.unwrap() + stats.cpu_system.unwrap();
        assert!(stats.cpu_throttled > Some(Duration::ZERO) && stats.cpu_throttled_periods > Some(0), "{stats:?}");
        assert!(cpu.as_secs_f64() / stats.wall.as_secs_f64() < 0.4, "{stats:?}");
    });
}

#[test]
fn a_cpuset_is_where_it_runs() {
    alone(|| {
        let output =
            sh("grep Cpus_allowed_list /proc/self/status", Resources::new().cpuset_cpus("0")).output().unwrap();
        assert_eq!(text(&output.stdout).split_whitespace().last(), Some("0"));
        let error = sh("true", Resources::new().cpuset_cpus("4000")).output().unwrap_err();
        assert_eq!(error.step(), Some(Step::WriteCgroup), "{error}");
        assert!(error.to_string().contains("\"4000\"") && error.path().unwrap().ends_with("cpuset.cpus"), "{error}");
    });
}

#[test]
fn a_paused_container_stands_still_and_can_be_killed() {
    alone(|| {
        for init in [true, false] {
            let mut command = sh("while :; do echo x; done", Resources::new());
            command.init(init).spec_mut().stdout = Stdio::Pipe;
            let process = command.spawn().unwrap();
            let out = process.take_stdout().unwrap();
            process.pause().unwrap();
            assert!(process.is_paused().unwrap());
            // What was in the pipe; then nothing comes.
            let used = |process: &Process| process.stats().unwrap().cpu_user;
            let before = used(&process);
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(used(&process), before);
            process.resume().unwrap();
            assert!(!process.is_paused().unwrap());
            rustix::io::read(&out, &mut [0u8; 64]).unwrap();
            process.pause().unwrap();
            process.kill().unwrap();
            let exit = process.wait(Some(Duration::from_secs(10))).unwrap().unwrap();
            assert_eq!((exit.kind, exit.signal), (ExitKind::Signaled, Some(9)));
            assert!(matches!(process.pause(), Err(Error::State(_))));
        }
    });
}

#[test]
fn limits_change_while_it_runs() {
    alone(|| {
        let process = running("echo; exec sleep 60", Resources::new().memory(64 << 20).pids(10));
        assert_eq!(process.stats().unwrap().memory_limit, Some(64 << 20));
        process.update(&Resources::new().memory(128 << 20).pids(20)).unwrap();
        assert_eq!(process.stats().unwrap().memory_limit, Some(128 << 20));
        process.update(&Resources::new().memory(u64::MAX)).unwrap();
        assert_eq!(process.stats().unwrap().memory_limit, None);
        let refused = process.update(&Resources::new().memory(1));
        assert_eq!(refused.unwrap_err().field(), Some("resources"));
        process.kill().unwrap();
        process.wait(None).unwrap();
        assert!(matches!(process.update(&Resources::new().pids(1)), Err(Error::State(_))));
        let process = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(matches!(process.update(&Resources::new().pids(1)), Err(Error::State(_))));
        process.kill().unwrap();
        process.wait(None).unwrap();
    });
}

#[test]
fn a_limit_below_what_is_in_use_is_refused() {
    alone(|| {
        // What is in its memory cannot be taken back without swap.
        let hold = "dd if=/dev/zero of=/tmp/x bs=1M count=64 2>/dev/null; echo; exec sleep 60";
        let process = running(hold, Resources::new().memory(128 << 20).swap(0));
        let error = process.update(&Resources::new().memory(16 << 20)).unwrap_err();
        assert_eq!((error.step(), error.errno()), (Some(Step::WriteCgroup), Some(Errno::EBUSY)), "{error}");
        assert!(error.to_string().contains("16777216") && error.to_string().contains("in use"), "{error}");
        assert!(process.try_wait().unwrap().is_none(), "it lives on");
        process.kill().unwrap();
        process.wait(None).unwrap();
    });
}

#[test]
fn readings_have_their_units() {
    alone(|| {
        let process = running(
            "dd if=/dev/zero of=/tmp/x bs=1M count=20 2>/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo; exec sleep 60",
            Resources::new(),
        );
        let stats = process.stats().unwrap();
        assert!(stats.memory_shmem > Some(19 << 20) && stats.memory_shmem < Some(40 << 20), "{stats:?}");
        assert!(stats.memory_current >= stats.memory_shmem && stats.memory_peak >= stats.memory_current, "{stats:?}");
        assert!(
            stats.cpu_user > Some(Duration::from_millis(2)) && stats.cpu_user < Some(Duration::from_secs(20)),
            "{stats:?}"
        );
        assert_eq!(stats.pids, Some(1), "{stats:?}");
        assert!(stats.wall > Duration::ZERO);
        let is_sleep = |process: &Process| process.processes().unwrap().iter().any(|one| one.name == "sleep");
        while !is_sleep(&process) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let processes = process.processes().unwrap();
        assert_eq!(processes.len(), 2, "{processes:?}");
        assert!(processes.iter().any(|one| one.pid == process.pid() && one.container_pid == 1));
        let payload = processes.iter().find(|one| one.container_pid != 1).unwrap();
        assert_eq!(payload.cmdline, ["sleep", "60"]);
        assert_eq!(payload.ppid, process.pid());
        process.kill().unwrap();
        process.wait(None).unwrap();
        assert_eq!(process.processes().unwrap(), []);
        let total = process.stats().unwrap();
        assert!(total.memory_peak > Some(19 << 20) && total.memory_current.is_none(), "{total:?}");
    });
}

#[test]
fn readings_come_at_intervals_and_the_last_is_of_the_whole_life() {
    alone(|| {
        let process = running("echo; exec sleep 60", Resources::new());
        let mut seen = Vec::new();
        for stats in process.stats_every(Duration::from_millis(5)) {
            seen.push(stats.unwrap());
            if seen.len() == 3 {
                process.kill().unwrap();
            }
        }
        assert!(seen.len() >= 4 && seen[..3].iter().all(|stats| stats.pids == Some(1)), "{seen:?}");
        assert!(seen.windows(2).all(|two| two[0].wall < two[1].wall), "{seen:?}");
        assert_eq!(seen.last(), Some(&process.stats().unwrap()));
        assert_eq!(process.stats_every(Duration::from_secs(60)).count(), 1, "ended already");
    });
}

#[test]
fn processes_are_listed_without_a_group_too() {
    alone(|| {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 61 & echo; wait"]).spec_mut().stdout = Stdio::Pipe;
        let process = command.spawn().unwrap();
        let out = process.take_stdout().unwrap();
        rustix::io::read(&out, &mut [0u8; 8]).unwrap();
        let names: Vec<_> = process.processes().unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        process.kill().unwrap();
        process.wait(None).unwrap();
    });
}

#[test]
fn a_start_that_fails_leaves_no_group() {
    alone(|| {
        let mut command = Command::new("/no/such/program");
        command.resources(Resources::new().memory(64 << 20).pids(5));
        assert_eq!(command.output().unwrap_err().step(), Some(Step::Exec));
        assert_eq!(groups(), BTreeSet::new());
        // So little that not even the launcher gets on.
        let error = sh("true", Resources::new().memory(4096).swap(0)).output().unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOMEM), "{error}");
        let mut command = sh("true", Resources::new().pids(5));
        command.require(["memory"]);
        let error = command.output().unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains("resources="), "{error}");
    });
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    alone(|| {
        let disk = |device: &str| Resources::new().io(IoLimit::of(device).bps(Some(1 << 20), None));
        let error = sh("true", disk("/dev/no-such-disk")).output().unwrap_err();
        assert_eq!(
            (error.errno(), error.path()),
            (Some(Errno::ENOENT), Some(Path::new("/dev/no-such-disk"))),
            "{error}"
        );
        let error = sh("true", disk("4000:4000")).output().unwrap_err();
        assert_eq!((error.step(), error.errno()), (Some(Step::WriteCgroup), Some(Errno::ENODEV)), "{error}");
        assert!(error.to_string().contains("4000:4000"), "{error}");
        let error = sh("true", Resources::new().unified("magic.max", "1")).output().unwrap_err();
        assert_eq!(error.field(), Some("resources"), "{error}");
        let mut command = sh("true", Resources::new().pids(5));
        command.cgroup_parent("/../x");
        assert_eq!(command.output().unwrap_err().field(), Some("cgroup_parent"));
    });
}

#[test]
fn a_named_parent_is_made_and_removed_with_the_last() {
    alone(|| {
        let name = format!("{}/test-{}/below", delegated().unwrap_or_default(), std::process::id());
        let mut command = sh("echo; exec sleep 60", Resources::new().memory(64 << 20).cpuset_cpus("0"));
        command.cgroup_parent(&name).spec_mut().stdout = Stdio::Pipe;
        let process = command.spawn().unwrap();
        let paths = process.isolation().cgroup.clone();
        assert!(!paths.is_empty());
        for path in &paths {
            assert!(path.parent().unwrap().ends_with(&name[1..]), "{path:?}");
        }
        process.kill().unwrap();
        process.wait(None).unwrap();
        for path in &paths {
            let top = path.parent().unwrap().parent().unwrap();
            assert!(!top.exists(), "{top:?}");
        }
    });
}

#[test]
fn groups_of_processes_that_are_gone_are_swept() {
    alone(|| {
        let group = Cgroup::create(&Resources::new().pids(5), None).unwrap();
        let mut orphans = Vec::new();
        for path in group.paths() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Another start time: whoever had this pid is gone.
            let mut parts: Vec<String> = name.split('-').map(str::to_owned).collect();
            parts[3] = format!("{:x}", u64::from_str_radix(&parts[3], 16).unwrap() - 1);
            for kind in ["d", "k"] {
                parts[5] = kind.to_owned();
                let orphan = path.with_file_name(parts.join("-"));
                fs::create_dir(&orphan).unwrap();
                orphans.push(orphan);
            }
        }
        // One has somebody in it who was to end, and one somebody who was not.
        let mut children = Vec::new();
        for kind in ["-d", "-k"] {
            let dir = orphans.iter().find(|path| path.to_string_lossy().ends_with(kind)).unwrap();
            let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
            children.push(child);
        }
        let removed = sweep(None).unwrap();
        assert!(children[0].try_wait().unwrap().is_some(), "it was to end with its owner");
        assert!(children[1].try_wait().unwrap().is_none(), "it was to be kept");
        children[1].kill().unwrap();
        children[1].wait().unwrap();
        let removed: Vec<_> = removed.into_iter().chain(sweep(None).unwrap()).collect();
        for orphan in &orphans {
            assert!(removed.contains(orphan) && !orphan.exists(), "{orphan:?}");
        }
        assert!(group.paths().iter().all(|path| path.exists()), "our own stay");
        group.delete().unwrap();
        group.delete().unwrap();
    });
}

#[test]
fn a_container_that_is_paused_as_it_is_killed_ends() {
    alone(|| {
        for _ in 0..30 {
            let process = running("echo; exec sleep 60", Resources::new().pids(5));
            std::thread::scope(|scope| {
                let pausing = scope.spawn(|| while process.pause().is_ok() {});
                process.kill().unwrap();
                let exit = process.wait(Some(Duration::from_secs(20))).unwrap();
                if exit.is_none() {
                    process.kill().unwrap();
                }
                assert_eq!(exit.map(|exit| exit.signal), Some(Some(9)));
                pausing.join().unwrap();
            });
            assert!(matches!(process.pause(), Err(Error::State(_))));
        }
    });
}

#[test]
fn groups_of_other_pid_namespaces_are_swept_when_they_are_old_and_empty() {
    alone(|| {
        let group = Cgroup::create(&Resources::new().pids(5), None).unwrap();
        let (mut old, mut others) = (Vec::new(), Vec::new());
        for path in group.paths() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let foreign = |number: u32, kind: &str| {
                let mut parts: Vec<String> = name.split('-').map(str::to_owned).collect();
                (parts[1], parts[4], parts[5]) = (parts[1].clone() + "7", number.to_string(), kind.to_owned());
                let dir = path.with_file_name(parts.join("-"));
                fs::create_dir(&dir).unwrap();
                dir
            };
            let (empty, used, kept, young) = (foreign(1, "d"), foreign(2, "d"), foreign(3, "k"), foreign(4, "d"));
            for dir in [&empty, &used, &kept] {
                let then = std::time::SystemTime::now() - Duration::from_secs(100);
                fs::File::open(dir).unwrap().set_modified(then).unwrap();
            }
            old.push(empty);
            others.extend([used, kept, young]);
        }
        let used = others.iter().find(|dir| dir.to_string_lossy().ends_with("-2-d")).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(used.join("cgroup.procs"), child.id().to_string()).unwrap();
        let removed = sweep(None).unwrap();
        let is_running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        let is_there = |dir: &PathBuf| dir.exists();
        let (old_is_gone, used_is_there) = (!old.iter().any(is_there), used.exists());
        let rest_is_there = others.iter().filter(|dir| !dir.to_string_lossy().ends_with("-2-d")).all(is_there);
        others.iter().filter(|dir| dir.exists()).for_each(|dir| fs::remove_dir(dir).unwrap());
        assert!(old_is_gone && old.iter().all(|dir| removed.contains(dir)), "{old:?} {removed:?}");
        assert!(is_running && used_is_there && rest_is_there, "{others:?}");
        group.delete().unwrap();
    });
}

/// Runs the test below somewhere else: a sweep by a process that is not the owner.
fn swept_by(prefix: &[&str]) {
    let mut command = std::process::Command::new(prefix[0]);
    command.args(&prefix[1..]).arg(std::env::current_exe().unwrap()).args(["--exact", "sweeps_for_another_test"]);
    let output = command.env("ZIND_TEST_SWEEP", "1").output().unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && all.contains("1 passed"), "{all}");
}

#[test]
fn sweeps_for_another_test() {
    if std::env::var_os("ZIND_TEST_SWEEP").is_some() {
        sweep(None).unwrap();
    }
}

#[test]
fn who_has_another_clock_sweeps_nothing_that_lives() {
    if !is_root() || !Path::new("/proc/self/ns/time").exists() {
        return;
    }
    alone(|| {
        let process = running("echo; exec sleep 60", Resources::new().pids(5));
        swept_by(&["unshare", "--time", "--boottime", "100000", "--fork"]);
        assert!(process.try_wait().unwrap().is_none(), "it was killed");
        process.kill().unwrap();
        process.wait(None).unwrap();
    });
}

#[test]
fn groups_in_use_keep_those_below_and_hold_no_start_up() {
    alone(|| {
        let before = Traces::now();
        let process = running("echo; exec sleep 60", Resources::new().pids(5));
        let (paths, pid) = (process.isolation().cgroup.clone(), process.pid());
        let mut below = Vec::new();
        for path in &paths {
            let dir = path.join("empty");
            fs::create_dir(&dir).unwrap();
            below.push(dir);
        }
        let all_exist = || below.iter().all(|dir| dir.exists());
        drop(process);
        assert!(all_exist(), "a dropped handle took them");
        Command::new("true").output().unwrap();
        sweep(None).unwrap();
        assert!(all_exist(), "a later start took them");
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        // Each start looks after the group and, once it has ended, the waiter.
        while !groups().is_empty() || !Traces::now().is_within(&before) {
            assert!(Instant::now() < until, "{:?}", groups());
            Command::new("true").output().unwrap();
        }
    });
}

#[test]
fn a_group_of_its_own_takes_processes_in() {
    alone(|| {
        let group = Cgroup::create(&Resources::new().pids(5), None).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        group.add(child.id() as i32).unwrap();
        assert_eq!(group.processes().unwrap(), [child.id() as i32]);
        assert_eq!(group.stats().pids, Some(1));
        group.freeze().unwrap();
        group.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        group.delete().unwrap();
        assert_eq!(group.add(1).unwrap_err().step(), Some(Step::JoinCgroup));
        assert!(group.path_of("pids").is_some_and(|path| !path.exists()));
    });
}

#[test]
fn a_dropped_handle_leaves_the_group_to_a_later_start() {
    alone(|| {
        let before = Traces::now();
        let process = running("echo; exec sleep 60", Resources::new().pids(5));
        let pid = process.pid();
        drop(process);
        assert_ne!(groups(), BTreeSet::new());
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while !groups().is_empty() || !Traces::now().is_within(&before) {
            assert!(Instant::now() < until, "{:?}", groups());
            Command::new("true").output().unwrap();
        }
    });
}

/// Everything in here again, as somebody else or somewhere else.
fn again(prepare: &str, environment: &[(&str, &str)]) -> String {
    let dir = std::env::temp_dir().join(format!("zind-test-groups-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let binary = dir.join("groups");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for path in [&dir, &binary] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut host = std::process::Command::new("unshare");
    host.args(["-m", "--propagation", "private", "sh", "-ec", prepare, "sh"]).arg(&binary).current_dir("/");
    host.env("ZIND_TEST_INNER", "1").envs(environment.iter().copied());
    let output = host.output().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && all.contains("0 failed"), "{all}");
    all
}

/// True where the whole file is not being run again already.
fn is_outer() -> bool {
    is_root() && std::env::var_os("ZIND_TEST_INNER").is_none()
}

const AS_NOBODY: &str = "exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all";

#[test]
fn all_of_it_with_version_1_alone() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let layout = Layout::read().unwrap();
    let (Some(v2), false, true) = (&layout.v2, layout.v1.is_empty(), is_outer()) else { return };
    let all = again("umount \"$MOUNT\"; exec \"$1\"", &[("MOUNT", v2.mount.to_str().unwrap())]);
    assert!(!all.contains("skipped:"), "{all}");
}

/// Makes a group for an ordinary user in each hierarchy; what moves a shell into them.
fn hand_over(name: &str) -> (Vec<PathBuf>, String) {
    let layout = Layout::read().unwrap();
    let mut dirs = Vec::new();
    let mut enter = String::new();
    for hierarchy in layout.v2.iter().chain(&layout.v1) {
        if hierarchy.controllers.iter().any(|name| name.starts_with("name=")) {
            continue;
        }
        let is_v2 = layout.v2.as_ref() == Some(hierarchy);
        let dir = hierarchy.mount.join(name);
        let own = |path: &Path| std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        let mut made = vec![dir.clone()];
        if is_v2 {
            let wanted: Vec<String> = hierarchy.controllers.iter().map(|name| format!("+{name}")).collect();
            fs::write(hierarchy.mount.join("cgroup.subtree_control"), wanted.join(" ")).unwrap();
            // A group with processes hands nothing down.
            made.push(dir.join("leaf"));
        }
        for dir in &made {
            fs::create_dir(dir).unwrap();
            own(dir);
            for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                if dir.join(file).exists() {
                    own(&dir.join(file));
                }
            }
        }
        for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| !is_v2 && hierarchy.has("cpuset")) {
            fs::write(dir.join(file), fs::read(hierarchy.mount.join(file)).unwrap()).unwrap();
        }
        enter += &format!("echo $$ > {}/cgroup.procs\n", made.last().unwrap().display());
        dirs.extend(made);
    }
    (dirs, enter)
}

#[test]
fn all_of_it_as_an_ordinary_user_with_groups() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !is_outer() {
        return;
    }
    let name = format!("zind-test-user-{}", std::process::id());
    let (dirs, enter) = hand_over(&name);
    let result = std::panic::catch_unwind(|| {
        again(&format!("{enter}{AS_NOBODY} \"$1\""), &[("ZIND_TEST_DELEGATED", &format!("/{name}"))])
    });
    let until = Instant::now() + Duration::from_secs(60);
    for dir in dirs.iter().rev() {
        while fs::remove_dir(dir).is_err() {
            assert!(Instant::now() < until, "{dir:?} is in use");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let all = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(!all.contains("skipped:"), "{all}");
}

#[test]
fn an_ordinary_user_without_groups_is_told_the_cure() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if is_outer() {
        let all = again(&format!("{AS_NOBODY} \"$1\" --exact an_ordinary_user_without_groups_is_told_the_cure"), &[]);
        assert!(all.contains("1 passed"), "{all}");
    }
    if is_root() || delegated().is_some() {
        return;
    }
    let mut command = sh("true", Resources::new().memory(64 << 20));
    command.require(["memory"]);
    let error = command.output().unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("Delegate=yes") || hint.contains("chown")), "{error}");
    // What costs nothing is to be had all the same.
    let mut command = sh("ulimit -n", Resources::new());
    command.rlimit(7, Some(99), Some(99));
    let output = command.output().unwrap();
    assert_eq!((text(&output.stdout).trim(), output.isolation.cgroup.len()), ("99", 0));
    assert!(output.stats.cpu_user.is_some() && output.stats.max_rss.is_some());
}
