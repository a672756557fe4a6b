//! Everything at once on one store, and work with containers that is killed or fails in the middle: commit and build.
//! Run as root, the whole file is run once more as an ordinary user.
#![allow(missing_docs)]

#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/images.rs"]
mod images;
#[path = "support/points.rs"]
mod points;
#[path = "support/server.rs"]
#[allow(dead_code)]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Host, Stdio};
use std::time::{Duration, Instant};

use fake::{Fake, Made};
use images::{Tar, Temp};
use server::Server;
use zind_core::{
    Auth, Builder, Command, CommitOptions, Error, IdMaps, Image, ImageConfig, Layers, Owners, PullOptions, Store,
};

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn is_inner() -> bool {
    std::env::var_os("ZIND_TEST_INNER").is_some()
}

/// A root file system with a static busybox.
fn busybox() -> Tar {
    let program = fs::read("/bin/busybox").expect("the package busybox-static");
    let ids = (0, 0);
    let tar = ["bin", "dev", "etc", "proc", "sys", "tmp"].into_iter().fold(Tar::new(), |tar, dir| tar.dir(dir, 0o755));
    tar.entry(b"bin/busybox", b'0', &program, 0o755, ids, b"", &[])
        .symlink("bin/sh", "busybox")
        .symlink("bin/cat", "busybox")
}

fn store(dir: &Path) -> Store {
    Store::open(Some(dir.join("store"))).unwrap()
}

/// This program once more, for what `worker` does.
fn worker_command(role: &str, dir: &Path) -> Host {
    let mut command = Host::new(std::env::current_exe().unwrap());
    command.args(["worker", "--exact", "--nocapture"]);
    command.env("ZIND_TEST_WORKER", role).env("ZIND_TEST_DIR", dir);
    command
}

/// What a process of its own does for a test. A test that is none, without the variable.
#[test]
fn worker() {
    let Some(role) = std::env::var_os("ZIND_TEST_WORKER") else { return };
    let dir = PathBuf::from(std::env::var_os("ZIND_TEST_DIR").unwrap());
    let store = store(&dir);
    match role.to_str().unwrap() {
        "commit" => tried(|| commit(&store, &dir)),
        "build" => tried(|| builder(&store, &dir).cache(false).commit(&built(), &mut ()).map(drop)),
        role => everything(&store, &dir, role),
    }
}

/// Does work between two marks.
fn tried(work: impl FnOnce() -> Result<(), Error>) {
    points::say(points::BEGIN);
    let result = work();
    points::say(points::END);
    if let Err(error) = result {
        println!("refused: {error}");
    }
}

/// Pulls, runs, commits, names, removes and collects, again and again. `role`: number, registry and seconds.
fn everything(store: &Store, dir: &Path, role: &str) {
    let [number, registry, seconds] = role.split(' ').collect::<Vec<_>>()[..] else { panic!("{role}") };
    let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let mut rounds = 0;
    while rounds < 2 || Instant::now() < end {
        // Without the promise of work, what was pulled may be gone at any moment.
        let work = (rounds % 2 == 0).then(|| store.work().unwrap());
        match one_round(store, dir, number, registry, rounds) {
            Err(Error::NotFound { what, .. }) if work.is_none() => println!("{number}: no {what} any more"),
            result => result.unwrap_or_else(|error| panic!("{number}, round {rounds}: {error}")),
        }
        rounds += 1;
    }
    println!("rounds: {rounds}");
}

fn one_round(store: &Store, dir: &Path, number: &str, registry: &str, round: u32) -> Result<(), Error> {
    let version = 1 + round % 2;
    let name = format!("{registry}/team/app:{version}");
    let mut options = PullOptions::default();
    options.registry.auth = Auth::Anonymous;
    let image = store.pull(&name, &options, &mut ())?;
    assert_eq!(says(&image)?, version.to_string());
    let place = dir.join(format!("layers-{number}"));
    let layers = Layers::create_over(&place, &image, &IdMaps::ByPrivilege, &mut ())?;
    let result = (|| {
        let mine = format!("mine:{number}-{round}");
        let exit = Command::new("sh").args(["-c", &format!("echo {mine} > /which")]).rootfs_layers(&layers).status()?;
        assert!(exit.success(), "{exit:?}");
        let committed = layers.commit(store, &CommitOptions::new().tag(&mine), &mut ())?;
        assert_eq!(says(&committed)?, mine);
        store.tag(&committed, &format!("also:{number}"))?;
        for name in [&mine, &format!("also:{number}")] {
            store.remove(name)?;
        }
        Ok(())
    })();
    layers.delete()?;
    // Somebody else may have done so.
    match store.remove(&name) {
        Err(Error::NotFound { .. }) => {}
        result => result?,
    }
    store.gc()?;
    result
}

