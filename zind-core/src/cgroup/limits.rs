//! From [`Resources`] to files: ONE table, each row an option, its unit, its files on v2 and on v1.
//!
//! The rows stand in the order in which they are written.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::FileType;

use super::curve;
use super::resources::{IoLimit, Resources};
use crate::error::{At, Error, Result, Step};

/// The version of the hierarchy that has a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// One option.
pub(super) struct Row {
    /// Its name in [`Resources`].
    pub(super) option: &'static str,
    /// What it counts.
    pub(super) unit: &'static str,
    /// The controller on v2, and the name in `require`.
    pub(super) part: &'static str,
    /// The file on v2; empty where there is none.
    pub(super) v2: &'static str,
    /// Controller and file on v1.
    pub(super) v1: (&'static str, &'static str),
    /// It was asked for.
    is_set: fn(&Resources) -> bool,
    /// What is written.
    texts: fn(&Resources, &Row, &Situation<'_>) -> Result<Vec<Write>>,
}

impl Row {
    pub(super) fn file(&self, version: Version) -> &'static str {
        match version {
            Version::V1 => self.v1.1,
            Version::V2 => self.v2,
        }
    }
}

/// A row of the table for people: an option of [`Resources`], and the files behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitInfo {
    /// Its name in [`Resources`].
    pub option: &'static str,
    /// What it counts.
    pub unit: &'static str,
    /// The name in `require` and in the isolation report.
    pub part: &'static str,
    /// Its file on version 2; empty where there is none.
    pub v2: &'static str,
    /// Its controller on version 1.
    pub v1_controller: &'static str,
    /// Its file there; empty where there is none.
    pub v1: &'static str,
}

/// Every limit there is.
pub fn limits() -> Vec<LimitInfo> {
    let info = |row: &Row| LimitInfo {
        option: row.option,
        unit: row.unit,
        part: row.part,
        v2: row.v2,
        v1_controller: row.v1.0,
        v1: row.v1.1,
    };
    ROWS.iter().map(info).collect()
}

/// What a text may depend on.
pub(super) struct Situation<'a> {
    pub(super) version: Version,
    /// Processes of zind's own in the group.
    pub(super) helpers: u64,
    /// What is in a file of the group now, on an update.
    pub(super) current: &'a dyn Fn(&str) -> Option<String>,
}

/// One text for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) option: &'static str,
    /// File and text; the first file that is there is written, or each one.
    pub(super) alternatives: Vec<(Cow<'static, str>, String)>,
    /// It is no error if there is no such file.
    pub(super) optional: bool,
    /// Each file that is there is written: they are for different schedulers, and nothing tells which one a disk has.
    pub(super) every: bool,
}

fn write(row: &Row, situation: &Situation<'_>, text: impl ToString) -> Vec<Write> {
    vec![to_file(row, row.file(situation.version), text)]
}

fn to_file(row: &Row, file: impl Into<Cow<'static, str>>, text: impl ToString) -> Write {
    Write { option: row.option, alternatives: vec![(file.into(), text.to_string())], optional: false, every: false }
}

/// A number, where the greatest one is no limit.
fn limit(value: u64, version: Version) -> String {
    match (value, version) {
        (u64::MAX, Version::V1) => "-1".to_owned(),
        (u64::MAX, Version::V2) => "max".to_owned(),
        (value, _) => value.to_string(),
    }
}

macro_rules! plain {
    ($field:ident) => {
        (
            |r| r.$field.is_some(),
            |r, row, s| Ok(r.$field.map(|value| write(row, s, limit(value as u64, s.version))).unwrap_or_default()),
        )
    };
}

