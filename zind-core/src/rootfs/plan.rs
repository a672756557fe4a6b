//! The ordered operations that make one root.
//!
//! With privilege the container starts in a copy of the prepared [`template`](super::template), whose few mounts hold
//! all that is the same for every container; sources of the host come in as detached trees. Without, it starts in a
//! copy of the caller's mount namespace and takes them by path.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use zind_init::plan::{self, FsKind};

use super::devices::Devices;
use super::host::{self, Entry, ExtraUser, Trees};
use super::layers::{Layers, Parts};
use super::ops::{Op, Ops, attr, c_path, c_string, joined, pairs};
use super::{Overlay, Rootfs, caller, dev, fuse, mask};
use crate::device::Device;
use crate::error::{At, Error, Result, Step};
use crate::mount::Mount;
use crate::spec::{Kind, Spec};

/// What the operations may count on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// The caller may open trees of the host (`CAP_SYS_ADMIN` in its mount namespace).
    pub(crate) admin: bool,
    /// Mounts go by `mount(2)` alone.
    pub(crate) older_mounts: bool,
    pub(crate) root: RootFrom,
    /// The container starts in a copy of the template.
    pub(crate) template: bool,
    /// The container has a user namespace of its own.
    pub(crate) user_namespace: bool,
    /// And a cgroup namespace.
    pub(crate) cgroup_namespace: bool,
    /// Its `/dev` gets nodes of its own, in place of the host's bound one by one.
    pub(crate) own_nodes: bool,
    /// Group 5 (tty) exists in the container.
    pub(crate) tty_group: bool,
    /// The network namespace is made meanwhile, and has to be joined.
    pub(crate) network_apart: bool,
}

/// Where the root of a directory comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RootFrom {
    /// It is made as it was asked for.
    Request,
    /// The library fills a directory of the staging area.
    Library,
    /// The launcher mounts it, for a server of the library's; the ids are those whose it is.
    Fuse(u32, u32),
    /// A detached tree, by its descriptor.
    Tree(RawFd),
}

impl Situation {
    /// Of mounts that are none of a start's.
    fn plain(admin: bool) -> Situation {
        Situation {
            admin,
            older_mounts: false,
            root: RootFrom::Request,
            template: false,
            user_namespace: false,
            cgroup_namespace: false,
            own_nodes: false,
            tty_group: false,
            network_apart: false,
        }
    }
}

pub(super) const ROOT: &std::ffi::CStr = c"r";
const S_NODEV: u64 = attr::NODEV;

