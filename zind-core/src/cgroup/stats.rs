//! [`Stats`]: what a container used or uses, each reading with its unit.
#![forbid(unsafe_code)]

use std::time::Duration;

/// What a container used over its whole life, or uses now. What is not known is `None`.
///
/// Without a control group (no resources asked for) there are the times and `max_rss`, once it has ended.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// CPU time in user mode.
    pub cpu_user: Option<Duration>,
    /// CPU time in the kernel.
    pub cpu_system: Option<Duration>,
    /// How long it had to wait because its quota was used up. `cpu.stat`.
    pub cpu_throttled: Option<Duration>,
    /// In how many periods it had to.
    pub cpu_throttled_periods: Option<u64>,
    /// Largest resident set of a single process, in bytes: `ru_maxrss` of getrusage(2). Known at the end only.
    pub max_rss: Option<u64>,
    /// Bytes of memory now, page cache and tmpfs included.
    pub memory_current: Option<u64>,
    /// The most there were (v2 from Linux 5.19 on).
    pub memory_peak: Option<u64>,
    /// Bytes that belong to no file.
    pub memory_anon: Option<u64>,
    /// Bytes of page cache and tmpfs.
    pub memory_file: Option<u64>,
    /// Bytes of tmpfs and shared memory among them.
    pub memory_shmem: Option<u64>,
    /// Bytes of the kernel's own for it.
    pub memory_kernel: Option<u64>,
    /// Bytes swapped out.
    pub memory_swap: Option<u64>,
    /// The limit in force, in bytes; `None` without one.
    pub memory_limit: Option<u64>,
    /// How often memory ran out: an allocation reached the limit and nothing could be taken back. Not on v1.
    pub oom_events: Option<u64>,
    /// Processes killed because memory ran out.
    pub oom_kills: Option<u64>,
    /// How often it went beyond `memory_high`. Not on v1.
    pub memory_high_events: Option<u64>,
    /// Processes and threads now, zind's own not counted.
    pub pids: Option<u64>,
    /// The most there were (v2 from Linux 6.8, v1 from 6.6 on).
    pub pids_peak: Option<u64>,
    /// How often a fork met the limit.
    pub pids_limited: Option<u64>,
    /// Use of disks; `None` without the controller.
    pub io: Option<Vec<IoStats>>,
    /// Time lost waiting for the CPU, memory and disks. Not on v1 alone.
    pub pressure: Option<PressureStats>,
    /// From the call to the end, or to now.
    pub wall: Duration,
}

/// Use of one disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoStats {
    /// Its numbers.
    pub device: (u32, u32),
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// Pressure stall information of a container: <https://docs.kernel.org/accounting/psi.html>
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PressureStats {
    /// Waiting for a CPU.
    pub cpu: Option<Pressure>,
    /// Waiting for memory.
    pub memory: Option<Pressure>,
    /// Waiting for disks.
    pub io: Option<Pressure>,
}

/// One resource: when some of the tasks had to wait, and when all had to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Pressure {
    /// At least one task waited.
    pub some: Stall,
    /// All tasks waited.
    pub full: Stall,
}

/// Averages in percent, and the total.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Of the last 10 seconds, in percent.
    pub avg10: f64,
    /// Of the last 60 seconds.
    pub avg60: f64,
    /// Of the last 300 seconds.
    pub avg300: f64,
    /// In all.
    pub total: Duration,
}
