//! `linux`: namespaces, ids, devices, resources, and what there is to refuse.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::extras::{In, Out};
use super::node::{Fields, Node, wrong};
use super::typed::Typed;
use crate::cgroup::Resources;
use crate::device::{self, Device};
use crate::error::{Error, Result};
use crate::process::plan::payload_capabilities;
use crate::rootfs::mask;
use crate::security::capabilities::CapSet;
use crate::security::seccomp::Profile;
use crate::spec::{IdMaps, Kind, Seccomp, Source, Spec, TimeOffsets};

const SECOND: i64 = 1_000_000_000;
const DOMAINS: [(&str, u32); 2] = [("LINUX", 0), ("LINUX32", 8)];

pub(super) fn write(spec: &Spec, out: &mut Out) -> Result<Value> {
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
    put("namespaces", namespaces_of(spec, out)?);
    match &spec.id_maps {
        IdMaps::ByPrivilege => {}
        IdMaps::Explicit { uid, gid } => {
            if uid.is_empty() || gid.is_empty() {
                return Err(Error::spec("uid_map", "is empty; a user namespace without ids can do nothing"));
            }
            put("uidMappings", uid.write());
            put("gidMappings", gid.write());
        }
        other => out.typed("id_maps", other),
    }
    if let Some(offsets) = &spec.time_offsets {
        let offset = |ns: i64| json!({"secs": ns.div_euclid(SECOND), "nanosecs": ns.rem_euclid(SECOND)});
        put("timeOffsets", json!({"monotonic": offset(offsets.monotonic_ns), "boottime": offset(offsets.boottime_ns)}));
    }
    if !spec.devices.is_empty() {
        put("devices", devices_of(&spec.devices, out));
    }
    if let Some(resources) = &spec.resources {
        put("resources", resources_of(resources, out));
    }
    if let Some(parent) = &spec.cgroup_parent {
        if spec.resources.is_none() {
            return Err(Error::spec("cgroup_parent", "needs resources, without which no group is made"));
        }
        put("cgroupsPath", out.texts.os("linux.cgroupsPath".to_owned(), parent.as_os_str()));
    }
    if !spec.sysctl.is_empty() {
        put("sysctl", json!(spec.sysctl));
    }
    if let Some(personality) = spec.personality {
        match DOMAINS.iter().find(|(_, number)| *number == personality) {
            Some((name, _)) => put("personality", json!({"domain": name})),
            None => out.typed("personality", &personality),
        }
    }
    match spec.mount_label.as_deref() {
        Some("") => return Err(Error::spec("mount_label", "is empty")),
        Some(label) => put("mountLabel", json!(label)),
        None => {}
    }
    if spec.system_mounts && !spec.privileged {
        put("maskedPaths", json!(mask::MASKED));
        put("readonlyPaths", json!(mask::READONLY));
    }
    if let Seccomp::Profile(profile) = &spec.seccomp {
        put("seccomp", profile.to_oci(payload_capabilities(spec).unwrap_or_else(CapSet::all)));
    }
    Ok(Value::Object(all))
}

