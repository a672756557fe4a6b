//! Hooks of OCI: programs that get the container's state on their standard input, and are waited for.
//!
//! Those of `createContainer` are the host's, by a descriptor opened before anything of the container was there, and run
//! with all that the launcher may do; those of `startContainer` are the container's own, so they run as its payload does and
//! may do no more.

use crate::exec::Outcome;
use crate::plan::{Hook, Str, Topology, When};
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys::{self, PollFd};
use crate::{Done, Failure, payload};

const PR_SET_PDEATHSIG: i32 = 1;
const ECANCELED: i32 = 125;
/// As much of what one says as comes into the error.
pub const MOST_TEXT: usize = 400;
/// Where the file of its program is in a hook: a script is opened once more by this number.
const PROGRAM: i32 = 3;
/// Above all that a hook gets.
const ABOVE: i32 = 10;

/// Before the root is changed; `root` is where they find themselves.
pub fn before_the_root(plan: &PlanFile, root: i32) -> Done {
    run_all(plan, When::CreateContainer, plan.hook_states.creating, root, |_| Ok(()))
}

/// Before the payload; each goes the rest of its way by itself.
pub fn before_the_payload(plan: &PlanFile) -> Done {
    // A change of ids makes the kernel forget with whom it ends.
    let as_the_payload = |plan: &PlanFile| {
        payload::settle(plan)?;
        payload::die_with_the_forker(plan)?;
        payload::seal(plan)
    };
    run_all(plan, When::StartContainer, plan.hook_states.created, -1, as_the_payload)
}

/// The first process of the container, as it is numbered in there.
fn own_pid(plan: &PlanFile) -> i32 {
    if plan.topology == Topology::Init { 1 } else { sys::getpid() }
}

/// Runs the hooks of one moment up to the first that fails.
fn run_all(plan: &PlanFile, when: When, state: Str, dir: i32, settle: fn(&PlanFile) -> Done) -> Done {
    for (index, hook) in plan.list(plan.hooks).iter().enumerate().filter(|(_, hook)| hook.when == when) {
        let mut said = [0u8; MOST_TEXT + 1];
        let mut length = 0;
        let state = State { text: plan.text(state), pid: Some(own_pid(plan)) };
        let result = run(plan, hook, state, dir, -1, settle, &mut said, &mut length);
        if let Err(value) = result {
            // The first byte tells a line of text from a report, whose size differs anyway.
            said[0] = b'#';
            if length > 0 {
                sys::send(plan.socket, said.get(..=length).unwrap_or(&[]), -1);
            }
            return Err(Failure(Step::Hook, index, value));
        }
    }
    Ok(())
}

/// The container's state: its text, and the pid that belongs at its end, before the last brace.
#[derive(Clone, Copy)]
pub struct State {
    pub text: &'static [u8],
    pub pid: Option<i32>,
}

/// Runs one in the directory `dir`, if that is not negative, and waits for it; it is ended when `stop` hangs up. What it says
/// comes into `said`, behind the first byte. An error is an errno, or the status of its end times -1.
#[allow(clippy::too_many_arguments)]
pub fn run(
    plan: &PlanFile,
    hook: &Hook,
    state: State,
    dir: i32,
    stop: i32,
    settle: fn(&PlanFile) -> Done,
    said: &mut [u8; MOST_TEXT + 1],
    length: &mut usize,
) -> Result<(), i32> {
    let input = sys::memory_file(c"zind-state".as_ptr().cast())?;
    let written = write_state(input, state);
    let ([output, output_end], [failed, failed_end]) = match (written, sys::pipe(), sys::pipe()) {
        (Ok(()), Ok(output), Ok(failed)) => (output, failed),
        (Err(errno), ..) | (_, Err(errno), _) | (_, _, Err(errno)) => return Err(errno),
    };
    let mut pidfd = -1;
    // It ends with us, also if we have ended before it says so.
    let above = Outcome::new()?;
    above.watch_over();
    let child = sys::clone(0, &mut pidfd)?;
    if child == 0 {
        plan.set_forked_by(above);
        become_hook(plan, hook, dir, [input, output_end, failed_end], settle);
    }
    [input, output_end, failed_end].into_iter().for_each(sys::close);
    let status = wait(child, [pidfd, output, stop], hook.timeout_ns, said, length);
    above.forget();
    let mut word = [0u8; 4];
    let has_failed = sys::read(failed, &mut word) == Ok(word.len());
    [output, failed, pidfd].into_iter().for_each(sys::close);
    match status {
        _ if has_failed => Err(i32::from_ne_bytes(word)),
        Ok(0) => Ok(()),
        Ok(status) => Err(-status),
        Err(errno) => Err(errno),
    }
}

