//! The room of unsafe code: system calls that no library has, each behind a safe function.

pub(crate) mod asking;
pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod descriptors;
pub(crate) mod mounts;
pub(crate) mod probe;
pub(crate) mod seccomp;
pub(crate) mod signals;
