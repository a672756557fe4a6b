//! Setters: how long the container lives, and who looks after it.

use std::time::Duration;

use super::{set, zind_spec};
use crate::error::{zind_error, zind_status};

/// A PID 1 that reaps and forwards signals above the payload. On for containers, off for the low level.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_init(spec: *mut zind_spec, on: bool, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.init = on;
            Ok(())
        })
    }
}

/// End the container when the caller's process ends. On by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_die_with_owner(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.die_with_owner = on;
            Ok(())
        })
    }
}

/// Forward signals to the payload's whole process group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_forward_signals(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.forward_signals = on;
            Ok(())
        })
    }
}

/// How long the payload may run, in milliseconds from the start on. Who waits when it is over kills the container:
/// zind_process_wait(), zind_process_communicate(), zind_capture(). timeout_ms: negative for no limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_timeout_ms(
    spec: *mut zind_spec,
    timeout_ms: i64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
            Ok(())
        })
    }
}
