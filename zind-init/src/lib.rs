//! The launcher of zind and the language in which the library talks to it.
//!
//! The launcher is a small static program without a C library (`launcher/`), compiled by this crate's build script
//! and embedded here as [`IMAGE`]. The library encodes what is to be done as a [`plan::Plan`], starts the launcher
//! in the container's namespaces, and reads [`report::Report`]s from it. Nothing here decides anything.
#![no_std]
#![forbid(unsafe_code)]

pub mod deputy;
pub mod measured;
pub mod monitor;
pub mod plan;
pub mod report;
pub mod step;

/// The launcher: a static ELF program for this target.
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher"));
