//! Processes: from a [`Spec`](crate::Spec) to a running payload, its streams and its end.

pub(crate) mod again;
mod command;
mod communicate;
pub(crate) mod deputy;
pub(crate) mod exec;
mod filter;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod handle;
pub(crate) mod helper;
pub(crate) mod hooks;
pub(crate) mod identity;
mod labels;
mod landlock;
pub(crate) mod launch;
mod measured;
mod outside;
pub(crate) mod plan;
pub(crate) mod planfile;
mod settled;
mod stdio;
pub(crate) mod table;
mod volumes;
pub(crate) mod watched;

pub use command::{Command, Start};
pub use communicate::{Captured, Exchange, Output};
pub use exec::Exec;
#[allow(unused_imports)]
pub(crate) use exec::{Groups, Target};
pub use handle::{Exit, ExitKind, Process, StatsEvery};
pub(crate) use plan::DEFAULT_PATH;
pub use table::ProcessInfo;
