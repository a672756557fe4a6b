//! The caller's devices and console: what they are on this host, and the operations that bring them into the container.
//!
//! A node of the container's own is made where no user namespace is in the way; else the host's is bound. Either way it
//! comes to its target as a read-only mount of one file, so that nobody inside changes its mode or owner, neither of a
//! node of ours, on which the rights rest, nor of the host's.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, StatVfsMountFlags};
use serde_json::{Value, json};
use zind_init::plan::{self, FsKind};

use super::ops::{Op, Ops, attr, c_path};
use super::plan::{Situation, open_tree};
use crate::device::{Console, Device, Kind, What};
use crate::error::{At, Error, Result, Step};
use crate::security::capabilities::CapSet;
use crate::spec::Spec;
use crate::sys::descriptors::pty_peer;

/// What is known about the caller's devices before the start.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    list: Vec<Found>,
    console: Option<Terminal>,
}

/// One device, for one place in the container.
#[derive(Debug)]
struct Found {
    /// Its number among the caller's.
    index: usize,
    device: Device,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// A node to make.
    Own { kind: Kind, rdev: u64, mode: u32, uid: u32, gid: u32 },
    /// The host's node at this path, by file system and inode.
    Host { path: PathBuf, file: (u64, u64) },
}

#[derive(Debug)]
struct Terminal {
    fd: OwnedFd,
    path: PathBuf,
    file: (u64, u64),
}

/// Capabilities that pass by the mode of a node, change it, or make another.
const MIGHTY: CapSet =
    CapSet::DAC_OVERRIDE.union(CapSet::DAC_READ_SEARCH).union(CapSet::SYS_ADMIN).union(CapSet::MKNOD);

/// Looks at everything the caller asked for. `limited_to`: capabilities beyond which the payload gets none; `None`: it has
/// or may get all.
pub(crate) fn find(spec: &Spec, situation: Situation, limited_to: Option<CapSet>) -> Result<Devices> {
    let own = makes_nodes(situation);
    let mut list: Vec<Found> = Vec::new();
    for (index, device) in spec.devices.iter().enumerate() {
        let found = find_one(index, device, own).map_err(|error| error.with_hint(format!("it is devices[{index}]")))?;
        for one in found {
            check_rights(&one, limited_to)?;
            if let Some(other) = list.iter().find(|other| other.device.target == one.device.target) {
                let rule = format!("[{index}] {} is devices[{}] already", one.device.target.display(), other.index);
                return Err(Error::spec("devices", rule));
            }
            list.push(one);
        }
    }
    Ok(Devices { list, console: spec.console.as_ref().map(terminal).transpose()? })
}

/// Nodes of the container's own: `CAP_MKNOD` counts in the initial user namespace only.
fn makes_nodes(situation: Situation) -> bool {
    situation.admin && !situation.user_namespace
}

/// Without device rules of a control group nothing but the mode of a node keeps the payload from reading or writing.
fn check_rights(found: &Found, limited_to: Option<CapSet>) -> Result<()> {
    let Found { index, device, source } = found;
    if device.access.is_full() {
        return Ok(());
    }
    let feature = format!("devices[{index}] {} with rights {:?}", device.target.display(), device.rights());
    if matches!(source, Source::Host { .. }) {
        let needs = "a node of the container's own: call as root and without a user namespace, or give \"rw\"";
        return Err(Error::unsupported(feature, needs));
    }
    if limited_to.is_none_or(|set| set.intersects(MIGHTY)) {
        let needs = "the system call filter, and a payload without DAC_OVERRIDE, DAC_READ_SEARCH, MKNOD and SYS_ADMIN: else it passes by the mode of the node";
        return Err(Error::unsupported(feature, needs));
    }
    Ok(())
}

fn find_one(index: usize, device: &Device, own: bool) -> Result<Vec<Found>> {
    let device = Device { target: device.target.components().collect(), ..device.clone() };
    let found = |device: Device, source| Found { index, device, source };
    match device.what.clone() {
        What::Host(path) => {
            let path = std::path::absolute(&path).at(Step::OpenSource, "getcwd", &path)?;
            if std::fs::metadata(&path).at(Step::OpenSource, "open", &path)?.is_dir() {
                return of_directory(index, &path, &device)?
                    .into_iter()
                    .map(|(path, device)| of_host(index, &path, &device, own).map(|source| found(device, source)))
                    .collect();
            }
            let source = of_host(index, &path, &device, own)?;
            Ok(vec![found(device, source)])
        }
        What::Node(kind, major, minor) => {
            let rdev = rustix::fs::makedev(major, minor);
            let (mode, uid, gid) = (device.mode.unwrap_or(0o666), device.uid.unwrap_or(0), device.gid.unwrap_or(0));
            let source = match kind {
                Kind::Char | Kind::Block if !own => of_number(index, &device, kind, rdev)?,
                _ => Source::Own { kind, rdev, mode, uid, gid },
            };
            Ok(vec![found(device, source)])
        }
    }
}

