//! The caller's mounts as operations.
//!
//! What a mount is made of is put together in the staging area under short names of zind's own, and bound to its target
//! as the last step: so no path of the caller's is ever part of a text that the kernel takes apart (an overlay's colons and
//! commas), and a target is only ever used by descriptor.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use zind_init::plan::{self, FsKind};

use super::ops::{Op, Ops, attr, c_path, c_string, joined, pairs};
use super::plan::{Situation, open_tree};
use crate::cgroup::Layout;
use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::mount::{Mount, MountIds, What};
use crate::process::launch;
use crate::sys::mounts::{LoopDevice, set_idmap};

/// The operations of one mount, with `index` among the caller's.
pub(crate) fn mount(ops: &mut Ops, mount: &Mount, index: usize, situation: Situation) -> Result<()> {
    let first = ops.list.len();
    let made = match &mount.what {
        _ if mount.options.remount => remount(ops, mount),
        What::Bind { source, recursive } => bind(ops, mount, source, *recursive, situation),
        What::FileSystem { source: Some(source), .. } if situation.admin => from_source(ops, mount, source),
        What::FileSystem { .. } if mount.options.copy_up => copy_up(ops, mount, index, situation),
        What::FileSystem { kind, .. } if kind == "cgroup" && mount.options.data.is_empty() => {
            groups(ops, mount, situation)
        }
        What::FileSystem { kind, .. } if kind == "cgroup2" && is_the_hosts(mount, situation) => {
            hosts_groups(ops, mount, situation)
        }
        What::FileSystem { kind, source } => file_system(ops, mount, kind, source.as_deref(), situation),
        What::Overlay { lower, upper } => overlay(ops, mount, index, lower, upper.as_ref(), situation),
        What::File { content, mode } => file(ops, mount, index, content, *mode),
        What::Volume(volume) => match &volume.data {
            Some(data) => bind(ops, mount, data, false, situation),
            None => Err(Error::State(format!("the volume {} was not found by the start", volume.name))),
        },
    };
    made.map_err(|error| name_the_mount(error, index))?;
    for op in ops.list.iter_mut().skip(first) {
        op.mount = Some(index);
    }
    Ok(())
}

/// True if a mount is put together in the staging area.
pub(crate) fn needs_staging(mount: &Mount) -> bool {
    mount.options.copy_up || matches!(mount.what, What::Overlay { .. } | What::File { .. })
}

/// True if a mount is only there at the start of a container.
pub(crate) fn is_for_starts(mount: &Mount) -> bool {
    needs_staging(mount) || matches!(mount.what, What::Volume(_))
}

/// True if the kernel writes what is mounted to a disk: its end is then part of the container's.
pub(crate) fn is_on_disk(mount: &Mount) -> bool {
    matches!(mount.what, What::FileSystem { source: Some(_), .. } | What::Overlay { upper: Some(_), .. })
}

fn name_the_mount(error: Error, index: usize) -> Error {
    let hint = error.hint().unwrap_or_default().to_owned();
    error.with_hint(format!("it is mounts[{index}]; {hint}"))
}

/// The attributes that the options and the defaults ask for.
fn attributes(mount: &Mount, op: Op) -> Op {
    let options = &mount.options;
    Op {
        attr_set: op.attr_set | options.all.set | mount.protected() & !options.top.clear,
        attr_clear: options.all.clear,
        top_set: options.top.set,
        top_clear: options.top.clear,
        propagation: options.propagation as u32,
        ..op
    }
}

/// The last step: what is at `source` of the staging area comes to its target.
fn place(mount: &Mount, op: Op) -> Op {
    let create = if mount.create { plan::CREATE } else { 0 };
    let nofollow = if mount.options.target_nofollow { plan::TARGET_NOFOLLOW } else { 0 };
    op.in_root().flags(create | nofollow)
}

fn target(mount: &Mount) -> Result<CString> {
    c_path("mounts", &mount.target)
}

fn remount(ops: &mut Ops, mount: &Mount) -> Result<()> {
    ops.push(attributes(mount, Op::new(FsKind::Setattr, &target(mount)?)).in_root());
    Ok(())
}

