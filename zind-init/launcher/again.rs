//! A launcher that runs one program after the other in the same container.
//!
//! Between two of them it waits where it has been all the time: outside of the container, in a memory that nobody else has, with four
//! descriptors, none of them the container's. It ends when its owner does or lets go of it, when the container does, and when nobody
//! has wanted anything for a while. What a program leaves behind in it are numbers: the plan of the one before is unmapped before the
//! next process is forked, and so is the page that was shared with its process.

use crate::next::Next;
use crate::plan::{
    AGAIN_MOST, AGAIN_NUMBERS, CAPABILITIES, JOIN_TIME, KILL_DESCENDANTS, MAKE_NEXT_READY, OOM_SCORE_ADJ,
};
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
    /// The same for one that is let in as the last one was. Read by a joiner that was made ready, if there is one.
    pub ready: i32,
    pub signals: i32,
    owner: i32,
    pub container: i32,
    /// Effective, permitted and inheritable ones.
    capabilities: [u64; 3],
    /// Programs so far.
    served: u32,
}

/// What comes after a program.
pub enum Turn {
    /// Nothing.
    Over,
    /// The next one: its plan has taken the place of the last one's.
    Plan,
    /// The next one: this joiner has its plan, and we have its report socket.
    Begun(Next),
}

impl Standing {
    /// The descriptors above the numbers that plans use, if more than one program is to come.
    pub fn new(plan: &mut PlanFile) -> Result<Standing, Failure> {
        let signals = sys::signalfd().at(Step::Fork)?;
        let capabilities = sys::capget().at(Step::Capabilities)?;
        let (owner, container) = (plan.owner, plan.container);
        let mut standing = Standing { control: -1, ready: -1, signals, owner, container, capabilities, served: 0 };
        // What is done to the launcher itself is for one program.
        let is_for_one = plan.has(JOIN_TIME | KILL_DESCENDANTS | OOM_SCORE_ADJ) || plan.owner < 0 || plan.container < 0;
        if plan.control < 0 || plan.ready < 0 || is_for_one {
            return Ok(standing);
        }
        let up = |fd: i32| sys::dup_above(fd, AGAIN_NUMBERS);
        if let (Ok(control), Ok(ready), Ok(high), Ok(owner), Ok(container)) =
            (up(plan.control), up(plan.ready), up(signals), up(plan.owner), up(plan.container))
        {
            sys::close(signals);
            standing = Standing { control, ready, signals: high, owner, container, ..standing };
            plan.set_standing(owner, container);
        }
        sys::close(plan.control);
        sys::close(plan.ready);
        Ok(standing)
    }

    /// The descriptors that make it go on; -1: it does not.
    pub fn sockets(&self) -> [i32; 2] {
        [self.control, self.ready]
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

    /// After a program: waits for the next one.
    pub fn wait(&mut self, plan: &mut PlanFile) -> Turn {
        if self.control < 0 {
            return Turn::Over;
        }
        watch::close_all_but(&[self.control, self.ready, self.signals, self.owner, self.container], &[]);
        let [effective, permitted, inheritable] = self.capabilities;
        let _ = sys::capset(effective, permitted, inheritable);
        if plan.has(CAPABILITIES) && !plan.list(plan.enter).iter().any(|entry| entry.flags & CLONE_NEWUSER != 0) {
            // Whoever joins the container next need not do it; who wants more is served by another launcher. In another user
            // namespace they would be back.
            let _ = payload::shrink_bounding_set(plan);
        }
        self.served = self.served.saturating_add(1);
        let mut next = self.next(plan);
        let turn = self.wait_beside(plan, &mut next);
        // It must not be in the container any more when we have ended, nor take what is meant for another one.
        if let Some(next) = next {
            next.dismiss();
        }
        turn
    }

    /// A joiner for a program that is let in as this one was. Who has asked twice is likely to ask once more; whoever has asked
    /// already gets none, since it takes longer than to go without.
    fn next(&self, plan: &mut PlanFile) -> Option<Next> {
        let mut asked = [self.control, self.ready, self.owner, self.container].map(PollFd::readable);
        let is_wanted = self.served > 1 && plan.has(MAKE_NEXT_READY) && sys::poll_for(&mut asked, 0) == Ok(0);
        if is_wanted { Next::make(plan, self) } else { None }
    }

    fn wait_beside(&mut self, plan: &mut PlanFile, next: &mut Option<Next>) -> Turn {
        loop {
            let beside = next.as_ref().map_or(self.ready, |next| next.relay);
            let mut fds = [self.control, self.owner, self.container, beside, self.signals].map(PollFd::readable);
            let ready = sys::poll_for(&mut fds, PATIENCE);
            let [control, owner, container, beside, signals] = fds.map(|fd| fd.revents != 0);
            match ready {
                Err(_) => {}
                Ok(_) if owner || container => return Turn::Over,
                Ok(_) if control => return self.take(self.control, plan),
                Ok(_) if beside => match next.take() {
                    None => return self.take(self.ready, plan),
                    Some(next) => match next.begun(plan) {
                        true => return Turn::Begun(next),
                        // It has ended, and what is sent from here on is ours.
                        false => drop(next.dismiss()),
                    },
                },
                Ok(_) if signals && self.is_about_children() => {}
                // Nothing for a while, or somebody wants us to end. What has been sent already is still done.
                Ok(_) => return self.take_the_last(plan, next),
            }
        }
    }

    fn take_the_last(&mut self, plan: &mut PlanFile, next: &mut Option<Next>) -> Turn {
        let _ = sys::shutdown_reading(self.control);
        let _ = sys::shutdown_reading(self.ready);
        let mut turn = Turn::Over;
        // It ends now, unless it has been sent something before.
        if let Some(next) = next.take_if(|next| next.is_heard()) {
            turn = if next.begun(plan) { Turn::Begun(next) } else { next.dismiss() };
        }
        for socket in [self.control, self.ready] {
            if let Turn::Over = turn {
                turn = self.take(socket, plan);
            }
        }
        (self.control, self.ready) = (-1, -1);
        turn
    }

    fn is_about_children(&self) -> bool {
        let mut info = [0u8; 128];
        sys::read(self.signals, &mut info).is_ok() && info[0] == sys::SIGCHLD as u8
    }

    fn take(&mut self, socket: i32, plan: &mut PlanFile) -> Turn {
        if !receive(socket, plan) {
            return Turn::Over;
        }
        plan.set_standing(self.owner, self.container);
        if plan.control < 0 {
            sys::close(self.control);
            sys::close(self.ready);
            (self.control, self.ready) = (-1, -1);
        }
        Turn::Plan
    }
}

/// The next program: the number of its plan, and the numbers of all descriptors that come along, in ascending order. False if
/// there is none, or the sender has gone.
pub fn receive(socket: i32, plan: &mut PlanFile) -> bool {
    let mut text = [0u8; WORD * (AGAIN_MOST + 1)];
    let mut fds = [-1i32; AGAIN_MOST];
    let Ok(length) = sys::receive(socket, &mut text, &mut fds) else { return false };
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
    planfile::close_between(numbers, AGAIN_NUMBERS as u32 - 1) && plan.replace(*number)
}
