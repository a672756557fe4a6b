//! Starting the launcher without forking the caller.
//!
//! A caller's `wait(-1)` must neither see nor steal our processes. A child is invisible to it while its exit signal is
//! not SIGCHLD, but `execve(2)` sets that signal back to SIGCHLD; so the direct child of the caller must not execute
//! anything. It is the *waiter*: a task that runs a dozen system calls in the caller's memory, on a stack of its own
//! (`CLONE_VM`, no thread, no copy of page tables). It clones the launcher into its namespaces, closes its copy of the
//! descriptors, sleeps in `wait4(2)` until the launcher ends, and ends with it. A container therefore never leaves a
//! zombie to somebody else's init, and never shows up in a `wait(-1)` of the caller.
//!
//! Where `clone3(2)` is hidden a start forks the caller instead, or makes both tasks by `clone(2)`: see `Prepared::is_by_older_clone`.
//!
//! In this file "raw" code runs between clone and exec, in memory shared with other threads that go on: system calls
//! only, no allocation, no locks, no thread-local storage, no panics. No sanitizer either (`zind_sanitize`, see CONTRIBUTING.md): what
//! it puts in looks for its own thread, and would take that of the caller for it.

use std::arch::asm;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::libc;

/// `struct clone_args` of `clone3(2)`, version 2 (Linux 5.7).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the waiter and the launcher's first instructions need; at the start of a [`Region`].
#[repr(C)]
struct Task {
    launcher: CloneArgs,
    /// It is cloned by the older call.
    is_by_older: bool,
    image: i32,
    keep: *const i32,
    keep_len: usize,
    argv: [*const libc::c_char; 3],
    envp: [*const libc::c_char; 1],
    plan_number: [u8; 16],
    groups: *const i32,
    groups_len: usize,
    /// Where to tell that the launcher is in its groups, or -1.
    groups_done: i32,
    /// Paths, each with its NUL.
    dirs: *const u8,
    dirs_len: usize,
    /// The process that removes them, unless it is gone.
    owner: i32,
    pid: AtomicI32,
    clone_errno: AtomicI32,
    exec_errno: AtomicI32,
}

/// Memory for one waiter: its task, its stack, and the stack on which the launcher is executed.
struct Region(*mut u8);

// SAFETY: plain memory without ties to a thread.
unsafe impl Send for Region {}

const REGION_SIZE: usize = 32 * 1024;
const STACK_SIZE: usize = 12 * 1024;

/// Regions of waiters that have ended.
static FREE_REGIONS: Mutex<Vec<Region>> = Mutex::new(Vec::new());
const MOST_FREE_REGIONS: usize = 64;

impl Region {
    fn take() -> Result<Region, Errno> {
        if let Some(region) = FREE_REGIONS.lock().ok().and_then(|mut free| free.pop()) {
            return Ok(region);
        }
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                REGION_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(Region(address.cast())) }
    }

    fn task(&self) -> *mut Task {
        self.0.cast()
    }

    /// The lowest address of stack number 0 or 1.
    fn stack(&self, number: usize) -> u64 {
        self.0 as u64 + (REGION_SIZE - STACK_SIZE * (2 - number)) as u64
    }

    fn give_back(self) {
        if let Ok(mut free) = FREE_REGIONS.lock()
            && free.len() < MOST_FREE_REGIONS
        {
            return free.push(self);
        }
        // SAFETY: mapped by `take`, with this length; its waiter has ended, so nobody runs on it.
        unsafe { libc::munmap(self.0.cast(), REGION_SIZE) };
    }
}

/// The direct child of the caller that stands for one container.
pub(crate) struct Waiter {
    pid: i32,
    pidfd: OwnedFd,
    region: Option<Region>,
    /// Read by the child.
    lists: Lists,
    reaped: bool,
    /// Why the launcher never ran, once this is reaped.
    failed: Option<StartFailure>,
}

/// What a task reads as long as it lives.
#[derive(Default)]
struct Lists {
    keep: Vec<i32>,
    groups: Vec<i32>,
    dirs: Vec<u8>,
}

/// What went wrong before the launcher ran.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StartFailure {
    Clone(Errno),
    Exec(Errno),
}

/// What to start.
pub(crate) struct Start<'a> {
    pub image: BorrowedFd<'a>,
    pub plan: BorrowedFd<'a>,
    /// Descriptors the launcher keeps, in ascending order, without `image` and `plan`.
    pub keep: Vec<i32>,
    /// `CLONE_NEW*`
    pub flags: u64,
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Files that the launcher's pid is written to, in order, while it does its work; empty if there are none.
    pub groups: Vec<i32>,
    /// Where an [`Attached`] is written then.
    pub groups_done: Option<BorrowedFd<'a>>,
    /// Directories to be removed at the launcher's end, in this order, if the caller's process is no longer there to do it:
    /// paths, each with its NUL.
    pub dirs: Vec<u8>,
    /// `clone3(2)` is hidden, and `clone(2)` is used in its place, by which nobody is born into a group.
    pub is_by_older: bool,
}