fn bind(ops: &mut Ops, mount: &Mount, source: &Path, recursive: bool, situation: Situation) -> Result<()> {
    let flags = if recursive { plan::RECURSIVE } else { 0 };
    let source = std::path::absolute(source).at(Step::OpenSource, "getcwd", source)?;
    let is_link = || std::fs::symlink_metadata(&source).is_ok_and(|meta| meta.is_symlink());
    if mount.options.copy_symlink && is_link() {
        return link_like(ops, mount, &source);
    }
    let nofollow = mount.options.source_nofollow && is_link();
    if nofollow && situation.older_mounts {
        return Err(Error::sys(Step::OpenSource, "mount", source, nix::errno::Errno::ELOOP)
            .with_hint("mount(2) always follows the source; the newer interface, which does not, is hidden here"));
    }
    let flags = flags | if nofollow { plan::SOURCE_NOFOLLOW } else { 0 };
    let op = Op::bind(&c_path("mounts", &source)?, &target(mount)?);
    let op = place(mount, attributes(mount, op)).flags(flags);
    if !situation.admin {
        if mount.idmap.is_some() {
            let needs = if situation.older_mounts {
                "mount_setattr(2), which a filter around this process hides"
            } else {
                "CAP_SYS_ADMIN in the user namespace of the source's file system: run as root"
            };
            return Err(Error::unsupported("an idmapped bind", needs));
        }
        ops.push(op);
        return Ok(());
    }
    let tree = if nofollow { open_link(&source)? } else { open_tree(&source, recursive)? };
    if let Some(ids) = &mount.idmap {
        map_ids(&tree, ids, recursive && mount.options.idmap != Some(false), &source)?;
    }
    ops.push_tree(tree, |tree| Op { fd: tree.as_raw_fd(), ..op });
    Ok(())
}

/// A symbolic link like `source` instead of a mount.
fn link_like(ops: &mut Ops, mount: &Mount, source: &Path) -> Result<()> {
    let text = std::fs::read_link(source).at(Step::OpenSource, "readlink", source)?;
    if let Some(parent) = mount.target.parent() {
        ops.push(place(mount, Op::new(FsKind::Place, &c_path("mounts", parent)?)));
    }
    ops.push(Op::symlink(&c_path("mounts", &text)?, &target(mount)?).in_root());
    Ok(())
}

/// A detached mount of a symbolic link itself.
fn open_link(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(rustix::fs::CWD, path, flags).at(Step::OpenSource, "open_tree", path)
}

fn map_ids(tree: &OwnedFd, ids: &MountIds, recursive: bool, source: &Path) -> Result<()> {
    let namespace = launch::make_user_namespace(&ids.uid, &ids.gid)?;
    set_idmap(tree.as_fd(), namespace.as_fd(), recursive).at(Step::MountSetattr, "mount_setattr", source).map_err(
        |error| match error.errno() {
            Some(nix::errno::Errno::EINVAL) => {
                error.with_hint("its file system cannot map ids, or something below it is mapped already")
            }
            _ => error,
        },
    )
}

fn file_system(ops: &mut Ops, mount: &Mount, kind: &str, source: Option<&Path>, situation: Situation) -> Result<()> {
    let target = target(mount)?;
    let op = new_file_system(mount, kind, &target)?;
    let looped = source.filter(|source| situation.older_mounts && source.is_file());
    let looped = looped.map(|source| loop_device(mount, source)).transpose()?.flatten();
    let source = looped.as_ref().map(|device| device.path.as_path()).or(source);
    let source2 = source.map(|source| c_path("mounts", source)).transpose()?;
    ops.trees.extend(looped.map(LoopDevice::into_fd));
    ops.push(place(mount, Op { source2, ..op }));
    if mount.options.propagation != 0 {
        let propagation = mount.options.propagation as u32;
        ops.push(Op { propagation, ..Op::new(FsKind::Setattr, &target) }.in_root());
    }
    Ok(())
}

/// True if version 2 is to be looked at in the host's control group namespace, by who may mount it there.
fn is_the_hosts(mount: &Mount, situation: Situation) -> bool {
    let options = &mount.options;
    let plain = options.data.is_empty() && options.super_names().next().is_none();
    plain && wants_read_only(mount) && !situation.user_namespace && !situation.cgroup_namespace
}