/// The operations for a container, ending with the change of the root.
pub(crate) fn container(spec: &Spec, situation: Situation, users: &[ExtraUser], devices: &Devices) -> Result<Ops> {
    let mut ops = Ops::default();
    if !situation.template {
        // Not private: a bind may ask to be a slave of what it is a copy of.
        ops.push(Op { propagation: libc::MS_SLAVE as u32, ..Op::new(FsKind::Setattr, c"/").flags(plan::RECURSIVE) });
    }
    ops.push(stage(spec, situation));
    ops.push(Op::mkdir(ROOT, 0o755));
    match &spec.rootfs {
        Rootfs::Host => host_root(&mut ops, spec, situation, users)?,
        Rootfs::Path(path) => path_root(&mut ops, spec, situation, path)?,
        Rootfs::Lowers(lowers) => lowers_root(&mut ops, spec, situation, lowers)?,
        Rootfs::Layers(layers) => layers_root(&mut ops, spec, situation, layers)?,
        Rootfs::Unchanged => return Err(Error::spec("rootfs", "the caller's own root is for the low level")),
        Rootfs::Image(image) => return Err(Error::State(format!("the image {} was not settled", image.id()))),
    }
    for dir in spec.make_dirs.iter().filter(|_| !spec.read_only) {
        ops.push(Op::new(FsKind::Place, &c_path("cwd", dir)?).in_root().flags(plan::CREATE));
    }
    if spec.system_mounts {
        system_mounts(&mut ops, spec, situation);
    }
    for (index, mount) in spec.mounts.iter().enumerate().filter(|(_, mount)| !comes_late(mount, situation)) {
        caller::mount(&mut ops, mount, index, situation)?;
    }
    devices.operations(&mut ops, situation)?;
    if spec.terminal.is_some() && spec.has_own_terminals() {
        let flags = plan::IN_ROOT | plan::CREATE | plan::NO_SYMLINKS | plan::TARGET_FILE;
        let console = Op::new(FsKind::Terminal, c"/dev/console").flags(flags).attr(attr::NOSUID | attr::NOEXEC);
        ops.push(Op { propagation: libc::MS_PRIVATE as u32, ..console });
    }
    if spec.system_mounts && own_dev(spec) {
        ops.push(Op::new(FsKind::Setattr, c"/dev").attr(attr::RDONLY).in_root().flags(plan::NO_SYMLINKS));
    }
    if spec.system_mounts && !spec.privileged {
        let is_untouched = !spec.mounts.iter().any(|mount| mount.target().starts_with("/proc"));
        if situation.template && is_untouched {
            ops.extend(mask::quick_operations());
        } else if situation.template {
            ops.extend(mask::operations("/"));
        } else {
            ops.extend(mask::sources(""));
            ops.extend(mask::operations(""));
        }
        if has_sysfs(spec, situation) && !situation.network_apart {
            ops.extend(mask::sysfs_operations());
        }
    }
    // Everything that was missing has been made by now.
    if spec.sealed || (spec.read_only && spec.rootfs == Rootfs::Host) {
        ops.push(Op::new(FsKind::Setattr, c"/").attr(attr::RDONLY).in_root());
    }
    ops.push(Op::new(FsKind::Pivot, c"/"));
    network_mounts(&mut ops, spec, situation)?;
    Ok(ops)
}

/// What needs the network namespace, which is the last thing to be ready.
fn network_mounts(ops: &mut Ops, spec: &Spec, situation: Situation) -> Result<()> {
    if !situation.network_apart {
        return Ok(());
    }
    ops.push(Op::new(FsKind::JoinNetwork, c"/"));
    let late: Vec<_> = spec.mounts.iter().enumerate().filter(|(_, mount)| comes_late(mount, situation)).collect();
    if !spec.system_mounts && late.is_empty() {
        return Ok(());
    }
    ops.push(Op::new(FsKind::RootIsHere, c"/"));
    if spec.system_mounts && !is_replaced(spec, "sysfs", "/sys") {
        sysfs(ops);
    }
    for (index, mount) in late {
        if caller::needs_staging(mount) {
            return Err(Error::spec("mounts", format!("[{index}] a {} cannot be in /sys", mount.kind())));
        }
        caller::mount(ops, mount, index, situation)?;
    }
    if spec.system_mounts && !spec.privileged {
        ops.extend(mask::sysfs_operations());
    }
    Ok(())
}

/// A mount in `/sys`, or a sysfs anywhere: it comes with the network.
fn comes_late(mount: &Mount, situation: Situation) -> bool {
    situation.network_apart && (mount.target().starts_with("/sys") || mount.kind() == "sysfs")
}

/// The container's `/dev` is put together for it, because something of the caller's comes into it.
fn own_dev(spec: &Spec) -> bool {
    let is_inside = |target: &Path| target.starts_with("/dev") && target != Path::new("/dev");
    let has_place =
        |target: &Path| ["/dev/pts", "/dev/shm", "/dev/mqueue"].iter().any(|place| target.starts_with(place));
    let mut targets = spec.mounts.iter().map(Mount::target).chain(spec.devices.iter().map(Device::target));
    let whole = spec.devices.iter().any(|device| device.target() == Path::new("/dev"));
    spec.console.is_some()
        || spec.terminal.is_some()
        || whole
        || targets.any(|target| is_inside(target) && !has_place(target))
}

