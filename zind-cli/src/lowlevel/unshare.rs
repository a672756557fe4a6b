//! `zind unshare`
//!
//! As unshare(1): the program takes the place of zind, unless `--fork` is given, or it takes somebody outside: for ids of others,
//! for namespaces that are bound to a file, and for clocks, which only a process that is born in their namespace sees.
#![forbid(unsafe_code)]

use clap::{Arg, ArgAction, ArgMatches, Command};
use zind_core::{Binfmt, IdMap, IdMaps, Kind, Source, Spec, TimeOffsets, User, flags, parse_signal};

use super::{ABSENT, KINDS, direct, id, namespace_options, of_util_linux, or_shell};
use crate::Context;
use crate::arguments::{Given, list, number, optional, path, takes_program, value};
use crate::failure::{Failure, Result};
use crate::run::foreground;

pub fn arguments(command: Command) -> Command {
    let on = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let command = namespace_options(takes_program(of_util_linux(command), "zind unshare [OPTIONS] [PROGRAM [ARG]...]"));
    command
        .arg(on("fork", "The program is a process of its own: the first of a new pid namespace").short('f'))
        .arg(optional("kill-child", "SIGNAL", "Send this signal (KILL) to the program when zind ends"))
        .arg(on("forward-signals", "Signals to zind are passed on; it is so with --fork"))
        .arg(optional("mount-proc", "DIR", "Mount a fresh /proc, there if it is named"))
        .arg(optional("mount-binfmt", "DIR", "Mount a binfmt_misc of its own, there if it is named"))
        .arg(value("load-interp", "TEXT", "Register this interpreter in it").short('l'))
        .arg(value("map-user", "UID|NAME", "Map the user to this one"))
        .arg(value("map-group", "GID|NAME", "Map the group to this one"))
        .arg(on("map-root-user", "Map user and group to root").short('r'))
        .arg(on("map-current-user", "Map user and group to themselves").short('c'))
        .arg(on("map-auto", "Map the range of /etc/subuid and /etc/subgid, too"))
        .arg(on("map-subids", "Not yet").hide(true))
        .arg(list("map-users", "INNER:OUTER:COUNT|auto|all", "Map users; \"all\" maps each to itself"))
        .arg(list("map-groups", "INNER:OUTER:COUNT|auto|all", "Map groups"))
        .arg(value("owner", "UID:GID", "Who owns the new user namespace"))
        .arg(value("propagation", "MODE", "private, shared, slave or unchanged; private without it"))
        .arg(value("setgroups", "MODE", "allow or deny"))
        .arg(on("keep-caps", "Keep the capabilities of the new user namespace"))
        .arg(value("setuid", "UID", "Become this user").short('S'))
        .arg(value("setgid", "GID", "Become this group, without others").short('G'))
        .arg(path("root", "DIR", "Change the root to this directory").short('R'))
        .arg(path("wd", "DIR", "Change the working directory").short('w'))
        .arg(number("monotonic", "SECONDS", "Offset of the monotonic clock"))
        .arg(number("boottime", "SECONDS", "Offset of the clock since boot"))
        .arg(on("clear-env", "Begin with an empty environment"))
        .arg(value("whitelist-env", "NAMES", "Variables, separated by commas, that --clear-env keeps"))
}

pub fn run(given: &ArgMatches, _: &Context) -> Result {
    if given.get_flag("map-subids") {
        return Err(Failure::new(format!("unshare: --map-subids: {ABSENT}")).hint("--map-auto maps the range, too"));
    }
    let (argv, argv0) = or_shell(given.program());
    let mut spec = Spec::low_level(argv);
    spec.argv0 = argv0;
    namespaces(&mut spec, given)?;
    ids(&mut spec, given)?;
    rest(&mut spec, given)?;
    let forks = ["fork", "forward-signals"].iter().any(|name| is_set(given, name));
    if !forks && direct::is_enough_for(&spec) {
        return direct::run(&spec);
    }
    foreground::run(spec, foreground::Terminal::Shared, None)
}

fn is_set(given: &ArgMatches, name: &str) -> bool {
    given.get_flag(name)
}

