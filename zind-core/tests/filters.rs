//! System call filters of one's own, on the real kernel: what a profile says, who answers, what is told and learned.
#![allow(missing_docs)]

mod support;

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::Traces;
use zind_core::security::syscalls::Arch;
use zind_core::terminal::Size;
use zind_core::{Command, Error, Exec, Landlock, LandlockPolicy, Profile, Seccomp, Stdio, Step};

static TURN: Mutex<()> = Mutex::new(());

fn alone(body: impl FnOnce()) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Command::new("true").output().unwrap();
    let before = Traces::now();
    body();
    before.assert_same();
}

const LONG: Option<Duration> = Some(Duration::from_secs(60));

fn profile(action: &str) -> Seccomp {
    let rule = format!("{{\"names\": [\"mkdir\"], \"action\": \"SCMP_ACT_{action}\"}}");
    Seccomp::Profile(
        Profile::from_json(&format!("{{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{rule}]}}")).unwrap(),
    )
}

/// Says what mkdir(2) says, three times.
fn three() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "for i in a b c; do mkdir /tmp/$i 2>&1; echo $?; done"]).stdout(Stdio::Pipe);
    command
}

#[test]
fn a_profile_is_followed_and_told() {
    alone(|| {
        let output = three().seccomp(profile("KILL_PROCESS")).output().unwrap();
        assert_eq!(output.isolation.seccomp, "profile");
        assert_eq!(String::from_utf8(output.stdout.to_vec()).unwrap().matches("159").count(), 3);
        let refused =
            Command::new("true").seccomp(profile("ERRNO")).violations(true).require(["seccomp"]).output().unwrap();
        assert!(refused.exit.success());
        let asked = Command::new("true").seccomp(profile("NOTIFY")).violations(true).output();
        assert!(matches!(asked, Err(Error::Spec { field: "violations", .. })), "{asked:?}");
    });
}

#[test]
fn whoever_has_the_listener_decides() {
    alone(|| {
        let process = three().seccomp(profile("NOTIFY")).spawn().unwrap();
        let notifier = process.take_notifier().unwrap();
        assert!(process.take_notifier().is_none() && process.violations().is_err() && process.learned().is_err());
        let call = notifier.receive(LONG).unwrap().unwrap();
        assert_eq!((call.name(), call.arch, call.number), (Some("mkdir"), Some(Arch::NATIVE), 83));
        assert_eq!(notifier.receive(Some(Duration::ZERO)).unwrap(), None);
        let mut name = [0; 1];
        assert_eq!((notifier.read_memory(&call, call.arguments[0], &mut name).unwrap(), name), (1, [b'/']));
        assert_eq!(notifier.read_text(&call, call.arguments[0], 64).unwrap(), b"/tmp/a");
        let error = notifier.read_text(&call, call.arguments[0], 5).unwrap_err();
        assert_eq!(error.errno(), Some(zind_core::Errno::ENAMETOOLONG));
        let error = notifier.read_memory(&call, 1, &mut name).unwrap_err();
        assert_eq!(
            (error.errno(), error.step().map(|step| step.name())),
            (Some(zind_core::Errno::EFAULT), Some("Notify"))
        );
        let number = notifier.add_fd(&call, notifier.fd(), None, true).unwrap();
        assert!(number > 2 && notifier.is_waiting(&call));
        notifier.answer(&call, 0).unwrap();
        assert!(!notifier.is_waiting(&call));
        assert!(matches!(notifier.answer(&call, 0), Err(Error::State(_))));
        assert!(matches!(notifier.read_memory(&call, call.arguments[0], &mut name), Err(Error::State(_))));
        let call = notifier.receive(LONG).unwrap().unwrap();
        assert!(matches!(notifier.refuse(&call, 0), Err(Error::Spec { .. })));
        notifier.refuse(&call, libc::EDOM).unwrap();
        let call = notifier.receive(LONG).unwrap().unwrap();
        notifier.proceed(&call).unwrap();
        assert_eq!(notifier.receive(LONG).unwrap(), None);
        assert!(notifier.is_over());
        let stdout = process.take_stdout().unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(stdout), &mut said).unwrap();
        let codes: Vec<&str> = said.lines().filter(|line| line.parse::<u8>().is_ok()).collect();
        assert_eq!(codes, ["0", "1", "0"], "{said}");
        assert!(said.contains("out of domain"), "{said}");
        process.wait(None).unwrap();
    });
}

