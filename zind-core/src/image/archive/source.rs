//! [`Source`]: the files of an archive by name, wherever they are.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{At, Error, Result, Step, uninterrupted};
use crate::image::Limits;
use crate::image::progress::{Progress, ProgressEvent, ProgressKind};
use crate::image::unpack::decompress::{self, Compression};
use crate::image::unpack::layer_error;
use crate::image::unpack::tar::{Broken, Kind, Reader, shorten};

/// As many entries as an archive of images may have.
const MOST_ENTRIES: u64 = 200_000;
/// Links that lead to links.
const MOST_LINKS: usize = 8;

/// A directory, or a tar file that was looked through once.
pub(super) enum Source {
    Directory(OwnedFd),
    Tar { file: Arc<File>, entries: HashMap<Vec<u8>, Place> },
}

/// Where a file is in a tar.
pub(super) enum Place {
    Part { offset: u64, size: u64 },
    Link(Vec<u8>),
}

/// A file of an archive.
pub(super) struct Part {
    pub(super) reader: Box<dyn Read + Send>,
    pub(super) size: u64,
}

/// Opens a file of the caller's for reading; nothing blocks.
pub(super) fn open_file(path: &Path) -> Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = retry_on_intr(|| openat(rustix::fs::CWD, path, flags, Mode::empty())).at(Step::Archive, "open", path)?;
    let meta = fstat(&file).at(Step::Archive, "fstat", path)?;
    match FileType::from_raw_mode(meta.st_mode) {
        FileType::RegularFile => Ok((file.into(), u64::try_from(meta.st_size).unwrap_or_default())),
        FileType::Directory => Err(Errno::ISDIR).at(Step::Archive, "open", path),
        _ => Err(Errno::INVAL)
            .at(Step::Archive, "open", path)
            .map_err(|error| error.with_hint("an archive is a regular file or a directory")),
    }
}

impl Source {
    /// Opens an archive. `spool` is where a compressed one is unpacked to: a place for a file without a name.
    pub(super) fn open(path: &Path, spool: &Path, limits: &Limits, progress: &mut dyn Progress) -> Result<Source> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match retry_on_intr(|| openat(rustix::fs::CWD, path, flags, Mode::empty())) {
            Ok(dir) => return Ok(Source::Directory(dir)),
            Err(Errno::NOTDIR) => {}
            Err(errno) => return Err(errno).at(Step::Archive, "open", path),
        }
        let (mut file, size) = open_file(path)?;
        let what = format!("archive {}", path.display());
        let mut begin = [0; 6];
        let count = uninterrupted(|| file.read_at(&mut begin, 0)).at(Step::Archive, "read", path)?;
        let begin = &begin[..count];
        if Compression::of(begin) != Compression::None || decompress::foreign(begin).is_some() {
            file = unpack_to(file, size, spool, &what, limits, progress)?;
        }
        let entries = look_through(&file, &what, limits)?;
        Ok(Source::Tar { file: Arc::new(file), entries })
    }

    /// A file by its name; none if it is not there.
    pub(super) fn file(&self, name: &str) -> Result<Option<Part>> {
        match self {
            Source::Directory(dir) => file_of(dir, name),
            Source::Tar { file, entries } => {
                let mut name = clean(name.as_bytes());
                for _ in 0..=MOST_LINKS {
                    match entries.get(&name) {
                        None => return Ok(None),
                        Some(Place::Part { offset, size }) => {
                            let reader = Box::new(Stretch { file: file.clone(), at: *offset, end: offset + size });
                            return Ok(Some(Part { reader, size: *size }));
                        }
                        Some(Place::Link(target)) => name = target.clone(),
                    }
                }
                Err(Error::image(format!("archive, entry {}", shorten(&name)), "goes through too many links"))
            }
        }
    }

    /// A document, which is bounded.
    pub(super) fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(part) = self.file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        part.reader.take(limit + 1).read_to_end(&mut bytes).at(Step::Archive, "read", name)?;
        if bytes.len() as u64 > limit {
            return Err(Error::image(
                format!("archive, {name:?}"),
                format!("is a document of more than {limit} bytes"),
            ));
        }
        Ok(Some(bytes))
    }
}

fn file_of(dir: &OwnedFd, name: &str) -> Result<Option<Part>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match retry_on_intr(|| openat2(dir, name, flags, Mode::empty(), resolve)) {
        Err(Errno::NOENT) => return Ok(None),
        result => result.at(Step::Archive, "openat2", name)?,
    };
    let meta = fstat(&file).at(Step::Archive, "fstat", name)?;
    if FileType::from_raw_mode(meta.st_mode) != FileType::RegularFile {
        return Err(Error::image(format!("archive, {name:?}"), "is no regular file"));
    }
    let size = u64::try_from(meta.st_size).unwrap_or_default();
    Ok(Some(Part { reader: Box::new(File::from(file)), size }))
}

