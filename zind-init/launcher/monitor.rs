//! The launcher as the monitor of one container: it starts it, keeps its streams, and tells how it ended.
//!
//! It is nobody's child, so that it outlives whoever started it, and it ends with its container. Until the library has
//! handed the container over, the container ends with the library, and afterwards with its owner, if it has one.

use core::mem::size_of;

use crate::monitor::{
    Begun, EXITED, ExitHead, First, HandOver, KILLED, MAGIC, MOST_CLIENTS, Monitor, OUT_OF_MEMORY, OWNER_GONE, Reply,
    RestartWhen, RunningHead, SIGNALED, SPARED_MEMORY, START_FAILED, STDERR, STDOUT, Section, TOLD_OOM, TOLD_SIGNAL, VERSION, WAS_KILLED, event,
    request,
};
use crate::monitor_clients::{Chunk, Clients};
use crate::monitor_hooks::{self, Runner};
use crate::monitor_log::Log;
use crate::plan::{List, Str, When};
use crate::{monitor_events, monitor_remove};
use crate::planfile::{PlanFile, bytes_of};
use crate::report::{GO, KILLED_FOR_MEMORY, REPORT_SIZE, Report, SPARED, Usage};
use crate::step::Step;
use crate::sys::{self, CStr, O_CREAT, O_WRONLY, PollFd};

