//! The launcher as a deputy: it makes the system calls that the library asks for, in the namespaces that it is in.

use core::mem::size_of;

use crate::plan::Plan;
use crate::sys;
use crate::wire::{ANSWER, Answer, Call, Kind, MOST_BYTES, MOST_CALLS, MOST_FDS, Message, SEND_RESULT};

/// The first failure that no answer has told yet.
#[derive(Clone, Copy)]
struct Failure {
    tag: u64,
    index: u32,
    errno: i32,
}

/// Aligned, as the calls in it are read where they stand.
#[repr(C, align(16))]
struct Buffer([u8; MOST_BYTES]);

/// Serves until the library is gone.
pub fn serve(plan: &Plan) -> i32 {
    // Too large for a stack that nobody has grown yet; in the zeroed part of the program they cost nothing until used.
    static mut MESSAGE: Buffer = Buffer([0; MOST_BYTES]);
    static mut ANSWER_BYTES: Buffer = Buffer([0; MOST_BYTES]);
    // SAFETY: there is one thread, and this function is called once.
    let (message, out) = unsafe { (&mut *(&raw mut MESSAGE), &mut *(&raw mut ANSWER_BYTES)) };
    let mut failure = None;
    sys::umask(0);
    loop {
        let mut fds = [-1i32; MOST_FDS];
        let length = match sys::receive(plan.socket, &mut message.0, &mut fds) {
            Ok(0) | Err(_) => return 0,
            Ok(length) => length,
        };
        let answer = carry_out(&mut message.0, length, &fds, &mut out.0, &mut failure);
        if let Some((result, send_result)) = answer {
            let told = failure.take();
            let Failure { tag, index, errno } = told.unwrap_or(Failure { tag: 0, index: 0, errno: 0 });
            let header = Answer { result: result as i64, tag, index, errno };
            let fd = if send_result && errno == 0 { result as i32 } else { -1 };
            sys::send_in_two(plan.socket, crate::planfile::bytes_of(&header), &out.0[..out_length(&message.0)], fd);
            if fd >= 0 {
                sys::close(fd);
            }
        }
        for fd in fds {
            if fd >= 0 {
                sys::close(fd);
            }
        }
    }
}

/// How many bytes of the answer the calls may have written: all that they were given.
fn out_length(message: &[u8; MOST_BYTES]) -> usize {
    let (header, calls) = parts(message);
    let mut end = 0;
    for call in &calls[..(header.calls as usize).min(MOST_CALLS)] {
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

fn parts(message: &[u8; MOST_BYTES]) -> (&Message, &[Call; MOST_CALLS]) {
    const { assert!(size_of::<Message>() + size_of::<Call>() * MOST_CALLS < MOST_BYTES) }
    // SAFETY: the buffer is aligned to 16 bytes and longer than both; every pattern of bits is a value of these integers.
    unsafe { (&*message.as_ptr().cast(), &*message.as_ptr().add(size_of::<Message>()).cast()) }
}

/// Makes the calls of one message: the last result, and whether it goes back as a descriptor, if an answer is wanted.
fn carry_out(
    message: &mut [u8; MOST_BYTES],
    length: usize,
    fds: &[i32; MOST_FDS],
    out: &mut [u8; MOST_BYTES],
    failure: &mut Option<Failure>,
) -> Option<(usize, bool)> {
    let (base, out) = (message.as_ptr() as usize, out.as_mut_ptr() as usize);
    let (header, calls) = parts(message);
    if length < size_of::<Message>() {
        return None;
    }
    let count = (header.calls as usize).min(MOST_CALLS);
    let mut results = [0usize; MOST_CALLS];
    let mut made = 0;
    for (index, call) in calls[..count].iter().enumerate() {
        if failure.is_some() {
            break;
        }
        let mut arguments = [0usize; 6];
        for (slot, (&kind, &number)) in arguments.iter_mut().zip(call.kinds.iter().zip(&call.arguments)) {
            let number = number as usize;
            *slot = match kind {
                1 => base + number.min(MOST_BYTES - 1),
                2 => fds[number % MOST_FDS] as usize,
                3 => results[number % MOST_CALLS],
                4 => out + number.min(MOST_BYTES - 1),
                _ => number,
            };
        }
        match sys::by_number(call.number as usize, arguments) {
            Ok(result) => (results[index], made) = (result, index + 1),
            Err(errno) => *failure = Some(Failure { tag: header.tag, index: index as u32, errno }),
        }
    }
    let sends = header.flags & SEND_RESULT != 0;
    for (call, &result) in calls[..made].iter().zip(&results) {
        if call.closes != 0 {
            sys::close(result as i32);
        }
    }
    let last = made.checked_sub(1).map_or(0, |last| results[last]);
    if sends && failure.is_some() && made == count && made > 0 {
        sys::close(last as i32);
    }
    (header.flags & ANSWER != 0).then_some((last, sends))
}
