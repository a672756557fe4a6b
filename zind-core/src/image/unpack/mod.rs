//! From a layer to a directory: one thread decompresses, one hashes, one makes the files.

pub(crate) mod apply;
pub(crate) mod below;
pub(crate) mod decompress;
mod limits;
pub(crate) mod merge;
pub(crate) mod pipe;
pub(crate) mod tar;

use std::ffi::OsStr;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use limits::Limits;
use rustix::io::Errno;

use super::digest::{Algorithm, Digest, Hasher};
use crate::copy;
use crate::error::{At, Error, Result, Step};
use crate::rootfs::fault::Fault;
use crate::store::Owners;
use apply::{Apply, Stop, Unpacked};
use below::Below;
use decompress::{Counted, Watched};
use pipe::Chunks;
use tar::Reader;

/// How often the caller is asked whether to stop.
const PATIENCE: Duration = Duration::from_millis(40);

/// What is to be unpacked where.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The layer, for errors: `"layer sha256:…"`.
    pub(crate) what: String,
    /// The digest to compute of what is unpacked.
    pub(crate) algorithm: Algorithm,
    /// The layers below, topmost first.
    pub(crate) below: Vec<PathBuf>,
    pub(crate) owners: Owners,
    pub(crate) limits: Limits,
}

/// Threads at work. They end with it.
#[derive(Debug)]
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
    decompress: Option<JoinHandle<Result<(), Trouble>>>,
    hash: Option<JoinHandle<Option<Digest>>>,
    write: Option<JoinHandle<Result<Unpacked, Trouble>>>,
    /// Cut off when the files are made, or nobody makes them any more.
    end: Receiver<()>,
}

/// Why a thread gave up.
#[derive(Debug)]
enum Trouble {
    Error(Error),
    /// Another thread did before.
    Gone,
}

/// Begins to unpack what `input` gives into the empty directory `root`.
pub(crate) fn start(input: impl Read + Send + 'static, root: OwnedFd, job: Job) -> Result<Running> {
    let stop = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(AtomicU64::new(0));
    let (ending, end): (SyncSender<()>, _) = sync_channel(0);
    let mut running =
        Running { stop: stop.clone(), taken: taken.clone(), decompress: None, hash: None, write: None, end };
    // After `running`: if a thread cannot be started, the others are cut off before they are waited for.
    let (sender, [to_hash, to_write]) = pipe::channel::<2>();
    let (what, limits, algorithm) = (job.what.clone(), job.limits, job.algorithm);
    running.hash = Some(spawn("zind-hash", move || hash(to_hash, algorithm))?);
    running.write = Some(spawn("zind-unpack", move || {
        let _ending = ending;
        write(to_write, root, &job, &stop)
    })?);
    running.decompress = Some(spawn("zind-decompress", move || {
        let input = BufReader::with_capacity(128 << 10, Counted { inner: input, count: taken.clone() });
        decompress(input, sender, limits, taken).map_err(|error| trouble(&what, error))
    })?);
    Ok(running)
}

/// A thread that hears no signals: they are the caller's.
pub(crate) fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let quiet = || {
        let _ = nix::sys::signal::SigSet::all().thread_block();
        body()
    };
    thread::Builder::new().name(name.to_owned()).spawn(quiet).at(Step::Unpack, "clone", name)
}

impl Running {
    /// Waits for the end: what was unpacked, and the digest of the unpacked archive. `poll` gets the number of bytes that
    /// were read so far, and says whether to stop.
    pub(crate) fn wait(mut self, poll: &mut dyn FnMut(u64) -> bool) -> Result<(Unpacked, Digest)> {
        while self.end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            if poll(self.taken.load(Ordering::Relaxed)) {
                self.stop.store(true, Ordering::Relaxed);
                let _ = self.join();
                return Err(Error::Interrupted);
            }
        }
        self.join()
    }

    fn join(&mut self) -> Result<(Unpacked, Digest)> {
        let written = end(self.write.take(), || Err(Trouble::Gone));
        let sent = end(self.decompress.take(), || Err(Trouble::Gone));
        let hashed = end(self.hash.take(), || None);
        match (sent, written, hashed) {
            (Ok(()), Ok(unpacked), Some(digest)) => Ok((unpacked, digest)),
            (Err(Trouble::Error(error)), _, _) | (_, Err(Trouble::Error(error)), _) => Err(error),
            _ => Err(Error::Interrupted),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic of theirs has no place to go from here.
        let _ = self.write.take().map(JoinHandle::join);
        let _ = self.decompress.take().map(JoinHandle::join);
        let _ = self.hash.take().map(JoinHandle::join);
    }
}

