//! [`Isolation`]: what is in force for one container, as a report that can be compared, printed and required.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::mount::Mount;
use crate::security::capabilities::CapSet;
use crate::security::labels;
use crate::spec::{IdMap, Kind, Rlimit};

/// What is in force. It is made from the plan that the launcher carries out step by step. A step that fails ends the start, and
/// so does one whose effect, read back by another call, is not what was planned ([`Isolation::measured`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Isolation {
    /// `"new"`, `"host"` or `"joined"` for each kind of namespace.
    pub namespaces: BTreeMap<Kind, &'static str>,
    /// User ids of a new user namespace.
    pub uid_map: Vec<IdMap>,
    /// Group ids of a new user namespace.
    pub gid_map: Vec<IdMap>,
    /// The directories of the container's control group, one in each hierarchy; empty without one.
    pub cgroup: Vec<PathBuf>,
    /// Why there is none although resources were asked for, with path, errno and cure; else empty.
    pub cgroup_refused: String,
    /// What is limited: `memory`, `cpu`, `cpuset`, `pids`, `io`, `hugetlb`, `devices`...
    pub limits: Vec<&'static str>,
    /// `"host"`, the path of a root directory, or `"unchanged"`.
    pub rootfs: String,
    /// `"tmpfs"`, a directory, or `"none"`: where changes to the root go.
    pub overlay: String,
    /// `"overlay"`; where the kernel made none of the root, `"fuse-overlayfs"`, if that program did, or `"copy"`, if the whole of
    /// it was copied; or `"none"`.
    pub copy_on_write: &'static str,
    /// Nothing of the root can be changed.
    pub read_only: bool,
    /// `"default"`, `"profile"`, `"learn"` (everything is let through) or `"none"`.
    pub seccomp: &'static str,
    /// What of a profile means nothing: system calls and architectures of other machines, and arguments that do not count.
    pub seccomp_notes: Vec<String>,
    /// The payload's domain of Landlock, if it has one.
    pub landlock: Option<LandlockReport>,
    /// The profile of AppArmor that was asked for.
    pub apparmor: Option<String>,
    /// The context of SELinux that was asked for.
    pub selinux: Option<String>,
    /// The context of SELinux that new mounts have.
    pub mount_label: Option<String>,
    /// The payload's capabilities; `None`: those of the caller.
    pub capabilities: Option<CapSet>,
    /// No privilege can be gained by executing a file.
    pub no_new_privileges: bool,
    /// A session keyring of its own.
    pub keyring: bool,
    /// Kernel parameters of the container's namespaces that were set.
    pub sysctl: BTreeMap<String, String>,
    /// Hidden paths.
    pub masked_paths: Vec<&'static str>,
    /// Protected paths.
    pub readonly_paths: Vec<&'static str>,
    /// Device nodes.
    pub devices: Vec<String>,
    /// The caller's devices among them: path, rights, whether the node is the container's `own` or the `host`'s, and what
    /// enforces the rights.
    pub extra_devices: Vec<Value>,
    /// `"none"` (loopback only), `"host"` or `"joined"`.
    pub network: &'static str,
    /// User and group of the payload, as numbers of the container; `None`: the caller's.
    pub user: Option<(u32, u32)>,
    /// Supplementary groups of the caller that could not be dropped.
    pub keeps_groups: bool,
    /// Resource limits that were asked for, by name.
    pub rlimits: Vec<&'static str>,
    /// What every resource limit was set to, by name: those that were asked for, and the usual ones of a container without its own.
    pub rlimit_values: BTreeMap<&'static str, RlimitReport>,
    /// A PID 1 of zind's reaps and forwards signals.
    pub init: bool,
    /// The container ends when the caller's process ends.
    pub die_with_owner: bool,
    /// Descriptors the payload got besides the standard streams.
    pub pass_fds: Vec<i32>,
    /// Directories of the default root that are read-only instead of copy-on-write, because the host has mounts below
    /// them that a user namespace must not look beneath.
    pub bound_read_only: Vec<String>,
    /// How the root was changed: `"pivot_root"`; `"chroot"`, where the kernel or a filter allows no `pivot_root(2)` and the
    /// old root was covered, or for a `chroot` of the low level; or `"none"`.
    pub root_change: &'static str,
    /// The system call behind all mounts: `"fsmount"`, or `"mount"` where the newer interface is hidden.
    pub mount_interface: &'static str,
    /// Mounts the caller asked for, in order.
    pub mounts: Vec<MountReport>,
    /// Who has read back that all this is so before the payload ran: `"inside"` (the launcher, of itself), or `"outside"` too
    /// (the library, of the process that stood ready): with `require`.
    pub measured: &'static str,
}

