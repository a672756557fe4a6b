//! [`Attended`]: a process that its own program stays with, found by others while it runs.
//!
//! It has the files of a container, so that whoever looks finds one: its program holds the lock that a monitor would, and answers at
//! the socket. But the streams are the program's: there is no log, and nothing to attach to.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use zind_init::monitor::{MAGIC, VERSION, request};

use super::builder::name_of;
use super::life::{run_of, told_of};
use super::state::{self, Record};
use super::{Container, Containers, KILLED, LogOptions, Restart, monitor, spec_file};
use crate::error::{At, Error, Result, Step};
use crate::process::{Exit, Process};

/// More than this are not answered at once.
const MOST_CONNECTIONS: usize = 64;

/// A running process among the containers of a place: [`Containers::attend`]. Dropped, it is not there any more; it goes on.
#[derive(Debug)]
pub struct Attended<'a> {
    process: &'a Process,
    container: Container,
    listener: OwnedFd,
    /// What a monitor would hold.
    _lock: OwnedFd,
    /// Who asks, and whether it waits for the end.
    connections: Vec<(OwnedFd, bool)>,
}

impl Containers {
    /// Lets others find a process while it runs: list it, and run programs in it, send it signals, stop and pause it, as if it were
    /// a container of this name. They are answered by [`Attended::serve`]. What it writes stays with this program: others can neither
    /// read its log nor attach. It ends with this program, as it is.
    ///
    /// Errors: [`Error::Exists`] for the name; [`Error::State`] if it is a further program in another one; [`Error::Spec`] for
    /// what cannot be written down; [`Error::Sys`] at [`Step::Container`].
    pub fn attend<'a>(&self, process: &'a Process, name: &str) -> Result<Attended<'a>> {
        state::check_name(name)?;
        let facts = process.facts();
        let Some(spec) = facts.spec.clone() else {
            return Err(Error::State("a further program in a container is none of its own".to_owned()));
        };
        let made = self.begin()?;
        let home = self.dir_of(made.id());
        let document = spec_file::encode(&spec)?;
        made.write(state::CONFIG, &document)?;
        made.write(state::RUNTIME, &document)?;
        let began_ns = state::now_ns();
        let mut record = Record {
            id: made.id().to_owned(),
            name: Some(name.to_owned()),
            labels: BTreeMap::new(),
            created_ns: began_ns,
            restart: Restart::No,
            log: LogOptions { files: 0, ..LogOptions::default() },
            terminal: spec.terminal,
            stdin_open: false,
            auto_remove: true,
            attended: true,
            detached: false,
            stop_signal: process.stop_signal(),
            image: process.image().map(name_of),
            command: spec.argv.iter().map(|text| text.to_string_lossy().into_owned()).collect(),
            run: None,
        };
        record.run = Some(run_of(1, began_ns, &record, facts)?);
        made.write(state::RUNNING, &running(process.pid(), began_ns))?;
        made.write_record(&record)?;
        let lock = made.take_monitor_lock()?;
        let lock = lock.ok_or_else(|| Error::State("somebody has the lock of a new container".to_owned()))?;
        let listener = monitor::listener(made.dir(), made.dir().open()?.as_fd())?;
        self.publish(made, &record, &home, &mut || false)?;
        let container = Container::new(self.clone(), home, None);
        Ok(Attended { process, container, listener, _lock: lock, connections: Vec::new() })
    }
}

/// The file that a monitor writes about the first process.
fn running(pid: i32, began_ns: u64) -> Vec<u8> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut bytes = Vec::with_capacity(40 + stat.len());
    bytes.extend_from_slice(&MAGIC.to_ne_bytes());
    bytes.extend_from_slice(&VERSION.to_ne_bytes());
    bytes.extend_from_slice(&1u64.to_ne_bytes());
    bytes.extend_from_slice(&began_ns.to_ne_bytes());
    bytes.extend_from_slice(&pid.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&(stat.len() as u64).to_ne_bytes());
    bytes.extend_from_slice(&stat);
    bytes
}

