//! Device rules of version 2: a program that the kernel asks.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use super::resources::DeviceRule;
use crate::error::{Error, Result};

/// Puts rules into force for a group.
pub(super) fn attach(_dir: BorrowedFd<'_>, _rules: &[DeviceRule]) -> Result<()> {
    Err(Error::unsupported("devices", "device rules on control groups v2 are not there yet"))
}