pub(super) fn read(mut all: Fields, spec: &mut Spec, from: &mut In) -> Result<()> {
    read_namespaces(all.list("namespaces")?, spec, from)?;
    match (all.take("uidMappings"), all.take("gidMappings")) {
        (None, None) => {}
        (Some(uid), Some(gid)) => spec.id_maps = IdMaps::Explicit { uid: Typed::read(uid)?, gid: Typed::read(gid)? },
        (Some(one), None) | (None, Some(one)) => return Err(one.wrong("need the other mappings, too")),
    }
    if let Some(node) = from.take("id_maps") {
        if spec.id_maps != IdMaps::ByPrivilege {
            return Err(node.wrong("is in linux.uidMappings too; take one of them away"));
        }
        spec.id_maps = IdMaps::read(node)?;
    }
    read_time(all.object("timeOffsets")?, spec)?;
    read_devices(all.list("devices")?, spec, from)?;
    let told = from.take("resources");
    spec.resources = read_resources(all.take("resources"), told)?;
    if let Some(node) = all.take("cgroupsPath").filter(|node| node.value != json!("")) {
        let systemd =
            node.wrong("is a name for systemd (slice:prefix:name); zind takes the path of a group to make its own in");
        let path = node.path(&mut from.bytes)?;
        if path.to_str().is_some_and(|text| text.contains(':') && !text.contains('/')) {
            return Err(systemd);
        }
        spec.cgroup_parent = Some(path);
        spec.resources.get_or_insert_default();
    }
    for (name, node) in all.object("sysctl")?.rest() {
        spec.sysctl.insert(name, node.text()?);
    }
    read_personality(all.take("personality"), spec, from)?;
    read_propagation(all.text("rootfsPropagation")?)?;
    spec.mount_label = all.text("mountLabel")?.filter(|label| !label.is_empty());
    let masked = all.list("maskedPaths")?;
    check_paths(masked, "is not among the paths that zind hides", &[&mask::MASKED])?;
    let readonly = all.list("readonlyPaths")?;
    check_paths(readonly, "is not among the paths that zind keeps from writing", &[&mask::READONLY, &mask::MASKED])?;
    if let Some(node) = all.take("seccomp").filter(|node| node.value != json!({})) {
        let path = node.path.clone();
        let profile = Profile::from_value(node.value).map_err(|(at, rule)| match at.is_empty() {
            true => wrong(&path, rule),
            false => wrong(&format!("{path}.{at}"), rule),
        })?;
        if let Some(node) = from.take("seccomp") {
            return Err(node.wrong("is in linux.seccomp too; take one of them away"));
        }
        spec.seccomp = Seccomp::Profile(profile);
    }
    for (name, why) in [
        ("intelRdt", "cannot be set yet"),
        ("memoryPolicy", "cannot be set yet"),
        ("netDevices", "cannot be moved yet"),
    ] {
        all.refuse(name, why)?;
    }
    Ok(())
}

fn namespaces_of(spec: &Spec, out: &mut Out) -> Result<Value> {
    let mut list = Vec::new();
    let mut told = Map::new();
    for (kind, source) in &spec.namespaces {
        let name = kind.oci_name();
        let at = format!("linux.namespaces[{}].path", list.len());
        match source {
            Source::New => list.push(json!({"type": name})),
            Source::Host => drop(told.insert(name.to_owned(), json!("host"))),
            Source::Path(path) if path.as_os_str().is_empty() => {
                return Err(Error::spec("namespaces", format!("the path of {kind} is empty")));
            }
            Source::Path(path) => list.push(json!({"type": name, "path": out.texts.os(at, path.as_os_str())})),
            Source::Pid(pid) => {
                told.insert(name.to_owned(), json!(pid));
                list.push(json!({"type": name, "path": path_of(*pid, *kind)}));
            }
            // Refused before.
            Source::Fd(_) => {}
        }
    }
    if !told.is_empty() {
        out.extra("namespaces", Value::Object(told));
    }
    Ok(Value::Array(list))
}

fn path_of(pid: i32, kind: Kind) -> String {
    format!("/proc/{pid}/ns/{}", kind.name())
}

fn read_namespaces(list: Vec<Node>, spec: &mut Spec, from: &mut In) -> Result<()> {
    for node in list {
        let twice = node.wrong("is of a kind that is there already");
        let mut namespace = node.fields()?;
        let kind = Kind::read(namespace.need("type")?)?;
        let source = match namespace.take("path") {
            Some(node) if node.value != json!("") => Source::Path(node.path(&mut from.bytes)?),
            _ => Source::New,
        };
        if spec.namespaces.insert(kind, source).is_some() {
            return Err(twice);
        }
    }
    for (name, node) in from.take("namespaces").map(Node::fields).transpose()?.into_iter().flat_map(Fields::rest) {
        let edited = node.wrong("is not what linux.namespaces says");
        let kind = Kind::from_name(&name).ok_or_else(|| node.wrong("is no kind of namespace"))?;
        let (source, expected) = if node.value == json!("host") {
            (Source::Host, None)
        } else {
            let pid = i32::read(node)?;
            (Source::Pid(pid), Some(path_of(pid, kind)))
        };
        let is_so = match (spec.namespaces.insert(kind, source), expected) {
            (None, None) => true,
            (Some(Source::Path(path)), Some(expected)) => path == Path::new(&expected),
            _ => false,
        };
        if !is_so {
            return Err(edited);
        }
    }
    Ok(())
}