impl Attended<'_> {
    /// As others see it.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Answers others until it has ended, or `stop` is readable or hung up.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Monitor`]; of waiting for the process.
    pub fn serve(&mut self, stop: BorrowedFd<'_>) -> Result<()> {
        loop {
            let end = self.process.end_fd();
            let mut all =
                vec![PollFd::from_borrowed_fd(end, PollFlags::IN), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
            all.push(PollFd::new(&self.listener, PollFlags::IN));
            all.extend(self.connections.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
            match poll(&mut all, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.at(Step::Monitor, "poll", "")?,
            };
            let is_ready: Vec<bool> = all.iter().map(|one| !one.revents().is_empty()).collect();
            drop(all);
            if is_ready[0] {
                let exit = self.process.wait(None)?;
                self.hear_the_last();
                // Who is told finds it gone, and does not ask anew.
                self.remove();
                self.tell(exit);
                return Ok(());
            }
            if is_ready[1] {
                return Ok(());
            }
            for index in (0..self.connections.len()).rev() {
                if is_ready[3 + index] && !self.answer(index) {
                    self.connections.swap_remove(index);
                }
            }
            if is_ready[2]
                && let Ok(connection) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
                && self.connections.len() < MOST_CONNECTIONS
            {
                self.connections.push((connection, false));
            }
        }
    }

    /// Those, too, who have come just now.
    fn hear_the_last(&mut self) {
        let soon = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let is_ready = |fd: &OwnedFd, patience: &Timespec| {
            poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(patience)).is_ok_and(|count| count > 0)
        };
        while self.connections.len() < MOST_CONNECTIONS && is_ready(&self.listener, &Timespec::default()) {
            let Ok(connection) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else {
                break;
            };
            self.connections.push((connection, false));
        }
        for index in 0..self.connections.len() {
            if !self.connections[index].1 && is_ready(&self.connections[index].0, &soon) {
                self.answer(index);
            }
        }
    }

    /// Does what one of them asks for; false: it has gone.
    fn answer(&mut self, index: usize) -> bool {
        let Some((connection, waits)) = self.connections.get_mut(index) else { return false };
        let mut bytes = [MaybeUninit::uninit(); 2];
        let (what, argument) = match recv(&*connection, &mut bytes, RecvFlags::empty()) {
            Ok(((&mut [what, argument], _), 2)) => (what, argument),
            _ => return false,
        };
        let done = match what {
            request::SIGNAL if i32::from(argument) == libc::SIGKILL => self.process.kill(),
            request::SIGNAL => self.process.signal(i32::from(argument)),
            request::NO_RESTART => Ok(()),
            request::AWAIT => {
                *waits = true;
                return true;
            }
            _ => return reply(connection, libc::EOPNOTSUPP, 0),
        };
        // It has ended meanwhile.
        reply(connection, done.map_or(libc::ESRCH, |()| 0), 0)
    }

    /// Takes it away, if it is still there.
    fn remove(&self) {
        let Ok(_lock) = self.container.dir().lock(&mut || false) else { return };
        // Somebody may have given it another name.
        let name = self.container.record().ok().and_then(|record| record.name);
        let _ = self.container.containers().remove(self.container.dir(), name.as_deref());
    }

    /// Tells the end to who waits for it.
    fn tell(&self, exit: Option<Exit>) {
        let value = told_of(exit.unwrap_or(KILLED));
        for (connection, _) in self.connections.iter().filter(|(_, waits)| *waits) {
            reply(connection, 0, value);
        }
    }
}

/// False: it has gone.
fn reply(connection: &OwnedFd, errno: i32, value: i32) -> bool {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&errno.to_ne_bytes());
    bytes[4..].copy_from_slice(&value.to_ne_bytes());
    send(connection, &bytes, SendFlags::NOSIGNAL).is_ok()
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Container {
    /// Errors: [`Error::State`] for one whose streams and end are somebody's, with why that is in the way, and what is not.
    pub(super) fn is_apart(&self, what: &str, why: &str) -> Result<()> {
        if self.record()?.attended {
            let id = self.short_id();
            return Err(Error::State(format!(
                "cannot {what} container {id}: it is in the foreground of the program that started it, {why}"
            )));
        }
        Ok(())
    }
}