/// Decompresses an archive into a file that goes away with its descriptor.
fn unpack_to(
    file: File,
    size: u64,
    spool: &Path,
    what: &str,
    limits: &Limits,
    progress: &mut dyn Progress,
) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let spooled = retry_on_intr(|| openat(rustix::fs::CWD, spool, flags, Mode::RUSR | Mode::WUSR)).at(
        Step::Archive,
        "open",
        spool,
    )?;
    let mut spooled = File::from(spooled);
    let taken = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let input = decompress::Counted { inner: file, count: taken.clone() };
    let input = io::BufReader::with_capacity(128 << 10, input);
    let broken = |error| layer_error(what, error);
    let reader = decompress::reader(input, limits).map_err(broken)?;
    let mut reader = decompress::Watched::new(reader, *limits, taken.clone());
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = uninterrupted(|| reader.read(&mut buffer)).map_err(broken)?;
        if count == 0 {
            return Ok(spooled);
        }
        spooled.write_all(&buffer[..count]).at(Step::Archive, "write", spool)?;
        let done = taken.load(std::sync::atomic::Ordering::Relaxed);
        progress.step(&ProgressEvent::new(ProgressKind::Load).bytes(done, Some(size)));
        if progress.interrupted() {
            return Err(Error::Interrupted);
        }
    }
}

fn look_through(file: &File, what: &str, limits: &Limits) -> Result<HashMap<Vec<u8>, Place>> {
    let mut entries = HashMap::new();
    let limits = Limits { entries: limits.entries.min(MOST_ENTRIES), file_size: u64::MAX >> 1, ..*limits };
    let mut reader = Reader::new(Cursor { file, at: 0, buffer: vec![0; 16 << 10], from: 0, to: 0 }, limits);
    loop {
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(entries),
            Err(Broken::Rule(rule)) => return Err(Error::image(what, rule)),
            Err(Broken::Io(error)) => return Err(layer_error(what, error)),
        };
        if entries.len() as u64 >= MOST_ENTRIES {
            return Err(Error::image(
                what,
                format!("has more than {MOST_ENTRIES} entries: it is no archive of images"),
            ));
        }
        let name = clean(&entry.path);
        match entry.kind {
            Kind::File if entry.parts.is_some() => {
                return Err(Error::image(format!("{what}, entry {}", shorten(&name)), "is a sparse file"));
            }
            Kind::File => {
                let offset = reader.input().at;
                let end = offset.saturating_add(entry.size);
                let length = file.metadata().at(Step::Archive, "fstat", what)?.len();
                if end > length {
                    return Err(Error::image(format!("{what}, entry {}", shorten(&name)), "is cut off"));
                }
                entries.insert(name, Place::Part { offset, size: entry.size });
            }
            Kind::Symlink => {
                let parent = name.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| &name[..at]);
                let target = match entry.link.first() {
                    Some(b'/') => clean(&entry.link),
                    _ => clean(&[parent, b"/", &entry.link].concat()),
                };
                entries.insert(name, Place::Link(target));
            }
            Kind::HardLink => {
                entries.insert(name, Place::Link(clean(&entry.link)));
            }
            _ => {}
        }
        let passed = reader.pass(|cursor, count| {
            cursor.pass(count);
            Ok(())
        });
        passed.at(Step::Archive, "read", what)?;
    }
}

/// A name without `.`, `..` and empty parts: names are only looked up, never opened.
fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Reads a file from an offset, and jumps.
struct Cursor<'a> {
    file: &'a File,
    /// The offset of the next byte.
    at: u64,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl Cursor<'_> {
    fn pass(&mut self, count: u64) {
        match usize::try_from(count) {
            Ok(near) if near <= self.to - self.from => self.from += near,
            _ => (self.from, self.to) = (0, 0),
        }
        self.at = self.at.saturating_add(count);
    }
}

impl BufRead for Cursor<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.from == self.to {
            self.from = 0;
            self.to = uninterrupted(|| self.file.read_at(&mut self.buffer, self.at))?;
        }
        Ok(&self.buffer[self.from..self.to])
    }

    fn consume(&mut self, count: usize) {
        self.from += count;
        self.at += count as u64;
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// A part of a file.
struct Stretch {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Stretch {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = uninterrupted(|| self.file.read_at(&mut buffer[..wanted], self.at))?;
        self.at += count as u64;
        Ok(count)
    }
}
