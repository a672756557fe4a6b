//! One blob from whoever has it: resumed, tried again, checked while it comes.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use ureq::http::{Method, Uri};

use super::failure::Failure;
use super::http::{Answer, Http, Trouble, host, text};
use super::session::{Call, Place, Session};
use super::work::Meter;
use crate::error::{Error, IntoErrno, Result, Step};
use crate::image::{Descriptor, Progress, Verified};
use crate::store::{Ingest, LayerSink};

/// How much is read at once.
const PIECE: usize = 128 << 10;
/// What has to arrive before a failure counts as the first again.
const NEWS: u64 = 256 << 10;
/// What has to arrive in the time of the longest silence.
const LEAST: u64 = 4 << 10;

/// Somebody who may have a blob.
pub(crate) enum Source {
    /// A registry or mirror.
    Registry(Session),
    /// A URL from a descriptor. Nobody shows it credentials.
    Url(Session, Uri),
}

impl Source {
    /// A URL of a descriptor; `None` for one that is not asked.
    pub(crate) fn url(http: Arc<Http>, url: &str, insecure: bool) -> Option<Source> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?;
        let good = scheme == "https" || (insecure && scheme == "http");
        if !good || uri.host()?.is_empty() || url.contains('@') {
            return None;
        }
        Some(Source::Url(Session::anonymous(http, Place::new(&host(&uri), "", insecure)), uri))
    }

    fn session(&self) -> &Session {
        match self {
            Source::Registry(session) | Source::Url(session, _) => session,
        }
    }

    /// Asks for a blob from a byte on.
    fn ask(&self, descriptor: &Descriptor, from: u64, about: &str) -> Result<Answer> {
        let range = [("range", format!("bytes={from}-"))];
        let headers = if from > 0 { &range[..] } else { &[] };
        match self {
            Source::Registry(session) => {
                session.get(Method::GET, &format!("blobs/{}", descriptor.digest), headers, about)
            }
            Source::Url(session, uri) => {
                session.call(&Call { method: Method::GET, uri: uri.clone(), headers, payload: &[], about })
            }
        }
    }
}

/// Where a blob goes.
pub(crate) enum Target {
    /// Into the store.
    Blob(Box<Ingest>),
    /// Into the store, and unpacked.
    Sink(Box<LayerSink>),
}

impl Target {
    fn offset(&self) -> u64 {
        match self {
            Target::Blob(ingest) => ingest.resume_offset(),
            Target::Sink(sink) => sink.resume_offset(),
        }
    }

    fn restart(&mut self) -> Result<()> {
        match self {
            Target::Blob(ingest) => ingest.restart(),
            Target::Sink(sink) => sink.restart(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Target::Blob(ingest) => write(&mut **ingest, bytes),
            Target::Sink(sink) => write(&mut **sink, bytes),
        }
    }

    fn discard(self) {
        match self {
            Target::Blob(ingest) => ingest.discard(),
            Target::Sink(sink) => sink.discard(),
        }
    }

    /// Waits until everything is unpacked, too, or until the caller has enough.
    fn commit(self, progress: &mut dyn Progress) -> Result<()> {
        match self {
            Target::Blob(ingest) => ingest.commit().map(drop),
            Target::Sink(sink) => sink.commit_with(progress).map(drop),
        }
    }
}

/// Writes, and brings out the error that the store has put into one of the system.
pub(crate) fn write(to: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    to.write_all(bytes).map_err(|error| match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::sys(Step::Blob, "write", "", error.into_errno()),
    })
}

/// A small blob, checked.
pub(crate) fn document(sources: &[Source], descriptor: &Descriptor) -> Result<Vec<u8>> {
    let about = format!("blob {}", descriptor.digest);
    each(&sources.iter().collect::<Vec<_>>(), |source| {
        let session = source.session();
        let mut failures = 0;
        loop {
            let mut answer = source.ask(descriptor, 0, &about)?;
            if answer.response.status() != 200 {
                return Err(session.refusal(answer, &about));
            }
            match session.read(&mut answer, descriptor.size) {
                Ok(bytes) => {
                    let mut checked = Vec::new();
                    let mut verified = Verified::new(&bytes[..], descriptor.digest, descriptor.size);
                    return match verified.read_to_end(&mut checked) {
                        Ok(_) => Ok(checked),
                        Err(error) => Err(error.downcast::<Error>().unwrap_or_else(|_| session.content(about.clone()))),
                    };
                }
                Err(trouble) => session.again(trouble, &mut failures)?,
            }
        }
    })
}

/// A blob into what `make` makes. What an earlier attempt has left there is gone on with.
pub(crate) fn blob(
    sources: &[&Source],
    descriptor: &Descriptor,
    make: &dyn Fn() -> Result<Target>,
    meter: &mut Meter,
    progress: &mut dyn Progress,
) -> Result<()> {
    let first = Begun::of(make()?);
    let resumed = first.done > 0;
    let mut begun = Some(first);
    let mut attempt = |source: &Source| {
        let result = fetch(source, descriptor, make, &mut begun, meter, progress);
        // What is wrong is not gone on with, neither now nor later.
        if matches!(result, Err(Error::Image { .. }))
            && let Some(wrong) = begun.take()
        {
            wrong.target.discard();
        }
        result
    };
    match each(sources, &mut attempt) {
        // It may have been what was there before: once more from the beginning.
        Err(Error::Image { .. }) if resumed => each(sources, &mut attempt),
        result => result,
    }
}

