//! `state.json`: what a container is, and what is known of its last start.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::ids::{check_name, is_id};
use crate::cgroup::{Stored, StoredPart};
use crate::container::{LogOptions, Restart};
use crate::error::Result;
use crate::namespace::idmap::IdMap;
use crate::terminal::Size;

/// The format; a file with a higher number comes from a later zind.
const VERSION: u64 = 1;

/// What is kept of a container.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::container) struct Record {
    pub(in crate::container) id: String,
    pub(in crate::container) name: Option<String>,
    pub(in crate::container) labels: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub(in crate::container) created_ns: u64,
    pub(in crate::container) restart: Restart,
    pub(in crate::container) log: LogOptions,
    pub(in crate::container) terminal: Option<Size>,
    pub(in crate::container) stdin_open: bool,
    pub(in crate::container) auto_remove: bool,
    /// Its streams are those of the program that started it and stays with it.
    pub(in crate::container) attended: bool,
    /// It goes on when who starts it ends.
    pub(in crate::container) detached: bool,
    pub(in crate::container) stop_signal: i32,
    /// The name of the image, as it was given.
    pub(in crate::container) image: Option<String>,
    /// Program and arguments, to be shown.
    pub(in crate::container) command: Vec<String>,
    /// The last start, whatever became of it.
    pub(in crate::container) run: Option<Run>,
}

/// One start.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::container) struct Run {
    /// Counted from 1.
    pub(in crate::container) number: u64,
    pub(in crate::container) boot_id: String,
    pub(in crate::container) began_ns: u64,
    /// The control group.
    pub(in crate::container) group: Option<Stored>,
    /// Its first process is a PID 1 of zind's.
    pub(in crate::container) is_init: bool,
    /// It has a user namespace that is not that of who started it.
    pub(in crate::container) has_users: bool,
    pub(in crate::container) uid_map: Vec<IdMap>,
    pub(in crate::container) gid_map: Vec<IdMap>,
    pub(in crate::container) user: Option<(u32, u32)>,
    /// The directory that has its changes in `upper`.
    pub(in crate::container) overlay: Option<PathBuf>,
    /// What is in force, as [`crate::Isolation::to_json`] has it.
    pub(in crate::container) isolation: Value,
}

impl Record {
    pub(in crate::container) fn encode(&self) -> Vec<u8> {
        let document = json!({
            "zind-container": VERSION,
            "id": self.id,
            "name": self.name,
            "labels": self.labels,
            "created_ns": self.created_ns,
            "restart": self.restart.to_json(),
            "log": {"size": self.log.size, "files": self.log.files},
            "terminal": self.terminal.map(|size| json!([size.rows, size.cols])),
            "stdin_open": self.stdin_open,
            "auto_remove": self.auto_remove,
            "attended": self.attended,
            "detached": self.detached,
            "stop_signal": self.stop_signal,
            "image": self.image,
            "command": self.command,
            "run": self.run.as_ref().map(Run::to_json),
        });
        let mut bytes = document.to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }

    pub(in crate::container) fn parse(bytes: &[u8]) -> Result<Record, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("is damaged: {error}"))?;
        let fields = value.as_object().ok_or("is damaged")?;
        match fields.get("zind-container").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(format!(
                    "has format {other}; this version of zind knows {VERSION}: use the one that made it"
                ));
            }
            None => return Err("is damaged: it has no format".to_owned()),
        }
        read(fields).ok_or_else(|| "is damaged: a field is missing or of the wrong kind".to_owned())
    }
}

fn maps_value(maps: &[IdMap]) -> Value {
    maps.iter().map(|map| json!([map.container, map.host, map.size])).collect()
}

impl Run {
    fn to_json(&self) -> Value {
        let group = |group: &Stored| {
            let part = |part: &StoredPart| json!({"path": path_value(&part.path), "v2": part.is_v2, "controllers": part.controllers});
            json!({
                "parts": group.parts.iter().map(part).collect::<Vec<_>>(),
                "made": group.made.iter().map(|path| path_value(path)).collect::<Vec<_>>(),
                "helpers": group.helpers,
            })
        };
        json!({
            "number": self.number,
            "boot_id": self.boot_id,
            "began_ns": self.began_ns,
            "group": self.group.as_ref().map(group),
            "init": self.is_init,
            "has_users": self.has_users,
            "uid_map": maps_value(&self.uid_map),
            "gid_map": maps_value(&self.gid_map),
            "user": self.user.map(|(uid, gid)| json!([uid, gid])),
            "overlay": self.overlay.as_deref().map(path_value),
            "isolation": self.isolation,
        })
    }
}

/// Text where it is text, else its bytes.
pub(in crate::container) fn path_value(path: &Path) -> Value {
    use std::os::unix::ffi::OsStrExt;
    path.to_str().map_or_else(|| json!(path.as_os_str().as_bytes()), |text| json!(text))
}

fn path_of(value: &Value) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let Some(bytes) = value.as_array() else { return value.as_str().map(PathBuf::from) };
    let byte = |value: &Value| value.as_u64().and_then(|number| u8::try_from(number).ok());
    let bytes: Option<Vec<u8>> = bytes.iter().map(byte).collect();
    Some(std::ffi::OsString::from_vec(bytes?).into())
}

/// `null` or missing is `None`; anything else has to be read.
fn optional<T>(fields: &Map<String, Value>, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
    match fields.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => read(value).map(Some),
    }
}