fn read_time(mut all: Fields, spec: &mut Spec) -> Result<()> {
    let mut is_set = false;
    let mut offset = |name: &str| -> Result<i64> {
        let Some(node) = all.take(name) else { return Ok(0) };
        is_set = true;
        let large = node.wrong("is more than 64 bits of nanoseconds");
        let mut fields = node.fields()?;
        let secs = fields.take("secs").map(Node::i64).transpose()?.unwrap_or(0);
        let nanos = fields.take("nanosecs").map(Node::u32).transpose()?.unwrap_or(0);
        // In wider numbers: the least offset is less than a whole number of seconds.
        let ns = i128::from(secs) * i128::from(SECOND) + i128::from(nanos);
        i64::try_from(ns).map_err(|_| large)
    };
    let offsets = TimeOffsets { monotonic_ns: offset("monotonic")?, boottime_ns: offset("boottime")? };
    spec.time_offsets = is_set.then_some(offsets);
    Ok(())
}

fn devices_of(devices: &[Device], out: &mut Out) -> Value {
    let mut told = Map::new();
    let mut list = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        let mut value = Map::new();
        let mut put = |name: &str, value_of: Value| drop(value.insert(name.to_owned(), value_of));
        put("path", json!(device.target.to_string_lossy()));
        match &device.what {
            // No runtime knows this type, so that none makes something else of it.
            device::What::Host(_) => put("type", json!("zind:host")),
            device::What::Node(kind, major, minor) => {
                put("type", json!(kind.letter().to_string()));
                if *kind != device::Kind::Fifo {
                    put("major", json!(major));
                    put("minor", json!(minor));
                }
            }
        }
        for (name, number) in [("fileMode", device.mode), ("uid", device.uid), ("gid", device.gid)] {
            if let Some(number) = number {
                put(name, json!(number));
            }
        }
        let value = Value::Object(value);
        let again = device_from(Node { path: String::new(), value: value.clone() });
        if again.ok().as_ref() != Some(device) {
            told.insert(index.to_string(), device.write());
        }
        list.push(value);
    }
    if !told.is_empty() {
        out.extra("devices", Value::Object(told));
    }
    Value::Array(list)
}

fn device_from(node: Node) -> Result<Device> {
    let at = node.path.clone();
    let mut fields = node.fields()?;
    let path = PathBuf::from(fields.need("path")?.text()?);
    let kind = fields.need("type")?;
    let unknown = kind.wrong("is none of c, u, b, p");
    let letter = match kind.text()?.as_str() {
        "c" | "u" => 'c',
        "b" => 'b',
        "p" => 'p',
        _ => return Err(unknown),
    };
    let mut number = |name| match letter {
        'p' => Ok(0),
        _ => fields.need(name)?.u32(),
    };
    let device = Device::node(letter, path, number("major")?, number("minor")?);
    let mut device = device.map_err(|error| wrong(&at, rule(error)))?;
    if let Some(node) = fields.take("fileMode") {
        let beyond = node.wrong("has bits beyond 0777 that are not those of its type");
        let mode = node.u32()?;
        // As stat(2) has it, some write it.
        let bits = match letter {
            'c' => libc::S_IFCHR,
            'b' => libc::S_IFBLK,
            _ => libc::S_IFIFO,
        };
        if mode & !0o777 != 0 && mode & !0o777 != bits {
            return Err(beyond);
        }
        device = device.mode(mode & 0o777);
    }
    let mut id = |name| fields.take(name).map(Node::u32).transpose();
    Ok(device.owner(id("uid")?, id("gid")?))
}