/// A target, and how much it has.
struct Begun {
    target: Target,
    done: u64,
}

impl Begun {
    fn of(target: Target) -> Begun {
        let done = target.offset();
        Begun { target, done }
    }

    fn restart(&mut self) -> Result<()> {
        self.done = 0;
        self.target.restart()
    }
}

/// The first source that has it; the error of the last one, or the first that says more than that it is not there.
fn each<T>(sources: &[&Source], mut attempt: impl FnMut(&Source) -> Result<T>) -> Result<T> {
    let mut told = None;
    for source in sources {
        match attempt(source) {
            Ok(value) => return Ok(value),
            // These are not the source's fault.
            Err(error @ (Error::Interrupted | Error::Sys { .. } | Error::State(_))) => return Err(error),
            Err(error) => {
                let only_missing = matches!(&told, None | Some(Error::Registry { status: Some(404), .. }));
                if only_missing {
                    told = Some(error);
                }
            }
        }
    }
    Err(told.unwrap_or(Error::NotFound { what: "registry", name: String::new() }))
}

/// From one source, with as many attempts as it takes. What came from it stays in `begun` for the next one.
fn fetch(
    source: &Source,
    descriptor: &Descriptor,
    make: &dyn Fn() -> Result<Target>,
    begun: &mut Option<Begun>,
    meter: &mut Meter,
    progress: &mut dyn Progress,
) -> Result<()> {
    let session = source.session();
    let about = format!("blob {}", descriptor.digest);
    let into = match begun {
        Some(into) => into,
        None => begun.insert(Begun::of(make()?)),
    };
    let (mut failures, mut restarts) = (0, 0);
    let mut last_failure = into.done;
    meter.at(into.done);
    while into.done < descriptor.size {
        let answer = source.ask(descriptor, into.done, &about)?;
        let skip = match answer.response.status().as_u16() {
            200 => into.done,
            206 if starts_at(&answer, into.done, descriptor.size) => 0,
            // A range that is not the one that was asked for, or none that the server knows.
            206 | 416 if restarts < 2 && into.done > 0 => {
                restarts += 1;
                into.restart()?;
                continue;
            }
            206 => {
                return Err(session.content(format!("{about}: the registry sends another part than it was asked for")));
            }
            _ => return Err(session.refusal(answer, &about)),
        };
        let rest = into.done - skip;
        if let Some(length) = answer.response.body().content_length()
            && length != descriptor.size - rest
        {
            let sum = length.saturating_add(rest);
            let rule = format!("{about} has {sum} bytes there; its descriptor says {}", descriptor.size);
            return Err(session.content(rule));
        }
        if let Err(trouble) = copy(session, answer, skip, descriptor.size, into, meter) {
            if into.done.saturating_sub(last_failure) >= NEWS {
                failures = 0;
            }
            last_failure = into.done;
            session.again(trouble, &mut failures)?;
        }
    }
    match begun.take() {
        Some(whole) => whole.target.commit(progress),
        None => Ok(()),
    }
}

/// Copies what comes, after the first `skip` bytes, which are there; also if it ends with a failure.
fn copy(
    session: &Session,
    answer: Answer,
    mut skip: u64,
    size: u64,
    into: &mut Begun,
    meter: &mut Meter,
) -> Result<(), Trouble> {
    let link = &session.http.link;
    let from = host(&answer.uri);
    let mut reader = answer.response.into_body().into_reader();
    let mut buffer = vec![0; PIECE];
    let mut window = (Instant::now(), 0);
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(read) => read,
            Err(_) if link.stopped() => return Err(Trouble::Error(Error::Interrupted)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::of_io(error, &from).into()),
        };
        if read == 0 {
            if into.done < size {
                return Err(Failure::new("connect", format!("{from} ends the blob too early")).transient().into());
            }
            return Ok(());
        }
        let skipped = skip.min(read as u64);
        skip -= skipped;
        let piece = buffer[..read].get(skipped as usize..).unwrap_or_default();
        if piece.len() as u64 > size - into.done {
            let error = session.content(format!("{from} sends more than the {size} bytes that the descriptor says"));
            return Err(Trouble::Error(error));
        }
        into.target.write(piece).map_err(Trouble::Error)?;
        into.done += piece.len() as u64;
        meter.at(into.done);
        window.1 += read as u64;
        if window.0.elapsed() > link.idle {
            if window.1 < LEAST {
                return Err(Failure::new("timeout", format!("{from} sends too slowly")).transient().into());
            }
            window = (Instant::now(), 0);
        }
    }
}

/// `Content-Range: bytes FROM-TO/SIZE` as it was asked for.
fn starts_at(answer: &Answer, from: u64, size: u64) -> bool {
    let Some(range) = text(answer.response.headers(), "content-range").and_then(|text| text.strip_prefix("bytes "))
    else {
        return false;
    };
    let Some((span, total)) = range.trim().split_once('/') else { return false };
    let start = span.split_once('-').and_then(|(start, _)| start.parse::<u64>().ok());
    start == Some(from) && (total == "*" || total.parse() == Ok(size))
}
