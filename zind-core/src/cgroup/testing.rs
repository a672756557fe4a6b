//! Groups of the unit tests: made below the root of a hierarchy, and removed with their processes.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(super) struct TestGroup {
    pub(super) dir: PathBuf,
}

impl TestGroup {
    /// In the hierarchy of version 2; `None` where there is none, or this user cannot make groups in it.
    pub(super) fn v2(name: &str) -> Option<TestGroup> {
        TestGroup::new(name, " - cgroup2 ", "")
    }

    /// In the hierarchy of version 1 with a controller.
    pub(super) fn v1(name: &str, controller: &str) -> Option<TestGroup> {
        TestGroup::new(name, " - cgroup ", controller)
    }

    fn new(name: &str, kind: &str, option: &str) -> Option<TestGroup> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let has = |line: &&str| {
            line.contains(kind) && line.rsplit([' ', ',']).any(|word| option.is_empty() || word == option)
        };
        let point = mounts.lines().find(has)?.split(' ').nth(4)?;
        let dir = Path::new(point).join(format!("zind-test-{name}-{}", std::process::id()));
        fs::create_dir(&dir).ok().map(|()| TestGroup { dir })
    }

    pub(super) fn open(&self) -> File {
        File::open(&self.dir).unwrap()
    }

    pub(super) fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.join(file), text).unwrap_or_else(|error| panic!("{file} {text}: {error}"));
    }

    /// Starts a script in the group: it is moved there before it does anything.
    pub(super) fn start(&self, script: &str) -> Child {
        let script = format!("read go; {script}");
        let mut child =
            Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        self.write("cgroup.procs", &child.id().to_string());
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child
    }

    /// Runs a script in the group; what it says.
    pub(super) fn run(&self, script: &str) -> String {
        let output = self.start(script).wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        // Who was killed with it may not be gone yet.
        for _ in 0..500 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(std::thread::panicking(), "{} is still in use", self.dir.display());
    }
}
