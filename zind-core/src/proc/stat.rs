//! [`Stat`] and [`Statm`]: numbers on one line, in an order that proc(5) tells.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Declares a structure of numbers that the kernel prints on one line in this order.
macro_rules! numbers {
    (
        $(#[$struct_doc:meta])* $name:ident { $($(#[$text_doc:meta])* $text:ident: $text_type:ty,)* }
        $($(#[$doc:meta])* $field:ident: $type:ty,)*
    ) => {
        $(#[$struct_doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$text_doc])* pub $text: $text_type,)*
            $($(#[$doc])* pub $field: $type,)*
        }

        impl $name {
            /// The numeric fields by name, in the kernel's order.
            pub fn numbers(&self) -> Vec<(&'static str, i128)> {
                vec![$((stringify!($field), i128::from(self.$field)),)*]
            }

            fn from_words($($text: $text_type,)* words: &str) -> Option<$name> {
                let mut words = words.split_ascii_whitespace();
                Some($name { $($text,)* $($field: words.next()?.parse().ok()?,)* })
            }
        }
    };
}

numbers! {
    /// What `/proc/<pid>/stat` tells.
    ///
    /// Times are in clock ticks, `sysconf(_SC_CLK_TCK)` (100) a second. Addresses, `wchan` and `exit_code` are 0 for a
    /// reader who may not trace the process.
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
    Stat {
        /// (1) The process's number.
        pid: i32,
        /// (2) The name of the program, cut to 15 bytes; the process can change it to any bytes.
        comm: OsString,
        /// (3) `R` running, `S` sleeping, `D` waiting for a disk, `Z` zombie, `T` stopped, `t` stopped by a tracer, `I`
        /// idle kernel thread, `X` dead.
        state: char,
    }
    /// (4) The parent; 0 if it is in an outer pid namespace.
    ppid: i32,
    /// (5) The process group.
    pgrp: i32,
    /// (6) The session.
    session: i32,
    /// (7) Device number of the controlling terminal; 0 without one.
    tty_nr: i32,
    /// (8) The foreground process group of that terminal; -1 without one.
    tpgid: i32,
    /// (9) The kernel's `PF_*` flags.
    flags: u32,
    /// (10) Page faults that needed no reading from disk.
    minflt: u64,
    /// (11) Those of children that were waited for.
    cminflt: u64,
    /// (12) Page faults that needed reading from disk.
    majflt: u64,
    /// (13) Those of children that were waited for.
    cmajflt: u64,
    /// (14) Ticks in user mode.
    utime: u64,
    /// (15) Ticks in kernel mode.
    stime: u64,
    /// (16) Ticks in user mode of children that were waited for.
    cutime: i64,
    /// (17) Ticks in kernel mode of children that were waited for.
    cstime: i64,
    /// (18) Nice value plus 20, or the negative real-time priority minus 1.
    priority: i64,
    /// (19) Nice value, 19 (low) to -20 (high).
    nice: i64,
    /// (20) Number of threads.
    num_threads: i64,
    /// (21) Always 0.
    itrealvalue: i64,
    /// (22) Ticks between boot and the start of the process.
    starttime: u64,
    /// (23) Virtual memory, in bytes.
    vsize: u64,
    /// (24) Resident memory, in pages; [`Proc::statm`](super::Proc::statm) and `smaps` are more exact.
    rss: i64,
    /// (25) Soft limit of `RLIMIT_RSS`, in bytes.
    rsslim: u64,
    /// (26) Address above which the program's text begins.
    startcode: u64,
    /// (27) Address below which it ends.
    endcode: u64,
    /// (28) Address of the bottom of the stack.
    startstack: u64,
    /// (29) Stack pointer of a process that is about to end; 0 otherwise.
    kstkesp: u64,
    /// (30) Instruction pointer of a process that is about to end; 0 otherwise.
    kstkeip: u64,
    /// (31) Pending signals below 32; use `SigPnd` of [`Proc::status`](super::Proc::status).
    signal: u64,
    /// (32) Blocked signals below 32; use `SigBlk`.
    blocked: u64,
    /// (33) Ignored signals below 32; use `SigIgn`.
    sigignore: u64,
    /// (34) Caught signals below 32; use `SigCgt`.
    sigcatch: u64,
    /// (35) 1 if the process waits in the kernel.
    wchan: u64,
    /// (36) Always 0.
    nswap: u64,
    /// (37) Always 0.
    cnswap: u64,
    /// (38) The signal the parent gets when the process ends.
    exit_signal: i32,
    /// (39) The processor it ran on last.
    processor: i32,
    /// (40) Real-time priority, 1 to 99; 0 for others.
    rt_priority: u32,
    /// (41) Scheduling policy, `SCHED_*`.
    policy: u32,
    /// (42) Ticks of waiting for block devices.
    delayacct_blkio_ticks: u64,
    /// (43) Ticks of running a virtual processor.
    guest_time: u64,
    /// (44) Those of children that were waited for.
    cguest_time: i64,
    /// (45) Address above which the program's data begins.
    start_data: u64,
    /// (46) Address below which it ends.
    end_data: u64,
    /// (47) Address above which the heap grows.
    start_brk: u64,
    /// (48) Address of the first argument.
    arg_start: u64,
    /// (49) Address behind the last argument.
    arg_end: u64,
    /// (50) Address of the environment.
    env_start: u64,
    /// (51) Address behind the environment.
    env_end: u64,
    /// (52) Status of a process that has ended, as waitpid(2) gives it.
    exit_code: i32,
}

impl Stat {
    pub(super) fn parse(text: &[u8]) -> Option<Stat> {
        // The name can hold any byte but NUL, `)` and newline included; what follows it is numbers only.
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')').filter(|close| *close > open)?;
        let pid = std::str::from_utf8(&text[..open]).ok()?.trim_end().parse().ok()?;
        let comm = OsStr::from_bytes(&text[open + 1..close]).to_owned();
        let (state, words) = std::str::from_utf8(&text[close + 1..]).ok()?.trim_start().split_once(' ')?;
        let mut state = state.chars();
        match (state.next(), state.next()) {
            (Some(letter), None) => Stat::from_words(pid, comm, letter, words),
            _ => None,
        }
    }
}

numbers! {
    /// What `/proc/<pid>/statm` tells, in pages (`sysconf(_SC_PAGESIZE)`, 4096 bytes on most machines).
    ///
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html>
    Statm {}
    /// Virtual memory.
    size: u64,
    /// Resident memory.
    resident: u64,
    /// Resident memory that is backed by files or shared.
    shared: u64,
    /// Program text.
    text: u64,
    /// Always 0.
    lib: u64,
    /// Data and stack.
    data: u64,
    /// Always 0.
    dt: u64,
}

impl Statm {
    pub(super) fn parse(text: &str) -> Option<Statm> {
        Statm::from_words(text)
    }
}

/// The start of a process in ticks, out of its `stat`, which may be cut off behind that.
pub(crate) fn start_time(stat: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(stat);
    // The name may have spaces and brackets in it.
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat_line(comm: &[u8]) -> Vec<u8> {
        let numbers: Vec<String> = (4..=52).map(|number: u32| number.to_string()).collect();
        [b"1234 (", comm, b") S ", numbers.join(" ").as_bytes(), b"\n"].concat()
    }

    #[test]
    fn a_name_made_of_parentheses_does_not_shift_the_fields() {
        for comm in [&b"a) R 1 (b"[..], b")", b"(", b"", b"x) Z 1 1 1\n7 (y", b"\xff\xfe) \n"] {
            let stat = Stat::parse(&stat_line(comm)).unwrap();
            assert_eq!(stat.comm.as_bytes(), comm);
            assert_eq!((stat.pid, stat.state, stat.ppid, stat.exit_code), (1234, 'S', 4, 52));
        }
    }

    #[test]
    fn stat_fields_stand_at_the_numbers_of_the_man_page() {
        let stat = Stat::parse(&stat_line(b"sh")).unwrap();
        let numbers = stat.numbers();
        assert_eq!(numbers.len(), 49);
        assert!(numbers.iter().zip(4..).all(|((_, value), field)| *value == field));
        assert_eq!((stat.starttime, stat.rss, stat.processor, stat.env_end), (22, 24, 39, 51));
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        for comm in [&b"a) R 1 (b"[..], b")", b"", b"\xff\xfe) \n"] {
            assert_eq!(start_time(&stat_line(comm)), Some(22));
        }
        assert_eq!(start_time(b"1 (a) S 4 5"), None);
    }

    #[test]
    fn malformed_stat_is_refused() {
        let whole = stat_line(b"sh");
        for bad in
            [&b""[..], b"(", b")", b")(", b"1", b"1 (sh", b"1 (sh)", b"1 (sh) S", b"x (sh) S 1", b"1 (sh) SS 1 2"]
        {
            assert_eq!(Stat::parse(bad), None, "{bad:?}");
        }
        let close = whole.iter().position(|byte| *byte == b')').unwrap();
        for end in 0..whole.len() - 3 {
            assert_eq!(Stat::parse(&whole[..end]), None, "cut at {end} (name ends at {close})");
        }
    }
}
