//! What OCI has no word for, as JSON: each type to and from a value, nothing lost.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::node::Node;
use crate::cgroup::{DeviceKind, DeviceRule, IoLimit, RdmaLimit, Resources};
use crate::device::{self, Access, Console, Device};
use crate::error::Result;
use crate::image::apply::Origin;
use crate::image::{Descriptor, Digest, Image};
use crate::mount::options::{Change, Options};
use crate::mount::{Mount, MountIds, NamedVolume, What};
use crate::namespace::idmap::IdMap;
use crate::namespace::kind::Kind;
use crate::rootfs::layers::Layers;
use crate::rootfs::{Overlay, Rootfs};
use crate::security::capabilities::CapSet;
use crate::security::landlock::{Landlock, LandlockPolicy};
use crate::spec::{Binfmt, IdMaps, Seccomp, Session, Stdio};
use crate::store::Store;

/// A type that JSON can hold.
pub(super) trait Typed: Sized {
    fn write(&self) -> Value;
    fn read(node: Node) -> Result<Self>;
}

macro_rules! plain {
    ($($type:ty => $read:expr;)*) => {
        $(impl Typed for $type {
            fn write(&self) -> Value {
                json!(self)
            }

            fn read(node: Node) -> Result<Self> {
                $read(node)
            }
        })*
    };
}

plain! {
    bool => Node::bool;
    u64 => Node::u64;
    i64 => Node::i64;
    u32 => Node::u32;
    i32 => |node: Node| node.small("whole number of 32 bits");
    String => Node::text;
}

/// A structure: its fields by name, but those that are as by default.
macro_rules! record {
    ($($type:ident { $($field:ident),* $(,)? })*) => {
        $(impl Typed for $type {
            fn write(&self) -> Value {
                let $type { $($field),* } = self;
                let usual = <$type>::default();
                let mut map = Map::new();
                $({
                    let value = $field.write();
                    if value != usual.$field.write() {
                        map.insert(stringify!($field).to_owned(), value);
                    }
                })*
                Value::Object(map)
            }

            fn read(node: Node) -> Result<Self> {
                let mut fields = node.fields()?;
                let mut it = <$type>::default();
                $(if let Some(node) = fields.take_any(stringify!($field)) {
                    it.$field = Typed::read(node)?;
                })*
                fields.end()?;
                Ok(it)
            }
        })*
    };
}

record! {
    Session { setsid, pgid, setctty, noctty, ctty, foreground }
    Change { set, clear }
    Options {
        top, all, propagation, bind, super_flags, super_off, remount, copy_up, idmap, copy_symlink, source_nofollow,
        target_nofollow, data,
    }
    Resources {
        memory, memory_high, memory_low, memory_min, swap, oom_group, oom_kill_disable, swappiness, cpus, cpu_quota_us,
        cpu_period_us, cpu_burst_us, cpu_weight, cpu_shares, cpu_idle, cpuset_cpus, cpuset_mems, cpu_rt_runtime_us,
        cpu_rt_period_us, pids, io_weight, io, hugetlb, rdma, misc, devices, net_classid, net_priorities, unified,
    }
    IoLimit { device, rbps, wbps, riops, wiops, latency_us, weight }
    RdmaLimit { hca_handles, hca_objects }
}

impl<T: Typed> Typed for Option<T> {
    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::write)
    }

    fn read(node: Node) -> Result<Self> {
        if node.value.is_null() { Ok(None) } else { T::read(node).map(Some) }
    }
}

impl<T: Typed> Typed for Vec<T> {
    fn write(&self) -> Value {
        Value::Array(self.iter().map(T::write).collect())
    }

    fn read(node: Node) -> Result<Self> {
        node.list()?.into_iter().map(T::read).collect()
    }
}

impl<T: Typed> Typed for BTreeMap<String, T> {
    fn write(&self) -> Value {
        Value::Object(self.iter().map(|(name, value)| (name.clone(), value.write())).collect())
    }

    fn read(node: Node) -> Result<Self> {
        node.fields()?.rest().map(|(name, node)| Ok((name, T::read(node)?))).collect()
    }
}

/// Exactly so many values in a list.
fn exactly<const N: usize>(node: Node) -> Result<[Node; N]> {
    let error = node.wrong(format!("has not {N} values"));
    <[Node; N]>::try_from(node.list()?).map_err(|_| error)
}

