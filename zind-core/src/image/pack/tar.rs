//! The headers of a layer's tar: ustar where that is enough, and PAX records where it is not.
//!
//! What is written depends only on the entry, so that the same tree is the same layer.
//! Source: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>
#![forbid(unsafe_code)]

use std::io::{self, Write};

/// All of a tar is in pieces of this size.
const BLOCK: usize = 512;
/// So many bytes of a name have room in a header.
const NAME: usize = 100;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

impl Kind {
    const fn flag(self) -> u8 {
        match self {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        }
    }
}

/// One entry. The content of a file comes after it.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) kind: Kind,
    /// Relative to the root; of a directory with a slash at its end.
    pub(super) path: &'a [u8],
    /// Where a link leads.
    pub(super) target: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes of content.
    pub(super) size: u64,
    /// Seconds since 1970, and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Entry<'_> {
    pub(super) fn new(kind: Kind, path: &[u8]) -> Entry<'_> {
        Entry { kind, path, target: b"", mode: 0, uid: 0, gid: 0, size: 0, mtime: (0, 0), device: (0, 0), xattrs: &[] }
    }
}

/// Writes the header of an entry, with another before it that has what does not fit.
pub(super) fn write_header(out: &mut dyn Write, entry: &Entry<'_>) -> io::Result<()> {
    let records = records(entry);
    if !records.is_empty() {
        let name = [b"PaxHeaders.0/", last_part(entry.path)].concat();
        let mut pax = Entry::new(Kind::File, &name[..name.len().min(NAME)]);
        pax.size = records.len() as u64;
        pax.mode = 0o644;
        let mut header = header(&pax);
        header[156] = b'x';
        finish(&mut header);
        out.write_all(&header)?;
        out.write_all(&records)?;
        pad(out, pax.size)?;
    }
    let mut header = header(entry);
    finish(&mut header);
    out.write_all(&header)
}

/// Fills up the last block of a content.
pub(super) fn pad(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let rest = (size % BLOCK as u64) as usize;
    if rest == 0 { Ok(()) } else { out.write_all(&[0; BLOCK][rest..]) }
}

