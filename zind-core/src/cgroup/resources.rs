//! [`Resources`]: what a container may use, as plain data.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Limits of a control group. Every field that is `None` or empty is not limited.
///
/// A group is made as soon as a request has resources at all, even empty ones: then for readings, [`Process::pause`] and
/// the like. A limit that cannot be set is an error before the payload runs, never dropped.
///
/// Sources: <https://docs.kernel.org/admin-guide/cgroup-v2.html>,
/// <https://docs.kernel.org/admin-guide/cgroup-v1/index.html>,
/// <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups>
///
/// [`Process::pause`]: crate::Process::pause
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Resources {
    /// Most memory in bytes, page cache and tmpfs included; beyond it something of the container is killed. The kernel
    /// rounds down to whole pages. `u64::MAX`: no limit, for an update. `memory.max`; v1 `memory.limit_in_bytes`.
    pub memory: Option<u64>,
    /// Beyond this many bytes the container is slowed down and its memory taken back, but nothing is killed.
    /// `memory.high`; not on v1.
    pub memory_high: Option<u64>,
    /// Below this many bytes memory is taken from others first (OCI's reservation). `memory.low`; v1
    /// `memory.soft_limit_in_bytes`.
    pub memory_low: Option<u64>,
    /// Below this many bytes memory is never taken. `memory.min`; not on v1.
    pub memory_min: Option<u64>,
    /// Most swap space in bytes, by itself: 0 is none. `memory.swap.max`; v1 `memory.memsw.limit_in_bytes`, which is
    /// memory and swap together and so needs `memory` too.
    pub swap: Option<u64>,
    /// Out of memory ends all of the container, not a single process. `memory.oom.group`; not on v1.
    pub oom_group: Option<bool>,
    /// Out of memory stops who asks for more until there is some. v1 `memory.oom_control`; not on v2.
    pub oom_kill_disable: Option<bool>,
    /// 0 to 200 (100 before Linux 5.8): how gladly memory is swapped out. v1 `memory.swappiness`; not on v2.
    pub swappiness: Option<u64>,

    /// CPU time per second of wall time, in CPUs: 0.5 is half of one, infinity takes the limit away. `cpu.max`; v1 `cpu.cfs_quota_us`.
    pub cpus: Option<f64>,
    /// The same as microseconds in each period; -1 is no limit. Excludes `cpus`.
    pub cpu_quota_us: Option<i64>,
    /// Length of the period, 1000 to 1000000 microseconds; 100000 if not set.
    pub cpu_period_us: Option<u64>,
    /// Microseconds of unused quota that may be saved up. `cpu.max.burst`; v1 `cpu.cfs_burst_us`.
    pub cpu_burst_us: Option<u64>,
    /// Share of the CPU where it is scarce, 1 to 10000; 100 is the usual. `cpu.weight`; v1 `cpu.shares`, converted.
    pub cpu_weight: Option<u64>,
    /// The same in the unit of v1, 2 to 262144; 1024 is the usual. Excludes `cpu_weight`. `cpu.shares`; on v2
    /// `cpu.weight`, converted as crun and runc do.
    pub cpu_shares: Option<u64>,
    /// Only what nobody else wants: `SCHED_IDLE` for all of it. `cpu.idle`.
    pub cpu_idle: Option<bool>,
    /// CPUs as a list: `"0-3,7"`. `cpuset.cpus`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes as a list. `cpuset.mems`.
    pub cpuset_mems: Option<String>,
    /// Microseconds of real-time scheduling in each period. v1 `cpu.rt_runtime_us`; not on v2.
    pub cpu_rt_runtime_us: Option<i64>,
    /// The period of `cpu_rt_runtime_us`. v1 `cpu.rt_period_us`; not on v2.
    pub cpu_rt_period_us: Option<u64>,

    /// Most processes and threads of the payload's; zind's own PID 1 does not count. `u64::MAX`: no limit. `pids.max`.
    pub pids: Option<u64>,

    /// Share of all disks where they are busy, 1 to 10000; 100 is the usual. `io.weight`; v1 `blkio.weight` (10 to 1000),
    /// converted.
    pub io_weight: Option<u64>,
    /// Limits of single disks.
    pub io: Vec<IoLimit>,

    /// Bytes of huge pages by their size as in the files' names: `"2MB"`, `"1GB"`. `hugetlb.<size>.max` and
    /// `.rsvd.max`; v1 `hugetlb.<size>.limit_in_bytes` and `.rsvd.limit_in_bytes`.
    pub hugetlb: BTreeMap<String, u64>,
    /// RDMA handles and objects by device. `rdma.max`.
    pub rdma: BTreeMap<String, RdmaLimit>,
    /// Other countable things by name: `"sev"`. `misc.max`.
    pub misc: BTreeMap<String, u64>,

    /// Which device nodes may be used, in order; the last rule that fits decides. v1 `devices.allow` and `devices.deny`; on v2
    /// a program that the kernel asks.
    pub devices: Vec<DeviceRule>,

    /// Class of all packets, for `tc(8)` and netfilter. v1 `net_cls.classid`; not on v2.
    pub net_classid: Option<u32>,
    /// Priority of packets by interface. v1 `net_prio.ifpriomap`; not on v2.
    pub net_priorities: BTreeMap<String, u32>,

    /// Files of cgroup v2 by name, written as they are after all others: `"memory.zswap.max"`. OCI's `unified`.
    pub unified: BTreeMap<String, String>,
}

