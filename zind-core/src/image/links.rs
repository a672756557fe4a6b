//! Whose links and FIFOs are, where every file is the caller's: an attribute of their directory, because they can have none
//! of their own (xattr(7): user attributes are for files and directories).
//!
//! It also speaks of what the layers below have in the directory, since of a directory only the topmost layer's attributes
//! are seen.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

/// The attribute of the directory: `uid:gid:name` for each, with a NUL after it.
pub(crate) const LINKS_XATTR: &[u8] = b"user.zind.links";

/// Owners by name. Who is not there is root's.
pub(crate) type Links = BTreeMap<Vec<u8>, (u32, u32)>;

pub(crate) fn to_bytes(links: &Links) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, (uid, gid)) in links {
        bytes.extend_from_slice(format!("{uid}:{gid}:").as_bytes());
        bytes.extend_from_slice(name);
        bytes.push(0);
    }
    bytes
}

/// A container may have written it: nonsense says nothing.
pub(crate) fn parse(bytes: &[u8]) -> Links {
    let one = |text: &[u8]| {
        let mut parts = text.splitn(3, |byte| *byte == b':');
        let mut id = || std::str::from_utf8(parts.next()?).ok()?.parse().ok().filter(|id| *id != u32::MAX);
        let owner = (id()?, id()?);
        Some((parts.next().filter(|name| !name.is_empty())?.to_vec(), owner))
    };
    bytes.split(|byte| *byte == 0).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_of_links_come_back() {
        let links: Links = [(b"a:b".to_vec(), (1, 2)), (b"\xff".to_vec(), (0, 70_000))].into();
        assert_eq!(to_bytes(&links), b"1:2:a:b\x000:70000:\xff\0");
        assert_eq!(parse(&to_bytes(&links)), links);
        assert!(parse(b"").is_empty());
        assert_eq!(
            parse(b"x:1:a\x001:2\x001:2:\x004294967295:1:b\x00-1:0:c\x003:4:ok"),
            [(b"ok".to_vec(), (3, 4))].into()
        );
    }
}
