//! Starting, waiting for, ending and deleting a container.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use zind_init::monitor::{
    EXITED, OUT_OF_MEMORY, OWNER_GONE, RestartWhen, SIGNALED, SPARED_MEMORY, START_FAILED, TOLD_OOM, TOLD_SIGNAL,
    WAS_KILLED, request,
};

use super::monitor::{self, Connection, ask};
use super::state::{self, Dir, Ended, Phase, Record, Run, SOCKET};
use super::{Attachment, Container, HookPoint, HookState, KILLED, Restart, changes, hooks, spec_file};
use crate::cgroup::Stats;
use crate::error::{At, Error, Result, Step};
use crate::process::launch::{SLICE, wait_readable};
use crate::process::watched::{self, Facts, Keep};
use crate::process::{Exit, ExitKind};
use crate::spec::{Hooks, Kind, Overlay, Rootfs, Spec, Stdio};
use crate::sys::clone;
use crate::sys::descriptors::{pidfd_open, pidfd_send_signal};

/// How long something may take that mostly takes no time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Room for the last words about a container, on a disk that becomes full meanwhile.
const ROOM_FOR_EXIT: usize = 16 << 10;

impl Ended {
    /// What it used over its whole life.
    pub(super) fn stats(&self, record: &Record) -> Stats {
        let usage = &self.head.usage;
        let reported = Stats {
            cpu_user: Some(Duration::from_micros(usage.user_us)),
            cpu_system: Some(Duration::from_micros(usage.system_us)),
            max_rss: Some(usage.max_rss),
            wall: Duration::from_nanos(self.head.wall_ns),
            ..Stats::default()
        };
        let stats = match record.run.as_ref().and_then(|run| run.group.as_ref()) {
            Some(group) => group.stats_of(self.texts.clone()).at_the_end(&reported),
            None => reported,
        };
        // The group is that of all runs, and what happened in others is none of the last one's.
        let oom_kills = stats.oom_kills.map(|count| count.saturating_sub(u64::from(self.head.ooms)));
        Stats { oom_kills, ..stats }
    }

    fn exit(&self, record: &Record) -> Exit {
        let head = &self.head;
        match head.how {
            EXITED => Exit { kind: ExitKind::Exited, code: Some(head.value), signal: None },
            SIGNALED => {
                let exit = Exit { kind: ExitKind::Signaled, code: None, signal: Some(head.value) };
                let by_us = head.flags & (WAS_KILLED | OWNER_GONE) != 0;
                let is_oom = head.value == libc::SIGKILL
                    && !by_us
                    && head.flags & SPARED_MEMORY == 0
                    && (head.flags & OUT_OF_MEMORY != 0 || self.stats(record).oom_kills.is_some_and(|count| count > 0));
                if is_oom { Exit { kind: ExitKind::Oom, ..exit } } else { exit }
            }
            _ if head.flags & START_FAILED == 0 && head.value & 0x7f != 0 => {
                Exit { signal: Some(head.value & 0x7f), ..KILLED }
            }
            _ => KILLED,
        }
    }
}

pub(super) fn exit_of(record: &Record, phase: &Phase) -> Option<Exit> {
    match phase {
        Phase::Ended(Some(ended)) => Some(ended.exit(record)),
        Phase::Ended(None) => Some(KILLED),
        _ => None,
    }
}

/// What was out of the ordinary at the end.
pub(super) fn fault_of(record: &Record, phase: &Phase) -> Option<String> {
    match phase {
        Phase::Ended(None) => {
            let before = record.run.as_ref().map(|run| run.boot_id.as_str());
            let is_same_boot = state::boot_id().is_ok_and(|now| before == Some(now.as_str()));
            Some(if is_same_boot { "its monitor was killed" } else { "the machine was started anew" }.to_owned())
        }
        Phase::Ended(Some(ended)) if ended.head.flags & START_FAILED != 0 => {
            let step = u16::try_from(ended.head.value).ok().and_then(Step::from_number);
            Some(format!("it could not be started again: {}", step.map_or("the launcher ended", Step::words)))
        }
        Phase::Ended(Some(ended)) if ended.head.flags & OWNER_GONE != 0 => {
            Some("the program that it belonged to ended".to_owned())
        }
        _ => None,
    }
}

