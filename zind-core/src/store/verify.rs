//! [`Store::verify`]: every digest, and every unpacked file against its layer unpacked once more.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, OFlags, Stat, fstat, getxattr, listxattr, readlinkat};
use rustix::io::Errno;

use super::snapshots::{Aside, DIFF, name, open_dir};
use super::{Fault, Owners, Store};
use crate::copy::{self, Reach};
use crate::error::{At, Error, Result, Step, uninterrupted};
use crate::image::progress::asked;
use crate::image::unpack::tar::shorten;
use crate::image::{Descriptor, Digest, Image, Progress, ProgressEvent, ProgressKind, Verified};
use crate::rootfs::fault::By;

/// Where a layer comes from.
struct Origin {
    layer: Descriptor,
    diff_id: Digest,
    parent: Option<Digest>,
    images: Vec<String>,
}

impl Store {
    /// Checks every digest and every unpacked file: each layer that was unpacked is unpacked once more for the
    /// same owners, and compared. Layers that neither an image nor a directory of layers has are passed over. The list is
    /// empty if all is well.
    /// Errors: [`Error::Interrupted`]; [`Error::Sys`] if something cannot be looked at.
    pub fn verify(&self, progress: &mut dyn Progress) -> Result<Vec<Fault>> {
        asked(progress, |progress| self.verify_all(progress))
    }

    fn verify_all(&self, progress: &mut dyn Progress) -> Result<Vec<Fault>> {
        let _work = self.work()?;
        let mut faults = Vec::new();
        let broken = self.verify_blobs(&mut faults, progress)?;
        let origins = self.verify_images(&mut faults, &broken)?;
        let mut all_owners: Vec<Owners> = Vec::new();
        for (path, key, dir_name) in self.snapshot_dirs()? {
            let Some(chain) = super::snapshots::chain_of(&dir_name) else { continue };
            let Some(origin) = origins.get(&chain) else { continue };
            let info = super::snapshots::read_info(&path).filter(|info| info.is_whole());
            // Those of an earlier zind do not say for which user namespace they are.
            let Some(owners) = info.and_then(|info| info.owners(&key)) else { continue };
            if !all_owners.contains(&owners) {
                all_owners.push(owners.clone());
            }
            if broken.contains(&origin.layer.digest) {
                continue;
            }
            if let Some((file, rule)) = self.verify_snapshot(&path, origin, &owners, progress)? {
                faults.push(Fault {
                    what: format!("snapshot {}, file {file}", name(&chain)),
                    rule,
                    cure: format!(
                        "remove the directory {}: the layer is unpacked again when it is needed",
                        path.display()
                    ),
                    images: origin.images.clone(),
                });
            }
        }
        for (chain, owners) in origins.keys().flat_map(|chain| all_owners.iter().map(move |owners| (chain, owners))) {
            let merged = self.merged_path(chain, owners);
            if super::snapshots::read_info(&merged).is_none_or(|info| !info.is_whole()) {
                continue;
            }
            let Ok(stack) = self.unmerged_stack(chain, owners) else { continue };
            let aside = self.merge_aside(&stack, owners, progress)?;
            if let Some((file, rule)) = compare(&aside.diff()?, &open_dir(&merged.join(DIFF))?, progress)? {
                faults.push(Fault {
                    what: format!("merged snapshot {}, file {file}", name(chain)),
                    rule,
                    cure: format!("remove the directory {}: it is made again when it is needed", merged.display()),
                    images: origins[chain].images.clone(),
                });
            }
        }
        Ok(faults)
    }

    /// The blobs that are not what they are called.
    fn verify_blobs(&self, faults: &mut Vec<Fault>, progress: &mut dyn Progress) -> Result<BTreeSet<Digest>> {
        let mut broken = BTreeSet::new();
        let mut buffer = vec![0; 256 << 10];
        for (path, digest) in self.blobs()? {
            let Ok(file) = fs::File::open(&path) else { continue };
            let size = file.metadata().at(Step::Blob, "fstat", &path)?.len();
            let mut reader = Verified::new(file, digest, size);
            let mut done = 0;
            let rule = loop {
                let event = ProgressEvent::new(ProgressKind::Check).digest(&digest);
                progress.step(&event.bytes(done, Some(size)));
                if progress.interrupted() {
                    return Err(Error::Interrupted);
                }
                match uninterrupted(|| reader.read(&mut buffer)) {
                    Ok(0) => break None,
                    Ok(count) => done += count as u64,
                    Err(error) => break Some(error.to_string()),
                }
            };
            if let Some(rule) = rule {
                broken.insert(digest);
                faults.push(Fault {
                    what: format!("blob {digest}"),
                    rule,
                    cure: format!("remove {} and take the images again that have it", path.display()),
                    images: self.names_with(&digest),
                });
            }
        }
        Ok(broken)
    }