fn write_state(file: i32, State { text, pid }: State) -> sys::Result<()> {
    let mut digits = [0u8; 12];
    let mut at = 0;
    let number = pid.map_or(&[][..], |pid| crate::watch::decimal(pid, &mut digits));
    let end = if pid.is_some() { &b"}"[..] } else { b"" };
    for part in [text, number, end] {
        if sys::pwrite(file, part, at)? != part.len() {
            return Err(sys::EAGAIN);
        }
        at += part.len() as u64;
    }
    Ok(())
}

/// Until it has ended: its status. What it has started by itself may go on, but nobody hears it any more.
fn wait(
    child: i32,
    [pidfd, output, stop]: [i32; 3],
    timeout_ns: u64,
    said: &mut [u8; MOST_TEXT + 1],
    length: &mut usize,
) -> sys::Result<i32> {
    let deadline = sys::now_ns(true).saturating_add(timeout_ns);
    let mut output = output;
    loop {
        let now = sys::now_ns(true);
        if now >= deadline {
            return end(child, sys::ETIMEDOUT);
        }
        let mut fds = [output, pidfd, stop].map(PollFd::readable);
        let left = if timeout_ns == u64::MAX { -1 } else { i64::try_from(deadline - now).unwrap_or(-1) };
        if sys::poll_for(&mut fds, left).is_err() {
            continue;
        }
        let has_ended = fds[1].revents != 0;
        // Once more at the end, whoever else may write there.
        if fds[0].revents != 0 && !hear(output, said, length) {
            output = -1;
        }
        if has_ended {
            return sys::wait_for(child);
        }
        if fds[2].revents != 0 {
            return end(child, ECANCELED);
        }
    }
}

/// The group of its own that it has, and itself, which may have left that.
fn end(child: i32, errno: i32) -> sys::Result<i32> {
    let _ = sys::kill(-child, sys::SIGKILL);
    let _ = sys::kill(child, sys::SIGKILL);
    sys::wait_for(child)?;
    Err(errno)
}

/// False at the end of what there is to hear.
fn hear(output: i32, said: &mut [u8; MOST_TEXT + 1], length: &mut usize) -> bool {
    let mut more = [0u8; 512];
    let Ok(count @ 1..) = sys::read(output, &mut more) else { return false };
    for (slot, byte) in said.iter_mut().skip(1 + *length).zip(more.iter().take(count)) {
        *slot = *byte;
        *length += 1;
    }
    true
}

/// The child that is to be the program.
fn become_hook(plan: &PlanFile, hook: &Hook, dir: i32, fds: [i32; 3], settle: fn(&PlanFile) -> Done) -> ! {
    let [input, output, failed] = fds;
    let mut failed_above = failed;
    let errno = match arrange(plan, hook, dir, input, output, &mut failed_above) {
        Err(errno) => errno,
        Ok(()) => match settle(plan) {
            Err(Failure(_, _, errno)) => errno,
            Ok(()) => {
                let (argv, envp) = (plan.pointers(hook.argv), plan.pointers(hook.envp));
                let _ = sys::set_all_signals_blocked(false);
                if hook.fd >= 0 {
                    sys::execute(PROGRAM, argv, envp)
                } else {
                    sys::execve(plan.str(hook.path), argv, envp)
                }
            }
        },
    };
    let _ = sys::write_all(failed_above, &errno.to_ne_bytes());
    sys::exit(127)
}

/// A session, streams and a mask of its own; nothing else stays open.
fn arrange(plan: &PlanFile, hook: &Hook, dir: i32, input: i32, output: i32, failed: &mut i32) -> sys::Result<()> {
    sys::setsid()?;
    if dir >= 0 {
        sys::fchdir(dir)?;
    }
    sys::prctl(PR_SET_PDEATHSIG, sys::SIGKILL as usize, 0)?;
    payload::end_if_abandoned(plan);
    sys::umask(0o022);
    let input = sys::dup_above(input, ABOVE)?;
    let output = sys::dup_above(output, ABOVE)?;
    *failed = sys::dup_above(*failed, ABOVE)?;
    let program = if hook.fd >= 0 { sys::dup_above(hook.fd, ABOVE)? } else { -1 };
    for (from, to) in [(input, 0), (output, 1), (output, 2)] {
        sys::dup_to(from, to)?;
    }
    let first = if program >= 0 {
        sys::dup_to(program, PROGRAM)?;
        PROGRAM + 1
    } else {
        PROGRAM
    };
    const CLOSE_ON_EXEC: u32 = 4;
    sys::close_range(first as u32, u32::MAX, CLOSE_ON_EXEC).map(drop)
}
