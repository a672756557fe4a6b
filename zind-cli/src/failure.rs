//! [`Failure`]: one line for people, and an exit status for scripts.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use zind_core::{Errno, Error, Step};

/// zind itself could not do it.
pub const OWN: u8 = 125;
/// The program is there and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
const NO_PROGRAM: u8 = 127;
/// Nobody reads what is written: as of a program that SIGPIPE ended.
const NO_READER: u8 = 128 + 13;

/// What went wrong, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub code: u8,
    text: String,
    hint: String,
}

/// A result of a verb.
pub type Result<T = u8, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// Something of zind's own.
    pub fn new(text: impl Into<String>) -> Failure {
        Failure { code: OWN, text: text.into(), hint: String::new() }
    }

    /// What to do about it.
    pub fn hint(mut self, text: impl Into<String>) -> Failure {
        self.hint = text.into();
        self
    }

    /// Another exit status.
    pub fn code(mut self, code: u8) -> Failure {
        self.code = code;
        self
    }

    /// A file of the caller's that could not be used.
    pub fn file(what: &str, path: impl AsRef<std::path::Path>, error: &io::Error) -> Failure {
        let errno =
            error.raw_os_error().map_or_else(|| error.to_string(), |raw| zind_core::describe(Errno::from_raw(raw)));
        Failure::new(format!("{what} {}: {errno}", path.as_ref().display()))
    }

    /// An image that is not there.
    pub fn is_missing_image(&self) -> bool {
        self.text.starts_with("image not found")
    }

    /// Nothing has to be said.
    pub fn is_silent(&self) -> bool {
        self.text.is_empty()
    }

    /// Ends quietly with a status.
    pub fn silent(code: u8) -> Failure {
        Failure { code, text: String::new(), hint: String::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever a file name or a registry puts into it.
        for text in [self.text.as_str(), if self.hint.is_empty() { "" } else { "; " }, &self.hint] {
            text.chars().try_for_each(|char| match char {
                '\n' => f.write_str(" "),
                char if char.is_control() => f.write_str("?"),
                char => write!(f, "{char}"),
            })?;
        }
        Ok(())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Spec { field, rule } => Failure::new(format!("{}: {rule}", option(field))),
            Error::NotFound { what: "image", name } => Failure::new(format!("image not found: {name}"))
                .hint("`zind images` lists what is there, `zind pull` fetches"),
            Error::NotFound { what: "container", name } => {
                Failure::new(format!("container not found: {name}")).hint("`zind ps -a` lists them")
            }
            Error::Interrupted => Failure::new("interrupted").code(128 + 2),
            Error::State(text) => Failure::new(text.replace(
                "give resources= when it is made, be it without limits",
                "start it with a limit or with a name, zind run --name NAME",
            )),
            Error::Timeout(_) => Failure::new("the time limit was over before the program ran").code(128 + 9),
            error => {
                let text =
                    WORDS.iter().fold(error.to_string(), |text, (library, command)| text.replace(library, command));
                Failure { code: status(&error), text, hint: String::new() }
            }
        }
    }
}

/// What the library says in its hints, and what that is here, in this order.
const WORDS: [(&str, &str); 7] = [
    ("zind.doctor()", "`zind doctor`"),
    ("doctor()", "`zind doctor`"),
    ("tls_verify=False", "--tls-verify=false"),
    ("(cert_dir)", "(--cert-dir)"),
    ("read_only=True", "--read-only"),
    ("overlay=False", "--overlay none"),
    ("foreign_layers=True", "foreign_layers=True of the library"),
];

impl From<io::Error> for Failure {
    /// Of writing to stdout.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(NO_READER),
            _ => Failure::file("write to", "stdout", &error),
        }
    }
}

fn status(error: &Error) -> u8 {
    match (error.step(), error.errno()) {
        (Some(Step::Exec), Some(Errno::ENOENT | Errno::ENOTDIR)) => NO_PROGRAM,
        (Some(Step::Exec | Step::Interpreter), _) => NOT_EXECUTABLE,
        _ => OWN,
    }
}

/// What the command line calls an option of the library.
fn option(field: &'static str) -> &'static str {
    match field {
        "argv" => "COMMAND",
        "auto_remove" => "--rm",
        "name" => "--name",
        "restart" => "--restart",
        "capabilities" => "--cap-add, --cap-drop",
        "cgroup_parent" => "--cgroup-parent",
        "cwd" => "--workdir",
        "detach_keys" => "--detach-keys",
        "devices" => "--device",
        "domainname" => "--domainname",
        "entrypoint" => "--entrypoint",
        "env" => "--env",
        "groups" => "--group-add",
        "hostname" => "--hostname",
        "init" => "--init",
        "memory" => "--memory",
        "mount_label" => "--security-opt mount-label",
        "mounts" => "--mount, --volume",
        "oom_score_adj" => "--oom-score-adj",
        "overlay" => "--overlay",
        "platform" => "--platform",
        "read_only" => "--read-only",
        "log" => "--log-opt",
        "reference" => "name of the image",
        "require" => "--require",
        "resources" => "limits",
        "rlimits" => "--ulimit",
        "sysctl" => "--sysctl",
        "landlock" => "--landlock",
        "rootfs" => "--rootfs",
        "seccomp" => "--security-opt seccomp",
        "signal" => "signal",
        "stop_signal" => "--stop-signal",
        "store" => "--store",
        "timeout" => "--timeout",
        "tmpfs_size" => "--tmpfs-size",
        "user" => "--user",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_dockers() {
        let exec = |errno| Failure::from(Error::sys(Step::Exec, "execve", "x", errno)).code;
        assert_eq!(exec(Errno::ENOENT), 127);
        assert_eq!(exec(Errno::EACCES), 126);
        assert_eq!(exec(Errno::ENOEXEC), 126);
        assert_eq!(Failure::from(Error::sys(Step::Mount, "mount", "x", Errno::ENOENT)).code, 125);
        assert_eq!(Failure::from(Error::spec("argv", "is empty")).to_string(), "COMMAND: is empty");
    }

    #[test]
    fn hints_name_what_is_typed() {
        let text = |said: &str| Failure::from(Error::unsupported("it", said)).to_string();
        assert!(text("see zind.doctor(), doctor()").contains("see `zind doctor`, `zind doctor`"));
        assert!(text("tls_verify=False takes any").contains("--tls-verify=false takes any"));
        assert!(text("a directory of your choice (cert_dir)").contains("choice (--cert-dir)"));
    }

    #[test]
    fn whatever_happens_it_is_one_line() {
        let failure = Failure::new("a\nb\x1b[31m").hint("c\td");
        assert_eq!(failure.to_string(), "a b?[31m; c?d");
    }
}
