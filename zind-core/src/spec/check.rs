//! Rules over a [`Spec`] that need no kernel.
#![forbid(unsafe_code)]

use std::path::Path;

use super::{Kind, Overlay, Rootfs, Spec, Stdio, User, sysctl};
use crate::error::{Error, Result};
use crate::isolation;
use crate::namespace::idmap::{self, IdMaps};
use crate::rootfs::mount_label;
use crate::security::labels;
use crate::security::landlock::LandlockPolicy;

/// Checks everything that can be told without asking the machine.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    check_argv(spec)?;
    check_env(spec)?;
    check_root(spec)?;
    check_namespaces(spec)?;
    check_ids(spec)?;
    check_process(spec)?;
    check_resources(spec)?;
    sysctl::check(spec)?;
    isolation::check_names(&spec.require)
}

/// The rules for a program in a running container.
pub(crate) fn check_program(spec: &Spec) -> Result<()> {
    check_argv(spec)?;
    check_env(spec)?;
    check_absolute("cwd", spec.cwd.as_deref().filter(|_| !spec.is_low_level()))?;
    check_ids(spec)?;
    check_process(spec)
}

fn check_argv(spec: &Spec) -> Result<()> {
    match spec.argv.first() {
        None => Err(Error::spec("argv", "is empty; it needs at least the program")),
        Some(program) if program.is_empty() => Err(Error::spec("argv", "the program's name is empty")),
        Some(_) => Ok(()),
    }
}

fn check_env(spec: &Spec) -> Result<()> {
    for (name, _) in &spec.env {
        let bytes = name.as_encoded_bytes();
        if bytes.is_empty() || bytes.contains(&b'=') {
            return Err(Error::spec("env", format!("{:?} is no name of a variable", name.to_string_lossy())));
        }
    }
    Ok(())
}

/// One less than an overlay takes, for the directory that is written to.
const MOST_LOWERS: usize = 499;

fn check_root(spec: &Spec) -> Result<()> {
    if spec.rootfs == Rootfs::Host && spec.overlay == Overlay::None && !spec.read_only {
        return Err(Error::spec(
            "overlay",
            "cannot be off for rootfs=\"host\": it would write to this machine; use read_only",
        ));
    }
    if let Rootfs::Path(path) = &spec.rootfs
        && path.as_os_str().is_empty()
    {
        return Err(Error::spec("rootfs", "is an empty path"));
    }
    if let Rootfs::Lowers(lowers) = &spec.rootfs {
        if lowers.is_empty() || lowers.len() > MOST_LOWERS {
            return Err(Error::spec(
                "rootfs",
                format!("has {} directories; it takes 1 to {MOST_LOWERS}", lowers.len()),
            ));
        }
        if spec.overlay == Overlay::None && !spec.read_only {
            return Err(Error::spec("overlay", "cannot be off for several directories: none of them is written to"));
        }
    }
    if matches!(spec.rootfs, Rootfs::Layers(_)) && spec.overlay != Overlay::Tmpfs {
        return Err(Error::spec("overlay", "excludes layers as root: they are the place where changes go"));
    }
    if spec.tmpfs_size == Some(0) {
        return Err(Error::spec("tmpfs_size", "is 0, which tmpfs takes for no limit at all"));
    }
    if spec.read_only && matches!(spec.overlay, Overlay::Dir(_)) {
        return Err(Error::spec("read_only", "excludes an overlay directory: nothing could be written to it"));
    }
    if !spec.is_low_level() {
        if !spec.is_new(Kind::Mount) {
            return Err(Error::spec(
                "namespaces",
                "a root of its own needs a new mount namespace: \"mnt\" must be \"new\"",
            ));
        }
        for (is_set, field) in [(spec.chroot.is_some(), "chroot"), (spec.propagation != 0, "propagation")] {
            if is_set {
                return Err(Error::spec(field, "is for the low level; a container has rootfs and mounts"));
            }
        }
    } else if (!spec.mounts.is_empty() || spec.mount_proc.is_some() || spec.propagation != 0 || spec.binfmt.is_some())
        && !spec.is_new(Kind::Mount)
    {
        return Err(Error::spec(
            "namespaces",
            "mounts need a new mount namespace, else they would change the caller's",
        ));
    }
    for (index, mount) in spec.mounts.iter().enumerate() {
        mount.check(index)?;
    }
    for (index, device) in spec.devices.iter().enumerate() {
        device.check(index)?;
    }
    for (is_set, field) in [(!spec.devices.is_empty(), "devices"), (spec.console.is_some(), "console")] {
        if is_set && spec.is_low_level() {
            return Err(Error::spec(field, "is for containers; the low level shares the caller's /dev"));
        }
    }
    check_absolute("cwd", spec.cwd.as_deref().filter(|_| !spec.is_low_level()))
}

