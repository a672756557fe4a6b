//! The file that says what the layers of a directory are. It changes as a whole or not at all.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::image::{Descriptor, Digest};
use crate::namespace::idmap::IdMap;
use crate::process::identity::Caller;
use crate::store::leases::BaseImage;

/// The format; a file with a higher number comes from a later zind.
const VERSION: u64 = 1;

/// The layer below the lowest of our own.
pub(super) const NONE: u32 = 0;

/// A name for a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) name: String,
    pub(super) layer: u32,
    /// Nanoseconds since 1970.
    pub(super) time_ns: u64,
}

/// Another directory whose layers lie on ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CloneOf {
    pub(super) dir: PathBuf,
    /// The topmost that it lies on; [`NONE`] if it lies only on what ours lie on.
    pub(super) layer: u32,
}

/// How deletions are marked: `trusted.overlay.*`, or `user.overlay.*` in a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    Trusted,
    User,
}

impl Marks {
    /// Those of a container of the caller's, with a user namespace of its own or without.
    pub(crate) fn of(has_users: bool, caller: Caller) -> Marks {
        let is_user = has_users || !caller.initial_user_namespace || !rustix::process::geteuid().is_root();
        if is_user { Marks::User } else { Marks::Trusted }
    }

    /// Those of the containers that the caller makes by default.
    pub(crate) fn of_caller() -> Marks {
        if rustix::process::geteuid().is_root() { Marks::Trusted } else { Marks::User }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    /// What lies below everything, topmost first.
    pub(super) base: Vec<PathBuf>,
    /// Layers of the directory this one was cloned from, topmost first.
    pub(super) shared: Vec<PathBuf>,
    /// The directory this one was cloned from.
    pub(super) source: Option<PathBuf>,
    /// The layer that is written to.
    pub(super) top: u32,
    /// Each layer and the one below it.
    pub(super) parents: BTreeMap<u32, u32>,
    pub(super) snapshots: Vec<Saved>,
    pub(super) clones: Vec<CloneOf>,
    /// Settled by the first container.
    pub(super) marks: Option<Marks>,
    pub(super) uid_map: Vec<IdMap>,
    pub(super) gid_map: Vec<IdMap>,
    pub(super) volatile: bool,
    /// The image that the base is of.
    pub(super) image: Option<BaseImage>,
}

impl State {
    /// One empty layer over `base`.
    pub(super) fn new(base: Vec<PathBuf>) -> State {
        State {
            base,
            shared: Vec::new(),
            source: None,
            top: 1,
            parents: BTreeMap::from([(1, NONE)]),
            snapshots: Vec::new(),
            clones: Vec::new(),
            marks: None,
            uid_map: Vec::new(),
            gid_map: Vec::new(),
            volatile: false,
            image: None,
        }
    }

    /// A layer and those below it, topmost first.
    pub(super) fn chain(&self, layer: u32) -> Vec<u32> {
        let below = |layer: &u32| self.parents.get(layer).copied().filter(|&parent| parent != NONE);
        std::iter::successors(Some(layer).filter(|&layer| layer != NONE), below).take(self.parents.len()).collect()
    }

    /// Every layer that something stands on.
    pub(super) fn needed(&self) -> BTreeSet<u32> {
        let clones = self.clones.iter().map(|clone| clone.layer);
        let ends = self.snapshots.iter().map(|saved| saved.layer).chain(clones).chain([self.top]);
        ends.flat_map(|end| self.chain(end)).collect()
    }

    /// Forgets the layers nothing stands on.
    pub(super) fn forget_the_unneeded(&mut self) {
        let needed = self.needed();
        self.parents.retain(|layer, _| needed.contains(layer));
    }

    pub(super) fn find(&self, name: &str) -> Option<&Saved> {
        self.snapshots.iter().find(|saved| saved.name == name)
    }

