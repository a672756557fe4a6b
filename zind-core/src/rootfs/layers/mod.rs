//! [`Layers`]: a root that stays, branches and goes back: overlay layers in a directory.
//!
//! A directory of layers holds `state`, `lock`, `work` and one directory per layer, by number. The layers form a tree over
//! the base; the top is the layer that containers write to. A snapshot gives the top a name and puts an empty layer over
//! it, so it costs the same whatever the root holds. Only `state` says which layers count, and it is replaced as a whole:
//! a process that is killed leaves the old state or the new one, and layers nobody counts are removed by the next opening.
//!
//! There are two locks, taken in this order and never waited for. `lock` is the right to write to the layers: a container
//! has it all its life. The directory itself is locked by who changes `state`. All changes need both, except that a clone
//! goes without the first while a container runs: it adds itself to the state, and takes nothing away from the container.
#![forbid(unsafe_code)]

mod diff;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod state;

use std::ffi::{CString, OsString};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use rustix::fs::{Timespec, Timestamps, XattrFlags};

pub use diff::{Change, ChangeKind, FileType, Metadata};
pub(crate) use diff::{Found, Ids, Layer, Node, View, attribute, attribute_names, link_target};
pub(crate) use files::{Lock, release, remove_tree};
pub(crate) use state::Marks;

use crate::copy::{self, CopyOptions, Reach};
use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::image::commit::{self, Changes};
use crate::image::{CommitOptions, Compression, Image, PackStats, Progress, apply};
use crate::namespace::idmap::{self, IdMaps, ReadyMaps};
use crate::owner;
use crate::process::identity::Caller;
use crate::rootfs::resolve::Side;
use crate::store::leases::{self, BaseImage};
use crate::store::{Owners, Store};
use state::{CloneOf, NONE, Saved, State};

const STATE: &str = "state";
const WORK: &str = "work";
/// What `state` becomes when everything is to be removed.
const DELETED: &str = "deleted";
/// In a directory that is becoming a clone. If there is no `state` beside it, and nobody is changing the layers it was to be
/// cloned from, a crash has left it.
const UNFINISHED: &str = "unfinished";

/// How many directories an overlay stacks: `OVL_MAX_STACK`.
const MOST_LOWER: usize = 500;

/// A root file system that stays from one container to the next, with snapshots to go back to and clones to branch off.
///
/// It is a directory of overlay layers over one or more base directories, which are never written to. The value is only
/// the path: everything else is on disk, and several processes may use it, one at a time. While a container runs on it,
/// and until its end was waited for, only [`Layers::snapshots`], [`Layers::diff`] and [`Layers::clone_to`] work; the rest is
/// [`Error::State`].
///
/// The kernel writes deletions down differently in a user namespace, so layers belong to containers with one or to
/// containers without: the first start settles it. A directory of layers that is a clone or has clones must stay where it
/// is, for they name each other by path.
///
/// Source: <https://docs.kernel.org/filesystems/overlayfs.html>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    dir: PathBuf,
}

/// A state of the root that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// The snapshot it came after; `None` for one that came from the base.
    pub parent: Option<String>,
    /// When it was made.
    pub time: SystemTime,
}

impl Layers {
    /// What was opened before; a start looks whether it is still there.
    pub(crate) fn at(dir: PathBuf) -> Layers {
        Layers { dir }
    }

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