fn check_absolute(field: &'static str, path: Option<&Path>) -> Result<()> {
    match path {
        Some(path) if !path.is_absolute() => Err(Error::spec(field, format!("{} is not absolute", path.display()))),
        _ => Ok(()),
    }
}

fn check_namespaces(spec: &Spec) -> Result<()> {
    for (is_set, kind, field) in [
        (spec.hostname.is_some(), Kind::Uts, "hostname"),
        (spec.domainname.is_some(), Kind::Uts, "domainname"),
        (spec.time_offsets.is_some(), Kind::Time, "namespaces"),
    ] {
        if is_set && !spec.is_new(kind) {
            return Err(Error::spec(field, format!("needs a new {kind} namespace, else it would change the host's")));
        }
    }
    for (field, name) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        if name
            .as_ref()
            .is_some_and(|name| name.len() > 64 || name.is_empty() || name.contains(['\n', '\0', ' ', '\t']))
        {
            return Err(Error::spec(field, "must have 1 to 64 bytes and no white space: sethostname(2)"));
        }
    }
    for (kind, path) in &spec.pins {
        if !spec.is_new(*kind) {
            return Err(Error::spec("pin", format!("{}: only a new {kind} namespace can be pinned", path.display())));
        }
    }
    if spec.init && !spec.is_new(Kind::Pid) && !spec.is_low_level() && spec.is_joined(Kind::Pid) {
        return Err(Error::spec("init", "needs a new pid namespace; set init to false to join one"));
    }
    Ok(())
}

fn check_ids(spec: &Spec) -> Result<()> {
    if let IdMaps::Explicit { uid, gid } = &spec.id_maps {
        idmap::check("uid_map", uid)?;
        idmap::check("gid_map", gid)?;
    }
    if spec.id_maps != IdMaps::ByPrivilege && spec.is_joined(Kind::User) {
        return Err(Error::spec(
            "uid_map",
            "cannot be set for a user namespace that is joined; it has its maps already",
        ));
    }
    if spec.owner.is_some() && !spec.is_new(Kind::User) {
        return Err(Error::spec("owner", "is the owner of a new user namespace; set namespaces={\"user\": \"new\"}"));
    }
    if let Some(User::Ids(uid, gid)) = spec.user {
        for id in [Some(uid), gid].into_iter().flatten() {
            if id == u32::MAX {
                return Err(Error::spec("user", "4294967295 is no id: it means \"unchanged\" to the kernel"));
            }
        }
    }
    Ok(())
}

fn check_process(spec: &Spec) -> Result<()> {
    let within = |field, value: Option<i32>, low, high| match value {
        Some(value) if !(low..=high).contains(&value) => {
            Err(Error::spec(field, format!("{value} is not within {low} to {high}")))
        }
        _ => Ok(()),
    };
    within("oom_score_adj", spec.oom_score_adj, -1000, 1000)?;
    within("nice", spec.nice, -20, 19)?;
    within("pdeathsig", spec.pdeathsig, 1, 64)?;
    if spec.umask.is_some_and(|mask| mask > 0o777) {
        return Err(Error::spec("umask", "has bits beyond 0777"));
    }
    for limit in &spec.rlimits {
        let unlimited = |value: Option<u64>| value.unwrap_or(u64::MAX);
        if unlimited(limit.soft) > unlimited(limit.hard) {
            let name = super::parse::rlimit_name(limit.resource);
            return Err(Error::spec("rlimits", format!("{name}: the soft limit is above the hard one")));
        }
    }
    if matches!(spec.stdin, Stdio::Stdout) || matches!(spec.stdout, Stdio::Stdout) {
        return Err(Error::spec("stdout", "only stderr can go where stdout goes"));
    }
    for &fd in &spec.pass_fds {
        if fd < 3 {
            return Err(Error::spec("pass_fds", format!("{fd} is a standard stream; use stdin, stdout, stderr")));
        }
    }
    crate::terminal::check("terminal", spec.terminal)?;
    labels::check("apparmor", spec.apparmor.as_deref())?;
    labels::check("selinux", spec.selinux.as_deref())?;
    mount_label::check(spec.mount_label.as_deref())?;
    if let LandlockPolicy::Rules(rules) = &spec.landlock {
        rules.check(!spec.is_low_level())?;
    }
    let session = &spec.session;
    if spec.terminal.is_some() && (session.noctty || session.foreground || session.pgid.is_some()) {
        return Err(Error::spec(
            "terminal",
            "is that of a session of its own; it excludes noctty, foreground and pgid",
        ));
    }
    if spec.terminal.is_some() && spec.console.is_some() {
        return Err(Error::spec("console", "excludes terminal, which is the console"));
    }
    if session.setctty && !session.setsid {
        return Err(Error::spec("setctty", "needs setsid: only a session leader can have a controlling terminal"));
    }
    if session.setctty && session.noctty {
        return Err(Error::spec("noctty", "excludes setctty"));
    }
    if session.setsid && session.pgid.is_some_and(|pgid| pgid != 0) {
        return Err(Error::spec("pgid", "excludes setsid: a session leader leads its own process group"));
    }
    if spec.cap_sets.is_some() && (spec.privileged || spec.capabilities.is_some() || !spec.ambient.is_empty()) {
        return Err(Error::spec(
            "capabilities",
            "are given as five sets: that excludes privileged and one set for all",
        ));
    }
    if !spec.hooks.is_empty() {
        return Err(Error::spec("hooks", "are run by a Container only; take them out, or make one"));
    }
    if spec.privileged && spec.capabilities.is_some() {
        return Err(Error::spec("capabilities", "excludes privileged, which gives all of them"));
    }
    Ok(())
}