/// Limits of one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoLimit {
    /// The node of a whole disk (`/dev/vda`), or its numbers (`"254:0"`).
    pub device: PathBuf,
    /// Bytes read per second. `io.max` `rbps`; v1 `blkio.throttle.read_bps_device`.
    pub rbps: Option<u64>,
    /// Bytes written per second. `io.max` `wbps`; v1 `blkio.throttle.write_bps_device`, direct writes only.
    pub wbps: Option<u64>,
    /// Reads per second. `io.max` `riops`; v1 `blkio.throttle.read_iops_device`.
    pub riops: Option<u64>,
    /// Writes per second. `io.max` `wiops`; v1 `blkio.throttle.write_iops_device`, direct writes only.
    pub wiops: Option<u64>,
    /// Target of latency in microseconds: others are slowed down where it is missed. `io.latency`; not on v1.
    pub latency_us: Option<u64>,
    /// Share of this disk, 1 to 10000. `io.weight`; v1 `blkio.weight_device`, converted.
    pub weight: Option<u64>,
}

/// RDMA resources of one device; `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RdmaLimit {
    /// Most handles.
    pub hca_handles: Option<u32>,
    /// Most objects.
    pub hca_objects: Option<u32>,
}

/// One rule about device nodes.
///
/// Source: <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#allowed-device-list>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Which nodes.
    pub kind: DeviceKind,
    /// `None`: any.
    pub major: Option<u32>,
    /// `None`: any.
    pub minor: Option<u32>,
    /// Letters of `"rwm"`: reading, writing, making nodes.
    pub access: String,
}

/// The nodes that a [`DeviceRule`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// `a`: block and character devices.
    All,
    /// `b`
    Block,
    /// `c`
    Char,
}

impl IoLimit {
    /// A limit of this disk, with nothing limited yet.
    pub fn of(device: impl Into<PathBuf>) -> IoLimit {
        IoLimit { device: device.into(), ..IoLimit::default() }
    }

    /// Sets the bytes read and written per second.
    #[must_use]
    pub fn bps(mut self, read: Option<u64>, write: Option<u64>) -> IoLimit {
        (self.rbps, self.wbps) = (read, write);
        self
    }

    /// Sets the reads and writes per second.
    #[must_use]
    pub fn iops(mut self, read: Option<u64>, write: Option<u64>) -> IoLimit {
        (self.riops, self.wiops) = (read, write);
        self
    }

    /// Sets [`IoLimit::weight`].
    #[must_use]
    pub fn weight(mut self, weight: u64) -> IoLimit {
        self.weight = Some(weight);
        self
    }

    /// Sets [`IoLimit::latency_us`].
    #[must_use]
    pub fn latency_us(mut self, target: u64) -> IoLimit {
        self.latency_us = Some(target);
        self
    }

