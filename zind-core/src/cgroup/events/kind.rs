//! What can happen, by its names.
#![forbid(unsafe_code)]

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// Memory ran out: the limit is reached and nothing could be taken back.
    Oom,
    /// A process was killed because memory ran out.
    OomKill,
    /// The container is beyond `memory_high` and is slowed down. Not on v1.
    MemoryHigh,
    /// The container was about to go beyond `memory`; mostly memory can be taken back. Not on v1.
    MemoryMax,
    /// A fork met the limit of processes. Not on v1.
    PidsMax,
    /// More time than the trigger's was lost waiting: [`PressureTrigger`](super::PressureTrigger).
    Pressure(PressureOf),
    /// Everything in the container stands still. Not on v1.
    Frozen,
    /// It goes on. Not on v1.
    Thawed,
    /// The last process is gone. Nothing comes after it.
    Empty,
}

impl EventKind {
    /// `"oom"`, `"oom_kill"`, `"memory_high"`, `"memory_max"`, `"pids_max"`, `"pressure"`, `"frozen"`, `"thawed"`, `"empty"`.
    pub const fn name(self) -> &'static str {
        match self {
            EventKind::Oom => "oom",
            EventKind::OomKill => "oom_kill",
            EventKind::MemoryHigh => "memory_high",
            EventKind::MemoryMax => "memory_max",
            EventKind::PidsMax => "pids_max",
            EventKind::Pressure(_) => "pressure",
            EventKind::Frozen => "frozen",
            EventKind::Thawed => "thawed",
            EventKind::Empty => "empty",
        }
    }

    /// The resource of a pressure event: `"cpu"`, `"memory"`, `"io"`.
    pub const fn resource(self) -> Option<&'static str> {
        match self {
            EventKind::Pressure(of) => Some(of.name()),
            _ => None,
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PressureOf {
    /// A CPU.
    Cpu,
    /// Memory: to be taken back or read in again.
    Memory,
    /// A disk.
    Io,
}

impl PressureOf {
    /// `"cpu"`, `"memory"`, `"io"`.
    pub const fn name(self) -> &'static str {
        match self {
            PressureOf::Cpu => "cpu",
            PressureOf::Memory => "memory",
            PressureOf::Io => "io",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<PressureOf> {
        [PressureOf::Cpu, PressureOf::Memory, PressureOf::Io].into_iter().find(|of| of.name() == name)
    }
}

/// One event; equal ones that came together are one with a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// How often since it was last told.
    pub count: u64,
}
