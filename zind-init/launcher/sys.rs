//! System calls, without a C library: one thin function each, no state, no allocation.
//!
//! This is the launcher's room of unsafe code. Pointers handed in here come from the plan (which outlives every call)
//! or from locals of the caller; the kernel checks them all and answers `EFAULT` for a bad one.

use core::arch::asm;
use core::sync::atomic::{AtomicI32, Ordering};

pub type Result<T = usize> = core::result::Result<T, i32>;

pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
/// Of a socket whose other end is gone.
pub const EPIPE: i32 = 32;
pub const ECONNRESET: i32 = 104;
pub const EBADF: i32 = 9;
pub const ECHILD: i32 = 10;
pub const EAGAIN: i32 = 11;
pub const EACCES: i32 = 13;
pub const EBUSY: i32 = 16;
pub const ENODEV: i32 = 19;
pub const EEXIST: i32 = 17;
pub const ENOTDIR: i32 = 20;
pub const EISDIR: i32 = 21;
pub const EPROTO: i32 = 71;
pub const ETIMEDOUT: i32 = 110;
pub const EINVAL: i32 = 22;
pub const ENAMETOOLONG: i32 = 36;
pub const ENOSYS: i32 = 38;
pub const ELOOP: i32 = 40;

pub const ESTALE: i32 = 116;

pub const AT_FDCWD: i32 = -100;
pub const AT_EMPTY_PATH: u32 = 0x1000;
pub const AT_RECURSIVE: u32 = 0x8000;
pub const OPEN_TREE_CLONE: u32 = 1;
pub const OPEN_TREE_CLOEXEC: u32 = 0o2000000;
pub const O_WRONLY: u32 = 1;
pub const O_RDWR: u32 = 2;
pub const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
pub const O_CREAT: u32 = 0o100;
pub const O_EXCL: u32 = 0o200;
pub const O_NOCTTY: u32 = 0o400;
pub const O_DIRECTORY: u32 = 0o200000;
pub const O_NOFOLLOW: u32 = 0o400000;
pub const O_CLOEXEC: u32 = 0o2000000;
pub const O_PATH: u32 = 0o10000000;
pub const RESOLVE_NO_XDEV: u64 = 0x01;
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
pub const RESOLVE_BENEATH: u64 = 0x08;
pub const RESOLVE_IN_ROOT: u64 = 0x10;
pub const CLONE_VM: u64 = 0x100;
pub const CLONE_VFORK: u64 = 0x4000;
pub const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const F_SETFD: usize = 2;
pub const SIGKILL: i32 = 9;
pub const SIGTRAP: i32 = 5;
pub const SIGCHLD: i32 = 17;
pub const SIGSTOP: i32 = 19;
pub const MNT_DETACH: u32 = 2;
pub const WNOHANG: i32 = 1;

pub mod number {
    //! Numbers of the system calls on x86_64: arch/x86/entry/syscalls/syscall_64.tbl.
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const PREAD64: usize = 17;
    pub const PWRITE64: usize = 18;
    pub const WRITEV: usize = 20;
    pub const RECVFROM: usize = 45;
    pub const FTRUNCATE: usize = 77;
    pub const CLOCK_GETTIME: usize = 228;
    pub const UNLINKAT: usize = 263;
    pub const RENAMEAT: usize = 264;
    pub const ACCEPT4: usize = 288;
    pub const EXECVEAT: usize = 322;
    pub const PIDFD_SEND_SIGNAL: usize = 424;
    pub const CLONE3: usize = 435;
    pub const FSTAT: usize = 5;
    pub const MMAP: usize = 9;
    pub const MUNMAP: usize = 11;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const GETPID: usize = 39;
    pub const SOCKET: usize = 41;
    pub const GETSOCKOPT: usize = 55;
    pub const UNAME: usize = 63;
    pub const GETGROUPS: usize = 115;
    pub const GETRESUID: usize = 118;
    pub const GETRESGID: usize = 120;
    pub const GETSID: usize = 124;
    pub const GETPPID: usize = 110;
    pub const STATFS: usize = 137;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const SHUTDOWN: usize = 48;
    pub const SOCKETPAIR: usize = 53;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const FCNTL: usize = 72;
    pub const CHDIR: usize = 80;
    pub const FCHDIR: usize = 81;
    pub const FCHMOD: usize = 91;
    pub const UMASK: usize = 95;
    pub const GETRUSAGE: usize = 98;
    pub const PTRACE: usize = 101;
    pub const SETPGID: usize = 109;
    pub const SETSID: usize = 112;
    pub const SETGROUPS: usize = 116;
    pub const SETRESUID: usize = 117;
    pub const SETRESGID: usize = 119;
    pub const CAPGET: usize = 125;
    pub const CAPSET: usize = 126;
    pub const PERSONALITY: usize = 135;
    pub const SETPRIORITY: usize = 141;
    pub const FSTATFS: usize = 138;
    pub const PIVOT_ROOT: usize = 155;
    pub const MOUNT: usize = 165;
    pub const PRCTL: usize = 157;
    pub const CHROOT: usize = 161;
    pub const UMOUNT2: usize = 166;
    pub const SETHOSTNAME: usize = 170;
    pub const SETDOMAINNAME: usize = 171;
    pub const EXIT_GROUP: usize = 231;
    pub const EXIT: usize = 60;
    pub const SCHED_YIELD: usize = 24;
    pub const KEYCTL: usize = 250;
    pub const SET_ROBUST_LIST: usize = 273;
    pub const OPENAT: usize = 257;
    pub const MKDIRAT: usize = 258;
    pub const MKNODAT: usize = 259;
    pub const FCHOWNAT: usize = 260;
    pub const FCHOWN: usize = 93;
    pub const SETFSUID: usize = 122;
    pub const MEMFD_CREATE: usize = 319;
    pub const FLOCK: usize = 73;
    pub const GETDENTS64: usize = 217;
    pub const LINKAT: usize = 265;
    pub const SYMLINKAT: usize = 266;
    pub const READLINKAT: usize = 267;
    pub const FACCESSAT: usize = 269;
    pub const PPOLL: usize = 271;
    pub const UNSHARE: usize = 272;
    pub const SIGNALFD4: usize = 289;
    pub const DUP3: usize = 292;
    pub const PRLIMIT64: usize = 302;
    pub const SETNS: usize = 308;
    pub const SCHED_SETATTR: usize = 314;
    pub const SECCOMP: usize = 317;
    pub const STATX: usize = 332;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const OPEN_TREE: usize = 428;
    pub const MOVE_MOUNT: usize = 429;
    pub const FSOPEN: usize = 430;
    pub const FSCONFIG: usize = 431;
    pub const FSMOUNT: usize = 432;
    pub const PIDFD_OPEN: usize = 434;
    pub const CLOSE_RANGE: usize = 436;
    pub const OPENAT2: usize = 437;
    pub const MOUNT_SETATTR: usize = 442;
    pub const LANDLOCK_CREATE_RULESET: usize = 444;
    pub const LANDLOCK_ADD_RULE: usize = 445;
    pub const LANDLOCK_RESTRICT_SELF: usize = 446;
    pub const PROCESS_MRELEASE: usize = 448;
}

