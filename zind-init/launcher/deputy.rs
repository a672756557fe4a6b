//! The launcher as a deputy: it makes the system calls that the library asks for, in the namespaces that it is in.

use core::mem::size_of;

use crate::planfile::{self, PlanFile};
use crate::sys;
use crate::wire::{Answer, Call, Kind, MOST_BYTES, MOST_CALLS, MOST_FDS, Message, SEND_RESULT};

/// Aligned, as the calls in it are read where they stand.
#[repr(C, align(16))]
struct Buffer([u8; MOST_BYTES]);

/// Serves until the library is gone.
pub fn serve(plan: &PlanFile) -> i32 {
    // In the zeroed part of the program they cost nothing until they are used.
    static mut MESSAGE: Buffer = Buffer([0; MOST_BYTES]);
    static mut OUT: Buffer = Buffer([0; MOST_BYTES]);
    // SAFETY: there is one thread, and this function is called once.
    let (message, out) = unsafe { (&mut *(&raw mut MESSAGE), &mut *(&raw mut OUT)) };
    sys::umask(0);
    loop {
        let mut fds = [-1i32; MOST_FDS];
        match sys::receive(plan.socket, &mut message.0, &mut fds) {
            Ok(length) if length >= size_of::<Message>() => {}
            _ => return 0,
        }
        let (header, calls) = parts(&message.0);
        let calls = &calls[..(header.calls as usize).min(MOST_CALLS)];
        let mut results = [0usize; MOST_CALLS];
        let (made, errno) = carry_out(&message.0, calls, &fds, &mut out.0, &mut results);
        let result = made.checked_sub(1).map_or(0, |last| results[last]);
        let is_sent = header.flags & SEND_RESULT != 0 && errno == 0 && made > 0;
        let answer = Answer { result: result as i64, index: made as u32, errno };
        let fd = if is_sent { result as i32 } else { -1 };
        sys::send_in_two(plan.socket, planfile::bytes_of(&answer), &out.0[..out_length(calls)], fd);
        for (call, &result) in calls[..made].iter().zip(&results) {
            if call.opens != 0 {
                sys::close(result as i32);
            }
        }
        fds.into_iter().filter(|&fd| fd >= 0).for_each(sys::close);
    }
}

fn parts(message: &[u8; MOST_BYTES]) -> (&Message, &[Call; MOST_CALLS]) {
    const { assert!(size_of::<Message>() + size_of::<Call>() * MOST_CALLS < MOST_BYTES) }
    const { assert!(size_of::<Message>() % align_of::<Call>() == 0) }
    // SAFETY: the buffer is aligned to 16 bytes and longer than both; every pattern of bits is a value of these integers.
    unsafe { (&*message.as_ptr().cast(), &*message.as_ptr().add(size_of::<Message>()).cast()) }
}

/// Makes calls up to the first that fails: how many were made, and its errno or 0.
fn carry_out(
    message: &[u8; MOST_BYTES],
    calls: &[Call],
    fds: &[i32; MOST_FDS],
    out: &mut [u8; MOST_BYTES],
    results: &mut [usize; MOST_CALLS],
) -> (usize, i32) {
    for (index, call) in calls.iter().enumerate() {
        let mut arguments = [0usize; 6];
        for (slot, (&kind, &number)) in arguments.iter_mut().zip(call.kinds.iter().zip(&call.arguments)) {
            let number = number as usize;
            *slot = match kind {
                kind if kind == Kind::Bytes as u8 => message.as_ptr() as usize + number.min(MOST_BYTES),
                kind if kind == Kind::Fd as u8 => fds[number % MOST_FDS] as usize,
                kind if kind == Kind::Result as u8 => results[number % MOST_CALLS],
                kind if kind == Kind::Out as u8 => out.as_mut_ptr() as usize + number.min(MOST_BYTES),
                _ => number,
            };
        }
        match sys::by_number(call.number as usize, arguments) {
            Ok(result) => results[index] = result,
            Err(errno) => return (index, errno),
        }
    }
    (calls.len(), 0)
}

/// How many bytes of the answer the calls may have written: all that they were given.
fn out_length(calls: &[Call]) -> usize {
    let mut end = 0;
    for call in calls {
        for (place, &kind) in call.kinds.iter().enumerate() {
            if kind == Kind::Out as u8 {
                // Every call that fills memory has its length in the argument behind it.
                let length = call.arguments.get(place + 1).copied().unwrap_or(0);
                end = end.max(call.arguments[place].saturating_add(length) as usize);
            }
        }
    }
    end.min(MOST_BYTES)
}
