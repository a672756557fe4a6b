//! [`CapSet`]: capability sets, names and numbers: capabilities(7).
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::sync::OnceLock;

use nix::errno::Errno;

use crate::error::{At, Error, Result, Step};

/// A set of capabilities: bit N stands for capability number N, as in `capset(2)` and in `/proc/<pid>/status`.
///
/// Source: <https://man7.org/linux/man-pages/man7/capabilities.7.html>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapSet(pub u64);

/// Declares the constants and the names of the capabilities from one table, in the order of their numbers.
macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl CapSet {
            $($(#[$doc])* pub const $name: CapSet = CapSet(1 << $number);)*
        }

        /// The names, in the order of the numbers.
        const NAMES: &[&str] = &[$(concat!("CAP_", stringify!($name)),)*];
    };
}

capabilities! {
    /// Change the owner of files.
    CHOWN = 0;
    /// Pass by the permissions of files for reading, writing and executing.
    DAC_OVERRIDE = 1;
    /// Pass by the permissions of files for reading; open files by handle.
    DAC_READ_SEARCH = 2;
    /// Be treated as the owner of any file.
    FOWNER = 3;
    /// Keep set-user-ID and set-group-ID bits when a file changes.
    FSETID = 4;
    /// Send signals to any process.
    KILL = 5;
    /// Change group ids.
    SETGID = 6;
    /// Change user ids.
    SETUID = 7;
    /// Change the bounding set, the inheritable set and the secure bits.
    SETPCAP = 8;
    /// Set and clear the immutable and append-only attributes.
    LINUX_IMMUTABLE = 9;
    /// Bind to the ports below 1024.
    NET_BIND_SERVICE = 10;
    /// Broadcast and listen to multicasts (unused).
    NET_BROADCAST = 11;
    /// Configure the network.
    NET_ADMIN = 12;
    /// Raw and packet sockets.
    NET_RAW = 13;
    /// Lock memory.
    IPC_LOCK = 14;
    /// Pass by the permissions of System V IPC objects.
    IPC_OWNER = 15;
    /// Load and unload kernel modules.
    SYS_MODULE = 16;
    /// I/O ports and physical memory.
    SYS_RAWIO = 17;
    /// `chroot(2)`.
    SYS_CHROOT = 18;
    /// Trace any process.
    SYS_PTRACE = 19;
    /// Process accounting.
    SYS_PACCT = 20;
    /// Mounts, namespaces and most of the system's administration.
    SYS_ADMIN = 21;
    /// `reboot(2)` and `kexec_load(2)`.
    SYS_BOOT = 22;
    /// Raise priorities, set scheduling policies and CPU affinities of others, move their pages.
    SYS_NICE = 23;
    /// Exceed quotas and resource limits.
    SYS_RESOURCE = 24;
    /// Set the clock.
    SYS_TIME = 25;
    /// Configure terminals; `vhangup(2)`.
    SYS_TTY_CONFIG = 26;
    /// Make device nodes.
    MKNOD = 27;
    /// Take leases on any file.
    LEASE = 28;
    /// Write records to the audit log.
    AUDIT_WRITE = 29;
    /// Configure auditing.
    AUDIT_CONTROL = 30;
    /// Give capabilities to files.
    SETFCAP = 31;
    /// Override mandatory access control.
    MAC_OVERRIDE = 32;
    /// Configure mandatory access control.
    MAC_ADMIN = 33;
    /// Read and clear the kernel log.
    SYSLOG = 34;
    /// Wake the system up.
    WAKE_ALARM = 35;
    /// Block system suspend.
    BLOCK_SUSPEND = 36;
    /// Read the audit log.
    AUDIT_READ = 37;
    /// Performance monitoring.
    PERFMON = 38;
    /// Privileged BPF operations.
    BPF = 39;
    /// Checkpoint and restore.
    CHECKPOINT_RESTORE = 40;
}

/// `CAP_CHECKPOINT_RESTORE`: the last capability of every kernel since Linux 5.9.
const DEFAULT_LAST_CAP: u32 = 40;

impl CapSet {
    /// No capability.
    pub const EMPTY: CapSet = CapSet(0);

    /// Every capability that the running kernel knows, with or without a name in this library's table.
    pub fn all() -> CapSet {
        CapSet(u64::MAX >> (63 - last_cap()))
    }

    /// The 14 capabilities that Docker leaves a container.
    ///
    /// Source: <https://github.com/moby/moby/blob/master/daemon/pkg/oci/caps/defaults.go>
    pub const fn docker() -> CapSet {
        Self::podman().union(Self::MKNOD).union(Self::NET_RAW).union(Self::AUDIT_WRITE)
    }

