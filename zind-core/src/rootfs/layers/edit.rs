//! [`Edit`]: whoever changes the state holds the locks, and removes what a crash has left.
#![forbid(unsafe_code)]

use std::path::Path;

use nix::errno::Errno;

use super::creating::empty_layer;
use super::files::{self, Lock};
use super::state::{CloneOf, State};
use super::{Layers, MOST_LOWER, STATE};
use crate::error::{At, Error, Result, Step};

/// In a directory that is becoming a clone. If there is no `state` beside it, and nobody is changing the layers it was to be
/// cloned from, a crash has left it.
pub(super) const UNFINISHED: &str = "unfinished";

/// Layers whose state nobody else changes.
pub(super) struct Edit {
    pub(super) layers: Layers,
    pub(super) state: State,
    /// None if somebody else has it: a container runs on them.
    pub(super) lock: Option<Lock>,
    #[expect(dead_code, reason = "kept to be dropped")]
    editing: Lock,
}

impl Edit {
    /// Takes both locks, reads the state and removes what a crash has left.
    pub(super) fn begin(layers: &Layers) -> Result<Edit> {
        let lock = Lock::take(layers.dir_with_state()?)?;
        Edit::with(layers, Some(lock))
    }

    /// The same, but a container may run on the layers.
    pub(super) fn begin_beside(layers: &Layers) -> Result<Edit> {
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

    pub(super) fn commit(&mut self) -> Result<()> {
        self.state.forget_the_unneeded();
        files::replace(&self.layers.dir, STATE, &self.state.encode())
    }

    /// Puts an empty layer over `below` and makes it the top.
    pub(super) fn grow(&mut self, below: u32) -> Result<()> {
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

    /// Removes the layers that are none. The first that cannot be removed is the error; the others go.
    pub(super) fn clean(&self) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, entries};
    use super::*;

    #[test]
    fn what_a_crash_leaves_is_removed() {
        let place = Place::new("crash");
        let layers = place.layers();
        std::fs::create_dir_all(layers.dir().join("7/x")).unwrap();
        std::fs::write(layers.dir().join("state.new"), "half").unwrap();
        Layers::open(layers.dir()).unwrap();
        assert_eq!(entries(&layers), ["1", "lock", "state"]);
    }
}
