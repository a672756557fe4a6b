//! Programs in running containers, and terminals, on the real kernel.

#[path = "support/sleeper.rs"]
mod sleeper;
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use sleeper::{end, exec, output, sleeper, traces};
use zind_core::terminal::{DetachKeys, Left, Pty, Relay, Size};
use zind_core::{Command, Error, Exec, ExitKind, Step};

#[test]
fn a_program_runs_in_all_namespaces_of_the_container() {
    let traces = traces();
    let container = sleeper();
    let namespaces = ["mnt", "pid", "net", "uts", "ipc", "cgroup", "user"];
    for kind in namespaces {
        let inside = output(&container, &exec(&["readlink", &format!("/proc/self/ns/{kind}")]));
        let first = std::fs::read_link(format!("/proc/{}/ns/{kind}", container.pid())).unwrap();
        assert_eq!(inside.trim(), first.to_str().unwrap(), "{kind}");
    }
    assert_eq!(output(&container, &exec(&["cat", "/proc/1/comm"])), "zind-init\n");
    end(&container);
    drop(container);
    traces.assert_same();
}

#[test]
fn what_ended_or_is_a_guest_takes_no_program() {
    let container = sleeper();
    let guest = container.exec(&exec(&["sleep", "600"])).unwrap();
    assert!(matches!(guest.exec(&exec(&["true"])), Err(Error::State(_))));
    end(&container);
    assert!(matches!(container.exec(&exec(&["true"])), Err(Error::State(_))));
    // The container's end is the guest's.
    let exit = guest.wait(Some(Duration::from_secs(20))).unwrap().unwrap();
    assert_eq!((exit.kind, exit.signal), (ExitKind::Signaled, Some(9)));
}

#[test]
fn failures_name_their_step() {
    let container = sleeper();
    let step = |exec: &Exec| container.exec(exec).unwrap_err().step();
    assert_eq!(step(&exec(&["no-such-program"])), Some(Step::Exec));
    let mut cwd = exec(&["true"]);
    for fd in 3..20 {
        // CVE-2024-21626
        cwd.cwd = Some(format!("/proc/self/fd/{fd}").into());
        assert_eq!(step(&cwd), Some(Step::Chdir), "{fd}");
    }
    end(&container);
}

#[test]
fn a_terminal_is_the_containers_own() {
    let container = sleeper();
    let mut shell =
        Exec::new(["sh", "-c", "read go; tty; stty size; test -t 0 && test -t 2; echo $?; read line; stty size"]);
    shell.terminal = Some(Size::new(33, 101));
    let process = container.exec(&shell).unwrap();
    assert!(process.take_stdin().is_none());
    process.resize(Size::new(40, 90)).unwrap();
    let mut terminal = File::from(process.take_terminal().unwrap());
    assert!(matches!(process.resize(Size::new(1, 1)), Err(Error::State(_))));
    terminal.write_all(b"go\ngo\n").unwrap();
    let mut text = Vec::new();
    let _ = terminal.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("/dev/pts/0\r\n40 90\r\n0\r\n") && text.contains("40 90\r\n"), "{text:?}");
    assert!(process.wait(None).unwrap().unwrap().success());
    end(&container);
}

#[test]
fn a_start_has_a_terminal_and_a_console() {
    let traces = traces();
    let mut command = Command::new("sh");
    command.args(["-c", "tty; stty size; echo to-console >/dev/console; ls -l /proc/self/fd"]);
    command.spec_mut().terminal = Some(Size::new(12, 34));
    let process = command.spawn().unwrap();
    let (screen, out) = rustix::pipe::pipe().unwrap();
    let terminal = process.take_terminal().unwrap();
    let mut relay = Relay::new(None, out.as_fd(), terminal.as_fd()).ended(process.end_fd());
    assert_eq!(relay.run(&mut || false).unwrap(), Left::Ended);
    drop((out, terminal));
    let mut text = String::new();
    File::from(screen).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("/dev/pts/0\r\n12 34\r\nto-console\r\n"), "{text:?}");
    assert_eq!(text.matches("/dev/pts/0").count(), 4, "{text:?}");
    assert!(process.wait(None).unwrap().unwrap().success());
    drop(process);
    traces.assert_same();
}

#[test]
fn detach_keys_leave_a_shell_alone() {
    let mut command = Command::new("sh");
    command.spec_mut().terminal = Some(Size::default());
    let process = command.spawn().unwrap();
    let caller = Pty::open(Size::new(20, 70)).unwrap();
    let terminal = process.take_terminal().unwrap();
    let mut keys = File::from(caller.master.try_clone().unwrap());
    let _raw = zind_core::terminal::Raw::enter(&caller.terminal).unwrap();
    // Not before: to a terminal that is not raw, ctrl-q is flow control.
    keys.write_all(b"\x10\x11").unwrap();
    let console = caller.terminal.as_fd();
    let mut relay = Relay::new(Some(console), console, terminal.as_fd()).detach_keys(DetachKeys::default());
    assert_eq!(relay.run(&mut || false).unwrap(), Left::Detached);
    assert_eq!(process.try_wait().unwrap(), None);
    assert_eq!(Size::of(&terminal), Some(Size::new(20, 70)));
    // A terminal that vanishes ends its shell.
    drop(terminal);
    assert!(process.wait(Some(Duration::from_secs(20))).unwrap().is_some());
}
