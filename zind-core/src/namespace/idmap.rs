//! User and group id maps of a user namespace: `user_namespaces(7)`.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User};

use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::process::helper;

/// One line of `uid_map` or `gid_map`: `size` ids from `container` on are the host's from `host` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// The first id in the container.
    pub container: u32,
    /// The first id on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

impl IdMap {
    /// The line, if no id of it lies beyond the last one there is: what is written down may be damaged.
    pub(crate) fn if_sound(self) -> Option<IdMap> {
        (self.container.checked_add(self.size).is_some() && self.host.checked_add(self.size).is_some()).then_some(self)
    }
}

/// What the ids of a container mean on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdMaps {
    /// By privilege: none for root (no user namespace), [`IdMaps::Single`] for an ordinary user.
    #[default]
    ByPrivilege,
    /// One id: the caller's, under the number the payload runs as. Needs no helper.
    Single,
    /// 0 is the caller, and 1 and on are the range of `/etc/subuid` and `/etc/subgid`; for root 0 and on are the range.
    /// An ordinary user needs newuidmap(1) for it.
    Auto,
    /// These maps of users and of groups.
    Explicit {
        /// Users.
        uid: Vec<IdMap>,
        /// Groups.
        gid: Vec<IdMap>,
    },
}

/// The kernel's limit for one map: `user_namespaces(7)`.
const MOST_LINES: usize = 340;

/// Checks a map as far as that needs no kernel: not empty, no overflow, no overlap on either side.
pub fn check(field: &'static str, maps: &[IdMap]) -> Result<()> {
    if maps.is_empty() {
        return Err(Error::spec(field, "is empty; a user namespace without ids can do nothing"));
    }
    if maps.len() > MOST_LINES {
        return Err(Error::spec(field, format!("has {} lines; the kernel takes at most {MOST_LINES}", maps.len())));
    }
    for (i, map) in maps.iter().enumerate() {
        let past = |first: u32| u64::from(first) + u64::from(map.size) > u64::from(u32::MAX);
        if map.size == 0 {
            return Err(Error::spec(field, format!("line {i} has size 0")));
        }
        if past(map.container) || past(map.host) {
            return Err(Error::spec(field, format!("line {i} goes beyond the last id, 4294967294")));
        }
        for (j, other) in maps[..i].iter().enumerate() {
            if overlap(map.container, map.size, other.container, other.size) {
                return Err(Error::spec(field, format!("lines {j} and {i} overlap in the container")));
            }
            if overlap(map.host, map.size, other.host, other.size) {
                return Err(Error::spec(field, format!("lines {j} and {i} overlap on the host")));
            }
        }
    }
    Ok(())
}

fn overlap(a: u32, a_size: u32, b: u32, b_size: u32) -> bool {
    u64::from(a) < u64::from(b) + u64::from(b_size) && u64::from(b) < u64::from(a) + u64::from(a_size)
}

/// The host's id for one of the container, if it is mapped.
pub fn to_host(maps: &[IdMap], id: u32) -> Option<u32> {
    maps.iter()
        .find(|map| id >= map.container && id - map.container < map.size)
        .map(|map| map.host + (id - map.container))
}

/// Somebody whom a user namespace with these maps knows: root of it, if it has one.
pub(crate) fn first(maps: &[IdMap]) -> u32 {
    let first = maps.iter().map(|map| map.container).min();
    first.unwrap_or(0)
}

/// The one id of the container that is mapped, if there is only one.
pub(crate) fn only(maps: &[IdMap]) -> Option<u32> {
    match maps {
        [IdMap { container, size: 1, .. }] => Some(*container),
        _ => None,
    }
}

/// The container's id for one of the host, if it is mapped.
pub(crate) fn from_host(maps: &[IdMap], id: u32) -> Option<u32> {
    maps.iter().find(|map| id >= map.host && id - map.host < map.size).map(|map| map.container + (id - map.host))
}

/// Maps made ready for one start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadyMaps {
    pub(crate) uid: Vec<IdMap>,
    pub(crate) gid: Vec<IdMap>,
    /// `setgroups(2)` stays allowed in the namespace.
    pub(crate) setgroups: bool,
    /// The maps go beyond what this process may write itself.
    helper: bool,
}

impl ReadyMaps {
    /// Maps that a privileged process writes itself.
    pub(crate) fn of_root(uid: Vec<IdMap>, gid: Vec<IdMap>) -> ReadyMaps {
        ReadyMaps { uid, gid, setgroups: true, helper: false }
    }

    /// Maps that go beyond what this process may write itself.
    pub(crate) fn by_helper(uid: Vec<IdMap>, gid: Vec<IdMap>) -> ReadyMaps {
        ReadyMaps { uid, gid, setgroups: true, helper: true }
    }
}

