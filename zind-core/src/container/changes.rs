//! What a container has changed: told, kept under a name, put back, made an image of.
//!
//! At first its changes are in `upper`, over its root. The first snapshot makes [`Layers`] of it, in `layers`: from then on its
//! starts are on these. That they are there is what counts, so a crash on the way leaves either the one or the other.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::state::{Phase, Record, Run};
use super::{Container, State};
use crate::error::{At, Error, Result, Step};
use crate::image::commit::{self, Changes};
use crate::image::{CommitOptions, Compression, Image, PackStats, Progress, apply};
use crate::process::identity::Caller;
use crate::rootfs::layers::{self, Change, Ids, Layers, Marks, Snapshot, remove_tree};
use crate::rootfs::{Overlay, Rootfs};
use crate::spec::Spec;
use crate::store::leases::BaseImage;
use crate::store::{ImageHold, Owners, Store};

const UPPER: &str = "upper";
const WORK: &str = "work";
const LAYERS: &str = "layers";
/// Until it is whole.
const LAYERS_NEW: &str = "layers.new";

/// Where the changes of a container are.
enum Ground {
    /// In layers, its own or the request's.
    Layers(Layers),
    /// In a directory over others, or nowhere yet.
    Upper(Box<Over>),
    /// It cannot change: what it sees as root.
    Fixed(Box<Over>),
}

/// A directory over others.
struct Over {
    /// `None`: nothing has been changed yet.
    upper: Option<PathBuf>,
    /// Topmost first.
    lowers: Vec<PathBuf>,
    image: Option<Image>,
    /// How deletions are marked; `None`: there are none.
    marks: Option<Marks>,
    ids: Ids,
    owners_in_xattr: bool,
    /// As long as it is needed, nobody collects the image.
    _hold: Option<ImageHold>,
}

impl Over {
    /// All of it, or what is over its image.
    fn changes(&self, is_whole: bool) -> Changes {
        let (upper, lowers) = (self.upper.iter().cloned(), self.lowers.clone());
        let (stack, below) =
            if is_whole { (upper.chain(lowers).collect(), Vec::new()) } else { (upper.collect(), lowers) };
        Changes {
            stack,
            below,
            marks: self.marks,
            ids: self.ids.clone(),
            owners_in_xattr: self.owners_in_xattr,
            volumes: Vec::new(),
        }
    }
}

/// The layers of its own that a container has since its first snapshot. Nobody starts it meanwhile, or it runs on them.
pub(super) fn own_layers(home: &Path) -> Result<Option<Layers>> {
    let dir = home.join(LAYERS);
    if !dir.is_dir() {
        return Ok(None);
    }
    let layers = Layers::at(dir);
    // Their maker may have died before it was moved.
    layers.adopt(&home.join(UPPER))?;
    Ok(Some(layers))
}

impl Container {
    /// What it has changed since it was made, or since a snapshot, sorted by path: [`Layers::diff`]. One that runs goes on; files
    /// may change under the walk. What cannot change has no changes.
    ///
    /// Errors: [`Error::State`] where the changes are not on disk (the root of this machine, `auto_remove`, a copy in place of an
    /// overlay); [`Error::NotFound`]; as of [`Layers::diff`].
    pub fn diff(&self, since: Option<&str>) -> Result<Vec<Change>> {
        let over = match self.ground("tell the changes of", &mut ())? {
            Ground::Layers(layers) => return layers.diff(since),
            Ground::Upper(over) | Ground::Fixed(over) => over,
        };
        if let Some(name) = since {
            return Err(no_snapshot(name));
        }
        match (&over.upper, over.marks) {
            (Some(upper), Some(marks)) => layers::changes_over(upper, &over.lowers, marks, &over.ids),
            _ => Ok(Vec::new()),
        }
    }

