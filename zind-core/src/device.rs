//! Devices that a caller asks for: which node comes where, and what may be done with it.
#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A device of the container's besides the default ones.
///
/// Of the host, by path ([`Device::new`], [`Device::parse`]), or by its numbers as in OCI's `linux.devices`
/// ([`Device::node`]). Called by root, without a user namespace, the container gets a node of its own, with mode, user and
/// group of the host's; else the host's node is bound into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub(crate) what: What,
    pub(crate) target: PathBuf,
    pub(crate) access: Access,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// Where a device comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A node of the host, or a directory of nodes.
    Host(PathBuf),
    /// A node by its numbers.
    Node(Kind, u32, u32),
}

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Char,
    Block,
    Fifo,
}

impl Kind {
    /// OCI's letter for it.
    pub(crate) const fn letter(self) -> char {
        match self {
            Kind::Char => 'c',
            Kind::Block => 'b',
            Kind::Fifo => 'p',
        }
    }

    pub(crate) fn from_letter(letter: &str) -> Option<Kind> {
        [Kind::Char, Kind::Block, Kind::Fifo].into_iter().find(|kind| letter.chars().eq([kind.letter()]))
    }
}

/// What the payload may do with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Make further nodes of it.
    pub(crate) mknod: bool,
}

impl Access {
    const ALL: Access = Access { read: true, write: true, mknod: true };

    /// `"rwm"` and parts of it, each letter once.
    fn from_text(text: &str) -> Option<Access> {
        let once = |letter: char| text.matches(letter).count() <= 1;
        let known = !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter)) && "rwm".chars().all(once);
        known.then(|| Access { read: text.contains('r'), write: text.contains('w'), mknod: text.contains('m') })
    }

    /// Reading and writing: nothing that would have to be kept from the payload.
    pub(crate) fn is_full(self) -> bool {
        self.read && self.write
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(self.read, "r"), (self.write, "w"), (self.mknod, "m")];
        letters.iter().filter(|(is, _)| *is).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

impl Device {
    /// A device of the host under the same path, for reading and writing; of a directory, every device below it.
    pub fn new(path: impl Into<PathBuf>) -> Device {
        let path = path.into();
        Device { what: What::Host(path.clone()), target: path, access: Access::ALL, mode: None, uid: None, gid: None }
    }

