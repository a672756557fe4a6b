//! The launcher as the monitor of one container: it starts it, keeps its streams, and tells how it ended.
//!
//! It is nobody's child, so that it outlives whoever started it, and it ends with its container. Until the library has
//! handed the container over, the container ends with the library, and afterwards with its owner, if it has one.

mod clients;
mod ending;
mod events;
mod hooks;
mod launch;
mod log;
mod remove;
mod restart;
mod words;

use clients::{Chunk, Clients};
use hooks::Runner;
use log::Log;

use crate::monitor::{MOST_CLIENTS, Monitor, OWNER_GONE, RestartWhen, STDERR, STDOUT, event};
use crate::plan::When;
use crate::planfile::{PlanFile, bytes_of};
use crate::report::Report;
use crate::sys::{self, PollFd};

const FAILED: i32 = crate::FAILED;
const PR_SET_NAME: i32 = 15;
const PR_SET_DUMPABLE: i32 = 4;
const SECOND: u64 = 1_000_000_000;
/// How long who is attached may take nothing of what is left when the container has ended.
const PATIENCE: u64 = 10 * SECOND;
/// Between two tries to take in somebody for whom there is no descriptor.
const ACCEPT_PAUSE: u64 = SECOND / 50;
/// Places of the descriptors that are polled.
const LAUNCHER: usize = 0;
const CONTROL: usize = 1;
const OWNER: usize = 2;
const REPORT: usize = 3;
const LISTENER: usize = 4;
const OUT: usize = 5;
const ERR: usize = 6;
const RUNNER: usize = 7;
const FIXED: usize = 8;

/// Where it stands.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// The launcher is at work, and the library answers it.
    Started,
    /// The launcher is at work again, and we answer it.
    StartedAgain,
    /// The payload runs.
    Running,
    /// It has ended, and is started again at this moment.
    Waiting(u64),
    /// It has ended for good.
    Ended,
}

struct State<'a> {
    plan: &'a PlanFile,
    monitor: &'a Monitor,
    stage: Stage,
    launcher: i32,
    launcher_pidfd: i32,
    report: i32,
    control: i32,
    owner: i32,
    stdin: i32,
    first: i32,
    first_pid: i32,
    out: [i32; 2],
    /// Our end of its terminal, or -1.
    terminal: i32,
    began_ns: u64,
    began: u64,
    last_word: Option<Report>,
    status: i32,
    flags: u32,
    restarts: u32,
    failures: u32,
    may_restart: bool,
    log: Log,
    /// Who runs hooks at this moment, and which.
    runner: Runner,
    runner_for: When,
    /// The end of this run is still to be told.
    is_up: bool,
    /// How many the kernel had killed in the group before this run.
    ooms: u32,
}

/// Goes on as the monitor in a child that nobody waits for; the parent is done.
pub fn start(plan: &PlanFile) -> i32 {
    static mut CHUNK: Chunk = Chunk::EMPTY;
    static mut CLIENTS: Clients = Clients::NONE;
    let Some(monitor) = plan.list(plan.monitor).first() else { return FAILED };
    let mut pidfd = -1;
    match sys::clone(0, &mut pidfd) {
        Ok(0) => {}
        Ok(_) => return 0,
        Err(_) => return FAILED,
    }
    let _ = sys::setsid();
    let _ = sys::chdir(c"/".as_ptr().cast());
    let _ = sys::prctl(PR_SET_NAME, c"zind-monitor".as_ptr() as usize, 0);
    let _ = sys::prctl(PR_SET_DUMPABLE, 0, 0);
    sys::umask(0o077);
    // SAFETY: there is one thread, and this function is called once.
    let (chunk, clients) = unsafe { (&mut *(&raw mut CHUNK), &mut *(&raw mut CLIENTS)) };
    let mut state = State {
        plan,
        monitor,
        stage: Stage::Started,
        launcher: 0,
        launcher_pidfd: -1,
        report: monitor.report,
        control: monitor.control,
        owner: monitor.owner,
        stdin: monitor.stdin,
        first: -1,
        first_pid: 0,
        out: [monitor.stdout, monitor.stderr],
        terminal: -1,
        began_ns: sys::now_ns(false),
        began: sys::now_ns(true),
        last_word: None,
        status: 0,
        flags: 0,
        restarts: 0,
        failures: 0,
        may_restart: monitor.restart != RestartWhen::Never,
        log: Log::new(monitor),
        runner: Runner::NONE,
        runner_for: When::CreateRuntime,
        is_up: false,
        ooms: 0,
    };
    let own = sys::pidfd_open(sys::getpid()).unwrap_or(-1);
    if own < 0 || sys::dup_to(own, monitor.owner_slot).is_err() {
        return FAILED;
    }
    let begun = state.clone_launcher();
    let is_told = sys::tell(state.control, bytes_of(&begun), own).is_ok();
    sys::close(own);
    if begun.clone_errno != 0 {
        return FAILED;
    }
    if !is_told {
        // The library waits for it, until we are gone.
        return state.give_up();
    }
    state.leave_to_the_launcher();
    state.watch(chunk, clients)
}