/// The caller mounts the same kind of file system at this place.
fn is_replaced(spec: &Spec, kind: &str, target: &str) -> bool {
    spec.mounts.iter().any(|mount| mount.kind() == kind && mount.target() == Path::new(target))
}

/// A read-only sysfs.
fn sysfs(ops: &mut Ops) {
    let strict = attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::RDONLY;
    ops.push(Op::mount(c"sysfs", c"/sys", &[], strict).in_root().flags(plan::NO_SYMLINKS));
}

/// The operations for a process of the low level.
pub(crate) fn low_level(spec: &Spec) -> Result<Ops> {
    let mut ops = Ops::default();
    if spec.propagation != 0 {
        let propagation = (spec.propagation | libc::MS_REC) as u32;
        ops.push(Op { propagation, ..Op::new(FsKind::Setattr, c"/").flags(plan::RECURSIVE) });
    }
    if spec.binfmt.is_some() || !spec.mounts.is_empty() || spec.mount_proc.is_some() {
        ops.push(Op::new(FsKind::RootIsHere, c"/"));
    }
    let situation = Situation::plain(false);
    for (index, mount) in spec.mounts.iter().enumerate() {
        if caller::is_for_starts(mount) {
            return Err(Error::spec("mounts", format!("[{index}] a {} is for containers", mount.kind())));
        }
        caller::mount(&mut ops, mount, index, situation)?;
    }
    for path in &spec.directories {
        ops.push(Op::mkdir(&c_path("rootfs", path)?, 0o755));
    }
    if let Some(binfmt) = &spec.binfmt {
        let target = c_path("binfmt", &binfmt.path)?;
        ops.push(Op::mount(c"binfmt_misc", &target, &[], 0));
        if let Some(line) = &binfmt.interpreter {
            let register = c_path("binfmt", &binfmt.path.join("register"))?;
            let line = c_string("binfmt", line)?.into_bytes();
            ops.push(Op { data: line, ..Op::new(FsKind::Write, &register) });
        }
    }
    if let Some(root) = &spec.chroot {
        ops.push(Op::new(FsKind::Chroot, &c_path("chroot", root)?));
    }
    if let Some(path) = &spec.mount_proc {
        let flags = attr::NOSUID | attr::NODEV | attr::NOEXEC;
        ops.push(Op::mount(c"proc", &c_path("mount_proc", path)?, &[], flags));
    }
    Ok(ops)
}

/// The operations that mount something in a running container.
pub(crate) fn hot_mount(mount: &Mount, admin: bool) -> Result<Ops> {
    if caller::is_for_starts(mount) {
        return Err(Error::spec("mounts", format!("a {} is put together before the start only", mount.kind())));
    }
    let situation = Situation::plain(admin);
    let mut ops = Ops::default();
    ops.push(Op::new(FsKind::RootIsHere, c"/"));
    caller::mount(&mut ops, mount, 0, situation)?;
    ops.list.iter_mut().for_each(|op| op.mount = None);
    if !admin && mount.kind() == "bind" {
        take_along(&mut ops)?;
    }
    Ok(ops)
}

