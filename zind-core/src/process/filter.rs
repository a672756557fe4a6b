//! Which filter a payload gets, and what becomes of its listener.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, send, sendmsg, socket_with,
};
use serde_json::json;

use super::plan::{has_seccomp, payload_capabilities};
use crate::error::{At, Error, Result, Step};
use crate::security::capabilities::CapSet;
use crate::security::seccomp::{self, Compiled, Instruction, Mode};
use crate::spec::{Seccomp, Spec};

/// The filter of a payload.
pub(super) struct Chosen {
    pub(super) program: Arc<[Instruction]>,
    pub(super) flags: u32,
    pub(super) has_listener: bool,
    pub(super) listening: Option<Listening>,
}

/// Who gets the listener.
pub(crate) enum Listening {
    /// The caller.
    Caller,
    /// The agent that the profile names.
    Agent(seccomp::Listener),
    /// A thread that tells what is refused.
    Watch(Compiled),
    /// A thread that notes what is called.
    Learn(Compiled),
}

fn profile(spec: &Spec) -> Option<&Arc<seccomp::Profile>> {
    match &spec.seccomp {
        Seccomp::Profile(profile) => Some(profile),
        _ => None,
    }
}

fn capabilities(spec: &Spec) -> CapSet {
    payload_capabilities(spec).unwrap_or_else(CapSet::all)
}

pub(super) fn choose(spec: &Spec) -> Result<Option<Chosen>> {
    if spec.seccomp == Seccomp::Learn {
        let compiled = seccomp::learning()?;
        let (program, flags) = (compiled.program.clone(), compiled.flags);
        return Ok(Some(Chosen { program, flags, has_listener: true, listening: Some(Listening::Learn(compiled)) }));
    }
    if !has_seccomp(spec) {
        return match spec.violations {
            true => Err(Error::spec("violations", "needs a filter, and there is none")),
            false => Ok(None),
        };
    }
    let profile = profile(spec);
    if profile.is_none() && !spec.violations {
        // The usual one stands ready.
        let program = seccomp::default_filter(capabilities(spec));
        return Ok(Some(Chosen { program, flags: 0, has_listener: false, listening: None }));
    }
    let mode = if spec.violations { Mode::Watched } else { Mode::Plain };
    let compiled = seccomp::compiled(profile.map(|profile| &**profile), capabilities(spec), mode)?;
    let (program, flags, has_listener) = (compiled.program.clone(), compiled.flags, compiled.has_listener);
    let agent = profile.and_then(|profile| profile.listener().cloned());
    let listening = match (has_listener, spec.violations, agent) {
        (false, ..) => None,
        (true, true, _) => Some(Listening::Watch(compiled)),
        (true, false, Some(agent)) => Some(Listening::Agent(agent)),
        (true, false, None) => Some(Listening::Caller),
    };
    if listening.is_some() && spec.scheduler.is_some_and(|scheduler| matches!(scheduler.policy, 1 | 6)) {
        // The listener is handed over by a second thread, for which such a policy may leave no time.
        let rule = "SCHED_FIFO and SCHED_DEADLINE do not go with a filter that has a listener";
        return Err(Error::spec("scheduler", rule));
    }
    Ok(Some(Chosen { program, flags, has_listener, listening }))
}

/// As the isolation report has it.
pub(super) fn name(spec: &Spec) -> &'static str {
    if has_seccomp(spec) || spec.seccomp == Seccomp::Learn { spec.seccomp.name() } else { "none" }
}

/// What of the profile means nothing here.
pub(super) fn notes(spec: &Spec) -> Vec<String> {
    let compiled = profile(spec).map(|profile| seccomp::compiled(Some(&**profile), capabilities(spec), Mode::Plain));
    compiled.and_then(Result::ok).map(|compiled| compiled.notes.to_vec()).unwrap_or_default()
}

/// The filter of a further program in a container, if it asks for no other.
pub(super) fn of_container(base: &Spec) -> Seccomp {
    // Nobody notes what that one does.
    if base.seccomp == Seccomp::Learn { Seccomp::None } else { base.seccomp.clone() }
}

/// Who becomes a further program has another's memory until it has given its privileges up, and nobody to answer there.
pub(super) fn check_exec(spec: &Spec) -> Result<()> {
    if spec.no_new_privileges || choose(spec)?.is_none_or(|chosen| !chosen.has_listener) {
        return Ok(());
    }
    let needs = "a further program in a container has one only with no_new_privileges";
    Err(Error::unsupported("a seccomp listener", needs))
}

/// Below a monitor nobody is left who could hold a listener.
pub(super) fn check_watched(spec: &Spec, is_restarted: bool) -> Result<()> {
    let needs = match choose(spec)?.and_then(|chosen| chosen.listening) {
        None => return Ok(()),
        Some(Listening::Agent(_)) if !is_restarted => return Ok(()),
        Some(Listening::Agent(_)) => "no restart policy: nobody could hand the listener of the next start over",
        Some(_) => "a process of the caller's that answers: use run or Popen, or a profile with listenerPath",
    };
    Err(Error::unsupported("a seccomp listener", needs))
}

/// Between two attempts to reach an agent that has no room for us: its queue is nothing that can be waited for.
const PAUSE: Duration = Duration::from_millis(5);

/// Hands the listener to an agent, as OCI has it: the state of the container's process as JSON, with the descriptor.
///
/// Source: <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#containerprocessstate>
pub(super) fn hand_over(
    agent: &seccomp::Listener,
    listener: BorrowedFd<'_>,
    pid: i32,
    annotations: Option<&BTreeMap<String, String>>,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<()> {
    const VERSION: &str = "1.2.0";
    let path = &agent.path;
    let step = Step::SeccompAgent;
    let annotations = annotations.cloned().unwrap_or_default();
    let state = json!({
        "ociVersion": VERSION,
        "id": format!("zind-{pid}"),
        "status": "creating",
        "pid": pid,
        "bundle": "",
        "annotations": annotations,
    });
    let mut document = json!({"ociVersion": VERSION, "fds": ["seccompFd"], "pid": pid, "state": state});
    if let Some(metadata) = &agent.metadata {
        document["metadata"] = json!(metadata);
    }
    let text = document.to_string().into_bytes();
    let address = SocketAddrUnix::new(path).at(step, "connect", path)?;
    // An agent that is busy, or stopped, must not keep who starts this from giving up.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).at(step, "socket", path)?;
    let mut again = |errno| match errno {
        rustix::io::Errno::INTR if !interrupted() => Ok(()),
        rustix::io::Errno::AGAIN if !interrupted() => {
            std::thread::sleep(PAUSE);
            Ok(())
        }
        rustix::io::Errno::INTR | rustix::io::Errno::AGAIN => Err(Error::Interrupted),
        errno => Err(errno).at(step, "connect", path).map_err(|error| {
            error.with_hint("listenerPath of the profile is a unix socket of streams on which an agent listens")
        }),
    };
    while let Err(errno) = connect(&socket, &address) {
        again(errno)?;
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let fds = [listener];
    let mut sent = loop {
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        match sendmsg(&socket, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(errno @ (rustix::io::Errno::INTR | rustix::io::Errno::AGAIN)) => again(errno)?,
            other => break other.at(step, "sendmsg", path)?,
        }
    };
    while let Some(rest) = text.get(sent..).filter(|rest| !rest.is_empty()) {
        match send(&socket, rest, SendFlags::NOSIGNAL) {
            Err(errno @ (rustix::io::Errno::INTR | rustix::io::Errno::AGAIN)) => again(errno)?,
            other => sent += other.at(step, "send", path)?,
        }
    }
    Ok(())
}
