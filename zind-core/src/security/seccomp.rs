//! System call filters: rules as plain data, the BPF program compiled from them, and the default policy.
//!
//! The kernel runs each filter over every system call number when it is installed, to find the calls that are always
//! allowed (since Linux 5.11); from then on those cost nothing. So the cost of a filter is its length and its depth at
//! installation. Neighbouring numbers with the same rule are therefore one range, the ranges are found by binary
//! search, and arguments are loaded only for the few calls whose rule depends on them.
//!
//! Source: <https://docs.kernel.org/userspace-api/seccomp_filter.html>
#![cfg_attr(not(test), forbid(unsafe_code))]

mod filter;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod notify;
mod overlap;
#[cfg(test)]
mod overlap_tests;
mod profile;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::security::capabilities::CapSet;
use crate::security::syscalls::{Arch, X32_BIT};
pub use filter::{Compare, Condition};
pub(crate) use filter::{Compiled, Filter};
pub use notify::{Call, Notifier};
pub use profile::Profile;
pub(crate) use profile::{Listener, Mode, compiled, learning};
pub(crate) use watch::Watch;
pub use watch::{Violation, Violations};

/// One instruction of a BPF program: `struct sock_filter`.
///
/// Source: <https://docs.kernel.org/networking/filter.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do: class, size and mode, or class, operation and source.
    pub code: u16,
    /// How many instructions to skip when a condition holds.
    pub jt: u8,
    /// How many instructions to skip when it does not.
    pub jf: u8,
    /// The operand: an offset, a value to compare with, a distance, or what to return.
    pub k: u32,
}

impl Instruction {
    /// The eight bytes of the instruction as one number, in the byte order of the machine's memory (little-endian).
    pub const fn to_bits(self) -> u64 {
        self.code as u64 | (self.jt as u64) << 16 | (self.jf as u64) << 24 | (self.k as u64) << 32
    }
}

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// It is run.
    Allow,
    /// It is not run and fails with this errno. The kernel knows none above 4095.
    Errno(u16),
    /// The whole process dies of `SIGSYS`.
    KillProcess,
    /// The thread dies of `SIGSYS`, and the others go on.
    KillThread,
    /// It is not run, and the thread gets the signal `SIGSYS`, which it may handle.
    Trap,
    /// A tracer decides, and gets this number; it fails with `ENOSYS` where there is none.
    Trace(u16),
    /// It is run, and the kernel logs it.
    Log,
    /// Whoever has the listener decides; it fails with `ENOSYS` where there is nobody.
    Notify,
}

impl Action {
    const EPERM: Action = Action::Errno(libc::EPERM as u16);
    const ENOSYS: Action = Action::Errno(libc::ENOSYS as u16);
    const EAFNOSUPPORT: Action = Action::Errno(libc::EAFNOSUPPORT as u16);

    /// `SECCOMP_RET_*`: what the program returns.
    const fn code(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::Trace(number) => libc::SECCOMP_RET_TRACE | number as u32,
            Action::Log => libc::SECCOMP_RET_LOG,
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
        }
    }
}

/// How the action for one system call is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Always the same.
    Do(Action),
    /// By one argument, of which only the low 32 bits count: `match arguments[argument] as u32 & mask { arms, _ }`.
    ///
    /// That is right for arguments that the kernel takes as 32-bit numbers, which is what ids, flags and requests are;
    /// comparing all 64 bits would let a caller pass by a ban with rubbish in the upper half. Pointers cannot be
    /// judged by a filter at all.
    Match {
        /// The index of the argument, 0 to 5.
        argument: u8,
        /// The bits that count.
        mask: u32,
        /// Values and their rules; the first that is equal counts.
        arms: Vec<(u32, Rule)>,
        /// For all other values.
        otherwise: Box<Rule>,
    },
    /// The first action whose conditions all hold, else the last one. All 64 bits of the arguments count.
    First(Vec<(Vec<Condition>, Action)>, Action),
}

impl Rule {
    const ALLOW: Rule = Rule::Do(Action::Allow);
    const EPERM: Rule = Rule::Do(Action::EPERM);
    const EAFNOSUPPORT: Rule = Rule::Do(Action::EAFNOSUPPORT);

    /// What becomes of a call with these arguments, without a program.
    pub fn action(&self, arguments: &[u64; 6]) -> Action {
        let argument = |index: u8| arguments.get(usize::from(index)).copied().unwrap_or(0);
        match self {
            Rule::Do(action) => *action,
            Rule::Match { argument: index, mask, arms, otherwise } => {
                let value = argument(*index) as u32 & mask;
                let arm = arms.iter().find(|(candidate, _)| *candidate == value).map(|(_, rule)| rule);
                arm.unwrap_or(otherwise).action(arguments)
            }
            Rule::First(choices, otherwise) => {
                let holds = |conditions: &[Condition]| conditions.iter().all(|one| one.holds(argument(one.argument)));
                choices.iter().find(|(conditions, _)| holds(conditions)).map_or(*otherwise, |(_, action)| *action)
            }
        }
    }

    /// The same rule with other actions.
    fn map(&self, change: &dyn Fn(Action) -> Action) -> Rule {
        match self {
            Rule::Do(action) => Rule::Do(change(*action)),
            Rule::Match { argument, mask, arms, otherwise } => Rule::Match {
                argument: *argument,
                mask: *mask,
                arms: arms.iter().map(|(value, rule)| (*value, rule.map(change))).collect(),
                otherwise: Box::new(otherwise.map(change)),
            },
            Rule::First(choices, otherwise) => {
                let changed = choices.iter().map(|(conditions, action)| (conditions.clone(), change(*action)));
                Rule::First(changed.collect(), change(*otherwise))
            }
        }
    }

    /// True if it may come to this action.
    fn has(&self, wanted: Action) -> bool {
        match self {
            Rule::Do(action) => *action == wanted,
            Rule::Match { arms, otherwise, .. } => {
                otherwise.has(wanted) || arms.iter().any(|(_, rule)| rule.has(wanted))
            }
            Rule::First(choices, otherwise) => {
                *otherwise == wanted || choices.iter().any(|(_, action)| *action == wanted)
            }
        }
    }

