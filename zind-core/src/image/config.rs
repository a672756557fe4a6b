//! [`ImageConfig`]: how the program of an image is run, and what its layers are.
//!
//! Source: <https://github.com/opencontainers/image-spec/blob/main/config.md>
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::digest::{Algorithm, Digest, Hasher};
use super::json::{self, Fields};
use super::platform::Platform;
use crate::error::Result;

/// The configuration of an image. Fields that zind does not know are kept when it is written again.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ImageConfig {
    /// `"amd64"`; empty: this machine's, when an image is made.
    pub architecture: String,
    /// `"linux"`; empty: that.
    pub os: String,
    /// `"v7"`.
    pub variant: Option<String>,
    /// When it was made, as RFC 3339: `"2026-11-25T12:00:00Z"`.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// How a container of it runs.
    pub config: RunConfig,
    /// The digests of the unpacked layers (as tar, not compressed), bottommost first.
    pub diff_ids: Vec<Digest>,
    /// How it came to be, oldest first.
    pub history: Vec<History>,
    /// Fields that zind does not know.
    pub other: Map<String, Value>,
}

/// How a container of an image runs, unless the caller says otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RunConfig {
    /// `"user"`, `"uid"`, `"user:group"`…; empty: root.
    pub user: String,
    /// `"NAME=value"`.
    pub env: Vec<String>,
    /// What comes before the arguments.
    pub entrypoint: Option<Vec<String>>,
    /// The arguments, if the caller gives none.
    pub cmd: Option<Vec<String>>,
    /// The directory it runs in; empty: `/`.
    pub working_dir: String,
    /// Directories that are meant to be volumes.
    pub volumes: Vec<String>,
    /// `"80/tcp"`.
    pub exposed_ports: Vec<String>,
    /// Words about it.
    pub labels: BTreeMap<String, String>,
    /// How it is stopped: `"SIGTERM"`, `"15"`.
    pub stop_signal: Option<String>,
    /// Docker's check of health, as it is written.
    pub healthcheck: Option<Value>,
    /// Fields that zind does not know.
    pub other: Map<String, Value>,
}

/// One step on the way to an image.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// When, as RFC 3339.
    pub created: Option<String>,
    /// By which command.
    pub created_by: Option<String>,
    /// By whom.
    pub author: Option<String>,
    /// Why.
    pub comment: Option<String>,
    /// It made no layer.
    pub empty_layer: bool,
    /// Fields that zind does not know.
    pub other: Map<String, Value>,
}

impl ImageConfig {
    /// An empty one.
    pub fn new() -> ImageConfig {
        ImageConfig::default()
    }

    /// Reads a configuration. `what` names the blob in errors.
    /// Errors: [`crate::Error::Image`].
    pub fn parse(what: &str, bytes: &[u8]) -> Result<ImageConfig> {
        let mut fields = Fields::new(what, json::object(what, bytes)?);
        let root = fields.take("rootfs").ok_or_else(|| fields.wrong("rootfs", "is missing"))?;
        let mut root = Fields::of(what, root)?;
        if root.text("type")?.is_some_and(|kind| kind != "layers") {
            return Err(root.wrong("rootfs.type", "is not layers"));
        }
        let diff_ids = root.texts("diff_ids")?.unwrap_or_default();
        let diff_ids = diff_ids.iter().map(|text| Digest::parse(text)).collect::<Result<Vec<_>>>();
        let history = fields.array("history")?.unwrap_or_default();
        let config = match fields.take("config") {
            Some(value) => RunConfig::from_json(&format!("{what}, config"), value)?,
            None => RunConfig::default(),
        };
        Ok(ImageConfig {
            architecture: fields.text("architecture")?.unwrap_or_default(),
            os: fields.text("os")?.unwrap_or_default(),
            variant: fields.text("variant")?.filter(|variant| !variant.is_empty()),
            created: fields.text("created")?,
            author: fields.text("author")?,
            config,
            diff_ids: diff_ids.map_err(|error| fields.wrong("rootfs.diff_ids", &error.to_string()))?,
            history: history.into_iter().map(|value| History::from_json(what, value)).collect::<Result<_>>()?,
            other: fields.rest(),
        })
    }

    /// The document.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut map = self.other.clone();
        let host = Platform::host();
        let or = |text: &str, usual: &str| if text.is_empty() { usual.to_owned() } else { text.to_owned() };
        map.insert("architecture".to_owned(), json!(or(&self.architecture, &host.architecture)));
        map.insert("os".to_owned(), json!(or(&self.os, "linux")));
        insert_text(&mut map, "variant", self.variant.as_deref());
        insert_text(&mut map, "created", self.created.as_deref());
        insert_text(&mut map, "author", self.author.as_deref());
        map.insert("config".to_owned(), self.config.to_json());
        let diff_ids: Vec<String> = self.diff_ids.iter().map(Digest::to_string).collect();
        map.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": diff_ids}));
        if !self.history.is_empty() {
            map.insert("history".to_owned(), self.history.iter().map(History::to_json).collect());
        }
        Value::Object(map).to_string().into_bytes()
    }

    /// What it runs on.
    pub fn platform(&self) -> Platform {
        Platform::new(self.os.clone(), self.architecture.clone(), self.variant.clone())
    }

    /// The names of the unpacked states, one per layer: see [`chain_ids`].
    pub fn chain_ids(&self) -> Vec<Digest> {
        chain_ids(&self.diff_ids)
    }
}

/// The ChainID of each layer: its name together with all layers below it.
/// Source: <https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid>
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(chain_id(chain.last(), diff_id));
    }
    chain
}