    /// The layers in a directory. What a crash has left there is removed, unless they are in use.
    /// Errors: [`Error::NotFound`] if there are none; [`Error::State`] for a file `state` that this version cannot read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Layers> {
        let dir = dir.as_ref();
        let found = dir.canonicalize().map_err(IntoErrno::into_errno);
        let layers = match found {
            Ok(dir) => Layers { dir },
            Err(Errno::ENOENT) => return Err(not_there(dir)),
            Err(errno) => return Err(errno).at(Step::ReadLayers, "realpath", dir),
        };
        let state = layers.state()?;
        if let Some(image) = &state.image
            && let Ok(store) = Store::open(Some(image.store.clone()))
            && !leases::has(&store, &layers.dir)
        {
            // A crash came between the two; or the store was moved.
            let _ = leases::take(&store, &image.manifest, &layers.dir);
        }
        match Edit::begin(&layers) {
            // What cannot be removed now is in nobody's way.
            Ok(_) | Err(Error::State(_)) => Ok(layers),
            Err(error) => Err(error),
        }
    }

    /// Where they are: an absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory that containers write to now. Snapshots and restores change it.
    pub fn upper(&self) -> Result<PathBuf> {
        self.state().map(|state| self.layer(state.top))
    }

    /// The directories below all layers, topmost first.
    pub fn base(&self) -> Result<Vec<PathBuf>> {
        self.state().map(|state| state.base)
    }

    /// The image that the base is of, if it is one.
    /// Errors: [`Error::NotFound`] if somebody took it from the store; [`Error::Image`] if it is broken.
    pub fn image(&self) -> Result<Option<Image>> {
        let Some(base) = self.state()?.image else { return Ok(None) };
        self.base_image(&Store::open(Some(base.store.clone()))?, &base).map(Some)
    }

    fn base_image(&self, store: &Store, base: &BaseImage) -> Result<Image> {
        Image::of_manifest(store, &base.manifest).map_err(|error| match error {
            Error::NotFound { what, name } => {
                let (dir, place) = (self.dir.display(), store.place().display());
                let text =
                    format!("{} below {dir}, of which the store {place} has no {what} {name}", base.manifest.digest);
                Error::NotFound { what: "image", name: text + "; pull or load it again" }
            }
            error => error,
        })
    }

    /// Makes an image of everything that was changed: one layer over the image that these layers lie on. Of layers over
    /// plain directories it is an image of one layer that has everything. `store` must be the base image's.
    ///
    /// Deletions, owners (as the containers saw them), modes, times, hard links, extended attributes and capabilities are in
    /// the layer. The layers themselves do not change. While a container runs on them, pause it meanwhile.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Pack`] with the path of what the caller may not read; [`Error::Image`] for a file
    /// that no layer can hold: one whose name begins with `.wh.`, or whose owner is outside of the containers' id maps.
    pub fn commit(&self, store: &Store, options: &CommitOptions, progress: &mut dyn Progress) -> Result<Image> {
        let _lock = Lock::take(&self.dir);
        let state = self.state()?;
        let Some(base) = &state.image else {
            return commit::commit(store, None, &self.whole(&state), options, progress);
        };
        if base.store != store.place() {
            let rule =
                format!("is {}, but the image of the layers is in {}", store.place().display(), base.store.display());
            return Err(Error::spec("store", rule));
        }
        let image = self.base_image(store, base)?;
        let mut changes = self.whole(&state);
        changes.below = changes.stack.split_off(changes.stack.len() - state.base.len());
        commit::commit(store, Some(&image), &changes, options, progress)
    }

    /// Writes the present state, with all that lies below, as a tar of a root file system. `path` must not exist.
    /// Errors: as [`Layers::commit`].
    pub fn export(&self, path: &Path, compression: Compression, progress: &mut dyn Progress) -> Result<PackStats> {
        let _lock = Lock::take(&self.dir);
        commit::export(&self.whole(&self.state()?), path, compression, progress)
    }

    /// What was changed since the last snapshot.
    pub(crate) fn top_changes(&self, owners_in_xattr: bool) -> Result<Changes> {
        let mut changes = self.whole(&self.state()?);
        changes.below = changes.stack.split_off(1);
        changes.owners_in_xattr = owners_in_xattr;
        Ok(changes)
    }

    /// The layers and the base.
    fn whole(&self, state: &State) -> Changes {
        Changes {
            stack: self.stack(state, state.top).into_iter().map(|layer| layer.0).collect(),
            below: Vec::new(),
            marks: Some(state.marks.unwrap_or_else(Marks::of_caller)),
            ids: Ids { uid: state.uid_map.clone(), gid: state.gid_map.clone() },
            owners_in_xattr: state.image.as_ref().is_some_and(|image| image.owners_in_xattr),
            volumes: Vec::new(),
        }
    }

    /// Gives up safety against power loss for speed: the kernel then syncs nothing when a container ends (overlay's option
    /// `volatile`). After a crash of the machine, what was written since the last sync may be torn. Off at first.
    pub fn set_volatile(&self, volatile: bool) -> Result<()> {
        let mut edit = Edit::begin(self)?;
        edit.state.volatile = volatile;
        edit.commit()
    }

    /// Whether [`Layers::set_volatile`] is on.
    pub fn is_volatile(&self) -> Result<bool> {
        self.state().map(|state| state.volatile)
    }

    /// Gives the present state a name. The cost does not depend on the size of the root or of the changes.
    /// Errors: [`Error::Spec`] for a name that is empty, longer than 255 bytes or has control characters; [`Error::State`]
    /// if the layers are in use, the name is taken, or 500 layers lie on each other, which is all an overlay can have.
    pub fn snapshot(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let mut edit = Edit::begin(self)?;
        if edit.state.find(name).is_some() {
            return Err(Error::State(format!("there is a snapshot {name:?} in {} already", self.dir.display())));
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let layer = edit.state.top;
        edit.state.snapshots.push(Saved { name: name.to_owned(), layer, time_ns });
        edit.grow(layer)
    }

    /// Throws away what was changed since and is exactly as it was at a snapshot. Snapshots made after that one stay.
    /// Errors: [`Error::NotFound`]; [`Error::State`] if the layers are in use.
    pub fn restore(&self, name: &str) -> Result<()> {
        let mut edit = Edit::begin(self)?;
        let layer = self.find(&edit.state, name)?.layer;
        edit.grow(layer)?;
        // The state is restored; whatever of the old one resists is removed another time.
        let _ = edit.clean();
        Ok(())
    }

    /// All snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let state = self.state()?;
        let snapshot = |saved: &Saved| Snapshot {
            name: saved.name.clone(),
            parent: parent(&state, saved),
            time: UNIX_EPOCH + Duration::from_nanos(saved.time_ns),
        };
        Ok(state.snapshots.iter().map(snapshot).collect())
    }

    /// Forgets a snapshot, and removes the layers that nothing else stands on. The present state does not change.
    /// Errors: [`Error::NotFound`]; [`Error::State`] if the layers are in use; [`Error::Sys`] at [`Step::Layers`] where
    /// files cannot be removed, which the next opening tries again.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut edit = Edit::begin(self)?;
        self.find(&edit.state, name)?;
        edit.state.snapshots.retain(|saved| saved.name != name);
        edit.commit()?;
        edit.clean()
    }

    /// What differs between a snapshot (`None`: the base) and the present state, sorted by path. The cost depends on what
    /// was changed, not on the size of the root: only the layers that are not common to both are walked.
    ///
    /// A directory that is gone is one change, whatever was in it. The times and the size of a directory are no change
    /// of it, since they follow from its entries. A file whose metadata is the same is compared by content. Hard links
    /// are separate files. While a container runs, files may change under the walk.
    ///
    /// Errors: [`Error::NotFound`]; [`Error::Sys`] at [`Step::ReadLayers`] with the path of what the caller may not read:
    /// an ordinary user cannot look into what a container locked by its mode, or made as another id.
    pub fn diff(&self, since: Option<&str>) -> Result<Vec<Change>> {
        // Against a restore in the middle; a container that runs removes no layer.
        let _lock = Lock::take(&self.dir);
        let state = self.state()?;
        let old = since.map_or(Ok(NONE), |name| self.find(&state, name).map(|saved| saved.layer))?;
        let new = self.view(&state)?;
        let old = new.beside(self.stack(&state, old))?;
        diff::compare(&old, &new, &Ids { uid: state.uid_map.clone(), gid: state.gid_map.clone() })
    }

    /// Makes `dir`, which must be missing or empty, another root in the present state. From then on both go their own
    /// ways. The layers up to now are shared and stay in this directory, which can only be deleted after its clones.
    /// The clone has no snapshots; its base is the same.
    ///
    /// While a container runs on these layers, the one it writes to cannot be shared: it is copied, which costs in proportion
    /// to what was changed since the last snapshot. Pause the container meanwhile (SIGSTOP to its processes, or the freezer
    /// of its control group), for the copy to be of one moment; otherwise what changes under it may be torn. Owners, modes,
    /// times, extended attributes, hard links, holes and deletions are as in the original.
    ///
    /// Errors: as for [`Layers::snapshot`] and [`Layers::create`]; of a copy also [`Error::Sys`] at [`Step::Layers`] with the
    /// path of what the caller may not read or make, as for [`Layers::diff`]. Then nothing is left of the clone.
    pub fn clone_to(&self, dir: impl AsRef<Path>) -> Result<Layers> {
        let mut edit = Edit::begin_beside(self)?;
        let dir = make_directory(dir.as_ref())?;
        let result = edit.branch(&dir);
        if result.is_err() {
            let _ = files::remove_tree(&dir);
            edit.state.clones.retain(|clone| clone.dir != dir);
            let _ = edit.commit();
        }
        result.map(|()| Layers { dir })
    }

    /// Removes the directory and everything in it.
    /// Errors: [`Error::State`] if the layers are in use or have clones; [`Error::Sys`] at [`Step::Layers`] with the path
    /// of what cannot be removed: then the layers are layers no more, and a second call removes what the first could not.
    pub fn delete(&self) -> Result<()> {
        if self.dir.join(DELETED).exists() {
            let _lock = Lock::take(&self.dir)?;
            return files::remove_tree(&self.dir);
        }
        let edit = Edit::begin(self)?;
        if let Some(clone) = edit.state.clones.first() {
            let text = format!("{} has clones, which need its layers: {}", self.dir.display(), clone.dir.display());
            return Err(Error::State(text));
        }
        let (path, deleted) = (self.dir.join(STATE), self.dir.join(DELETED));
        std::fs::rename(&path, &deleted).at(Step::Layers, "rename", &path)?;
        if let Some(image) = &edit.state.image
            && let Ok(store) = Store::open(Some(image.store.clone()))
        {
            leases::drop_of(&store, &self.dir);
        }
        if let Some(source) = &edit.state.source {
            // It notices by itself that the clone is gone; if it is in use, later.
            let _ = Edit::begin(&Layers { dir: source.clone() });
        }
        files::remove_tree(&self.dir)
    }

    fn layer(&self, number: u32) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// The directory; it is looked at before a lock is made in it.
    fn dir_with_state(&self) -> Result<&Path> {
        if self.dir.join(STATE).exists() { Ok(&self.dir) } else { Err(not_there(&self.dir)) }
    }

    fn state(&self) -> Result<State> {
        let path = self.dir.join(STATE);
        let bytes = files::read(&path).map_err(|error| match error.errno() {
            Some(Errno::ENOENT | Errno::ENOTDIR) => not_there(&self.dir),
            _ => error,
        })?;
        State::parse(&bytes).map_err(|what| Error::State(format!("{} {what}", path.display())))
    }

    fn find<'a>(&self, state: &'a State, name: &str) -> Result<&'a Saved> {
        state.find(name).ok_or_else(|| Error::NotFound { what: "snapshot", name: name.to_owned() })
    }

    /// The directories of a layer and everything below, topmost first; of [`NONE`] it is the base.
    fn stack(&self, state: &State, layer: u32) -> Vec<Layer> {
        let own = state.chain(layer).into_iter().map(|number| self.layer(number));
        let shared = state.shared.iter().filter(|_| layer != NONE);
        own.chain(shared.cloned()).chain(state.base.iter().cloned()).map(Layer).collect()
    }

    fn view(&self, state: &State) -> Result<View> {
        let marks = state.marks.unwrap_or_else(Marks::of_caller);
        View::open(self.stack(state, state.top), Some(marks))
    }

    /// The directory whose file is seen at a path, if there is one.
    pub(crate) fn provider(&self, path: &Path) -> Result<Option<PathBuf>> {
        self.view(&self.state()?)?.provider(path)
    }

    /// What a mount of the layers takes.
    /// The directories of all layers, topmost first.
    pub(crate) fn trees(&self) -> Result<Vec<PathBuf>> {
        let Parts { binds, lower, .. } = self.parts()?;
        let place = |name: &String| {
            let (bind, below) = name.split_once('/').unwrap_or((name, ""));
            binds.iter().find(|(_, known)| known == bind).map(|(path, _)| path.join(below))
        };
        Ok(lower.iter().filter_map(place).collect())
    }

    pub(crate) fn parts(&self) -> Result<Parts> {
        let state = self.state()?;
        let mut binds = vec![(self.dir.clone(), "o".to_owned())];
        let mut lower: Vec<String> = state.chain(state.top).iter().map(|number| format!("o/{number}")).collect();
        for path in &state.shared {
            let (dir, number) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
            let known = binds.iter().find(|(other, _)| other == dir).map(|(_, name)| name.clone());
            let name = known.unwrap_or_else(|| {
                let name = format!("s{}", binds.len());
                binds.push((dir.to_owned(), name.clone()));
                name
            });
            lower.push(format!("{name}/{}", number.to_string_lossy()));
        }
        for (index, path) in state.base.iter().enumerate() {
            binds.push((path.clone(), format!("b{index}")));
            lower.push(format!("b{index}"));
        }
        Ok(Parts { binds, lower, work: format!("o/{WORK}"), volatile: state.volatile })
    }
}

