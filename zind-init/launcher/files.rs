//! The file system of the container, one operation of the plan after the other.
//!
//! Paths with `IN_ROOT` are resolved by `openat2(2)` below the root and used by descriptor from then on.

use crate::older::{Change, Older};
use crate::part::Part;
use crate::plan::{
    AS_SETUP, CREATE, DEVICE, FsKind, FsOp, IN_ROOT, MUST_PIVOT, NO_SYMLINKS, OLDER_MOUNTS, OPTIONAL, QUICK, RECURSIVE,
    SAME_FILE, SOURCE_IN_ROOT, SOURCE_NOFOLLOW, Str, TAKEN, TARGET_FILE, TARGET_NOFOLLOW,
};
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys::{self, AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, EMPTY, OPEN_TREE_CLONE};
use crate::watch::decimal;
use crate::{At, Done, Failure, hooks, measured, namespaces};

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
pub const MS_REMOUNT: u64 = 32;
pub const MS_BIND: u64 = 4096;
pub const MS_REC: u64 = 16384;
pub const MS_UNBINDABLE: u64 = 1 << 17;
pub const MS_PRIVATE: u64 = 1 << 18;
pub const MS_SHARED: u64 = 1 << 20;

const UMOUNT_NOFOLLOW: u32 = 8;

/// Where paths begin.
struct Place {
    root: i32,
    staging: i32,
    /// The staging area is ours; later its place is taken by the root itself.
    apart: bool,
    /// The host's root, if the staging area lies over it.
    covered: (u64, u64),
    /// A detached tree of the mount namespace we came from.
    taken: i32,
}

impl Place {
    /// The older interface, if it is to be used.
    fn older(&self, plan: &PlanFile) -> Option<Older> {
        plan.has(OLDER_MOUNTS).then_some(Older { proc: plan.proc, staging: self.staging, apart: self.apart })
    }
}

/// A descriptor that closes itself.
pub struct Fd(pub i32);

impl Drop for Fd {
    fn drop(&mut self) {
        sys::close(self.0);
    }
}

pub fn carry_out(plan: &mut PlanFile) -> Done {
    let mut place = Place { root: -1, staging: -1, apart: false, covered: (0, 0), taken: -1 };
    for (index, op) in plan.list(plan.fs).iter().enumerate() {
        if op.kind == FsKind::Hooks {
            hooks::before_the_root(plan, place.root)?;
            continue;
        }
        if op.kind == FsKind::JoinNetwork {
            // It takes its time: others look around meanwhile.
            measured::mounts(plan, index)?;
        }
        one(plan, &mut place, op).map_err(|Failure(step, number, errno)| match step {
            Step::ReadBack => Failure(step, number, errno),
            _ => Failure(step, index, errno),
        })?;
    }
    measured::mounts(plan, plan.list(plan.fs).len())?;
    for fd in [place.root, place.staging, place.taken] {
        if fd >= 0 {
            sys::close(fd);
        }
    }
    Ok(())
}

