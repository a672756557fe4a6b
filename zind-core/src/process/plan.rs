//! From a [`Spec`] to a [`Plan`]: every decision is made here, so that the launcher has none to make.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt;
use zind_init::plan::{self as wire, Enter, FsKind, List, MAGIC, Plan, SchedAttr, Str, Topology, VERSION};

use super::filter::{self, Listening};
use super::identity::{self, Caller, Identity};
use super::planfile::PlanWriter;
use super::settled::Settled;
use super::stdio::Streams;
use super::{exec, hooks, launch, measured};
use crate::cgroup::{self, Cgroup, Resources};
use crate::error::{At, Error, Result, Step};
use crate::image::apply::Origin;
use crate::isolation::{Isolation, MountReport, RlimitReport};
use crate::namespace::idmap::{self, IdMaps, ReadyMaps};
use crate::rootfs::devices::{self, Devices};
use crate::rootfs::host::ExtraUser;
use crate::rootfs::layers::{self, Lock, Tenancy};
use crate::rootfs::ops::{Op, Ops, c_path, c_string};
use crate::rootfs::plan::{self as root_plan, RootFrom, Situation};
use crate::rootfs::stand_in::StandIn;
use crate::rootfs::{caller, dev, mask, template};
use crate::security::capabilities::{self, CapSet, CapSets};
use crate::spec::parse::rlimit_name;
use crate::spec::sysctl;
use crate::spec::{Hook, Kind, Overlay, Rootfs, Seccomp, Session, Source, Spec, Stdio};
use crate::sys::clone::NetworkMaker;
use crate::sys::descriptors::pidfd_open;
use crate::sys::probe;

/// Everything one start needs.
pub(crate) struct Prepared {
    header: Plan,
    writer: PlanWriter,
    /// For the clone of the launcher.
    pub(crate) clone_flags: u64,
    pub(crate) cgroup: Option<Arc<OwnedFd>>,
    /// The control group of the container's own.
    pub(crate) group: Option<Arc<Cgroup>>,
    /// How the launcher comes into those parts of it that nobody is born into.
    pub(crate) attach: Option<Attach>,
    pub(crate) streams: Streams,
    /// Open until the launcher has its copies.
    descriptors: Vec<OwnedFd>,
    shared: Vec<Arc<OwnedFd>>,
    pub(crate) maps: Option<ReadyMaps>,
    pub(crate) pins: Vec<(Kind, PathBuf)>,
    pub(crate) isolation: Isolation,
    /// The lock of the root's layers.
    pub(crate) layers: Option<Lock>,
    pub(crate) origin: Option<Origin>,
    /// A directory on disk that changes go to.
    pub(crate) overlay: Option<PathBuf>,
    /// What a further program in the container starts from.
    pub(crate) spec: Option<Arc<Spec>>,
    /// What becomes of the listener of its filter.
    pub(crate) listening: Option<Listening>,
    /// Where that comes from, if not with the reports.
    pub(super) handover: Option<OwnedFd>,
    /// Somebody has something to do when its namespaces are there.
    pub(super) waits: bool,
    pub(crate) names: Names,
    pub(crate) forked: bool,
    /// Makes the network namespace meanwhile.
    pub(crate) network: Option<NetworkMaker>,
    /// The first launcher forks, and only waits.
    pub(crate) forks_first: bool,
    /// The launcher stays as the container's PID 1.
    pub(crate) is_init: bool,
    /// Detached trees for further starts, with the number that a copy of each takes in the plan.
    pub(super) kept_trees: Vec<(OwnedFd, RawFd)>,
    /// What of a further program in a container can be done before it is asked for.
    pub(super) settled: Option<Settled>,
}

/// Files to write the launcher's pid to, and where to tell it that this is done.
pub(crate) struct Attach {
    pub(crate) files: Vec<OwnedFd>,
    pub(crate) done: OwnedFd,
    /// Somebody else moves it first: near the group that the program is to be born into.
    pub(crate) crossing: Option<cgroup::Crossing>,
}

/// What the indices of a report stand for.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The files through which the launcher came into its groups.
    pub(crate) groups: Vec<PathBuf>,
    pub(crate) enter: Vec<PathBuf>,
    /// The operations on the file system.
    pub(crate) fs: Vec<Op>,
    /// They are carried out by the older mount interface.
    pub(crate) older_mounts: bool,
    pub(crate) programs: Vec<PathBuf>,
    pub(crate) rlimits: Vec<&'static str>,
    pub(crate) cwd: PathBuf,
    pub(crate) fds: Vec<i32>,
    pub(crate) user: PathBuf,
    /// The filter is the caller's.
    pub(crate) has_profile: bool,
    /// Kernel parameters.
    pub(crate) sysctls: Vec<PathBuf>,
    /// Paths of Landlock's rules; none: files are left alone.
    pub(crate) landlock: Vec<PathBuf>,
    /// Files are Landlock's.
    pub(crate) has_landlock: bool,
    /// Labels of security modules.
    pub(crate) labels: Vec<PathBuf>,
    /// Ports of its rules.
    pub(crate) ports: Vec<u16>,
    /// The programs that are run on the way: the moment, and the path.
    pub(crate) hooks: Vec<(&'static str, Hook)>,
}

