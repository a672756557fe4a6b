//! What can be done with a container that runs, by whoever: its group and its first process are found by what is written down.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::journal::Entry;
use super::monitor::ask;
use super::state::{Phase, Record, Run, Running};
use super::{Container, State, spec_file, state};
use crate::cgroup::{Cgroup, Events, PressureTrigger, Resources, Stats};
use crate::copy::{CopyOptions, CopyStats, Root};
use crate::error::{Error, Result};
use crate::isolation::Isolation;
use crate::mount::Mount;
use crate::namespace::idmap;
use crate::process::exec::{self, Groups, Target};
use crate::process::plan::Inside;
use crate::process::{Exec, Process, ProcessInfo, handle, launch, table};
use crate::spec::Kind;
use zind_init::monitor::{event, request};

/// True if everything in it is stopped.
pub(super) fn is_paused(record: &Record) -> bool {
    let group = record.run.as_ref().and_then(|run| run.group.as_ref());
    group.and_then(|group| group.is_frozen()).unwrap_or(false)
}

/// What is in force, as far as it counts for further programs.
fn isolation_of(run: &Run) -> Isolation {
    let text = |name: &str| run.isolation.get(name).and_then(|value| value.as_str()).unwrap_or_default();
    let how = |kind: Kind| match run.isolation["namespaces"][kind.name()].as_str() {
        Some("new") => "new",
        Some("joined") => "joined",
        _ => "host",
    };
    let one_of = |name: &str, known: &[&'static str]| known.iter().copied().find(|word| *word == text(name));
    Isolation {
        namespaces: Kind::ALL.into_iter().map(|kind| (kind, how(kind))).collect(),
        uid_map: run.uid_map.clone(),
        gid_map: run.gid_map.clone(),
        cgroup: run.group.iter().flat_map(|group| &group.parts).map(|part| part.path.clone()).collect(),
        rootfs: text("rootfs").to_owned(),
        overlay: text("overlay").to_owned(),
        copy_on_write: one_of("copy_on_write", &["overlay", "copy", "none"]).unwrap_or("none"),
        network: one_of("network", &["none", "host", "joined"]).unwrap_or("none"),
        root_change: one_of("root_change", &["pivot_root", "chroot"]).unwrap_or("none"),
        ..Isolation::default()
    }
}

impl Container {
    /// What is known of a container that runs.
    fn running(&self, what: &str) -> Result<(Run, Running, OwnedFd)> {
        let (record, phase) = self.phase()?;
        let (Phase::Running(mut running), Some(run)) = (phase, record.run) else { return Err(self.not_running(what)) };
        if running.waiting.is_some() {
            return Err(self.not_running(what));
        }
        if let Some(pidfd) = running.pidfd() {
            return Ok((run, running, pidfd));
        }
        // In another time namespace processes have begun at another time. Its monitor holds it, whatever is written down.
        let Ok(Some((pid, Some(pidfd)))) = ask(self.dir(), request::WHO, 0) else { return Err(self.not_running(what)) };
        running.pid = pid;
        Ok((run, running, pidfd))
    }

    /// A pidfd of its first process, while it runs: for `setns(2)`, `pidfd_send_signal(2)` and the like.
    ///
    /// Errors: [`Error::State`] if it does not run.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        self.running("get the pidfd of").map(|(.., pidfd)| pidfd)
    }

    /// Starts a further program in it: its namespaces, its control group and its policy, and what the request has of its own.
    ///
    /// Errors: [`Error::State`] if it does not run, or is paused; as of [`crate::Process::exec`].
    pub fn exec(&self, exec: &Exec) -> Result<Process> {
        self.exec_interruptible(exec, &mut || false)
    }

    /// As [`Container::exec`]; `interrupted` is asked whenever a signal arrives, and ends it with [`Error::Interrupted`].
    pub fn exec_interruptible(&self, exec: &Exec, interrupted: &mut dyn FnMut() -> bool) -> Result<Process> {
        let (run, running, pidfd) = self.running("run a program in")?;
        let spec = Arc::new(spec_file::read_from(self.dir(), state::RUNTIME)?);
        let paths: Vec<PathBuf> =
            run.group.iter().flat_map(|group| &group.parts).map(|part| part.path.clone()).collect();
        let isolation = isolation_of(&run);
        let target = Target {
            pid: running.pid,
            pidfd: pidfd.as_fd(),
            spec: &spec,
            isolation: &isolation,
            groups: if paths.is_empty() { Groups::None } else { Groups::At(&paths) },
            launchers: &self.0.launchers,
        };
        exec::start(&target, exec, interrupted)
    }

    /// Its control group.
    fn group(&self, what: &str) -> Result<Cgroup> {
        let (run, ..) = self.running(what)?;
        let refused = run.isolation.get("cgroup_refused").and_then(|text| text.as_str()).unwrap_or_default().to_owned();
        match run.group {
            Some(group) => group.open(),
            None if !refused.is_empty() => Err(Error::State(format!("the container has no control group: {refused}"))),
            None => Err(Error::State(
                "the container was started without a control group: give resources= when it is made, be it without limits"
                    .to_owned(),
            )),
        }
    }

    /// Stops everything in it until [`Container::resume`], and waits until all of it has stopped.
    ///
    /// Errors: [`Error::State`] if it does not run, is paused already, or has no control group; those of
    /// [`Cgroup::freeze`].
    pub fn pause(&self) -> Result<()> {
        self.pause_interruptible(&mut || false)
    }

    /// As [`Container::pause`]; `interrupted` is asked while somebody else changes the container, as who starts it does while its
    /// hooks run, and ends the wait with [`Error::Interrupted`].
    pub fn pause_interruptible(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let _lock = self.dir().lock(interrupted)?;
        let group = self.group("pause")?;
        if self.state()? == State::Paused {
            return Err(Error::State(format!("container {} is paused already", self.short_id())));
        }
        group.freeze()?;
        self.containers().tell(Entry::new(event::PAUSED, self.id(), None));
        Ok(())
    }

    /// Lets everything go on.
    ///
    /// Errors: [`Error::State`] if it is not paused.
    pub fn resume(&self) -> Result<()> {
        let group = self.group("resume")?;
        if self.state()? != State::Paused {
            return Err(Error::State(format!("container {} is not paused", self.short_id())));
        }
        group.thaw()?;
        self.containers().tell(Entry::new(event::RESUMED, self.id(), None));
        Ok(())
    }

    /// Changes limits, of what runs and of each start that follows; what is `None` stays as it is, and `u64::MAX` takes a limit
    /// away. A container that does not run needs none from before.
    ///
    /// Errors: as of [`crate::Process::update`]; [`Error::State`] while it is started; [`Error::Sys`] at [`Step::Container`] where
    /// what runs has the limits, and they could not be written down for the next start.
    ///
    /// [`Step::Container`]: crate::Step::Container
    pub fn update(&self, resources: &Resources) -> Result<()> {
        self.update_interruptible(resources, &mut || false)
    }

    /// As [`Container::update`]; `interrupted` is asked as that of [`Container::pause_interruptible`].
    pub fn update_interruptible(&self, resources: &Resources, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let _lock = self.dir().lock(interrupted)?;
        resources.check()?;
        let mut spec = spec_file::read(self.dir())?;
        let changed = spec.resources.take().unwrap_or_default().changed_by(resources);
        changed.check()?;
        spec.resources = Some(changed);
        let document = spec_file::encode(&spec)?;
        let (record, phase) = self.phase()?;
        match phase {
            // The group is still there, for the next run.
            Phase::Running(running) if running.waiting.is_some() => {
                if let Some(group) = record.run.and_then(|run| run.group) {
                    group.open()?.update(resources)?;
                }
            }
            Phase::Running(_) => self.group("update")?.update(resources)?,
            Phase::Created | Phase::Ended(_) => {}
            Phase::Starting => return Err(self.not_running("update")),
        }
        self.dir().write(state::CONFIG, &document)
    }

    /// What it uses now; once it has ended, what it used over its whole life.
    ///
    /// Errors: [`Error::State`] if it was never started.
    pub fn stats(&self) -> Result<Stats> {
        let (record, phase) = self.phase()?;
        match phase {
            Phase::Running(running) => {
                let group = record.run.as_ref().and_then(|run| run.group.as_ref());
                let used = group.and_then(|group| group.open().ok()).map(|group| group.stats()).unwrap_or_default();
                let now = running.waiting.as_ref().map(|waiting| state::time_of(waiting.ended.head.ended_ns));
                let since = now.unwrap_or_else(SystemTime::now).duration_since(state::time_of(running.started_ns));
                let ooms = u64::from(running.ooms);
                let oom_kills = used.oom_kills.map(|count| count.saturating_sub(ooms));
                Ok(Stats { wall: since.unwrap_or_default(), oom_kills, ..used })
            }
            Phase::Ended(Some(ended)) => Ok(ended.stats(&record)),
            Phase::Ended(None) => Ok(Stats { wall: Duration::ZERO, ..Stats::default() }),
            _ => Err(self.not_running("read the stats of")),
        }
    }

    /// Everything that runs in it, as `ps` would list it; ended, there is nothing.
    ///
    /// Errors: [`Error::Sys`] at [`crate::Step::ReadCgroup`].
    pub fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let (record, phase) = self.phase()?;
        let Phase::Running(running) = phase else { return Ok(Vec::new()) };
        if running.waiting.is_some() {
            return Ok(Vec::new());
        }
        let group = record.run.as_ref().and_then(|run| run.group.as_ref());
        let pids = match group {
            Some(group) => group.open()?.processes()?,
            None => table::descendants(running.pid),
        };
        Ok(pids.into_iter().filter_map(ProcessInfo::of).collect())
    }

    /// What happens in it as it happens, from its start on.
    ///
    /// Errors: as of [`crate::Process::events`].
    pub fn events(&self, pressure: &[PressureTrigger]) -> Result<Events> {
        let (.., pidfd) = self.running("watch")?;
        self.group("watch")?.events(pidfd.as_fd(), pressure)
    }

    /// The inside of its root, with all its mounts, for copying files in and out while it runs.
    ///
    /// Errors: [`Error::State`] if it does not run; as of [`crate::Process::root`].
    pub fn root(&self) -> Result<Root> {
        let (_, running, pidfd) = self.running("open the root of")?;
        handle::root_of(running.pid, pidfd.as_fd())
    }

    /// [`Root::copy_in`] of [`Container::root`].
    pub fn copy_in(
        &self,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: &CopyOptions,
    ) -> Result<CopyStats> {
        self.root()?.copy_in(source, target, options)
    }

    /// [`Root::copy_out`] of [`Container::root`].
    pub fn copy_out(
        &self,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: &CopyOptions,
    ) -> Result<CopyStats> {
        self.root()?.copy_out(source, target, options)
    }

    /// Mounts something in it while it runs: [`crate::Process::mount`]. The next start is without it.
    pub fn mount(&self, mount: &Mount) -> Result<()> {
        let (inside, label) = self.inside()?;
        let ops = handle::ops_of_mount(mount, label.as_deref(), inside.has_users)?;
        launch::carry_out_inside(inside, ops)
    }

    /// Takes away what is mounted at `target`: [`crate::Process::umount`].
    pub fn umount(&self, target: impl AsRef<Path>) -> Result<()> {
        launch::carry_out_inside(self.inside()?.0, crate::rootfs::plan::hot_umount(target.as_ref())?)
    }

    /// Where operations in it are carried out.
    fn inside(&self) -> Result<(Inside, Option<String>)> {
        let (run, _, process) = self.running("mount in")?;
        // What is made on the way has to belong to somebody the user namespace knows.
        let has_root = run.uid_map.is_empty() || idmap::to_host(&run.uid_map, 0).is_some();
        let ids = if has_root { Some((0, 0)) } else { run.user };
        let label = run.isolation.get("mount_label").and_then(|label| label.as_str()).map(str::to_owned);
        Ok((Inside { process, has_users: run.has_users, ids: ids.filter(|_| run.has_users) }, label))
    }
}