    /// `then` where a masked argument is one of `values`, else `otherwise`.
    fn one_of(argument: u8, mask: u32, values: &[u32], then: Rule, otherwise: Rule) -> Rule {
        let arms = values.iter().map(|value| (*value, then.clone())).collect();
        Rule::Match { argument, mask, arms, otherwise: Box::new(otherwise) }
    }
}

/// The rules of one convention: one per system call number, and an action for all other numbers.
///
/// Calls by another convention (on x86_64 i386, and the x32 numbers from 0x4000_0000 on) kill the process whatever the rules
/// say: their numbers and arguments mean other things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: BTreeMap<u32, Rule>,
    otherwise: Action,
}

impl Policy {
    /// A policy without rules: `otherwise` for every call.
    pub const fn new(otherwise: Action) -> Policy {
        Policy { rules: BTreeMap::new(), otherwise }
    }

    /// Sets the rule of one number; the last one given counts. Numbers of x32 are killed all the same.
    pub fn set(&mut self, number: u32, rule: Rule) {
        self.rules.insert(number, rule);
    }

    /// The rule of one number. `None` where the policy has none.
    pub fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(&number)
    }

    /// The default policy for a container that may hold `allowed` capabilities at most.
    ///
    /// It is an allow list, a little shorter than Docker's. Calls that are known to be dangerous fail with `EPERM`
    /// unless `allowed` has the capability that the kernel asks for anyway; a few (io_uring, key rings, user fault
    /// handling, kexec, swap) always fail. Numbers that are unknown or too new fail with `ENOSYS`, and so does
    /// `clone3`, whose flags no filter can see: the C libraries then do without them. Judged by argument are `clone`
    /// and `unshare` (no new namespaces), `socket` and `socketpair` (which address families), `personality` and
    /// `ioctl` (no typing into the terminal).
    ///
    /// Source: <https://docs.docker.com/engine/security/seccomp/>
    pub fn standard(allowed: CapSet) -> Policy {
        Policy::standard_of(Arch::NATIVE, allowed)
    }

    /// The same for another architecture.
    pub fn standard_of(arch: Arch, allowed: CapSet) -> Policy {
        let mut policy = Policy::new(Action::ENOSYS);
        let mut set = |name: &str, rule: Rule| {
            // A name that the table does not have stays without a rule, and so with the action for unknown calls.
            if let Some(number) = arch.number(name) {
                policy.set(number, rule);
            }
        };
        for name in ALLOWED {
            set(name, Rule::ALLOW);
        }
        for (capabilities, action, names) in RESTRICTED {
            let action = if allowed.intersects(*capabilities) { Action::Allow } else { *action };
            for name in *names {
                set(name, Rule::Do(action));
            }
        }
        for (name, rule) in BY_ARGUMENT {
            set(name, rule(allowed));
        }
        policy
    }

    /// The BPF program for these rules, of the machine's own convention.
    ///
    /// The kernel takes programs of up to 4096 instructions (`BPF_MAXINSNS`), which is far more than the default
    /// policy needs, and `EINVAL` at [`Step::Seccomp`](crate::error::Step::Seccomp) is its answer to longer ones.
    pub fn compile(&self) -> Vec<Instruction> {
        assemble(&[(Arch::NATIVE, self)])
    }
}

/// The program for the rules of some conventions; calls by any other one kill the process.
fn assemble(parts: &[(Arch, &Policy)]) -> Vec<Instruction> {
    let mut assembler = Assembler::default();
    let kill = assembler.action(Action::KillProcess);
    let x32 = parts.iter().find(|(arch, _)| *arch == Arch::X32).map(|(_, policy)| *policy);
    let mut entries = Vec::new();
    for (arch, policy) in parts.iter().filter(|(arch, _)| *arch != Arch::X32) {
        let otherwise = assembler.action(policy.otherwise);
        let mut ranges = vec![Range { first: 0, target: otherwise }];
        if *arch == Arch::X86_64 {
            add_ranges(&mut assembler, &mut ranges, policy, 0..X32_BIT);
            match x32 {
                Some(policy) => add_ranges(&mut assembler, &mut ranges, policy, X32_BIT..u32::MAX),
                None => push_range(&mut ranges, X32_BIT, kill),
            }
            // -1 is no call of x32: it is how a tracer has a call skipped.
            push_range(&mut ranges, u32::MAX, otherwise);
        } else {
            add_ranges(&mut assembler, &mut ranges, policy, 0..u32::MAX);
        }
        let search = assembler.search(&ranges);
        assembler.load(OFFSET_NUMBER, search);
        entries.push((arch.audit(), assembler.here()));
    }
    let mut next = kill;
    for (audit, entry) in entries.into_iter().rev() {
        next = assembler.jump(libc::BPF_JEQ, audit, entry, next);
    }
    assembler.load(OFFSET_ARCH, next);
    assembler.finish()
}

/// The rules of these numbers; what has none of them gets the action for all others.
fn add_ranges(assembler: &mut Assembler, ranges: &mut Vec<Range>, policy: &Policy, numbers: std::ops::Range<u32>) {
    let otherwise = assembler.action(policy.otherwise);
    let mut next = numbers.start;
    for (&number, rule) in policy.rules.range(numbers) {
        if number != next {
            push_range(ranges, next, otherwise);
        }
        push_range(ranges, number, assembler.rule(rule));
        next = number + 1;
    }
    push_range(ranges, next, otherwise);
}

/// The compiled [default policy](Policy::standard) for a container that may hold `allowed` capabilities at most.
///
/// It is compiled at the first call only, and once for all sets that make no difference to it.
pub fn default_filter(allowed: CapSet) -> Arc<[Instruction]> {
    static UNPRIVILEGED: OnceLock<Arc<[Instruction]>> = OnceLock::new();
    static OTHERS: Mutex<BTreeMap<CapSet, Arc<[Instruction]>>> = Mutex::new(BTreeMap::new());
    let relevant = allowed & relevant_capabilities();
    let compile = || Policy::standard(relevant).compile().into();
    if relevant.is_empty() {
        return UNPRIVILEGED.get_or_init(compile).clone();
    }
    OTHERS.lock().unwrap_or_else(PoisonError::into_inner).entry(relevant).or_insert_with(compile).clone()
}

