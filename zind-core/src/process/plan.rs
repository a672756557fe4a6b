//! From a [`Spec`] to a [`Plan`]: every decision is made here, so that the launcher has none to make.
#![forbid(unsafe_code)]

mod credentials;
mod groups;
mod isolation;
mod namespaces;
mod program;
mod without_program;

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt;
use zind_init::plan::{self as wire, FsKind, List, MAGIC, Plan, SchedAttr, Str, Topology, VERSION};

use super::filter::Listening;
use super::identity::{self, Caller, Identity};
use super::planfile::PlanWriter;
use super::settled::Settled;
use super::stdio::Streams;
use super::{exec, hooks, launch, measured};
use crate::cgroup::{self, Cgroup, Resources};
use crate::error::{At, Error, Result, Step};
use crate::image::apply::Origin;
use crate::isolation::Isolation;
use crate::namespace::idmap::{self, ReadyMaps};
use crate::rootfs::devices::{self, Devices};
use crate::rootfs::host::ExtraUser;
use crate::rootfs::layers::{self, Lock, Tenancy};
use crate::rootfs::ops::Op;
use crate::rootfs::plan::{self as root_plan, RootFrom, Situation};
use crate::rootfs::stand_in::StandIn;
use crate::rootfs::{caller, mount_label, template};
use crate::spec::sysctl;
use crate::spec::{Hook, Kind, Overlay, Rootfs, Seccomp, Spec};
use crate::sys::clone::NetworkMaker;
use crate::sys::descriptors::pidfd_open;
use crate::sys::probe;

pub(super) use credentials::has_seccomp;
pub(crate) use credentials::payload_capabilities;
use isolation::{isolation, root_report};
use namespaces::{begin_network, choose_user_namespace, id_maps};
pub(crate) use program::DEFAULT_PATH;
pub(super) use program::{on_terminal, rlimit_values};
pub(super) use without_program::monitor_plan;
pub(crate) use without_program::{
    Inside, prepare_deputy, prepare_inside, prepare_look, prepare_mount_namespace, prepare_user_namespace,
};

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
    /// `clone3(2)` is hidden, and the launcher is cloned by `clone(2)` all the same. An ordinary user's: the memory of one that was
    /// executed outside of the new user namespace belongs to the caller's, so that only root could look at PID 1, which is forked
    /// from it, and join its namespaces.
    pub(crate) is_by_older_clone: bool,
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
    /// The call that makes the launcher's process.
    pub(super) fn clone_call(&self) -> &'static str {
        if self.is_by_older_clone { "clone" } else { "clone3" }
    }

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
        // What all containers share has no label of one of them.
        template: may_have_template && template::is_worth_it() && spec.mount_label.is_none(),
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
    let is_by_older_clone = !have_clone3
        && !caller.admin
        && new_user
        && spec.init
        && spec.is_new(Kind::Pid)
        && !spec.is_low_level()
        // Its namespace of control groups would begin where the launcher was born.
        && spec.cgroup.is_none();
    builder.topology(&spec, situation, have_clone3 || is_by_older_clone)?;
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
    // Without clone3 somebody moves it there.
    let cgroup = spec.cgroup.take().or(born_into).filter(|_| have_clone3);
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
        forked: !have_clone3 && !is_by_older_clone,
        is_by_older_clone,
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
            is_by_older_clone: false,
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
        if let Some(label) = &spec.mount_label {
            mount_label::put(&mut ops.list, label, situation.user_namespace)?;
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
}