impl Prepared {
    /// Keeps descriptors open in who watches over the payload, until it ends.
    pub(crate) fn hold(&mut self, descriptors: Vec<OwnedFd>) {
        let layers = self.layers.iter().filter_map(Lock::fd).map(|fd| fd.as_raw_fd());
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).chain(layers).collect();
        self.header.holds = self.writer.list(&numbers);
        self.descriptors.extend(descriptors);
    }

    /// The number that the container takes for its owner's: whoever is to be the owner puts a pidfd there. It stands for
    /// something else until then.
    pub(super) fn take_owner(&mut self) -> Result<RawFd> {
        let any = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).at(Step::Socket, "eventfd2", "")?;
        let number = any.as_raw_fd();
        self.header.owner = number;
        self.descriptors.push(any);
        Ok(number)
    }

    /// What the programs are told that are run on the way.
    pub(super) fn tell_hooks(&mut self, states: &hooks::States) {
        if self.header.hooks.len > 0 {
            self.header.hook_states = states.encode(&mut self.writer);
        }
    }

    /// Has the launcher wait when its namespaces are there.
    pub(super) fn wait_when_ready(&mut self) {
        self.header.flags |= wire::WAIT_WHEN_READY;
        self.waits = true;
    }

    /// Has the launcher wait for another program when this one has ended, at its ends of two pairs of sockets; or, without them,
    /// where it has waited already.
    pub(super) fn wait_again(&mut self, theirs: Option<[OwnedFd; 2]>) {
        let numbers = theirs.as_ref().map(|both| both.each_ref().map(AsRawFd::as_raw_fd));
        [self.header.control, self.header.ready] = numbers.unwrap_or_default();
        self.descriptors.extend(theirs.into_iter().flatten());
    }

    /// The number of the pipe that tells that the launcher is in its groups, or -1.
    pub(super) fn groups_ready(&self) -> RawFd {
        self.header.groups_ready
    }

    /// Somebody looks at the payload before it runs.
    pub(super) fn is_measured(&self) -> bool {
        self.header.flags & wire::MEASURE != 0
    }

    /// The program is one in a running container.
    pub(crate) fn is_guest(&self) -> bool {
        self.header.topology == Topology::Exec
    }

    /// The plan as bytes, and the descriptors the launcher keeps, for a report socket.
    pub(crate) fn encode(&mut self, socket: BorrowedFd<'_>) -> (Vec<u8>, Vec<RawFd>) {
        self.header.socket = socket.as_raw_fd();
        let mut keep: Vec<RawFd> = self.streams.map.values().copied().collect();
        keep.push(self.header.socket);
        keep.extend(self.descriptors.iter().map(AsRawFd::as_raw_fd));
        keep.extend(self.layers.iter().filter_map(Lock::fd).map(|fd| fd.as_raw_fd()));
        keep.extend(self.shared.iter().map(|fd| fd.as_raw_fd()));
        keep.extend(self.network.iter().flat_map(|network| [network.pidfd().as_raw_fd(), network.ready().as_raw_fd()]));
        keep.sort_unstable();
        keep.dedup();
        self.header.keep = self.writer.list(&keep);
        let bytes = std::mem::replace(&mut self.writer, PlanWriter::new()).finish(self.header);
        (bytes, keep)
    }
}

