//! Whose the links and FIFOs of a directory are, where all files are the caller's: an attribute of the directory says it.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, getxattr};
use rustix::io::Errno;

use super::{Apply, Node, Stop, at};
use crate::copy::{self, Attributes};
use crate::image::links::{self, LINKS_XATTR};
use crate::image::unpack::below::join;
use crate::image::unpack::tar::Entry;
use crate::rootfs::fault::Fault;
use crate::store::Owners;

impl Apply<'_> {
    /// Adds to a directory what those below it say about their links.
    pub(super) fn links_of_below(&mut self, path: &[u8]) -> Result<(), Stop> {
        if *self.owners != Owners::Xattr || self.below.is_empty() {
            return Ok(());
        }
        let found = self.below.find(self.hands, path).map_err(|fault| at(path, fault))?;
        let Some(found) = found.filter(|found| found.kind() == FileType::Directory) else { return Ok(()) };
        let mut value = vec![0; 1 << 16];
        // A place has no attributes of its own; what it stands for is read by its path.
        if let Ok(length) = getxattr(copy::magic_path(found.place.as_fd()).as_str(), LINKS_XATTR, &mut value[..]) {
            self.add_links(path, &value[..length]);
        }
        Ok(())
    }

    /// Adds what an attribute says, unless something is known already.
    pub(super) fn add_links(&mut self, path: &[u8], value: &[u8]) {
        let Some(node) = self.nodes.get_mut(path) else { return };
        for (name, owner) in links::parse(value) {
            node.links.entry(name).or_insert_with(|| {
                node.links_changed = true;
                owner
            });
        }
    }

    /// Notes whose a link or FIFO is.
    pub(super) fn note_link(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Result<(), Stop> {
        let owner = (u32::try_from(entry.uid).unwrap_or(0), u32::try_from(entry.gid).unwrap_or(0));
        self.set_link(parent, name, (owner != (0, 0)).then_some(owner))
    }

    pub(super) fn set_link(&mut self, parent: &[u8], name: &OsStr, owner: Option<(u32, u32)>) -> Result<(), Stop> {
        if *self.owners != Owners::Xattr {
            return Ok(());
        }
        self.dir(parent)?;
        let Some(node) = self.nodes.get_mut(parent) else { return Ok(()) };
        let before = match owner {
            Some(owner) => node.links.insert(name.as_bytes().to_vec(), owner),
            None => node.links.remove(name.as_bytes()),
        };
        node.links_changed |= before != owner;
        Ok(())
    }

    /// Puts them on disk. What does not fit there is noted as left out.
    pub(super) fn keep_links(&mut self, node: &Node) -> Result<(), Stop> {
        if !node.links_changed {
            return Ok(());
        }
        let value = links::to_bytes(&node.links);
        let attributes = Attributes { xattrs: vec![(LINKS_XATTR.to_vec(), value)], ..Attributes::default() };
        let is_left = match self.hands.set(node.fd.as_fd(), &attributes) {
            Ok(left) => !left.is_empty(),
            Err(Fault { errno: Errno::NOSPC | Errno::TOOBIG | Errno::RANGE, .. }) => true,
            Err(fault) => return Err(at(&node.path, fault)),
        };
        if is_left {
            let path = join(&node.path, b"");
            self.note_left(&path, vec![format!("owners of {} links", node.links.len()).into_bytes()]);
        }
        Ok(())
    }
}