fn one(plan: &mut PlanFile, place: &mut Place, op: &FsOp) -> Done {
    match op.kind {
        FsKind::Stage => stage(plan, place, op),
        FsKind::Mkdir => make(plan, place, op, |dir, name| sys::mkdirat(dir, name, op.mode)).at(Step::Mkdir),
        FsKind::Symlink => {
            let (target, text) = (plan.str(op.source), plan.text(op.source));
            make(plan, place, op, |dir, name| link(target, text, dir, name)).at(Step::Symlink)
        }
        FsKind::File => file(plan, place, op).at(Step::WriteFile),
        FsKind::Write => {
            let file = Fd(sys::openat(AT_FDCWD, plan.str(op.path), sys::O_WRONLY, 0).at(Step::WriteFile)?);
            sys::write_all(file.0, plan.list(op.data)).at(Step::WriteFile)
        }
        FsKind::Mknod => make(plan, place, op, |dir, name| sys::mknodat(dir, name, op.mode, op.device)).at(Step::Mknod),
        FsKind::Chown => {
            let (uid, gid) = (op.device as u32, (op.device >> 32) as u32);
            make(plan, place, op, |dir, name| sys::chown(dir, name, uid, gid)).at(Step::Mknod)
        }
        FsKind::Mount => mount(plan, place, op),
        FsKind::Bind => bind(plan, place, op),
        FsKind::Setattr => setattr(plan, place, op).at(Step::MountSetattr),
        FsKind::Root => {
            place.root =
                sys::openat(AT_FDCWD, plan.str(op.path), sys::O_PATH | sys::O_DIRECTORY, 0).at(Step::OpenRoot)?;
            Ok(())
        }
        FsKind::RootIsHere => {
            sys::close(place.staging);
            place.apart = false;
            place.staging =
                sys::openat(AT_FDCWD, c"/".as_ptr().cast(), sys::O_PATH | sys::O_DIRECTORY, 0).at(Step::OpenRoot)?;
            place.root =
                sys::openat(AT_FDCWD, c"/".as_ptr().cast(), sys::O_PATH | sys::O_DIRECTORY, 0).at(Step::OpenRoot)?;
            Ok(())
        }
        FsKind::Pivot => pivot(plan, place),
        FsKind::Chroot => {
            let wanted = Fd(sys::openat(AT_FDCWD, plan.str(op.path), sys::O_PATH, 0).at(Step::Chroot)?);
            sys::chroot(plan.str(op.path)).at(Step::Chroot)?;
            sys::chdir(c"/".as_ptr().cast()).at(Step::Chroot)?;
            let root = Fd(sys::openat(AT_FDCWD, c"/".as_ptr().cast(), sys::O_PATH, 0).at(Step::Chroot)?);
            let [wanted, found] = [wanted.0, root.0].map(|fd| sys::fstat(fd).map(|stat| stat.identity()));
            let (wanted, found) = (wanted.at(Step::Chroot)?, found.at(Step::Chroot)?);
            measured::expect(plan, Part::Root, wanted.0, found.0)?;
            measured::expect(plan, Part::Root, wanted.1, found.1)
        }
        FsKind::Mask => mask(plan, place, op).at(Step::Mask),
        FsKind::Readonly => readonly(plan, place, op).at(Step::ReadonlyPath),
        FsKind::Take => take(plan, place, op).at(Step::Bind),
        FsKind::JoinMounts => join_mounts(plan, op),
        FsKind::JoinNetwork => namespaces::join_network(plan),
        FsKind::Place => target(plan, place, op).at(Step::MountTarget).map(drop),
        FsKind::Enter => enter(plan, place, op),
        FsKind::Leave => sys::fchdir(place.staging).at(Step::Staging).map(drop),
        FsKind::Detach => detach(plan, place, op).at(Step::Umount),
        // Carried out by our caller.
        FsKind::Hooks => Ok(()),
        FsKind::HandOver => {
            let dir = Fd(sys::openat(AT_FDCWD, plan.str(op.path), sys::O_DIRECTORY, 0).at(Step::OpenRoot)?);
            crate::report(plan, Step::HandedOver, 0, 0, dir.0);
            crate::wait_for_go(plan)
        }
        FsKind::Fuse => fuse(plan, op),
        FsKind::Terminal => terminal(plan, place, op),
        FsKind::Umount => sys::umount(plan.str(op.path), op.propagation).at(Step::Umount).map(drop),
    }
}

/// A symbolic link; one that is there already must lead to the same place.
fn link(to: sys::CStr, text: &[u8], dir: i32, name: sys::CStr) -> sys::Result {
    match sys::symlinkat(to, dir, name) {
        Err(sys::EEXIST) => {
            let mut found = [0u8; 4096];
            let len = sys::readlinkat(dir, name, &mut found).map_err(|_| sys::EEXIST)?;
            if found.get(..len) == Some(text) { Ok(0) } else { Err(sys::EEXIST) }
        }
        other => other,
    }
}

/// A tmpfs, and the working directory in it: the only place this process writes to by plain relative paths.
fn stage(plan: &PlanFile, place: &mut Place, op: &FsOp) -> Done {
    let tmpfs = c"tmpfs".as_ptr().cast();
    if plan.text(op.path) == b"/" {
        let root =
            Fd(sys::openat(AT_FDCWD, c"/".as_ptr().cast(), sys::O_PATH | sys::O_DIRECTORY, 0).at(Step::Staging)?);
        place.covered = sys::fstat(root.0).at(Step::Staging)?.identity();
    }
    if plan.has(OLDER_MOUNTS) {
        let path = plan.str(op.path);
        sys::mount(tmpfs, path, tmpfs, 0, plan.str(op.text)).at(Step::Staging)?;
        // What lies over `/` is not found by that name, but it is the parent of all that is seen there.
        place.staging =
            sys::openat(AT_FDCWD, c"/..".as_ptr().cast(), sys::O_PATH | sys::O_DIRECTORY, 0).at(Step::Staging)?;
    } else {
        place.staging = new_file_system(plan, tmpfs, op).at(Step::Staging)?;
        sys::attach_at(place.staging, plan.str(op.path)).at(Step::Staging)?;
    }
    place.apart = true;
    sys::fchdir(place.staging).at(Step::Staging).map(drop)
}