macro_rules! rows {
    ($($option:literal, $unit:literal, $part:literal, $v2:literal, ($controller:literal, $v1:literal), $how:expr;)*) => {
        /// The table.
        pub(super) static ROWS: &[Row] = &[$({
            const HOW: (fn(&Resources) -> bool, fn(&Resources, &Row, &Situation<'_>) -> Result<Vec<Write>>) = $how;
            Row { option: $option, unit: $unit, part: $part, v2: $v2, v1: ($controller, $v1), is_set: HOW.0, texts: HOW.1 }
        }),*];
    };
}

rows! {
    "cpuset_mems", "list of memory nodes", "cpuset", "cpuset.mems", ("cpuset", "cpuset.mems"),
        (|r| r.cpuset_mems.is_some(), |r, row, s| Ok(r.cpuset_mems.iter().flat_map(|list| write(row, s, list)).collect()));
    "cpuset_cpus", "list of CPUs", "cpuset", "cpuset.cpus", ("cpuset", "cpuset.cpus"),
        (|r| r.cpuset_cpus.is_some(), |r, row, s| Ok(r.cpuset_cpus.iter().flat_map(|list| write(row, s, list)).collect()));
    "memory_low", "bytes", "memory", "memory.low", ("memory", "memory.soft_limit_in_bytes"), plain!(memory_low);
    "memory_min", "bytes", "memory", "memory.min", ("memory", ""), plain!(memory_min);
    "memory_high", "bytes", "memory", "memory.high", ("memory", ""), plain!(memory_high);
    "memory", "bytes", "memory", "memory.max", ("memory", "memory.limit_in_bytes"),
        (|r| r.memory.is_some(), memory);
    "swap", "bytes of swap alone; the file of v1 has memory and swap", "memory", "memory.swap.max", ("memory", "memory.memsw.limit_in_bytes"),
        (|r| r.swap.is_some(), swap);
    "oom_group", "0 or 1", "memory", "memory.oom.group", ("memory", ""),
        (|r| r.oom_group.is_some(), |r, row, s| Ok(write(row, s, u8::from(r.oom_group == Some(true)))));
    "oom_kill_disable", "0 or 1", "memory", "", ("memory", "memory.oom_control"),
        (|r| r.oom_kill_disable.is_some(), |r, row, s| Ok(write(row, s, u8::from(r.oom_kill_disable == Some(true)))));
    "swappiness", "0 to 200", "memory", "", ("memory", "memory.swappiness"), plain!(swappiness);
    "cpu_weight", "share, 1 to 10000; the file of v1 has 2 to 262144", "cpu", "cpu.weight", ("cpu", "cpu.shares"),
        (|r| r.cpu_weight.is_some(), |r, row, s| Ok(write(row, s, match s.version {
            Version::V2 => r.cpu_weight.unwrap_or(100),
            Version::V1 => weight_to_shares(r.cpu_weight.unwrap_or(100)),
        })));
    "cpu_shares", "share, 2 to 262144; the file of v2 has 1 to 10000", "cpu", "cpu.weight", ("cpu", "cpu.shares"),
        (|r| r.cpu_shares.is_some(), |r, row, s| Ok(write(row, s, match s.version {
            Version::V2 => shares_to_weight(r.cpu_shares.unwrap_or(1024)),
            Version::V1 => r.cpu_shares.unwrap_or(1024),
        })));
    "cpu_idle", "0 or 1", "cpu", "cpu.idle", ("cpu", "cpu.idle"),
        (|r| r.cpu_idle.is_some(), |r, row, s| Ok(write(row, s, u8::from(r.cpu_idle == Some(true)))));
    "cpus (cpu_quota_us, cpu_period_us)", "CPUs; the files have microseconds per period", "cpu", "cpu.max", ("cpu", "cpu.cfs_quota_us"),
        (|r| r.cpus.is_some() || r.cpu_quota_us.is_some() || r.cpu_period_us.is_some(), quota);
    "cpu_burst_us", "microseconds", "cpu", "cpu.max.burst", ("cpu", "cpu.cfs_burst_us"), plain!(cpu_burst_us);
    "cpu_rt_period_us", "microseconds", "cpu", "", ("cpu", "cpu.rt_period_us"), plain!(cpu_rt_period_us);
    "cpu_rt_runtime_us", "microseconds", "cpu", "", ("cpu", "cpu.rt_runtime_us"),
        (|r| r.cpu_rt_runtime_us.is_some(), |r, row, s| Ok(write(row, s, r.cpu_rt_runtime_us.unwrap_or(-1))));
    "pids", "processes and threads; the file has zind's own too", "pids", "pids.max", ("pids", "pids.max"),
        (|r| r.pids.is_some(), |r, row, s| Ok(r.pids.map(|pids| {
            write(row, s, limit(pids.saturating_add(s.helpers), Version::V2))
        }).unwrap_or_default()));
    "io_weight", "share, 1 to 10000; bfq and v1 have 10 to 1000", "io", "io.weight", ("blkio", "blkio.weight"),
        (|r| r.io_weight.is_some(), |r, row, s| Ok(r.io_weight.map(|weight| vec![io_weight(row, s, None, weight)]).unwrap_or_default()));
    "io[].weight", "share, 1 to 10000; bfq and v1 have 10 to 1000", "io", "io.weight", ("blkio", "blkio.weight_device"),
        (|r| r.io.iter().any(|limit| limit.weight.is_some()), |r, row, s| {
            let weight = |limit: &IoLimit| limit.weight.map(|weight| Ok(io_weight(row, s, Some(&device(limit)?), weight)));
            r.io.iter().filter_map(weight).collect()
        });
    "io[].rbps wbps riops wiops", "bytes or operations per second", "io", "io.max", ("blkio", "blkio.throttle.*_device"),
        (|r| r.io.iter().any(|limit| limit.rates().iter().any(|(_, rate)| rate.is_some())), rates);
    "io[].latency_us", "microseconds", "io", "io.latency", ("blkio", ""),
        (|r| r.io.iter().any(|limit| limit.latency_us.is_some()), |r, row, s| {
            let target = |limit: &IoLimit| limit.latency_us.map(|us| {
                Ok(to_file(row, row.file(s.version), format!("{} target={us}", device(limit)?)))
            });
            r.io.iter().filter_map(target).collect()
        });
    "hugetlb", "bytes by size of page", "hugetlb", "hugetlb.<size>.max", ("hugetlb", "hugetlb.<size>.limit_in_bytes"),
        (|r| !r.hugetlb.is_empty(), hugetlb);
    "rdma", "handles and objects by device", "rdma", "rdma.max", ("rdma", "rdma.max"),
        (|r| !r.rdma.is_empty(), |r, row, s| {
            let count = |count: Option<u32>| count.map_or("max".to_owned(), |count| count.to_string());
            Ok(r.rdma.iter().flat_map(|(name, limit)| write(row, s, format!(
                "{name} hca_handle={} hca_object={}", count(limit.hca_handles), count(limit.hca_objects)
            ))).collect())
        });
    "misc", "number by name", "misc", "misc.max", ("misc", "misc.max"),
        (|r| !r.misc.is_empty(), |r, row, s| {
            Ok(r.misc.iter().flat_map(|(name, most)| write(row, s, format!("{name} {}", limit(*most, Version::V2)))).collect())
        });
    "devices", "rules; on v2 a program of the kernel's", "devices", "", ("devices", "devices.allow, devices.deny"),
        (|r| !r.devices.is_empty(), |r, row, _| {
            let lines = super::devices::v1_lines(&r.devices)?;
            Ok(lines.into_iter().map(|(file, text)| to_file(row, file, text)).collect())
        });
    "net_classid", "class", "net_cls", "", ("net_cls", "net_cls.classid"),
        (|r| r.net_classid.is_some(), |r, row, s| Ok(write(row, s, r.net_classid.unwrap_or(0))));
    "net_priorities", "priority by interface", "net_prio", "", ("net_prio", "net_prio.ifpriomap"),
        (|r| !r.net_priorities.is_empty(), |r, row, s| {
            Ok(r.net_priorities.iter().flat_map(|(name, priority)| write(row, s, format!("{name} {priority}"))).collect())
        });
}

/// On v1 the limit of memory and swap together goes with that of memory on an update, so that swap alone stays as it is.
fn memory(r: &Resources, row: &Row, s: &Situation<'_>) -> Result<Vec<Write>> {
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    let Some(memory) = r.memory else { return Ok(Vec::new()) };
    let mut all = write(row, s, limit(memory, s.version));
    if s.version == Version::V2 || r.swap.is_some() {
        return Ok(all);
    }
    let now = |file| (s.current)(file).as_deref().and_then(v1_limit);
    if let Some(both) = now(BOTH) {
        let swap = both.saturating_sub(now("memory.limit_in_bytes").unwrap_or(both));
        all.push(to_file(row, BOTH, limit(memory.saturating_add(swap), s.version)));
    }
    Ok(all)
}

/// The number in a file of v1, if it is a limit at all.
fn v1_limit(text: &str) -> Option<u64> {
    super::files::number(text).filter(|bytes| *bytes < i64::MAX as u64 & !0xfff)
}

fn swap(r: &Resources, row: &Row, s: &Situation<'_>) -> Result<Vec<Write>> {
    let swap = r.swap.unwrap_or(u64::MAX);
    if s.version == Version::V2 || swap == u64::MAX {
        return Ok(write(row, s, limit(swap, s.version)));
    }
    let memory = match r.memory {
        Some(memory) => Some(memory).filter(|memory| *memory != u64::MAX),
        None => (s.current)("memory.limit_in_bytes").as_deref().and_then(v1_limit),
    };
    match memory {
        Some(memory) => Ok(write(row, s, memory.saturating_add(swap))),
        None => Err(Error::spec(
            "resources",
            "swap needs memory too here: control groups v1 limit memory and swap together",
        )),
    }
}

fn quota(r: &Resources, row: &Row, s: &Situation<'_>) -> Result<Vec<Write>> {
    let (quota, period) = r.cpu_time();
    if s.version == Version::V1 {
        let period = period.map(|us| to_file(row, "cpu.cfs_period_us", us));
        let quota = quota.map(|us| to_file(row, "cpu.cfs_quota_us", us.max(-1)));
        return Ok(period.into_iter().chain(quota).collect());
    }
    let number = |us: i64| if us < 0 { "max".to_owned() } else { us.to_string() };
    let text = match (quota, period) {
        (Some(quota), None) => number(quota),
        (Some(quota), Some(period)) => format!("{} {period}", number(quota)),
        (None, Some(period)) => {
            let current = (s.current)("cpu.max").unwrap_or_default();
            format!("{} {period}", current.split(' ').next().filter(|text| !text.is_empty()).unwrap_or("max"))
        }
        (None, None) => return Ok(Vec::new()),
    };
    Ok(write(row, s, text))
}

fn rates(r: &Resources, row: &Row, s: &Situation<'_>) -> Result<Vec<Write>> {
    let mut all = Vec::new();
    for limit in &r.io {
        let rates = limit.rates().into_iter().filter_map(|(name, rate)| Some((name, rate?)));
        if s.version == Version::V1 {
            for (name, rate) in rates {
                let file = match name {
                    "rbps" => "blkio.throttle.read_bps_device",
                    "wbps" => "blkio.throttle.write_bps_device",
                    "riops" => "blkio.throttle.read_iops_device",
                    _ => "blkio.throttle.write_iops_device",
                };
                let rate = if rate == u64::MAX { 0 } else { rate };
                all.push(to_file(row, file, format!("{} {rate}", device(limit)?)));
            }
            continue;
        }
        let words: Vec<String> =
            rates.map(|(name, rate)| format!(" {name}={}", self::limit(rate, s.version))).collect();
        if !words.is_empty() {
            all.push(to_file(row, row.v2, format!("{}{}", device(limit)?, words.concat())));
        }
    }
    Ok(all)
}

fn hugetlb(r: &Resources, row: &Row, s: &Situation<'_>) -> Result<Vec<Write>> {
    let end = if s.version == Version::V2 { "max" } else { "limit_in_bytes" };
    let one = |(size, bytes): (&String, &u64)| {
        let used = to_file(row, format!("hugetlb.{size}.{end}"), limit(*bytes, s.version));
        // What is reserved by mmap(2) but not touched yet; Linux 5.7.
        let reserved =
            Write { optional: true, ..to_file(row, format!("hugetlb.{size}.rsvd.{end}"), limit(*bytes, s.version)) };
        [used, reserved]
    };
    Ok(r.hugetlb.iter().flat_map(one).collect())
}

fn io_weight(row: &Row, s: &Situation<'_>, device: Option<&str>, weight: u64) -> Write {
    let line = |weight: u64| device.map_or(weight.to_string(), |device| format!("{device} {weight}"));
    let bfq = weight_to_blkio(weight);
    let files: [(&'static str, u64); 2] = match (s.version, device) {
        (Version::V2, _) => [("io.weight", weight), ("io.bfq.weight", bfq)],
        (Version::V1, None) => [("blkio.weight", bfq), ("blkio.bfq.weight", bfq)],
        (Version::V1, Some(_)) => [("blkio.weight_device", bfq), ("blkio.bfq.weight_device", bfq)],
    };
    let alternatives = files.map(|(file, weight)| (file.into(), line(weight))).to_vec();
    Write { option: row.option, alternatives, optional: false, every: true }
}

/// The numbers of a disk as the files have them: `254:0`.
pub(super) fn device(limit: &IoLimit) -> Result<String> {
    let path = &limit.device;
    if let Some((major, minor)) = path.to_str().and_then(numbers) {
        return Ok(format!("{major}:{minor}"));
    }
    let stat = rustix::fs::stat(path).at(Step::WriteCgroup, "stat", path).map_err(|error| {
        error.with_hint("io limits name the node of a whole disk (\"/dev/vda\") or its numbers (\"254:0\")")
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return Err(not_a_disk(path));
    }
    Ok(format!("{}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)))
}

fn not_a_disk(path: &Path) -> Error {
    let rule = format!("io: {} is no disk; name its node (\"/dev/vda\") or numbers (\"254:0\")", path.display());
    Error::spec("resources", rule)
}

/// `"254:0"`
pub(super) fn numbers(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    Some((number(major)?, number(minor)?))
}

/// The numbers of a list as `0-3,7`, as ranges.
fn ranges(list: &str) -> Vec<(u32, u32)> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
    };
    list.split(',').filter_map(range).collect()
}

/// True if every number of one list is in the other.
pub(super) fn is_within(list: &str, other: &str) -> bool {
    let mut whole = ranges(other);
    whole.sort_unstable();
    // Neighbours become one, so that a range is in one of them or in none.
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (from, to) in whole {
        match joined.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    ranges(list).iter().all(|(from, to)| joined.iter().any(|(low, high)| low <= from && to <= high))
}

/// The sizes of huge pages that this machine has, as the files name them: `2MB`, `1GB`.
pub(super) fn huge_page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let kilobytes = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()
    };
    let mut sizes: Vec<u64> = entries.filter_map(kilobytes).collect();
    sizes.sort_unstable();
    sizes.into_iter().map(size_name).collect()
}

/// As the kernel names them.
fn size_name(kilobytes: u64) -> String {
    match kilobytes {
        kb if kb >= 1 << 20 => format!("{}GB", kb >> 20),
        kb if kb >= 1 << 10 => format!("{}MB", kb >> 10),
        kb => format!("{kb}KB"),
    }
}

/// The names in a file of version 2's root, or of the group above: what may be limited by name.
fn names_in(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join(", ")
}

/// The conversion that runc (from 1.3.2) and crun (from 1.24) use: 2 is 1, 1024 is 100, 262144 is 10000.
///
/// Source: <https://github.com/containers/crun/blob/main/crun.1.md#cpu-controller>
pub(super) fn shares_to_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => curve::weight(shares),
    }
}

/// The kernel's own measure: a weight of 100 is 1024 shares.
pub(super) fn weight_to_shares(weight: u64) -> u64 {
    ((weight.saturating_mul(1024) + 50) / 100).clamp(2, 262_144)
}

/// OCI's weight of disks, 10 to 1000, from that of v2, 1 to 10000.
pub(super) fn weight_to_blkio(weight: u64) -> u64 {
    10 + ((weight.clamp(1, 10_000) - 1) * 990 + 9999 / 2) / 9999
}

/// The other way round, as crun has it.
pub(super) fn blkio_to_weight(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9999 / 990
}

/// Names of `require` for which a limit is asked: `memory`, `cpu`, `pids` ... What is `max` limits nothing, and neither does
/// `memory_low` or `memory_min`.
pub(super) fn parts(resources: &Resources) -> Vec<&'static str> {
    let set = ROWS.iter().filter(|row| (row.is_set)(resources) && limits_something(resources, row)).map(|row| row.part);
    let is_limit = |file: &str, text: &str| {
        !matches!(file, "memory.low" | "memory.min") && text.lines().any(|line| line.trim() != "max")
    };
    let raw = resources.unified.iter().filter(|(file, text)| is_limit(file, text));
    let raw = raw.filter_map(|(file, _)| known(file.split('.').next()?));
    let mut parts: Vec<&'static str> = Vec::new();
    for part in set.chain(raw) {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts
}

/// False for an option that takes a limit away, or keeps something for the container only.
fn limits_something(r: &Resources, row: &Row) -> bool {
    let is_most = |value: Option<u64>| value.is_some_and(|value| value != u64::MAX);
    match row.option {
        "memory" => is_most(r.memory),
        "memory_high" => is_most(r.memory_high),
        "memory_low" | "memory_min" | "swap" | "oom_group" | "oom_kill_disable" | "swappiness" => false,
        "pids" => is_most(r.pids),
        "cpus (cpu_quota_us, cpu_period_us)" => r.cpu_time().0.is_some_and(|quota| quota >= 0),
        "cpu_burst_us" => false,
        "io[].rbps wbps riops wiops" => r.io.iter().any(|limit| limit.rates().iter().any(|(_, rate)| is_most(*rate))),
        "hugetlb" => r.hugetlb.values().any(|most| *most != u64::MAX),
        "misc" => r.misc.values().any(|most| *most != u64::MAX),
        _ => true,
    }
}

/// Controllers of version 2.
pub(super) const CONTROLLERS: [&str; 9] = ["memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma", "misc", "dmem"];

/// The name of a controller of version 2, if it is one.
pub(super) fn known(name: &str) -> Option<&'static str> {
    CONTROLLERS.into_iter().find(|known| *known == name)
}

