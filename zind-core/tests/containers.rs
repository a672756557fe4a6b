//! The promises of a start, on the real kernel. Run as root, the whole file is run once more as an ordinary user.
#![allow(missing_docs)]

mod support;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command as Host;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::Traces;
use zind_core::{
    Command, CopyOptions, Device, Error, ExitKind, IdMap, IdMaps, Kind, Mount, Overlay, Source, Spec, Stdio,
    TimeOffsets, User, Volumes,
};

/// The tests compare what this process has before and after, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a test body and proves that it left nothing.
fn alone(body: impl FnOnce()) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // The first start of a process keeps the launcher and, for root, the template.
    Command::new("true").output().unwrap();
    let before = Traces::now();
    body();
    before.assert_same();
}

fn text(bytes: &zind_core::Captured) -> String {
    String::from_utf8_lossy(&bytes.to_vec()).into_owned()
}

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn said(command: &Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{error}"));
    assert!(output.exit.success(), "{:?}: {}", output.exit, text(&output.stderr));
    text(&output.stdout)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A root directory with a static busybox, or `None` with a word why.
fn tiny_root(name: &str) -> Option<PathBuf> {
    let Ok(busybox) = fs::read("/bin/busybox") else {
        println!("skipped: busybox-static is not installed");
        return None;
    };
    let root = std::env::temp_dir().join(format!("zind-test-{}-{name}", std::process::id()));
    for dir in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("bin/busybox"), busybox).unwrap();
    fs::set_permissions(root.join("bin/busybox"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n").unwrap();
    Some(root)
}

#[test]
fn a_command_runs_and_its_exit_is_told() {
    alone(|| {
        let output = sh("echo out; echo err >&2; exit 3").output().unwrap();
        assert_eq!((output.exit.kind, output.exit.code), (ExitKind::Exited, Some(3)));
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("out\n", "err\n"));
        let output = sh("kill -TERM $$").output().unwrap();
        assert_eq!((output.exit.kind, output.exit.signal), (ExitKind::Signaled, Some(15)));
        assert!(output.stats.cpu_user.is_some() && output.stats.wall > Duration::ZERO);
    });
}

#[test]
fn the_host_root_is_private_and_the_host_stays_as_it_is() {
    alone(|| {
        let marker = std::env::temp_dir().join(format!("zind-marker-{}", std::process::id()));
        fs::write(&marker, "host").unwrap();
        let script = format!(
            "ls -A /home /root /tmp /run/user 2>/dev/null; test ! -e {} && test ! -e /etc/shadow && echo clean; \
             touch /tmp/x /etc/y /root/z && echo written",
            marker.display()
        );
        let out = said(&sh(&script));
        assert!(out.contains("clean\nwritten\n"), "{out}");
        assert!(!Path::new("/etc/y").exists());
        fs::remove_file(marker).unwrap();
    });
}

#[test]
fn the_isolation_report_is_what_a_probe_finds() {
    alone(|| {
        let output =
            sh("grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/interrupts | wc -c; \
                         grep -c ' /proc/sys ro' /proc/self/mountinfo; cat /proc/net/dev | wc -l")
            .output()
            .unwrap();
        let seen = text(&output.stdout);
        assert!(seen.contains("CapEff:\t0000000000000000"), "{seen}");
        assert!(seen.contains("CapBnd:\t0000000000000000"), "{seen}");
        assert!(seen.contains("NoNewPrivs:\t1"), "{seen}");
        assert!(seen.contains("Seccomp:\t2"), "{seen}");
        assert!(seen.ends_with("0\n1\n3\n"), "{seen}");
        let in_force = output.isolation.in_force();
        for part in ["seccomp", "capabilities", "no_new_privileges", "masked_paths", "readonly_paths", "network", "pid"]
        {
            assert!(in_force.contains(part), "{part}");
        }
    });
}

#[test]
fn init_reaps_and_without_it_the_payload_is_pid_1() {
    alone(|| {
        assert_eq!(
            said(&sh("echo $$; (sleep 0.01 &); sleep 0.1; ps -e -o stat= | grep Z; true")).lines().next(),
            Some("2")
        );
        assert_eq!(said(sh("echo $$").init(false)), "1\n");
    });
}

#[test]
fn a_timeout_kills_everything_and_keeps_what_was_written() {
    alone(|| {
        let began = Instant::now();
        let output = sh("echo before; sleep 100 & sleep 100").timeout(Duration::from_secs(1)).output().unwrap();
        assert_eq!(output.exit.kind, ExitKind::Timeout);
        assert_eq!(text(&output.stdout), "before\n");
        assert!(began.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn input_goes_in_and_much_output_comes_out_of_both_streams() {
    alone(|| {
        let input = vec![b'x'; 3 << 20];
        let output = sh("tee /dev/stderr").input(input.clone()).output().unwrap();
        assert_eq!(output.stdout.len(), input.len());
        assert_eq!(output.stderr.len(), input.len());
    });
}

#[test]
fn signals_reach_the_payload_and_kill_ends_all() {
    alone(|| {
        let process = sh("trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
            .stdout(Stdio::Pipe)
            .spawn()
            .unwrap();
        let stdout = process.take_stdout().unwrap();
        let mut byte = [0u8; 6];
        rustix::io::read(&stdout, &mut byte).unwrap();
        process.signal(libc::SIGTERM).unwrap();
        assert_eq!(process.wait(Some(Duration::from_secs(20))).unwrap().unwrap().code, Some(7));
        let process = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(process.wait(Some(Duration::from_millis(50))).unwrap().is_none());
        process.kill().unwrap();
        assert_eq!(process.wait(None).unwrap().unwrap().signal, Some(libc::SIGKILL));
        process.kill().unwrap();
    });
}

#[test]
fn only_passed_descriptors_are_open() {
    alone(|| {
        let file = fs::File::open("/dev/null").unwrap();
        let fd = file.as_raw_fd();
        let out = said(sh("ls /proc/self/fd").pass_fds(vec![fd]));
        let mut numbers: Vec<i32> = out.lines().map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        // ls has one of its own for the directory.
        assert_eq!(numbers.len(), 5, "{numbers:?}");
        assert!(numbers.contains(&fd));
    });
}

#[test]
fn a_root_directory_is_changed_only_if_asked() {
    let Some(root) = tiny_root("modes") else { return };
    alone(|| {
        let mut command = sh("echo x > /new && cat /new");
        assert_eq!(said(command.rootfs(&root)), "x\n");
        assert!(!root.join("new").exists(), "the overlay keeps it");
        let output = sh("echo x > /new").rootfs(&root).read_only(true).output().unwrap();
        assert!(!output.exit.success());
        said(sh("echo x > /new").rootfs(&root).overlay(Overlay::None));
        assert!(root.join("new").exists(), "written to directly");
    });
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn nothing_is_above_or_beneath_the_root() {
    alone(|| {
        let root = tiny_root("above");
        let mut commands = vec![sh("stat -c %d:%i / /..; cut -d' ' -f5 /proc/self/mountinfo")];
        if let Some(root) = &root {
            let script = "busybox stat -c %d:%i / /..; busybox cut -d' ' -f5 /proc/self/mountinfo";
            commands.push(sh(script));
            commands[1].rootfs(root);
            commands.push(sh(script));
            commands[2].rootfs(root).read_only(true);
        }
        for command in &commands {
            let out = said(command);
            let mut lines = out.lines();
            assert_eq!(lines.next(), lines.next(), "/.. leads somewhere: {out}");
            let mounts: Vec<&str> = lines.collect();
            assert_eq!(mounts.iter().filter(|point| **point == "/").count(), 1, "{out}");
            for point in mounts {
                let top = point.split('/').nth(1).unwrap_or_default();
                assert!(
                    ["", "usr", "etc", "var", "proc", "sys", "dev"].contains(&top),
                    "{point} of the host is mounted"
                );
            }
        }
        root.map(fs::remove_dir_all).transpose().unwrap();
    });
}

#[test]
fn links_of_an_untrusted_root_lead_nowhere() {
    let Some(root) = tiny_root("links") else { return };
    let victim = root.with_extension("victim");
    fs::create_dir_all(&victim).unwrap();
    for name in ["proc", "sys", "dev"] {
        fs::remove_dir(root.join(name)).unwrap();
        std::os::unix::fs::symlink(&victim, root.join(name)).unwrap();
        alone(|| {
            let error = sh("true").rootfs(&root).overlay(Overlay::None).output().unwrap_err();
            assert_eq!(error.errno(), Some(nix::errno::Errno::ELOOP), "{error}");
        });
        fs::remove_file(root.join(name)).unwrap();
        fs::create_dir(root.join(name)).unwrap();
    }
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    fs::remove_dir_all(&root).unwrap();
    fs::remove_dir_all(&victim).unwrap();
}

#[test]
fn users_are_found_in_the_container() {
    let Some(root) = tiny_root("users") else { return };
    alone(|| {
        let mut command = sh("id -u; id -g");
        command.rootfs(&root).spec_mut().user = Some(User::Name("web".into()));
        if is_root() {
            assert_eq!(said(&command), "33\n34\n");
        } else {
            assert_eq!(said(&command), "33\n34\n", "the one mapped id has the number asked for");
        }
        command.spec_mut().user = Some(User::Name("mallory".into()));
        assert!(matches!(command.output(), Err(Error::Spec { field: "user", .. })));
    });
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn namespaces_are_new_the_hosts_or_joined() {
    alone(|| {
        let own = |kind: Kind| fs::read_link(format!("/proc/self/ns/{}", kind.name())).unwrap();
        for kind in [Kind::Pid, Kind::Net, Kind::Uts, Kind::Ipc, Kind::Cgroup] {
            let link = |command: &Command| PathBuf::from(said(command).trim());
            let look = format!("readlink /proc/self/ns/{}", kind.name());
            assert_ne!(link(&sh(&look)), own(kind), "{kind} is new");
            assert_eq!(link(sh(&look).namespace(kind, Source::Host)), own(kind), "{kind} is the host's");
        }
        let first = Command::new("sleep").arg("100").spawn().unwrap();
        if is_root() {
            let mut second = sh("hostname; readlink /proc/self/ns/uts");
            second.namespace(Kind::Uts, Source::Pid(first.pid()));
            let theirs = fs::read_link(format!("/proc/{}/ns/uts", first.pid())).unwrap();
            assert_eq!(said(&second), format!("zind\n{}\n", theirs.display()));
        }
        first.kill().unwrap();
        first.wait(None).unwrap();
    });
}

#[test]
fn devices_come_by_path_and_by_number() {
    alone(|| {
        let mut command = sh("stat -c %F:%t:%T /dev/given /run/queue; test -c /dev/console && echo console");
        command.device(Device::parse("/dev/zero:/dev/given:rw").unwrap());
        command.device(Device::node('p', "/run/queue", 0, 0).unwrap().mode(0o600));
        let master = fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
        // SAFETY: takes the number of a descriptor that is open.
        assert_eq!(unsafe { libc::unlockpt(master.as_raw_fd()) }, 0);
        command.console(master);
        assert_eq!(said(&command), "character special file:1:5\nfifo:0:0\nconsole\n");
        let mut wrong = sh("true");
        wrong.device(Device::new("/dev/full")).device(Device::new("/etc/passwd"));
        let error = wrong.output().unwrap_err();
        assert!(error.field() == Some("devices") && error.to_string().contains("[1]"), "{error}");
    });
}

#[test]
fn clocks_have_offsets() {
    alone(|| {
        let mut command = sh("cut -d. -f1 /proc/uptime");
        command.namespace(Kind::Time, Source::New).spec_mut().time_offsets =
            Some(TimeOffsets { monotonic_ns: 0, boottime_ns: 1_000_000_000_000_000 });
        let seconds: u64 = said(&command).trim().parse().unwrap();
        assert!(seconds > 1_000_000, "{seconds}");
    });
}

#[test]
fn explicit_maps_are_what_the_container_sees() {
    alone(|| {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let one = |host| vec![IdMap { container: 0, host, size: 1 }];
        let maps = IdMaps::Explicit { uid: one(uid), gid: one(gid) };
        let out = said(sh("cat /proc/self/uid_map; id -u").id_maps(maps));
        let words: Vec<&str> = out.split_whitespace().collect();
        assert_eq!(words, ["0", &uid.to_string(), "1", "0"]);
    });
}

#[test]
fn the_low_level_changes_only_what_it_is_told() {
    alone(|| {
        let mut command = Command::low_level("sh");
        command.args(["-c", "readlink /proc/self/ns/mnt; readlink /proc/self/ns/uts; pwd"]);
        let out = said(&command);
        let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
        let cwd = std::env::current_dir().unwrap();
        assert_eq!(out, format!("{}\n{}\n{}\n", own("mnt"), own("uts"), cwd.display()));
    });
}

#[test]
fn bad_requests_are_errors_that_name_the_step() {
    alone(|| {
        let step = |command: &Command| command.output().unwrap_err().step().map(|step| step.name());
        assert_eq!(step(&Command::new("no-such-program")), Some("Exec"));
        assert_eq!(step(&Command::new("/etc/passwd")), Some("Exec"));
        assert_eq!(step(Command::new("true").current_dir("/no/such")), Some("Chdir"));
        assert_eq!(
            step(Command::new("true").namespace(Kind::Net, Source::Path("/etc/passwd".into()))),
            Some("OpenNamespace")
        );
        assert_eq!(step(Command::new("true").rlimit(7, Some(1 << 40), Some(1 << 40))), Some("Rlimit"));
        assert_eq!(step(Command::new("true").arg("x".repeat(1 << 18))), Some("Exec"));
        let mut spec = Spec::new(["true"]);
        spec.pass_fds = vec![999];
        assert_eq!(step(&spec.into()), Some("ArrangeFds"));
        let required = Command::new("true").seccomp(zind_core::Seccomp::None).require(["seccomp"]).output();
        assert!(matches!(required, Err(Error::Unsupported { .. })));
    });
}

#[test]
fn files_go_in_and_out_of_a_running_container() {
    alone(|| {
        let here = std::env::temp_dir().join(format!("zind-test-{}-copy", std::process::id()));
        fs::create_dir(&here).unwrap();
        fs::write(here.join("file"), "content").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", here.join("link")).unwrap();
        let process = sh("sleep 100").spawn().unwrap();
        let options = CopyOptions::new();
        let stats = process.copy_in(&here, "/root/made/on/the/way", &options).unwrap();
        assert_eq!((stats.files, stats.directories, stats.symlinks, stats.bytes), (1, 1, 1, 7));
        let again = here.join("again");
        process.copy_out("/root/made/on/the/way/.", &again, &options.clone().strict(true)).unwrap();
        assert_eq!(fs::read(again.join("file")).unwrap(), b"content");
        assert_eq!(fs::read_link(again.join("link")).unwrap(), Path::new("/etc/passwd"));
        let error = process.copy_out("/root/made", &again, &options.overwrite(false).owner(u32::MAX, 0)).unwrap_err();
        assert_eq!(error.field(), Some("owner"));
        let root = process.root().unwrap();
        assert_eq!(root.try_clone().unwrap().read_file("/../root/made/on/the/way/file", 7).unwrap(), b"content");
        process.kill().unwrap();
        process.wait(None).unwrap();
        assert!(matches!(process.root(), Err(Error::State(_))));
        drop((root, process));
        fs::remove_dir_all(here).unwrap();
    });
}

#[test]
fn mounts_are_what_their_words_say() {
    alone(|| {
        let here = std::env::temp_dir().join(format!("zind-test-{}-mounts", std::process::id()));
        fs::create_dir_all(here.join("lo,we:r")).unwrap();
        fs::write(here.join("lo,we:r/file"), "below\n").unwrap();
        std::os::unix::fs::symlink("../etc/passwd", here.join("link")).unwrap();
        let words = ["size=64k", "noexec", "mode=0711"];
        let mut command = sh("grep ' /t ' /proc/self/mountinfo; cat /o/file; rm /o/file; readlink /made/link");
        command
            .mount(Mount::new("tmpfs", None, "/t", words).unwrap())
            .mount(Mount::overlay("/o", [here.join("lo,we:r")]))
            .mount(Mount::new("bind", Some(&here.join("link")), "/made/link", ["copy-symlink"]).unwrap());
        let told = said(&command);
        assert!(told.contains("noexec") && told.contains("size=64k") && told.contains("mode=711"), "{told}");
        assert!(told.ends_with("below\n../etc/passwd\n"), "{told}");
        assert!(here.join("lo,we:r/file").exists());
        let error =
            sh("true").mount(Mount::tmpfs("/a")).mount(Mount::bind(here.join("none"), "/b")).output().unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENOENT));
        assert!(error.to_string().contains("mounts[1]"), "{error}");
        fs::remove_dir_all(here).unwrap();
    });
}

#[test]
fn a_volume_is_filled_once_and_held_while_it_is_used() {
    let Some(root) = tiny_root("volume") else { return };
    alone(|| {
        fs::create_dir_all(root.join("data")).unwrap();
        fs::write(root.join("data/file"), "of the root\n").unwrap();
        let volumes = Volumes::open(Some(root.join("volumes"))).unwrap();
        let run = |script: &str| {
            let mount = Mount::volume("v", "/data").volumes_in(root.join("volumes"));
            let mut command = sh(script);
            command.rootfs(&root).mount(mount);
            command
        };
        assert_eq!(said(&run("cat /data/file; rm /data/file; echo new >/data/other")), "of the root\n");
        assert_eq!(said(&run("ls /data")), "other\n");
        let process = run("sleep 100").spawn().unwrap();
        assert!(matches!(volumes.remove("v"), Err(Error::State(_))));
        process.kill().unwrap();
        process.wait(None).unwrap();
        volumes.remove("v").unwrap();
        assert!(volumes.list().unwrap().is_empty());
    });
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn an_interpreter_that_is_missing_is_told_apart() {
    let Some(root) = tiny_root("interpreter") else { return };
    fs::write(root.join("script"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(root.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    alone(|| {
        let error = Command::new("/script").rootfs(&root).output().unwrap_err();
        assert_eq!(error.step().map(|step| step.name()), Some("Interpreter"), "{error}");
    });
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn many_threads_start_at_once() {
    alone(|| {
        std::thread::scope(|scope| {
            for i in 0..16 {
                scope.spawn(move || {
                    for _ in 0..10 {
                        let output = sh(&format!("exit {i}")).output().unwrap();
                        assert_eq!(output.exit.code, Some(i));
                    }
                });
            }
        });
    });
}

#[test]
fn wait_of_the_caller_sees_no_child() {
    alone(|| {
        let process = Command::new("sleep").arg("0.2").spawn().unwrap();
        let mut status = 0;
        // SAFETY: a plain call with a live pointer.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        assert_eq!((pid, nix::errno::Errno::last()), (-1, nix::errno::Errno::ECHILD));
        assert!(process.wait(None).unwrap().unwrap().success());
    });
}

/// The same promises without privilege.
#[test]
fn all_of_it_as_an_ordinary_user() {
    if !is_root() || std::env::var_os("ZIND_TEST_INNER").is_some() {
        return;
    }
    // A child and pipes of this process: nobody else may count descriptors or wait for children meanwhile.
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = std::env::temp_dir().join(format!("zind-test-user-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let binary = dir.join("containers");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for path in [&dir, &binary] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let output = Host::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(&binary)
        .arg("--test-threads=2")
        .env("ZIND_TEST_INNER", "1")
        .current_dir("/")
        .output()
        .unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    fs::remove_dir_all(&dir).unwrap();
    assert!(output.status.success(), "{all}");
    assert!(all.contains("0 failed") && !all.contains("skipped:"), "{all}");
}