    /// Whether each image is whole, and where each layer comes from.
    fn verify_images(&self, faults: &mut Vec<Fault>, broken: &BTreeSet<Digest>) -> Result<HashMap<Digest, Origin>> {
        let mut origins: HashMap<Digest, Origin> = HashMap::new();
        for entry in &self.read_index()?.manifests {
            if let Err(error) = self.summary_of(entry) {
                faults.push(Fault {
                    what: format!("index.json, manifest {}", entry.digest),
                    rule: error.to_string(),
                    cure: "remove the image by its digest, or take it again".to_owned(),
                    images: Vec::new(),
                });
            }
        }
        let mut images = self.images()?;
        // Those that only directories of layers have by now.
        for manifest in super::leases::in_use(self, false)? {
            if images.iter().all(|image| *image.digest() != manifest.digest) && !broken.contains(&manifest.digest) {
                match Image::of_manifest(self, &manifest) {
                    Ok(image) => images.push(image),
                    Err(error) => faults.push(Fault {
                        what: format!("manifest {} of a directory of layers", manifest.digest),
                        rule: error.to_string(),
                        cure: "take the image again".to_owned(),
                        images: Vec::new(),
                    }),
                }
            }
        }
        for image in images {
            let names = names_of(&image);
            let mut fault = |what: String, rule: String| {
                let cure = "take the image again".to_owned();
                faults.push(Fault { what, rule, cure, images: names.clone() });
            };
            if broken.contains(image.digest()) {
                continue;
            }
            let (manifest, config) = match self.check_documents(image.descriptor()) {
                Ok(documents) => documents,
                Err(error) => {
                    fault(format!("image {}", image.id()), error.to_string());
                    continue;
                }
            };
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                match fs::metadata(self.blob_path(&blob.digest)) {
                    Err(_) => fault(format!("blob {}", blob.digest), "is missing".to_owned()),
                    Ok(meta) if meta.len() != blob.size && !broken.contains(&blob.digest) => {
                        fault(format!("blob {}", blob.digest), format!("has {} bytes, not {}", meta.len(), blob.size));
                    }
                    Ok(_) => {}
                }
            }
            let mut parent = None;
            for ((layer, diff_id), chain) in manifest.layers.iter().zip(&config.diff_ids).zip(config.chain_ids()) {
                let origin = origins.entry(chain).or_insert_with(|| Origin {
                    layer: layer.clone(),
                    diff_id: *diff_id,
                    parent,
                    images: Vec::new(),
                });
                origin.images.extend(names.iter().cloned());
                parent = Some(chain);
            }
        }
        Ok(origins)
    }

    fn names_with(&self, blob: &Digest) -> Vec<String> {
        let has = |image: &Image| match image.manifest() {
            Ok(manifest) => manifest.layers.iter().chain([&manifest.config]).any(|one| one.digest == *blob),
            // Its manifest is what is broken, for one.
            Err(_) => image.digest() == blob || image.id() == blob,
        };
        let images = self.images().unwrap_or_default();
        images.iter().filter(|image| image.digest() == blob || has(image)).flat_map(names_of).collect()
    }

    /// The first file of a snapshot that is another than its layer has it.
    fn verify_snapshot(
        &self,
        path: &Path,
        origin: &Origin,
        owners: &Owners,
        progress: &mut dyn Progress,
    ) -> Result<Option<(String, String)>> {
        // Each layer by itself: what was merged of them is looked at later.
        let below = match &origin.parent {
            Some(parent) => self.unmerged_stack(parent, owners),
            None => Ok(Vec::new()),
        };
        // Without those below it cannot be used, and is unpacked again with them.
        let Ok(below) = below else { return Ok(None) };
        let unpacked = self.unpack_aside(&origin.layer, &origin.diff_id, below, owners, (0, 1), progress);
        let aside: Aside = match unpacked {
            Ok((aside, _)) => aside,
            // Its blob is missing: that was said.
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error @ Error::Image { .. }) => return Ok(Some(("/".to_owned(), error.to_string()))),
            Err(error) => return Err(error),
        };
        compare(&aside.diff()?, &open_dir(&path.join(DIFF))?, progress)
    }
}

fn names_of(image: &Image) -> Vec<String> {
    if image.tags().is_empty() { vec![image.id().to_string()] } else { image.tags().to_vec() }
}