/// Directories of a mount, by short names of zind's own: whatever a path has in it, no option has to quote it.
pub(crate) struct Parts {
    /// What is bound, and under which name.
    pub(crate) binds: Vec<(PathBuf, String)>,
    /// All layers, topmost first; the first is the one that is written to.
    pub(crate) lower: Vec<String>,
    pub(crate) work: String,
    pub(crate) volatile: bool,
}

impl Parts {
    /// The options of the overlay, as names and values.
    pub(crate) fn options(&self, read_only: bool, user: bool) -> Vec<(&'static str, String)> {
        let lower = if read_only { &self.lower[..] } else { &self.lower[1..] };
        let mut options: Vec<_> = lower.iter().map(|name| ("lowerdir+", name.clone())).collect();
        if !read_only {
            options.push(("upperdir", self.lower[0].clone()));
            options.push(("workdir", self.work.clone()));
        }
        // Layers stay plain trees, which can be compared, copied and stacked anew.
        for (name, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "off")] {
            options.push((name, value.to_owned()));
        }
        for (name, is_on) in [("userxattr", user), ("volatile", self.volatile && !read_only)] {
            if is_on {
                options.push((name, String::new()));
            }
        }
        options
    }

    /// The same for mount(2), which takes one page of text; none if it is more. Of the kernels before 6.8, which know
    /// nothing else, this is what the largest number of layers depends on.
    pub(crate) fn text(&self, options: &[(&str, String)]) -> Option<CString> {
        const PAGE: usize = 4096;
        let is_lower = |option: &&(&str, String)| option.0 == "lowerdir+";
        let lower: Vec<&str> = options.iter().filter(is_lower).map(|(_, value)| value.as_str()).collect();
        let others = options.iter().filter(|option| !is_lower(option));
        let words =
            others.map(|(name, value)| if value.is_empty() { (*name).to_owned() } else { format!("{name}={value}") });
        let text = [format!("lowerdir={}", lower.join(":"))].into_iter().chain(words).collect::<Vec<_>>().join(",");
        CString::new(text).ok().filter(|text| text.as_bytes().len() < PAGE)
    }
}

