//! A place of containers for one test at a time, of which nothing is left; and all tests of a program once more as an ordinary user.

#[path = "user.rs"]
mod user;

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zind_core::container::Filter;
use zind_core::{Containers, Mount, Spec};

use crate::support::Traces;

/// Has the descriptors and children of this process to itself.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory with the containers in it; tests put their own files there, too.
pub struct Place {
    pub dir: PathBuf,
    pub containers: Containers,
}

/// Runs a test in a place of its own, in its turn; afterwards everything is as before.
pub fn alone(body: impl FnOnce(&Place)) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let _turn = turn();
    // What zind keeps for good is made before somebody looks.
    zind_core::Command::new("true").output().unwrap();
    let before = Traces::now();
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("zind-test-place-{}-{number}", std::process::id()));
    let place = Place { containers: Containers::open(Some(&dir)).unwrap(), dir };
    body(&place);
    for container in place.containers.list(&Filter { all: true, ..Filter::default() }).unwrap() {
        let _ = container.delete(true);
    }
    fs::remove_dir_all(&place.dir).unwrap();
    before.assert_same();
}

impl Place {
    /// A script in a container in which the place has the same name.
    pub fn spec(&self, script: &str) -> Spec {
        let mut spec = Spec::new(["sh", "-c", script]);
        spec.mounts = vec![Mount::bind(&self.dir, &self.dir)];
        spec
    }
}

/// Runs all tests of this program as an ordinary user, if root runs them.
pub fn once_more_as_an_ordinary_user() {
    let _turn = turn();
    user::run_all_as_an_ordinary_user();
}
