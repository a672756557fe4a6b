//! Makers of layers and layouts, byte by byte, also of hostile ones.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zind_core::Digest;
use zind_core::image::media;

/// A directory of one test, which goes away with it.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new(name: &str) -> Temp {
        let path = std::env::temp_dir().join(format!("zind-store-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Temp(path)
    }

    /// One in memory, where that can hold what a store holds: for tests that do the same a hundred times, and whose promise has
    /// nothing to do with what a disk loses.
    pub fn fast(name: &str) -> Temp {
        let temp = Temp(Path::new("/dev/shm").join(format!("zind-store-{name}-{}", std::process::id())));
        let flags = rustix::fs::XattrFlags::empty();
        let is_fit = fs::create_dir(&temp.0).is_ok() && rustix::fs::setxattr(&temp.0, "user.zind", b"", flags).is_ok();
        if is_fit {
            return temp;
        }
        let _ = fs::remove_dir(&std::mem::ManuallyDrop::new(temp).0);
        Temp::new(name)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.0);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

/// A header with its checksum.
pub fn header(name: &[u8], kind: u8, size: u64, mode: u32, ids: (u64, u64), link: &[u8]) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    octal(&mut block[100..108], u64::from(mode));
    octal(&mut block[108..116], ids.0);
    octal(&mut block[116..124], ids.1);
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], 1_600_000_000);
    block[156] = kind;
    block[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    checksum(&mut block);
    block
}

/// A number as octal text, or in binary where that is too short.
pub fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let text = format!("{value:0width$o}");
    if text.len() == width {
        field[..width].copy_from_slice(text.as_bytes());
    } else {
        let length = field.len();
        field.fill(0);
        field[length.saturating_sub(8)..].copy_from_slice(&value.to_be_bytes());
        field[0] |= 0x80;
    }
}

pub fn checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A tar that is put together.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    pub fn block(mut self, block: [u8; 512]) -> Tar {
        self.0.extend_from_slice(&block);
        self
    }

    pub fn content(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        let full = self.0.len().div_ceil(512) * 512;
        self.0.resize(full, 0);
        self
    }

    /// Any entry; names and links that are too long get a pax header, as do `pax`.
    #[allow(clippy::too_many_arguments)]
    pub fn entry(
        self,
        name: &[u8],
        kind: u8,
        data: &[u8],
        mode: u32,
        ids: (u64, u64),
        link: &[u8],
        pax: &[(String, Vec<u8>)],
    ) -> Tar {
        let mut records = Vec::new();
        let mut add = |key: &str, value: &[u8]| records.extend_from_slice(&record(key, value));
        if name.len() > 100 && !pax.iter().any(|(key, _)| key == "path") {
            add("path", name);
        }
        if link.len() > 100 {
            add("linkpath", link);
        }
        pax.iter().for_each(|(key, value)| add(key, value));
        let tar = match records.is_empty() {
            true => self,
            false => {
                let block = header(b"pax", b'x', records.len() as u64, 0o644, (0, 0), b"");
                self.block(block).content(&records)
            }
        };
        tar.block(header(name, kind, data.len() as u64, mode, ids, link)).content(data)
    }

    pub fn dir(self, name: &str, mode: u32) -> Tar {
        self.entry(name.as_bytes(), b'5', b"", mode, (0, 0), b"", &[])
    }

    pub fn file(self, name: &str, data: &[u8]) -> Tar {
        self.entry(name.as_bytes(), b'0', data, 0o644, (0, 0), b"", &[])
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(name.as_bytes(), b'2', b"", 0o777, (0, 0), target.as_bytes(), &[])
    }

    pub fn hard_link(self, name: &str, target: &str) -> Tar {
        self.entry(name.as_bytes(), b'1', b"", 0o644, (0, 0), target.as_bytes(), &[])
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A record of a pax header, which counts itself.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layout directory that is put together.
pub struct Layout {
    pub dir: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    pub fn new(dir: impl AsRef<Path>) -> Layout {
        fs::create_dir_all(dir.as_ref().join("blobs/sha256")).unwrap();
        fs::write(dir.as_ref().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Layout { dir: dir.as_ref().to_owned(), manifests: Vec::new() }
    }

    /// Adds a blob; its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    /// Adds a layer, compressed by gzip; descriptor and DiffID.
    pub fn layer(&self, tar: &[u8]) -> (Value, String) {
        (self.blob(media::LAYER_GZIP, &gzip(tar)), Digest::of(tar).to_string())
    }

    pub fn config(&self, diff_ids: &[String]) -> Value {
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        self.blob(media::CONFIG, config.to_string().as_bytes())
    }

    /// Adds an image by its documents.
    pub fn image_of(&mut self, name: &str, config: &Value, layers: &[Value]) {
        let manifest = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": config, "layers": layers});
        let mut descriptor = self.blob(media::MANIFEST, manifest.to_string().as_bytes());
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        self.manifests.push(descriptor);
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    /// Adds an image of these layers.
    pub fn image(&mut self, name: &str, tars: &[Vec<u8>]) {
        let (layers, ids): (Vec<Value>, Vec<String>) = tars.iter().map(|tar| self.layer(tar)).unzip();
        let config = self.config(&ids);
        self.image_of(name, &config, &layers);
    }
}