/// Whether the launcher came into its groups: the index of the one that refused it, and the errno; 0 is none.
type Attached = [i32; 2];

/// True where `clone3(2)` can be used; a debugger or a filter may hide it.
pub(crate) fn have_clone3() -> bool {
    // SAFETY: size 0 is refused (EINVAL) before anything is read.
    let result = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<CloneArgs>(), 0usize) };
    result == -1 && Errno::last() == Errno::EINVAL
}

/// Starts the launcher below a waiter. Returns at once; whether it came to anything is told by its socket.
pub(crate) fn start(start: Start<'_>) -> Result<Waiter, Errno> {
    let region = Region::take()?;
    let mut launcher = CloneArgs {
        flags: start.flags
            | libc::CLONE_VM as u64
            | libc::CLONE_VFORK as u64
            | libc::CLONE_PARENT_SETTID as u64
            | CLONE_CLEAR_SIGHAND,
        exit_signal: libc::SIGCHLD as u64,
        stack: region.stack(1),
        stack_size: STACK_SIZE as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = start.cgroup {
        launcher.flags |= CLONE_INTO_CGROUP;
        launcher.cgroup = cgroup.as_raw_fd() as u64;
    }
    let mut keep = start.keep;
    keep.push(start.plan.as_raw_fd());
    let mut plan_number = [0u8; 16];
    for (slot, byte) in plan_number.iter_mut().zip(start.plan.as_raw_fd().to_string().bytes()) {
        *slot = byte;
    }
    let lists = Lists { keep, groups: start.groups, dirs: start.dirs };
    let task = region.task();
    // SAFETY: the region is large enough, aligned to a page, and nobody else's until the clone below.
    unsafe {
        task.write(Task {
            launcher,
            is_by_older: start.is_by_older,
            image: start.image.as_raw_fd(),
            keep: lists.keep.as_ptr(),
            keep_len: lists.keep.len(),
            argv: [c"zind-init".as_ptr(), std::ptr::null(), std::ptr::null()],
            envp: [std::ptr::null()],
            plan_number,
            groups: lists.groups.as_ptr(),
            groups_len: lists.groups.len(),
            groups_done: start.groups_done.map_or(-1, |fd| fd.as_raw_fd()),
            dirs: lists.dirs.as_ptr(),
            dirs_len: lists.dirs.len(),
            owner: std::process::id() as i32,
            pid: AtomicI32::new(0),
            clone_errno: AtomicI32::new(0),
            exec_errno: AtomicI32::new(0),
        });
        (*task).argv[1] = (&raw const (*task).plan_number).cast();
        (*task).launcher.parent_tid = (&raw const (*task).pid) as u64;
    }
    start_task(region, waiter, lists, 0, start.is_by_older)
}

/// Clones a task in the caller's memory, and in new `namespaces`, that runs `code` on the stack of its region.
fn start_task(
    region: Region,
    code: unsafe extern "C" fn(*mut u8) -> !,
    lists: Lists,
    namespaces: u64,
    is_by_older: bool,
) -> Result<Waiter, Errno> {
    let mut pidfd = -1i32;
    let args = CloneArgs {
        flags: libc::CLONE_VM as u64 | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND | namespaces,
        pidfd: (&raw mut pidfd) as u64,
        stack: region.stack(0),
        stack_size: STACK_SIZE as u64,
        ..CloneArgs::default()
    };
    // A handler or a stop key must not run in the middle: the task keeps this mask for good.
    let result = with_signals_blocked(|| {
        // SAFETY: the child runs `code` on its own stack and never returns here; the region outlives it, because it is
        // given back only after the task was reaped.
        unsafe { clone_call(&args, is_by_older, code, region.0) }
    });
    match result {
        Ok(pid) => {
            // SAFETY: the kernel has just made this descriptor for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Waiter { pid, pidfd, region: Some(region), lists, reaped: false, failed: None })
        }
        Err(errno) => {
            region.give_back();
            Err(errno)
        }
    }
}

/// Starts the launcher by `fork(2)`, for where `clone3(2)` is hidden: slower, and a child like any other.
pub(crate) fn start_by_fork(start: Start<'_>) -> Result<Waiter, Errno> {
    let number = std::ffi::CString::new(start.plan.as_raw_fd().to_string()).map_err(|_| Errno::EINVAL)?;
    let argv = [c"zind-init".as_ptr(), number.as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    let mut keep = start.keep;
    keep.push(start.plan.as_raw_fd());
    let image = start.image.as_raw_fd();
    // SAFETY: the child makes system calls only, then executes or ends.
    let pid = with_signals_blocked(|| unsafe {
        let pid = libc::fork();
        if pid == 0 {
            for &fd in &keep {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
            libc::syscall(libc::SYS_execveat, image, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH);
            libc::_exit(127);
        }
        Errno::result(pid)
    })?;
    let pidfd = super::descriptors::pidfd_open(pid)?;
    if let Some(done) = start.groups_done {
        // SAFETY: the numbers are those of open descriptors.
        unsafe { attach(pid, start.groups.as_ptr(), start.groups.len(), done.as_raw_fd()) };
    }
    let lists = Lists { keep, groups: start.groups, dirs: Vec::new() };
    Ok(Waiter { pid, pidfd, region: None, lists, reaped: false, failed: None })
}

impl Waiter {
    /// Becomes readable when the container has ended.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.pidfd.as_fd()
    }

    /// The container has ended, and the waiter with it; nobody has reaped the waiter.
    pub(crate) fn has_ended(&self) -> bool {
        let mut poll = [libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: one live pollfd.
        unsafe { libc::poll(poll.as_mut_ptr(), 1, 0) != 0 }
    }

    /// The launcher's pid in the caller's pid namespace, once it exists.
    pub(crate) fn launcher_pid(&self) -> Option<i32> {
        // A forked launcher has no waiter above it.
        let Some(region) = self.region.as_ref() else { return (!self.reaped).then_some(self.pid) };
        // SAFETY: the region is alive as long as we are; the field is atomic.
        let pid = unsafe { (*region.task()).pid.load(Ordering::Acquire) };
        (pid > 0).then_some(pid)
    }

    /// Why the launcher never ran, if it never did.
    pub(crate) fn failure(&self) -> Option<StartFailure> {
        let Some(region) = self.region.as_ref() else { return self.failed };
        // SAFETY: as above.
        let (clone, exec) = unsafe {
            let task = region.task();
            ((*task).clone_errno.load(Ordering::Acquire), (*task).exec_errno.load(Ordering::Acquire))
        };
        match (clone, exec) {
            (0, 0) => None,
            (0, exec) => Some(StartFailure::Exec(Errno::from_raw(exec))),
            (clone, _) => Some(StartFailure::Clone(Errno::from_raw(clone))),
        }
    }

    /// Reaps the waiter if it has ended: its exit status, as a shell has it.
    pub(crate) fn try_reap(&mut self) -> Option<i32> {
        if self.reaped {
            return None;
        }
        // SAFETY: all zeroes is a valid siginfo, which the kernel fills in.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::__WALL;
        loop {
            // SAFETY: `info` is live and of the right type.
            let result =
                unsafe { libc::waitid(libc::P_PIDFD, self.pidfd.as_raw_fd() as libc::id_t, &raw mut info, flags) };
            match Errno::result(result) {
                Err(Errno::EINTR) => {}
                // Somebody reaped all children with __WALL; the container has ended all the same.
                Err(_) => return Some(self.retire(0)),
                // SAFETY: waitid filled in the fields of a child.
                Ok(_) if unsafe { info.si_pid() } == 0 => return None,
                // SAFETY: as above.
                Ok(_) => return Some(self.retire(unsafe { info.si_status() })),
            }
        }
    }

    fn retire(&mut self, status: i32) -> i32 {
        self.reaped = true;
        self.failed = self.failure();
        if let Some(region) = self.region.take() {
            region.give_back();
        }
        status
    }
}

/// Waiters whose handles were dropped while their containers ran.
static ORPHANS: Mutex<Vec<Waiter>> = Mutex::new(Vec::new());

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.reaped || self.try_reap().is_some() {
            return;
        }
        // Its stack must stay; a later start looks after it.
        if let (Ok(pidfd), Ok(mut orphans)) = (self.pidfd.try_clone(), ORPHANS.lock()) {
            orphans.push(Waiter {
                pid: self.pid,
                pidfd,
                region: self.region.take(),
                lists: std::mem::take(&mut self.lists),
                reaped: false,
                failed: None,
            });
        } else if let Some(region) = self.region.take() {
            // Better a leak than a stack that disappears below a task: a region unmaps nothing by itself.
            let Region(_) = region;
        }
    }
}

/// Reaps the waiters of containers nobody waited for.
pub(crate) fn reap_orphans() {
    let Ok(mut orphans) = ORPHANS.try_lock() else { return };
    if orphans.is_empty() {
        return;
    }
    orphans.retain_mut(|waiter| waiter.try_reap().is_none());
}

/// Runs `body` with every signal blocked in this thread.
fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: both masks are live; a full set and a set to be filled in.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let result = body();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        result
    }
}