/// The controllers that are needed, by what `version` says of each of both names; [`Error::Unsupported`] for an option that
/// is not there in the version that this machine has.
pub(super) fn needed(resources: &Resources, on_v1: impl Fn(&str) -> bool) -> Result<Vec<(Version, &'static str)>> {
    let mut needed = Vec::new();
    for row in ROWS.iter().filter(|row| (row.is_set)(resources)) {
        let (version, controller) = if on_v1(row.v1.0) { (Version::V1, row.v1.0) } else { (Version::V2, row.part) };
        let is_program = row.part == "devices" && version == Version::V2;
        if row.file(version).is_empty() && !is_program {
            let (other, why) = match version {
                Version::V1 => ("version 2", "is on version 1 on this machine"),
                Version::V2 => ("version 1", "is in no hierarchy of version 1 on this machine"),
            };
            let needs = format!("it is an option of control groups {other}; the {controller} controller {why}");
            return Err(Error::unsupported(row.option, needs));
        }
        if !is_program && !needed.contains(&(version, controller)) {
            needed.push((version, controller));
        }
    }
    Ok(needed)
}

/// Everything to write for one controller, in order.
pub(super) fn writes(resources: &Resources, controller: &str, situation: &Situation<'_>) -> Result<Vec<Write>> {
    let mut all = Vec::new();
    for row in ROWS.iter().filter(|row| (row.is_set)(resources)) {
        let name = if situation.version == Version::V1 { row.v1.0 } else { row.part };
        if name == controller && !row.file(situation.version).is_empty() {
            all.extend((row.texts)(resources, row, situation)?);
        }
    }
    Ok(all)
}