/// The descriptor has to be of the user namespace that mounts. Nobody here keeps it: the file system ends with its server.
fn fuse(plan: &PlanFile, op: &FsOp) -> Done {
    let kind = c"fuse".as_ptr().cast();
    let device = Fd(sys::openat(AT_FDCWD, c"/dev/fuse".as_ptr().cast(), sys::O_RDWR, 0).at(Step::Fuse)?);
    let (mut data, mut digits) = ([0u8; 256], [0u8; 12]);
    let words = [b"fd=".as_slice(), decimal(device.0, &mut digits), b",", plan.text(op.text)];
    // The last byte stays the end of the string.
    let room = data.iter_mut().rev().skip(1).rev();
    room.zip(words.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    sys::mount(plan.str(op.source), plan.str(op.path), kind, mount_flags(op.attr_set), data.as_ptr()).at(Step::Fuse)?;
    crate::report(plan, Step::HandedOver, 0, 0, device.0);
    drop(device);
    crate::wait_for_go(plan)
}

/// The payload's terminal, and the name by which the system knows it. By its descriptor, never by its path.
fn terminal(plan: &mut PlanFile, place: &Place, op: &FsOp) -> Done {
    let fd = crate::terminal::open(plan, place.root).at(Step::Terminal)?;
    let target = target(plan, place, op).at(Step::MountTarget)?;
    if let Some(older) = place.older(plan) {
        return older.cover(fd, target.0).at(Step::Bind);
    }
    let tree = Fd(sys::open_tree(fd, EMPTY, AT_EMPTY_PATH | OPEN_TREE_CLONE).at(Step::Bind)?);
    change(tree.0, op, 0).at(Step::MountSetattr)?;
    sys::attach(tree.0, target.0).at(Step::Bind).map(drop)
}

/// By the directory that holds it and its name there, which is not followed.
fn detach(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<()> {
    let (dir, name) = parent(plan, place, op)?;
    sys::fchdir(dir.0)?;
    sys::umount(name, sys::MNT_DETACH | UMOUNT_NOFOLLOW).map(drop)
}

/// In a copy of the caller's mount namespace, and still with the caller's rights to its files.
fn take(plan: &PlanFile, place: &mut Place, op: &FsOp) -> sys::Result<()> {
    let recursive = if op.flags & RECURSIVE != 0 { AT_RECURSIVE } else { 0 };
    let tree = Fd(sys::open_tree(AT_FDCWD, plan.str(op.source), OPEN_TREE_CLONE | recursive | nofollow(op))?);
    is_that_file(op, tree.0)?;
    place.taken = tree.0;
    core::mem::forget(tree);
    Ok(())
}

/// Leaves the copy of the caller's mounts, and with it all but what was taken.
fn join_mounts(plan: &PlanFile, op: &FsOp) -> Done {
    sys::setns(op.fd, namespaces::CLONE_NEWNS).at(Step::Setns)?;
    sys::close(op.fd);
    if op.flags & AS_SETUP != 0 {
        namespaces::become_setup_ids(plan)?;
    }
    Ok(())
}

/// Goes into a directory of the root, found like any other path of it.
fn enter(plan: &mut PlanFile, place: &Place, op: &FsOp) -> Done {
    let dir = target(plan, place, op).at(Step::MountTarget)?;
    sys::fchdir(dir.0).at(Step::MountTarget).map(drop)
}

/// The detached mount of a new file system.
fn new_file_system(plan: &PlanFile, kind: sys::CStr, op: &FsOp) -> sys::Result<i32> {
    let context = Fd(sys::fsopen(kind)?);
    configure(plan, context.0, op).inspect_err(|_| pass_log_on(plan, context.0))?;
    sys::fsmount(context.0, (op.attr_set | op.top_set) & !MOUNT_ATTR_IDMAP)
}

fn configure(plan: &PlanFile, context: i32, op: &FsOp) -> sys::Result {
    if op.source2 != Str(0) {
        sys::fsconfig(context, c"source".as_ptr().cast(), plan.text_and_nul(op.source2))?;
    }
    let mut words = plan.list(op.data).split(|&byte| byte == 0);
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        sys::fsconfig(context, key.as_ptr(), value)?;
    }
    sys::fsconfig_create(context)
}

/// The kernel says in words what it dislikes about a file system; the library puts it into the error.
fn pass_log_on(plan: &PlanFile, context: i32) {
    let mut message = [0u8; 512];
    // The first byte tells a line of text from a report, whose size differs anyway.
    message[0] = b'#';
    while let Ok(len @ 1..) = sys::read(context, &mut message[1..]) {
        sys::send(plan.socket, message.get(..=len).unwrap_or(&[]), -1);
    }
}

fn mount(plan: &mut PlanFile, place: &Place, op: &FsOp) -> Done {
    if plan.has(OLDER_MOUNTS) {
        let Some(target) = place_of(plan, place, op)? else { return Ok(()) };
        return match op.text {
            // An option with a character that this interface cannot take.
            Str(0) => Err(sys::EINVAL),
            _ if op.flags & IN_ROOT == 0 => mount_by_name(plan, op, plan.str(op.path)),
            _ => mount_on(plan, place, op, target),
        }
        .at(Step::Mount);
    }
    if op.text != Str(0) && mount_quickly(plan, place, op).is_ok() {
        return Ok(());
    }
    // The newer interface says in words what was wrong.
    let Some(target) = place_of(plan, place, op)? else { return Ok(()) };
    let tree = Fd(new_file_system(plan, plan.str(op.source), op).at(Step::Mount)?);
    sys::attach(tree.0, target.0).at(Step::Mount).map(drop)
}

/// The target; none if it is missing, and the mount is only wanted where it is.
fn place_of(plan: &mut PlanFile, place: &Place, op: &FsOp) -> Result<Option<Fd>, Failure> {
    match target(plan, place, op) {
        Err(sys::ENOENT | sys::ENOTDIR) if op.flags & OPTIONAL != 0 => Ok(None),
        other => other.at(Step::MountTarget).map(Some),
    }
}

/// One `mount(2)`, on the working directory: the place was found safely, and names itself.
fn mount_quickly(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<()> {
    if op.flags & IN_ROOT == 0 {
        return mount_by_name(plan, op, plan.str(op.path));
    }
    let target = target(plan, place, op)?;
    mount_on(plan, place, op, target)
}

fn mount_on(plan: &PlanFile, place: &Place, op: &FsOp, target: Fd) -> sys::Result<()> {
    sys::fchdir(target.0)?;
    let result = mount_by_name(plan, op, c".".as_ptr().cast());
    sys::fchdir(place.staging)?;
    result
}

fn mount_by_name(plan: &PlanFile, op: &FsOp, target: sys::CStr) -> sys::Result<()> {
    let kind = plan.str(op.source);
    let source = if op.source2 != Str(0) { plan.str(op.source2) } else { kind };
    let flags = mount_flags(op.attr_set | op.top_set) | u64::from(op.super_flags);
    sys::mount(source, target, kind, flags, plan.str(op.text)).map(drop)
}

/// `MS_*` for `MOUNT_ATTR_*`: the same up to 8.
pub fn mount_flags(attributes: u64) -> u64 {
    const OTHERS: [(u64, u64); 4] = [(0x10, 1024), (0x20, 1 << 24), (0x80, 2048), (0x20_0000, 256)];
    let others = OTHERS.iter().filter(|(attribute, _)| attributes & attribute != 0);
    others.fold(attributes & 0xf, |flags, (_, flag)| flags | flag)
}

fn bind(plan: &mut PlanFile, place: &mut Place, op: &FsOp) -> Done {
    if let Some(older) = place.older(plan) {
        return bind_by_the_older(plan, place, op, older);
    }
    let recursive = if op.flags & RECURSIVE != 0 { AT_RECURSIVE } else { 0 };
    let tree = match clone_tree(plan, place, op, recursive) {
        Err(sys::ENOENT) if op.flags & OPTIONAL != 0 => return Ok(()),
        other => other.at(Step::Bind)?,
    };
    let mut op = *op;
    is_that_file(&op, tree.0).at(Step::Bind)?;
    if op.flags & CREATE != 0 && !sys::fstat(tree.0).at(Step::Bind)?.is_dir() {
        op.flags |= TARGET_FILE;
    }
    // What the host mounts later must not show up in the container, nor the reverse.
    if op.propagation == 0 {
        op.propagation = MS_PRIVATE as u32;
    }
    change(tree.0, &op, recursive).at(Step::MountSetattr)?;
    change_top(tree.0, &op).at(Step::MountSetattr)?;
    measured::attributes(plan, tree.0, op.attr_set & !op.top_clear | op.top_set)?;
    let target = target(plan, place, &op).at(Step::MountTarget)?;
    may_cover(&op, tree.0, target.0).at(Step::MountTarget)?;
    sys::attach(tree.0, target.0).map_err(|errno| other_kind(tree.0, target.0).unwrap_or(errno)).at(Step::Bind)?;
    if op.flags & RECURSIVE != 0 && sys::fstat(tree.0).at(Step::Bind)?.identity() == place.covered {
        uncover(plan, place, &op).at(Step::Bind)?;
    }
    Ok(())
}

/// With the host's root came the staging area, which lies over it.
fn uncover(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<()> {
    let top = target(plan, place, op)?;
    if sys::fstat(top.0)?.identity() != sys::fstat(place.staging)?.identity() {
        return Ok(());
    }
    if op.flags & IN_ROOT == 0 {
        return sys::umount(plan.str(op.path), sys::MNT_DETACH | UMOUNT_NOFOLLOW).map(drop);
    }
    let result = detach(plan, place, op);
    sys::fchdir(place.staging)?;
    result
}

fn bind_by_the_older(plan: &mut PlanFile, place: &Place, op: &FsOp, older: Older) -> Done {
    let source = if op.flags & SOURCE_IN_ROOT != 0 {
        sys::openat2(place.root, plan.str(op.source), sys::O_PATH, resolve_flags(op))
    } else {
        sys::openat(AT_FDCWD, plan.str(op.source), sys::O_PATH, 0)
    };
    let source = match source {
        Err(sys::ENOENT) if op.flags & OPTIONAL != 0 => return Ok(()),
        other => Fd(other.at(Step::Bind)?),
    };
    is_that_file(op, source.0).at(Step::Bind)?;
    let mut op = *op;
    if op.flags & CREATE != 0 && !sys::fstat(source.0).at(Step::Bind)?.is_dir() {
        op.flags |= TARGET_FILE;
    }
    if op.propagation == 0 {
        op.propagation = MS_PRIVATE as u32;
    }
    let found = target(plan, place, &op).at(Step::MountTarget)?;
    if let Some(errno) = other_kind(source.0, found.0) {
        return Err(errno).at(Step::Bind);
    }
    may_cover(&op, source.0, found.0).at(Step::MountTarget)?;
    older.bind(source.0, found.0, change_of(&op), || target(plan, place, &op))
}

fn change_of(op: &FsOp) -> Change {
    Change {
        set: op.attr_set,
        clear: op.attr_clear,
        top_set: op.top_set,
        top_clear: op.top_clear,
        propagation: u64::from(op.propagation) & !MS_REC,
        of_the_top: is_of_the_top(op),
        recursive: op.flags & RECURSIVE != 0,
    }
}

/// What was replaced since the library looked at it is not bound.
fn is_that_file(op: &FsOp, source: i32) -> sys::Result<()> {
    if op.flags & SAME_FILE == 0 {
        return Ok(());
    }
    let found = sys::fstat(source)?;
    if found.identity() == (op.device, op.inode) { Ok(()) } else { Err(sys::ESTALE) }
}

/// A device takes the place of itself, or of an empty file: runtime-spec, config-linux.md, "Devices".
fn may_cover(op: &FsOp, tree: i32, target: i32) -> sys::Result<()> {
    if op.flags & DEVICE == 0 {
        return Ok(());
    }
    let (new, old) = (sys::fstat(tree)?, sys::fstat(target)?);
    let is_empty = old.is_file() && old.size() == 0;
    if is_empty || new.is_same_device(&old) { Ok(()) } else { Err(sys::EEXIST) }
}

/// The kernel says EINVAL where a file and a directory do not go together; this says which of the two is the target.
fn other_kind(tree: i32, target: i32) -> Option<i32> {
    match (sys::fstat(tree).ok()?.is_dir(), sys::fstat(target).ok()?.is_dir()) {
        (true, false) => Some(sys::ENOTDIR),
        (false, true) => Some(sys::EISDIR),
        _ => None,
    }
}

fn clone_tree(plan: &PlanFile, place: &mut Place, op: &FsOp, recursive: u32) -> sys::Result<Fd> {
    if op.flags & TAKEN != 0 {
        return Ok(Fd(core::mem::replace(&mut place.taken, -1)));
    }
    if op.fd >= 0 {
        return Ok(Fd(op.fd));
    }
    if op.flags & SOURCE_IN_ROOT != 0 {
        let source = Fd(sys::openat2(place.root, plan.str(op.source), sys::O_PATH, resolve_flags(op))?);
        return sys::open_tree(source.0, EMPTY, AT_EMPTY_PATH | OPEN_TREE_CLONE | recursive).map(Fd);
    }
    sys::open_tree(AT_FDCWD, plan.str(op.source), OPEN_TREE_CLONE | recursive | nofollow(op)).map(Fd)
}

fn nofollow(op: &FsOp) -> u32 {
    if op.flags & SOURCE_NOFOLLOW != 0 { sys::AT_SYMLINK_NOFOLLOW } else { 0 }
}

/// Applies the attributes of `op` to the tree, if it has any.
fn change(tree: i32, op: &FsOp, recursive: u32) -> sys::Result<()> {
    let propagation = u64::from(op.propagation) & !MS_REC;
    let of_all = if is_of_the_top(op) { MS_PRIVATE } else { propagation };
    if op.attr_set | op.attr_clear | propagation != 0 {
        sys::mount_setattr(tree, EMPTY, AT_EMPTY_PATH | recursive, op.attr_set, op.attr_clear, of_all)?;
    }
    if of_all != propagation {
        sys::mount_setattr(tree, EMPTY, AT_EMPTY_PATH, 0, 0, propagation)?;
    }
    Ok(())
}

/// The mounts below are private, though the top is shared or unbindable. A slave that was private for a moment is none.
fn is_of_the_top(op: &FsOp) -> bool {
    let propagation = u64::from(op.propagation);
    op.flags & RECURSIVE != 0 && propagation & MS_REC == 0 && propagation & (MS_SHARED | MS_UNBINDABLE) != 0
}

/// Applies what `op` wants of the mount itself, but not of those below it.
fn change_top(mount: i32, op: &FsOp) -> sys::Result<()> {
    if op.top_set | op.top_clear != 0 {
        sys::mount_setattr(mount, EMPTY, AT_EMPTY_PATH, op.top_set, op.top_clear, 0)?;
    }
    Ok(())
}

fn setattr(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<()> {
    let is_whole = op.flags & IN_ROOT == 0 && plan.text(op.path) == b"/";
    match setattr_here(plan, place, op) {
        // A root that somebody has changed to by `chroot(2)` is no mount.
        Err(sys::EINVAL) if is_whole => {
            let here = Fd(sys::openat(AT_FDCWD, c".".as_ptr().cast(), sys::O_PATH | sys::O_DIRECTORY, 0)?);
            let root = Fd(sys::openat(AT_FDCWD, c"/".as_ptr().cast(), sys::O_PATH | sys::O_DIRECTORY, 0)?);
            enter_topmost_root()?;
            let result = setattr_here(plan, place, op);
            sys::fchdir(root.0)?;
            sys::chroot(c".".as_ptr().cast())?;
            sys::fchdir(here.0)?;
            result
        }
        other => other,
    }
}

fn setattr_here(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<()> {
    let target = target(plan, place, op)?;
    if let Some(older) = place.older(plan) {
        return older.change(target.0, change_of(op));
    }
    change(target.0, op, if op.flags & RECURSIVE != 0 { AT_RECURSIVE } else { 0 })?;
    change_top(target.0, op)
}

/// Covers a path with our own empty file or directory, never with something of the container's (CVE-2025-31133).
fn mask(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<()> {
    if op.flags & QUICK != 0 {
        let path = plan.str(op.path);
        return match sys::mount(plan.str(op.source), path, EMPTY, MS_BIND, EMPTY) {
            Err(sys::ENOENT) => Ok(()),
            Err(sys::ENOTDIR) => sys::mount(plan.str(op.source2), path, EMPTY, MS_BIND, EMPTY).map(drop),
            other => other.map(drop),
        };
    }
    let target = match target(plan, place, op) {
        Err(sys::ENOENT | sys::ENOTDIR) => return Ok(()),
        other => other?,
    };
    let source = if sys::fstat(target.0)?.is_dir() { op.source2 } else { op.source };
    if let Some(older) = place.older(plan) {
        return older.cover(Fd(sys::openat(AT_FDCWD, plan.str(source), sys::O_PATH, 0)?).0, target.0);
    }
    let tree = Fd(sys::open_tree(AT_FDCWD, plan.str(source), OPEN_TREE_CLONE)?);
    sys::attach(tree.0, target.0).map(drop)
}

fn readonly(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<()> {
    if op.flags & QUICK != 0 {
        let path = plan.str(op.path);
        return match sys::mount(path, path, EMPTY, MS_BIND | MS_REC, EMPTY) {
            Err(sys::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
            Ok(_) => sys::mount(EMPTY, path, EMPTY, MS_BIND | MS_REMOUNT | op.attr_set, EMPTY).map(drop),
        };
    }
    let target = match target(plan, place, op) {
        Err(sys::ENOENT | sys::ENOTDIR) => return Ok(()),
        other => other?,
    };
    if let Some(older) = place.older(plan) {
        let read_only = Change { set: MOUNT_ATTR_RDONLY, recursive: true, ..change_of(op) };
        let made = older.bind(target.0, target.0, read_only, || self::target(plan, place, op));
        return made.map_err(|Failure(_, _, errno)| errno);
    }
    let tree = Fd(sys::open_tree(target.0, EMPTY, AT_EMPTY_PATH | OPEN_TREE_CLONE | AT_RECURSIVE)?);
    sys::mount_setattr(tree.0, EMPTY, AT_EMPTY_PATH | AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0, 0)?;
    sys::attach(tree.0, target.0).map(drop)
}

/// `pivot_root(".", ".")`: the old root ends up on top of the new one, and is detached from there.
///
/// What lies over the old root (the staging area, where it had to be mounted over `/`) comes off first. `/..` would lead
/// to what is left, so it is looked at until it is the new root, and the start fails if that does not come true.
fn pivot(plan: &mut PlanFile, place: &mut Place) -> Done {
    const MOST_LAYERS: usize = 3;
    sys::fchdir(place.root).at(Step::PivotRoot)?;
    let new = sys::mount_id(place.root, EMPTY).at(Step::OldRoot)?;
    match sys::pivot_root_here().or_else(|_| pivot_from_the_topmost(place)) {
        Err(_) if !plan.has(MUST_PIVOT) => {
            move_over_the_root(place, new).at(Step::PivotRoot)?;
            plan.set_root_moved();
        }
        other => other.at(Step::PivotRoot).map(drop)?,
    }
    let mut layers = 0;
    while sys::mount_id(AT_FDCWD, c"/..".as_ptr().cast()).at(Step::OldRoot)? != new {
        if layers == MOST_LAYERS {
            return Err(Failure(Step::PivotRoot, 0, sys::EBUSY));
        }
        sys::umount(c".".as_ptr().cast(), sys::MNT_DETACH).at(Step::Umount)?;
        layers += 1;
    }
    sys::chdir(c"/".as_ptr().cast()).at(Step::PivotRoot)?;
    sys::close(place.root);
    place.root = -1;
    Ok(())
}

/// Who joins its own mount namespace anew has the topmost mount of it as root.
fn enter_topmost_root() -> sys::Result {
    let namespace = Fd(sys::openat(AT_FDCWD, c"/proc/self/ns/mnt".as_ptr().cast(), 0, 0)?);
    sys::setns(namespace.0, namespaces::CLONE_NEWNS)
}

/// The kernel pivots from a mount that lies on another one, not from the initial ramfs nor from a directory that somebody
/// has changed to by `chroot(2)`.
fn pivot_from_the_topmost(place: &Place) -> sys::Result {
    enter_topmost_root()?;
    sys::fchdir(place.root)?;
    sys::pivot_root_here()
}

/// What is left where the kernel allows no `pivot_root(2)`: the old root stays below the new one.
fn move_over_the_root(place: &Place, new: u64) -> sys::Result {
    const MS_MOVE: u64 = 8192;
    sys::fchdir(place.root)?;
    if sys::mount_id(AT_FDCWD, c"/..".as_ptr().cast())? != new {
        sys::mount(c".".as_ptr().cast(), c"/".as_ptr().cast(), EMPTY, MS_MOVE, EMPTY)?;
    }
    sys::chroot(c".".as_ptr().cast())
}

fn resolve_flags(op: &FsOp) -> u64 {
    let symlinks = if op.flags & NO_SYMLINKS != 0 { sys::RESOLVE_NO_SYMLINKS } else { 0 };
    sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS | symlinks
}

/// The place `op.path` names, as a descriptor; made if the operation asks for it.
fn target(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<Fd> {
    if op.flags & IN_ROOT == 0 {
        return sys::openat(AT_FDCWD, plan.str(op.path), sys::O_PATH, 0).map(Fd);
    }
    let last = if op.flags & TARGET_NOFOLLOW != 0 { sys::O_NOFOLLOW } else { 0 };
    match sys::openat2(place.root, plan.str(op.path), sys::O_PATH | last, resolve_flags(op)) {
        Err(sys::ENOENT) if op.flags & CREATE != 0 => create(plan, place, op),
        other => other.map(Fd),
    }
}

/// Makes the directories of a path one by one, each below the descriptor of the one before, and the last part too.
fn create(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<Fd> {
    let path = plan.text_mut(op.path);
    let end = path.len() - 1;
    let mut dir =
        Fd(sys::openat2(place.root, c"/".as_ptr().cast(), sys::O_PATH | sys::O_DIRECTORY, resolve_flags(op))?);
    let mut start = 0;
    for stop in 1..=end {
        if stop < end && path[stop] != b'/' {
            continue;
        }
        if stop > start && path[start..stop] != *b"/" {
            let is_file = stop == end && op.flags & TARGET_FILE != 0;
            let saved = core::mem::replace(&mut path[stop], 0);
            let next =
                open_or_make(place.root, path.as_ptr(), dir.0, last_part(path, stop), is_file, resolve_flags(op));
            path[stop] = saved;
            dir = next?;
        }
        start = stop + 1;
    }
    Ok(dir)
}

/// Where the part of a path that ends at `stop` begins.
fn last_part(path: &[u8], stop: usize) -> sys::CStr {
    let start = path[..stop].iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    path[start..].as_ptr()
}

/// Opens a prefix of a path; where it is missing, makes its last part in `dir`, the descriptor of what is before it.
fn open_or_make(
    root: i32,
    prefix: sys::CStr,
    dir: i32,
    name: sys::CStr,
    is_file: bool,
    resolve: u64,
) -> sys::Result<Fd> {
    match sys::openat2(root, prefix, sys::O_PATH, resolve) {
        Err(sys::ENOENT) => {}
        other => return other.map(Fd),
    }
    if is_file {
        sys::close(sys::openat(dir, name, sys::O_CREAT | sys::O_EXCL | sys::O_WRONLY | sys::O_NOFOLLOW, 0o644)?);
    } else {
        sys::mkdirat(dir, name, 0o755)?;
    }
    sys::openat2(dir, name, sys::O_PATH | sys::O_NOFOLLOW, sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_SYMLINKS).map(Fd)
}

/// Makes something at `op.path` with `make(dir, name)`: in the staging area, or in the root by its parent's descriptor.
fn make(
    plan: &mut PlanFile,
    place: &Place,
    op: &FsOp,
    make: impl Fn(i32, sys::CStr) -> sys::Result,
) -> sys::Result<()> {
    if op.flags & IN_ROOT == 0 {
        return make(AT_FDCWD, plan.str(op.path)).map(drop);
    }
    let (dir, name) = parent(plan, place, op)?;
    make(dir.0, name).map(drop)
}

fn file(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<()> {
    let content = plan.list(op.data);
    let write = |dir: i32, name: sys::CStr| {
        let file = Fd(sys::openat(dir, name, sys::O_CREAT | sys::O_EXCL | sys::O_WRONLY | sys::O_NOFOLLOW, op.mode)?);
        sys::write_all(file.0, content)?;
        sys::fchmod(file.0, op.mode)
    };
    make(plan, place, op, write)
}

/// The directory that holds the last part of `op.path`, and that part.
fn parent(plan: &mut PlanFile, place: &Place, op: &FsOp) -> sys::Result<(Fd, sys::CStr)> {
    let path = plan.text_mut(Str(op.path.0));
    let Some(slash) = path.iter().rposition(|&byte| byte == b'/') else {
        let dir = sys::openat2(place.root, c"/".as_ptr().cast(), sys::O_PATH | sys::O_DIRECTORY, resolve_flags(op))?;
        return Ok((Fd(dir), path.as_ptr()));
    };
    path[slash] = 0;
    let prefix = if slash == 0 { c"/".as_ptr().cast() } else { path.as_ptr() };
    let dir = sys::openat2(place.root, prefix, sys::O_PATH | sys::O_DIRECTORY, resolve_flags(op));
    path[slash] = b'/';
    Ok((Fd(dir?), path[slash + 1..].as_ptr()))
}
