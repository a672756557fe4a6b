//! [`Stats`]: what a container used or uses, each reading with its unit.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::{Value, json};

use super::calm::{self, Machine};
use super::events::Counts;
use super::files::{number, value_of, values_of};
use super::{Cgroup, Part};

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

impl Stats {
    /// Reads what a group says of itself; what it does not say stays unknown.
    pub(super) fn of(group: &Cgroup) -> Stats {
        Reader { group, is_end: false }.all().0
    }

    /// What is left to say of a group in which nobody is any more: its totals, and what is told to those who watch it.
    pub(super) fn last_of(group: &Cgroup) -> (Stats, Counts) {
        Reader { group, is_end: true }.all()
    }

    /// The totals of a life: what there is "now" means nothing any more. `reported` is what PID 1 has said.
    pub(crate) fn at_the_end(self, reported: &Stats) -> Stats {
        Stats {
            cpu_user: self.cpu_user.or(reported.cpu_user),
            cpu_system: self.cpu_system.or(reported.cpu_system),
            max_rss: reported.max_rss,
            wall: reported.wall,
            memory_current: None,
            memory_anon: None,
            memory_file: None,
            memory_shmem: None,
            memory_kernel: None,
            memory_swap: None,
            pids: None,
            ..self
        }
    }
}

impl Stats {
    /// True if a control group has said something, and not only PID 1.
    pub fn has_group(&self) -> bool {
        let bare = Stats {
            cpu_user: self.cpu_user,
            cpu_system: self.cpu_system,
            max_rss: self.max_rss,
            wall: self.wall,
            ..Stats::default()
        };
        *self != bare
    }

    /// All of it, for other languages: seconds as fractions, sizes in bytes, unknown ones `null`.
    pub fn to_json(&self) -> Value {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let io = |io: &IoStats| {
            json!({
                "device": format!("{}:{}", io.device.0, io.device.1),
                "read_bytes": io.read_bytes,
                "write_bytes": io.write_bytes,
                "reads": io.reads,
                "writes": io.writes,
            })
        };
        json!({
            "cpu_user": seconds(self.cpu_user),
            "cpu_system": seconds(self.cpu_system),
            "cpu_throttled": seconds(self.cpu_throttled),
            "cpu_throttled_periods": self.cpu_throttled_periods,
            "max_rss": self.max_rss,
            "memory_current": self.memory_current,
            "memory_peak": self.memory_peak,
            "memory_anon": self.memory_anon,
            "memory_file": self.memory_file,
            "memory_shmem": self.memory_shmem,
            "memory_kernel": self.memory_kernel,
            "memory_swap": self.memory_swap,
            "memory_limit": self.memory_limit,
            "oom_events": self.oom_events,
            "oom_kills": self.oom_kills,
            "memory_high_events": self.memory_high_events,
            "pids": self.pids,
            "pids_peak": self.pids_peak,
            "pids_limited": self.pids_limited,
            "io": self.io.as_ref().map(|list| list.iter().map(io).collect::<Vec<_>>()),
            "pressure": self.pressure.as_ref().map(PressureStats::to_json),
            "wall": self.wall.as_secs_f64(),
        })
    }
}

impl PressureStats {
    /// All of it: averages in percent, totals in seconds.
    pub fn to_json(&self) -> Value {
        let stall = |stall: &Stall| {
            json!({
                "avg10": stall.avg10, "avg60": stall.avg60, "avg300": stall.avg300, "total": stall.total.as_secs_f64(),
            })
        };
        let one = |pressure: Option<Pressure>| {
            pressure.map(|pressure| json!({"some": stall(&pressure.some), "full": stall(&pressure.full)}))
        };
        json!({"cpu": one(self.cpu), "memory": one(self.memory), "io": one(self.io)})
    }
}

/// Takes the readings of a group.
struct Reader<'a> {
    group: &'a Cgroup,
    /// What there is "now" is not asked for, and no file is read twice.
    is_end: bool,
}

