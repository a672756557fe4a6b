//! Images into archives.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use super::ArchiveFormat;
use crate::copy;
use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::image::digest::{Digest, Hasher, Verified};
use crate::image::manifest::{Descriptor, Index};
use crate::image::progress::{Progress, ProgressEvent, ProgressKind};
use crate::image::unpack::{decompress, layer_error};
use crate::image::{Image, Limits};
use crate::store::Store;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const BLOCK: u64 = 512;

pub(crate) fn save(
    store: &Store,
    images: &[Image],
    path: &Path,
    format: ArchiveFormat,
    progress: &mut dyn Progress,
) -> Result<()> {
    let _work = store.work()?;
    if images.is_empty() {
        return Err(Error::spec("images", "are none; an archive has at least one"));
    }
    if fs::symlink_metadata(path).is_ok() {
        return Err(rustix::io::Errno::EXIST).at(Step::Archive, "open", path);
    }
    // Whole or not at all: it is put together aside.
    let aside = Aside::beside(path)?;
    let mut out = match format {
        ArchiveFormat::OciDirectory => {
            let made = DirBuilder::new().mode(0o755).create(&aside.path);
            made.at(Step::Archive, "mkdir", &aside.path)?;
            Out::Directory(aside.path.clone())
        }
        _ => {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&aside.path);
            let file = file.at(Step::Archive, "open", &aside.path)?;
            Out::Tar(Box::new(BufWriter::with_capacity(256 << 10, file)), aside.path.clone())
        }
    };
    let mut saving = Saving { store, out: &mut out, there: HashSet::new(), progress };
    match format {
        ArchiveFormat::DockerArchive => saving.docker(images)?,
        _ => saving.layout(images)?,
    }
    out.finish()?;
    aside.place(path)
}

/// What is written, until it has its name.
struct Aside {
    path: PathBuf,
}

impl Aside {
    fn beside(path: &Path) -> Result<Aside> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Aside { path: parent.join(copy::unused_name()) })
    }

    fn place(self, path: &Path) -> Result<()> {
        renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE).at(Step::Archive, "renameat2", path)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After the rename nothing has this name.
        if fs::remove_file(&self.path).is_err() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Where files of an archive go.
enum Out {
    Directory(PathBuf),
    Tar(Box<BufWriter<File>>, PathBuf),
}

impl Out {
    /// Writes one file: `size` bytes, which `write` must give.
    fn file(&mut self, name: &str, size: u64, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()> {
        match self {
            Out::Directory(dir) => {
                let path = dir.join(name);
                if let Some(parent) = path.parent() {
                    let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
                    made.at(Step::Archive, "mkdir", parent)?;
                }
                let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
                let mut file = Bounded { inner: file.at(Step::Archive, "open", &path)?, left: size };
                write(&mut file)?;
                file.check(name)
            }
            Out::Tar(file, path) => {
                file.write_all(&header(name, size)).at(Step::Archive, "write", &path)?;
                let mut bounded = Bounded { inner: &mut *file, left: size };
                write(&mut bounded)?;
                bounded.check(name)?;
                let padding = (BLOCK - size % BLOCK) % BLOCK;
                file.write_all(&[0; BLOCK as usize][..padding as usize]).at(Step::Archive, "write", path)
            }
        }
    }

    fn finish(self) -> Result<()> {
        let Out::Tar(mut file, path) = self else { return Ok(()) };
        file.write_all(&[0; 1024]).and_then(|()| file.flush()).at(Step::Archive, "write", path)
    }
}

/// A file that gets as many bytes as its header says.
struct Bounded<W> {
    inner: W,
    left: u64,
}

impl<W> Bounded<W> {
    fn check(&self, name: &str) -> Result<()> {
        match self.left {
            0 => Ok(()),
            left => Err(Error::image(name, format!("ends {left} bytes too early"))),
        }
    }
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other(Error::image("blob", "is longer than it was")));
        }
        let count = self.inner.write(bytes)?;
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Saving<'a> {
    store: &'a Store,
    out: &'a mut Out,
    there: HashSet<String>,
    progress: &'a mut dyn Progress,
}

