//! [`Resources`]: what a container may use, as plain data.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::devices::DeviceRule;

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
    /// 0 to 100 (200 on v2): how gladly memory is swapped out. v1 `memory.swappiness`; not on v2.
    pub swappiness: Option<u64>,

    /// CPU time per second of wall time, in CPUs: 0.5 is half of one. `cpu.max`; v1 `cpu.cfs_quota_us`.
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
