//! [`CommitOptions`], and what commit, export and build share: from directories on disk to a layer of the store.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use super::digest::{Algorithm, Digest, Hasher};
use super::pack::{self, Compression, Encoder, PackStats};
use super::progress::asked;
use super::{Descriptor, History, Image, ImageConfig, Progress, ProgressEvent, ProgressKind, RunConfig};
use crate::error::{At, Error, Result, Step};
use crate::rootfs::layers::{Ids, Layer, Marks, View};
use crate::store::{Ingest, Store};

/// What [`Layers::commit`](crate::Layers::commit) and [`Process::commit`](crate::Process::commit) make of changes.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CommitOptions {
    /// Names of the new image.
    pub tags: Vec<String>,
    /// How a container of it runs; `None`: as one of the image below.
    pub config: Option<RunConfig>,
    /// Who made it.
    pub author: Option<String>,
    /// Why: a comment in the history.
    pub message: Option<String>,
    /// When, as RFC 3339; `None`: now.
    pub created: Option<String>,
    /// How the layer is compressed.
    pub compression: Compression,
}

impl CommitOptions {
    /// The default: no name, gzip.
    pub fn new() -> CommitOptions {
        CommitOptions::default()
    }

    /// Adds a name.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>) -> CommitOptions {
        self.tags.push(name.into());
        self
    }

    /// Sets [`CommitOptions::config`].
    #[must_use]
    pub fn config(self, config: RunConfig) -> CommitOptions {
        CommitOptions { config: Some(config), ..self }
    }

    /// Sets [`CommitOptions::author`].
    #[must_use]
    pub fn author(self, author: impl Into<String>) -> CommitOptions {
        CommitOptions { author: Some(author.into()), ..self }
    }

    /// Sets [`CommitOptions::message`].
    #[must_use]
    pub fn message(self, message: impl Into<String>) -> CommitOptions {
        CommitOptions { message: Some(message.into()), ..self }
    }

    /// Sets [`CommitOptions::created`].
    #[must_use]
    pub fn created(self, time: impl Into<String>) -> CommitOptions {
        CommitOptions { created: Some(time.into()), ..self }
    }

    /// Sets [`CommitOptions::compression`].
    #[must_use]
    pub fn compression(self, compression: Compression) -> CommitOptions {
        CommitOptions { compression, ..self }
    }
}

/// Directories that are to become a layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Topmost first.
    pub(crate) stack: Vec<PathBuf>,
    /// What lies below; empty: nothing.
    pub(crate) below: Vec<PathBuf>,
    /// How deletions are marked; `None`: not at all.
    pub(crate) marks: Option<Marks>,
    pub(crate) ids: Ids,
    /// Owners are in the attribute that single-id unpacking leaves.
    pub(crate) owners_in_xattr: bool,
    /// Directories whose content is left out, by their paths below the root.
    pub(crate) volumes: Vec<PathBuf>,
}

