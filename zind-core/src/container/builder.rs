//! [`ContainerBuilder`]: from a [`Spec`] to a container on disk.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use super::state::{self, Dir, Record};
use super::{Container, Containers, LogOptions, Restart, spec_file};
use crate::error::{At, Error, Result, Step};
use crate::image::apply;
use crate::mount::What;
use crate::namespace::Source;
use crate::rootfs::{Overlay, Rootfs};
use crate::spec::{Hooks, Size, Spec, Stdio, check};
use crate::store::leases;

/// A container to be made: [`Container::builder`].
#[derive(Clone, Debug)]
pub struct ContainerBuilder {
    spec: Spec,
    containers: Option<Containers>,
    name: Option<String>,
    labels: BTreeMap<String, String>,
    restart: Restart,
    log: LogOptions,
    stdin_open: bool,
    auto_remove: bool,
    stop_signal: Option<i32>,
}

/// Setters that store one value.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($type:ty);)*) => {
        $($(#[$doc])* #[must_use] pub fn $name(mut self, value: $type) -> ContainerBuilder {
            self.$name = value.into();
            self
        })*
    };
}

impl ContainerBuilder {
    pub(super) fn new(spec: Spec) -> ContainerBuilder {
        ContainerBuilder {
            spec,
            containers: None,
            name: None,
            labels: BTreeMap::new(),
            restart: Restart::No,
            log: LogOptions::default(),
            stdin_open: false,
            auto_remove: false,
            stop_signal: None,
        }
    }

    setters! {
        /// When it is started again after it has ended.
        restart(Restart);
        /// How much of its output is kept.
        log(LogOptions);
        /// Its standard input stays open for whoever attaches to it; else it is empty.
        stdin_open(bool);
        /// It is deleted when it has ended, by its monitor: nobody has to wait for it or to look. Its changes go to memory,
        /// unless the request says otherwise. Who has started it is told how it ended by [`Container::wait`] all the same.
        auto_remove(bool);
        /// The signal that asks it to end; else the image's, or SIGTERM.
        stop_signal(i32);
    }

    /// Where it is kept; else where this user's containers are.
    #[must_use]
    pub fn containers(mut self, containers: &Containers) -> ContainerBuilder {
        self.containers = Some(containers.clone());
        self
    }

    /// A name by which it is found, too: a letter or digit, then up to 127 of letters, digits, `_`, `.` and `-`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> ContainerBuilder {
        self.name = Some(name.into());
        self
    }

    /// A terminal of this size as its standard streams and its `/dev/console`: `terminal` of the request.
    #[must_use]
    pub fn terminal(mut self, size: Size) -> ContainerBuilder {
        self.spec.terminal = Some(size);
        self
    }

    /// Programs that are run at points of its life: `hooks` of the request.
    #[must_use]
    pub fn hooks(mut self, hooks: Hooks) -> ContainerBuilder {
        self.spec.hooks = hooks;
        self
    }

    /// A label to find it by.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> ContainerBuilder {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Makes it. Nothing of it runs yet.
    ///
    /// The changes of a container with a root directory or an image are kept in its own directory, unless it is read-only,
    /// `auto_remove`, or the request names another place. Those of one with the root of this machine are in memory, and end
    /// with each run.
    ///
    /// Errors: [`Error::Spec`] for what a start would refuse, and for what cannot be kept on disk: descriptors, a time
    /// limit, the low level; [`Error::Exists`] if another one has the name; [`Error::Sys`] at [`Step::Container`].
    pub fn create(self) -> Result<Container> {
        self.create_interruptible(&mut || false)
    }

    /// As [`ContainerBuilder::create`]; `interrupted` is asked while an image is unpacked and while somebody else changes
    /// names, and ends that with [`Error::Interrupted`] when it says so. Nothing of it is left then.
    pub fn create_interruptible(mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<Container> {
        self.check()?;
        let containers = match self.containers.take() {
            Some(containers) => containers,
            None => Containers::open(None)?,
        };
        let made = containers.begin()?;
        let home = containers.dir_of(made.id());
        let has_own_changes = matches!(self.spec.rootfs, Rootfs::Host | Rootfs::Layers(_));
        let is_kept = !self.auto_remove && !self.spec.read_only && !has_own_changes;
        if is_kept && self.spec.overlay == Overlay::Tmpfs {
            self.spec.overlay = Overlay::Dir(home.0.clone());
        }
        (self.spec.stdin, self.spec.stdout, self.spec.stderr) = (Stdio::Null, Stdio::Null, Stdio::Null);
        make_absolute(&mut self.spec)?;
        // What the image says is checked now, and looked up again at each start.
        let mut settled = self.spec.clone();
        let hold = apply::settle(&mut settled, interrupted)?;
        // We run them, and not a plain start.
        settled.hooks = Hooks::default();
        check::check(&settled)?;
        let stop_signal = self.stop_signal.or(settled.origin.as_ref().map(|origin| origin.stop_signal));
        made.write(state::CONFIG, &spec_file::encode(&self.spec)?)?;
        let record = Record {
            id: made.id().to_owned(),
            name: self.name,
            labels: self.labels,
            created_ns: state::now_ns(),
            restart: self.restart,
            log: self.log,
            terminal: self.spec.terminal,
            stdin_open: self.stdin_open,
            auto_remove: self.auto_remove,
            attended: false,
            detached: !self.spec.die_with_owner,
            stop_signal: stop_signal.unwrap_or(libc::SIGTERM),
            image: settled.origin.as_ref().map(|origin| name_of(&origin.image)),
            command: settled.argv.iter().map(|text| text.to_string_lossy().into_owned()).collect(),
            run: None,
        };
        made.write_record(&record)?;
        if let (Some(origin), Some(_)) = (&settled.origin, &hold) {
            let (store, manifest) = (origin.image.store(), origin.image.descriptor());
            let says = serde_json::json!({"image": {"manifest": manifest.digest.to_string()}});
            made.write("state", says.to_string().as_bytes())?;
            leases::take(store, manifest, &home.0)?;
        }
        containers.publish(made, &record, &home, interrupted)?;
        Ok(Container::new(containers, home, Some(self.spec)))
    }

    /// What cannot be kept on disk.
    fn check(&self) -> Result<()> {
        if let Some(name) = &self.name {
            state::check_name(name)?;
        }
        let spec = &self.spec;
        for (is_set, field, why) in [
            (spec.is_low_level(), "rootfs", "is missing: a container has a root of its own"),
            (!spec.pass_fds.is_empty(), "pass_fds", "cannot be kept for a start by somebody else"),
            (!spec.pins.is_empty(), "pin", "cannot be kept for a start by somebody else"),
            (spec.ptrace, "ptrace", "has no sense where nobody is there to trace"),
            (spec.cgroup.is_some(), "cgroup", "is a descriptor, which cannot be kept: use resources and cgroup_parent"),
            (spec.timeout.is_some(), "timeout", "needs somebody who waits: stop the container instead"),
            (self.auto_remove && self.restart != Restart::No, "auto_remove", "excludes a restart policy"),
            (self.log.files > 0 && self.log.size < 4096, "log", "has less than 4096 bytes for a file"),
            (self.log.files > 1000, "log", "has more than 1000 files"),
        ] {
            if is_set {
                return Err(Error::spec(field, why));
            }
        }
        if let Some(signal) = self.stop_signal.filter(|signal| !(1..=64).contains(signal)) {
            return Err(Error::spec("stop_signal", format!("{signal} is not within 1 to 64")));
        }
        for hook in spec.hooks.lists().into_iter().flat_map(|(_, hooks)| hooks) {
            if !hook.path.is_absolute() {
                return Err(Error::spec("hooks", format!("{} is not absolute", hook.path.display())));
            }
        }
        Ok(())
    }
}

