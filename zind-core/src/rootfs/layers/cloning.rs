//! A second root in the present state, beside a container as well.
#![forbid(unsafe_code)]

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::Layers;
use super::creating::{begin, empty_layer, make_directory};
use super::edit::{Edit, UNFINISHED};
use super::files;
use super::state::{CloneOf, NONE, State};
use crate::copy::{self, CopyOptions};
use crate::error::{At, Result, Step};
use crate::rootfs::resolve::Side;
use crate::store::Store;
use crate::store::leases;

impl Layers {
    /// Makes `dir`, which must be missing or empty, another root in the present state. From then on both go their own
    /// ways. The layers up to now are shared and stay in this directory, which can only be deleted after its clones.
    /// The clone has no snapshots; its base is the same.
    ///
    /// While a container runs on these layers, the one it writes to cannot be shared: it is copied, which costs in proportion
    /// to what was changed since the last snapshot. Pause the container meanwhile (SIGSTOP to its processes, or the freezer
    /// of its control group), for the copy to be of one moment; otherwise what changes under it may be torn. Owners, modes,
    /// times, extended attributes, hard links, holes and deletions are as in the original.
    ///
    /// Errors: as for [`Layers::snapshot`] and [`Layers::create`]; of a copy also [`Error::Sys`](crate::error::Error::Sys) at
    /// [`Step::Layers`] with the path of what the caller may not read or make, as for [`Layers::diff`]. Then nothing is left of
    /// the clone.
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
}

impl Edit {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, changes, entries, write};
    use super::super::{Lock, STATE};
    use super::*;
    use crate::error::Error;

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
}
