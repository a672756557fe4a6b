//! `zind_attachment`: the streams of a container that runs.

use std::os::fd::{AsRawFd, IntoRawFd};

use zind_core::Error;
use zind_core::container::{AttachOptions, Attachment};
use zind_core::terminal::Size;

use crate::container::{on, zind_container};
use crate::container_logs::zind_chunk;
use crate::containers::timeout_of;
use crate::error::{zind_error, zind_status};
use crate::exit::Target;
use crate::guard::{Out, free, guard, handle, handle_mut, quiet};

/// A connection to a container's streams. It gets all output from the attaching on, and loses none of it: the container waits
/// for who reads slowly, and goes on when that one is freed. (Who only wants to read follows the log.)
pub struct zind_attachment {
    attachment: Attachment,
    bytes: Vec<u8>,
}

impl zind_attachment {
    pub(crate) fn of(attachment: Attachment) -> zind_attachment {
        zind_attachment { attachment, bytes: Vec::new() }
    }
}

/// Attaches to its streams, beside whoever else is.
/// attachment: receives the handle; free it with zind_attachment_free().
/// Returns also ZIND_STATUS_STATE if it does not run, or if as many are attached as there can be; _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_attach(
    container: *const zind_container,
    attachment: *mut *mut zind_attachment,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let attachment = Out::handle(attachment, "attachment")?;
            attachment.give(zind_attachment::of(container.attach(&AttachOptions::default())?));
            Ok(())
        })
    }
}

/// Becomes readable when there is output, or at the end, for an event loop. Borrowed: the attachment closes it; do not read from
/// it. -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_attachment_fd(attachment: *const zind_attachment) -> i32 {
    // SAFETY: the header's demand.
    let attachment = unsafe { attachment.as_ref() };
    quiet(-1, || attachment.map_or(-1, |attachment| attachment.attachment.fd().as_raw_fd()))
}

/// The next piece of output.
/// timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
/// chunk: begin with ZIND_CHUNK_INIT; its stream is ZIND_STREAM_NONE when the container has ended and all was read.
/// Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, _SPEC for a struct_size that is too small, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_attachment_next(
    attachment: *mut zind_attachment,
    timeout_ms: i64,
    chunk: *mut zind_chunk,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let chunk = Target::new(chunk, "chunk")?;
            let zind_attachment { attachment, bytes } = handle_mut(attachment, "attachment")?;
            let timeout = timeout_of(timeout_ms);
            if !attachment.wait_interruptible(timeout, &mut || false)? {
                return Err(Error::Timeout(timeout.unwrap_or_default()).into());
            }
            let found = attachment.try_next()?;
            chunk.put(found.map_or(zind_chunk::END, |found| zind_chunk::of(found.stream, found.bytes, bytes)));
            Ok(())
        })
    }
}

/// Where input is written to: the container's standard input, or its terminal. Borrowed: the attachment closes it. -1 if the
/// container has no input, or that was taken or closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_attachment_input(attachment: *const zind_attachment) -> i32 {
    // SAFETY: the header's demand.
    let attachment = unsafe { attachment.as_ref() };
    let input = |attachment: &zind_attachment| attachment.attachment.input().map(|fd| fd.as_raw_fd());
    quiet(-1, || attachment.and_then(input).unwrap_or(-1))
}

/// The same, once, as the caller's own. The caller closes it. -1 as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_attachment_take_input(attachment: *mut zind_attachment) -> i32 {
    // SAFETY: the header's demand.
    let attachment = unsafe { attachment.as_mut() };
    let take = |attachment: &mut zind_attachment| attachment.attachment.take_input().map(IntoRawFd::into_raw_fd);
    quiet(-1, || attachment.and_then(take).unwrap_or(-1))
}

/// Ends the container's standard input, for everybody; an input that was taken is closed by who has it. Returns also
/// ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_attachment_close_input(
    attachment: *mut zind_attachment,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle_mut(attachment, "attachment")?.attachment.close_input()?)) }
}

/// Gives the container's terminal another size. Returns also ZIND_STATUS_STATE without one, or if the input was taken; _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_attachment_resize(
    attachment: *const zind_attachment,
    rows: u16,
    cols: u16,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(attachment, "attachment")?.attachment.resize(Size::new(rows, cols))?)) }
}

/// Frees an attachment and closes its descriptors; the container goes on. attachment: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_attachment_free(attachment: *mut zind_attachment) {
    // SAFETY: the header's demand.
    unsafe { free(attachment) }
}
