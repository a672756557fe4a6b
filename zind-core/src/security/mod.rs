//! What the payload may do: capabilities, system calls, and a further wall of Landlock's.

pub mod capabilities;
pub(crate) mod labels;
pub mod landlock;
pub mod seccomp;
pub mod syscalls;