/// A device of the host as a node to make or to bind.
fn of_host(index: usize, path: &Path, device: &Device, own: bool) -> Result<Source> {
    let (fd, stat) = look(path)?;
    let Some(kind) = kind_of(&stat) else {
        return Err(Error::spec("devices", format!("[{index}] {} is no device", path.display())));
    };
    if own {
        let mode = device.mode.unwrap_or(stat.st_mode & 0o777);
        let (uid, gid) = (device.uid.unwrap_or(stat.st_uid), device.gid.unwrap_or(stat.st_gid));
        return Ok(Source::Own { kind, rdev: stat.st_rdev, mode, uid, gid });
    }
    let feature = format!("devices[{index}] {}", device.target.display());
    let other_mode = device.mode.is_some_and(|mode| mode != stat.st_mode & 0o777);
    if other_mode || device.uid.is_some() || device.gid.is_some() {
        let needs = "a node of the container's own to have mode, uid and gid: call as root, without a user namespace";
        return Err(Error::unsupported(feature, needs));
    }
    let nodev = rustix::fs::fstatvfs(&fd).is_ok_and(|vfs| vfs.f_flag.contains(StatVfsMountFlags::NODEV));
    if nodev {
        return Err(Error::unsupported(feature, format!("{} on a mount without nodev", path.display())));
    }
    Ok(Source::Host { path: path.to_owned(), file: (stat.st_dev, stat.st_ino) })
}

/// A number, where only the host's own node of it can be had.
fn of_number(index: usize, device: &Device, kind: Kind, rdev: u64) -> Result<Source> {
    let is_it = |stat: &Stat| kind_of(stat) == Some(kind) && stat.st_rdev == rdev;
    match look(&device.target) {
        Ok((_, stat)) if is_it(&stat) => of_host(index, &device.target, device, false),
        _ => {
            let needs =
                format!("that device at {} of the host, or root: others cannot make nodes", device.target.display());
            Err(Error::unsupported(format!("devices[{index}] by number"), needs))
        }
    }
}

/// The file itself, held while it is looked at: opening a device may do things, this does not.
fn look(path: &Path) -> Result<(OwnedFd, Stat)> {
    let fd =
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(Step::OpenSource, "open", path)?;
    let stat = rustix::fs::fstat(&fd).at(Step::OpenSource, "fstat", path)?;
    Ok((fd, stat))
}

fn kind_of(stat: &Stat) -> Option<Kind> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => Some(Kind::Char),
        FileType::BlockDevice => Some(Kind::Block),
        _ => None,
    }
}

/// Every device below a directory of the host, in the order of names; links are not followed.
fn of_directory(index: usize, top: &Path, device: &Device) -> Result<Vec<(PathBuf, Device)>> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).at(Step::OpenSource, "open", &directory)? {
            let path = entry.at(Step::OpenSource, "getdents64", &directory)?.path();
            let meta = std::fs::symlink_metadata(&path).at(Step::OpenSource, "stat", &path)?;
            if meta.is_dir() {
                left.push(path);
            } else if is_device(&meta) {
                let below = path.strip_prefix(top).unwrap_or(&path);
                let target = device.target.join(below);
                found.push((path, Device { target, ..device.clone() }));
            }
        }
    }
    if found.is_empty() {
        return Err(Error::spec("devices", format!("[{index}] there is no device in the directory {}", top.display())));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn is_device(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    meta.file_type().is_char_device() || meta.file_type().is_block_device()
}

/// The terminal end of a pseudo-terminal, by a descriptor; for the other end that is its peer (CVE-2025-52565).
fn terminal(console: &Console) -> Result<Terminal> {
    let no = |what: &str| Error::spec("console", format!("{what} is no pseudo-terminal"));
    let (fd, name) = match console {
        Console::Path(path) => {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let (_, stat) = look(path)?;
            if kind_of(&stat) != Some(Kind::Char) {
                return Err(no(&path.display().to_string()));
            }
            let fd = rustix::fs::open(path, flags, Mode::empty()).at(Step::OpenSource, "open", path)?;
            (fd, path.display().to_string())
        }
        Console::Fd(fd) => {
            (fd.try_clone().at(Step::OpenSource, "dup", "console")?, format!("descriptor {}", fd.as_raw_fd()))
        }
    };
    const MASTER: (u32, u32) = (5, 2);
    const TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;
    let stat = rustix::fs::fstat(&fd).at(Step::OpenSource, "fstat", &name)?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let fd = if kind_of(&stat) == Some(Kind::Char) && number == MASTER {
        pty_peer(fd.as_fd()).at(Step::OpenSource, "TIOCGPTPEER", &name)?
    } else {
        fd
    };
    let stat = rustix::fs::fstat(&fd).at(Step::OpenSource, "fstat", &name)?;
    let is_terminal = kind_of(&stat) == Some(Kind::Char) && TERMINALS.contains(&rustix::fs::major(stat.st_rdev));
    if !is_terminal || !is_devpts(fd.as_fd()) {
        return Err(no(&name));
    }
    let path =
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).at(Step::OpenSource, "readlink", &name)?;
    Ok(Terminal { fd, path, file: (stat.st_dev, stat.st_ino) })
}

