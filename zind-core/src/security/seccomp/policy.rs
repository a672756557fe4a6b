//! What a filter says, as plain data: an [`Action`] for a call, a [`Rule`] with its [`Condition`]s, the [`Policy`] of a convention.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::assembler::{Instruction, assemble};
use crate::security::syscalls::Arch;

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// It is run.
    Allow,
    /// It is not run and fails with this errno. The kernel knows none above 4095.
    Errno(u16),
    /// The whole process dies of `SIGSYS`.
    KillProcess,
    /// The thread dies of `SIGSYS`, and the others go on.
    KillThread,
    /// It is not run, and the thread gets the signal `SIGSYS`, which it may handle.
    Trap,
    /// A tracer decides, and gets this number; it fails with `ENOSYS` where there is none.
    Trace(u16),
    /// It is run, and the kernel logs it.
    Log,
    /// Whoever has the listener decides; it fails with `ENOSYS` where there is nobody.
    Notify,
}

impl Action {
    pub(super) const EPERM: Action = Action::Errno(libc::EPERM as u16);
    pub(super) const ENOSYS: Action = Action::Errno(libc::ENOSYS as u16);
    pub(super) const EAFNOSUPPORT: Action = Action::Errno(libc::EAFNOSUPPORT as u16);

    /// `SECCOMP_RET_*`: what the program returns.
    pub(super) const fn code(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::Trace(number) => libc::SECCOMP_RET_TRACE | number as u32,
            Action::Log => libc::SECCOMP_RET_LOG,
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
        }
    }
}

/// How the action for one system call is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Always the same.
    Do(Action),
    /// By one argument, of which only the low 32 bits count: `match arguments[argument] as u32 & mask { arms, _ }`.
    ///
    /// That is right for arguments that the kernel takes as 32-bit numbers, which is what ids, flags and requests are;
    /// comparing all 64 bits would let a caller pass by a ban with rubbish in the upper half. Pointers cannot be
    /// judged by a filter at all.
    Match {
        /// The index of the argument, 0 to 5.
        argument: u8,
        /// The bits that count.
        mask: u32,
        /// Values and their rules; the first that is equal counts.
        arms: Vec<(u32, Rule)>,
        /// For all other values.
        otherwise: Box<Rule>,
    },
    /// The first action whose conditions all hold, else the last one. All 64 bits of the arguments count.
    First(Vec<(Vec<Condition>, Action)>, Action),
}

impl Rule {
    pub(super) const ALLOW: Rule = Rule::Do(Action::Allow);
    pub(super) const EPERM: Rule = Rule::Do(Action::EPERM);
    pub(super) const EAFNOSUPPORT: Rule = Rule::Do(Action::EAFNOSUPPORT);

    /// What becomes of a call with these arguments, without a program.
    pub fn action(&self, arguments: &[u64; 6]) -> Action {
        let argument = |index: u8| arguments.get(usize::from(index)).copied().unwrap_or(0);
        match self {
            Rule::Do(action) => *action,
            Rule::Match { argument: index, mask, arms, otherwise } => {
                let value = argument(*index) as u32 & mask;
                let arm = arms.iter().find(|(candidate, _)| *candidate == value).map(|(_, rule)| rule);
                arm.unwrap_or(otherwise).action(arguments)
            }
            Rule::First(choices, otherwise) => {
                let holds = |conditions: &[Condition]| conditions.iter().all(|one| one.holds(argument(one.argument)));
                choices.iter().find(|(conditions, _)| holds(conditions)).map_or(*otherwise, |(_, action)| *action)
            }
        }
    }

    /// The same rule with other actions.
    pub(super) fn map(&self, change: &dyn Fn(Action) -> Action) -> Rule {
        match self {
            Rule::Do(action) => Rule::Do(change(*action)),
            Rule::Match { argument, mask, arms, otherwise } => Rule::Match {
                argument: *argument,
                mask: *mask,
                arms: arms.iter().map(|(value, rule)| (*value, rule.map(change))).collect(),
                otherwise: Box::new(otherwise.map(change)),
            },
            Rule::First(choices, otherwise) => {
                let changed = choices.iter().map(|(conditions, action)| (conditions.clone(), change(*action)));
                Rule::First(changed.collect(), change(*otherwise))
            }
        }
    }

    /// True if it may come to this action.
    pub(super) fn has(&self, wanted: Action) -> bool {
        match self {
            Rule::Do(action) => *action == wanted,
            Rule::Match { arms, otherwise, .. } => {
                otherwise.has(wanted) || arms.iter().any(|(_, rule)| rule.has(wanted))
            }
            Rule::First(choices, otherwise) => {
                *otherwise == wanted || choices.iter().any(|(_, action)| *action == wanted)
            }
        }
    }

    /// `then` where a masked argument is one of `values`, else `otherwise`.
    pub(super) fn one_of(argument: u8, mask: u32, values: &[u32], then: Rule, otherwise: Rule) -> Rule {
        let arms = values.iter().map(|value| (*value, then.clone())).collect();
        Rule::Match { argument, mask, arms, otherwise: Box::new(otherwise) }
    }
}

/// How an argument is compared: as numbers of 64 bits without a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// Something to hold for an argument of a call: `argument & mask` compared with `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// The index of the argument, 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub compare: Compare,
    /// What it is compared with.
    pub value: u64,
    /// The bits that count.
    pub mask: u64,
}

impl Condition {
    /// Whether it holds for this argument.
    pub fn holds(&self, argument: u64) -> bool {
        let masked = argument & self.mask;
        match self.compare {
            Compare::Equal => masked == self.value,
            Compare::NotEqual => masked != self.value,
            Compare::Less => masked < self.value,
            Compare::LessOrEqual => masked <= self.value,
            Compare::Greater => masked > self.value,
            Compare::GreaterOrEqual => masked >= self.value,
        }
    }
}

/// The rules of one convention: one per system call number, and an action for all other numbers.
///
/// Calls by another convention (on x86_64 i386, and the x32 numbers from 0x4000_0000 on) kill the process whatever the rules
/// say: their numbers and arguments mean other things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(super) rules: BTreeMap<u32, Rule>,
    pub(super) otherwise: Action,
}

impl Policy {
    /// A policy without rules: `otherwise` for every call.
    pub const fn new(otherwise: Action) -> Policy {
        Policy { rules: BTreeMap::new(), otherwise }
    }

    /// Sets the rule of one number; the last one given counts. Numbers of x32 are killed all the same.
    pub fn set(&mut self, number: u32, rule: Rule) {
        self.rules.insert(number, rule);
    }

    /// The rule of one number. `None` where the policy has none.
    pub fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(&number)
    }

    /// The BPF program for these rules, of the machine's own convention.
    ///
    /// The kernel takes programs of up to 4096 instructions (`BPF_MAXINSNS`), which is far more than the default
    /// policy needs, and `EINVAL` at [`Step::Seccomp`](crate::error::Step::Seccomp) is its answer to longer ones.
    pub fn compile(&self) -> Vec<Instruction> {
        assemble(&[(Arch::NATIVE, self)])
    }
}
