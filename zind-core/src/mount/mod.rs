//! Mounts that a caller asks for: what comes where, with which options.
#![forbid(unsafe_code)]

pub mod flags;
pub(crate) mod options;

use std::fmt;
use std::path::{Path, PathBuf};

use flags::{MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_STRICTATIME};
use nix::libc;

use crate::error::{Error, Result};
use crate::namespace::idmap::{self, IdMap};
use crate::rootfs::ops::attr;
use crate::volume::check_name;
use options::Options;

/// One mount of a container.
///
/// Made by [`Mount::bind`], [`Mount::tmpfs`] and the like, or from the words of OCI and mount(8) by [`Mount::new`]. Unless
/// an option says `suid` or `dev`, set-user-ID bits and device nodes in it have no effect. A target that is missing is made,
/// part by part below the container's root, and never through a symbolic link out of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Mount {
    pub(crate) what: What,
    pub(crate) target: PathBuf,
    pub(crate) options: Options,
    pub(crate) create: bool,
    pub(crate) idmap: Option<MountIds>,
    /// [`Mount::size`] was given 0.
    pub(crate) has_no_room: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Bind { source: PathBuf, recursive: bool },
    FileSystem { kind: String, source: Option<PathBuf> },
    Overlay { lower: Vec<PathBuf>, upper: Option<(PathBuf, PathBuf)> },
    File { content: Vec<u8>, mode: u32 },
    Volume(NamedVolume),
}

/// A volume by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedVolume {
    pub(crate) name: String,
    /// Where volumes are, if not at the usual place.
    pub(crate) place: Option<PathBuf>,
    pub(crate) copy_up: bool,
    /// Its content, once a start has found it.
    pub(crate) data: Option<PathBuf>,
}

/// The ids of an idmapped bind: mount_setattr(2), `MOUNT_ATTR_IDMAP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountIds {
    pub(crate) uid: Vec<IdMap>,
    pub(crate) gid: Vec<IdMap>,
}

/// The kernel's limit of layers: `OVL_MAX_STACK`.
const MOST_LAYERS: usize = 500;

impl Mount {
    fn of(what: What, target: impl Into<PathBuf>) -> Mount {
        Mount {
            what,
            target: target.into(),
            options: Options::default(),
            create: true,
            idmap: None,
            has_no_room: false,
        }
    }