impl<A: Typed, B: Typed> Typed for (A, B) {
    fn write(&self) -> Value {
        Value::Array(vec![self.0.write(), self.1.write()])
    }

    fn read(node: Node) -> Result<Self> {
        let [a, b] = exactly(node)?;
        Ok((A::read(a)?, B::read(b)?))
    }
}

/// A number of JSON is not read back to the last bit; a text is.
impl Typed for f64 {
    fn write(&self) -> Value {
        Value::String(self.to_string())
    }

    fn read(node: Node) -> Result<Self> {
        let error = node.wrong("is no number");
        node.text()?.parse().map_err(|_| error)
    }
}

impl Typed for Duration {
    fn write(&self) -> Value {
        json!([self.as_secs(), self.subsec_nanos()])
    }

    fn read(node: Node) -> Result<Self> {
        let error = node.wrong("has a billion nanoseconds or more");
        let [secs, nanos] = exactly(node)?;
        match (secs.u64()?, nanos.u32()?) {
            (secs, nanos) if nanos < 1_000_000_000 => Ok(Duration::new(secs, nanos)),
            _ => Err(error),
        }
    }
}

/// Bytes that are no text: an object with their base64.
fn bytes_of(text: &OsStr) -> Value {
    match text.to_str() {
        Some(text) => json!(text),
        None => json!({"base64": STANDARD.encode(text.as_bytes())}),
    }
}

fn base64(node: Node) -> Result<Vec<u8>> {
    let error = node.wrong("is no base64");
    STANDARD.decode(node.text()?).map_err(|_| error)
}

impl Typed for OsString {
    fn write(&self) -> Value {
        bytes_of(self)
    }

    fn read(node: Node) -> Result<Self> {
        if node.value.is_string() {
            return node.text().map(OsString::from);
        }
        let mut fields = node.fields()?;
        let bytes = base64(fields.need("base64")?)?;
        fields.end()?;
        Ok(OsString::from_vec(bytes))
    }
}

impl Typed for PathBuf {
    fn write(&self) -> Value {
        bytes_of(self.as_os_str())
    }

    fn read(node: Node) -> Result<Self> {
        OsString::read(node).map(PathBuf::from)
    }
}

impl Typed for Kind {
    fn write(&self) -> Value {
        json!(self.oci_name())
    }

    fn read(node: Node) -> Result<Self> {
        let error = node.wrong("is no kind of namespace");
        Kind::from_name(&node.text()?).ok_or(error)
    }
}

impl Typed for CapSet {
    fn write(&self) -> Value {
        json!(self.names().collect::<Vec<_>>())
    }

    fn read(node: Node) -> Result<Self> {
        let add = |set: CapSet, node: Node| {
            let error = node.wrong("is no capability");
            CapSet::from_name(&node.text()?).map(|one| set.union(one)).map_err(|_| error)
        };
        node.list()?.into_iter().try_fold(CapSet::EMPTY, add)
    }
}

impl Typed for IdMap {
    fn write(&self) -> Value {
        json!({"containerID": self.container, "hostID": self.host, "size": self.size})
    }

    fn read(node: Node) -> Result<Self> {
        let mut fields = node.fields()?;
        let mut number = |name| fields.need(name)?.u32();
        Ok(IdMap { container: number("containerID")?, host: number("hostID")?, size: number("size")? })
    }
}

/// Values that are one of a few: a name, or an object with one name and more about it.
struct Choice {
    name: String,
    more: Option<Node>,
    path: String,
}

impl Choice {
    fn of(node: Node) -> Result<Choice> {
        let path = node.path.clone();
        if node.value.is_string() {
            return Ok(Choice { name: node.text()?, more: None, path });
        }
        let error = node.wrong("has not just one name");
        let mut rest = node.fields()?.rest();
        match (rest.next(), rest.next()) {
            (Some((name, more)), None) => Ok(Choice { name, more: Some(more), path }),
            _ => Err(error),
        }
    }

    fn parts(&mut self) -> (&str, Option<Node>) {
        (&self.name, self.more.take())
    }

    fn unknown<T>(self) -> Result<T> {
        Err(super::node::wrong(&self.path, format!("{:?} is unknown to this version", self.name)))
    }
}

