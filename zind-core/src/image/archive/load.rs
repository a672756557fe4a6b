//! Images out of archives.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;

use serde_json::Value;

use super::source::{Part, Source, open_file};
use crate::error::{At, Error, Result, Step, uninterrupted};
use crate::image::Image;
use crate::image::commit::{Changes, add_layer};
use crate::image::config::{History, ImageConfig, chain_id};
use crate::image::digest::{Digest, Hasher};
use crate::image::json::{self, Fields};
use crate::image::manifest::{Descriptor, Index, Manifest, media};
use crate::image::pack;
use crate::image::platform::Platform;
use crate::image::progress::{Progress, ProgressEvent, ProgressKind};
use crate::image::unpack::decompress::Compression;
use crate::image::unpack::tar::shorten;
use crate::store::{Owners, Store, check_name, write_error};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, where containerd and Docker put only the tag into the other.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Images of one archive.
const MOST_IMAGES: usize = 10_000;
const MOST_NESTED: usize = 4;

pub(crate) fn load(store: &Store, path: &Path, progress: &mut dyn Progress) -> Result<Vec<Image>> {
    let _work = store.work()?;
    let source = Source::open(path, &store.spool(), store.limits(), progress)?;
    let mut archive = Archive { store, source, owners: Owners::of_caller(), progress };
    let limit = store.limits().document;
    let found = match archive.source.document("index.json", limit * 16)? {
        Some(index) => archive.layout(&index)?,
        None => match archive.source.document("manifest.json", limit * 16)? {
            Some(list) => archive.docker(&list)?,
            None => {
                let rule = "has neither index.json nor manifest.json: it is no archive of images; import_rootfs takes root \
                            file systems";
                return Err(Error::image(format!("archive {}", path.display()), rule));
            }
        },
    };
    // All is there and checked: now they become images.
    let mut images = store.add_images(&found)?;
    let mut seen = HashSet::new();
    images.retain(|image| seen.insert(*image.digest()));
    for image in &images {
        // Many layers are merged now, so that the first start needs not wait for it.
        store.lowers(image, &archive.owners, archive.progress)?;
    }
    Ok(images)
}

/// An image and the names it is to get.
type Found = (Descriptor, Vec<String>);

struct Archive<'a> {
    store: &'a Store,
    source: Source,
    owners: Owners,
    progress: &'a mut dyn Progress,
}

/// A layer to be taken.
struct Layer<'a> {
    descriptor: Descriptor,
    diff_id: &'a Digest,
    parent: Option<Digest>,
    place: (usize, usize),
}