    pub(super) fn rates(&self) -> [(&'static str, Option<u64>); 4] {
        [("rbps", self.rbps), ("wbps", self.wbps), ("riops", self.riops), ("wiops", self.wiops)]
    }
}

impl DeviceKind {
    /// `'a'`, `'b'` or `'c'`.
    pub const fn letter(self) -> char {
        match self {
            DeviceKind::All => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        }
    }
}

impl DeviceRule {
    /// The text of `docker run --device-cgroup-rule`: `"c 1:3 rwm"`, `"b *:* r"`, `"a"`.
    ///
    /// Errors: [`Error::Spec`] for anything else.
    pub fn parse(text: &str, allow: bool) -> Result<DeviceRule> {
        let bad =
            || Error::spec("resources", format!("devices: {text:?} is no rule; write \"c 1:3 rwm\" or \"b *:* r\""));
        let mut words = text.split_ascii_whitespace();
        let kind = match words.next() {
            Some("a") => DeviceKind::All,
            Some("b") => DeviceKind::Block,
            Some("c" | "u") => DeviceKind::Char,
            _ => return Err(bad()),
        };
        let (numbers, access) = (words.next().unwrap_or("*:*"), words.next().unwrap_or("rwm"));
        let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
        let number = |text: &str| match text {
            "*" => Ok(None),
            digits => digits.parse::<u32>().map(Some).map_err(|_| bad()),
        };
        let rule = DeviceRule { allow, kind, major: number(major)?, minor: number(minor)?, access: access.to_owned() };
        rule.check()?;
        if words.next().is_some() { Err(bad()) } else { Ok(rule) }
    }

    fn check(&self) -> Result<()> {
        let once = |letter: char| self.access.matches(letter).count() <= 1;
        let known = !self.access.is_empty() && self.access.chars().all(|letter| "rwm".contains(letter) && once(letter));
        if !known {
            return refuse(format!("devices: rights {:?} are not made of r, w and m", self.access));
        }
        Ok(())
    }
}

fn refuse<T>(rule: impl Into<String>) -> Result<T> {
    Err(Error::spec("resources", rule))
}

/// Setters that store one value.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($type:ty);)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: $type) -> Resources {
            self.$name = Some(value.into());
            self
        })*
    };
}

impl Resources {
    setters! {
        /// Sets [`Resources::memory`], in bytes.
        memory(u64);
        /// Sets [`Resources::memory_high`], in bytes.
        memory_high(u64);
        /// Sets [`Resources::swap`], in bytes.
        swap(u64);
        /// Sets [`Resources::oom_group`].
        oom_group(bool);
        /// Sets [`Resources::cpus`].
        cpus(f64);
        /// Sets [`Resources::cpu_weight`].
        cpu_weight(u64);
        /// Sets [`Resources::cpuset_cpus`].
        cpuset_cpus(impl Into<String>);
        /// Sets [`Resources::cpuset_mems`].
        cpuset_mems(impl Into<String>);
        /// Sets [`Resources::pids`].
        pids(u64);
        /// Sets [`Resources::io_weight`].
        io_weight(u64);
    }

    /// Adds a limit of one disk.
    #[must_use]
    pub fn io(mut self, limit: IoLimit) -> Resources {
        self.io.push(limit);
        self
    }

    /// Adds a file of cgroup v2 with its text.
    #[must_use]
    pub fn unified(mut self, file: impl Into<String>, text: impl Into<String>) -> Resources {
        self.unified.insert(file.into(), text.into());
        self
    }
}

impl Resources {
    /// No limits.
    pub fn new() -> Resources {
        Resources::default()
    }