/// Lets the trees of binds be taken in a copy of the caller's mount namespace, before the container's is joined.
///
/// The launcher has all capabilities then over files whose owner and group the container's user namespace knows. So it is
/// the caller who looks here what it can reach; the launcher takes that very file or none.
fn take_along(ops: &mut Ops) -> Result<()> {
    let mut before = Vec::new();
    for bind in ops.list.iter_mut().filter(|op| op.kind == FsKind::Bind) {
        let path = Path::new(OsStr::from_bytes(bind.source.as_deref().unwrap_or_default().to_bytes()));
        let nofollow = bind.flags & plan::SOURCE_NOFOLLOW;
        let open = OFlags::PATH | OFlags::CLOEXEC | if nofollow != 0 { OFlags::NOFOLLOW } else { OFlags::empty() };
        let place = rustix::fs::open(path, open, Mode::empty());
        let place = place.at(Step::OpenSource, "open", path)?;
        let meta = rustix::fs::fstat(&place).at(Step::OpenSource, "fstat", path)?;
        let flags = plan::SAME_FILE | bind.flags & plan::RECURSIVE | nofollow;
        let (device, inode, source) = (meta.st_dev, meta.st_ino, bind.source.clone());
        before.push(Op { device, inode, source, flags, ..Op::new(FsKind::Take, &bind.path) });
        bind.flags |= plan::TAKEN;
    }
    before.push(Op::new(FsKind::JoinMounts, c"/"));
    ops.list.splice(0..0, before);
    Ok(())
}

/// The operations that take a mount away from a running container.
pub(crate) fn hot_umount(target: &Path) -> Result<Ops> {
    let plain = target.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !target.is_absolute() || !plain || target == Path::new("/") {
        return Err(Error::spec("target", format!("{} is no absolute path without \"..\"", target.display())));
    }
    let mut ops = Ops::default();
    ops.push(Op::new(FsKind::RootIsHere, c"/"));
    let target: PathBuf = target.components().collect();
    ops.push(Op::new(FsKind::Detach, &c_path("target", &target)?).in_root());
    Ok(ops)
}

/// The staging area has a place of its own in the template. Elsewhere it goes over `/`, since any other directory of the
/// host could hold a source of the caller's.
fn stage(spec: &Spec, situation: Situation) -> Op {
    let size = spec.tmpfs_size.map(|size| size.to_string());
    let options: Vec<(&str, &str)> =
        [("mode", "0755")].into_iter().chain(size.iter().map(|size| ("size", size.as_str()))).collect();
    let place = if situation.template { c"/stage" } else { c"/" };
    Op { data: pairs(&options), text: joined(&options), ..Op::new(FsKind::Stage, place) }
}

/// Overlay options; paths are relative to the staging area or absolute in the mount namespace the container starts in.
fn overlay(lower: &str, upper: &str, work: &str, target: &std::ffi::CStr, situation: Situation) -> Op {
    let mut options = vec![("lowerdir", lower), ("upperdir", upper), ("workdir", work)];
    if situation.user_namespace {
        options.push(("userxattr", ""));
    }
    Op::mount(c"overlay", target, &options, S_NODEV)
}

fn host_root(ops: &mut Ops, spec: &Spec, situation: Situation, users: &[ExtraUser]) -> Result<()> {
    let mut own = Vec::new();
    if spec.hostname.is_some() || !users.is_empty() {
        own = host::generated(spec.hostname.as_deref().unwrap_or(""), users);
    }
    if !spec.is_new(Kind::Net) {
        own.retain(|entry| !matches!(entry, Entry::File(path, ..) if path.ends_with("resolv.conf")));
        own.extend(host::resolv_conf().map(|text| Entry::File("etc/resolv.conf".into(), 0o644, text)));
    }
    if situation.template {
        ops.extend([Op::mkdir(c"u", 0o755), Op::mkdir(c"w", 0o755)]);
        if !own.is_empty() {
            ops.push(Op::mkdir(c"u/etc", 0o755));
            ops.extend(host::operations(own, "u"));
        }
        ops.push(overlay("/skel", "u", "w", ROOT, situation));
        ops.push(Op::new(FsKind::Root, ROOT));
    } else {
        let mut entries = host::skeleton(Trees::Bound);
        replace_files(&mut entries, own);
        let binds: Vec<Op> = entries.iter().filter_map(bind_of).collect();
        ops.push(Op::bind(ROOT, ROOT).attr(S_NODEV));
        ops.extend(host::operations(entries, "r"));
        ops.push(Op::new(FsKind::Root, ROOT));
        ops.extend(binds);
    }
    for name in host::system_directories() {
        let c = |text: String| CString::new(text).unwrap_or_default();
        let source = if situation.template { format!("/host/{name}") } else { format!("/{name}") };
        if spec.read_only || (!situation.template && host::has_mounts_below(name)) {
            let target = c(format!("/{name}"));
            let flags = plan::NO_SYMLINKS | if situation.template { 0 } else { plan::RECURSIVE };
            ops.push(Op::bind(&c(source), &target).attr(attr::RDONLY | S_NODEV).in_root().flags(flags));
            continue;
        }
        ops.extend([Op::mkdir(&c(format!("u-{name}")), 0o755), Op::mkdir(&c(format!("w-{name}")), 0o755)]);
        // By its name in the staging area: the skeleton is zind's own, and the layers are named from there too.
        let target = c(format!("r/{name}"));
        ops.push(overlay(&source, &format!("u-{name}"), &format!("w-{name}"), &target, situation));
    }
    if spec.read_only {
        for (path, mode) in [(c"/tmp", "1777"), (c"/run", "0755"), (c"/var/tmp", "1777")] {
            ops.push(Op::mount(c"tmpfs", path, &[("mode", mode)], attr::NOSUID | attr::NODEV).in_root());
        }
    }
    Ok(())
}

