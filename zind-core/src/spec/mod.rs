//! [`Spec`]: everything a caller can ask for, as plain data.
#![forbid(unsafe_code)]

pub(crate) mod check;
mod hooks;
pub(crate) mod oci;
pub(crate) mod parse;
pub(crate) mod sysctl;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use crate::cgroup::Resources;
pub use crate::device::{Console, Device};
use crate::image::apply::Origin;
pub use crate::mount::Mount;
pub use crate::namespace::idmap::{IdMap, IdMaps};
pub use crate::namespace::kind::Kind;
pub use crate::namespace::{Source, TimeOffsets};
pub use crate::rootfs::{Overlay, Rootfs};
pub use crate::security::capabilities::{CapSet, CapSets};
use crate::security::landlock::LandlockPolicy;
use crate::security::seccomp::Profile;
pub use crate::terminal::Size;
pub use hooks::{Hook, Hooks};
pub use parse::{parse_duration, parse_rlimit_name, parse_signal, parse_size};

/// Where a standard stream of the payload goes.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// The caller's own stream of the same number.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// A pipe whose other end the caller gets.
    Pipe,
    /// This descriptor.
    Fd(Arc<OwnedFd>),
    /// A file: opened for reading as stdin; created, emptied and written as stdout or stderr.
    File(PathBuf),
    /// For stderr: wherever stdout goes.
    Stdout,
}

/// Who the payload runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum User {
    /// By number; without a group, the group that the container's `/etc/passwd` names, else 0.
    Ids(u32, Option<u32>),
    /// `"user"` or `"user:group"`, each by name or number, looked up in the container.
    Name(String),
}

/// The system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seccomp {
    /// zind's own: an allow list in the manner of Docker's.
    #[default]
    Default,
    /// None.
    None,
    /// One of the caller's, as OCI or Docker writes it.
    Profile(Arc<Profile>),
    /// None of consequence: every call is let through and noted, for [`Process::learned`](crate::Process::learned). It is slow,
    /// and only for programs that need no filter.
    Learn,
}

impl Seccomp {
    /// As the isolation report has it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Seccomp::Default => "default",
            Seccomp::None => "none",
            Seccomp::Profile(_) => "profile",
            Seccomp::Learn => "learn",
        }
    }
}

/// Soft and hard limit; `None` is unlimited: `setrlimit(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`
    pub resource: u32,
    /// What is in force.
    pub soft: Option<u64>,
    /// How far the payload may raise it.
    pub hard: Option<u64>,
}

/// Scheduling policy: `sched(7)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    /// `SCHED_*`
    pub policy: u32,
    /// Priority of the real-time policies, 1 to 99.
    pub priority: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// Runtime, deadline and period of `SCHED_DEADLINE`, in nanoseconds.
    pub deadline_ns: (u64, u64, u64),
}

/// Session and terminal of the payload: `credentials(7)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// A new session: `setsid(2)`.
    pub setsid: bool,
    /// Join this process group; 0 makes a new one.
    pub pgid: Option<i32>,
    /// Make this descriptor of the payload its controlling terminal. Needs `setsid`.
    pub setctty: bool,
    /// Give up the controlling terminal.
    pub noctty: bool,
    /// The terminal, as a descriptor of the payload.
    pub ctty: i32,
    /// Put the process group into the terminal's foreground.
    pub foreground: bool,
}

/// `binfmt_misc` of the container: `unshare --mount-binfmt --load-interp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binfmt {
    /// Where to mount it.
    pub path: PathBuf,
    /// A line for its `register` file.
    pub interpreter: Option<OsString>,
}