fn check_resources(spec: &Spec) -> Result<()> {
    if let Some(parent) = &spec.cgroup_parent
        && parent.components().any(|part| part == std::path::Component::ParentDir)
    {
        return Err(Error::spec("cgroup_parent", format!("{} has \"..\" in it", parent.display())));
    }
    match &spec.resources {
        Some(_) if spec.cgroup.is_some() => {
            Err(Error::spec("resources", "excludes cgroup_fd: the payload can be born into one group only"))
        }
        Some(resources) => resources.check(),
        None if spec.cgroup_parent.is_some() => {
            Err(Error::spec("cgroup_parent", "needs resources, without which no group is made"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Hook, Hooks, Resources, Rlimit, Session, Source};

    fn field_of(spec: &Spec) -> Option<&'static str> {
        check(spec).err().and_then(|error| error.field())
    }

    fn hooks() -> Hooks {
        Hooks { poststop: vec![Hook::new("/bin/true", ["-x"])], ..Hooks::default() }
    }

    fn good() -> Spec {
        Spec::new(["true"])
    }

    #[test]
    fn a_plain_container_is_fine() {
        assert_eq!(field_of(&good()), None);
        assert_eq!(field_of(&Spec::low_level(["true"])), None);
    }

    #[test]
    fn each_broken_rule_names_its_field() {
        let cases: Vec<(&str, Spec)> = vec![
            ("argv", Spec::default()),
            ("argv", Spec::new([""])),
            ("env", Spec { env: vec![("A=B".into(), "c".into())], ..good() }),
            ("overlay", Spec { overlay: Overlay::None, ..good() }),
            ("read_only", Spec { overlay: Overlay::Dir("/x".into()), read_only: true, ..good() }),
            ("cwd", Spec { cwd: Some("tmp".into()), ..good() }),
            ("chroot", Spec { chroot: Some("/x".into()), ..good() }),
            ("hostname", Spec { hostname: Some("a b".into()), ..good() }),
            ("hostname", Spec { hostname: Some("a".into()), ..Spec::low_level(["true"]) }),
            ("pin", Spec { pins: vec![(Kind::User, "/x".into())], ..good() }),
            ("owner", Spec { owner: Some((1, 1)), ..good() }),
            ("user", Spec { user: Some(User::Ids(u32::MAX, None)), ..good() }),
            ("oom_score_adj", Spec { oom_score_adj: Some(1001), ..good() }),
            ("nice", Spec { nice: Some(-21), ..good() }),
            ("umask", Spec { umask: Some(0o1000), ..good() }),
            ("rlimits", Spec { rlimits: vec![Rlimit { resource: 7, soft: None, hard: Some(1) }], ..good() }),
            ("pass_fds", Spec { pass_fds: vec![1], ..good() }),
            ("setctty", Spec { session: Session { setctty: true, ..Session::default() }, ..good() }),
            ("terminal", Spec { terminal: Some(crate::terminal::Size::new(0, 80)), ..good() }),
            ("capabilities", Spec { privileged: true, capabilities: Some(CapSet::EMPTY), ..good() }),
            ("capabilities", Spec { cap_sets: Some(Default::default()), privileged: true, ..good() }),
            ("capabilities", Spec { cap_sets: Some(Default::default()), ambient: CapSet::KILL, ..good() }),
            ("hooks", Spec { hooks: hooks(), ..good() }),
            ("cgroup_parent", Spec { cgroup_parent: Some("/x".into()), ..good() }),
            ("resources", Spec { resources: Some(Resources { memory: Some(1), ..Resources::default() }), ..good() }),
            ("require", Spec { require: vec!["magic".into()], ..good() }),
        ];
        for (field, spec) in cases {
            assert_eq!(field_of(&spec), Some(field), "{spec:?}");
        }
        let mut joined = good();
        joined.namespaces.insert(Kind::Pid, Source::Pid(1));
        assert_eq!(field_of(&joined), Some("init"));
    }

    use crate::security::capabilities::CapSet;
}