/// One system call with six arguments; unused ones are 0.
#[inline(always)]
fn raw(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> Result {
    let result: isize;
    // SAFETY: the x86_64 system call convention; rcx and r11 are what the instruction clobbers. What a call does to
    // memory is bounded by the pointers its wrapper below passes on.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    if result < 0 { Err(-result as i32) } else { Ok(result as usize) }
}

/// A call that somebody else has put together.
pub fn by_number(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> Result {
    loop {
        match raw(number, a, b, c, d, e, f) {
            Err(EINTR) => {}
            other => return other,
        }
    }
}

/// Calls by name with up to six arguments of any integer or pointer type.
macro_rules! call {
    ($number:ident) => { call!(@ $number, 0, 0, 0, 0, 0, 0) };
    ($number:ident, $a:expr) => { call!(@ $number, $a, 0, 0, 0, 0, 0) };
    ($number:ident, $a:expr, $b:expr) => { call!(@ $number, $a, $b, 0, 0, 0, 0) };
    ($number:ident, $a:expr, $b:expr, $c:expr) => { call!(@ $number, $a, $b, $c, 0, 0, 0) };
    ($number:ident, $a:expr, $b:expr, $c:expr, $d:expr) => { call!(@ $number, $a, $b, $c, $d, 0, 0) };
    ($number:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => { call!(@ $number, $a, $b, $c, $d, $e, 0) };
    ($number:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        call!(@ $number, $a, $b, $c, $d, $e, $f)
    };
    (@ $number:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        raw(number::$number, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize)
    };
}

/// A NUL-terminated string of the plan, or a literal.
pub type CStr = *const u8;

pub const EMPTY: CStr = c"".as_ptr().cast();

pub fn exit(code: i32) -> ! {
    let _ = call!(EXIT_GROUP, code);
    // A filter may refuse even that. There is one thread, or none that matters any more.
    let _ = call!(EXIT, code);
    die()
}

/// Ends by a signal, without a call.
fn die() -> ! {
    // SAFETY: an instruction that is none.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// Ends this thread only.
pub fn exit_thread() -> ! {
    let _ = call!(EXIT, 0);
    die()
}

pub fn yield_cpu() {
    let _ = call!(SCHED_YIELD);
}

/// Makes a call until no signal interrupts it.
fn again_if_interrupted(mut call: impl FnMut() -> Result) -> Result {
    loop {
        match call() {
            Err(EINTR) => {}
            other => return other,
        }
    }
}

pub fn read(fd: i32, buffer: &mut [u8]) -> Result {
    again_if_interrupted(|| call!(READ, fd, buffer.as_mut_ptr(), buffer.len()))
}

pub fn write_all(fd: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match call!(WRITE, fd, bytes.as_ptr(), bytes.len()) {
            Err(EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(n) => bytes = bytes.get(n..).unwrap_or(&[]),
        }
    }
    Ok(())
}

pub fn close(fd: i32) {
    let _ = call!(CLOSE, fd);
}

/// Where close_range(2) is hidden: no descriptor of ours is above it, once those that came with us were looked through. -1: not so.
static HIGHEST: AtomicI32 = AtomicI32::new(-1);

/// How many descriptors are opened here beyond those that are kept; many times as many as there ever are.
const MOST_OPENED: i32 = 4096;

/// close_range(2) is hidden, and of what is open now `highest` is the last: from here on it is done one by one.
pub fn set_highest_descriptor(highest: i32) {
    HIGHEST.store(highest.saturating_add(MOST_OPENED), Ordering::Relaxed);
}

/// It is the call that is hidden: the kernel itself has no such answer to it.
pub fn is_hidden(errno: i32) -> bool {
    matches!(errno, ENOSYS | EPERM)
}

/// `flags`: 0 closes, 4 marks close-on-exec.
pub fn close_range(first: u32, last: u32, flags: u32) -> Result {
    const FD_CLOEXEC: usize = 1;
    let errno = match call!(CLOSE_RANGE, first, last, flags) {
        Err(errno) if is_hidden(errno) => errno,
        other => return other,
    };
    let Ok(highest) = u32::try_from(HIGHEST.load(Ordering::Relaxed)) else { return Err(errno) };
    for fd in first..=last.min(highest) {
        match if flags == 0 { call!(CLOSE, fd) } else { call!(FCNTL, fd, F_SETFD, FD_CLOEXEC) } {
            Ok(_) | Err(EBADF | EINTR) => {}
            // What close(2) has to say besides is about what was written.
            Err(_) if flags == 0 => {}
            other => return other,
        }
    }
    Ok(0)
}

pub fn dup_above(fd: i32, least: i32) -> Result<i32> {
    const F_DUPFD_CLOEXEC: usize = 1030;
    let fd = call!(FCNTL, fd, F_DUPFD_CLOEXEC, least)? as i32;
    if HIGHEST.load(Ordering::Relaxed) >= 0 {
        HIGHEST.fetch_max(fd, Ordering::Relaxed);
    }
    Ok(fd)
}

pub fn dup_to(from: i32, to: i32) -> Result {
    call!(DUP3, from, to, 0)
}

/// Takes close-on-exec away.
pub fn keep_over_exec(fd: i32) -> Result {
    call!(FCNTL, fd, F_SETFD, 0)
}

#[repr(C)]
pub struct Stat {
    device: u64,
    inode: u64,
    links: u64,
    mode: u32,
    ids: [u32; 3],
    rdev: u64,
    size: i64,
    rest: [u64; 11],
}

impl Stat {
    /// What makes a file the same as another.
    pub fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    pub fn is_dir(&self) -> bool {
        self.mode & 0o170000 == 0o040000
    }

    pub fn is_file(&self) -> bool {
        self.mode & 0o170000 == 0o100000
    }

    /// Both are character devices, block devices or FIFOs, of one number.
    pub fn is_same_device(&self, other: &Stat) -> bool {
        let kind = self.mode & 0o170000;
        matches!(kind, 0o020000 | 0o060000 | 0o010000) && kind == other.mode & 0o170000 && self.rdev == other.rdev
    }

    pub fn size(&self) -> usize {
        self.size as usize
    }
}

pub fn fstat(fd: i32) -> Result<Stat> {
    let mut stat = Stat { device: 0, inode: 0, links: 0, mode: 0, ids: [0; 3], rdev: 0, size: 0, rest: [0; 11] };
    call!(FSTAT, fd, &raw mut stat)?;
    Ok(stat)
}

/// `f_type` of fstatfs(2).
pub fn statfs_type(fd: i32) -> Result<u64> {
    let mut buffer = [0u64; 15];
    call!(FSTATFS, fd, buffer.as_mut_ptr())?;
    Ok(buffer[0])
}

/// `f_flags` of fstatfs(2).
pub fn statfs_flags(fd: i32) -> Result<u64> {
    const FLAGS_WORD: usize = 10;
    let mut buffer = [0u64; 15];
    call!(FSTATFS, fd, buffer.as_mut_ptr())?;
    Ok(buffer[FLAGS_WORD])
}

/// `f_type` and `f_flags` of statfs(2).
pub fn statfs(path: CStr) -> Result<(u64, u64)> {
    const FLAGS_WORD: usize = 10;
    let mut buffer = [0u64; 15];
    call!(STATFS, path, buffer.as_mut_ptr())?;
    Ok((buffer[0], buffer[FLAGS_WORD]))
}

/// Maps a file privately, for reading and writing.
pub fn map_private(fd: i32, len: usize) -> Result<*mut u8> {
    const PROT_READ_WRITE: usize = 3;
    const MAP_PRIVATE_POPULATE: usize = 0x2 | 0x8000;
    call!(MMAP, 0, len, PROT_READ_WRITE, MAP_PRIVATE_POPULATE, fd, 0).map(|address| address as *mut u8)
}

/// Nobody uses what is there any more.
pub fn unmap(address: *mut u8, len: usize) {
    let _ = call!(MUNMAP, address, len);
}

/// One page that a forked child shares with us.
pub fn map_shared_page() -> Result<*mut u32> {
    const PROT_READ_WRITE: usize = 3;
    const MAP_SHARED_ANONYMOUS: usize = 0x1 | 0x20;
    call!(MMAP, 0, 4096, PROT_READ_WRITE, MAP_SHARED_ANONYMOUS, -1i32, 0).map(|address| address as *mut u32)
}

/// What the kernel sets in the word of [`mark_at_death`]: `FUTEX_OWNER_DIED`.
pub const OWNER_DIED: u32 = 0x4000_0000;

/// When this process ends, however that comes, the kernel marks a word that has its number: before its children lose it. An error
/// means that nobody will. Source: set_robust_list(2), the kernel's `Documentation/locking/robust-futexes.rst`
pub fn mark_at_death(word: *mut u32) -> Result {
    use core::sync::atomic::{AtomicUsize, Ordering};
    // `struct robust_list_head`: a list of none, how far words are from their entries, and the entry that is being worked on.
    static HEAD: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    let head = (&raw const HEAD) as usize;
    HEAD[0].store(head, Ordering::Relaxed);
    HEAD[2].store(word as usize, Ordering::Relaxed);
    call!(SET_ROBUST_LIST, head, size_of_val(&HEAD))
}

/// Blocks or unblocks every signal.
pub fn set_all_signals_blocked(blocked: bool) -> Result {
    const SIG_SETMASK: usize = 2;
    let mask: u64 = if blocked { !0 } else { 0 };
    call!(RT_SIGPROCMASK, SIG_SETMASK, &raw const mask, 0, 8)
}

/// Every disposition back to the default: what the caller ignores is no business of the payload's.
pub fn reset_signals() {
    let default = [0u64; 4];
    for signal in 1..=64 {
        let _ = call!(RT_SIGACTION, signal, default.as_ptr(), 0, 8);
    }
}

/// A descriptor from which every signal can be read.
pub fn signalfd() -> Result<i32> {
    const SFD_CLOEXEC: usize = 0o2000000;
    let mask: u64 = !0;
    call!(SIGNALFD4, -1i32, &raw const mask, 8, SFD_CLOEXEC).map(|fd| fd as i32)
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PollFd {
    pub fd: i32,
    pub events: i16,
    pub revents: i16,
}

pub const POLLIN: i16 = 1;
pub const POLLPRI: i16 = 2;

impl PollFd {
    pub fn readable(fd: i32) -> PollFd {
        PollFd { fd, events: POLLIN, revents: 0 }
    }
}

pub fn poll(fds: &mut [PollFd]) -> Result {
    call!(PPOLL, fds.as_mut_ptr(), fds.len(), 0, 0, 0)
}

/// As [`poll`], for `timeout_ns` at most; negative: for as long as it takes.
pub fn poll_for(fds: &mut [PollFd], timeout_ns: i64) -> Result {
    if timeout_ns < 0 {
        return poll(fds);
    }
    let time = [timeout_ns / 1_000_000_000, timeout_ns % 1_000_000_000];
    call!(PPOLL, fds.as_mut_ptr(), fds.len(), time.as_ptr(), 0, 0)
}

/// Nanoseconds: since 1970, or, with `monotonic`, since some moment.
pub fn now_ns(monotonic: bool) -> u64 {
    let mut time = [0u64; 2];
    let _ = call!(CLOCK_GETTIME, u32::from(monotonic), time.as_mut_ptr());
    time[0] * 1_000_000_000 + time[1]
}

/// Writes two pieces in one call: how many bytes of them.
pub fn write_both(fd: i32, one: &[u8], other: &[u8]) -> Result {
    let pieces = [Iov(one.as_ptr(), one.len()), Iov(other.as_ptr(), other.len())];
    again_if_interrupted(|| call!(WRITEV, fd, pieces.as_ptr(), pieces.len()))
}

pub fn pread(fd: i32, buffer: &mut [u8], at: u64) -> Result {
    again_if_interrupted(|| call!(PREAD64, fd, buffer.as_mut_ptr(), buffer.len(), at))
}

pub fn pwrite(fd: i32, bytes: &[u8], at: u64) -> Result {
    again_if_interrupted(|| call!(PWRITE64, fd, bytes.as_ptr(), bytes.len(), at))
}

/// Locks a file for us alone, if nobody has it locked.
pub fn lock_now(fd: i32) -> Result {
    const LOCK_EX_NB: usize = 2 | 4;
    again_if_interrupted(|| call!(FLOCK, fd, LOCK_EX_NB))
}

/// Entries of a directory, as `struct linux_dirent64`.
pub fn getdents(dir: i32, buffer: &mut [u8]) -> Result {
    call!(GETDENTS64, dir, buffer.as_mut_ptr(), buffer.len())
}

pub fn link(dir: i32, from: CStr, to: CStr) -> Result {
    call!(LINKAT, dir, from, dir, to, 0)
}

pub fn rmdir_at(dir: i32, path: CStr) -> Result {
    const AT_REMOVEDIR: usize = 0x200;
    call!(UNLINKAT, dir, path, AT_REMOVEDIR)
}

pub fn truncate(fd: i32, length: u64) -> Result {
    again_if_interrupted(|| call!(FTRUNCATE, fd, length))
}

pub fn rename(dir: i32, from: CStr, to: CStr) -> Result {
    call!(RENAMEAT, dir, from, dir, to)
}

pub fn unlink(dir: i32, path: CStr) -> Result {
    call!(UNLINKAT, dir, path, 0)
}

pub fn rmdir(path: CStr) -> Result {
    const AT_REMOVEDIR: usize = 0x200;
    call!(UNLINKAT, AT_FDCWD, path, AT_REMOVEDIR)
}

/// The next connection, if there is one.
pub fn accept(listener: i32) -> Result<i32> {
    const SOCK_CLOEXEC_NONBLOCK: usize = 0o2004000;
    again_if_interrupted(|| call!(ACCEPT4, listener, 0, 0, SOCK_CLOEXEC_NONBLOCK)).map(|fd| fd as i32)
}

/// One message, if there is one. 0: the sender is gone.
pub fn receive_now(socket: i32, buffer: &mut [u8]) -> Result {
    const MSG_DONTWAIT: usize = 0x40;
    again_if_interrupted(|| call!(RECVFROM, socket, buffer.as_mut_ptr(), buffer.len(), MSG_DONTWAIT, 0, 0))
}

/// Sends one message with a descriptor, if it is not negative, or says why that would have to wait.
pub fn send_now(socket: i32, message: &[u8], fd: i32) -> Result {
    again_if_interrupted(|| send_descriptors(socket, message, [fd, -1]))
}

pub fn pidfd_send_signal(pidfd: i32, signal: i32) -> Result {
    call!(PIDFD_SEND_SIGNAL, pidfd, signal, 0, 0)
}

/// A pair of connected sockets that keep messages apart; each is told who has sent one.
pub fn message_pair() -> Result<[i32; 2]> {
    const AF_UNIX: usize = 1;
    const SOCK_SEQPACKET_CLOEXEC: usize = 5 | 0o2000000;
    let mut pair = [-1i32; 2];
    call!(SOCKETPAIR, AF_UNIX, SOCK_SEQPACKET_CLOEXEC, 0, pair.as_mut_ptr())?;
    Ok(pair)
}

/// The terminal end of a pseudo-terminal.
pub fn terminal_peer(master: i32) -> Result<i32> {
    const TIOCGPTPEER: usize = 0x5441;
    const O_RDWR_NOCTTY_CLOEXEC: usize = 2 | 0o400 | 0o2000000;
    call!(IOCTL, master, TIOCGPTPEER, O_RDWR_NOCTTY_CLOEXEC).map(|fd| fd as i32)
}

pub fn pipe() -> Result<[i32; 2]> {
    const PIPE2: usize = 293;
    let mut pair = [-1i32; 2];
    raw(PIPE2, pair.as_mut_ptr() as usize, 0o2000000, 0, 0, 0, 0)?;
    Ok(pair)
}

/// A file in memory, with nothing in it.
pub fn memory_file(name: CStr) -> Result<i32> {
    const MFD_CLOEXEC: usize = 1;
    call!(MEMFD_CREATE, name, MFD_CLOEXEC).map(|fd| fd as i32)
}

/// Executes the program behind a descriptor.
pub fn execute(program: i32, argv: *const CStr, envp: *const CStr) -> i32 {
    call!(EXECVEAT, program, EMPTY, argv, envp, AT_EMPTY_PATH).err().unwrap_or(0)
}

#[repr(C)]
struct Iov(*const u8, usize);

/// `struct msghdr`: name, its length, the pieces, their number, control data, its length, flags.
#[repr(C)]
struct MessageHeader(usize, u32, *const Iov, usize, *const u8, usize, i32);

/// Receives one message and the descriptors that come with it, which fill `fds` from the front. 0: the sender is gone.
pub fn receive<const N: usize>(socket: i32, buffer: &mut [u8], fds: &mut [i32; N]) -> Result {
    receive_from(socket, buffer, fds).map(|(length, _)| length)
}

/// The same; and who has sent it, if the socket asks for that, or 0.
pub fn receive_from<const N: usize>(socket: i32, buffer: &mut [u8], fds: &mut [i32; N]) -> Result<(usize, i32)> {
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    const CONTROL_HEADER: usize = 16;
    const SCM_RIGHTS: u64 = 1;
    const SCM_CREDENTIALS: u64 = 2;
    // A header, and more descriptors than anybody sends; another one, and who that is.
    let mut control = [0u64; 24];
    loop {
        let iov = Iov(buffer.as_mut_ptr(), buffer.len());
        let mut header = MessageHeader(0, 0, &raw const iov, 1, control.as_mut_ptr().cast(), size_of_val(&control), 0);
        match call!(RECVMSG, socket, &raw mut header, MSG_CMSG_CLOEXEC) {
            Err(EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(length) => {
                // The kernel has written back how much control data there is.
                let words = control.get(..header.5 / 8).unwrap_or(&[]);
                let (mut at, mut sender, mut filled) = (0, 0, 0);
                while let Some([len, kind, data @ ..]) = words.get(at..) {
                    let count = (*len as usize).saturating_sub(CONTROL_HEADER) / size_of::<i32>();
                    let number = |index: usize| data.get(index / 2).map_or(-1, |word| (word >> (32 * (index % 2))) as i32);
                    match kind >> 32 {
                        SCM_RIGHTS => {
                            for index in 0..count {
                                match fds.get_mut(filled) {
                                    Some(slot) => *slot = number(index),
                                    None => close(number(index)),
                                }
                                filled += 1;
                            }
                        }
                        SCM_CREDENTIALS if count > 0 => sender = number(0),
                        _ => {}
                    }
                    at += (*len as usize).div_ceil(8).max(2);
                }
                return Ok((length, sender));
            }
        }
    }
}

/// Has the socket tell who sends.
pub fn tell_senders(socket: i32) -> Result {
    const SETSOCKOPT: usize = 54;
    const SOL_SOCKET: usize = 1;
    const SO_PASSCRED: usize = 16;
    let yes = 1u32;
    raw(SETSOCKOPT, socket as usize, SOL_SOCKET, SO_PASSCRED, (&raw const yes) as usize, size_of::<u32>(), 0)
}

/// Waits for the end of a child: its status.
pub fn wait_for(pid: i32) -> Result<i32> {
    const WALL: i32 = 0x4000_0000;
    let mut status = 0i32;
    again_if_interrupted(|| call!(WAIT4, pid, &raw mut status, WALL, 0)).map(|_| status)
}

/// Nobody can send us anything more; what was sent can be received.
pub fn shutdown_reading(socket: i32) -> Result {
    const SHUT_RD: usize = 0;
    call!(SHUTDOWN, socket, SHUT_RD)
}

/// Sends one message, with a descriptor if it is not negative. A reader that is gone is no error of ours.
pub fn send(socket: i32, message: &[u8], fd: i32) {
    let _ = tell(socket, message, fd);
}

/// The same; tells whether it was sent.
pub fn tell(socket: i32, message: &[u8], fd: i32) -> Result {
    again_if_interrupted(|| send_descriptors(socket, message, [fd, -1]))
}

/// Sends a message with up to two descriptors; those that are negative, and what follows them, are left out.
fn send_descriptors(socket: i32, message: &[u8], fds: [i32; 2]) -> Result {
    #[repr(C)]
    struct Control(usize, i32, i32, [i32; 2]);
    const SOL_SOCKET: i32 = 1;
    const SCM_RIGHTS: i32 = 1;
    const MSG_NOSIGNAL: usize = 0x4000;
    let count = fds.iter().take_while(|&&fd| fd >= 0).count();
    let iov = Iov(message.as_ptr(), message.len());
    let control = Control(16 + 4 * count, SOL_SOCKET, SCM_RIGHTS, fds);
    let control_len = if count == 0 { 0 } else { size_of::<Control>() };
    let header = MessageHeader(0, 0, &raw const iov, 1, (&raw const control).cast(), control_len, 0);
    call!(SENDMSG, socket, &raw const header, MSG_NOSIGNAL)
}

/// Puts `fd` where only the kernel's garbage collector of sockets finds it, which then closes it in its own time: into the
/// queue of a socket that only this queue holds. Otherwise it is closed at once.
pub fn close_later(fd: i32) {
    const AF_UNIX: i32 = 1;
    const SOCK_DGRAM: i32 = 2;
    let mut pair = [-1i32; 2];
    if call!(SOCKETPAIR, AF_UNIX, SOCK_DGRAM, 0, pair.as_mut_ptr()).is_ok() {
        let [sender, receiver] = pair;
        let _ = send_descriptors(sender, b".", [receiver, fd]);
        close(receiver);
        // The end of a socket is what wakes the collector, so the sender goes after the receiver.
        close(sender);
    }
    close(fd);
}

/// The mount namespace of the process behind a pidfd; from Linux 6.11 on. pidfd's ioctls: `PIDFD_GET_MNT_NAMESPACE`.
pub fn mount_namespace(pidfd: i32) -> Result<i32> {
    const PIDFD_GET_MNT_NAMESPACE: usize = 0xff03;
    call!(IOCTL, pidfd, PIDFD_GET_MNT_NAMESPACE, 0).map(|fd| fd as i32)
}

pub fn getppid() -> i32 {
    call!(GETPPID).unwrap_or(0) as i32
}

pub fn getpid() -> i32 {
    call!(GETPID).unwrap_or(0) as i32
}

pub fn pidfd_open(pid: i32) -> Result<i32> {
    call!(PIDFD_OPEN, pid, 0).map(|fd| fd as i32)
}

/// Takes back the memory of a process that was killed; `EINVAL` for one that was not.
pub fn process_mrelease(pidfd: i32) -> Result {
    call!(PROCESS_MRELEASE, pidfd, 0)
}

/// To a process, or to the group of one (`-pid`), or to all (-1).
pub fn kill(pid: i32, signal: i32) -> Result {
    const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 4;
    let errno = match call!(KILL, pid, signal) {
        Err(errno) if is_hidden(errno) && pid != -1 => errno,
        other => return other,
    };
    // Also where it is this user that may not.
    let pidfd = pidfd_open(pid.saturating_abs()).map_err(|_| errno)?;
    let send = |flags: u32| call!(PIDFD_SEND_SIGNAL, pidfd, signal, 0, flags);
    let sent = match pid {
        // Before Linux 6.9 it is for the one process only.
        ..0 => send(PIDFD_SIGNAL_PROCESS_GROUP).or_else(|_| send(0)),
        _ => send(0),
    };
    close(pidfd);
    sent
}

/// Until this child has ended.
pub fn reap(pid: i32) {
    const WALL: i32 = 0x4000_0000;
    while call!(WAIT4, pid, 0, WALL, 0) == Err(EINTR) {}
}

/// Any child that ended or stopped: its pid and status.
pub fn wait_any(flags: i32) -> Result<(i32, i32)> {
    wait_any_with(flags, core::ptr::null_mut())
}

/// The same; and what it and its own children have used, as [`usage_of_children`] has it.
pub fn wait_any_and_usage(flags: i32) -> Result<(i32, i32, (u64, u64, u64))> {
    let mut usage = [0u64; 18];
    let (pid, status) = wait_any_with(flags, usage.as_mut_ptr())?;
    Ok((pid, status, usage_of(&usage)))
}

fn wait_any_with(flags: i32, usage: *mut u64) -> Result<(i32, i32)> {
    const WALL: i32 = 0x4000_0000;
    let mut status = 0i32;
    let pid = again_if_interrupted(|| call!(WAIT4, -1i32, &raw mut status, WALL | flags, usage))?;
    Ok((pid as i32, status))
}

/// User time, system time (microseconds) and largest resident set (bytes) of all children waited for.
pub fn usage_of_children() -> (u64, u64, u64) {
    const RUSAGE_CHILDREN: i32 = -1;
    let mut usage = [0u64; 18];
    if call!(GETRUSAGE, RUSAGE_CHILDREN, usage.as_mut_ptr()).is_err() {
        return (0, 0, 0);
    }
    usage_of(&usage)
}

/// Of a `struct rusage`.
fn usage_of(usage: &[u64; 18]) -> (u64, u64, u64) {
    (usage[0] * 1_000_000 + usage[1], usage[2] * 1_000_000 + usage[3], usage[4] * 1024)
}

/// Forks with `flags`; the parent sleeps until the child executes a program or ends. 0 in the child.
pub fn fork(flags: u64, pidfd: &mut i32) -> Result<i32> {
    clone(flags | CLONE_VFORK, pidfd)
}

/// Forks with `flags`; both go on. 0 in the child.
///
/// The older clone(2) knows all the flags there are in use here, and is let through where a filter hides clone3(2).
pub fn clone(flags: u64, pidfd: &mut i32) -> Result<i32> {
    call!(CLONE, flags | CLONE_PIDFD | SIGCHLD as u64, 0, &raw mut *pidfd).map(|pid| pid as i32)
}

/// As [`vfork`], with new namespaces, and born into the group of version 2 behind `cgroup`, if that is not negative. Only
/// this one wants clone3(2).
pub fn vfork_into(
    stack: &mut [u8],
    flags: u64,
    cgroup: i32,
    pidfd: &mut i32,
    child: extern "C" fn(*const u8) -> !,
    argument: *const u8,
) -> Result<i32> {
    if cgroup < 0 {
        return vfork_with(stack, flags, pidfd, child, argument);
    }
    let flags = flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_INTO_CGROUP;
    clone3_on(stack, flags, pidfd, cgroup, child, argument)
}

/// clone3(2), whose child runs `child` in our memory, on `stack`.
fn clone3_on(
    stack: &mut [u8],
    flags: u64,
    pidfd: *mut i32,
    cgroup: i32,
    child: extern "C" fn(*const u8) -> !,
    argument: *const u8,
) -> Result<i32> {
    let (bottom, size) = (stack.as_mut_ptr() as u64, (stack.len() & !15) as u64);
    // `struct clone_args`: flags, pidfd, child_tid, parent_tid, exit_signal, stack, its size, tls, set_tid, its size, cgroup.
    let arguments = [flags, pidfd as u64, 0, 0, SIGCHLD as u64, bottom, size, 0, 0, 0, cgroup as u64];
    let result: isize;
    // SAFETY: as in `vfork_with`; the array is the structure of clone3(2), version 2.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") number::CLONE3 as isize => result,
            in("rdi") arguments.as_ptr(),
            in("rsi") size_of_val(&arguments),
            in("r12") child,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(-result as i32) } else { Ok(result as i32) }
}

/// Like vfork(2): the child runs `child` in our memory, on `stack`, while we sleep until it executes a program or ends.
pub fn vfork(stack: &mut [u8], pidfd: &mut i32, child: extern "C" fn(*const u8) -> !, argument: *const u8) -> Result<i32> {
    vfork_with(stack, 0, pidfd, child, argument)
}

fn vfork_with(
    stack: &mut [u8],
    flags: u64,
    pidfd: &mut i32,
    child: extern "C" fn(*const u8) -> !,
    argument: *const u8,
) -> Result<i32> {
    let flags = flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD as u64;
    let top = (stack.as_mut_ptr() as usize + stack.len()) & !15;
    let result: isize;
    // SAFETY: the child starts on the top of its own stack, calls a function that never returns and touches nothing
    // of this frame; the parent goes on after the call with all registers but rax, rcx and r11 as they were.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") number::CLONE as isize => result,
            in("rdi") flags,
            in("rsi") top,
            in("rdx") &raw mut *pidfd,
            in("r10") 0,
            in("r8") 0,
            in("r12") child,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(-result as i32) } else { Ok(result as i32) }
}

/// [`vfork`] whose child is born into the control group behind a descriptor, and for which nobody needs another.
pub fn vfork_into_group(group: i32, stack: &mut [u8], child: extern "C" fn(*const u8) -> !, argument: *const u8) -> Result<i32> {
    clone3_on(stack, CLONE_VM | CLONE_VFORK | CLONE_INTO_CGROUP, core::ptr::null_mut(), group, child, argument)
}

/// A second thread of this process, which runs `child` on `stack`. Signals that are blocked here are blocked there.
pub fn thread(stack: &mut [u8], child: extern "C" fn(*const u8) -> !, argument: *const u8) -> Result<i32> {
    // CLONE_VM, _FS, _FILES, _SIGHAND, _THREAD and _SYSVSEM: what threads share.
    const FLAGS: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
    let top = (stack.as_mut_ptr() as usize + stack.len()) & !15;
    let result: isize;
    // SAFETY: as in `vfork_with`, but that both go on: nothing of this frame is used by the other.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") number::CLONE as isize => result,
            in("rdi") FLAGS,
            in("rsi") top,
            in("rdx") 0,
            in("r10") 0,
            in("r8") 0,
            in("r12") child,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(-result as i32) } else { Ok(result as i32) }
}

/// Forks a child of our parent's, and sleeps until it executes a program or ends. 0 in the child.
pub fn fork_sibling() -> Result<i32> {
    const CLONE_PARENT: u64 = 0x8000;
    call!(CLONE, CLONE_PARENT | CLONE_VFORK | SIGCHLD as u64, 0, 0).map(|pid| pid as i32)
}

pub fn execve(program: CStr, argv: *const CStr, envp: *const CStr) -> i32 {
    call!(EXECVE, program, argv, envp).err().unwrap_or(0)
}

pub fn exists(path: CStr) -> bool {
    call!(FACCESSAT, AT_FDCWD, path, 0).is_ok()
}

pub fn setns(fd: i32, flags: u32) -> Result {
    call!(SETNS, fd, flags)
}

pub fn unshare(flags: u64) -> Result {
    call!(UNSHARE, flags)
}

pub fn sethostname(name: &[u8]) -> Result {
    call!(SETHOSTNAME, name.as_ptr(), name.len())
}

pub fn setdomainname(name: &[u8]) -> Result {
    call!(SETDOMAINNAME, name.as_ptr(), name.len())
}

/// `ip link set lo up`, with the oldest interface there is: netdevice(7).
pub fn loopback_up() -> Result<()> {
    const AF_INET: usize = 2;
    const SOCK_DGRAM_CLOEXEC: usize = 2 | 0o2000000;
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP_RUNNING: u8 = 0x41;
    let fd = call!(SOCKET, AF_INET, SOCK_DGRAM_CLOEXEC, 0)? as i32;
    let mut request = [0u8; 40];
    request[0] = b'l';
    request[1] = b'o';
    request[16] = IFF_UP_RUNNING;
    let result = call!(IOCTL, fd, SIOCSIFFLAGS, request.as_ptr());
    close(fd);
    result.map(drop)
}

/// `struct utsname`: six fields of 65 bytes.
pub fn uname(fields: &mut [u8; 390]) -> Result {
    call!(UNAME, fields.as_mut_ptr())
}

/// A socket of nothing but this machine.
pub fn local_socket() -> Result<i32> {
    const AF_UNIX: usize = 1;
    const SOCK_DGRAM_CLOEXEC: usize = 2 | 0o2000000;
    call!(SOCKET, AF_UNIX, SOCK_DGRAM_CLOEXEC, 0).map(|fd| fd as i32)
}

/// A number for the network namespace in which a socket was made; from Linux 5.14 on: `SO_NETNS_COOKIE` of socket(7).
pub fn network_cookie(socket: i32) -> Result<u64> {
    const SOL_SOCKET: usize = 1;
    const SO_NETNS_COOKIE: usize = 71;
    let (mut cookie, mut length) = (0u64, 8u32);
    call!(GETSOCKOPT, socket, SOL_SOCKET, SO_NETNS_COOKIE, &raw mut cookie, &raw mut length)?;
    Ok(cookie)
}

/// `FD_CLOEXEC` or nothing.
pub fn descriptor_flags(fd: i32) -> Result {
    const F_GETFD: usize = 1;
    call!(FCNTL, fd, F_GETFD, 0)
}

pub fn umask(mask: u32) -> u32 {
    call!(UMASK, mask).unwrap_or(0o022) as u32
}

pub fn chdir(path: CStr) -> Result {
    call!(CHDIR, path)
}

pub fn fchdir(fd: i32) -> Result {
    call!(FCHDIR, fd)
}

pub fn chroot(path: CStr) -> Result {
    call!(CHROOT, path)
}

pub fn openat(dir: i32, path: CStr, flags: u32, mode: u32) -> Result<i32> {
    again_if_interrupted(|| call!(OPENAT, dir, path, flags | O_CLOEXEC, mode)).map(|fd| fd as i32)
}

/// Retries where a concurrent rename made the kernel unsure.
pub fn openat2(dir: i32, path: CStr, flags: u32, resolve: u64) -> Result<i32> {
    let how = [u64::from(flags | O_CLOEXEC), 0, resolve];
    let mut tries = 0;
    loop {
        match call!(OPENAT2, dir, path, how.as_ptr(), size_of_val(&how)) {
            Err(EAGAIN) if tries < 128 => tries += 1,
            Err(EINTR) => {}
            other => return other.map(|fd| fd as i32),
        }
    }
}

pub fn mkdirat(dir: i32, path: CStr, mode: u32) -> Result {
    call!(MKDIRAT, dir, path, mode)
}

pub fn mknodat(dir: i32, path: CStr, mode: u32, device: u64) -> Result {
    call!(MKNODAT, dir, path, mode, device)
}

pub fn chown(dir: i32, path: CStr, uid: u32, gid: u32) -> Result {
    call!(FCHOWNAT, dir, path, uid, gid, AT_SYMLINK_NOFOLLOW)
}

pub fn symlinkat(target: CStr, dir: i32, path: CStr) -> Result {
    call!(SYMLINKAT, target, dir, path)
}

pub fn readlinkat(dir: i32, path: CStr, buffer: &mut [u8]) -> Result {
    call!(READLINKAT, dir, path, buffer.as_mut_ptr(), buffer.len())
}

pub fn fchmod(fd: i32, mode: u32) -> Result {
    call!(FCHMOD, fd, mode)
}

/// `mount(2)`: the older interface, one call for a whole mount.
pub fn mount(source: CStr, target: CStr, kind: CStr, flags: u64, data: CStr) -> Result {
    call!(MOUNT, source, target, kind, flags, data)
}

pub fn fsopen(kind: CStr) -> Result<i32> {
    call!(FSOPEN, kind, 1).map(|fd| fd as i32)
}

/// An empty value sets a flag.
pub fn fsconfig(context: i32, key: CStr, value: &[u8]) -> Result {
    const SET_FLAG: usize = 0;
    const SET_STRING: usize = 1;
    if value.is_empty() {
        call!(FSCONFIG, context, SET_FLAG, key, 0, 0)
    } else {
        call!(FSCONFIG, context, SET_STRING, key, value.as_ptr(), 0)
    }
}

pub fn fsconfig_create(context: i32) -> Result {
    const CMD_CREATE: usize = 6;
    call!(FSCONFIG, context, CMD_CREATE, 0, 0, 0)
}

pub fn fsmount(context: i32, attributes: u64) -> Result<i32> {
    call!(FSMOUNT, context, 1, attributes).map(|fd| fd as i32)
}

/// Attaches the tree `from` on `to`.
pub fn attach(from: i32, to: i32) -> Result {
    const F_EMPTY_T_EMPTY: usize = 0x04 | 0x40;
    call!(MOVE_MOUNT, from, EMPTY, to, EMPTY, F_EMPTY_T_EMPTY)
}

/// Attaches the tree `from` at a path.
pub fn attach_at(from: i32, path: CStr) -> Result {
    const F_EMPTY: usize = 0x04;
    call!(MOVE_MOUNT, from, EMPTY, AT_FDCWD, path, F_EMPTY)
}

/// Which mount a path is on: `stx_mnt_id` of statx(2).
pub fn mount_id(dir: i32, path: CStr) -> Result<u64> {
    const STATX_MNT_ID: usize = 0x1000;
    const MNT_ID_WORD: usize = 18;
    let mut buffer = [0u64; 32];
    call!(STATX, dir, path, AT_EMPTY_PATH, STATX_MNT_ID, buffer.as_mut_ptr())?;
    Ok(buffer[MNT_ID_WORD])
}

pub fn open_tree(dir: i32, path: CStr, flags: u32) -> Result<i32> {
    call!(OPEN_TREE, dir, path, flags | OPEN_TREE_CLOEXEC).map(|fd| fd as i32)
}

/// `struct mount_attr`: set, clear, propagation, user namespace.
pub fn mount_setattr(dir: i32, path: CStr, flags: u32, set: u64, clear: u64, propagation: u64) -> Result {
    let attributes = [set, clear, propagation, 0];
    call!(MOUNT_SETATTR, dir, path, flags, attributes.as_ptr(), size_of_val(&attributes))
}

pub fn pivot_root_here() -> Result {
    call!(PIVOT_ROOT, c".".as_ptr(), c".".as_ptr())
}

pub fn umount(path: CStr, flags: u32) -> Result {
    call!(UMOUNT2, path, flags)
}

pub fn setsid() -> Result {
    call!(SETSID)
}

/// The session we are in.
pub fn getsid() -> Result<i32> {
    call!(GETSID, 0).map(|session| session as i32)
}

pub fn setpgid(group: i32) -> Result {
    call!(SETPGID, 0, group)
}

pub fn set_controlling_terminal(fd: i32) -> Result {
    const TIOCSCTTY: usize = 0x540E;
    call!(IOCTL, fd, TIOCSCTTY, 0)
}

pub fn drop_controlling_terminal(fd: i32) -> Result {
    const TIOCNOTTY: usize = 0x5422;
    call!(IOCTL, fd, TIOCNOTTY, 0)
}

pub fn set_foreground(fd: i32, group: i32) -> Result {
    const TIOCSPGRP: usize = 0x5410;
    call!(IOCTL, fd, TIOCSPGRP, &raw const group)
}

/// Lets the other end of a pseudo-terminal be opened.
pub fn unlock_terminal(master: i32) -> Result {
    const TIOCSPTLCK: usize = 0x4004_5431;
    let locked = 0i32;
    call!(IOCTL, master, TIOCSPTLCK, &raw const locked)
}

/// Opens the other end, by no path.
pub fn terminal_of(master: i32) -> Result<i32> {
    const TIOCGPTPEER: usize = 0x5441;
    const O_RDWR_NOCTTY_CLOEXEC: usize = 0o2000000 | 0o400 | 2;
    call!(IOCTL, master, TIOCGPTPEER, O_RDWR_NOCTTY_CLOEXEC).map(|fd| fd as i32)
}

/// `struct winsize`: lines, characters, and no size in dots.
pub fn set_window_size(fd: i32, rows: u16, cols: u16) -> Result {
    const TIOCSWINSZ: usize = 0x5414;
    let size = [rows, cols, 0, 0];
    call!(IOCTL, fd, TIOCSWINSZ, size.as_ptr())
}

pub fn fchown(fd: i32, uid: u32, gid: u32) -> Result {
    call!(FCHOWN, fd, uid, gid)
}

/// Who opens files, and whose they become.
pub fn setfsuid(uid: u32) {
    let _ = call!(SETFSUID, uid);
}

pub fn prlimit(resource: u64, soft: u64, hard: u64) -> Result {
    let limit = [soft, hard];
    call!(PRLIMIT64, 0, resource, limit.as_ptr(), 0)
}

/// Soft and hard limit.
pub fn get_limit(resource: u64) -> Result<[u64; 2]> {
    // No limit that anybody sets, for a call that does nothing.
    let mut limit = [u64::MAX - 0xff; 2];
    call!(PRLIMIT64, 0, resource, 0, limit.as_mut_ptr())?;
    Ok(limit)
}

pub fn set_nice(nice: i32) -> Result {
    const PRIO_PROCESS: usize = 0;
    call!(SETPRIORITY, PRIO_PROCESS, 0, nice)
}

pub fn sched_setattr<T>(attributes: &T) -> Result {
    call!(SCHED_SETATTR, 0, &raw const *attributes, 0)
}

/// The serial number of our session keyring.
pub fn session_keyring() -> Result {
    const KEYCTL_GET_KEYRING_ID: usize = 0;
    const KEY_SPEC_SESSION_KEYRING: i32 = -3;
    call!(KEYCTL, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
}

/// Its serial number.
pub fn new_session_keyring() -> Result {
    const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
    call!(KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, 0)
}

pub fn personality(persona: u32) -> Result {
    call!(PERSONALITY, persona)
}

pub fn setgroups(groups: &[u32]) -> Result {
    call!(SETGROUPS, groups.len(), groups.as_ptr())
}

pub fn group_count() -> Result {
    call!(GETGROUPS, 0, 0)
}

pub fn getgroups(groups: &mut [u32]) -> Result {
    call!(GETGROUPS, groups.len(), groups.as_mut_ptr())
}

/// Real, effective and saved.
pub fn group_ids() -> Result<[u32; 3]> {
    let mut ids = [0u32; 3];
    call!(GETRESGID, &raw mut ids[0], &raw mut ids[1], &raw mut ids[2])?;
    Ok(ids)
}

/// The same of the user.
pub fn user_ids() -> Result<[u32; 3]> {
    let mut ids = [0u32; 3];
    call!(GETRESUID, &raw mut ids[0], &raw mut ids[1], &raw mut ids[2])?;
    Ok(ids)
}

pub fn setgid(gid: u32) -> Result {
    call!(SETRESGID, gid, gid, gid)
}

pub fn setuid(uid: u32) -> Result {
    call!(SETRESUID, uid, uid, uid)
}

pub fn prctl(option: i32, a: usize, b: usize) -> Result {
    call!(PRCTL, option, a, b, 0, 0)
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Effective, permitted, inheritable.
pub fn capget() -> Result<[u64; 3]> {
    let header = [CAPABILITY_VERSION_3, 0];
    let mut data = [0u32; 6];
    call!(CAPGET, header.as_ptr(), data.as_mut_ptr())?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok([join(data[0], data[3]), join(data[1], data[4]), join(data[2], data[5])])
}

pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result {
    let header = [CAPABILITY_VERSION_3, 0];
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data = [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    call!(CAPSET, header.as_ptr(), data.as_ptr())
}

pub fn ptrace_me() -> Result {
    call!(PTRACE, 0, 0, 0, 0)
}

/// Lets a traced child go, with a signal for it.
pub fn ptrace_detach(pid: i32, signal: i32) -> Result {
    const PTRACE_DETACH: usize = 17;
    call!(PTRACE, PTRACE_DETACH, pid, 0, signal)
}

/// Installs a filter; with `SECCOMP_FILTER_FLAG_NEW_LISTENER` in `flags` the result is a descriptor.
pub fn seccomp(filter: &[u64], flags: u64) -> Result {
    #[repr(C)]
    struct Program(u16, *const u64);
    const SET_MODE_FILTER: usize = 1;
    let program = Program(filter.len() as u16, filter.as_ptr());
    call!(SECCOMP, SET_MODE_FILTER, flags, &raw const program)
}

/// A set of rules for the rights of `struct landlock_ruleset_attr`: of the file system, of the network, scopes. Kernels that
/// know less of them take it all the same where the rest is zero.
pub fn landlock_create_ruleset(handled: &[u64; 3]) -> Result<i32> {
    call!(LANDLOCK_CREATE_RULESET, handled.as_ptr(), size_of_val(handled), 0).map(|fd| fd as i32)
}

/// Lets something below a path pass.
pub fn landlock_add_path(set: i32, access: u64, place: i32) -> Result {
    #[repr(C, packed)]
    struct PathBeneath(u64, i32);
    const PATH_BENEATH: usize = 1;
    let rule = PathBeneath(access, place);
    call!(LANDLOCK_ADD_RULE, set, PATH_BENEATH, &raw const rule, 0)
}

/// Lets something with a port pass.
pub fn landlock_add_port(set: i32, access: u64, port: u64) -> Result {
    const NET_PORT: usize = 2;
    let rule = [access, port];
    call!(LANDLOCK_ADD_RULE, set, NET_PORT, rule.as_ptr(), 0)
}

pub fn landlock_restrict_self(set: i32, flags: u64) -> Result {
    call!(LANDLOCK_RESTRICT_SELF, set, flags)
}
