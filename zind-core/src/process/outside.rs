//! The isolation report compared with the process itself, which stands ready but for its filter: what `require` asks for.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::measured::error;
use crate::error::{At, Error, Result, Step};
use crate::isolation::{Isolation, MountReport};
use crate::proc::{Proc, Status, unescape_path};
use crate::security::capabilities::CapSet;
use crate::spec::Kind;

/// Fails with the first difference; else the report says that it was read from outside, too. The process waits for us, so that
/// its number is its own.
pub(super) fn check(pid: i32, isolation: &mut Isolation) -> Result<()> {
    let process = Proc::open(pid)?;
    namespaces(&process, isolation)?;
    status(&process.status()?, isolation)?;
    let maps = process.id_maps()?;
    let maps = [("uid_map", &isolation.uid_map, maps.uid), ("gid_map", &isolation.gid_map, maps.gid)];
    for (file, wanted, found) in maps.into_iter().filter(|_| isolation.namespaces.get(&Kind::User) == Some(&"new")) {
        if !wanted.is_empty() && *wanted != found {
            return Err(error("read", file, &format!("expected {wanted:?}, found {found:?}")));
        }
    }
    limits(pid, isolation)?;
    groups(&process, isolation)?;
    mounts(pid, isolation)?;
    isolation.measured = "outside";
    Ok(())
}

fn namespaces(process: &Proc, isolation: &Isolation) -> Result<()> {
    let (ours, theirs) = (Proc::current()?.namespaces()?, process.namespaces()?);
    for (kind, how) in &isolation.namespaces {
        let find =
            |list: &[(Kind, crate::proc::NamespaceId)]| list.iter().find(|(other, _)| other == kind).map(|(_, id)| *id);
        let (Some(our), Some(their)) = (find(&ours), find(&theirs)) else { continue };
        let is_same = our == their;
        if (*how == "new" && is_same) || (*how == "host" && !is_same) {
            let found = if is_same { "the caller's" } else { "another one" };
            return Err(error("readlink", kind.name(), &format!("expected {how}, found {found}")));
        }
    }
    Ok(())
}

fn status(status: &Status, isolation: &Isolation) -> Result<()> {
    if let (Some((uid, gid)), Some(uids), Some(gids)) = (isolation.user, status.uids(), status.gids())
        && isolation.uid_map.is_empty()
        && isolation.namespaces.get(&Kind::User) == Some(&"host")
        && (uids != [uid; 4] || gids != [gid; 4])
    {
        return Err(error("read", "user", &format!("expected {uid}:{gid}, found {}:{}", uids[1], gids[1])));
    }
    if let (Some(wanted), Some(found)) = (isolation.capabilities, status.capabilities()) {
        let all = found.effective | found.permitted | found.inheritable | found.bounding | found.ambient;
        let beyond = CapSet(all).difference(wanted);
        if !beyond.is_empty() {
            return Err(error("read", "capabilities", &format!("expected {wanted}, found {beyond} besides")));
        }
    }
    match status.no_new_privs() {
        Some(found) if isolation.no_new_privileges && !found => {
            Err(error("read", "no_new_privileges", "expected it to be set, found that it is not"))
        }
        _ => Ok(()),
    }
}

/// `/proc/<pid>/limits`: proc_pid_limits(5).
fn limits(pid: i32, isolation: &Isolation) -> Result<()> {
    if isolation.rlimit_values.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{pid}/limits");
    let text = std::fs::read_to_string(&path).at(Step::Proc, "read", &path)?;
    for (name, wanted) in &isolation.rlimit_values {
        let found = limit(&text, name);
        if found != Some((wanted.soft, wanted.hard)) {
            let shown = |value: Option<u64>| value.map_or("unlimited".to_owned(), |value| value.to_string());
            let both = |(soft, hard)| format!("{}:{}", shown(soft), shown(hard));
            let words = found.map_or("none".to_owned(), both);
            let wanted = both((wanted.soft, wanted.hard));
            return Err(error("read", "rlimits", &format!("{name}: expected {wanted}, found {words}")));
        }
    }
    Ok(())
}

