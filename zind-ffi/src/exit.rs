//! `zind_exit` and `zind_stats`: structures of the caller's that begin with their size.

use std::time::Duration;

use zind_core::{Error, Exit, ExitKind, Stats};

use crate::guard::{Failure, Outcome};

/// In what way a payload ended. Numbers are never reused, and new ones come at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum zind_exit_kind {
    /// It has not ended.
    Running = 0,
    /// It exited by itself.
    Exited = 1,
    /// A signal ended it.
    Signaled = 2,
    /// zind killed it because its time was over.
    Timeout = 3,
    /// The kernel killed it because memory ran out: the limit of its control group, or the machine's.
    Oom = 4,
}

/// How a payload ended. Begin with ZIND_EXIT_INIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_exit {
    /// sizeof(zind_exit), set by the caller; no more than this is written.
    pub struct_size: usize,
    /// A zind_exit_kind.
    pub kind: i32,
    /// The exit code; -1 if it did not exit.
    pub code: i32,
    /// The signal that ended it; 0 if none did.
    pub signal: i32,
    /// The exit code, or the negative number of the signal.
    pub returncode: i32,
}

/// What a container used over its whole life, or uses now. Begin with ZIND_STATS_INIT; -1 is "unknown".
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_stats {
    /// sizeof(zind_stats), set by the caller; no more than this is written.
    pub struct_size: usize,
    /// CPU time in user mode, in nanoseconds.
    pub cpu_user_ns: i64,
    /// CPU time in the kernel, in nanoseconds.
    pub cpu_system_ns: i64,
    /// Largest resident set of a single process, in bytes.
    pub max_rss: i64,
    /// From the call of the start to the end, in nanoseconds.
    pub wall_ns: i64,
    /// Time it waited because its quota of CPU was used up, in nanoseconds. This and what follows takes a control group:
    /// zind_spec_set_resources_json() and the setters beside it.
    pub cpu_throttled_ns: i64,
    /// Bytes of memory now, page cache and tmpfs included.
    pub memory_current: i64,
    /// The most there were.
    pub memory_peak: i64,
    /// Bytes that belong to no file, now.
    pub memory_anon: i64,
    /// Bytes of page cache and tmpfs, now.
    pub memory_file: i64,
    /// Bytes swapped out, now.
    pub memory_swap: i64,
    /// Processes killed because memory ran out.
    pub oom_kills: i64,
    /// Processes and threads now, zind's own not counted.
    pub pids: i64,
    /// The most there were.
    pub pids_peak: i64,
    /// How often a fork met the limit.
    pub pids_limited: i64,
}

/// A structure whose first field is the `size_t struct_size` of whoever allocated it.
///
/// # Safety
/// `Self` is `repr(C)`, begins with a `usize`, and any prefix of it may be written alone.
pub(crate) unsafe trait OfSize: Copy {
    /// `sizeof` in the first version of the header.
    const FIRST_SIZE: usize;
}

// SAFETY: repr(C), numbers only.
unsafe impl OfSize for zind_exit {
    const FIRST_SIZE: usize = 24;
}

// SAFETY: repr(C), numbers only.
unsafe impl OfSize for zind_stats {
    const FIRST_SIZE: usize = 40;
}

/// Where a sized structure of the caller's is.
pub(crate) struct Target<T> {
    pointer: *mut T,
    size: usize,
}

impl<T: OfSize> Target<T> {
    /// Accepts the address of a structure and reads its size.
    ///
    /// # Safety
    /// `pointer` is NULL, or points to as many bytes as its first field says, writable until [`Target::put`].
    pub(crate) unsafe fn new(pointer: *mut T, name: &'static str) -> Outcome<Target<T>> {
        if pointer.is_null() {
            return Err(Failure::Null(name));
        }
        // SAFETY: the structure begins with its size.
        let size = unsafe { pointer.cast::<usize>().read() };
        if size < T::FIRST_SIZE {
            let rule = format!("struct_size is {size}; begin with the INIT macro of the structure");
            return Err(Error::spec(name, rule).into());
        }
        Ok(Target { pointer, size })
    }

    /// As [`Target::new`], where NULL says that the caller does not want it.
    ///
    /// # Safety
    /// As for [`Target::new`].
    pub(crate) unsafe fn optional(pointer: *mut T, name: &'static str) -> Outcome<Option<Target<T>>> {
        // SAFETY: the caller's promise.
        if pointer.is_null() { Ok(None) } else { unsafe { Target::new(pointer, name) }.map(Some) }
    }

