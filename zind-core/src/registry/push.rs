//! Push: blobs that the registry does not have, mounted or uploaded, and then the manifest with its tags.
//!
//! Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push>
#![forbid(unsafe_code)]

use std::io::{Read, Seek, SeekFrom};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use ureq::http::{Method, Response, Uri};

use super::failure::Failure;
use super::http::{Answer, Http, Payload, Trouble, lock, text};
use super::options::PushOptions;
use super::pull::check;
use super::session::{Call, Place, Session, is_passing, retry_after};
use super::work::{self, Meter, Note};
use crate::error::{At, Error, Result, Step};
use crate::image::progress::asked;
use crate::image::{Descriptor, Digest, Image, Manifest, Progress, ProgressKind, Reference, media};
use crate::store::Store;

/// The most bytes of an answer that nobody reads.
const MOST_ANSWER: u64 = 64 << 10;
/// The smallest piece of an upload: each costs a request.
const LEAST_CHUNK: u64 = 64 << 10;

impl Store {
    /// Gives an image to a registry. Blobs that are there are not sent again, and are mounted from another repository where
    /// that has them.
    /// Errors: [`Error::Registry`]; [`Error::Spec`] for a name with the digest of something else; [`Error::Interrupted`].
    pub fn push(
        &self,
        image: &Image,
        reference: &str,
        options: &PushOptions,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        check(&options.registry)?;
        let name = Reference::parse(reference)?;
        if name.digest().is_some_and(|digest| digest != image.digest()) {
            return Err(Error::spec(
                "reference",
                format!("has another digest than the image, which is {}", image.digest()),
            ));
        }
        for tag in &options.extra_tags {
            Reference::parse(&format!("{}/{}:{tag}", name.registry(), name.repository()))?;
        }
        let mount_from = mount_from(image, &name, options)?;
        let _work = asked(progress, |_| self.work())?;
        let http = Arc::new(Http::new(options.registry.clone()));
        let place = Place::new(name.registry(), name.repository(), !options.registry.tls_verify);
        let session = Session::new(http.clone(), place, true, mount_from.as_deref());
        let push = Push { store: self, image, name: &name, options, session, mount_from };
        work::drive(&http.link, progress, |notes| push.run(&notes))
    }
}

/// The repository that blobs may be mounted from.
fn mount_from(image: &Image, name: &Reference, options: &PushOptions) -> Result<Option<String>> {
    if let Some(from) = &options.mount_from {
        let full = Reference::parse(&format!("{}/{from}", name.registry()))
            .map_err(|_| Error::spec("mount_from", format!("{from:?} is no repository")))?;
        return Ok(Some(full.repository().to_owned()));
    }
    let others = image.tags().iter().filter_map(|tag| Reference::parse(tag).ok());
    let mut near =
        others.filter(|other| other.registry() == name.registry() && other.repository() != name.repository());
    Ok(near.next().map(|other| other.repository().to_owned()))
}

struct Push<'a> {
    store: &'a Store,
    image: &'a Image,
    name: &'a Reference,
    options: &'a PushOptions,
    session: Session,
    mount_from: Option<String>,
}

/// The blobs that are still to be given, topmost last.
struct Queue {
    left: Vec<(Descriptor, Meter)>,
    failed: Option<Error>,
}