/// Layers whose state nobody else changes.
struct Edit {
    layers: Layers,
    state: State,
    /// None if somebody else has it: a container runs on them.
    lock: Option<Lock>,
    #[expect(dead_code, reason = "kept to be dropped")]
    editing: Lock,
}

impl Edit {
    /// Takes both locks, reads the state and removes what a crash has left.
    fn begin(layers: &Layers) -> Result<Edit> {
        let lock = Lock::take(layers.dir_with_state()?)?;
        Edit::with(layers, Some(lock))
    }

    /// The same, but a container may run on the layers.
    fn begin_beside(layers: &Layers) -> Result<Edit> {
        let lock = Lock::try_take(layers.dir_with_state()?)?;
        Edit::with(layers, lock)
    }

    fn with(layers: &Layers, lock: Option<Lock>) -> Result<Edit> {
        let editing = Lock::take_for_editing(&layers.dir)?;
        let mut state = layers.state()?;
        let clones = std::mem::take(&mut state.clones);
        let (live, dead): (Vec<_>, Vec<_>) = clones.into_iter().partition(|clone| is_live(&layers.dir, clone));
        state.clones = live;
        let mut edit = Edit { layers: layers.clone(), state, lock, editing };
        dead.iter().for_each(|clone| remove_unfinished(&clone.dir));
        if !dead.is_empty() {
            edit.commit()?;
        }
        if edit.lock.is_some() {
            let _ = edit.clean();
        }
        Ok(edit)
    }

