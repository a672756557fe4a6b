//! The default root: what of this machine a container sees, and what it gets of its own.
//!
//! It is a list of what is taken, not of what is left out: a directory that appears on the host tomorrow is not in it.
//! Files are taken only when everybody on the host may read them.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::ops::Op;

/// The directories with programs and libraries; links where `/usr` is merged.
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What programs read of `/etc`, and what is no secret of anybody's: files and whole directories.
const ETC: &[&str] = &[
    "adduser.conf",
    "alternatives",
    "bash.bashrc",
    "bash_completion",
    "bindresvport.blacklist",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debconf.conf",
    "debian_version",
    "deluser.conf",
    "environment.d",
    "ethertypes",
    "fonts",
    "gai.conf",
    "gprofng.rc",
    "host.conf",
    "inputrc",
    "issue",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "locale.gen",
    "localtime",
    "login.defs",
    "lsb-release",
    "magic",
    "magic.mime",
    "mime.types",
    "nanorc",
    "networks",
    "openldap/ldap.conf",
    "os-release",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "profile",
    "profile.d",
    "protocols",
    "python3",
    "redhat-release",
    "rpc",
    "services",
    "shells",
    "skel",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "system-release",
    "terminfo",
    "timezone",
    "vim",
    "wgetrc",
    "xattr.conf",
    "xdg",
];

/// Of `/var`: which packages are installed, for `dpkg -l` and `apt list`.
const VAR: &[&str] = &["lib/dpkg/status", "lib/dpkg/arch"];

const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/cache/apt", 0o755),
    ("var/cache/apt/archives", 0o755),
    ("var/cache/apt/archives/partial", 0o700),
    ("var/lib", 0o755),
    ("var/lib/apt", 0o755),
    ("var/lib/apt/lists", 0o755),
    ("var/lib/apt/lists/partial", 0o700),
    ("var/lib/dpkg", 0o755),
    ("var/lib/dpkg/info", 0o755),
    ("var/lib/dpkg/triggers", 0o755),
    ("var/lib/dpkg/updates", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// Larger files are none that programs need.
const LARGEST_FILE: u64 = 64 << 20;

/// The host name of a container that was given none.
pub(crate) const HOSTNAME: &str = "zind";

/// One piece of the skeleton.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Dir(PathBuf, u32),
    Link(PathBuf, PathBuf),
    File(PathBuf, u32, Vec<u8>),
    /// To be bound read-only from the host, where copying is too slow for a single start.
    Bind(PathBuf),
}

/// How whole directories of the host come into the skeleton.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trees {
    /// Copied: a skeleton that serves many starts.
    Copied,
    /// Bound: a skeleton for this start only.
    Bound,
}

/// The directories of programs that are real ones on this host; the others are links in the skeleton.
pub(crate) fn system_directories() -> Vec<&'static str> {
    let is_dir = |name: &&str| fs::symlink_metadata(Path::new("/").join(name)).is_ok_and(|meta| meta.is_dir());
    SYSTEM.into_iter().filter(is_dir).collect()
}

/// True if something is mounted below a directory of the system. The kernel does not let a user namespace look beneath such
/// a mount, so the directory cannot be the lower layer of an overlay there.
pub(crate) fn has_mounts_below(name: &str) -> bool {
    let prefix = format!("/{name}/");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| point.starts_with(&prefix)))
}

/// Everything of the default root but the system directories, parents first.
pub(crate) fn skeleton(trees: Trees) -> Vec<Entry> {
    let mut entries: Vec<Entry> = DIRECTORIES.iter().map(|&(path, mode)| Entry::Dir(path.into(), mode)).collect();
    for name in SYSTEM {
        match fs::symlink_metadata(Path::new("/").join(name)) {
            Ok(meta) if meta.is_dir() => entries.push(Entry::Dir(name.into(), 0o755)),
            Ok(meta) if meta.is_symlink() => take(&mut entries, Path::new(name), trees),
            _ => {}
        }
    }
    entries.push(Entry::Link("var/run".into(), "/run".into()));
    entries.push(Entry::Link("var/lock".into(), "/run/lock".into()));
    entries.push(Entry::Link("etc/mtab".into(), "/proc/self/mounts".into()));
    for (base, names) in [("etc", ETC), ("var", VAR)] {
        for name in names {
            take_with_parents(&mut entries, &Path::new(base).join(name), trees);
        }
    }
    for name in versioned_directories() {
        take(&mut entries, &Path::new("etc").join(name), trees);
    }
    entries.extend(generated("", &[]));
    entries
}

