//! System call filters: rules as plain data, the BPF program compiled from them, and the default policy.
//!
//! The kernel runs each filter over every system call number when it is installed, to find the calls that are always
//! allowed (since Linux 5.11); from then on those cost nothing. So the cost of a filter is its length and its depth at
//! installation. Neighbouring numbers with the same rule are therefore one range, the ranges are found by binary
//! search, and arguments are loaded only for the few calls whose rule depends on them.
//!
//! Source: <https://docs.kernel.org/userspace-api/seccomp_filter.html>
#![cfg_attr(not(test), forbid(unsafe_code))]

mod assembler;
mod filter;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod notify;
mod overlap;
#[cfg(test)]
mod overlap_tests;
mod policy;
mod profile;
mod standard;
#[cfg(test)]
mod tests;
mod watch;

pub use assembler::Instruction;
pub(crate) use filter::{Compiled, Filter};
pub use notify::{Call, Notifier};
pub use policy::{Action, Compare, Condition, Policy, Rule};
pub use profile::Profile;
pub(crate) use profile::{Listener, Mode, compiled, learning};
pub use standard::default_filter;
pub(crate) use watch::Watch;
pub use watch::{Violation, Violations};
