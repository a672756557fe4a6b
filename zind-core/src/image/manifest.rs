//! Descriptors, manifests and indexes: OCI's image-spec, and Docker's version 2 schema 2, which is almost the same.
//!
//! Source: <https://github.com/opencontainers/image-spec/blob/main/manifest.md>
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::digest::Digest;
use super::json::{self, Fields};
use super::platform::Platform;
use crate::error::{Error, Result};

/// The media types that are understood, by their text.
pub mod media {
    /// OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, plain tar.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd (also zstd:chunked).
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, plain tar.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Docker layer that may only be fetched from its `urls`.
    pub const DOCKER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

    /// True for an index or manifest list.
    pub fn is_index(media_type: &str) -> bool {
        [INDEX, DOCKER_LIST].contains(&media_type)
    }

    /// True for a manifest of one image.
    pub fn is_manifest(media_type: &str) -> bool {
        [MANIFEST, DOCKER_MANIFEST].contains(&media_type)
    }

    /// True for a layer that can be unpacked.
    pub fn is_layer(media_type: &str) -> bool {
        const PREFIXES: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
        const ENDS: [&str; 6] = [".tar", ".tar+gzip", ".tar+zstd", ".tar.gzip", ".tar.zstd", ".tar+gzip+zstd:chunked"];
        PREFIXES.iter().any(|prefix| media_type.starts_with(prefix)) && ENDS.iter().any(|end| media_type.ends_with(end))
    }

    /// True for a layer that is not to be pushed or saved, only fetched from its `urls`.
    pub fn is_foreign(media_type: &str) -> bool {
        media_type.contains("nondistributable") || media_type.contains(".foreign.")
    }
}

/// As many layers as an image may have.
const MOST_LAYERS: usize = 500;
/// As many manifests as an index may have. Shared places may hold thousands of images.
const MOST_MANIFESTS: usize = 100_000;

/// What refers to a blob: its type, digest and size.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Descriptor {
    /// What is in the blob: see [`media`].
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where else it can be had (foreign layers).
    pub urls: Vec<String>,
    /// Words about it.
    pub annotations: BTreeMap<String, String>,
    /// What it runs on, in an index.
    pub platform: Option<Platform>,
    /// Fields that zind does not know, kept as they are.
    pub other: Map<String, Value>,
}

impl Descriptor {
    /// A descriptor without extras.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            other: Map::new(),
        }
    }

    pub(crate) fn from_json(what: &str, value: Value) -> Result<Descriptor> {
        let mut fields = Fields::of(what, value)?;
        let digest = fields.text("digest")?.ok_or_else(|| fields.wrong("digest", "is missing"))?;
        Ok(Descriptor {
            media_type: fields.text("mediaType")?.unwrap_or_default(),
            digest: Digest::parse(&digest).map_err(|error| within(what, error))?,
            size: fields.size("size")?,
            urls: fields.texts("urls")?.unwrap_or_default(),
            annotations: fields.pairs("annotations")?,
            platform: fields.take("platform").map(|value| Platform::from_json(what, value)).transpose()?,
            other: fields.rest(),
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut map = self.other.clone();
        map.insert("mediaType".to_owned(), json!(self.media_type));
        map.insert("digest".to_owned(), json!(self.digest.to_string()));
        map.insert("size".to_owned(), json!(self.size));
        if !self.urls.is_empty() {
            map.insert("urls".to_owned(), json!(self.urls));
        }
        if !self.annotations.is_empty() {
            map.insert("annotations".to_owned(), json!(self.annotations));
        }
        if let Some(platform) = &self.platform {
            map.insert("platform".to_owned(), platform.to_json());
        }
        Value::Object(map)
    }
}

/// Names the document around an error.
fn within(what: &str, error: Error) -> Error {
    match error {
        Error::Image { what: inner, rule } => Error::image(format!("{what}, {inner}"), rule),
        error => error,
    }
}

/// One image: its configuration and its layers, bottommost first.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Manifest {
    /// [`media::MANIFEST`] or [`media::DOCKER_MANIFEST`].
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, bottommost first.
    pub layers: Vec<Descriptor>,
    /// Words about it.
    pub annotations: BTreeMap<String, String>,
    /// Fields that zind does not know.
    pub other: Map<String, Value>,
}