/// The first difference between two trees: the file, and what is different.
pub(super) fn compare(
    wanted: &OwnedFd,
    found: &OwnedFd,
    progress: &mut dyn Progress,
) -> Result<Option<(String, String)>> {
    // An ordinary user's files may belong to its subordinate ids, and be closed to it.
    let reach = Reach::default();
    let mut left = vec![Vec::new()];
    while let Some(path) = left.pop() {
        if progress.interrupted() {
            return Err(Error::Interrupted);
        }
        let shown = format!("/{}", shorten(&path));
        let at = |error: Errno| Error::sys(Step::Unpack, "openat2", &shown, crate::error::IntoErrno::into_errno(error));
        let open = |root, flags| open(&reach, root, &path, flags).map_err(at);
        let (one, other) = (open(wanted, PLACE)?, open(found, PLACE)?);
        let differs = |what: &str| Ok(Some((shown.clone(), what.to_owned())));
        let (Some(one), Some(other)) = (one, other) else { return differs("is not in both") };
        let (meta, other_meta) =
            (fstat(&one).at(Step::Unpack, "fstat", &shown)?, fstat(&other).at(Step::Unpack, "fstat", &shown)?);
        if let Some(what) = difference(&meta, &other_meta) {
            return differs(what);
        }
        if xattrs(&reach, &one, &shown)? != xattrs(&reach, &other, &shown)? {
            return differs("has other extended attributes");
        }
        match FileType::from_raw_mode(meta.st_mode) {
            FileType::Directory => {
                let names = |dir: &OwnedFd| {
                    let dir =
                        reach.open(dir.as_fd(), OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY).map_err(at)?;
                    copy::names(dir).map_err(|fault| fault.at(Step::Unpack, Path::new(&shown)))
                };
                let (mine, theirs): (BTreeSet<_>, BTreeSet<_>) =
                    (names(&one)?.into_iter().collect(), names(&other)?.into_iter().collect());
                if let Some(name) = mine.symmetric_difference(&theirs).next() {
                    let what = if mine.contains(name) { "is missing" } else { "is not of the layer" };
                    return Ok(Some((format!("{shown}/{}", shorten(name.as_bytes())), what.to_owned())));
                }
                for name in mine {
                    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    left.push([path.as_slice(), separator, name.as_bytes()].concat());
                }
            }
            FileType::Symlink => {
                let target = |link: &OwnedFd| readlinkat(link, "", Vec::new()).at(Step::Unpack, "readlinkat", &shown);
                if target(&one)? != target(&other)? {
                    return differs("leads elsewhere");
                }
            }
            FileType::RegularFile => {
                let (Some(one), Some(other)) = (open(wanted, CONTENT)?, open(found, CONTENT)?) else {
                    return differs("is not in both");
                };
                if !same_content(one.into(), other.into(), &shown)? {
                    return differs("has another content");
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// It was a file when it was looked at; if it is another thing by now, nobody waits for it.
const CONTENT: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

fn open(reach: &Reach, root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<Option<OwnedFd>, Errno> {
    let path = OsStr::from_bytes(if path.is_empty() { b"." } else { path });
    match reach.open(root.as_fd(), path, flags) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn difference(one: &Stat, other: &Stat) -> Option<&'static str> {
    let is_directory = FileType::from_raw_mode(one.st_mode) == FileType::Directory;
    // Only what overlayfs shows of it.
    if super::super::image::unpack::below::is_whiteout(one) && super::super::image::unpack::below::is_whiteout(other) {
        return None;
    }
    if one.st_mode & libc::S_IFMT != other.st_mode & libc::S_IFMT {
        return Some("is of another kind");
    }
    if one.st_mode != other.st_mode {
        return Some("has another mode");
    }
    if (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid) {
        return Some("has another owner");
    }
    if one.st_rdev != other.st_rdev {
        return Some("is another device");
    }
    if one.st_size != other.st_size && !is_directory {
        return Some("has another size");
    }
    if (one.st_mtime, one.st_mtime_nsec) != (other.st_mtime, other.st_mtime_nsec) {
        return Some("has another time");
    }
    None
}

fn xattrs(reach: &Reach, file: &OwnedFd, shown: &str) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let path = copy::magic_path(file.as_fd());
    let mut names = vec![0; 1 << 16];
    // Links have none that matter here: there is no way to them by a descriptor.
    let length = match listxattr(path.as_str(), &mut names[..]) {
        Err(Errno::OPNOTSUPP | Errno::LOOP | Errno::NOENT | Errno::ACCESS) => 0,
        result => result.at(Step::Unpack, "listxattr", shown)?,
    };
    let mut all = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let own = getxattr(path.as_str(), name, &mut value[..]).map(|length| {
            value.truncate(length);
            value
        });
        let value = reach.attribute(own, file.as_fd(), OsStr::from_bytes(name)).by("getxattr");
        all.insert(name.to_vec(), value.map_err(|fault| fault.at(Step::Unpack, Path::new(shown)))?);
    }
    Ok(all)
}

fn same_content(mut one: fs::File, mut other: fs::File, shown: &str) -> Result<bool> {
    let (mut mine, mut theirs) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = uninterrupted(|| one.read(&mut mine)).at(Step::Unpack, "read", shown)?;
        if count == 0 {
            return Ok(uninterrupted(|| other.read(&mut theirs[..1])).at(Step::Unpack, "read", shown)? == 0);
        }
        if other.read_exact(&mut theirs[..count]).is_err() || mine[..count] != theirs[..count] {
            return Ok(false);
        }
    }
}
