//! How a container ended, as its files and its monitor tell it.
#![forbid(unsafe_code)]

use std::time::Duration;

use zind_init::monitor::{
    EXITED, OUT_OF_MEMORY, OWNER_GONE, SIGNALED, SPARED_MEMORY, START_FAILED, TOLD_OOM, TOLD_SIGNAL, WAS_KILLED,
};

use crate::cgroup::Stats;
use crate::container::state::{self, Ended, Phase, Record, Running};
use crate::container::{KILLED, Restarting};
use crate::error::Step;
use crate::process::{Exit, ExitKind};

impl Ended {
    /// What it used over its whole life.
    pub(in crate::container) fn stats(&self, record: &Record) -> Stats {
        let usage = &self.head.usage;
        let reported = Stats {
            cpu_user: Some(Duration::from_micros(usage.user_us)),
            cpu_system: Some(Duration::from_micros(usage.system_us)),
            max_rss: Some(usage.max_rss),
            wall: Duration::from_nanos(self.head.wall_ns),
            ..Stats::default()
        };
        let stats = match record.run.as_ref().and_then(|run| run.group.as_ref()) {
            Some(group) => group.stats_of(self.texts.clone()).at_the_end(&reported),
            None => reported,
        };
        // The group is that of all runs, and what happened in others is none of the last one's.
        let oom_kills = stats.oom_kills.map(|count| count.saturating_sub(u64::from(self.head.ooms)));
        Stats { oom_kills, ..stats }
    }

    fn exit(&self, record: &Record) -> Exit {
        let head = &self.head;
        match head.how {
            EXITED => Exit { kind: ExitKind::Exited, code: Some(head.value), signal: None },
            SIGNALED => {
                let exit = Exit { kind: ExitKind::Signaled, code: None, signal: Some(head.value) };
                let by_us = head.flags & (WAS_KILLED | OWNER_GONE) != 0;
                let is_oom = head.value == libc::SIGKILL
                    && !by_us
                    && head.flags & SPARED_MEMORY == 0
                    && (head.flags & OUT_OF_MEMORY != 0 || self.stats(record).oom_kills.is_some_and(|count| count > 0));
                if is_oom { Exit { kind: ExitKind::Oom, ..exit } } else { exit }
            }
            _ if head.flags & START_FAILED == 0 && head.value & 0x7f != 0 => {
                Exit { signal: Some(head.value & 0x7f), ..KILLED }
            }
            _ => KILLED,
        }
    }
}

pub(in crate::container) fn exit_of(record: &Record, phase: &Phase) -> Option<Exit> {
    match phase {
        Phase::Ended(Some(ended)) => Some(ended.exit(record)),
        Phase::Ended(None) => Some(KILLED),
        _ => None,
    }
}

fn not_started(ended: &Ended) -> String {
    let step = u16::try_from(ended.head.value).ok().and_then(Step::from_number);
    format!("it could not be started again: {}", step.map_or("the launcher ended", Step::words))
}

pub(in crate::container) fn restarting_of(record: &Record, phase: &Phase) -> Option<Restarting> {
    let Phase::Running(Running { waiting: Some(waiting), .. }) = phase else { return None };
    Some(Restarting {
        at: state::time_of(waiting.until_ns),
        finished: state::time_of(waiting.ended.head.ended_ns),
        exit: waiting.ended.exit(record),
    })
}

/// What was out of the ordinary at the end.
pub(in crate::container) fn fault_of(record: &Record, phase: &Phase) -> Option<String> {
    match phase {
        Phase::Ended(None) => {
            let before = record.run.as_ref().map(|run| run.boot_id.as_str());
            let is_same_boot = state::boot_id().is_ok_and(|now| before == Some(now.as_str()));
            Some(if is_same_boot { "its monitor was killed" } else { "the machine was started anew" }.to_owned())
        }
        Phase::Ended(Some(ended)) if ended.head.flags & START_FAILED != 0 => Some(not_started(ended)),
        Phase::Running(Running { waiting: Some(waiting), .. }) if waiting.ended.head.flags & START_FAILED != 0 => {
            Some(not_started(&waiting.ended))
        }
        Phase::Ended(Some(ended)) if ended.head.flags & OWNER_GONE != 0 => {
            Some("the program that it belonged to ended".to_owned())
        }
        _ => None,
    }
}

/// An end as a monitor tells it to who waits.
pub(in crate::container) fn told_of(exit: Exit) -> i32 {
    let signal = |more: i32| TOLD_SIGNAL | more | exit.signal.unwrap_or(libc::SIGKILL);
    exit.code.unwrap_or_else(|| signal(if exit.kind == ExitKind::Oom { TOLD_OOM } else { 0 }))
}

/// What is told so.
pub(super) fn exit_told(value: i32) -> Exit {
    match value {
        0..=255 => Exit { kind: ExitKind::Exited, code: Some(value), signal: None },
        _ if value & TOLD_OOM != 0 => Exit { kind: ExitKind::Oom, ..KILLED },
        _ => Exit { signal: Some(value & 0x7f).filter(|signal| *signal > 0).or(KILLED.signal), ..KILLED },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_whole() {
        let of = |kind, code, signal| Exit { kind, code, signal };
        for exit in [
            of(ExitKind::Exited, Some(0), None),
            of(ExitKind::Exited, Some(255), None),
            of(ExitKind::Signaled, None, Some(libc::SIGTERM)),
            of(ExitKind::Signaled, None, Some(64)),
            of(ExitKind::Oom, None, Some(libc::SIGKILL)),
        ] {
            assert_eq!(exit_told(told_of(exit)), exit);
        }
    }
}
