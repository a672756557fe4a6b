//! Linux containers as a library.
//!
//! A call runs a program in a real container: its own namespaces, its own copy-on-write root, no privileges, no network.
//! No daemon, no second program to install; a start forks nothing of the caller's and is safe from any thread.
//!
//! ```no_run
//! # fn main() -> Result<(), zind_core::Error> {
//! use zind_core::Command;
//!
//! let output = Command::new("sh").args(["-c", "echo $$; rm -rf /usr"]).output()?;
//! println!("{:?} {}", output.exit, String::from_utf8_lossy(&output.stdout.to_vec()));
//! println!("{:?}", output.isolation.in_force());
//! # Ok(()) }
//! ```
//!
//! [`Command`] is the usual way in, [`Spec`] holds all options as plain data, [`Process`] is what runs. The low level of
//! `unshare(1)`, `nsenter(1)` and `mount(2)` is in [`lowlevel`], [`proc`] and [`Spec::low_level`]; [`doctor()`] tells what
//! this machine and user can do.
#![cfg_attr(zind_sanitize, feature(sanitize))]

mod build;
pub mod cgroup;
pub mod container;
mod copy;
mod device;
pub mod doctor;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod image;
mod isolation;
pub mod lowlevel;
mod mount;
mod namespace;
mod owner;
pub mod proc;
mod process;
mod registry;
mod rootfs;
pub mod security;
mod spec;
mod store;
mod sys;
pub mod terminal;
mod volume;

pub use build::{BuildStep, Builder, Built};
pub use cgroup::{
    Cgroup, DeviceKind, DeviceRule, Event, EventKind, Events, EventsCloser, IoLimit, IoStats, Pressure, PressureOf,
    PressureStats, PressureTrigger, RdmaLimit, Resources, Stall, Stats,
};
pub use container::{Container, Containers, Restart};
pub use copy::{CopyOptions, CopyStats, Root};
pub use device::{Console, Device};
pub use doctor::{Doctor, doctor};
pub use error::{At, Error, IntoErrno, Result, Step, describe};
pub use image::{
    ArchiveFormat, CommitOptions, Compression, Digest, Image, ImageConfig, Limits, PackStats, Platform, Progress,
    ProgressEvent, ProgressKind, Reference, RunConfig, interruptible,
};
pub use isolation::{Isolation, LandlockReport, MountReport, RlimitReport};
pub use mount::{Mount, flags};
pub use namespace::idmap::{IdMap, IdMaps};
pub use namespace::kind::Kind;
pub use namespace::list::{Namespace, namespaces};
pub use namespace::{Source, TimeOffsets};
pub use nix::errno::Errno;
pub use process::{Captured, Command, Exchange, Exec, Exit, ExitKind, Output, Process, ProcessInfo, Start, StatsEvery};
pub use registry::{Auth, Mirror, PullOptions, PullPolicy, PushOptions, RegistryOptions};
pub use rootfs::layers::{Change, ChangeKind, FileType, Layers, Metadata, Snapshot};
pub use rootfs::template::starts_only_one;
pub use rootfs::{Overlay, Rootfs};
pub use security::capabilities::{CapSet, CapSets};
pub use security::landlock::{Landlock, LandlockPolicy};
pub use security::seccomp::{Call, Notifier, Profile, Violation, Violations};
pub use spec::{
    Binfmt, Hook, Hooks, Rlimit, Scheduler, Seccomp, Session, Spec, Stdio, User, parse_duration, parse_rlimit_name,
    parse_signal, parse_size,
};
pub use store::{Collected, Fault, ImageHold, ImageUsage, Ingest, LayerSink, Owners, Store, Usage, Work};
pub use volume::{Hold, Volume, Volumes};

/// Size in bytes of the launcher that is embedded in this library.
pub const LAUNCHER_SIZE: usize = zind_init::IMAGE.len();