    fn commit(&mut self) -> Result<()> {
        self.state.forget_the_unneeded();
        files::replace(&self.layers.dir, STATE, &self.state.encode())
    }

    /// Puts an empty layer over `below` and makes it the top.
    fn grow(&mut self, below: u32) -> Result<()> {
        if self.state.depth(below) >= MOST_LOWER {
            return Err(Error::State(format!(
                "{} has {MOST_LOWER} layers on each other, and an overlay takes no more; restore an earlier snapshot",
                self.layers.dir.display()
            )));
        }
        let number = self.make_layer(below)?;
        self.state.parents.insert(number, below);
        self.state.top = number;
        self.commit().inspect_err(|_| drop(std::fs::remove_dir(self.layers.layer(number))))
    }

    fn make_layer(&self, below: u32) -> Result<u32> {
        // Small numbers, because the names of all layers have to fit into one page.
        let mut free = (1..).filter(|number| !self.state.parents.contains_key(number));
        loop {
            let number = free.next().unwrap_or(u32::MAX);
            match empty_layer(&self.layers.layer(number), &self.layers.layer(below)) {
                Err(error) if error.errno() == Some(Errno::EEXIST) => {}
                other => return other.map(|()| number),
            }
        }
    }

    fn branch(&mut self, dir: &Path) -> Result<()> {
        let top = self.state.top;
        let is_shared = self.lock.is_some();
        // What a container writes to is copied; what is below it does not change any more.
        let below = if is_shared { top } else { self.state.parents.get(&top).copied().unwrap_or(NONE) };
        self.state.clones.push(CloneOf { dir: dir.to_owned(), layer: below });
        if is_shared { self.grow(below) } else { self.commit() }?;
        let unfinished = dir.join(UNFINISHED);
        std::fs::File::create(&unfinished).at(Step::Layers, "open", &unfinished)?;
        let own = self.state.chain(below).into_iter().map(|number| self.layers.layer(number));
        let state = State {
            shared: own.chain(self.state.shared.iter().cloned()).collect(),
            source: Some(self.layers.dir.clone()),
            marks: self.state.marks,
            uid_map: self.state.uid_map.clone(),
            gid_map: self.state.gid_map.clone(),
            volatile: self.state.volatile,
            image: self.state.image.clone(),
            ..State::new(self.state.base.clone())
        };
        let first = dir.join(state.top.to_string());
        if is_shared {
            empty_layer(&first, &self.layers.layer(below))?;
        } else {
            copy_layer(&self.layers.layer(top), &first, state.volatile)?;
        }
        begin(dir, &state)?;
        if let Some(image) = &state.image {
            leases::take(&Store::open(Some(image.store.clone()))?, &image.manifest, dir)?;
        }
        std::fs::remove_file(&unfinished).at(Step::Layers, "unlink", &unfinished)
    }

    /// Removes the layers that are none. The first that cannot be removed is the error; the others go.
    fn clean(&self) -> Result<()> {
        let dir = &self.layers.dir;
        let entries = std::fs::read_dir(dir).at(Step::Layers, "open", dir)?;
        let mut result = Ok(());
        for entry in entries {
            let name = entry.at(Step::Layers, "getdents64", dir)?.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u32>().ok());
            if number.is_some_and(|number| !self.state.parents.contains_key(&number)) {
                let removed = files::remove_tree(&dir.join(&name));
                result = result.and(removed);
            }
        }
        for name in ["state.new", UNFINISHED] {
            let _ = std::fs::remove_file(dir.join(name));
        }
        result
    }
}

