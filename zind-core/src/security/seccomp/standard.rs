//! The default policy: which calls a container may make, by its capabilities.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{Action, Instruction, Policy, Rule};
use crate::security::capabilities::CapSet;
use crate::security::syscalls::Arch;

impl Policy {
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
pub(super) const CLONE_NEW_ANY: u32 = (libc::CLONE_NEWNS
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::assembler::assemble;
    use super::super::tests::{
        ALLOW, Call, EAFNOSUPPORT, ENOSYS, EPERM, KILL, answer, answer_by_name, assert_valid, errno_of, expected,
        install, run,
    };
    use super::*;
    use crate::security::syscalls::{self, X32_BIT};

    /// Sets that give each relevant capability alone, all together, and the usual ones.
    fn interesting_sets() -> Vec<CapSet> {
        let single = (0..64).map(|bit| CapSet(1 << bit)).filter(|set| relevant_capabilities().contains(*set));
        single.chain([CapSet::EMPTY, CapSet::docker(), CapSet::podman(), CapSet(u64::MAX)]).collect()
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
}