/// Of a further program: with a terminal or pipes, and whatever else of the caller's it gets.
#[test]
fn further_programs_hand_their_listener_over() {
    alone(|| {
        let container = Command::new("sleep").arg("1000").seccomp(profile("NOTIFY")).spawn().unwrap();
        let of_container = container.take_notifier().unwrap();
        let script =
            "exec 7>&1 2>&1; for i in a b; do mkdir /tmp/$i; echo $?; done; ls -l /proc/self/fd | grep -c socket";
        for passed in [vec![], vec![of_container.fd().as_raw_fd()]] {
            let mut exec = Exec::new(["sh", "-c", script]);
            (exec.stdout, exec.pass_fds) = (Stdio::Pipe, passed);
            let process = container.exec(&exec).unwrap();
            let notifier = process.take_notifier().unwrap();
            let call = notifier.receive(LONG).unwrap().unwrap();
            assert_eq!(notifier.read_text(&call, call.arguments[0], 64).unwrap(), b"/tmp/a");
            // Each asks whoever started it.
            assert_eq!(of_container.receive(Some(Duration::ZERO)).unwrap(), None);
            notifier.answer(&call, 0).unwrap();
            let call = notifier.receive(LONG).unwrap().unwrap();
            notifier.refuse(&call, libc::EDOM).unwrap();
            assert_eq!(notifier.receive(LONG).unwrap(), None);
            let mut said = String::new();
            std::io::Read::read_to_string(&mut std::fs::File::from(process.take_stdout().unwrap()), &mut said).unwrap();
            let lines: Vec<&str> = said.lines().collect();
            assert!(lines.len() == 4 && lines[1].contains("out of domain"), "{said}");
            assert_eq!((lines[0], lines[2], lines[3]), ("0", "1", "0"), "{said}");
            process.wait(None).unwrap();
        }
        let mut exec = Exec::new(["mkdir", "/tmp/c"]);
        exec.terminal = Some(Size::new(24, 80));
        let process = container.exec(&exec).unwrap();
        let notifier = process.take_notifier().unwrap();
        notifier.proceed(&notifier.receive(LONG).unwrap().unwrap()).unwrap();
        assert!(process.wait(None).unwrap().unwrap().success());
        container.kill().unwrap();
        container.wait(None).unwrap();
    });
}

#[test]
fn what_comes_before_a_further_program_asks_nobody() {
    alone(|| {
        let container = Command::new("sleep").arg("1000").spawn().unwrap();
        let all = "{\"defaultAction\": \"SCMP_ACT_NOTIFY\", \"syscalls\": []}";
        for words in [&["true"][..], &["sh", "-c", "exec /usr/bin/true"]] {
            let mut exec = Exec::new(words);
            exec.seccomp = Some(Seccomp::Profile(Profile::from_json(all).unwrap()));
            let process = container.exec(&exec).unwrap();
            let notifier = process.take_notifier().unwrap();
            let mut names = Vec::new();
            while let Some(call) = notifier.receive(LONG).unwrap() {
                names.push(call.name().unwrap());
                notifier.proceed(&call).unwrap();
            }
            assert_eq!(names[0], "brk", "{names:?}");
            assert_eq!(names.iter().filter(|name| **name == "execve").count(), words.len() / 3, "{names:?}");
            assert!(process.wait(None).unwrap().unwrap().success());
        }
        let mut exec = Exec::new(["there-is-no-such-program"]);
        exec.seccomp = Some(Seccomp::Profile(Profile::from_json(all).unwrap()));
        assert_eq!(container.exec(&exec).unwrap_err().errno(), Some(zind_core::Errno::ENOENT));
        container.kill().unwrap();
        container.wait(None).unwrap();
    });
}

