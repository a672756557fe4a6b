//! Starting the launcher of the container as a child.

use super::State;
use crate::monitor::{Begun, RestartWhen};
use crate::planfile::bytes_of;
use crate::sys::{self, CStr};

const CLONE_NEWUSER: u64 = 0x1000_0000;

impl State<'_> {
    /// Starts the launcher of the container as our child.
    pub(super) fn clone_launcher(&mut self) -> Begun {
        static mut STACK: [u8; 16384] = [0; 16384];
        let monitor = self.monitor;
        let mut number = [0u8; 16];
        let mut digits = [0u8; 12];
        for (slot, digit) in number.iter_mut().zip(crate::watch::decimal(monitor.plan, &mut digits)) {
            *slot = *digit;
        }
        let mut task = Task {
            image: monitor.image,
            keeps_capabilities: monitor.clone_flags & CLONE_NEWUSER != 0,
            argv: [c"zind-init".as_ptr().cast(), number.as_ptr(), core::ptr::null()],
            errno: 0,
        };
        // SAFETY: the one use of the stack at a time: we sleep until the child is done with it.
        let stack = unsafe { &mut *(&raw mut STACK) };
        let mut pidfd = -1;
        let argument = (&raw mut task).cast::<u8>().cast_const();
        let cloned =
            sys::vfork_into(stack, monitor.clone_flags, monitor.cgroup, &mut pidfd, execute_launcher, argument);
        match cloned {
            Err(errno) => Begun { clone_errno: errno, ..Begun::default() },
            Ok(pid) => {
                self.launcher = pid;
                self.launcher_pidfd = pidfd;
                // SAFETY: the child, which is gone from our memory, may have written it.
                let exec_errno = unsafe { (&raw const task.errno).read_volatile() };
                if monitor.groups_done >= 0 {
                    self.attach(pid, monitor.groups_done);
                }
                // Whoever reads its reports must see it leave; the number stays taken, for the next start.
                let _ = sys::dup_to(monitor.proc, monitor.report_slot);
                Begun { pid, exec_errno, ..Begun::default() }
            }
        }
    }

    /// Writes the launcher's pid to the files of its groups, and how that went to `done`.
    pub(super) fn attach(&self, pid: i32, done: i32) {
        let mut digits = [0u8; 12];
        let text = crate::watch::decimal(pid, &mut digits);
        let mut told = [0i32; 2];
        for (index, &group) in self.plan.list(self.monitor.groups).iter().enumerate() {
            if let Err(errno) = sys::write_all(group, text) {
                told = [index as i32, errno];
                break;
            }
        }
        if sys::write_all(done, bytes_of(&told)).is_err() {
            // It would wait for good.
            let _ = sys::kill(pid, sys::SIGKILL);
        }
    }

    /// What only the launcher was to get, and its readers must see the last holder leave.
    pub(super) fn leave_to_the_launcher(&self) {
        if self.monitor.restart != RestartWhen::Never {
            return;
        }
        let monitor = self.monitor;
        let kept = [
            monitor.report,
            monitor.control,
            monitor.owner,
            monitor.listener,
            monitor.dir,
            monitor.proc,
            monitor.lock,
            monitor.stdin,
            monitor.stdout,
            monitor.stderr,
            monitor.log,
            monitor.freezer,
            monitor.events,
            monitor.home,
            monitor.names,
            self.launcher_pidfd,
        ];
        let readings = self.plan.list(self.monitor.readings);
        let mut next = 0;
        loop {
            let ours = kept.iter().copied().chain(readings.iter().map(|reading| reading.dir));
            let Some(fd) = ours.filter(|&fd| fd >= next).min() else { break };
            if fd > next {
                let _ = sys::close_range(next as u32, fd as u32 - 1, 0);
            }
            next = fd + 1;
        }
        let _ = sys::close_range(next as u32, u32::MAX, 0);
    }
}

/// What the launcher's process needs before it is the launcher.
struct Task {
    image: i32,
    keeps_capabilities: bool,
    argv: [CStr; 3],
    errno: i32,
}

extern "C" fn execute_launcher(task: *const u8) -> ! {
    // SAFETY: `clone_launcher` sleeps until we are gone; the structure is ours alone meanwhile.
    let task = unsafe { &mut *task.cast::<Task>().cast_mut() };
    if task.keeps_capabilities {
        keep_capabilities();
    }
    let envp: [CStr; 1] = [core::ptr::null()];
    task.errno = sys::execute(task.image, task.argv.as_ptr(), envp.as_ptr());
    sys::exit(127)
}

/// Carries the capabilities of a new user namespace over the execution of the launcher, which drops them when the maps are
/// there: see `sys/clone.rs` of the library.
fn keep_capabilities() {
    const PR_CAP_AMBIENT: i32 = 47;
    const PR_CAP_AMBIENT_RAISE: usize = 2;
    let Ok([effective, permitted, _]) = sys::capget() else { return };
    let _ = sys::capset(effective, permitted, permitted);
    let mut capability = 0;
    while sys::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability).is_ok() {
        capability += 1;
    }
}
