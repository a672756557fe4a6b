//! [`Plan`]: everything the launcher does, made ready by the library, as one flat piece of memory.
//!
//! The plan is a memory file: this header at offset 0, then the strings and lists it refers to by offset. Strings end
//! in NUL, lists are aligned to eight bytes, numbers are native. The launcher maps it privately, turns the lists of
//! string offsets into the pointer arrays that `execve(2)` wants, and does what it says in the order of the fields.

use crate::monitor::Monitor;

/// The first four bytes of a plan.
pub const MAGIC: u32 = 0x7a69_6e64;

/// The version of this layout. Library and launcher are built together; this catches a stale build.
pub const VERSION: u32 = 4;

/// The offset of a NUL-terminated string in the plan; 0 is "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Str(pub u32);

/// A list in the plan: where it begins and how many elements it has.
#[derive(Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct List<T> {
    /// Offset of the first element, aligned to eight bytes.
    pub offset: u32,
    /// Number of elements.
    pub len: u32,
    /// The elements' type.
    pub of: core::marker::PhantomData<T>,
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<T> {}

impl<T> List<T> {
    /// No elements.
    pub const EMPTY: List<T> = List { offset: 0, len: 0, of: core::marker::PhantomData };
}

/// Where the payload runs, seen from the process that watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Topology {
    /// The launcher builds the container, stays in it as its first process (`init`) and starts the payload from it.
    Init = 1,
    /// The launcher stays outside and forks a process that builds the container and becomes the payload.
    Watcher = 2,
    /// The launcher stays outside of a running container and starts a payload in it.
    Exec = 3,
}

/// One change of namespaces, in the order of the list.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Enter {
    /// The descriptor to join, or -1 to make new ones.
    pub fd: i32,
    /// `CLONE_NEW*` flags.
    pub flags: u32,
}

/// A descriptor of the launcher and the number the payload finds it under.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FdMap {
    /// The number in the launcher.
    pub from: i32,
    /// The number in the payload.
    pub to: i32,
}

/// One resource limit: `prlimit(2)`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u64,
    /// The soft limit; all ones is unlimited.
    pub soft: u64,
    /// The hard limit; all ones is unlimited.
    pub hard: u64,
}

/// `struct sched_attr` of `sched_setattr(2)`, version 0.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SchedAttr {
    /// The size of this structure.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value, for the ordinary policies.
    pub nice: i32,
    /// Static priority, for the real-time policies.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub period: u64,
}

/// A kernel parameter.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sysctl {
    /// Its file, from `/proc` on: `sys/net/...`.
    pub path: Str,
    /// What is written to it.
    pub value: Str,
}

/// The five capability sets, as bit masks: `capabilities(7)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Capabilities {
    /// What a program file may still give.
    pub bounding: u64,
    /// What the payload may use.
    pub permitted: u64,
    /// What is in force.
    pub effective: u64,
    /// What survives `execve(2)` of a file that inherits it.
    pub inheritable: u64,
    /// What survives `execve(2)` of any file.
    pub ambient: u64,
}

/// A program that is run on the way to the payload, or by a monitor: a hook of OCI's.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Hook {
    /// When.
    pub when: When,
    /// The program's file, or -1: it is found by `path`.
    pub fd: i32,
    /// The program.
    pub path: Str,
    /// To fill up to eight bytes.
    pub pad: u32,
    /// Its argument vector.
    pub argv: List<Str>,
    /// Its environment.
    pub envp: List<Str>,
    /// How long it may run, in nanoseconds; all ones: as long as it likes.
    pub timeout_ns: u64,
}

/// The moment of a [`Hook`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum When {
    /// By a monitor that starts its container again: the namespaces are there.
    CreateRuntime = 1,
    /// Before the root is changed, with all the rights that the launcher has.
    CreateContainer = 2,
    /// Before the payload, with its rights and no more.
    StartContainer = 3,
    /// By a monitor that has started its container again: the payload runs.
    Poststart = 4,
    /// By a monitor that has removed its container.
    Poststop = 5,
}

/// The container's state for the hooks of each moment, but for the pid and the brace at the end.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HookStates {
    /// For [`When::CreateRuntime`] and [`When::CreateContainer`].
    pub creating: Str,
    /// For [`When::StartContainer`].
    pub created: Str,
    /// For [`When::Poststart`].
    pub running: Str,
    /// For [`When::Poststop`]: all of it.
    pub stopped: Str,
}