/// A header in which nothing is asked for.
pub(super) fn blank() -> Plan {
    Plan {
        magic: MAGIC,
        version: VERSION,
        size: 0,
        flags: 0,
        topology: Topology::Watcher,
        socket: -1,
        owner: -1,
        proc: -1,
        network: -1,
        network_ready: -1,
        groups_ready: -1,
        memory_events: -1,
        memory_news: -1,
        container: -1,
        control: -1,
        handover: -1,
        ready: -1,
        root: -1,
        group: -1,
        terminal: -1,
        terminal_size: 0,
        group_files: List::EMPTY,
        keep: List::EMPTY,
        holds: List::EMPTY,
        enter: List::EMPTY,
        fork_flags: 0,
        owner_uid: 0,
        owner_gid: 0,
        setup_uid: 0,
        setup_gid: 0,
        time_offsets: Str(0),
        hostname: Str(0),
        domainname: Str(0),
        fs: List::EMPTY,
        sysctls: List::EMPTY,
        programs: List::EMPTY,
        argv: List::EMPTY,
        envp: List::EMPTY,
        cwd: Str(0),
        fds: List::EMPTY,
        pgid: 0,
        ctty: 0,
        rlimits: List::EMPTY,
        oom_score_adj: 0,
        nice: 0,
        scheduler: SchedAttr::default(),
        umask: 0,
        personality: 0,
        groups: List::EMPTY,
        gid: 0,
        uid: 0,
        capabilities: wire::Capabilities::default(),
        pdeathsig: 0,
        securebits: -1,
        seccomp: List::EMPTY,
        seccomp_flags: 0,
        labels: List::EMPTY,
        landlock: wire::Landlock::NONE,
        monitor: List::EMPTY,
        hooks: List::EMPTY,
        hook_states: wire::HookStates::default(),
    }
}

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
pub(super) fn monitor_plan(
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

/// Decides everything about one start. `clone3`: false where that call is hidden.
pub(crate) fn prepare(spec: Spec, have_clone3: bool) -> Result<Prepared> {
    prepare_with(spec, have_clone3, None, Kept::default())
}

/// What a start below a monitor asks of its plan.
#[derive(Clone, Copy, Default)]
pub(crate) struct Kept {
    /// The same container is started from it again and again, so that nothing in it may be used up.
    pub(crate) is_reusable: bool,
    /// Somebody has something to do in its namespaces before the payload is there.
    pub(crate) is_hooked: bool,
}

/// The same with something else in place of the root's overlay.
pub(crate) fn prepare_with(
    mut spec: Spec,
    have_clone3: bool,
    stand_in: Option<&StandIn>,
    Kept { is_reusable, is_hooked }: Kept,
) -> Result<Prepared> {
    let told = root_report(&spec, stand_in);
    let to_run = std::mem::take(&mut spec.hooks);
    on_terminal(&mut spec);
    let mut tree = None;
    let mut root = match stand_in {
        None => RootFrom::Request,
        Some(StandIn::Directory(path)) => {
            (spec.rootfs, spec.overlay) = (Rootfs::Path(path.clone()), Overlay::None);
            RootFrom::Request
        }
        Some(StandIn::Staged(_)) => RootFrom::Library,
        Some(StandIn::Fuse(fuse)) => match &fuse.tree {
            Some(root) => RootFrom::Tree(tree.insert(root.try_clone().at(Step::OpenRoot, "dup", "")?).as_raw_fd()),
            None => RootFrom::Fuse(0, 0),
        },
        Some(StandIn::Tree(root)) => {
            RootFrom::Tree(tree.insert(root.try_clone().at(Step::OpenRoot, "dup", "")?).as_raw_fd())
        }
    };
    let caller = Caller::now()?;
    choose_user_namespace(&mut spec, caller)?;
    // Before anything else is opened: a number that is not open must not come to mean one of ours.
    let streams = Streams::of(&spec)?;
    // What is looked up in layers must still be there when they are mounted.
    let mut layers = match &spec.rootfs {
        Rootfs::Layers(layers) => Some(Tenancy::begin(layers)?),
        _ => None,
    };
    let older_mounts = probe::newer_mounts_are_hidden();
    // A hook finds all namespaces as they will be, and the host's files where they are.
    let has_no_hooks = to_run.is_empty() && !is_hooked;
    let network = begin_network(&spec, caller, have_clone3 && !older_mounts && !is_reusable && has_no_hooks)?;
    let mut identity = identity::resolve(&spec)?;
    let maps = id_maps(&spec, &mut identity, caller)?;
    let new_user = spec.is_new(Kind::User);
    let in_user_namespace = new_user || spec.is_joined(Kind::User);
    if let RootFrom::Fuse(uid, gid) = &mut root
        && let Some(maps) = &maps
    {
        // Somebody whom the user namespace knows.
        (*uid, *gid) = (idmap::first(&maps.uid), idmap::first(&maps.gid));
    }
    let has_namespace_proc = Path::new("/proc/self/ns").exists();
    // Who is in a forked launcher is not told before it has ended.
    let may_have_template = have_clone3
        && !spec.is_low_level()
        && caller.admin
        && !older_mounts
        && !is_reusable
        && has_no_hooks
        && caller.initial_user_namespace
        && !in_user_namespace
        && has_namespace_proc;
    let situation = Situation {
        // A detached tree can be attached once.
        admin: caller.admin && !older_mounts && !is_reusable,
        older_mounts,
        root,
        template: may_have_template && template::is_worth_it(),
        own_nodes: may_have_template && caller.may_make_nodes,
        user_namespace: in_user_namespace || !caller.initial_user_namespace,
        cgroup_namespace: spec.is_new(Kind::Cgroup),
        network_apart: network.is_some(),
        tty_group: !spec.is_joined(Kind::User)
            && maps.as_ref().map_or(caller.initial_user_namespace, |maps| idmap::to_host(&maps.gid, 5).is_some()),
    };
    let keeps_groups = maps.is_none()
        && spec.groups.is_none()
        && !caller.initial_user_namespace
        && std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    let mut builder = Builder { descriptors: tree.into_iter().collect(), network, keeps_groups, ..Builder::new() };
    if let (Overlay::Dir(dir), RootFrom::Request, false, Some(maps)) = (&spec.overlay, root, spec.read_only, &maps) {
        layers::let_into(dir, maps)?;
    }
    if let Some(layers) = &mut layers {
        layers.furnish(situation.user_namespace, maps.as_ref())?;
    }
    builder.topology(&spec, situation, have_clone3)?;
    // Without zind's own filter it could make a user namespace, in which it has them all.
    let limited_to = payload_capabilities(&spec).filter(|_| spec.seccomp == Seccomp::Default && has_seccomp(&spec));
    let devices = devices::find(&spec, situation, limited_to)?;
    builder.hooks(&to_run)?;
    builder.has_hooks = !has_no_hooks;
    builder.files(&spec, situation, &identity, &devices)?;
    if is_reusable {
        builder.keep_trees()?;
    }
    builder.names_of_host(&spec)?;
    if maps.is_none() {
        sysctl::check_no_user_namespace(&spec)?;
    }
    builder.sysctls(&spec)?;
    builder.program(&spec, &identity)?;
    builder.credentials(&spec, &identity, maps.as_ref(), None)?;
    let landlock = builder.landlock(&spec)?;
    builder.labels(&spec)?;
    builder.process(&spec)?;
    builder.streams(&spec, &streams);
    if spec.die_with_owner {
        let owner = pidfd_open(std::process::id() as i32).at(Step::Socket, "pidfd_open", "")?;
        builder.plan.owner = owner.as_raw_fd();
        builder.descriptors.push(owner);
    }
    if maps.is_some() || !spec.pins.is_empty() {
        builder.plan.flags |= wire::WAIT_WHEN_READY;
    }
    // What a program serves must end with the container, too.
    let is_served = matches!(stand_in, Some(StandIn::Fuse(_)));
    let on_disk = matches!(spec.overlay, Overlay::Dir(_)) || layers.is_some() || is_served;
    if !on_disk && !spec.mounts.iter().any(caller::is_on_disk) {
        builder.plan.flags |= wire::UNMOUNT_LATER;
    }
    if older_mounts {
        builder.plan.flags |= wire::OLDER_MOUNTS;
        builder.names.older_mounts = true;
        builder.open_proc()?;
    }
    // A filter that is there by then could refuse the wait; a monitor that starts it again has nobody to look.
    let is_before_filter = spec.no_new_privileges || builder.plan.flags & wire::SECCOMP == 0;
    if !spec.require.is_empty() && is_before_filter && !is_reusable {
        builder.plan.flags |= wire::MEASURE;
    }
    if spec.require.iter().any(|name| name == "pivot_root") {
        builder.plan.flags |= wire::MUST_PIVOT;
    }
    let mut isolation = isolation(&spec, situation, &identity, maps.as_ref());
    isolation.keeps_groups |= keeps_groups && identity.groups.is_some();
    isolation.devices.extend(devices.paths());
    isolation.extra_devices = devices.report();
    (isolation.rootfs, isolation.overlay, isolation.copy_on_write) = told;
    if let (Some(layers), false) = (&layers, spec.read_only) {
        isolation.overlay = layers.upper().to_string_lossy().into_owned();
    }
    isolation.landlock = landlock;
    isolation.limits = spec.resources.as_ref().map(Resources::parts).unwrap_or_default();
    isolation.require(&spec.require)?;
    let (group, attach) = builder.groups(&spec, have_clone3, maps.as_ref())?;
    isolation.cgroup = group.iter().flat_map(|group| group.paths()).collect();
    isolation.cgroup_refused = group.as_ref().map(|group| group.why_nowhere()).unwrap_or_default();
    let group = group.filter(|group| !group.is_nowhere());
    let born_into = group.as_ref().and_then(|group| group.v2()).map(|part| part.dir.try_clone().map(Arc::new));
    let born_into = born_into.transpose().at(Step::JoinCgroup, "dup", "")?;
    let cgroup = spec.cgroup.take().or(born_into);
    let pins = std::mem::take(&mut spec.pins);
    let origin = spec.origin.take();
    let overlay = match std::mem::take(&mut spec.overlay) {
        Overlay::Dir(path) => Some(std::path::absolute(&path).at(Step::OpenSource, "getcwd", &path)?),
        _ => None,
    };
    Ok(Prepared {
        header: builder.plan,
        writer: builder.writer,
        clone_flags: builder.clone_flags,
        cgroup,
        group,
        attach,
        streams,
        descriptors: builder.descriptors,
        shared: builder.shared,
        maps,
        pins,
        isolation,
        layers: layers.and_then(Tenancy::into_lock),
        origin,
        overlay,
        spec: Some(Arc::new(exec::keep(spec, identity))),
        listening: builder.listening,
        handover: None,
        waits: false,
        names: builder.names,
        forked: !have_clone3,
        network: builder.network,
        forks_first: builder.plan.flags & wire::FORK_FIRST != 0,
        is_init: builder.plan.topology == Topology::Init,
        kept_trees: builder.kept_trees,
        settled: None,
    })
}

/// True if the library itself can make file systems, and not only a launcher in a user namespace.
pub(crate) fn may_make_file_systems() -> Result<bool> {
    Ok(Caller::now()?.admin && !probe::newer_mounts_are_hidden())
}

/// Has the network namespace made from now on, if that is nobody's but the caller's own to make: with a user namespace it
/// has to belong to that. In a user namespace a sysfs can be mounted only while the one before is still to be seen, which is before the
/// network would be there.
fn begin_network(spec: &Spec, caller: Caller, have_clone3: bool) -> Result<Option<NetworkMaker>> {
    let is_own =
        caller.admin && caller.initial_user_namespace && !spec.is_new(Kind::User) && !spec.is_joined(Kind::User);
    let is_wanted = spec.is_new(Kind::Net) && !spec.is_low_level() && spec.pins.is_empty();
    if !(is_own && is_wanted && have_clone3) {
        return Ok(None);
    }
    NetworkMaker::start().map(Some).at(Step::Clone, "clone3", "")
}

/// A terminal is that of a session of its own.
pub(super) fn on_terminal(spec: &mut Spec) {
    if spec.terminal.is_some() {
        (spec.session.setsid, spec.session.setctty, spec.session.ctty) = (true, true, 0);
    }
}

/// Without privilege a container needs a user namespace of its own.
fn choose_user_namespace(spec: &mut Spec, caller: Caller) -> Result<()> {
    if spec.owner.is_some() && !caller.admin {
        return Err(Error::unsupported("owner", "becoming another user first takes CAP_SETUID: run as root"));
    }
    if spec.is_low_level() {
        return Ok(());
    }
    let asks_for_maps = spec.id_maps != IdMaps::ByPrivilege;
    match spec.namespaces.get(&Kind::User) {
        None if !caller.admin || asks_for_maps => {
            spec.namespaces.insert(Kind::User, Source::New);
        }
        Some(Source::Host) if !caller.admin => {
            return Err(Error::unsupported(
                "a container without a user namespace",
                "an ordinary user needs one; leave namespaces[\"user\"] out, or run as root",
            ));
        }
        Some(Source::Host) if asks_for_maps => {
            return Err(Error::spec("uid_map", "needs a new user namespace, but namespaces[\"user\"] is \"host\""));
        }
        _ => {}
    }
    Ok(())
}

fn id_maps(spec: &Spec, identity: &mut Identity, caller: Caller) -> Result<Option<ReadyMaps>> {
    if !spec.is_new(Kind::User) || (spec.is_low_level() && spec.id_maps == IdMaps::ByPrivilege) {
        return Ok(None);
    }
    let target = identity.user.unwrap_or((0, 0));
    let maps = idmap::resolve(&spec.id_maps, spec.setgroups, target, caller.admin)?;
    for (map, id, what) in [(&maps.uid, target.0, "user"), (&maps.gid, target.1, "group")] {
        if identity.user.is_some() && idmap::to_host(map, id).is_none() {
            return Err(Error::spec("user", format!("{what} {id} is not in the id map of the user namespace")));
        }
    }
    if identity.groups_by_membership {
        // Nobody asked for them by name: where only some can be had, the others grant nothing.
        let has = |gid: &u32| maps.setgroups && idmap::to_host(&maps.gid, *gid).is_some();
        identity.groups.iter_mut().for_each(|groups| groups.retain(has));
    }
    if let (Some(groups), false) = (&identity.groups, maps.setgroups)
        && !groups.is_empty()
    {
        return Err(Error::spec(
            "groups",
            "cannot be set where setgroups is denied: a single id is mapped; use uid_map=\"auto\"",
        ));
    }
    Ok(Some(maps))
}

pub(super) struct Builder {
    pub(super) plan: Plan,
    pub(super) writer: PlanWriter,
    pub(super) names: Names,
    pub(super) descriptors: Vec<OwnedFd>,
    shared: Vec<Arc<OwnedFd>>,
    clone_flags: u64,
    network: Option<NetworkMaker>,
    listening: Option<Listening>,
    handover: Option<OwnedFd>,
    /// Detached trees, each of which is attached once.
    trees: Vec<RawFd>,
    /// Copies of them for further starts.
    kept_trees: Vec<(OwnedFd, RawFd)>,
    /// Programs are run on the way.
    pub(super) has_hooks: bool,
    /// The caller's own user namespace lets nobody drop groups, and nobody has asked for other ones.
    keeps_groups: bool,
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            plan: blank(),
            writer: PlanWriter::new(),
            names: Names::default(),
            descriptors: Vec::new(),
            shared: Vec::new(),
            clone_flags: 0,
            network: None,
            listening: None,
            handover: None,
            trees: Vec::new(),
            kept_trees: Vec::new(),
            has_hooks: false,
            keeps_groups: false,
        }
    }

    /// All of it for a program in a running container.
    pub(super) fn finish(self, streams: Streams, isolation: Isolation, spec: Arc<Spec>, forked: bool) -> Prepared {
        Prepared {
            header: self.plan,
            writer: self.writer,
            clone_flags: 0,
            cgroup: None,
            group: None,
            attach: None,
            streams,
            descriptors: self.descriptors,
            shared: self.shared,
            maps: None,
            pins: Vec::new(),
            isolation,
            layers: None,
            origin: None,
            overlay: None,
            spec: Some(spec),
            listening: self.listening,
            handover: self.handover,
            waits: false,
            names: self.names,
            forked,
            network: None,
            forks_first: false,
            is_init: false,
            kept_trees: Vec::new(),
            settled: None,
        }
    }

    /// Where the listener of a further program's filter comes from, if it has one.
    pub(super) fn handover(&mut self) -> Result<()> {
        if self.listening.is_none() {
            return Ok(());
        }
        let (ours, theirs) = launch::pair()?;
        sockopt::set_socket_passcred(&ours, true).at(Step::Socket, "setsockopt", "")?;
        self.plan.handover = theirs.as_raw_fd();
        self.descriptors.push(theirs);
        self.handover = Some(ours);
        Ok(())
    }

    pub(super) fn streams(&mut self, spec: &Spec, streams: &Streams) {
        self.plan.fds = self.writer.list(&streams.maps());
        self.names.fds = streams.map.keys().copied().collect();
        if let (Some(size), Some(place)) = (spec.terminal, streams.terminal_place) {
            self.plan.terminal = place;
            self.plan.terminal_size = u32::from(size.rows) | u32::from(size.cols) << 16;
        }
    }

    /// Who is cloned into what: namespaces to join come before those to make, and before the fork that makes them.
    fn topology(&mut self, spec: &Spec, situation: Situation, have_clone3: bool) -> Result<()> {
        let mut flags: u64 = Kind::ALL
            .into_iter()
            // A new time namespace takes its offsets before anybody is in it, so it is made later.
            .filter(|kind| *kind != Kind::Time && spec.is_new(*kind))
            .map(Kind::flag)
            .sum();
        let mut enter = Vec::new();
        let changed = sysctl::joined(spec);
        for kind in Kind::ALL.into_iter().filter(|kind| spec.is_joined(*kind)) {
            let fd = self.open_namespace(kind, &spec.namespaces[&kind])?;
            if changed.contains(&kind) {
                refuse_own(&self.descriptors[self.descriptors.len() - 1], kind)?;
            }
            enter.push(Enter { fd, flags: kind.flag() as u32 });
            self.names.enter.push(PathBuf::from(kind.name()));
        }
        if !enter.is_empty() {
            // There it is told which namespace the launcher is in.
            self.open_proc()?;
        }
        let init = spec.init && spec.is_new(Kind::Pid) && !spec.is_low_level();
        let fork_first = init && (!enter.is_empty() || spec.owner.is_some() || !have_clone3);
        if situation.template {
            let template = template::namespace()?;
            enter.push(Enter { fd: template.as_raw_fd(), flags: Kind::Mount.flag() as u32 });
            self.shared.push(template);
            self.names.enter.push("mnt".into());
            if init && !fork_first {
                flags &= !Kind::Mount.flag();
                enter.push(Enter { fd: -1, flags: Kind::Mount.flag() as u32 });
                self.names.enter.push("mnt".into());
            }
        }
        if spec.is_new(Kind::Net) {
            self.plan.flags |= wire::NEW_NETWORK;
        }
        if let Some(network) = &self.network {
            flags &= !Kind::Net.flag();
            self.plan.network = network.pidfd().as_raw_fd();
            self.plan.network_ready = network.ready().as_raw_fd();
        }
        if let Some((uid, gid)) = spec.owner {
            self.plan.flags |= wire::OWNER;
            (self.plan.owner_uid, self.plan.owner_gid) = (uid, gid);
        }
        if fork_first {
            self.plan.flags |= wire::FORK_FIRST;
        }
        self.plan.topology = if init { Topology::Init } else { Topology::Watcher };
        if init && !fork_first {
            self.clone_flags = flags;
        } else {
            self.plan.fork_flags = flags;
        }
        if !spec.is_new(Kind::Pid) && !spec.is_low_level() {
            self.plan.flags |= wire::KILL_DESCENDANTS;
            self.open_proc()?;
        }
        self.plan.enter = self.writer.list(&enter);
        Ok(())
    }

    /// Makes the control group. It comes last, when nothing else can be refused any more.
    fn groups(
        &mut self,
        spec: &Spec,
        have_clone3: bool,
        maps: Option<&ReadyMaps>,
    ) -> Result<(Option<Arc<Cgroup>>, Option<Attach>)> {
        let Some(resources) = &spec.resources else {
            // Without clone3 nobody is born into one.
            let fd = spec.cgroup.as_ref().filter(|_| !have_clone3);
            let entrance = fd.map(|fd| cgroup::entrance(fd.as_fd(), Path::new("cgroup_fd"))).transpose()?;
            return Ok((None, self.attach(entrance.into_iter().collect(), false)?));
        };
        let forks_first = self.plan.flags & wire::FORK_FIRST != 0;
        let mut group = Cgroup::make(crate::cgroup::Request {
            resources,
            parent: spec.cgroup_parent.as_deref(),
            helpers: 1 + u64::from(forks_first),
            dies_with_owner: spec.die_with_owner,
        })?;
        if group.is_nowhere() {
            // Told in the report, and to whoever asks for what only a group can do.
            return Ok((Some(Arc::new(group)), None));
        }
        // Who is to make groups of its own below has to own the group; the limits stay ours.
        let is_to_own = |mount: &crate::mount::Mount| mount.kind() == "cgroup2" && !mount.is_read_only();
        if let (Some(maps), true) = (maps, spec.mounts.iter().any(is_to_own))
            && let (Some(uid), Some(gid)) = (idmap::to_host(&maps.uid, 0), idmap::to_host(&maps.gid, 0))
        {
            group.give(uid, gid)?;
        }
        if let Some(counted) = group.oom_count() {
            let news = counted.news.as_ref().map(AsRawFd::as_raw_fd);
            self.plan.memory_events = counted.file.as_raw_fd();
            self.plan.memory_news = news.unwrap_or(self.plan.memory_events);
            self.shared.push(counted.file);
            self.descriptors.extend(counted.news);
        }
        // A namespace begins at the groups of whoever makes it, which at the clone are still the caller's.
        if self.clone_flags & Kind::Cgroup.flag() != 0 {
            self.clone_flags &= !Kind::Cgroup.flag();
            self.plan.flags |= wire::CGROUP_NAMESPACE;
            self.open_proc()?;
        }
        let is_mounted = |mount: &crate::mount::Mount| matches!(mount.kind(), "cgroup" | "cgroup2");
        let is_pinned = spec.pins.iter().any(|(kind, _)| *kind == Kind::Cgroup);
        // On v1 only root may move somebody whose ids have changed.
        let is_early = !rustix::process::geteuid().is_root() || is_pinned || spec.mounts.iter().any(is_mounted);
        if is_early || group.is_to_settle() || self.has_hooks {
            self.plan.flags |= wire::GROUPS_EARLY;
        }
        let attach = self.attach(group.entrances(have_clone3)?, group.is_to_settle())?;
        Ok((Some(Arc::new(group)), attach))
    }

    /// Has the launcher wait until its pid was written to these files, or somebody else has settled it.
    pub(super) fn attach(&mut self, entrances: Vec<(OwnedFd, PathBuf)>, is_to_settle: bool) -> Result<Option<Attach>> {
        if entrances.is_empty() && !is_to_settle {
            return Ok(None);
        }
        let (files, paths) = entrances.into_iter().unzip();
        self.names.groups = paths;
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (ready, done) = pipe.at(Step::Socket, "pipe2", "")?;
        self.plan.groups_ready = ready.as_raw_fd();
        self.descriptors.push(ready);
        Ok(Some(Attach { files, done, crossing: None }))
    }

    fn open_namespace(&mut self, kind: Kind, source: &Source) -> Result<RawFd> {
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            rustix::fs::open(path, flags, Mode::empty()).at(Step::OpenNamespace, "open", path)
        };
        let (fd, name) = match source {
            Source::Path(path) => (open(path)?, path.clone()),
            Source::Pid(pid) => {
                let path = PathBuf::from(format!("/proc/{pid}/ns/{}", kind.name()));
                let fd = open(&path).map_err(|error| match error.errno() {
                    Some(Errno::ENOENT) => Error::NotFound { what: "process", name: pid.to_string() },
                    _ => error,
                })?;
                (fd, path)
            }
            Source::Fd(fd) => {
                let fd = fd.as_fd().try_clone_to_owned().at(Step::OpenNamespace, "dup", kind.name())?;
                (fd, PathBuf::from(kind.name()))
            }
            Source::New | Source::Host => return Err(Error::spec("namespaces", "is not one to join")),
        };
        check_namespace(&fd, kind, &name)?;
        let number = fd.as_raw_fd();
        self.descriptors.push(fd);
        Ok(number)
    }

    pub(super) fn open_proc(&mut self) -> Result<()> {
        if self.plan.proc < 0 {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let proc = rustix::fs::open("/proc", flags, Mode::empty()).at(Step::Proc, "open", "/proc")?;
            // What is written there is meant for the kernel (CVE-2025-52881).
            if rustix::fs::fstatfs(&proc).at(Step::Proc, "fstatfs", "/proc")?.f_type != rustix::fs::PROC_SUPER_MAGIC {
                return Err(
                    Error::sys(Step::Proc, "fstatfs", "/proc", Errno::ENODEV).with_hint("no procfs is mounted there")
                );
            }
            self.plan.proc = proc.as_raw_fd();
            self.descriptors.push(proc);
        }
        Ok(())
    }

    fn files(&mut self, spec: &Spec, situation: Situation, identity: &Identity, devices: &Devices) -> Result<()> {
        let mut ops = if spec.is_low_level() {
            root_plan::low_level(spec)?
        } else {
            let user = identity.user.filter(|user| *user != (0, 0)).map(|(uid, gid)| ExtraUser { uid, gid });
            root_plan::container(spec, situation, user.as_slice(), devices)?
        };
        let has_hooks = self.names.hooks.iter().any(|(when, _)| *when == "createContainer");
        if let (true, Some(place)) = (has_hooks, ops.list.iter().position(|op| op.kind == FsKind::Pivot)) {
            ops.list.insert(place, Op::new(FsKind::Hooks, c"/"));
        }
        // A hook may mount whatever it likes.
        if !self.has_hooks {
            measured::choose(&mut ops.list);
        }
        self.plan.fs = ops.encode(&mut self.writer);
        self.names.fs = ops.list;
        self.trees = ops.trees.iter().map(AsRawFd::as_raw_fd).collect();
        self.descriptors.extend(ops.trees);
        Ok(())
    }

    /// Copies the trees for further starts, before anybody attaches them. Kernels before 6.15 copy none that is detached.
    fn keep_trees(&mut self) -> Result<()> {
        use rustix::mount::OpenTreeFlags as Flags;
        for number in std::mem::take(&mut self.trees) {
            let flags = Flags::OPEN_TREE_CLONE | Flags::OPEN_TREE_CLOEXEC | Flags::AT_EMPTY_PATH | Flags::AT_RECURSIVE;
            let Some(tree) = self.descriptors.iter().find(|fd| fd.as_raw_fd() == number) else { continue };
            match rustix::mount::open_tree(tree, c"", flags) {
                Ok(copy) => self.kept_trees.push((copy, number)),
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {
                    let needs = "every start of it takes this library on kernels before 6.15: a disk image, mapped ids of a mount, a device of its own";
                    return Err(Error::unsupported("a restart policy for such a container", needs));
                }
                Err(errno) => return Err(errno).at(Step::OpenSource, "open_tree", ""),
            }
        }
        Ok(())
    }

    fn names_of_host(&mut self, spec: &Spec) -> Result<()> {
        let hostname = match &spec.hostname {
            None if spec.is_new(Kind::Uts) && !spec.is_low_level() => Some(crate::rootfs::host::HOSTNAME),
            other => other.as_deref(),
        };
        if let Some(name) = hostname {
            self.plan.hostname = self.writer.str(&c_string("hostname", name.as_ref())?);
        }
        if let Some(name) = spec.domainname.as_ref().or_else(|| sysctl::domainname(spec)) {
            self.plan.domainname = self.writer.str(&c_string("domainname", name.as_ref())?);
        }
        if spec.is_new(Kind::Net) && !spec.is_low_level() && self.network.is_none() {
            self.plan.flags |= wire::LOOPBACK;
        }
        if spec.is_new(Kind::Time) {
            self.open_proc()?;
            self.plan.flags |= wire::TIME_OFFSETS;
            let text = spec.time_offsets.map(|offsets| offsets.text()).unwrap_or_default();
            self.plan.time_offsets = self.writer.str(&c_string("namespaces", text.as_ref())?);
        }
        Ok(())
    }

    fn sysctls(&mut self, spec: &Spec) -> Result<()> {
        if spec.sysctl.is_empty() {
            return Ok(());
        }
        self.open_proc()?;
        let mut list = Vec::new();
        for (name, value) in &spec.sysctl {
            let path = sysctl::path_of(name)?;
            if path == sysctl::DOMAINNAME {
                continue;
            }
            let path = format!("sys/{path}");
            list.push(wire::Sysctl {
                path: self.writer.str(&c_string("sysctl", path.as_ref())?),
                value: self.writer.str(&c_string("sysctl", value.as_ref())?),
            });
            self.names.sysctls.push(Path::new("/proc").join(path));
        }
        self.plan.sysctls = self.writer.list(&list);
        Ok(())
    }

    pub(super) fn program(&mut self, spec: &Spec, identity: &Identity) -> Result<()> {
        let mut argv = spec.argv.clone();
        if let Some(name) = &spec.argv0 {
            argv[0] = name.clone();
        }
        c_string("argv", &spec.argv[0])?;
        let env = environment(spec, identity);
        let programs = programs(&spec.argv[0], &env);
        let strings = |field, items: Vec<OsString>| -> Result<Vec<CString>> {
            items.into_iter().map(|item| c_string(field, &item)).collect()
        };
        self.names.programs = programs.iter().map(PathBuf::from).collect();
        let programs = strings("argv", programs)?;
        self.plan.programs = self.writer.names(programs.iter().map(CString::as_c_str));
        let argv = strings("argv", argv)?;
        self.plan.argv = self.writer.strings(argv.iter().map(CString::as_c_str));
        let join = |(name, value): (OsString, OsString)| {
            let mut line = name.into_vec();
            line.push(b'=');
            line.extend_from_slice(value.as_bytes());
            OsString::from_vec(line)
        };
        let env = strings("env", env.into_iter().map(join).collect())?;
        self.plan.envp = self.writer.strings(env.iter().map(CString::as_c_str));
        if let Some(cwd) = &spec.cwd {
            self.plan.cwd = self.writer.str(&c_path("cwd", cwd)?);
            self.names.cwd = cwd.clone();
        }
        Ok(())
    }

    /// `setgroups`: whether the user namespace of a running container allows it.
    pub(super) fn credentials(
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

    pub(super) fn process(&mut self, spec: &Spec) -> Result<()> {
        let plan = &mut self.plan;
        let session = &spec.session;
        for (is_set, flag) in [
            (session.setsid, wire::SETSID),
            (session.pgid.is_some(), wire::SETPGID),
            (session.setctty, wire::SETCTTY),
            (session.noctty, wire::NOCTTY),
            (session.foreground, wire::FOREGROUND),
            (spec.ptrace, wire::PTRACE),
            (spec.umask.is_some(), wire::UMASK),
            (spec.oom_score_adj.is_some(), wire::OOM_SCORE_ADJ),
            (spec.nice.is_some(), wire::NICE),
            (spec.scheduler.is_some(), wire::SCHEDULER),
            (spec.personality.is_some(), wire::PERSONALITY),
            (spec.pdeathsig.is_some(), wire::PDEATHSIG),
            (spec.forward_signals, wire::FORWARD_SIGNALS),
        ] {
            if is_set {
                plan.flags |= flag;
            }
        }
        plan.pgid = session.pgid.unwrap_or(0);
        plan.ctty = session.ctty;
        plan.umask = spec.umask.unwrap_or(0);
        plan.oom_score_adj = spec.oom_score_adj.unwrap_or(0);
        plan.nice = spec.nice.unwrap_or(0);
        plan.personality = spec.personality.unwrap_or(0);
        plan.pdeathsig = spec.pdeathsig.unwrap_or(0);
        if let Some(scheduler) = spec.scheduler {
            let (runtime, deadline, period) = scheduler.deadline_ns;
            plan.scheduler = SchedAttr {
                size: size_of::<SchedAttr>() as u32,
                policy: scheduler.policy,
                flags: scheduler.flags,
                // A policy says nothing of the nice value, which may not be lowered.
                nice: spec.nice.unwrap_or_else(|| rustix::process::getpriority_process(None).unwrap_or(0)),
                priority: scheduler.priority,
                runtime,
                deadline,
                period,
            };
        }
        let unlimited = |value: Option<u64>| value.unwrap_or(u64::MAX);
        let usual = usual_limits(spec);
        let limits: Vec<wire::Rlimit> = spec
            .rlimits
            .iter()
            .chain(&usual)
            .map(|limit| wire::Rlimit {
                resource: u64::from(limit.resource),
                soft: unlimited(limit.soft),
                hard: unlimited(limit.hard),
            })
            .collect();
        self.plan.rlimits = self.writer.list(&limits);
        self.names.rlimits = spec.rlimits.iter().chain(&usual).map(|limit| rlimit_name(limit.resource)).collect();
        if spec.oom_score_adj.is_some() {
            self.open_proc()?;
        }
        Ok(())
    }
}