/// The right to run a container on layers.
pub(crate) struct Tenancy(Edit);

impl Tenancy {
    /// Takes the lock.
    pub(crate) fn begin(layers: &Layers) -> Result<Tenancy> {
        Edit::begin(layers).map(Tenancy)
    }

    /// From here on the container alone keeps others away.
    pub(crate) fn into_lock(self) -> Option<Lock> {
        self.0.lock
    }

    /// The directory that is written to.
    pub(crate) fn upper(&self) -> PathBuf {
        self.0.layers.layer(self.0.state.top)
    }

    /// Makes the layers ready for one container with these ids.
    pub(crate) fn furnish(&mut self, user_namespace: bool, maps: Option<&ReadyMaps>) -> Result<()> {
        let Edit { layers, state, .. } = &mut self.0;
        let marks = if user_namespace { Marks::User } else { Marks::Trusted };
        if state.marks.is_some_and(|settled| settled != marks) {
            let (was, is) = if user_namespace { ("without", "with") } else { ("with", "without") };
            return Err(Error::State(format!(
                "the layers in {} were made by containers {was} a user namespace, and this one is {is}: deletions would come undone",
                layers.dir.display()
            )));
        }
        let (uid, gid) = maps.map(|maps| (maps.uid.clone(), maps.gid.clone())).unwrap_or_default();
        if state.marks.is_none() || (&state.uid_map, &state.gid_map) != (&uid, &gid) {
            (state.marks, state.uid_map, state.gid_map) = (Some(marks), uid, gid);
            self.0.commit()?;
        }
        let work = self.0.layers.dir.join(WORK);
        // What an earlier container has left in it is of no use, and in the way of a volatile mount.
        files::remove_tree(&work)?;
        std::fs::DirBuilder::new().mode(0o700).create(&work).at(Step::Layers, "mkdir", &work)?;
        maps.map_or(Ok(()), |maps| let_in(&[&self.0.layers.dir, &work], maps))
    }
}

/// Makes the root of a user namespace the owner of what it has to go through. For an ordinary user it is the same id.
fn let_in(directories: &[&PathBuf], maps: &ReadyMaps) -> Result<()> {
    let (Some(uid), Some(gid)) = (idmap::to_host(&maps.uid, 0), idmap::to_host(&maps.gid, 0)) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    directories.iter().try_for_each(|path| chown(path, Some(uid), Some(gid)).at(Step::Layers, "chown", path))
}

/// Makes the places for changes in a directory of the caller's, for a container with these ids: what cannot write there would
/// get an overlay that cannot be written to.
pub(crate) fn let_into(dir: &Path, maps: &ReadyMaps) -> Result<()> {
    let places = ["upper", WORK].map(|name| dir.join(name));
    places.iter().try_for_each(|path| std::fs::create_dir_all(path).at(Step::Mkdir, "mkdir", path))?;
    let_in(&places.each_ref(), maps)
}

/// The file that makes `dir`, which has its first layer, a directory of layers.
fn begin(dir: &Path, state: &State) -> Result<()> {
    drop(Lock::take(dir)?);
    files::replace(dir, STATE, &state.encode())?;
    dir.parent().map_or(Ok(()), files::sync_directory)
}

/// An empty directory that as a root looks like `below`: of a stack, `/` itself is that of the topmost.
fn empty_layer(path: &Path, below: &Path) -> Result<()> {
    let meta = std::fs::metadata(below).at(Step::Layers, "stat", below)?;
    std::fs::DirBuilder::new().mode(0o700).create(path).at(Step::Layers, "mkdir", path)?;
    like(path, below, &meta).inspect_err(|_| drop(std::fs::remove_dir(path)))
}

/// A layer as it is, overlay's marks included, in a new directory.
fn copy_layer(from: &Path, to: &Path, volatile: bool) -> Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(to).at(Step::Layers, "mkdir", to)?;
    let (host, options) = (Side::host(), CopyOptions::of_a_layer());
    copy::copy((host, &from.join(".")), (host, to), &options, Step::Layers, &mut || false)?;
    if volatile {
        return Ok(());
    }
    // The state, which is synced, must not speak of files that are not on the disk.
    let dir = std::fs::File::open(to.parent().unwrap_or(to)).at(Step::Layers, "open", to)?;
    rustix::fs::syncfs(&dir).at(Step::Layers, "syncfs", to)
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

/// The snapshot nearest below another.
fn parent(state: &State, saved: &Saved) -> Option<String> {
    let below = state.chain(saved.layer);
    let named = |layer: &u32| state.snapshots.iter().find(|other| other.layer == *layer);
    below.iter().skip(1).find_map(named).map(|other| other.name.clone())
}