impl Typed for Stdio {
    fn write(&self) -> Value {
        match self {
            Stdio::Inherit => json!("inherit"),
            Stdio::Null => json!("null"),
            Stdio::Pipe => json!("pipe"),
            Stdio::Stdout => json!("stdout"),
            Stdio::File(path) => json!({"file": path.write()}),
            // Refused before.
            Stdio::Fd(_) => Value::Null,
        }
    }

    fn read(node: Node) -> Result<Self> {
        let mut choice = Choice::of(node)?;
        match choice.parts() {
            ("inherit", None) => Ok(Stdio::Inherit),
            ("null", None) => Ok(Stdio::Null),
            ("pipe", None) => Ok(Stdio::Pipe),
            ("stdout", None) => Ok(Stdio::Stdout),
            ("file", Some(path)) => PathBuf::read(path).map(Stdio::File),
            _ => choice.unknown(),
        }
    }
}

impl Typed for Seccomp {
    fn write(&self) -> Value {
        match self {
            Seccomp::Default => json!("default"),
            // A profile is in linux.seccomp.
            Seccomp::None | Seccomp::Profile(_) => json!("none"),
            Seccomp::Learn => json!("learn"),
        }
    }

    fn read(node: Node) -> Result<Self> {
        let mut choice = Choice::of(node)?;
        match choice.parts() {
            ("default", None) => Ok(Seccomp::Default),
            ("none", None) => Ok(Seccomp::None),
            ("learn", None) => Ok(Seccomp::Learn),
            _ => choice.unknown(),
        }
    }
}

/// Rules by their text; none at all is a text, too.
impl Typed for LandlockPolicy {
    fn write(&self) -> Value {
        match self {
            LandlockPolicy::Default => json!("default"),
            LandlockPolicy::None => json!("none"),
            LandlockPolicy::Rules(rules) => json!({"rules": rules.to_text().write()}),
        }
    }

    fn read(node: Node) -> Result<Self> {
        let mut choice = Choice::of(node)?;
        match choice.parts() {
            ("default", None) => Ok(LandlockPolicy::Default),
            ("none", None) => Ok(LandlockPolicy::None),
            ("rules", Some(node)) => {
                let text = OsString::read(node)?;
                let mut rules = Landlock::new();
                if !text.is_empty() {
                    rules.extend(&text)?;
                }
                Ok(LandlockPolicy::Rules(rules))
            }
            _ => choice.unknown(),
        }
    }
}

impl Typed for Overlay {
    fn write(&self) -> Value {
        match self {
            Overlay::Tmpfs => json!("tmpfs"),
            Overlay::None => json!("none"),
            Overlay::Dir(path) => json!({"directory": path.write()}),
        }
    }

    fn read(node: Node) -> Result<Self> {
        let mut choice = Choice::of(node)?;
        match choice.parts() {
            ("tmpfs", None) => Ok(Overlay::Tmpfs),
            ("none", None) => Ok(Overlay::None),
            ("directory", Some(path)) => PathBuf::read(path).map(Overlay::Dir),
            _ => choice.unknown(),
        }
    }
}

impl Typed for IdMaps {
    fn write(&self) -> Value {
        match self {
            IdMaps::ByPrivilege => json!("by-privilege"),
            IdMaps::Single => json!("single"),
            IdMaps::Auto => json!("auto"),
            // These are OCI's own.
            IdMaps::Explicit { .. } => Value::Null,
        }
    }

    fn read(node: Node) -> Result<Self> {
        let mut choice = Choice::of(node)?;
        match choice.parts() {
            ("by-privilege", None) => Ok(IdMaps::ByPrivilege),
            ("single", None) => Ok(IdMaps::Single),
            ("auto", None) => Ok(IdMaps::Auto),
            _ => choice.unknown(),
        }
    }
}

impl Typed for Rootfs {
    fn write(&self) -> Value {
        match self {
            Rootfs::Host => json!("host"),
            Rootfs::Unchanged => json!("unchanged"),
            Rootfs::Path(path) => json!({"path": path.write()}),
            Rootfs::Lowers(paths) => json!({"lowers": paths.write()}),
            Rootfs::Layers(layers) => json!({"layers": layers.dir().to_owned().write()}),
            Rootfs::Image(image) => json!({"image": image.write()}),
        }
    }

