//! A launcher that runs one program after the other in the same container.
//!
//! Between two of them it waits where it has been all the time: outside of the container, in a memory that nobody else has, with four
//! descriptors, none of them the container's. It ends when its owner does or lets go of it, when the container does, and when nobody
//! has wanted anything for a while. What a program leaves behind in it are numbers: the plan of the one before is unmapped before the
//! next process is forked, and so is the page that was shared with its process.

use crate::plan::{AGAIN_MOST, AGAIN_NUMBERS, CAPABILITIES, JOIN_TIME, KILL_DESCENDANTS, OOM_SCORE_ADJ};
use crate::planfile::{self, PlanFile};
use crate::step::Step;
use crate::sys::{self, PollFd};
use crate::{At, Failure, payload, watch};

const CAP_KILL: u64 = 1 << 5;
const CLONE_NEWUSER: u32 = 0x1000_0000;
/// How long it waits for the next program, in nanoseconds.
const PATIENCE: i64 = 1_000_000_000;
const WORD: usize = size_of::<i32>();

/// What it keeps from program to program.
pub struct Standing {
    /// Where the next program comes from, or -1: there will be none.
    control: i32,
    pub signals: i32,
    owner: i32,
    container: i32,
    /// Effective, permitted and inheritable ones.
    capabilities: [u64; 3],
}

impl Standing {
    /// The descriptors above the numbers that plans use, if more than one program is to come.
    pub fn new(plan: &mut PlanFile) -> Result<Standing, Failure> {
        let signals = sys::signalfd().at(Step::Fork)?;
        let capabilities = sys::capget().at(Step::Capabilities)?;
        let mut standing = Standing { control: -1, signals, owner: plan.owner, container: plan.container, capabilities };
        // What is done to the launcher itself is for one program.
        let is_for_one = plan.has(JOIN_TIME | KILL_DESCENDANTS | OOM_SCORE_ADJ) || plan.owner < 0 || plan.container < 0;
        if plan.control < 0 || is_for_one {
            return Ok(standing);
        }
        let up = |fd: i32| sys::dup_above(fd, AGAIN_NUMBERS);
        if let (Ok(control), Ok(high), Ok(owner), Ok(container)) =
            (up(plan.control), up(signals), up(plan.owner), up(plan.container))
        {
            sys::close(signals);
            standing = Standing { control, signals: high, owner, container, ..standing };
            plan.set_standing(owner, container);
        }
        sys::close(plan.control);
        Ok(standing)
    }

    /// The descriptor that makes it go on, or -1.
    pub fn control(&self) -> i32 {
        self.control
    }

    /// From here on only a signal can be sent: a mistake of ours must not be worth anything to the payload, and this is for
    /// payloads of another user.
    pub fn lay_down(&self) {
        let [_, permitted, inheritable] = self.capabilities;
        let _ = match self.control {
            ..0 => sys::capset(CAP_KILL, CAP_KILL, 0),
            _ => sys::capset(CAP_KILL & permitted, permitted, inheritable),
        };
    }

    /// After a program: waits for the next one, whose plan takes the place of the last one's. False if there is none.
    pub fn wait(&mut self, plan: &mut PlanFile) -> bool {
        if self.control < 0 {
            return false;
        }
        watch::close_all_but([self.control, self.signals, self.owner, self.container, -1, -1, -1, -1], &[]);
        let [effective, permitted, inheritable] = self.capabilities;
        let _ = sys::capset(effective, permitted, inheritable);
        if plan.has(CAPABILITIES) && !plan.list(plan.enter).iter().any(|entry| entry.flags & CLONE_NEWUSER != 0) {
            // Whoever joins the container next need not do it; who wants more is served by another launcher. In another user
            // namespace they would be back.
            let _ = payload::shrink_bounding_set(plan);
        }
        loop {
            let mut fds = [self.control, self.owner, self.container, self.signals].map(PollFd::readable);
            let ready = sys::poll_for(&mut fds, PATIENCE);
            let [control, owner, container, signals] = fds.map(|fd| fd.revents != 0);
            match ready {
                Err(_) => {}
                Ok(_) if owner || container => return false,
                Ok(_) if control => return self.take(plan),
                Ok(_) if signals && self.is_about_children() => {}
                // Nothing for a while, or somebody wants us to end. What has been sent already is still done.
                Ok(_) => {
                    let _ = sys::shutdown_reading(self.control);
                    let is_there = self.take(plan);
                    self.control = -1;
                    return is_there;
                }
            }
        }
    }

    fn is_about_children(&self) -> bool {
        let mut info = [0u8; 128];
        sys::read(self.signals, &mut info).is_ok() && info[0] == sys::SIGCHLD as u8
    }

    /// The next program: the number of its plan, and the numbers of all descriptors that come along, in ascending order.
    fn take(&mut self, plan: &mut PlanFile) -> bool {
        let mut text = [0u8; WORD * (AGAIN_MOST + 1)];
        let mut fds = [-1i32; AGAIN_MOST];
        let Ok(length) = sys::receive(self.control, &mut text, &mut fds) else { return false };
        let mut words = [-1i32; AGAIN_MOST + 1];
        for (word, bytes) in words.iter_mut().zip(text.get(..length).unwrap_or(&[]).chunks_exact(WORD)) {
            *word = bytes.try_into().map_or(-1, i32::from_ne_bytes);
        }
        let Some((count, [number, numbers @ ..])) = (length / WORD).checked_sub(1).zip(Some(&words)) else { return false };
        let numbers = numbers.get(..count).unwrap_or(&[]);
        // They come under the lowest numbers, since we have no others there.
        let is_whole = fds.iter().zip(0..).all(|(&fd, index)| fd == if (index as usize) < count { index } else { -1 });
        let are_in_order = numbers.windows(2).all(|pair| matches!(pair, [one, other] if one < other));
        if !is_whole || !are_in_order || numbers.iter().any(|&number| !(0..AGAIN_NUMBERS).contains(&number)) {
            return false;
        }
        // None of them is above its place, so the last one first: nobody is on the place of another one then.
        for (from, &to) in numbers.iter().enumerate().rev() {
            let from = from as i32;
            let is_placed = if from == to { sys::keep_over_exec(from) } else { sys::dup_to(from, to) };
            if is_placed.is_err() {
                return false;
            }
        }
        if !planfile::close_between(numbers, AGAIN_NUMBERS as u32 - 1) || !plan.replace(*number) {
            return false;
        }
        plan.set_standing(self.owner, self.container);
        if plan.control < 0 {
            sys::close(self.control);
            self.control = -1;
        }
        true
    }
}