    /// The text of `docker run --device`: `"host"`, `"host:container"`, `"host:rwm"` or `"host:container:rwm"`.
    ///
    /// Errors: [`Error::Spec`] for rights other than `r`, `w` and `m`, each at most once, or too many parts.
    pub fn parse(text: &str) -> Result<Device> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            [host] => Ok(Device::new(host)),
            [host, word] => match Access::from_text(word) {
                Some(access) => Ok(Device { access, ..Device::new(host) }),
                None => Ok(Device::new(host).at(word)),
            },
            [host, container, access] => Device::new(host).at(container).access(access),
            _ => Err(Error::spec("devices", format!("{text:?} is not host[:container[:rwm]]"))),
        }
    }

    /// A node by its numbers: kind `'c'` or `'u'` (character), `'b'` (block) or `'p'` (FIFO, without numbers).
    ///
    /// Root only, but for a FIFO, or where the host has that very device at the same path.
    /// Errors: [`Error::Spec`] for another kind, or numbers beyond 12 and 20 bits.
    /// Source: <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#devices>
    pub fn node(kind: char, path: impl Into<PathBuf>, major: u32, minor: u32) -> Result<Device> {
        let kind = match kind {
            'c' | 'u' => Kind::Char,
            'b' => Kind::Block,
            'p' => Kind::Fifo,
            _ => return Err(Error::spec("devices", format!("type {kind:?} is none of c, u, b, p"))),
        };
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(Error::spec("devices", format!("{major}:{minor} is no device number: 12 and 20 bits")));
        }
        let numbers = if kind == Kind::Fifo { (0, 0) } else { (major, minor) };
        let path = path.into();
        Ok(Device { what: What::Node(kind, numbers.0, numbers.1), ..Device::new(path) })
    }

    /// Where it is in the container.
    #[must_use]
    pub fn at(mut self, target: impl Into<PathBuf>) -> Device {
        self.target = target.into();
        self
    }

    /// What the payload may do with it: `"r"`, `"w"`, `"m"` (make further nodes of it) or several of them.
    ///
    /// Less than `"rw"` takes a node of the container's own, and a payload that has no capability to pass by its mode, nor,
    /// without the system call filter, a way to one.
    pub fn access(mut self, letters: &str) -> Result<Device> {
        self.access = Access::from_text(letters)
            .ok_or_else(|| Error::spec("devices", format!("rights {letters:?} are not made of r, w and m")))?;
        Ok(self)
    }

    /// Permissions of a node of the container's own; those of the host's node, or 0666, if not set.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Device {
        self.mode = Some(mode);
        self
    }

    /// User and group of a node of the container's own; those of the host's node, or 0, if not set.
    #[must_use]
    pub fn owner(mut self, uid: Option<u32>, gid: Option<u32>) -> Device {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Where it is in the container.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// `"rwm"` or parts of it.
    pub fn rights(&self) -> String {
        self.access.to_string()
    }

    pub(crate) fn check(&self, index: usize) -> Result<()> {
        let refuse = |rule: String| Err(Error::spec("devices", format!("[{index}] {rule}")));
        let target = self.target.display();
        let plain = self.target.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if matches!(&self.what, What::Host(path) if path.as_os_str().is_empty()) {
            return refuse("the path is empty".to_owned());
        }
        if !self.target.is_absolute() || !plain || self.target == Path::new("/") {
            return refuse(format!("{target:?} is no absolute path in the container without \"..\""));
        }
        if self.mode.is_some_and(|mode| mode > 0o777) {
            return refuse(format!("{target}: the mode has bits beyond 0777"));
        }
        if self.uid == Some(u32::MAX) || self.gid == Some(u32::MAX) {
            return refuse(format!("{target}: 4294967295 is no id"));
        }
        Ok(())
    }
}

/// A pseudo-terminal for `/dev/console`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Console {
    /// A descriptor of either end of it.
    Fd(Arc<OwnedFd>),
    /// The path of the terminal: `/dev/pts/3`.
    Path(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_docker() {
        let told = |text| Device::parse(text).map(|device| (device.target.clone(), device.rights())).unwrap();
        assert_eq!(told("/dev/fuse"), ("/dev/fuse".into(), "rwm".to_owned()));
        assert_eq!(told("/dev/fuse:/dev/x"), ("/dev/x".into(), "rwm".to_owned()));
        assert_eq!(told("/dev/fuse:mr"), ("/dev/fuse".into(), "rm".to_owned()));
        assert_eq!(told("/dev/fuse:/dev/x:w"), ("/dev/x".into(), "w".to_owned()));
        for bad in ["/dev/a:/dev/b:x", "/dev/a:/dev/b:", "/dev/a:/dev/b:rr", "/dev/a:/dev/b:r:w"] {
            assert_eq!(Device::parse(bad).unwrap_err().field(), Some("devices"), "{bad}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        assert!(Device::node('c', "/dev/x", 4095, (1 << 20) - 1).is_ok());
        for (kind, major, minor) in [('x', 1, 1), ('c', 4096, 0), ('b', 0, 1 << 20)] {
            assert_eq!(Device::node(kind, "/dev/x", major, minor).unwrap_err().field(), Some("devices"));
        }
        assert_eq!(Device::node('p', "/dev/x", 5, 5).unwrap().what, What::Node(Kind::Fifo, 0, 0));
    }

    #[test]
    fn broken_rules_name_the_device() {
        let new = || Device::new("/dev/fuse");
        let cases = [
            Device::new(""),
            Device::new("dev/fuse"),
            new().at("/"),
            new().at("/dev/../x"),
            new().at(""),
            new().mode(0o1777),
            new().owner(Some(u32::MAX), None),
        ];
        for device in cases {
            assert!(device.check(3).unwrap_err().to_string().starts_with("devices: [3]"), "{device:?}");
        }
        assert!(Device::new("fuse").at("/dev/fuse").check(0).is_ok());
    }
}
