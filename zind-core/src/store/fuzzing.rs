//! What the fuzzer makes of the small files of a store, and of the attributes that unpacking leaves in directories.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use super::{leases, snapshots};
use crate::image::{links, pack};

/// Each is written as it was read.
pub(crate) fn files(bytes: &[u8]) {
    snapshots::info_again(bytes);
    crate::build::cache::record_again(bytes);
    leases::lease_again(bytes);
    let links = links::parse(bytes);
    assert_eq!(links::parse(&links::to_bytes(&links)), links);
    assert!(links.keys().all(|name| !name.is_empty() && !name.contains(&0)));
    assert!(links.values().all(|(uid, gid)| *uid != u32::MAX && *gid != u32::MAX));
    pack::attributes(bytes);
}
