//! Whose part of the version 2 tree it is: ours, somebody's who gave it to us, or systemd's.
//!
//! Where systemd runs, a group made below one of its own units without delegation works at first. But systemd takes
//! controllers away from its units again when it next looks at them, and the limits with them. So there a scope is asked for.
//! Source: <https://systemd.io/CGROUP_DELEGATION/>
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::crossing::BESIDE;
use super::layout::Hierarchy;
use super::limits::shares_to_weight;
use super::place::WANTED;
use super::resources::Resources;
use super::systemd::Manager;
use crate::error::{At, Error, Result, Step};

/// What makes it ours, for whoever reads the error.
pub(crate) const CURE: &str = "start this program in a unit with Delegate=yes (systemd-run --user --scope -p Delegate=yes COMMAND), or log in \
     with a user manager (loginctl enable-linger USER, and XDG_RUNTIME_DIR set)";

/// Where groups can be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Where the caller may write, but not above this directory.
    Free(Option<PathBuf>),
    /// In a scope, which systemd makes when the launcher is there.
    Scope(Scope),
}

/// A scope that is to be made around a launcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    manager: Manager,
    slice: Option<String>,
    mount: PathBuf,
}

/// Where groups with these controllers can be made. `parent`: a slice of systemd's, `"work.slice"`.
///
/// Errors: [`Error::Unsupported`] where systemd owns the tree and has no manager that this user can ask.
pub(crate) fn v2(hierarchy: &Hierarchy, controllers: &[&str], parent: Option<&str>) -> Result<Found> {
    let scope = |manager: Manager| {
        Found::Scope(Scope { manager, slice: parent.map(str::to_owned), mount: hierarchy.mount.clone() })
    };
    let manager = || Manager::find(rustix::process::geteuid().is_root());
    let nobody = || {
        Error::unsupported("control groups", format!("systemd owns the tree, and its bus cannot be reached: {CURE}"))
    };
    if parent.is_some() {
        return manager().map(scope).ok_or_else(nobody);
    }
    let (true, Some(own)) = (Manager::runs(), &hierarchy.own) else { return Ok(Found::Free(None)) };
    let Some(unit) = unit_of(own, &hierarchy.mount) else { return Ok(Found::Free(None)) };
    match is_delegated(unit) {
        // A group below the unit's leaves the unit's own without processes; in the unit's own they are in the way.
        true if own != unit || enables(own, controllers) => Ok(Found::Free(Some(unit.to_owned()))),
        true => Ok(manager().map_or_else(|| Found::Free(Some(unit.to_owned())), scope)),
        false => manager().map(scope).ok_or_else(nobody),
    }
}

/// The directory of the unit of systemd's that a group belongs to: the deepest with such a name.
fn unit_of<'a>(own: &'a Path, mount: &Path) -> Option<&'a Path> {
    let is_unit = |dir: &&Path| {
        let kind = dir.extension().and_then(|kind| kind.to_str());
        matches!(kind, Some("service" | "scope" | "slice" | "socket" | "mount" | "swap"))
    };
    own.ancestors().take_while(|dir| *dir != mount).find(is_unit)
}

/// systemd marks what it has given away.
pub(crate) fn is_delegated(dir: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0u8; 8];
        matches!(rustix::fs::getxattr(dir, *name, &mut value[..]), Ok(1) if value[0] == b'1')
    })
}

/// True if the groups below have all of these controllers.
fn enables(dir: &Path, controllers: &[&str]) -> bool {
    let text = std::fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    controllers.iter().all(|name| text.split_ascii_whitespace().any(|other| other == *name))
}

