//! Which limits this user can set here, and how they come about: looked at, not tried out.
#![forbid(unsafe_code)]

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::delegation::{self, Found};
use super::files::has_word;
use super::layout::{Hierarchy, Layout};
use crate::error::Result;

/// The controllers that limits need most.
const CONTROLLERS: [&str; 5] = ["cpu", "memory", "pids", "cpuset", "io"];

/// What [`look`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// `"v2"`, `"v1"`, `"hybrid"`, `"none"`.
    pub(crate) kind: &'static str,
    /// Each place where groups are made, in words.
    pub(crate) places: Vec<String>,
    /// Controllers whose limits can be set.
    pub(crate) can: Vec<&'static str>,
    /// Those that cannot.
    pub(crate) cannot: Vec<&'static str>,
}

/// Looks at every controller.
pub(crate) fn look() -> Result<Outlook> {
    let layout = Layout::read()?;
    let mut outlook = Outlook { kind: layout.kind(), ..Outlook::default() };
    for name in CONTROLLERS {
        let v1 = if name == "io" { "blkio" } else { name };
        let place = match (layout.v1_with(v1), &layout.v2) {
            (Some(hierarchy), _) => on_v1(hierarchy),
            (None, Some(hierarchy)) => on_v2(hierarchy, name),
            (None, None) => None,
        };
        match place {
            Some(place) => {
                outlook.can.push(name);
                if !outlook.places.contains(&place) {
                    outlook.places.push(place);
                }
            }
            None => outlook.cannot.push(name),
        }
    }
    Ok(outlook)
}

fn on_v1(hierarchy: &Hierarchy) -> Option<String> {
    let own = hierarchy.own.as_deref()?;
    may_make_groups(own).then(|| "below this process's own groups".to_owned())
}

fn on_v2(hierarchy: &Hierarchy, controller: &'static str) -> Option<String> {
    match delegation::v2(hierarchy, &[controller], None).ok()? {
        Found::Scope(scope) => {
            scope.offers(controller).then(|| format!("in scopes of systemd ({})", scope.manager_name()))
        }
        Found::Free(top) => {
            let own = hierarchy.own.as_deref()?;
            let top = top.as_deref().unwrap_or(&hierarchy.mount);
            let dir = own.ancestors().take_while(|dir| dir.starts_with(top)).find(|dir| is_usable(dir, controller))?;
            Some(if dir == own {
                "below this process's own group".to_owned()
            } else {
                format!("below {}", dir.display())
            })
        }
    }
}

/// Groups with the controller can be made below: it is handed down already, or nothing is in the way.
fn is_usable(dir: &Path, controller: &str) -> bool {
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    let is_free = !dir.join("cgroup.type").exists() || text("cgroup.procs").is_empty();
    let is_handed_down = has_word(&text("cgroup.subtree_control"), controller);
    may_make_groups(dir) && has_word(&text("cgroup.controllers"), controller) && (is_handed_down || is_free)
}

fn may_make_groups(dir: &Path) -> bool {
    let may = |path: &Path| accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    may(dir) && may(&dir.join("cgroup.procs"))
}
