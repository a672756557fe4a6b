//! Running a small program of the host (newuidmap, newgidmap) without the caller's `wait(-1)` noticing.

use std::ffi::{CString, OsStr, OsString};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::communicate::Exchange;
use super::handle::{Exit, ExitKind, Process};
use crate::error::{At, Error, Result, Step};
use crate::spec::{Hook, Spec, Stdio};

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

/// What a program of the host answered.
pub(crate) struct Answer {
    /// How it ended.
    pub(crate) exit: Exit,
    /// Its standard output, and where there is none, its standard error.
    pub(crate) text: String,
}

/// The most that a program may answer, in bytes.
const MOST_ANSWER: usize = 64 << 10;

/// Runs a program of the host with `input` as its standard input, with a limit on time and answer.
pub(crate) fn ask(
    argv: &[&str],
    input: &str,
    timeout: Duration,
    step: Step,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<Answer> {
    let program = argv.first().copied().unwrap_or_default();
    let path = find(program).ok_or_else(|| Error::sys(step, "execve", program, Errno::ENOENT))?;
    let mut spec = Spec::low_level(argv);
    spec.argv[0] = path.into();
    answer_of(spec, program, Some(input), timeout, step, interrupted)
}

/// Runs a hook with the state of its container as its standard input.
///
/// Errors: [`Error::Sys`] at [`Step::Hook`], [`Error::Timeout`].
pub(crate) fn ask_hook(
    hook: &Hook,
    state: &str,
    timeout: Duration,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<Answer> {
    let mut spec = Spec::low_level([&hook.path]);
    if let Some((name, rest)) = hook.args.split_first() {
        spec.argv0 = Some(name.clone());
        spec.argv.extend(rest.iter().cloned());
    }
    spec.inherit_env = false;
    spec.clear_env = true;
    let pair = |line: &OsString| {
        let bytes = line.as_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=')?;
        Some((OsStr::from_bytes(&bytes[..at]).to_owned(), OsStr::from_bytes(&bytes[at + 1..]).to_owned()))
    };
    spec.env = hook.env.iter().filter_map(pair).collect();
    // With what it has started it can be ended as a whole.
    spec.session.setsid = true;
    let program = hook.path.to_string_lossy().into_owned();
    // A file and no pipe: one that does not read must not end us by SIGPIPE.
    let state = super::launch::memory_file("zind-state", state.as_bytes())?;
    rustix::fs::seek(&state, rustix::fs::SeekFrom::Start(0)).at(Step::Hook, "lseek", &hook.path)?;
    spec.stdin = Stdio::Fd(std::sync::Arc::new(state));
    answer_of(spec, &program, None, timeout, Step::Hook, interrupted)
}

fn answer_of(
    mut spec: Spec,
    program: &str,
    input: Option<&str>,
    timeout: Duration,
    step: Step,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<Answer> {
    if input.is_some() {
        spec.stdin = Stdio::Pipe;
    }
    spec.stdout = Stdio::Pipe;
    spec.stderr = Stdio::Pipe;
    spec.timeout = Some(timeout);
    let has_group = spec.session.setsid;
    let process = super::launch::spawn(spec)?;
    let end_group = || {
        if let Some(group) = rustix::process::Pid::from_raw(process.pid()).filter(|_| has_group) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    };
    let mut exchange = Exchange::new(&process, input.unwrap_or_default().as_bytes().to_vec())?;
    if let Err(error) = converse(&process, &mut exchange, step, program, interrupted) {
        // What stays behind must not be a program that nobody knows of.
        end_group();
        let _ = process.kill().and_then(|()| process.wait(None));
        return Err(error);
    }
    let exit = process.try_wait()?.ok_or(Error::Interrupted)?;
    if exit.kind == ExitKind::Timeout {
        end_group();
    }
    let (out, err) = exchange.into_captured();
    let text = if out.is_empty() { err } else { out };
    Ok(Answer { exit, text: String::from_utf8_lossy(&text.into_vec()).into_owned() })
}

fn converse(
    process: &Process,
    exchange: &mut Exchange,
    step: Step,
    program: &str,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<()> {
    while !exchange.serve(process, Some(Instant::now() + Duration::from_millis(100)), interrupted)? {
        let (out, err) = exchange.captured();
        if out.len() > MOST_ANSWER || err.len() > MOST_ANSWER {
            return Err(Error::sys(step, "read", program, Errno::EMSGSIZE).with_hint("it answers without end"));
        }
    }
    Ok(())
}