/// What one [`FsOp`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FsKind {
    /// Mount a tmpfs at `path` and work in it from here on; `data`: its options.
    Stage = 1,
    /// `mkdir(path, mode)`.
    Mkdir = 2,
    /// `symlink(source, path)`.
    Symlink = 3,
    /// A file `path` with `mode` and the bytes `data`.
    File = 4,
    /// `mknod(path, mode, device)`.
    Mknod = 5,
    /// A new file system of type `source` at `path`; `data`: its options.
    Mount = 6,
    /// The tree at `source` (or the detached tree `fd`) at `path`.
    Bind = 7,
    /// Change the attributes or propagation of the mount at `path`.
    Setattr = 8,
    /// `path` is the root of the container; paths with [`IN_ROOT`] begin there.
    Root = 9,
    /// Make the root the root.
    Pivot = 10,
    /// `chroot(path)`.
    Chroot = 11,
    /// Hide `path`, if it is there, under an empty file (`source`) or directory (`source2`).
    Mask = 12,
    /// Make `path`, if it is there, read-only.
    Readonly = 13,
    /// Unmount `path`.
    Umount = 14,
    /// Paths with [`IN_ROOT`] begin at `/` from here on.
    RootIsHere = 15,
    /// The bytes `data` into the file `path`, which is there.
    Write = 16,
    /// Be in the network namespace of `network` from here on, once it is there.
    JoinNetwork = 17,
    /// Work in the directory `path` from here on: the `QUICK` operations after it name what is in there.
    Enter = 18,
    /// Work in the staging area again.
    Leave = 19,
    /// `path` is there; with [`CREATE`] it is made.
    Place = 20,
    /// Take away what is mounted at `path` of the root, with what is mounted below it.
    Detach = 21,
    /// `lchown(path)`; `device`: the user, and above it by 32 bits the group.
    Chown = 22,
    /// Hand the directory `path` over to the library, and wait until it is filled.
    HandOver = 23,
    /// Take a detached copy of the tree at `source`, for the bind with [`TAKEN`] that comes later.
    Take = 24,
    /// Be in the mount namespace of the process behind the pidfd `fd` from here on; with [`AS_SETUP`] as that user, too.
    JoinMounts = 25,
    /// Mount a FUSE file system at `path` with the options `text`, and hand its descriptor of `/dev/fuse` over to the library.
    Fuse = 26,
    /// Make the payload's terminal by `source` of the root, and bind it to `path` of the root.
    Terminal = 27,
    /// Run the programs of [`When::CreateContainer`].
    Hooks = 28,
}

/// `path` begins at the container's root and is resolved below it, never above.
pub const IN_ROOT: u32 = 1;
/// The bind takes the mounts below the source too; the change covers the mounts below the target.
pub const RECURSIVE: u32 = 2;
/// Make the target of the mount, and the directories above it, if it is not there.
pub const CREATE: u32 = 4;
/// No part of `path` may be a symbolic link.
pub const NO_SYMLINKS: u32 = 8;
/// An absent source of a bind is no error, nor is an absent target of a new file system.
pub const OPTIONAL: u32 = 16;
/// The target is a file.
pub const TARGET_FILE: u32 = 32;
/// The source of the bind begins at the container's root too.
pub const SOURCE_IN_ROOT: u32 = 64;

/// The source must be the very file `inode` of the file system `device`.
pub const SAME_FILE: u32 = 256;
/// What is at the target already must be the same device, or an empty file.
pub const DEVICE: u32 = 512;

/// The source of the bind is what [`FsKind::Take`] took.
pub const TAKEN: u32 = 1024;
/// Become `setup_uid` and `setup_gid` of the plan.
pub const AS_SETUP: u32 = 2048;

/// A symbolic link as the source of a bind is mounted itself.
pub const SOURCE_NOFOLLOW: u32 = 4096;
/// A symbolic link as the last part of the target is covered itself.
pub const TARGET_NOFOLLOW: u32 = 8192;

/// What it has mounted or protected is looked at when all is done.
pub const READ_BACK: u32 = 1 << 20;

/// Every part of the path is zind's own, or in the directory entered: `mount(2)` by name is safe, and quicker.
pub const QUICK: u32 = 128;

