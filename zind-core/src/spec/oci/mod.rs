//! [`Spec`] to and from OCI's `config.json`, nothing lost.
//!
//! What both know is in OCI's fields. What OCI has no word for is in annotations, `org.zind.` and the name of the field, as
//! JSON text; only what differs from the meaning of a document without them is there, and none that is unknown is passed
//! over. A value of OCI that zind cannot carry out is an error by its name; properties that OCI does not know are ignored,
//! as it says.
//!
//! Source: <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md>
#![forbid(unsafe_code)]

mod extras;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod linux;
mod mounts;
mod node;
mod process;
#[cfg(test)]
mod tests;
mod typed;

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Hook, Hooks, LandlockPolicy, Overlay, Rootfs, Seccomp, Spec};
use crate::error::{At, Error, Result, Step};
use crate::image::json;
use crate::mount::What;
use extras::{In, Out};
use node::{Fields, Node, wrong};

/// As large as a document may be, in bytes.
const LARGEST: usize = 16 << 20;

impl Spec {
    /// What a document says that says nothing: no filter, no environment but its own, no process above the payload, and a
    /// root that is written to.
    fn of_oci() -> Spec {
        Spec {
            clear_env: true,
            overlay: Overlay::None,
            namespaces: Default::default(),
            no_new_privileges: false,
            seccomp: Seccomp::None,
            landlock: LandlockPolicy::None,
            init: false,
            ..Spec::default()
        }
    }

    /// The OCI `config.json` of this, with annotations for what OCI has no word for: [`Spec::from_oci`] gives the same again.
    ///
    /// The standard mounts and masks of a container are written out, so that another runtime makes much the same of it; a
    /// root that is no directory has a path at which there is nothing, so that it does not make something else.
    /// Errors: [`Error::Spec`] by the name of the field for what has no meaning outside of this process (a descriptor), or
    /// none at all; for a document of more than 16 MiB.
    /// Source: <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md>
    pub fn to_oci(&self) -> Result<String> {
        let text = format!("{:#}\n", document(self)?);
        if text.len() > LARGEST {
            return Err(Error::spec("config", format!("has {} bytes; {LARGEST} is the most", text.len())));
        }
        Ok(text)
    }

    /// From the text of an OCI `config.json` of version 1. Relative paths stay relative: to the directory of the process that
    /// starts it.
    ///
    /// Errors: [`Error::Spec`] for what is no such document, or larger than 16 MiB, and for what zind cannot do; the field is
    /// OCI's (`"linux.seccomp"`), the rule says what is wrong where.
    pub fn from_oci(text: &str) -> Result<Spec> {
        if text.len() > LARGEST {
            return Err(Error::spec("config", format!("has {} bytes; {LARGEST} is the most", text.len())));
        }
        let value = json::strict(text).map_err(|error| Error::spec("config", format!("is no JSON: {error}")))?;
        spec_of(Node { path: String::new(), value })
    }

    /// From an OCI bundle: a directory with a `config.json`, or the path of such a file. Relative paths mean what is in that
    /// directory.
    ///
    /// Errors: as of [`Spec::from_oci`]; [`Error::Sys`] at [`Step::Config`] if the file cannot be read.
    /// Source: <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/bundle.md>
    pub fn from_bundle(path: impl AsRef<Path>) -> Result<Spec> {
        let mut file = std::path::absolute(&path).at(Step::Config, "getcwd", &path)?;
        if file.is_dir() {
            file.push("config.json");
        }
        let directory = file.parent().unwrap_or(Path::new("/"));
        let mut spec = Spec::from_oci_file(&file)?;
        if let Rootfs::Path(path) = &mut spec.rootfs {
            *path = directory.join(&path);
        }
        for mount in &mut spec.mounts {
            if let What::Bind { source, .. } = &mut mount.what {
                *source = directory.join(&source);
            }
        }
        Ok(spec)
    }

