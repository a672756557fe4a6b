//! A tracer of a tree of processes that counts the system calls of each one apart: ptrace(2).
//!
//! strace(1) counts each kind of call for itself, and those of all children together. Here a point is the n-th call, of
//! whatever kind, of one process of the tree, which is known by its descent: the third child of the second child of the
//! first one is `0.2.3`. There it is killed, or the call fails.
//!
//! The first process stops itself with [`pause`] before the work, and once more after it: points lie between the two.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The process that does the work.
pub const FIRST: &str = "0";
/// How long one piece of work may take, with whatever fault: afterwards it hangs.
const PATIENCE: Duration = Duration::from_secs(45);

/// The kind of a call of fcntl(2) with this command: they have little in common.
pub const fn fcntl(command: i32) -> i64 {
    libc::SYS_fcntl | (command as i64) << 16
}

/// close(2) of a directory.
pub const CLOSE_DIRECTORY: i64 = libc::SYS_close | 1 << 16;

/// What is done at a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing: all is counted.
    None,
    /// The process is killed before the call.
    Kill,
    /// The next call of this kind is not made, and says this; so do as many further ones. close(2) is made all the same, since
    /// the descriptor is gone whatever it says.
    Error { call: i64, errno: i32, times: u32 },
    /// The call is made and answered, but somebody has sent a signal.
    Stop,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub who: String,
    /// From 1.
    pub number: usize,
}

/// A system call that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    /// Its number, but for [`fcntl`] and [`CLOSE_DIRECTORY`].
    pub kind: i64,
    /// Where in the program: the instruction, and how deep the stack was. That of a loop is the same each time.
    pub place: (u64, u64),
}

/// What became of the work.
#[derive(Debug)]
pub struct Outcome {
    /// The first process.
    pub pid: i32,
    /// The calls that each process made, in their order.
    pub calls: BTreeMap<String, Vec<Call>>,
    /// What each process was called last.
    pub names: BTreeMap<String, String>,
    /// The point was met.
    pub is_met: bool,
    /// It was not done in time.
    pub hangs: bool,
    /// The status of waitpid(2), if it ended, and not by itself after the work.
    pub status: Option<i32>,
    /// What it said on its standard output.
    pub said: String,
}

/// Stops this process until its tracer lets it go on.
pub fn pause() {
    // SAFETY: takes a number.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Orphans of this process's children come to it, where they are seen and reaped.
pub fn adopt_orphans() {
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }, 0);
}