/// The capabilities that make a difference to the default policy.
fn relevant_capabilities() -> CapSet {
    RESTRICTED.iter().fold(BY_ARGUMENT_CAPABILITIES, |all, (capabilities, ..)| all | *capabilities)
}

/// Every flag that asks for a new namespace, for `clone(2)`, all of whose 32 bits have a meaning.
const CLONE_NEW_ANY: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWTIME) as u32;

/// What `unshare(2)` may be asked for: nothing but what threads share. An allow list, since the kernel still gives new
/// meanings to its bits.
const UNSHARE_HARMLESS: u32 = (libc::CLONE_FILES
    | libc::CLONE_FS
    | libc::CLONE_SYSVSEM
    | libc::CLONE_VM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD) as u32;

/// Linux, without and with the version number 2.6; Linux with 32-bit `uname(2)`, without and with it; without address
/// space randomization (debuggers); and the question which one is set.
const PERSONALITIES: [u32; 6] = [0, 0x20000, 0x8, 0x20008, libc::ADDR_NO_RANDOMIZE as u32, u32::MAX];

/// `SOCK_TYPE_MASK`: the bits of a socket's type that are no flags.
const SOCK_TYPE_MASK: u32 = 0xf;

/// Makes the rule of one call from the capabilities allowed.
type MakeRule = fn(CapSet) -> Rule;

/// The calls whose rule depends on an argument.
const BY_ARGUMENT: &[(&str, MakeRule)] = &[
    ("clone", |allowed| flags_but(CLONE_NEW_ANY, allowed)),
    ("unshare", |allowed| flags_but(!UNSHARE_HARMLESS, allowed)),
    ("personality", |_| Rule::one_of(0, u32::MAX, &PERSONALITIES, Rule::ALLOW, Rule::EPERM)),
    ("ioctl", |_| {
        let typing = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];
        Rule::one_of(1, u32::MAX, &typing, Rule::EPERM, Rule::ALLOW)
    }),
    ("socket", socket),
    // The kernel makes both sockets before it finds that a family has no pairs, so the family counts here too.
    ("socketpair", |_| Rule::one_of(0, u32::MAX, &[libc::AF_UNIX as u32], Rule::ALLOW, Rule::EAFNOSUPPORT)),
];

/// What [`BY_ARGUMENT`] asks about.
const BY_ARGUMENT_CAPABILITIES: CapSet = CapSet::SYS_ADMIN.union(CapSet::NET_ADMIN).union(CapSet::NET_RAW);

/// Any flags in the first argument but `forbidden` ones, for which it takes `CAP_SYS_ADMIN`.
fn flags_but(forbidden: u32, allowed: CapSet) -> Rule {
    if allowed.intersects(CapSet::SYS_ADMIN) {
        return Rule::ALLOW;
    }
    Rule::one_of(0, forbidden, &[0], Rule::ALLOW, Rule::EPERM)
}

/// Local sockets, IP, and of netlink only the routes (with `CAP_NET_ADMIN`, all of it). Raw IP and packet sockets need
/// `CAP_NET_RAW`. Every other family is a large and little used part of the kernel, loaded on demand.
fn socket(allowed: CapSet) -> Rule {
    let raw = allowed.intersects(CapSet::NET_RAW);
    let ip = if raw {
        Rule::ALLOW
    } else {
        // `EPERM` is what the kernel says to raw sockets without the capability, and what ping(8) understands.
        let types = [libc::SOCK_STREAM as u32, libc::SOCK_DGRAM as u32, libc::SOCK_SEQPACKET as u32];
        Rule::one_of(1, SOCK_TYPE_MASK, &types, Rule::ALLOW, Rule::EPERM)
    };
    let netlink = if allowed.intersects(CapSet::NET_ADMIN | CapSet::SYS_ADMIN) {
        Rule::ALLOW
    } else {
        Rule::one_of(2, u32::MAX, &[libc::NETLINK_ROUTE as u32], Rule::ALLOW, Rule::EAFNOSUPPORT)
    };
    let mut arms = vec![
        (libc::AF_UNIX as u32, Rule::ALLOW),
        (libc::AF_INET as u32, ip.clone()),
        (libc::AF_INET6 as u32, ip),
        (libc::AF_NETLINK as u32, netlink),
    ];
    if raw {
        arms.push((libc::AF_PACKET as u32, Rule::ALLOW));
    }
    Rule::Match { argument: 0, mask: u32::MAX, arms, otherwise: Box::new(Rule::EAFNOSUPPORT) }
}