impl Changes {
    /// Writes the tar; `done` hears of the bytes.
    fn pack(&self, out: &mut dyn Write, done: &mut dyn FnMut(u64) -> bool) -> Result<PackStats> {
        let layers = |paths: &[PathBuf]| paths.iter().cloned().map(Layer).collect::<Vec<_>>();
        let tree = View::open(layers(&self.stack), self.marks)?;
        let below = if self.below.is_empty() { None } else { Some(tree.beside(layers(&self.below))?) };
        let ids = Some(&self.ids).filter(|ids| !ids.uid.is_empty() || !ids.gid.is_empty());
        // What an ordinary user has unpacked, or brings as a directory, belongs to the user, and means root.
        let root = (self.owners_in_xattr || self.marks.is_none())
            .then(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
        let (owners_in_xattr, volumes) = (self.owners_in_xattr, &self.volumes[..]);
        let options = pack::Options { below: below.as_ref(), ids, owners_in_xattr, root, volumes };
        pack::pack(&tree, options, out, done)
    }
}

/// Packs directories into a new blob. Reading, hashing and compressing go on side by side.
pub(crate) fn add_layer(
    store: &Store,
    changes: &Changes,
    compression: Compression,
    progress: &mut dyn Progress,
) -> Result<(Descriptor, Digest, PackStats)> {
    let ingest = store.ingest(None, compression.media_type(), None)?;
    let (packed, ingest) = compressed(ingest, compression, |sink| changes.pack(sink, &mut told(progress)));
    match (packed, ingest) {
        (Ok((stats, diff_id)), Ok(ingest)) => Ok((ingest.commit()?, diff_id, stats)),
        // Who cannot write makes reading fail, too.
        (_, Err(error)) => Err(error),
        (Err(error), Ok(ingest)) => {
            ingest.discard();
            Err(error)
        }
    }
}

/// Writes directories as a tar to a file that is not there yet.
pub(crate) fn export(
    changes: &Changes,
    path: &Path,
    compression: Compression,
    progress: &mut dyn Progress,
) -> Result<PackStats> {
    let file = File::options().write(true).create_new(true).mode(0o644).custom_flags(libc::O_NOFOLLOW).open(path);
    let file = file.at(Step::Pack, "open", path)?;
    let (packed, written) = compressed(file, compression, |sink| changes.pack(sink, &mut told(progress)));
    let result = match (packed, written) {
        (Ok((stats, _)), Ok(file)) => file.sync_all().at(Step::Pack, "fsync", path).map(|()| stats),
        (_, Err(error)) | (Err(error), _) => Err(error),
    };
    if result.is_err() {
        let _ = std::fs::remove_file(path);
    }
    result
}

/// Tells of the bytes now and then, and asks whether to go on.
fn told(progress: &mut dyn Progress) -> impl FnMut(u64) -> bool {
    const EVERY: u64 = 4 << 20;
    let mut next = 0;
    let mut count = 0_u32;
    move |done| {
        count = count.wrapping_add(1);
        if done >= next {
            progress.step(&ProgressEvent::new(ProgressKind::Pack).bytes(done, None));
            next = done + EVERY;
            return progress.interrupted();
        }
        count.is_multiple_of(64) && progress.interrupted()
    }
}

type Packed<T> = Result<(T, Digest)>;

/// Runs `pack`, whose output is hashed here and compressed by a second thread, which has ended on return.
fn compressed<W: Write + Send, T>(
    out: W,
    compression: Compression,
    pack: impl FnOnce(&mut Sink) -> Result<T>,
) -> (Packed<T>, Result<W>) {
    let (pieces, received) = sync_channel::<Vec<u8>>(8);
    let mut encoder = match Encoder::new(compression, out).at(Step::Pack, "zstd", "") {
        Ok(encoder) => encoder,
        Err(error) => return (Err(Error::Interrupted), Err(error)),
    };
    thread::scope(|scope| {
        let write = move || {
            // Signals are the caller's.
            let _ = nix::sys::signal::SigSet::all().thread_block();
            for piece in received {
                encoder.write_all(&piece)?;
            }
            encoder.finish()
        };
        let writer = thread::Builder::new().name("zind-compress".to_owned()).spawn_scoped(scope, write);
        let writer = match writer.at(Step::Pack, "clone", "zind-compress") {
            Ok(writer) => writer,
            Err(error) => return (Err(Error::Interrupted), Err(error)),
        };
        let mut sink = Sink { hasher: Hasher::new(Algorithm::Sha256), pieces, buffer: Vec::with_capacity(PIECE) };
        let packed = pack(&mut sink).and_then(|value| {
            sink.send().at(Step::Pack, "write", "")?;
            Ok(value)
        });
        let Sink { hasher, pieces, .. } = sink;
        drop(pieces);
        let written = match writer.join() {
            Ok(result) => result.at(Step::Blob, "write", ""),
            Err(_) => Err(Error::State("a thread of the compression panicked".to_owned())),
        };
        (packed.map(|value| (value, hasher.finish())), written)
    })
}

const PIECE: usize = 1 << 18;

/// What is packed, on its way to the compression.
struct Sink {
    hasher: Hasher,
    pieces: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Sink {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.hasher.update(&piece);
        self.pieces.send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes an image of changes to another, or of a whole root.
pub(crate) fn commit(
    store: &Store,
    base: Option<&Image>,
    changes: &Changes,
    options: &CommitOptions,
    progress: &mut dyn Progress,
) -> Result<Image> {
    asked(progress, |progress| commit_asked(store, base, changes, options, progress))
}

fn commit_asked(
    store: &Store,
    base: Option<&Image>,
    changes: &Changes,
    options: &CommitOptions,
    progress: &mut dyn Progress,
) -> Result<Image> {
    let _work = store.work()?;
    let mut config = match base {
        Some(image) => image.config()?.clone(),
        None => ImageConfig::new(),
    };
    // What programs have written to the image's volumes is data, and none of the image's: as Docker has it.
    let below = |path: &String| Path::new("/").join(path).components().skip(1).collect::<PathBuf>();
    let volumes = config.config.volumes.iter().map(below).filter(|path| !path.as_os_str().is_empty()).collect();
    let changes = Changes { volumes, ..changes.clone() };
    let (layer, diff_id, stats) = add_layer(store, &changes, options.compression, progress)?;
    let created = options.created.clone().unwrap_or_else(now);
    config.created = Some(created.clone());
    config.author = options.author.clone().or(config.author);
    if let Some(run) = &options.config {
        config.config = run.clone();
    }
    let is_empty = base.is_some() && stats.entries == 0;
    config.history.push(History {
        created: Some(created),
        created_by: Some("zind commit".to_owned()),
        author: options.author.clone(),
        comment: options.message.clone(),
        empty_layer: is_empty,
        ..History::default()
    });
    let layers = [(layer, diff_id)];
    let tags: Vec<&str> = options.tags.iter().map(String::as_str).collect();
    store.add_layer_and_config(base, if is_empty { &[] } else { &layers }, config, &tags)
}

/// The time, as RFC 3339 in seconds.
pub(crate) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(i64::try_from(since.as_secs()).unwrap_or_default())
}

fn rfc3339(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    // Years that begin in March, in eras of 400: the leap day comes last.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[expect(dead_code, reason = "the type that is sent to the thread")]
fn ingest_is_sent(ingest: Ingest) -> impl Send {
    ingest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_date_writes_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_763_942_399, "2025-11-23T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn a_writer_that_fails_is_the_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (packed, written) = compressed(Full, Compression::None, |sink| {
            (0..100).try_for_each(|_| sink.write_all(&[0; PIECE])).at(Step::Pack, "write", "")
        });
        assert!(packed.is_err());
        assert_eq!(written.err().and_then(|error| error.errno()), Some(nix::errno::Errno::ENOSPC));
    }
}