    fn read(node: Node) -> Result<Self> {
        let mut choice = Choice::of(node)?;
        match choice.parts() {
            ("host", None) => Ok(Rootfs::Host),
            ("unchanged", None) => Ok(Rootfs::Unchanged),
            ("path", Some(path)) => PathBuf::read(path).map(Rootfs::Path),
            ("lowers", Some(paths)) => Typed::read(paths).map(Rootfs::Lowers),
            ("layers", Some(dir)) => PathBuf::read(dir).map(|dir| Rootfs::Layers(Layers::at(dir))),
            ("image", Some(image)) => Image::read(image).map(Rootfs::Image),
            _ => choice.unknown(),
        }
    }
}

/// An image by its manifest and store.
impl Typed for Image {
    fn write(&self) -> Value {
        let manifest = self.descriptor();
        json!({
            "store": self.store().place().to_owned().write(),
            "mediaType": manifest.media_type,
            "digest": manifest.digest.to_string(),
            "size": manifest.size,
        })
    }

    fn read(node: Node) -> Result<Self> {
        let path = node.path.clone();
        let mut fields = node.fields()?;
        let place = PathBuf::read(fields.need("store")?)?;
        let media_type = fields.need("mediaType")?.text()?;
        let digest = fields.need("digest")?;
        let error = digest.wrong("is no digest");
        let digest = Digest::parse(&digest.text()?).map_err(|_| error)?;
        let size = fields.need("size")?.u64()?;
        fields.end()?;
        // Reading a document makes no store.
        if !Path::new(&place).join("store").exists() {
            return Err(super::node::wrong(&path, format!("there is no store at {}", place.display())));
        }
        Image::of_manifest(&Store::open(Some(place))?, &Descriptor::new(media_type, digest, size))
    }
}

impl Typed for Origin {
    fn write(&self) -> Value {
        json!({"image": self.image.write(), "stopSignal": self.stop_signal})
    }

    fn read(node: Node) -> Result<Self> {
        let mut fields = node.fields()?;
        let image = Image::read(fields.need("image")?)?;
        let stop_signal = i32::read(fields.need("stopSignal")?)?;
        fields.end()?;
        Ok(Origin { image, stop_signal })
    }
}

impl Typed for Binfmt {
    fn write(&self) -> Value {
        json!({"path": self.path.write(), "interpreter": self.interpreter.write()})
    }

    fn read(node: Node) -> Result<Self> {
        let mut fields = node.fields()?;
        let path = PathBuf::read(fields.need("path")?)?;
        let interpreter = fields.take("interpreter").map(OsString::read).transpose()?;
        fields.end()?;
        Ok(Binfmt { path, interpreter })
    }
}

impl Typed for Console {
    fn write(&self) -> Value {
        match self {
            Console::Path(path) => path.write(),
            // Refused before.
            Console::Fd(_) => Value::Null,
        }
    }

    fn read(node: Node) -> Result<Self> {
        PathBuf::read(node).map(Console::Path)
    }
}

impl Typed for DeviceRule {
    fn write(&self) -> Value {
        json!({
            "allow": self.allow,
            "kind": self.kind.letter().to_string(),
            "major": self.major,
            "minor": self.minor,
            "access": self.access,
        })
    }

    fn read(node: Node) -> Result<Self> {
        let mut fields = node.fields()?;
        let kind = fields.need("kind")?;
        let error = kind.wrong("is none of a, b, c");
        let kind = match kind.text()?.as_str() {
            "a" => DeviceKind::All,
            "b" => DeviceKind::Block,
            "c" => DeviceKind::Char,
            _ => return Err(error),
        };
        let rule = DeviceRule {
            allow: fields.need("allow")?.bool()?,
            kind,
            major: fields.take("major").map(Node::u32).transpose()?,
            minor: fields.take("minor").map(Node::u32).transpose()?,
            access: fields.need("access")?.text()?,
        };
        fields.end()?;
        Ok(rule)
    }
}

impl Typed for Device {
    fn write(&self) -> Value {
        let Device { what, target, access, mode, uid, gid } = self;
        let what = match what {
            device::What::Host(path) => json!({"host": path.write()}),
            device::What::Node(kind, major, minor) => json!({"node": [kind.letter().to_string(), major, minor]}),
        };
        json!({
            "what": what,
            "target": target.write(),
            "access": [access.read, access.write, access.mknod],
            "mode": mode,
            "uid": uid,
            "gid": gid,
        })
    }