/// `/etc/python3.11`, `/etc/java-17-openjdk` and the like.
fn versioned_directories() -> Vec<String> {
    let Ok(list) = fs::read_dir("/etc") else { return Vec::new() };
    let mut names: Vec<String> = list
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("python3.") || name.starts_with("java-"))
        .collect();
    names.sort();
    names
}

/// A line of `/etc/passwd` for a user without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtraUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The files of `/etc` that are the container's own. `hostname`: empty for the default.
pub(crate) fn generated(hostname: &str, users: &[ExtraUser]) -> Vec<Entry> {
    let hostname = if hostname.is_empty() { HOSTNAME } else { hostname };
    let file = |path: &str, text: String| Entry::File(Path::new("etc").join(path), 0o644, text.into_bytes());
    let mut passwd = "root:x:0:0:root:/root:/bin/bash\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n".to_owned();
    let mut group = "root:x:0:\ntty:x:5:\n".to_owned();
    for user in users.iter().filter(|user| ![0, 42, 65534].contains(&user.uid)) {
        passwd += &format!("user:x:{}:{}:user:/home:/bin/bash\n", user.uid, user.gid);
    }
    for user in users.iter().filter(|user| ![0, 5, 65534].contains(&user.gid)) {
        group += &format!("user:x:{}:\n", user.gid);
    }
    passwd += "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
    group += "nogroup:x:65534:\n";
    vec![
        file("passwd", passwd),
        file("group", group),
        file("hostname", format!("{hostname}\n")),
        file("hosts", format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n")),
        file("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n".to_owned()),
        file("resolv.conf", "# no network\n".to_owned()),
    ]
}

/// The host's resolver configuration, for a container on the host's network.
pub(crate) fn resolv_conf() -> Option<Vec<u8>> {
    let path = Path::new("/etc/resolv.conf");
    let meta = fs::metadata(path).ok()?;
    (meta.is_file() && meta.len() < 1 << 16).then(|| fs::read(path).ok()).flatten()
}

fn take_with_parents(entries: &mut Vec<Entry>, path: &Path, trees: Trees) {
    if fs::symlink_metadata(Path::new("/").join(path)).is_err() {
        return;
    }
    let parents: Vec<&Path> = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
    for parent in parents.into_iter().rev() {
        let known = entries.iter().any(|entry| matches!(entry, Entry::Dir(dir, _) if dir == parent));
        if !known {
            entries.push(Entry::Dir(parent.to_owned(), 0o755));
        }
    }
    take(entries, path, trees);
}

/// What is in a directory, in no order, and whether it is a link.
fn list(dir: &Path) -> Option<Vec<(OsString, bool)>> {
    let entry = |entry: fs::DirEntry| (entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    Some(fs::read_dir(dir).ok()?.filter_map(|found| found.ok().map(entry)).collect())
}

/// True if everybody may read all of it: bound, a directory is had as a whole.
fn everybody_may_read(dir: &Path, entries: &[(OsString, bool)]) -> bool {
    entries.iter().filter(|(_, is_link)| !is_link).all(|(name, _)| {
        let path = dir.join(name);
        let Ok(meta) = fs::symlink_metadata(&path) else { return false };
        let mode = meta.permissions().mode();
        meta.is_file() && mode & 0o004 != 0
            || meta.is_dir()
                && mode & 0o005 == 0o005
                && list(&path).is_some_and(|list| everybody_may_read(&path, &list))
    })
}

/// Takes a file, link or directory of the host, if everybody may read it.
fn take(entries: &mut Vec<Entry>, path: &Path, trees: Trees) {
    let on_host = Path::new("/").join(path);
    let Ok(meta) = fs::symlink_metadata(&on_host) else { return };
    let mode = meta.permissions().mode();
    if meta.is_symlink() {
        if let Ok(target) = fs::read_link(&on_host) {
            entries.push(Entry::Link(path.to_owned(), target));
        }
    } else if meta.is_file() && mode & 0o004 != 0 && meta.len() <= LARGEST_FILE {
        match trees {
            // Of one start only, a mount costs less than a copy: each page is written four times on its way.
            Trees::Bound if meta.len() > 8 << 10 => entries.push(Entry::Bind(path.to_owned())),
            _ => {
                if let Ok(content) = fs::read(&on_host) {
                    entries.push(Entry::File(path.to_owned(), mode & 0o755, content));
                }
            }
        }
    } else if meta.is_dir() && mode & 0o005 == 0o005 {
        let Some(mut found) = list(&on_host) else { return };
        if trees == Trees::Bound && everybody_may_read(&on_host, &found) {
            entries.push(Entry::Bind(path.to_owned()));
            return;
        }
        entries.push(Entry::Dir(path.to_owned(), 0o755));
        found.sort();
        for (name, _) in found {
            take(entries, &path.join(name), trees);
        }
    }
}

/// The operations that make `entries` below `base`, a path of the staging area.
pub(crate) fn operations(entries: Vec<Entry>, base: &str) -> Vec<Op> {
    let below = |path: &Path| c_path_below(base, path);
    entries
        .into_iter()
        .filter_map(|entry| {
            Some(match entry {
                Entry::Dir(path, mode) => Op::mkdir(&below(&path)?, mode),
                Entry::Link(path, target) => {
                    Op::symlink(&CString::new(target.as_os_str().as_bytes()).ok()?, &below(&path)?)
                }
                Entry::File(path, mode, content) => Op::file(&below(&path)?, mode, content),
                Entry::Bind(_) => return None,
            })
        })
        .collect()
}

fn c_path_below(base: &str, path: &Path) -> Option<CString> {
    let mut bytes = base.as_bytes().to_vec();
    bytes.push(b'/');
    bytes.extend_from_slice(OsStr::new(path).as_bytes());
    CString::new(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_skeleton_is_private() {
        for entry in skeleton(Trees::Copied).into_iter().chain(skeleton(Trees::Bound)) {
            let (Entry::Dir(path, _) | Entry::Link(path, _) | Entry::File(path, ..) | Entry::Bind(path)) = &entry;
            let text = path.to_string_lossy();
            for secret in ["shadow", "private", "sudoers", "ssh"] {
                assert!(!text.split('/').any(|part| part == secret), "{text} is in the skeleton");
            }
        }
    }

    #[test]
    fn a_directory_with_a_private_file_is_not_bound() {
        let dir = std::env::temp_dir().join(format!("zind-host-test-{}", std::process::id()));
        fs::create_dir_all(dir.join("below")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("link")).unwrap();
        for name in ["a", "b", "below/c"] {
            fs::write(dir.join(name), name).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let taken = || {
            let mut entries = Vec::new();
            take(&mut entries, dir.strip_prefix("/").unwrap(), Trees::Bound);
            entries
        };
        for path in [dir.clone(), dir.join("below")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(taken(), [Entry::Bind(dir.strip_prefix("/").unwrap().to_owned())]);
        fs::set_permissions(dir.join("below/c"), fs::Permissions::from_mode(0o600)).unwrap();
        let entries = taken();
        fs::remove_dir_all(&dir).unwrap();
        let has = |name: &str| {
            entries
                .iter()
                .any(|entry| matches!(entry, Entry::File(path, ..) if Path::new("/").join(path) == dir.join(name)))
        };
        assert!(
            has("a") && has("b") && !has("below/c") && !entries.iter().any(|entry| matches!(entry, Entry::Bind(_))),
            "{entries:?}"
        );
    }

    #[test]
    fn parents_come_first() {
        for trees in [Trees::Copied, Trees::Bound] {
            let mut seen = vec![PathBuf::new()];
            for entry in skeleton(trees) {
                let (Entry::Dir(path, _) | Entry::Link(path, _) | Entry::File(path, ..) | Entry::Bind(path)) = &entry;
                let parent = path.parent().unwrap().to_owned();
                assert!(seen.contains(&parent), "{} before its parent", path.display());
                assert!(!seen.contains(path), "{} twice", path.display());
                seen.push(path.clone());
            }
        }
    }

    #[test]
    fn a_single_start_gets_nothing_that_others_do_not_get() {
        let paths = |trees| -> Vec<PathBuf> {
            let path = |entry| match entry {
                Entry::Dir(path, _) | Entry::Link(path, _) | Entry::File(path, ..) | Entry::Bind(path) => path,
            };
            skeleton(trees).into_iter().map(path).collect()
        };
        let copied = paths(Trees::Copied);
        for path in paths(Trees::Bound) {
            assert!(copied.contains(&path), "{}", path.display());
        }
    }

    #[test]
    fn an_extra_user_has_a_line() {
        let entries = generated("box", &[ExtraUser { uid: 1000, gid: 100 }]);
        let text = |name: &str| {
            entries.iter().find_map(|entry| match entry {
                Entry::File(path, _, content) if path.ends_with(name) => String::from_utf8(content.clone()).ok(),
                _ => None,
            })
        };
        assert!(text("passwd").unwrap().contains("user:x:1000:100:"));
        assert!(text("hosts").unwrap().contains("127.0.1.1\tbox"));
    }
}