impl Reader<'_> {
    fn all(&self) -> (Stats, Counts) {
        let group = self.group;
        let (mut stats, mut counts) = (Stats::default(), Counts::default());
        if let Some(part) = group.v2() {
            self.cpu_of_v2(&mut stats, part);
        }
        if let Some(part) = group.v1_with("cpuacct").filter(|_| stats.cpu_user.is_none()) {
            self.cpu_of_v1(&mut stats, part);
        }
        match group.with("cpu") {
            Some(part) if !part.is_v2 => self.throttling_of_v1(&mut stats, part),
            _ => {}
        }
        match group.with("memory") {
            Some(part) if part.is_v2 => self.memory_of_v2(&mut stats, &mut counts, part),
            Some(part) => self.memory_of_v1(&mut stats, &mut counts, part),
            None => {}
        }
        if let Some(part) = group.with("pids") {
            self.pids(&mut stats, part);
            counts.pids = stats.pids_limited.filter(|_| part.is_v2).unwrap_or(0);
        }
        match (group.with("io"), group.with("blkio")) {
            (Some(part), _) => stats.io = self.read(part, "io.stat", io_of_v2),
            (None, Some(part)) => stats.io = self.io_of_v1(part),
            (None, None) => {}
        }
        stats.pressure = group.v2().and_then(|part| self.pressure(part));
        (stats, counts)
    }

    /// A file of the group, as far as it is there.
    fn read<T>(&self, part: &Part, name: &'static str, meaning: impl FnOnce(&str) -> T) -> Option<T> {
        match self.is_end {
            false => self.group.readings.of(part, name, meaning),
            true => self.group.readings.once(part, name, meaning),
        }
    }

    fn number(&self, part: &Part, name: &'static str) -> Option<u64> {
        self.read(part, name, number).flatten()
    }

    /// What changes all the time.
    fn number_now(&self, part: &Part, name: &'static str) -> Option<u64> {
        if self.is_end { None } else { self.number(part, name) }
    }

    fn cpu_of_v2(&self, stats: &mut Stats, part: &Part) {
        self.read(part, "cpu.stat", |text| {
            let [user, system, throttled, periods] =
                values_of(text, ["user_usec", "system_usec", "throttled_usec", "nr_throttled"]);
            [stats.cpu_user, stats.cpu_system, stats.cpu_throttled] =
                [user, system, throttled].map(|time| time.map(Duration::from_micros));
            stats.cpu_throttled_periods = periods;
        });
    }

    fn cpu_of_v1(&self, stats: &mut Stats, part: &Part) {
        let time = |name| self.number(part, name).map(Duration::from_nanos);
        (stats.cpu_user, stats.cpu_system) = (time("cpuacct.usage_user"), time("cpuacct.usage_sys"));
    }

    fn throttling_of_v1(&self, stats: &mut Stats, part: &Part) {
        self.read(part, "cpu.stat", |text| {
            stats.cpu_throttled = value_of(text, "throttled_time").map(Duration::from_nanos);
            stats.cpu_throttled_periods = value_of(text, "nr_throttled");
        });
    }

    fn memory_of_v2(&self, stats: &mut Stats, counts: &mut Counts, part: &Part) {
        stats.memory_current = self.number_now(part, "memory.current");
        stats.memory_peak = self.number(part, "memory.peak");
        stats.memory_swap = self.number_now(part, "memory.swap.current");
        stats.memory_limit =
            match self.group.known_memory_max().filter(|_| self.is_end && !self.group.readings.are_noted()) {
                Some(limit) => Some(limit).filter(|limit| *limit != u64::MAX),
                None => self.number(part, "memory.max"),
            };
        if !self.is_end {
            self.read(part, "memory.stat", |text| {
                [stats.memory_anon, stats.memory_file, stats.memory_kernel, stats.memory_shmem] =
                    values_of(text, ["anon", "file", "kernel", "shmem"]);
            });
        }
        self.read(part, "memory.events", |text| {
            let [oom, oom_kill, high, max] = values_of(text, ["oom", "oom_kill", "high", "max"]);
            (stats.oom_events, stats.oom_kills, stats.memory_high_events) = (oom, oom_kill, high);
            counts.max = max.unwrap_or(0);
        });
        counts.oom = stats.oom_events.unwrap_or(0);
        counts.oom_kill = stats.oom_kills.unwrap_or(0);
        counts.high = stats.memory_high_events.unwrap_or(0);
    }

    fn memory_of_v1(&self, stats: &mut Stats, counts: &mut Counts, part: &Part) {
        stats.memory_current = self.number_now(part, "memory.usage_in_bytes");
        stats.memory_peak = self.number(part, "memory.max_usage_in_bytes");
        stats.memory_kernel = self.number_now(part, "memory.kmem.usage_in_bytes");
        // Without a limit it is the greatest number of whole pages.
        let is_limit = |bytes: &u64| *bytes < i64::MAX as u64 & !0xffff;
        stats.memory_limit = self.number(part, "memory.limit_in_bytes").filter(is_limit);
        if !self.is_end {
            self.read(part, "memory.stat", |text| {
                stats.memory_anon = value_of(text, "total_rss");
                stats.memory_file = value_of(text, "total_cache");
                stats.memory_shmem = value_of(text, "total_shmem");
                stats.memory_swap = value_of(text, "total_swap");
            });
        }
        self.read(part, "memory.oom_control", |text| stats.oom_kills = value_of(text, "oom_kill"));
        // A count of kills only; each follows from memory that ran out.
        counts.oom_kill = stats.oom_kills.unwrap_or(0);
        counts.oom = counts.oom_kill;
    }

    fn pids(&self, stats: &mut Stats, part: &Part) {
        let payload = |count: u64| count.saturating_sub(self.group.helpers);
        stats.pids = self.number_now(part, "pids.current").map(payload);
        stats.pids_peak = self.number(part, "pids.peak").map(payload);
        stats.pids_limited = self.read(part, "pids.events", |text| value_of(text, "max")).flatten();
    }

    fn io_of_v1(&self, part: &Part) -> Option<Vec<IoStats>> {
        let mut all = Vec::new();
        self.read(part, "blkio.throttle.io_service_bytes", |text| io_lines_of_v1(&mut all, text, true))?;
        self.read(part, "blkio.throttle.io_serviced", |text| io_lines_of_v1(&mut all, text, false))?;
        Some(all)
    }

    /// `None` where the kernel keeps no such account.
    fn pressure(&self, part: &Part) -> Option<PressureStats> {
        let one = |name| self.read(part, name, Pressure::parse).flatten();
        let cpu = one("cpu.pressure");
        // At the end mostly nobody had to wait for more than that, which the machine's own account tells with less ado. In a
        // hybrid tree, where each attach is a thousand times as dear, no descriptors are kept for that.
        let is_known_else = self.is_end && cpu.is_some() && !self.group.readings.are_noted();
        let begin = self.group.began.filter(|_| is_known_else && self.group.v1().next().is_none());
        let unless_calm = |machine: &Machine, name| match begin {
            Some(begin) if machine.was_calm_since(begin) => Some(Pressure::default()),
            _ => one(name),
        };
        let memory = unless_calm(&calm::MEMORY, "memory.pressure");
        let stats = PressureStats { cpu, memory, io: unless_calm(&calm::DISKS, "io.pressure") };
        (stats != PressureStats::default()).then_some(stats)
    }
}

