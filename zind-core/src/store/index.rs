//! `index.json`: which images there are, and how they are called.
//!
//! It is one file that is replaced as a whole, so readers need no lock. Each name is a descriptor of its own, as other
//! programs have it; ours also say what a list shows, so that thousands of images are listed from this one file.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::Store;
use super::place::{INDEX, INDEX_LOCK, read_bounded};
use crate::error::{At, Error, Result, Step};
use crate::image::{Descriptor, Digest, Image, ImageConfig, Index, Manifest, Platform, Summary, media};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CREATED: &str = "org.opencontainers.image.created";
/// The digest of the configuration.
const ID: &str = "io.github.zind.id";
/// Bytes of all blobs.
const SIZE: &str = "io.github.zind.size";

/// As large as the file may be, in bytes.
const LARGEST: u64 = 128 << 20;
/// As many indexes as may be in each other.
const MOST_NESTED: usize = 4;
const LONGEST_NAME: usize = 512;

/// What was read, and of which state of the file.
#[derive(Debug)]
pub(super) struct Listed {
    stamp: (u64, i64, i64, u64),
    images: Arc<Vec<Summary>>,
}

impl Store {
    /// All images, in the order in which they came.
    /// Errors: [`Error::Image`] for an index that is broken; [`Error::Sys`] at [`Step::Store`].
    pub fn images(&self) -> Result<Vec<Image>> {
        Ok(self.summaries()?.iter().map(|summary| Image::new(self.clone(), summary.clone())).collect())
    }

    /// An image by its name (exactly as tagged), its id or digest (`sha256:…`), or the first 4 or more digits of one.
    /// Errors: [`Error::NotFound`]; [`Error::State`] if the digits fit several images.
    pub fn image(&self, name: &str) -> Result<Image> {
        let all = self.summaries()?;
        let found = |summary: &Summary| Ok(Image::new(self.clone(), summary.clone()));
        if let Some(summary) = all.iter().find(|summary| summary.tags.iter().any(|tag| tag == name)) {
            return found(summary);
        }
        let hex = name.strip_prefix("sha256:").or_else(|| name.strip_prefix("sha512:")).unwrap_or(name);
        let is_hex = hex.len() >= 4 && hex.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
        let fits = |digest: &Digest| match name.len() == hex.len() {
            true => digest.hex().starts_with(hex),
            false => digest.to_string().starts_with(name),
        };
        let mut fitting = all.iter().filter(|summary| is_hex && (fits(&summary.id) || fits(&summary.manifest.digest)));
        match (fitting.next(), fitting.next()) {
            (Some(summary), None) => found(summary),
            (Some(summary), Some(other)) if summary.id == other.id && fitting.all(|other| other.id == summary.id) => {
                found(summary)
            }
            (Some(_), Some(_)) => Err(Error::State(format!("several images begin with {name}"))),
            _ => Err(Error::NotFound { what: "image", name: name.escape_debug().to_string() }),
        }
    }

    /// Gives an image one more name; another image that has it loses it, and stays without, if it was its last. `name` is
    /// kept as it is: normalise it before.
    /// Errors: [`Error::Spec`] for a name with other characters than those of references; [`Error::NotFound`] if the image
    /// was removed meanwhile; [`Error::Sys`] at [`Step::Store`].
    pub fn tag(&self, image: &Image, name: &str) -> Result<()> {
        check_name(name)?;
        let own = image.descriptor().digest;
        self.change_index(|index| {
            if !index.manifests.iter().any(|one| one.digest == own || self.leads_to(one, &own)) {
                return Err(Error::NotFound { what: "image", name: image.id().to_string() });
            }
            put(index, describe(image.summary()), &[name]);
            Ok(())
        })
    }