/// Reaps orphans as they come, as a machine's PID 1 does: those that have another name than this program.
pub fn reap_orphans() {
    let own = std::fs::read_to_string(format!("/proc/{}/comm", std::process::id())).unwrap();
    std::thread::spawn(move || {
        loop {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let children = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
            for pid in children.collect::<String>().split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                if stat.contains(") Z ") && name != own {
                    reap(pid);
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

/// Reaps a process that has ended, if it is ours to reap.
pub fn reap(pid: i32) {
    // SAFETY: no pointer is given.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
}

/// Runs a command up to its second pause, with a fault at a point, and waits for its end.
pub fn run(command: &mut Command, point: Option<&Point>, fault: Fault) -> Outcome {
    run_with(command, point, fault, &mut |_, _| ())
}

/// Where a process stands while somebody looks at it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stand {
    /// It has done nothing yet.
    Born,
    /// Before a system call.
    Call,
    /// It has executed a program that is none of ours, of which nothing has run yet.
    Executed,
}

/// The same without a fault. Each process of the tree, by its number, stands still while somebody looks at it: before each
/// of its calls, which is after the one before.
pub fn look(command: &mut Command, looks: &mut (dyn FnMut(i32, Stand) + Send)) -> Outcome {
    run_with(command, None, Fault::None, looks)
}

fn run_with(
    command: &mut Command,
    point: Option<&Point>,
    fault: Fault,
    looks: &mut (dyn FnMut(i32, Stand) + Send),
) -> Outcome {
    // A file: who reads a pipe would wait for whoever is left behind.
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("zind-test-said-{}-{number}", std::process::id()));
    let said = std::fs::File::create(&path).unwrap();
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
    let (point, (send, receive)) = (point.cloned(), std::sync::mpsc::channel());
    // When the thread ends the kernel lets go of whoever it still traces.
    std::thread::scope(|scope| {
        let tracer = scope.spawn(move || {
            let child = command.spawn().unwrap();
            let pid = child.id() as i32;
            send.send(pid).unwrap();
            let mut tracer = Tracer::new(pid, point, fault, looks);
            tracer.run();
            (child, (tracer.status, tracer.calls, tracer.names, tracer.is_met))
        });
        let pid = receive.recv().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut hangs = false;
        while !tracer.is_finished() {
            if Instant::now() > deadline && !hangs {
                hangs = true;
                eprintln!("hangs:\n{}", stands());
                kill(pid);
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        let (mut child, (status, calls, names, is_met)) = tracer.join().unwrap();
        // After its second pause it ends by itself.
        if status.is_none() {
            let _ = child.wait();
        }
        let said = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        std::fs::remove_file(&path).unwrap();
        Outcome { pid, calls, names, is_met, hangs, status, said }
    })
}

/// Where each thread of each process below this one stands: whose it is, its state, its call, and who waits for what in the kernel.
fn stands() -> String {
    let (mut known, mut told) = (vec![std::process::id()], String::new());
    let word = |file: String| std::fs::read_to_string(file).unwrap_or_default().trim().to_owned();
    while let Some(process) = known.pop() {
        for task in
            std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().filter_map(|task| task.ok())
        {
            let of = |name: &str| word(task.path().join(name).display().to_string());
            let stat = of("stat");
            let stat = stat.split(' ').take(4).collect::<Vec<_>>().join(" ");
            told += &format!("{process}: {stat}, call {}, in {}\n", of("syscall"), of("wchan"));
            known.extend(of("children").split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    told
}

pub fn kill(pid: i32) {
    // SAFETY: takes numbers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// The number and the first two arguments of the call before which this one stands; asked by who looks.
pub fn call_of(pid: i32) -> [i64; 3] {
    let mut info = [0u8; 88];
    ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, info.len(), info.as_mut_ptr() as usize).unwrap();
    [24, 32, 40].map(|at| i64::from_ne_bytes(info[at..at + 8].try_into().unwrap()))
}

struct Task {
    who: String,
    children: u32,
    /// The call it is in fails with this.
    failing: Option<i32>,
    /// How many further ones do, of which kind.
    more: Option<(i64, i32, u32)>,
}

struct Tracer<'a> {
    first: i32,
    looks: &'a mut (dyn FnMut(i32, Stand) + Send),
    point: Option<Point>,
    fault: Fault,
    tasks: HashMap<i32, Task>,
    /// Seen, but not announced by their parents yet.
    early: Vec<i32>,
    announced: HashMap<i32, String>,
    calls: BTreeMap<String, Vec<Call>>,
    names: BTreeMap<String, String>,
    is_met: bool,
    status: Option<i32>,
}

fn ptrace(request: libc::c_uint, pid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: the callers give what the request takes: numbers, or pointers to live structures of their size.
    match unsafe { libc::ptrace(request, pid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

impl Tracer<'_> {
    fn new(first: i32, point: Option<Point>, fault: Fault, looks: &mut (dyn FnMut(i32, Stand) + Send)) -> Tracer<'_> {
        Tracer {
            first,
            looks,
            point,
            fault,
            tasks: HashMap::new(),
            early: Vec::new(),
            announced: HashMap::new(),
            calls: BTreeMap::new(),
            names: BTreeMap::new(),
            is_met: false,
            status: None,
        }
    }

    /// The next one of our children or tracees that has something to say.
    fn next(&self, pid: i32, flags: i32) -> Option<(i32, i32)> {
        let mut status = 0;
        loop {
            // SAFETY: a live pointer.
            let pid = unsafe { libc::waitpid(pid, &raw mut status, flags) };
            if pid > 0 {
                return Some((pid, status));
            }
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return None;
            }
        }
    }

    fn run(&mut self) {
        // The first pause is that of the thread which works; the other one waits for it.
        let Some((_, status)) = self.next(self.first, libc::WUNTRACED) else { return };
        if !libc::WIFSTOPPED(status) {
            self.status = Some(status);
            return;
        }
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACEEXEC;
        // A thread has the name of its test. Numbers say nothing: they begin anew when all were used.
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.first)).unwrap();
        let mut threads = threads.map(|entry| entry.unwrap().path());
        let is_worker = |task: &std::path::PathBuf| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker")
        };
        let worker = threads.find(is_worker).expect("a thread called worker");
        let worker = worker.file_name().unwrap().to_str().unwrap().parse().unwrap();
        ptrace(libc::PTRACE_SEIZE, worker, 0, options as usize).unwrap();
        self.meet(worker, FIRST.to_owned());
        // SAFETY: takes numbers.
        unsafe { libc::kill(self.first, libc::SIGCONT) };
        while let Some((pid, status)) = self.next(-1, libc::__WALL | libc::__WNOTHREAD) {
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                self.tasks.remove(&pid);
                if pid == self.first {
                    self.status = Some(status);
                    return;
                }
                continue;
            }
            if !self.tasks.contains_key(&pid) {
                match self.announced.remove(&pid) {
                    Some(who) => self.meet(pid, who),
                    None => {
                        self.early.push(pid);
                        continue;
                    }
                }
            }
            if self.stopped(pid, status) {
                return;
            }
        }
    }

    fn meet(&mut self, pid: i32, who: String) {
        self.tasks.insert(pid, Task { who, children: 0, failing: None, more: None });
    }

    /// True: the work is done.
    fn stopped(&mut self, pid: i32, status: i32) -> bool {
        let signal = libc::WSTOPSIG(status);
        let mut deliver = 0;
        match (signal, status >> 16) {
            (_, libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK) => {
                let mut child: libc::c_ulong = 0;
                let _ = ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, (&raw mut child) as usize);
                let child = child as i32;
                let task = self.tasks.get_mut(&pid).unwrap();
                task.children += 1;
                let who = format!("{}.{}", task.who, task.children);
                match self.early.iter().position(|early| *early == child) {
                    Some(at) => {
                        self.early.swap_remove(at);
                        self.meet(child, who);
                        (self.looks)(child, Stand::Born);
                        self.go_on(child, 0);
                    }
                    None => drop(self.announced.insert(child, who)),
                }
            }
            (_, libc::PTRACE_EVENT_EXEC) => {
                let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                // What is run in the container is none of ours.
                if !exe.to_string_lossy().contains("memfd:") {
                    (self.looks)(pid, Stand::Executed);
                    let _ = ptrace(libc::PTRACE_DETACH, pid, 0, 0);
                    return false;
                }
            }
            (_, libc::PTRACE_EVENT_STOP) => (self.looks)(pid, Stand::Born),
            (signal, 0) if signal == libc::SIGTRAP | 0x80 => {
                if self.call(pid) {
                    (self.looks)(pid, Stand::Call);
                }
            }
            (libc::SIGSTOP, 0) if self.tasks[&pid].who == FIRST => {
                let _ = ptrace(libc::PTRACE_DETACH, pid, 0, 0);
                return true;
            }
            (signal, _) => deliver = signal,
        }
        self.go_on(pid, deliver);
        false
    }

    /// Lets it run: to its next call, if that counts.
    fn go_on(&self, pid: i32, signal: i32) {
        let counts = self.tasks.get(&pid).is_some_and(|task| {
            let is_busy = task.failing.is_some() || task.more.is_some_and(|(.., left)| left > 0);
            is_busy || self.point.as_ref().is_none_or(|point| !self.is_met && point.who == task.who)
        });
        let how = if counts { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
        let _ = ptrace(how, pid, 0, signal as usize);
    }

    /// Before a system call, or after it. True: before one that it makes.
    fn call(&mut self, pid: i32) -> bool {
        let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
        let mut info = [0u8; 88];
        if ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, info.len(), info.as_mut_ptr() as usize).is_err() {
            return false;
        }
        let is_entry = info[0] == libc::PTRACE_SYSCALL_INFO_ENTRY;
        let task = self.tasks.get_mut(&pid).unwrap();
        if !is_entry {
            if let Some(errno) = task.failing.take()
                && ptrace(libc::PTRACE_GETREGS, pid, 0, registers.as_mut_ptr() as usize).is_ok()
            {
                // SAFETY: the kernel has filled it.
                let registers = unsafe { registers.assume_init_mut() };
                registers.rax = i64::from(-errno) as u64;
                let _ = ptrace(libc::PTRACE_SETREGS, pid, 0, (&raw const *registers) as usize);
            }
            return false;
        }
        let word = |at: usize| i64::from_ne_bytes(info[at..at + 8].try_into().unwrap());
        let kind = match word(24) {
            libc::SYS_fcntl => fcntl(word(40) as i32),
            libc::SYS_close if std::path::Path::new(&format!("/proc/{pid}/fd/{}", word(32))).is_dir() => {
                CLOSE_DIRECTORY
            }
            number => number,
        };
        let made = self.calls.entry(task.who.clone()).or_default();
        made.push(Call { kind, place: (word(8) as u64, word(16) as u64) });
        if made.len() % 16 == 1 {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            self.names.insert(task.who.clone(), name.trim().to_owned());
        }
        let mut errno = None;
        if let Some((same, code, left)) = &mut task.more
            && *same == kind
            && *left > 0
        {
            (*left, errno) = (*left - 1, Some(*code));
        }
        let is_there = |number: usize| match self.fault {
            // From run to run a call more or less may come before it.
            Fault::Error { call, .. } => number <= made.len() && call == kind,
            _ => number == made.len(),
        };
        if !self.is_met && self.point.as_ref().is_some_and(|point| point.who == task.who && is_there(point.number)) {
            self.is_met = true;
            match self.fault {
                Fault::None => {}
                Fault::Kill => {
                    kill(pid);
                    return false;
                }
                Fault::Stop => {
                    // SAFETY: takes numbers.
                    unsafe { libc::syscall(libc::SYS_tgkill, self.first, pid, libc::SIGWINCH) };
                }
                Fault::Error { errno: code, times, .. } => {
                    errno = Some(code);
                    task.more = Some((kind, code, times - 1));
                }
            }
        }
        if let Some(code) = errno
            && ptrace(libc::PTRACE_GETREGS, pid, 0, registers.as_mut_ptr() as usize).is_ok()
        {
            // SAFETY: the kernel has filled it.
            let registers = unsafe { registers.assume_init_mut() };
            if kind != libc::SYS_close {
                registers.orig_rax = u64::MAX;
            }
            if ptrace(libc::PTRACE_SETREGS, pid, 0, (&raw const *registers) as usize).is_ok() {
                task.failing = Some(code);
            }
        }
        true
    }
}