/// A resource limit that was set: setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RlimitReport {
    /// In the limit's own unit; `None` is unlimited.
    pub soft: Option<u64>,
    /// The same of the limit that the soft one can be raised to.
    pub hard: Option<u64>,
    /// Nobody asked for it: a container has it that has none of its own.
    pub is_usual: bool,
}

impl RlimitReport {
    pub(crate) fn of(limit: &Rlimit, is_usual: bool) -> RlimitReport {
        let finite = |value: Option<u64>| value.filter(|value| *value != u64::MAX);
        RlimitReport { soft: finite(limit.soft), hard: finite(limit.hard), is_usual }
    }

    fn to_json(self) -> Value {
        json!({"soft": self.soft, "hard": self.hard, "usual": self.is_usual})
    }
}

/// A domain of Landlock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LandlockReport {
    /// The version of the kernel's interface; 0 without Landlock.
    pub abi: u32,
    /// The rights that take a rule, by their names.
    pub handled: Vec<&'static str>,
    /// `"abstract"`, `"signal"`.
    pub scopes: Vec<&'static str>,
    /// How many rules there are.
    pub rules: usize,
    /// What the kernel lacks of what was asked for as the best effort.
    pub missing: Vec<String>,
    /// Nobody asked for it: it goes with the namespaces.
    pub is_default: bool,
}

impl LandlockReport {
    fn to_json(&self) -> Value {
        json!({
            "abi": self.abi,
            "handled": self.handled,
            "scopes": self.scopes,
            "rules": self.rules,
            "missing": self.missing,
            "default": self.is_default,
        })
    }

    fn is_something(&self) -> bool {
        !self.handled.is_empty() || !self.scopes.is_empty()
    }
}

/// One of the caller's mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountReport {
    /// Where it is in the container.
    pub target: PathBuf,
    /// `"bind"`, `"overlay"`, `"file"`, `"volume"`, or the type of the file system.
    pub kind: String,
    /// The path of a bind or of a file system's source, the directory of a volume.
    pub source: Option<PathBuf>,
    /// What is mounted below the source came along.
    pub recursive: bool,
    /// What holds for the mount itself, in OCI's words: `ro`, `nosuid`, `nodev`, `noexec`, `noatime`, `strictatime`,
    /// `nodiratime`, `nosymfollow`.
    pub attributes: Vec<&'static str>,
    /// `"private"`, `"slave"`, `"shared"` or `"unbindable"`.
    pub propagation: &'static str,
    /// Nothing of it can be changed.
    pub read_only: bool,
    /// Its ids are mapped.
    pub idmap: bool,
}

impl MountReport {
    fn to_json(&self) -> Value {
        json!({
            "target": self.target.to_string_lossy(),
            "type": self.kind,
            "source": self.source.as_ref().map(|source| source.to_string_lossy()),
            "recursive": self.recursive,
            "attributes": self.attributes,
            "propagation": self.propagation,
            "read_only": self.read_only,
            "idmap": self.idmap,
        })
    }

    pub(crate) fn of(mount: &Mount) -> MountReport {
        MountReport {
            target: mount.target().to_owned(),
            kind: mount.kind().to_owned(),
            source: mount.source().map(Path::to_owned),
            recursive: mount.is_recursive(),
            attributes: mount.attributes(),
            propagation: mount.propagation(),
            read_only: mount.is_read_only(),
            idmap: mount.idmap.is_some(),
        }
    }
}

/// Limits, by controller.
const LIMITS: [&str; 10] = ["memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma", "misc", "net_cls", "net_prio"];

/// Names of [`Isolation::in_force`] besides the namespaces'.
const PARTS: [&str; 18] = [
    "rootfs",
    "overlay",
    "read_only",
    "seccomp",
    "landlock",
    "apparmor",
    "selinux",
    "capabilities",
    "no_new_privileges",
    "keyring",
    "masked_paths",
    "readonly_paths",
    "devices",
    "network",
    "rlimits",
    "init",
    "die_with_owner",
    "pivot_root",
];

/// Refuses names nobody knows.
pub(crate) fn check_names(names: &[String]) -> Result<()> {
    for name in names {
        let known =
            [&PARTS[..], &LIMITS].iter().any(|list| list.contains(&name.as_str())) || Kind::from_name(name).is_some();
        if !known {
            let kinds = Kind::ALL.map(Kind::name).join(", ");
            return Err(Error::spec(
                "require",
                format!("{name:?} is none of {}, {}, {kinds}", PARTS.join(", "), LIMITS.join(", ")),
            ));
        }
    }
    Ok(())
}

