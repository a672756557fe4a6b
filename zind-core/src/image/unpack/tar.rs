//! A reader of tar files that believes nothing: ustar, pax, GNU long names and sparse files.
//!
//! Where programs differ it follows Go's `archive/tar`, which all makers and readers of images use: entries other than
//! files have no content whatever size they name, and global headers mean nothing.
//! Source: <https://www.gnu.org/software/tar/manual/html_node/Standard.html>, pax(1)
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use super::limits::Limits;

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    /// With major and minor number.
    Char(u32, u32),
    /// With major and minor number.
    Block(u32, u32),
}

/// One entry, as its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    /// Where a link points.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// The lower twelve bits.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Bytes of the file.
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The parts of the file that are in the archive, by offset and length; none for one without holes.
    pub(crate) parts: Option<Vec<(u64, u64)>>,
}

/// Why an archive cannot be read.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It breaks a rule.
    Rule(String),
    /// The source failed.
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Broken::Rule("the archive ends in the middle".to_owned()),
            _ => Broken::Io(error),
        }
    }
}

fn rule<T>(text: impl Into<String>) -> Result<T, Broken> {
    Err(Broken::Rule(text.into()))
}

/// Reads entry by entry.
pub(crate) struct Reader<R> {
    input: R,
    limits: Limits,
    entries: u64,
    /// Bytes of the current entry's content that were not read, and of the padding after them.
    content: u64,
    padding: u64,
}

/// As many bytes as the names of a file's extended attributes may have in Linux (`XATTR_LIST_MAX`).
const XATTR_NAMES: usize = 65536;

/// What pax and GNU headers say about the entry after them.
#[derive(Default)]
struct Extended {
    bytes: u64,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes of their names, each with a zero after it.
    xattr_names: usize,
    sparse: Sparse,
}

