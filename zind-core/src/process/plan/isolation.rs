//! What the report says of a start, from the same decisions as its plan.
#![forbid(unsafe_code)]

use super::{payload_capabilities, rlimit_values};
use crate::isolation::{Isolation, MountReport};
use crate::namespace::idmap::ReadyMaps;
use crate::process::filter;
use crate::process::identity::Identity;
use crate::rootfs::plan::{self as root_plan, Situation};
use crate::rootfs::stand_in::StandIn;
use crate::rootfs::{dev, mask};
use crate::spec::parse::rlimit_name;
use crate::spec::{Kind, Overlay, Rootfs, Source, Spec};

/// What the root is, where its changes go, and what keeps them apart from it.
pub(super) fn root_report(spec: &Spec, stand_in: Option<&StandIn>) -> (String, String, &'static str) {
    let rootfs = match &spec.rootfs {
        Rootfs::Host => "host".to_owned(),
        Rootfs::Path(path) => path.to_string_lossy().into_owned(),
        Rootfs::Lowers(lowers) => lowers.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(":"),
        Rootfs::Layers(layers) => layers.dir().to_string_lossy().into_owned(),
        Rootfs::Image(image) => image.id().to_string(),
        Rootfs::Unchanged => "unchanged".to_owned(),
    };
    let overlay = match &spec.overlay {
        _ if spec.read_only => "none".to_owned(),
        Overlay::Tmpfs => "tmpfs".to_owned(),
        Overlay::Dir(path) => path.to_string_lossy().into_owned(),
        Overlay::None => "none".to_owned(),
    };
    let copy_on_write = match stand_in {
        _ if overlay == "none" => "none",
        Some(stand_in) => stand_in.name(),
        None => "overlay",
    };
    (rootfs, overlay, copy_on_write)
}

pub(super) fn isolation(spec: &Spec, situation: Situation, identity: &Identity, maps: Option<&ReadyMaps>) -> Isolation {
    let how = |kind: Kind| match spec.namespaces.get(&kind) {
        Some(Source::New) => "new",
        None | Some(Source::Host) => "host",
        Some(_) => "joined",
    };
    let hidden = spec.system_mounts && !spec.privileged;
    let shown = |path: &&&'static str| root_plan::has_sysfs(spec, situation) || !path.starts_with("/sys");
    let maps_or = |pick: fn(&ReadyMaps) -> &Vec<crate::spec::IdMap>| maps.map(pick).cloned().unwrap_or_default();
    Isolation {
        cgroup_refused: String::new(),
        namespaces: Kind::ALL.into_iter().map(|kind| (kind, how(kind))).collect(),
        uid_map: maps_or(|maps| &maps.uid),
        gid_map: maps_or(|maps| &maps.gid),
        cgroup: Vec::new(),
        limits: Vec::new(),
        rootfs: String::new(),
        overlay: String::new(),
        copy_on_write: "none",
        read_only: spec.read_only || spec.sealed,
        seccomp: filter::name(spec),
        seccomp_notes: filter::notes(spec),
        capabilities: payload_capabilities(spec),
        no_new_privileges: spec.no_new_privileges,
        landlock: None,
        apparmor: spec.apparmor.clone(),
        selinux: spec.selinux.clone(),
        mount_label: spec.mount_label.clone(),
        keyring: spec.keyring,
        sysctl: spec.sysctl.clone(),
        masked_paths: if hidden { mask::masked_paths().iter().filter(shown).copied().collect() } else { Vec::new() },
        readonly_paths: if hidden { mask::readonly_paths().to_vec() } else { Vec::new() },
        devices: if spec.system_mounts { dev::names() } else { Vec::new() },
        extra_devices: Vec::new(),
        network: match how(Kind::Net) {
            "new" => "none",
            other => other,
        },
        user: identity.user,
        keeps_groups: identity.groups.is_some()
            && (maps.is_some_and(|maps| !maps.setgroups) || (spec.is_joined(Kind::User) && spec.groups.is_none())),
        rlimits: spec.rlimits.iter().map(|limit| rlimit_name(limit.resource)).collect(),
        rlimit_values: rlimit_values(spec),
        init: spec.init && spec.is_new(Kind::Pid) && !spec.is_low_level(),
        die_with_owner: spec.die_with_owner,
        pass_fds: spec.pass_fds.clone(),
        bound_read_only: if spec.rootfs == Rootfs::Host && !spec.read_only && !situation.template {
            crate::rootfs::host::system_directories()
                .into_iter()
                .filter(|name| crate::rootfs::host::has_mounts_below(name))
                .map(|name| format!("/{name}"))
                .collect()
        } else {
            Vec::new()
        },
        root_change: if spec.is_low_level() {
            if spec.chroot.is_some() { "chroot" } else { "none" }
        } else {
            "pivot_root"
        },
        mount_interface: if situation.older_mounts { "mount" } else { "fsmount" },
        mounts: spec.mounts.iter().map(MountReport::of).collect(),
        measured: "inside",
    }
}
