//! Points of a piece of work at which it is killed, or a system call of it fails: the n-th call of a kind in a thread, by strace(1).
//!
//! The work is done by a process of its own. It says [`BEGIN`] and [`END`] on its standard error, and points lie between the two, so
//! that each is in the middle of the work.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub const BEGIN: &str = "<work begins>";
pub const END: &str = "<work ends>";

/// What changes something on disk, and what is read from there. Not all machines have all of them.
const CALLS: [&str; 29] = [
    "openat",
    "openat2",
    "mkdir",
    "mkdirat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlinkat",
    "mknodat",
    "unlink",
    "unlinkat",
    "rmdir",
    "fchmod",
    "fchown",
    "fchownat",
    "utimensat",
    "fsetxattr",
    "flock",
    "getdents64",
    "read",
    "pread64",
];

/// Says a word that is seen in the list of system calls, as one of them.
pub fn say(word: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), word.as_bytes());
}

/// The n-th call of a kind in one thread, and how often threads come so far.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub call: String,
    pub number: usize,
}

/// strace(1) before a command: its program, arguments, variables and streams.
fn traced(command: &Command, options: &[&str]) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq"]).args(options).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        traced.env(name, value.map(OsString::from).unwrap_or_default());
    }
    traced.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    traced
}

/// So many points of the work of a command, spread over all kinds of calls and over the whole time. It is done once.
pub fn of(command: &Command, count: usize, aside: &Path) -> Vec<Point> {
    let log = aside.join("calls");
    let calls = CALLS.map(|call| format!("?{call}")).join(",");
    let output = traced(command, &["-o", log.to_str().unwrap(), "-e", &format!("trace={calls}")]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    std::fs::remove_file(log).unwrap();
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let (mut all, mut outside): (Vec<Point>, BTreeSet<Point>) = Default::default();
    let mut inside = false;
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if !CALLS.contains(&call) {
            continue;
        }
        let number = counts.entry((thread, call)).or_default();
        *number += 1;
        if arguments.contains(BEGIN) || arguments.contains(END) {
            inside = arguments.contains(BEGIN);
            continue;
        }
        let point = Point { call: call.to_owned(), number: *number };
        if !inside {
            outside.insert(point);
        } else if !all.contains(&point) {
            all.push(point);
        }
    }
    // Each thread counts for itself: what another one comes to before or after the work is no point of it.
    let mut kinds: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for point in all.into_iter().filter(|point| !outside.contains(point)) {
        kinds.entry(point.call.clone()).or_default().push(point);
    }
    choose(kinds.into_values().collect(), count)
}

/// The same number of each kind, as far as there are so many.
fn choose(mut kinds: Vec<Vec<Point>>, count: usize) -> Vec<Point> {
    kinds.sort_by_key(Vec::len);
    let (mut chosen, mut left) = (Vec::new(), kinds.len());
    for kind in kinds {
        let share = ((count - chosen.len()).div_ceil(left)).min(kind.len());
        left -= 1;
        chosen.extend((0..share).map(|index| kind[index * kind.len() / share].clone()));
    }
    assert_eq!(chosen.len(), count);
    chosen
}

impl Point {
    /// Does the work, and injects there what strace(1) calls `what`: `signal=KILL`, `error=EIO`.
    pub fn hit(&self, command: &Command, what: &str) -> Output {
        let inject = format!("inject={}:{what}:when={}", self.call, self.number);
        let trace = format!("trace={}", self.call);
        traced(command, &["-o", "/dev/null", "-e", &trace, "-e", &inject]).output().unwrap()
    }

    /// Kills the work there. It is in the middle of it, always.
    pub fn kill(&self, command: &Command) {
        use std::os::unix::process::ExitStatusExt;
        let output = self.hit(command, "signal=KILL");
        assert_eq!(output.status.signal(), Some(9), "{self:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(BEGIN) && !said.contains(END), "{self:?}: {output:?}");
    }

    /// Lets the call fail; the work must end by itself, in one way or the other. What it said, and whether it failed.
    pub fn fail(&self, command: &Command, error: &str) -> String {
        let output = self.hit(command, &format!("error={error}"));
        assert!(output.status.success(), "{self:?} {error}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
