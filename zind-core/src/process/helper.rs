//! Running a small program of the host (newuidmap, newgidmap) without the caller's `wait(-1)` noticing.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::error::{At, Error, Result, Step};
use crate::spec::{Spec, Stdio};

/// Runs a program found in `PATH` or the directories of the system, and returns what it said.
pub(crate) fn run(argv: &[String]) -> Result<String> {
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let path = find(program).ok_or_else(|| Error::sys(Step::MapHelper, "execve", program, Errno::ENOENT))?;
    let mut spec = Spec::low_level(argv);
    spec.argv[0] = path.into();
    spec.stdin = Stdio::Null;
    spec.stdout = Stdio::Pipe;
    spec.stderr = Stdio::Stdout;
    let process = super::launch::spawn(spec)?;
    let mut text = String::new();
    if let Some(stdout) = process.take_stdout() {
        let file = stdout.as_fd().try_clone_to_owned().at(Step::MapHelper, "dup", program)?;
        // Whatever it says is only shown; nothing is decided by it.
        let _ = std::fs::File::from(file).take(4096).read_to_string(&mut text);
    }
    process.wait(None)?;
    Ok(text)
}

/// The path of a program of the host.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let _ = CString::new(program).ok()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|path| path.is_file())
}