impl Container {
    /// The error about a container that does not run.
    pub(super) fn not_running(&self, what: &str) -> Error {
        let state = match self.state() {
            Ok(state) => state.name(),
            Err(error) => return error,
        };
        Error::State(format!("cannot {what} container {}: it is {state}; start it first", self.short_id()))
    }

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
            return Err(Error::State(format!("container {} is running already", self.short_id())));
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

    /// Takes away what is left of a container whose monitor was killed, before or after it had the container.
    pub(super) fn settle(&self, record: &Record, phase: &Phase, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let Some(run) = &record.run else { return Ok(()) };
        if matches!(phase, Phase::Ended(None)) {
            self.containers().tell_lost_end(&record.id, run.number);
        }
        // Who has told the end of this very start has taken everything away.
        let is_told = matches!(phase, Phase::Ended(Some(ended)) if ended.head.run == run.number);
        if is_told || state::boot_id()? != run.boot_id {
            return Ok(());
        }
        if let Some(group) = &run.group {
            group.remove(PATIENCE)?;
        }
        let Some((number, running)) = self.dir().running()? else { return Ok(()) };
        let Some(pidfd) = Some(running).filter(|_| number == run.number).and_then(|running| running.pidfd()) else {
            return Ok(());
        };
        let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        let deadline = Instant::now() + PATIENCE;
        while !wait_readable(pidfd.as_fd(), Some(SLICE), interrupted)? {
            if Instant::now() >= deadline {
                return Err(Error::sys(Step::Kill, "pidfd_send_signal", "", Errno::ETIMEDOUT));
            }
        }
        Ok(())
    }

