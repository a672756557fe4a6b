//! The results of steps, by their keys.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::error::{At, Result, Step};
use crate::image::{Algorithm, Descriptor, Digest, Hasher};
use crate::store::Store;

/// What the keys mean; another number forgets all results.
const VERSION: &str = "zind-build-1";

/// A digest of everything up to a step.
#[derive(Clone, Debug)]
pub(super) struct Key(Hasher);

impl Key {
    pub(super) fn new() -> Key {
        let mut key = Key(Hasher::new(Algorithm::Sha256));
        key.add(VERSION, &[]);
        key
    }

    /// Each text with its length, so that no two lists look the same.
    pub(super) fn add(&mut self, what: &str, texts: &[String]) {
        self.0.update(format!("{} {what} {}\n", what.len(), texts.len()).as_bytes());
        for text in texts {
            self.0.update(format!("{} ", text.len()).as_bytes());
            self.0.update(text.as_bytes());
        }
    }

    fn name(&self) -> String {
        self.0.clone().finish().hex()
    }
}

/// What a step made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// Its layer and the DiffID; `None` if it changed nothing.
    pub(super) layer: Option<(Descriptor, Digest)>,
    pub(super) created: String,
}

impl Record {
    fn encode(&self) -> String {
        let layer = self.layer.as_ref().map(|(layer, diff_id)| {
            json!({
                "media_type": layer.media_type,
                "digest": layer.digest.to_string(),
                "size": layer.size,
                "diff_id": diff_id.to_string(),
            })
        });
        json!({"created": self.created, "layer": layer}).to_string()
    }

    fn parse(bytes: &[u8]) -> Option<Record> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let digest = |layer: &Value, name: &str| Digest::parse(layer.get(name)?.as_str()?).ok();
        let layer = match value.get("layer")? {
            Value::Null => None,
            layer => {
                let media_type = layer.get("media_type")?.as_str()?;
                let blob = Descriptor::new(media_type, digest(layer, "digest")?, layer.get("size")?.as_u64()?);
                Some((blob, digest(layer, "diff_id")?))
            }
        };
        Some(Record { layer, created: value.get("created")?.as_str()?.to_owned() })
    }
}

pub(super) struct Cache {
    place: PathBuf,
}

/// Larger files are no records.
const LARGEST: u64 = 1 << 16;

impl Cache {
    pub(super) fn open(store: &Store) -> Result<Cache> {
        let place = store.place().join("build");
        std::fs::create_dir_all(&place).at(Step::Build, "mkdir", &place)?;
        Ok(Cache { place })
    }

    /// The result of a step, if its layer is still there.
    pub(super) fn find(&self, store: &Store, key: &Key) -> Option<Record> {
        let path = self.place.join(key.name());
        let meta = std::fs::symlink_metadata(&path).ok()?;
        if !meta.is_file() || meta.len() > LARGEST {
            return None;
        }
        let record = Record::parse(&std::fs::read(&path).ok()?)?;
        let is_there = record.layer.as_ref().is_none_or(|(layer, _)| store.has_whole(layer));
        if !is_there {
            let _ = std::fs::remove_file(&path);
        }
        Some(record).filter(|_| is_there)
    }

    /// Keeps a result. A torn one is no result.
    pub(super) fn keep(&self, key: &Key, record: &Record) -> Result<()> {
        let path = self.place.join(key.name());
        let aside = self.place.join(format!("{}.{}", key.name(), crate::copy::unused_name()));
        std::fs::write(&aside, record.encode()).at(Step::Build, "write", &aside)?;
        std::fs::rename(&aside, &path).at(Step::Build, "rename", &path).inspect_err(|_| {
            let _ = std::fs::remove_file(&aside);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file_and_no_part_of_it_does() {
        let layer = (Descriptor::new("application/x", Digest::of(b"a"), 5), Digest::of(b"b"));
        for record in [
            Record { layer: Some(layer), created: "2026-01-01T00:00:00Z".to_owned() },
            Record { layer: None, created: String::new() },
        ] {
            let text = record.encode();
            assert_eq!(Record::parse(text.as_bytes()), Some(record));
            assert!((0..text.len()).all(|end| Record::parse(&text.as_bytes()[..end]).is_none()));
        }
    }

    #[test]
    fn keys_tell_lists_apart() {
        let key = |parts: &[&str]| {
            let mut key = Key::new();
            key.add("x", &parts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
            key.name()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&[]), key(&[""]));
        assert_eq!(key(&["a"]), key(&["a"]));
    }
}