impl Scope {
    /// Which manager makes it: `"the user manager"`.
    pub(crate) fn manager_name(&self) -> &'static str {
        self.manager.name()
    }

    /// True if the manager has this controller to give.
    pub(crate) fn offers(&self, controller: &str) -> bool {
        let dir = match self.manager {
            Manager::System(_) => self.mount.clone(),
            Manager::User(_) => {
                let uid = rustix::process::geteuid().as_raw();
                self.mount.join(format!("user.slice/user-{uid}.slice/user@{uid}.service"))
            }
        };
        let text = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        text.split_ascii_whitespace().any(|name| name == controller)
    }

    /// Has systemd make the scope `<name>.scope` around processes, and makes the group `name` in it, with these processes
    /// and these controllers. Returns its directory and the controllers it has.
    ///
    /// systemd takes the scope away with its last process, and what the group has counted with it. So there is one more,
    /// `keeper`, in a group beside it, which lives until that has been read.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Systemd`]; [`Error::Unsupported`] for a controller that the manager was not given.
    pub(crate) fn make(
        &self,
        name: &str,
        pids: &[u32],
        keeper: Option<u32>,
        controllers: &[&str],
        resources: &Resources,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(PathBuf, Vec<String>)> {
        let unit = format!("{name}.scope");
        let all: Vec<u32> = pids.iter().copied().chain(keeper).collect();
        self.manager.start_scope(&unit, self.slice.as_deref(), &all, &properties(resources), interrupted)?;
        let scope = self.dir_of(&unit, pids)?;
        let given = std::fs::read_to_string(scope.join("cgroup.controllers")).at(Step::Systemd, "open", &scope)?;
        if let Some(missing) = controllers.iter().find(|name| !given.split_ascii_whitespace().any(|has| has == **name))
        {
            let given = given.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            let needs = match self.manager {
                Manager::System(_) => format!(
                    "systemd hands on {given} only; name a group outside of its units: cgroup_parent=\"/NAME\" (as root)"
                ),
                Manager::User(_) => format!(
                    "it has to be delegated to the user manager, which has {given}: as root, Delegate={} in a drop-in of \
                     user@.service, or run as root",
                    controllers.join(" ")
                ),
            };
            return Err(Error::unsupported(*missing, needs));
        }
        let group = scope.join(name);
        std::fs::create_dir(&group).at(Step::Systemd, "mkdir", &group)?;
        // Processes first: a group with any enables nothing for those below.
        for pid in pids {
            write(&group.join("cgroup.procs"), &pid.to_string())?;
        }
        if let Some(keeper) = keeper {
            let beside = scope.join(BESIDE);
            std::fs::create_dir(&beside).at(Step::Systemd, "mkdir", &beside)?;
            write(&beside.join("cgroup.procs"), &keeper.to_string())?;
        }
        // Those that are only good for readings are in the scope's budget too, where they are there at all.
        let given: Vec<&str> = given.split_ascii_whitespace().collect();
        let wanted = WANTED.iter().filter(|name| given.contains(name) && !controllers.contains(name));
        let enable: Vec<String> = controllers.iter().chain(wanted).map(|name| format!("+{name}")).collect();
        write(&scope.join("cgroup.subtree_control"), &enable.join(" "))?;
        Ok((group, enable.into_iter().map(|name| name[1..].to_owned()).collect()))
    }

    /// The same for an update of the group `name`.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Systemd`].
    pub(crate) fn update(&self, name: &str, resources: &Resources) -> Result<()> {
        match &properties(resources)[..] {
            [] => Ok(()),
            changed => self.manager.set_properties(&format!("{name}.scope"), changed),
        }
    }

    /// The directory of the scope: what the kernel says of its process, and no name of ours put together.
    fn dir_of(&self, unit: &str, pids: &[u32]) -> Result<PathBuf> {
        let first = pids.first().copied().unwrap_or_default();
        let path = format!("/proc/{first}/cgroup");
        let text = std::fs::read_to_string(&path).at(Step::Systemd, "open", &path)?;
        let group = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        let dir = self.mount.join(group.trim_start_matches('/'));
        if dir.file_name().is_some_and(|name| name == unit) && dir.is_dir() {
            return Ok(dir);
        }
        Err(Error::sys(Step::Systemd, "", dir, Errno::ENOENT)
            .with_hint("systemd made the scope, but it is not in this mount of the tree"))
    }
}

/// What counts among siblings, and so has to be the scope's too: shares and protection. Limits are the group's alone.
fn properties(resources: &Resources) -> Vec<(&'static str, u64)> {
    // systemd's "idle".
    let idle = resources.cpu_idle.map(|idle| if idle { 0 } else { 100 });
    let weight = resources.cpu_weight.or(resources.cpu_shares.map(shares_to_weight)).or(idle);
    let all = [
        ("CPUWeight", if resources.cpu_idle == Some(true) { idle } else { weight }),
        ("IOWeight", resources.io_weight),
        ("MemoryLow", resources.memory_low),
        ("MemoryMin", resources.memory_min),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    // One write(2): the kernel takes each as a whole.
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .at(Step::Systemd, "open", path)
        .and_then(|file| rustix::io::write(&file, text.as_bytes()).at(Step::Systemd, "write", path))
        .map(drop)
}

/// Gives a group to the user of a container: its directory, and those files that the kernel says make a subtree somebody's.
///
/// Errors: [`Error::Sys`] at [`Step::MakeCgroup`].
/// Source: <https://docs.kernel.org/admin-guide/cgroup-v2.html#delegation>
pub(crate) fn give(group: BorrowedFd<'_>, path: &Path, uid: u32, gid: u32) -> Result<()> {
    use rustix::fs::{AtFlags, Gid, Uid, chownat};
    let list = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
    let list = list.unwrap_or_else(|_| "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n".to_owned());
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    chownat(group, "", uid, gid, AtFlags::EMPTY_PATH).at(Step::MakeCgroup, "fchownat", path)?;
    for name in list.split_ascii_whitespace().filter(|name| !name.contains('/')) {
        match chownat(group, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
            // The list is of all that may be there; what is not depends on the controllers.
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno).at(Step::MakeCgroup, "fchownat", path.join(name)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_of_a_group_is_the_deepest() {
        let mount = Path::new("/sys/fs/cgroup");
        let unit =
            |path: &str| unit_of(&mount.join(path), mount).map(|dir| dir.strip_prefix(mount).unwrap().to_owned());
        assert_eq!(
            unit("user.slice/user-0.slice/session-1.scope"),
            Some("user.slice/user-0.slice/session-1.scope".into())
        );
        assert_eq!(unit("system.slice/web.service/worker"), Some("system.slice/web.service".into()));
        assert_eq!(unit("zind/x"), None);
        assert_eq!(unit(""), None);
    }

    #[test]
    fn without_systemd_the_tree_is_free() {
        let hierarchy = Hierarchy { mount: "/cg".into(), own: Some("/cg/a.service".into()), ..Hierarchy::default() };
        if !Manager::runs() {
            assert_eq!(v2(&hierarchy, &["memory"], None).unwrap(), Found::Free(None));
            assert!(matches!(v2(&hierarchy, &["memory"], Some("x.slice")), Err(Error::Unsupported { .. })));
        }
    }
}