/// What an error says, without the field.
pub(super) fn rule(error: Error) -> String {
    match error {
        Error::Spec { rule, .. } => rule,
        other => other.to_string(),
    }
}

/// What zind says of single entries of a list, by their numbers.
pub(super) fn by_number(node: Option<Node>, length: usize) -> Result<Vec<Option<Node>>> {
    let mut all: Vec<Option<Node>> = (0..length).map(|_| None).collect();
    for (name, node) in node.map(Node::fields).transpose()?.into_iter().flat_map(Fields::rest) {
        let missing = node.wrong("stands for an entry that is not there");
        let index = name.parse::<usize>().ok().filter(|index| index.to_string() == name);
        *index.and_then(|index| all.get_mut(index)).ok_or(missing)? = Some(node);
    }
    Ok(all)
}

fn read_devices(list: Vec<Node>, spec: &mut Spec, from: &mut In) -> Result<()> {
    let told = by_number(from.take("devices"), list.len())?;
    for (node, told) in list.into_iter().zip(told) {
        let Some(told) = told else {
            spec.devices.push(device_from(node)?);
            continue;
        };
        let edited = node.wrong("is not what org.zind.devices stands for; take that away, or this back");
        let device = Device::read(told)?;
        if devices_of(std::slice::from_ref(&device), &mut Out::default())[0] != node.value {
            return Err(edited);
        }
        spec.devices.push(device);
    }
    Ok(())
}

fn resources_of(resources: &Resources, out: &mut Out) -> Value {
    let value = resources.to_oci().unwrap_or_else(|_| json!({}));
    let again = Resources::from_oci(value.clone());
    if again.ok().as_ref() != Some(resources) {
        out.typed("resources", resources);
    }
    value
}

fn read_resources(node: Option<Node>, told: Option<Node>) -> Result<Option<Resources>> {
    let Some(node) = node else {
        return told.map_or(Ok(None), |told| Err(told.wrong("stands for linux.resources, which are not there")));
    };
    if let Some(told) = told {
        let edited = node.wrong("are not what org.zind.resources stands for; take that away, or this back");
        let resources = Resources::read(told)?;
        return match resources.to_oci() {
            Ok(value) if value != node.value => Err(edited),
            // A disk of it may be gone.
            _ => Ok(Some(resources)),
        };
    }
    let path = node.path.clone();
    Resources::from_oci(node.value).map(Some).map_err(|error| match error {
        Error::Spec { rule, .. } => wrong(&path, rule),
        other => other,
    })
}

fn read_personality(node: Option<Node>, spec: &mut Spec, from: &mut In) -> Result<()> {
    spec.personality = from.typed("personality")?;
    let Some(node) = node else { return Ok(()) };
    let twice = node.wrong("is in org.zind.personality too; take that away");
    let mut fields = node.fields()?;
    let domain = fields.need("domain")?;
    let unknown = domain.wrong("is none of LINUX, LINUX32");
    let domain = domain.text()?;
    fields.refuse("flags", "has flags, and OCI knows none")?;
    let (_, number) = DOMAINS.iter().find(|(name, _)| *name == domain).ok_or(unknown)?;
    match spec.personality.replace(*number) {
        Some(_) => Err(twice),
        None => Ok(()),
    }
}

fn read_propagation(text: Option<String>) -> Result<()> {
    match text.as_deref() {
        None | Some("" | "private" | "rprivate") => Ok(()),
        Some(other) => {
            let rule =
                format!("{other:?} cannot be had: mounts of a container and of the host do not reach each other");
            Err(wrong("linux.rootfsPropagation", rule))
        }
    }
}

fn check_paths(list: Vec<Node>, why: &str, known: &[&[&str]]) -> Result<()> {
    for node in list {
        let shown = node.value.as_str().unwrap_or_default().chars().take(200).collect::<String>();
        let other = node.wrong(format!("{shown:?} {why}"));
        let text = node.text()?;
        let path = text.trim_end_matches('/');
        if !known.iter().any(|known| known.contains(&path)) && !mask::is_throttle(path) {
            return Err(other);
        }
    }
    Ok(())
}
