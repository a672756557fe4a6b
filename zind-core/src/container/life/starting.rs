//! Starting a container below a monitor of its own.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::PoisonError;

use zind_init::monitor::RestartWhen;

use super::PATIENCE;
use crate::container::monitor;
use crate::container::state::{self, Dir, Phase, Record, Run, SOCKET};
use crate::container::{Attachment, Container, HookPoint, HookState, Restart, changes, hooks, spec_file};
use crate::error::{At, Error, Result, Step};
use crate::process::watched::{self, Facts, Keep};
use crate::spec::{Hooks, Kind, Overlay, Rootfs, Spec, Stdio};
use crate::sys::descriptors::pidfd_open;

/// Room for the last words about a container, on a disk that becomes full meanwhile.
const ROOM_FOR_EXIT: usize = 16 << 10;

impl Container {
    /// Starts it. On return its program runs, below a monitor of its own, which keeps its output and tells how it ends. It ends
    /// with this process, unless it was made with `die_with_owner` off, or [`Container::detach`] is called.
    ///
    /// Errors: those of a start; [`Error::State`] if it runs, or somebody else starts it; [`Error::Sys`] at
    /// [`Step::Monitor`].
    pub fn start(&self) -> Result<()> {
        self.start_interruptible(&mut || false)
    }

    /// As [`Container::start`]; `interrupted` is asked whenever a signal arrives, and ends it with [`Error::Interrupted`].
    pub fn start_interruptible(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        self.start_with(false, interrupted).map(drop)
    }

