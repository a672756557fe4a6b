//! fuse-overlayfs(1) in place of the kernel's overlay, where that refuses a directory and the program is installed.
//!
//! The file system is mounted by zind, by a descriptor of `/dev/fuse`, and served by a process of its own: in a mount
//! namespace in which the layers have names of ours, so that no character of a path means anything to it, in a session
//! of its own, and below a waiter, so that no `wait(-1)` of the caller sees it. It ends by itself with the last mount of
//! its file system, which is the container's. If it ends before, the container gets errors (`ENOTCONN`) and nothing else.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::{Overlay, Rootfs};
use crate::error::{At, Error, Result, Step};
use crate::mount::Mount;
use crate::namespace::Source;
use crate::process::{Process, helper, launch};
use crate::spec::{Kind, Spec, Stdio};

const PROGRAM: &str = "fuse-overlayfs";
/// What it keeps in an overlay directory: deletions may look different from the kernel's there.
const KEPT: &str = "fuse";
/// How long its end may take after that of its last mount.
const MOST_TO_END: Duration = Duration::from_secs(10);

/// A root by fuse-overlayfs(1).
#[derive(Debug)]
pub(crate) struct Fuse {
    program: PathBuf,
    lower: PathBuf,
    changes: Changes,
    die_with_owner: bool,
    /// The file system, where the library may mount it; else the launcher does.
    pub(crate) tree: Option<OwnedFd>,
    server: Option<Server>,
}

#[derive(Debug)]
enum Changes {
    /// In a tmpfs with this limit.
    Memory(Option<u64>),
    /// In a directory that holds `upper` and `work`; the lock is the server's.
    Directory { path: PathBuf, lock: OwnedFd, is_new: bool },
}

/// Who has mounted a file system in a user namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launcher {
    pub(crate) pid: i32,
    /// User and group, if no other ids are mapped.
    pub(crate) only_ids: Option<(u32, u32)>,
}

/// The process that serves one file system.
#[derive(Debug)]
pub(crate) struct Server(Process);

/// True if an overlay directory holds what a container has changed by fuse-overlayfs.
pub(crate) fn is_kept(dir: &Path) -> bool {
    dir.join(KEPT).is_dir()
}

/// Makes ready what can be; `None` where there is no fuse-overlayfs, or no `/dev/fuse` for this user.
/// `admin`: the caller may make file systems.
pub(crate) fn make(spec: &Spec, admin: bool) -> Result<Option<Fuse>> {
    let Rootfs::Path(rootfs) = &spec.rootfs else { return Ok(None) };
    let (Some(program), Ok(device)) = (helper::find(PROGRAM), device()) else { return Ok(None) };
    let lower = std::fs::canonicalize(rootfs).at(Step::OpenSource, "realpath", rootfs)?;
    let changes = match &spec.overlay {
        Overlay::Tmpfs => Changes::Memory(spec.tmpfs_size),
        Overlay::Dir(dir) => directory(dir)?,
        Overlay::None => return Ok(None),
    };
    let mut fuse = Fuse { program, lower, changes, die_with_owner: spec.die_with_owner, tree: None, server: None };
    if admin {
        let mounted = mount(&device).at(Step::Fuse, "fsmount", "fuse").map(|tree| fuse.tree = Some(tree));
        if let Err(error) = mounted.and_then(|()| fuse.serve(device, None)) {
            fuse.give_up();
            return Err(error);
        }
    }
    Ok(Some(fuse))
}

/// What an overlay directory holds must go on where it is.
pub(crate) fn missing(dir: &Path) -> Error {
    let needs = format!(
        "{} holds changes that fuse-overlayfs(1) made: it must be installed, and /dev/fuse open to this user",
        dir.display()
    );
    Error::unsupported("overlay", needs)
}

/// Options of the file system besides its descriptor. The ids are whose it is; all of the container may use it.
pub(crate) fn options(uid: u32, gid: u32) -> String {
    format!("rootmode=40000,user_id={uid},group_id={gid},allow_other,default_permissions")
}

/// True for an errno of a file system whose server has ended.
pub(crate) fn is_disconnection(errno: Errno) -> bool {
    matches!(errno, Errno::ENOTCONN | Errno::ECONNABORTED)
}

