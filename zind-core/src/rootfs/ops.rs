//! [`Ops`]: the list of file system operations of a plan, each with the name that its errors carry.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use zind_init::plan::{self, FsKind, FsOp, List, Str};

use crate::error::{Error, Result};
use crate::process::planfile::PlanWriter;

/// `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub(crate) mod attr {
    pub(crate) const RDONLY: u64 = 0x01;
    pub(crate) const NOSUID: u64 = 0x02;
    pub(crate) const NODEV: u64 = 0x04;
    pub(crate) const NOEXEC: u64 = 0x08;
}

/// One operation, before it is encoded.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) kind: FsKind,
    pub(crate) flags: u32,
    pub(crate) path: CString,
    pub(crate) source: Option<CString>,
    pub(crate) source2: Option<CString>,
    pub(crate) fd: i32,
    pub(crate) data: Vec<u8>,
    /// The options as mount(2) takes them, where that can be said.
    pub(crate) text: Option<CString>,
    pub(crate) mode: u32,
    pub(crate) propagation: u32,
    /// `MS_*` of a new file system itself.
    pub(crate) super_flags: u32,
    /// Of the mount, and of those below it where the operation is recursive.
    pub(crate) attr_set: u64,
    pub(crate) attr_clear: u64,
    /// Of the mount itself only.
    pub(crate) top_set: u64,
    pub(crate) top_clear: u64,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Which of the caller's mounts it is part of.
    pub(crate) mount: Option<usize>,
    /// Which of the caller's devices it is for.
    pub(crate) of_device: Option<usize>,
}

impl Op {
    pub(crate) fn new(kind: FsKind, path: &CStr) -> Op {
        Op {
            kind,
            flags: 0,
            path: path.to_owned(),
            source: None,
            source2: None,
            fd: -1,
            data: Vec::new(),
            text: None,
            mode: 0,
            propagation: 0,
            super_flags: 0,
            attr_set: 0,
            attr_clear: 0,
            top_set: 0,
            top_clear: 0,
            device: 0,
            inode: 0,
            mount: None,
            of_device: None,
        }
    }

    pub(crate) fn mkdir(path: &CStr, mode: u32) -> Op {
        Op { mode, ..Op::new(FsKind::Mkdir, path) }
    }

    pub(crate) fn symlink(target: &CStr, path: &CStr) -> Op {
        Op { source: Some(target.to_owned()), ..Op::new(FsKind::Symlink, path) }
    }

    pub(crate) fn file(path: &CStr, mode: u32, content: Vec<u8>) -> Op {
        Op { mode, data: content, ..Op::new(FsKind::File, path) }
    }

    pub(crate) fn mount(fstype: &CStr, path: &CStr, options: &[(&str, &str)], attr_set: u64) -> Op {
        let text = joined(options);
        Op { source: Some(fstype.to_owned()), data: pairs(options), text, attr_set, ..Op::new(FsKind::Mount, path) }
    }

    pub(crate) fn bind(source: &CStr, path: &CStr) -> Op {
        Op { source: Some(source.to_owned()), ..Op::new(FsKind::Bind, path) }
    }

    /// Binds a detached tree.
    pub(crate) fn bind_tree(tree: &OwnedFd, path: &CStr) -> Op {
        Op { fd: tree.as_raw_fd(), ..Op::new(FsKind::Bind, path) }
    }

    pub(crate) fn flags(self, flags: u32) -> Op {
        Op { flags: self.flags | flags, ..self }
    }

    pub(crate) fn attr(self, attr_set: u64) -> Op {
        Op { attr_set: self.attr_set | attr_set, ..self }
    }

    /// The path begins at the container's root.
    pub(crate) fn in_root(self) -> Op {
        self.flags(plan::IN_ROOT)
    }

    pub(crate) fn is_in_root(&self) -> bool {
        self.flags & plan::IN_ROOT != 0
    }

    pub(crate) fn is_overlay_of_root(&self) -> bool {
        self.kind == FsKind::Mount
            && self.source.as_deref() == Some(c"overlay")
            && self.path.as_c_str() == super::plan::ROOT
    }

    /// What an error is about.
    pub(crate) fn object(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(self.path.to_bytes()))
    }

    /// What was to come there; empty where the path says it all.
    pub(crate) fn source_text(&self) -> String {
        let is_taken = self.flags & plan::TAKEN != 0;
        let source = || self.source.as_ref().map(|source| source.to_string_lossy().into_owned()).unwrap_or_default();
        match self.kind {
            FsKind::Bind | FsKind::Take if self.fd < 0 && !is_taken && self.of_device.is_none() => {
                format!("a bind of {}", source())
            }
            FsKind::Mount => format!("a file system of type {}", source()),
            _ => String::new(),
        }
    }
}

/// `name\0value\0` for each option, as the launcher reads them.
pub(crate) fn pairs(options: &[(&str, &str)]) -> Vec<u8> {
    options.iter().flat_map(|(key, value)| [key.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat()).collect()
}

/// `name=value,name`; none if a name or a value has a character that means something there.
pub(crate) fn joined(options: &[(&str, &str)]) -> Option<CString> {
    const MARKS: [char; 3] = [',', '\\', '"'];
    let word = |(name, value): &(&str, &str)| match *value {
        value if name.contains(MARKS) || value.contains(MARKS) => None,
        "" => Some((*name).to_owned()),
        value => Some(format!("{name}={value}")),
    };
    let words: Option<Vec<String>> = options.iter().map(word).collect();
    CString::new(words?.join(",")).ok()
}

/// Operations in order, with what they need to stay open.
#[derive(Debug, Default)]
pub(crate) struct Ops {
    pub(crate) list: Vec<Op>,
    pub(crate) trees: Vec<OwnedFd>,
}

impl Ops {
    pub(crate) fn push(&mut self, op: Op) {
        self.list.push(op);
    }

    pub(crate) fn extend(&mut self, ops: impl IntoIterator<Item = Op>) {
        self.list.extend(ops);
    }

    /// Binds a detached tree and keeps it until the start is over.
    pub(crate) fn push_tree(&mut self, tree: OwnedFd, op: impl FnOnce(&OwnedFd) -> Op) {
        self.list.push(op(&tree));
        self.trees.push(tree);
    }

    pub(crate) fn encode(&self, writer: &mut PlanWriter) -> List<FsOp> {
        let encoded: Vec<FsOp> = self
            .list
            .iter()
            .map(|op| FsOp {
                kind: op.kind,
                flags: op.flags,
                path: writer.str(&op.path),
                source: writer.optional_str(op.source.as_deref()),
                source2: writer.optional_str(op.source2.as_deref()),
                fd: op.fd,
                data: writer.list(&op.data),
                text: writer.optional_str(op.text.as_deref()),
                mode: op.mode,
                propagation: op.propagation,
                super_flags: op.super_flags,
                attr_set: op.attr_set,
                attr_clear: op.attr_clear,
                top_set: op.top_set,
                top_clear: op.top_clear,
                device: op.device,
                inode: op.inode,
            })
            .collect();
        debug_assert!(encoded.iter().all(|op| op.path != Str(0)));
        writer.list(&encoded)
    }
}

/// A path as the kernel takes it.
pub(crate) fn c_path(field: &'static str, path: &Path) -> Result<CString> {
    c_string(field, path.as_os_str())
}

/// A string as the kernel takes it.
pub(crate) fn c_string(field: &'static str, text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes())
        .map_err(|_| Error::spec(field, format!("{:?} contains a NUL byte", text.to_string_lossy())))
}