    /// How many directories one mount has to stack.
    pub(super) fn depth(&self, layer: u32) -> usize {
        self.chain(layer).len() + self.shared.len() + self.base.len()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let paths = |paths: &[PathBuf]| paths.iter().map(|path| path_value(path)).collect::<Vec<_>>();
        let maps =
            |maps: &[IdMap]| maps.iter().map(|map| json!([map.container, map.host, map.size])).collect::<Vec<_>>();
        let document = json!({
            "zind-layers": VERSION,
            "base": paths(&self.base),
            "shared": paths(&self.shared),
            "source": self.source.as_deref().map(path_value),
            "top": self.top,
            "parents": self.parents.iter().map(|(layer, parent)| json!([layer, parent])).collect::<Vec<_>>(),
            "snapshots": self.snapshots.iter().map(|saved| json!({"name": saved.name, "layer": saved.layer, "time_ns": saved.time_ns})).collect::<Vec<_>>(),
            "clones": self.clones.iter().map(|clone| json!({"dir": path_value(&clone.dir), "layer": clone.layer})).collect::<Vec<_>>(),
            "user_xattr": self.marks.map(|marks| marks == Marks::User),
            "uid_map": maps(&self.uid_map),
            "gid_map": maps(&self.gid_map),
            "volatile": self.volatile,
            "image": self.image.as_ref().map(image_value),
        });
        let mut bytes = document.to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }

    /// The state that a file holds, or what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<State, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("is no state of layers: {error}"))?;
        let fields = value.as_object().ok_or("is no state of layers")?;
        match fields.get("zind-layers").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => return Err(format!("has format {other}; this version of zind knows {VERSION}")),
            None => return Err("is no state of layers".to_owned()),
        }
        let state = read(fields).ok_or("is damaged: a field is missing or of the wrong kind")?;
        state.check()?;
        Ok(state)
    }

    fn check(&self) -> Result<(), String> {
        let known = |layer: u32| layer != NONE && self.parents.contains_key(&layer);
        if self.base.is_empty() || self.base.iter().chain(&self.shared).any(|path| !path.is_absolute()) {
            return Err("is damaged: a directory below the layers is missing or relative".to_owned());
        }
        let clones = self.clones.iter().map(|clone| clone.layer).filter(|&layer| layer != NONE);
        let ends = self.snapshots.iter().map(|saved| saved.layer).chain(clones);
        if !ends.chain([self.top]).all(known) || self.parents.contains_key(&NONE) {
            return Err("is damaged: a layer is missing".to_owned());
        }
        for &layer in self.parents.keys() {
            let chain = self.chain(layer);
            let lowest = chain.last().and_then(|lowest| self.parents.get(lowest));
            if lowest != Some(&NONE) {
                return Err(format!("is damaged: layer {layer} does not reach the ground"));
            }
        }
        let names: BTreeSet<&str> = self.snapshots.iter().map(|saved| saved.name.as_str()).collect();
        if names.len() != self.snapshots.len() {
            return Err("is damaged: two snapshots have the same name".to_owned());
        }
        Ok(())
    }
}

fn image_value(image: &BaseImage) -> Value {
    json!({
        "store": path_value(&image.store),
        "manifest": image.manifest.digest.to_string(),
        "media_type": image.manifest.media_type,
        "size": image.manifest.size,
        "owners_in_xattr": image.owners_in_xattr,
    })
}

fn image_of(value: &Value) -> Option<BaseImage> {
    let digest = Digest::parse(value.get("manifest")?.as_str()?).ok()?;
    let media_type = value.get("media_type")?.as_str()?;
    Some(BaseImage {
        store: path_of(value.get("store")?)?,
        manifest: Descriptor::new(media_type, digest, value.get("size")?.as_u64()?),
        owners_in_xattr: value.get("owners_in_xattr")?.as_bool()?,
    })
}

/// Text where it is text, else its bytes.
fn path_value(path: &Path) -> Value {
    path.to_str().map_or_else(|| json!(path.as_os_str().as_bytes()), |text| json!(text))
}