/// The soft and the hard limit of this name; `None` inside is unlimited.
fn limit(text: &str, name: &str) -> Option<(Option<u64>, Option<u64>)> {
    let title = match name {
        "cpu" => "Max cpu time",
        "fsize" => "Max file size",
        "data" => "Max data size",
        "stack" => "Max stack size",
        "core" => "Max core file size",
        "rss" => "Max resident set",
        "nproc" => "Max processes",
        "nofile" => "Max open files",
        "memlock" => "Max locked memory",
        "as" => "Max address space",
        "locks" => "Max file locks",
        "sigpending" => "Max pending signals",
        "msgqueue" => "Max msgqueue size",
        "nice" => "Max nice priority",
        "rtprio" => "Max realtime priority",
        "rttime" => "Max realtime timeout",
        _ => return None,
    };
    let mut words = text.lines().find_map(|line| line.strip_prefix(title))?.split_ascii_whitespace();
    let value = |word: &str| if word == "unlimited" { Some(None) } else { word.parse().ok().map(Some) };
    Some((value(words.next()?)?, value(words.next()?)?))
}

/// In each hierarchy the process is in the group that the report names. The names are zind's own, and no two are the same.
fn groups(process: &Proc, isolation: &Isolation) -> Result<()> {
    if isolation.cgroup.is_empty() {
        return Ok(());
    }
    let memberships = process.cgroup()?;
    for wanted in &isolation.cgroup {
        let is_in = |path: &Path| path.file_name().is_some() && path.file_name() == wanted.file_name();
        if !memberships.iter().any(|membership| is_in(Path::new(&membership.path))) {
            let found: Vec<_> = memberships.iter().map(|one| Path::new(&one.path).display().to_string()).collect();
            let words = format!("expected to be in {}, found {}", wanted.display(), found.join(", "));
            return Err(error("read", "cgroup", &words));
        }
    }
    Ok(())
}

/// A line of mountinfo: where, what holds for the mount, its propagation, its type.
struct Line<'a> {
    point: PathBuf,
    flags: Vec<&'a str>,
    shares: Vec<&'a str>,
    kind: &'a str,
}

impl Line<'_> {
    fn parse(line: &[u8]) -> Option<Line<'_>> {
        let mut words = line.split(|byte| *byte == b' ');
        let text = |word| std::str::from_utf8(word).ok();
        let (point, flags) = (unescape_path(words.nth(4)?), text(words.next()?)?);
        // The optional fields end in a single `-`.
        let shares = words.by_ref().take_while(|word| *word != b"-").map(text).collect::<Option<_>>()?;
        Some(Line { point, flags: flags.split(',').collect(), shares, kind: text(words.next()?)? })
    }

    /// The last one at a place covers those before it.
    fn at(lines: &[Self], point: impl AsRef<Path>) -> Option<&Self> {
        lines.iter().rev().find(|line| line.point == point.as_ref())
    }
}

fn differs(path: &Path, words: &str) -> Error {
    match error("read", "", words) {
        Error::Sys { errno, hint, syscall, .. } => {
            Error::Sys { step: Step::ReadMount, syscall, object: path.into(), errno, hint }
        }
        other => other,
    }
}

fn mounts(pid: i32, isolation: &Isolation) -> Result<()> {
    if isolation.namespaces.get(&Kind::Mount) != Some(&"new") || isolation.rootfs == "unchanged" {
        return Ok(());
    }
    let path = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read(&path).at(Step::Proc, "read", &path)?;
    let lines: Vec<Line<'_>> = text.split(|byte| *byte == b'\n').filter_map(Line::parse).collect();
    let at = |point: &str| Line::at(&lines, point);
    let differs = |path: &str, words: &str| differs(Path::new(path), words);
    let Some(root) = at("/") else { return Err(differs("/", "expected a root of its own, found none")) };
    let is_read_only = |line: &Line<'_>| line.flags.contains(&"ro");
    if isolation.read_only && !is_read_only(root) {
        return Err(differs("/", "expected ro, found rw"));
    }
    if isolation.copy_on_write == "overlay" && root.kind != "overlay" && isolation.rootfs != "host" {
        return Err(differs("/", &format!("expected an overlay, found {}", root.kind)));
    }
    let hidden = isolation.masked_paths.iter().map(|path| (path, true));
    for (path, is_mask) in hidden.chain(isolation.readonly_paths.iter().map(|path| (path, false))) {
        match at(path) {
            Some(line) if is_read_only(line) && !(is_mask && matches!(line.kind, "proc" | "sysfs")) => {}
            None if !is_there(pid, path)? => {}
            Some(line) => return Err(differs(path, &format!("expected ro, found {} of {}", line.flags[0], line.kind))),
            None => return Err(differs(path, "expected a mount of its own, found none")),
        }
    }
    callers(&lines, &isolation.mounts)
}

