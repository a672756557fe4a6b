//! The program: where it is looked for, arguments, environment, session, priority, limits.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use zind_init::plan::{self as wire, SchedAttr};

use super::Builder;
use crate::error::Result;
use crate::isolation::RlimitReport;
use crate::process::identity::Identity;
use crate::rootfs::ops::{c_path, c_string};
use crate::spec::parse::rlimit_name;
use crate::spec::{Kind, Source, Spec};
use crate::sys::probe;

/// A terminal is that of a session of its own.
pub(in crate::process) fn on_terminal(spec: &mut Spec) {
    if spec.terminal.is_some() {
        (spec.session.setsid, spec.session.setctty, spec.session.ctty) = (true, true, 0);
    }
}

impl Builder {
    pub(in crate::process) fn program(&mut self, spec: &Spec, identity: &Identity) -> Result<()> {
        let mut argv = spec.argv.clone();
        if let Some(name) = &spec.argv0 {
            argv[0] = name.clone();
        }
        c_string("argv", &spec.argv[0])?;
        let env = environment(spec, identity);
        let programs = programs(&spec.argv[0], &env);
        let strings = |field, items: Vec<OsString>| -> Result<Vec<CString>> {
            items.into_iter().map(|item| c_string(field, &item)).collect()
        };
        self.names.programs = programs.iter().map(PathBuf::from).collect();
        let programs = strings("argv", programs)?;
        self.plan.programs = self.writer.names(programs.iter().map(CString::as_c_str));
        let argv = strings("argv", argv)?;
        self.plan.argv = self.writer.strings(argv.iter().map(CString::as_c_str));
        let join = |(name, value): (OsString, OsString)| {
            let mut line = name.into_vec();
            line.push(b'=');
            line.extend_from_slice(value.as_bytes());
            OsString::from_vec(line)
        };
        let env = strings("env", env.into_iter().map(join).collect())?;
        self.plan.envp = self.writer.strings(env.iter().map(CString::as_c_str));
        if let Some(cwd) = &spec.cwd {
            self.plan.cwd = self.writer.str(&c_path("cwd", cwd)?);
            self.names.cwd = cwd.clone();
        }
        Ok(())
    }

    pub(in crate::process) fn process(&mut self, spec: &Spec) -> Result<()> {
        let plan = &mut self.plan;
        let session = &spec.session;
        for (is_set, flag) in [
            (session.setsid, wire::SETSID),
            (session.pgid.is_some(), wire::SETPGID),
            (session.setctty, wire::SETCTTY),
            (session.noctty, wire::NOCTTY),
            (session.foreground, wire::FOREGROUND),
            (spec.ptrace, wire::PTRACE),
            (spec.umask.is_some(), wire::UMASK),
            (spec.oom_score_adj.is_some(), wire::OOM_SCORE_ADJ),
            (spec.nice.is_some(), wire::NICE),
            (spec.scheduler.is_some(), wire::SCHEDULER),
            (spec.personality.is_some(), wire::PERSONALITY),
            (spec.pdeathsig.is_some(), wire::PDEATHSIG),
            (spec.forward_signals, wire::FORWARD_SIGNALS),
        ] {
            if is_set {
                plan.flags |= flag;
            }
        }
        plan.pgid = session.pgid.unwrap_or(0);
        plan.ctty = session.ctty;
        plan.umask = spec.umask.unwrap_or(0);
        plan.oom_score_adj = spec.oom_score_adj.unwrap_or(0);
        plan.nice = spec.nice.unwrap_or(0);
        plan.personality = spec.personality.unwrap_or(0);
        plan.pdeathsig = spec.pdeathsig.unwrap_or(0);
        if let Some(scheduler) = spec.scheduler {
            let (runtime, deadline, period) = scheduler.deadline_ns;
            plan.scheduler = SchedAttr {
                size: size_of::<SchedAttr>() as u32,
                policy: scheduler.policy,
                flags: scheduler.flags,
                // A policy says nothing of the nice value, which may not be lowered.
                nice: spec.nice.unwrap_or_else(|| rustix::process::getpriority_process(None).unwrap_or(0)),
                priority: scheduler.priority,
                runtime,
                deadline,
                period,
            };
        }
        let unlimited = |value: Option<u64>| value.unwrap_or(u64::MAX);
        let usual = usual_limits(spec);
        let limits: Vec<wire::Rlimit> = spec
            .rlimits
            .iter()
            .chain(&usual)
            .map(|limit| wire::Rlimit {
                resource: u64::from(limit.resource),
                soft: unlimited(limit.soft),
                hard: unlimited(limit.hard),
            })
            .collect();
        self.plan.rlimits = self.writer.list(&limits);
        self.names.rlimits = spec.rlimits.iter().chain(&usual).map(|limit| rlimit_name(limit.resource)).collect();
        if spec.oom_score_adj.is_some() {
            self.open_proc()?;
        }
        Ok(())
    }
}

pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn environment(spec: &Spec, identity: &Identity) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: &OsStr, value: &OsStr| match env.iter_mut().find(|(old, _)| old == name) {
        Some((_, old)) => *old = value.to_owned(),
        None => env.push((name.to_owned(), value.to_owned())),
    };
    if spec.clear_env {
        for name in &spec.keep_env {
            if let Some(value) = std::env::var_os(name) {
                set(name, &value);
            }
        }
    } else if spec.inherit_env {
        std::env::vars_os().for_each(|(name, value)| set(&name, &value));
    } else {
        let usual = if identity.user.is_none_or(|(uid, _)| uid == 0) { "/root" } else { "/home" };
        let home = identity.home.as_deref().unwrap_or(usual);
        for (name, value) in [("PATH", DEFAULT_PATH), ("HOME", home), ("LANG", "C.UTF-8")] {
            set(name.as_ref(), value.as_ref());
        }
        if spec.terminal.is_some() {
            set("TERM".as_ref(), "xterm".as_ref());
        }
    }
    spec.env.iter().for_each(|(name, value)| set(name, value));
    env
}

/// Where the program may be: execvp(3).
fn programs(program: &OsStr, env: &[(OsString, OsString)]) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value);
    let join = |dir: &[u8]| {
        let mut file = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
        file.push(b'/');
        file.extend_from_slice(program.as_bytes());
        OsString::from_vec(file)
    };
    path.as_bytes().split(|&byte| byte == b':').map(join).collect()
}

/// Limits of a container that has none of its own of that kind.
///
/// No core dumps: to the kernel 0 is not less than 1, but for a `core_pattern` with a pipe: there 0 is no limit, and a program of the
/// host's would read what the container has to say, and 1 is what turns it off. Source: core(5), `vfs_coredump()` in the kernel's
/// fs/coredump.c. And a bound for fork bombs where a user namespace of its own counts processes for each of its users: setrlimit(2),
/// RLIMIT_NPROC; `is_rlimit_overlimit()` in the kernel's kernel/ucount.c.
fn usual_limits(spec: &Spec) -> Vec<crate::spec::Rlimit> {
    const MOST_PROCESSES: u64 = 2048;
    if spec.is_low_level() || !spec.system_mounts || spec.privileged {
        return Vec::new();
    }
    let counts_processes = matches!(spec.namespaces.get(&Kind::User), Some(Source::New));
    let processes = counts_processes.then_some((libc::RLIMIT_NPROC, MOST_PROCESSES));
    let usual = [(libc::RLIMIT_CORE, 1)].into_iter().chain(processes);
    let is_its_own = |resource: u32| spec.rlimits.iter().any(|limit| limit.resource == resource);
    usual
        .filter(|(number, ..)| !is_its_own(*number))
        .map(|(number, most)| {
            // What the caller has less of cannot be raised.
            let most = Some(probe::limit(number).map_or(most, |(_, hard)| hard.min(most)));
            crate::spec::Rlimit { resource: number, soft: most, hard: most }
        })
        .collect()
}

/// What its limits are set to, by name.
pub(in crate::process) fn rlimit_values(spec: &Spec) -> BTreeMap<&'static str, RlimitReport> {
    let of = |is_usual: bool| {
        move |limit: &crate::spec::Rlimit| (rlimit_name(limit.resource), RlimitReport::of(limit, is_usual))
    };
    spec.rlimits.iter().map(of(false)).chain(usual_limits(spec).iter().map(of(true))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_the_payloads_path() {
        let env = vec![("PATH".into(), "/a::/b".into())];
        assert_eq!(programs("x".as_ref(), &env), ["/a/x", "./x", "/b/x"]);
        assert_eq!(programs("./x".as_ref(), &env), ["./x"]);
    }

    #[test]
    fn the_callers_environment_stays_out_unless_asked_for() {
        let identity = Identity { user: Some((0, 0)), ..Identity::default() };
        let names =
            |spec: &Spec| -> Vec<OsString> { environment(spec, &identity).into_iter().map(|(name, _)| name).collect() };
        assert_eq!(names(&Spec::new(["x"])), ["PATH", "HOME", "LANG"]);
        let cleared = Spec { clear_env: true, env: vec![("A".into(), "1".into())], ..Spec::new(["x"]) };
        assert_eq!(names(&cleared), ["A"]);
        let kept = Spec { clear_env: true, keep_env: vec!["PATH".into()], ..Spec::new(["x"]) };
        assert_eq!(names(&kept), ["PATH"]);
    }
}
