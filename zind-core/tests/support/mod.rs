//! What the kernel tests share: a look at everything a container could leave behind.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// Mounts, descriptors and processes that belong to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    mounts: BTreeSet<String>,
    descriptors: Vec<String>,
    processes: BTreeSet<String>,
}

impl Traces {
    /// What there is now.
    pub fn now() -> Traces {
        let lines = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect();
        Traces { mounts: lines("/proc/self/mountinfo"), descriptors: descriptors(), processes: processes() }
    }

    /// Fails if there is more than there was, for longer than a while: PID 1 of some machines reaps at leisure.
    pub fn assert_same(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while !Traces::now().is_within(self) {
            assert!(Instant::now() < until, "left behind:\nbefore {self:#?}\nafter {:#?}", Traces::now());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Traces {
    /// The test harness has descriptors of its own, which come and go.
    pub fn is_within(&self, before: &Traces) -> bool {
        self.mounts == before.mounts
            && self.descriptors.len() <= before.descriptors.len()
            && self.processes.is_subset(&before.processes)
    }
}

/// What each open descriptor is, but for the one that lists them.
fn descriptors() -> Vec<String> {
    let Ok(list) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let mut all: Vec<String> =
        list.filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.display().to_string())).collect();
    all.sort();
    all
}

/// zind's own processes below this one, by pid and name.
fn processes() -> BTreeSet<String> {
    let own = std::process::id().to_string();
    let Ok(list) = fs::read_dir("/proc") else { return BTreeSet::new() };
    list.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.parse::<u32>().ok()?;
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(") ")?;
        (tail.split(' ').nth(1)? == own).then(|| head.to_owned())
    })
    .collect()
}