#[derive(Default)]
struct Sparse {
    major: Option<u64>,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    /// Of the formats 0.0 and 0.1: offset, length, offset, …
    numbers: Vec<u64>,
    is_used: bool,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R, limits: Limits) -> Reader<R> {
        Reader { input, limits, entries: 0, content: 0, padding: 0 }
    }

    /// The source, after the last entry or before the first.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// The next entry. What was not read of the content before it is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Broken> {
        self.skip_content()?;
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.header()? else {
                if extended.bytes > 0 {
                    return rule("an extended header stands alone at the end");
                }
                return Ok(None);
            };
            match header[156] {
                b'x' => {
                    let text = self.extension(&header, &mut extended)?;
                    extended.read_pax(&text)?;
                }
                // It would change all entries after it. Go reads it as an entry that nobody looks at.
                b'g' => {
                    self.extension(&header, &mut extended)?;
                }
                b'L' => extended.path = Some(until_nul(&self.extension(&header, &mut extended)?).to_vec()),
                b'K' => extended.link = Some(until_nul(&self.extension(&header, &mut extended)?).to_vec()),
                _ => return self.entry(&header, extended).map(Some),
            }
        }
    }

    /// A header, checked; none at the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Broken> {
        let mut block = [0; BLOCK];
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        self.input.read_exact(&mut block)?;
        if is_zero(&block) {
            if self.input.fill_buf()?.is_empty() {
                return Ok(None);
            }
            self.input.read_exact(&mut block)?;
            return if is_zero(&block) { Ok(None) } else { rule("something follows a single block of zeros") };
        }
        let stated = number(&block[148..156]).filter(|sum| *sum >= 0);
        let sum = |signed: bool| {
            let value = |byte: u8| if signed { i64::from(byte as i8) } else { i64::from(byte) };
            let all: i64 = block.iter().map(|byte| value(*byte)).sum();
            all - block[148..156].iter().map(|byte| value(*byte)).sum::<i64>() + 8 * i64::from(b' ')
        };
        if stated != Some(sum(false)) && stated != Some(sum(true)) {
            return rule("the checksum of a header is wrong");
        }
        self.entries += 1;
        if self.entries > self.limits.entries.saturating_mul(2) {
            return rule(format!("it has more than {} entries", self.limits.entries));
        }
        Ok(Some(block))
    }

    /// The content of an extended header.
    fn extension(&mut self, header: &[u8; BLOCK], extended: &mut Extended) -> Result<Vec<u8>, Broken> {
        let size = size_of(header)?;
        extended.bytes = extended.bytes.saturating_add(size).saturating_add(1);
        if extended.bytes > self.limits.header {
            return rule(format!("extended headers of one entry are larger than {} bytes", self.limits.header));
        }
        let mut text = vec![0; size as usize];
        self.input.read_exact(&mut text)?;
        skip(&mut self.input, padding(size))?;
        Ok(text)
    }

    fn entry(&mut self, header: &[u8; BLOCK], mut extended: Extended) -> Result<Entry, Broken> {
        let mut path = header_path(header);
        if let Some(longer) = extended.sparse.name.take().or(extended.path.take()) {
            path = longer;
        }
        let link = extended.link.take().unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        if path.contains(&0) || link.contains(&0) {
            return rule(format!("a name has a NUL: {}", path.escape_ascii()));
        }
        let device = |from: usize| match number(&header[from..from + 8]) {
            Some(value) => u32::try_from(value).map_err(|_| Broken::Rule("a device number is too large".to_owned())),
            None => Ok(0),
        };
        let type_flag = header[156];
        let kind = match type_flag {
            b'0' | 0 | b'7' if path.ends_with(b"/") && extended.size.unwrap_or(size_of(header)?) == 0 => {
                Kind::Directory
            }
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char(device(329)?, device(337)?),
            b'4' => Kind::Block(device(329)?, device(337)?),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return rule(format!("an entry has the unknown type {:?}", char::from(other))),
        };
        let id = |from: usize, longer: Option<u64>| match longer {
            Some(id) => Ok(id),
            None => match number(&header[from..from + 8]) {
                Some(id) => u64::try_from(id).map_err(|_| Broken::Rule(format!("an owner is {id}"))),
                None => rule("an owner is no number"),
            },
        };
        let (uid, gid) = (id(108, extended.uid)?, id(116, extended.gid)?);
        let mtime = match extended.mtime {
            Some(mtime) => mtime,
            None => (number(&header[136..148]).unwrap_or(0), 0),
        };
        let mode = number(&header[100..108]).map_or(0, |mode| (mode & 0o7777) as u32);
        let (mut size, mut parts) = (0, None);
        if kind == Kind::File {
            size = extended.size.map_or_else(|| size_of(header), Ok)?;
            self.content = size;
            self.padding = padding(size);
            let sparse = match type_flag {
                b'S' => Some(self.old_sparse(header)?),
                _ if extended.sparse.is_used => Some(self.pax_sparse(&extended.sparse)?),
                _ => None,
            };
            if let Some((whole, list)) = sparse {
                check_parts(&list, whole, self.content)?;
                (size, parts) = (whole, Some(list));
            }
            if size > self.limits.file_size {
                return rule(format!("a file has {size} bytes; at most {} are allowed", self.limits.file_size));
            }
        }
        let xattrs = extended.xattrs.into_iter().collect();
        Ok(Entry { path, link, kind, mode, uid, gid, mtime, size, xattrs, parts })
    }

    /// GNU's older sparse files: four parts in the header, 21 in each block that follows.
    fn old_sparse(&mut self, header: &[u8; BLOCK]) -> Result<(u64, Vec<(u64, u64)>), Broken> {
        let Some(whole) = number(&header[483..495]).and_then(|size| u64::try_from(size).ok()) else {
            return rule("a sparse file has no size");
        };
        let mut parts = Vec::new();
        add_parts(&header[386..482], &mut parts)?;
        let mut more = header[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            self.input.read_exact(&mut block)?;
            add_parts(&block[..504], &mut parts)?;
            more = block[504] != 0;
            if parts.len() as u64 * 24 > self.limits.header {
                return rule("a sparse file has too many parts");
            }
        }
        Ok((whole, parts))
    }

    fn pax_sparse(&mut self, sparse: &Sparse) -> Result<(u64, Vec<(u64, u64)>), Broken> {
        let Some(whole) = sparse.size else { return rule("a sparse file has no size") };
        if sparse.major != Some(1) {
            if !sparse.numbers.len().is_multiple_of(2) {
                return rule("the map of a sparse file ends in the middle");
            }
            return Ok((whole, sparse.numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()));
        }
        // The map is at the beginning of the content: numbers in lines, filled up to whole blocks.
        let mut text = Lines { reader: self, block: [0; BLOCK], at: BLOCK };
        let count = text.number()?;
        if count > text.reader.limits.header / 4 {
            return rule("a sparse file has too many parts");
        }
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push((text.number()?, text.number()?));
        }
        Ok((whole, parts))
    }

    /// Some bytes of the current entry's content; none at its end. [`Reader::consume`] says how many were used.
    pub(crate) fn content(&mut self) -> Result<&[u8], Broken> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let left = self.content;
        let bytes = self.input.fill_buf()?;
        if bytes.is_empty() {
            return rule("the archive ends in the middle of a file");
        }
        Ok(&bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))])
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.content -= count as u64;
    }

    /// Passes over the content by other means than reading it: `by` gets the source and the number of bytes.
    pub(crate) fn pass(&mut self, by: impl FnOnce(&mut R, u64) -> io::Result<()>) -> io::Result<()> {
        let count = std::mem::take(&mut self.content) + std::mem::take(&mut self.padding);
        by(&mut self.input, count)
    }

    /// The source, in the middle of everything.
    pub(crate) fn input(&self) -> &R {
        &self.input
    }

    fn skip_content(&mut self) -> Result<(), Broken> {
        skip(&mut self.input, self.content)?;
        self.content = 0;
        // Some programs end the archive right after the last byte of the last file.
        match skip(&mut self.input, std::mem::take(&mut self.padding)) {
            Err(Broken::Rule(_)) => Ok(()),
            result => result,
        }
    }
}