impl State<'_> {
    /// Until the container has ended for good. The value is the exit status.
    fn watch(&mut self, chunk: &mut Chunk, clients: &mut Clients) -> i32 {
        let mut fds = [PollFd::readable(-1); FIXED + MOST_CLIENTS];
        let mut patience_ends = u64::MAX;
        loop {
            if self.stage == Stage::Ended && chunk.is_empty() && !self.has_output() {
                return self.finish(chunk, clients);
            }
            let now = sys::now_ns(true);
            let next = match self.stage {
                Stage::Waiting(until) if now >= until => {
                    self.start_again();
                    continue;
                }
                Stage::Waiting(until) => until,
                Stage::Ended if now >= patience_ends => {
                    clients.drop_the_slow(chunk);
                    continue;
                }
                Stage::Ended => patience_ends,
                _ => u64::MAX,
            };
            // One that has ended already is still there when the library is done with it.
            fds[LAUNCHER] = PollFd::readable(if self.stage == Stage::Started { -1 } else { self.launcher_pidfd });
            fds[CONTROL] = PollFd::readable(self.control);
            fds[OWNER] = PollFd::readable(self.owner);
            fds[REPORT] = PollFd::readable(if self.stage == Stage::Started { -1 } else { self.report });
            fds[LISTENER] = PollFd::readable(self.monitor.listener);
            fds[RUNNER] = PollFd::readable(self.runner.pidfd);
            for (slot, fd) in [OUT, ERR].into_iter().zip(self.out) {
                // Not before the library is done: who attaches at the start is to get the first byte.
                let is_wanted = chunk.is_empty() && self.stage != Stage::Started;
                fds[slot] = PollFd::readable(if is_wanted { fd } else { -1 });
            }
            // No more than there are: poll(2) refuses more than there may be descriptors.
            let count = FIXED + clients.poll(&mut fds[FIXED..]);
            let timeout = if next == u64::MAX { -1 } else { next.saturating_sub(now) as i64 };
            let polled = fds.get_mut(..count).unwrap_or(&mut []);
            if sys::poll_for(polled, timeout).is_err() {
                continue;
            }
            if fds[CONTROL].revents != 0 && !self.hear_the_library() {
                return self.give_up();
            }
            if fds[OWNER].revents != 0 {
                sys::close(self.owner);
                self.owner = -1;
                self.flags |= OWNER_GONE;
                self.end_it();
            }
            if fds[REPORT].revents != 0 {
                self.hear_the_launcher();
            }
            if fds[RUNNER].revents != 0 {
                let is_well = self.runner.reap();
                if self.runner_for == When::CreateRuntime {
                    self.go_on_after_hooks(is_well);
                }
            }
            if !chunk.is_empty() && clients.go_on(chunk) {
                patience_ends = sys::now_ns(true) + PATIENCE;
            }
            for index in 0..count - FIXED {
                if fds[FIXED + index].revents != 0
                    && let Some(message) = clients.request(index)
                {
                    self.answer(clients, index, message);
                }
            }
            if fds[LISTENER].revents != 0 && !clients.accept(self.monitor.listener) {
                // No descriptor is free: who waits is taken in when another one has gone.
                let _ = sys::poll_for(&mut [], ACCEPT_PAUSE as i64);
            }
            for (slot, stream) in [(OUT, STDOUT), (ERR, STDERR)] {
                if fds[slot].revents != 0 && chunk.is_empty() {
                    self.take_output(slot - OUT, stream, chunk, clients);
                }
            }
            if fds[LAUNCHER].revents != 0 {
                self.reap();
                patience_ends = sys::now_ns(true) + PATIENCE;
            }
        }
    }

    fn take_output(&mut self, which: usize, stream: u8, chunk: &mut Chunk, clients: &mut Clients) {
        if !chunk.fill(self.out[which], stream) {
            // Between two runs nobody has a terminal open.
            if self.monitor.restart == RestartWhen::Never {
                if self.terminal != self.out[which] {
                    sys::close(self.out[which]);
                }
                self.out[which] = -1;
            } else if self.terminal == self.out[which] && self.stage != Stage::Ended {
                self.out[which] = -1;
            }
            return;
        }
        if chunk.is_empty() {
            return;
        }
        let (stream, bytes) = chunk.output();
        self.log.write(stream, bytes);
        clients.pass_on(chunk);
    }

    /// True if there is something to read at this moment.
    fn has_output(&self) -> bool {
        const POLLIN: i16 = 1;
        let mut fds = self.out.map(PollFd::readable);
        sys::poll_for(&mut fds, 0).is_ok() && fds.iter().any(|fd| fd.revents & POLLIN != 0)
    }

    /// Writes to the journal.
    fn tell(&self, what: u32) {
        if self.monitor.events < 0 {
            return;
        }
        let mut record = events::record(self.plan, self.monitor, what, self.restarts);
        if what == event::DIED {
            (record.how, record.value) = self.how_it_ended();
            record.flags = self.flags;
        }
        let _ = events::append(self.monitor.events, &mut record);
    }
}
