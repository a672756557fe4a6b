//! Control groups: limits, readings, events.

pub(crate) mod devices;
