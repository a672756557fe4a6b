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

mod cloning;
mod creating;
mod diff;
mod edit;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod images;
mod mounting;
mod snapshots;
mod state;
#[cfg(test)]
mod testing;

use std::path::{Path, PathBuf};

use nix::errno::Errno;

pub use diff::{Change, ChangeKind, FileType, Metadata};
pub(crate) use diff::{Found, Ids, Layer, Node, View, attribute, attribute_names, link_target};
pub(crate) use files::{Lock, release, remove_tree};
pub(crate) use mounting::{Parts, Tenancy, let_into};
pub use snapshots::Snapshot;
pub(crate) use snapshots::check_name;
pub(crate) use state::Marks;

use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::store::Store;
use crate::store::leases;
use edit::Edit;
use state::{NONE, Saved, State};

const STATE: &str = "state";
const WORK: &str = "work";
/// What `state` becomes when everything is to be removed.
const DELETED: &str = "deleted";

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

impl Layers {
    /// What was opened before; a start looks whether it is still there.
    pub(crate) fn at(dir: PathBuf) -> Layers {
        Layers { dir }
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

#[cfg(test)]
mod tests {
    use super::testing::Place;
    use super::*;

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
}
