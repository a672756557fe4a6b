//! Reading JSON by its paths: who finds something wrong can always say where.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The names that errors go by: the longest one that a path begins with.
const FIELDS: [&str; 44] = [
    "annotations",
    "domainname",
    "freebsd",
    "hooks",
    "hostname",
    "linux",
    "linux.cgroupsPath",
    "linux.devices",
    "linux.gidMappings",
    "linux.intelRdt",
    "linux.maskedPaths",
    "linux.memoryPolicy",
    "linux.mountLabel",
    "linux.namespaces",
    "linux.netDevices",
    "linux.personality",
    "linux.readonlyPaths",
    "linux.resources",
    "linux.rootfsPropagation",
    "linux.seccomp",
    "linux.sysctl",
    "linux.timeOffsets",
    "linux.uidMappings",
    "mounts",
    "ociVersion",
    "process",
    "process.apparmorProfile",
    "process.args",
    "process.capabilities",
    "process.consoleSize",
    "process.cwd",
    "process.env",
    "process.execCPUAffinity",
    "process.ioPriority",
    "process.oomScoreAdj",
    "process.rlimits",
    "process.scheduler",
    "process.selinuxLabel",
    "process.user",
    "root",
    "solaris",
    "vm",
    "windows",
    "zos",
];

/// Something wrong at a path of the document.
pub(super) fn wrong(path: &str, rule: impl std::fmt::Display) -> Error {
    let begins =
        |field: &&&str| path.strip_prefix(**field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    match FIELDS.iter().filter(begins).max_by_key(|field| field.len()) {
        Some(field) if field.len() == path.len() => Error::spec(field, rule.to_string()),
        Some(field) => Error::spec(field, format!("{}: {rule}", path[field.len()..].trim_start_matches('.'))),
        None if path.is_empty() => Error::spec("config", rule.to_string()),
        None => Error::spec("config", format!("{path}: {rule}")),
    }
}

/// The bytes of texts that are no UTF-8, by their paths.
#[derive(Debug, Default)]
pub(super) struct Bytes(pub(super) BTreeMap<String, Vec<u8>>);

/// A value, and where it is.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) value: Value,
}

impl Node {
    pub(super) fn wrong(&self, rule: impl std::fmt::Display) -> Error {
        wrong(&self.path, rule)
    }

    /// It should be something else. Large values are not repeated.
    pub(super) fn is_no<T>(&self, wanted: &str) -> Result<T> {
        let shown = match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(is) => is.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => {
                let short: String = text.chars().take(60).collect();
                format!("{short:?}{}", if short.len() < text.len() { "..." } else { "" })
            }
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        Err(self.wrong(format!("{shown} is no {wanted}")))
    }

    pub(super) fn bool(self) -> Result<bool> {
        self.value.as_bool().map_or_else(|| self.is_no("true or false"), Ok)
    }

    pub(super) fn u64(self) -> Result<u64> {
        self.value.as_u64().map_or_else(|| self.is_no("whole number from 0 on"), Ok)
    }

    pub(super) fn i64(self) -> Result<i64> {
        self.value.as_i64().map_or_else(|| self.is_no("whole number"), Ok)
    }

    /// A number that fits.
    pub(super) fn small<T: TryFrom<i64>>(self, wanted: &str) -> Result<T> {
        let fitting = self.value.as_i64().and_then(|number| T::try_from(number).ok());
        fitting.map_or_else(|| self.is_no(wanted), Ok)
    }

    pub(super) fn u32(self) -> Result<u32> {
        self.small("whole number of 32 bits")
    }

    pub(super) fn text(self) -> Result<String> {
        match self.value {
            Value::String(text) => Ok(text),
            _ => self.is_no("text"),
        }
    }

    /// A text whose bytes may be told apart.
    pub(super) fn os(self, bytes: &mut Bytes) -> Result<OsString> {
        let Some(own) = bytes.0.remove(&self.path) else { return self.text().map(OsString::from) };
        match &self.value {
            Value::String(text) if *text == String::from_utf8_lossy(&own) => Ok(OsString::from_vec(own)),
            _ => Err(self.wrong("is not what org.zind.bytes says of it; take that away")),
        }
    }