pub(super) fn io_of_v2(text: &str) -> Vec<IoStats> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let mut io = IoStats { device: super::limits::numbers(words.next()?)?, ..IoStats::default() };
        for word in words {
            let (key, value) = word.split_once('=')?;
            let slot = match key {
                "rbytes" => &mut io.read_bytes,
                "wbytes" => &mut io.write_bytes,
                "rios" => &mut io.reads,
                "wios" => &mut io.writes,
                _ => continue,
            };
            *slot = value.parse().ok()?;
        }
        Some(io)
    };
    text.lines().filter_map(line).collect()
}

pub(super) fn io_lines_of_v1(all: &mut Vec<IoStats>, text: &str, is_bytes: bool) {
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [device, what, value] = words[..] else { continue };
        let (Some(device), Ok(value)) = (super::limits::numbers(device), value.parse()) else { continue };
        let at = all.iter().position(|io| io.device == device).unwrap_or_else(|| {
            all.push(IoStats { device, ..IoStats::default() });
            all.len() - 1
        });
        match (what, is_bytes) {
            ("Read", true) => all[at].read_bytes = value,
            ("Write", true) => all[at].write_bytes = value,
            ("Read", false) => all[at].reads = value,
            ("Write", false) => all[at].writes = value,
            _ => {}
        }
    }
}

impl Pressure {
    /// The text of a `*.pressure` file or of one below `/proc/pressure`.
    pub(crate) fn parse(text: &str) -> Option<Pressure> {
        let stall =
            |kind: &str| text.lines().find_map(|line| Stall::parse(line.strip_prefix(kind)?.strip_prefix(' ')?));
        // Before Linux 5.13 cpu.pressure has no second line.
        Some(Pressure { some: stall("some")?, full: stall("full").unwrap_or_default() })
    }
}

impl Stall {
    /// `avg10=0.00 avg60=0.00 avg300=0.00 total=0`
    fn parse(words: &str) -> Option<Stall> {
        // What they mostly are, and quicker than any number.
        let percent = |text: &str| if text == "0.00" { Some(0.0) } else { text.parse().ok() };
        let mut words = words.split(' ');
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
        Some(Stall {
            avg10: percent(value("avg10")?)?,
            avg60: percent(value("avg60")?)?,
            avg300: percent(value("avg300")?)?,
            total: Duration::from_micros(value("total")?.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_and_disks_are_read_from_their_lines() {
        let text =
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=2500\nfull avg10=0.00 avg60=0.00 avg300=0.25 total=7\n";
        let pressure = Pressure::parse(text).unwrap();
        assert_eq!((pressure.some.avg10, pressure.some.total), (1.5, Duration::from_micros(2500)));
        assert_eq!((pressure.full.avg300, pressure.full.total), (0.25, Duration::from_micros(7)));
        assert_eq!(Pressure::parse("some avg10=x"), None);
        let io = io_of_v2("254:0 rbytes=4096 wbytes=1 rios=1 wios=2 dbytes=0 dios=0\n8:0\nrubbish a=b\n");
        assert_eq!((io[0].device, io[0].read_bytes, io[0].writes), ((254, 0), 4096, 2));
        assert_eq!(io.len(), 2);
    }
}
