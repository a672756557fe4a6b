//! What containers have changed: told, kept, put back and made images of, on the real kernel. Run as root, all of it is run again as
//! an ordinary user.
#![allow(missing_docs)]

mod support;
#[path = "support/user.rs"]
mod user;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::Traces;
use zind_core::container::{Filter, LogQuery, State};
use zind_core::{
    Change, Command, CommitOptions, Compression, Container, Containers, Error, IdMaps, ImageConfig, Kind, Overlay,
    Progress, ProgressEvent, Resources, Rootfs, Source, Spec, Store,
};

static TURN: Mutex<()> = Mutex::new(());

/// A place of its own, with a root directory and an image of it.
struct Place {
    dir: PathBuf,
    containers: Containers,
}

impl Place {
    /// `None` with a word why.
    fn new() -> Option<Place> {
        let Ok(busybox) = fs::read("/bin/busybox") else {
            println!("skipped: busybox-static is not installed");
            return None;
        };
        static NEXT: Mutex<u64> = Mutex::new(0);
        let mut next = NEXT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *next += 1;
        let dir = std::env::temp_dir().join(format!("zind-changes-{}-{next}", std::process::id()));
        let containers = Containers::open(Some(&dir)).unwrap();
        let root = dir.join("root");
        for name in ["bin", "etc", "data/deep", "dev", "proc", "sys"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("bin/busybox"), busybox).unwrap();
        fs::set_permissions(root.join("bin/busybox"), PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["sh", "cat", "sleep", "rm", "ls", "touch"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(root.join("etc/old"), "old\n").unwrap();
        fs::write(root.join("data/deep/file"), "file\n").unwrap();
        Some(Place { dir, containers })
    }

    fn root(&self) -> Rootfs {
        Rootfs::Path(self.dir.join("root"))
    }

    fn image(&self) -> Rootfs {
        let store = Store::open(Some(self.dir.clone())).unwrap();
        let image = store.import_rootfs(&self.dir.join("root"), Some("small:1"), ImageConfig::new(), &mut ()).unwrap();
        Rootfs::Image(image)
    }

    fn make(&self, rootfs: Rootfs, script: &str, change: impl FnOnce(&mut Spec)) -> Container {
        let mut spec = Spec::new(["sh", "-c", script]);
        spec.rootfs = rootfs;
        change(&mut spec);
        Container::builder(spec).containers(&self.containers).create().unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for container in self.containers.list(&Filter { all: true, ..Filter::default() }).unwrap() {
            container.delete(true).unwrap();
        }
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn alone(body: impl FnOnce(&Place)) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Command::new("true").output().unwrap();
    let before = Traces::now();
    let Some(place) = Place::new() else { return };
    body(&place);
    drop(place);
    before.assert_same();
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn ran(container: &Container) -> String {
    container.start().unwrap_or_else(|error| panic!("{error}"));
    let exit = container.wait(None).unwrap().unwrap();
    let log = log(container);
    assert_eq!(exit.code, Some(0), "{log}");
    log
}

fn log(container: &Container) -> String {
    let records = container.logs(LogQuery::default()).unwrap();
    records.map(|record| String::from_utf8(record.unwrap().bytes).unwrap()).collect()
}

fn until_it_says(container: &Container, word: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !log(container).contains(word) {
        assert!(Instant::now() < deadline, "it never says {word}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Compressing takes most of the time.
fn plain() -> CommitOptions {
    CommitOptions::new().compression(Compression::None)
}

fn words(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| format!("{} {}", change.kind.name(), change.path.display())).collect()
}

fn why<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::State(text)) => text,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("no error"),
    }
}

const CHANGES: &str = "echo new > /etc/new; echo more >> /etc/old; rm -r /data/deep";

/// Without a user namespace and with one, where there is a choice.
fn each_kind_of_users(mut body: impl FnMut(&dyn Fn(&mut Spec))) {
    body(&|_| {});
    if is_root() {
        body(&|spec| {
            spec.namespaces.insert(Kind::User, Source::New);
            spec.id_maps = IdMaps::Single;
        });
    }
}

#[test]
fn changes_are_told_and_made_an_image_of() {
    alone(|place| {
        for is_image in [false, true] {
            each_kind_of_users(|users| {
                let rootfs = if is_image { place.image() } else { place.root() };
                let container = place.make(rootfs, CHANGES, users);
                let found = place.containers.find(container.id()).unwrap();
                assert_eq!(words(&found.diff(None).unwrap()), [] as [&str; 0]);
                let unchanged = found.commit(&plain(), true, &mut ()).unwrap();
                assert_eq!(unchanged.manifest().unwrap().layers.len(), 1);
                ran(&container);
                let expected = ["deleted /data/deep", "added /etc/new", "modified /etc/old"];
                assert_eq!(words(&found.diff(None).unwrap()), expected, "image: {is_image}");
                assert!(matches!(found.diff(Some("nothing")), Err(Error::NotFound { .. })));
                let options = plain().tag("changed:1").message("by hand");
                let image = found.commit(&options, true, &mut ()).unwrap();
                assert_eq!(image.manifest().unwrap().layers.len(), if is_image { 2 } else { 1 });
                let look = "cat /etc/new /etc/old; ls /data; touch /bin/mine";
                let next = place.make(Rootfs::Image(image), look, users);
                assert_eq!(ran(&next), "new\nold\nmore\n");
                let tar = place.dir.join("root.tar");
                let stats = found.export(&tar, Compression::None, &mut ()).unwrap();
                // Five directories and "/" itself, busybox and six links, two files.
                assert_eq!(stats.entries, 16);
                fs::remove_file(tar).unwrap();
                [container, next].iter().for_each(|one| one.delete(false).unwrap());
            });
        }
    });
}

#[test]
fn snapshots_are_gone_back_to() {
    alone(|place| {
        for is_image in [false, true] {
            each_kind_of_users(|users| {
                let rootfs = if is_image { place.image() } else { place.root() };
                let container = place.make(rootfs, "echo again >> /etc/old; cat /etc/old", users);
                container.snapshot("nothing yet").unwrap();
                assert_eq!(ran(&container), "old\nagain\n");
                let upper = container.place().join("upper");
                assert!(!upper.exists());
                container.snapshot("one").unwrap();
                assert!(why(container.snapshot("one")).contains("already"));
                assert!(matches!(container.snapshot(""), Err(Error::Spec { .. })));
                assert_eq!(words(&container.diff(Some("one")).unwrap()), [] as [&str; 0]);
                ran(&container);
                assert_eq!(words(&container.diff(Some("one")).unwrap()), ["modified /etc/old"]);
                let names: Vec<String> = container.snapshots().unwrap().into_iter().map(|one| one.name).collect();
                assert_eq!(names, ["nothing yet", "one"]);
                container.restore("one").unwrap();
                assert_eq!(words(&container.diff(None).unwrap()), ["modified /etc/old"]);
                assert!(ran(&container).ends_with("old\nagain\nagain\n"));
                container.restore("nothing yet").unwrap();
                assert_eq!(words(&container.diff(None).unwrap()), [] as [&str; 0]);
                container.remove_snapshot("one").unwrap();
                assert!(matches!(container.restore("one"), Err(Error::NotFound { .. })));
                assert!(matches!(container.remove_snapshot("one"), Err(Error::NotFound { .. })));
                ran(&container);
                let image = container.commit(&plain(), true, &mut ()).unwrap();
                let next = place.make(Rootfs::Image(image), "cat /etc/old", users);
                assert_eq!(ran(&next), "old\nagain\n");
                [container, next].iter().for_each(|one| one.delete(false).unwrap());
            });
        }
    });
}

#[test]
fn changes_become_a_layer_however_far_a_dead_program_came() {
    alone(|place| {
        let container = place.make(place.root(), "echo again >> /etc/old; cat /etc/old", |_| {});
        ran(&container);
        let home = container.place().to_owned();
        let kept = home.join("kept");
        fs::rename(home.join("upper"), &kept).unwrap();
        fs::create_dir(home.join("upper")).unwrap();
        container.snapshot("one").unwrap();
        // As if it had died before the changes came to their place; and another one at the very beginning.
        container.remove_snapshot("one").unwrap();
        fs::rename(&kept, home.join("upper")).unwrap();
        fs::create_dir_all(home.join("layers.new/1")).unwrap();
        let found = place.containers.find(container.id()).unwrap();
        assert!(ran(&found).ends_with("old\nagain\nagain\n"));
        assert!(!home.join("upper").exists());
        assert_eq!(words(&found.diff(None).unwrap()), ["modified /etc/old"]);
    });
}

/// Looks at a container whenever it is told something.
struct Looks(Container, Vec<State>);

impl Progress for Looks {
    fn step(&mut self, _: &ProgressEvent<'_>) {
        self.1.push(self.0.state().unwrap());
    }
}

#[test]
fn one_that_runs_is_paused_for_its_image() {
    alone(|place| {
        let script = "echo x > /etc/x; echo ready; exec sleep 1000";
        let bare = place.make(place.root(), script, |_| {});
        let grouped = place.make(place.root(), script, |spec| spec.resources = Some(Resources::new()));
        for container in [&bare, &grouped] {
            container.start().unwrap();
            until_it_says(container, "ready");
            assert_eq!(words(&container.diff(None).unwrap()), ["added /etc/x"]);
            for text in [why(container.snapshot("x")), why(container.restore("x")), why(container.remove_snapshot("x"))]
            {
                assert!(text.contains("is running; stop it first"), "{text}");
            }
            container.commit(&plain(), false, &mut ()).unwrap();
        }
        assert!(why(bare.commit(&plain(), true, &mut ())).contains("do not pause it"));
        // An ordinary user may have no group to stop.
        if is_root() {
            let mut looks = Looks(grouped.clone(), Vec::new());
            grouped.commit(&plain(), true, &mut looks).unwrap();
            assert!(looks.1.contains(&State::Paused), "{:?}", looks.1);
            assert_eq!(grouped.state().unwrap(), State::Running);
            grouped.pause().unwrap();
            grouped.commit(&plain(), true, &mut ()).unwrap();
            assert_eq!(grouped.state().unwrap(), State::Paused);
        }
    });
}

#[test]
fn what_has_its_changes_nowhere_says_why() {
    alone(|place| {
        let own = place.dir.join("own");
        fs::create_dir(&own).unwrap();
        let host = place.make(Rootfs::Host, "true", |_| {});
        let direct = place.make(place.root(), "true", |spec| spec.overlay = Overlay::None);
        let elsewhere = place.make(place.root(), "echo x > /etc/x", |spec| spec.overlay = Overlay::Dir(own.clone()));
        let mut spec = Spec::new(["sh", "-c", "true"]);
        spec.rootfs = place.root();
        let short = Container::builder(spec).containers(&place.containers).auto_remove(true).create().unwrap();
        for (container, word) in [(&host, "root of this machine"), (&direct, "itself"), (&short, "--rm")] {
            for text in [
                why(container.diff(None)),
                why(container.commit(&plain(), true, &mut ())),
                why(container.snapshot("x")),
            ] {
                assert!(text.contains(word), "{text}");
            }
        }
        let fixed = place.make(place.root(), "true", |spec| spec.read_only = true);
        assert_eq!(words(&fixed.diff(None).unwrap()), [] as [&str; 0]);
        assert!(why(fixed.commit(&plain(), true, &mut ())).contains("read-only"));
        assert!(why(fixed.snapshot("x")).contains("read-only"));
        let tar = place.dir.join("fixed.tar");
        fixed.export(&tar, Compression::Gzip, &mut ()).unwrap();
        ran(&elsewhere);
        assert_eq!(words(&elsewhere.diff(None).unwrap()), ["added /etc/x"]);
        assert!(why(elsewhere.snapshot("x")).contains("its maker's"));
        // The kernel locks the directory that it works in.
        fs::set_permissions(own.join("work/work"), PermissionsExt::from_mode(0o700)).unwrap();
    });
}

#[test]
fn all_of_it_as_an_ordinary_user() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    user::run_all_as_an_ordinary_user();
}