    /// Takes a name away; with an id or digest, all names. An image without names is gone; its blobs go with
    /// [`Store::gc`]. Containers that run on it are not disturbed.
    /// Errors: [`Error::NotFound`]; [`Error::State`] if the digits fit several images.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.change_index(|index| {
            let has_name = |one: &Descriptor| one.annotations.get(REF_NAME).is_some_and(|tag| tag == name);
            if index.manifests.iter().any(has_name) {
                index.manifests.retain(|one| !has_name(one));
                return Ok(());
            }
            // Whatever it is: what cannot be read is removed like this.
            if let Ok(digest) = Digest::parse(name)
                && index.manifests.iter().any(|one| one.digest == digest)
            {
                index.manifests.retain(|one| one.digest != digest);
                return Ok(());
            }
            let own = *self.image(name)?.digest();
            index.manifests.retain(|one| one.digest != own && !self.leads_to(one, &own));
            Ok(())
        })
    }

    /// Makes an image of a manifest that was added with everything it refers to, and gives it names.
    /// Errors: [`Error::Image`] if a blob is missing or documents do not fit together; [`Error::Spec`] for a bad name.
    pub fn add_image(&self, manifest: &Descriptor, tags: &[&str]) -> Result<Image> {
        let mut images = self.add_images(&[(manifest.clone(), tags.iter().map(|tag| (*tag).to_owned()).collect())])?;
        images.pop().ok_or_else(|| Error::NotFound { what: "image", name: manifest.digest.to_string() })
    }

    /// The same for many: all of them or none.
    pub(crate) fn add_images(&self, all: &[(Descriptor, Vec<String>)]) -> Result<Vec<Image>> {
        let _work = self.work()?;
        let mut summaries = Vec::with_capacity(all.len());
        for (manifest, tags) in all {
            tags.iter().try_for_each(|tag| check_name(tag))?;
            summaries.push(self.check_image(manifest)?);
        }
        self.change_index(|index| {
            for ((_, tags), summary) in all.iter().zip(&summaries) {
                let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
                put(index, describe(summary), &tags);
            }
            Ok(())
        })?;
        let listed = self.summaries()?;
        let by_digest: HashMap<&Digest, &Summary> = listed.iter().map(|one| (&one.manifest.digest, one)).collect();
        let mut images: Vec<Image> = Vec::with_capacity(all.len());
        for mut summary in summaries {
            let listed = by_digest.get(&summary.manifest.digest);
            summary.tags = listed.map(|one| one.tags.clone()).unwrap_or_default();
            images.push(Image::new(self.clone(), summary));
        }
        Ok(images)
    }

    /// Looks whether everything of an image is there.
    fn check_image(&self, manifest: &Descriptor) -> Result<Summary> {
        let (document, config) = self.check_documents(manifest)?;
        for blob in document.layers.iter().chain([&document.config, manifest]) {
            let what = || format!("blob {}", blob.digest);
            if !self.has_blob(&blob.digest) {
                return Err(Error::image(what(), "is missing"));
            }
            let path = self.blob_path(&blob.digest);
            let size = fs::metadata(&path).at(Step::Blob, "stat", &path)?.len();
            if size != blob.size {
                return Err(Error::image(what(), format!("has {size} bytes instead of {}", blob.size)));
            }
        }
        Ok(summary(manifest, &document, &config))
    }

    /// Makes an image of a base and more layers on top, which were added before: what commit and build do.
    /// `layers` come with their DiffIDs; those of `base` (none: from scratch) are put below them, and `config.diff_ids` is
    /// filled in. `config.history` is the caller's.
    pub fn add_layer_and_config(
        &self,
        base: Option<&Image>,
        layers: &[(Descriptor, Digest)],
        mut config: ImageConfig,
        tags: &[&str],
    ) -> Result<Image> {
        let _work = self.work()?;
        let (mut all, mut diff_ids) = (Vec::new(), Vec::new());
        let mut docker = false;
        if let Some(base) = base {
            let manifest = base.manifest()?;
            docker = manifest.media_type == media::DOCKER_MANIFEST;
            all.extend(manifest.layers.iter().cloned());
            diff_ids.extend(base.config()?.diff_ids.iter().copied());
        }
        all.extend(layers.iter().map(|(layer, _)| layer.clone()));
        diff_ids.extend(layers.iter().map(|(_, diff_id)| *diff_id));
        if docker {
            // What is put together is OCI's: the same layers under its names.
            all.iter_mut().for_each(|layer| layer.media_type = oci_layer(&layer.media_type).to_owned());
        }
        config.diff_ids = diff_ids;
        let config = self.put_document(media::CONFIG, &config.to_bytes())?;
        let manifest = self.put_document(media::MANIFEST, &Manifest::new(config, all).to_bytes())?;
        self.add_image(&manifest, tags)
    }

    /// Manifest and configuration, each checked, and against each other.
    pub(crate) fn check_documents(&self, descriptor: &Descriptor) -> Result<(Manifest, ImageConfig)> {
        let manifest = self.read_manifest(descriptor)?;
        let what = format!("manifest {}", descriptor.digest);
        let config_type = manifest.config.media_type.as_str();
        if ![media::CONFIG, media::DOCKER_CONFIG].contains(&config_type) {
            return Err(Error::image(what, format!("has a configuration of the type {config_type:?}: it is no image")));
        }
        if let Some(layer) = manifest.layers.iter().find(|layer| !media::is_layer(&layer.media_type)) {
            let rule = format!("has a layer of the unknown type {:?}", layer.media_type);
            return Err(Error::image(what, rule));
        }
        let config = self.read_config(&manifest)?;
        if config.diff_ids.len() != manifest.layers.len() {
            let (layers, ids) = (manifest.layers.len(), config.diff_ids.len());
            return Err(Error::image(what, format!("has {layers} layers, and its configuration names {ids}")));
        }
        Ok((manifest, config))
    }

    /// The index as it is.
    pub(super) fn read_index(&self) -> Result<Index> {
        self.read_index_stamped().map(|(index, _)| index)
    }

    fn read_index_stamped(&self) -> Result<(Index, (u64, i64, i64, u64))> {
        let path = self.at(INDEX);
        let file = File::open(&path).at(Step::Store, "open", &path)?;
        let meta = file.metadata().at(Step::Store, "fstat", &path)?;
        let stamp = (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
        let Some(bytes) = read_bounded(&file, LARGEST).at(Step::Store, "read", &path)? else {
            return Err(Error::image("index.json", format!("is larger than {LARGEST} bytes")));
        };
        Ok((Index::parse("index.json", &bytes)?, stamp))
    }

    /// Changes the index: one after the other, as a whole.
    pub(super) fn change_index(&self, change: impl FnOnce(&mut Index) -> Result<()>) -> Result<()> {
        let _lock = self.0.place.lock(INDEX_LOCK, true)?;
        let mut index = self.read_index()?;
        let before = index.clone();
        change(&mut index)?;
        if index == before {
            return Ok(());
        }
        self.0.place.write_file(&self.at(INDEX), &index.to_bytes())
    }

    pub(super) fn summaries(&self) -> Result<Arc<Vec<Summary>>> {
        let path = self.at(INDEX);
        let meta = fs::metadata(&path).at(Step::Store, "stat", &path)?;
        let stamp = (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
        let mut listed = self.0.listed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(listed) = listed.as_ref().filter(|listed| listed.stamp == stamp) {
            return Ok(listed.images.clone());
        }
        let (index, stamp) = self.read_index_stamped()?;
        let mut images: Vec<Summary> = Vec::new();
        let mut at: HashMap<Digest, usize> = HashMap::new();
        for mut descriptor in index.manifests {
            let tag = descriptor.annotations.remove(REF_NAME).filter(|tag| !tag.is_empty());
            // What somebody else put there and cannot be read is no image of ours; verify() tells.
            let Ok(mut found) = self.summary_of(&descriptor) else { continue };
            match at.get(&found.manifest.digest) {
                Some(known) => images[*known].tags.extend(tag),
                None => {
                    found.tags.extend(tag);
                    at.insert(found.manifest.digest, images.len());
                    images.push(found);
                }
            }
        }
        for image in &mut images {
            image.tags.sort();
            image.tags.dedup();
        }
        let images = Arc::new(images);
        *listed = Some(Listed { stamp, images: images.clone() });
        Ok(images)
    }

    /// What an entry of the index stands for.
    pub(super) fn summary_of(&self, descriptor: &Descriptor) -> Result<Summary> {
        if let Some(summary) = noted(descriptor) {
            return Ok(summary);
        }
        let manifest = self.manifest_of(descriptor, MOST_NESTED)?;
        let (document, config) = self.check_documents(&manifest)?;
        Ok(summary(&manifest, &document, &config))
    }

    /// The manifest that an entry stands for: of an index, that of this machine.
    fn manifest_of(&self, descriptor: &Descriptor, depth: usize) -> Result<Descriptor> {
        if !media::is_index(&descriptor.media_type) {
            let mut plain = Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size);
            plain.platform = descriptor.platform.clone();
            return Ok(plain);
        }
        if depth == 0 {
            return Err(Error::image(format!("index {}", descriptor.digest), "has too many indexes in each other"));
        }
        let what = format!("index {}", descriptor.digest);
        let index = Index::parse(&what, &self.read_document(descriptor)?)?;
        let chosen = Platform::host().choose(&index.manifests)?;
        self.manifest_of(chosen, depth - 1)
    }

    /// True for an index that stands for the image with this manifest.
    fn leads_to(&self, descriptor: &Descriptor, manifest: &Digest) -> bool {
        media::is_index(&descriptor.media_type)
            && self.manifest_of(descriptor, MOST_NESTED).is_ok_and(|found| found.digest == *manifest)
    }
}