fn device() -> rustix::io::Result<OwnedFd> {
    open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

fn mount(device: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", PROGRAM)?;
    fsconfig_set_string(&context, "fd", device.as_raw_fd().to_string())?;
    for (name, value) in options(0, 0).split(',').map(|word| word.split_once('=').unwrap_or((word, ""))) {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, name)?;
        } else {
            fsconfig_set_string(&context, name, value)?;
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn directory(dir: &Path) -> Result<Changes> {
    let dir = std::fs::canonicalize(dir).at(Step::OpenSource, "realpath", dir)?;
    let path = dir.join(KEPT);
    let is_new = !path.exists();
    for name in ["upper", "work"] {
        let part = path.join(name);
        std::fs::create_dir_all(&part).at(Step::Mkdir, "mkdir", &part)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = open(&path, flags, Mode::empty()).at(Step::OpenSource, "open", &path)?;
    // The kernel, too, lets one overlay at a time change an upper directory.
    rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::NonBlockingLockExclusive))
        .map_err(|errno| if errno == rustix::io::Errno::WOULDBLOCK { rustix::io::Errno::BUSY } else { errno })
        .at(Step::Fuse, "flock", &path)
        .map_err(|error| error.with_hint("another container has this overlay directory"))?;
    Ok(Changes::Directory { path, lock, is_new })
}

impl Fuse {
    /// Starts the process behind `device`; in the user namespace of a launcher, if that has mounted it.
    pub(crate) fn serve(&mut self, device: OwnedFd, launcher: Option<Launcher>) -> Result<()> {
        let place = self.place();
        let part = |name: &str| place.join(name);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (changes, lower) = (part("changes"), part("lower"));
        let mut options = format!(
            "lowerdir={},upperdir={},workdir={}",
            text(lower.clone()),
            text(changes.join("upper")),
            text(changes.join("work"))
        );
        // As in a copy, everything belongs to the only id there is.
        if let Some((uid, gid)) = launcher.as_ref().and_then(|launcher| launcher.only_ids) {
            options += &format!(",squash_to_uid={uid},squash_to_gid={gid}");
        }
        let number = device.as_raw_fd();
        let mut spec =
            Spec::low_level([&*self.program.to_string_lossy(), "-f", "-o", &options, &format!("/dev/fd/{number}")]);
        spec.inherit_env = false;
        spec.namespaces.insert(Kind::Mount, Source::New);
        if let Some(Launcher { pid, .. }) = launcher {
            spec.namespaces.insert(Kind::User, Source::Pid(pid));
            spec.keep_caps = true;
        }
        let mut memory = Mount::tmpfs(&place).mode(0o755);
        spec.pass_fds = vec![number];
        match &self.changes {
            Changes::Memory(size) => {
                memory = size.map_or(memory.clone(), |size| memory.size(size));
                spec.directories = [changes.clone(), changes.join("upper"), changes.join("work")].into();
            }
            Changes::Directory { lock, .. } => spec.pass_fds.push(lock.as_raw_fd()),
        }
        spec.mounts = vec![memory, Mount::bind_read_only(&self.lower, &lower).recursive(false)];
        if let Changes::Directory { path, .. } = &self.changes {
            spec.mounts.push(Mount::bind(path, &changes).recursive(false));
        }
        (spec.stdin, spec.stdout, spec.stderr) = (Stdio::Null, Stdio::Null, Stdio::Null);
        spec.cwd = Some("/".into());
        // No key of a terminal ends it before its container.
        spec.session.setsid = true;
        spec.no_new_privileges = true;
        spec.die_with_owner = self.die_with_owner;
        self.server = Some(Server(launch::spawn(spec)?));
        Ok(())
    }

    /// A directory of the host that its own mount namespace can do without.
    fn place(&self) -> PathBuf {
        let changes = match &self.changes {
            Changes::Directory { path, .. } => path,
            Changes::Memory(_) => &self.lower,
        };
        let is_free = |place: &&&str| {
            let is_plain = std::fs::symlink_metadata(**place).is_ok_and(|meta| meta.is_dir());
            is_plain && ![&self.lower, changes, &self.program].iter().any(|path| path.starts_with(**place))
        };
        ["/mnt", "/media", "/srv", "/opt", "/run", "/var/tmp", "/tmp"].iter().find(is_free).unwrap_or(&"/home").into()
    }

    pub(crate) fn take_server(&mut self) -> Option<Server> {
        self.server.take()
    }

    /// It came to nothing: what it has made in the overlay directory goes.
    pub(crate) fn give_up(mut self) {
        self.tree = None;
        if let Some(server) = self.server.take() {
            server.end();
        }
        if let Changes::Directory { path, is_new: true, .. } = &self.changes {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

impl Server {
    /// Waits for its end, which is that of its file system.
    pub(crate) fn end(self) {
        if !matches!(self.0.wait(Some(MOST_TO_END)), Ok(Some(_))) {
            let _ = self.0.kill();
            let _ = self.0.wait(None);
        }
    }
}