/// Everything a caller can ask for.
///
/// [`Spec::default`] is a container: everything new, nothing shared, no privileges. [`Spec::low_level`] is a plain
/// process: nothing new, everything inherited. All fields can be changed; rules between them are checked at the start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Spec {
    /// Program and arguments. The program is looked up in the container's `PATH` unless it has a slash.
    pub argv: Vec<OsString>,
    /// What the payload sees as `argv[0]`, if not the program.
    pub argv0: Option<OsString>,
    /// Variables that are set, on top of the default ones or the caller's.
    pub env: Vec<(OsString, OsString)>,
    /// Start from nothing: not even `PATH`, `HOME` and `LANG`.
    pub clear_env: bool,
    /// Start from the caller's environment.
    pub inherit_env: bool,
    /// With `clear_env`: variables of the caller's that are kept.
    pub keep_env: Vec<OsString>,
    /// Working directory in the container.
    pub cwd: Option<PathBuf>,

    /// What `/` is.
    pub rootfs: Rootfs,
    /// What comes before the arguments, in place of the image's entrypoint and, if there are no arguments, its command;
    /// empty: nothing. `None`: as the image says. For images only.
    pub entrypoint: Option<Vec<OsString>>,
    /// User and groups are looked up as an image means them.
    pub(crate) of_image: bool,
    /// The image that the root is of, once it was settled.
    pub(crate) origin: Option<Origin>,
    /// Directories of it that are made if they are missing.
    pub(crate) make_dirs: Vec<PathBuf>,
    /// The root is read-only as soon as those are made.
    pub(crate) sealed: bool,
    /// Where changes to it go.
    pub overlay: Overlay,
    /// Nothing can be changed.
    pub read_only: bool,
    /// Limit in bytes of all that is changed, where that is kept in memory. `None`: half of the machine's memory.
    pub tmpfs_size: Option<u64>,
    /// Further mounts, in order.
    pub mounts: Vec<Mount>,
    /// Further devices: `linux.devices` of OCI.
    pub devices: Vec<Device>,
    /// A pseudo-terminal of the caller's as `/dev/console`.
    pub console: Option<Console>,
    /// Mount a fresh `/proc`, `/dev`, `/sys` and hide what has to be hidden.
    pub system_mounts: bool,
    /// A fresh procfs at this place, for the low level.
    pub mount_proc: Option<PathBuf>,
    /// A fresh `binfmt_misc`, for the low level.
    pub binfmt: Option<Binfmt>,
    /// `chroot(2)`, for the low level.
    pub chroot: Option<PathBuf>,
    /// Directories to make after the mounts, for the low level.
    pub(crate) directories: Vec<PathBuf>,
    /// Propagation (`MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`) of all mounts of a new mount namespace, for the low level;
    /// 0 leaves it as it is.
    pub propagation: u64,

    /// Namespaces by kind; a kind that is not here is the host's.
    pub namespaces: BTreeMap<Kind, Source>,
    /// Files to which new namespaces are bound, so that they stay.
    pub pins: Vec<(Kind, PathBuf)>,
    /// Clocks of a new time namespace.
    pub time_offsets: Option<TimeOffsets>,
    /// Host name of a new uts namespace.
    pub hostname: Option<String>,
    /// NIS domain name of a new uts namespace.
    pub domainname: Option<String>,
    /// Ids of a user namespace.
    pub id_maps: IdMaps,
    /// Whether `setgroups(2)` is allowed in the user namespace; `None`: wherever that is possible.
    pub setgroups: Option<bool>,
    /// User and group that own the new user namespace.
    pub owner: Option<(u32, u32)>,

    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
    /// A terminal of this size in place of the three streams, the controlling one of a session of its own; its other end is
    /// [`Process::take_terminal`](crate::Process::take_terminal). It is one of the container's own where that has a
    /// `/dev/pts`, so that it has a name there and is `/dev/console` too; else one of this machine's.
    pub terminal: Option<Size>,
    /// Descriptors of the caller's that the payload gets under the same number. All others are closed.
    pub pass_fds: Vec<i32>,

    /// Who the payload runs as; `None`: root of the container, or the caller at the low level.
    pub user: Option<User>,
    /// Supplementary groups, by name or number; `None`: none, or the caller's at the low level.
    pub groups: Option<Vec<String>>,
    /// File mode creation mask; `None`: the caller's.
    pub umask: Option<u32>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// -1000 (never) to 1000 (first).
    pub oom_score_adj: Option<i32>,
    /// -20 to 19.
    pub nice: Option<i32>,
    /// Scheduling policy.
    pub scheduler: Option<Scheduler>,
    /// Session, process group and terminal.
    pub session: Session,
    /// Execution domain: `personality(2)`.
    pub personality: Option<u32>,
    /// A signal for the payload when the process above it ends.
    pub pdeathsig: Option<i32>,
    /// Stop the payload before its first instruction, for a tracer.
    pub ptrace: bool,
    /// Put the payload into this control group (v2) as it is born.
    pub cgroup: Option<Arc<OwnedFd>>,
    /// What the container may use; `None`: no control group is made.
    pub resources: Option<Resources>,
    /// The control group below which the container's is made: a path from the root of the hierarchies. `None`: wherever
    /// the caller may make groups.
    pub cgroup_parent: Option<PathBuf>,

    /// Capabilities of the payload; `None`: none, or unchanged at the low level.
    pub capabilities: Option<CapSet>,
    /// Ambient capabilities.
    pub ambient: CapSet,
    /// Each of the five sets by itself, as OCI has them. Excludes `capabilities`, `ambient` and `privileged`.
    pub cap_sets: Option<CapSets>,
    /// Keep the capabilities of a new user namespace across the execution, as ambient ones.
    pub keep_caps: bool,
    /// All capabilities, no filter, nothing hidden.
    pub privileged: bool,
    /// No set-uid program and no file capability has any effect.
    pub no_new_privileges: bool,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Tell what the filter refuses by an errno, as it does: [`Process::violations`](crate::Process::violations). A refusal
    /// takes longer then, since a thread of the caller's process answers each.
    pub violations: bool,
    /// Landlock, as a further wall inside of the container.
    pub landlock: LandlockPolicy,
    /// The profile of AppArmor that confines the payload; `"unconfined"`: none. It has to be loaded.
    pub apparmor: Option<String>,
    /// The context of SELinux that the payload runs in: `user:role:type:level`.
    pub selinux: Option<String>,
    /// The context of SELinux that all files have of what is mounted new for the container (OCI `linux.mountLabel`): the overlay of
    /// the root, `/dev`, a tmpfs. Binds, `/proc`, `/sys`, `/dev/mqueue`, control groups and disks have labels of their own.
    pub mount_label: Option<String>,
    /// A session keyring of its own.
    pub keyring: bool,
    /// Kernel parameters of the container's own namespaces, by the names of `sysctl(8)`: `net.*`, `fs.mqueue.*`, System V IPC,
    /// `kernel.domainname`, and `user.max_*` of a new user namespace. They are set before the payload is there.
    pub sysctl: BTreeMap<String, String>,

    /// A PID 1 that reaps and forwards signals above the payload.
    pub init: bool,
    /// End the container when the caller's process ends.
    pub die_with_owner: bool,
    /// Forward signals to the payload's whole process group.
    pub forward_signals: bool,
    /// How long the payload may run.
    pub timeout: Option<Duration>,
    /// Parts of the isolation report that must be in force.
    pub require: Vec<String>,

    /// Rows and columns of it.
    pub console_size: Option<(u16, u16)>,
    /// Programs to run as the container comes and goes.
    pub hooks: Hooks,
    /// What others want to know of the container, by name; nothing here depends on it.
    pub annotations: BTreeMap<String, String>,
}