/// The words a list needs, from an entry of ours.
fn noted(descriptor: &Descriptor) -> Option<Summary> {
    let mut manifest = Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size);
    manifest.platform = descriptor.platform.clone();
    Some(Summary {
        id: Digest::parse(descriptor.annotations.get(ID)?).ok()?,
        size: descriptor.annotations.get(SIZE)?.parse().ok()?,
        created: descriptor.annotations.get(CREATED).cloned(),
        platform: descriptor.platform.clone()?,
        manifest,
        tags: Vec::new(),
    })
}

fn summary(manifest: &Descriptor, document: &Manifest, config: &ImageConfig) -> Summary {
    let mut descriptor = Descriptor::new(document.media_type.clone(), manifest.digest, manifest.size);
    descriptor.platform = Some(config.platform());
    Summary {
        manifest: descriptor,
        id: document.config.digest,
        size: document.blobs_size().saturating_add(manifest.size),
        created: config.created.clone(),
        platform: config.platform(),
        tags: Vec::new(),
    }
}

/// An entry for the index.
fn describe(summary: &Summary) -> Descriptor {
    let mut descriptor = summary.manifest.clone();
    descriptor.platform = Some(summary.platform.clone());
    descriptor.annotations.insert(ID.to_owned(), summary.id.to_string());
    descriptor.annotations.insert(SIZE.to_owned(), summary.size.to_string());
    if let Some(created) = &summary.created {
        descriptor.annotations.insert(CREATED.to_owned(), created.clone());
    }
    descriptor
}