fn namespaces(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    for (_, name, kind, _) in KINDS {
        let Some(file) = given.text(name) else { continue };
        spec.namespaces.insert(kind, Source::New);
        if !file.is_empty() {
            spec.pins.push((kind, file.into()));
        }
    }
    if let Some(directory) = given.text("mount-proc") {
        spec.namespaces.insert(Kind::Mount, Source::New);
        spec.mount_proc = Some(if directory.is_empty() { "/proc" } else { directory }.into());
    }
    if let Some(directory) = given.text("mount-binfmt") {
        spec.namespaces.insert(Kind::Mount, Source::New);
        let path = if directory.is_empty() { "/proc/sys/fs/binfmt_misc" } else { directory }.into();
        spec.binfmt = Some(Binfmt { path, interpreter: given.text("load-interp").map(Into::into) });
    } else if given.text("load-interp").is_some() {
        return Err(Failure::new("unshare: --load-interp is of --mount-binfmt").hint("give both"));
    }
    if spec.namespaces.contains_key(&Kind::Mount) {
        let mode = given.text("propagation").unwrap_or("private");
        let name = match mode {
            "private" => "MS_PRIVATE",
            "shared" => "MS_SHARED",
            "slave" => "MS_SLAVE",
            "unchanged" => "",
            _ => return Err(wrong("--propagation", mode, "private, shared, slave, unchanged")),
        };
        spec.propagation = flags::MS.iter().find(|(flag, _)| *flag == name).map_or(0, |(_, bit)| *bit);
    }
    let offsets = (offset(given, "monotonic")?, offset(given, "boottime")?);
    if let (monotonic, boottime) = offsets
        && (monotonic.is_some() || boottime.is_some())
    {
        spec.time_offsets = Some(TimeOffsets {
            monotonic_ns: monotonic.unwrap_or_default(),
            boottime_ns: boottime.unwrap_or_default(),
        });
    }
    Ok(())
}

fn wrong(option: &str, value: &str, valid: &str) -> Failure {
    Failure::new(format!("unshare: {option}: {value:?} is no value for it")).hint(format!("it is one of {valid}"))
}

fn offset(given: &ArgMatches, name: &str) -> Result<Option<i64>> {
    let Some(text) = given.text(name) else { return Ok(None) };
    let seconds = text.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1_000_000_000));
    seconds.map(Some).ok_or_else(|| Failure::new(format!("unshare: --{name}: {text:?} is no number of seconds")))
}

/// Who the caller is outside, and what the ids inside mean.
fn ids(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let is_root = is_set(given, "map-root-user");
    let is_current = is_set(given, "map-current-user");
    let auto = |names: &[&str]| names.contains(&"auto");
    let (users, groups) = (given.texts("map-users"), given.texts("map-groups"));
    let is_auto = is_set(given, "map-auto") || auto(&users) || auto(&groups);
    let user = match given.text("map-user") {
        Some(text) => Some(user_id(text)?),
        None if is_root => Some(0),
        None => is_current.then_some(uid),
    };
    let group = match given.text("map-group") {
        Some(text) => Some(group_id(text)?),
        None if is_root => Some(0),
        None => is_current.then_some(gid),
    };
    let mut maps = (ranges("--map-users", &users)?, ranges("--map-groups", &groups)?);
    if is_auto {
        if !maps.0.is_empty() || !maps.1.is_empty() {
            return Err(Failure::new("unshare: ranges and \"auto\" exclude each other"));
        }
        if user.is_some_and(|user| user != 0) || group.is_some_and(|group| group != 0) {
            return Err(Failure::new("unshare: --map-auto has the caller as root").hint("add --map-root-user"));
        }
        spec.id_maps = IdMaps::Auto;
    } else if user.is_some() || group.is_some() || !maps.0.is_empty() || !maps.1.is_empty() {
        let one = |container: Option<u32>, host| container.map(|container| IdMap { container, host, size: 1 });
        maps.0.extend(one(user, uid));
        maps.1.extend(one(group, gid));
        // The kernel takes no empty map: what is not named stays what it is.
        if maps.0.is_empty() {
            maps.0.extend(one(Some(uid), uid));
        }
        if maps.1.is_empty() {
            maps.1.extend(one(Some(gid), gid));
        }
        spec.id_maps = IdMaps::Explicit { uid: maps.0, gid: maps.1 };
    }
    if spec.id_maps != IdMaps::ByPrivilege {
        spec.namespaces.insert(Kind::User, Source::New);
    }
    spec.setgroups = match given.text("setgroups") {
        None => None,
        Some("allow") => Some(true),
        Some("deny") => Some(false),
        Some(other) => return Err(wrong("--setgroups", other, "allow, deny")),
    };
    if let Some(text) = given.text("owner") {
        let (uid, gid) = text.split_once(':').ok_or_else(|| Failure::new("unshare: --owner is not UID:GID"))?;
        spec.owner = Some((id("--owner", uid)?, id("--owner", gid)?));
    }
    let uid_now = user.unwrap_or(if is_auto { 0 } else { uid });
    let gid_now = group.unwrap_or(if is_auto { 0 } else { gid });
    let (setuid, setgid) = (given.text("setuid"), given.text("setgid"));
    if setuid.is_some() || setgid.is_some() {
        let uid = setuid.map(|text| id("--setuid", text)).transpose()?.unwrap_or(uid_now);
        let gid = setgid.map(|text| id("--setgid", text)).transpose()?.unwrap_or(gid_now);
        spec.user = Some(User::Ids(uid, Some(gid)));
    }
    Ok(())
}