    /// Makes an image of what it has changed: one layer over its image; of a container with a root directory it is an image of one
    /// layer that has everything, in the store of the same place. As [`Layers::commit`], without what is in volumes.
    ///
    /// One that runs is paused meanwhile if `pause` is on, so that the image is of one moment, and goes on in any case. Without,
    /// what changes under the walk may be torn. One that does not run is not started meanwhile.
    ///
    /// Errors: [`Error::State`] as of [`Container::diff`], for a container that is read-only, and as of [`Container::pause`];
    /// as of [`Layers::commit`].
    pub fn commit(&self, options: &CommitOptions, pause: bool, progress: &mut dyn Progress) -> Result<Image> {
        let _still = self.hold_still(pause, progress)?;
        match self.ground("commit", progress)? {
            Ground::Layers(layers) => match layers.image()? {
                Some(image) => layers.commit(image.store(), options, progress),
                None => layers.commit(&self.store()?, options, progress),
            },
            Ground::Upper(over) => match &over.image {
                Some(image) => commit::commit(image.store(), Some(image), &over.changes(false), options, progress),
                None => commit::commit(&self.store()?, None, &over.changes(true), options, progress),
            },
            Ground::Fixed(_) => Err(self.has_none("commit", "is read-only, so it has no changes")),
        }
    }

    /// Writes its root, with all that lies below its changes, as a tar: [`Layers::export`]. What is mounted in it stays out. `path`
    /// must not exist. One that runs goes on.
    ///
    /// Errors: as of [`Container::commit`].
    pub fn export(&self, path: &Path, compression: Compression, progress: &mut dyn Progress) -> Result<PackStats> {
        let _still = self.hold_still(false, progress)?;
        match self.ground("export", progress)? {
            Ground::Layers(layers) => layers.export(path, compression, progress),
            Ground::Upper(over) | Ground::Fixed(over) => {
                commit::export(&over.changes(true), path, compression, progress)
            }
        }
    }

    /// Gives the present state of its root a name: [`Layers::snapshot`]. From the first one on its changes are layers, in its own
    /// directory. The cost does not depend on the size of the root or of the changes.
    ///
    /// Errors: [`Error::State`] if it runs, if it has the name already, and as of [`Container::commit`]; [`Error::Spec`] for a name
    /// that is none.
    pub fn snapshot(&self, name: &str) -> Result<()> {
        self.snapshot_interruptible(name, &mut || false)
    }

    /// As [`Container::snapshot`], and [`Container::pause_interruptible`].
    pub fn snapshot_interruptible(&self, name: &str, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let _lock = self.at_rest("make a snapshot of", interrupted)?;
        match self.ground("make a snapshot of", &mut ())? {
            Ground::Layers(layers) => layers.snapshot(name),
            Ground::Upper(over) => {
                layers::check_name(name)?;
                self.make_layers(&over)?.snapshot(name)
            }
            Ground::Fixed(_) => Err(self.has_none("make a snapshot of", "is read-only, so it has no changes")),
        }
    }

    /// Throws away what it has changed since: its next start begins as it was at that snapshot.
    ///
    /// Errors: [`Error::NotFound`]; [`Error::State`] if it runs.
    pub fn restore(&self, name: &str) -> Result<()> {
        self.restore_interruptible(name, &mut || false)
    }

    /// As [`Container::restore`], and [`Container::pause_interruptible`].
    pub fn restore_interruptible(&self, name: &str, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let _lock = self.at_rest("restore", interrupted)?;
        self.layers_with("restore", name)?.restore(name)
    }

