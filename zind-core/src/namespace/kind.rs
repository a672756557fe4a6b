//! The one table of namespace kinds: name, flag, file below `/proc/<pid>/ns`.

use std::fmt;

/// A kind of namespace: namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// user_namespaces(7)
    User,
    /// mount_namespaces(7)
    Mount,
    /// pid_namespaces(7)
    Pid,
    /// network_namespaces(7)
    Net,
    /// uts_namespaces(7)
    Uts,
    /// ipc_namespaces(7)
    Ipc,
    /// cgroup_namespaces(7)
    Cgroup,
    /// time_namespaces(7)
    Time,
}

impl Kind {
    /// Every kind. `User` first: joining it gives the rights for the others.
    pub const ALL: [Kind; 8] =
        [Kind::User, Kind::Mount, Kind::Pid, Kind::Net, Kind::Uts, Kind::Ipc, Kind::Cgroup, Kind::Time];

    /// zind's and the kernel's name: `user mnt pid net uts ipc cgroup time`, as below `/proc/<pid>/ns`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Mount => "mnt",
            Kind::Pid => "pid",
            Kind::Net => "net",
            Kind::Uts => "uts",
            Kind::Ipc => "ipc",
            Kind::Cgroup => "cgroup",
            Kind::Time => "time",
        }
    }

    /// The OCI runtime-spec name: as [`Kind::name`], but `mount` and `network`.
    pub const fn oci_name(self) -> &'static str {
        match self {
            Kind::Mount => "mount",
            Kind::Net => "network",
            other => other.name(),
        }
    }

    /// The `CLONE_NEW*` flag.
    pub const fn flag(self) -> u64 {
        (match self {
            Kind::User => libc::CLONE_NEWUSER,
            Kind::Mount => libc::CLONE_NEWNS,
            Kind::Pid => libc::CLONE_NEWPID,
            Kind::Net => libc::CLONE_NEWNET,
            Kind::Uts => libc::CLONE_NEWUTS,
            Kind::Ipc => libc::CLONE_NEWIPC,
            Kind::Cgroup => libc::CLONE_NEWCGROUP,
            Kind::Time => libc::CLONE_NEWTIME,
        }) as u64
    }

    /// The kind with this name, in the kernel's or the OCI spelling.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name || kind.oci_name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_lead_to_the_same_kind() {
        assert_eq!(Kind::from_name("mount"), Some(Kind::Mount));
        assert_eq!(Kind::from_name("mnt"), Some(Kind::Mount));
        assert_eq!(Kind::from_name("network"), Kind::from_name("net"));
        assert_eq!(Kind::from_name("mnt2"), None);
    }
}