/// What to do about a refusal.
pub(super) fn cure(option: &str, file: &str, errno: Errno) -> String {
    let text = match (errno, file) {
        (Errno::ENOENT, "memory.memsw.limit_in_bytes" | "memory.swap.max") => {
            "this kernel does not account for swap (CONFIG_SWAP, swapaccount=1): leave swap out"
        }
        (Errno::ENOENT, "io.weight" | "blkio.weight" | "io.latency") => {
            "this kernel has no controller of this kind for disks (CONFIG_BLK_CGROUP_IOCOST, _IOLATENCY, CONFIG_BFQ_GROUP_IOSCHED)"
        }
        (Errno::ENOENT, _) if option == "hugetlb" => {
            return match huge_page_sizes() {
                sizes if sizes.is_empty() => "this machine has no huge pages (CONFIG_HUGETLBFS)".to_owned(),
                sizes => format!("this machine has huge pages of {}", sizes.join(", ")),
            };
        }
        (Errno::EINVAL, "misc.max") => {
            return match names_in("/sys/fs/cgroup/misc.capacity") {
                names if names.is_empty() => {
                    "this machine has nothing that it counts (misc.capacity is empty)".to_owned()
                }
                names => format!("this machine counts {names} (misc.capacity)"),
            };
        }
        (Errno::EINVAL | Errno::ENODEV, "rdma.max") => "there is no such RDMA device: see /sys/class/infiniband",
        (Errno::ENOENT, _) => "this kernel does not have it, or the group above does not hand the controller down",
        (Errno::EBUSY, "memory.limit_in_bytes" | "memory.max") => {
            "more memory than that is in use and cannot be taken back: ask for more, or have the container free some"
        }
        (Errno::EBUSY, "cpuset.cpus" | "cpuset.mems") => "another group has it for itself alone",
        (Errno::EINVAL, "memory.limit_in_bytes" | "memory.memsw.limit_in_bytes") => {
            "on v1 the limit of memory and swap together must not be below that of memory: give swap too"
        }
        (Errno::EINVAL, "cpu.rt_runtime_us") => "the groups above have not that much real-time CPU to give",
        (Errno::EINVAL, "cpu.cfs_quota_us" | "cpu.max") => {
            "quotas are at least 1000 us, periods 1000 to 1000000 us, no less than the burst, and no more than the group above has"
        }
        (Errno::EINVAL, "cpu.cfs_burst_us" | "cpu.max.burst") => {
            "a burst is no more than the quota: give cpus or cpu_quota_us too, or a smaller burst"
        }
        (Errno::EINVAL, "cpu.weight" | "cpu.shares") => "what is idle has no weight: set cpu_idle to false, too",
        (Errno::EINVAL | Errno::ERANGE | Errno::ENODEV | Errno::EACCES, "cpuset.cpus" | "cpuset.mems") => {
            "it must be a list like 0-3,7 of what the machine has and the group above may use"
        }
        (Errno::ENODEV | Errno::ENXIO, _) if option.starts_with("io") => {
            "there is no such disk; a partition does not do, and bfq weights need that scheduler on the disk"
        }
        (Errno::EOPNOTSUPP, _) if option.starts_with("io") => "the disk's scheduler or driver cannot do it",
        (Errno::EPERM, "devices.allow" | "devices.deny") => {
            "device rules take CAP_SYS_ADMIN, and allow no more than the group above does"
        }
        (Errno::EACCES | Errno::EPERM | Errno::EROFS, _) => {
            "the group belongs to somebody else, or the hierarchy is mounted read-only"
        }
        (Errno::EINVAL | Errno::ERANGE, _) => "the kernel takes no such value",
        _ => "",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(resources: &Resources, controller: &str, version: Version) -> Vec<String> {
        let situation = Situation { version, helpers: 1, current: &|_| None };
        let text = |write: &Write| format!("{}={}", write.alternatives[0].0, write.alternatives[0].1);
        writes(resources, controller, &situation).unwrap().iter().map(text).collect()
    }

    #[test]
    fn shares_and_weights_meet_at_their_ends_and_usual_values() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000), (512, 59)] {
            assert_eq!(shares_to_weight(shares), weight, "{shares}");
        }
        assert_eq!([1, 100, 10_000].map(weight_to_shares), [10, 1024, 102_400]);
        for weight in 10..=1000 {
            assert_eq!(weight_to_blkio(blkio_to_weight(weight)), weight);
        }
        assert_eq!([blkio_to_weight(10), blkio_to_weight(1000)], [1, 10_000]);
    }

    #[test]
    fn each_version_gets_its_own_files_and_units() {
        let mut r = Resources::default();
        (r.memory, r.swap, r.memory_low) = (Some(64 << 20), Some(0), Some(1 << 20));
        assert_eq!(
            lines(&r, "memory", Version::V2),
            ["memory.low=1048576", "memory.max=67108864", "memory.swap.max=0"]
        );
        assert_eq!(
            lines(&r, "memory", Version::V1),
            [
                "memory.soft_limit_in_bytes=1048576",
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=67108864"
            ]
        );
        (r.cpus, r.cpu_shares, r.pids) = (Some(0.5), Some(512), Some(1));
        assert_eq!(lines(&r, "cpu", Version::V2), ["cpu.weight=59", "cpu.max=50000 100000"]);
        assert_eq!(
            lines(&r, "cpu", Version::V1),
            ["cpu.shares=512", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"]
        );
        assert_eq!(lines(&r, "pids", Version::V1), ["pids.max=2"], "zind's own process comes on top");
        r.pids = Some(u64::MAX);
        assert_eq!(lines(&r, "pids", Version::V1), ["pids.max=max"]);
        assert_eq!(parts(&r), ["memory", "cpu"]);
    }

    #[test]
    fn lists_are_compared_by_their_numbers() {
        for (list, other) in [("0", "0-3"), ("0-3", "0-1,2,3"), ("1,3", "3,1"), ("", "5"), ("0-1", "0,1-7")] {
            assert!(is_within(list, other), "{list} {other}");
        }
        for (list, other) in [("0-1", "1"), ("0", "1-3"), ("0-3", "0-1,3"), ("0", "")] {
            assert!(!is_within(list, other), "{list} {other}");
        }
        assert_eq!([64, 2048, 1 << 20].map(size_name), ["64KB", "2MB", "1GB"]);
    }

    #[test]
    fn what_limits_nothing_meets_no_requirement() {
        let of = |change: &dyn Fn(&mut Resources)| {
            let mut r = Resources::default();
            change(&mut r);
            parts(&r)
        };
        assert_eq!(of(&|r| (r.memory, r.pids) = (Some(1 << 20), Some(5))), ["memory", "pids"]);
        assert_eq!(
            of(&|r| (r.memory, r.pids, r.memory_high) = (Some(u64::MAX), Some(u64::MAX), Some(u64::MAX))),
            [""; 0]
        );
        assert_eq!(of(&|r| (r.memory_low, r.memory_min, r.swap) = (Some(1), Some(1), Some(0))), [""; 0]);
        assert_eq!(of(&|r| r.cpu_quota_us = Some(-1)), [""; 0]);
        assert_eq!(of(&|r| r.cpus = Some(0.5)), ["cpu"]);
        assert_eq!(of(&|r| drop(r.unified.insert("memory.max".into(), "max".into()))), [""; 0]);
        assert_eq!(of(&|r| drop(r.unified.insert("memory.low".into(), "5".into()))), [""; 0]);
        assert_eq!(of(&|r| drop(r.unified.insert("memory.max".into(), "5".into()))), ["memory"]);
    }

    #[test]
    fn an_update_of_memory_keeps_swap_on_v1() {
        let current = |file: &str| match file {
            "memory.limit_in_bytes" => Some("1000000\n".to_owned()),
            "memory.memsw.limit_in_bytes" => Some("1500000\n".to_owned()),
            _ => None,
        };
        let situation = Situation { version: Version::V1, helpers: 1, current: &current };
        let both = |memory| {
            let r = Resources { memory: Some(memory), ..Resources::default() };
            let all = writes(&r, "memory", &situation).unwrap();
            assert_eq!((all.len(), &*all[1].alternatives[0].0), (2, "memory.memsw.limit_in_bytes"));
            all[1].alternatives[0].1.clone()
        };
        assert_eq!([both(400_000), both(2_000_000), both(u64::MAX)], ["900000", "2500000", "-1"]);
        let fresh = |_: &str| Some((i64::MAX as u64 & !0xfff).to_string());
        let situation = Situation { version: Version::V1, helpers: 1, current: &fresh };
        let r = Resources { memory: Some(1), ..Resources::default() };
        assert_eq!(writes(&r, "memory", &situation).unwrap().len(), 1);
    }

    #[test]
    fn an_update_of_the_period_keeps_the_quota() {
        let r = Resources { cpu_period_us: Some(50_000), ..Resources::default() };
        let situation = Situation { version: Version::V2, helpers: 1, current: &|_| Some("25000 100000\n".to_owned()) };
        assert_eq!(writes(&r, "cpu", &situation).unwrap()[0].alternatives[0].1, "25000 50000");
        assert_eq!(lines(&r, "cpu", Version::V2), ["cpu.max=max 50000"]);
    }

    #[test]
    fn what_a_version_lacks_is_refused_by_name() {
        let v1 = |_: &str| true;
        let high = Resources { memory_high: Some(1), ..Resources::default() };
        assert!(needed(&high, v1).unwrap_err().to_string().starts_with("memory_high"));
        assert_eq!(needed(&high, |_| false).unwrap(), [(Version::V2, "memory")]);
        let class = Resources { net_classid: Some(1), ..Resources::default() };
        assert!(needed(&class, |_| false).unwrap_err().to_string().starts_with("net_classid"));
        let swap = Resources { swap: Some(0), ..Resources::default() };
        let situation = Situation { version: Version::V1, helpers: 1, current: &|_| None };
        assert_eq!(writes(&swap, "memory", &situation).unwrap_err().field(), Some("resources"));
    }

    #[test]
    fn disks_go_by_numbers_or_node() {
        assert_eq!(numbers("254:0"), Some((254, 0)));
        for bad in ["", ":", "1:", "+1:2", "a:b", "/dev/vda"] {
            assert_eq!(numbers(bad), None, "{bad}");
        }
        let io = |device: &str| Resources {
            io: vec![IoLimit { device: device.into(), rbps: Some(1), wiops: Some(u64::MAX), ..IoLimit::default() }],
            ..Resources::default()
        };
        assert_eq!(lines(&io("8:16"), "io", Version::V2), ["io.max=8:16 rbps=1 wiops=max"]);
        assert_eq!(
            lines(&io("8:16"), "blkio", Version::V1),
            ["blkio.throttle.read_bps_device=8:16 1", "blkio.throttle.write_iops_device=8:16 0"]
        );
        let situation = Situation { version: Version::V2, helpers: 1, current: &|_| None };
        let refused = |device| writes(&io(device), "io", &situation).unwrap_err();
        assert_eq!(refused("/dev/null").field(), Some("resources"));
        assert_eq!(refused("/no/such/disk").errno(), Some(Errno::ENOENT));
    }
}
