//! Images made by hand, and a registry that has them.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use zind_core::Digest;

use super::server::{Reply, Seen};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// One file in a tar archive.
pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut all = header.to_vec();
    all.extend_from_slice(content);
    all.resize(all.len().next_multiple_of(512) + 1024, 0);
    all
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not get smaller.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15) | 1;
    let mut all = Vec::with_capacity(length + 8);
    while all.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_le_bytes());
    }
    all.truncate(length);
    all
}

/// The blobs of an image.
#[derive(Clone, Debug)]
pub struct Made {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Made {
    /// An image of layers that have one file each, of so many bytes of noise.
    pub fn of(sizes: &[usize]) -> Made {
        let tars: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(n, size)| tar(&format!("file{n}"), &noise(n as u64, *size))).collect();
        Made::of_tars(&tars, "amd64")
    }

    pub fn of_tars(tars: &[Vec<u8>], architecture: &str) -> Made {
        let ids: Vec<String> = tars.iter().map(|tar| format!("\"{}\"", Digest::of(tar))).collect();
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            ids.join(",")
        );
        let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        Made::of_blobs(config.into_bytes(), layers, LAYER, "")
    }

    pub fn of_blobs(config: Vec<u8>, layers: Vec<Vec<u8>>, media_type: &str, extra: &str) -> Made {
        let list: Vec<String> = layers.iter().map(|layer| descriptor(media_type, layer, extra)).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
            descriptor(CONFIG, &config, ""),
            list.join(",")
        );
        Made { manifest: manifest.into_bytes(), config, layers }
    }
}

pub fn descriptor(media_type: &str, blob: &[u8], extra: &str) -> String {
    let digest = Digest::of(blob);
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}{extra}}}"#, blob.len())
}

/// What a registry has, by path below `/v2/REPOSITORY/`.
#[derive(Clone, Default)]
pub struct Fake {
    pub things: Arc<Mutex<Things>>,
}

/// Type and bytes by path.
type Things = BTreeMap<String, (String, Vec<u8>)>;

impl Fake {
    pub fn new(made: &Made, tag: &str) -> Fake {
        let fake = Fake::default();
        fake.add(made, tag);
        fake
    }

    pub fn add(&self, made: &Made, tag: &str) {
        self.put(&format!("manifests/{tag}"), MANIFEST, &made.manifest);
        self.put(&format!("manifests/{}", Digest::of(&made.manifest)), MANIFEST, &made.manifest);
        for blob in [&made.config].into_iter().chain(&made.layers) {
            self.put(&format!("blobs/{}", Digest::of(blob)), "application/octet-stream", blob);
        }
    }

    pub fn put(&self, path: &str, kind: &str, bytes: &[u8]) {
        self.things.lock().unwrap().insert(path.to_owned(), (kind.to_owned(), bytes.to_vec()));
    }

    /// Answers as a registry does, with ranges.
    pub fn answer(&self, seen: &Seen) -> Reply {
        let Some(path) = seen.path.strip_prefix("/v2/team/app/") else { return not_found() };
        let things = self.things.lock().unwrap();
        let Some((kind, bytes)) = things.get(path) else { return not_found() };
        let from = seen.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse().ok());
        match from {
            Some(from) if from < bytes.len() => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Reply::Answer(206, vec![("Content-Range".into(), range)], bytes[from..].to_vec())
            }
            Some(_) => Reply::status(416),
            None => Reply::ok(kind, bytes.clone()),
        }
    }
}

pub fn not_found() -> Reply {
    let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    Reply::Answer(404, vec![("Content-Type".into(), "application/json".into())], body.to_vec())
}