impl Push<'_> {
    fn run(&self, notes: &Sender<Note>) -> Result<()> {
        let manifest = self.image.manifest()?;
        let queue = Mutex::new(Queue { left: self.blobs(manifest, notes), failed: None });
        // The first request alone: it finds out what to show, and how.
        self.next(&queue);
        std::thread::scope(|scope| {
            let count = self.options.registry.parallel.min(lock(&queue).left.len());
            for _ in 0..count {
                if let Err(error) = work::start(scope, || while self.next(&queue) {}) {
                    self.fail(&queue, error);
                    break;
                }
            }
        });
        if let Some(error) = lock(&queue).failed.take() {
            return Err(error);
        }
        self.manifests()
    }

    /// Each blob once, but for those that nobody may give out.
    fn blobs(&self, manifest: &Manifest, notes: &Sender<Note>) -> Vec<(Descriptor, Meter)> {
        let count = manifest.layers.len();
        let layers = manifest.layers.iter().enumerate().map(|(index, layer)| (Some((index, count)), layer));
        let mut seen: Vec<Digest> = Vec::new();
        let mut all = Vec::new();
        for (layer, blob) in [(None, &manifest.config)].into_iter().chain(layers) {
            let foreign = media::is_foreign(&blob.media_type) && !blob.urls.is_empty();
            if !foreign && !seen.contains(&blob.digest) {
                seen.push(blob.digest);
                all.push((blob.clone(), Meter::new(notes, ProgressKind::Upload, layer, blob.digest, blob.size)));
            }
        }
        all.reverse();
        all
    }

    fn fail(&self, queue: &Mutex<Queue>, error: Error) {
        lock(queue).failed.get_or_insert(error);
        self.session.http.link.stop();
    }

    /// Gives the next blob. False: there is none, or nothing to be done any more.
    fn next(&self, queue: &Mutex<Queue>) -> bool {
        let next = {
            let mut queue = lock(queue);
            if queue.failed.is_some() { None } else { queue.left.pop() }
        };
        let Some((blob, mut meter)) = next else { return false };
        match self.give(&blob, &mut meter) {
            Ok(()) => true,
            Err(error) => {
                self.fail(queue, error);
                false
            }
        }
    }

    /// One blob: is there, is mounted, or is sent.
    fn give(&self, blob: &Descriptor, meter: &mut Meter) -> Result<()> {
        meter.at(0);
        let about = format!("blob {}", blob.digest);
        let answer = self.session.get(Method::HEAD, &format!("blobs/{}", blob.digest), &[], &about)?;
        match answer.response.status().as_u16() {
            200 => {
                meter.at(blob.size);
                return Ok(());
            }
            // What may not be looked at may still be written.
            403..=405 => {}
            _ => return Err(self.session.refusal(answer, &about)),
        }
        match self.begin(blob, &about)? {
            None => {}
            Some(place) => self.send(blob, place, &about, meter)?,
        }
        meter.at(blob.size);
        Ok(())
    }

    /// Asks for a place to send a blob to; `None`: it was mounted.
    fn begin(&self, blob: &Descriptor, about: &str) -> Result<Option<Uri>> {
        if let Some(from) = &self.mount_from {
            let path = format!("blobs/uploads/?mount={}&from={from}", blob.digest);
            let answer = self.session.get(Method::POST, &path, &[], about)?;
            match answer.response.status().as_u16() {
                201 => return Ok(None),
                202 => return self.place_of(&answer).map(Some),
                // Registries without the function, and repositories that this user may not read.
                _ => drop(answer),
            }
        }
        let answer = self.session.get(Method::POST, "blobs/uploads/", &[], about)?;
        match answer.response.status().as_u16() {
            202 => self.place_of(&answer).map(Some),
            _ => Err(self.session.refusal(answer, about)),
        }
    }

    fn place_of(&self, answer: &Answer) -> Result<Uri> {
        self.session.location(answer).map_err(|failure| Trouble::Failure(failure).error(&self.session.place.name))
    }

    /// Sends a blob, in one or in pieces, and goes on where it was interrupted.
    fn send(&self, blob: &Descriptor, place: Uri, about: &str, meter: &mut Meter) -> Result<()> {
        let mut file = self.store.open_blob(&blob.digest)?;
        let mut upload = Upload { place, done: 0 };
        let mut failures = 0;
        loop {
            let before = upload.done;
            let trouble = match self.attempt(&mut file, blob, &mut upload, about, meter) {
                Ok(None) => return Ok(()),
                Ok(Some(answer)) => {
                    let status = answer.response.status().as_u16();
                    // A token that is over is renewed by asking how far the upload is.
                    let usual = is_passing(status) || matches!(status, 401 | 404 | 416);
                    if !usual || failures >= self.options.registry.retries {
                        return Err(self.session.refusal(answer, about));
                    }
                    let wait = retry_after(&answer.response);
                    drop(answer);
                    failures += 1;
                    if is_passing(status) {
                        self.session.pause(failures, wait)?;
                    }
                    None
                }
                Err(trouble) => Some(trouble),
            };
            if let Some(trouble) = trouble {
                self.session.again(trouble, &mut failures)?;
            }
            match self.status(&upload.place, about)? {
                Some(next) if next.done <= blob.size => upload = next,
                // Forgotten, or beyond the end: from the beginning.
                _ => match self.begin(blob, about)? {
                    None => return Ok(()),
                    Some(place) => upload = Upload { place, done: 0 },
                },
            }
            if upload.done > before {
                failures = 0;
            }
        }
    }

    /// Sends all that is left. `None`: the registry has it. Some: its refusal.
    fn attempt(
        &self,
        file: &mut std::fs::File,
        blob: &Descriptor,
        upload: &mut Upload,
        about: &str,
        meter: &mut Meter,
    ) -> Result<Option<Answer>, Trouble> {
        let digest = &blob.digest;
        let chunk = self.options.chunk_size.map_or(u64::MAX, |size| size.max(LEAST_CHUNK));
        // In one, if nothing is there yet; else the rest in pieces, and an empty end.
        if upload.done == 0 && blob.size <= chunk {
            let uri = with_digest(&upload.place, digest, &self.session)?;
            let answer = self.part(Method::PUT, uri, file, 0, blob.size, &[], meter)?;
            return Ok((answer.response.status() != 201).then_some(answer));
        }
        while upload.done < blob.size {
            let length = chunk.min(blob.size - upload.done);
            let range = format!("{}-{}", upload.done, upload.done + length - 1);
            let headers = [("content-range", range)];
            let answer = self.part(Method::PATCH, upload.place.clone(), file, upload.done, length, &headers, meter)?;
            if !matches!(answer.response.status().as_u16(), 202 | 204) {
                return Ok(Some(answer));
            }
            upload.place = self.session.location(&answer)?;
            let done = received(&answer.response).unwrap_or(upload.done + length);
            if done <= upload.done || done > blob.size {
                return Err(Failure::new("protocol", format!("{about}: the registry loses what it was sent")).into());
            }
            upload.done = done;
        }
        let uri = with_digest(&upload.place, digest, &self.session)?;
        let answer = self.session.stream(Method::PUT, uri, &[], Payload::Bytes(&[]))?;
        Ok((answer.response.status() != 201).then_some(answer))
    }

    /// Sends one part of the blob.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn part(
        &self,
        method: Method,
        uri: Uri,
        file: &mut std::fs::File,
        from: u64,
        length: u64,
        extra: &[(&'static str, String)],
        meter: &mut Meter,
    ) -> Result<Answer, Trouble> {
        file.seek(SeekFrom::Start(from)).at(Step::Blob, "lseek", "").map_err(Trouble::Error)?;
        let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
        headers.extend(extra.iter().cloned());
        let mut source = Metered { inner: file.take(length), done: from, meter, short: false };
        let result = self.session.stream(method, uri, &headers, Payload::Stream(&mut source, length));
        if source.short {
            let rule = "is shorter than it was: Store::verify tells what else is broken";
            return Err(Trouble::Error(Error::image("blob", rule)));
        }
        let mut answer = result?;
        if answer.response.status().is_success() {
            // The connection can be used again only when the answer was read.
            let _ = self.session.read(&mut answer, MOST_ANSWER);
        }
        Ok(answer)
    }

    /// How far an upload is; `None` if the registry does not know it.
    fn status(&self, place: &Uri, about: &str) -> Result<Option<Upload>> {
        let call = Call { method: Method::GET, uri: place.clone(), headers: &[], payload: &[], about };
        let answer = self.session.call(&call)?;
        if !matches!(answer.response.status().as_u16(), 200 | 202 | 204) {
            return Ok(None);
        }
        let next = match answer.response.headers().contains_key("location") {
            true => self.place_of(&answer)?,
            false => place.clone(),
        };
        Ok(Some(Upload { place: next, done: received(&answer.response).unwrap_or(0) }))
    }

    /// The manifest, byte for byte, under its tags or its digest.
    fn manifests(&self) -> Result<()> {
        let descriptor = self.image.descriptor();
        let bytes = self.store.read_document(descriptor)?;
        let own = match self.name.tag() {
            Some(tag) => tag.to_owned(),
            None => descriptor.digest.to_string(),
        };
        for target in [&own].into_iter().chain(&self.options.extra_tags) {
            let about = format!("manifest {}:{target}", self.name.repository());
            let headers = [("content-type", descriptor.media_type.clone())];
            let uri = self.session.uri(&format!("manifests/{target}"))?;
            let call = Call { method: Method::PUT, uri, headers: &headers, payload: &bytes, about: &about };
            let answer = self.session.call(&call)?;
            if !matches!(answer.response.status().as_u16(), 200..=202) {
                return Err(self.session.refusal(answer, &about));
            }
            let stated =
                text(answer.response.headers(), "docker-content-digest").and_then(|text| Digest::parse(text).ok());
            let same =
                |stated: &Digest| stated.algorithm() != descriptor.digest.algorithm() || *stated == descriptor.digest;
            if let Some(stated) = stated.filter(|stated| !same(stated)) {
                return Err(self.session.content(format!("{about}: the registry has made {stated} of it")));
            }
        }
        Ok(())
    }
}