    /// Starts it, attached from the first byte of its output on. `interrupted` is as in
    /// [`Container::start_interruptible`].
    ///
    /// Errors: as of [`Container::start`] and [`Container::attach`].
    pub fn start_attached(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<Attachment> {
        let attached = self.start_with(true, interrupted)?;
        attached.ok_or_else(|| self.not_running("attach to"))
    }

    fn start_with(&self, attach: bool, interrupted: &mut dyn FnMut() -> bool) -> Result<Option<Attachment>> {
        let dir = self.dir();
        let change = dir.lock(interrupted)?;
        let mut record = dir.record()?;
        let phase = dir.phase(&record)?;
        if let Phase::Running(_) | Phase::Starting = phase {
            return Err(self.still_runs(&phase, " already"));
        }
        self.settle(&record, &phase, interrupted)?;
        let mut lock = None;
        // A monitor that has told the end is about to go.
        let is_free = state::wait_until(PATIENCE, interrupted, || {
            lock = dir.take_monitor_lock()?;
            Ok(lock.is_some())
        })?;
        let Some(lock) = lock.filter(|_| is_free) else {
            return Err(Error::State(format!("the last monitor of container {} does not end", self.short_id())));
        };
        let mut spec = self.furnish(&record)?;
        let told = self.told(&record, &spec);
        let first = self.hook_state(&record, &spec, "creating", None);
        // They are not a plain start's, which would refuse them.
        spec.hooks = Hooks::default();
        let is_hooked = !told.hooks.prestart.is_empty() || !told.hooks.create_runtime.is_empty();
        let waits = is_hooked || self.has_functions(HookPoint::CreateRuntime);
        let open = dir.open()?;
        let (restart, restart_most) = match record.restart {
            Restart::No => (RestartWhen::Never, 0),
            Restart::OnFailure { most } => (RestartWhen::Failure, most.unwrap_or(0)),
            Restart::Always | Restart::UnlessStopped => (RestartWhen::Always, 0),
        };
        let journal = Dir(self.containers().journal_dir()).open()?;
        let own = || pidfd_open(std::process::id() as i32).at(Step::Monitor, "pidfd_open", "");
        let number = record.run.as_ref().map_or(0, |run| run.number) + 1;
        let keep = Keep {
            run: number,
            listener: monitor::listener(dir, open.as_fd())?,
            dir: open,
            lock,
            owner: if record.detached { None } else { Some(own()?) },
            log: monitor::log(dir, record.log)?,
            restart,
            restart_most,
            told: told.clone(),
            events: Some(journal),
            id: record.id.clone(),
            remove_from: if record.auto_remove { Some(self.containers().open_dirs()?) } else { None },
        };
        dir.write(state::EXIT_ROOM, &[0; ROOM_FOR_EXIT])?;
        let began_ns = state::now_ns();
        let (hooks, asked) = (&told.hooks, std::cell::RefCell::new(interrupted));
        let mut ready = |pid: i32| -> Result<()> {
            let state = HookState { pid: Some(pid), ..first.clone() };
            let text = state.to_json().to_string();
            let lists = [("prestart", &hooks.prestart), ("createRuntime", &hooks.create_runtime)];
            lists
                .into_iter()
                .try_for_each(|(when, list)| hooks::run(when, list, &text, &mut || asked.borrow_mut()()))?;
            self.call(HookPoint::CreateRuntime, &state)
        };
        let started = watched::run(spec, keep, waits, &mut ready, &mut || asked.borrow_mut()()).inspect_err(|_| {
            let _ = std::fs::remove_file(dir.at(SOCKET));
            // Whoever was to execute a hook has its lock for a moment longer: it is not being started any more.
            let _ = state::wait_until(PATIENCE, &mut || false, || dir.has_monitor().map(|lives| !lives));
        })?;
        let facts = started.facts();
        if let Some(spec) = &facts.spec {
            dir.write(state::RUNTIME, &spec_file::encode(spec)?)?;
        }
        record.run = Some(run_of(number, began_ns, &record, facts)?);
        dir.write_record(&record)?;
        let pid = started.pid();
        // Before that nothing of its output is read.
        let mut attached = if attach { Some(self.connect(record.terminal.is_some())?) } else { None };
        if let (Some(attached), Some(terminal)) = (&mut attached, started.terminal()?) {
            attached.set_input(Some(terminal));
        }
        if record.auto_remove {
            // At its end it is gone, and with it what could be read of that.
            self.hold()?;
            *self.0.labels.lock().unwrap_or_else(PoisonError::into_inner) = record.labels.clone();
        }
        if let Err(error) = started.hand_over() {
            // Its monitor is gone, and would have taken it away.
            if let Some(group) = record.run.as_ref().and_then(|run| run.group.as_ref()) {
                let _ = group.remove(PATIENCE);
            }
            return Err(error);
        }
        drop(change);
        let state = HookState { status: "running", pid: Some(pid), ..first };
        self.run_leniently(HookPoint::Poststart, &hooks.poststart, &state, &mut || asked.borrow_mut()());
        Ok(attached)
    }

    /// The request with the streams of a container.
    fn furnish(&self, record: &Record) -> Result<Spec> {
        let mut spec = self.spec()?;
        // The monitor is the owner, and sees to the rest.
        spec.die_with_owner = false;
        if record.terminal.is_none() {
            spec.stdin = if record.stdin_open { Stdio::Pipe } else { Stdio::Null };
            (spec.stdout, spec.stderr) = (Stdio::Pipe, Stdio::Pipe);
        } else if !spec.clear_env && !spec.env.iter().any(|(name, _)| name == "TERM") {
            spec.env.push(("TERM".into(), "xterm".into()));
        }
        if let Some(layers) = changes::own_layers(&self.dir().0)? {
            (spec.rootfs, spec.overlay) = (Rootfs::Layers(layers), Overlay::Tmpfs);
        }
        Ok(spec)
    }
}

pub(in crate::container) fn run_of(number: u64, began_ns: u64, record: &Record, facts: Facts) -> Result<Run> {
    let mut isolation = facts.isolation;
    isolation.die_with_owner = !record.detached;
    Ok(Run {
        number,
        boot_id: state::boot_id()?,
        began_ns,
        group: facts.group,
        is_init: facts.is_init,
        has_users: isolation.namespaces.get(&Kind::User).is_some_and(|how| *how != "host"),
        uid_map: isolation.uid_map.clone(),
        gid_map: isolation.gid_map.clone(),
        user: isolation.user,
        overlay: facts.overlay,
        isolation: isolation.to_json(),
    })
}
