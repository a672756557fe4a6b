//! [`Command`]: a container in the shape of `std::process::Command`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::communicate::{Output, communicate};
use super::handle::{Exit, Process};
use super::launch::{Starting, spawn};
use crate::cgroup::Resources;
use crate::device::{Console, Device};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::mount::Mount;
use crate::rootfs::layers::Layers;
use crate::security::capabilities::CapSet;
use crate::security::landlock::LandlockPolicy;
use crate::spec::{IdMaps, Kind, Overlay, Rlimit, Rootfs, Seccomp, Source, Spec, Stdio, User};

/// A program to run in a container of its own.
///
/// ```no_run
/// # fn main() -> Result<(), zind_core::Error> {
/// let output = zind_core::Command::new("id").arg("-u").output()?;
/// assert_eq!(output.stdout.to_vec(), b"0\n");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Command {
    spec: Spec,
    input: Option<Vec<u8>>,
}

impl From<Spec> for Command {
    fn from(spec: Spec) -> Command {
        Command { spec, input: None }
    }
}

/// Setters that store one value.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($type:ty) => $field:ident;)*) => {
        $($(#[$doc])* pub fn $name(&mut self, value: $type) -> &mut Command {
            self.spec.$field = value.into();
            self
        })*
    };
}

impl Command {
    /// A container that runs `program`, with everything new, nothing shared and no privileges.
    pub fn new(program: impl Into<OsString>) -> Command {
        Spec::new([program.into()]).into()
    }

    /// A container of an image that runs what the image says.
    pub fn of_image(image: &Image) -> Command {
        let mut command = Command::from(Spec::new(Vec::<OsString>::new()));
        command.image(image);
        command
    }

    /// A process that shares everything with the caller until told otherwise: see [`Spec::low_level`].
    pub fn low_level(program: impl Into<OsString>) -> Command {
        Spec::low_level([program.into()]).into()
    }

    /// All options, to read or change those without a method of their own.
    pub fn spec_mut(&mut self) -> &mut Spec {
        &mut self.spec
    }