/// Turns a wish into maps. `target` is the user and group the payload will be.
pub(crate) fn resolve(
    maps: &IdMaps,
    setgroups: Option<bool>,
    target: (u32, u32),
    privileged: bool,
) -> Result<ReadyMaps> {
    let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
    let single = || {
        let one = |container, host| vec![IdMap { container, host, size: 1 }];
        (one(target.0, uid), one(target.1, gid))
    };
    let (uid_map, gid_map) = match maps {
        IdMaps::ByPrivilege if privileged => auto(uid, gid, true)?,
        IdMaps::Auto => auto(uid, gid, privileged)?,
        IdMaps::ByPrivilege | IdMaps::Single => single(),
        IdMaps::Explicit { uid, gid } => (uid.clone(), gid.clone()),
    };
    check("uid_map", &uid_map)?;
    check("gid_map", &gid_map)?;
    let own = |map: &[IdMap], id: u32| matches!(map, [one] if one.size == 1 && one.host == id);
    let only_own = own(&uid_map, uid) && own(&gid_map, gid);
    let helper = !(privileged || only_own);
    let may_setgroups = privileged || helper;
    if setgroups == Some(true) && !may_setgroups {
        return Err(Error::spec(
            "setgroups",
            "cannot be allowed with a single mapped group: the kernel wants it denied; use uid_map=\"auto\"",
        ));
    }
    Ok(ReadyMaps { uid: uid_map, gid: gid_map, setgroups: setgroups.unwrap_or(may_setgroups), helper })
}

/// How many ids a container of root gets where no range is set aside for it.
const RANGE: u32 = 65536;
/// Where that range begins: far above the ids of people and services.
const FIRST_OF_RANGE: u32 = 0x4000_0000;

fn auto(uid: u32, gid: u32, privileged: bool) -> Result<(Vec<IdMap>, Vec<IdMap>)> {
    if privileged {
        let range = vec![IdMap { container: 0, host: FIRST_OF_RANGE, size: RANGE }];
        return Ok((range.clone(), range));
    }
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    let with_range = |own: u32, path: &str| {
        let (first, size) = subordinate_range(Path::new(path), name.as_deref(), uid)?;
        Ok(vec![IdMap { container: 0, host: own, size: 1 }, IdMap { container: 1, host: first, size }])
    };
    Ok((with_range(uid, "/etc/subuid")?, with_range(gid, "/etc/subgid")?))
}

/// The first range of `/etc/subuid` or `/etc/subgid` for a user, by name or number: subuid(5).
pub(crate) fn subordinate_range(path: &Path, name: Option<&str>, uid: u32) -> Result<(u32, u32)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    parse_range(&text, name, uid).ok_or_else(|| {
        let who = name.map_or_else(|| uid.to_string(), str::to_owned);
        Error::unsupported(
            "uid_map=\"auto\"",
            format!("no range for {who} in {}; as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}", path.display()),
        )
    })
}

pub(crate) fn parse_range(text: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(who) == name || who.parse() == Ok(uid)).then_some(range)
    })
}

/// Writes the maps of the process `pid`, which waits in its new user namespace.
pub(crate) fn write(pid: i32, maps: &ReadyMaps) -> Result<()> {
    if maps.helper {
        if !maps.setgroups {
            deny_setgroups(pid)?;
        }
        write_with_helper("newuidmap", "uid_map", pid, &maps.uid)?;
        return write_with_helper("newgidmap", "gid_map", pid, &maps.gid);
    }
    if !maps.setgroups {
        deny_setgroups(pid)?;
    }
    write_file(Step::UidMap, &format!("/proc/{pid}/uid_map"), &text(&maps.uid))?;
    write_file(Step::GidMap, &format!("/proc/{pid}/gid_map"), &text(&maps.gid))
}

/// How somebody else writes the same maps, without this library.
pub(crate) struct Writes {
    /// The text for `setgroups`, if it is to be written.
    pub(crate) setgroups: Option<&'static str>,
    /// Texts for `uid_map` and `gid_map`, if they are to be written.
    pub(crate) texts: Option<[String; 2]>,
    /// Else: programs to run, with their arguments; the first argument is to become the pid.
    pub(crate) programs: Vec<Vec<String>>,
}

/// Errors: [`Error::Unsupported`] if a program that is needed is missing.
pub(crate) fn writes(maps: &ReadyMaps) -> Result<Writes> {
    let setgroups = (!maps.setgroups).then_some("deny");
    if !maps.helper {
        return Ok(Writes { setgroups, texts: Some([text(&maps.uid), text(&maps.gid)]), programs: Vec::new() });
    }
    let program = |name: &str, maps: &[IdMap]| {
        let path =
            helper::find(name).ok_or_else(|| Error::unsupported("uid_map beyond one id", format!("{name}(1)")))?;
        let numbers = maps.iter().flat_map(|map| [map.container, map.host, map.size]).map(|number| number.to_string());
        Ok([path.to_string_lossy().into_owned(), String::new()].into_iter().chain(numbers).collect())
    };
    let programs = vec![program("newuidmap", &maps.uid)?, program("newgidmap", &maps.gid)?];
    Ok(Writes { setgroups, texts: None, programs })
}