fn replace_files(entries: &mut Vec<Entry>, own: Vec<Entry>) {
    for entry in own {
        let Entry::File(path, ..) = &entry else { continue };
        entries.retain(|old| !matches!(old, Entry::File(old, ..) if old == path));
        entries.push(entry);
    }
}

fn bind_of(entry: &Entry) -> Option<Op> {
    let Entry::Bind(path) = entry else { return None };
    let absolute = c_path("rootfs", &Path::new("/").join(path)).ok()?;
    let flags = attr::RDONLY | attr::NOSUID | attr::NODEV;
    Some(Op::bind(&absolute, &absolute).attr(flags).in_root().flags(plan::CREATE | plan::OPTIONAL | plan::NO_SYMLINKS))
}

fn path_root(ops: &mut Ops, spec: &Spec, situation: Situation, path: &Path) -> Result<()> {
    let rootfs = std::path::absolute(path).at(Step::OpenSource, "getcwd", path)?;
    let meta = std::fs::metadata(&rootfs).at(Step::OpenSource, "stat", &rootfs)?;
    if !meta.is_dir() {
        return Err(Error::sys(Step::OpenSource, "open", rootfs, nix::errno::Errno::ENOTDIR)
            .with_hint("rootfs must be a directory that holds a root file system"));
    }
    match situation.root {
        RootFrom::Request => {}
        RootFrom::Library => {
            ops.push(Op::new(FsKind::HandOver, ROOT));
            ops.extend([Op::bind(ROOT, ROOT).attr(S_NODEV), Op::new(FsKind::Root, ROOT)]);
            return Ok(());
        }
        RootFrom::Fuse(uid, gid) => {
            let text = c_string("rootfs", fuse::options(uid, gid).as_ref())?;
            let source = Some(c"fuse-overlayfs".to_owned());
            ops.push(Op { text: Some(text), source, ..Op::new(FsKind::Fuse, ROOT) }.attr(S_NODEV));
            ops.push(Op::new(FsKind::Root, ROOT));
            return Ok(());
        }
        RootFrom::Tree(fd) => {
            ops.push(Op { fd, ..Op::bind(c"", ROOT) }.attr(S_NODEV));
            ops.push(Op::new(FsKind::Root, ROOT));
            return Ok(());
        }
    }
    let direct = spec.read_only || spec.overlay == Overlay::None;
    let base = if direct { ROOT } else { c"l" };
    if !direct {
        ops.push(Op::mkdir(base, 0o755));
    }
    let source = c_path("rootfs", &rootfs)?;
    let flags = if direct { plan::RECURSIVE } else { 0 };
    let attributes = S_NODEV | if spec.read_only { attr::RDONLY } else { 0 };
    if situation.admin {
        let tree = open_tree(&rootfs, direct)?;
        ops.push_tree(tree, |tree| Op::bind_tree(tree, base).attr(attributes).flags(flags));
    } else {
        ops.push(Op::bind(&source, base).attr(attributes).flags(flags));
    }
    if !direct {
        let (upper, work) = places_for_changes(ops, spec, situation)?;
        ops.push(overlay("l", upper, work, ROOT, situation));
    }
    ops.push(Op::new(FsKind::Root, ROOT));
    Ok(())
}

