//! [`ProcessInfo`]: what runs in a container, as `ps` and `top` list it.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};

use crate::proc::Proc;

/// One process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// Its pid in the container.
    pub container_pid: i32,
    /// The pid of its parent, in the caller's pid namespace.
    pub ppid: i32,
    /// Its user id, in the caller's user namespace.
    pub uid: u32,
    /// Its short name: `comm`.
    pub name: OsString,
    /// Program and arguments; empty for a zombie.
    pub cmdline: Vec<OsString>,
    /// `R`, `S`, `D`, `T`, `Z`...: proc_pid_stat(5).
    pub state: char,
    /// Its threads.
    pub threads: u32,
    /// Resident bytes.
    pub rss: u64,
    /// CPU time in user mode and in the kernel, in ticks of 10 ms mostly.
    pub cpu: Duration,
}

impl ProcessInfo {
    /// All of it, for other languages; `cpu` in seconds.
    pub fn to_json(&self) -> Value {
        let text = |text: &OsString| text.to_string_lossy().into_owned();
        json!({
            "pid": self.pid,
            "container_pid": self.container_pid,
            "ppid": self.ppid,
            "uid": self.uid,
            "name": text(&self.name),
            "cmdline": self.cmdline.iter().map(text).collect::<Vec<_>>(),
            "state": self.state.to_string(),
            "threads": self.threads,
            "rss": self.rss,
            "cpu": self.cpu.as_secs_f64(),
        })
    }

    /// `None` if it is gone.
    pub(crate) fn of(pid: i32) -> Option<ProcessInfo> {
        let process = Proc::open(pid).ok()?;
        let status = process.status().ok()?;
        let stat = process.stat().ok()?;
        let tick = setting(SysconfVar::CLK_TCK, 100);
        let ticks = stat.utime.saturating_add(stat.stime);
        Some(ProcessInfo {
            pid,
            container_pid: status.ns_pids().last().copied().unwrap_or(pid),
            ppid: status.ppid()?,
            uid: status.uids()?[0],
            name: status.name().to_owned(),
            cmdline: process.cmdline().unwrap_or_default(),
            state: status.state()?,
            threads: status.threads().unwrap_or(1),
            rss: u64::try_from(stat.rss).unwrap_or(0) * setting(SysconfVar::PAGE_SIZE, 4096),
            cpu: Duration::from_millis(ticks.saturating_mul(1000) / tick),
        })
    }
}

fn setting(which: SysconfVar, usual: u64) -> u64 {
    sysconf(which)
        .ok()
        .flatten()
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| *value > 0)
        .unwrap_or(usual)
}

/// Everything in the pid namespace of a process, and in those below it: guests have their parents outside.
pub(super) fn in_namespace_of(first: i32) -> Vec<i32> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(wanted) = namespace(first) else { return Vec::new() };
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok());
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut all = descendants(first);
    for pid in numbers.filter(|pid| namespace(*pid).as_ref() == Some(&wanted)) {
        all.extend(descendants(pid));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// A process and everything below it. What loses its parent goes to the PID 1 of its namespace, so that nothing is missed
/// there but what is started meanwhile.
pub(crate) fn descendants(first: i32) -> Vec<i32> {
    let mut all = vec![first];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        next += 1;
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.filter_map(|task| task.ok()) {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
                if !all.contains(&child) {
                    all.push(child);
                }
            }
        }
    }
    all
}