/// One of the two below.
///
/// # Safety
/// As for them.
#[inline(always)]
unsafe fn clone_call(
    args: *const CloneArgs,
    is_by_older: bool,
    child: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> Result<i32, Errno> {
    // SAFETY: what they ask for is what is asked for here.
    unsafe { if is_by_older { older_clone_call(args, child, argument) } else { clone3_call(args, child, argument) } }
}

/// The same as `clone3_call` by `clone(2)`, which has no room for the flags above the first 32, and one for a pidfd or `parent_tid`.
/// The handlers that the child keeps so are none that could run: every signal is blocked in a task, and an execution ends them.
///
/// # Safety
/// As for `clone3_call`.
#[inline(always)]
unsafe fn older_clone_call(
    args: *const CloneArgs,
    child: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> Result<i32, Errno> {
    let result: isize;
    // SAFETY: as in `clone3_call`; the arguments are live, and the stack grows down from its end.
    unsafe {
        let flags = ((*args).flags & 0xffff_ffff) | (*args).exit_signal;
        let number = if flags & libc::CLONE_PIDFD as u64 != 0 { (*args).pidfd } else { (*args).parent_tid };
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags,
            in("rsi") (*args).stack.wrapping_add((*args).stack_size),
            in("rdx") number,
            in("r10") 0,
            in("r8") 0,
            in("r12") child,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(Errno::from_raw(-result as i32)) } else { Ok(result as i32) }
}

/// `clone3(2)` whose child calls `child(argument)` on the stack of `args`.
///
/// # Safety
/// `args` must name a stack that stays mapped while the child lives; `child` must never return.
#[inline(always)]
unsafe fn clone3_call(
    args: *const CloneArgs,
    child: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> Result<i32, Errno> {
    let result: isize;
    // SAFETY: the parent goes on with all registers but rax, rcx and r11 unchanged; the child has a stack of its own
    // and leaves by the call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") child,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(Errno::from_raw(-result as i32)) } else { Ok(result as i32) }
}

/// A task that makes a network namespace while everything else is made: that takes the kernel as long as all the rest.
/// It is a task like the waiter, and lives until the launcher has joined the namespace.
pub(crate) struct NetworkMaker {
    task: Waiter,
    ready: OwnedFd,
    /// While this is open the task lives.
    hold: Option<OwnedFd>,
}

/// What the task needs; at the start of its [`Region`].
#[repr(C)]
struct NetworkTask {
    ready: i32,
    hold: i32,
}

impl NetworkMaker {
    /// Begins to make a network namespace with its loopback interface up.
    pub(crate) fn start() -> Result<NetworkMaker, Errno> {
        use rustix::event::{EventfdFlags, eventfd};
        let errno = |errno: rustix::io::Errno| Errno::from_raw(errno.raw_os_error());
        let ready = eventfd(0, EventfdFlags::CLOEXEC).map_err(errno)?;
        let (theirs, hold) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(errno)?;
        let region = Region::take()?;
        let task: *mut NetworkTask = region.0.cast();
        // SAFETY: the region is large enough, aligned to a page, and nobody else's until the clone.
        unsafe { task.write(NetworkTask { ready: ready.as_raw_fd(), hold: theirs.as_raw_fd() }) };
        let task = start_task(region, make_network, Lists::default(), 0, false)?;
        Ok(NetworkMaker { task, ready, hold: Some(hold) })
    }

    /// The task, whose namespace can be joined.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.task.pidfd()
    }

    /// Says when the namespace is there: see `Plan::network_ready`.
    pub(crate) fn ready(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.ready.as_fd()
    }

    /// The namespace has been joined, or is not wanted any more.
    pub(crate) fn let_go(&mut self) {
        self.hold = None;
    }
}

impl Drop for NetworkMaker {
    fn drop(&mut self) {
        self.let_go();
        // It is on its last instruction; a bounded wait keeps a debugger's stop from stopping us.
        let mut poll = [libc::pollfd { fd: self.task.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: one live pollfd.
        if unsafe { libc::poll(poll.as_mut_ptr(), 1, 1000) } == 0 {
            // It has an end of the pipe that it should have closed. It is our child, and its number its own until we reap it.
            let _ = crate::sys::descriptors::pidfd_send_signal(self.pidfd(), libc::SIGKILL);
            // SAFETY: as above.
            unsafe { libc::poll(poll.as_mut_ptr(), 1, 1000) };
        }
        self.task.try_reap();
    }
}

/// The task, from its first instruction to its last.
#[cfg_attr(zind_sanitize, sanitize(thread = "off", address = "off"))]
unsafe extern "C" fn make_network(task: *mut u8) -> ! {
    const SIOCSIFFLAGS: usize = 0x8914;
    const UP_AND_RUNNING: u8 = 0x41;
    let task: *const NetworkTask = task.cast();
    // SAFETY: raw code, see the top of the file. The task stays until we are reaped.
    unsafe {
        let (ready, hold) = ((*task).ready as usize, (*task).hold as usize);
        keep_only(&[ready as i32, hold as i32]);
        // Two words that add up: see `Plan::network_ready`.
        let say = |word: u64| {
            while raw(libc::SYS_write, ready, (&raw const word) as usize, 8, 0, 0) == -(libc::EINTR as isize) {}
        };
        let made = raw(libc::SYS_unshare, libc::CLONE_NEWNET as usize, 0, 0, 0, 0);
        if made == 0 {
            say(1 << 32);
            let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize;
            let mut up = raw(libc::SYS_socket, libc::AF_INET as usize, kind, 0, 0, 0);
            if up >= 0 {
                let mut request = [0u8; 40];
                request[0] = b'l';
                request[1] = b'o';
                request[16] = UP_AND_RUNNING;
                up = raw(libc::SYS_ioctl, up as usize, SIOCSIFFLAGS, (&raw const request) as usize, 0, 0);
            }
            say(if up >= 0 { 1 } else { 2 + (-up) as u64 });
        } else {
            say(2 + (-made) as u64);
        }
        let mut byte = 0u8;
        while raw(libc::SYS_read, hold, (&raw mut byte) as usize, 1, 0, 0) == -(libc::EINTR as isize) {}
        exit_group(0)
    }
}

/// The caller's other descriptors are none of a task's business, and their readers wait for the last holder. Negative
/// numbers are none.
///
/// # Safety
/// The calling task has descriptors of its own.
#[cfg_attr(zind_sanitize, sanitize(thread = "off", address = "off"))]
unsafe fn keep_only<const N: usize>(kept: &[i32; N]) {
    let mut next = 0u32;
    loop {
        // The smallest that is not passed yet; raw code sorts nothing.
        let mut smallest = -1i32;
        let mut i = 0;
        while i < N {
            // SAFETY: within the array.
            let fd = unsafe { *kept.as_ptr().add(i) };
            if fd >= 0 && fd as u32 >= next && (smallest < 0 || fd < smallest) {
                smallest = fd;
            }
            i += 1;
        }
        let last = if smallest < 0 { u32::MAX } else { (smallest as u32).wrapping_sub(1) };
        if smallest != next as i32 || smallest < 0 {
            // SAFETY: raw code, see the top of the file; numbers only.
            let result = unsafe { raw(libc::SYS_close_range, next as usize, last as usize, 0, 0, 0) };
            if result < 0 {
                // SAFETY: as above.
                return unsafe { keep_only_by_list(kept) };
            }
        }
        if smallest < 0 {
            return;
        }
        next = (smallest as u32).wrapping_add(1);
    }
}

#[cfg_attr(zind_sanitize, sanitize(thread = "off", address = "off"))]
fn is_one_of<const N: usize>(kept: &[i32; N], fd: i32) -> bool {
    let mut i = 0;
    // SAFETY: within the array; raw code has no panics.
    while i < N && unsafe { *kept.as_ptr().add(i) } != fd {
        i += 1;
    }
    i < N
}

/// The same where a filter hides `close_range(2)`: by the list in procfs. Without that the first ones, of which some are mostly
/// ours; the launcher refuses to go on there.
///
/// # Safety
/// The calling task has descriptors of its own.
#[cfg_attr(zind_sanitize, sanitize(thread = "off", address = "off"))]
unsafe fn keep_only_by_list<const N: usize>(kept: &[i32; N]) {
    const NAME: usize = 19;
    const FIRST_ONES: i32 = 1024;
    // SAFETY: raw code, see the top of the file. What the kernel writes is within the array, and so is what is read of it: an entry
    // (`struct linux_dirent64`: inode, offset, length, type, name) ends with its NUL.
    unsafe {
        let flags = (libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) as usize;
        let path = c"/proc/self/fd".as_ptr() as usize;
        let list = raw(libc::SYS_openat, libc::AT_FDCWD as usize, path, flags, 0, 0);
        if list < 0 {
            let mut fd = 0;
            while fd < FIRST_ONES {
                if !is_one_of(kept, fd) {
                    raw(libc::SYS_close, fd as usize, 0, 0, 0, 0);
                }
                fd += 1;
            }
            return;
        }
        let mut entries = [0u64; 128];
        let start: *const u8 = (&raw mut entries).cast();
        loop {
            let length = raw(libc::SYS_getdents64, list as usize, start as usize, size_of_val(&entries), 0, 0);
            if length <= 0 {
                break;
            }
            let mut at = 0;
            while at < length as usize {
                let entry = start.add(at);
                let (mut fd, mut name) = (-1i32, entry.add(NAME));
                // `.` and `..` are no numbers.
                while (*name).is_ascii_digit() {
                    fd = if fd < 0 { 0 } else { fd.wrapping_mul(10) };
                    fd = fd.wrapping_add((*name - b'0') as i32);
                    name = name.add(1);
                }
                if fd >= 0 && fd as isize != list && !is_one_of(kept, fd) {
                    raw(libc::SYS_close, fd as usize, 0, 0, 0, 0);
                }
                at += entry.add(16).cast::<u16>().read_unaligned() as usize;
            }
        }
        raw(libc::SYS_close, list as usize, 0, 0, 0, 0);
    }
}

/// A task that does nothing: where it is put, somebody is. It ends when it is dropped, and with the caller's process.
///
/// One that has a file looks after a paused container, whose own PID 1 stands still and sees nothing: when the caller's
/// process has ended, however it did, it writes a word to the file, which lets the container go on to its end.
pub(crate) struct Keeper {
    task: Waiter,
    /// While this is open the task lives; a byte ends it.
    hold: Option<OwnedFd>,
}

/// What the task needs; at the start of its [`Region`].
#[repr(C)]
struct KeeperTask {
    hold: i32,
    owner: i32,
    /// What is written to when the owner has ended, or -1.
    file: i32,
    word: *const u8,
    word_len: usize,
}

impl Keeper {
    /// Starts one that keeps a place.
    ///
    /// Errors: `ENOSYS` where `clone3(2)` is hidden.
    pub(crate) fn start() -> Result<Keeper, Errno> {
        Keeper::start_with(-1, "")
    }

    /// Starts one that writes `word` to the file when the caller's process has ended.
    ///
    /// Errors: as above.
    pub(crate) fn start_for(file: BorrowedFd<'_>, word: &'static str) -> Result<Keeper, Errno> {
        Keeper::start_with(file.as_raw_fd(), word)
    }

    fn start_with(file: i32, word: &'static str) -> Result<Keeper, Errno> {
        let errno = |errno: rustix::io::Errno| Errno::from_raw(errno.raw_os_error());
        let (theirs, hold) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(errno)?;
        let owner = super::descriptors::pidfd_open(std::process::id() as i32)?;
        let region = Region::take()?;
        let task: *mut KeeperTask = region.0.cast();
        let needs = KeeperTask {
            hold: theirs.as_raw_fd(),
            owner: owner.as_raw_fd(),
            file,
            word: word.as_ptr(),
            word_len: word.len(),
        };
        // SAFETY: the region is large enough, aligned to a page, and nobody else's until the clone.
        unsafe { task.write(needs) };
        let task = start_task(region, keep_place, Lists::default(), 0, false)?;
        Ok(Keeper { task, hold: Some(hold) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.task.pid as u32
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("pid", &self.task.pid).finish()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            // The pipe closes with the caller, too: a byte says that it is meant.
            let _ = rustix::io::write(&hold, b"x");
        }
        // It is on its last instruction; a bounded wait keeps a debugger's stop from stopping us.
        let mut poll = [libc::pollfd { fd: self.task.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: one live pollfd.
        unsafe { libc::poll(poll.as_mut_ptr(), 1, 1000) };
        self.task.try_reap();
    }
}

/// The task, from its first instruction to its last.
#[cfg_attr(zind_sanitize, sanitize(thread = "off", address = "off"))]
unsafe extern "C" fn keep_place(task: *mut u8) -> ! {
    let task: *const KeeperTask = task.cast();
    // SAFETY: raw code, see the top of the file. The task stays until we are reaped; the word is for ever.
    unsafe {
        let (hold, owner, file) = ((*task).hold, (*task).owner, (*task).file);
        keep_only(&[hold, owner, file]);
        raw(libc::SYS_prctl, libc::PR_SET_NAME as usize, c"zind-keeper".as_ptr() as usize, 0, 0, 0);
        // A fork of the caller's may hold the other end of the pipe for longer than the caller lives, and the pipe ends
        // before the caller has.
        let mut fds = [
            libc::pollfd { fd: hold, events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: owner, events: libc::POLLIN, revents: 0 },
        ];
        loop {
            let result = raw(libc::SYS_poll, (&raw mut fds) as usize, 2, usize::MAX, 0, 0);
            if result == -(libc::EINTR as isize) {
                continue;
            }
            let [of_hold, of_owner] = &mut fds;
            if result < 0 || of_hold.revents & libc::POLLIN != 0 || file < 0 {
                break;
            }
            if of_owner.revents != 0 {
                raw(libc::SYS_write, file as usize, (*task).word as usize, (*task).word_len, 0, 0);
                break;
            }
            // Passed over from now on.
            of_hold.fd = -1;
        }
        exit_group(0)
    }
}

/// What `fsopen(2)`, `fsmount(2)` and `move_mount(2)` answer, without doing anything, to one who may mount: a task that has a user
/// namespace and a mount namespace for it.
///
/// Errors: those of `clone(2)`, where this user may not make these.
pub(crate) fn mount_calls_with_privilege() -> Result<[Errno; 3], Errno> {
    let region = Region::take()?;
    let told: *mut [AtomicI32; 3] = region.0.cast();
    // SAFETY: the region is large enough, aligned to a page, and nobody else's until the clone.
    unsafe { told.write([const { AtomicI32::new(0) }; 3]) };
    let namespaces = libc::CLONE_NEWUSER as u64 | libc::CLONE_NEWNS as u64;
    let mut task = start_task(region, ask_mount_calls, Lists::default(), namespaces, true)?;
    let mut poll = [libc::pollfd { fd: task.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    // SAFETY: one live pollfd.
    while unsafe { libc::poll(poll.as_mut_ptr(), 1, -1) } < 0 && Errno::last() == Errno::EINTR {}
    // SAFETY: the region is the task's as long as that is not reaped, and it has begun with this.
    let answers = unsafe { &*told }.each_ref().map(|errno| Errno::from_raw(errno.load(Ordering::Acquire)));
    task.try_reap();
    Ok(answers)
}

/// The task, from its first instruction to its last.
#[cfg_attr(zind_sanitize, sanitize(thread = "off", address = "off"))]
unsafe extern "C" fn ask_mount_calls(told: *mut u8) -> ! {
    let told: *const [AtomicI32; 3] = told.cast();
    const NONE: usize = usize::MAX;
    // SAFETY: raw code, see the top of the file. The region stays until we are reaped; the calls have null pointers where they read
    // a path, and no descriptors: EFAULT, EBADF and EFAULT, or EPERM before that.
    unsafe {
        (*told)[0].store(-raw(libc::SYS_fsopen, 0, 0, 0, 0, 0) as i32, Ordering::Release);
        (*told)[1].store(-raw(libc::SYS_fsmount, NONE, 0, 0, 0, 0) as i32, Ordering::Release);
        (*told)[2].store(-raw(libc::SYS_move_mount, NONE, 0, NONE, 0, 0) as i32, Ordering::Release);
        exit_group(0)
    }
}

/// One raw system call: nothing of the C library, hence no `errno`, which is another thread's here.
///
/// # Safety
/// As the call demands.
#[inline(always)]
unsafe fn raw(number: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the x86_64 convention; the caller answers for the arguments.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// The waiter, from its first instruction to its last.
#[cfg_attr(zind_sanitize, sanitize(thread = "off", address = "off"))]
unsafe extern "C" fn waiter(task: *mut u8) -> ! {
    let task: *mut Task = task.cast();
    // SAFETY: raw code, see the top of the file. The task stays until we are reaped; the launcher's stack is its own.
    unsafe {
        let is_by_older = (*task).is_by_older;
        let pid = match clone_call(&raw const (*task).launcher, is_by_older, execute_launcher, task.cast()) {
            Ok(pid) => pid,
            Err(errno) => {
                (*task).clone_errno.store(errno as i32, Ordering::Release);
                exit_group(1)
            }
        };
        if (*task).groups_done >= 0 {
            attach(pid, (*task).groups, (*task).groups_len, (*task).groups_done);
        }
        keep_only(&[]);
        raw(libc::SYS_prctl, libc::PR_SET_NAME as usize, c"zind-waiter".as_ptr() as usize, 0, 0, 0);
        let mut status = 0i32;
        while raw(libc::SYS_wait4, pid as usize, (&raw mut status) as usize, libc::__WALL as usize, 0, 0)
            == -(libc::EINTR as isize)
        {}
        if (*task).dirs_len > 0 && raw(libc::SYS_getppid, 0, 0, 0, 0, 0) != (*task).owner as isize {
            remove_dirs((*task).dirs, (*task).dirs_len);
        }
        exit_group(if status & 0x7f == 0 { status >> 8 & 0xff } else { 128 + (status & 0x7f) })
    }
}

/// Removes directories. Those whose last process has just ended may be busy for a moment longer; what has others below it
/// stays.
///
/// # Safety
/// `dirs` points to `len` bytes of paths, each with its NUL.
#[cfg_attr(zind_sanitize, sanitize(thread = "off", address = "off"))]
unsafe fn remove_dirs(dirs: *const u8, len: usize) {
    let pause = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    let (mut at, mut tries) = (0, 0);
    while at < len {
        // SAFETY: raw code, see the top of the file; a path begins here, and ends with its NUL within the list.
        unsafe {
            let path = dirs.add(at);
            let refused = raw(libc::SYS_rmdir, path as usize, 0, 0, 0, 0);
            if refused == -(libc::EBUSY as isize) && tries < 250 {
                tries += 1;
                raw(libc::SYS_nanosleep, (&raw const pause) as usize, 0, 0, 0, 0);
                continue;
            }
            while *dirs.add(at) != 0 {
                at += 1;
            }
            at += 1;
        }
    }
}

/// Writes a pid to each of the files, and how that went to `done`. One after the other: the first waits for a grace period
/// of the kernel, and those that follow at once need none.
///
/// # Safety
/// `groups` points to `len` numbers.
#[cfg_attr(zind_sanitize, sanitize(thread = "off", address = "off"))]
unsafe fn attach(pid: i32, groups: *const i32, len: usize, done: i32) {
    let mut text = [0u8; 12];
    let mut start = text.len();
    let mut rest = pid as u32;
    while start > 0 {
        start -= 1;
        // SAFETY: within the array, and raw code has no panics.
        unsafe { *text.as_mut_ptr().add(start) = b'0' + (rest % 10) as u8 };
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let mut told: Attached = [0, 0];
    let mut i = 0;
    while i < len && told[1] == 0 {
        // SAFETY: raw code, see the top of the file; the list has `len` numbers, the text ends with its array.
        let result = unsafe {
            raw(libc::SYS_write, *groups.add(i) as usize, text.as_ptr().add(start) as usize, text.len() - start, 0, 0)
        };
        if result < 0 && result != -(libc::EINTR as isize) {
            told = [i as i32, -result as i32];
        }
        if result >= 0 {
            i += 1;
        }
    }
    // SAFETY: as above.
    unsafe { raw(libc::SYS_write, done as usize, (&raw const told) as usize, size_of::<Attached>(), 0, 0) };
}

/// The launcher's process before it is the launcher: its descriptors lose close-on-exec, in its own table only.
#[cfg_attr(zind_sanitize, sanitize(thread = "off", address = "off"))]
unsafe extern "C" fn execute_launcher(task: *mut u8) -> ! {
    let task: *mut Task = task.cast();
    // SAFETY: raw code, see the top of the file; the waiter sleeps meanwhile.
    unsafe {
        let mut i = 0;
        while i < (*task).keep_len {
            raw(libc::SYS_fcntl, *(*task).keep.add(i) as usize, libc::F_SETFD as usize, 0, 0, 0);
            i += 1;
        }
        if (*task).launcher.flags & libc::CLONE_NEWUSER as u64 != 0 {
            keep_capabilities();
        }
        let errno = raw(
            libc::SYS_execveat,
            (*task).image as usize,
            c"".as_ptr() as usize,
            (&raw const (*task).argv) as usize,
            (&raw const (*task).envp) as usize,
            libc::AT_EMPTY_PATH as usize,
        );
        (*task).exec_errno.store(-errno as i32, Ordering::Release);
        exit_group(127)
    }
}

/// Carries the capabilities of a new user namespace over the execution of the launcher. Its ids are not mapped yet, so to
/// `execve(2)` it is nobody, who keeps ambient capabilities only; the launcher drops them when the maps are there.
#[inline(always)]
unsafe fn keep_capabilities() {
    const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header = [CAPABILITY_VERSION_3, 0];
    let mut held = [0u32; 6];
    // SAFETY: raw code, see the top of the file; the arrays are the structures of capset(2).
    unsafe {
        raw(libc::SYS_capget, (&raw const header) as usize, (&raw mut held) as usize, 0, 0, 0);
        (held[2], held[5]) = (held[1], held[4]);
        raw(libc::SYS_capset, (&raw const header) as usize, (&raw const held) as usize, 0, 0, 0);
        let mut capability = 0;
        let raise = libc::PR_CAP_AMBIENT_RAISE as usize;
        while raw(libc::SYS_prctl, libc::PR_CAP_AMBIENT as usize, raise, capability, 0, 0) == 0 {
            capability += 1;
        }
    }
}

/// # Safety
/// Ends the task at once.
#[inline(always)]
unsafe fn exit_group(status: i32) -> ! {
    loop {
        // SAFETY: have no demands. A task is one thread, so that both end it; a filter may hide one of them.
        unsafe {
            raw(libc::SYS_exit_group, status as usize, 0, 0, 0, 0);
            raw(libc::SYS_exit, status as usize, 0, 0, 0, 0);
        }
    }
}