impl Saving<'_> {
    fn layout(&mut self, images: &[Image]) -> Result<()> {
        let mut index = Index::default();
        self.document("oci-layout", LAYOUT)?;
        for image in images {
            let manifest = image.manifest()?;
            let count = manifest.layers.len();
            for (at, layer) in manifest.layers.iter().enumerate() {
                self.blob(layer, Some((at, count)))?;
            }
            self.blob(&manifest.config, None)?;
            self.blob(image.descriptor(), None)?;
            let plain = image.descriptor().clone();
            let named = image.tags().iter().map(|tag| {
                let mut named = plain.clone();
                named.annotations.insert(REF_NAME.to_owned(), tag.clone());
                named
            });
            index.manifests.extend(named);
            if image.tags().is_empty() {
                index.manifests.push(plain);
            }
        }
        self.document("index.json", &index.to_bytes())
    }

    fn docker(&mut self, images: &[Image]) -> Result<()> {
        let mut list = Vec::new();
        for image in images {
            let (layers, config) = (image.layers()?, image.config()?);
            let count = layers.len();
            let mut names = Vec::new();
            for (at, (layer, diff_id)) in layers.iter().zip(&config.diff_ids).enumerate() {
                let name = format!("{}/layer.tar", diff_id.hex());
                if self.there.insert(name.clone()) {
                    self.plain_layer(&name, layer, diff_id, (at, count))?;
                }
                names.push(name);
            }
            let config_name = format!("{}.json", image.id().hex());
            if self.there.insert(config_name.clone()) {
                let bytes = self.store.read_document(&image.manifest()?.config)?;
                self.document(&config_name, &bytes)?;
            }
            let tags: Vec<String> = image.tags().iter().filter_map(|tag| docker_tag(tag)).collect();
            list.push(json!({"Config": config_name, "RepoTags": tags, "Layers": names}));
        }
        self.document("manifest.json", Value::Array(list).to_string().as_bytes())
    }

    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.out
            .file(name, bytes.len() as u64, &mut |out| out.write_all(bytes).map_err(|error| write_error(name, error)))
    }

    fn blob(&mut self, descriptor: &Descriptor, layer: Option<(usize, usize)>) -> Result<()> {
        let digest = &descriptor.digest;
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        if !self.there.insert(name.clone()) {
            return Ok(());
        }
        let mut reader = Verified::new(self.store.open_blob(digest)?, *digest, descriptor.size);
        let event = ProgressEvent { layer, ..ProgressEvent::new(ProgressKind::Save).digest(digest) };
        let what = format!("blob {digest}");
        let progress = &mut *self.progress;
        self.out.file(&name, descriptor.size, &mut |out| {
            transfer(&what, &mut reader, out, event, Some(descriptor.size), progress).map(drop)
        })
    }

    /// A layer without compression, as Docker has it. Its size comes first, so it is read twice.
    fn plain_layer(&mut self, name: &str, layer: &Descriptor, diff_id: &Digest, place: (usize, usize)) -> Result<()> {
        let what = format!("layer {}", layer.digest);
        let open = || open_plain(self.store, layer, self.store.limits());
        let check = ProgressEvent::new(ProgressKind::Check).layer(place.0, place.1).digest(&layer.digest);
        let mut hashed = Hashed(Hasher::new(diff_id.algorithm()));
        let size = transfer(&what, &mut open()?, &mut hashed, check, None, self.progress)?;
        let found = hashed.0.finish();
        if found != *diff_id {
            return Err(Error::image(what, format!("has the content {found}; the configuration says {diff_id}")));
        }
        let mut reader = open()?;
        let event = ProgressEvent::new(ProgressKind::Save).layer(place.0, place.1).digest(&layer.digest);
        let progress = &mut *self.progress;
        self.out.file(name, size, &mut |out| transfer(&what, &mut reader, out, event, Some(size), progress).map(drop))
    }
}

fn open_plain(store: &Store, layer: &Descriptor, limits: &Limits) -> Result<Box<dyn Read>> {
    let taken = Arc::new(AtomicU64::new(0));
    let inner = Verified::new(store.open_blob(&layer.digest)?, layer.digest, layer.size);
    let input = BufReader::with_capacity(128 << 10, decompress::Counted { inner, count: taken.clone() });
    let what = format!("layer {}", layer.digest);
    let reader = decompress::reader(input, limits).map_err(|error| layer_error(&what, error))?;
    Ok(Box::new(decompress::Watched::new(reader, *limits, taken)))
}

struct Hashed(Hasher);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies everything; the number of bytes.
fn transfer(
    what: &str,
    from: &mut dyn Read,
    to: &mut dyn Write,
    event: ProgressEvent<'_>,
    total: Option<u64>,
    progress: &mut dyn Progress,
) -> Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    loop {
        progress.step(&event.bytes(done, total));
        if progress.interrupted() {
            return Err(Error::Interrupted);
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(done),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(layer_error(what, error)),
        };
        to.write_all(&buffer[..count]).map_err(|error| write_error(what, error))?;
        done += count as u64;
    }
}

fn write_error(what: &str, error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| Error::sys(Step::Archive, "write", what, error.into_errno()))
}

/// Docker takes only names with a tag.
fn docker_tag(name: &str) -> Option<String> {
    let last = name.rsplit('/').next()?;
    match (name.contains('@'), last.contains(':')) {
        (true, _) => None,
        (_, true) => Some(name.to_owned()),
        (_, false) => Some(format!("{name}:latest")),
    }
}

/// A header of ustar for a file with a short name.
fn header(name: &str, size: u64) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\x000000000\x000000000\0");
    match size < 1 << 33 {
        true => put(124, &format!("{size:011o}\0")),
        false => {
            block[124] = 0x80;
            block[128..136].copy_from_slice(&size.to_be_bytes());
        }
    }
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].fill(b' ');
    block[156] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::unpack::tar::Reader;

    #[test]
    fn headers_are_those_of_a_tar() {
        for size in [0, 1, 1 << 20, (1 << 33) + 5] {
            let mut bytes = header("blobs/x", size).to_vec();
            bytes.extend_from_slice(&[0; 1024]);
            let limits = Limits { file_size: u64::MAX, ..Limits::default() };
            let entry = Reader::new(&bytes[..], limits).next().unwrap().unwrap();
            assert_eq!((entry.path, entry.size, entry.mode), (b"blobs/x".to_vec(), size, 0o644));
        }
    }

    #[test]
    fn docker_gets_names_with_tags() {
        assert_eq!(docker_tag("debian:12").as_deref(), Some("debian:12"));
        assert_eq!(docker_tag("host:5000/a").as_deref(), Some("host:5000/a:latest"));
        assert_eq!(docker_tag("a@sha256:00"), None);
    }
}