/// The host's own mount of version 2. The options of a new one there would be the whole machine's: what systemd keeps groups of users
/// apart by (nsdelegate) would be gone.
fn hosts_groups(ops: &mut Ops, mount: &Mount, situation: Situation) -> Result<()> {
    let Some(hierarchy) = Layout::read()?.v2 else { return file_system(ops, mount, "cgroup2", None, situation) };
    let bound = Mount::bind(&hierarchy.mount, &mount.target).read_only(true).create(mount.create);
    bind(ops, &bound.with_options(["nosuid", "nodev", "noexec"])?, &hierarchy.mount, false, situation)
}

/// What OCI calls a cgroup: version 2 where there is nothing else, and otherwise every hierarchy under the name that it has
/// here, in a tmpfs, as programs look for them.
fn groups(ops: &mut Ops, mount: &Mount, situation: Situation) -> Result<()> {
    let layout = Layout::read()?;
    if situation.user_namespace && !situation.cgroup_namespace && wants_read_only(mount) {
        // Only the owner of a cgroup namespace may mount one; the host's are the same groups.
        let first =
            layout.v1.first().map(|first| first.mount.parent()).or(layout.v2.as_ref().map(|v2| Some(&*v2.mount)));
        let source = first.flatten().unwrap_or(Path::new("/sys/fs/cgroup"));
        let bound = Mount::bind(source, &mount.target).read_only(true).create(mount.create);
        return bind(ops, &bound.with_options(["rnosuid", "rnodev", "rnoexec"])?, source, true, situation);
    }
    if layout.v1.is_empty() {
        return if is_the_hosts(mount, situation) {
            hosts_groups(ops, mount, situation)
        } else {
            file_system(ops, mount, "cgroup2", None, situation)
        };
    }
    let top = Op::mount(c"tmpfs", &target(mount)?, &[("mode", "0755"), ("size", "64k")], 0);
    let mut top = attributes(mount, top);
    // Not before everything is in it.
    (top.attr_set, top.top_set, top.propagation) = (top.attr_set & !attr::RDONLY, top.top_set & !attr::RDONLY, 0);
    ops.push(place(mount, top));
    for hierarchy in layout.v1.iter().chain(&layout.v2) {
        let Some(name) = hierarchy.mount.file_name() else { continue };
        let path = mount.target.join(name);
        let is_v1 = layout.v1.contains(hierarchy);
        let mut options: Vec<(&str, &str)> = Vec::new();
        for controller in hierarchy.controllers.iter().filter(|_| is_v1) {
            match controller.strip_prefix("name=") {
                Some(name) => options.extend([("none", ""), ("name", name)]),
                None => options.push((controller, "")),
            }
        }
        let kind = if is_v1 { c"cgroup" } else { c"cgroup2" };
        let op = Op { text: joined(&options), ..Op::mount(kind, &c_path("mounts", &path)?, &options, 0) };
        ops.push(Op { propagation: 0, ..attributes(mount, op) }.in_root().flags(plan::CREATE));
        let others = hierarchy.controllers.iter().filter(|other| is_v1 && name.to_str() != Some(other.as_str()));
        for other in others.filter(|other| !other.contains('=')) {
            let link = c_path("mounts", &mount.target.join(other))?;
            ops.push(Op::symlink(&c_path("mounts", Path::new(name))?, &link).in_root());
        }
    }
    if wants_read_only(mount) {
        ops.push(Op::new(FsKind::Setattr, &target(mount)?).attr(attr::RDONLY).in_root());
    }
    Ok(())
}

/// A new file system at a path, with the options that are its own.
fn new_file_system(mount: &Mount, kind: &str, path: &std::ffi::CStr) -> Result<Op> {
    let options: Vec<(&str, &str)> =
        mount.options.data.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let named: Vec<(&str, &str)> =
        options.iter().copied().chain(mount.options.super_names().map(|name| (name, ""))).collect();
    let op = Op {
        data: pairs(&named),
        text: joined(&options),
        ..Op::mount(&c_string("mounts", kind.as_ref())?, path, &[], 0)
    };
    let op = attributes(mount, op);
    Ok(Op { super_flags: mount.options.super_flags as u32, propagation: 0, ..op })
}