fn numbers<const N: usize>(value: &Value) -> Option<[u32; N]> {
    let list: Option<Vec<u32>> =
        value.as_array()?.iter().map(|value| value.as_u64().and_then(|number| u32::try_from(number).ok())).collect();
    <[u32; N]>::try_from(list?).ok()
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

fn read(fields: &Map<String, Value>) -> Option<Record> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let flag = |name: &str| fields.get(name)?.as_bool();
    let labels = fields.get("labels")?.as_object()?;
    let label = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    let log = fields.get("log")?.as_object()?;
    let size = |value: &Value| {
        let [rows, cols] = numbers::<2>(value)?;
        Some(Size { rows: u16::try_from(rows).ok()?, cols: u16::try_from(cols).ok()? })
    };
    Some(Record {
        id: text(fields.get("id")?).filter(|id| is_id(id))?,
        name: optional(fields, "name", |value| text(value).filter(|name| check_name(name).is_ok()))?,
        labels: labels.iter().map(label).collect::<Option<_>>()?,
        created_ns: fields.get("created_ns")?.as_u64()?,
        restart: Restart::of_json(fields.get("restart")?)?,
        log: LogOptions { size: log.get("size")?.as_u64()?, files: u32::try_from(log.get("files")?.as_u64()?).ok()? },
        terminal: optional(fields, "terminal", size)?,
        stdin_open: flag("stdin_open")?,
        auto_remove: flag("auto_remove")?,
        attended: optional(fields, "attended", Value::as_bool)?.unwrap_or(false),
        detached: flag("detached")?,
        stop_signal: fields.get("stop_signal")?.as_i64().and_then(|signal| i32::try_from(signal).ok())?,
        image: optional(fields, "image", text)?,
        command: strings(fields.get("command")?)?,
        run: optional(fields, "run", |value| read_run(value.as_object()?))?,
    })
}

fn read_run(fields: &Map<String, Value>) -> Option<Run> {
    let map = |value: &Value| {
        let [container, host, size] = numbers::<3>(value)?;
        IdMap { container, host, size }.if_sound()
    };
    let maps = |name: &str| -> Option<Vec<IdMap>> { fields.get(name)?.as_array()?.iter().map(map).collect() };
    let part = |value: &Value| {
        Some(StoredPart {
            path: path_of(value.get("path")?).filter(|path| path.is_absolute())?,
            is_v2: value.get("v2")?.as_bool()?,
            controllers: strings(value.get("controllers")?)?,
        })
    };
    let group = |value: &Value| {
        Some(Stored {
            parts: value.get("parts")?.as_array()?.iter().map(part).collect::<Option<_>>()?,
            made: value.get("made")?.as_array()?.iter().map(path_of).collect::<Option<_>>()?,
            helpers: value.get("helpers")?.as_u64()?,
        })
    };
    Some(Run {
        number: fields.get("number")?.as_u64()?,
        boot_id: fields.get("boot_id")?.as_str()?.to_owned(),
        began_ns: fields.get("began_ns")?.as_u64()?,
        group: optional(fields, "group", group)?,
        is_init: fields.get("init")?.as_bool()?,
        has_users: fields.get("has_users")?.as_bool()?,
        uid_map: maps("uid_map")?,
        gid_map: maps("gid_map")?,
        user: optional(fields, "user", |value| numbers::<2>(value).map(|[uid, gid]| (uid, gid)))?,
        overlay: optional(fields, "overlay", path_of)?,
        isolation: fields.get("isolation")?.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Record {
        Record {
            id: "0123456789abcdef".repeat(4),
            name: Some("web-1.a_b".into()),
            labels: BTreeMap::from([("a".into(), "b \"c\"\u{e9}".into())]),
            created_ns: 1_700_000_000_123_456_789,
            restart: Restart::OnFailure { most: Some(3) },
            log: LogOptions { size: 1 << 20, files: 5 },
            terminal: Some(Size { rows: 24, cols: 80 }),
            stdin_open: true,
            auto_remove: false,
            attended: true,
            detached: true,
            stop_signal: 15,
            image: Some("debian:12".into()),
            command: vec!["sh".into()],
            run: Some(Run {
                number: 3,
                boot_id: "b".into(),
                began_ns: 5,
                group: Some(Stored {
                    parts: vec![StoredPart {
                        path: "/sys/fs/cgroup/zind-1".into(),
                        is_v2: true,
                        controllers: vec!["memory".into()],
                    }],
                    made: vec!["/sys/fs/cgroup/x".into()],
                    helpers: 1,
                }),
                is_init: true,
                has_users: true,
                uid_map: vec![IdMap { container: 0, host: 1000, size: 1 }],
                gid_map: vec![],
                user: Some((0, 0)),
                overlay: Some("/c".into()),
                isolation: json!({"seccomp": "default"}),
            }),
        }
    }

    #[test]
    fn a_record_survives_its_file() {
        let bare = Record { name: None, terminal: None, run: None, restart: Restart::No, ..example() };
        for record in [example(), bare, Record { restart: Restart::UnlessStopped, ..example() }] {
            assert_eq!(Record::parse(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn no_beginning_and_no_changed_byte_of_a_file_makes_it_panic() {
        let bytes = example().encode();
        for end in 0..bytes.len() - 1 {
            assert!(Record::parse(&bytes[..end]).is_err(), "{end}");
        }
        for at in 0..bytes.len() {
            for byte in [0, b'0', b'"', b'[', 0xff] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                let _ = Record::parse(&changed);
            }
        }
    }

    #[test]
    fn later_formats_and_garbage_are_refused_by_name() {
        for (text, words) in
            [("", "damaged"), ("[]", "damaged"), ("{}", "no format"), ("{\"zind-container\":2}", "format 2")]
        {
            assert!(Record::parse(text.as_bytes()).unwrap_err().contains(words), "{text}");
        }
    }
}