    /// Stores as much of `value` as the caller's header knows; `struct_size` stays.
    pub(crate) fn put(self, value: T) {
        let from = size_of::<usize>();
        let to = self.size.min(size_of::<T>());
        // SAFETY: both structures have `to` bytes, by the promises made to `new` and for the trait.
        unsafe {
            let source = (&raw const value).cast::<u8>();
            self.pointer.cast::<u8>().add(from).copy_from_nonoverlapping(source.add(from), to - from);
        }
    }
}

/// As much of a sized structure as the caller's header knows, over `default`, which is also for NULL.
///
/// # Safety
/// `pointer` is NULL, or points to as many bytes as its first field says.
pub(crate) unsafe fn read_sized<T: OfSize>(pointer: *const T, mut default: T, name: &'static str) -> Outcome<T> {
    if pointer.is_null() {
        return Ok(default);
    }
    // SAFETY: the structure begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size < T::FIRST_SIZE {
        let rule = format!("struct_size is {size}; begin with the INIT macro of the structure");
        return Err(Error::spec(name, rule).into());
    }
    // SAFETY: both structures have that many bytes, by the caller's promise and for the trait.
    unsafe {
        let into = (&raw mut default).cast::<u8>();
        into.copy_from_nonoverlapping(pointer.cast::<u8>(), size.min(size_of::<T>()));
    }
    Ok(default)
}

impl From<Exit> for zind_exit {
    fn from(exit: Exit) -> zind_exit {
        let kind = match exit.kind {
            ExitKind::Exited => zind_exit_kind::Exited,
            ExitKind::Timeout => zind_exit_kind::Timeout,
            ExitKind::Oom => zind_exit_kind::Oom,
            _ => zind_exit_kind::Signaled,
        };
        zind_exit {
            struct_size: 0,
            kind: kind as i32,
            code: exit.code.unwrap_or(-1),
            signal: exit.signal.unwrap_or(0),
            returncode: exit.returncode(),
        }
    }
}

impl zind_exit {
    /// What a payload has that did not end.
    pub(crate) const RUNNING: zind_exit =
        zind_exit { struct_size: 0, kind: zind_exit_kind::Running as i32, code: -1, signal: 0, returncode: 0 };
}

impl From<Stats> for zind_stats {
    fn from(stats: Stats) -> zind_stats {
        let ns = |time: Option<Duration>| time.and_then(|time| i64::try_from(time.as_nanos()).ok()).unwrap_or(-1);
        let number = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or(-1);
        zind_stats {
            struct_size: 0,
            cpu_user_ns: ns(stats.cpu_user),
            cpu_system_ns: ns(stats.cpu_system),
            max_rss: number(stats.max_rss),
            wall_ns: ns(Some(stats.wall)),
            cpu_throttled_ns: ns(stats.cpu_throttled),
            memory_current: number(stats.memory_current),
            memory_peak: number(stats.memory_peak),
            memory_anon: number(stats.memory_anon),
            memory_file: number(stats.memory_file),
            memory_swap: number(stats.memory_swap),
            oom_kills: number(stats.oom_kills),
            pids: number(stats.pids),
            pids_peak: number(stats.pids_peak),
            pids_limited: number(stats.pids_limited),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_written_than_the_caller_s_structure_has() {
        let mut exit = zind_exit { struct_size: 24, ..zind_exit::RUNNING };
        let value = zind_exit { struct_size: 0, kind: 2, code: -1, signal: 9, returncode: -9 };
        // SAFETY: the structure has the size it names.
        unsafe { Target::new(&raw mut exit, "exit") }.unwrap().put(value);
        assert_eq!((exit.struct_size, exit.kind, exit.signal, exit.returncode), (24, 2, 9, -9));
        exit.struct_size = 8;
        // SAFETY: as above; only the size is read.
        assert!(matches!(unsafe { Target::new(&raw mut exit, "exit") }, Err(Failure::Core(Error::Spec { .. }))));
        assert_eq!(size_of::<zind_exit>(), zind_exit::FIRST_SIZE);
        assert_eq!(size_of::<zind_stats>(), zind_stats::FIRST_SIZE + 10 * 8, "it only grows at its end");
    }
}