/// A file system on a device or in a file, mounted here, detached, where the source can be seen.
fn from_source(ops: &mut Ops, mount: &Mount, source: &Path) -> Result<()> {
    let looped = loop_device(mount, source)?;
    let device = looped.as_ref().map_or(source, |device| &device.path);
    let tree = detached(mount, device, wants_read_only(mount))?;
    let op = Op { fd: tree.as_raw_fd(), ..Op::bind(c"", &target(mount)?) };
    let op = place(mount, attributes(mount, op));
    ops.push_tree(tree, |_| op);
    Ok(())
}

fn wants_read_only(mount: &Mount) -> bool {
    (mount.options.top.set | mount.options.all.set) & attr::RDONLY != 0
}

/// A block device for a source that is a file.
fn loop_device(mount: &Mount, source: &Path) -> Result<Option<LoopDevice>> {
    let meta = std::fs::metadata(source).at(Step::OpenSource, "stat", source)?;
    if !meta.is_file() {
        return Ok(None);
    }
    let read_only = wants_read_only(mount);
    let file =
        std::fs::File::options().read(true).write(!read_only).open(source).at(Step::OpenSource, "open", source)?;
    LoopDevice::attach(file.as_fd(), read_only).at(Step::OpenSource, "LOOP_CONFIGURE", source).map(Some)
}

fn detached(mount: &Mount, device: &Path, read_only: bool) -> Result<OwnedFd> {
    let context =
        rustix::mount::fsopen(mount.kind(), FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Mount, "fsopen", mount.kind())?;
    configure(mount, device, read_only, &context)
        .and_then(|()| rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()))
        .map_err(|errno| {
            let said = kernel_log(&context);
            let error = Error::sys(Step::Mount, "fsconfig", &mount.target, errno.into_errno());
            if said.is_empty() { error } else { error.with_hint(format!("the kernel says: {said}")) }
        })
}

fn configure(mount: &Mount, device: &Path, read_only: bool, context: &OwnedFd) -> rustix::io::Result<()> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string};
    fsconfig_set_string(context, "source", device)?;
    if read_only {
        fsconfig_set_flag(context, "ro")?;
    }
    for name in mount.options.super_names() {
        fsconfig_set_flag(context, name)?;
    }
    for (name, value) in &mount.options.data {
        if value.is_empty() {
            fsconfig_set_flag(context, name.as_str())?;
        } else {
            fsconfig_set_string(context, name.as_str(), value.as_str())?;
        }
    }
    fsconfig_create(context)
}

/// What the kernel said about a file system it refused: `e tmpfs: Bad value for 'size'`.
fn kernel_log(context: &OwnedFd) -> String {
    let Ok(file) = context.try_clone() else { return String::new() };
    let mut file = std::fs::File::from(file);
    let mut words = Vec::new();
    let mut line = [0u8; 512];
    while let Ok(len @ 1..) = file.read(&mut line) {
        words.push(String::from_utf8_lossy(line.get(..len).unwrap_or_default()).trim().to_owned());
    }
    words.join("; ")
}

/// A name in the staging area for a part of mount number `index`.
fn part(index: usize, name: &str) -> CString {
    CString::new(format!("m{index}{name}")).unwrap_or_default()
}

fn text(index: usize, name: &str) -> String {
    format!("m{index}{name}")
}

fn overlay(
    ops: &mut Ops,
    mount: &Mount,
    index: usize,
    lower: &[PathBuf],
    upper: Option<&(PathBuf, PathBuf)>,
    situation: Situation,
) -> Result<()> {
    for (number, path) in lower.iter().enumerate() {
        let name = part(index, &format!("l{number}"));
        ops.push(Op::mkdir(&name, 0o755));
        host_directory(ops, path, &name, situation)?;
    }
    match upper {
        None => ops.extend([Op::mkdir(&part(index, "u"), 0o755), Op::mkdir(&part(index, "w"), 0o755)]),
        Some((upper, work)) => upper_of_host(ops, index, upper, work, situation)?,
    }
    let layers: Vec<String> = (0..lower.len()).map(|number| text(index, &format!("l{number}"))).collect();
    stack(ops, mount, index, &layers.join(":"), &text(index, "u"), &text(index, "w"), situation)
}

