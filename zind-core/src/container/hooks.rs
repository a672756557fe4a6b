//! [`Hooks`]: programs that are run at points of a container's life, as OCI has them.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::state::{path_of, path_value};

/// A program of the host's. It gets the state of the container, as OCI has it, on its standard input.
/// Source: <https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hook {
    /// An absolute path.
    pub path: PathBuf,
    /// Its arguments, `argv[0]` included; empty: the path alone.
    pub args: Vec<String>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// How long it may take; `None`: as long as it likes.
    pub timeout: Option<Duration>,
}

impl Hook {
    /// Runs a program without arguments, with an empty environment.
    pub fn new(path: impl Into<PathBuf>) -> Hook {
        Hook { path: path.into(), args: Vec::new(), env: Vec::new(), timeout: None }
    }
}

/// Programs by when they are run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// On the host, when the namespaces are there; one that fails ends the start.
    pub create_runtime: Vec<Hook>,
    /// On the host, when the container is there and before its program runs; one that fails ends the start.
    pub create_container: Vec<Hook>,
    /// Before the program runs; one that fails ends the start.
    pub start_container: Vec<Hook>,
    /// When the program runs; one that fails is told and changes nothing.
    pub poststart: Vec<Hook>,
    /// When the container is deleted; likewise.
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        *self == Hooks::default()
    }

    pub(super) fn to_json(&self) -> Value {
        let hook = |hook: &Hook| {
            json!({
                "path": path_value(&hook.path), "args": hook.args, "env": hook.env,
                "timeout_ms": hook.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            })
        };
        let hooks = |hooks: &[Hook]| hooks.iter().map(hook).collect::<Vec<_>>();
        json!({
            "createRuntime": hooks(&self.create_runtime),
            "createContainer": hooks(&self.create_container),
            "startContainer": hooks(&self.start_container),
            "poststart": hooks(&self.poststart),
            "poststop": hooks(&self.poststop),
        })
    }

    pub(super) fn of_json(value: &Value) -> Option<Hooks> {
        let strings = |value: &Value| -> Option<Vec<String>> {
            value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        };
        let hook = |value: &Value| {
            Some(Hook {
                path: path_of(value.get("path")?)?,
                args: strings(value.get("args")?)?,
                env: strings(value.get("env")?)?,
                timeout: match value.get("timeout_ms")? {
                    Value::Null => None,
                    time => Some(Duration::from_millis(time.as_u64()?)),
                },
            })
        };
        let hooks = |name: &str| -> Option<Vec<Hook>> { value.get(name)?.as_array()?.iter().map(hook).collect() };
        Some(Hooks {
            create_runtime: hooks("createRuntime")?,
            create_container: hooks("createContainer")?,
            start_container: hooks("startContainer")?,
            poststart: hooks("poststart")?,
            poststop: hooks("poststop")?,
        })
    }
}