/// A place of the registry that takes a blob, and how much it has.
struct Upload {
    place: Uri,
    done: u64,
}

/// Tells how much is read, and whether it ends too early.
struct Metered<'a, R> {
    inner: std::io::Take<R>,
    done: u64,
    meter: &'a mut Meter,
    short: bool,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.short = read == 0 && !buffer.is_empty() && self.inner.limit() > 0;
        if self.short {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.done += read as u64;
        self.meter.at(self.done);
        Ok(read)
    }
}

/// `Range: 0-LAST`: the number of bytes that have arrived. Some write `0-0` for none, as for one.
fn received<B>(response: &Response<B>) -> Option<u64> {
    let range = text(response.headers(), "range")?;
    let range = range.trim().trim_start_matches("bytes=").trim_start_matches("bytes ");
    let (start, last) = range.split_once('-')?;
    let last: u64 = last.parse().ok()?;
    (start == "0").then_some(if last == 0 { 0 } else { last + 1 })
}

/// The place with `digest=` at its end.
fn with_digest(place: &Uri, digest: &Digest, session: &Session) -> Result<Uri, Trouble> {
    let joint = if place.query().is_some() { '&' } else { '?' };
    let text = format!("{place}{joint}digest={digest}");
    text.parse().map_err(|_| Trouble::Error(session.content("the place for an upload is no URL")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_read_from_the_range() {
        let of = |range: &str| received(&Response::builder().header("range", range).body(()).unwrap());
        assert_eq!(of("0-99"), Some(100));
        assert_eq!(of("bytes=0-99"), Some(100));
        assert_eq!(of("0-0"), Some(0));
        for bad in ["", "-", "5-9", "0-x", "0--1", "0-99999999999999999999"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