/// The names of an overlay's upper and work directory in the staging area.
fn places_for_changes(ops: &mut Ops, spec: &Spec, situation: Situation) -> Result<(&'static str, &'static str)> {
    let Overlay::Dir(dir) = &spec.overlay else {
        ops.extend([Op::mkdir(c"u", 0o755), Op::mkdir(c"w", 0o755)]);
        return Ok(("u", "w"));
    };
    let dir = std::path::absolute(dir).at(Step::OpenSource, "getcwd", dir)?;
    for name in ["upper", "work"] {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).at(Step::Mkdir, "mkdir", &path)?;
    }
    ops.push(Op::mkdir(c"o", 0o755));
    if situation.admin {
        ops.push_tree(open_tree(&dir, false)?, |tree| Op::bind_tree(tree, c"o"));
    } else {
        ops.push(Op::bind(&c_path("overlay", &dir)?, c"o"));
    }
    Ok(("o/upper", "o/work"))
}

/// Several directories, by short names too.
fn lowers_root(ops: &mut Ops, spec: &Spec, situation: Situation, lowers: &[PathBuf]) -> Result<()> {
    let mut binds = Vec::new();
    for (index, path) in lowers.iter().enumerate() {
        binds.push((std::path::absolute(path).at(Step::OpenSource, "getcwd", path)?, format!("b{index}")));
    }
    place_directories(ops, situation, &binds)?;
    let mut lower: Vec<String> = binds.into_iter().map(|(_, name)| name).collect();
    let mut work = "";
    if !spec.read_only {
        let (upper, place) = places_for_changes(ops, spec, situation)?;
        lower.insert(0, upper.to_owned());
        work = place;
    }
    let parts = Parts { binds: Vec::new(), lower, work: work.to_owned(), volatile: false };
    layered(ops, spec, situation, &parts);
    Ok(())
}

/// The layers lie in their places of the staging area by short names, so that any number of them can be told.
fn layers_root(ops: &mut Ops, spec: &Spec, situation: Situation, layers: &Layers) -> Result<()> {
    let parts = layers.parts()?;
    place_directories(ops, situation, &parts.binds)?;
    layered(ops, spec, situation, &parts);
    Ok(())
}

fn place_directories(ops: &mut Ops, situation: Situation, binds: &[(PathBuf, String)]) -> Result<()> {
    for (source, name) in binds {
        let place = c_string("rootfs", name.as_ref())?;
        ops.push(Op::mkdir(&place, 0o755));
        if situation.admin {
            ops.push_tree(open_tree(source, false)?, |tree| Op::bind_tree(tree, &place));
        } else {
            ops.push(Op::bind(&c_path("rootfs", source)?, &place));
        }
    }
    Ok(())
}

fn layered(ops: &mut Ops, spec: &Spec, situation: Situation, parts: &Parts) {
    let options = parts.options(spec.read_only, situation.user_namespace);
    let pairs: Vec<(&str, &str)> = options.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let attributes = S_NODEV | if spec.read_only { attr::RDONLY } else { 0 };
    ops.push(Op { text: parts.text(&options), ..Op::mount(c"overlay", ROOT, &pairs, attributes) });
    ops.push(Op::new(FsKind::Root, ROOT));
}