/// The content of the current entry as bytes to read.
impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = match self.content() {
            Ok(bytes) => bytes,
            Err(Broken::Io(error)) => return Err(error),
            Err(Broken::Rule(rule)) => return Err(io::Error::new(io::ErrorKind::InvalidData, rule)),
        };
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// The numbers at the beginning of a sparse file's content.
struct Lines<'a, R> {
    reader: &'a mut Reader<R>,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: BufRead> Lines<'_, R> {
    fn number(&mut self) -> Result<u64, Broken> {
        let mut value: u64 = 0;
        for count in 0.. {
            if self.at == BLOCK {
                if self.reader.content < BLOCK as u64 {
                    return rule("the map of a sparse file ends in the middle");
                }
                self.reader.input.read_exact(&mut self.block)?;
                self.reader.content -= BLOCK as u64;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' if count > 0 => return Ok(value),
                b'0'..=b'9' if count < 19 => value = value * 10 + u64::from(byte - b'0'),
                _ => break,
            }
        }
        rule("the map of a sparse file has something else than numbers")
    }
}

fn add_parts(bytes: &[u8], parts: &mut Vec<(u64, u64)>) -> Result<(), Broken> {
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let value = |bytes: &[u8]| number(bytes).and_then(|value| u64::try_from(value).ok());
        match (value(&pair[..12]), value(&pair[12..])) {
            (Some(offset), Some(length)) => parts.push((offset, length)),
            _ => return rule("the map of a sparse file has something else than numbers"),
        }
    }
    Ok(())
}

/// The parts come one after the other, inside of the file, and are all of the content.
fn check_parts(parts: &[(u64, u64)], whole: u64, content: u64) -> Result<(), Broken> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in parts {
        let next = offset.checked_add(*length).filter(|next| *next <= whole && *offset >= end);
        let Some(next) = next else { return rule("the parts of a sparse file overlap or lie outside of it") };
        (end, sum) = (next, sum + length);
    }
    if sum == content { Ok(()) } else { rule("the parts of a sparse file are not its content") }
}