    /// Its snapshots, oldest first.
    ///
    /// Errors: as of [`Layers::snapshots`].
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        self.record()?;
        if let Some(layers) = own_layers(&self.dir().0)? {
            return layers.snapshots();
        }
        match self.spec()?.rootfs {
            Rootfs::Layers(layers) => layers.snapshots(),
            _ => Ok(Vec::new()),
        }
    }

    /// Forgets a snapshot: [`Layers::remove`].
    ///
    /// Errors: [`Error::NotFound`]; [`Error::State`] if it runs.
    pub fn remove_snapshot(&self, name: &str) -> Result<()> {
        self.remove_snapshot_interruptible(name, &mut || false)
    }

    /// As [`Container::remove_snapshot`], and [`Container::pause_interruptible`].
    pub fn remove_snapshot_interruptible(&self, name: &str, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let _lock = self.at_rest("remove a snapshot of", interrupted)?;
        self.layers_with("remove a snapshot of", name)?.remove(name)
    }

    /// The images of the same place.
    fn store(&self) -> Result<Store> {
        Store::open(Some(self.containers().path().to_owned()))
    }

    fn has_none(&self, what: &str, why: &str) -> Error {
        Error::State(format!("cannot {what} container {}: it {why}", self.short_id()))
    }

    fn layers_with(&self, what: &str, name: &str) -> Result<Layers> {
        match self.ground(what, &mut ())? {
            Ground::Layers(layers) => Ok(layers),
            Ground::Upper(_) | Ground::Fixed(_) => Err(no_snapshot(name)),
        }
    }

    /// Keeps others from starting it.
    fn at_rest(&self, what: &str, interrupted: &mut dyn FnMut() -> bool) -> Result<super::state::Locked> {
        let lock = self.dir().lock(interrupted)?;
        let (record, phase) = self.phase()?;
        if let Phase::Running(_) | Phase::Starting = phase {
            let why = match &phase {
                Phase::Running(running) if running.waiting.is_some() => "it has ended and is started again later",
                _ => "it is running",
            };
            return Err(Error::State(format!("cannot {what} container {}: {why}; stop it first", self.short_id())));
        }
        self.settle(&record, &phase, interrupted)?;
        Ok(lock)
    }

    /// Lets it change nothing until the value is dropped, as far as that was asked for.
    fn hold_still(&self, pause: bool, progress: &mut dyn Progress) -> Result<Still<'_>> {
        let lock = self.dir().lock(&mut || progress.interrupted())?;
        let (record, phase) = self.phase()?;
        match phase {
            Phase::Running(_) | Phase::Starting => {}
            phase => {
                self.settle(&record, &phase, &mut || progress.interrupted())?;
                return Ok(Still { _lock: Some(lock), paused: None });
            }
        }
        drop(lock);
        if !pause || self.state()? == State::Paused {
            return Ok(Still { _lock: None, paused: None });
        }
        match self.pause() {
            Ok(()) => Ok(Still { _lock: None, paused: Some(self) }),
            Err(Error::State(why)) => Err(Error::State(format!("{why}; or do not pause it, or stop it first"))),
            Err(error) => Err(error),
        }
    }

    /// Where its changes are, or why they are nowhere.
    fn ground(&self, what: &str, progress: &mut dyn Progress) -> Result<Ground> {
        let record = self.record()?;
        if let Some(layers) = own_layers(&self.dir().0)? {
            return Ok(Ground::Layers(layers));
        }
        let spec = self.spec()?;
        if let Rootfs::Layers(layers) = spec.rootfs {
            return Ok(Ground::Layers(layers));
        }
        let none = |why: &str| Err(self.has_none(what, why));
        match (&spec.rootfs, &spec.overlay) {
            (Rootfs::Host, _) => none(
                "has the root of this machine, and its changes are in memory; give it an image, a directory or layers as root",
            ),
            (Rootfs::Unchanged, _) => none("has no root of its own"),
            _ if spec.read_only => Ok(Ground::Fixed(Box::new(self.over(spec, &record, None, progress)?))),
            (_, Overlay::Tmpfs) if record.auto_remove => none(
                "is to be deleted at its end, and its changes are in memory; make it without auto_remove (--rm), or with overlay= or layers",
            ),
            (_, Overlay::Tmpfs) => none("has its changes in memory"),
            (_, Overlay::None) => {
                none("changes its root directory itself, and nothing tells what; make it with an overlay")
            }
            (_, Overlay::Dir(dir)) => {
                let upper = dir.join(UPPER);
                let how =
                    |run: &Run| run.isolation.get("copy_on_write").and_then(|how| how.as_str()) == Some("overlay");
                if record.run.as_ref().is_some_and(|run| !how(run)) {
                    return none(
                        "runs on a copy, since the kernel made no overlay of its root, and nothing tells what changed",
                    );
                }
                Ok(Ground::Upper(Box::new(self.over(spec, &record, Some(upper), progress)?)))
            }
        }
    }

    /// The directories that its root is of, in the form in which its last start had them.
    fn over(&self, spec: Spec, record: &Record, upper: Option<PathBuf>, progress: &mut dyn Progress) -> Result<Over> {
        let caller = Caller::now()?;
        let ids = record.run.as_ref().map(|run| Ids { uid: run.uid_map.clone(), gid: run.gid_map.clone() });
        let upper = upper.filter(|upper| record.run.is_some() && upper.is_dir());
        let run_marks = record.run.as_ref().map(|run| Marks::of(run.has_users, caller));
        let mut over = Over {
            marks: run_marks.filter(|_| upper.is_some()),
            upper,
            lowers: Vec::new(),
            image: None,
            ids: ids.unwrap_or_default(),
            owners_in_xattr: false,
            _hold: None,
        };
        let image = match spec.rootfs {
            Rootfs::Path(path) => {
                over.lowers.push(path);
                return Ok(over);
            }
            Rootfs::Lowers(lowers) => {
                over.lowers = lowers;
                over.marks = over.marks.or_else(|| Some(Marks::of_caller()));
                return Ok(over);
            }
            Rootfs::Image(ref image) => image.clone(),
            _ => return Err(self.has_none("look at", "has no root of its own")),
        };
        let owners = match &record.run {
            Some(_) => over.ids.owners(),
            None => apply::owners(&spec, caller)?,
        };
        if let (Owners::Mapped { uid, gid }, None) = (&owners, &record.run) {
            over.ids = Ids { uid: uid.clone(), gid: gid.clone() };
        }
        let has_users = !over.ids.uid.is_empty();
        over.marks = run_marks.or_else(|| Some(Marks::of(has_users, caller)));
        over._hold = Some(image.store().hold(&image, &owners, progress)?);
        over.lowers = image.store().lowers(&image, &owners, progress)?;
        over.owners_in_xattr = owners == Owners::Xattr;
        over.image = Some(image);
        Ok(over)
    }

    /// From a directory over others to layers. Its lock is held, and it does not run.
    fn make_layers(&self, over: &Over) -> Result<Layers> {
        let home = &self.dir().0;
        if over.upper.as_ref().is_some_and(|upper| *upper != home.join(UPPER)) {
            let why = "has its changes in a directory of its maker's; zind.Layers is for snapshots of such";
            return Err(self.has_none("make a snapshot of", why));
        }
        let (aside, dir) = (home.join(LAYERS_NEW), home.join(LAYERS));
        remove_tree(&aside)?;
        let image = over.image.as_ref().map(|image| BaseImage {
            store: image.store().place().to_owned(),
            manifest: image.descriptor().clone(),
            owners_in_xattr: over.owners_in_xattr,
        });
        let settled = over.marks.filter(|_| over.upper.is_some());
        Layers::create_for(&aside, over.lowers.clone(), image, settled, &over.ids)?;
        std::fs::rename(&aside, &dir).at(Step::Container, "rename", &dir)?;
        let layers = own_layers(home)?.ok_or_else(|| self.has_none("look at", "has no layers"))?;
        let _ = remove_tree(&home.join(WORK));
        Ok(layers)
    }
}

fn no_snapshot(name: &str) -> Error {
    Error::NotFound { what: "snapshot", name: name.to_owned() }
}

/// What keeps a container from changing.
struct Still<'a> {
    _lock: Option<super::state::Locked>,
    paused: Option<&'a Container>,
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        // That it has ended meanwhile is no matter.
        let _ = self.paused.map(Container::resume);
    }
}
