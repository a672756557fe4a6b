//! [`Store::gc`] and [`Store::usage`]: what is reached from the index, and what is not.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::place::{self, INGEST, LOCK, Locked, WORK, try_flock};
use super::snapshots::{Info, MERGED, chain_of, look_info, name, open_dir};
use super::{Collected, ImageUsage, Store, Usage, leases};
use crate::error::{At, Error, Result, Step};
use crate::image::progress::asked;
use crate::image::{Algorithm, Descriptor, Digest, Hasher, Progress, ProgressEvent, ProgressKind, chain_ids, media};
use crate::sys::asking;

/// Documents that are followed from the index.
const MOST_DOCUMENTS: usize = 1_000_000;
/// As large as a document may be whoever took it with whatever limits, in bytes.
const LARGEST_DOCUMENT: u64 = 256 << 20;

/// Tells how far a collection has come. Errors: [`Error::Interrupted`].
fn told(collected: &Collected, progress: &mut dyn Progress) -> Result<()> {
    progress.step(&ProgressEvent::new(ProgressKind::Collect).bytes(collected.bytes, None));
    if progress.interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}

/// What must stay.
#[derive(Default)]
struct Reached {
    blobs: HashSet<Digest>,
    /// The ChainIDs of all images and of everything below.
    chains: HashSet<Digest>,
}

/// A snapshot on disk.
struct Unpacked {
    path: PathBuf,
    /// `owners/algorithm-hex`.
    id: String,
    chain: Digest,
    info: Option<Info>,
}

impl Store {
    /// Removes blobs and unpacked layers that no image has, no container uses, and nobody is working with, and what was
    /// interrupted, partial downloads included. Safe beside everything else.
    /// Errors: [`crate::Error::Sys`] at [`Step::Collect`] or [`Step::Store`]; [`crate::Error::Image`] if the index or a
    /// document that it leads to is broken. Nothing is removed unless everything that leads somewhere could be read.
    pub fn gc(&self) -> Result<Collected> {
        self.gc_with(&mut ())
    }

    /// [`Store::gc`] that tells how much it has given back, and can be stopped: what was removed by then stays removed.
    /// Errors: as [`Store::gc`], and [`Error::Interrupted`].
    pub fn gc_with(&self, progress: &mut dyn Progress) -> Result<Collected> {
        asked(progress, |progress| self.collect(progress))
    }

    fn collect(&self, progress: &mut dyn Progress) -> Result<Collected> {
        let mut collected = Collected::default();
        let lock = self.0.place.lock(LOCK, true)?;
        // Notes before the index: what is noted no more is in the index by now.
        let noted = self.noted()?;
        // Everything is looked at before anything is removed.
        let Reached { blobs: reached, chains } = self.reached(true)?;
        let blobs = self.blobs()?;
        let unpacked = self.unpacked()?;
        told(&collected, progress)?;
        collected.leftovers += self.sweep_snapshots()?;
        for (path, digest) in blobs {
            if !reached.contains(&digest) && !noted.contains(&format!("blob {digest}")) {
                collected.bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
                self.0.place.throw_away(&path)?;
                collected.blobs += 1;
                told(&collected, progress)?;
            }
        }
        let by_id: HashMap<&str, &Unpacked> = unpacked.iter().map(|one| (one.id.as_str(), one)).collect();
        let mut live: HashSet<&str> = HashSet::new();
        let mut dead = Vec::new();
        for one in &unpacked {
            let is_wanted = chains.contains(&one.chain) && one.info.as_ref().is_some_and(Info::is_whole);
            if is_wanted || noted.contains(&format!("snapshot {}", one.id)) {
                one.keep(&by_id, &mut live);
            } else {
                dead.push(one);
            }
        }
        // The topmost first: what is in use keeps what it lies on.
        let depths: HashMap<&str, usize> = dead.iter().map(|one| (one.id.as_str(), one.depth(&by_id))).collect();
        dead.sort_by_key(|one| std::cmp::Reverse(depths[one.id.as_str()]));
        for one in dead {
            if live.contains(one.id.as_str()) {
                continue;
            }
            // Locked only until it is in the trash: there may be more of them than descriptors.
            let locked = match open_dir(&one.path) {
                Ok(dir) if try_flock(&dir) => Locked::new(dir),
                _ => {
                    one.keep(&by_id, &mut live);
                    continue;
                }
            };
            self.0.place.throw_away(&one.path)?;
            drop(locked);
            // What was merged with others is only used together with it.
            let merged = one.path.with_file_name(name(&one.chain) + MERGED);
            self.0.place.throw_away(&merged)?;
            collected.snapshots += 1;
            collected.bytes += one.info.as_ref().map_or(0, |info| info.bytes);
            told(&collected, progress)?;
        }
        for (path, _, name) in self.snapshot_dirs()? {
            // Its layer is gone.
            if name.strip_suffix(MERGED).is_some_and(|layer| !path.with_file_name(layer).exists()) {
                self.0.place.throw_away(&path)?;
            }
        }
        for name in [INGEST, WORK] {
            let dir = self.at(name);
            for entry in fs::read_dir(&dir).at(Step::Collect, "open", &dir)? {
                let path = entry.at(Step::Collect, "getdents64", &dir)?.path();
                let size = fs::metadata(&path).map_or(0, |meta| meta.len());
                if place::remove_unless_locked(&path)? {
                    collected.leftovers += 1;
                    collected.bytes += size;
                }
            }
        }
        drop(lock);
        told(&collected, progress)?;
        self.0.place.empty_trash()?;
        collected.leftovers += crate::build::collect(self)?;
        self.sync_snapshots(Duration::ZERO)?;
        Ok(collected)
    }