/// Mounts an overlay in the staging area and binds it to its target.
fn stack(
    ops: &mut Ops,
    mount: &Mount,
    index: usize,
    lower: &str,
    upper: &str,
    work: &str,
    situation: Situation,
) -> Result<()> {
    let whole = part(index, "");
    let mut options = vec![("lowerdir", lower), ("upperdir", upper), ("workdir", work)];
    if situation.user_namespace {
        options.push(("userxattr", ""));
    }
    if !mount.options.copy_up {
        options.extend(mount.options.data.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
    ops.extend([Op::mkdir(&whole, 0o755), Op::mount(c"overlay", &whole, &options, attr::NODEV)]);
    ops.push(place(mount, attributes(mount, Op::bind(&whole, &target(mount)?))));
    Ok(())
}

/// Binds a directory of the host to a place in the staging area.
fn host_directory(ops: &mut Ops, path: &Path, name: &CString, situation: Situation) -> Result<()> {
    let path = std::path::absolute(path).at(Step::OpenSource, "getcwd", path)?;
    let meta = std::fs::metadata(&path).at(Step::OpenSource, "stat", &path)?;
    if !meta.is_dir() {
        return Err(Error::sys(Step::OpenSource, "open_tree", path, nix::errno::Errno::ENOTDIR));
    }
    if situation.admin {
        ops.push_tree(open_tree(&path, false)?, |tree| Op::bind_tree(tree, name));
    } else {
        ops.push(Op::bind(&c_path("mounts", &path)?, name));
    }
    Ok(())
}

/// Upper and work directory have to be on one mount: that of the directory that holds both.
fn upper_of_host(ops: &mut Ops, index: usize, upper: &Path, work: &Path, situation: Situation) -> Result<()> {
    let real = |path: &Path| -> Result<PathBuf> {
        std::fs::create_dir_all(path).at(Step::Mkdir, "mkdir", path)?;
        std::fs::canonicalize(path).at(Step::OpenSource, "realpath", path)
    };
    let (upper, work) = (real(upper)?, real(work)?);
    if upper.starts_with(&work) || work.starts_with(&upper) {
        return Err(Error::spec("mounts", format!("[{index}] the work directory must be beside the upper one")));
    }
    let common = upper.ancestors().find(|parent| work.starts_with(parent)).unwrap_or(Path::new("/"));
    let hold = part(index, "o");
    ops.push(Op::mkdir(&hold, 0o755));
    host_directory(ops, common, &hold, situation)?;
    for (path, name) in [(&upper, "u"), (&work, "w")] {
        let below = path.strip_prefix(common).unwrap_or(Path::new(""));
        let link = Path::new(&text(index, "o")).join(below);
        ops.push(Op::symlink(&c_path("mounts", &link)?, &part(index, name)));
    }
    Ok(())
}

/// A tmpfs that begins with what is at its target: an overlay of both.
fn copy_up(ops: &mut Ops, mount: &Mount, index: usize, situation: Situation) -> Result<()> {
    let (below, memory) = (part(index, "l0"), part(index, "t"));
    ops.push(place(mount, Op::new(FsKind::Place, &target(mount)?)));
    ops.push(Op::mkdir(&below, 0o755));
    ops.push(Op::bind(&target(mount)?, &below).flags(plan::SOURCE_IN_ROOT));
    ops.push(Op::mkdir(&memory, 0o755));
    let tmpfs = new_file_system(mount, "tmpfs", &memory)?;
    ops.push(Op { attr_set: attr::NOSUID | attr::NODEV, attr_clear: 0, top_set: 0, top_clear: 0, ..tmpfs });
    let mode = mount.options.data.iter().find(|(name, _)| name == "mode");
    let mode = mode.and_then(|(_, text)| u32::from_str_radix(text, 8).ok()).unwrap_or(0o755);
    ops.extend([Op::mkdir(&part(index, "t/u"), mode), Op::mkdir(&part(index, "t/w"), 0o755)]);
    stack(ops, mount, index, &text(index, "l0"), &text(index, "t/u"), &text(index, "t/w"), situation)
}

fn file(ops: &mut Ops, mount: &Mount, index: usize, content: &[u8], mode: u32) -> Result<()> {
    let name = part(index, "");
    ops.push(Op::file(&name, mode, content.to_vec()));
    ops.push(place(mount, attributes(mount, Op::bind(&name, &target(mount)?))));
    Ok(())
}