/// Removes what was to become a clone when its maker was killed.
fn remove_unfinished(dir: &Path) {
    if dir.join(UNFINISHED).exists() && !dir.join(STATE).exists() {
        let _ = files::remove_tree(dir);
    }
}

/// True as long as the clone is there and still lies on our layers.
fn is_live(dir: &Path, clone: &CloneOf) -> bool {
    match std::fs::read(clone.dir.join(STATE)) {
        // A file nobody can read now may be read later.
        Ok(bytes) => State::parse(&bytes).map_or(true, |state| state.source.as_deref() == Some(dir)),
        Err(error) => !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)),
    }
}

fn not_there(dir: &Path) -> Error {
    Error::NotFound { what: "directory of layers", name: dir.display().to_string() }
}

/// What a directory of changes has against the directories below it.
pub(crate) fn changes_over(upper: &Path, lowers: &[PathBuf], marks: Marks, ids: &Ids) -> Result<Vec<Change>> {
    let layers = |paths: &mut dyn Iterator<Item = &Path>| paths.map(|path| Layer(path.to_owned())).collect::<Vec<_>>();
    let new = View::open(layers(&mut std::iter::once(upper).chain(lowers.iter().map(PathBuf::as_path))), Some(marks))?;
    let old = new.beside(layers(&mut lowers.iter().map(PathBuf::as_path)))?;
    diff::compare(&old, &new, ids)
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        return Err(Error::spec("name", format!("{name:?} must have 1 to 255 bytes and no control characters")));
    }
    Ok(())
}

fn directory(path: PathBuf) -> Result<PathBuf> {
    let path = path.canonicalize().at(Step::ReadLayers, "realpath", &path)?;
    if !path.is_dir() {
        return Err(Error::sys(Step::ReadLayers, "open", path, Errno::ENOTDIR));
    }
    Ok(path)
}