    /// From a file with such a document.
    ///
    /// Errors: as of [`Spec::from_oci`]; [`Error::Sys`] at [`Step::Config`] if the file cannot be read.
    pub fn from_oci_file(path: impl AsRef<Path>) -> Result<Spec> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        // A FIFO or a terminal must not keep us waiting.
        let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.at(Step::Config, "open", path)?;
        file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).at(Step::Config, "read", path)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::spec("config", "is no UTF-8"))?;
        Spec::from_oci(&text)
    }
}

fn document(spec: &Spec) -> Result<Value> {
    check(spec)?;
    let mut out = Out::default();
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
    put("ociVersion", json!(version_of(spec)));
    put("process", process::write(spec, &mut out)?);
    put("root", root_of(spec, &mut out));
    for (name, text) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        if let Some(text) = text {
            put(name, json!(text));
        }
    }
    put("mounts", mounts::write(spec, &mut out));
    if !spec.hooks.is_empty() {
        put("hooks", hooks_of(&spec.hooks, &mut out)?);
    }
    put("linux", linux::write(spec, &mut out)?);
    extras::write(spec, &mut out);
    put("annotations", out.annotations(&spec.annotations)?);
    Ok(Value::Object(all))
}

/// The first version that has all the words of it: some runtimes refuse what is newer than they are.
fn version_of(spec: &Spec) -> &'static str {
    if spec.mounts.iter().any(|mount| mount.idmap.is_some() || mount.options.idmap.is_some()) {
        return "1.2.0";
    }
    let has_newer_limits = |resources: &super::Resources| {
        resources.cpu_idle.is_some() || resources.cpu_burst_us.is_some() || resources.oom_kill_disable.is_some()
    };
    let is_newer = spec.domainname.is_some()
        || spec.scheduler.is_some()
        || spec.namespaces.contains_key(&super::Kind::Time)
        || spec.resources.as_ref().is_some_and(has_newer_limits)
        || spec.mounts.iter().any(|mount| mount.options.all != Default::default());
    if is_newer { "1.1.0" } else { "1.0.2" }
}

/// What cannot be written down.
fn check(spec: &Spec) -> Result<()> {
    let none = |field, is_set: bool| match is_set {
        true => Err(Error::spec(field, "is a descriptor, which only this process has: it cannot be written down")),
        false => Ok(()),
    };
    let is_fd = |stdio: &super::Stdio| matches!(stdio, super::Stdio::Fd(_));
    none("stdin", is_fd(&spec.stdin))?;
    none("stdout", is_fd(&spec.stdout))?;
    none("stderr", is_fd(&spec.stderr))?;
    none("pass_fds", !spec.pass_fds.is_empty())?;
    none("console", matches!(spec.console, Some(super::Console::Fd(_))))?;
    none("cgroup_fd", spec.cgroup.is_some())?;
    none("namespaces", spec.namespaces.values().any(|source| matches!(source, super::Source::Fd(_))))
}

fn spec_of(document: Node) -> Result<Spec> {
    let mut all = document.fields()?;
    check_version(all.need("ociVersion")?)?;
    for name in ["solaris", "windows", "vm", "zos", "freebsd"] {
        all.refuse(name, "is for another platform")?;
    }
    let mut spec = Spec::of_oci();
    let mut from = In::of(all.object("annotations")?, &mut spec.annotations)?;
    if let Some(process) = all.take("process") {
        process::read(process.fields()?, &mut spec, &mut from)?;
    }
    read_root(all.take("root"), &mut spec, &mut from)?;
    spec.hostname = all.text("hostname")?;
    spec.domainname = all.text("domainname")?;
    read_hooks(all.object("hooks")?, &mut spec.hooks, &mut from)?;
    let mounts = all.list("mounts")?;
    linux::read(all.object("linux")?, &mut spec, &mut from)?;
    mounts::read(mounts, &mut spec, &mut from)?;
    extras::read(&mut spec, &mut from)?;
    from.end()?;
    Ok(spec)
}

/// The versions of one major number can all be read.
fn check_version(node: Node) -> Result<()> {
    let error = node.wrong("is no version that is known: 1.0.0 to 1.x");
    let text = node.text()?;
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = numbers.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() == 3 && parts[0] == "1" && parts.iter().all(is_number) { Ok(()) } else { Err(error) }
}