/// The end of a tar.
pub(super) fn finish_archive(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn last_part(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

fn header(entry: &Entry<'_>) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut text = |at: usize, length: usize, bytes: &[u8]| {
        let bytes = &bytes[..bytes.len().min(length)];
        header[at..at + bytes.len()].copy_from_slice(bytes);
    };
    text(0, NAME, entry.path);
    text(100, 8, octal(u64::from(entry.mode), 7).as_bytes());
    text(108, 8, octal(u64::from(entry.uid), 7).as_bytes());
    text(116, 8, octal(u64::from(entry.gid), 7).as_bytes());
    text(124, 12, octal(entry.size, 11).as_bytes());
    text(136, 12, octal(entry.mtime.0.try_into().unwrap_or(0), 11).as_bytes());
    text(156, 1, &[entry.kind.flag()]);
    text(157, NAME, entry.target);
    text(257, 8, b"ustar\x0000");
    if matches!(entry.kind, Kind::Char | Kind::Block) {
        text(329, 8, octal(u64::from(entry.device.0), 7).as_bytes());
        text(337, 8, octal(u64::from(entry.device.1), 7).as_bytes());
    }
    header
}

/// A number in so many digits; 0 where it has more, since a record has it then.
fn octal(number: u64, digits: usize) -> String {
    let text = format!("{number:0digits$o}");
    if text.len() > digits { "0".repeat(digits) } else { text }
}

fn fits(number: u64, digits: u32) -> bool {
    number < 1 << (3 * digits)
}

fn finish(header: &mut [u8; BLOCK]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// The PAX records of an entry.
fn records(entry: &Entry<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    let (long_path, long_target) = (entry.path.len() > NAME, entry.target.len() > NAME);
    if (long_path && !is_text(entry.path)) || (long_target && !is_text(entry.target)) {
        record(&mut records, b"hdrcharset", b"BINARY");
    }
    if long_path {
        record(&mut records, b"path", entry.path);
    }
    if long_target {
        record(&mut records, b"linkpath", entry.target);
    }
    for (name, number, digits) in [
        (&b"uid"[..], u64::from(entry.uid), 7),
        (b"gid", u64::from(entry.gid), 7),
        (b"size", entry.size, 11),
        (b"SCHILY.devmajor", u64::from(entry.device.0), 7),
        (b"SCHILY.devminor", u64::from(entry.device.1), 7),
    ] {
        if !fits(number, digits) {
            record(&mut records, name, number.to_string().as_bytes());
        }
    }
    let (seconds, nanoseconds) = entry.mtime;
    if nanoseconds != 0 || !u64::try_from(seconds).is_ok_and(|seconds| fits(seconds, 11)) {
        record(&mut records, b"mtime", time(seconds, nanoseconds).as_bytes());
    }
    for (name, value) in entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    records
}

/// A time as a decimal: nanoseconds count forward, but a negative decimal counts backward.
fn time(seconds: i64, nanoseconds: u32) -> String {
    let (sign, whole, part) = match (seconds, nanoseconds) {
        (seconds @ 0.., part) => ("", seconds, part),
        (seconds, 0) => ("-", seconds.saturating_neg(), 0),
        (seconds, part) => ("-", (seconds + 1).saturating_neg(), 1_000_000_000 - part),
    };
    let text = format!("{sign}{whole}.{part:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `"<length> <name>=<value>\n"`, where the length counts itself.
fn record(to: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + digits(rest);
    if digits(length) != digits(rest) {
        length = rest + digits(length);
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(name);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_needs_one_block() {
        let mut out = Vec::new();
        let entry = Entry { mode: 0o644, uid: 5, size: 3, mtime: (1_000, 0), ..Entry::new(Kind::File, b"etc/x") };
        write_header(&mut out, &entry).unwrap();
        assert_eq!(out.len(), BLOCK);
        assert_eq!(&out[100..108], b"0000644\0");
        assert_eq!(&out[108..116], b"0000005\0");
        assert_eq!(&out[124..136], b"00000000003\0");
        let sum: u32 =
            out.iter().enumerate().map(|(at, &b)| if (148..156).contains(&at) { 32 } else { u32::from(b) }).sum();
        assert_eq!(&out[148..156], format!("{sum:06o}\0 ").as_bytes());
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for size in 0..2000 {
            let mut out = Vec::new();
            record(&mut out, b"k", &vec![b'v'; size]);
            let space = out.iter().position(|&byte| byte == b' ').unwrap();
            let length: usize = std::str::from_utf8(&out[..space]).unwrap().parse().unwrap();
            assert_eq!(length, out.len(), "{size}");
        }
    }

    #[test]
    fn what_does_not_fit_is_in_records() {
        let path = [b'a'; 150];
        let entry = Entry {
            uid: 1 << 31,
            size: 1 << 40,
            mtime: (-2, 500_000_000),
            xattrs: &[(b"user.x".to_vec(), b"\0\xff=\n".to_vec())],
            ..Entry::new(Kind::File, &path)
        };
        let records = String::from_utf8_lossy(&records(&entry)).into_owned();
        for part in ["path=aaa", "uid=2147483648\n", "size=1099511627776\n", "mtime=-1.5\n", "SCHILY.xattr.user.x=\0"] {
            assert!(records.contains(part), "{part}: {records:?}");
        }
    }

    #[test]
    fn times_before_1970_count_backward() {
        assert_eq!(time(1, 5), "1.000000005");
        assert_eq!(time(-1, 0), "-1");
        assert_eq!(time(-1, 999_999_999), "-0.000000001");
        assert_eq!(time(0, 100_000_000), "0.1");
    }
}
