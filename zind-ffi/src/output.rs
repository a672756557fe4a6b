//! `zind_output`: a payload that has ended, and what it wrote.

use std::ffi::{c_char, c_void};

use zind_core::{Command, Exit, Isolation, Output, Stats};

use crate::error::{zind_error, zind_status};
use crate::exit::{Target, zind_exit, zind_stats};
use crate::guard::{Out, Outcome, free, guard, handle};
use crate::process::{question, zind_interrupted};
use crate::spec::zind_spec;
use crate::strings::{give_string, optional_buffer};

/// A container that has ended, and what it wrote.
pub struct zind_output {
    exit: Exit,
    stats: Stats,
    isolation: Isolation,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl From<Output> for zind_output {
    fn from(output: Output) -> zind_output {
        // A NUL behind the text, for those who print it as a string.
        let ended = |mut bytes: Vec<u8>| {
            bytes.reserve_exact(1);
            bytes.push(0);
            bytes
        };
        zind_output {
            exit: output.exit,
            stats: output.stats,
            isolation: output.isolation,
            stdout: ended(output.stdout.into_vec()),
            stderr: ended(output.stderr.into_vec()),
        }
    }
}

/// Runs a container to its end and keeps what it wrote. Standard output and error are piped unless they were set;
/// standard input is empty. A time limit that is over is no error: the exit says so, and what was written is kept.
/// spec: borrowed. input: len bytes for standard input; NULL and 0 for none.
/// output: receives the handle; free it with zind_output_free().
/// Returns also what zind_run() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_capture(
    spec: *const zind_spec,
    input: *const c_void,
    len: usize,
    output: *mut *mut zind_output,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_capture_interruptible(spec, input, len, None, std::ptr::null_mut(), output, err) }
}

/// As zind_capture(), and asks a function of the caller's whether to stop: after each signal that this thread handled,
/// and a few times a second.
/// interrupted: true kills the container; NULL asks nobody. data: its argument.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_capture_interruptible(
    spec: *const zind_spec,
    input: *const c_void,
    len: usize,
    interrupted: zind_interrupted,
    data: *mut c_void,
    output: *mut *mut zind_output,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let output = Out::handle(output, "output")?;
            let mut command = Command::from(handle(spec, "spec")?.0.clone());
            if let Some(input) = optional_buffer(input, len, "input")? {
                command.input(input);
            }
            output.give(command.output_interruptible(&mut question(interrupted, data))?.into());
            Ok(())
        })
    }
}

/// The bytes of one stream without the NUL behind them.
///
/// # Safety
/// `output` is NULL or live; `data` and `len` are NULL or writable.
unsafe fn stream(
    output: *const zind_output,
    data: *mut *const c_char,
    len: *mut usize,
    read: impl FnOnce(&zind_output) -> &Vec<u8>,
) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe {
        let data = Out::new(data, "data")?;
        let bytes = read(handle(output, "output")?);
        data.put(bytes.as_ptr().cast());
        if !len.is_null() {
            len.write(bytes.len() - 1);
        }
    }
    Ok(())
}

/// What was written to standard output, where that was piped.
/// data: receives the address, borrowed from the output until zind_output_free(); a NUL follows the last byte.
/// len: NULL, or receives the number of bytes without that NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_output_stdout(
    output: *const zind_output,
    data: *mut *const c_char,
    len: *mut usize,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(std::ptr::null_mut(), || stream(output, data, len, |output| &output.stdout)) }
}

/// What was written to standard error, where that was piped; else as zind_output_stdout().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_output_stderr(
    output: *const zind_output,
    data: *mut *const c_char,
    len: *mut usize,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(std::ptr::null_mut(), || stream(output, data, len, |output| &output.stderr)) }
}

/// How it ended. exit: begin with ZIND_EXIT_INIT. Returns also ZIND_STATUS_SPEC for a struct_size that is too small.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_output_exit(
    output: *const zind_output,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            Target::new(exit, "exit")?.put(handle(output, "output")?.exit.into());
            Ok(())
        })
    }
}

/// What it used. stats: begin with ZIND_STATS_INIT. Returns also ZIND_STATUS_SPEC for a struct_size that is too
/// small.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_output_stats(
    output: *const zind_output,
    stats: *mut zind_stats,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            Target::new(stats, "stats")?.put(handle(output, "output")?.stats.clone().into());
            Ok(())
        })
    }
}

/// What it used, as zind_process_stats_json(). json: receives a string; free it with zind_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_output_stats_json(
    output: *const zind_output,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            give_string(json, handle(output, "output")?.stats.to_json().to_string());
            Ok(())
        })
    }
}

/// What was in force, as zind_process_isolation_json().
/// json: receives a string; free it with zind_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_output_isolation_json(
    output: *const zind_output,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            give_string(json, handle(output, "output")?.isolation.to_json().to_string());
            Ok(())
        })
    }
}

/// Frees an output with all that was borrowed from it. output: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_output_free(output: *mut zind_output) {
    // SAFETY: the header's demand.
    unsafe { free(output) }
}
