//! The results of steps, by their keys.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::error::{At, Result, Step};
use crate::image::{Algorithm, Descriptor, Digest, Hasher};
use crate::store::Store;

/// What the keys mean; another number forgets all results.
const VERSION: &str = "zind-build-2";

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

/// What is read is written as it was.
#[cfg(any(test, fuzzing))]
pub(crate) fn record_again(bytes: &[u8]) {
    if let Some(record) = Record::parse(bytes) {
        assert_eq!(Record::parse(record.encode().as_bytes()), Some(record));
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
        let (record, file) = read(&path)?;
        if !is_there(store, &record) {
            let _ = std::fs::remove_file(&path);
            return None;
        }
        // It was used: collect() looks at the time. Whoever may not set it finds the result all the same.
        let _ = file.set_modified(SystemTime::now());
        Some(record)
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

/// A record, and its file.
fn read(path: &Path) -> Option<(Record, File)> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.len() > LARGEST {
        return None;
    }
    let mut bytes = Vec::new();
    (&mut file).take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some((Record::parse(&bytes)?, file))
}

fn is_there(store: &Store, record: &Record) -> bool {
    record.layer.as_ref().is_none_or(|(layer, _)| store.has_whole(layer))
}

/// A result that no build has used for so long is not kept.
const LONGEST_UNUSED: Duration = Duration::from_secs(90 * 24 * 3600);

/// Removes records whose layer is gone, that no build has used for 90 days, or that are none; how many. Safe beside builds:
/// a result that is not found is made again.
/// Errors: [`crate::Error::Sys`] at [`Step::Build`] with what cannot be listed or removed.
pub(crate) fn collect(store: &Store) -> Result<u64> {
    let place = store.place().join("build");
    let entries = match std::fs::read_dir(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        other => other.at(Step::Build, "open", &place)?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.at(Step::Build, "getdents64", &place)?;
        let path = entry.path();
        // Workspaces are directories, and swept by builds.
        let Some(meta) = entry.metadata().ok().filter(|meta| !meta.is_dir()) else { continue };
        let age = meta.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
        let is_used = read(&path).is_some_and(|(record, _)| is_there(store, &record));
        // What is no record may be one that is being written.
        if age < LONGEST_UNUSED && (is_used || (age < A_WHILE && read(&path).is_none())) {
            continue;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.at(Step::Build, "unlink", &path).map(|()| removed += 1)?,
        }
    }
    Ok(removed)
}

/// Writing a record takes no longer.
const A_WHILE: Duration = Duration::from_secs(3600);

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
    fn records_go_with_their_layers_and_when_nobody_uses_them() {
        let place = std::env::temp_dir().join(format!("zind-test-records-{}", std::process::id()));
        let store = Store::open(Some(place.clone())).unwrap();
        let cache = Cache::open(&store).unwrap();
        let key = |name: &str| {
            let mut key = Key::new();
            key.add(name, &[]);
            key
        };
        let gone = (Descriptor::new("application/x", Digest::of(b"gone"), 5), Digest::of(b"b"));
        let record = |layer| Record { layer, created: String::new() };
        for (name, layer) in [("used", None), ("old", None), ("found", None), ("gone", Some(gone))] {
            cache.keep(&key(name), &record(layer)).unwrap();
        }
        for name in ["old", "found"] {
            let file = File::open(cache.place.join(key(name).name())).unwrap();
            file.set_modified(SystemTime::now() - LONGEST_UNUSED - A_WHILE).unwrap();
        }
        std::fs::create_dir(cache.place.join("work-x")).unwrap();
        std::fs::write(cache.place.join("being-written"), "{").unwrap();
        assert!(cache.find(&store, &key("found")).is_some());
        assert_eq!(collect(&store).unwrap(), 2);
        let is_left = |name: &str| cache.place.join(key(name).name()).exists();
        assert_eq!(["used", "found", "old", "gone"].map(is_left), [true, true, false, false]);
        assert_eq!(std::fs::read_dir(&cache.place).unwrap().count(), 4);
        std::fs::remove_dir_all(place).unwrap();
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
