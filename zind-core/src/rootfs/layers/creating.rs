//! A directory of layers from nothing: over directories, over an image.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{Timespec, Timestamps, XattrFlags};

use super::diff;
use super::edit::Edit;
use super::files::{self, Lock};
use super::state::{Marks, State};
use super::{Ids, Layers, MOST_LOWER, STATE};
use crate::copy::Reach;
use crate::error::{At, Error, Result, Step};
use crate::image::{Image, Progress, apply};
use crate::namespace::idmap::IdMaps;
use crate::owner;
use crate::process::identity::Caller;
use crate::store::Owners;
use crate::store::leases::{self, BaseImage};

impl Layers {
    /// Makes the directory `dir`, which must be missing or empty, with one empty layer over `base`: a root file system,
    /// or several directories, topmost first.
    /// Errors: [`Error::Spec`] for no base, more than 499, or one that is in `dir` or has `dir` in it; [`Error::State`]
    /// if there is something in `dir`, or if it belongs to somebody else; [`Error::Sys`] at [`Step::Layers`].
    pub fn create(dir: impl AsRef<Path>, base: impl IntoIterator<Item = impl Into<PathBuf>>) -> Result<Layers> {
        let base: Vec<PathBuf> = base.into_iter().map(|path| directory(path.into())).collect::<Result<_>>()?;
        Layers::create_of(dir.as_ref(), base, None, |_| Ok(()))
    }

    /// Makes the directory `dir`, which must be missing or empty, with one empty layer over an image. The image stays in its
    /// store as long as the directory is there. A container on these layers runs as the image says, where the caller says
    /// nothing. `id_maps` are those of the containers that are to run on it: they decide whose the image's files are.
    /// Errors: as of [`Layers::create`]; of unpacking the image, if it is not unpacked yet.
    pub fn create_over(
        dir: impl AsRef<Path>,
        image: &Image,
        id_maps: &IdMaps,
        progress: &mut dyn Progress,
    ) -> Result<Layers> {
        let caller = Caller::now()?;
        let owners = match id_maps {
            IdMaps::ByPrivilege if caller.admin => Owners::Kept,
            maps => apply::owners_of_maps(maps, caller)?,
        };
        let store = image.store();
        // Until the directory itself keeps it.
        let _hold = store.hold(image, &owners, progress)?;
        let base = store.lowers(image, &owners, progress)?;
        let base: Vec<PathBuf> = base.into_iter().map(directory).collect::<Result<_>>()?;
        let of = BaseImage {
            store: store.place().to_owned(),
            manifest: image.descriptor().clone(),
            owners_in_xattr: owners == Owners::Xattr,
        };
        Layers::create_of(dir.as_ref(), base, Some(of), |dir| leases::take(store, image.descriptor(), dir))
    }

    /// Layers in a container's own directory, which keeps the image itself. `marks`: of containers that have run already.
    pub(crate) fn create_for(
        dir: &Path,
        base: Vec<PathBuf>,
        image: Option<BaseImage>,
        marks: Option<Marks>,
        ids: &Ids,
    ) -> Result<()> {
        let base = base.into_iter().map(directory).collect::<Result<_>>()?;
        let layers = Layers::create_of(dir, base, image, |_| Ok(()))?;
        if marks.is_some() {
            let mut edit = Edit::begin(&layers)?;
            (edit.state.marks, edit.state.uid_map, edit.state.gid_map) = (marks, ids.uid.clone(), ids.gid.clone());
            edit.commit()?;
        }
        Ok(())
    }

    /// Makes a directory of changes the topmost layer, in place of the empty one. That it is not there is no error.
    pub(crate) fn adopt(&self, upper: &Path) -> Result<()> {
        if !upper.is_dir() {
            return Ok(());
        }
        match std::fs::rename(upper, self.upper()?) {
            // Somebody else has done it just now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.at(Step::Layers, "rename", upper),
        }
    }

