//! `zind_logs`: what a container has written, and `zind_chunk`: one piece of it.

use std::ffi::c_char;
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zind_core::Error;
use zind_core::container::{LogLines, LogQuery, Logs, Stream};

use crate::container::{on, zind_container};
use crate::containers::{ns_of, timeout_of};
use crate::error::{zind_error, zind_status};
use crate::exit::{OfSize, Target, read_sized};
use crate::guard::{Out, free, guard, handle_mut, quiet};

/// The log of a container, as it is read.
pub struct zind_logs {
    from: Reader,
    bytes: Vec<u8>,
}

enum Reader {
    Records(Logs),
    Lines(LogLines),
}

/// Where something was written to. Numbers are never reused, and new ones come at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum zind_stream {
    /// Nothing: there is no more.
    None = 0,
    /// Standard output; of a container with a terminal, all of it.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// Go on until the container has ended.
pub const ZIND_LOGS_FOLLOW: u64 = 1;
/// Line by line, without the newlines; otherwise in pieces as they came.
pub const ZIND_LOGS_LINES: u64 = 2;
/// Without the standard output.
pub const ZIND_LOGS_NO_STDOUT: u64 = 4;
/// Without the standard error.
pub const ZIND_LOGS_NO_STDERR: u64 = 8;

/// What of a log is wanted. Begin with ZIND_LOG_OPTIONS_INIT: all there is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_log_options {
    /// sizeof(zind_log_options), set by the caller; no more than this is read.
    pub struct_size: usize,
    /// ZIND_LOGS_FOLLOW and the flags after it, or-ed together.
    pub flags: u64,
    /// Only the last that many lines of what there is; negative: all.
    pub tail: i64,
    /// Only what was written at this time or later, in nanoseconds since 1970; 0: from the beginning.
    pub since_ns: i64,
    /// Only what was written before this time, in nanoseconds since 1970; 0: to the end.
    pub until_ns: i64,
}

/// A piece of output. Begin with ZIND_CHUNK_INIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_chunk {
    /// sizeof(zind_chunk), set by the caller; no more than this is written.
    pub struct_size: usize,
    /// A zind_stream; ZIND_STREAM_NONE when there is no more.
    pub stream: i32,
    /// Of a line: 1 if it ended with a newline. The last one need not, nor one that was cut since it is longer than a mebibyte, or
    /// since what follows is lost.
    pub is_whole: i32,
    /// When it was written, in nanoseconds since 1970; 0 from an attachment.
    pub time_ns: i64,
    /// The bytes, and a NUL behind the last one. Borrowed from the handle until the next call with it; NULL if there are none.
    pub data: *const c_char,
    /// How many, without that NUL.
    pub len: usize,
    /// Bytes of either stream before it that are missing: the disk had no room for them, or they were thrown away after
    /// zind_container_logs() and before they could be read. If they are the last of all, a piece or line without bytes tells it.
    pub lost: u64,
}

// SAFETY: repr(C), numbers only.
unsafe impl OfSize for zind_log_options {
    const FIRST_SIZE: usize = 40;
}

// SAFETY: repr(C), numbers and a pointer that owns nothing.
unsafe impl OfSize for zind_chunk {
    const FIRST_SIZE: usize = 32 + size_of::<*const c_char>() + size_of::<usize>();
}

impl zind_chunk {
    /// What comes behind the last one.
    pub(crate) const END: zind_chunk = zind_chunk {
        struct_size: 0,
        stream: zind_stream::None as i32,
        is_whole: 0,
        time_ns: 0,
        data: std::ptr::null(),
        len: 0,
        lost: 0,
    };

    /// A piece whose bytes are kept in `kept`.
    pub(crate) fn of(stream: Stream, mut bytes: Vec<u8>, kept: &mut Vec<u8>) -> zind_chunk {
        let stream = if stream == Stream::Stderr { zind_stream::Stderr } else { zind_stream::Stdout };
        let len = bytes.len();
        bytes.push(0);
        *kept = bytes;
        zind_chunk { stream: stream as i32, data: kept.as_ptr().cast(), len, ..zind_chunk::END }
    }
}

fn time_of(ns: i64) -> Option<SystemTime> {
    let since = u64::try_from(ns).ok().filter(|ns| *ns > 0).map(Duration::from_nanos)?;
    UNIX_EPOCH.checked_add(since)
}