/// One operation on the file system.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FsOp {
    /// What to do.
    pub kind: FsKind,
    /// [`IN_ROOT`] and the flags after it.
    pub flags: u32,
    /// What it is done to.
    pub path: Str,
    /// Where it comes from, or the type of a new file system.
    pub source: Str,
    /// A second source, or what a new file system is made from.
    pub source2: Str,
    /// A detached tree, or -1.
    pub fd: i32,
    /// Options as `name\0value\0` pairs (an empty value sets a flag), or the content of a file.
    pub data: List<u8>,
    /// The same options as `mount(2)` takes them, or none.
    pub text: Str,
    /// Mode of what is made.
    pub mode: u32,
    /// Propagation to set (`MS_PRIVATE`, ..., with `MS_REC` below the mount too), or 0: private for a bind, else unchanged.
    pub propagation: u32,
    /// `MS_*` of the file system itself, for `mount(2)`; `data` has them by name.
    pub super_flags: u32,
    /// `MOUNT_ATTR_*` to set, below the mount too if it is [`RECURSIVE`].
    pub attr_set: u64,
    /// `MOUNT_ATTR_*` to clear, likewise.
    pub attr_clear: u64,
    /// `MOUNT_ATTR_*` to set on the mount itself only.
    pub top_set: u64,
    /// `MOUNT_ATTR_*` to clear on the mount itself only.
    pub top_clear: u64,
    /// Device number of a node, or of the file system for [`SAME_FILE`].
    pub device: u64,
    /// Inode number for [`SAME_FILE`].
    pub inode: u64,
}

/// Report [`crate::step::Step::Ready`] once the namespaces exist, and wait for [`crate::report::GO`]: the library writes
/// id maps meanwhile.
pub const WAIT_WHEN_READY: u64 = 1 << 1;
/// Set `setup_uid` and `setup_gid` once the maps are there.
pub const SETUP_IDS: u64 = 1 << 2;
/// Write the time offsets and enter the new time namespace.
pub const TIME_OFFSETS: u64 = 1 << 3;
/// Bring `lo` up.
pub const LOOPBACK: u64 = 1 << 4;
/// `setsid(2)`.
pub const SETSID: u64 = 1 << 5;
/// `setpgid(0, pgid)`.
pub const SETPGID: u64 = 1 << 6;
/// Make `ctty` the controlling terminal.
pub const SETCTTY: u64 = 1 << 7;
/// Give up the controlling terminal.
pub const NOCTTY: u64 = 1 << 8;
/// Put the process group into the foreground of `ctty`.
pub const FOREGROUND: u64 = 1 << 9;
/// `PTRACE_TRACEME`.
pub const PTRACE: u64 = 1 << 10;
/// Set `umask`.
pub const UMASK: u64 = 1 << 11;
/// Write `oom_score_adj`.
pub const OOM_SCORE_ADJ: u64 = 1 << 12;
/// Set `nice`.
pub const NICE: u64 = 1 << 13;
/// Set `scheduler`.
pub const SCHEDULER: u64 = 1 << 14;
/// Join a new, anonymous session keyring.
pub const KEYRING: u64 = 1 << 15;
/// Set `personality`.
pub const PERSONALITY: u64 = 1 << 16;
/// Set `groups`.
pub const GROUPS: u64 = 1 << 17;
/// Set `gid`.
pub const GID: u64 = 1 << 18;
/// Set `uid`.
pub const UID: u64 = 1 << 19;
/// Set all five capability sets.
pub const CAPABILITIES: u64 = 1 << 20;
/// Set `PR_SET_NO_NEW_PRIVS`.
pub const NO_NEW_PRIVILEGES: u64 = 1 << 21;
/// Set `pdeathsig`.
pub const PDEATHSIG: u64 = 1 << 22;
/// Install `seccomp`.
pub const SECCOMP: u64 = 1 << 23;
/// Raise `capabilities.ambient`, and leave the other sets as they are.
pub const AMBIENT: u64 = 1 << 24;
/// The first process forwards signals to the payload's whole process group.
pub const FORWARD_SIGNALS: u64 = 1 << 25;
/// There is no new pid namespace: end everything the payload leaves behind one by one.
pub const KILL_DESCENDANTS: u64 = 1 << 26;
/// This plan only makes a mount namespace: report [`crate::step::Step::Ready`] after the operations, wait, exit.
pub const TEMPLATE: u64 = 1 << 27;
/// Keep all permitted capabilities as ambient ones across the execution.
pub const KEEP_CAPS: u64 = 1 << 28;
/// After `enter`, fork with `fork_flags` and go on in the child; the parent only waits for it.
pub const FORK_FIRST: u64 = 1 << 29;
/// Become `owner_uid` and `owner_gid` before the user namespace is made, so that they own it.
pub const OWNER: u64 = 1 << 30;
/// The kernel may take the mount namespace down after the container has ended: nothing in it is a disk's.
pub const UNMOUNT_LATER: u64 = 1 << 31;
/// Mount by `mount(2)` alone: the newer interface is hidden. `proc` is open.
pub const OLDER_MOUNTS: u64 = 1 << 32;
/// No way but `pivot_root(2)` is good enough.
pub const MUST_PIVOT: u64 = 1 << 33;
/// Set by the launcher: it had to move the root over the old one.
pub const ROOT_MOVED: u64 = 1 << 34;
/// Be in the control groups before anything else is done, not only before the payload is there.
pub const GROUPS_EARLY: u64 = 1 << 35;
/// Make a control group namespace once we are in our groups.
pub const CGROUP_NAMESPACE: u64 = 1 << 36;
/// This plan makes a deputy: report [`crate::step::Step::Ready`] after the operations, then serve until the socket closes.
pub const DEPUTY: u64 = 1 << 37;
/// Be in the time namespace of `container`: it takes a process whose memory is nobody else's, so the watcher joins it.
pub const JOIN_TIME: u64 = 1 << 38;