fn path_of(value: &Value) -> Option<PathBuf> {
    let Some(bytes) = value.as_array() else { return value.as_str().map(PathBuf::from) };
    let byte = |value: &Value| value.as_u64().and_then(|number| u8::try_from(number).ok());
    let bytes: Option<Vec<u8>> = bytes.iter().map(byte).collect();
    Some(OsString::from_vec(bytes?).into())
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

fn list<T>(fields: &Map<String, Value>, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    fields.get(name)?.as_array()?.iter().map(read).collect()
}

fn read(fields: &Map<String, Value>) -> Option<State> {
    let numbers = |value: &Value| -> Option<Vec<u32>> { value.as_array()?.iter().map(number).collect() };
    let pair = |value: &Value| numbers(value).and_then(|list| <[u32; 2]>::try_from(list).ok()).map(|[a, b]| (a, b));
    let map = |value: &Value| {
        let [container, host, size] = <[u32; 3]>::try_from(numbers(value)?).ok()?;
        IdMap { container, host, size }.if_sound()
    };
    let saved = |value: &Value| {
        let name = value.get("name")?.as_str()?.to_owned();
        Some(Saved { name, layer: number(value.get("layer")?)?, time_ns: value.get("time_ns")?.as_u64()? })
    };
    let clone = |value: &Value| Some(CloneOf { dir: path_of(value.get("dir")?)?, layer: number(value.get("layer")?)? });
    let parents = list(fields, "parents", pair)?;
    let count = parents.len();
    let parents: BTreeMap<u32, u32> = parents.into_iter().collect();
    (parents.len() == count).then_some(())?;
    Some(State {
        base: list(fields, "base", path_of)?,
        shared: list(fields, "shared", path_of)?,
        source: match fields.get("source")? {
            Value::Null => None,
            path => Some(path_of(path)?),
        },
        top: number(fields.get("top")?)?,
        parents,
        snapshots: list(fields, "snapshots", saved)?,
        clones: list(fields, "clones", clone)?,
        marks: match fields.get("user_xattr")? {
            Value::Null => None,
            Value::Bool(true) => Some(Marks::User),
            Value::Bool(false) => Some(Marks::Trusted),
            _ => return None,
        },
        uid_map: list(fields, "uid_map", map)?,
        gid_map: list(fields, "gid_map", map)?,
        volatile: fields.get("volatile")?.as_bool()?,
        image: match fields.get("image") {
            None | Some(Value::Null) => None,
            Some(value) => Some(image_of(value)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> State {
        let odd = PathBuf::from(OsString::from_vec(b"/a:b,c\\d\n\xff".to_vec()));
        let mut state = State::new(vec!["/base".into(), odd]);
        state.parents.extend([(2, 1), (3, 2), (4, 1)]);
        state.top = 4;
        state.snapshots.push(Saved { name: "a \"b\"\u{e9}".into(), layer: 2, time_ns: 1_700_000_000_123_456_789 });
        state.clones.push(CloneOf { dir: "/clone".into(), layer: 3 });
        state.marks = Some(Marks::User);
        state.uid_map.push(IdMap { container: 0, host: 1000, size: 1 });
        state.image = Some(BaseImage {
            store: "/store".into(),
            manifest: Descriptor::new("application/x", Digest::of(b"x"), 7),
            owners_in_xattr: true,
        });
        state
    }

    #[test]
    fn a_state_survives_its_file() {
        for state in [example(), State::new(vec!["/".into()])] {
            assert_eq!(State::parse(&state.encode()), Ok(state));
        }
    }

    #[test]
    fn no_beginning_of_a_file_is_a_state() {
        let bytes = example().encode();
        for end in 0..bytes.len() - 1 {
            assert!(State::parse(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn no_changed_byte_makes_it_panic() {
        let bytes = example().encode();
        for at in 0..bytes.len() {
            for byte in [0, b'0', b'"', b'[', 0xff] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                let _ = State::parse(&changed).map(|state| (state.chain(state.top), state.needed()));
            }
        }
    }

    #[test]
    fn garbage_and_later_versions_are_refused() {
        for (text, words) in [
            ("", "no state"),
            ("[]", "no state"),
            ("{}", "no state"),
            ("\u{1f}\u{8b}", "no state"),
            ("{\"zind-layers\": 2}", "format 2"),
            ("{\"zind-layers\": 1}", "damaged"),
            ("{\"zind-layers\": -1}", "no state"),
        ] {
            let error = State::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn layers_that_go_round_or_nowhere_are_damage() {
        let broken: [fn(&mut State); 8] = [
            |state| state.uid_map.push(IdMap { container: 1, host: 5, size: u32::MAX }),
            |state| state.parents.extend([(1, 4)]),
            |state| state.parents.extend([(2, 9)]),
            |state| state.parents.extend([(NONE, 1)]),
            |state| state.top = 9,
            |state| state.snapshots[0].layer = NONE,
            |state| state.base.clear(),
            |state| state.snapshots.push(state.snapshots[0].clone()),
        ];
        for change in broken {
            let mut state = example();
            change(&mut state);
            assert!(State::parse(&state.encode()).unwrap_err().contains("damaged"), "{state:?}");
        }
    }

    #[test]
    fn what_nothing_stands_on_is_forgotten() {
        let mut state = example();
        assert_eq!(state.needed(), BTreeSet::from([1, 2, 3, 4]));
        state.clones.clear();
        state.forget_the_unneeded();
        assert_eq!(state.parents.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(state.chain(4), [4, 1]);
    }
}