/// What the kernel would refuse later is told now, by name.
fn check_namespace(fd: &OwnedFd, kind: Kind, name: &Path) -> Result<()> {
    // NS_GET_NSTYPE: ioctl_ns(2). A file of another file system answers ENOTTY.
    let found = crate::sys::descriptors::namespace_type(fd.as_fd()).map_err(|errno| {
        Error::sys(Step::OpenNamespace, "ioctl", name, errno)
            .with_hint("this is no namespace; give a file like /proc/<pid>/ns/net, or one a namespace was pinned to")
    })?;
    if found != kind.flag() {
        let actual = Kind::ALL.into_iter().find(|other| other.flag() == found).map_or("other", Kind::name);
        return Err(Error::spec("namespaces", format!("{} is a {actual} namespace, not a {kind} one", name.display())));
    }
    Ok(())
}

/// Parameters of a namespace that is joined are its owner's, unless it is the caller's own by another name.
fn refuse_own(fd: &OwnedFd, kind: Kind) -> Result<()> {
    let own = format!("/proc/self/ns/{}", kind.name());
    let (own, joined) = (rustix::fs::stat(&own).at(Step::OpenNamespace, "stat", &own)?, rustix::fs::fstat(fd));
    if joined.is_ok_and(|joined| (joined.st_dev, joined.st_ino) == (own.st_dev, own.st_ino)) {
        let rule = format!("the {kind} namespace that is joined is the caller's own, which would be changed");
        return Err(Error::spec("sysctl", rule));
    }
    Ok(())
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

pub(super) fn has_seccomp(spec: &Spec) -> bool {
    match spec.seccomp {
        Seccomp::Default => !spec.privileged,
        Seccomp::Profile(_) => true,
        Seccomp::None | Seccomp::Learn => false,
    }
}

pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn environment(spec: &Spec, identity: &Identity) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: &OsStr, value: &OsStr| match env.iter_mut().find(|(old, _)| old == name) {
        Some((_, old)) => *old = value.to_owned(),
        None => env.push((name.to_owned(), value.to_owned())),
    };
    if spec.clear_env {
        for name in &spec.keep_env {
            if let Some(value) = std::env::var_os(name) {
                set(name, &value);
            }
        }
    } else if spec.inherit_env {
        std::env::vars_os().for_each(|(name, value)| set(&name, &value));
    } else {
        let usual = if identity.user.is_none_or(|(uid, _)| uid == 0) { "/root" } else { "/home" };
        let home = identity.home.as_deref().unwrap_or(usual);
        for (name, value) in [("PATH", DEFAULT_PATH), ("HOME", home), ("LANG", "C.UTF-8")] {
            set(name.as_ref(), value.as_ref());
        }
        if spec.terminal.is_some() {
            set("TERM".as_ref(), "xterm".as_ref());
        }
    }
    spec.env.iter().for_each(|(name, value)| set(name, value));
    env
}

