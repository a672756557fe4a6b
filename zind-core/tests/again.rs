//! Launchers of programs in running containers, one after the other in the same one, on the real kernel.

#[path = "support/sleeper.rs"]
mod sleeper;
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sleeper::{end, exec, output, sleeper, traces};
use support::Traces;
use zind_core::{Command, Exec, ExitKind, Process, Stdio, Step};

/// Who looks at what is left behind has to be alone.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The launcher of the program that tells its number, which it ends with.
fn launcher_of(container: &Process, change: &dyn Fn(&mut Exec)) -> (i32, String) {
    let mut request =
        exec(&["sh", "-c", "read go; echo fds:$(ls /proc/self/fd | wc -l); grep CapBnd /proc/self/status"]);
    request.stdin = Stdio::Pipe;
    change(&mut request);
    let process = container.exec(&request).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let output = process.communicate(b"go\n".to_vec(), &mut || false).unwrap();
    (parent, String::from_utf8_lossy(&output.stdout.to_vec()).into_owned())
}

fn is_there(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// What has been let go of while it ran is reaped by a start, once it has ended: on a busy machine not by the next one.
fn reaped(traces: &Traces) {
    let until = Instant::now() + Duration::from_secs(60);
    while !Traces::now().is_within(traces) && Instant::now() < until {
        Command::new("true").status().unwrap();
    }
    traces.assert_same();
}

#[test]
fn a_launcher_serves_the_next_program_and_nobody_else_s() {
    let _alone = alone();
    let traces = traces();
    let container = sleeper();
    let same = |_: &mut Exec| {};
    // A slow machine may let one grow too old, or wait for too long, in between.
    let found = (0..20).find_map(|_| {
        let (first, one) = launcher_of(&container, &same);
        let (second, other) = launcher_of(&container, &same);
        (first == second).then_some((second, one, other))
    });
    let (launcher, one, other) = found.expect("each program has a launcher of its own");
    assert_eq!(one, other);
    // What `ls` has open itself, and the streams.
    assert!(one.starts_with("fds:4\n"), "{one:?}");

    // More than it could give.
    let (_, all) = launcher_of(&container, &|exec| exec.privileged = true);
    let (_, few) = launcher_of(&container, &same);
    assert_eq!(few, one);
    if rustix::process::geteuid().is_root() {
        assert_ne!(all, one);
    }
    // A caller that has given something up has a launcher of its own.
    let confined = std::thread::scope(|scope| {
        let confined = scope.spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            launcher_of(&container, &same).0
        });
        confined.join().unwrap()
    });
    assert_ne!(confined, launcher);
    assert!(!is_there(confined));

    // It is not there for long.
    let begin = Instant::now();
    let (last, _) = launcher_of(&container, &same);
    while is_there(last) {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(launcher_of(&container, &same).1, one);
    let (last, _) = launcher_of(&container, &same);
    end(&container);
    drop(container);
    reaped(&traces);
    assert!(!is_there(last));
}

#[test]
fn a_launcher_that_is_killed_is_replaced() {
    let _alone = alone();
    let traces = traces();
    let container = sleeper();
    let run = |argv: &[&str]| container.exec(&exec(argv)).unwrap().wait(None).unwrap().unwrap();
    for _ in 0..10 {
        let (launcher, _) = launcher_of(&container, &|_| {});
        let pid = rustix::process::Pid::from_raw(launcher).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        // One that is asked while it dies is an error, as it is when any launcher is killed.
        while is_there(launcher) {
            std::thread::sleep(Duration::from_millis(1));
        }
        match container.exec(&exec(&["true"])) {
            Ok(process) => assert!(process.wait(None).unwrap().unwrap().success()),
            Err(error) => assert_eq!(error.step(), Some(Step::Report)),
        }
        assert_eq!(run(&["sh", "-c", "exit 7"]).code, Some(7));
        assert_eq!(run(&["sh", "-c", "kill -9 $$"]).signal, Some(9));
        assert_eq!(container.exec(&exec(&["no-such-program"])).unwrap_err().step(), Some(Step::Exec));
        // With its launcher, the program.
        let process = container.exec(&exec(&["sleep", "600"])).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(parent).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        let exit = process.wait(Some(Duration::from_secs(20))).unwrap().unwrap();
        assert_eq!((exit.kind, exit.signal), (ExitKind::Signaled, Some(9)));
    }
    end(&container);
    drop(container);
    traces.assert_same();
}

#[test]
fn what_a_program_has_used_is_its_own() {
    let _alone = alone();
    let container = sleeper();
    let used = |argv: &[&str]| {
        let process = container.exec(&exec(argv)).unwrap();
        assert!(process.wait(None).unwrap().unwrap().success());
        process.stats().unwrap().max_rss.unwrap()
    };
    let (much, little) = (used(&["dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1"]), used(&["true"]));
    assert!(much > 96 << 20, "{much}");
    assert!(little < 64 << 20, "{little}");
    end(&container);
}

#[test]
fn many_programs_at_once_have_a_launcher_each() {
    let _alone = alone();
    let traces = traces();
    let container = sleeper();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let container = &container;
            scope.spawn(move || {
                for round in 0..12 {
                    let word = format!("{number}-{round}");
                    assert_eq!(output(container, &exec(&["echo", &word])), format!("{word}\n"));
                }
            });
        }
    });
    // One that nobody waits for: reaped by the next start.
    drop(container.exec(&exec(&["sleep", "600"])).unwrap());
    end(&container);
    drop(container);
    reaped(&traces);
}