/// Adds an entry under names, or without any. Who had a name loses it, and stays.
fn put(index: &mut Index, entry: Descriptor, names: &[&str]) {
    for name in names {
        let is_named = |one: &Descriptor| one.annotations.get(REF_NAME).is_some_and(|tag| tag == name);
        let losers: Vec<Descriptor> = index.manifests.iter().filter(|one| is_named(one)).cloned().collect();
        index.manifests.retain(|one| !is_named(one));
        for mut loser in losers {
            if !index.manifests.iter().any(|one| one.digest == loser.digest) && loser.digest != entry.digest {
                loser.annotations.remove(REF_NAME);
                index.manifests.push(loser);
            }
        }
        // Without a name it was only there to be there.
        index.manifests.retain(|one| one.digest != entry.digest || one.annotations.contains_key(REF_NAME));
        let mut named = entry.clone();
        named.annotations.insert(REF_NAME.to_owned(), (*name).to_owned());
        index.manifests.push(named);
    }
    if !index.manifests.iter().any(|one| one.digest == entry.digest) {
        index.manifests.push(entry);
    }
}

fn oci_layer(media_type: &str) -> &str {
    match media_type {
        media::DOCKER_LAYER => media::LAYER,
        media::DOCKER_LAYER_GZIP | media::DOCKER_FOREIGN_GZIP => media::LAYER_GZIP,
        media::DOCKER_LAYER_ZSTD => media::LAYER_ZSTD,
        other => other,
    }
}

/// Names of images: what references are made of.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@/+-".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && name.bytes().all(plain) && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let short: String = name.chars().take(80).collect();
    let rule = "an image has a name of letters, digits and \"._:@/+-\" that begins with a letter or digit, at most 512";
    Err(Error::spec("name", format!("{short:?}: {rule}")))
}
