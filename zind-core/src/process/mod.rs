//! Processes: from a [`Spec`](crate::Spec) to a running payload, its streams and its end.

mod command;
mod communicate;
pub(crate) mod deputy;
mod handle;
pub(crate) mod helper;
pub(crate) mod identity;
pub(crate) mod launch;
mod plan;
pub(crate) mod planfile;
mod stdio;
mod table;
mod volumes;

pub use command::{Command, Start};
pub use communicate::{Captured, Exchange, Output};
pub use handle::{Exit, ExitKind, Process, StatsEvery};
pub(crate) use plan::DEFAULT_PATH;
pub use table::ProcessInfo;
