//! Hooks of OCI as the launcher and the monitor run them: their place in a plan, and what their failures are called.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};
use zind_init::plan::{self as wire, HookStates, When};

use super::plan::Builder;
use super::planfile::PlanWriter;
use crate::error::{At, Error, Result, Step};
use crate::rootfs::ops::{c_path, c_string};
use crate::spec::{Hook, Hooks};

/// The container's state as the hooks of each moment get it. The pid and the closing brace are added when it is known, but
/// for `stopped`.
#[derive(Clone, Debug, Default)]
pub(crate) struct States {
    pub(crate) creating: String,
    pub(crate) created: String,
    pub(crate) running: String,
    pub(crate) stopped: String,
}

/// All that a start is to run besides the payload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) hooks: Hooks,
    pub(crate) states: States,
}

impl States {
    pub(super) fn encode(&self, writer: &mut PlanWriter) -> HookStates {
        // JSON has no NUL in it.
        let mut text = |text: &str| writer.str(&CString::new(text).unwrap_or_default());
        HookStates {
            creating: text(&self.creating),
            created: text(&self.created),
            running: text(&self.running),
            stopped: text(&self.stopped),
        }
    }
}

/// One for a plan; `fd`: its file, or -1.
fn encode(writer: &mut PlanWriter, when: When, hook: &Hook, fd: RawFd) -> Result<wire::Hook> {
    let path = c_path("hooks", &hook.path)?;
    let words = |words: &[std::ffi::OsString]| -> Result<Vec<CString>> {
        words.iter().map(|word| c_string("hooks", word)).collect()
    };
    let argv = if hook.args.is_empty() { vec![path.clone()] } else { words(&hook.args)? };
    // A word that is no variable is left out, as `execve(2)` itself would not.
    let env: Vec<_> = hook.env.iter().filter(|line| line.as_bytes().contains(&b'=')).cloned().collect();
    let envp = words(&env)?;
    Ok(wire::Hook {
        when,
        fd,
        path: writer.str(&path),
        pad: 0,
        argv: writer.strings(argv.iter().map(CString::as_c_str)),
        envp: writer.strings(envp.iter().map(CString::as_c_str)),
        timeout_ns: hook.timeout.map_or(u64::MAX, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX - 1)),
    })
}

impl Builder {
    /// Those that run in the container. A program of the host's is held by its descriptor from now on.
    pub(super) fn hooks(&mut self, hooks: &Hooks) -> Result<()> {
        let mut list = Vec::new();
        for hook in &hooks.create_container {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let file = rustix::fs::open(&hook.path, flags, Mode::empty()).at(Step::Hook, "open", &hook.path)?;
            list.push(encode(&mut self.writer, When::CreateContainer, hook, file.as_raw_fd())?);
            self.names.hooks.push(("createContainer", hook.clone()));
            self.descriptors.push(file);
        }
        for hook in &hooks.start_container {
            list.push(encode(&mut self.writer, When::StartContainer, hook, -1)?);
            self.names.hooks.push(("startContainer", hook.clone()));
        }
        self.plan.hooks = self.writer.list(&list);
        Ok(())
    }
}

/// Those that a monitor runs.
pub(super) fn of_monitor(writer: &mut PlanWriter, hooks: &Hooks) -> Result<zind_init::plan::List<wire::Hook>> {
    let lists = [
        (When::CreateRuntime, &hooks.prestart),
        (When::CreateRuntime, &hooks.create_runtime),
        (When::Poststart, &hooks.poststart),
        (When::Poststop, &hooks.poststop),
    ];
    let mut list = Vec::new();
    for (when, hook) in lists.into_iter().flat_map(|(when, hooks)| hooks.iter().map(move |hook| (when, hook))) {
        list.push(encode(writer, when, hook, -1)?);
    }
    Ok(writer.list(&list))
}

/// How one failed.
pub(crate) enum Ending {
    Code(i32),
    Signal(i32),
    Late,
}

/// The error about a hook that did not do its work.
pub(crate) fn failure(when: &str, hook: &Hook, ending: Ending, said: &str) -> Error {
    let (errno, how) = match ending {
        Ending::Code(code) => (Errno::ECANCELED, format!("exited with {code}")),
        Ending::Signal(signal) => (Errno::ECANCELED, format!("was ended by signal {signal}")),
        Ending::Late => {
            let limit = hook.timeout.unwrap_or_default().as_secs_f64();
            (Errno::ETIMEDOUT, format!("had not ended within {limit} s, and was killed"))
        }
    };
    let said = said.trim();
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Error::sys(Step::Hook, "", &hook.path, errno).with_hint(format!("the {when} hook {how}{said}"))
}

/// The error behind the value of a launcher's report.
pub(super) fn reported(hooks: &[(&'static str, Hook)], index: usize, value: i32, said: &str) -> Error {
    let Some((when, hook)) = hooks.get(index) else { return Error::sys(Step::Report, "", "", Errno::EPROTO) };
    match value {
        libc::ETIMEDOUT => failure(when, hook, Ending::Late, said),
        ..0 => match (-value & 0x7f, -value >> 8 & 0xff) {
            (0, code) => failure(when, hook, Ending::Code(code), said),
            (signal, _) => failure(when, hook, Ending::Signal(signal), said),
        },
        _ => not_run(when, hook, Errno::from_raw(value)),
    }
}

/// The error about a hook whose program could not be executed.
pub(crate) fn not_run(when: &str, hook: &Hook, errno: Errno) -> Error {
    let place = if when == "startContainer" { "the container" } else { "this machine" };
    Error::sys(Step::Hook, "execve", &hook.path, errno)
        .with_hint(format!("the {when} hook is a program of {place}, and could not be run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_how_a_hook_failed() {
        let hooks = [("createContainer", Hook::new("/h", ["x"]))];
        for (value, errno, words) in [
            (-(3 << 8), Errno::ECANCELED, "the createContainer hook exited with 3: why"),
            (-9, Errno::ECANCELED, "was ended by signal 9: why"),
            (libc::ETIMEDOUT, Errno::ETIMEDOUT, "had not ended within"),
            (libc::ENOENT, Errno::ENOENT, "a program of this machine"),
        ] {
            let error = reported(&hooks, 0, value, " why\n");
            assert_eq!((error.step(), error.errno()), (Some(Step::Hook), Some(errno)));
            assert!(error.hint().is_some_and(|hint| hint.contains(words)), "{error:?}");
        }
        assert_eq!(reported(&hooks, 1, -9, "").step(), Some(Step::Report));
    }
}
