//! The launcher as a deputy: it makes the system calls that the library asks for, in the namespaces that it is in.

use core::mem::size_of;

use crate::planfile::PlanFile;
use crate::sys;
use crate::wire::{Answer, Call, Kind, MOST_BYTES, MOST_CALLS, MOST_FDS, Message, SEND_RESULT};

/// Aligned, as the calls in it are read where they stand.
#[repr(C, align(16))]
struct Buffer([u8; MOST_BYTES]);

/// An answer and what it brings.
#[repr(C)]
struct Reply(Answer, [u8; MOST_BYTES]);

/// Serves until the library is gone.
pub fn serve(plan: &PlanFile) -> i32 {
    // In the zeroed part of the program they cost nothing until they are used.
    static mut MESSAGE: Buffer = Buffer([0; MOST_BYTES]);
    static mut REPLY: Reply = Reply(Answer { result: 0, index: 0, errno: 0 }, [0; MOST_BYTES]);
    // SAFETY: there is one thread, and this function is called once.
    let (message, reply) = unsafe { (&mut *(&raw mut MESSAGE), &mut *(&raw mut REPLY)) };
    sys::umask(0);
    // Out of the way of the numbers that the library may choose.
    let socket = match sys::dup_to(plan.socket, 0) {
        Ok(_) => {
            sys::close(plan.socket);
            0
        }
        Err(_) => plan.socket,
    };
    loop {
        let mut fds = [-1i32; MOST_FDS];
        match sys::receive(socket, &mut message.0, &mut fds) {
            Ok(length) if length >= size_of::<Message>() => {}
            _ => return 0,
        }
        let (header, calls) = parts(&message.0);
        let calls = &calls[..(header.calls as usize).min(MOST_CALLS)];
        let made = carry_out(&message.0, calls, &fds, &mut reply.1);
        let fd = made.ok().filter(|_| header.flags & SEND_RESULT != 0).map_or(-1, |result| result as i32);
        reply.0 = match made {
            Ok(result) => Answer { result, index: 0, errno: 0 },
            Err((index, errno)) => Answer { result: -1, index: index as u32, errno },
        };
        let brought = calls.iter().map(out_length).max().unwrap_or(0);
        // SAFETY: both parts lie behind each other, without padding between them, and are plain bytes.
        let bytes = unsafe { core::slice::from_raw_parts((&raw const *reply).cast(), size_of::<Answer>() + brought) };
        sys::send(socket, bytes, fd);
        if fd >= 0 {
            sys::close(fd);
        }
        fds.into_iter().filter(|&fd| fd >= 0).for_each(sys::close);
    }
}

fn parts(message: &[u8; MOST_BYTES]) -> (&Message, &[Call; MOST_CALLS]) {
    const { assert!(size_of::<Message>() + size_of::<Call>() * MOST_CALLS < MOST_BYTES) }
    const { assert!(size_of::<Message>().is_multiple_of(align_of::<Call>())) }
    // SAFETY: the buffer is aligned to 16 bytes and longer than both; every pattern of bits is a value of these integers.
    unsafe { (&*message.as_ptr().cast(), &*message.as_ptr().add(size_of::<Message>()).cast()) }
}

/// Makes calls up to the first that fails: the result of the last, or which one failed, and its errno.
fn carry_out(
    message: &[u8; MOST_BYTES],
    calls: &[Call],
    fds: &[i32; MOST_FDS],
    out: &mut [u8; MOST_BYTES],
) -> Result<i64, (usize, i32)> {
    let mut last = 0;
    for (index, call) in calls.iter().enumerate() {
        let mut arguments = [0usize; 6];
        for (slot, (&kind, &number)) in arguments.iter_mut().zip(call.kinds.iter().zip(&call.arguments)) {
            let number = number as usize;
            *slot = match kind {
                kind if kind == Kind::Bytes as u8 => message.as_ptr() as usize + number.min(MOST_BYTES),
                kind if kind == Kind::Fd as u8 => fds[number % MOST_FDS] as usize,
                kind if kind == Kind::Out as u8 => out.as_mut_ptr() as usize,
                _ => number,
            };
        }
        last = sys::by_number(call.number as usize, arguments).map_err(|errno| (index, errno))? as i64;
    }
    Ok(last)
}

/// How many bytes a call may have written for the answer: all that it was given.
fn out_length(call: &Call) -> usize {
    let place = call.kinds.iter().position(|&kind| kind == Kind::Out as u8);
    place.and_then(|place| call.arguments.get(place + 1)).map_or(0, |&length| (length as usize).min(MOST_BYTES))
}
