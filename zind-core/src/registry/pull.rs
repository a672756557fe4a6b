//! Pull: manifest, configuration, and layers that are kept, checked and unpacked while they come.
//!
//! Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull>
#![forbid(unsafe_code)]

use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use ureq::http::Method;

use super::download::{self, Source, Target};
use super::http::{Answer, Http, lock, text};
use super::options::{PullOptions, PullPolicy, RegistryOptions};
use super::session::{Place, Session};
use super::work::{self, Meter, Note, Relay};
use crate::error::{Error, Result};
use crate::image::progress::asked;
use crate::image::{
    Descriptor, Digest, Image, ImageConfig, Index, Manifest, Platform, Progress, ProgressKind, Reference, chain_ids,
    json, media, reference,
};
use crate::store::{Owners, Store};
use crate::sys::asking::asking;

/// The most bytes of a manifest, an index or a configuration, where the store does not have a smaller limit.
const MOST_DOCUMENT: u64 = 4 << 20;
/// How deep indexes may lie in indexes.
const MOST_DEPTH: usize = 4;
/// What a registry may answer with.
const ACCEPT: [&str; 4] = [media::MANIFEST, media::DOCKER_MANIFEST, media::INDEX, media::DOCKER_LIST];

impl Store {
    /// The image that a name stands for in its registry, taken into this store. See [`Reference::parse`] for names.
    ///
    /// Layers come several at a time, are checked, kept and unpacked while they come, and go on where an earlier pull was
    /// interrupted. The image has its name only when all of it is there.
    /// Errors: [`Error::Registry`]; [`Error::Image`] for content that is not what was promised; [`Error::NotFound`] if the
    /// policy is never, or no image fits the platform; [`Error::Interrupted`].
    pub fn pull(&self, reference: &str, options: &PullOptions, progress: &mut dyn Progress) -> Result<Image> {
        asked(progress, |progress| self.pull_asked(reference, options, progress))
    }

    fn pull_asked(&self, reference: &str, options: &PullOptions, progress: &mut dyn Progress) -> Result<Image> {
        check(&options.registry)?;
        let name = Reference::parse(reference)?;
        if options.policy != PullPolicy::Always
            && let Some(image) = self.local(reference, &name, options.platform.as_ref())?
        {
            return Ok(image);
        }
        if options.policy == PullPolicy::Never {
            return Err(Error::NotFound { what: "image", name: format!("{name}, and the policy is never to pull") });
        }
        let _work = self.work()?;
        let http = Arc::new(Http::new(options.registry.clone()));
        let owners = options.owners.clone().unwrap_or_else(Owners::of_caller);
        let pull = Pull { store: self, name: &name, options, http: http.clone(), owners };
        let manifest = work::drive(&http.link, progress, |notes| pull.run(&notes))?;
        // Who wanted an end finds no image, however near it was.
        if progress.interrupted() {
            return Err(Error::Interrupted);
        }
        self.add_image(&manifest, &[&name.to_string()])
    }