/// Where the program may be: execvp(3).
fn programs(program: &OsStr, env: &[(OsString, OsString)]) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value);
    let join = |dir: &[u8]| {
        let mut file = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
        file.push(b'/');
        file.extend_from_slice(program.as_bytes());
        OsString::from_vec(file)
    };
    path.as_bytes().split(|&byte| byte == b':').map(join).collect()
}

/// What the root is, where its changes go, and what keeps them apart from it.
fn root_report(spec: &Spec, stand_in: Option<&StandIn>) -> (String, String, &'static str) {
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

/// Limits of a container that has none of its own of that kind.
///
/// No core dumps: to the kernel 0 is not less than 1, but for a `core_pattern` with a pipe: there 0 is no limit, and a program of the
/// host's would read what the container has to say, and 1 is what turns it off. Source: core(5), `vfs_coredump()` in the kernel's
/// fs/coredump.c. And a bound for fork bombs where a user namespace of its own counts processes for each of its users: setrlimit(2),
/// RLIMIT_NPROC; `is_rlimit_overlimit()` in the kernel's kernel/ucount.c.
fn usual_limits(spec: &Spec) -> Vec<crate::spec::Rlimit> {
    const MOST_PROCESSES: u64 = 2048;
    if spec.is_low_level() || !spec.system_mounts || spec.privileged {
        return Vec::new();
    }
    let counts_processes = matches!(spec.namespaces.get(&Kind::User), Some(Source::New));
    let processes = counts_processes.then_some((libc::RLIMIT_NPROC, MOST_PROCESSES));
    let usual = [(libc::RLIMIT_CORE, 1)].into_iter().chain(processes);
    let is_its_own = |resource: u32| spec.rlimits.iter().any(|limit| limit.resource == resource);
    usual
        .filter(|(number, ..)| !is_its_own(*number))
        .map(|(number, most)| {
            // What the caller has less of cannot be raised.
            let most = Some(probe::limit(number).map_or(most, |(_, hard)| hard.min(most)));
            crate::spec::Rlimit { resource: number, soft: most, hard: most }
        })
        .collect()
}

/// What its limits are set to, by name.
pub(super) fn rlimit_values(spec: &Spec) -> BTreeMap<&'static str, RlimitReport> {
    let of = |is_usual: bool| {
        move |limit: &crate::spec::Rlimit| (rlimit_name(limit.resource), RlimitReport::of(limit, is_usual))
    };
    spec.rlimits.iter().map(of(false)).chain(usual_limits(spec).iter().map(of(true))).collect()
}

fn isolation(spec: &Spec, situation: Situation, identity: &Identity, maps: Option<&ReadyMaps>) -> Isolation {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_the_payloads_path() {
        let env = vec![("PATH".into(), "/a::/b".into())];
        assert_eq!(programs("x".as_ref(), &env), ["/a/x", "./x", "/b/x"]);
        assert_eq!(programs("./x".as_ref(), &env), ["./x"]);
    }

    #[test]
    fn the_callers_environment_stays_out_unless_asked_for() {
        let identity = Identity { user: Some((0, 0)), ..Identity::default() };
        let names =
            |spec: &Spec| -> Vec<OsString> { environment(spec, &identity).into_iter().map(|(name, _)| name).collect() };
        assert_eq!(names(&Spec::new(["x"])), ["PATH", "HOME", "LANG"]);
        let cleared = Spec { clear_env: true, env: vec![("A".into(), "1".into())], ..Spec::new(["x"]) };
        assert_eq!(names(&cleared), ["A"]);
        let kept = Spec { clear_env: true, keep_env: vec!["PATH".into()], ..Spec::new(["x"]) };
        assert_eq!(names(&kept), ["PATH"]);
    }
}
