//! The end: of a run, and of the container. Why it came, what is written down of it, and what is taken away.

use core::mem::size_of;

use super::clients::{Chunk, Clients};
use super::{FAILED, SECOND, Stage, State, hooks, remove};
use crate::monitor::{
    Begun, EXITED, ExitHead, KILLED, MAGIC, MOST_CLIENTS, OUT_OF_MEMORY, OWNER_GONE, SIGNALED, SPARED_MEMORY,
    START_FAILED, Section, TOLD_OOM, TOLD_SIGNAL, VERSION, WAS_KILLED, event, request,
};
use crate::plan::When;
use crate::planfile::bytes_of;
use crate::report::{KILLED_FOR_MEMORY, SPARED, Usage};
use crate::step::Step;
use crate::sys::{self, CStr, O_CREAT, O_WRONLY, PollFd};

impl State<'_> {
    /// Ends the container at once, and for good.
    pub(super) fn end_it(&mut self) {
        const ECANCELED: i32 = 125;
        self.may_restart = false;
        if let Stage::Waiting(_) = self.stage {
            self.stage = Stage::Ended;
        }
        if self.control >= 0 {
            // The library finds the launcher gone, and would not know why.
            sys::send(self.control, bytes_of(&Begun { clone_errno: ECANCELED, ..Begun::default() }), -1);
        }
        self.thaw();
        let is_sent = self.first >= 0 && !sys::pidfd_send_signal(self.first, sys::SIGKILL).is_err_and(sys::is_hidden);
        if !is_sent && self.launcher > 0 {
            let _ = sys::kill(self.launcher, sys::SIGKILL);
        }
        self.thaw();
    }

    /// What is frozen on version 1 takes no signal.
    pub(super) fn thaw(&self) {
        if self.monitor.freezer < 0 {
            return;
        }
        let (name, word): (CStr, &[u8]) = match self.monitor.freezer_is_v2 {
            0 => (c"freezer.state".as_ptr().cast(), b"THAWED"),
            _ => (c"cgroup.freeze".as_ptr().cast(), b"0"),
        };
        if let Ok(file) = sys::openat(self.monitor.freezer, name, O_WRONLY, 0) {
            let _ = sys::write_all(file, word);
            sys::close(file);
        }
    }

    /// The launcher has ended, and everything below it.
    pub(super) fn reap(&mut self) {
        self.status = sys::wait_for(self.launcher).unwrap_or(0);
        sys::close(self.launcher_pidfd);
        (self.launcher, self.launcher_pidfd) = (0, -1);
        // We may have the other end, too.
        while self.report >= 0 && sys::poll_for(&mut [PollFd::readable(self.report)], 0) == Ok(1) {
            self.hear_the_launcher();
        }
        sys::close(self.report);
        self.report = -1;
        if self.first >= 0 {
            sys::close(self.first);
            self.first = -1;
        }
        if self.runner_for == When::CreateRuntime {
            self.runner.end();
        }
        if self.stage == Stage::StartedAgain {
            self.flags |= START_FAILED;
        } else {
            self.flags &= !START_FAILED;
        }
        if self.is_out_of_memory() {
            self.flags |= OUT_OF_MEMORY;
        }
        self.stage = match self.restart_at() {
            Some(moment) => {
                self.write_waiting(moment);
                self.tell_the_end();
                Stage::Waiting(moment)
            }
            None => Stage::Ended,
        };
    }

    /// The library is gone, or could not go on: nothing of the container is to be left.
    pub(super) fn give_up(&mut self) -> i32 {
        sys::close(self.report);
        self.thaw();
        if self.launcher > 0 {
            let _ = sys::kill(self.launcher, sys::SIGKILL);
            let _ = sys::wait_for(self.launcher);
        }
        self.remove_groups();
        self.tell_the_end();
        let dir = self.monitor.dir;
        for name in [c"socket", c"running.new", c"running"] {
            let _ = sys::unlink(dir, name.as_ptr().cast());
        }
        FAILED
    }

    /// Writes down how it ended, takes away what it had, and tells.
    pub(super) fn finish(&mut self, chunk: &mut Chunk, clients: &mut Clients) -> i32 {
        let mut head = self.exit_head();
        let dir = self.monitor.dir;
        let (aside, place) = (c"exit.room".as_ptr().cast(), c"exit".as_ptr().cast());
        // It was made at the start, with room in it, for a disk that has become full.
        let file = sys::openat(dir, aside, O_CREAT | O_WRONLY, 0o600).unwrap_or(-1);
        let mut at = size_of::<ExitHead>() as u64;
        for reading in self.plan.list(self.monitor.readings) {
            let name = self.plan.text(reading.name);
            let Ok(source) = sys::openat(reading.dir, self.plan.str(reading.name), 0, 0) else { continue };
            let length = sys::read(source, chunk.room()).unwrap_or(0);
            sys::close(source);
            let text = chunk.room().get(..length).unwrap_or(&[]);
            let section = Section { is_v2: reading.is_v2, name: name.len() as u32, text: length as u64 };
            let mut next = at;
            let mut is_whole = true;
            for part in [bytes_of(&section), name, text] {
                is_whole &= sys::pwrite(file, part, next) == Ok(part.len());
                next += part.len() as u64;
            }
            if is_whole {
                (at, head.sections) = (next, head.sections + 1);
            }
        }
        let is_written = sys::pwrite(file, bytes_of(&head), 0) == Ok(size_of::<ExitHead>());
        let _ = sys::truncate(file, at);
        sys::close(file);
        // On a full disk there is room for that now.
        self.log.tell_lost();
        self.remove_groups();
        // Before anybody can start it again, and listen there.
        let _ = sys::unlink(dir, c"socket".as_ptr().cast());
        let is_removed = remove::remove(self.plan, self.monitor, chunk.room());
        if is_written && !is_removed {
            let _ = sys::rename(dir, aside, place);
        }
        // Who is told finds it so.
        self.tell_the_end();
        if is_removed {
            self.tell(event::DELETED);
            hooks::run(self.plan, When::Poststop, None, -1);
        }
        // Who has asked just now, or before anything of it ran, is to be told, too.
        while sys::poll_for(&mut [PollFd::readable(self.monitor.listener)], 0) == Ok(1)
            && clients.accept(self.monitor.listener)
        {}
        for index in 0..MOST_CLIENTS {
            while let Some([what, _]) = clients.request(index) {
                if what == request::AWAIT {
                    clients.await_end(index);
                }
            }
        }
        sys::close(self.monitor.lock);
        let oom = if self.flags & OUT_OF_MEMORY != 0 { TOLD_OOM } else { 0 };
        clients.tell_the_end(if head.how == EXITED { head.value } else { TOLD_SIGNAL | oom | head.value & 0x7f });
        0
    }

    /// How the run ended that was the last one until now.
    pub(super) fn exit_head(&self) -> ExitHead {
        let (how, value) = self.how_it_ended();
        ExitHead {
            magic: MAGIC,
            version: VERSION,
            run: self.monitor.run,
            began_ns: self.began_ns,
            ended_ns: sys::now_ns(false),
            wall_ns: sys::now_ns(true) - self.began,
            usage: self.last_word.map_or(Usage::NONE, |word| word.usage),
            lost_records: self.log.lost_records,
            lost_bytes: self.log.lost_bytes,
            how,
            value,
            flags: self.flags | if self.is_spared() { SPARED_MEMORY } else { 0 },
            restarts: self.restarts,
            sections: 0,
            ooms: self.ooms,
        }
    }

    pub(super) fn remove_groups(&self) {
        const EBUSY: i32 = 16;
        let paths = self.plan.list(self.monitor.remove);
        let deadline = sys::now_ns(true) + SECOND;
        for &path in paths {
            // Who has ended may be counted for a moment longer.
            while sys::rmdir(self.plan.str(path)) == Err(EBUSY) && sys::now_ns(true) < deadline {
                let _ = sys::poll_for(&mut [], 1_000_000);
            }
        }
    }

    /// Tells the end of a run that was told.
    pub(super) fn tell_the_end(&mut self) {
        if core::mem::replace(&mut self.is_up, false) {
            if self.flags & OUT_OF_MEMORY != 0 {
                self.tell(event::OOM);
            }
            self.tell(event::DIED);
        }
    }

    pub(super) fn how_it_ended(&self) -> (u32, i32) {
        match self.last_word {
            Some(word) if self.flags & START_FAILED != 0 => (KILLED, i32::from(word.step)),
            Some(word) if word.step == Step::Exited as u16 => (EXITED, word.value),
            Some(word) => (SIGNALED, word.value),
            None => (KILLED, self.status),
        }
    }

    /// How many the kernel has killed in the group for want of memory.
    pub(super) fn count_ooms(&self) -> u32 {
        const WORD: &[u8] = b"oom_kill ";
        let mut text = [0u8; 1024];
        for reading in self.plan.list(self.monitor.readings) {
            if !matches!(self.plan.text(reading.name), b"memory.events" | b"memory.oom_control") {
                continue;
            }
            let Ok(file) = sys::openat(reading.dir, self.plan.str(reading.name), 0, 0) else { continue };
            let length = sys::read(file, &mut text).unwrap_or(0);
            sys::close(file);
            let lines = text.get(..length).unwrap_or(&[]).split(|&byte| byte == b'\n');
            if let Some(digits) = lines.filter_map(|line| line.strip_prefix(WORD)).next() {
                let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
                return digits.fold(0, |sum: u32, digit| sum.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')));
            }
        }
        0
    }

    /// True if it was the kernel, for want of memory.
    pub(super) fn is_out_of_memory(&self) -> bool {
        let is_killed = self.how_it_ended() == (SIGNALED, sys::SIGKILL) && self.flags & (WAS_KILLED | OWNER_GONE) == 0;
        let told = self.last_word.map_or(0, |word| usize::from(word.index));
        is_killed && told != SPARED && (told == KILLED_FOR_MEMORY || self.count_ooms() > self.ooms)
    }

    /// True if SIGKILL came from somebody else than the kernel.
    pub(super) fn is_spared(&self) -> bool {
        let (how, _) = self.how_it_ended();
        how == SIGNALED && self.last_word.is_some_and(|word| usize::from(word.index) == SPARED)
    }
}
