//! Control groups: limits, readings, freezing and killing, with one face over v2, v1 and the hybrid of both.
#![forbid(unsafe_code)]

mod dbus;
pub(crate) mod delegation;
pub(crate) mod devices;
pub(crate) mod events;
mod files;
pub(crate) mod layout;
pub(crate) mod resources;
pub(crate) mod stats;
pub(crate) mod systemd;
#[cfg(test)]
mod testing;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use devices::{DeviceKind, DeviceRule};
pub use layout::{Hierarchy, Layout};
pub use resources::{IoLimit, RdmaLimit, Resources};
pub use stats::{IoStats, Pressure, PressureStats, Stall, Stats};

/// The control group of one container: a directory in each hierarchy that is needed.
#[derive(Debug)]
pub struct Cgroup {
    parts: Vec<Part>,
}

/// The group in one hierarchy.
#[derive(Debug)]
pub(crate) struct Part {
    /// The directory, `O_PATH`.
    pub(crate) dir: OwnedFd,
    /// Its path, for messages.
    pub(crate) path: PathBuf,
    /// Version 2.
    pub(crate) is_v2: bool,
    /// What can be set here.
    pub(crate) controllers: Vec<String>,
}

impl Cgroup {
    /// The part in the version 2 hierarchy.
    pub(crate) fn v2(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.is_v2)
    }

    /// The part that has the controller.
    pub(crate) fn with(&self, controller: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.controllers.iter().any(|name| name == controller))
    }
}
