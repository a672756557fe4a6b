//! What the payload may do: capabilities and system calls.

pub mod capabilities;
pub mod seccomp;
pub mod syscalls;