/// What it has written, as far as its log still has it, whether it runs or not.
/// options: NULL for all there is, or begin with ZIND_LOG_OPTIONS_INIT.
/// logs: receives the handle; free it with zind_logs_free().
/// Returns also ZIND_STATUS_STATE if it keeps no log, _SPEC, _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_logs(
    container: *const zind_container,
    options: *const zind_log_options,
    logs: *mut *mut zind_logs,
    err: *mut *mut zind_error,
) -> zind_status {
    let default = zind_log_options { struct_size: 0, flags: 0, tail: -1, since_ns: 0, until_ns: 0 };
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let logs = Out::handle(logs, "logs")?;
            let given = read_sized(options, default, "options")?;
            let known = ZIND_LOGS_FOLLOW | ZIND_LOGS_LINES | ZIND_LOGS_NO_STDOUT | ZIND_LOGS_NO_STDERR;
            if given.flags & !known != 0 {
                let rule = format!("unknown flags {:#x}", given.flags & !known);
                return Err(Error::spec("options", rule).into());
            }
            let has = |flag| given.flags & flag != 0;
            let found = container.logs(LogQuery {
                follow: has(ZIND_LOGS_FOLLOW),
                tail: u64::try_from(given.tail).ok(),
                since: time_of(given.since_ns),
                until: time_of(given.until_ns),
                stdout: !has(ZIND_LOGS_NO_STDOUT),
                stderr: !has(ZIND_LOGS_NO_STDERR),
            })?;
            let from = if has(ZIND_LOGS_LINES) { Reader::Lines(found.lines()) } else { Reader::Records(found) };
            logs.give(zind_logs { from, bytes: Vec::new() });
            Ok(())
        })
    }
}

/// Becomes readable when there may be more of a log that is followed, and at the container's end, for an event loop. There is
/// none, -1, before a zind_logs_next() has found nothing to read. Borrowed: the logs close it; do not read from it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_logs_fd(logs: *const zind_logs) -> i32 {
    // SAFETY: the header's demand.
    let logs = unsafe { logs.as_ref() };
    let fd = |logs: &zind_logs| match &logs.from {
        Reader::Records(logs) => logs.fd().map(|fd| fd.as_raw_fd()),
        Reader::Lines(lines) => lines.fd().map(|fd| fd.as_raw_fd()),
    };
    quiet(-1, || logs.and_then(fd).unwrap_or(-1))
}

/// The next piece, or line.
/// timeout_ms: how long to wait for more of a log that is followed, in milliseconds; negative: as long as it takes.
/// chunk: begin with ZIND_CHUNK_INIT; its stream is ZIND_STREAM_NONE at the end, which comes with that of the container for a
/// log that is followed.
/// Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, _SPEC for a struct_size that is too small, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_logs_next(
    logs: *mut zind_logs,
    timeout_ms: i64,
    chunk: *mut zind_chunk,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let chunk = Target::new(chunk, "chunk")?;
            let zind_logs { from, bytes } = handle_mut(logs, "logs")?;
            let timeout = timeout_of(timeout_ms);
            let (found, is_over) = match from {
                Reader::Records(logs) => {
                    let record = logs.next_within(timeout, &mut || false)?.map(|record| zind_chunk {
                        time_ns: ns_of(record.time),
                        lost: record.lost,
                        ..zind_chunk::of(record.stream, record.bytes, bytes)
                    });
                    (record, logs.is_over())
                }
                Reader::Lines(lines) => {
                    let line = lines.next_within(timeout, &mut || false)?.map(|line| zind_chunk {
                        time_ns: ns_of(line.time),
                        is_whole: line.is_whole.into(),
                        lost: line.lost,
                        ..zind_chunk::of(line.stream, line.text, bytes)
                    });
                    (line, lines.is_over())
                }
            };
            match found {
                Some(found) => chunk.put(found),
                None if is_over => chunk.put(zind_chunk::END),
                None => return Err(Error::Timeout(timeout.unwrap_or_default()).into()),
            }
            Ok(())
        })
    }
}

/// Frees logs and closes their descriptors; the container goes on. logs: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_logs_free(logs: *mut zind_logs) {
    // SAFETY: the header's demand.
    unsafe { free(logs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_that_threads_may_share_can_be_shared() {
        fn shared<T: Send + Sync>() {}
        shared::<crate::zind_containers>();
        shared::<zind_container>();
    }

    #[test]
    fn structures_only_grow_at_their_end() {
        assert_eq!(size_of::<zind_chunk>(), zind_chunk::FIRST_SIZE);
        assert_eq!(size_of::<zind_log_options>(), zind_log_options::FIRST_SIZE);
        assert_eq!(size_of::<crate::zind_container_options>(), crate::zind_container_options::FIRST_SIZE);
    }
}