    /// What it takes on disk, in bytes of files. Errors: as [`Store::gc`].
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        let reached = match self.reached(false) {
            // Then gc removes none.
            Err(Error::Image { .. } | Error::State(_)) => None,
            result => Some(result?),
        };
        for (path, digest) in self.blobs()? {
            let size = fs::metadata(&path).map_or(0, |meta| meta.len());
            usage.blobs += size;
            if reached.as_ref().is_some_and(|reached| !reached.blobs.contains(&digest)) {
                usage.unused += size;
            }
        }
        let mut by_chain: HashMap<Digest, u64> = HashMap::new();
        for one in self.unpacked()? {
            let bytes = one.info.as_ref().map_or(0, |info| info.bytes);
            usage.snapshots += bytes;
            *by_chain.entry(one.chain).or_default() += bytes;
        }
        let dir = self.at(INGEST);
        for entry in fs::read_dir(&dir).at(Step::Store, "open", &dir)? {
            let entry = entry.at(Step::Store, "getdents64", &dir)?;
            usage.partial += entry.metadata().map_or(0, |meta| meta.len());
        }
        let images = self.images()?;
        // In how many images each blob is.
        let mut users: HashMap<Digest, (u64, u64)> = HashMap::new();
        let mut blobs = Vec::new();
        for image in &images {
            if asking::is_interrupted() {
                return Err(Error::Interrupted);
            }
            let Ok(manifest) = image.manifest() else {
                blobs.push(HashSet::new());
                continue;
            };
            let all = manifest.layers.iter().chain([&manifest.config, image.descriptor()]);
            let own: HashSet<Digest> = all.clone().map(|blob| blob.digest).collect();
            for blob in all.filter(|blob| own.contains(&blob.digest)) {
                users.entry(blob.digest).or_insert((0, blob.size));
            }
            own.iter().for_each(|digest| users.entry(*digest).or_default().0 += 1);
            blobs.push(own);
        }
        for (image, own) in images.iter().zip(blobs) {
            let unique = own.iter().filter_map(|digest| users.get(digest)).filter(|(count, _)| *count == 1);
            let chain = image.config().map(|config| config.chain_ids()).unwrap_or_default();
            usage.images.push(ImageUsage {
                id: *image.id(),
                tags: image.tags().to_vec(),
                size: image.size(),
                unique: unique.map(|(_, size)| size).sum(),
                unpacked: chain.iter().filter_map(|chain| by_chain.get(chain)).sum(),
            });
        }
        Ok(usage)
    }

    /// [`Store::usage`] that can be stopped. Errors: as [`Store::usage`], and [`Error::Interrupted`].
    pub fn usage_with(&self, progress: &mut dyn Progress) -> Result<Usage> {
        asked(progress, |_| self.usage())
    }

    /// What those note who work with the store just now.
    fn noted(&self) -> Result<HashSet<String>> {
        let dir = self.at(WORK);
        let mut noted = HashSet::new();
        for entry in fs::read_dir(&dir).at(Step::Collect, "open", &dir)? {
            let entry = entry.at(Step::Collect, "getdents64", &dir)?;
            if entry.file_name().as_encoded_bytes().starts_with(place::TEMPORARY.as_bytes()) {
                continue;
            }
            let path = entry.path();
            let mut file = match fs::File::open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                result => result.at(Step::Collect, "open", &path)?,
            };
            if try_flock(&file) {
                // Its owner is gone.
                drop(Locked::new(file.into()));
                continue;
            }
            let mut text = String::new();
            file.read_to_string(&mut text).at(Step::Collect, "read", &path)?;
            noted.extend(text.lines().map(str::to_owned));
        }
        Ok(noted)
    }

    /// Everything that the index and leases lead to. With `clean` leases of nobody are removed.
    /// Errors: whatever cannot be read now is an error, and so is a document that is not what it was: who knows what it
    /// leads to. Only what is not there leads nowhere. The bounds are not those of this store: another may have made it.
    fn reached(&self, clean: bool) -> Result<Reached> {
        let index = self.read_index()?;
        let mut reached = Reached::default();
        let mut left: Vec<Descriptor> = index.manifests;
        left.extend(leases::in_use(self, clean)?);
        while let Some(descriptor) = left.pop() {
            if !reached.blobs.insert(descriptor.digest) {
                continue;
            }
            if asking::is_interrupted() {
                return Err(Error::Interrupted);
            }
            if reached.blobs.len() > MOST_DOCUMENTS {
                return Err(Error::image("index.json", format!("leads to more than {MOST_DOCUMENTS} blobs")));
            }
            let kind = descriptor.media_type.as_str();
            let is_known = media::is_manifest(kind)
                || media::is_index(kind)
                || [media::CONFIG, media::DOCKER_CONFIG].contains(&kind);
            if !is_known && !kind.is_empty() && !kind.ends_with("+json") {
                continue;
            }
            let Some(bytes) = self.read_for_gc(&descriptor, is_known)? else { continue };
            // What is as it was and still no JSON leads nowhere.
            let Ok(value) = serde_json::from_slice::<Value>(&bytes) else { continue };
            descriptors(&value, &mut left);
            let ids = value["rootfs"]["diff_ids"].as_array().map(Vec::as_slice).unwrap_or_default();
            let ids = ids.iter().map(|id| Digest::parse(id.as_str()?).ok());
            if let Some(ids) = ids.collect::<Option<Vec<Digest>>>() {
                reached.chains.extend(chain_ids(&ids));
            }
        }
        Ok(reached)
    }

    /// None if it is not there, or is no document that leads anywhere.
    fn read_for_gc(&self, descriptor: &Descriptor, is_known: bool) -> Result<Option<Vec<u8>>> {
        let digest = &descriptor.digest;
        let file = match self.open_blob(digest) {
            Err(Error::NotFound { .. }) => return Ok(None),
            result => result?,
        };
        let cure = "nothing is removed: `verify` tells which images have it; remove them or take them again";
        let bytes = place::read_bounded(&file, LARGEST_DOCUMENT).at(Step::Collect, "read", self.blob_path(digest))?;
        let Some(bytes) = bytes else {
            let rule = format!("is a document of more than {LARGEST_DOCUMENT} bytes; {cure}");
            return if is_known { Err(Error::image(format!("blob {digest}"), rule)) } else { Ok(None) };
        };
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        match hasher.finish() {
            found if found == *digest => Ok(Some(bytes)),
            found => {
                let rule = format!("is not what its digest says, but {found}; {cure}");
                Err(Error::image(format!("blob {digest}"), rule))
            }
        }
    }

    /// All blobs on disk.
    pub(super) fn blobs(&self) -> Result<Vec<(PathBuf, Digest)>> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.at("images/blobs").join(algorithm.name());
            let entries = match fs::read_dir(&dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                result => result.at(Step::Collect, "open", &dir)?,
            };
            for entry in entries {
                let entry = entry.at(Step::Collect, "getdents64", &dir)?;
                let text = format!("{}:{}", algorithm.name(), entry.file_name().to_string_lossy());
                if let Ok(digest) = Digest::parse(&text) {
                    blobs.push((entry.path(), digest));
                }
            }
        }
        Ok(blobs)
    }

    fn unpacked(&self) -> Result<Vec<Unpacked>> {
        let mut unpacked = Vec::new();
        for (path, owners, name) in self.snapshot_dirs()? {
            let Some(chain) = chain_of(&name) else { continue };
            let info = look_info(&path)?;
            unpacked.push(Unpacked { path, id: format!("{owners}/{name}"), chain, info });
        }
        Ok(unpacked)
    }
}