/// A directory of our own: nobody else may reach the set-uid files that will be in it.
fn make_directory(path: &Path) -> Result<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let dir = std::env::temp_dir().join(format!("zind-test-layers-{name}-{}", std::process::id()));
            std::fs::create_dir_all(dir.join("base")).unwrap();
            std::fs::write(dir.join("base/file"), "base").unwrap();
            Place(dir)
        }

        fn layers(&self) -> Layers {
            Layers::create(self.0.join("layers"), [self.0.join("base")]).unwrap()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn write(layers: &Layers, name: &str, content: &str) {
        std::fs::write(layers.upper().unwrap().join(name), content).unwrap();
    }

    fn changes(layers: &Layers, since: Option<&str>) -> Vec<(&'static str, String)> {
        let text = |change: Change| (change.kind.name(), change.path.to_string_lossy().into_owned());
        layers.diff(since).unwrap().into_iter().map(text).collect()
    }

    fn entries(layers: &Layers) -> Vec<String> {
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(layers.dir()).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn snapshots_are_returned_to_and_branched_from() {
        let place = Place::new("branch");
        let layers = place.layers();
        write(&layers, "a", "1");
        layers.snapshot("one").unwrap();
        write(&layers, "file", "changed");
        layers.snapshot("two").unwrap();
        write(&layers, "b", "1");
        assert_eq!(changes(&layers, Some("two")), [("added", "/b".to_owned())]);
        layers.restore("one").unwrap();
        assert_eq!(changes(&layers, None), [("added", "/a".to_owned())]);
        assert_eq!(changes(&layers, Some("two")), [("modified", "/file".to_owned())]);
        write(&layers, "c", "1");
        layers.snapshot("three").unwrap();
        let parents: Vec<_> = layers.snapshots().unwrap().into_iter().map(|s| (s.name, s.parent)).collect();
        let parent = |name: &str, parent: Option<&str>| (name.to_owned(), parent.map(str::to_owned));
        assert_eq!(parents, [parent("one", None), parent("two", Some("one")), parent("three", Some("one"))]);
        layers.remove("two").unwrap();
        assert_eq!(changes(&layers, None), [("added", "/a".to_owned()), ("added", "/c".to_owned())]);
        assert_eq!(entries(&layers), ["1", "3", "4", "lock", "state"]);
        layers.delete().unwrap();
        assert!(!layers.dir().exists());
    }

    #[test]
    fn clones_go_their_own_ways_and_hold_what_they_share() {
        let place = Place::new("clone");
        let layers = place.layers();
        write(&layers, "a", "1");
        let clone = layers.clone_to(place.0.join("clone")).unwrap();
        let second = clone.clone_to(place.0.join("second")).unwrap();
        write(&layers, "mine", "1");
        write(&clone, "yours", "1");
        assert_eq!(changes(&layers, None), [("added", "/a".to_owned()), ("added", "/mine".to_owned())]);
        assert_eq!(changes(&clone, None), [("added", "/a".to_owned()), ("added", "/yours".to_owned())]);
        assert_eq!(changes(&second, None), [("added", "/a".to_owned())]);
        assert!(matches!(layers.delete(), Err(Error::State(text)) if text.contains("clones")));
        assert!(matches!(clone.delete(), Err(Error::State(_))));
        second.delete().unwrap();
        clone.delete().unwrap();
        layers.delete().unwrap();
    }

    #[test]
    fn a_clone_beside_a_container_copies_what_is_written_to() {
        let place = Place::new("beside");
        let layers = place.layers();
        write(&layers, "below", "1");
        let first = || Layers { dir: place.0.join("first") };
        for (name, depth) in [("first", 1), ("second", 2)] {
            write(&layers, name, "1");
            let lock = Lock::take(layers.dir()).unwrap();
            let clone = layers.clone_to(place.0.join(name)).unwrap();
            assert!(matches!(layers.snapshot("x"), Err(Error::State(_))));
            write(&layers, name, "changed");
            assert_eq!(std::fs::read(clone.upper().unwrap().join(name)).unwrap(), b"1");
            assert_eq!(clone.state().unwrap().depth(clone.state().unwrap().top), depth + 1);
            assert_eq!(entries(&clone), ["1", "lock", "state"]);
            let editing = Lock::take_for_editing(layers.dir()).unwrap();
            assert!(
                matches!(layers.clone_to(place.0.join("no")), Err(Error::State(text)) if text.contains("changing"))
            );
            drop((lock, editing));
            assert!(matches!(layers.delete(), Err(Error::State(text)) if text.contains("clones")));
            layers.snapshot(name).unwrap();
        }
        assert!(!place.0.join("no").exists());
        let second = Layers::open(place.0.join("second")).unwrap();
        layers.remove("first").unwrap();
        assert_eq!(changes(&second, None).len(), 3);
        first().delete().unwrap();
        second.delete().unwrap();
        layers.delete().unwrap();
    }

    #[test]
    fn a_clone_that_a_crash_left_half_made_is_removed() {
        let place = Place::new("half");
        let layers = place.layers();
        let clone = layers.clone_to(place.0.join("clone")).unwrap();
        std::fs::write(clone.dir().join(UNFINISHED), "").unwrap();
        Layers::open(layers.dir()).unwrap();
        assert_eq!(entries(&Layers::open(clone.dir()).unwrap()), ["1", "lock", "state"]);
        std::fs::write(clone.dir().join(UNFINISHED), "").unwrap();
        std::fs::remove_file(clone.dir().join(STATE)).unwrap();
        Layers::open(layers.dir()).unwrap();
        assert!(!clone.dir().exists());
        layers.delete().unwrap();
    }

    #[test]
    fn what_a_crash_leaves_is_removed() {
        let place = Place::new("crash");
        let layers = place.layers();
        std::fs::create_dir_all(layers.dir().join("7/x")).unwrap();
        std::fs::write(layers.dir().join("state.new"), "half").unwrap();
        Layers::open(layers.dir()).unwrap();
        assert_eq!(entries(&layers), ["1", "lock", "state"]);
    }

    #[test]
    fn mistakes_are_errors_that_name_them() {
        let place = Place::new("mistakes");
        let base = place.0.join("base");
        let create = |dir: &str, base: &[&Path]| Layers::create(place.0.join(dir), base.iter().copied());
        assert_eq!(create("x", &[]).unwrap_err().field(), Some("base"));
        assert_eq!(create("base/x", &[&base]).unwrap_err().field(), Some("base"));
        assert_eq!(create("x", &[&base.join("none")]).unwrap_err().errno(), Some(Errno::ENOENT));
        assert_eq!(create("x", &[&base.join("file")]).unwrap_err().errno(), Some(Errno::ENOTDIR));
        assert!(matches!(create("base", &[&base]), Err(Error::State(_))));
        assert!(matches!(Layers::open(&base), Err(Error::NotFound { .. })));
        let layers = place.layers();
        for name in ["", "a\nb", &"x".repeat(256)] {
            assert_eq!(layers.snapshot(name).unwrap_err().field(), Some("name"));
        }
        layers.snapshot("a").unwrap();
        assert!(matches!(layers.snapshot("a"), Err(Error::State(_))));
        assert!(matches!(layers.restore("b"), Err(Error::NotFound { .. })));
        std::fs::write(layers.dir().join("state"), "{\"zind-layers\": 9}").unwrap();
        let error = Layers::open(layers.dir()).unwrap_err().to_string();
        assert!(error.contains("layers/state has format 9"), "{error}");
    }

    #[test]
    fn five_hundred_layers_fit_into_a_page() {
        let lower = (500..1000).map(|number| format!("o/{number}")).collect();
        let parts = Parts { binds: Vec::new(), lower, work: "o/work".to_owned(), volatile: true };
        let options = parts.options(false, true);
        assert!(parts.text(&options).is_some());
        assert_eq!(options.iter().filter(|(name, _)| *name == "lowerdir+").count(), 499);
    }
}
