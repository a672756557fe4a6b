//! The rules of all conventions together: as data that can be asked, and as the program that the kernel runs.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::assembler::assemble;
use super::{Action, Instruction, Policy, Rule};
use crate::security::syscalls::Arch;

/// `BPF_MAXINSNS`: as long as a program may be.
pub(super) const LONGEST: usize = 4096;

/// The policy of each convention that is not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) parts: Vec<(Arch, Policy)>,
}

impl Filter {
    /// The program.
    pub(crate) fn assemble(&self) -> Vec<Instruction> {
        let parts: Vec<(Arch, &Policy)> = self.parts.iter().map(|(arch, policy)| (*arch, policy)).collect();
        assemble(&parts)
    }

    /// What becomes of a call, as `struct seccomp_data` tells it.
    pub(crate) fn action(&self, audit: u32, number: u32, arguments: &[u64; 6]) -> Action {
        let part = |arch| self.parts.iter().find(|(known, _)| *known == arch).map(|(_, policy)| policy);
        match Arch::of_call(audit, number).and_then(part) {
            Some(policy) => policy.rule(number).map_or(policy.otherwise, |rule| rule.action(arguments)),
            None => Action::KillProcess,
        }
    }

    /// The same with refusals by errno for whoever has the listener.
    pub(crate) fn watched(&self) -> Filter {
        let change = |action| if matches!(action, Action::Errno(_)) { Action::Notify } else { action };
        let policy = |policy: &Policy| Policy {
            rules: policy.rules.iter().map(|(number, rule)| (*number, rule.map(&change))).collect(),
            otherwise: change(policy.otherwise),
        };
        Filter { parts: self.parts.iter().map(|(arch, old)| (*arch, policy(old))).collect() }
    }

    /// Whether any call may come to this.
    pub(crate) fn has(&self, action: Action) -> bool {
        self.parts
            .iter()
            .any(|(_, policy)| policy.otherwise == action || policy.rules.values().any(|rule: &Rule| rule.has(action)))
    }
}

/// What a process gets.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    /// What the program does; of a watched one, what would be done if nobody watched.
    pub(crate) filter: Arc<Filter>,
    pub(crate) program: Arc<[Instruction]>,
    /// `SECCOMP_FILTER_FLAG_*`
    pub(crate) flags: u32,
    /// There is a listener.
    pub(crate) has_listener: bool,
    /// Names of the profile that mean nothing on this machine.
    pub(crate) notes: Arc<[String]>,
}