/// The caller's mounts.
fn callers(lines: &[Line<'_>], mounts: &[MountReport]) -> Result<()> {
    for mount in mounts {
        // Where a symbolic link has led is told by no name.
        let Some(line) = Line::at(lines, &mount.target) else { continue };
        if let Some(missing) =
            mount.attributes.iter().find(|name| **name != "strictatime" && !line.flags.contains(name))
        {
            let words = format!("expected {missing}, found {}", line.flags.join(","));
            return Err(differs(&line.point, &words));
        }
        let is_told = |word: &str| line.shares.iter().any(|share| share.starts_with(word));
        if mount.propagation == "private" && (is_told("shared:") || is_told("master:")) {
            return Err(differs(&line.point, &format!("expected private, found {}", line.shares.join(" "))));
        }
    }
    Ok(())
}

/// Whether the container has the path, in its own root and by no link.
fn is_there(pid: i32, path: &str) -> Result<bool> {
    let root = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&root, flags | OFlags::DIRECTORY, Mode::empty()).at(Step::OpenRoot, "open", &root)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(dir.as_fd(), path, flags, Mode::empty(), resolve) {
        Ok(_) => Ok(true),
        Err(errno) => match Errno::from_raw(errno.raw_os_error()) {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES => Ok(false),
            errno => Err(Error::sys(Step::OpenRoot, "openat2", path, errno)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::mount::Mount;

    #[test]
    fn every_limit_is_found_in_our_own_list() {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        for number in 0..16 {
            let name = crate::spec::parse::rlimit_name(number);
            assert!(limit(&text, name).is_some(), "{name}");
        }
        let text = "Max core file size        1                    unlimited            bytes     \n";
        assert_eq!(limit(text, "core"), Some((Some(1), None)));
        assert!(limit(text, "nproc").is_none() && limit("Max processes x", "nproc").is_none());
    }

    #[test]
    fn lines_of_mountinfo_are_taken_apart() {
        let line = Line::parse(b"36 35 98:0 / /a ro,noatime shared:7 master:1 - ext4 /dev/root rw").unwrap();
        assert_eq!((line.point.as_path(), line.kind), (Path::new("/a"), "ext4"));
        assert_eq!((line.flags, line.shares), (vec!["ro", "noatime"], vec!["shared:7", "master:1"]));
        let line = Line::parse(b"36 35 98:0 / /proc/sys ro - proc proc rw").unwrap();
        assert_eq!((line.point.as_path(), line.shares.len(), line.kind), (Path::new("/proc/sys"), 0, "proc"));
        let line = Line::parse(b"36 35 98:0 /x\\040-\\040y /a\\040-\\040b\\134\xff ro - tmpfs none rw").unwrap();
        assert_eq!((line.point.as_os_str().as_bytes(), line.kind), (&b"/a - b\\\xff"[..], "tmpfs"));
        assert!(Line::parse(b"").is_none() && Line::parse(b"1 2 - ext4").is_none());
        assert!(Line::parse(b"36 35 98:0 / /a ro shared:7").is_none());
    }

    #[test]
    fn mounts_at_names_with_spaces_are_compared() {
        let mounted = |options: &str| {
            let text =
                format!("1 0 0:1 / / rw - overlay none rw\n2 1 0:2 / /a\\040b/c\\011d {options} - tmpfs none rw\n");
            let lines: Vec<Line<'_>> = text.as_bytes().split(|byte| *byte == b'\n').filter_map(Line::parse).collect();
            let mount = Mount::tmpfs("/a b//c\td/").read_only(true);
            callers(&lines, &[MountReport::of(&mount)])
        };
        assert!(mounted("ro,nosuid,nodev").is_ok());
        for (options, words) in
            [("rw,nosuid,nodev", "expected ro, found rw,nosuid,nodev"), ("ro,nosuid,nodev master:5", "private")]
        {
            let Err(Error::Sys { step: Step::ReadMount, object, hint, .. }) = mounted(options) else {
                panic!("{options}")
            };
            assert!(object == Path::new("/a b/c\td") && hint.contains(words), "{hint}");
        }
    }
}