    /// What is limited, in the words of `require`: `memory`, `cpu`, `cpuset`, `pids`, `io`, `hugetlb`...
    pub fn parts(&self) -> Vec<&'static str> {
        super::limits::parts(self)
    }

    /// These, changed by `later`, as [`Cgroup::update`](super::Cgroup::update) changes a group: what is not set there stays.
    pub(crate) fn changed_by(&self, later: &Resources) -> Resources {
        let (old, new) = (self.clone(), later.clone());
        let keeps_quota = new.cpus.is_none();
        let keeps_cpus = new.cpu_quota_us.is_none();
        let keeps_shares = new.cpu_weight.is_none();
        let keeps_weight = new.cpu_shares.is_none();
        let mut io = old.io;
        for limit in new.io {
            match io.iter_mut().find(|known| known.device == limit.device) {
                None => io.push(limit),
                Some(known) => {
                    *known = IoLimit {
                        device: limit.device,
                        rbps: limit.rbps.or(known.rbps),
                        wbps: limit.wbps.or(known.wbps),
                        riops: limit.riops.or(known.riops),
                        wiops: limit.wiops.or(known.wiops),
                        latency_us: limit.latency_us.or(known.latency_us),
                        weight: limit.weight.or(known.weight),
                    };
                }
            }
        }
        Resources {
            memory: new.memory.or(old.memory),
            memory_high: new.memory_high.or(old.memory_high),
            memory_low: new.memory_low.or(old.memory_low),
            memory_min: new.memory_min.or(old.memory_min),
            swap: new.swap.or(old.swap),
            oom_group: new.oom_group.or(old.oom_group),
            oom_kill_disable: new.oom_kill_disable.or(old.oom_kill_disable),
            swappiness: new.swappiness.or(old.swappiness),
            cpus: new.cpus.or(old.cpus.filter(|_| keeps_cpus)),
            cpu_quota_us: new.cpu_quota_us.or(old.cpu_quota_us.filter(|_| keeps_quota)),
            cpu_period_us: new.cpu_period_us.or(old.cpu_period_us),
            cpu_burst_us: new.cpu_burst_us.or(old.cpu_burst_us),
            cpu_weight: new.cpu_weight.or(old.cpu_weight.filter(|_| keeps_weight)),
            cpu_shares: new.cpu_shares.or(old.cpu_shares.filter(|_| keeps_shares)),
            cpu_idle: new.cpu_idle.or(old.cpu_idle),
            cpuset_cpus: new.cpuset_cpus.or(old.cpuset_cpus),
            cpuset_mems: new.cpuset_mems.or(old.cpuset_mems),
            cpu_rt_runtime_us: new.cpu_rt_runtime_us.or(old.cpu_rt_runtime_us),
            cpu_rt_period_us: new.cpu_rt_period_us.or(old.cpu_rt_period_us),
            pids: new.pids.or(old.pids),
            io_weight: new.io_weight.or(old.io_weight),
            io,
            hugetlb: old.hugetlb.into_iter().chain(new.hugetlb).collect(),
            rdma: old.rdma.into_iter().chain(new.rdma).collect(),
            misc: old.misc.into_iter().chain(new.misc).collect(),
            // The last one that fits decides.
            devices: old.devices.into_iter().chain(new.devices).collect(),
            net_classid: new.net_classid.or(old.net_classid),
            net_priorities: old.net_priorities.into_iter().chain(new.net_priorities).collect(),
            unified: old.unified.into_iter().chain(new.unified).collect(),
        }
    }

    /// Quota (negative: none) and period in microseconds, from `cpus` or as given.
    pub(super) fn cpu_time(&self) -> (Option<i64>, Option<u64>) {
        match self.cpus {
            Some(cpus) if cpus == f64::INFINITY => (Some(-1), self.cpu_period_us),
            Some(cpus) => {
                let period = self.cpu_period_us.unwrap_or(100_000);
                (Some((cpus * period as f64).round() as i64), Some(period))
            }
            None => (self.cpu_quota_us, self.cpu_period_us),
        }
    }

    /// The rules that need no kernel, and those that need only the number of CPUs.
    ///
    /// Errors: [`Error::Spec`].
    pub fn check(&self) -> Result<()> {
        let within = |name: &str, value: Option<u64>, low: u64, high: u64| match value {
            Some(value) if !(low..=high).contains(&value) => {
                refuse(format!("{name}: {value} is not within {low} to {high}"))
            }
            _ => Ok(()),
        };
        within("memory", self.memory, 4096, u64::MAX)?;
        within("memory_high", self.memory_high, 4096, u64::MAX)?;
        within("swappiness", self.swappiness, 0, 200)?;
        within("cpu_period_us", self.cpu_period_us, 1000, 1_000_000)?;
        within("cpu_weight", self.cpu_weight, 1, 10_000)?;
        within("cpu_shares", self.cpu_shares, 2, 262_144)?;
        within("pids", self.pids, 1, u64::MAX)?;
        within("io_weight", self.io_weight, 1, 10_000)?;
        for (name, low) in [("memory_low", self.memory_low), ("memory_min", self.memory_min)] {
            if let (Some(low), Some(memory)) = (low, self.memory)
                && low > memory
            {
                return refuse(format!("{name}: {low} is more than memory, {memory}"));
            }
        }
        self.check_cpu()?;
        for (name, list) in [("cpuset_cpus", &self.cpuset_cpus), ("cpuset_mems", &self.cpuset_mems)] {
            if let Some(list) = list
                && !is_list(list)
            {
                return refuse(format!("{name}: {list:?} is no list; write \"0-3,7\""));
            }
        }
        for (number, limit) in self.io.iter().enumerate() {
            let device = limit.device.display();
            if limit.device.as_os_str().is_empty() {
                return refuse(format!(
                    "io[{number}]: device is empty; name a disk (\"/dev/vda\") or its numbers (\"254:0\")"
                ));
            }
            for (name, rate) in limit.rates() {
                if rate == Some(0) {
                    return refuse(format!(
                        "io[{number}]: {name} of {device} is 0, which the kernel does not take; leave it out, or \"max\""
                    ));
                }
            }
            within(&format!("io[{number}]: weight of {device}"), limit.weight, 1, 10_000)?;
        }
        self.devices.iter().try_for_each(DeviceRule::check)?;
        let names =
            self.hugetlb.keys().chain(self.rdma.keys()).chain(self.misc.keys()).chain(self.net_priorities.keys());
        for name in names {
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.@:".contains(&byte)) {
                return refuse(format!("{name:?} is no name of a page size, device or interface"));
            }
        }
        self.unified.iter().try_for_each(|(file, text)| check_unified(file, text))
    }

    fn check_cpu(&self) -> Result<()> {
        if self.cpus.is_some() && self.cpu_quota_us.is_some() {
            return refuse("cpus and cpu_quota_us exclude each other");
        }
        if self.cpu_weight.is_some() && self.cpu_shares.is_some() {
            return refuse("cpu_weight and cpu_shares exclude each other");
        }
        if let Some(cpus) = self.cpus {
            // One there is; to ask for more takes a look.
            let there = if cpus > 0.0 && cpus <= 1.0 { 1 } else { online_cpus() };
            if cpus != f64::INFINITY && !(cpus > 0.0 && cpus <= there as f64) {
                return refuse(format!(
                    "cpus: {cpus} is not above 0 and at most {there}, which this machine has; \"max\" takes the limit away"
                ));
            }
        }
        match self.cpu_time().0 {
            Some(quota @ 0..1000) => {
                refuse(format!("a CPU quota of {quota} us is below the least, 1000; give a longer period"))
            }
            _ => Ok(()),
        }
    }
}

