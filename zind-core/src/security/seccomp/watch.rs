//! Watching a filter while it works: what it refuses ([`Violations`]), and which calls a program makes (a learned profile).
//!
//! Whoever calls sleeps until it is answered, so somebody has to answer whatever the caller does meanwhile: a thread of its
//! own, which was asked for with the option, blocks every signal, and ends with the container.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use serde_json::{Value, json};

use super::notify::{Call, Notifier};
use super::standard::CLONE_NEW_ANY;
use super::{Action, Compiled};
use crate::error::{At, Error, Result, Step};
use crate::security::syscalls::Arch;

/// A call that the filter refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The thread that called, in the caller's pid namespace.
    pub pid: i32,
    /// The number of the call.
    pub number: u32,
    /// The convention it is of.
    pub arch: Option<Arch>,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// What it failed with.
    pub errno: i32,
}

impl Violation {
    /// The kernel's name of the call: `"mount"`. `None` for a number without one.
    pub fn name(&self) -> Option<&'static str> {
        self.arch?.name(self.number)
    }

    /// For other languages: `syscall` (`null` without a name), `number`, `arch`, `args`, `pid`, `errno`.
    pub fn to_json(&self) -> Value {
        json!({
            "syscall": self.name(),
            "number": self.number,
            "arch": self.arch.map(Arch::oci_name),
            "args": self.arguments,
            "pid": self.pid,
            "errno": self.errno,
        })
    }
}

/// As many violations wait for a reader; later ones are counted only.
const MOST: usize = 4096;

/// What the thread and the readers share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
    /// Readable while there is something to read, and at the end.
    event: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Violation>,
    lost: u64,
    seen: Seen,
    is_over: bool,
}

/// Which calls there were.
#[derive(Debug, Default)]
struct Seen {
    calls: BTreeSet<&'static str>,
    /// Numbers without a name.
    unknown: BTreeSet<u32>,
    /// First arguments of `socket` and `personality`.
    firsts: BTreeMap<&'static str, BTreeSet<u32>>,
    /// `clone` was asked for a new namespace.
    clones_namespaces: bool,
    /// `clone3` was tried.
    tried_clone3: bool,
}

/// A watched payload.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    learns: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        self.news.notify_all();
    }
}

impl Watch {
    /// Begins to answer. `learns`: every call is let through and noted; else what the filter says is done, and told.
    pub(crate) fn begin(listener: OwnedFd, compiled: &Compiled, learns: bool) -> Result<Watch> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).at(Step::Notify, "eventfd2", "")?;
        let shared = Arc::new(Shared { state: Mutex::default(), news: Condvar::new(), event });
        let notifier = Notifier::from_fd(listener);
        let (filter, of_thread) = (compiled.filter.clone(), shared.clone());
        let work = move || {
            crate::sys::seccomp::block_signals();
            // An error is the end, too: without a listener everything is refused.
            while let Ok(Some(call)) = notifier.receive(None) {
                if learns {
                    learn(&notifier, &call, &of_thread);
                } else {
                    let audit = call.arch.map_or(0, Arch::audit);
                    refuse(&notifier, &call, filter.action(audit, call.number, &call.arguments), &of_thread);
                }
            }
            of_thread.lock().is_over = true;
            of_thread.tell();
        };
        std::thread::Builder::new().name("zind-seccomp".into()).spawn(work).at(
            Step::Notify,
            "clone",
            "zind-seccomp",
        )?;
        Ok(Watch { shared, learns })
    }

    pub(crate) fn violations(&self) -> Option<Violations> {
        (!self.learns).then(|| Violations { shared: self.shared.clone() })
    }

    /// The profile that lets through what was called so far.
    pub(crate) fn learned(&self) -> Option<Value> {
        if !self.learns {
            return None;
        }
        // Who waits for the payload may be faster than the thread.
        let mut state = self.shared.lock();
        let deadline = Instant::now() + Duration::from_millis(200);
        while !state.is_over {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            (state, _) = self.shared.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        Some(state.seen.profile())
    }
}

fn refuse(notifier: &Notifier, call: &Call, action: Action, shared: &Shared) {
    let errno = match action {
        Action::Errno(errno) => i32::from(errno),
        // It came here by a refusal only.
        _ => libc::ENOSYS,
    };
    let answered = if errno == 0 { notifier.answer(call, 0) } else { notifier.refuse(call, errno) };
    if answered.is_err() || errno == 0 {
        // A signal ended the call, and it comes again; or it is no refusal, but a pretence.
        return;
    }
    let Call { pid, number, arch, arguments, .. } = *call;
    let mut state = shared.lock();
    if state.waiting.len() < MOST {
        state.waiting.push_back(Violation { pid, number, arch, arguments, errno });
    } else {
        state.lost += 1;
    }
    drop(state);
    shared.tell();
}