fn is_devpts(fd: BorrowedFd<'_>) -> bool {
    const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
    rustix::fs::fstatfs(fd).is_ok_and(|found| found.f_type as u64 == DEVPTS_SUPER_MAGIC)
}

impl Devices {
    /// The operations that bring all of it into the root.
    pub(crate) fn operations(&self, ops: &mut Ops, situation: Situation) -> Result<()> {
        if self.list.iter().any(|found| matches!(found.source, Source::Own { .. })) {
            let size = [("mode", "0755"), ("size", "64k")];
            ops.extend([Op::mkdir(NODES, 0o755), Op::mount(c"tmpfs", NODES, &size, attr::NOSUID | attr::NOEXEC)]);
        }
        for (number, found) in self.list.iter().enumerate() {
            let first = ops.list.len();
            found.operations(ops, number, situation)?;
            ops.list.iter_mut().skip(first).for_each(|op| op.of_device = Some(found.index));
        }
        match &self.console {
            Some(terminal) => terminal.operations(ops, situation),
            None => Ok(()),
        }
    }

    /// The paths in the container.
    pub(crate) fn paths(&self) -> Vec<String> {
        let console = self.console.iter().map(|_| "/dev/console".to_owned());
        self.list.iter().map(|found| found.device.target.to_string_lossy().into_owned()).chain(console).collect()
    }

    /// For the isolation report: each device, its rights, and what they rest on.
    pub(crate) fn report(&self) -> Vec<Value> {
        self.list.iter().map(Found::report).collect()
    }
}

const NODES: &std::ffi::CStr = c"v";

impl Found {
    fn operations(&self, ops: &mut Ops, number: usize, situation: Situation) -> Result<()> {
        let target = c_path("devices", &self.device.target)?;
        match &self.source {
            Source::Host { path, file } => ops_of_host(ops, path, *file, &target, situation),
            Source::Own { kind, rdev, mode, uid, gid } => {
                let node = CString::new(format!("v/{number}")).unwrap_or_default();
                let ids = u64::from(*uid) | u64::from(*gid) << 32;
                let mode = kind.file_type() | self.permissions(*mode);
                ops.push(Op { mode, device: *rdev, ..Op::new(FsKind::Mknod, &node) });
                if ids != 0 {
                    ops.push(Op { device: ids, ..Op::new(FsKind::Chown, &node) });
                }
                ops.push(place(Op::bind(&node, &target)));
                Ok(())
            }
        }
    }

    /// The mode of a node without the bits that the rights leave out.
    fn permissions(&self, mode: u32) -> u32 {
        let access = self.device.access;
        let taken = if access.read { 0 } else { 0o444 } | if access.write { 0 } else { 0o222 };
        mode & !taken
    }

    fn report(&self) -> Value {
        let (node, by) = match &self.source {
            Source::Own { .. } => ("own", "mode"),
            Source::Host { .. } => ("host", "permissions of the host's node"),
        };
        json!({"path": self.device.target.to_string_lossy(), "access": self.device.rights(), "node": node, "enforced_by": by})
    }
}

impl Kind {
    fn file_type(self) -> u32 {
        match self {
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
        }
        .as_raw_mode()
    }
}

impl Terminal {
    fn operations(&self, ops: &mut Ops, situation: Situation) -> Result<()> {
        if !situation.admin {
            return ops_of_host(ops, &self.path, self.file, c"/dev/console", situation);
        }
        use rustix::mount::OpenTreeFlags as Flags;
        let flags = Flags::OPEN_TREE_CLONE | Flags::OPEN_TREE_CLOEXEC | Flags::AT_EMPTY_PATH;
        let tree = rustix::mount::open_tree(&self.fd, c"", flags).at(Step::OpenSource, "open_tree", &self.path)?;
        ops.push_tree(tree, |tree| bound(Op::bind_tree(tree, c"/dev/console"), self.file));
        Ok(())
    }
}

/// The host's node at `path`, if it is still the file that was looked at.
fn ops_of_host(
    ops: &mut Ops,
    path: &Path,
    file: (u64, u64),
    target: &std::ffi::CStr,
    situation: Situation,
) -> Result<()> {
    let op = bound(Op::bind(&c_path("devices", path)?, target), file);
    if situation.admin {
        ops.push_tree(open_tree(path, false)?, |tree| Op { fd: tree.as_raw_fd(), ..op });
    } else {
        ops.push(op);
    }
    Ok(())
}

fn bound(op: Op, (device, inode): (u64, u64)) -> Op {
    Op { device, inode, ..place(op).flags(plan::SAME_FILE) }
}

fn place(op: Op) -> Op {
    op.attr(attr::RDONLY | attr::NOSUID | attr::NOEXEC).in_root().flags(plan::CREATE | plan::NO_SYMLINKS | plan::DEVICE)
}