    /// A file or directory of the host, writable, with the mounts below it.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Mount {
        Mount::of(What::Bind { source: source.into(), recursive: true }, target)
    }

    /// The same, and nothing below it can be changed.
    pub fn bind_read_only(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Mount {
        Mount::bind(source, target).read_only(true)
    }

    /// A tmpfs everybody in the container may write to. Options: `size=`, `mode=`, `nr_inodes=` and others of tmpfs(5).
    pub fn tmpfs(target: impl Into<PathBuf>) -> Mount {
        let mut mount = Mount::file_system("tmpfs", target);
        mount.set_data("mode", "1777");
        mount
    }

    /// A new file system without a source: `"proc"`, `"sysfs"`, `"devpts"`, `"mqueue"`, `"cgroup2"`, `"ramfs"`.
    pub fn file_system(kind: impl Into<String>, target: impl Into<PathBuf>) -> Mount {
        Mount::of(What::FileSystem { kind: kind.into(), source: None }, target)
    }

    /// Directories of the host as one, the topmost first: `Documentation/filesystems/overlayfs.rst` of the kernel. Changes
    /// are kept in memory and gone with the container. The names of the directories may hold any character.
    pub fn overlay(target: impl Into<PathBuf>, lower: impl IntoIterator<Item = impl Into<PathBuf>>) -> Mount {
        let lower = lower.into_iter().map(Into::into).collect();
        Mount::of(What::Overlay { lower, upper: None }, target)
    }

    /// A file with these bytes and this mode, in memory. Nothing is written to the root but, where it is missing, an empty
    /// file as a place for it.
    pub fn file(target: impl Into<PathBuf>, content: impl Into<Vec<u8>>, mode: u32) -> Mount {
        Mount::of(What::File { content: content.into(), mode }, target)
    }

    /// A named directory that outlives the container; made by the first start that mounts it ([`Volumes`](crate::Volumes)).
    ///
    /// A fresh volume begins with a copy of what the root has at `target`, with its owners and modes, also those of the
    /// directory itself; whatever happens during the copy, it is there as a whole or not at all, and it is made once. While
    /// a container has the volume, nobody can remove it. With [`Mount::idmap`] ids are mapped as of a bind; the copy is made
    /// with the ids of the root.
    pub fn volume(name: impl Into<String>, target: impl Into<PathBuf>) -> Mount {
        let volume = NamedVolume { name: name.into(), place: None, copy_up: true, data: None };
        Mount::of(What::Volume(volume), target)
    }

    /// Of a volume: look for it in this directory, instead of the usual place ([`Volumes::open`](crate::Volumes::open)).
    #[must_use]
    pub fn volumes_in(mut self, directory: impl Into<PathBuf>) -> Mount {
        if let What::Volume(volume) = &mut self.what {
            volume.place = Some(directory.into());
        }
        self
    }

    /// Of a volume: begin a fresh one with what the root has at the target (the default), or empty, as `nocopy` of Docker.
    #[must_use]
    pub fn copy_up(mut self, on: bool) -> Mount {
        if let What::Volume(volume) = &mut self.what {
            volume.copy_up = on;
        }
        self
    }

    /// Any mount in the words of OCI's runtime-spec: a type (`"bind"` or `"none"` with the option `bind` or `rbind`, else a
    /// file system), a source, a target and options such as `"ro"`, `"rslave"`, `"size=1m"`. The type `"volume"` has the name of
    /// a volume as its source, and the option `"nocopy"`.
    ///
    /// Errors: [`Error::Spec`] for options that exclude each other, or that a bind does not have.
    /// Source: <https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts>
    pub fn new<'a>(
        kind: &str,
        source: Option<&Path>,
        target: impl Into<PathBuf>,
        options: impl IntoIterator<Item = &'a str>,
    ) -> Result<Mount> {
        let mut options = Options::parse(options)?;
        let is_bind = options.bind.is_some() || kind == "bind" || kind == "rbind";
        let what = if is_bind && !options.remount {
            let recursive = options.bind.unwrap_or(kind == "rbind");
            let source = source.ok_or_else(|| Error::spec("mounts", "a bind needs a source"))?.to_owned();
            What::Bind { source, recursive }
        } else if kind == "overlay" {
            overlay_of(&mut options)?
        } else if kind == "volume" {
            let name = source.and_then(Path::to_str).ok_or_else(|| Error::spec("mounts", "a volume needs a name"))?;
            let copy_up = !options.data.iter().any(|(name, _)| name == "nocopy");
            options.data.retain(|(name, _)| name != "nocopy");
            What::Volume(NamedVolume { name: name.to_owned(), place: None, copy_up, data: None })
        } else {
            // What stands for no source in the language of mount(8).
            let source = source.filter(|source| source.is_absolute()).map(Path::to_owned);
            What::FileSystem { kind: kind.to_owned(), source }
        };
        // What it is says so already.
        options.bind = None;
        Ok(Mount { options, ..Mount::of(what, target) })
    }

    /// More options, in the words of [`Mount::new`]: `mount.with_options(["noexec", "rslave"])`.
    pub fn with_options<'a>(mut self, options: impl IntoIterator<Item = &'a str>) -> Result<Mount> {
        let more = Options::parse(options)?;
        let old = std::mem::take(&mut self.options);
        let join = |a: options::Change, b: options::Change| options::Change {
            set: a.set & !b.clear | b.set,
            clear: a.clear & !b.set | b.clear,
        };
        let mut data = old.data;
        data.retain(|(name, _)| !more.data.iter().any(|(other, _)| other == name));
        data.extend(more.data.clone());
        self.options = Options {
            top: join(old.top, more.top),
            all: join(old.all, more.all),
            propagation: if more.propagation != 0 { more.propagation } else { old.propagation },
            super_flags: old.super_flags & !more.super_off | more.super_flags,
            super_off: old.super_off & !more.super_flags | more.super_off,
            data,
            bind: None,
            ..more
        };
        Ok(self)
    }

    /// Nothing of it can be changed, and of a recursive bind nothing of the mounts below it either.
    #[must_use]
    pub fn read_only(mut self, on: bool) -> Mount {
        let change = if matches!(self.what, What::Bind { .. } | What::Volume(_)) {
            &mut self.options.all
        } else {
            &mut self.options.top
        };
        change.set = change.set & !attr::RDONLY | if on { attr::RDONLY } else { 0 };
        self
    }

    /// Of a bind: with the mounts below the source.
    #[must_use]
    pub fn recursive(mut self, on: bool) -> Mount {
        if let What::Bind { recursive, .. } = &mut self.what {
            *recursive = on;
        }
        self
    }

    /// Limit in bytes of a tmpfs; 0 is refused, which tmpfs(5) takes for no limit at all.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Mount {
        self.has_no_room = bytes == 0;
        self.set_data("size", &bytes.to_string());
        self
    }

    /// Mode of the top directory of a tmpfs, or of a file.
    #[must_use]
    pub fn mode(mut self, bits: u32) -> Mount {
        match &mut self.what {
            What::File { mode, .. } => *mode = bits,
            _ => self.set_data("mode", &format!("{bits:o}")),
        }
        self
    }

    /// Make the target if it is missing (the default), or refuse.
    #[must_use]
    pub fn create(mut self, on: bool) -> Mount {
        self.create = on;
        self
    }

    /// Of an overlay: keep changes in these directories of the host, which are on one file system.
    #[must_use]
    pub fn upper(mut self, upper_dir: impl Into<PathBuf>, work_dir: impl Into<PathBuf>) -> Mount {
        if let What::Overlay { upper, .. } = &mut self.what {
            *upper = Some((upper_dir.into(), work_dir.into()));
        }
        self
    }

    /// Of a bind, for root: ids of the source (`container` of each map) are the host's ids `host` in the container. So with a
    /// map of 1000 to 0, what is user 1000's on the disk is root's in a container without a user namespace, and new files
    /// of that user are 1000's on the disk. Source: mount_setattr(2), "ID-mapped mounts" (Linux 5.12).
    #[must_use]
    pub fn idmap(mut self, uid: Vec<IdMap>, gid: Vec<IdMap>) -> Mount {
        self.idmap = Some(MountIds { uid, gid });
        self
    }

    /// Nothing of it can be changed.
    pub fn is_read_only(&self) -> bool {
        (self.options.top.set | self.options.all.set) & attr::RDONLY != 0
    }

    fn set_data(&mut self, name: &str, value: &str) {
        self.options.data.retain(|(other, _)| other != name);
        self.options.data.push((name.to_owned(), value.to_owned()));
    }

    /// Where it is in the container.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// `"bind"`, `"overlay"`, `"file"`, `"volume"`, or the type of the file system.
    pub fn kind(&self) -> &str {
        match &self.what {
            What::Bind { .. } => "bind",
            What::Overlay { .. } => "overlay",
            What::File { .. } => "file",
            What::Volume(_) => "volume",
            What::FileSystem { kind, .. } => kind,
        }
    }

    pub(crate) fn source(&self) -> Option<&Path> {
        match &self.what {
            What::Bind { source, .. } => Some(source),
            What::FileSystem { source, .. } => source.as_deref(),
            What::Volume(volume) => volume.data.as_deref(),
            What::Overlay { .. } | What::File { .. } => None,
        }
    }

    /// Whether files of the host, or of a volume, are seen in it.
    pub(crate) fn is_of_host(&self) -> bool {
        match &self.what {
            What::Bind { .. } | What::Overlay { .. } | What::Volume(_) => true,
            What::FileSystem { kind, source } => {
                source.is_some() && !matches!(kind.as_str(), "tmpfs" | "proc" | "sysfs")
            }
            What::File { .. } => false,
        }
    }

    pub(crate) fn is_recursive(&self) -> bool {
        matches!(self.what, What::Bind { recursive: true, .. })
    }

    /// The attributes that the mount itself has, by their names.
    pub(crate) fn attributes(&self) -> Vec<&'static str> {
        const NAMES: [(u64, &str); 8] = [
            (attr::RDONLY, "ro"),
            (attr::NOSUID, "nosuid"),
            (attr::NODEV, "nodev"),
            (attr::NOEXEC, "noexec"),
            (MOUNT_ATTR_NOATIME, "noatime"),
            (MOUNT_ATTR_STRICTATIME, "strictatime"),
            (MOUNT_ATTR_NODIRATIME, "nodiratime"),
            (MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"),
        ];
        let set = (self.options.all.set | self.protected()) & !self.options.top.clear | self.options.top.set;
        NAMES.iter().filter(|(bit, _)| set & bit != 0).map(|(_, name)| *name).collect()
    }

    pub(crate) fn propagation(&self) -> &'static str {
        match self.options.propagation & !libc::MS_REC {
            libc::MS_SHARED => "shared",
            libc::MS_SLAVE => "slave",
            libc::MS_UNBINDABLE => "unbindable",
            _ => "private",
        }
    }

    /// What an error calls it.
    fn name(&self) -> String {
        format!("{} at {}", self.kind(), self.target.display())
    }

    pub(crate) fn check(&self, index: usize) -> Result<()> {
        let refuse = |rule: &str| Err(Error::spec("mounts", format!("[{index}] {}: {rule}", self.name())));
        if !self.target.is_absolute() {
            return refuse("the target is not absolute");
        }
        if self.options.idmap.is_some() && self.idmap.is_none() {
            return refuse("idmap needs the maps");
        }
        if self.has_no_room {
            return refuse("size is 0, which tmpfs takes for no limit at all");
        }
        if let Some(ids) = &self.idmap {
            idmap::check("mounts", &ids.uid)?;
            idmap::check("mounts", &ids.gid)?;
        }
        match &self.what {
            What::Bind { .. } if !self.options.data.is_empty() || self.options.super_flags != 0 => {
                let name = self.options.data.first().map_or("sync", |(name, _)| name.as_str());
                refuse(&format!("a bind has no option {name:?}; the file system was configured when it was mounted"))
            }
            What::Bind { .. } if self.options.copy_up => refuse("tmpcopyup is for a tmpfs"),
            What::Bind { source, .. } if source.as_os_str().is_empty() => refuse("the source is empty"),
            What::Bind { .. } => Ok(()),
            What::Volume(_) if !self.options.data.is_empty() || self.options.super_flags != 0 => {
                let name = self.options.data.first().map_or("sync", |(name, _)| name.as_str());
                refuse(&format!("a volume has no option {name:?}"))
            }
            What::Volume(_) if self.options.copy_up => refuse("tmpcopyup is for a tmpfs"),
            What::Volume(volume) => match check_name(&volume.name) {
                Err(Error::Spec { rule, .. }) => refuse(&rule),
                result => result,
            },
            _ if self.idmap.is_some() => refuse("idmap is for binds and volumes"),
            _ if self.options.copy_symlink || self.options.source_nofollow => {
                refuse("copy-symlink and src-nofollow are for binds")
            }
            What::FileSystem { kind, .. } if kind.is_empty() => refuse("the type is empty"),
            What::FileSystem { kind, .. } if self.options.copy_up && kind != "tmpfs" => {
                refuse("tmpcopyup is for a tmpfs")
            }
            What::Overlay { lower, .. } if lower.is_empty() => refuse("it needs a lower directory"),
            What::Overlay { lower, .. } if lower.len() > MOST_LAYERS => {
                refuse(&format!("{} lower directories; the kernel takes {MOST_LAYERS}", lower.len()))
            }
            _ => Ok(()),
        }
    }

    /// What sets or clears attributes by default: no set-user-ID, no devices (but for devpts).
    pub(crate) fn protected(&self) -> u64 {
        let wanted = match self.kind() {
            "devpts" => attr::NOSUID | attr::NOEXEC,
            "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2" => attr::NOSUID | attr::NODEV | attr::NOEXEC,
            _ => attr::NOSUID | attr::NODEV,
        };
        wanted & !self.options.top.clear & !self.options.all.clear
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Mount");
        text.field("type", &self.kind()).field("target", &self.target);
        match &self.what {
            What::Bind { source, .. } | What::FileSystem { source: Some(source), .. } => {
                text.field("source", source);
            }
            What::Overlay { lower, .. } => {
                text.field("lower", lower);
            }
            What::Volume(volume) => {
                text.field("name", &volume.name);
            }
            _ => {}
        }
        text.finish_non_exhaustive()
    }
}