impl Archive<'_> {
    fn layout(&mut self, index: &[u8]) -> Result<Vec<Found>> {
        if let Some(layout) = self.source.document("oci-layout", 4096)? {
            let mut fields = Fields::new("oci-layout", json::object("oci-layout", &layout)?);
            let version = fields.text("imageLayoutVersion")?.unwrap_or_default();
            if !version.starts_with("1.") {
                return Err(fields.wrong("imageLayoutVersion", &format!("is {version:?}; only 1.x is known")));
            }
        }
        let index = Index::parse("index.json", index)?;
        if index.manifests.len() > MOST_IMAGES {
            return Err(Error::image("index.json", format!("has more than {MOST_IMAGES} images")));
        }
        let mut found: Vec<Found> = Vec::new();
        for entry in &index.manifests {
            let is_known = |kind: &str| kind.is_empty() || media::is_manifest(kind) || media::is_index(kind);
            if !is_known(&entry.media_type) {
                continue;
            }
            let name = entry.annotations.get(CONTAINERD_NAME).or_else(|| entry.annotations.get(REF_NAME));
            let tags: Vec<String> = name.filter(|name| !name.is_empty()).cloned().into_iter().collect();
            tags.iter().try_for_each(|tag| check_name(tag)).map_err(|error| named("index.json", &error))?;
            let manifest = self.manifest(entry, MOST_NESTED)?;
            match found.iter_mut().find(|(known, _)| known.digest == manifest.digest) {
                Some((_, known)) => known.extend(tags),
                None => found.push((manifest, tags)),
            }
        }
        if found.is_empty() {
            return Err(Error::image("index.json", "has no images"));
        }
        Ok(found)
    }

    /// Takes what an entry of an index stands for, and everything it needs.
    fn manifest(&mut self, entry: &Descriptor, depth: usize) -> Result<Descriptor> {
        let bytes = self.blob(entry)?;
        let what = format!("manifest {}", entry.digest);
        if media::is_index(&entry.media_type) {
            if depth == 0 {
                return Err(Error::image(what, "has too many indexes in each other"));
            }
            let index = Index::parse(&what, &bytes)?;
            let chosen = Platform::host().choose(&index.manifests)?.clone();
            return self.manifest(&chosen, depth - 1);
        }
        let manifest = Manifest::parse(&what, &bytes)?;
        let config = self.blob(&manifest.config)?;
        self.store.put_checked(&manifest.config, &config)?;
        let descriptor = Descriptor::new(manifest.media_type.clone(), entry.digest, entry.size);
        self.store.put_checked(&descriptor, &bytes)?;
        // Before the layers: what does not fit together is not worth their time.
        let (manifest, config) = self.store.check_documents(&descriptor)?;
        let mut parent = None;
        for (index, (layer, diff_id)) in manifest.layers.iter().zip(&config.diff_ids).enumerate() {
            let place = (index, manifest.layers.len());
            let name = blob_name(&layer.digest);
            let open = |archive: &Self| archive.source.file(&name);
            self.layer(Layer { descriptor: layer.clone(), diff_id, parent, place }, open)?;
            parent = Some(chain_id(parent.as_ref(), diff_id));
        }
        Ok(descriptor)
    }

    /// A document of the layout, checked.
    fn blob(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let what = || format!("blob {}", descriptor.digest);
        let Some(bytes) = self.source.document(&blob_name(&descriptor.digest), self.store.limits().document)? else {
            return Err(Error::image(what(), "is missing in the archive"));
        };
        if bytes.len() as u64 != descriptor.size {
            return Err(Error::image(what(), format!("has {} bytes instead of {}", bytes.len(), descriptor.size)));
        }
        let mut hasher = Hasher::new(descriptor.digest.algorithm());
        hasher.update(&bytes);
        match hasher.finish() {
            found if found == descriptor.digest => Ok(bytes),
            found => Err(Error::image(what(), format!("is not what its digest says, but {found}"))),
        }
    }

    /// Takes a layer: its blob, and what is in it.
    fn layer(&mut self, layer: Layer<'_>, open: impl Fn(&Self) -> Result<Option<Part>>) -> Result<()> {
        let chain = chain_id(layer.parent.as_ref(), layer.diff_id);
        let descriptor = &layer.descriptor;
        if self.store.has_whole(descriptor) {
            if !self.store.has_snapshot(&chain, &self.owners) {
                let (parent, place) = (layer.parent.as_ref(), layer.place);
                self.store.unpack_layer(descriptor, layer.diff_id, parent, &self.owners, place, self.progress)?;
            }
            return Ok(());
        }
        let what = format!("layer {}", descriptor.digest);
        let Some(part) = open(self)? else { return Err(Error::image(what, "is missing in the archive")) };
        if part.size != descriptor.size {
            return Err(Error::image(what, format!("has {} bytes instead of {}", part.size, descriptor.size)));
        }
        let (mut reader, total) = (part.reader, descriptor.size);
        let begin =
            ProgressEvent::new(ProgressKind::Load).layer(layer.place.0, layer.place.1).digest(&descriptor.digest);
        if self.store.has_snapshot(&chain, &self.owners) {
            let mut ingest = self.store.ingest(Some(&descriptor.digest), &descriptor.media_type, Some(total))?;
            skip(&mut reader, ingest.resume_offset(), &what)?;
            copy(&mut reader, &mut ingest, descriptor, begin, self.progress)?;
            return ingest.commit().map(drop);
        }
        let mut sink = self.store.layer_sink(descriptor, layer.diff_id, layer.parent.as_ref(), &self.owners)?;
        skip(&mut reader, sink.resume_offset(), &what)?;
        copy(&mut reader, &mut sink, descriptor, begin, self.progress)?;
        sink.commit_with(self.progress).map(drop)
    }

    fn docker(&mut self, list: &[u8]) -> Result<Vec<Found>> {
        let list = json::array("manifest.json", list)?;
        if list.is_empty() || list.len() > MOST_IMAGES {
            return Err(Error::image("manifest.json", format!("has {} images", list.len())));
        }
        list.into_iter().map(|one| self.docker_image(one)).collect()
    }

    fn docker_image(&mut self, value: Value) -> Result<Found> {
        const WHAT: &str = "manifest.json";
        let mut fields = Fields::of(WHAT, value)?;
        let config_name = fields.text("Config")?.ok_or_else(|| fields.wrong("Config", "is missing"))?;
        let tags = fields.texts("RepoTags")?.unwrap_or_default();
        tags.iter().try_for_each(|tag| check_name(tag)).map_err(|error| named(WHAT, &error))?;
        let names = fields.texts("Layers")?.unwrap_or_default();
        let Some(bytes) = self.source.document(&config_name, self.store.limits().document)? else {
            return Err(Error::image(WHAT, format!("names {}, which is missing", shorten(config_name.as_bytes()))));
        };
        let what = format!("config {}", Digest::of(&bytes));
        let config = ImageConfig::parse(&what, &bytes)?;
        if config.diff_ids.len() != names.len() {
            let (layers, ids) = (names.len(), config.diff_ids.len());
            return Err(Error::image(WHAT, format!("has {layers} layers, and the configuration names {ids}")));
        }
        let config_descriptor = self.store.put_document(media::CONFIG, &bytes)?;
        let (mut layers, mut parent) = (Vec::new(), None);
        for (index, (name, diff_id)) in names.iter().zip(&config.diff_ids).enumerate() {
            let place = (index, names.len());
            let Some(part) = self.source.file(name)? else {
                return Err(Error::image(WHAT, format!("names {}, which is missing", shorten(name.as_bytes()))));
            };
            let descriptor = self.docker_layer(part, diff_id)?;
            let open = |archive: &Self| archive.source.file(name);
            self.layer(Layer { descriptor: descriptor.clone(), diff_id, parent, place }, open)?;
            layers.push(descriptor);
            parent = Some(chain_id(parent.as_ref(), diff_id));
        }
        let manifest = Manifest::new(config_descriptor, layers);
        Ok((self.store.put_document(media::MANIFEST, &manifest.to_bytes())?, tags))
    }

    /// What a layer is called that comes without a descriptor. Mostly it is plain, and its DiffID is its digest.
    fn docker_layer(&mut self, part: Part, diff_id: &Digest) -> Result<Descriptor> {
        let mut begin = [0; 6];
        let mut reader = part.reader;
        let count = read_some(&mut reader, &mut begin)?;
        let kind = match Compression::of(&begin[..count]) {
            Compression::None => return Ok(Descriptor::new(media::LAYER, *diff_id, part.size)),
            Compression::Gzip => media::LAYER_GZIP,
            Compression::Zstd => media::LAYER_ZSTD,
        };
        let mut hasher = Hasher::new(diff_id.algorithm());
        hasher.update(&begin[..count]);
        let mut buffer = vec![0; 128 << 10];
        loop {
            match read_some(&mut reader, &mut buffer)? {
                0 => return Ok(Descriptor::new(kind, hasher.finish(), part.size)),
                count => hasher.update(&buffer[..count]),
            }
            if self.progress.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
}

/// Makes an image of one layer.
pub(crate) fn import_rootfs(
    store: &Store,
    source: &Path,
    tag: Option<&str>,
    mut config: ImageConfig,
    progress: &mut dyn Progress,
) -> Result<Image> {
    tag.map_or(Ok(()), check_name)?;
    let _work = store.work()?;
    let layer = match source.is_dir() {
        true => import_directory(store, source, progress)?,
        false => import_tar(store, source, progress).map_err(|error| match error {
            Error::Image { what, rule } => Error::image(format!("{}, {what}", source.display()), rule),
            error => error,
        })?,
    };
    if config.history.is_empty() {
        let comment = Some("a root file system, imported".to_owned());
        let created = config.created.clone();
        config.history.push(History { created, comment, ..History::default() });
    }
    store.add_layer_and_config(None, &[layer], config, tag.as_slice())
}

fn import_directory(store: &Store, source: &Path, progress: &mut dyn Progress) -> Result<(Descriptor, Digest)> {
    let changes = Changes { stack: vec![source.to_owned()], ..Changes::default() };
    add_layer(store, &changes, pack::Compression::Gzip, progress).map(|(layer, diff_id, _)| (layer, diff_id))
}

fn import_tar(store: &Store, source: &Path, progress: &mut dyn Progress) -> Result<(Descriptor, Digest)> {
    let (mut file, size) = open_file(source)?;
    let mut begin = [0; 6];
    let count = uninterrupted(|| std::os::unix::fs::FileExt::read_at(&file, &mut begin, 0)).at(
        Step::Archive,
        "read",
        source,
    )?;
    let kind = match Compression::of(&begin[..count]) {
        Compression::None => media::LAYER,
        Compression::Gzip => media::LAYER_GZIP,
        Compression::Zstd => media::LAYER_ZSTD,
    };
    let mut sink = store.new_layer_sink(kind, None, &Owners::of_caller())?;
    let descriptor = Descriptor::new(kind, Digest::of(b""), size);
    let event = ProgressEvent::new(ProgressKind::Load).layer(0, 1);
    copy(&mut file, &mut sink, &descriptor, event, progress)?;
    sink.commit_with(progress)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn named(what: &str, error: &Error) -> Error {
    Error::image(what, format!("has a bad name: {error}"))
}

fn read_some(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at(Step::Archive, "read", ""),
        }
    }
    Ok(count)
}

fn skip(reader: &mut dyn Read, count: u64, what: &str) -> Result<()> {
    std::io::copy(&mut reader.take(count), &mut std::io::sink()).map(drop).at(Step::Archive, "read", what)
}

/// Copies a blob into the store, and tells about it.
fn copy(
    from: &mut dyn Read,
    to: &mut dyn Write,
    descriptor: &Descriptor,
    event: ProgressEvent<'_>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    progress.step(&event.bytes(0, Some(descriptor.size)));
    loop {
        let count = read_some(from, &mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).map_err(|error| write_error(&descriptor.digest, error))?;
        done += count as u64;
        progress.step(&event.bytes(done, Some(descriptor.size)));
        if progress.interrupted() {
            return Err(Error::Interrupted);
        }
    }
}