    /// Waits for its end, through all restarts. `None` when `timeout` is over first; the container goes on then. One that is
    /// `auto_remove` is deleted then.
    ///
    /// Errors: [`Error::State`] if it was never started.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<Exit>> {
        self.wait_interruptible(timeout, &mut || false)
    }

    /// As [`Container::wait`]; `interrupted` is asked now and then, and ends the wait with [`Error::Interrupted`] when it says
    /// so.
    pub fn wait_interruptible(
        &self,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Exit>> {
        self.wait_holding(None, timeout, interrupted)
    }

    /// Has this value told of the end of a container that is deleted then.
    pub(super) fn hold(&self) -> Result<()> {
        let held = self.await_end()?;
        if held.is_some() {
            *self.held() = held;
        }
        Ok(())
    }

    /// The connection by which who started a container that is deleted at its end, or is attached to it, is told of that.
    pub(super) fn held(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was started by this value, or a clone of it, and is deleted at its end: what it tells then is heard.
    pub(super) fn knows_its_end(&self) -> bool {
        self.held().is_some() || self.0.told.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// A connection to be told of the end by. `None`: there is no monitor any more.
    pub(super) fn await_end(&self) -> Result<Option<Connection>> {
        let opened = match Connection::open(self.dir()) {
            Err(Error::NotFound { .. }) => return Ok(None),
            result => result?,
        };
        let Some(connection) = opened else { return Ok(None) };
        Ok(if connection.send(request::AWAIT, 0)? { Some(connection) } else { None })
    }

    /// What is known of the end of a container that is gone; `None` when `timeout` is over first.
    fn end_of_the_gone(
        &self,
        mine: Option<&Connection>,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Exit>> {
        let gone = || Error::NotFound { what: "container", name: self.id().to_owned() };
        let known = || *self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exit) = known() {
            return Ok(Some(exit));
        }
        let copy = || self.held().as_ref().map(Connection::try_clone).transpose();
        let held = if mine.is_some() { None } else { copy()? };
        let Some(connection) = mine.or(held.as_ref()) else { return Err(gone()) };
        if !wait_readable(connection.fd(), timeout, interrupted)? {
            return Ok(None);
        }
        let told =
            |connection: &Connection| connection.reply().map(|reply| reply.map(|(_, value, _)| exit_told(value)));
        let mut heard = told(connection)?;
        // Its monitor looked for the last time before it was asked there; by the start's it has told.
        if heard.is_none()
            && mine.is_some()
            && let Some(held) = copy()?
        {
            if !wait_readable(held.fd(), timeout, interrupted)? {
                return Ok(None);
            }
            heard = told(&held)?;
        }
        // Another thread may have heard it.
        let exit = heard.or_else(known).ok_or_else(gone)?;
        let is_first = self.0.told.lock().unwrap_or_else(PoisonError::into_inner).replace(exit).is_none();
        *self.held() = None;
        self.reap_programs();
        if is_first {
            self.after_its_deletion(interrupted);
        }
        Ok(Some(exit))
    }

    /// Calls the functions of this process, once, for a container that its monitor has deleted.
    fn after_its_deletion(&self, interrupted: &mut dyn FnMut() -> bool) {
        if !self.has_functions(HookPoint::Poststop) {
            return;
        }
        let spec = self.spec().unwrap_or_else(|_| Spec::new([""; 0]));
        let labels = self.0.labels.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = HookState::new(self.dir(), &labels, &spec, "stopped", None);
        self.run_leniently(HookPoint::Poststop, &[], &state, interrupted);
    }

    /// Waits; `mine` was asked to tell the end before.
    pub(super) fn wait_holding(
        &self,
        mine: Option<&Connection>,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Exit>> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        // What has told of an end that was not written down yet, or of that of its monitor.
        let mut last: Option<Connection> = None;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let (record, phase) = match self.phase() {
                // Somebody else has deleted it since, its monitor above all.
                Err(Error::NotFound { .. }) => {
                    let last = last.as_ref().filter(|_| self.held().is_none());
                    return self.end_of_the_gone(mine.or(last), left, interrupted);
                }
                result => result?,
            };
            match phase {
                Phase::Created => return Err(self.not_running("wait for")),
                Phase::Ended(_) => {
                    let exit = exit_of(&record, &phase);
                    self.settle(&record, &phase, interrupted)?;
                    self.reap_programs();
                    if record.auto_remove {
                        let _ = self.delete(false);
                    }
                    return Ok(exit);
                }
                Phase::Starting | Phase::Running(_) => {}
            }
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            let connection = match phase {
                Phase::Running(_) => self.await_end()?,
                _ => None,
            };
            let Some(connection) = connection else {
                if interrupted() {
                    return Err(Error::Interrupted);
                }
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            if wait_readable(connection.fd(), left, interrupted)? {
                match self.phase() {
                    Err(Error::NotFound { .. }) => {
                        return self.end_of_the_gone(Some(&connection), left, interrupted);
                    }
                    // It is told by what is written, which says more. Or it has hung up.
                    _ => last = Some(connection),
                }
            }
        }
    }

    /// Sends a signal to its program; SIGKILL ends the whole container, and it is not started again.
    ///
    /// Errors: [`Error::State`] if it does not run; [`Error::Spec`] for a number that is no signal.
    pub fn kill(&self, signal: i32) -> Result<()> {
        if !(1..=64).contains(&signal) {
            return Err(Error::spec("signal", format!("{signal} is not within 1 to 64")));
        }
        let (record, phase) = self.phase()?;
        let none = || self.not_running("signal");
        if !matches!(phase, Phase::Running(_) | Phase::Starting) {
            return Err(none());
        }
        let told = ask(self.dir(), request::SIGNAL, signal as u8)?;
        if signal == libc::SIGKILL
            && let Some(run) = record.run.as_ref().filter(|run| !run.is_init)
            && let Some(Ok(group)) = run.group.as_ref().map(|group| group.open())
        {
            group.kill()?;
        }
        told.map(drop).ok_or_else(none)
    }

    /// Asks it to end by its stop signal, and ends it when `patience` is over. It is not started again. One that has ended
    /// already is left alone.
    ///
    /// Errors: [`Error::State`] if it was never started.
    pub fn stop(&self, patience: Duration) -> Result<Exit> {
        self.stop_interruptible(patience, &mut || false)
    }

    /// As [`Container::stop`], and [`Container::wait_interruptible`].
    pub fn stop_interruptible(&self, patience: Duration, interrupted: &mut dyn FnMut() -> bool) -> Result<Exit> {
        let (record, phase) = match self.phase() {
            Err(Error::NotFound { .. }) => {
                return self.end_of_the_gone(None, None, interrupted)?.ok_or(Error::Interrupted);
            }
            result => result?,
        };
        let mut mine = None;
        if let Phase::Running(_) = phase {
            // One that is deleted at its end cannot be asked for that later.
            mine = self.await_end()?;
            ask(self.dir(), request::NO_RESTART, 0)?;
            if super::running::is_paused(&record) {
                let _ = self.resume();
            }
            ask(self.dir(), request::SIGNAL, record.stop_signal as u8)?;
            if let Some(exit) = self.wait_holding(mine.as_ref(), Some(patience), interrupted)? {
                return Ok(exit);
            }
            match self.kill(libc::SIGKILL) {
                // It has ended just now.
                Ok(()) | Err(Error::State(_) | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.wait_holding(mine.as_ref(), None, interrupted)?.ok_or(Error::Interrupted)
    }

    /// Stops it, if it runs, and starts it.
    pub fn restart(&self, patience: Duration) -> Result<()> {
        self.restart_interruptible(patience, &mut || false)
    }

    /// As [`Container::restart`], and [`Container::wait_interruptible`].
    pub fn restart_interruptible(&self, patience: Duration, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        if let Phase::Running(_) = self.phase()?.1 {
            self.stop_interruptible(patience, interrupted)?;
        }
        self.start_interruptible(interrupted)
    }

    /// Lets it go on when the program that has started it, or is going to, ends.
    pub fn detach(&self) -> Result<()> {
        self.is_apart("detach", "and ends with it; started with --name or -d it is apart")?;
        let _lock = self.dir().lock(&mut || false)?;
        let mut record = self.record()?;
        if !record.detached {
            record.detached = true;
            self.dir().write_record(&record)?;
        }
        ask(self.dir(), request::FORGET_OWNER, 0).map(drop)
    }

    /// Gives it another name.
    ///
    /// Errors: [`Error::Exists`]; [`Error::Spec`] for a name that is none.
    pub fn rename(&self, name: &str) -> Result<()> {
        self.0.places.rename(self, name)
    }

    /// Deletes it with all it has: changes, log, name. With `force` one that runs is ended first, and one whose state cannot
    /// be read is taken away, too.
    ///
    /// Errors: [`Error::State`] if it runs; [`Error::Sys`] at [`Step::Container`].
    pub fn delete(&self, force: bool) -> Result<()> {
        self.delete_interruptible(force, &mut || false)
    }

    /// As [`Container::delete`], and [`Container::wait_interruptible`].
    pub fn delete_interruptible(&self, force: bool, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let result = self.delete_all(force, interrupted);
        if let Ok(()) | Err(Error::NotFound { .. }) = result {
            self.reap_programs();
        }
        result
    }

    /// It has ended, and so have the programs that were run in it by this value: none of their launchers stays a zombie of this
    /// process.
    fn reap_programs(&self) {
        self.0.launchers.end();
        clone::reap_orphans();
    }

    fn delete_all(&self, force: bool, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let dir = self.dir();
        let mut killed = None;
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let mut told = Ok(());
            {
                let _lock = match dir.lock(interrupted) {
                    // It was to be deleted at its end, and its monitor was quicker.
                    Err(Error::NotFound { .. }) if killed.is_some() => {
                        let connection: Option<Connection> = killed.flatten();
                        // It tells when it is done.
                        return self.end_of_the_gone(connection.as_ref(), None, interrupted).map(drop).or_else(
                            |error| match error {
                                Error::NotFound { .. } => Ok(()),
                                error => Err(error),
                            },
                        );
                    }
                    result => result?,
                };
                let record = match dir.record() {
                    Err(Error::State(_)) if force => None,
                    result => Some(result?),
                };
                let phase = match &record {
                    Some(record) => dir.phase(record)?,
                    // Nobody can say any more what it was; whether it has a monitor can be seen.
                    None if dir.has_monitor()? => Phase::Starting,
                    None => {
                        self.0.places.forget_names(dir.id());
                        return self.0.places.remove(dir, None);
                    }
                };
                if let (Some(record), Phase::Created | Phase::Ended(_)) = (&record, &phase) {
                    self.settle(record, &phase, interrupted)?;
                    let spec = self.spec().unwrap_or_else(|_| Spec::new([""; 0]));
                    let state = self.hook_state(record, &spec, "stopped", None);
                    self.0.places.remove(dir, record.name.as_deref())?;
                    self.run_leniently(HookPoint::Poststop, &spec.hooks.poststop, &state, interrupted);
                    return Ok(());
                }
                if !force {
                    let text =
                        format!("container {} is running: stop it first, or delete it by force", self.short_id());
                    return Err(Error::State(text));
                }
                let mine = self.await_end()?;
                match ask(dir, request::SIGNAL, libc::SIGKILL as u8) {
                    Ok(_) => {}
                    Err(error) => {
                        told = Err(error);
                        // Its monitor may be stopped; what it holds has to end all the same.
                        if let Phase::Running(running) = &phase
                            && let Some(pidfd) = running.pidfd()
                        {
                            let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                        }
                    }
                }
                if let Some(run) = record.as_ref().and_then(|record| record.run.as_ref()).filter(|run| !run.is_init)
                    && let Some(Ok(group)) = run.group.as_ref().map(|group| group.open())
                {
                    let _ = group.kill();
                }
                // It may have ended by itself meanwhile, and been deleted by who waits for it.
                killed = Some(mine);
            }
            // Not by `wait`, which may delete it itself.
            let has_ended = state::wait_until(PATIENCE, interrupted, || match dir.has_monitor() {
                Ok(lives) => Ok(!lives),
                Err(Error::NotFound { .. }) => Ok(true),
                Err(error) => Err(error),
            })?;
            if !has_ended && Instant::now() >= deadline {
                return Err(told.err().unwrap_or_else(|| {
                    Error::sys(Step::Kill, "", "zind-monitor", Errno::ETIMEDOUT)
                        .with_hint("the monitor of the container does not end: is it stopped?")
                }));
            }
        }
    }
}

/// An end as a monitor tells it to who waits.
pub(super) fn told_of(exit: Exit) -> i32 {
    let signal = |more: i32| TOLD_SIGNAL | more | exit.signal.unwrap_or(libc::SIGKILL);
    exit.code.unwrap_or_else(|| signal(if exit.kind == ExitKind::Oom { TOLD_OOM } else { 0 }))
}

/// What is told so.
fn exit_told(value: i32) -> Exit {
    match value {
        0..=255 => Exit { kind: ExitKind::Exited, code: Some(value), signal: None },
        _ if value & TOLD_OOM != 0 => Exit { kind: ExitKind::Oom, ..KILLED },
        _ => Exit { signal: Some(value & 0x7f).filter(|signal| *signal > 0).or(KILLED.signal), ..KILLED },
    }
}

pub(super) fn run_of(number: u64, began_ns: u64, record: &Record, facts: Facts) -> Result<Run> {
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

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

    use super::super::Containers;
    use super::*;

    /// Its monitor took in whoever asked at last, but heard no question of theirs any more.
    #[test]
    fn who_asks_too_late_is_told_by_what_was_asked_at_the_start() {
        let place = std::env::temp_dir().join(format!("zind-life-{}", std::process::id()));
        let gone = Container::new(Containers::open(Some(&place)).unwrap(), Dir(place.join("gone")), None);
        let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (late, held) = (pair(), pair());
        drop(late.1);
        let late = Connection::of(late.0);
        let wait = || gone.end_of_the_gone(Some(&late), None, &mut || false);
        assert!(matches!(wait(), Err(Error::NotFound { .. })));
        let end = Exit { kind: ExitKind::Exited, code: Some(5), signal: None };
        let reply = [0i32.to_ne_bytes(), told_of(end).to_ne_bytes()].concat();
        send(&held.1, &reply, SendFlags::empty()).unwrap();
        *gone.held() = Some(Connection::of(held.0));
        assert_eq!(wait().unwrap(), Some(end));
        // And whoever asks after that.
        assert_eq!(gone.end_of_the_gone(None, None, &mut || false).unwrap(), Some(end));
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn an_end_is_told_whole() {
        let of = |kind, code, signal| Exit { kind, code, signal };
        for exit in [
            of(ExitKind::Exited, Some(0), None),
            of(ExitKind::Exited, Some(255), None),
            of(ExitKind::Signaled, None, Some(libc::SIGTERM)),
            of(ExitKind::Signaled, None, Some(64)),
            of(ExitKind::Oom, None, Some(libc::SIGKILL)),
        ] {
            assert_eq!(exit_told(told_of(exit)), exit);
        }
    }
}