/// The layers among the options of an overlay. A colon divides directories, and a backslash takes its meaning away.
fn overlay_of(options: &mut Options) -> Result<What> {
    let mut take = |name: &str| {
        let index = options.data.iter().position(|(other, _)| other == name)?;
        Some(options.data.remove(index).1)
    };
    let lower = take("lowerdir").map(|text| divide(&text)).unwrap_or_default();
    let upper = match (take("upperdir"), take("workdir")) {
        (Some(upper), Some(work)) => Some((PathBuf::from(upper), PathBuf::from(work))),
        (None, None) => None,
        _ => return Err(Error::spec("mounts", "upperdir and workdir go together")),
    };
    Ok(What::Overlay { lower, upper })
}

fn divide(text: &str) -> Vec<PathBuf> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, parts.last_mut()) {
            ('\\', Some(part)) => part.extend(chars.next()),
            (':', _) => parts.push(String::new()),
            (other, Some(part)) => part.push(other),
            _ => {}
        }
    }
    parts.into_iter().filter(|part| !part.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowerdir_is_divided_at_colons_that_are_not_escaped() {
        let parts = |text| divide(text);
        assert_eq!(parts("/a:/b"), [Path::new("/a"), Path::new("/b")]);
        assert_eq!(parts(r"/a\:b:/c\\d:/e\,f"), [Path::new("/a:b"), Path::new(r"/c\d"), Path::new("/e,f")]);
        assert_eq!(parts(r"/a\"), [Path::new("/a")]);
        assert!(parts("").is_empty());
    }

    #[test]
    fn types_and_options_decide_what_it_is() {
        let new = |kind, source: Option<&str>, options: &[&str]| {
            Mount::new(kind, source.map(Path::new), "/t", options.iter().copied())
        };
        let bind = |recursive| What::Bind { source: "/s".into(), recursive };
        assert_eq!(new("bind", Some("/s"), &["rbind"]).unwrap().what, bind(true));
        assert_eq!(new("none", Some("/s"), &["bind", "ro"]).unwrap().what, bind(false));
        assert_eq!(
            new("tmpfs", Some("tmpfs"), &[]).unwrap().what,
            What::FileSystem { kind: "tmpfs".into(), source: None }
        );
        let disk = What::FileSystem { kind: "ext4".into(), source: Some("/dev/x".into()) };
        assert_eq!(new("ext4", Some("/dev/x"), &[]).unwrap().what, disk);
        let volume = |copy_up| What::Volume(NamedVolume { name: "v".into(), place: None, copy_up, data: None });
        assert_eq!(new("volume", Some("v"), &["ro"]).unwrap().what, volume(true));
        assert_eq!(new("volume", Some("v"), &["nocopy"]).unwrap().what, volume(false));
        assert!(new("volume", None, &[]).is_err());
        assert!(new("bind", None, &[]).is_err());
        assert!(new("overlay", None, &["lowerdir=/a", "upperdir=/b"]).is_err());
    }

    #[test]
    fn broken_rules_name_the_mount() {
        let cases = [
            Mount::tmpfs("tmp"),
            Mount::bind("/a", "/b").with_options(["size=1m"]).unwrap(),
            Mount::bind("/a", "/b").with_options(["tmpcopyup"]).unwrap(),
            Mount::bind("", "/b"),
            Mount::overlay("/b", [] as [&str; 0]),
            Mount::overlay("/b", vec!["/x"; 501]),
            Mount::file_system("", "/b"),
            Mount::volume("a/b", "/b"),
            Mount::volume("..", "/b"),
            Mount::volume("v", "b"),
            Mount::volume("v", "/b").with_options(["size=1m"]).unwrap(),
            Mount::tmpfs("/b").size(0),
            Mount::tmpfs("/b").idmap(vec![IdMap { container: 0, host: 0, size: 1 }], vec![]),
        ];
        for mount in cases {
            let error = mount.check(7).unwrap_err();
            assert_eq!(error.field(), Some("mounts"), "{mount:?}");
        }
    }
}