impl Default for Spec {
    fn default() -> Spec {
        let new = [Kind::Mount, Kind::Pid, Kind::Net, Kind::Uts, Kind::Ipc, Kind::Cgroup];
        Spec {
            argv: Vec::new(),
            argv0: None,
            env: Vec::new(),
            clear_env: false,
            inherit_env: false,
            keep_env: Vec::new(),
            cwd: None,
            rootfs: Rootfs::Host,
            entrypoint: None,
            of_image: false,
            origin: None,
            make_dirs: Vec::new(),
            sealed: false,
            overlay: Overlay::Tmpfs,
            read_only: false,
            tmpfs_size: None,
            mounts: Vec::new(),
            devices: Vec::new(),
            console: None,
            system_mounts: true,
            mount_proc: None,
            binfmt: None,
            chroot: None,
            directories: Vec::new(),
            propagation: 0,
            namespaces: new.into_iter().map(|kind| (kind, Source::New)).collect(),
            pins: Vec::new(),
            time_offsets: None,
            hostname: None,
            domainname: None,
            id_maps: IdMaps::ByPrivilege,
            setgroups: None,
            owner: None,
            stdin: Stdio::Inherit,
            stdout: Stdio::Inherit,
            stderr: Stdio::Inherit,
            terminal: None,
            pass_fds: Vec::new(),
            user: None,
            groups: None,
            umask: Some(0o022),
            rlimits: Vec::new(),
            oom_score_adj: None,
            nice: None,
            scheduler: None,
            session: Session { setsid: true, ..Session::default() },
            personality: None,
            pdeathsig: None,
            ptrace: false,
            cgroup: None,
            resources: None,
            cgroup_parent: None,
            capabilities: None,
            ambient: CapSet::EMPTY,
            cap_sets: None,
            keep_caps: false,
            privileged: false,
            no_new_privileges: true,
            seccomp: Seccomp::Default,
            violations: false,
            landlock: LandlockPolicy::Default,
            apparmor: None,
            selinux: None,
            mount_label: None,
            keyring: true,
            sysctl: BTreeMap::new(),
            init: true,
            die_with_owner: true,
            forward_signals: false,
            timeout: None,
            require: Vec::new(),
            console_size: None,
            hooks: Hooks::default(),
            annotations: BTreeMap::new(),
        }
    }
}

impl Spec {
    /// A container that runs `argv`.
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Spec {
        Spec { argv: argv.into_iter().map(Into::into).collect(), ..Spec::default() }
    }

    /// A process of `argv` that shares everything with the caller until told otherwise: the starting point of
    /// `unshare(1)`, `nsenter(1)` and Go's `SysProcAttr`.
    pub fn low_level(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Spec {
        Spec {
            argv: argv.into_iter().map(Into::into).collect(),
            inherit_env: true,
            rootfs: Rootfs::Unchanged,
            overlay: Overlay::None,
            system_mounts: false,
            namespaces: BTreeMap::new(),
            umask: None,
            session: Session::default(),
            no_new_privileges: false,
            seccomp: Seccomp::None,
            landlock: LandlockPolicy::None,
            keyring: false,
            init: false,
            ..Spec::default()
        }
    }

    /// True for the low level: no root of its own, and nothing changed that was not asked for.
    pub fn is_low_level(&self) -> bool {
        self.rootfs == Rootfs::Unchanged
    }

    /// The payload's terminal is one of the container's own.
    pub(crate) fn has_own_terminals(&self) -> bool {
        !self.is_low_level() && self.system_mounts
    }

    /// True if the namespace of this kind is a new one.
    pub fn is_new(&self, kind: Kind) -> bool {
        matches!(self.namespaces.get(&kind), Some(Source::New))
    }

    /// True if the namespace of this kind is an existing one other than the caller's.
    pub fn is_joined(&self, kind: Kind) -> bool {
        matches!(self.namespaces.get(&kind), Some(Source::Path(_) | Source::Pid(_) | Source::Fd(_)))
    }
}
