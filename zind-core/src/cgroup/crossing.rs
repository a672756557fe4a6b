//! The way into a scope of the user's manager for who comes from outside of that manager's tree: from a login session, or a
//! service of the machine's that runs as this user.
//!
//! Nobody goes from one group to another without the right to write to the group above both, which is root's there. The
//! manager may move a process of the same user across, by way of that of the machine; so it is asked, as for the scope itself.
//! The process goes beside the container's group, and from there on all the groups above are the user's.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::layout::Layout;
use super::place::barrier;
use super::systemd::Manager;
use crate::error::{At, Result, Step};

/// The group of those who are in a scope and not in the container: see [`super::delegation::Scope::make`].
pub(super) const BESIDE: &str = "keeper";

/// What it takes to come near a container's group.
#[derive(Debug)]
pub(crate) struct Crossing {
    manager: Manager,
    scope: PathBuf,
    unit: String,
}

impl Crossing {
    /// For a group in a scope of zind's; `None` where the caller gets there without help, or nobody can help.
    pub(crate) fn to(group: &Path) -> Option<Crossing> {
        let scope = group.parent()?;
        let unit = scope.file_name()?.to_str().filter(|name| name.starts_with("zind-") && name.ends_with(".scope"))?;
        let layout = Layout::read().ok()?;
        barrier(layout.v2.as_ref()?, group)?;
        let manager = Manager::find(rustix::process::geteuid().is_root())?;
        Some(Crossing { manager, scope: scope.to_owned(), unit: unit.to_owned() })
    }

    /// Has a process of the caller's moved there.
    ///
    /// Errors: [`crate::Error::Sys`] at [`Step::Systemd`], with what systemd said; [`crate::Error::Interrupted`] when
    /// `interrupted` says so.
    pub(crate) fn take(&self, pid: u32, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let beside = self.scope.join(BESIDE);
        match std::fs::create_dir(&beside) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => result.at(Step::Systemd, "mkdir", &beside)?,
        }
        self.manager.attach(&self.unit, &format!("/{BESIDE}"), &[pid], interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scopes_of_ours_are_asked_for() {
        for group in
            ["/", "/sys/fs/cgroup/zind-1", "/sys/fs/cgroup/a.scope/zind-1", "/sys/fs/cgroup/zind-1.slice/zind-1"]
        {
            assert!(Crossing::to(Path::new(group)).is_none(), "{group}");
        }
        // And only where it is needed: root goes everywhere.
        if rustix::process::geteuid().is_root() {
            assert!(Crossing::to(Path::new("/sys/fs/cgroup/zind-1.scope/zind-1")).is_none());
        }
    }
}