impl Manifest {
    /// An OCI manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            media_type: media::MANIFEST.to_owned(),
            config,
            layers,
            annotations: BTreeMap::new(),
            other: Map::new(),
        }
    }

    /// Reads a manifest. `what` names the blob in errors.
    /// Errors: [`Error::Image`] for what is none, has more than 500 layers, is an index at the same time, or has layers of
    /// an unknown type.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Manifest> {
        let mut fields = Fields::new(what, json::object(what, bytes)?);
        match fields.take("schemaVersion") {
            Some(version) if version == 2 => {}
            Some(version) => return Err(fields.wrong("schemaVersion", &format!("is {version}; only 2 is known"))),
            None => return Err(fields.wrong("schemaVersion", "is missing: 2 is the known one")),
        }
        let stated = fields.text("mediaType")?;
        if let Some(stated) = stated.as_deref().filter(|stated| !media::is_manifest(stated)) {
            return Err(fields.wrong("mediaType", &format!("is {stated:?}, which is no manifest")));
        }
        if fields.take("manifests").is_some() {
            return Err(fields.wrong("manifests", "and layers are both there: it could be taken for an index, too"));
        }
        let config = fields.take("config").ok_or_else(|| fields.wrong("config", "is missing"))?;
        let config = Descriptor::from_json(&format!("{what}, config"), config)?;
        let layers = fields.array("layers")?.ok_or_else(|| fields.wrong("layers", "is missing"))?;
        if layers.len() > MOST_LAYERS {
            return Err(fields.wrong("layers", &format!("are {}; at most {MOST_LAYERS} are allowed", layers.len())));
        }
        let layer = |(index, value)| Descriptor::from_json(&format!("{what}, layer {index}"), value);
        let layers = layers.into_iter().enumerate().map(layer).collect::<Result<Vec<_>>>()?;
        let docker = config.media_type == media::DOCKER_CONFIG;
        let usual = if docker { media::DOCKER_MANIFEST } else { media::MANIFEST };
        Ok(Manifest {
            media_type: stated.unwrap_or_else(|| usual.to_owned()),
            config,
            layers,
            annotations: fields.pairs("annotations")?,
            other: fields.rest(),
        })
    }

    /// The document.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut map = self.other.clone();
        map.insert("schemaVersion".to_owned(), json!(2));
        map.insert("mediaType".to_owned(), json!(self.media_type));
        map.insert("config".to_owned(), self.config.to_json());
        map.insert("layers".to_owned(), self.layers.iter().map(Descriptor::to_json).collect());
        if !self.annotations.is_empty() {
            map.insert("annotations".to_owned(), json!(self.annotations));
        }
        Value::Object(map).to_string().into_bytes()
    }

    /// Bytes of all blobs that it refers to.
    pub fn blobs_size(&self) -> u64 {
        self.layers.iter().fold(self.config.size, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// A list of images, for several platforms or of a layout directory.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Index {
    /// [`media::INDEX`] or [`media::DOCKER_LIST`].
    pub media_type: String,
    /// The manifests, or indexes again.
    pub manifests: Vec<Descriptor>,
    /// Words about it.
    pub annotations: BTreeMap<String, String>,
    /// Fields that zind does not know.
    pub other: Map<String, Value>,
}

impl Default for Index {
    fn default() -> Index {
        Index {
            media_type: media::INDEX.to_owned(),
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
            other: Map::new(),
        }
    }
}

impl Index {
    /// Reads an index. `what` names it in errors.
    /// Errors: [`Error::Image`].
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Index> {
        match super::quick::index(bytes, MOST_MANIFESTS) {
            Some(index) => Ok(index),
            None => Index::parse_all(what, bytes),
        }
    }

    /// The same for any index, and with words for what is none.
    fn parse_all(what: &str, bytes: &[u8]) -> Result<Index> {
        let mut fields = Fields::new(what, json::object(what, bytes)?);
        match fields.take("schemaVersion") {
            Some(version) if version == 2 => {}
            _ => return Err(fields.wrong("schemaVersion", "is not 2")),
        }
        let stated = fields.text("mediaType")?;
        if let Some(stated) = stated.as_deref().filter(|stated| !media::is_index(stated)) {
            return Err(fields.wrong("mediaType", &format!("is {stated:?}, which is no index")));
        }
        if fields.take("layers").is_some() || fields.take("config").is_some() {
            return Err(fields.wrong("manifests", "and layers are both there: it could be taken for a manifest, too"));
        }
        let manifests = fields.array("manifests")?.unwrap_or_default();
        if manifests.len() > MOST_MANIFESTS {
            return Err(fields.wrong("manifests", &format!("are more than {MOST_MANIFESTS}")));
        }
        let one = |(index, value)| Descriptor::from_json(&format!("{what}, manifest {index}"), value);
        Ok(Index {
            media_type: stated.unwrap_or_else(|| media::INDEX.to_owned()),
            manifests: manifests.into_iter().enumerate().map(one).collect::<Result<Vec<_>>>()?,
            annotations: fields.pairs("annotations")?,
            other: fields.rest(),
        })
    }

    /// The document.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut map = self.other.clone();
        map.insert("schemaVersion".to_owned(), json!(2));
        map.insert("mediaType".to_owned(), json!(self.media_type));
        map.insert("manifests".to_owned(), self.manifests.iter().map(Descriptor::to_json).collect());
        if !self.annotations.is_empty() {
            map.insert("annotations".to_owned(), json!(self.annotations));
        }
        Value::Object(map).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> String {
        Digest::of(text.as_bytes()).to_string()
    }

    fn manifest() -> Value {
        json!({"schemaVersion": 2, "config": {"mediaType": media::CONFIG, "digest": digest("c"), "size": 1},
            "layers": [{"mediaType": media::LAYER_GZIP, "digest": digest("l"), "size": 2, "new": [1]}], "future": {"a": 1}})
    }

    fn parse(value: &Value) -> Result<Manifest> {
        Manifest::parse("m", value.to_string().as_bytes())
    }

    #[test]
    fn a_manifest_comes_back_with_what_is_not_known() {
        let read = parse(&manifest()).unwrap();
        assert_eq!(read.media_type, media::MANIFEST);
        assert_eq!(read.blobs_size(), 3);
        let again = Manifest::parse("m", &read.to_bytes()).unwrap();
        assert_eq!(again, read);
        assert_eq!(again.other["future"]["a"], 1);
        assert_eq!(again.layers[0].other["new"], json!([1]));
    }

    #[test]
    fn broken_manifests_are_named() {
        let with = |path: &str, value: Value| {
            let mut document = manifest();
            *document.pointer_mut(path).unwrap() = value;
            parse(&document).unwrap_err().to_string()
        };
        assert!(with("/layers/0/size", json!(-1)).starts_with("m, layer 0: size is -1"));
        assert!(with("/layers/0/digest", json!("sha256:../../victim/keep")).contains("digits"));
        assert!(with("/config", json!(null)).contains("config is missing"));
        assert!(with("/schemaVersion", json!(1)).contains("only 2"));
        let mut both = manifest();
        both["manifests"] = json!([]);
        assert!(parse(&both).unwrap_err().to_string().contains("taken for an index"));
        let mut many = manifest();
        many["layers"] = (0..501).map(|_| manifest()["layers"][0].clone()).collect();
        assert!(parse(&many).unwrap_err().to_string().contains("at most 500"));
    }

    #[test]
    fn an_index_comes_back() {
        let text = json!({"schemaVersion": 2, "mediaType": media::DOCKER_LIST, "manifests": [
            {"mediaType": media::DOCKER_MANIFEST, "digest": digest("m"), "size": 5,
             "platform": {"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["x"]},
             "annotations": {"org.opencontainers.image.ref.name": "a"}}]});
        let index = Index::parse("i", text.to_string().as_bytes()).unwrap();
        assert_eq!(index.manifests[0].platform.as_ref().unwrap().variant.as_deref(), Some("v7"));
        assert_eq!(Index::parse("i", &index.to_bytes()).unwrap(), index);
        let both = json!({"schemaVersion": 2, "manifests": [], "layers": []});
        assert!(Index::parse("i", both.to_string().as_bytes()).is_err());
    }

    /// Where the quick reader gives an index, the thorough one gives the same.
    #[test]
    fn both_readers_of_indexes_agree() {
        let one = |more: &str| format!(r#"{{"mediaType":"m","digest":"{}","size":5{more}}}"#, digest("m"));
        let index = |list: &str, more: &str| format!(r#"{{"schemaVersion":2,"manifests":[{list}]{more}}}"#);
        let platform = r#","platform":{"os":"linux","architecture":"arm","variant":""},"annotations":{"a":"\u00e9\n"}"#;
        let usual = [
            index("", ""),
            index(&one(platform), ""),
            index(&[one(""), one(platform)].join(","), &format!(r#","mediaType":"{}""#, media::INDEX)),
            r#"{"schemaVersion":2}"#.to_owned(),
        ];
        for text in usual {
            let quick = crate::image::quick::index(text.as_bytes(), 10).expect(&text);
            assert_eq!(quick, Index::parse_all("i", text.as_bytes()).unwrap(), "{text}");
        }
        let unusual = [
            index(&one(r#","new":[1]"#), ""),
            index(&one(r#","urls":["u"]"#), ""),
            index(&one(r#","annotations":null"#), ""),
            index(&one(r#","size":6"#), ""),
            index(&one(r#","annotations":{"a":"b","a":"b"}"#), ""),
            index(&one(r#","platform":{"os":"linux","os.features":[]}"#), ""),
            index(&one("").replace(":5", ":-5"), ""),
            index(&one("").replace(":5", ":18446744073709551615"), ""),
            index(&one("").replace("sha256:", "sha256:x"), ""),
            index("", r#","layers":[]"#),
            index("", r#","mediaType":"x""#),
            index("", r#","mediaType":null"#),
            index(&vec![one(""); 11].join(","), ""),
            index("", "") + "x",
        ];
        for text in unusual {
            assert!(crate::image::quick::index(text.as_bytes(), 10).is_none(), "{text}");
        }
    }

    #[test]
    fn layers_are_known_by_type() {
        for known in [media::LAYER, media::LAYER_ZSTD, media::DOCKER_LAYER_GZIP, media::DOCKER_FOREIGN_GZIP] {
            assert!(media::is_layer(known), "{known}");
        }
        assert!(media::is_foreign(media::DOCKER_FOREIGN_GZIP) && !media::is_foreign(media::LAYER));
        assert!(!media::is_layer("application/vnd.oci.image.layer.v1.tar+brotli") && !media::is_layer(media::CONFIG));
    }
}
