//! [`Owners`]: whose the files of unpacked layers are.
#![forbid(unsafe_code)]

use crate::namespace::idmap::IdMap;

/// Whose the files of unpacked layers are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owners {
    /// The ids of the layer. For root.
    Kept,
    /// The host's ids of a user namespace.
    Mapped {
        /// Users.
        uid: Vec<IdMap>,
        /// Groups.
        gid: Vec<IdMap>,
    },
    /// All are the caller's; what they should be is in the attribute `user.zind.owner`, `"uid:gid:mode"` with the mode in
    /// octal, and `":major:minor"` for devices.
    Xattr,
}

impl Owners {
    /// What this process can do: [`Owners::Kept`] for root, [`Owners::Xattr`] for an ordinary user.
    pub fn of_caller() -> Owners {
        if rustix::process::geteuid().is_root() { Owners::Kept } else { Owners::Xattr }
    }
}