fn deny_setgroups(pid: i32) -> Result<()> {
    write_file(Step::SetgroupsFile, &format!("/proc/{pid}/setgroups"), "deny")
}

fn text(maps: &[IdMap]) -> String {
    maps.iter().fold(String::new(), |mut text, map| {
        let _ = writeln!(text, "{} {} {}", map.container, map.host, map.size);
        text
    })
}

/// One write(2): the kernel takes a map whole or not at all.
fn write_file(step: Step, path: &str, text: &str) -> Result<()> {
    use std::io::Write;
    let result = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    result.map_err(|error| {
        let errno = error.into_errno();
        Error::sys(step, "write", path, errno).with_hint(map_hint(errno, text))
    })
}

/// Of text, the smallest there is: a map has to be less than one.
const PAGE: usize = 4096;

fn map_hint(errno: Errno, text: &str) -> String {
    let lines = text.lines().count();
    let mut map = text.lines().take(8).collect::<Vec<_>>().join(", ");
    if lines > 8 {
        map += &format!(", ... {lines} lines");
    }
    match errno {
        Errno::EINVAL if text.len() >= PAGE => format!(
            "the kernel cannot use the map ({map}): its text of {} bytes is a page or more, or a host id of it is not mapped here",
            text.len()
        ),
        Errno::EPERM => format!(
            "the kernel refuses the map ({map}): without CAP_SETUID only the caller's own id may be mapped, \
             once; use uid_map=\"single\" or \"auto\", or run as root"
        ),
        Errno::EINVAL => format!("the kernel cannot use the map ({map}): a host id of it is not mapped here"),
        _ => format!("while writing ({map})"),
    }
}

fn write_with_helper(program: &str, file: &str, pid: i32, maps: &[IdMap]) -> Result<()> {
    let mut argv = vec![program.to_owned(), pid.to_string()];
    for map in maps {
        argv.extend([map.container, map.host, map.size].map(|number| number.to_string()));
    }
    let message = helper::run(&argv).map_err(|error| match error.errno() {
        Some(Errno::ENOENT) => Error::unsupported(
            "uid_map beyond one id",
            format!("{program}(1) is not installed; install Debian's package uidmap, or use uid_map=\"single\""),
        ),
        _ => error,
    })?;
    // Whoever reaps the helper, the kernel says whether it did its work.
    let path = format!("/proc/{pid}/{file}");
    let written = fs::read_to_string(&path).at(Step::MapHelper, "read", &path)?;
    if written.trim().is_empty() {
        let text = message.trim().to_owned();
        return Err(Error::sys(Step::MapHelper, "", program, Errno::EPERM).with_hint(format!(
            "{program} said: {text}; the ranges must be in /etc/subuid and /etc/subgid for this user"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn map(container: u32, host: u32, size: u32) -> IdMap {
        IdMap { container, host, size }
    }

    #[test]
    fn overlaps_are_found_on_both_sides() {
        assert!(check("uid_map", &[map(0, 1000, 1), map(1, 100_000, 65536)]).is_ok());
        let message = check("uid_map", &[map(0, 1000, 10), map(9, 5000, 1)]).unwrap_err().to_string();
        assert!(message.contains("overlap in the container"), "{message}");
        let message = check("uid_map", &[map(0, 1000, 10), map(50, 1009, 1)]).unwrap_err().to_string();
        assert!(message.contains("overlap on the host"), "{message}");
    }

    #[test]
    fn empty_zero_and_overflowing_maps_are_refused() {
        assert!(check("uid_map", &[]).is_err());
        assert!(check("uid_map", &[map(0, 0, 0)]).is_err());
        assert!(check("uid_map", &[map(u32::MAX, 0, 1)]).is_err());
        assert!(check("uid_map", &[map(0, u32::MAX - 1, 2)]).is_err());
        assert!(check("uid_map", &vec![map(0, 0, 1); 341]).is_err());
    }

    #[test]
    fn subordinate_ranges_go_by_name_or_number() {
        let text = "root:1:2\nann:100000:65536\n1001:165536:10\nbad:line\n";
        assert_eq!(parse_range(text, Some("ann"), 1000), Some((100_000, 65536)));
        assert_eq!(parse_range(text, Some("bob"), 1001), Some((165_536, 10)));
        assert_eq!(parse_range(text, None, 1002), None);
    }

    #[test]
    fn ids_translate_through_the_map() {
        let maps = [map(0, 1000, 1), map(1, 100_000, 10)];
        assert_eq!(to_host(&maps, 0), Some(1000));
        assert_eq!(to_host(&maps, 10), Some(100_009));
        assert_eq!(to_host(&maps, 11), None);
    }
}
