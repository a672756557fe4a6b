//! Many threads in one process: what they share is handles, requests, places and stores. Here it shows that nothing is mixed up;
//! `make sanitize` runs it with ThreadSanitizer and AddressSanitizer in the library, which see what two threads touch without order, and
//! what is touched after its end.
#![allow(missing_docs)]

#[path = "support/images.rs"]
mod images;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use images::{Layout, Tar, Temp};
use zind_core::container::{LogQuery, What};
use zind_core::{Command, Container, Containers, Exec, ExitKind, Owners, Spec, Stdio, Store};

const THREADS: usize = 8;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(120));

/// Runs `body` in many threads at once, each with its number.
fn many(body: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        let body = &body;
        let all: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || body(number))).collect();
        all.into_iter().for_each(|one| one.join().unwrap());
    });
}

#[test]
fn starts_waits_and_kills() {
    let (mut exits, mut sleeps) = (Command::new("sh"), Command::new("sleep"));
    exits.args(["-c", "exit 9"]);
    sleeps.arg("600");
    many(|number| {
        for round in 0..25 {
            match (number + round) % 4 {
                0 => {
                    let process = sleeps.spawn().unwrap();
                    process.kill().unwrap();
                    assert_eq!(process.wait(PATIENCE).unwrap().unwrap().kind, ExitKind::Signaled);
                }
                // One that is dropped while it runs is reaped by another thread's start.
                1 => drop(exits.spawn().unwrap()),
                _ => assert_eq!(exits.spawn().unwrap().wait(PATIENCE).unwrap().unwrap().code, Some(9)),
            }
        }
    });
}

#[test]
fn one_handle_in_many_threads() {
    let process = Command::new("sleep").arg("600").spawn().unwrap();
    many(|number| {
        for round in 0..10 {
            let word = format!("{number}-{round}");
            let mut exec = Exec::new(["echo", &word]);
            (exec.stdin, exec.stdout) = (Stdio::Null, Stdio::Pipe);
            let output = process.exec(&exec).unwrap().communicate(Vec::new(), &mut || false).unwrap();
            assert_eq!(output.stdout.to_vec(), format!("{word}\n").as_bytes());
            assert!(!process.processes().unwrap().is_empty());
            assert_eq!(process.try_wait().unwrap(), None);
            // Where there are no control groups it says so.
            let _ = (process.stats(), process.is_paused());
        }
    });
    // All of them wait, one ends it; who comes late is told the same.
    many(|number| {
        if number == THREADS - 1 {
            process.kill().unwrap();
        }
        assert_eq!(process.wait(PATIENCE).unwrap().unwrap().kind, ExitKind::Signaled);
        let _ = process.kill();
    });
}

#[test]
fn containers_of_one_place() {
    let temp = Temp::new("threads");
    let containers = Containers::open(Some(&temp.join("place"))).unwrap();
    let mut events = containers.events().unwrap();
    let is_over = AtomicBool::new(false);
    let mut deleted = 0;
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut deleted = 0;
            loop {
                let was_over = is_over.load(Ordering::Acquire);
                match events.next_within(Some(Duration::from_millis(50)), &mut || false).unwrap() {
                    Some(event) => deleted += usize::from(event.what == What::Deleted),
                    None if was_over => return deleted,
                    None => {}
                }
            }
        });
        many(|number| {
            for round in 0..3 {
                let mut spec = Spec::new(["sh", "-c", &format!("echo {number}-{round}; exec sleep 600")]);
                spec.die_with_owner = false;
                let container = Container::builder(spec).containers(&containers).create().unwrap();
                container.start().unwrap();
                thread::scope(|scope| {
                    let waits = scope.spawn(|| container.wait(PATIENCE).unwrap().unwrap().kind);
                    let reads = scope.spawn(|| {
                        let query = LogQuery { follow: true, ..LogQuery::default() };
                        let lines = container.logs(query).unwrap().lines();
                        let text = lines.map(|line| line.unwrap().text).next().unwrap();
                        container.kill(9).unwrap();
                        text
                    });
                    assert_eq!(reads.join().unwrap(), format!("{number}-{round}").as_bytes());
                    assert_eq!(waits.join().unwrap(), ExitKind::Signaled);
                });
                container.delete(true).unwrap();
            }
        });
        is_over.store(true, Ordering::Release);
        deleted = reader.join().unwrap();
    });
    assert_eq!(deleted, THREADS * 3);
}

#[test]
fn images_of_one_store() {
    let temp = Temp::new("threads-store");
    let store = Store::open(Some(temp.join("store"))).unwrap();
    let mut layout = Layout::new(temp.join("layout"));
    let tar = |text: &[u8]| Tar::new().dir("./", 0o755).file("a", text).file("b", &[7; 100_000]).end();
    layout.image("shared:1", &[tar(b"one"), tar(b"two")]);
    let image = store.load(&layout.dir, &mut ()).unwrap().remove(0);
    let owners = if nix::unistd::geteuid().is_root() { Owners::Kept } else { Owners::Xattr };
    many(|number| {
        for round in 0..4 {
            let work = store.work().unwrap();
            assert_eq!(image.layers().unwrap().len(), 2);
            assert!(image.config().is_ok() && image.manifest().is_ok());
            store.unpack(&image, &owners, &mut ()).unwrap();
            let again = store.load(&layout.dir, &mut ()).unwrap().remove(0);
            assert_eq!(again.id(), image.id());
            store.tag(&again, &format!("mine:{number}-{round}")).unwrap();
            assert!(!store.images().unwrap().is_empty());
            store.remove(&format!("mine:{number}-{round}")).unwrap();
            drop(work);
            store.gc().unwrap();
        }
    });
}

/// The same promises without privilege.
#[test]
fn all_of_it_as_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() || std::env::var_os("ZIND_TEST_INNER").is_some() {
        return;
    }
    // That user may read neither the program nor what a sanitizer reads.
    let temp = Temp::new("threads-user");
    let (binary, suppressions) = (temp.join("threads"), temp.join("suppressions"));
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/sanitize/suppressions"), &suppressions).unwrap();
    for (path, mode) in [(&temp.0, 0o755), (&binary, 0o755), (&suppressions, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(&binary)
        .arg("--test-threads=2")
        .env("ZIND_TEST_INNER", "1")
        .env("TSAN_OPTIONS", format!("suppressions={} exitcode=66", suppressions.display()))
        .current_dir("/")
        .output()
        .unwrap();
    let all = [output.stdout, output.stderr].concat();
    let all = String::from_utf8_lossy(&all);
    assert!(output.status.success() && all.contains("0 failed"), "{all}");
}
