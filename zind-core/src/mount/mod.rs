//! Mounts that a caller asks for, and the kernel's flags by name.
#![forbid(unsafe_code)]

pub mod flags;

use std::path::{Path, PathBuf};

use zind_init::plan;

use crate::error::{Error, Result};
use crate::rootfs::ops::{Op, attr, c_path, c_string};

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mount {
    /// A file or directory of the host.
    Bind {
        /// Where it is on the host.
        source: PathBuf,
        /// Where it is in the container; made if it is missing.
        target: PathBuf,
        /// Nothing below it can be changed.
        read_only: bool,
        /// With the mounts below the source.
        recursive: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Where it is in the container.
        target: PathBuf,
        /// Limit in bytes; `None`: the kernel's default, half of the memory.
        size: Option<u64>,
        /// Mode of its top directory.
        mode: u32,
    },
}

impl Mount {
    /// A writable, recursive bind.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Mount {
        Mount::Bind { source: source.into(), target: target.into(), read_only: false, recursive: true }
    }

    /// A read-only, recursive bind.
    pub fn bind_read_only(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Mount {
        Mount::Bind { source: source.into(), target: target.into(), read_only: true, recursive: true }
    }

    /// A tmpfs everybody in the container may write to.
    pub fn tmpfs(target: impl Into<PathBuf>) -> Mount {
        Mount::Tmpfs { target: target.into(), size: None, mode: 0o1777 }
    }

    /// Where it is in the container.
    pub fn target(&self) -> &Path {
        match self {
            Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } => target,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !self.target().is_absolute() {
            return Err(Error::spec("mounts", format!("target {} is not absolute", self.target().display())));
        }
        Ok(())
    }

    /// The operation, with the detached tree of its source where the library could open one.
    pub(crate) fn operation(&self, tree: Option<i32>) -> Result<Op> {
        let target = c_path("mounts", self.target())?;
        Ok(match self {
            Mount::Bind { source, read_only, recursive, .. } => {
                let op = Op { fd: tree.unwrap_or(-1), ..Op::bind(&c_path("mounts", source)?, &target) };
                let op = op.attr(attr::NOSUID | attr::NODEV | if *read_only { attr::RDONLY } else { 0 });
                op.in_root().flags(plan::CREATE | if *recursive { plan::RECURSIVE } else { 0 })
            }
            Mount::Tmpfs { size, mode, .. } => {
                let size = size.map(|bytes| bytes.to_string());
                let mode = format!("{mode:o}");
                let mut options = vec![("mode", mode.as_str())];
                options.extend(size.as_deref().map(|size| ("size", size)));
                let op =
                    Op::mount(&c_string("mounts", "tmpfs".as_ref())?, &target, &options, attr::NOSUID | attr::NODEV);
                op.in_root().flags(plan::CREATE)
            }
        })
    }
}