/// This plan makes a monitor: what is in `monitor`, and nothing else.
pub const MONITOR: u64 = 1 << 39;

/// Install `seccomp` with a listener, and hand that over: [`crate::step::Step::HandedListener`].
pub const LISTENER: u64 = 1 << 40;

/// Enter the domain of `landlock`.
pub const LANDLOCK: u64 = 1 << 41;

/// `seccomp` begins with the question of [`crate::measured::MARK`].
pub const MARKED: u64 = 1 << 50;
/// Before its filter the payload reports [`crate::step::Step::LookAtMe`], and waits for [`crate::report::GO`].
pub const MEASURE: u64 = 1 << 52;
/// The network namespace is to be a new one.
pub const NEW_NETWORK: u64 = 1 << 51;

/// When this program has ended, another one is likely to be let into the container in the same way: its joiner may be made ready.
pub const MAKE_NEXT_READY: u64 = 1 << 53;

/// How many descriptors can be sent to a launcher that waits for another program.
pub const AGAIN_MOST: usize = 40;
/// Their numbers are below this one, and its own from there on.
pub const AGAIN_NUMBERS: i32 = 256;

/// A label that a security module gives the payload as it is executed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Label {
    /// The file to write to, below `/proc`.
    pub path: Str,
    /// Where it is on kernels that do not have that, or none.
    pub older: Str,
    /// What is written.
    pub text: Str,
    /// What is to be read then, at the beginning.
    pub label: Str,
}

/// A domain of Landlock: `landlock(7)`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Landlock {
    /// `LANDLOCK_ACCESS_FS_*` that take a rule.
    pub fs: u64,
    /// `LANDLOCK_ACCESS_NET_*` that take a rule.
    pub net: u64,
    /// `LANDLOCK_SCOPE_*`.
    pub scoped: u64,
    /// `LANDLOCK_RESTRICT_SELF_*`.
    pub flags: u64,
    /// What passes below which paths.
    pub paths: List<LandlockPath>,
    /// What passes with which ports.
    pub ports: List<LandlockPort>,
}

impl Landlock {
    /// None.
    pub const NONE: Landlock = Landlock { fs: 0, net: 0, scoped: 0, flags: 0, paths: List::EMPTY, ports: List::EMPTY };
}

/// One rule about a path of the payload's root.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LandlockPath {
    /// It.
    pub path: Str,
    /// To fill up to eight bytes.
    pub pad: u32,
    /// What passes below a directory.
    pub access: u64,
    /// What passes if it is something else.
    pub file_access: u64,
}

/// One rule about a port.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LandlockPort {
    /// What passes.
    pub access: u64,
    /// The port.
    pub port: u64,
}