/// The calls that one of these capabilities allows, and what becomes of them without it.
const RESTRICTED: &[(CapSet, Action, &[&str])] = &[
    (
        CapSet::SYS_ADMIN,
        Action::EPERM,
        &[
            "fanotify_init",
            "fanotify_mark",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "umount2",
        ],
    ),
    (CapSet::SYS_ADMIN.union(CapSet::BPF), Action::EPERM, &["bpf"]),
    (CapSet::SYS_ADMIN.union(CapSet::PERFMON), Action::EPERM, &["perf_event_open"]),
    (CapSet::SYS_ADMIN.union(CapSet::SYSLOG), Action::EPERM, &["syslog"]),
    (CapSet::DAC_READ_SEARCH, Action::EPERM, &["name_to_handle_at", "open_by_handle_at"]),
    (CapSet::SYS_BOOT, Action::EPERM, &["reboot"]),
    (CapSet::SYS_CHROOT, Action::EPERM, &["chroot"]),
    (CapSet::SYS_MODULE, Action::EPERM, &["delete_module", "finit_module", "init_module"]),
    (
        CapSet::SYS_NICE,
        Action::EPERM,
        &["get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"],
    ),
    (CapSet::SYS_PACCT, Action::EPERM, &["acct"]),
    (
        CapSet::SYS_PTRACE,
        Action::EPERM,
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    (CapSet::SYS_RAWIO, Action::EPERM, &["ioperm", "iopl"]),
    (CapSet::SYS_TIME, Action::EPERM, &["adjtimex", "clock_adjtime", "clock_settime", "settimeofday"]),
    (CapSet::SYS_TTY_CONFIG, Action::EPERM, &["vhangup"]),
    // Programs have another way, which they take at `ENOSYS` only.
    (CapSet::SYS_ADMIN, Action::ENOSYS, &["clone3", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr"]),
    // Too new to be judged.
    (CapSet::EMPTY, Action::ENOSYS, &["file_getattr", "file_setattr", "listns", "rseq_slice_yield"]),
    // No capability is enough: they are about the whole machine, or have been the source of too many holes.
    (
        CapSet::EMPTY,
        Action::EPERM,
        &[
            "add_key",
            "io_uring_enter",
            "io_uring_register",
            "io_uring_setup",
            "kexec_file_load",
            "kexec_load",
            "keyctl",
            "memfd_secret",
            "request_key",
            "swapoff",
            "swapon",
            "userfaultfd",
            "vmsplice",
        ],
    ),
    // Gone from the kernel, or never in it.
    (
        CapSet::EMPTY,
        Action::EPERM,
        &[
            "_sysctl",
            "afs_syscall",
            "create_module",
            "get_kernel_syms",
            "getpmsg",
            "nfsservctl",
            "putpmsg",
            "query_module",
            "security",
            "sysfs",
            "tuxcall",
            "uselib",
            "ustat",
            "vserver",
        ],
    ),
];

/// The calls that every container may make: what ordinary programs need, and what changes nothing but themselves.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "accept", "accept4", "access", "alarm", "arch_prctl", "bind", "brk", "cachestat", "capget", "capset", "chdir",
    "chmod", "chown", "clock_getres", "clock_gettime", "clock_nanosleep", "close", "close_range", "connect",
    "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old",
    "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit",
    "exit_group", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2",
    "fchown", "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr",
    "fstat", "fstatfs", "fsync", "ftruncate", "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake",
    "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64", "getegid",
    "geteuid", "getgid", "getgroups", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid",
    "getpriority", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage", "getsid", "getsockname",
    "getsockopt", "gettid", "gettimeofday", "getuid", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init",
    "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup",
    "io_submit", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lchown", "lgetxattr", "link", "linkat", "listen", "listmount", "listxattr",
    "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "madvise", "map_shadow_stack",
    "membarrier", "memfd_create", "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall",
    "mmap", "modify_ldt", "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend",
    "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap",
    "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2",
    "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "prctl", "pread64", "preadv", "preadv2", "prlimit64",
    "process_mrelease", "pselect6", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink",
    "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmsg", "remap_file_pages", "removexattr", "removexattrat",
    "rename", "renameat", "renameat2", "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending",
    "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop", "sendfile",
    "sendmmsg", "sendmsg", "sendto", "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsuid",
    "setgid", "setgroups", "setitimer", "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid",
    "setrlimit", "setsid", "setsockopt", "setuid", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget",
    "shutdown", "sigaltstack", "signalfd", "signalfd4", "splice", "stat", "statfs", "statmount", "statx", "symlink",
    "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
    "timerfd_settime", "times", "tkill", "truncate", "umask", "uname", "unlink", "unlinkat", "uprobe", "uretprobe",
    "utime", "utimensat", "utimes", "vfork", "wait4", "waitid", "write", "writev",
];

// Offsets into `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// From `first` to the next range's first number, go to `target`.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u32,
    target: Target,
}

fn push_range(ranges: &mut Vec<Range>, first: u32, target: Target) {
    match ranges.last_mut() {
        Some(last) if last.target == target => {}
        Some(last) if last.first == first => last.target = target,
        _ => ranges.push(Range { first, target }),
    }
}

/// An instruction, by its distance from the end of the program.
type Target = usize;

/// Writes a program from its end to its beginning: jumps only go forward, so every target exists before the jump.
#[derive(Default)]
struct Assembler {
    /// The last instruction first.
    reversed: Vec<Instruction>,
    /// Where the code of a rule begins, so that equal rules share it.
    rules: Vec<(Rule, Target)>,
}

impl Assembler {
    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) -> Target {
        self.reversed.push(Instruction { code: code as u16, jt, jf, k });
        self.here()
    }

    /// The instruction written last, which is the first one of the program so far.
    fn here(&self) -> Target {
        self.reversed.len() - 1
    }

    /// How many instructions the next one has to skip to reach `target`.
    fn distance(&self, target: Target) -> usize {
        self.reversed.len() - 1 - target
    }

    fn action(&mut self, action: Action) -> Target {
        self.rule(&Rule::Do(action))
    }

    fn rule(&mut self, rule: &Rule) -> Target {
        if let Some((_, target)) = self.rules.iter().find(|(known, _)| known == rule) {
            return *target;
        }
        let target = match rule {
            Rule::Do(action) => self.push(libc::BPF_RET | libc::BPF_K, 0, 0, action.code()),
            Rule::Match { argument, mask, arms, otherwise } => self.argument(*argument, *mask, arms, otherwise),
            Rule::First(choices, otherwise) => {
                let mut next = self.action(*otherwise);
                for (conditions, action) in choices.iter().rev() {
                    let mut then = self.action(*action);
                    for condition in conditions.iter().rev() {
                        then = self.condition(condition, then, next);
                    }
                    next = then;
                }
                next
            }
        };
        self.rules.push((rule.clone(), target));
        target
    }

    fn argument(&mut self, argument: u8, mask: u32, arms: &[(u32, Rule)], otherwise: &Rule) -> Target {
        let mut next = self.rule(otherwise);
        let targets: Vec<Target> = arms.iter().map(|(_, rule)| self.rule(rule)).collect();
        if let ([(0, _)], [zero]) = (arms, &targets[..]) {
            next = self.jump(libc::BPF_JSET, mask, next, *zero);
        } else {
            for ((value, _), target) in arms.iter().zip(targets).rev() {
                next = self.jump(libc::BPF_JEQ, *value, target, next);
            }
            next = self.masked(mask, next);
        }
        self.load(OFFSET_ARGUMENTS + 8 * u32::from(argument), next)
    }

    /// Compares all 64 bits of an argument, in halves: the upper ones first.
    fn condition(&mut self, condition: &Condition, then: Target, otherwise: Target) -> Target {
        let Condition { argument, compare, value, mask } = *condition;
        let half = |number: u64, shift: u32| (number >> shift) as u32;
        let place = OFFSET_ARGUMENTS + 8 * u32::from(argument);
        let (comparison, when_true, when_false) = match compare {
            Compare::Equal => (libc::BPF_JEQ, then, otherwise),
            Compare::NotEqual => (libc::BPF_JEQ, otherwise, then),
            Compare::Greater => (libc::BPF_JGT, then, otherwise),
            Compare::LessOrEqual => (libc::BPF_JGT, otherwise, then),
            Compare::GreaterOrEqual => (libc::BPF_JGE, then, otherwise),
            Compare::Less => (libc::BPF_JGE, otherwise, then),
        };
        let lower = self.jump(comparison, half(value, 0), when_true, when_false);
        let lower = self.masked(half(mask, 0), lower);
        let lower = self.load(place, lower);
        // What is above needs no look at the lower half.
        let mut next = self.jump(libc::BPF_JEQ, half(value, 32), lower, when_false);
        if comparison != libc::BPF_JEQ {
            next = self.jump(libc::BPF_JGT, half(value, 32), when_true, next);
        }
        let next = self.masked(half(mask, 32), next);
        self.load(place + 4, next)
    }

    /// Takes away what does not count of the accumulator, and goes on at `next`.
    fn masked(&mut self, mask: u32, next: Target) -> Target {
        if mask == u32::MAX {
            return next;
        }
        self.fall_through(next);
        self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask)
    }

    /// Finds the range of the number in the accumulator.
    fn search(&mut self, ranges: &[Range]) -> Target {
        match ranges {
            [only] => only.target,
            // One number that differs from its neighbours.
            [before, one, after] if before.target == after.target && after.first == one.first + 1 => {
                self.jump(libc::BPF_JEQ, one.first, one.target, before.target)
            }
            _ => {
                let (lower, upper) = ranges.split_at(ranges.len() / 2);
                let border = upper[0].first;
                let upper = self.search(upper);
                let lower = self.search(lower);
                self.jump(libc::BPF_JGE, border, upper, lower)
            }
        }
    }

    /// Compares the accumulator with `k`.
    fn jump(&mut self, comparison: u32, k: u32, when_true: Target, when_false: Target) -> Target {
        // Room for one more instruction, which reaching the other target may put in between.
        let when_true = self.within_reach(when_true, 1);
        let when_false = self.within_reach(when_false, 0);
        let (jt, jf) = (self.distance(when_true) as u8, self.distance(when_false) as u8);
        self.push(libc::BPF_JMP | comparison | libc::BPF_K, jt, jf, k)
    }

    /// A place from which `target` goes on, near enough for the eight bits of a conditional jump.
    fn within_reach(&mut self, target: Target, room: usize) -> Target {
        match self.distance(target) + room {
            0..=255 => target,
            _ => self.jump_always(target),
        }
    }

    fn jump_always(&mut self, target: Target) -> Target {
        let distance = self.distance(target) as u32;
        self.push(libc::BPF_JMP | libc::BPF_JA, 0, 0, distance)
    }

    /// Loads a word of `struct seccomp_data` and goes on at `next`.
    fn load(&mut self, offset: u32, next: Target) -> Target {
        self.fall_through(next);
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
    }

    /// Makes `target` come next.
    fn fall_through(&mut self, target: Target) {
        if self.distance(target) != 0 {
            self.jump_always(target);
        }
    }

    fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::process::Command;

    use super::*;
    use crate::security::syscalls;

    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;
    const EAFNOSUPPORT: u32 = 0x0005_0061;

    /// `struct seccomp_data`, and whether an argument of it was looked at.
    pub(super) struct Call {
        pub(super) number: u32,
        pub(super) arch: u32,
        pub(super) arguments: [u64; 6],
        pub(super) judged: bool,
    }

    impl Call {
        pub(super) fn new(number: u32, arguments: &[u64]) -> Call {
            let mut all = [0; 6];
            all[..arguments.len()].copy_from_slice(arguments);
            Call { number, arch: Arch::X86_64.audit(), arguments: all, judged: false }
        }

        fn word(&mut self, offset: u32) -> u32 {
            self.judged |= offset >= 16;
            match offset {
                0 => self.number,
                4 => self.arch,
                16..64 => (self.arguments[(offset as usize - 16) / 8] >> (offset % 8 * 8)) as u32,
                _ => panic!("load of the instruction pointer or beyond: {offset}"),
            }
        }
    }

    /// Runs a program as the kernel does; like the kernel's check it knows only what a seccomp filter may use.
    pub(super) fn run(program: &[Instruction], call: &mut Call) -> u32 {
        let (mut at, mut a) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let branch = |holds| usize::from(if holds { jt } else { jf });
            match code {
                0x20 => a = call.word(k),
                0x54 => a &= k,
                0x05 => at += k as usize,
                0x15 => at += branch(a == k),
                0x25 => at += branch(a > k),
                0x35 => at += branch(a >= k),
                0x45 => at += branch(a & k != 0),
                0x06 => return k,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn answer(program: &[Instruction], number: u32, arguments: &[u64]) -> u32 {
        run(program, &mut Call::new(number, arguments))
    }

    fn answer_by_name(program: &[Instruction], name: &str, arguments: &[u64]) -> u32 {
        answer(program, syscalls::number(name).unwrap(), arguments)
    }

    /// What the rules say, without a compiler.
    fn expected(rule: &Rule, arguments: &[u64; 6]) -> u32 {
        match rule {
            Rule::Do(action) => action.code(),
            Rule::Match { argument, mask, arms, otherwise } => {
                let value = arguments[usize::from(*argument)] as u32 & mask;
                let arm = arms.iter().find(|(candidate, _)| *candidate == value).map(|(_, rule)| rule);
                expected(arm.unwrap_or(otherwise), arguments)
            }
            Rule::First(..) => panic!("tested by profiles"),
        }
    }

    /// Sets that give each relevant capability alone, all together, and the usual ones.
    fn interesting_sets() -> Vec<CapSet> {
        let single = (0..64).map(|bit| CapSet(1 << bit)).filter(|set| relevant_capabilities().contains(*set));
        single.chain([CapSet::EMPTY, CapSet::docker(), CapSet::podman(), CapSet(u64::MAX)]).collect()
    }

    /// The checks of `bpf_check_classic()` and `seccomp_check_filter()`.
    pub(super) fn assert_valid(program: &[Instruction]) {
        assert!((1..=4096).contains(&program.len()));
        assert_eq!(program.last().unwrap().code, 0x06);
        for (at, instruction) in program.iter().enumerate() {
            let left = program.len() - at - 1;
            match instruction.code {
                0x05 => assert!((instruction.k as usize) < left),
                0x15 | 0x25 | 0x35 | 0x45 => {
                    assert!(usize::from(instruction.jt) < left && usize::from(instruction.jf) < left);
                }
                0x20 => assert!(instruction.k < 64 && instruction.k % 4 == 0),
                0x06 | 0x54 => assert_eq!((instruction.jt, instruction.jf), (0, 0)),
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn every_known_call_is_in_exactly_one_list() {
        let restricted = RESTRICTED.iter().flat_map(|(_, _, names)| names.iter().copied());
        let by_argument = BY_ARGUMENT.iter().map(|(name, _)| *name);
        let mut listed: Vec<&str> = ALLOWED.iter().copied().chain(restricted).chain(by_argument).collect();
        let mut known: Vec<&str> = (0..=syscalls::LAST).filter_map(syscalls::name).collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }

    #[test]
    fn program_does_what_the_rules_say_for_every_number() {
        let arguments = [[0; 6], [1; 6], [2, 3, 0, 0, 0, 0], [16, 3, 9, 0, 0, 0], [u64::MAX; 6], [0x5412; 6]];
        for allowed in interesting_sets() {
            let policy = Policy::standard(allowed);
            let program = policy.compile();
            assert_valid(&program);
            for number in (0..=600).chain([X32_BIT - 1, u32::MAX]) {
                let rule = policy.rule(number).cloned().unwrap_or(Rule::Do(Action::ENOSYS));
                for arguments in &arguments {
                    let mut call = Call::new(number, arguments);
                    assert_eq!(run(&program, &mut call), expected(&rule, arguments), "{number} with {allowed}");
                    // Else the kernel could not remember that the call is always allowed.
                    assert_eq!(call.judged, matches!(rule, Rule::Match { .. }), "{number} with {allowed}");
                }
            }
        }
    }

    /// Written down by number, apart from the lists of names.
    #[test]
    fn default_policy_is_the_one_written_down() {
        let denied = "101 103 134 136 139 153 155 156 159 161 163-185 212 227 236-239 246 248-250 256 278 279 298 300 301 \
            303-305 308 310-313 320 321 323 425-433 438 440 442 443 447 450 467";
        let missing = "337-423 435 459-461 468-600";
        let judged = [16, 41, 53, 56, 135, 272];
        let has = |list: &str, number: u32| {
            list.split_whitespace().any(|item| {
                let (first, last) = item.split_once('-').unwrap_or((item, item));
                (first.parse().unwrap()..=last.parse().unwrap()).contains(&number)
            })
        };
        let program = default_filter(CapSet::EMPTY);
        for number in (0..=600).filter(|number| !judged.contains(number)) {
            let expected = match number {
                _ if has(denied, number) => EPERM,
                _ if has(missing, number) => ENOSYS,
                _ => ALLOW,
            };
            assert_eq!(answer(&program, number, &[]), expected, "{number} {:?}", syscalls::name(number));
        }
    }

    /// The rules are the same by name on each architecture; numbers of its own that x86_64 does not have stay closed.
    #[test]
    fn other_architectures_have_the_same_default() {
        for allowed in interesting_sets() {
            let here = Policy::standard_of(Arch::X86_64, allowed);
            let there = Policy::standard_of(Arch::Aarch64, allowed);
            for (number, rule) in &there.rules {
                let name = Arch::Aarch64.name(*number).unwrap();
                assert_eq!(here.rule(syscalls::number(name).unwrap()), Some(rule), "{name}");
            }
            assert!(there.rules.len() > 300, "{}", there.rules.len());
            let program = assemble(&[(Arch::Aarch64, &there)]);
            assert_valid(&program);
            for number in (0..600).chain([X32_BIT, u32::MAX]) {
                let mut call = Call { arch: Arch::Aarch64.audit(), ..Call::new(number, &[7; 6]) };
                let rule = there.rule(number).cloned().unwrap_or(Rule::Do(Action::ENOSYS));
                assert_eq!(run(&program, &mut call), rule.action(&[7; 6]).code(), "{number}");
                for arch in [Arch::X86_64, Arch::Arm] {
                    let mut call = Call { arch: arch.audit(), ..Call::new(number, &[]) };
                    assert_eq!(run(&program, &mut call), KILL);
                }
            }
        }
    }

    #[test]
    fn other_conventions_are_killed() {
        for allowed in interesting_sets() {
            let program = default_filter(allowed);
            for arch in [0x4000_0003, 0xc000_00b7, 0, u32::MAX] {
                for number in [0, 1, 11, 102, 120, 999] {
                    assert_eq!(run(&program, &mut Call { arch, ..Call::new(number, &[]) }), KILL);
                }
            }
            for number in (X32_BIT..X32_BIT + 600).chain([0x7fff_ffff, 0x8000_0000, 0xc000_0000, u32::MAX - 1]) {
                assert_eq!(answer(&program, number, &[]), KILL, "{number:#x}");
            }
            assert_eq!(answer(&program, u32::MAX, &[]), ENOSYS);
            assert_eq!(answer(&program, X32_BIT - 1, &[]), ENOSYS);
        }
    }

    #[test]
    fn new_namespaces_need_sys_admin() {
        let program = default_filter(CapSet(!CapSet::SYS_ADMIN.0));
        for bit in 0..32 {
            let flag = 1u64 << bit;
            let new = flag & 0x7e02_0080 != 0;
            for rubbish in [0, 0xffff_ffff_0000_0000] {
                let clone = answer_by_name(&program, "clone", &[flag | rubbish]);
                assert_eq!(clone, if new { EPERM } else { ALLOW }, "{flag:#x}");
                let unshare = answer_by_name(&program, "unshare", &[flag | rubbish]);
                assert_eq!(unshare, if flag & 0x0005_0f00 != 0 { ALLOW } else { EPERM }, "{flag:#x}");
            }
        }
        // fork(3) and pthread_create(3).
        assert_eq!(answer_by_name(&program, "clone", &[0x0120_0011]), ALLOW);
        assert_eq!(answer_by_name(&program, "clone", &[0x003d_0f00]), ALLOW);
        assert_eq!(answer_by_name(&program, "clone3", &[]), ENOSYS);
        assert_eq!(answer_by_name(&program, "setns", &[3, 0]), EPERM);
        let program = default_filter(CapSet::SYS_ADMIN);
        for name in
            ["clone", "unshare", "clone3", "setns", "mount", "umount2", "pivot_root", "fsopen", "open_tree_attr"]
        {
            assert_eq!(answer_by_name(&program, name, &[0x1000_0000]), ALLOW, "{name}");
        }
        for name in ["chroot", "init_module", "reboot", "keyctl", "io_uring_setup", "kexec_load", "swapon"] {
            assert_eq!(answer_by_name(&program, name, &[]), EPERM, "{name}");
        }
    }

    #[test]
    fn sockets_are_local_ip_and_routes() {
        let socket = |allowed, family, kind, protocol| {
            answer_by_name(&default_filter(allowed), "socket", &[family, kind, protocol])
        };
        const FLAGS: u64 = 0x80800;
        const RUBBISH: u64 = 0xdead_beef_0000_0000;
        for kind in [1, 2, 5, FLAGS | 1, RUBBISH | 2] {
            for family in [1, 2, 10, RUBBISH | 2] {
                assert_eq!(socket(CapSet::EMPTY, family, kind, 0), ALLOW);
            }
        }
        for kind in [0, 3, 4, 6, 10, 15, FLAGS | 3, RUBBISH | 3] {
            for family in [2, 10] {
                assert_eq!(socket(CapSet::EMPTY, family, kind, 1), EPERM);
                assert_eq!(socket(CapSet::NET_RAW, family, kind, 1), ALLOW);
            }
        }
        assert_eq!(socket(CapSet::EMPTY, 16, FLAGS | 3, 0), ALLOW);
        for protocol in [4, 6, 9, 12, 15, 16, u64::MAX] {
            assert_eq!(socket(CapSet::NET_RAW, 16, 3, protocol), EAFNOSUPPORT);
            assert_eq!(socket(CapSet::NET_ADMIN, 16, 3, protocol), ALLOW);
            assert_eq!(socket(CapSet::SYS_ADMIN, 16, 3, protocol), ALLOW);
        }
        assert_eq!(socket(CapSet::EMPTY, 17, 3, 0), EAFNOSUPPORT);
        assert_eq!(socket(CapSet::NET_RAW, 17, 3, 0), ALLOW);
        for family in (0..60).filter(|family| ![1, 2, 10, 16, 17].contains(family)) {
            for allowed in interesting_sets() {
                assert_eq!(socket(allowed, family, 2, 0), EAFNOSUPPORT, "{family}");
                let pair = answer_by_name(&default_filter(allowed), "socketpair", &[family, 1, 0]);
                assert_eq!(pair, EAFNOSUPPORT, "{family}");
            }
        }
        assert_eq!(answer_by_name(&default_filter(CapSet::EMPTY), "socketpair", &[1, FLAGS | 1, 0]), ALLOW);
    }

    #[test]
    fn terminals_take_no_input_from_the_container() {
        let program = default_filter(CapSet(u64::MAX));
        for request in [0x5412, 0x541c, 0x1_0000_5412, 0xffff_ffff_0000_541c] {
            assert_eq!(answer_by_name(&program, "ioctl", &[0, request, 0]), EPERM);
        }
        for request in [0x5401, 0x5411, 0x5413, 0x5413_0000, 0] {
            assert_eq!(answer_by_name(&program, "ioctl", &[0x5412, request, 0x5412]), ALLOW);
        }
    }

    #[test]
    fn only_harmless_personalities_are_allowed() {
        let program = default_filter(CapSet(u64::MAX));
        for personality in [0, 8, 0x20000, 0x20008, 0x40000, 0xffff_ffff, u64::MAX] {
            assert_eq!(answer_by_name(&program, "personality", &[personality]), ALLOW);
        }
        for personality in [1, 4, 0x10_0000, 0x40_0000, 0x40008, 0x20_0000, 0x8000_0000] {
            assert_eq!(answer_by_name(&program, "personality", &[personality]), EPERM);
        }
    }

    #[test]
    fn each_capability_allows_its_calls_only() {
        let cases: [(CapSet, &[&str]); 9] = [
            (CapSet::SYS_CHROOT, &["chroot"]),
            (CapSet::SYS_PTRACE, &["ptrace", "process_vm_readv", "pidfd_getfd", "kcmp"]),
            (CapSet::SYS_TIME, &["settimeofday", "adjtimex"]),
            (CapSet::SYS_BOOT, &["reboot"]),
            (CapSet::SYSLOG, &["syslog"]),
            (CapSet::SYS_MODULE, &["finit_module"]),
            (CapSet::BPF, &["bpf"]),
            (CapSet::PERFMON, &["perf_event_open"]),
            (CapSet::DAC_READ_SEARCH, &["open_by_handle_at"]),
        ];
        for (allowed, _) in cases {
            let program = default_filter(allowed);
            for (capability, names) in cases {
                for name in names {
                    let expected = if capability == allowed { ALLOW } else { EPERM };
                    assert_eq!(answer_by_name(&program, name, &[]), expected, "{name} with {allowed}");
                }
            }
        }
    }

    #[test]
    fn filters_are_short() {
        for allowed in interesting_sets() {
            let length = default_filter(allowed).len();
            assert!(length <= 120, "{length} instructions with {allowed}");
        }
    }

    #[test]
    fn filters_are_compiled_once() {
        let same = |a, b| Arc::ptr_eq(&default_filter(a), &default_filter(b));
        assert!(same(CapSet::EMPTY, CapSet::EMPTY));
        assert!(same(CapSet::EMPTY, CapSet::KILL | CapSet::CHOWN));
        assert!(same(CapSet::docker(), CapSet::SYS_CHROOT | CapSet::NET_RAW));
        assert!(!same(CapSet::EMPTY, CapSet::SYS_CHROOT));
    }

    #[test]
    fn far_targets_are_reached() {
        // A different answer for each number, and as many blocks of arguments, so that nothing can be shared.
        let mut policy = Policy::new(Action::ENOSYS);
        for number in 0..700 {
            let by_argument = Rule::one_of(
                (number % 6) as u8,
                0xff00 | number,
                &[0x100, number],
                Rule::Do(Action::Errno(number as u16 + 200)),
                Rule::Do(Action::Errno(number as u16 + 1000)),
            );
            policy.set(number, if number % 3 == 0 { by_argument } else { Rule::Do(Action::Errno(number as u16)) });
        }
        let program = policy.compile();
        assert_valid(&program);
        assert!(program.iter().any(|instruction| instruction.code == 0x05));
        for number in 0..700 {
            for value in [0, 0x100, u64::from(number), 0xff00 | u64::from(number)] {
                let arguments = [value; 6];
                let rule = policy.rule(number).unwrap();
                assert_eq!(answer(&program, number, &arguments), expected(rule, &arguments), "{number} {value:#x}");
            }
        }
        assert_eq!(answer(&program, 700, &[]), ENOSYS);
    }

    #[test]
    fn targets_at_the_edge_of_reach_are_reached() {
        let (near, far) = (Rule::Do(Action::ENOSYS), Rule::Do(Action::KillProcess));
        for count in 230..270 {
            for (then, otherwise) in [(&near, &far), (&far, &near), (&far, &far)] {
                let mut policy = Policy::new(Action::ENOSYS);
                for number in 0..count {
                    policy.set(number, Rule::Do(Action::Errno(number as u16 + 200)));
                }
                policy.set(count, Rule::one_of(0, 0xff, &[5], then.clone(), otherwise.clone()));
                let program = policy.compile();
                assert_valid(&program);
                for value in [5, 6] {
                    let rule = policy.rule(count).unwrap();
                    assert_eq!(answer(&program, count, &[value]), expected(rule, &[value; 6]), "{count} {value}");
                }
            }
        }
    }

    #[test]
    fn policies_without_ranges_or_arms_compile() {
        for action in [Action::Allow, Action::ENOSYS, Action::KillProcess] {
            let mut policy = Policy::new(action);
            assert_valid(&policy.compile());
            assert_eq!(answer(&policy.compile(), 39, &[]), action.code());
            policy.set(38, Rule::EPERM);
            policy.set(39, Rule::one_of(0, 7, &[], Rule::ALLOW, Rule::Do(action)));
            policy.set(41, Rule::one_of(0, 7, &[], Rule::ALLOW, Rule::EPERM));
            policy.set(X32_BIT + 1, Rule::ALLOW);
            let program = policy.compile();
            assert_valid(&program);
            assert_eq!(answer(&program, 38, &[]), EPERM);
            assert_eq!(answer(&program, 39, &[]), action.code());
            assert_eq!(answer(&program, 40, &[]), action.code());
            assert_eq!(answer(&program, 41, &[]), EPERM);
            assert_eq!(answer(&program, X32_BIT + 1, &[]), KILL);
        }
    }

    #[test]
    fn instructions_have_the_layout_of_the_kernel() {
        assert_eq!(size_of::<Instruction>(), size_of::<libc::sock_filter>());
        let instruction = Instruction { code: 0x0102, jt: 3, jf: 4, k: 0x0506_0708 };
        assert_eq!(instruction.to_bits().to_ne_bytes(), [2, 1, 3, 4, 8, 7, 6, 5]);
    }

    /// A filter holds for the thread that installs it and for what that thread starts, so a thread of its own will do.
    #[test]
    fn kernel_follows_the_default_filter() {
        std::thread::spawn(|| {
            install(&default_filter(CapSet::EMPTY)).unwrap();
            assert_eq!(errno_of(libc::SYS_unshare, [libc::CLONE_NEWUTS as i64, 0, 0]), libc::EPERM);
            assert_eq!(errno_of(libc::SYS_clone, [libc::CLONE_NEWUSER as i64, 0, 0]), libc::EPERM);
            assert_eq!(errno_of(libc::SYS_socket, [libc::AF_ALG as i64, 5, 0]), libc::EAFNOSUPPORT);
            assert_eq!(errno_of(libc::SYS_socket, [libc::AF_INET as i64, 3, 1]), libc::EPERM);
            assert_eq!(errno_of(libc::SYS_clone3, [0, 0, 0]), libc::ENOSYS);
            assert_eq!(errno_of(libc::SYS_ioctl, [-1, 0x5412, 0]), libc::EPERM);
            assert_eq!(errno_of(libc::SYS_ioctl, [-1, 0x5413, 0]), libc::EBADF);
            assert_eq!(errno_of(999, [0, 0, 0]), libc::ENOSYS);
            assert_eq!(errno_of(libc::SYS_unshare, [0, 0, 0]), 0);
            let output = Command::new("sh").args(["-c", "echo $((6 * 7)) | cat"]).output().unwrap();
            assert_eq!((output.stdout.as_slice(), output.status.success()), (b"42\n".as_slice(), true));
        })
        .join()
        .unwrap();
    }

    #[allow(unsafe_code)]
    pub(super) fn install(program: &[Instruction]) -> io::Result<()> {
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
        };
        // SAFETY: the arguments are numbers only.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel reads `len` instructions at `filter`, which has their layout and outlives the call.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The errno of a call that fails; 0 where it does not.
    #[allow(unsafe_code)]
    pub(super) fn errno_of(number: i64, arguments: [i64; 3]) -> i32 {
        let [a, b, c] = arguments;
        // SAFETY: the test passes no addresses, and only calls that make nothing when they fail, as they have to.
        match unsafe { libc::syscall(number, a, b, c) } {
            -1 => io::Error::last_os_error().raw_os_error().unwrap_or(0),
            _ => 0,
        }
    }
}