fn learn(notifier: &Notifier, call: &Call, shared: &Shared) {
    let name = call.name();
    // Its flags are in memory, where no filter sees them: without it the C libraries take `clone`.
    let is_hidden = name == Some("clone3");
    let answered = if is_hidden { notifier.refuse(call, libc::ENOSYS) } else { notifier.proceed(call) };
    if answered.is_err() {
        return;
    }
    let mut state = shared.lock();
    let seen = &mut state.seen;
    let first = call.arguments[0] as u32;
    match name {
        Some("clone3") => seen.tried_clone3 = true,
        Some(name) => {
            if matches!(name, "socket" | "personality") {
                seen.firsts.entry(name).or_default().insert(first);
            }
            seen.clones_namespaces |= name == "clone" && first & CLONE_NEW_ANY != 0;
            seen.calls.insert(name);
        }
        None => drop(seen.unknown.insert(call.number)),
    }
}

impl Seen {
    /// What was called, with the narrowest arguments where they tell dangerous calls from harmless ones; and what every
    /// program needs to begin, to handle a signal and to end.
    fn profile(&self) -> Value {
        let always = ["execve", "exit", "exit_group", "restart_syscall", "rt_sigreturn"];
        let special = ["clone", "socket", "personality"];
        let calls: BTreeSet<&str> = self.calls.iter().copied().chain(always).collect();
        let names: Vec<&str> = calls.into_iter().filter(|name| !special.contains(name)).collect();
        let mut syscalls = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
        for (name, values) in &self.firsts {
            for value in values {
                let argument = json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
                syscalls.push(json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]}));
            }
        }
        if self.calls.contains("clone") {
            let mut rule = json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW"});
            if !self.clones_namespaces {
                let op = "SCMP_CMP_MASKED_EQ";
                rule["args"] = json!([{"index": 0, "value": CLONE_NEW_ANY, "valueTwo": 0, "op": op}]);
            }
            syscalls.push(rule);
        }
        if self.tried_clone3 {
            syscalls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
        }
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": libc::EPERM,
            "architectures": [Arch::NATIVE.oci_name()],
            "syscalls": syscalls,
        })
    }
}

/// What a container's filter refuses, as it happens: an iterator that blocks, or with a descriptor for an event loop.
///
/// Several of them share what there is: each violation goes to one reader.
#[derive(Debug)]
pub struct Violations {
    shared: Arc<Shared>,
}

impl Violations {
    /// Readable when there is a violation, or there will be no more; for an event loop.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// The next one. `None` when `timeout` is over first (`None`: never), and when there will be no more
    /// ([`Violations::is_over`]).
    pub fn next_within(&self, timeout: Option<Duration>) -> Result<Option<Violation>> {
        self.next_interruptible(timeout, &mut || false)
    }

    /// The same; `interrupted` is asked several times a second, and ends it with [`Error::Interrupted`].
    pub fn next_interruptible(
        &self,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Violation>> {
        const SLICE: Duration = Duration::from_millis(200);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.shared.lock();
        loop {
            if let Some(next) = state.waiting.pop_front() {
                if state.waiting.is_empty() && !state.is_over {
                    // Under the lock, so that nothing that comes now is lost.
                    let _ = rustix::io::read(&self.shared.event, &mut [0u8; 8][..]);
                }
                return Ok(Some(next));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if state.is_over || left == Some(Duration::ZERO) {
                return Ok(None);
            }
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            (state, _) = self.shared.news.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner);
            drop(state);
            if interrupted() {
                return Err(Error::Interrupted);
            }
            state = self.shared.lock();
        }
    }

    /// How many were not kept because nobody read them.
    pub fn lost(&self) -> u64 {
        self.shared.lock().lost
    }

    /// True when all were read and there will be no more.
    pub fn is_over(&self) -> bool {
        let state = self.shared.lock();
        state.is_over && state.waiting.is_empty()
    }
}

impl Iterator for Violations {
    type Item = Violation;

    fn next(&mut self) -> Option<Violation> {
        self.next_within(None).ok().flatten()
    }
}