/// Processors that are switched on.
fn online_cpus() -> u64 {
    match nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN) {
        Ok(Some(count)) if count > 0 => count as u64,
        _ => u64::MAX,
    }
}

/// `0-3,7`
fn is_list(text: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let part = |part: &str| match part.split_once('-') {
        Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to),
        None => number(part).is_some(),
    };
    !text.is_empty() && text.split(',').all(part)
}

/// Files of controllers only: those of the core move processes or kill them.
fn check_unified(file: &str, text: &str) -> Result<()> {
    let plain = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let controller = file.split('.').next().unwrap_or_default();
    if !plain || !file.contains('.') || controller.is_empty() || file.ends_with('.') {
        return refuse(format!("unified: {file:?} is no file of a controller, like \"memory.high\""));
    }
    if controller == "cgroup" {
        return refuse(format!("unified: {file:?} is no limit"));
    }
    if text.is_empty() || text.contains('\0') {
        return refuse(format!("unified: the value of {file} is empty or has a NUL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_leaves_out_stays() {
        let base = Resources::default;
        let disk = |rbps, wbps| IoLimit { device: "/dev/vda".into(), rbps, wbps, ..IoLimit::default() };
        let rule = |text| DeviceRule::parse(text, true).unwrap();
        let old = Resources {
            memory: Some(1 << 20),
            cpus: Some(0.5),
            cpu_weight: Some(5),
            pids: Some(7),
            io: vec![disk(Some(1), Some(2))],
            devices: vec![rule("c 10:229 rw")],
            hugetlb: [("2MB".into(), 1), ("1GB".into(), 2)].into(),
            ..base()
        };
        assert_eq!(old.changed_by(&base()), old);
        assert_eq!(base().changed_by(&old), old);
        let later = Resources {
            memory: Some(u64::MAX),
            cpu_quota_us: Some(7000),
            cpu_shares: Some(9),
            io: vec![disk(None, Some(3)), IoLimit { device: "8:0".into(), ..IoLimit::default() }],
            devices: vec![rule("c 10:229 r")],
            hugetlb: [("1GB".into(), 3)].into(),
            ..base()
        };
        let expected = Resources {
            memory: Some(u64::MAX),
            // What excludes what was there takes its place.
            cpu_quota_us: Some(7000),
            cpu_shares: Some(9),
            pids: Some(7),
            io: vec![disk(Some(1), Some(3)), IoLimit { device: "8:0".into(), ..IoLimit::default() }],
            devices: vec![rule("c 10:229 rw"), rule("c 10:229 r")],
            hugetlb: [("2MB".into(), 1), ("1GB".into(), 3)].into(),
            ..base()
        };
        assert_eq!(old.changed_by(&later), expected);
        expected.check().unwrap();
    }

    #[test]
    fn values_without_sense_are_refused() {
        let base = Resources::default;
        let unified = |file: &str, text: &str| Resources { unified: [(file.into(), text.into())].into(), ..base() };
        let io = |limit: IoLimit| Resources { io: vec![limit], ..base() };
        let cases = [
            Resources { memory: Some(0), ..base() },
            Resources { memory: Some(4095), ..base() },
            Resources { memory: Some(8192), memory_low: Some(8193), ..base() },
            Resources { cpus: Some(0.0), ..base() },
            Resources { cpus: Some(-1.0), ..base() },
            Resources { cpus: Some(f64::NAN), ..base() },
            Resources { cpus: Some(100_000.0), ..base() },
            Resources { cpus: Some(0.001), ..base() },
            Resources { cpus: Some(0.5), cpu_quota_us: Some(1), ..base() },
            Resources { cpu_quota_us: Some(999), ..base() },
            Resources { cpu_period_us: Some(999), ..base() },
            Resources { cpu_weight: Some(0), ..base() },
            Resources { cpu_weight: Some(1), cpu_shares: Some(2), ..base() },
            Resources { cpu_shares: Some(1), ..base() },
            Resources { pids: Some(0), ..base() },
            Resources { io_weight: Some(10_001), ..base() },
            Resources { cpuset_cpus: Some("0-".into()), ..base() },
            Resources { cpuset_cpus: Some("3-1".into()), ..base() },
            Resources { cpuset_mems: Some(String::new()), ..base() },
            Resources { hugetlb: [("../2MB".to_owned(), 1)].into(), ..base() },
            io(IoLimit::default()),
            io(IoLimit { wbps: Some(0), ..IoLimit::of("8:0") }),
            unified("memory.high", ""),
            unified("cgroup.procs", "1"),
            unified("../memory.max", "1"),
            unified("memory", "1"),
        ];
        for case in cases {
            assert_eq!(case.check().unwrap_err().field(), Some("resources"), "{case:?}");
        }
        for fine in [
            base(),
            unified("memory.high", "max"),
            Resources { cpus: Some(1.0), cpuset_cpus: Some("0,2-3".into()), ..base() },
        ] {
            fine.check().unwrap();
        }
    }

    #[test]
    fn device_rules_are_those_of_docker() {
        let rule = DeviceRule::parse("c 1:* rw", true).unwrap();
        assert_eq!((rule.kind, rule.major, rule.minor, rule.access.as_str()), (DeviceKind::Char, Some(1), None, "rw"));
        assert_eq!(DeviceRule::parse("a", false).unwrap().access, "rwm");
        for bad in ["", "x 1:1 r", "c 1 r", "c 1:1 q", "c 1:1 rr", "c 1:1 r r", "c -1:1 r"] {
            assert!(DeviceRule::parse(bad, true).is_err(), "{bad}");
        }
    }
}