/// At which there is nothing, for roots that are no directory.
fn placeholder(rootfs: &Rootfs) -> Option<&'static str> {
    match rootfs {
        Rootfs::Path(_) => None,
        Rootfs::Host => Some("zind:host"),
        Rootfs::Image(_) => Some("zind:image"),
        Rootfs::Lowers(_) => Some("zind:lowers"),
        Rootfs::Layers(_) => Some("zind:layers"),
        Rootfs::Unchanged => Some("zind:unchanged"),
    }
}

fn root_of(spec: &Spec, out: &mut Out) -> Value {
    let path = match (&spec.rootfs, placeholder(&spec.rootfs)) {
        (Rootfs::Path(path), _) => out.texts.os("root.path".to_owned(), path.as_os_str()),
        (rootfs, name) => {
            out.typed("rootfs", rootfs);
            json!(name)
        }
    };
    json!({"path": path, "readonly": spec.read_only})
}

fn read_root(root: Option<Node>, spec: &mut Spec, from: &mut In) -> Result<()> {
    let Some(root) = root else { return Err(wrong("root", "is missing")) };
    let mut root = root.fields()?;
    spec.read_only = root.flag("readonly")?;
    let path = root.need("path")?;
    let edited = path.wrong("is not what org.zind.rootfs stands for; take that away, or this back");
    let empty = path.wrong("is empty");
    let path = path.path(&mut from.bytes)?;
    spec.rootfs = match from.typed("rootfs")? {
        Some(rootfs) if placeholder(&rootfs).is_some_and(|name| Path::new(name) != path) => return Err(edited),
        Some(Rootfs::Path(_)) => return Err(edited),
        Some(rootfs) => rootfs,
        None if path.as_os_str().is_empty() => return Err(empty),
        None => Rootfs::Path(path),
    };
    Ok(())
}

fn hooks_of(hooks: &Hooks, out: &mut Out) -> Result<Value> {
    let mut all = Map::new();
    for (name, list) in hooks.lists() {
        let mut values = Vec::new();
        for (index, Hook { path, args, env, timeout }) in list.iter().enumerate() {
            let at = format!("hooks.{name}[{index}]");
            let mut hook = Map::new();
            hook.insert("path".to_owned(), out.texts.os(format!("{at}.path"), path.as_os_str()));
            for (key, texts) in [("args", args), ("env", env)] {
                if !texts.is_empty() {
                    hook.insert(key.to_owned(), out.texts.list(&format!("{at}.{key}"), texts));
                }
            }
            if let Some(timeout) = timeout {
                if timeout.subsec_nanos() != 0 || timeout.is_zero() {
                    return Err(wrong(&at, "the timeout is no whole number of seconds from 1 on"));
                }
                hook.insert("timeout".to_owned(), json!(timeout.as_secs()));
            }
            values.push(Value::Object(hook));
        }
        if !values.is_empty() {
            all.insert(name.to_owned(), Value::Array(values));
        }
    }
    Ok(Value::Object(all))
}

fn read_hooks(mut all: Fields, hooks: &mut Hooks, from: &mut In) -> Result<()> {
    for (name, list) in hooks.lists_mut() {
        for node in all.list(name)? {
            let relative = node.wrong("the path is not absolute");
            let no_time = node.wrong("the timeout is not above 0");
            let mut hook = node.fields()?;
            let path = hook.need("path")?.path(&mut from.bytes)?;
            if !path.is_absolute() {
                return Err(relative);
            }
            let mut texts = |name| -> Result<Vec<_>> {
                hook.list(name)?.into_iter().map(|node| node.os(&mut from.bytes)).collect()
            };
            let (args, env) = (texts("args")?, texts("env")?);
            let timeout = hook.take("timeout").map(Node::u64).transpose()?.map(Duration::from_secs);
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Err(no_time);
            }
            list.push(Hook { path, args, env, timeout });
        }
    }
    Ok(())
}
