//! The language of a monitor: a launcher that stays above one container, keeps its streams and log, and tells how it ended.
//!
//! Everybody else may be gone by then. It is asked over a socket that listens in the container's directory, one message and
//! one answer each, and it leaves two files there: `running` ([`RunningHead`]) and `exit` ([`ExitHead`]).

use crate::plan::{FdMap, List, Str};
use crate::report::Usage;

/// The first four bytes of the files.
pub const MAGIC: u32 = 0x7a69_6d6f;
/// The version of their layout.
pub const VERSION: u32 = 1;

/// All a monitor needs, besides a plan that is blank otherwise. Descriptors have the same numbers as in the library.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Monitor {
    /// The start that this is one of.
    pub run: u64,
    /// The launcher's image.
    pub image: i32,
    /// The plan of the container.
    pub plan: i32,
    /// `CLONE_NEW*` for its launcher.
    pub clone_flags: u64,
    /// The group of version 2 to clone it into, or -1.
    pub cgroup: i32,
    /// Where to write how it came into `groups`, or -1.
    pub groups_done: i32,
    /// Files that its pid is written to.
    pub groups: List<i32>,
    /// Number of the descriptor that the container's plan takes for its owner's pidfd: ours is put there.
    pub owner_slot: i32,
    /// A pidfd of the process with which the container is to end, or -1.
    pub owner: i32,
    /// Our end of the container's report socket.
    pub report: i32,
    /// The number of the other end in the container's plan.
    pub report_slot: i32,
    /// The socket to the library, for the start.
    pub control: i32,
    /// Where to listen.
    pub listener: i32,
    /// The directory of the container.
    pub dir: i32,
    /// A descriptor of `/proc`, or -1.
    pub proc: i32,
    /// The lock that says that we live.
    pub lock: i32,
    /// The write end of the container's standard input, or -1.
    pub stdin: i32,
    /// The read ends of its output, or -1.
    pub stdout: i32,
    /// See `stdout`.
    pub stderr: i32,
    /// The log, open for appending, or -1: there is none.
    pub log: i32,
    /// How long the log is.
    pub log_length: u64,
    /// How long it may become.
    pub log_size: u64,
    /// Its number, from 1 on.
    pub log_number: u64,
    /// Bytes of output before its end, over all files, with those that it tells as lost.
    pub log_bytes: u64,
    /// How many files of it there may be.
    pub log_files: u32,
    /// A directory of the container's group that has a freezer, or -1.
    pub freezer: i32,
    /// It is of version 2.
    pub freezer_is_v2: u32,
    /// When to start it again.
    pub restart: RestartWhen,
    /// How often at most, if it fails; 0: any number of times.
    pub restart_most: u32,
    /// A pipe's number in the container's plan that says that it is in its groups, or -1.
    pub groups_ready_slot: i32,
    /// Which one is its first process.
    pub first: First,
    /// The number of the other end of its terminal in its plan, if that is one of this machine's, or -1.
    pub terminal_slot: i32,
    /// Text for `setgroups`, `uid_map`, `gid_map` of who is in its new user namespace, or none.
    pub maps: [Str; 3],
    /// Programs that write its maps instead, with their arguments; the second of those is to become the pid.
    pub map_programs: [List<Str>; 2],
    /// Files of the group to read at the end.
    pub readings: List<Reading>,
    /// Directories to remove then, in this order.
    pub remove: List<Str>,
    /// Detached trees, and the numbers that the container's plan has for copies of them.
    pub trees: List<FdMap>,
    /// The directory of the journal, or -1.
    pub events: i32,
    /// The directory that this container's is in, if it is to be deleted at the end, or -1.
    pub home: i32,
    /// The directory of names, likewise.
    pub names: i32,
    /// The id of the container.
    pub id: Str,
    /// Where it goes to be deleted, from `home`.
    pub trash: Str,
    /// What says that it is to be deleted, from `home`.
    pub mark: Str,
}

/// Who the first process of a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum First {
    /// Its launcher.
    Launcher = 0,
    /// Who sends the reports.
    Sender = 1,
    /// The payload, whose pid is in the report.
    Payload = 2,
}

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RestartWhen {
    /// Never.
    Never = 0,
    /// When it exits with anything but 0, or is killed.
    Failure = 1,
    /// Whenever it ends, unless somebody asked for it.
    Always = 2,
}

