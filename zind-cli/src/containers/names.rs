//! Names for containers that got none.
#![forbid(unsafe_code)]

use rustix::rand::{GetRandomFlags, getrandom};

#[rustfmt::skip]
const HOW: [&str; 32] = [
    "amber", "bold", "brave", "brisk", "calm", "clear", "deep", "eager", "early", "fair", "firm", "fresh", "gentle", "glad", "green", "keen",
    "kind", "late", "light", "lively", "mild", "neat", "plain", "proud", "quick", "quiet", "ready", "sharp", "steady", "swift", "warm", "wise",
];
#[rustfmt::skip]
const WHAT: [&str; 32] = [
    "acorn", "alder", "aspen", "badger", "beech", "birch", "brook", "cedar", "crane", "curlew", "elm", "falcon", "fern", "finch", "hazel", "heron",
    "larch", "lark", "linnet", "maple", "marten", "moss", "oak", "otter", "pine", "plover", "reed", "robin", "rowan", "sedge", "stoat", "willow",
];

/// One that is not likely to be taken: `calm_otter_41`.
pub fn propose() -> String {
    let mut bytes = [0_u8; 4];
    // Without them it is the same each time, and taken.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    let [how, what, high, low] = bytes;
    format!(
        "{}_{}_{}",
        HOW[usize::from(how) % HOW.len()],
        WHAT[usize::from(what) % WHAT.len()],
        u16::from_le_bytes([high, low]) % 1000
    )
}