/// All a launcher needs.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Plan {
    /// [`MAGIC`]
    pub magic: u32,
    /// [`VERSION`]
    pub version: u32,
    /// Length of the whole plan in bytes.
    pub size: u64,
    /// [`WAIT_WHEN_READY`] and the flags after it.
    pub flags: u64,
    /// Who watches whom.
    pub topology: Topology,
    /// The report socket.
    pub socket: i32,
    /// A pidfd of the process the container belongs to; its end is the container's. -1: none.
    pub owner: i32,
    /// A descriptor of `/proc` of the host, or -1.
    pub proc: i32,
    /// A pidfd of a task that makes the network namespace meanwhile, or -1.
    pub network: i32,
    /// An eventfd to which that task adds 1 << 32 when it is there, and 1 when its loopback interface is up; 2 more than
    /// the errno instead, where either fails.
    pub network_ready: i32,
    /// A pipe from somebody who moves the launcher into its control groups meanwhile, or -1: eight bytes, the index of the
    /// one that refused it and the errno, 0 if none did.
    pub groups_ready: i32,
    /// The file of the container's group with its count of kills because memory ran out, or -1.
    pub memory_events: i32,
    /// What becomes ready when that may have risen: the same of version 2 (`POLLPRI`), an eventfd of version 1; or -1.
    pub memory_news: i32,
    /// A pidfd of the running container's first process, with whose end a payload of [`Topology::Exec`] is ended; or -1.
    pub container: i32,
    /// Where a launcher of [`Topology::Exec`] waits for another program when this one has ended; -1: it ends, too. The plan and
    /// descriptors of each come in one message; in such a plan any number that is not negative says that it waits again.
    pub control: i32,
    /// Where whoever becomes a payload of [`Topology::Exec`] sends the listener of its filter, since it has no report socket; or -1.
    pub handover: i32,
    /// Where it, or a joiner that it has made ready, waits for a program that is let in as the last one was; or -1.
    pub ready: i32,
    /// The root of that container, where its mount namespace begins with another one; or -1.
    pub root: i32,
    /// Its control group of version 2, for whom the payload is born into; or -1.
    pub group: i32,
    /// The descriptor that the payload's terminal takes the place of; or -1.
    pub terminal: i32,
    /// The size of its window: lines, and above them by 16 bits characters in a line.
    pub terminal_size: u32,
    /// Files of its other control groups, to which who is to be in them writes a 0.
    pub group_files: List<i32>,
    /// Every descriptor the launcher keeps, in ascending order.
    pub keep: List<i32>,
    /// Those of them that whoever watches over the payload keeps to its end, for the locks that they stand for.
    pub holds: List<i32>,

    /// Namespaces to join and to make in the launcher itself.
    pub enter: List<Enter>,
    /// Namespaces for which the forked process of [`Topology::Watcher`] is cloned.
    pub fork_flags: u64,
    /// The owner of the user namespace to be made.
    pub owner_uid: u32,
    /// See `owner_uid`.
    pub owner_gid: u32,
    /// User and group to become when the maps are there.
    pub setup_uid: u32,
    /// See `setup_uid`.
    pub setup_gid: u32,
    /// Text for `/proc/self/timens_offsets`.
    pub time_offsets: Str,
    /// For `sethostname(2)`, or none.
    pub hostname: Str,
    /// For `setdomainname(2)`, or none.
    pub domainname: Str,
    /// The file system, in order.
    pub fs: List<FsOp>,
    /// Kernel parameters of these namespaces. `proc` is open.
    pub sysctls: List<Sysctl>,

    /// Programs to try, in order; the first that can be executed is.
    pub programs: List<Str>,
    /// The argument vector, without the closing NULL.
    pub argv: List<Str>,
    /// The environment, without the closing NULL.
    pub envp: List<Str>,
    /// The working directory, or none.
    pub cwd: Str,
    /// Which descriptors the payload gets.
    pub fds: List<FdMap>,
    /// The process group to join; 0 makes a new one.
    pub pgid: i32,
    /// The terminal, as a descriptor of the payload.
    pub ctty: i32,
    /// Resource limits.
    pub rlimits: List<Rlimit>,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
    /// -20 to 19.
    pub nice: i32,
    /// Scheduling policy.
    pub scheduler: SchedAttr,
    /// File mode creation mask.
    pub umask: u32,
    /// `personality(2)`.
    pub personality: u32,
    /// Supplementary groups.
    pub groups: List<u32>,
    /// Group id.
    pub gid: u32,
    /// User id.
    pub uid: u32,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// `PR_SET_PDEATHSIG`.
    pub pdeathsig: i32,
    /// `PR_SET_SECUREBITS`, or -1.
    pub securebits: i32,
    /// The filter, as `struct sock_filter`.
    pub seccomp: List<u64>,
    /// `SECCOMP_FILTER_FLAG_*` of it.
    pub seccomp_flags: u64,
    /// The payload's labels. `proc` is open.
    pub labels: List<Label>,
    /// The payload's domain of Landlock.
    pub landlock: Landlock,
    /// What a monitor needs: one, or none.
    pub monitor: List<Monitor>,
    /// The programs to run on the way, in order.
    pub hooks: List<Hook>,
    /// What they are told.
    pub hook_states: HookStates,
}