/// A file of the container's group.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Reading {
    /// The directory.
    pub dir: i32,
    /// It is of version 2.
    pub is_v2: u32,
    /// The name in there.
    pub name: Str,
}

/// What the library tells over the control socket, with a pidfd of the first process, and our end of its terminal, if it has
/// one: it runs.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HandOver {
    /// Its first process.
    pub pid: i32,
    /// To fill up to eight bytes.
    pub pad: u32,
}

/// What the monitor tells over the control socket: first how the clone of the launcher went, with a pidfd of its own; then,
/// after the [`HandOver`], that `running` is written.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Begun {
    /// The launcher.
    pub pid: i32,
    /// Why it could not be cloned, or 0; `ECANCELED`: somebody has asked for its end meanwhile.
    pub clone_errno: i32,
    /// Why it could not be executed, or 0.
    pub exec_errno: i32,
    /// To fill up to eight bytes.
    pub pad: u32,
}

/// What the file `running` begins with; `stat` of the first process follows. Between two runs the pid is 0, and a [`Waiting`] follows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RunningHead {
    /// [`MAGIC`]
    pub magic: u32,
    /// [`VERSION`]
    pub version: u32,
    /// The start that this is of.
    pub run: u64,
    /// When it began, in nanoseconds since 1970.
    pub started_ns: u64,
    /// The first process; 0: there is none.
    pub pid: i32,
    /// How often it was started again.
    pub restarts: u32,
    /// Bytes that follow.
    pub len: u32,
    /// How many the kernel had killed in its group for want of memory before this run.
    pub ooms: u32,
}

/// What follows in the file `running` between two runs.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Waiting {
    /// When it is started again, in nanoseconds since 1970.
    pub until_ns: u64,
    /// How the last run ended, without sections.
    pub head: ExitHead,
}

/// What the file `exit` begins with; `sections` of [`Section`] follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExitHead {
    /// [`MAGIC`]
    pub magic: u32,
    /// [`VERSION`]
    pub version: u32,
    /// The start that this is of.
    pub run: u64,
    /// When it began, in nanoseconds since 1970.
    pub began_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// How long it ran.
    pub wall_ns: u64,
    /// What it used.
    pub usage: Usage,
    /// Records that the log had no room for.
    pub lost_records: u64,
    /// Bytes in them.
    pub lost_bytes: u64,
    /// [`EXITED`], [`SIGNALED`] or [`KILLED`].
    pub how: u32,
    /// The code, the signal, or what the launcher ended with.
    pub value: i32,
    /// [`OWNER_GONE`], [`WAS_KILLED`], [`START_FAILED`], [`SPARED_MEMORY`]
    pub flags: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// How many follow.
    pub sections: u32,
    /// How many the kernel had killed in its group for want of memory before the last run.
    pub ooms: u32,
}

/// It exited by itself.
pub const EXITED: u32 = 1;
/// A signal ended it.
pub const SIGNALED: u32 = 2;
/// Whoever watched over it was killed, and it with that one.
pub const KILLED: u32 = 3;

/// Its owner was gone, so it was killed.
pub const OWNER_GONE: u32 = 1;
/// It was killed because somebody asked for it.
pub const WAS_KILLED: u32 = 2;
/// It could not be started again; `value` is the number of the step, `restarts` the attempt.
pub const START_FAILED: u32 = 4;
/// The kernel killed it for want of memory.
pub const OUT_OF_MEMORY: u32 = 8;
/// In what is told of an end to who waits: the rest is the number of a signal, not a status.
pub const TOLD_SIGNAL: i32 = 0x100;
/// With [`TOLD_SIGNAL`]: memory ran out.
pub const TOLD_OOM: i32 = 0x200;

/// SIGKILL did not come from the kernel, whether or not memory ran out before.
pub const SPARED_MEMORY: u32 = 16;