#[test]
fn who_only_waits_is_told_that_nobody_answers() {
    alone(|| {
        let unsupported = |error: Error| assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        unsupported(Command::new("true").seccomp(profile("NOTIFY")).output().unwrap_err());
        unsupported(Command::new("true").seccomp(profile("NOTIFY")).status().unwrap_err());
        let container = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut exec = Exec::new(["mkdir", "/tmp/c"]);
        exec.seccomp = Some(profile("NOTIFY"));
        unsupported(container.exec(&exec).unwrap().expect_no_questions().unwrap_err());
        exec.no_new_privileges = Some(false);
        unsupported(container.exec(&exec).unwrap_err());
        exec.seccomp = Some(Seccomp::Learn);
        exec.no_new_privileges = None;
        let process = container.exec(&exec).unwrap();
        process.expect_no_questions().unwrap();
        assert!(process.wait(None).unwrap().unwrap().success());
        assert!(process.learned().unwrap().to_string().contains("\"mkdir\""));
        container.kill().unwrap();
        container.wait(None).unwrap();
    });
}

#[test]
fn nobody_who_decides_is_a_refusal() {
    alone(|| {
        let process = three().seccomp(profile("NOTIFY")).spawn().unwrap();
        drop(process.take_notifier().unwrap());
        let mut said = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(process.take_stdout().unwrap()), &mut said).unwrap();
        assert_eq!(said.matches("not implemented").count(), 3, "{said}");
        process.wait(None).unwrap();
    });
}

#[test]
fn a_killed_payload_leaves_no_question_and_no_thread() {
    alone(|| {
        let process = Command::new("sleep").arg("100").seccomp(profile("NOTIFY")).spawn().unwrap();
        let notifier = process.take_notifier().unwrap();
        let watched = Command::new("sleep").arg("100").violations(true).spawn().unwrap();
        for process in [&process, &watched] {
            process.kill().unwrap();
            process.wait(None).unwrap();
        }
        assert_eq!(notifier.receive(LONG).unwrap(), None);
        assert!(watched.violations().unwrap().all(|violation| violation.errno > 0));
    });
}

#[test]
fn what_is_refused_is_told_and_what_is_called_is_learned() {
    alone(|| {
        let process = three().seccomp(profile("ERRNO")).violations(true).spawn().unwrap();
        let violations = process.violations().unwrap();
        assert!(violations.fd().as_raw_fd() > 2);
        let found: Vec<_> = violations.filter(|violation| violation.name() == Some("mkdir")).collect();
        assert!(found.len() == 3 && found.iter().all(|found| found.errno == libc::EPERM && found.pid > 0), "{found:?}");
        process.wait(None).unwrap();
        let process = three().seccomp(Seccomp::Learn).spawn().unwrap();
        process.wait(None).unwrap();
        let learned: Arc<Profile> = Profile::from_json(&process.learned().unwrap()).unwrap();
        assert!(learned.to_json().contains("\"mkdir\""));
        let output = three().seccomp(Seccomp::Profile(learned)).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout.to_vec()).unwrap().matches('0').count(), 3);
    });
}

#[test]
fn landlock_lets_pass_what_its_rules_name() {
    alone(|| {
        let usual = ["/usr", "/bin", "/lib", "/lib64"].into_iter().fold(Landlock::new(), Landlock::read_execute);
        let rules = usual.allow("/dev", "read+write").unwrap().read("/etc/passwd");
        let ask = "cat /etc/passwd >/dev/null && echo read; echo x 2>/dev/null >/tmp/x || echo refused";
        let run = |rules: &Landlock| {
            let policy = LandlockPolicy::Rules(rules.clone());
            Command::new("sh").args(["-c", ask]).landlock(policy).require(["landlock"]).output()
        };
        let output = run(&rules).unwrap();
        assert_eq!(String::from_utf8(output.stdout.to_vec()).unwrap(), "read\nrefused\n");
        let told = output.isolation.landlock.unwrap();
        assert!(told.rules == 6 && told.handled.contains(&"make_reg") && !told.is_default, "{told:?}");
        let error = run(&rules.read("/nowhere")).unwrap_err();
        assert_eq!((error.step(), error.path()), (Some(Step::LandlockPath), Some("/nowhere".as_ref())));
        assert!(Command::new("true").output().unwrap().isolation.landlock.is_none());
    });
}