    /// The 11 capabilities that Podman leaves a container.
    ///
    /// Source: `default_capabilities` in
    /// <https://github.com/containers/common/blob/main/docs/containers.conf.5.md>
    pub const fn podman() -> CapSet {
        Self::CHOWN
            .union(Self::DAC_OVERRIDE)
            .union(Self::FOWNER)
            .union(Self::FSETID)
            .union(Self::KILL)
            .union(Self::NET_BIND_SERVICE)
            .union(Self::SETFCAP)
            .union(Self::SETGID)
            .union(Self::SETPCAP)
            .union(Self::SETUID)
            .union(Self::SYS_CHROOT)
    }

    /// The set of these names. `CAP_NET_RAW`, `NET_RAW` and `net_raw` are the same; `ALL` is [`CapSet::all`].
    ///
    /// Errors: [`Error::Spec`] for `capabilities`, naming the first name that is not known.
    pub fn from_names<I>(names: I) -> Result<CapSet>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        names.into_iter().try_fold(CapSet::EMPTY, |set, name| Ok(set.union(CapSet::from_name(name.as_ref())?)))
    }

    /// The set of one name; see [`CapSet::from_names`].
    ///
    /// Errors: [`Error::Spec`] for `capabilities`, when the name is not known.
    pub fn from_name(name: &str) -> Result<CapSet> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            return Ok(CapSet::all());
        }
        match NAMES.iter().position(|known| &known["CAP_".len()..] == short) {
            Some(number) => Ok(CapSet(1 << number)),
            None => Err(Error::spec("capabilities", format!("unknown capability {name:?}"))),
        }
    }

    /// The names, `"CAP_CHOWN"`, in the order of the numbers. Capabilities that are newer than the table are left out.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(number, _)| self.0 >> number & 1 == 1).map(|(_, name)| *name)
    }

    /// Whether the set has all of `other`.
    pub const fn contains(self, other: CapSet) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set has any of `other`.
    pub const fn intersects(self, other: CapSet) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set has none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in either.
    #[must_use]
    pub const fn union(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: CapSet) -> CapSet {
        CapSet(self.0 & other.0)
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub const fn difference(self, other: CapSet) -> CapSet {
        CapSet(self.0 & !other.0)
    }
}

impl BitOr for CapSet {
    type Output = CapSet;

    fn bitor(self, other: CapSet) -> CapSet {
        self.union(other)
    }
}

impl BitAnd for CapSet {
    type Output = CapSet;

    fn bitand(self, other: CapSet) -> CapSet {
        self.intersection(other)
    }
}

/// `CAP_CHOWN,CAP_KILL`: the names with commas between; the bare number where the table has no name; nothing for
/// an empty set.
impl fmt::Display for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for number in (0..64).filter(|number| self.0 >> number & 1 == 1) {
            f.write_str(separator)?;
            match NAMES.get(number) {
                Some(name) => f.write_str(name)?,
                None => write!(f, "{number}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// The number of the last capability that the running kernel knows; read once.
///
/// 40 (`CAP_CHECKPOINT_RESTORE`, of Linux 5.9) where `/proc/sys/kernel/cap_last_cap` cannot be read.
pub fn last_cap() -> u32 {
    static LAST: OnceLock<u32> = OnceLock::new();
    *LAST.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
        text.trim().parse().ok().filter(|last| *last < 64).unwrap_or(DEFAULT_LAST_CAP)
    })
}

/// The five capability sets of a thread: capabilities(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSets {
    /// What the thread may make effective.
    pub permitted: CapSet,
    /// What the kernel checks.
    pub effective: CapSet,
    /// What survives `execve(2)` of a file that inherits it.
    pub inheritable: CapSet,
    /// What a file may still give at `execve(2)`.
    pub bounding: CapSet,
    /// What survives `execve(2)` of any unprivileged file.
    pub ambient: CapSet,
}

impl CapSets {
    /// The sets in the text of a `/proc/<pid>/status`. `None` where one of them is missing or not a number.
    pub fn from_status(status: &str) -> Option<CapSets> {
        let set = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key))?.trim();
            u64::from_str_radix(value, 16).ok().map(CapSet)
        };
        Some(CapSets {
            permitted: set("CapPrm:")?,
            effective: set("CapEff:")?,
            inheritable: set("CapInh:")?,
            bounding: set("CapBnd:")?,
            ambient: set("CapAmb:")?,
        })
    }
}

