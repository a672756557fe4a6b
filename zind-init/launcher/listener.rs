//! A filter with a listener, which has to reach the library although the filter may refuse every call from then on.
//!
//! A filter holds for the thread that installs it, so another thread sends the listener. The payload's own waits for that
//! without a call, since executing the program ends the other.

use core::sync::atomic::{AtomicI32, Ordering};

use crate::plan::MARKED;
use crate::planfile::PlanFile;
use crate::report::Report;
use crate::step::Step;
use crate::{At, Done, Failure, measured, planfile, sys};

/// The listener's number, or one of these.
static LISTENER: AtomicI32 = AtomicI32::new(NOT_YET);
const NOT_YET: i32 = -1;
const FAILED: i32 = -2;
const SENT: i32 = -3;
/// It could not be sent: this, and the errno below it.
const UNSENT: i32 = -0x1_0000;

const NEW_LISTENER: u64 = 1 << 3;

/// Installs a filter, and has its listener sent. Signals are unblocked on the way.
pub fn install(plan: &PlanFile, filter: &[u64]) -> Done {
    static mut STACK: [u8; 16384] = [0; 16384];
    // SAFETY: the one use of the stack; it is called once.
    let stack = unsafe { &mut *(&raw mut STACK) };
    sys::thread(stack, send, (&raw const *plan).cast()).at(Step::Seccomp)?;
    let _ = sys::set_all_signals_blocked(false);
    let installed = sys::seccomp(filter, plan.seccomp_flags | NEW_LISTENER);
    let is_there = if plan.has(MARKED) && installed.is_ok() { measured::filter_answers() } else { Ok(()) };
    LISTENER.store(installed.ok().filter(|_| is_there.is_ok()).map_or(FAILED, |fd| fd as i32), Ordering::Release);
    installed.at(Step::Seccomp)?;
    is_there?;
    loop {
        match LISTENER.load(Ordering::Acquire) {
            SENT => return Ok(()),
            unsent if unsent <= UNSENT => return Err(Failure(Step::Seccomp, 0, UNSENT - unsent)),
            _ => core::hint::spin_loop(),
        }
    }
}

/// The other thread, with every signal blocked and no filter.
extern "C" fn send(plan: *const u8) -> ! {
    // SAFETY: the plan stays where it is for as long as the program does, and nobody changes it meanwhile.
    let plan = unsafe { &*plan.cast::<PlanFile>() };
    loop {
        match LISTENER.load(Ordering::Acquire) {
            NOT_YET => sys::yield_cpu(),
            FAILED => break,
            fd => {
                LISTENER.store(hand_over(plan, fd).map_or_else(|errno| UNSENT - errno, |()| SENT), Ordering::Release);
                break;
            }
        }
    }
    sys::exit_thread()
}

/// To the library, by the report socket or by what stands for it.
fn hand_over(plan: &PlanFile, listener: i32) -> sys::Result<()> {
    let socket = if plan.handover >= 0 { plan.handover } else { plan.socket };
    match sys::tell(socket, planfile::bytes_of(&Report::new(Step::HandedListener, 0, 0)), listener) {
        // A library that is gone needs to know nothing.
        Ok(_) | Err(sys::EPIPE | sys::ECONNRESET) => Ok(()),
        Err(errno) => {
            // Else calls that it asks about would wait for an answer, the exit among them.
            sys::close(listener);
            Err(errno)
        }
    }
}