/// What a thread came to; a panic of it goes on here.
fn end<T>(thread: Option<JoinHandle<T>>, none: impl FnOnce() -> T) -> T {
    match thread.map(JoinHandle::join) {
        None => none(),
        Some(Ok(result)) => result,
        Some(Err(panic)) => std::panic::resume_unwind(panic),
    }
}

fn decompress(
    input: BufReader<Counted<impl Read>>,
    mut sender: pipe::Sender,
    limits: Limits,
    taken: Arc<AtomicU64>,
) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::ConnectionAborted);
    let mut reader = Watched::new(decompress::reader(input, &limits)?, limits, taken);
    while sender.send_from(&mut reader)?.map_err(|_| gone())? > 0 {}
    sender.finish().map_err(|_| gone())
}

fn hash(mut chunks: Chunks, algorithm: Algorithm) -> Option<Digest> {
    let mut hasher = Hasher::new(algorithm);
    loop {
        let count = match io::BufRead::fill_buf(&mut chunks).ok()? {
            [] => return Some(hasher.finish()),
            bytes => {
                hasher.update(bytes);
                bytes.len()
            }
        };
        io::BufRead::consume(&mut chunks, count);
    }
}

fn write(chunks: Chunks, root: OwnedFd, job: &Job, stop: &AtomicBool) -> Result<Unpacked, Trouble> {
    let below = Below::open(&job.below).map_err(|(path, fault)| Trouble::Error(fault.at(Step::Unpack, &path)))?;
    let mut reader = Reader::new(chunks, job.limits);
    let mut hands = copy::hands_for(&job.owners).map_err(Trouble::Error)?;
    let apply = Apply::new(&mut *hands, root, below, &job.owners, job.limits);
    let unpacked = apply.run(&mut reader, &|| stop.load(Ordering::Relaxed));
    let unpacked = unpacked.map_err(|stop| match stop {
        Stop::Rule(entry, rule) => Trouble::Error(Error::image(format!("{}, {entry}", job.what), rule)),
        Stop::Fault(path, fault) => Trouble::Error(fault_of(&job.what, &path, fault)),
        Stop::Source(error) => trouble(&job.what, error),
        Stop::Stopped => Trouble::Gone,
    })?;
    // What follows the end of the archive counts for its digest.
    let mut chunks = reader.into_inner();
    io::copy(&mut chunks, &mut io::sink()).map_err(|error| trouble(&job.what, error))?;
    Ok(unpacked)
}

/// What the kernel refused of an entry.
fn fault_of(what: &str, path: &OsStr, fault: Fault) -> Error {
    if fault.call.contains("setxattr") && matches!(fault.errno, Errno::TOOBIG | Errno::NOSPC | Errno::RANGE) {
        let entry = format!("{what}, entry {}", tar::shorten(path.as_bytes()));
        return Error::image(
            entry,
            format!("has extended attributes that this file system cannot hold ({})", fault.errno),
        );
    }
    let mut error = fault.at(Step::Unpack, path.as_ref());
    if let Error::Sys { hint, .. } = &mut error {
        let between = if hint.is_empty() { "" } else { "; " };
        hint.push_str(&format!("{between}it is an entry of {what}"));
    }
    error
}

/// An error while reading a layer.
fn trouble(what: &str, error: io::Error) -> Trouble {
    if pipe::is_cut_off(&error) {
        return Trouble::Gone;
    }
    Trouble::Error(layer_error(what, error))
}

/// The error behind an [`io::Error`] of reading a layer: zind's own, the kernel's, or that of the decompression.
pub(crate) fn layer_error(what: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(Error::Image { what: inner, rule }) if inner == "layer" => Error::image(what, rule),
        Ok(error) => error,
        Err(error) => match error.raw_os_error() {
            Some(errno) => Error::sys(Step::Blob, "read", what, nix::errno::Errno::from_raw(errno)),
            None => Error::image(what, format!("cannot be decompressed: {error}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_layer() {
        let of = |call, errno| fault_of("layer sha256:1", OsStr::new("etc/x"), Fault::new(call, errno));
        let error = of("mkdir", Errno::ROFS).to_string();
        assert!(error.contains("etc/x") && error.contains("layer sha256:1"), "{error}");
        assert_eq!(of("write", Errno::NOSPC).errno(), Some(nix::errno::Errno::ENOSPC));
        for errno in [Errno::TOOBIG, Errno::NOSPC, Errno::RANGE] {
            let Error::Image { what, .. } = of("fsetxattr", errno) else { panic!("{errno}") };
            assert_eq!(what, "layer sha256:1, entry etc/x");
        }
    }
}