    /// All options.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl Into<OsString>) -> &mut Command {
        self.spec.argv.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> &mut Command {
        self.spec.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// What the payload sees as `argv[0]`.
    pub fn argv0(&mut self, name: impl Into<OsString>) -> &mut Command {
        self.spec.argv0 = Some(name.into());
        self
    }

    /// Sets a variable. The caller's own variables are not passed on.
    pub fn env(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> &mut Command {
        self.spec.env.push((name.into(), value.into()));
        self
    }

    /// Not even `PATH`, `HOME` and `LANG` are set.
    pub fn env_clear(&mut self) -> &mut Command {
        self.spec.clear_env = true;
        self.spec.env.clear();
        self
    }

    /// Working directory in the container.
    pub fn current_dir(&mut self, path: impl Into<PathBuf>) -> &mut Command {
        self.spec.cwd = Some(path.into());
        self
    }

    /// A directory as root, below a copy-on-write layer in memory unless [`Command::overlay`] says otherwise.
    pub fn rootfs(&mut self, path: impl Into<PathBuf>) -> &mut Command {
        self.spec.rootfs = Rootfs::Path(path.into());
        self
    }

    /// An image as root, which fills in what is left open: entrypoint, arguments, variables, user and directory.
    pub fn image(&mut self, image: &Image) -> &mut Command {
        self.spec.rootfs = Rootfs::Image(image.clone());
        self
    }

    /// Replaces the image's entrypoint; without arguments its command is not used then, either. Empty: nothing.
    pub fn entrypoint(&mut self, argv: impl IntoIterator<Item = impl Into<OsString>>) -> &mut Command {
        self.spec.entrypoint = Some(argv.into_iter().map(Into::into).collect());
        self
    }

    /// What the container may use; it gets a control group, even if nothing is limited.
    pub fn resources(&mut self, resources: Resources) -> &mut Command {
        self.spec.resources = Some(resources);
        self
    }

    /// The control group below which its own is made: a path from the root of the hierarchies.
    pub fn cgroup_parent(&mut self, path: impl Into<PathBuf>) -> &mut Command {
        self.spec.cgroup_parent = Some(path.into());
        self
    }

    /// Layers on disk as root: what is changed stays there.
    pub fn rootfs_layers(&mut self, layers: &Layers) -> &mut Command {
        self.spec.rootfs = Rootfs::Layers(layers.clone());
        self
    }

    /// A namespace of one kind: new, the host's, or one that exists.
    pub fn namespace(&mut self, kind: Kind, source: Source) -> &mut Command {
        self.spec.namespaces.insert(kind, source);
        self
    }

    /// Binds the new namespace of a kind to a file, so that it stays.
    pub fn pin(&mut self, kind: Kind, path: impl Into<PathBuf>) -> &mut Command {
        self.spec.pins.push((kind, path.into()));
        self
    }

    /// A further mount.
    pub fn mount(&mut self, mount: Mount) -> &mut Command {
        self.spec.mounts.push(mount);
        self
    }

    /// A further device.
    pub fn device(&mut self, device: Device) -> &mut Command {
        self.spec.devices.push(device);
        self
    }

    /// A pseudo-terminal, by a descriptor of either end, as `/dev/console`.
    pub fn console(&mut self, terminal: impl Into<OwnedFd>) -> &mut Command {
        self.spec.console = Some(Console::Fd(Arc::new(terminal.into())));
        self
    }

    /// The host name.
    pub fn hostname(&mut self, name: impl Into<String>) -> &mut Command {
        self.spec.hostname = Some(name.into());
        self
    }

    /// User and group of the payload, by number.
    pub fn user(&mut self, uid: u32, gid: u32) -> &mut Command {
        self.spec.user = Some(User::Ids(uid, Some(gid)));
        self
    }

    /// A kernel parameter of the container's own namespaces: [`Spec::sysctl`].
    pub fn sysctl(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Command {
        self.spec.sysctl.insert(name.into(), value.into());
        self
    }

    /// A resource limit; `None` is unlimited.
    pub fn rlimit(&mut self, resource: u32, soft: Option<u64>, hard: Option<u64>) -> &mut Command {
        self.spec.rlimits.push(Rlimit { resource, soft, hard });
        self
    }

    /// Parts of the isolation report that must be in force, else the start is an error.
    pub fn require(&mut self, parts: impl IntoIterator<Item = impl Into<String>>) -> &mut Command {
        self.spec.require.extend(parts.into_iter().map(Into::into));
        self
    }

    /// The profile of AppArmor that confines the payload.
    pub fn apparmor(&mut self, profile: impl Into<String>) -> &mut Command {
        self.spec.apparmor = Some(profile.into());
        self
    }

    /// The context of SELinux that the payload runs in.
    pub fn selinux(&mut self, context: impl Into<String>) -> &mut Command {
        self.spec.selinux = Some(context.into());
        self
    }

    /// The context of SELinux that all files have of what is mounted new for the container.
    pub fn mount_label(&mut self, context: impl Into<String>) -> &mut Command {
        self.spec.mount_label = Some(context.into());
        self
    }

    /// Bytes for the payload's standard input; for [`Command::output`].
    pub fn input(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Command {
        self.input = Some(bytes.into());
        self
    }

    setters! {
        /// Where changes to the root go.
        overlay(Overlay) => overlay;
        /// Nothing of the root can be changed.
        read_only(bool) => read_only;
        /// Standard input.
        stdin(Stdio) => stdin;
        /// Standard output.
        stdout(Stdio) => stdout;
        /// Standard error.
        stderr(Stdio) => stderr;
        /// Descriptors the payload gets under the same number.
        pass_fds(Vec<i32>) => pass_fds;
        /// Ids of a user namespace of its own.
        id_maps(IdMaps) => id_maps;
        /// A PID 1 above the payload; on by default.
        init(bool) => init;
        /// The system call filter.
        seccomp(Seccomp) => seccomp;
        /// Tell what the filter refuses: [`Process::violations`](crate::Process::violations).
        violations(bool) => violations;
        /// Landlock, as a further wall inside of the container.
        landlock(LandlockPolicy) => landlock;
        /// Capabilities of the payload; none by default.
        capabilities(CapSet) => capabilities;
        /// How long the payload may run; the whole container is killed then.
        timeout(Duration) => timeout;
        /// Limit in bytes of what is changed in memory.
        tmpfs_size(u64) => tmpfs_size;
    }

    /// Starts it. The streams are the caller's unless set otherwise.
    /// Errors: [`Error::Spec`] before anything happened; [`Error::Sys`] with the step that failed, and nothing is left;
    /// [`Error::Unsupported`] where this machine or user cannot.
    pub fn spawn(&self) -> Result<Process> {
        spawn(self.spec.clone())
    }

    /// Begins a start, for an event loop: when [`Start::fd`] is readable, [`Start::finish`] does not block for long.
    /// A fresh volume is filled by this call already.
    pub fn begin(&self) -> Result<Start> {
        self.begin_interruptible(&mut || false)
    }

    /// As [`Command::begin`]; `interrupted` is asked now and then while a fresh volume is filled.
    pub fn begin_interruptible(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<Start> {
        Starting::begin(self.spec.clone(), interrupted).map(Start)
    }

    /// Runs it to its end, with the caller's streams.
    pub fn status(&self) -> Result<Exit> {
        let process = self.spawn()?;
        process.expect_no_questions()?;
        process.wait(None)?.ok_or(Error::Interrupted)
    }

    /// Runs it to its end and returns what it wrote. Streams that were not set are piped; stdin is empty.
    ///
    /// A time limit that is over is no error here: the exit says so, and the output until then is kept.
    pub fn output(&self) -> Result<Output> {
        self.output_interruptible(&mut || false)
    }

    /// As [`Command::output`]; `interrupted` is asked when a signal arrives. If it says so, the container is killed and
    /// the call ends with [`Error::Interrupted`].
    pub fn output_interruptible(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<Output> {
        let mut spec = self.spec.clone();
        if self.input.is_some() {
            spec.stdin = Stdio::Pipe;
        } else if matches!(spec.stdin, Stdio::Inherit) {
            spec.stdin = Stdio::Null;
        }
        for stream in [&mut spec.stdout, &mut spec.stderr] {
            if matches!(stream, Stdio::Inherit) {
                *stream = Stdio::Pipe;
            }
        }
        Self::run(spec, self.input.clone().unwrap_or_default(), interrupted)
    }

    /// Runs `spec` to its end with its streams as they are, feeding `input` into a piped stdin.
    pub fn run(spec: Spec, input: Vec<u8>, interrupted: &mut dyn FnMut() -> bool) -> Result<Output> {
        let process = Starting::begin(spec, interrupted)?.finish(interrupted)?;
        process.expect_no_questions()?;
        process.communicate(input, interrupted).inspect_err(|_| {
            let _ = process.kill();
            let _ = process.wait(None);
        })
    }
}

impl Process {
    /// Writes `input` to the payload's stdin, reads its piped streams to their ends, and waits.
    /// The streams must not have been taken.
    pub fn communicate(&self, input: Vec<u8>, interrupted: &mut dyn FnMut() -> bool) -> Result<Output> {
        communicate(self, input, interrupted)
    }
}

/// A start that is under way.
pub struct Start(pub(super) Starting);

impl Start {
    /// Becomes readable when there is something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    /// Waits until the payload runs.
    pub fn finish(self) -> Result<Process> {
        self.finish_interruptible(&mut || false)
    }

    /// As [`Start::finish`]; `interrupted` is asked when a signal arrives. If it says so, nothing of the start is left.
    pub fn finish_interruptible(self, interrupted: &mut dyn FnMut() -> bool) -> Result<Process> {
        self.0.finish(interrupted)
    }
}

impl AsFd for Start {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}
