//! Who the payload is and what it may: ids, capabilities, the filter.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use zind_init::plan as wire;

use super::Builder;
use crate::error::{Error, Result};
use crate::namespace::idmap::{self, ReadyMaps};
use crate::process::filter;
use crate::process::identity::Identity;
use crate::process::measured;
use crate::security::capabilities::{self, CapSet, CapSets};
use crate::spec::{Kind, Seccomp, Spec};

impl Builder {
    /// `setgroups`: whether the user namespace of a running container allows it.
    pub(in crate::process) fn credentials(
        &mut self,
        spec: &Spec,
        identity: &Identity,
        maps: Option<&ReadyMaps>,
        setgroups: Option<bool>,
    ) -> Result<()> {
        // In a user namespace that is joined, dropping groups may be denied; asked for, it is tried all the same.
        let joined_quietly = spec.is_joined(Kind::User) && spec.groups.is_none();
        let may_setgroups =
            maps.map_or(!spec.is_new(Kind::User) && !joined_quietly && !self.keeps_groups, |maps| maps.setgroups);
        if let (Some(groups), true) = (&identity.groups, setgroups.unwrap_or(may_setgroups)) {
            self.plan.flags |= wire::GROUPS;
            self.plan.groups = self.writer.list(groups);
        }
        if let Some((uid, gid)) = identity.user {
            self.plan.flags |= wire::UID | wire::GID;
            (self.plan.uid, self.plan.gid) = (uid, gid);
            self.names.user = PathBuf::from(format!("{uid}:{gid}"));
        }
        if let (Some(maps), false) = (maps, spec.is_low_level()) {
            let has_root = idmap::to_host(&maps.uid, 0).is_some() && idmap::to_host(&maps.gid, 0).is_some();
            let ids = if has_root { (0, 0) } else { identity.user.unwrap_or((0, 0)) };
            self.plan.flags |= wire::SETUP_IDS;
            (self.plan.setup_uid, self.plan.setup_gid) = ids;
        }
        if spec.keep_caps {
            self.plan.flags |= wire::KEEP_CAPS;
        }
        if !spec.ambient.is_empty() && spec.capabilities.is_none() && spec.is_low_level() {
            self.plan.flags |= wire::AMBIENT;
            self.plan.capabilities.ambient = spec.ambient.0;
        }
        if let Some(set) = payload_capabilities(spec) {
            let available = if set.is_empty() || spec.is_new(Kind::User) {
                CapSet::all()
            } else {
                capabilities::current()?.bounding
            };
            let missing = set.difference(available);
            if !missing.is_empty() {
                return Err(Error::unsupported(
                    format!("capability {missing}"),
                    "it is not in the caller's bounding set, so nobody below it can have it",
                ));
            }
            let as_user = identity.user.is_some_and(|(uid, _)| uid != 0);
            let ambient = if as_user { set } else { spec.ambient.intersection(set) };
            let usual = CapSets { bounding: set, permitted: set, effective: set, inheritable: ambient, ambient };
            let mut sets = spec.cap_sets.unwrap_or(usual);
            // The kernel gives no others; documents of `runc spec` ask for them all the same.
            sets.ambient = sets.ambient & sets.permitted & sets.inheritable;
            self.plan.flags |= wire::CAPABILITIES;
            self.plan.capabilities = wire::Capabilities {
                bounding: sets.bounding.0,
                permitted: sets.permitted.0,
                effective: sets.effective.0,
                inheritable: sets.inheritable.0,
                ambient: sets.ambient.0,
            };
        }
        if spec.no_new_privileges {
            self.plan.flags |= wire::NO_NEW_PRIVILEGES;
        }
        if let Some(chosen) = filter::choose(spec)? {
            self.plan.flags |= wire::SECCOMP | if chosen.has_listener { wire::LISTENER } else { 0 };
            let (instructions, is_marked) = measured::marked(&chosen.program);
            self.plan.flags |= if is_marked { wire::MARKED } else { 0 };
            self.plan.seccomp = self.writer.list(&instructions);
            self.plan.seccomp_flags = u64::from(chosen.flags);
            self.listening = chosen.listening;
            self.names.has_profile = spec.seccomp != Seccomp::Default;
        }
        if spec.keyring {
            self.plan.flags |= wire::KEYRING;
        }
        Ok(())
    }
}

/// The payload's capabilities; `None`: unchanged.
pub(crate) fn payload_capabilities(spec: &Spec) -> Option<CapSet> {
    if let Some(sets) = &spec.cap_sets {
        // All it may ever come to have.
        return Some(sets.bounding | sets.permitted | sets.inheritable);
    }
    if spec.privileged || (spec.is_low_level() && spec.capabilities.is_none()) {
        return None;
    }
    Some(spec.capabilities.unwrap_or(CapSet::EMPTY))
}

pub(in crate::process) fn has_seccomp(spec: &Spec) -> bool {
    match spec.seccomp {
        Seccomp::Default => !spec.privileged,
        Seccomp::Profile(_) => true,
        Seccomp::None | Seccomp::Learn => false,
    }
}