fn user_id(text: &str) -> Result<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return id("--map-user", text);
    }
    let user = nix::unistd::User::from_name(text).ok().flatten();
    user.map(|user| user.uid.as_raw()).ok_or_else(|| Failure::new(format!("unshare: there is no user {text:?}")))
}

fn group_id(text: &str) -> Result<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return id("--map-group", text);
    }
    let group = nix::unistd::Group::from_name(text).ok().flatten();
    group.map(|group| group.gid.as_raw()).ok_or_else(|| Failure::new(format!("unshare: there is no group {text:?}")))
}

/// `INNER:OUTER:COUNT`, or util-linux's older `OUTER,INNER,COUNT`.
fn ranges(option: &str, texts: &[&str]) -> Result<Vec<IdMap>> {
    let mut maps = Vec::new();
    for text in texts {
        let (mark, is_old) = if text.contains(',') { (',', true) } else { (':', false) };
        let parts: Vec<&str> = text.split(mark).collect();
        maps.push(match (*text, &parts[..]) {
            ("auto", _) => continue,
            ("all", _) => IdMap { container: 0, host: 0, size: u32::MAX },
            ("subids", _) => return Err(Failure::new(format!("unshare: {option} subids: {ABSENT}"))),
            (_, [first, second, count]) => {
                let (inner, outer) = if is_old { (second, first) } else { (first, second) };
                IdMap { container: id(option, inner)?, host: id(option, outer)?, size: id(option, count)? }
            }
            _ => return Err(wrong(option, text, "INNER:OUTER:COUNT, auto, all")),
        });
    }
    Ok(maps)
}

fn rest(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    if let Some(name) = given.text("kill-child") {
        spec.pdeathsig = Some(parse_signal(if name.is_empty() { "KILL" } else { name })?);
    }
    spec.keep_caps = is_set(given, "keep-caps");
    spec.chroot = given.file("root");
    spec.cwd = given.file("wd");
    if is_set(given, "clear-env") {
        spec.inherit_env = false;
        spec.clear_env = true;
        let names = given.text("whitelist-env").unwrap_or_default();
        spec.keep_env = names.split(',').filter(|name| !name.is_empty()).map(Into::into).collect();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_in_both_orders() {
        let map = IdMap { container: 0, host: 1000, size: 5 };
        assert_eq!(ranges("--map-users", &["0:1000:5", "1000,0,5"]).unwrap(), [map, map]);
        assert!(ranges("--map-users", &["0:1000"]).is_err());
        assert!(ranges("--map-users", &["0:x:1"]).is_err());
    }
}
