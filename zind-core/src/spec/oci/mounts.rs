//! `mounts`: the standard ones, which zind makes itself, and the caller's.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::extras::{In, Out};
use super::linux::{by_number, rule};
use super::node::Node;
use super::typed::Typed;
use crate::error::Result;
use crate::mount::{Mount, MountIds, What};
use crate::namespace::idmap::IdMaps;
use crate::spec::Spec;

/// A mount that every container has.
struct Standard {
    target: &'static str,
    kind: &'static str,
    source: &'static str,
    /// As it is written.
    options: &'static [&'static str],
    /// What others may write, and mean the same or less.
    also: &'static [&'static str],
    /// Without which it would be something else.
    needs: &'static [&'static str],
}

/// Sources: <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#default-filesystems>, and what
/// `runc spec`, `crun spec` and podman write.
const STANDARD: [Standard; 6] = [
    Standard {
        target: "/proc",
        kind: "proc",
        source: "proc",
        options: &["nosuid", "noexec", "nodev"],
        also: &["rw", "defaults", "relatime"],
        needs: &[],
    },
    Standard {
        target: "/dev",
        kind: "tmpfs",
        source: "tmpfs",
        options: &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"],
        also: &["rw", "defaults", "relatime", "mode=0755", "size=64m", "size=67108864"],
        needs: &[],
    },
    Standard {
        target: "/dev/pts",
        kind: "devpts",
        source: "devpts",
        options: &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        also: &["rw", "defaults", "relatime", "mode=620", "ptmxmode=666"],
        needs: &["newinstance"],
    },
    Standard {
        target: "/dev/shm",
        kind: "tmpfs",
        source: "shm",
        options: &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        also: &["rw", "defaults", "relatime", "size=64m", "size=67108864"],
        needs: &["size"],
    },
    Standard {
        target: "/dev/mqueue",
        kind: "mqueue",
        source: "mqueue",
        options: &["nosuid", "noexec", "nodev"],
        also: &["rw", "defaults", "relatime"],
        needs: &[],
    },
    Standard {
        target: "/sys",
        kind: "sysfs",
        source: "sysfs",
        options: &["nosuid", "noexec", "nodev", "ro"],
        also: &["defaults", "relatime"],
        needs: &["ro"],
    },
];

impl Standard {
    /// As it is written. A user namespace may not know the group of terminals.
    fn value(&self, has_tty_group: bool) -> Value {
        let options: Vec<_> = self.options.iter().filter(|word| has_tty_group || **word != "gid=5").collect();
        json!({"destination": self.target, "type": self.kind, "source": self.source, "options": options})
    }

    /// Whether a document means this one. Options that it does not have belong to another.
    fn is_meant(&self, entry: &Entry) -> bool {
        let has = |name: &&str| entry.options.iter().any(|word| word.split('=').next() == Some(name));
        let known = |word: &String| self.options.contains(&word.as_str()) || self.also.contains(&word.as_str());
        self.is_at(entry) && entry.options.iter().all(known) && self.needs.iter().all(has)
    }

    fn is_at(&self, entry: &Entry) -> bool {
        let target: PathBuf = Path::new(&entry.target).components().collect();
        entry.kind == self.kind && target == Path::new(self.target) && entry.idmap.is_none()
    }
}

/// One mount of a document.
struct Entry {
    target: String,
    kind: String,
    source: Option<String>,
    options: Vec<String>,
    idmap: Option<MountIds>,
}

impl Entry {
    fn read(node: Node) -> Result<Entry> {
        let mut fields = node.fields()?;
        let target = fields.need("destination")?.text()?;
        let options = fields.list("options")?.into_iter().map(Node::text).collect::<Result<Vec<String>>>()?;
        let is_bind = options.iter().any(|word| word == "bind" || word == "rbind");
        let kind = match fields.text("type")? {
            Some(kind) => kind,
            None if is_bind => "bind".to_owned(),
            None => fields.need("type")?.text()?,
        };
        let source = fields.text("source")?.filter(|source| !source.is_empty());
        let idmap = match (fields.take("uidMappings"), fields.take("gidMappings")) {
            (Some(uid), Some(gid)) => Some(MountIds { uid: Typed::read(uid)?, gid: Typed::read(gid)? }),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => return Err(one.wrong("need the other mappings, too")),
        };
        Ok(Entry { target, kind, source, options, idmap })
    }

    /// As a mount; the error says what rule is broken.
    fn mount(&self) -> std::result::Result<Mount, String> {
        let words = self.options.iter().map(String::as_str);
        let mount = Mount::new(&self.kind, self.source.as_deref().map(Path::new), &self.target, words).map_err(rule)?;
        Ok(match &self.idmap {
            Some(ids) => mount.idmap(ids.uid.clone(), ids.gid.clone()),
            None => mount,
        })
    }
}