/// Those that the launcher has made ready: children of its, outside of the container's pid namespace.
fn made_ready(launcher: i32) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap_or_default();
    let is_outside = |pid: &i32| field(*pid, "NSpid").is_some_and(|numbers| numbers.split_whitespace().count() == 1);
    children.split_whitespace().map(|pid| pid.parse().unwrap()).filter(is_outside).collect()
}

fn field(pid: i32, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|line| line.trim().to_owned())
}

/// Runs programs until a launcher has made a joiner ready, which has done all of its work, and gives both.
fn one_made_ready(container: &Process) -> (i32, i32) {
    let mut request = exec(&["sh", "-c", "read go"]);
    request.stdin = Stdio::Pipe;
    let found = (0..400).find_map(|_| {
        let process = container.exec(&request).unwrap();
        let launcher = field(process.pid(), "PPid").unwrap().parse().unwrap();
        process.communicate(b"go\n".to_vec(), &mut || false).unwrap();
        // A slow machine may let the launcher grow too old before. The one that asks once has none.
        (0..20).find_map(|_| {
            std::thread::sleep(Duration::from_millis(2));
            let ready = made_ready(launcher).into_iter().find(|pid| field(*pid, "Seccomp").as_deref() == Some("2"));
            ready.map(|ready| (launcher, ready))
        })
    });
    found.expect("a launcher that was asked twice makes a joiner ready")
}

#[test]
fn a_joiner_that_is_ready_has_nothing_but_the_program_s_rights() {
    let _alone = alone();
    let traces = traces();
    let container = sleeper();
    let (_, joiner) = one_made_ready(&container);
    let own = output(&container, &exec(&["cat", "/proc/self/status"]));
    let (_, other) = one_made_ready(&container);
    assert_ne!(joiner, other);
    for name in ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"] {
        let line = own.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        // It may have run out of patience meanwhile.
        if let Some(found) = field(other, name) {
            let normal = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let is_id = matches!(name, "Uid" | "Gid" | "Groups") && !rustix::process::geteuid().is_root();
            assert!(is_id || normal(&found) == normal(line), "{name}: {found} and {line}");
        }
    }
    // Two sockets, and nothing of the caller's or the container's.
    if let Ok(links) = std::fs::read_dir(format!("/proc/{other}/fd")) {
        let links: Vec<_> = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok()).collect();
        assert!(links.iter().all(|link| link.to_string_lossy().starts_with("socket:")), "{links:?}");
        assert!(links.len() <= 2, "{links:?}");
    }
    // Nobody in the container sees it.
    let seen = output(&container, &exec(&["sh", "-c", "cat /proc/[0-9]*/comm"]));
    assert!(seen.lines().filter(|name| *name == "zind-init").count() <= 1, "{seen}");
    let (launcher, last) = one_made_ready(&container);
    end(&container);
    assert!(!is_there(launcher) && !is_there(last));
    drop(container);
    traces.assert_same();
}

#[test]
fn a_joiner_that_is_ready_serves_one_program_that_is_let_in_as_the_last_one_was() {
    let _alone = alone();
    let traces = traces();
    let container = sleeper();
    // One that was made ready has made its session keyring, set its mask and joined already: the program is as any other.
    let look = "umask; grep -E '^(Cap|NoNew|Seccomp|SigBlk|SigIgn|Groups)' /proc/self/status; readlink /proc/self/ns/pid; \
                readlink /proc/self/ns/mnt; pwd; ls /proc/self/fd | wc -l; ulimit -c";
    let first = output(&container, &exec(&["sh", "-c", look]));
    for _ in 0..20 {
        assert_eq!(output(&container, &exec(&["sh", "-c", look])), first);
    }
    // Others in between.
    one_made_ready(&container);
    let mut other = exec(&["sh", "-c", "umask; pwd"]);
    (other.umask, other.cwd) = (Some(0o027), Some("/usr".into()));
    assert_eq!(output(&container, &other), "0027\n/usr\n");
    assert_eq!(output(&container, &exec(&["sh", "-c", look])), first);
    one_made_ready(&container);
    let error = container.exec(&exec(&["no-such-program"])).unwrap_err();
    assert_eq!((error.step(), error.errno().map(|errno| errno as i32)), (Some(Step::Exec), Some(2)));
    // Killed, it costs time.
    for _ in 0..5 {
        let (_, joiner) = one_made_ready(&container);
        let pid = rustix::process::Pid::from_raw(joiner).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        while is_there(joiner) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(output(&container, &exec(&["sh", "-c", look])), first);
    }
    // Nor does it outlive its launcher's patience.
    let (launcher, joiner) = one_made_ready(&container);
    let begin = std::time::Instant::now();
    while is_there(launcher) || is_there(joiner) {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let (launcher, joiner) = one_made_ready(&container);
    let pid = rustix::process::Pid::from_raw(launcher).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    while is_there(launcher) || is_there(joiner) {
        assert!(begin.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
    end(&container);
    drop(container);
    traces.assert_same();
}