const FAILED: i32 = crate::FAILED;
const PR_SET_NAME: i32 = 15;
const PR_SET_DUMPABLE: i32 = 4;
const CLONE_NEWUSER: u64 = 0x1000_0000;
const SECOND: u64 = 1_000_000_000;
/// How long who is attached may take nothing of what is left when the container has ended.
const PATIENCE: u64 = 10 * SECOND;
const FIRST_DELAY: u64 = SECOND / 10;
const LONGEST_DELAY: u64 = 60 * SECOND;
/// Between two tries to take in somebody for whom there is no descriptor.
const ACCEPT_PAUSE: u64 = SECOND / 50;
/// Who has run that long has not failed at once.
const LONG_ENOUGH: u64 = 10 * SECOND;
const ENOSPC: i32 = 28;
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
    /// Starts the launcher of the container as our child.
    fn clone_launcher(&mut self) -> Begun {
        static mut STACK: [u8; 16384] = [0; 16384];
        let monitor = self.monitor;
        let mut number = [0u8; 16];
        let mut digits = [0u8; 12];
        for (slot, digit) in number.iter_mut().zip(crate::watch::decimal(monitor.plan, &mut digits)) {
            *slot = *digit;
        }
        let mut task = Task {
            image: monitor.image,
            keeps_capabilities: monitor.clone_flags & CLONE_NEWUSER != 0,
            argv: [c"zind-init".as_ptr().cast(), number.as_ptr(), core::ptr::null()],
            errno: 0,
        };
        // SAFETY: the one use of the stack at a time: we sleep until the child is done with it.
        let stack = unsafe { &mut *(&raw mut STACK) };
        let mut pidfd = -1;
        let argument = (&raw mut task).cast::<u8>().cast_const();
        let cloned =
            sys::vfork_into(stack, monitor.clone_flags, monitor.cgroup, &mut pidfd, execute_launcher, argument);
        match cloned {
            Err(errno) => Begun { clone_errno: errno, ..Begun::default() },
            Ok(pid) => {
                self.launcher = pid;
                self.launcher_pidfd = pidfd;
                // SAFETY: the child, which is gone from our memory, may have written it.
                let exec_errno = unsafe { (&raw const task.errno).read_volatile() };
                if monitor.groups_done >= 0 {
                    self.attach(pid, monitor.groups_done);
                }
                // Whoever reads its reports must see it leave; the number stays taken, for the next start.
                let _ = sys::dup_to(monitor.proc, monitor.report_slot);
                Begun { pid, exec_errno, ..Begun::default() }
            }
        }
    }

    /// Writes the launcher's pid to the files of its groups, and how that went to `done`.
    fn attach(&self, pid: i32, done: i32) {
        let mut digits = [0u8; 12];
        let text = crate::watch::decimal(pid, &mut digits);
        let mut told = [0i32; 2];
        for (index, &group) in self.plan.list(self.monitor.groups).iter().enumerate() {
            if let Err(errno) = sys::write_all(group, text) {
                told = [index as i32, errno];
                break;
            }
        }
        if sys::write_all(done, bytes_of(&told)).is_err() {
            // It would wait for good.
            let _ = sys::kill(pid, sys::SIGKILL);
        }
    }

    /// What only the launcher was to get, and its readers must see the last holder leave.
    fn leave_to_the_launcher(&self) {
        if self.monitor.restart != RestartWhen::Never {
            return;
        }
        let monitor = self.monitor;
        let kept = [
            monitor.report, monitor.control, monitor.owner, monitor.listener, monitor.dir, monitor.proc, monitor.lock,
            monitor.stdin, monitor.stdout, monitor.stderr, monitor.log, monitor.freezer, monitor.events, monitor.home,
            monitor.names, self.launcher_pidfd,
        ];
        let readings = self.plan.list(self.monitor.readings);
        let mut next = 0;
        loop {
            let ours = kept.iter().copied().chain(readings.iter().map(|reading| reading.dir));
            let Some(fd) = ours.filter(|&fd| fd >= next).min() else { break };
            if fd > next {
                let _ = sys::close_range(next as u32, fd as u32 - 1, 0);
            }
            next = fd + 1;
        }
        let _ = sys::close_range(next as u32, u32::MAX, 0);
    }

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
                if fds[FIXED + index].revents != 0 {
                    if let Some(message) = clients.request(index) {
                        self.answer(clients, index, message);
                    }
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

    /// The word that the container is ours. False if the library is gone without it.
    fn hear_the_library(&mut self) -> bool {
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
    fn take_terminal(&mut self, master: i32) {
        if self.terminal >= 0 && self.terminal != master {
            sys::close(self.terminal);
        }
        self.terminal = master;
        self.out[0] = master;
    }

    /// The payload runs, below or as this process. An error: nobody else would find it so.
    fn runs(&mut self, pid: i32, pidfd: i32) -> sys::Result<()> {
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
    fn write_running(&self, pid: i32) -> sys::Result<()> {
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
        let stat = stat.get(..read?).unwrap_or(&[]);
        let head = RunningHead {
            magic: MAGIC,
            version: VERSION,
            run: self.monitor.run,
            started_ns: self.began_ns,
            pid,
            restarts: self.restarts,
            len: stat.len() as u32,
            ooms: self.ooms,
        };
        let (aside, place) = (c"running.new".as_ptr().cast(), c"running".as_ptr().cast());
        let write = |name: CStr| {
            let length = size_of::<RunningHead>() + stat.len();
            let file = sys::openat(self.monitor.dir, name, O_CREAT | O_WRONLY, 0o600)?;
            let written = sys::write_both(file, bytes_of(&head), stat);
            let cut = sys::truncate(file, length as u64);
            sys::close(file);
            if written? < length { Err(ENOSPC) } else { cut }
        };
        let written = write(aside).and_then(|_| sys::rename(self.monitor.dir, aside, place));
        match written {
            // A disk that has become full since the first start has the room of that.
            Err(_) if self.restarts > 0 => write(place).map(drop),
            other => other.map(drop),
        }
    }

    /// Writes to the journal.
    fn tell(&self, what: u32) {
        if self.monitor.events < 0 {
            return;
        }
        let mut record = monitor_events::record(self.plan, self.monitor, what, self.restarts);
        if what == event::DIED {
            (record.how, record.value) = self.how_it_ended();
            record.flags = self.flags;
        }
        let _ = monitor_events::append(self.monitor.events, &mut record);
    }

    /// Tells the end of a run that was told.
    fn tell_the_end(&mut self) {
        if core::mem::replace(&mut self.is_up, false) {
            if self.flags & OUT_OF_MEMORY != 0 {
                self.tell(event::OOM);
            }
            self.tell(event::DIED);
        }
    }

    fn how_it_ended(&self) -> (u32, i32) {
        match self.last_word {
            Some(word) if self.flags & START_FAILED != 0 => (KILLED, i32::from(word.step)),
            Some(word) if word.step == Step::Exited as u16 => (EXITED, word.value),
            Some(word) => (SIGNALED, word.value),
            None => (KILLED, self.status),
        }
    }

    /// True if there is something to run; the monitor goes on meanwhile.
    fn run_hooks(&mut self, when: When, pid: i32) -> bool {
        self.runner.end();
        let Some(runner) = Runner::start(self.plan, when, pid) else { return false };
        (self.runner, self.runner_for) = (runner, when);
        if self.runner.pid == 0 && when == When::CreateRuntime {
            self.go_on_after_hooks(false);
        }
        true
    }

    /// The launcher waits for them.
    fn go_on_after_hooks(&mut self, is_well: bool) {
        const ECANCELED: i32 = 125;
        if is_well && sys::tell(self.report, &[GO], -1).is_ok() {
            return;
        }
        if self.launcher > 0 {
            self.last_word = Some(Report::new(Step::Hook, 0, ECANCELED));
            let _ = sys::kill(self.launcher, sys::SIGKILL);
        }
    }

    /// How many the kernel has killed in the group for want of memory.
    fn count_ooms(&self) -> u32 {
        const WORD: &[u8] = b"oom_kill ";
        let mut text = [0u8; 1024];
        for reading in self.plan.list(self.monitor.readings) {
            if !matches!(self.plan.text(reading.name), b"memory.events" | b"memory.oom_control") {
                continue;
            }
            let Ok(file) = sys::openat(reading.dir, self.plan.str(reading.name), 0, 0) else { continue };
            let length = sys::read(file, &mut text).unwrap_or(0);
            sys::close(file);
            let lines = text.get(..length).unwrap_or(&[]).split(|&byte| byte == b'\n');
            for digits in lines.filter_map(|line| line.strip_prefix(WORD)) {
                let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
                return digits.fold(0, |sum: u32, digit| sum.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')));
            }
        }
        0
    }

    /// True if it was the kernel, for want of memory.
    fn is_out_of_memory(&self) -> bool {
        let is_killed = self.how_it_ended() == (SIGNALED, sys::SIGKILL) && self.flags & (WAS_KILLED | OWNER_GONE) == 0;
        let told = self.last_word.map_or(0, |word| usize::from(word.index));
        is_killed && told != SPARED && (told == KILLED_FOR_MEMORY || self.count_ooms() > self.ooms)
    }

    /// True if SIGKILL came from somebody else than the kernel.
    fn is_spared(&self) -> bool {
        let (how, _) = self.how_it_ended();
        how == SIGNALED && self.last_word.is_some_and(|word| usize::from(word.index) == SPARED)
    }

    /// What the launcher says: its last word above all.
    fn hear_the_launcher(&mut self) {
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

    fn hear(&mut self, report: Report, sender: i32, fd: i32) {
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

    /// Writes the maps of who has made its namespaces, and lets it go on.
    fn say_go(&mut self, pid: i32) {
        let [setgroups, uid_map, gid_map] = self.monitor.maps;
        for (name, text) in [(&b"/setgroups"[..], setgroups), (b"/uid_map", uid_map), (b"/gid_map", gid_map)] {
            if text != Str(0) {
                self.write_of(pid, name, self.plan.text(text));
            }
        }
        let mut number = [0u8; 16];
        let mut digits = [0u8; 12];
        for (slot, digit) in number.iter_mut().zip(crate::watch::decimal(pid, &mut digits)) {
            *slot = *digit;
        }
        for program in self.monitor.map_programs {
            if program.len > 0 {
                self.run(program, &number);
            }
        }
        if !self.run_hooks(When::CreateRuntime, pid) {
            self.go_on_after_hooks(true);
        }
    }

    /// Runs a program whose second argument is `number`, and waits for it. Whether it has done its work the launcher finds.
    fn run(&self, program: List<Str>, number: &[u8; 16]) {
        const MOST_ARGUMENTS: usize = 64;
        let mut argv: [CStr; MOST_ARGUMENTS + 1] = [core::ptr::null(); MOST_ARGUMENTS + 1];
        // The list has eight bytes for each offset.
        let offsets = self.plan.list(List::<u64> { offset: program.offset, len: program.len, of: core::marker::PhantomData });
        for (slot, offset) in argv.iter_mut().zip(offsets.iter().take(MOST_ARGUMENTS)) {
            *slot = self.plan.str(Str(*offset as u32));
        }
        argv[1] = number.as_ptr();
        let mut pidfd = -1;
        let Ok(pid) = sys::fork(0, &mut pidfd) else { return };
        if pid == 0 {
            let envp: [CStr; 1] = [core::ptr::null()];
            let _ = sys::execve(argv[0], argv.as_ptr(), envp.as_ptr());
            sys::exit(FAILED)
        }
        sys::close(pidfd);
        let _ = sys::wait_for(pid);
    }

    fn write_of(&self, pid: i32, file: &[u8], text: &[u8]) {
        let mut name = [0u8; 32];
        let mut digits = [0u8; 12];
        let parts = [crate::watch::decimal(pid, &mut digits), file];
        for (slot, byte) in name.iter_mut().zip(parts.into_iter().flatten()) {
            *slot = *byte;
        }
        if let Ok(file) = sys::openat(self.monitor.proc, name.as_ptr(), O_WRONLY, 0) {
            let _ = sys::write_all(file, text);
            sys::close(file);
        }
    }

    fn answer(&mut self, clients: &mut Clients, index: usize, [what, argument]: [u8; 2]) {
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

    /// Ends the container at once, and for good.
    fn end_it(&mut self) {
        const ECANCELED: i32 = 125;
        self.may_restart = false;
        if let Stage::Waiting(_) = self.stage {
            self.stage = Stage::Ended;
        }
        if self.control >= 0 {
            // The library finds the launcher gone, and would not know why.
            sys::send(self.control, bytes_of(&Begun { clone_errno: ECANCELED, ..Begun::default() }), -1);
        }
        self.thaw();
        let is_sent = self.first >= 0 && !sys::pidfd_send_signal(self.first, sys::SIGKILL).is_err_and(sys::is_hidden);
        if !is_sent && self.launcher > 0 {
            let _ = sys::kill(self.launcher, sys::SIGKILL);
        }
        self.thaw();
    }

    /// What is frozen on version 1 takes no signal.
    fn thaw(&self) {
        if self.monitor.freezer < 0 {
            return;
        }
        let (name, word): (CStr, &[u8]) = match self.monitor.freezer_is_v2 {
            0 => (c"freezer.state".as_ptr().cast(), b"THAWED"),
            _ => (c"cgroup.freeze".as_ptr().cast(), b"0"),
        };
        if let Ok(file) = sys::openat(self.monitor.freezer, name, O_WRONLY, 0) {
            let _ = sys::write_all(file, word);
            sys::close(file);
        }
    }

    /// The launcher has ended, and everything below it.
    fn reap(&mut self) {
        self.status = sys::wait_for(self.launcher).unwrap_or(0);
        sys::close(self.launcher_pidfd);
        (self.launcher, self.launcher_pidfd) = (0, -1);
        // We may have the other end, too.
        while self.report >= 0 && sys::poll_for(&mut [PollFd::readable(self.report)], 0) == Ok(1) {
            self.hear_the_launcher();
        }
        sys::close(self.report);
        self.report = -1;
        if self.first >= 0 {
            sys::close(self.first);
            self.first = -1;
        }
        if self.runner_for == When::CreateRuntime {
            self.runner.end();
        }
        if self.stage == Stage::StartedAgain {
            self.flags |= START_FAILED;
        } else {
            self.flags &= !START_FAILED;
        }
        if self.is_out_of_memory() {
            self.flags |= OUT_OF_MEMORY;
        }
        self.stage = match self.restart_at() {
            Some(moment) => {
                self.tell_the_end();
                Stage::Waiting(moment)
            }
            None => Stage::Ended,
        };
    }

    /// When it is to be started again, if it is.
    fn restart_at(&mut self) -> Option<u64> {
        let succeeded = self.flags & START_FAILED == 0
            && self.last_word.is_some_and(|word| word.step == Step::Exited as u16 && word.value == 0);
        let most = self.monitor.restart_most;
        let wanted = match self.monitor.restart {
            RestartWhen::Never => false,
            RestartWhen::Failure => !succeeded && (most == 0 || self.restarts < most),
            RestartWhen::Always => true,
        };
        if !wanted || !self.may_restart {
            return None;
        }
        let now = sys::now_ns(true);
        self.failures = if now - self.began >= LONG_ENOUGH { 0 } else { self.failures + 1 };
        let delay = FIRST_DELAY << self.failures.saturating_sub(1).min(16);
        Some(now + delay.min(LONGEST_DELAY))
    }

    /// Starts the container again from its plan.
    fn start_again(&mut self) {
        self.restarts += 1;
        self.last_word = None;
        self.flags &= !OUT_OF_MEMORY;
        self.ooms = self.count_ooms();
        (self.began_ns, self.began) = (sys::now_ns(false), sys::now_ns(true));
        self.stage = Stage::StartedAgain;
        if self.prepare_again().is_err() {
            return self.failed_again();
        }
        let begun = self.clone_launcher();
        if begun.clone_errno != 0 {
            self.last_word = Some(Report::new(Step::Clone, 0, begun.clone_errno));
            self.failed_again();
        }
    }

    fn failed_again(&mut self) {
        self.flags |= START_FAILED;
        self.stage = match self.restart_at() {
            Some(moment) => Stage::Waiting(moment),
            None => Stage::Ended,
        };
    }

    /// What is used up by each start.
    fn prepare_again(&mut self) -> sys::Result<()> {
        let [ours, theirs] = sys::message_pair()?;
        sys::dup_to(theirs, self.monitor.report_slot)?;
        sys::close(theirs);
        self.report = ours;
        sys::tell_senders(ours)?;
        if self.monitor.groups_done >= 0 {
            let [ready, done] = sys::pipe()?;
            sys::dup_to(ready, self.monitor.groups_ready_slot)?;
            sys::dup_to(done, self.monitor.groups_done)?;
            sys::close(ready);
            sys::close(done);
        }
        for tree in self.plan.list(self.monitor.trees) {
            // One can be attached once.
            let copy = sys::open_tree(tree.from, sys::EMPTY, sys::AT_EMPTY_PATH | sys::AT_RECURSIVE | sys::OPEN_TREE_CLONE)?;
            sys::dup_to(copy, tree.to)?;
            sys::close(copy);
        }
        if self.terminal >= 0 && self.monitor.terminal_slot >= 0 {
            // The end of a session hangs its terminal up; there is another end of it for the next.
            let peer = sys::terminal_of(self.terminal)?;
            sys::dup_to(peer, self.monitor.terminal_slot)?;
            sys::close(peer);
            self.out[0] = self.terminal;
        }
        Ok(())
    }

    /// The library is gone, or could not go on: nothing of the container is to be left.
    fn give_up(&mut self) -> i32 {
        sys::close(self.report);
        self.thaw();
        if self.launcher > 0 {
            let _ = sys::kill(self.launcher, sys::SIGKILL);
            let _ = sys::wait_for(self.launcher);
        }
        self.remove_groups();
        self.tell_the_end();
        let dir = self.monitor.dir;
        for name in [c"socket", c"running.new", c"running"] {
            let _ = sys::unlink(dir, name.as_ptr().cast());
        }
        FAILED
    }

    /// Writes down how it ended, takes away what it had, and tells.
    fn finish(&mut self, chunk: &mut Chunk, clients: &mut Clients) -> i32 {
        let now = sys::now_ns(true);
        let (how, value) = self.how_it_ended();
        let mut head = ExitHead {
            magic: MAGIC,
            version: VERSION,
            run: self.monitor.run,
            began_ns: self.began_ns,
            ended_ns: sys::now_ns(false),
            wall_ns: now - self.began,
            usage: self.last_word.map_or(Usage::NONE, |word| word.usage),
            lost_records: self.log.lost_records,
            lost_bytes: self.log.lost_bytes,
            how,
            value,
            flags: self.flags | if self.is_spared() { SPARED_MEMORY } else { 0 },
            restarts: self.restarts,
            sections: 0,
            ooms: self.ooms,
        };
        let dir = self.monitor.dir;
        let (aside, place) = (c"exit.room".as_ptr().cast(), c"exit".as_ptr().cast());
        // It was made at the start, with room in it, for a disk that has become full.
        let file = sys::openat(dir, aside, O_CREAT | O_WRONLY, 0o600).unwrap_or(-1);
        let mut at = size_of::<ExitHead>() as u64;
        for reading in self.plan.list(self.monitor.readings) {
            let name = self.plan.text(reading.name);
            let Ok(source) = sys::openat(reading.dir, self.plan.str(reading.name), 0, 0) else { continue };
            let length = sys::read(source, chunk.room()).unwrap_or(0);
            sys::close(source);
            let text = chunk.room().get(..length).unwrap_or(&[]);
            let section = Section { is_v2: reading.is_v2, name: name.len() as u32, text: length as u64 };
            let mut next = at;
            let mut is_whole = true;
            for part in [bytes_of(&section), name, text] {
                is_whole &= sys::pwrite(file, part, next) == Ok(part.len());
                next += part.len() as u64;
            }
            if is_whole {
                (at, head.sections) = (next, head.sections + 1);
            }
        }
        let is_written = sys::pwrite(file, bytes_of(&head), 0) == Ok(size_of::<ExitHead>());
        let _ = sys::truncate(file, at);
        sys::close(file);
        self.remove_groups();
        // Before anybody can start it again, and listen there.
        let _ = sys::unlink(dir, c"socket".as_ptr().cast());
        let is_removed = monitor_remove::remove(self.plan, self.monitor, chunk.room());
        if is_written && !is_removed {
            let _ = sys::rename(dir, aside, place);
        }
        // Who is told finds it so.
        self.tell_the_end();
        if is_removed {
            self.tell(event::DELETED);
            monitor_hooks::run(self.plan, When::Poststop, None, -1);
        }
        // Who has asked just now, or before anything of it ran, is to be told, too.
        while sys::poll_for(&mut [PollFd::readable(self.monitor.listener)], 0) == Ok(1) && clients.accept(self.monitor.listener) {}
        for index in 0..MOST_CLIENTS {
            while let Some([what, _]) = clients.request(index) {
                if what == request::AWAIT {
                    clients.await_end(index);
                }
            }
        }
        sys::close(self.monitor.lock);
        let oom = if self.flags & OUT_OF_MEMORY != 0 { TOLD_OOM } else { 0 };
        clients.tell_the_end(if how == EXITED { value } else { TOLD_SIGNAL | oom | value & 0x7f });
        0
    }

    fn remove_groups(&self) {
        const EBUSY: i32 = 16;
        let paths = self.plan.list(self.monitor.remove);
        let deadline = sys::now_ns(true) + SECOND;
        for &path in paths {
            // Who has ended may be counted for a moment longer.
            while sys::rmdir(self.plan.str(path)) == Err(EBUSY) && sys::now_ns(true) < deadline {
                let _ = sys::poll_for(&mut [], 1_000_000);
            }
        }
    }
}

fn report_of(bytes: &[u8; 512]) -> Report {
    // SAFETY: long enough, and a structure of integers for which every pattern of bits is a value.
    unsafe { bytes.as_ptr().cast::<Report>().read_unaligned() }
}

/// What the launcher's process needs before it is the launcher.
struct Task {
    image: i32,
    keeps_capabilities: bool,
    argv: [CStr; 3],
    errno: i32,
}

extern "C" fn execute_launcher(task: *const u8) -> ! {
    // SAFETY: `clone_launcher` sleeps until we are gone; the structure is ours alone meanwhile.
    let task = unsafe { &mut *task.cast::<Task>().cast_mut() };
    if task.keeps_capabilities {
        keep_capabilities();
    }
    let envp: [CStr; 1] = [core::ptr::null()];
    task.errno = sys::execute(task.image, task.argv.as_ptr(), envp.as_ptr());
    sys::exit(127)
}

/// Carries the capabilities of a new user namespace over the execution of the launcher, which drops them when the maps are
/// there: see `sys/clone.rs` of the library.
fn keep_capabilities() {
    const PR_CAP_AMBIENT: i32 = 47;
    const PR_CAP_AMBIENT_RAISE: usize = 2;
    let Ok([effective, permitted, _]) = sys::capget() else { return };
    let _ = sys::capset(effective, permitted, permitted);
    let mut capability = 0;
    while sys::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability).is_ok() {
        capability += 1;
    }
}