    pub(super) fn path(self, bytes: &mut Bytes) -> Result<PathBuf> {
        self.os(bytes).map(PathBuf::from)
    }

    pub(super) fn list(self) -> Result<Vec<Node>> {
        let Value::Array(list) = self.value else { return self.is_no("list") };
        let node = |(index, value)| Node { path: format!("{}[{index}]", self.path), value };
        Ok(list.into_iter().enumerate().map(node).collect())
    }

    pub(super) fn fields(self) -> Result<Fields> {
        match self.value {
            Value::Object(map) => Ok(Fields { path: self.path, map }),
            _ => self.is_no("object"),
        }
    }
}

/// The fields of an object, taken one by one.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) path: String,
    map: Map<String, Value>,
}

impl Fields {
    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A field; `null` is as good as missing.
    pub(super) fn take(&mut self, name: &str) -> Option<Node> {
        self.take_any(name).filter(|node| !node.value.is_null())
    }

    /// The same, where `null` is a value.
    pub(super) fn take_any(&mut self, name: &str) -> Option<Node> {
        let value = self.map.remove(name)?;
        Some(Node { path: self.at(name), value })
    }

    pub(super) fn need(&mut self, name: &str) -> Result<Node> {
        self.take(name).ok_or_else(|| wrong(&self.at(name), "is missing"))
    }

    /// An object; nothing of it if it is missing.
    pub(super) fn object(&mut self, name: &str) -> Result<Fields> {
        match self.take(name) {
            Some(node) => node.fields(),
            None => Ok(Fields { path: self.at(name), map: Map::new() }),
        }
    }

    pub(super) fn list(&mut self, name: &str) -> Result<Vec<Node>> {
        self.take(name).map_or(Ok(Vec::new()), Node::list)
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>> {
        self.take(name).map(Node::text).transpose()
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool> {
        self.take(name).map_or(Ok(false), Node::bool)
    }

    /// What cannot be done yet: an error by its name, unless it says nothing.
    pub(super) fn refuse(&mut self, name: &str, why: &str) -> Result<()> {
        match self.take(name) {
            Some(node) if !is_empty(&node.value) => Err(node.wrong(why)),
            _ => Ok(()),
        }
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> impl Iterator<Item = (String, Node)> {
        let path = self.path;
        self.map.into_iter().map(move |(name, value)| {
            let node = Node { path: if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value };
            (name, node)
        })
    }

    /// Of zind's own: nothing may be left.
    pub(super) fn end(self) -> Result<()> {
        match self.rest().next() {
            Some((_, node)) => Err(node.wrong("is unknown to this version")),
            None => Ok(()),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Texts for the document, and the bytes of those that are no UTF-8.
#[derive(Debug, Default)]
pub(super) struct Texts(pub(super) BTreeMap<String, String>);

impl Texts {
    pub(super) fn os(&mut self, path: String, text: &OsStr) -> Value {
        if text.to_str().is_none() {
            self.0.insert(path, STANDARD.encode(text.as_bytes()));
        }
        Value::String(text.to_string_lossy().into_owned())
    }

    pub(super) fn list(&mut self, path: &str, texts: &[OsString]) -> Value {
        let text = |(index, text): (usize, &OsString)| self.os(format!("{path}[{index}]"), text);
        Value::Array(texts.iter().enumerate().map(text).collect())
    }
}

/// Reads the annotation with the bytes.
pub(super) fn bytes(node: Node) -> Result<Bytes> {
    let mut all = Bytes::default();
    for (path, node) in node.fields()?.rest() {
        let error = node.wrong("is no base64 of bytes that are no UTF-8");
        let bytes = STANDARD.decode(node.text()?).ok().filter(|bytes| std::str::from_utf8(bytes).is_err());
        all.0.insert(path, bytes.ok_or(error)?);
    }
    Ok(all)
}