impl Extended {
    /// Records of the form `"<length> <key>=<value>\n"`, where the length counts the whole record.
    fn read_pax(&mut self, mut text: &[u8]) -> Result<(), Broken> {
        while !text.is_empty() {
            let Some((key, value, rest)) = record(text) else { return rule("a pax header has a broken record") };
            self.set(key, value)?;
            text = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Broken> {
        let wrong = || Broken::Rule(format!("a pax header has {}={}", key.escape_ascii(), shorten(value)));
        let decimal = || decimal(value).ok_or_else(wrong);
        // No value takes an earlier one away.
        let some = !value.is_empty();
        match key {
            b"path" => self.path = some.then(|| value.to_vec()),
            b"linkpath" => self.link = some.then(|| value.to_vec()),
            b"size" => self.size = if some { Some(decimal()?) } else { None },
            b"uid" => self.uid = if some { Some(decimal()?) } else { None },
            b"gid" => self.gid = if some { Some(decimal()?) } else { None },
            b"mtime" => self.mtime = if some { Some(time(value).ok_or_else(wrong)?) } else { None },
            b"GNU.sparse.major" => (self.sparse.major, self.sparse.is_used) = (Some(decimal()?), true),
            b"GNU.sparse.minor" => {}
            b"GNU.sparse.name" => self.sparse.name = some.then(|| value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                (self.sparse.size, self.sparse.is_used) = (Some(decimal()?), true);
            }
            b"GNU.sparse.numblocks" => {}
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let is_offset = key == b"GNU.sparse.offset";
                if self.sparse.numbers.len().is_multiple_of(2) != is_offset {
                    return Err(wrong());
                }
                self.sparse.numbers.push(decimal()?);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').map(self::decimal);
                self.sparse.numbers = numbers.collect::<Option<_>>().ok_or_else(wrong)?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.len() > 255 || name.contains(&0) {
                        return Err(wrong());
                    }
                    if self.xattrs.insert(name.to_vec(), value.to_vec()).is_none() {
                        self.xattr_names += name.len() + 1;
                    }
                    if self.xattr_names > XATTR_NAMES {
                        return rule(format!(
                            "the names of an entry's extended attributes have more than {XATTR_NAMES} bytes"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The first record and what follows it.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&text[..space])?).ok()?;
    let body = text.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &text[length..]))
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `"-12.5"`: seconds before or after the epoch.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut halves = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(halves.next()?)?).ok()?;
    let mut nanoseconds = 0;
    let fraction = halves.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    for place in 0..9 {
        nanoseconds = nanoseconds * 10 + u32::from(fraction.get(place).map_or(0, |digit| digit - b'0'));
    }
    match (negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

/// A number of a header: octal text, or binary with the highest bit set. None for what is neither.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        // Two's complement, of which the topmost bit says that it is binary.
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (index, byte) in field.iter().enumerate() {
            let byte = match (index, negative) {
                (0, false) => byte & 0x7f,
                _ => *byte,
            };
            value = value << 8 | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let text = until_nul(field).trim_ascii();
    if text.is_empty() {
        return Some(0);
    }
    text.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn size_of(header: &[u8; BLOCK]) -> Result<u64, Broken> {
    match number(&header[124..136]).map(u64::try_from) {
        Some(Ok(size)) => Ok(size),
        Some(Err(_)) => rule("an entry has a negative size"),
        None => rule("an entry has a size that is no number"),
    }
}

/// The name in a header: the prefix of ustar before it.
fn header_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    // GNU tar has times where ustar has the prefix.
    let prefix = if &header[257..263] == b"ustar\0" { until_nul(&header[345..500]) } else { &[] };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn skip(input: &mut impl BufRead, mut count: u64) -> Result<(), Broken> {
    while count > 0 {
        let there = input.fill_buf()?.len();
        if there == 0 {
            return rule("the archive ends in the middle");
        }
        let step = there.min(usize::try_from(count).unwrap_or(usize::MAX));
        input.consume(step);
        count -= step as u64;
    }
    Ok(())
}

/// Foreign bytes for a message: escaped, and not too many.
pub(crate) fn shorten(bytes: &[u8]) -> String {
    let more = if bytes.len() > 200 { "…" } else { "" };
    format!("{}{more}", bytes[..bytes.len().min(200)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(name: &str, kind: u8, size: &str) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..124 + size.len()].copy_from_slice(size.as_bytes());
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn all(bytes: &[u8]) -> Result<Vec<Entry>, Broken> {
        let mut reader = Reader::new(bytes, Limits::default());
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    fn pax(records: &[u8]) -> Vec<u8> {
        let mut bytes = block("x", b'x', &format!("{:o}", records.len())).to_vec();
        bytes.extend_from_slice(records);
        bytes.resize(bytes.len().div_ceil(BLOCK) * BLOCK, 0);
        bytes.extend_from_slice(&block("name", b'0', "0"));
        bytes
    }

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\x01\0\0\0\0"), Some(1 << 32));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        for bad in [&b"8"[..], b"-1", b"1x", b"0x1", b"77777777777777777777777"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_have_fractions() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        for bad in [&b""[..], b".5", b"1.x", b"x", b"--1", b"99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_come_from_the_header_that_says_most() {
        let entries = all(&pax(b"12 path=new\n14 mtime=1.5 \n"));
        assert!(entries.is_err());
        let entries = all(&pax(b"12 path=new\n13 mtime=1.5\n11 uid=77\n")).unwrap_err();
        assert!(matches!(entries, Broken::Rule(_)));
        let entries = all(&pax(b"12 path=new\n13 mtime=1.5\n10 uid=77\n")).unwrap();
        assert_eq!((entries[0].path.as_slice(), entries[0].mtime, entries[0].uid), (&b"new"[..], (1, 500_000_000), 77));
        let mut long = block("long", b'L', "5").to_vec();
        long.extend_from_slice(b"abcd\0");
        long.resize(2 * BLOCK, 0);
        long.extend_from_slice(&block("dir/", b'0', "0"));
        assert_eq!(all(&long).unwrap()[0].path, b"abcd");
        assert_eq!(all(&block("dir/", b'0', "0")).unwrap()[0].kind, Kind::Directory);
    }

    #[test]
    fn an_archive_may_end_after_its_last_byte() {
        let mut bytes = block("a", b'0', "3").to_vec();
        bytes.extend_from_slice(b"abc");
        assert_eq!(all(&bytes).unwrap().len(), 1);
        assert!(matches!(all(&bytes[..bytes.len() - 1]), Err(Broken::Rule(_))));
        assert!(matches!(all(&bytes[..BLOCK - 1]), Err(Broken::Rule(_))));
        assert_eq!(all(&[]).unwrap(), []);
        assert_eq!(all(&[0; BLOCK]).unwrap(), []);
        let mut more = vec![0; BLOCK];
        more.extend_from_slice(&block("a", b'0', "0"));
        assert!(matches!(all(&more), Err(Broken::Rule(_))));
    }

    #[test]
    fn parts_of_sparse_files_lie_inside() {
        assert!(check_parts(&[(0, 3), (5, 2)], 7, 5).is_ok());
        for (parts, whole, content) in
            [(vec![(5, 2), (0, 3)], 7, 5), (vec![(0, 8)], 7, 8), (vec![(u64::MAX, 2)], 7, 2), (vec![(0, 3)], 7, 4)]
        {
            assert!(check_parts(&parts, whole, content).is_err(), "{parts:?}");
        }
    }

    /// Whatever comes: an answer, and no more memory than the limits say.
    #[test]
    fn broken_bytes_are_only_errors() {
        let mut good = pax(b"12 path=new\n13 mtime=1.5\n24 SCHILY.xattr.user.a=b\n");
        good.extend_from_slice(&block("sparse", b'S', "0"));
        good.extend_from_slice(&block("f", b'0', "4"));
        good.extend_from_slice(&[7; 4]);
        good.resize(good.len() + 508 + 1024, 0);
        let mut state = 1_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                bytes[at] = next(256) as u8;
            }
            // Checksums are easy to make right.
            for at in (0..bytes.len() - BLOCK).step_by(BLOCK) {
                if next(2) == 0 {
                    let sum: u32 = (0..BLOCK)
                        .map(|offset| if (148..156).contains(&offset) { 32 } else { u32::from(bytes[at + offset]) })
                        .sum();
                    bytes[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
            }
            bytes.truncate(next(bytes.len()) + 1);
            if let Ok(entries) = all(&bytes) {
                assert!(entries.len() <= 6);
            }
        }
    }

    #[test]
    fn extended_attributes_are_bounded() {
        let record = |name: &str| {
            let rest = format!(" SCHILY.xattr.{name}=v\n");
            let length = rest.len() + 2;
            assert_eq!(length.to_string().len(), 2);
            format!("{length}{rest}")
        };
        // The last one of a name counts, once.
        let many: String = (0..20_000).map(|number| record(&format!("user.{}", number % 5))).collect();
        assert_eq!(all(&pax(many.as_bytes())).unwrap()[0].xattrs.len(), 5);
        let few: String = (0..5957).map(|number| record(&format!("user.{number:05}"))).collect();
        assert_eq!(all(&pax(few.as_bytes())).unwrap()[0].xattrs.len(), 5957);
        let many = few + &record("user.99999");
        let error = all(&pax(many.as_bytes())).unwrap_err();
        assert!(matches!(error, Broken::Rule(rule) if rule.contains("65536")));
    }
}