pub(super) fn write(spec: &Spec, out: &mut Out) -> Value {
    out.typed("system_mounts", &spec.system_mounts);
    let mut list: Vec<Value> = Vec::new();
    if spec.system_mounts {
        let has_tty_group = match &spec.id_maps {
            IdMaps::Explicit { gid, .. } => gid.iter().any(|map| map.container <= 5 && 5 - map.container < map.size),
            _ => true,
        };
        list.extend(STANDARD.iter().map(|standard| standard.value(has_tty_group)));
    }
    let mut told = Map::new();
    for mount in &spec.mounts {
        let value = entry_of(mount);
        let again = Entry::read(Node { path: String::new(), value: value.clone() });
        if again.ok().and_then(|entry| entry.mount().ok()).as_ref() != Some(mount) {
            told.insert(list.len().to_string(), mount.write());
        }
        list.push(value);
    }
    if !told.is_empty() {
        out.extra("mounts", Value::Object(told));
    }
    Value::Array(list)
}

/// A mount as near as OCI comes to it.
fn entry_of(mount: &Mount) -> Value {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut options = Vec::new();
    let (kind, source) = match &mount.what {
        What::Bind { source, recursive } => {
            options.push(if *recursive { "rbind" } else { "bind" }.to_owned());
            ("bind".to_owned(), text(source))
        }
        What::FileSystem { kind, source } => (kind.clone(), source.as_deref().map_or_else(|| kind.clone(), text)),
        What::Overlay { lower, upper } => {
            let lower: Vec<String> = lower.iter().map(|dir| escaped(&text(dir))).collect();
            options.push(format!("lowerdir={}", lower.join(":")));
            if let Some((upper, work)) = upper {
                options.extend([format!("upperdir={}", text(upper)), format!("workdir={}", text(work))]);
            }
            ("overlay".to_owned(), "overlay".to_owned())
        }
        // No runtime knows these types, so that none makes something else of them.
        What::File { .. } => ("zind:file".to_owned(), "zind:file".to_owned()),
        What::Volume(volume) => {
            options.extend((!volume.copy_up).then(|| "nocopy".to_owned()));
            ("volume".to_owned(), volume.name.clone())
        }
    };
    options.extend(mount.options.words());
    let mut value = json!({"destination": text(&mount.target), "type": kind, "source": source});
    if !options.is_empty() {
        value["options"] = json!(options);
    }
    if let Some(ids) = &mount.idmap {
        value["uidMappings"] = ids.uid.write();
        value["gidMappings"] = ids.gid.write();
    }
    value
}

/// For a list that colons divide.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:")
}

pub(super) fn read(list: Vec<Node>, spec: &mut Spec, from: &mut In) -> Result<()> {
    let told = by_number(from.take("mounts"), list.len())?;
    // By zind, the standard ones come first, or are not there. In any other document they are looked for.
    let is_told = from.typed::<bool>("system_mounts")?;
    spec.system_mounts = is_told.unwrap_or(true);
    let mut expected = STANDARD.iter();
    let mut is_there = [false; STANDARD.len()];
    for (node, told) in list.into_iter().zip(told) {
        if is_told == Some(true)
            && let Some(standard) = expected.next()
        {
            let edited = node.wrong("is not the standard one that org.zind.system_mounts stands for; take that away");
            if !standard.is_meant(&Entry::read(node)?) {
                return Err(edited);
            }
            continue;
        }
        if let Some(told) = told {
            let edited = node.wrong("is not what org.zind.mounts stands for; take that away, or this back");
            let mount = Mount::read(told)?;
            if entry_of(&mount) != node.value {
                return Err(edited);
            }
            spec.mounts.push(mount);
            continue;
        }
        let path = node.path.clone();
        let entry = Entry::read(node)?;
        if is_told.is_none()
            && let Some(at) = STANDARD.iter().position(|standard| standard.is_at(&entry))
            && !is_there[at]
        {
            if STANDARD[at].is_meant(&entry) {
                is_there[at] = true;
                continue;
            }
            if STANDARD[at].target == "/dev" {
                let wrong = "is zind's own /dev, which has no other options than those of `runc spec`";
                return Err(super::node::wrong(&format!("{path}.options"), wrong));
            }
        }
        let mut mount = entry.mount().map_err(|rule| super::node::wrong(&path, rule))?;
        if is_told.is_none()
            && let (Some(_), None, IdMaps::Explicit { uid, gid }) = (mount.options.idmap, &mount.idmap, &spec.id_maps)
        {
            // Without maps of its own, those of the container.
            mount = mount.idmap(uid.clone(), gid.clone());
        }
        spec.mounts.push(mount);
    }
    if is_told == Some(true) && expected.next().is_some() {
        return Err(super::node::wrong("mounts", "has not the standard ones that org.zind.system_mounts stands for"));
    }
    Ok(())
}