/// The ChainID of a layer over a parent.
pub fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    let Some(parent) = parent else { return *diff_id };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(format!("{parent} {diff_id}").as_bytes());
    hasher.finish()
}

impl RunConfig {
    fn from_json(what: &str, value: Value) -> Result<RunConfig> {
        let mut fields = Fields::of(what, value)?;
        let names =
            |map: Option<Map<String, Value>>| map.unwrap_or_default().into_iter().map(|(name, _)| name).collect();
        Ok(RunConfig {
            user: fields.text("User")?.unwrap_or_default(),
            env: fields.texts("Env")?.unwrap_or_default(),
            entrypoint: fields.texts("Entrypoint")?,
            cmd: fields.texts("Cmd")?,
            working_dir: fields.text("WorkingDir")?.unwrap_or_default(),
            volumes: names(fields.object("Volumes")?),
            exposed_ports: names(fields.object("ExposedPorts")?),
            labels: fields.pairs("Labels")?,
            stop_signal: fields.text("StopSignal")?.filter(|signal| !signal.is_empty()),
            healthcheck: fields.take("Healthcheck"),
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Value {
        let mut map = self.other.clone();
        let set = |names: &[String]| names.iter().map(|name| (name.clone(), json!({}))).collect::<Map<_, _>>();
        insert_text(&mut map, "User", Some(self.user.as_str()).filter(|text| !text.is_empty()));
        insert_text(&mut map, "WorkingDir", Some(self.working_dir.as_str()).filter(|text| !text.is_empty()));
        insert_text(&mut map, "StopSignal", self.stop_signal.as_deref());
        let lists = [("Entrypoint", &self.entrypoint), ("Cmd", &self.cmd)];
        for (name, list) in lists.into_iter().filter_map(|(name, list)| Some((name, list.as_ref()?))) {
            map.insert(name.to_owned(), json!(list));
        }
        if !self.env.is_empty() {
            map.insert("Env".to_owned(), json!(self.env));
        }
        for (name, names) in [("Volumes", &self.volumes), ("ExposedPorts", &self.exposed_ports)] {
            if !names.is_empty() {
                map.insert(name.to_owned(), Value::Object(set(names)));
            }
        }
        if !self.labels.is_empty() {
            map.insert("Labels".to_owned(), json!(self.labels));
        }
        if let Some(check) = &self.healthcheck {
            map.insert("Healthcheck".to_owned(), check.clone());
        }
        Value::Object(map)
    }
}

impl History {
    fn from_json(what: &str, value: Value) -> Result<History> {
        let mut fields = Fields::of(what, value)?;
        Ok(History {
            created: fields.text("created")?,
            created_by: fields.text("created_by")?,
            author: fields.text("author")?,
            comment: fields.text("comment")?,
            empty_layer: fields.take("empty_layer").and_then(|value| value.as_bool()).unwrap_or_default(),
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Value {
        let mut map = self.other.clone();
        insert_text(&mut map, "created", self.created.as_deref());
        insert_text(&mut map, "created_by", self.created_by.as_deref());
        insert_text(&mut map, "author", self.author.as_deref());
        insert_text(&mut map, "comment", self.comment.as_deref());
        if self.empty_layer {
            map.insert("empty_layer".to_owned(), json!(true));
        }
        Value::Object(map)
    }
}

fn insert_text(map: &mut Map<String, Value>, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        map.insert(name.to_owned(), json!(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_comes_back_with_what_is_not_known() {
        let document = json!({
            "architecture": "arm", "os": "linux", "variant": "v7", "created": "2026-11-25T00:00:00Z", "author": "me",
            "config": {"User": "1:2", "Env": ["A=1"], "Entrypoint": ["/e"], "Cmd": null, "WorkingDir": "/w",
                "Volumes": {"/v": {}}, "ExposedPorts": {"80/tcp": {}}, "Labels": {"l": "1"}, "StopSignal": "SIGINT",
                "Healthcheck": {"Test": ["NONE"]}, "ArgsEscaped": true},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"1").to_string()]},
            "history": [{"created_by": "x", "empty_layer": true, "new": 1}], "docker_version": "20"});
        let config = ImageConfig::parse("c", document.to_string().as_bytes()).unwrap();
        assert_eq!(config.config.entrypoint.as_deref(), Some(&["/e".to_owned()][..]));
        assert_eq!(config.config.cmd, None);
        assert_eq!(config.config.volumes, ["/v"]);
        assert_eq!(config.config.other["ArgsEscaped"], true);
        assert_eq!(config.platform().to_string(), "linux/arm/v7");
        assert!(config.history[0].empty_layer);
        let again = ImageConfig::parse("c", &config.to_bytes()).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.other["docker_version"], "20");
    }

    #[test]
    fn broken_configurations_are_named() {
        for bad in [
            "{}",
            r#"{"rootfs": []}"#,
            r#"{"rootfs": {"type": "vm"}}"#,
            r#"{"rootfs": {"diff_ids": ["x"]}}"#,
            r#"{"rootfs": {}, "config": {"Env": [1]}}"#,
            r#"{"rootfs": {}, "history": [1]}"#,
        ] {
            let error = ImageConfig::parse("config x", bad.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("config x"), "{bad}: {error}");
        }
    }

    /// The example of the specification's rule, computed by sha256sum(1).
    #[test]
    fn chains_are_named_as_the_specification_says() {
        let ids = [Digest::of(b"a"), Digest::of(b"b")];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        assert_eq!(chain[1], Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes()));
        assert_eq!(chain_ids(&[]), []);
    }
}