impl Unpacked {
    /// Marks it and all that it lies on.
    fn keep<'a>(&'a self, by_id: &HashMap<&str, &'a Unpacked>, live: &mut HashSet<&'a str>) {
        let mut next = Some(self);
        while let Some(one) = next.filter(|one| live.insert(&one.id)) {
            next = one.below().and_then(|id| by_id.get(id.as_str()).copied());
        }
    }

    /// How many it lies on.
    fn depth<'a>(&'a self, by_id: &HashMap<&str, &'a Unpacked>) -> usize {
        let below = |one: &&'a Unpacked| by_id.get(one.below()?.as_str()).copied();
        std::iter::successors(Some(self), below).take(by_id.len()).count()
    }

    /// The snapshot it lies on.
    fn below(&self) -> Option<String> {
        let parent = self.info.as_ref()?.parent?;
        let owners = self.id.split('/').next()?;
        Some(format!("{owners}/{}", name(&parent)))
    }
}

/// Collects everything in a document that looks like a descriptor.
fn descriptors(value: &Value, into: &mut Vec<Descriptor>) {
    match value {
        Value::Object(map) => {
            let digest = map.get("digest").and_then(Value::as_str).map(Digest::parse);
            if let (Some(Ok(digest)), Some(size)) = (digest, map.get("size").and_then(Value::as_u64)) {
                let kind = map.get("mediaType").and_then(Value::as_str).unwrap_or_default();
                into.push(Descriptor::new(kind, digest, size));
            }
            map.values().for_each(|value| descriptors(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| descriptors(value, into)),
        _ => {}
    }
}