/// What has happened, in the journal: files of these, numbered without a gap.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EventRecord {
    /// [`EVENT_MAGIC`]
    pub magic: u32,
    /// [`VERSION`]
    pub version: u32,
    /// From 1 on, over all files.
    pub number: u64,
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The start that it is of, or 0.
    pub run: u64,
    /// [`event::CREATED`] and its like.
    pub what: u32,
    /// [`EXITED`] and its like, of a [`event::DIED`].
    pub how: u32,
    /// As in [`ExitHead`].
    pub value: i32,
    /// As in [`ExitHead`].
    pub flags: u32,
    /// How often it had been started again.
    pub restarts: u32,
    /// Length of the name; 0: it is not said.
    pub name_len: u32,
    /// The id of the container.
    pub id: [u8; 64],
    /// Its name.
    pub name: [u8; 128],
    /// To fill it up.
    pub pad: u64,
}

/// How many bytes one has.
pub const EVENT_SIZE: usize = 256;
const _: () = assert!(core::mem::size_of::<EventRecord>() == EVENT_SIZE);
/// The first four bytes of one.
pub const EVENT_MAGIC: u32 = 0x7a69_6576;
/// As long as one file of the journal becomes; then it is `journal.1`, and what was that is gone.
pub const JOURNAL_SIZE: u64 = 1 << 20;

/// What there is to tell.
pub mod event {
    /// It was made.
    pub const CREATED: u32 = 1;
    /// Its program runs.
    pub const STARTED: u32 = 2;
    /// The kernel killed it for want of memory.
    pub const OOM: u32 = 3;
    /// It was paused.
    pub const PAUSED: u32 = 4;
    /// It was resumed.
    pub const RESUMED: u32 = 5;
    /// It has ended.
    pub const DIED: u32 = 6;
    /// It was deleted.
    pub const DELETED: u32 = 7;
    /// It has another name.
    pub const RENAMED: u32 = 8;
}

/// A file as it was at the end: this, its name, its text.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Section {
    /// It is of version 2.
    pub is_v2: u32,
    /// Length of the name.
    pub name: u32,
    /// Length of the text.
    pub text: u64,
}

/// What a record of the log begins with; `length` bytes follow.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogHead {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Bytes that follow.
    pub length: u32,
    /// [`STDOUT`], [`STDERR`], [`LOST`] or [`NUMBER`].
    pub stream: u8,
    /// [`LOG_MARK`], to tell a record from rubbish.
    pub mark: [u8; 3],
}

/// In each record's head.
pub const LOG_MARK: [u8; 3] = [0x7a, 0x6c, 0x01];
/// The payload's standard output, and what comes from its terminal.
pub const STDOUT: u8 = 1;
/// The payload's standard error.
pub const STDERR: u8 = 2;
/// Sixteen bytes: records, and bytes in them, that there was no room for.
pub const LOST: u8 = 3;
/// Sixteen bytes, first in each file: its number, one more than that of the file before it, and how many bytes of output came before
/// it, with those that are told as lost. Of an earlier version: the number alone.
pub const NUMBER: u8 = 4;

/// As many bytes as one record, and one message to who is attached, has at most.
pub const MOST_BYTES: usize = 32 * 1024;

/// As many as can be connected at once.
pub const MOST_CLIENTS: usize = 64;

/// Requests: the first byte; the second is its argument.
pub mod request {
    /// Send this signal to the payload.
    pub const SIGNAL: u8 = 1;
    /// Go on when the owner ends.
    pub const FORGET_OWNER: u8 = 2;
    /// Get the output from here on, and, in the answer, where to write input to (none: an answer without a descriptor).
    pub const ATTACH: u8 = 3;
    /// Close our end of the standard input.
    pub const CLOSE_STDIN: u8 = 4;
    /// Do not start it again.
    pub const NO_RESTART: u8 = 5;
    /// The pid of the first process, with a pidfd.
    pub const WHO: u8 = 6;
    /// Answer when it has ended for good.
    pub const AWAIT: u8 = 7;
}

/// The answer to a request, maybe with a descriptor.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Reply {
    /// Why not, or 0.
    pub errno: i32,
    /// The pid, for [`request::WHO`]; the code, or 256 and the signal, and 512 if memory ran out, for [`request::AWAIT`].
    pub value: i32,
}
