//! `zind-init`: carries out one [`plan::Plan`], reports, and becomes the payload or watches over it.
//!
//! It runs alone in its own memory, already in the container's namespaces or on the way into them. It parses no text,
//! looks nothing up, allocates nothing and decides nothing: each step is a system call or a few, with arguments that
//! stand ready in the plan, and the first that fails is reported with its step, index and errno.
#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]

mod again;
mod deputy;
mod exec;
mod files;
mod groups;
mod hooks;
mod labels;
mod landlock;
mod listener;
mod measured;
mod memory;
#[allow(dead_code)]
#[path = "../src/monitor.rs"]
mod monitor;
mod monitoring;
mod namespaces;
mod next;
mod older;
#[allow(dead_code)]
#[path = "../src/measured.rs"]
mod part;
mod payload;
#[allow(dead_code)]
#[path = "../src/plan.rs"]
mod plan;
mod planfile;
#[allow(dead_code)]
#[path = "../src/report.rs"]
mod report;
mod shortage;
#[allow(dead_code)]
#[path = "../src/step.rs"]
mod step;
mod sys;
mod sysctls;
mod terminal;
mod watch;
#[allow(dead_code)]
#[path = "../src/deputy.rs"]
mod wire;

use core::arch::global_asm;

use plan::{DEPUTY, FORK_FIRST, GROUPS_EARLY, MONITOR, TEMPLATE, Topology, WAIT_WHEN_READY};
use planfile::PlanFile;
use report::{GO, Report};
use step::Step;

// The kernel enters with argc at the stack pointer and argv right above it.
global_asm!(".globl _start", "_start:", "mov rdi, rsp", "and rsp, -16", "call {start}", "ud2", start = sym start);

/// Exit status of a launcher that failed; the report has said why.
const FAILED: i32 = 125;

/// What went wrong: the step, which element of its list, the errno.
pub struct Failure(Step, usize, i32);

pub type Done = Result<(), Failure>;

/// Names the step of a failed call.
pub trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Failure>;
}

impl<T> At<T> for sys::Result<T> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Failure> {
        self.map_err(|errno| Failure(step, index, errno))
    }
}

/// Tells the library, handing over `fd` unless it is negative. What could not be told ends this process: the library waits for it.
pub fn report(plan: &PlanFile, step: Step, index: usize, value: i32, fd: i32) {
    if !is_reported(plan, step, index, value, fd) {
        sys::exit(FAILED);
    }
}

/// The same; false if it could not be told. A library that is gone needs to know nothing.
pub fn is_reported(plan: &PlanFile, step: Step, index: usize, value: i32, fd: i32) -> bool {
    let report = Report::new(step, index, value);
    matches!(sys::tell(plan.socket, planfile::bytes_of(&report), fd), Ok(_) | Err(sys::EPIPE | sys::ECONNRESET))
}

pub fn report_all(plan: &PlanFile, report: &Report, fd: i32) {
    sys::send(plan.socket, planfile::bytes_of(report), fd);
}

extern "C" fn start(stack: *const usize) -> ! {
    let Some(mut plan) = planfile::from_arguments(stack) else { sys::exit(FAILED) };
    let status = match carry_out(&mut plan) {
        Ok(status) => status,
        Err(failure) => fail(&plan, failure),
    };
    sys::exit(status)
}

/// Reports a failure; the value is the exit status.
fn fail(plan: &PlanFile, Failure(step, index, errno): Failure) -> i32 {
    report(plan, step, index, errno, -1);
    FAILED
}

fn carry_out(plan: &mut PlanFile) -> Result<i32, Failure> {
    planfile::close_other_descriptors(plan)?;
    measured::descriptors_are_closed(plan, plan.list(plan.keep))?;
    // One that is not blocked would not come where it is waited for.
    sys::set_all_signals_blocked(true).at(Step::Signals)?;
    sys::reset_signals();
    match sys::wait_any(sys::WNOHANG) {
        Err(errno) if sys::is_hidden(errno) => return Err(Failure(Step::Wait, 0, errno)),
        _ => {}
    }
    // Named by hand: the program is a memory file, whose name says nothing.
    const PR_SET_NAME: i32 = 15;
    let _ = sys::prctl(PR_SET_NAME, c"zind-init".as_ptr() as usize, 0);
    if plan.has(MONITOR) {
        return Ok(monitoring::start(plan));
    }
    if plan.topology == Topology::Exec {
        return exec::start(plan);
    }
    if plan.topology == Topology::Init && !plan.has(FORK_FIRST | TEMPLATE | DEPUTY) {
        // Else we would be about to change the mounts of whoever has started us.
        measured::expect(plan, part::Part::Process, 1, sys::getpid() as u64)?;
    }
    namespaces::enter(plan)?;
    if plan.has(FORK_FIRST)
        && let Some(status) = watch::go_on_in_a_child(plan)?
    {
        return Ok(status);
    }
    match plan.topology {
        Topology::Init => {
            build(plan)?;
            if plan.has(DEPUTY) {
                report(plan, Step::Ready, 0, sys::getpid(), -1);
                return Ok(deputy::serve(plan));
            }
            if plan.has(TEMPLATE) {
                report(plan, Step::Ready, 0, sys::getpid(), -1);
                return wait_for_go(plan).map(|()| 0);
            }
            watch::start_as_init(plan)
        }
        Topology::Watcher | Topology::Exec => watch::start_as_watcher(plan),
    }
}

/// Everything the container's first process does before it turns to the payload.
fn build(plan: &mut PlanFile) -> Done {
    if plan.has(GROUPS_EARLY) {
        groups::join(plan)?;
    }
    namespaces::set_clocks(plan)?;
    if plan.has(WAIT_WHEN_READY) {
        report(plan, Step::Ready, 0, sys::getpid(), -1);
        wait_for_go(plan)?;
    }
    namespaces::set_up(plan)?;
    let umask = sys::umask(0);
    // Ours can shrink at once, and the payload's is a copy of it; the network is still in the making.
    // With it the programs that are run now would lose what they are to have.
    let is_late = !plan.list(plan.hooks).is_empty();
    if !is_late {
        payload::shrink_bounding_set(plan)?;
    }
    files::carry_out(plan)?;
    if is_late {
        payload::shrink_bounding_set(plan)?;
    }
    sys::umask(umask);
    namespaces::finish_network(plan)?;
    sysctls::write(plan)
}

/// Sleeps until the library says go. If it is gone instead, so are we.
fn wait_for_go(plan: &PlanFile) -> Done {
    let mut word = [!GO];
    match sys::read(plan.socket, &mut word) {
        Ok(1) if word[0] == GO => Ok(()),
        _ => sys::exit(FAILED),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(FAILED)
}
