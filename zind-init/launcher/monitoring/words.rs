//! What the library, the launcher and those who are connected say, and what is done then.

use core::mem::size_of;

use super::clients::Clients;
use super::{Stage, State};
use crate::monitor::{Begun, First, HandOver, MAGIC, Reply, RunningHead, VERSION, WAS_KILLED, Waiting, event, request};
use crate::plan::When;
use crate::planfile::bytes_of;
use crate::report::{REPORT_SIZE, Report};
use crate::step::Step;
use crate::sys::{self, CStr, O_CREAT, O_WRONLY};

const ENOSPC: i32 = 28;

impl State<'_> {
    /// The word that the container is ours. False if the library is gone without it.
    pub(super) fn hear_the_library(&mut self) -> bool {
        let mut message = [0u8; size_of::<HandOver>()];
        let mut fds = [-1i32; 2];
        let heard = sys::receive(self.control, &mut message, &mut fds);
        if heard != Ok(message.len()) || fds[0] < 0 {
            return false;
        }
        let [a, b, c, d, ..] = message;
        if fds[1] >= 0 {
            self.take_terminal(fds[1]);
        }
        // Who waits for the word is not to take a container for running that nobody would find so, nor one that runs for failed.
        let ready = self.runs(i32::from_ne_bytes([a, b, c, d]), fds[0]);
        let word = Begun { pid: self.first_pid, clone_errno: ready.err().unwrap_or(0), ..Begun::default() };
        let told = sys::tell(self.control, bytes_of(&word), -1);
        sys::close(self.control);
        self.control = -1;
        ready.is_ok() && matches!(told, Ok(_) | Err(sys::EPIPE | sys::ECONNRESET))
    }

    /// What is written to it is output, and what is written by us is its input.
    pub(super) fn take_terminal(&mut self, master: i32) {
        if self.terminal >= 0 && self.terminal != master {
            sys::close(self.terminal);
        }
        self.terminal = master;
        self.out[0] = master;
    }

    /// The payload runs, below or as this process. An error: nobody else would find it so.
    pub(super) fn runs(&mut self, pid: i32, pidfd: i32) -> sys::Result<()> {
        (self.first_pid, self.first) = (pid, pidfd);
        self.write_running(pid)?;
        self.stage = Stage::Running;
        self.is_up = true;
        self.tell(event::STARTED);
        // Those of the first start the library runs.
        if self.restarts > 0 {
            self.run_hooks(When::Poststart, pid);
        }
        Ok(())
    }

    /// Writes down which process it is, and what is not another one's with its number.
    pub(super) fn write_running(&self, pid: i32) -> sys::Result<()> {
        let mut stat = [0u8; 1024];
        let mut name = [0u8; 32];
        let mut digits = [0u8; 12];
        let parts = [crate::watch::decimal(pid, &mut digits), b"/stat"];
        for (slot, byte) in name.iter_mut().zip(parts.into_iter().flatten()) {
            *slot = *byte;
        }
        let file = sys::openat(self.monitor.proc, name.as_ptr(), 0, 0)?;
        let read = sys::read(file, &mut stat);
        sys::close(file);
        self.write_what_is(pid, stat.get(..read?).unwrap_or(&[]))
    }

    /// Writes down that nothing runs until this moment. (If that fails, what is there names a process that is gone, which is found.)
    pub(super) fn write_waiting(&self, moment: u64) {
        let until_ns = sys::now_ns(false) + moment.saturating_sub(sys::now_ns(true));
        let _ = self.write_what_is(0, bytes_of(&Waiting { until_ns, head: self.exit_head() }));
    }

    fn write_what_is(&self, pid: i32, rest: &[u8]) -> sys::Result<()> {
        let head = RunningHead {
            magic: MAGIC,
            version: VERSION,
            run: self.monitor.run,
            started_ns: self.began_ns,
            pid,
            restarts: self.restarts,
            len: rest.len() as u32,
            ooms: self.ooms,
        };
        let (aside, place) = (c"running.new".as_ptr().cast(), c"running".as_ptr().cast());
        let write = |name: CStr| {
            let length = size_of::<RunningHead>() + rest.len();
            let file = sys::openat(self.monitor.dir, name, O_CREAT | O_WRONLY, 0o600)?;
            let written = sys::write_both(file, bytes_of(&head), rest);
            let cut = sys::truncate(file, length as u64);
            sys::close(file);
            if written? < length { Err(ENOSPC) } else { cut }
        };
        let written = write(aside).and_then(|_| sys::rename(self.monitor.dir, aside, place));
        match written {
            // A disk that has become full since the first start has the room of that.
            Err(_) if self.restarts > 0 || pid == 0 => write(place).map(drop),
            other => other.map(drop),
        }
    }

    /// What the launcher says: its last word above all.
    pub(super) fn hear_the_launcher(&mut self) {
        let mut bytes = [0u8; 512];
        let mut fds = [-1i32; 2];
        match sys::receive_from(self.report, &mut bytes, &mut fds) {
            Ok((0, _)) | Err(_) => {
                sys::close(self.report);
                self.report = -1;
            }
            Ok((REPORT_SIZE, sender)) => self.hear(report_of(&bytes), sender, fds[0]),
            Ok(_) => {}
        }
    }

    pub(super) fn hear(&mut self, report: Report, sender: i32, fd: i32) {
        match Step::from_number(report.step) {
            Some(Step::Exited | Step::Signaled) => self.last_word = Some(report),
            Some(Step::HandedTerminal) if fd >= 0 => return self.take_terminal(fd),
            Some(Step::Ready) if self.stage == Stage::StartedAgain => self.say_go(sender),
            Some(Step::Started) if self.stage == Stage::StartedAgain && fd >= 0 => {
                let first = match self.monitor.first {
                    First::Launcher => self.launcher,
                    First::Sender => sender,
                    First::Payload => report.value,
                };
                if let Err(errno) = self.runs(first, fd) {
                    self.last_word = Some(Report::new(Step::Monitor, 0, errno));
                    let _ = sys::kill(self.launcher, sys::SIGKILL);
                }
                return;
            }
            Some(_) if self.stage == Stage::StartedAgain && !report.is_milestone() => self.last_word = Some(report),
            _ => {}
        }
        if fd >= 0 {
            sys::close(fd);
        }
    }

    pub(super) fn answer(&mut self, clients: &mut Clients, index: usize, [what, argument]: [u8; 2]) {
        const EINVAL: i32 = 22;
        const ESRCH: i32 = 3;
        let is_running = self.stage == Stage::Running;
        let mut reply = Reply::default();
        match what {
            request::SIGNAL if argument == sys::SIGKILL as u8 => {
                self.flags |= WAS_KILLED;
                self.end_it();
            }
            request::SIGNAL if !is_running => reply.errno = ESRCH,
            request::SIGNAL if (1..=64).contains(&argument) => sys::send(self.report, &[argument], -1),
            request::FORGET_OWNER => {
                if self.owner >= 0 {
                    sys::close(self.owner);
                    self.owner = -1;
                }
            }
            request::ATTACH => {
                clients.attach(index);
                let input = if self.terminal >= 0 { self.terminal } else { self.stdin };
                return clients.reply(index, reply, input);
            }
            request::CLOSE_STDIN => {
                if self.stdin >= 0 {
                    sys::close(self.stdin);
                    self.stdin = -1;
                }
            }
            request::NO_RESTART => {
                self.may_restart = false;
                if let Stage::Waiting(_) = self.stage {
                    self.stage = Stage::Ended;
                }
            }
            request::WHO if !is_running => reply.errno = ESRCH,
            request::WHO => {
                reply.value = self.first_pid;
                return clients.reply(index, reply, self.first);
            }
            request::AWAIT => return clients.await_end(index),
            _ => reply.errno = EINVAL,
        }
        clients.reply(index, reply, -1);
    }
}

fn report_of(bytes: &[u8; 512]) -> Report {
    // SAFETY: long enough, and a structure of integers for which every pattern of bits is a value.
    unsafe { bytes.as_ptr().cast::<Report>().read_unaligned() }
}
