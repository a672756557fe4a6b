//! The directories of the layer that are open, a bounded number of them.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Stat, fgetxattr, fstat};
use rustix::io::Errno;

use super::{Apply, Node, Stop, Unpacked, at};
use crate::copy::Attributes;
use crate::image::links::{self, LINKS_XATTR, Links};
use crate::image::unpack::below::split;
use crate::rootfs::fault::{By, Fault};
use crate::store::Owners;

/// Directories that stay open.
const OPEN: usize = 64;

impl Apply<'_> {
    pub(super) fn open_root(&mut self) -> Result<(), Stop> {
        let fd = self.root.try_clone().map_err(|_| at(b"", Fault::new("dup", Errno::MFILE)))?;
        let node = Node {
            fd,
            path: Vec::new(),
            time: (0, 0),
            mode: Some(0o755),
            setgid: false,
            links: Links::new(),
            links_changed: false,
            used: 0,
        };
        self.nodes.insert(Vec::new(), node);
        self.links_of_below(b"")
    }

    /// Makes an open directory the last that is closed. False: it is not open.
    pub(super) fn touch(&mut self, path: &[u8]) -> bool {
        self.clock += 1;
        let clock = self.clock;
        self.nodes.get_mut(path).map(|node| node.used = clock).is_some()
    }

    /// The descriptor of a directory in this layer, by its path without links. It is opened if it is not.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<&Node, Stop> {
        if !self.touch(path) {
            // From the deepest one above it that is open.
            let mut from = path;
            while let Some((parent, _)) = split(from) {
                from = parent;
                if self.nodes.contains_key(from) {
                    break;
                }
            }
            let mut end = from.len();
            while end < path.len() {
                let begin = if end == 0 { 0 } else { end + 1 };
                let next = path[begin..].iter().position(|byte| *byte == b'/').map_or(path.len(), |len| begin + len);
                let name = OsStr::from_bytes(&path[begin..next]);
                self.touch(&path[..end]);
                let above = &self.nodes[&path[..end]];
                let fd = self.hands.open_dir(above.fd.as_fd(), name).map_err(|fault| at(&path[..next], fault))?;
                let meta = fstat(&fd).by("fstat").map_err(|fault| at(&path[..next], fault))?;
                self.add(&path[..next], fd, &meta)?;
                end = next;
            }
        }
        Ok(&self.nodes[path])
    }

    /// Keeps a directory open whose attributes are on disk already.
    fn add(&mut self, path: &[u8], fd: OwnedFd, meta: &Stat) -> Result<(), Stop> {
        let time = (meta.st_mtime, u32::try_from(meta.st_mtime_nsec).unwrap_or_default());
        let mode = meta.st_mode & 0o7777;
        let setgid = mode & 0o2000 != 0;
        let mut links = Links::new();
        if *self.owners == Owners::Xattr {
            let mut value = vec![0; 1 << 16];
            if let Ok(length) = fgetxattr(&fd, LINKS_XATTR, &mut value[..]) {
                links = links::parse(&value[..length]);
            }
        }
        let path = path.to_vec();
        self.insert(Node { fd, path, time, mode: Some(mode), setgid, links, links_changed: false, used: 0 })
    }

    fn insert(&mut self, mut node: Node) -> Result<(), Stop> {
        if self.nodes.len() >= OPEN {
            // The root stays.
            let oldest = self.nodes.values().filter(|node| !node.path.is_empty()).min_by_key(|node| node.used);
            if let Some(path) = oldest.map(|node| node.path.clone()) {
                self.close(&path)?;
            }
        }
        self.clock += 1;
        node.used = self.clock;
        self.nodes.insert(node.path.clone(), node);
        Ok(())
    }

    /// Done with a directory for now: it gets its mode and time.
    fn close(&mut self, path: &[u8]) -> Result<(), Stop> {
        let Some(node) = self.nodes.remove(path) else { return Ok(()) };
        self.keep_links(&node)?;
        let attributes = Attributes { mode: node.mode, time: Some(node.time), ..Attributes::default() };
        self.hands.set(node.fd.as_fd(), &attributes).map_err(|fault| at(path, fault))?;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Unpacked, Stop> {
        if !self.root_was_given
            && let Some(found) = self.below.find(self.hands, b"").map_err(|fault| at(b"", fault))?
        {
            self.copy_attributes(b"", found.place.as_fd(), &found.meta)?;
        }
        let open: Vec<Vec<u8>> = self.nodes.keys().cloned().collect();
        for path in open {
            self.close(&path)?;
        }
        Ok(self.unpacked)
    }
}