/// What is relative is so to where we are now.
fn make_absolute(spec: &mut Spec) -> Result<()> {
    let make = |path: &mut PathBuf| -> Result<()> {
        *path = std::path::absolute(&*path).at(Step::Container, "getcwd", &*path)?;
        Ok(())
    };
    match &mut spec.rootfs {
        Rootfs::Path(path) => make(path)?,
        Rootfs::Lowers(lowers) => lowers.iter_mut().try_for_each(make)?,
        _ => {}
    }
    if let Overlay::Dir(path) = &mut spec.overlay {
        make(path)?;
    }
    for source in spec.namespaces.values_mut() {
        if let Source::Path(path) = source {
            make(path)?;
        }
    }
    for mount in &mut spec.mounts {
        match &mut mount.what {
            What::Bind { source, .. } => make(source)?,
            // One without a slash is a word like "tmpfs", or nothing to the file system at all.
            What::FileSystem { source: Some(source), .. } if source.components().count() > 1 => make(source)?,
            What::Overlay { lower, upper } => {
                let upper = upper.iter_mut().flat_map(|(upper, work)| [upper, work]);
                lower.iter_mut().chain(upper).try_for_each(make)?;
            }
            What::Volume(volume) => volume.place.iter_mut().try_for_each(make)?,
            What::FileSystem { .. } | What::File { .. } => {}
        }
    }
    Ok(())
}

/// The first name of an image, or its id.
pub(super) fn name_of(image: &crate::image::Image) -> String {
    image.tags().first().cloned().unwrap_or_else(|| image.id().to_string())
}

/// The directory in which a container is being made; dropped before it is published, it is removed.
pub(super) struct Making {
    dir: Dir,
    _lock: state::Locked,
    is_published: bool,
}

impl Making {
    /// `home` is where such directories are made: who sweeps there waits until this one is locked.
    pub(super) fn new(home: &std::path::Path, dir: Dir) -> Result<Making> {
        let _making = state::lock_dir(home, FlockOperation::LockShared)?;
        std::fs::create_dir(&dir.0).at(Step::Container, "mkdir", &dir.0)?;
        match dir.make_locks() {
            Ok(lock) => Ok(Making { dir, _lock: lock, is_published: false }),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&dir.0);
                Err(error)
            }
        }
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// It has come to its place.
    pub(super) fn published(mut self) {
        self.is_published = true;
    }
}

impl std::ops::Deref for Making {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.dir
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = std::fs::remove_dir_all(&self.dir.0);
        }
    }
}