/// A detached copy of a tree of the host.
pub(super) fn open_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(rustix::fs::CWD, path, flags).at(Step::OpenSource, "open_tree", path)
}

/// A sysfs shows the network namespace of whoever mounts it, and only its owner may.
pub(crate) fn has_sysfs(spec: &Spec, situation: Situation) -> bool {
    spec.is_new(Kind::Net) || !situation.user_namespace
}

fn system_mounts(ops: &mut Ops, spec: &Spec, situation: Situation) {
    let place = plan::CREATE | plan::NO_SYMLINKS;
    let strict = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    if situation.user_namespace && !spec.is_new(Kind::Pid) && !spec.is_joined(Kind::Pid) {
        // Only the owner of a pid namespace may mount a procfs of it; the host's shows the same processes.
        ops.push(Op::bind(c"/proc", c"/proc").attr(strict).in_root().flags(place | plan::RECURSIVE));
    } else if !is_replaced(spec, "proc", "/proc") {
        ops.push(Op::mount(c"proc", c"/proc", &[], strict).in_root().flags(place));
    }
    if has_sysfs(spec, situation) {
        // Its place must be there, and be no link, while the root can still be written to.
        ops.push(Op::new(FsKind::Place, c"/sys").in_root().flags(place));
        if !situation.network_apart && !is_replaced(spec, "sysfs", "/sys") {
            // In a user namespace the kernel allows it only while the host's is still in sight.
            sysfs(ops);
        }
    }
    if situation.template && !own_dev(spec) {
        ops.push(Op::bind(c"/dev", c"/dev").in_root().flags(place));
    } else if situation.own_nodes {
        ops.extend(dev::with_nodes("d", own_dev(spec)));
        ops.push(Op::bind(c"d", c"/dev").in_root().flags(place));
    } else {
        ops.extend(dev::with_binds(own_dev(spec)));
    }
    let mut devpts = vec![("ptmxmode", "0666"), ("mode", "0620")];
    if situation.tty_group {
        devpts.push(("gid", "5"));
    }
    if !is_replaced(spec, "devpts", "/dev/pts") {
        ops.push(Op::mount(c"devpts", c"/dev/pts", &devpts, attr::NOSUID | attr::NOEXEC).in_root());
    }
    if !is_replaced(spec, "tmpfs", "/dev/shm") {
        ops.push(Op::mount(c"tmpfs", c"/dev/shm", &[("mode", "1777"), ("size", "64m")], strict).in_root());
    }
    if spec.is_new(Kind::Ipc) && !is_replaced(spec, "mqueue", "/dev/mqueue") {
        ops.push(Op::mount(c"mqueue", c"/dev/mqueue", &[], strict).in_root());
    }
}

/// The operations that make the template: see [`super::template`].
pub(crate) fn template_operations() -> Ops {
    let mut ops = Ops::default();
    ops.push(Op { propagation: libc::MS_PRIVATE as u32, ..Op::new(FsKind::Setattr, c"/").flags(plan::RECURSIVE) });
    ops.push(Op { data: b"mode\x000755\0".to_vec(), ..Op::new(FsKind::Stage, c"/") });
    ops.extend([Op::mkdir(c"stage", 0o755), Op::mkdir(c"skel", 0o755)]);
    ops.extend(host::operations(host::skeleton(Trees::Copied), "skel"));
    ops.push(Op::mkdir(c"host", 0o755));
    for name in host::system_directories() {
        let c = |text: String| CString::new(text).unwrap_or_default();
        let target = c(format!("host/{name}"));
        ops.extend([Op::mkdir(&target, 0o755), Op::bind(&c(format!("/{name}")), &target)]);
    }
    ops.extend(dev::with_nodes("dev", false));
    ops.extend(mask::sources(""));
    ops.extend([Op::new(FsKind::Root, c"."), Op::new(FsKind::Pivot, c"/")]);
    ops
}