fn says(image: &Image) -> Result<String, Error> {
    let output = Command::of_image(image).output()?;
    assert!(output.exit.success(), "{:?}: {}", output.exit, String::from_utf8_lossy(&output.stderr.to_vec()));
    Ok(String::from_utf8_lossy(&output.stdout.to_vec()).trim().to_owned())
}

/// Nothing uses a directory: no process works for it, has it mounted or has something in it open.
fn assert_unused(dir: &Path) {
    let dir = dir.to_str().unwrap();
    for entry in fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        for file in ["mountinfo", "environ", "cmdline"] {
            let text = fs::read(process.join(file)).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains(dir), "{} {file}", process.display());
        }
        for fd in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let open = fs::read_link(fd.path()).unwrap_or_default();
            assert!(!open.starts_with(dir), "{} has {}", process.display(), open.display());
        }
    }
}

/// Of a store whose images were all removed.
fn assert_empty(store: &Store) {
    let list = |name: &str| -> Vec<PathBuf> {
        fs::read_dir(store.place().join(name)).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    assert_eq!(store.images().unwrap(), []);
    for name in ["ingest", "work", "trash", "leases", "images/blobs/sha256", "images/blobs/sha512"] {
        assert!(list(name).is_empty(), "{name}: {:?}", list(name));
    }
    for owners in list("snapshots") {
        assert_eq!(fs::read_dir(owners).unwrap().count(), 0);
    }
    let usage = store.usage().unwrap();
    assert_eq!((usage.blobs, usage.snapshots, usage.partial, usage.unused), (0, 0, 0, 0));
}

#[test]
fn eight_processes_do_everything_for_a_minute() {
    let seconds = if is_inner() { 10 } else { 60 };
    let temp = Temp::new("eight");
    let fake = Fake::default();
    for version in ["1", "2"] {
        let top = Tar::new().file("which", version.as_bytes()).end();
        let base = busybox().end();
        let made = Made::of_tars(&[base, top], "amd64");
        let config = String::from_utf8(made.config).unwrap().replace(r#""Cmd":["sh"]"#, r#""Cmd":["cat","/which"]"#);
        fake.add(&Made::of_blobs(config.into_bytes(), made.layers, fake::LAYER, ""), version);
    }
    store(&temp.0);
    let server = Server::start(move |seen| fake.answer(seen));
    let workers: Vec<_> = (0..8)
        .map(|number| {
            let role = format!("{number} {} {seconds}", server.host());
            worker_command(&role, &temp.0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && all.contains("rounds: "), "{all}");
    }
    let store = store(&temp.0);
    assert_eq!(store.verify(&mut ()).unwrap(), []);
    for image in store.images().unwrap() {
        store.remove(&image.digest().to_string()).unwrap();
    }
    store.gc().unwrap();
    assert_empty(&store);
    let mut left: Vec<_> = fs::read_dir(&temp.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.retain(|name| name != "store");
    assert_eq!(left, [""; 0]);
    assert_unused(&temp.0);
}

/// A store with an image of busybox, and layers over it with changes of all kinds.
fn with_changes(temp: &Temp) -> (Store, Image) {
    let store = store(&temp.0);
    fs::write(temp.join("base.tar"), busybox().file("gone", b"1").end()).unwrap();
    let base = store.import_rootfs(&temp.join("base.tar"), Some("base"), ImageConfig::new(), &mut ()).unwrap();
    let layers = Layers::create_over(temp.join("layers"), &base, &IdMaps::ByPrivilege, &mut ()).unwrap();
    let script = "cd /tmp; for i in 0 1 2 3 4 5 6 7 8 9; do /bin/busybox mkdir d$i; echo $i > d$i/f; /bin/busybox ln d$i/f h$i; done; \
                  /bin/busybox rm /gone; /bin/busybox ln -s x l; echo changed > /etc/new";
    let exit = Command::new("sh").args(["-c", script]).rootfs_layers(&layers).status().unwrap();
    assert!(exit.success(), "{exit:?}");
    fs::write(temp.join("file"), "two\n").unwrap();
    (store, base)
}

fn commit(store: &Store, dir: &Path) -> Result<(), Error> {
    let layers = Layers::open(dir.join("layers"))?;
    layers.commit(store, &CommitOptions::new().tag("changed"), &mut ()).map(drop)
}

fn builder(store: &Store, dir: &Path) -> Builder {
    let mut builder = Builder::new(store);
    let base = store.image("base").unwrap();
    builder.from(&base).run(["/bin/sh", "-c", "echo one > /one"]).copy(dir.join("file"), "/two").env("A", "1");
    builder
}

fn built() -> CommitOptions {
    CommitOptions::new().tag("built")
}

/// The store is valid, the work can be done, and what it makes is whole.
fn assert_repeatable(store: &Store, temp: &Temp, role: &str, context: &str) {
    let store = Store::open(Some(store.place().to_owned())).unwrap();
    assert_eq!(store.verify(&mut ()).unwrap(), [], "{context}");
    let (name, files) = match role {
        "commit" => {
            commit(&store, &temp.0).unwrap_or_else(|error| panic!("{context}: {error}"));
            ("changed", [("tmp/d9/f", "9\n"), ("etc/new", "changed\n")])
        }
        _ => {
            let result = builder(&store, &temp.0).commit(&built(), &mut ());
            result.unwrap_or_else(|error| panic!("{context}: {error}"));
            ("built", [("one", "one\n"), ("two", "two\n")])
        }
    };
    let lowers = store.lowers(&store.image(name).unwrap(), &Owners::of_caller(), &mut ()).unwrap();
    for (file, content) in files {
        let path = lowers.iter().map(|lower| lower.join(file)).find(|path| path.exists());
        assert_eq!(fs::read_to_string(path.expect(file)).unwrap(), content, "{context}");
    }
    // What was killed right before its end has its image, too, which lost its name to the next.
    for image in store.images().unwrap().iter().filter(|image| image.tags() != ["base"]) {
        store.remove(&image.digest().to_string()).unwrap();
    }
    store.gc().unwrap();
    for name in ["ingest", "work", "trash"] {
        let left: Vec<_> = fs::read_dir(store.place().join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{context}: {left:?}");
    }
    assert_eq!(store.verify(&mut ()).unwrap(), [], "{context}");
}

/// Kills and failures at `count` points each of what `worker` does.
fn strike(role: &str, count: usize) {
    let temp = Temp::fast(role);
    let (store, base) = with_changes(&temp);
    let command = worker_command(role, &temp.0);
    assert_repeatable(&store, &temp, role, "nothing");
    let points = points::of(&command, count, &temp.0);
    assert_repeatable(&store, &temp, role, "the whole");
    let (mut killed, mut refused) = (0, 0);
    for (number, point) in points.iter().enumerate() {
        for what in ["signal=KILL", ["error=ENOSPC", "error=EIO"][number % 2]] {
            let output = point.hit(&command, what);
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(points::BEGIN), "{point:?} {what}: {said}");
            // Of a build, the call may be one of the container's processes: then it is the build that ends.
            let is_killed = what == "signal=KILL" && !said.contains(points::END);
            assert!(is_killed || output.status.success(), "{point:?} {what}: {said}");
            killed += usize::from(is_killed);
            refused += usize::from(said.contains("refused: "));
            assert_repeatable(&store, &temp, role, &format!("{point:?} {what}: {said}"));
        }
    }
    assert!(killed >= count / 2 && refused >= count / 5, "{killed} {refused}");
    Layers::open(temp.join("layers")).unwrap().delete().unwrap();
    store.remove(&base.digest().to_string()).unwrap();
    let _ = fs::remove_dir_all(store.place().join("build"));
    store.gc().unwrap();
    assert_empty(&store);
    assert_unused(&temp.0);
}

#[test]
fn a_commit_that_is_killed_or_fails_leaves_a_good_store() {
    strike("commit", 50);
}

#[test]
fn a_build_that_is_killed_or_fails_leaves_a_good_store() {
    strike("build", 40);
}

/// The promises hold for an ordinary user, too.
#[test]
fn all_of_it_as_an_ordinary_user() {
    if !is_root() || is_inner() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("zind-together-user-{}", std::process::id()));
    fs::create_dir_all(dir.join("tmp")).unwrap();
    let binary = dir.join("together");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for (path, mode) in [(&dir, 0o755), (&binary, 0o755), (&dir.join("tmp"), 0o1777)] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let output = Host::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(&binary)
        .arg("--test-threads=2")
        .env("ZIND_TEST_INNER", "1")
        .envs([("TMPDIR", dir.join("tmp")), ("HOME", dir.join("tmp")), ("XDG_RUNTIME_DIR", dir.join("tmp"))])
        .current_dir("/")
        .output()
        .unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    fs::remove_dir_all(&dir).unwrap();
    assert!(output.status.success(), "{all}");
}
