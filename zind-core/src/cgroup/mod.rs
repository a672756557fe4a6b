//! Control groups: limits, readings, events.

mod dbus;
pub(crate) mod devices;
pub(crate) mod systemd;
