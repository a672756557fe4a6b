//! States of the root that have names: made, gone back to, forgotten.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Layers;
use super::edit::Edit;
use super::state::{Saved, State};
use crate::error::{Error, Result};

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
    /// Errors: [`Error::NotFound`]; [`Error::State`] if the layers are in use; [`Error::Sys`] at
    /// [`Step::Layers`](crate::error::Step::Layers) where files cannot be removed, which the next opening tries again.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut edit = Edit::begin(self)?;
        self.find(&edit.state, name)?;
        edit.state.snapshots.retain(|saved| saved.name != name);
        edit.commit()?;
        edit.clean()
    }
}

/// The snapshot nearest below another.
fn parent(state: &State, saved: &Saved) -> Option<String> {
    let below = state.chain(saved.layer);
    let named = |layer: &u32| state.snapshots.iter().find(|other| other.layer == *layer);
    below.iter().skip(1).find_map(named).map(|other| other.name.clone())
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        return Err(Error::spec("name", format!("{name:?} must have 1 to 255 bytes and no control characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, changes, entries, write};

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
}