    fn read(node: Node) -> Result<Self> {
        let mut fields = node.fields()?;
        let mut choice = Choice::of(fields.need("what")?)?;
        let what = match choice.parts() {
            ("host", Some(path)) => device::What::Host(PathBuf::read(path)?),
            ("node", Some(node)) => {
                let [kind, major, minor] = exactly(node)?;
                let error = kind.wrong("is none of c, b, p");
                let kind = device::Kind::from_letter(&kind.text()?).ok_or(error)?;
                device::What::Node(kind, major.u32()?, minor.u32()?)
            }
            _ => return choice.unknown(),
        };
        let [read, write, mknod] = exactly(fields.need("access")?)?;
        let device = Device {
            what,
            target: PathBuf::read(fields.need("target")?)?,
            access: Access { read: read.bool()?, write: write.bool()?, mknod: mknod.bool()? },
            mode: fields.take("mode").map(Node::u32).transpose()?,
            uid: fields.take("uid").map(Node::u32).transpose()?,
            gid: fields.take("gid").map(Node::u32).transpose()?,
        };
        fields.end()?;
        Ok(device)
    }
}

impl Typed for Mount {
    fn write(&self) -> Value {
        let Mount { what, target, options, create, idmap, has_no_room } = self;
        let what = match what {
            What::Bind { source, recursive } => json!({"bind": {"source": source.write(), "recursive": recursive}}),
            What::FileSystem { kind, source } => json!({"filesystem": {"type": kind, "source": source.write()}}),
            What::Overlay { lower, upper } => json!({"overlay": {"lower": lower.write(), "upper": upper.write()}}),
            What::File { content, mode } => json!({"file": {"content": STANDARD.encode(content), "mode": mode}}),
            What::Volume(NamedVolume { name, place, copy_up, data }) => json!({"volume": {
                "name": name, "place": place.write(), "copyUp": copy_up, "data": data.write(),
            }}),
        };
        json!({
            "what": what,
            "target": target.write(),
            "options": options.write(),
            "create": create,
            "uidMappings": idmap.as_ref().map(|ids| ids.uid.write()),
            "gidMappings": idmap.as_ref().map(|ids| ids.gid.write()),
            // Kept for the refusal.
            "noRoom": has_no_room.then_some(true),
        })
    }

    fn read(node: Node) -> Result<Self> {
        let mut fields = node.fields()?;
        let mut choice = Choice::of(fields.need("what")?)?;
        let what = match choice.parts() {
            ("bind", Some(more)) => {
                let mut more = more.fields()?;
                let source = PathBuf::read(more.need("source")?)?;
                let recursive = more.need("recursive")?.bool()?;
                more.end()?;
                What::Bind { source, recursive }
            }
            ("filesystem", Some(more)) => {
                let mut more = more.fields()?;
                let kind = more.need("type")?.text()?;
                let source = more.take("source").map(PathBuf::read).transpose()?;
                more.end()?;
                What::FileSystem { kind, source }
            }
            ("overlay", Some(more)) => {
                let mut more = more.fields()?;
                let lower = Typed::read(more.need("lower")?)?;
                let upper = more.take("upper").map(Typed::read).transpose()?;
                more.end()?;
                What::Overlay { lower, upper }
            }
            ("file", Some(more)) => {
                let mut more = more.fields()?;
                let content = base64(more.need("content")?)?;
                let mode = more.need("mode")?.u32()?;
                more.end()?;
                What::File { content, mode }
            }
            ("volume", Some(more)) => {
                let mut more = more.fields()?;
                let volume = NamedVolume {
                    name: more.need("name")?.text()?,
                    place: more.take("place").map(PathBuf::read).transpose()?,
                    copy_up: more.need("copyUp")?.bool()?,
                    data: more.take("data").map(PathBuf::read).transpose()?,
                };
                more.end()?;
                What::Volume(volume)
            }
            _ => return choice.unknown(),
        };
        let target = PathBuf::read(fields.need("target")?)?;
        let options = Options::read(fields.need("options")?)?;
        let create = fields.need("create")?.bool()?;
        let ids = (fields.take("uidMappings"), fields.take("gidMappings"));
        let idmap = match ids {
            (Some(uid), Some(gid)) => Some(MountIds { uid: Typed::read(uid)?, gid: Typed::read(gid)? }),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => return Err(one.wrong("goes with the other mappings")),
        };
        let has_no_room = fields.take("noRoom").map(Node::bool).transpose()?.unwrap_or(false);
        fields.end()?;
        Ok(Mount { what, target, options, create, idmap, has_no_room })
    }
}
