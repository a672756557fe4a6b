//! Images and the store as JSON, for other languages.
#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::{Descriptor, Digest, History, Image, ImageConfig, RunConfig};
use crate::build::{BuildStep, Built};
use crate::error::Result;
use crate::store::{Collected, Fault, ImageUsage, Usage};

impl Image {
    /// All of it: `id`, `digest`, `tags`, `size`, `created`, `platform`, `layers` (`digest`, `diff_id`, `size`, `media_type`),
    /// `history` and `config`, the document of the image-spec. Reads the blobs of the manifest and the configuration.
    pub fn to_json(&self) -> Result<Value> {
        let config = self.config()?;
        let layer = |(layer, diff_id): (&Descriptor, Option<&Digest>)| {
            json!({
                "digest": layer.digest.to_string(),
                "diff_id": diff_id.map(Digest::to_string),
                "size": layer.size,
                "media_type": layer.media_type,
            })
        };
        let diff_ids = config.diff_ids.iter().map(Some).chain(std::iter::repeat(None));
        let layers: Vec<Value> = self.layers()?.iter().zip(diff_ids).map(layer).collect();
        Ok(json!({
            "id": self.id().to_string(),
            "digest": self.digest().to_string(),
            "tags": self.tags(),
            "size": self.size(),
            "created": self.created(),
            "platform": self.platform().to_string(),
            "layers": layers,
            "history": config.history.iter().map(history).collect::<Vec<_>>(),
            "config": document(config),
        }))
    }

    /// What a list shows: all of [`Image::to_json`] that needs no blob.
    pub fn summary_json(&self) -> Value {
        json!({
            "id": self.id().to_string(),
            "digest": self.digest().to_string(),
            "tags": self.tags(),
            "size": self.size(),
            "created": self.created(),
            "platform": self.platform().to_string(),
        })
    }
}

fn history(entry: &History) -> Value {
    json!({
        "created": entry.created,
        "created_by": entry.created_by,
        "author": entry.author,
        "comment": entry.comment,
        "empty_layer": entry.empty_layer,
    })
}

fn document(config: &ImageConfig) -> Value {
    serde_json::from_slice(&config.to_bytes()).unwrap_or_default()
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Object,
    Flag,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Text => "a text",
            Kind::Texts => "a list of texts",
            Kind::Object => "an object",
            Kind::Flag => "true or false",
        }
    }
}

/// What a configuration can have.
/// Sources: <https://github.com/opencontainers/image-spec/blob/main/config.md#properties>, and for `Healthcheck`, `OnBuild` and
/// `Shell` <https://github.com/moby/docker-image-spec/blob/main/spec.md>.
const FIELDS: [(&str, Kind); 13] = [
    ("User", Kind::Text),
    ("ExposedPorts", Kind::Object),
    ("Env", Kind::Texts),
    ("Entrypoint", Kind::Texts),
    ("Cmd", Kind::Texts),
    ("Volumes", Kind::Object),
    ("WorkingDir", Kind::Text),
    ("Labels", Kind::Object),
    ("StopSignal", Kind::Text),
    ("ArgsEscaped", Kind::Flag),
    ("Healthcheck", Kind::Object),
    ("OnBuild", Kind::Texts),
    ("Shell", Kind::Texts),
];

impl RunConfig {
    /// Reads the object that is `config` in the configuration of an image: `{"Cmd": ["sh"], "Env": ["A=1"], ...}`.
    /// Errors: [`crate::Error::Spec`] for `config`, with the field that is of another type, or that the image-spec does not have.
    pub fn of_json(value: &Value) -> Result<RunConfig> {
        let wrong = |rule: String| Err(crate::Error::spec("config", rule));
        let Value::Object(map) = value else { return wrong("is no object".to_owned()) };
        for (name, value) in map {
            let Some((known, kind)) = FIELDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
                return wrong(format!("has {name:?}, which no image has"));
            };
            if known != name {
                return wrong(format!("has {name:?}; its name is {known:?}"));
            }
            let texts = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
            let is_right = match kind {
                _ if value.is_null() => true,
                Kind::Text => value.is_string(),
                Kind::Texts => texts(value),
                Kind::Object => value.is_object(),
                Kind::Flag => value.is_boolean(),
            };
            if !is_right {
                return wrong(format!("{name} takes {}, and is {value}", kind.name()));
            }
        }
        let document = json!({"rootfs": {"type": "layers", "diff_ids": []}, "config": value});
        let parsed = ImageConfig::parse("config", document.to_string().as_bytes());
        parsed.map(|config| config.config).map_err(|error| match error {
            crate::Error::Image { what, rule } => crate::Error::spec("config", format!("{what}: {rule}")),
            other => other,
        })
    }
}

impl Collected {
    /// As an object with the names of its fields.
    pub fn to_json(&self) -> Value {
        json!({"blobs": self.blobs, "snapshots": self.snapshots, "leftovers": self.leftovers, "bytes": self.bytes})
    }
}

impl Fault {
    /// As an object with the names of its fields.
    pub fn to_json(&self) -> Value {
        json!({"what": self.what, "rule": self.rule, "cure": self.cure, "images": self.images})
    }
}

impl Usage {
    /// As an object with the names of its fields.
    pub fn to_json(&self) -> Value {
        let image = |image: &ImageUsage| {
            json!({
                "id": image.id.to_string(),
                "tags": image.tags,
                "size": image.size,
                "unique": image.unique,
                "unpacked": image.unpacked,
            })
        };
        json!({
            "blobs": self.blobs,
            "snapshots": self.snapshots,
            "partial": self.partial,
            "unused": self.unused,
            "images": self.images.iter().map(image).collect::<Vec<_>>(),
        })
    }
}

impl Built {
    /// The steps, as a list of objects with the names of their fields; `time` in seconds.
    pub fn steps_json(&self) -> Value {
        let step = |step: &BuildStep| {
            json!({
                "what": step.what,
                "cached": step.cached,
                "diff_id": step.diff_id.map(|digest| digest.to_string()),
                "time": step.time.as_secs_f64(),
            })
        };
        self.steps.iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_a_caller_has_known_fields_of_their_types() {
        let good = json!({"Cmd": ["sh"], "Env": null, "Labels": {"a": "b"}, "OnBuild": ["x"], "StopSignal": "SIGINT"});
        assert_eq!(RunConfig::of_json(&good).unwrap().cmd, Some(vec!["sh".to_owned()]));
        for (bad, told) in [
            (json!({"cmd": ["sh"]}), "its name is \"Cmd\""),
            (json!({"Command": ["sh"]}), "has \"Command\", which no image has"),
            (json!({"Cmd": "sh"}), "Cmd takes a list of texts, and is \"sh\""),
            (json!({"Env": ["A=1", 2]}), "Env takes a list of texts"),
            (json!({"Labels": ["a"]}), "Labels takes an object"),
            (json!(["Cmd"]), "is no object"),
        ] {
            let error = RunConfig::of_json(&bad).unwrap_err();
            assert_eq!(error.field(), Some("config"));
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
