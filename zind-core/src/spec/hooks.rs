//! Programs that run as a container comes and goes.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// One program.
///
/// It gets the container's state as JSON on its standard input.
/// Source: <https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hook {
    /// The program, an absolute path.
    pub path: PathBuf,
    /// All its arguments, `argv[0]` included; empty: the path alone.
    pub args: Vec<OsString>,
    /// Its whole environment, as `NAME=value`.
    pub env: Vec<OsString>,
    /// How long it may run; `None`: as long as it likes.
    pub timeout: Option<Duration>,
}

impl Hook {
    /// This program, with these arguments after its name.
    pub fn new(path: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Hook {
        let path = path.into();
        let name = path.clone().into_os_string();
        Hook { path, args: std::iter::once(name).chain(args.into_iter().map(Into::into)).collect(), ..Hook::default() }
    }
}

/// The programs by the moment they run at, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hooks {
    /// The old name of [`Hooks::create_runtime`], run before those.
    pub prestart: Vec<Hook>,
    /// As the container is made: the namespaces are there, the root is not changed yet. In the caller's namespaces.
    pub create_runtime: Vec<Hook>,
    /// After those, in the container's namespaces, with programs of the caller's root.
    pub create_container: Vec<Hook>,
    /// As it starts, before the payload: in the container, with programs of it.
    pub start_container: Vec<Hook>,
    /// When the payload runs. In the caller's namespaces.
    pub poststart: Vec<Hook>,
    /// When the container was deleted. In the caller's namespaces.
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// None at any moment.
    pub fn is_empty(&self) -> bool {
        self.lists().iter().all(|(_, hooks)| hooks.is_empty())
    }

    /// OCI's names and the programs.
    pub fn lists(&self) -> [(&'static str, &Vec<Hook>); 6] {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
    }

    pub(crate) fn lists_mut(&mut self) -> [(&'static str, &mut Vec<Hook>); 6] {
        [
            ("prestart", &mut self.prestart),
            ("createRuntime", &mut self.create_runtime),
            ("createContainer", &mut self.create_container),
            ("startContainer", &mut self.start_container),
            ("poststart", &mut self.poststart),
            ("poststop", &mut self.poststop),
        ]
    }
}