    /// The image of a name, if it is here: by its exact text, or by its full form.
    fn local(&self, text: &str, name: &Reference, platform: Option<&Platform>) -> Result<Option<Image>> {
        for name in [text, &name.to_string()] {
            match self.image(name) {
                // Not what only has an id that begins so.
                Ok(image) if image.tags().iter().any(|tag| tag == name) => {
                    let fits = platform.is_none_or(|platform| platform.fit(image.platform()).is_some());
                    if fits {
                        return Ok(Some(image));
                    }
                }
                Ok(_) | Err(Error::NotFound { .. } | Error::Spec { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The rules of the options.
pub(crate) fn check(options: &RegistryOptions) -> Result<()> {
    if options.parallel == 0 || options.parallel > 16 {
        return Err(Error::spec("parallel", format!("is {}; 1 to 16 are possible", options.parallel)));
    }
    if options.timeout.is_zero() {
        return Err(Error::spec("timeout", "is zero"));
    }
    for (registry, mirrors) in &options.mirrors {
        reference::check_registry(registry).map_err(|rule| Error::spec("mirrors", rule))?;
        mirrors.iter().try_for_each(check_mirror)?;
    }
    Ok(())
}

/// `host[:port][/path]`.
fn check_mirror(mirror: &super::Mirror) -> Result<()> {
    let location = &mirror.location;
    if location.contains('@') {
        // There may be a password before it, which is not for messages.
        return Err(Error::spec(
            "mirrors",
            "has a place with an @; credentials of a mirror are looked for in the files",
        ));
    }
    let bad = |rule: String| {
        let shown = super::http::clean(location, 200);
        Error::spec("mirrors", format!("{shown:?} {rule}; a mirror is HOST[:PORT][/PATH]"))
    };
    if location.contains("://") {
        return Err(bad("has a scheme".into()));
    }
    let (host, path) = place_of(location);
    reference::check_registry(host).map_err(bad)?;
    path.map_or(Ok(()), |path| reference::check_repository(path).map_err(bad))
}

/// Host and path of a mirror.
fn place_of(location: &str) -> (&str, Option<&str>) {
    location.split_once('/').map_or((location, None), |(host, path)| (host, Some(path)))
}

struct Pull<'a> {
    store: &'a Store,
    name: &'a Reference,
    options: &'a PullOptions,
    http: Arc<Http>,
    owners: Owners,
}

/// A document and its type.
struct Document {
    media_type: String,
    digest: Digest,
    bytes: Vec<u8>,
}

impl Pull<'_> {
    /// Everything but the name. Returns the manifest's descriptor.
    fn run(&self, notes: &Sender<Note>) -> Result<Descriptor> {
        let (sessions, document) = self.resolve()?;
        let what = format!("manifest {}", document.digest);
        let manifest = Manifest::parse(&what, &document.bytes)?;
        let sources: Vec<Source> = sessions.into_iter().map(Source::Registry).collect();
        let config = self.config(&manifest, &sources)?;
        if manifest.layers.len() != config.diff_ids.len() {
            let (layers, ids) = (manifest.layers.len(), config.diff_ids.len());
            return Err(Error::image(what, format!("has {layers} layers, but its configuration {ids} diff_ids")));
        }
        let jobs = Jobs {
            pull: self,
            layers: &manifest.layers,
            diff_ids: &config.diff_ids,
            chains: chain_ids(&config.diff_ids),
            sources: &sources,
            notes,
            states: Mutex::new(States::default()),
            changed: Condvar::new(),
        };
        jobs.run()?;
        self.put(&Descriptor::new(document.media_type, document.digest, document.bytes.len() as u64), &document.bytes)
    }

    /// Where to ask, in order: mirrors, and last the registry itself.
    fn sessions(&self) -> Vec<Session> {
        let options = &self.options.registry;
        let mirrors = options.mirrors.get(self.name.registry()).map(Vec::as_slice).unwrap_or_default();
        let mirror = |mirror: &super::Mirror| {
            let own = self.name.repository();
            let (host, path) = place_of(&mirror.location);
            let repository = path.map_or_else(|| own.to_owned(), |path| format!("{path}/{own}"));
            Session::mirror(self.http.clone(), Place::new(host, &repository, mirror.insecure))
        };
        let own = Place::new(self.name.registry(), self.name.repository(), !options.tls_verify);
        let own = Session::new(self.http.clone(), own, false, None);
        mirrors.iter().map(mirror).chain([own]).collect()
    }

    /// The manifest for the platform, and the sessions to fetch the rest by: from the one that had it on.
    fn resolve(&self) -> Result<(Vec<Session>, Document)> {
        let sessions = self.sessions();
        let last = sessions.len() - 1;
        let mut said = Vec::new();
        for (index, session) in sessions.iter().enumerate() {
            match self.resolve_at(session) {
                Ok(document) => return Ok((sessions.into_iter().skip(index).collect(), document)),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) if index == last => return Err(with_mirrors(error, &said)),
                Err(error) => said.push(format!("{}: {error}", session.place.name)),
            }
        }
        Err(Error::NotFound { what: "registry", name: self.name.registry().to_owned() })
    }

    fn resolve_at(&self, session: &Session) -> Result<Document> {
        let mut document = self.document(session, &self.name.target(), self.name.digest())?;
        let wanted = self.options.platform.clone().unwrap_or_else(Platform::host);
        for _ in 0..MOST_DEPTH {
            if !media::is_index(&document.media_type) {
                return Ok(document);
            }
            let index = Index::parse(&format!("index {}", document.digest), &document.bytes)?;
            let chosen = wanted.choose(&index.manifests)?;
            let next = self.document(session, &chosen.digest.to_string(), Some(&chosen.digest))?;
            if next.bytes.len() as u64 != chosen.size {
                let rule = format!("has {} bytes; the index says {}", next.bytes.len(), chosen.size);
                return Err(Error::image(format!("manifest {}", chosen.digest), rule));
            }
            document = next;
        }
        Err(Error::image(format!("index {}", document.digest), format!("lies in more than {MOST_DEPTH} indexes")))
    }

    /// The most bytes of a document that may come.
    fn most(&self) -> u64 {
        self.store.limits().document.min(MOST_DOCUMENT)
    }

    /// A manifest or index, checked against the digest that it was asked for by.
    fn document(&self, session: &Session, target: &str, expected: Option<&Digest>) -> Result<Document> {
        let about = format!("manifest {}:{target}", session.place.repository);
        let about = if expected.is_some() { about.replacen(":sha", "@sha", 1) } else { about };
        let headers = [("accept", ACCEPT.join(", "))];
        let mut failures = 0;
        let (answer, bytes) = loop {
            let mut answer = session.get(Method::GET, &format!("manifests/{target}"), &headers, &about)?;
            if answer.response.status() != 200 {
                return Err(session.refusal(answer, &about));
            }
            match session.read(&mut answer, self.most()) {
                Ok(bytes) => break (answer, bytes),
                Err(trouble) => session.again(trouble, &mut failures)?,
            }
        };
        let digest = match expected {
            Some(expected) => {
                let found = digest_as(expected, &bytes);
                if found != *expected {
                    return Err(Error::image(
                        format!("manifest {expected}"),
                        format!("is not what its digest says, but {found}"),
                    ));
                }
                found
            }
            None => Digest::of(&bytes),
        };
        let stated = text(answer.response.headers(), "docker-content-digest").and_then(|text| Digest::parse(text).ok());
        if let Some(stated) = stated.filter(|stated| expected.is_none() && digest_as(stated, &bytes) != *stated) {
            return Err(session.content(format!("{about} has another digest than the registry says: {stated}")));
        }
        let media_type = media_type(&about, &answer, &bytes)?;
        Ok(Document { media_type, digest, bytes })
    }

    /// The configuration, checked, kept and read.
    fn config(&self, manifest: &Manifest, sources: &[Source]) -> Result<ImageConfig> {
        let config = &manifest.config;
        let what = format!("config {}", config.digest);
        if ![media::CONFIG, media::DOCKER_CONFIG].contains(&config.media_type.as_str()) {
            let shown = super::http::clean(&config.media_type, 200);
            return Err(Error::image(what, format!("is of the type {shown:?}: this is something else than an image")));
        }
        let most = self.most();
        if config.size > most {
            return Err(Error::image(what, format!("has {} bytes; at most {most} are allowed", config.size)));
        }
        let bytes = if self.store.has_whole(config) {
            self.store.read_document(config)?
        } else {
            let bytes = download::document(sources, config)?;
            self.put(config, &bytes)?;
            bytes
        };
        let parsed = ImageConfig::parse(&what, &bytes)?;
        if let Some(wanted) = &self.options.platform
            && wanted.fit(&parsed.platform()).is_none()
        {
            return Err(Error::NotFound {
                what: "image for the platform",
                name: format!("{wanted}, only {}", parsed.platform()),
            });
        }
        Ok(parsed)
    }

    /// Keeps a document under the digest that it is referred to by.
    fn put(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<Descriptor> {
        let mut ingest = self.store.ingest(Some(&descriptor.digest), &descriptor.media_type, Some(descriptor.size))?;
        if ingest.resume_offset() > 0 {
            ingest.restart()?;
        }
        download::write(&mut ingest, bytes)?;
        ingest.commit()
    }
}

/// The registry's error, with what the mirrors said before it.
fn with_mirrors(error: Error, said: &[String]) -> Error {
    if said.is_empty() {
        return error;
    }
    let said = format!("the mirrors said before: {}", said.join("; "));
    match error {
        Error::Image { what, rule } => Error::Image { what, rule: format!("{rule}; {said}") },
        Error::NotFound { what, name } => Error::NotFound { what, name: format!("{name} ({said})") },
        error => {
            let own = error.hint().map(|hint| format!("{hint}; ")).unwrap_or_default();
            error.with_hint(format!("{own}{said}"))
        }
    }
}

fn digest_as(like: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = crate::image::Hasher::new(like.algorithm());
    hasher.update(bytes);
    hasher.finish()
}

/// What a document is. That header and content say different things is a trick (CVE-2021-41190).
fn media_type(about: &str, answer: &Answer, bytes: &[u8]) -> Result<String> {
    let map = json::object(about, bytes)?;
    let header = text(answer.response.headers(), "content-type").unwrap_or_default();
    let header = header.split(';').next().unwrap_or_default().trim();
    let own = map.get("mediaType").and_then(|value| value.as_str());
    let known = |text: &str| media::is_index(text) || media::is_manifest(text);
    if let Some(own) = own.filter(|own| known(header) && media::is_index(own) != media::is_index(header)) {
        return Err(Error::image(about, format!("is {own:?} by its content, but {header:?} by its header")));
    }
    if map.get("schemaVersion").is_some_and(|version| *version == 1) {
        return Err(Error::image(
            about,
            "is of Docker's schema 1, which is out of use; push it again with a newer program",
        ));
    }
    let guess = if map.contains_key("manifests") { media::INDEX } else { media::MANIFEST };
    let found = own.or(Some(header).filter(|header| known(header))).unwrap_or(guess);
    if !known(found) {
        let shown = super::http::clean(found, 200);
        return Err(Error::image(about, format!("is of the type {shown:?}, which is no image")));
    }
    Ok(found.to_owned())
}

/// How far a layer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    /// A worker has it.
    Coming,
    /// The blob is in the store.
    Kept,
    /// And unpacked, or not to be.
    Done,
}

#[derive(Default)]
struct States {
    layers: Vec<State>,
    failed: Option<Error>,
}

/// The layers of one image on their way.
///
/// Workers take them bottommost first. The lowest one that is not unpacked can be unpacked while it comes; the others are kept,
/// and unpacked one after the other as soon as what is below them is.
struct Jobs<'a> {
    pull: &'a Pull<'a>,
    layers: &'a [Descriptor],
    diff_ids: &'a [Digest],
    chains: Vec<Digest>,
    sources: &'a [Source],
    notes: &'a Sender<Note>,
    states: Mutex<States>,
    changed: Condvar,
}

impl Jobs<'_> {
    fn run(&self) -> Result<()> {
        let count = self.layers.len();
        lock(&self.states).layers = vec![State::Waiting; count];
        let workers = self.pull.options.registry.parallel.min(count);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                match work::start(scope, || asking(&|| self.pull.http.link.stopped(), || self.work())) {
                    Ok(_) => {}
                    Err(error) => {
                        self.fail(error);
                        break;
                    }
                }
            }
            if let Err(error) = self.unpack_in_order() {
                self.fail(error);
            }
        });
        match lock(&self.states).failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The first failure ends everything; those that it causes are not told.
    fn fail(&self, error: Error) {
        let mut states = lock(&self.states);
        states.failed.get_or_insert(error);
        self.pull.http.link.stop();
        drop(states);
        self.changed.notify_all();
    }

    fn set(&self, layer: usize, state: State) {
        if let Some(slot) = lock(&self.states).layers.get_mut(layer) {
            *slot = state;
        }
        self.changed.notify_all();
    }

    /// One worker: layers until none waits.
    fn work(&self) {
        let _told = TellPanic(self);
        while let Some(layer) = self.take() {
            match self.fetch(layer) {
                Ok(state) => self.set(layer, state),
                Err(error) => return self.fail(error),
            }
        }
    }

    /// The next layer that nobody has. One whose blob comes for a lower layer is left to that.
    fn take(&self) -> Option<usize> {
        let mut states = lock(&self.states);
        if states.failed.is_some() {
            return None;
        }
        let next = states
            .layers
            .iter()
            .enumerate()
            .position(|(index, state)| *state == State::Waiting && self.first_of(index) == index)?;
        states.layers[next] = State::Coming;
        Some(next)
    }

    /// The lowest layer with the same blob.
    fn first_of(&self, layer: usize) -> usize {
        let digest = &self.layers[layer].digest;
        self.layers.iter().position(|other| other.digest == *digest).unwrap_or(layer)
    }

    fn is(&self, layer: usize, state: State) -> bool {
        lock(&self.states).layers.get(layer) == Some(&state)
    }

    /// Gets one blob, and unpacks it meanwhile if what is below it stands.
    fn fetch(&self, layer: usize) -> Result<State> {
        let descriptor = &self.layers[layer];
        let store = self.pull.store;
        let unpacked = !self.pull.options.unpack || store.has_snapshot(&self.chains[layer], &self.pull.owners);
        let end = if unpacked { State::Done } else { State::Kept };
        let mut meter = self.meter(layer);
        if store.has_whole(descriptor) {
            meter.at(descriptor.size);
            return Ok(end);
        }
        if !media::is_layer(&descriptor.media_type) {
            let shown = super::http::clean(&descriptor.media_type, 200);
            let rule = format!("is of the type {shown:?}, which cannot be unpacked");
            return Err(Error::image(format!("layer {}", descriptor.digest), rule));
        }
        let below = layer.checked_sub(1);
        let stands = below.is_none_or(|below| self.is(below, State::Done));
        let blob = || store.ingest(Some(&descriptor.digest), &descriptor.media_type, Some(descriptor.size));
        let sink = || {
            let parent = below.and_then(|below| self.chains.get(below));
            let sink = store.layer_sink(descriptor, &self.diff_ids[layer], parent, &self.pull.owners);
            sink.map(|sink| Target::Sink(Box::new(sink)))
        };
        let make = || match stands && !unpacked {
            true => match sink() {
                // What an earlier try has left cannot be unpacked: it is wrong, and not gone on with.
                Err(Error::Image { .. }) => {
                    blob()?.discard();
                    sink()
                }
                result => result,
            },
            false => blob().map(|ingest| Target::Blob(Box::new(ingest))),
        };
        let foreign = self.foreign(descriptor);
        let sources: Vec<&Source> = self.sources.iter().chain(foreign.iter()).collect();
        let mut relay = Relay { notes: self.notes, link: &self.pull.http.link };
        download::blob(&sources, descriptor, &make, &mut meter, &mut relay)
            .map_err(|error| self.explain(error, descriptor))?;
        Ok(if stands { State::Done } else { end })
    }

    /// The URLs of a layer's descriptor, if they may be used.
    fn foreign(&self, descriptor: &Descriptor) -> Vec<Source> {
        if !self.pull.options.foreign_layers {
            return Vec::new();
        }
        let insecure = !self.pull.options.registry.tls_verify;
        let source = |url: &String| Source::url(self.pull.http.clone(), url, insecure);
        descriptor.urls.iter().take(8).filter_map(source).collect()
    }

    /// A layer that the registry may not give out is explained.
    fn explain(&self, error: Error, descriptor: &Descriptor) -> Error {
        let missing = matches!(&error, Error::Registry { status: Some(404), .. });
        match descriptor.urls.first() {
            Some(url) if missing && !self.pull.options.foreign_layers => {
                let host = super::http::clean(url, 100);
                error.with_hint(format!("the layer is to be had at {host}; foreign_layers=True fetches it from there"))
            }
            _ => error,
        }
    }

    fn meter(&self, layer: usize) -> Meter {
        let descriptor = &self.layers[layer];
        Meter::new(
            self.notes,
            ProgressKind::Download,
            Some((layer, self.layers.len())),
            descriptor.digest,
            descriptor.size,
        )
    }

    /// Unpacks what was kept, bottommost first, beside the workers.
    fn unpack_in_order(&self) -> Result<()> {
        for layer in 0..self.layers.len() {
            let first = self.first_of(layer);
            let mut states = lock(&self.states);
            loop {
                if states.failed.is_some() {
                    return Ok(());
                }
                if matches!(states.layers[first], State::Kept | State::Done) {
                    break;
                }
                states = self.changed.wait(states).unwrap_or_else(PoisonError::into_inner);
            }
            let done = states.layers[layer] == State::Done;
            drop(states);
            if !done {
                self.unpack(layer)?;
                self.set(layer, State::Done);
            }
        }
        Ok(())
    }

    fn unpack(&self, layer: usize) -> Result<()> {
        let Pull { store, options, owners, .. } = self.pull;
        if !options.unpack || store.has_snapshot(&self.chains[layer], owners) {
            return Ok(());
        }
        let parent = layer.checked_sub(1).and_then(|below| self.chains.get(below));
        let place = (layer, self.layers.len());
        let mut relay = Relay { notes: self.notes, link: &self.pull.http.link };
        store.unpack_layer(&self.layers[layer], &self.diff_ids[layer], parent, owners, place, &mut relay)
    }
}

/// A worker that panics must not be waited for.
struct TellPanic<'a>(&'a Jobs<'a>);

impl Drop for TellPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::State("a thread of the pull has panicked".into()));
        }
    }
}
