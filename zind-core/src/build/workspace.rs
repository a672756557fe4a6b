//! Where the steps of a build run: layers over the image so far, in a directory that goes away with the build.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::copy::{self, CopyOptions};
use crate::error::{At, Error, Result, Step};
use crate::image::commit::Changes;
use crate::image::{Image, Progress, apply};
use crate::namespace::idmap;
use crate::process::identity::{self, Caller};
use crate::process::launch;
use crate::rootfs::Rootfs;
use crate::rootfs::layers::{self, Layers};
use crate::spec::{IdMaps, Spec, User};
use crate::store::{ImageHold, Owners, Store};

/// What directories of workspaces begin with.
const PREFIX: &str = "work-";

/// The directory is removed when this is dropped, or by the next build after a crash.
pub(super) struct Workspace {
    dir: PathBuf,
    layers: Layers,
    owners_in_xattr: bool,
    #[expect(dead_code, reason = "kept to be dropped")]
    hold: Option<ImageHold>,
    #[expect(dead_code, reason = "kept to be dropped")]
    lock: OwnedFd,
}

impl Workspace {
    pub(super) fn make(
        store: &Store,
        base: Option<&Image>,
        id_maps: &IdMaps,
        progress: &mut dyn Progress,
    ) -> Result<Workspace> {
        let place = store.place().join("build");
        // A directory of which nobody has the lock is left over; one that was just made must not look like that.
        let making = lock(&place, FlockOperation::LockExclusive)?;
        sweep(&place);
        let dir = place.join(format!("{PREFIX}{}", copy::unused_name()));
        std::fs::DirBuilder::new().mode(0o700).create(&dir).at(Step::Build, "mkdir", &dir)?;
        let lock = lock(&dir, FlockOperation::NonBlockingLockExclusive)?
            .ok_or_else(|| Error::State(format!("{} is in use", dir.display())))?;
        drop(making);
        let made = Workspace::fill(&dir, base, id_maps, progress);
        match made {
            Ok((layers, hold, owners_in_xattr)) => Ok(Workspace { dir, layers, owners_in_xattr, hold, lock }),
            Err(error) => {
                let _ = layers::remove_tree(&dir);
                Err(error)
            }
        }
    }

    fn fill(
        dir: &Path,
        base: Option<&Image>,
        id_maps: &IdMaps,
        progress: &mut dyn Progress,
    ) -> Result<(Layers, Option<ImageHold>, bool)> {
        let place = dir.join("layers");
        let caller = Caller::now()?;
        let owners = match id_maps {
            IdMaps::ByPrivilege if caller.admin => Owners::Kept,
            maps => apply::owners_of_maps(maps, caller)?,
        };
        let Some(image) = base else {
            let empty = dir.join("empty");
            std::fs::DirBuilder::new().mode(0o755).create(&empty).at(Step::Build, "mkdir", &empty)?;
            return Ok((Layers::create(place, [empty])?, None, owners == Owners::Xattr));
        };
        let store = image.store();
        let hold = store.hold(image, &owners, progress)?;
        let lowers = store.lowers(image, &owners, progress)?;
        Ok((Layers::create(place, lowers)?, Some(hold), owners == Owners::Xattr))
    }

    pub(super) fn root(&self) -> Rootfs {
        Rootfs::Layers(self.layers.clone())
    }

    /// What the last step changed.
    pub(super) fn changes(&self) -> Result<Changes> {
        self.layers.top_changes(self.owners_in_xattr)
    }

    /// The next step's changes are its own.
    pub(super) fn settle(&self) -> Result<()> {
        self.layers.snapshot(&copy::unused_name())
    }

    pub(super) fn copy(
        &self,
        source: &Path,
        target: &Path,
        owner: &str,
        id_maps: &IdMaps,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let spec = Spec {
            rootfs: self.root(),
            id_maps: id_maps.clone(),
            user: Some(User::Name(owner.to_owned())),
            ..Spec::new(["copy"])
        };
        let ids = identity::resolve(&spec)?.user.unwrap_or((0, 0));
        let owner = self.on_host(ids, id_maps)?;
        let by_range = !Caller::now()?.admin;
        // Nobody runs in there, so whoever the container's root is does not matter.
        let spec = Spec { user: None, ..spec };
        launch::look_at_root(&spec, interrupted, |root, interrupted| {
            let options = CopyOptions { by_range, ..CopyOptions::new().owner(owner.0, owner.1) };
            root.copy_in_interruptible(source, target, &options, interrupted).map(drop)
        })
        .map_err(|error| match error.errno() {
            Some(nix::errno::Errno::EACCES) if by_range => error.with_hint(
                "where another id of the user namespace owns the directory, a step that runs copies there: bind the source, \
                 and run cp",
            ),
            _ => error,
        })
    }

    /// Ids of the container as the caller's.
    fn on_host(&self, (uid, gid): (u32, u32), id_maps: &IdMaps) -> Result<(u32, u32)> {
        let caller = Caller::now()?;
        if *id_maps == IdMaps::ByPrivilege && caller.admin {
            return Ok((uid, gid));
        }
        let maps = idmap::resolve(id_maps, None, (0, 0), caller.admin)?;
        match (idmap::to_host(&maps.uid, uid), idmap::to_host(&maps.gid, gid)) {
            (Some(uid), Some(gid)) => Ok((uid, gid)),
            _ => Err(Error::spec("owner", format!("{uid}:{gid} is not in the id map of the steps"))),
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = layers::remove_tree(&self.dir);
    }
}

fn lock(dir: &Path, how: FlockOperation) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(dir, flags, Mode::empty()).at(Step::Build, "open", dir)?;
    match rustix::io::retry_on_intr(|| flock(&file, how)) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        other => other.at(Step::Build, "flock", dir).map(|()| Some(file)),
    }
}

/// Removes what crashes have left.
fn sweep(place: &Path) {
    let Ok(entries) = std::fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && let Ok(Some(_lock)) = lock(&entry.path(), FlockOperation::NonBlockingLockExclusive)
        {
            let _ = layers::remove_tree(&entry.path());
        }
    }
}
