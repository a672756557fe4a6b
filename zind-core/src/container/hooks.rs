//! Running the hooks of a container that are not run inside of it: programs of the host's with the container's state on their
//! standard input, and functions of this process.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Value, json};

use super::state::{self, Dir, Record};
use super::{Container, ExitKind};
use crate::error::{Error, Result, Step};
use crate::process::helper;
use crate::process::hooks::{Ending, States, Told, failure, not_run};
use crate::spec::{Hook, Spec};

/// Without a limit of its own a hook may take as long as it likes, which is this.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a function of this process is called: [`Container::on`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HookPoint {
    /// As it starts: its namespaces are there, its root is not. An error ends the start.
    CreateRuntime,
    /// Its program runs. An error is a warning.
    Poststart,
    /// It was deleted. An error is a warning.
    Poststop,
}

impl HookPoint {
    /// OCI's name: `"createRuntime"`, `"poststart"`, `"poststop"`.
    pub const fn name(self) -> &'static str {
        match self {
            HookPoint::CreateRuntime => "createRuntime",
            HookPoint::Poststart => "poststart",
            HookPoint::Poststop => "poststop",
        }
    }
}

/// A container's state as a hook gets it: OCI's document.
/// Source: <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md#state>
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookState {
    /// The container's id.
    pub id: String,
    /// `"creating"`, `"created"`, `"running"` or `"stopped"`.
    pub status: &'static str,
    /// Its first process, as this machine numbers it, while there is one.
    pub pid: Option<i32>,
    /// Its directory, with `config.json` in it.
    pub bundle: PathBuf,
    /// The annotations of its request, and its labels.
    pub annotations: BTreeMap<String, String>,
}

impl HookState {
    pub(super) fn new(
        dir: &Dir,
        labels: &BTreeMap<String, String>,
        spec: &Spec,
        status: &'static str,
        pid: Option<i32>,
    ) -> HookState {
        let mut annotations = labels.clone();
        annotations.extend(spec.annotations.clone());
        HookState { id: dir.id().to_owned(), status, pid, bundle: dir.0.clone(), annotations }
    }

    /// The document.
    pub fn to_json(&self) -> Value {
        let mut document = json!({
            "ociVersion": "1.2.0",
            "id": self.id,
            "status": self.status,
            "bundle": state::path_value(&self.bundle),
            "annotations": self.annotations,
        });
        if let (Some(pid), Some(fields)) = (self.pid, document.as_object_mut()) {
            fields.insert("pid".to_owned(), json!(pid));
        }
        document
    }
}

/// A function of this process.
pub(super) type Function = Arc<dyn Fn(&HookState) -> std::result::Result<(), String> + Send + Sync>;

impl Container {
    /// Calls a function of this process at a point of the container's life, after the programs of that point, by whoever calls
    /// [`Container::start`], [`Container::delete`] or [`Container::wait`] on this value or a clone of it. What the container
    /// may do then it may do, too, but for another change of the container itself, which waits for it.
    ///
    /// Nobody calls it where this process is not the one that acts: at a start or deletion by another program, at a restart
    /// by the monitor, and when this process is gone. Programs are run there: [`Hooks`](crate::Hooks).
    pub fn on(
        &self,
        point: HookPoint,
        function: impl Fn(&HookState) -> std::result::Result<(), String> + Send + Sync + 'static,
    ) {
        let mut functions = self.0.functions.lock().unwrap_or_else(PoisonError::into_inner);
        functions.push((point, Arc::new(function)));
    }

    /// What hooks complained of whose failure changes nothing (poststart, poststop), by this value and its clones, since it
    /// was asked last.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn has_functions(&self, point: HookPoint) -> bool {
        !self.functions_at(point).is_empty()
    }

    fn functions_at(&self, point: HookPoint) -> Vec<Function> {
        let functions = self.0.functions.lock().unwrap_or_else(PoisonError::into_inner);
        functions.iter().filter(|(when, _)| *when == point).map(|(_, function)| Arc::clone(function)).collect()
    }

    /// The state for its hooks. `spec` is what it is made from.
    pub(super) fn hook_state(&self, record: &Record, spec: &Spec, status: &'static str, pid: Option<i32>) -> HookState {
        HookState::new(self.dir(), &record.labels, spec, status, pid)
    }

    /// The same for those that others run.
    pub(super) fn told(&self, record: &Record, spec: &Spec) -> Told {
        let open = |status| {
            let mut text = self.hook_state(record, spec, status, None).to_json().to_string();
            text.pop();
            text.push_str(",\"pid\":");
            text
        };
        let states = States {
            creating: open("creating"),
            created: open("created"),
            running: open("running"),
            stopped: self.hook_state(record, spec, "stopped", None).to_json().to_string(),
        };
        Told { hooks: spec.hooks.clone(), states }
    }

    /// Calls the functions of a point, up to the first that fails.
    pub(super) fn call(&self, point: HookPoint, state: &HookState) -> Result<()> {
        self.functions_at(point).iter().try_for_each(|function| called(function, point, state))
    }

    /// Runs the programs and the functions of a point at which a failure is a warning, and the others all the same.
    pub(super) fn run_leniently(
        &self,
        point: HookPoint,
        programs: &[Hook],
        state: &HookState,
        interrupted: &mut dyn FnMut() -> bool,
    ) {
        let text = state.to_json().to_string();
        let ran = programs.iter().map(|hook| one(point.name(), hook, &text, interrupted)).collect::<Vec<_>>();
        let calls = self.functions_at(point).into_iter().map(|function| called(&function, point, state));
        let failed = ran.into_iter().chain(calls).filter_map(|result| result.err());
        let told: Vec<String> = failed.map(|error| error.to_string()).collect();
        self.0.warnings.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
        if point == HookPoint::Poststop {
            // There is nothing more to call them for, and they may hold this very value.
            drop(std::mem::take(&mut *self.0.functions.lock().unwrap_or_else(PoisonError::into_inner)));
        }
    }
}

fn called(function: &Function, point: HookPoint, state: &HookState) -> Result<()> {
    function(state).map_err(|said| {
        let hint = format!("the {} function failed: {said}", point.name());
        Error::sys(Step::Hook, "", point.name(), Errno::ECANCELED).with_hint(hint)
    })
}

/// Runs programs one after the other, up to the first that fails.
///
/// Errors: [`Error::Sys`] at [`Step::Hook`] with what it said.
pub(super) fn run(when: &str, hooks: &[Hook], state: &str, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
    hooks.iter().try_for_each(|hook| one(when, hook, state, interrupted))
}

fn one(when: &str, hook: &Hook, state: &str, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
    let answer =
        helper::ask_hook(hook, state, hook.timeout.unwrap_or(FOREVER), interrupted).map_err(|error| {
            match (error.step(), error.errno()) {
                (Some(Step::Exec | Step::Interpreter), Some(errno)) => not_run(when, hook, errno),
                _ => error,
            }
        })?;
    let exit = answer.exit;
    let ending = match (exit.kind, exit.code) {
        _ if exit.success() => return Ok(()),
        (ExitKind::Timeout, _) => Ending::Late,
        (_, Some(code)) => Ending::Code(code),
        _ => Ending::Signal(exit.signal.unwrap_or_default()),
    };
    Err(failure(when, hook, ending, &answer.text))
}