impl Isolation {
    /// The names of all that is in force, as `require` takes them. Namespaces count when they are not the host's.
    pub fn in_force(&self) -> BTreeSet<&'static str> {
        let parts = [
            ("rootfs", self.rootfs != "unchanged"),
            ("overlay", self.copy_on_write == "overlay"),
            ("read_only", self.read_only),
            ("seccomp", !matches!(self.seccomp, "none" | "learn")),
            ("landlock", self.landlock.as_ref().is_some_and(LandlockReport::is_something)),
            ("apparmor", self.apparmor.as_ref().is_some_and(|profile| profile != labels::UNCONFINED)),
            ("selinux", self.selinux.is_some()),
            ("capabilities", self.capabilities.is_some_and(|set| set != CapSet::all())),
            ("no_new_privileges", self.no_new_privileges),
            ("keyring", self.keyring),
            ("masked_paths", !self.masked_paths.is_empty()),
            ("readonly_paths", !self.readonly_paths.is_empty()),
            ("devices", !self.devices.is_empty()),
            ("network", self.network != "host"),
            ("rlimits", !self.rlimits.is_empty()),
            ("init", self.init),
            ("die_with_owner", self.die_with_owner),
            ("pivot_root", self.root_change == "pivot_root"),
        ];
        let parts = parts.into_iter().filter(|(_, is)| *is).map(|(name, _)| name);
        let kinds = self.namespaces.iter().filter(|(_, how)| **how != "host").map(|(kind, _)| kind.name());
        let limits = self.limits.iter().copied().filter(|name| LIMITS.contains(name));
        parts.chain(kinds).chain(limits).collect()
    }

    /// An error for the first of `names` that is not in force.
    pub(crate) fn require(&self, names: &[String]) -> Result<()> {
        let in_force = self.in_force();
        for name in names {
            let canonical = Kind::from_name(name).map_or(name.as_str(), |kind| kind.name());
            if LIMITS.contains(&canonical) && !in_force.contains(canonical) {
                let needs = "nothing limits it: give resources=, for example memory=\"256m\", cpus=0.5, pids=64";
                return Err(Error::unsupported(name, needs));
            }
            if canonical == "landlock" && !in_force.contains(canonical) {
                let needs = "there is no domain: give landlock=, and see what doctor() tells of this kernel";
                return Err(Error::unsupported(name, needs));
            }
            if !in_force.iter().any(|part| *part == canonical) {
                return Err(Error::unsupported(
                    name,
                    "the options given leave it off; see what the isolation report lists",
                ));
            }
        }
        Ok(())
    }

    /// All of it, for other languages.
    pub fn to_json(&self) -> Value {
        let maps = |maps: &[IdMap]| -> Value {
            maps.iter().map(|map| json!({"container": map.container, "host": map.host, "size": map.size})).collect()
        };
        json!({
            "namespaces": self.namespaces.iter().map(|(kind, how)| (kind.name().to_owned(), json!(how))).collect::<serde_json::Map<_, _>>(),
            "uid_map": maps(&self.uid_map),
            "gid_map": maps(&self.gid_map),
            "cgroup": self.cgroup.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
            "cgroup_refused": self.cgroup_refused,
            "limits": self.limits,
            "rootfs": self.rootfs,
            "overlay": self.overlay,
            "copy_on_write": self.copy_on_write,
            "read_only": self.read_only,
            "seccomp": self.seccomp,
            "seccomp_notes": self.seccomp_notes,
            "landlock": self.landlock.as_ref().map(LandlockReport::to_json),
            "apparmor": self.apparmor,
            "selinux": self.selinux,
            "mount_label": self.mount_label,
            "capabilities": self.capabilities.map(|set| set.names().collect::<Vec<_>>()),
            "no_new_privileges": self.no_new_privileges,
            "keyring": self.keyring,
            "sysctl": self.sysctl,
            "masked_paths": self.masked_paths,
            "readonly_paths": self.readonly_paths,
            "devices": self.devices,
            "extra_devices": self.extra_devices,
            "network": self.network,
            "user": self.user.map(|(uid, gid)| json!({"uid": uid, "gid": gid})),
            "keeps_groups": self.keeps_groups,
            "rlimits": self.rlimits,
            "rlimit_values": self.rlimit_values.iter().map(|(name, limit)| ((*name).to_owned(), limit.to_json())).collect::<serde_json::Map<_, _>>(),
            "init": self.init,
            "die_with_owner": self.die_with_owner,
            "pass_fds": self.pass_fds,
            "bound_read_only": self.bound_read_only,
            "root_change": self.root_change,
            "mount_interface": self.mount_interface,
            "measured": self.measured,
            "mounts": self.mounts.iter().map(|mount| mount.to_json()).collect::<Vec<_>>(),
            "in_force": self.in_force(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_force_cannot_be_required() {
        let mut isolation = Isolation { seccomp: "default", network: "none", ..Isolation::default() };
        isolation.namespaces.insert(Kind::Net, "new");
        let require = |name: &str| isolation.require(&[name.to_owned()]);
        assert!(require("seccomp").is_ok());
        assert!(require("network").is_ok(), "the OCI name of a namespace is its name too");
        assert!(require("init").is_err());
        assert!(require("memory").is_err());
    }
}