    fn create_of(
        dir: &Path,
        base: Vec<PathBuf>,
        image: Option<BaseImage>,
        register: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Layers> {
        if base.is_empty() || base.len() >= MOST_LOWER {
            return Err(Error::spec(
                "base",
                format!("has {} directories; it takes 1 to {}", base.len(), MOST_LOWER - 1),
            ));
        }
        let dir = make_directory(dir)?;
        if let Some(path) = base.iter().find(|path| path.starts_with(&dir) || dir.starts_with(path)) {
            let _ = std::fs::remove_dir(&dir);
            return Err(Error::spec("base", format!("{} and {} lie in each other", path.display(), dir.display())));
        }
        let state = State { image, ..State::new(base) };
        let first = dir.join(state.top.to_string());
        let made = empty_layer(&first, &state.base[0]).and_then(|()| begin(&dir, &state)).and_then(|()| register(&dir));
        made.inspect_err(|_| drop(files::remove_tree(&dir)))?;
        Ok(Layers { dir })
    }
}

/// The file that makes `dir`, which has its first layer, a directory of layers.
pub(super) fn begin(dir: &Path, state: &State) -> Result<()> {
    drop(Lock::take(dir)?);
    files::replace(dir, STATE, &state.encode())?;
    dir.parent().map_or(Ok(()), files::sync_directory)
}

/// An empty directory that as a root looks like `below`: of a stack, `/` itself is that of the topmost.
pub(super) fn empty_layer(path: &Path, below: &Path) -> Result<()> {
    let meta = std::fs::metadata(below).at(Step::Layers, "stat", below)?;
    std::fs::DirBuilder::new().mode(0o700).create(path).at(Step::Layers, "mkdir", path)?;
    like(path, below, &meta).inspect_err(|_| drop(std::fs::remove_dir(path)))
}

fn like(path: &Path, below: &Path, meta: &std::fs::Metadata) -> Result<()> {
    match chown(path, Some(meta.uid()), Some(meta.gid())) {
        // To an ordinary user a foreign root belongs to nobody; here it is the container's.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        other => other.at(Step::Layers, "chown", path)?,
    }
    copy_attributes(below, path);
    let mode = std::fs::Permissions::from_mode(meta.mode() & 0o7777);
    std::fs::set_permissions(path, mode).at(Step::Layers, "chmod", path)?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).at(
        Step::Layers,
        "utimensat",
        path,
    )
}

/// Extended attributes that the caller may set; a root that has others keeps them in the layer below only.
fn copy_attributes(from: &Path, to: &Path) {
    let Ok(file) = std::fs::File::open(from) else { return };
    let file = std::os::fd::AsFd::as_fd(&file);
    for name in diff::attribute_names(file).unwrap_or_default() {
        if let Ok(Some(value)) = diff::attribute(&Reach::default(), file, &name) {
            let _ = rustix::fs::setxattr(to, &name, &value, XattrFlags::empty());
        }
    }
}

fn directory(path: PathBuf) -> Result<PathBuf> {
    let path = path.canonicalize().at(Step::ReadLayers, "realpath", &path)?;
    if !path.is_dir() {
        return Err(Error::sys(Step::ReadLayers, "open", path, Errno::ENOTDIR));
    }
    Ok(path)
}

/// A directory of our own: nobody else may reach the set-uid files that will be in it.
pub(super) fn make_directory(path: &Path) -> Result<PathBuf> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        other => other.at(Step::Layers, "mkdir", path)?,
    }
    let path = directory(path.to_owned())?;
    owner::check(&path, "layers", Step::Layers)?;
    let first: Option<OsString> = match std::fs::read_dir(&path).at(Step::Layers, "open", &path)?.next() {
        Some(entry) => Some(entry.at(Step::Layers, "getdents64", &path)?.file_name()),
        None => None,
    };
    if let Some(name) = first {
        return Err(Error::State(format!("{} is not empty: it has {}", path.display(), name.display())));
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).at(Step::Layers, "chmod", &path)?;
    Ok(path)
}