/// The capability sets of the calling thread.
///
/// Errors: [`Error::Sys`] at [`Step::Proc`]; `ENOENT` when `/proc` is not mounted, `EBADMSG` when its text cannot be
/// understood.
///
/// Source: `Cap*` in <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>
pub fn current() -> Result<CapSets> {
    const PATH: &str = "/proc/thread-self/status";
    // The thread's name is in it too, and need not be UTF-8.
    let status = std::fs::read(PATH).at(Step::Proc, "openat", PATH)?;
    CapSets::from_status(&String::from_utf8_lossy(&status))
        .ok_or_else(|| Error::sys(Step::Proc, "", PATH, Errno::EBADMSG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_the_numbers_of_the_kernel() {
        assert_eq!(NAMES.len(), 41);
        let samples = [
            (CapSet::CHOWN, 0, "CAP_CHOWN"),
            (CapSet::DAC_READ_SEARCH, 2, "CAP_DAC_READ_SEARCH"),
            (CapSet::SETPCAP, 8, "CAP_SETPCAP"),
            (CapSet::NET_RAW, 13, "CAP_NET_RAW"),
            (CapSet::SYS_ADMIN, 21, "CAP_SYS_ADMIN"),
            (CapSet::SETFCAP, 31, "CAP_SETFCAP"),
            (CapSet::SYSLOG, 34, "CAP_SYSLOG"),
            (CapSet::CHECKPOINT_RESTORE, 40, "CAP_CHECKPOINT_RESTORE"),
        ];
        for (set, number, name) in samples {
            assert_eq!(set.0, 1 << number);
            assert_eq!(set.names().collect::<Vec<_>>(), [name]);
        }
        for (number, name) in NAMES.iter().enumerate() {
            assert_eq!(CapSet::from_name(name).unwrap(), CapSet(1 << number));
        }
    }

    #[test]
    fn names_are_read_in_every_spelling() {
        let expected = CapSet::NET_RAW | CapSet::KILL;
        assert_eq!(CapSet::from_names(["CAP_NET_RAW", "kill", "NET_RAW", "net_raw", "cap_kill"]).unwrap(), expected);
        assert_eq!(CapSet::from_names(Vec::<String>::new()).unwrap(), CapSet::EMPTY);
        for all in ["ALL", "all", "CAP_ALL"] {
            assert_eq!(CapSet::from_names([all]).unwrap(), CapSet::all());
        }
    }

    #[test]
    fn unknown_names_are_errors_of_the_spec() {
        for name in ["", "CAP_", "CAP_NET-RAW", "CAP_CAP_KILL", "NET_RAW ", "é", "41"] {
            let error = CapSet::from_names(["KILL", name]).unwrap_err();
            assert_eq!(error.field(), Some("capabilities"));
            assert_eq!(error.to_string(), format!("capabilities: unknown capability {name:?}"));
        }
    }

    #[test]
    fn sets_are_shown_in_order() {
        assert_eq!(CapSet::EMPTY.to_string(), "");
        assert_eq!((CapSet::KILL | CapSet::CHOWN).to_string(), "CAP_CHOWN,CAP_KILL");
        assert_eq!((CapSet::BPF | CapSet(1 << 63)).to_string(), "CAP_BPF,63");
    }

    #[test]
    fn sets_follow_set_algebra() {
        let (a, b) = (CapSet::KILL | CapSet::CHOWN, CapSet::KILL | CapSet::BPF);
        assert_eq!(a & b, CapSet::KILL);
        assert_eq!(a.difference(b), CapSet::CHOWN);
        assert!(a.contains(CapSet::KILL) && a.contains(CapSet::EMPTY) && !a.contains(b));
        assert!(a.intersects(b) && !a.intersects(CapSet::BPF) && !a.intersects(CapSet::EMPTY));
        assert!(CapSet::EMPTY.is_empty() && !a.is_empty());
    }

    #[test]
    fn presets_are_those_of_docker_and_podman() {
        assert_eq!(CapSet::docker().0, 0xa804_25fb);
        assert_eq!(CapSet::docker().names().count(), 14);
        assert_eq!(CapSet::podman().0, 0x8004_05fb);
        assert_eq!(CapSet::podman().names().count(), 11);
    }

    #[test]
    fn all_is_what_the_kernel_knows() {
        assert!(last_cap() >= 38);
        assert_eq!(CapSet::all().0.trailing_ones(), last_cap() + 1);
        assert_eq!(CapSet::all().0.count_ones(), last_cap() + 1);
    }

    #[test]
    fn status_gives_the_five_sets() {
        let text = "Name:\tCapPrm: 1\nCapInh:\t0000000000000001\nCapPrm:\t0000000000000002\nCapEff:\t0000000000000004\n\
            CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n";
        let sets = CapSets::from_status(text).unwrap();
        assert_eq!((sets.inheritable.0, sets.permitted.0, sets.effective.0), (1, 2, 4));
        assert_eq!((sets.bounding.0, sets.ambient.0), (0x1ff_ffff_ffff, 0));
        assert_eq!(CapSets::from_status("CapInh:\t1\n"), None);
        assert_eq!(CapSets::from_status(&text.replace("CapEff:\t0", "CapEff:\tx")), None);
    }

    #[test]
    fn current_sets_are_consistent() {
        let sets = current().unwrap();
        assert!(sets.permitted.contains(sets.effective));
        assert!(sets.permitted.contains(sets.ambient));
        assert!(CapSet::all().contains(sets.bounding));
    }
}
