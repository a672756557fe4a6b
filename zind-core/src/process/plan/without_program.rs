//! Plans of launchers that run no program: they make a namespace or a root and wait, work in a container that runs, or stay as
//! monitor or deputy.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use zind_init::plan::{self as wire, Enter, FsKind, Plan, Topology};

use super::{Names, Prepared, blank, prepare};
use crate::error::{At, Result, Step};
use crate::isolation::Isolation;
use crate::namespace::idmap::ReadyMaps;
use crate::process::hooks;
use crate::process::planfile::PlanWriter;
use crate::process::stdio::Streams;
use crate::rootfs::ops::Ops;
use crate::spec::{Kind, Overlay, Rootfs, Session, Source, Spec, Stdio};

/// The plan that makes a mount namespace and waits.
pub(crate) fn prepare_mount_namespace(ops: &Ops) -> Prepared {
    let mut writer = PlanWriter::new();
    let mut header = Plan { flags: wire::TEMPLATE, topology: Topology::Init, ..blank() };
    header.fs = ops.encode(&mut writer);
    Prepared {
        header,
        writer,
        clone_flags: Kind::Mount.flag(),
        cgroup: None,
        group: None,
        attach: None,
        streams: Streams::default(),
        descriptors: Vec::new(),
        shared: Vec::new(),
        maps: None,
        pins: Vec::new(),
        isolation: Isolation::default(),
        layers: None,
        origin: None,
        overlay: None,
        spec: None,
        listening: None,
        handover: None,
        waits: false,
        names: Names { fs: ops.list.clone(), ..Names::default() },
        forked: false,
        is_by_older_clone: false,
        network: None,
        forks_first: false,
        is_init: false,
        kept_trees: Vec::new(),
        settled: None,
    }
}

/// A running container, for operations in it.
pub(crate) struct Inside {
    /// A pidfd of one of its processes.
    pub(crate) process: OwnedFd,
    /// It has a user namespace that is not the caller's.
    pub(crate) has_users: bool,
    /// The user and group of that namespace that carry out the operations; `None`: the caller's.
    pub(crate) ids: Option<(u32, u32)>,
}

/// The plan that carries out operations in a running container. What comes before [`FsKind::JoinMounts`] is done with the
/// container's capabilities, but in a copy of the caller's mount namespace and as the caller.
pub(crate) fn prepare_inside(inside: Inside, mut ops: Ops) -> Result<Prepared> {
    let Inside { process, has_users, ids } = inside;
    let users = if has_users { Kind::User.flag() as u32 } else { 0 };
    let mounts = Kind::Mount.flag() as u32;
    let mut enter = vec![Enter { fd: process.as_raw_fd(), flags: users | mounts }];
    let late = ops.list.iter_mut().find(|op| op.kind == FsKind::JoinMounts);
    let is_late = late.is_some();
    if let Some(join) = late {
        let again = process.try_clone().at(Step::OpenNamespace, "dup", "")?;
        join.fd = again.as_raw_fd();
        join.flags |= if ids.is_some() { wire::AS_SETUP } else { 0 };
        ops.trees.push(again);
        enter = vec![Enter { fd: process.as_raw_fd(), flags: users }, Enter { fd: -1, flags: mounts }];
        enter.retain(|entry| entry.flags != 0);
    }
    let mut prepared = prepare_mount_namespace(&ops);
    prepared.names.enter = enter.iter().map(|_| "the container".into()).collect();
    prepared.header.enter = prepared.writer.list(&enter);
    if let Some((uid, gid)) = ids {
        prepared.header.flags |= if is_late { 0 } else { wire::SETUP_IDS };
        (prepared.header.setup_uid, prepared.header.setup_gid) = (uid, gid);
    }
    prepared.clone_flags = 0;
    prepared.descriptors.push(process);
    prepared.descriptors.extend(ops.trees);
    Ok(prepared)
}

/// The plan that makes a monitor, which keeps these descriptors.
pub(in crate::process) fn monitor_plan(
    writer: PlanWriter,
    monitor: &zind_init::monitor::Monitor,
    mut keep: Vec<RawFd>,
    told: &hooks::Told,
) -> Result<Vec<u8>> {
    let mut writer = writer;
    keep.sort_unstable();
    keep.dedup();
    let header = Plan {
        flags: wire::MONITOR,
        topology: Topology::Init,
        socket: monitor.control,
        monitor: writer.list(std::slice::from_ref(monitor)),
        keep: writer.list(&keep),
        hooks: hooks::of_monitor(&mut writer, &told.hooks)?,
        hook_states: told.states.encode(&mut writer),
        ..blank()
    };
    Ok(writer.finish(header))
}

/// The plan that makes a user namespace and waits for its maps.
pub(crate) fn prepare_user_namespace(maps: ReadyMaps) -> Prepared {
    let mut prepared = prepare_mount_namespace(&Ops::default());
    prepared.header.flags |= wire::WAIT_WHEN_READY;
    prepared.clone_flags = Kind::User.flag();
    prepared.maps = Some(maps);
    prepared
}

/// The plan that makes a deputy: user 0 of a user namespace with these maps, in the caller's mount namespace.
pub(crate) fn prepare_deputy(maps: ReadyMaps) -> Prepared {
    let mut prepared = prepare_user_namespace(maps);
    prepared.header.flags &= !wire::TEMPLATE;
    prepared.header.flags |= wire::DEPUTY | wire::SETUP_IDS;
    prepared
}

/// The plan that makes the root of a container as it is without the caller's mounts, and waits for somebody to look at it.
pub(crate) fn prepare_look(spec: &Spec, have_clone3: bool) -> Result<Prepared> {
    let mut namespaces = spec.namespaces.clone();
    namespaces.retain(|kind, _| matches!(kind, Kind::User | Kind::Mount));
    namespaces.insert(Kind::Pid, Source::New);
    let spec = Spec {
        namespaces,
        mounts: Vec::new(),
        devices: Vec::new(),
        console: None,
        // Without changes it is what it is below them, and needs no overlay.
        read_only: spec.read_only
            || matches!((&spec.rootfs, &spec.overlay), (Rootfs::Path(_) | Rootfs::Lowers(_), Overlay::Tmpfs)),
        sealed: false,
        system_mounts: false,
        init: true,
        die_with_owner: true,
        pins: Vec::new(),
        time_offsets: None,
        hostname: None,
        domainname: None,
        cgroup: None,
        resources: None,
        require: Vec::new(),
        stdin: Stdio::Null,
        stdout: Stdio::Null,
        stderr: Stdio::Null,
        pass_fds: Vec::new(),
        session: Session::default(),
        terminal: None,
        ..spec.clone()
    };
    let mut prepared = prepare(spec, have_clone3)?;
    prepared.header.flags |= wire::TEMPLATE;
    Ok(prepared)
}
