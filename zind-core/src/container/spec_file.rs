//! The file that keeps what a container is made from.
//!
//! For now it is a document of zind's own with the commonest fields; it becomes an OCI config.json.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use serde_json::{Value, json};

use super::state::{CONFIG, Dir, path_of, path_value};
use crate::error::{Error, Result};
use crate::rootfs::{Overlay, Rootfs};
use crate::spec::Spec;

/// The file for a request. Errors: [`Error::Spec`] for what cannot be kept.
pub(super) fn encode(spec: &Spec) -> Result<Vec<u8>> {
    let text = |text: &OsString| path_value(text.as_ref());
    let rootfs = match &spec.rootfs {
        Rootfs::Host => json!("host"),
        Rootfs::Path(path) => json!({"path": path_value(path)}),
        Rootfs::Lowers(lowers) => json!({"lowers": lowers.iter().map(|path| path_value(path)).collect::<Vec<_>>()}),
        _ => Value::Null,
    };
    let document = json!({
        "argv": spec.argv.iter().map(text).collect::<Vec<_>>(),
        "env": spec.env.iter().map(|(name, value)| json!([text(name), text(value)])).collect::<Vec<_>>(),
        "cwd": spec.cwd.as_deref().map(path_value),
        "rootfs": rootfs,
        "overlay": match &spec.overlay {
            Overlay::Tmpfs => json!("tmpfs"),
            Overlay::None => json!("none"),
            Overlay::Dir(path) => json!({"path": path_value(path)}),
        },
        "resources": spec.resources.is_some(),
        "init": spec.init,
    });
    Ok(document.to_string().into_bytes())
}

/// What a container is made from.
pub(super) fn read(dir: &Dir) -> Result<Spec> {
    let missing = || Error::NotFound { what: "container", name: dir.id().to_owned() };
    let bytes = dir.read(CONFIG)?.ok_or_else(missing)?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::State(format!("{} is damaged: {error}", dir.at(CONFIG).display())))?;
    decode(&value).ok_or_else(|| Error::State(format!("{} is damaged", dir.at(CONFIG).display())))
}

fn decode(value: &Value) -> Option<Spec> {
    let list = |value: &Value| -> Option<Vec<OsString>> {
        value.as_array()?.iter().map(|text| path_of(text).map(Into::into)).collect()
    };
    let mut spec = Spec::new(list(value.get("argv")?)?);
    for pair in value.get("env")?.as_array()? {
        let [name, value] = <[OsString; 2]>::try_from(list(pair)?).ok()?;
        spec.env.push((name, value));
    }
    spec.cwd = value.get("cwd").and_then(path_of);
    spec.rootfs = match value.get("rootfs")? {
        Value::String(_) => Rootfs::Host,
        rootfs => match (rootfs.get("path"), rootfs.get("lowers")) {
            (Some(path), _) => Rootfs::Path(path_of(path)?),
            (_, Some(lowers)) => Rootfs::Lowers(lowers.as_array()?.iter().map(path_of).collect::<Option<_>>()?),
            _ => return None,
        },
    };
    spec.overlay = match value.get("overlay")? {
        Value::String(text) if text == "none" => Overlay::None,
        Value::String(_) => Overlay::Tmpfs,
        overlay => Overlay::Dir(path_of(overlay.get("path")?)?),
    };
    spec.resources = value.get("resources")?.as_bool()?.then(Default::default);
    spec.init = value.get("init")?.as_bool()?;
    Some(spec)
}
