//! Starting the container again from its plan, which the monitor does without the library.

use super::hooks::Runner;
use super::{FAILED, SECOND, Stage, State};
use crate::monitor::{OUT_OF_MEMORY, RestartWhen, START_FAILED};
use crate::plan::{List, Str, When};
use crate::report::{GO, Report};
use crate::step::Step;
use crate::sys::{self, CStr, O_WRONLY};

const FIRST_DELAY: u64 = SECOND / 10;
const LONGEST_DELAY: u64 = 60 * SECOND;
/// Who has run that long has not failed at once.
const LONG_ENOUGH: u64 = 10 * SECOND;

impl State<'_> {
    /// When it is to be started again, if it is.
    pub(super) fn restart_at(&mut self) -> Option<u64> {
        let succeeded = self.flags & START_FAILED == 0
            && self.last_word.is_some_and(|word| word.step == Step::Exited as u16 && word.value == 0);
        let most = self.monitor.restart_most;
        let wanted = match self.monitor.restart {
            RestartWhen::Never => false,
            RestartWhen::Failure => !succeeded && (most == 0 || self.restarts < most),
            RestartWhen::Always => true,
        };
        if !wanted || !self.may_restart {
            return None;
        }
        let now = sys::now_ns(true);
        self.failures = if now - self.began >= LONG_ENOUGH { 0 } else { self.failures + 1 };
        let delay = FIRST_DELAY << self.failures.saturating_sub(1).min(16);
        Some(now + delay.min(LONGEST_DELAY))
    }

    /// Starts the container again from its plan.
    pub(super) fn start_again(&mut self) {
        self.restarts += 1;
        self.last_word = None;
        self.flags &= !OUT_OF_MEMORY;
        self.ooms = self.count_ooms();
        (self.began_ns, self.began) = (sys::now_ns(false), sys::now_ns(true));
        self.stage = Stage::StartedAgain;
        if self.prepare_again().is_err() {
            return self.failed_again();
        }
        let begun = self.clone_launcher();
        if begun.clone_errno != 0 {
            self.last_word = Some(Report::new(Step::Clone, 0, begun.clone_errno));
            self.failed_again();
        }
    }

    pub(super) fn failed_again(&mut self) {
        self.flags |= START_FAILED;
        self.stage = match self.restart_at() {
            Some(moment) => {
                self.write_waiting(moment);
                Stage::Waiting(moment)
            }
            None => Stage::Ended,
        };
    }

    /// What is used up by each start.
    pub(super) fn prepare_again(&mut self) -> sys::Result<()> {
        let [ours, theirs] = sys::message_pair()?;
        sys::dup_to(theirs, self.monitor.report_slot)?;
        sys::close(theirs);
        self.report = ours;
        sys::tell_senders(ours)?;
        if self.monitor.groups_done >= 0 {
            let [ready, done] = sys::pipe()?;
            sys::dup_to(ready, self.monitor.groups_ready_slot)?;
            sys::dup_to(done, self.monitor.groups_done)?;
            sys::close(ready);
            sys::close(done);
        }
        for tree in self.plan.list(self.monitor.trees) {
            // One can be attached once.
            let copy =
                sys::open_tree(tree.from, sys::EMPTY, sys::AT_EMPTY_PATH | sys::AT_RECURSIVE | sys::OPEN_TREE_CLONE)?;
            sys::dup_to(copy, tree.to)?;
            sys::close(copy);
        }
        if self.terminal >= 0 && self.monitor.terminal_slot >= 0 {
            // The end of a session hangs its terminal up; there is another end of it for the next.
            let peer = sys::terminal_of(self.terminal)?;
            sys::dup_to(peer, self.monitor.terminal_slot)?;
            sys::close(peer);
            self.out[0] = self.terminal;
        }
        Ok(())
    }

    /// Writes the maps of who has made its namespaces, and lets it go on.
    pub(super) fn say_go(&mut self, pid: i32) {
        let [setgroups, uid_map, gid_map] = self.monitor.maps;
        for (name, text) in [(&b"/setgroups"[..], setgroups), (b"/uid_map", uid_map), (b"/gid_map", gid_map)] {
            if text != Str(0) {
                self.write_of(pid, name, self.plan.text(text));
            }
        }
        let mut number = [0u8; 16];
        let mut digits = [0u8; 12];
        for (slot, digit) in number.iter_mut().zip(crate::watch::decimal(pid, &mut digits)) {
            *slot = *digit;
        }
        for program in self.monitor.map_programs {
            if program.len > 0 {
                self.run(program, &number);
            }
        }
        if !self.run_hooks(When::CreateRuntime, pid) {
            self.go_on_after_hooks(true);
        }
    }

    /// Runs a program whose second argument is `number`, and waits for it. Whether it has done its work the launcher finds.
    pub(super) fn run(&self, program: List<Str>, number: &[u8; 16]) {
        const MOST_ARGUMENTS: usize = 64;
        let mut argv: [CStr; MOST_ARGUMENTS + 1] = [core::ptr::null(); MOST_ARGUMENTS + 1];
        // The list has eight bytes for each offset.
        let offsets =
            self.plan.list(List::<u64> { offset: program.offset, len: program.len, of: core::marker::PhantomData });
        for (slot, offset) in argv.iter_mut().zip(offsets.iter().take(MOST_ARGUMENTS)) {
            *slot = self.plan.str(Str(*offset as u32));
        }
        argv[1] = number.as_ptr();
        let mut pidfd = -1;
        let Ok(pid) = sys::fork(0, &mut pidfd) else { return };
        if pid == 0 {
            let envp: [CStr; 1] = [core::ptr::null()];
            let _ = sys::execve(argv[0], argv.as_ptr(), envp.as_ptr());
            sys::exit(FAILED)
        }
        sys::close(pidfd);
        let _ = sys::wait_for(pid);
    }

    pub(super) fn write_of(&self, pid: i32, file: &[u8], text: &[u8]) {
        let mut name = [0u8; 32];
        let mut digits = [0u8; 12];
        let parts = [crate::watch::decimal(pid, &mut digits), file];
        for (slot, byte) in name.iter_mut().zip(parts.into_iter().flatten()) {
            *slot = *byte;
        }
        if let Ok(file) = sys::openat(self.monitor.proc, name.as_ptr(), O_WRONLY, 0) {
            let _ = sys::write_all(file, text);
            sys::close(file);
        }
    }

    /// True if there is something to run; the monitor goes on meanwhile.
    pub(super) fn run_hooks(&mut self, when: When, pid: i32) -> bool {
        self.runner.end();
        let Some(runner) = Runner::start(self.plan, when, pid) else { return false };
        (self.runner, self.runner_for) = (runner, when);
        if self.runner.pid == 0 && when == When::CreateRuntime {
            self.go_on_after_hooks(false);
        }
        true
    }

    /// The launcher waits for them.
    pub(super) fn go_on_after_hooks(&mut self, is_well: bool) {
        const ECANCELED: i32 = 125;
        if is_well && sys::tell(self.report, &[GO], -1).is_ok() {
            return;
        }
        if self.launcher > 0 {
            self.last_word = Some(Report::new(Step::Hook, 0, ECANCELED));
            let _ = sys::kill(self.launcher, sys::SIGKILL);
        }
    }
}
