//! `zind unshare` without `--fork`: this very process goes into the namespaces, and becomes the program.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process;

use nix::unistd::{Gid, Uid, chdir, chroot, setgid, setgroups, setuid};
use zind_core::{IdMaps, Kind, Spec, User, flags, lowlevel};

use super::nsenter::keep_capabilities;
use crate::failure::{Failure, Result};

/// True if it can be done without anybody outside of the namespaces.
pub fn is_enough_for(spec: &Spec) -> bool {
    let is_own = match &spec.id_maps {
        IdMaps::ByPrivilege => true,
        IdMaps::Explicit { uid, gid } if spec.setgroups != Some(true) => {
            let (own_uid, own_gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            matches!((&uid[..], &gid[..]), ([one], [other]) if (one.host, one.size, other.host, other.size) == (own_uid, 1, own_gid, 1))
        }
        _ => false,
    };
    let has_time = spec.namespaces.contains_key(&Kind::Time);
    is_own
        && !has_time
        && spec.pins.is_empty()
        && spec.binfmt.is_none()
        && spec.owner.is_none()
        && spec.pdeathsig.is_none()
}

/// Does not come back but with a failure.
pub fn run(spec: &Spec) -> Result {
    let fail = |what: &str, errno: nix::errno::Errno| Failure::new(format!("unshare: {what}: {}", errno.desc()));
    let kinds = spec.namespaces.keys().fold(0, |all, kind| all | kind.flag());
    if kinds != 0 {
        lowlevel::unshare(kinds)?;
    }
    maps(spec)?;
    if spec.propagation != 0 {
        let rec = flags::MS.iter().find(|(name, _)| *name == "MS_REC").map_or(0, |(_, bit)| *bit);
        lowlevel::mount(Some("none".as_ref()), Path::new("/"), None, spec.propagation | rec, None)?;
    }
    if let Some(root) = &spec.chroot {
        chroot(root).map_err(|errno| fail(&format!("change the root to {}", root.display()), errno))?;
        chdir("/").map_err(|errno| fail("change to the root", errno))?;
    }
    if let Some(directory) = &spec.cwd {
        chdir(directory).map_err(|errno| fail(&format!("change to {}", directory.display()), errno))?;
    }
    if let Some(place) = &spec.mount_proc {
        let named = |names: [&str; 3]| {
            flags::MS.iter().filter(|(name, _)| names.contains(name)).fold(0, |all, (_, bit)| all | bit)
        };
        let strict = named(["MS_NOSUID", "MS_NODEV", "MS_NOEXEC"]);
        lowlevel::mount(Some("proc".as_ref()), place, Some("proc"), strict, None)?;
    }
    if let Some(User::Ids(uid, gid)) = spec.user {
        if spec.keep_caps {
            rustix::thread::set_keep_capabilities(true)
                .map_err(|errno| fail("keep the capabilities", nix::errno::Errno::from_raw(errno.raw_os_error())))?;
        }
        if let Some(gid) = gid {
            // A namespace of one user does not allow it, and there are no groups to lose then.
            let _ = setgroups(&[]);
            setgid(Gid::from_raw(gid)).map_err(|errno| fail("become the group", errno))?;
        }
        setuid(Uid::from_raw(uid)).map_err(|errno| fail("become the user", errno))?;
    }
    if spec.keep_caps {
        keep_capabilities("unshare")?;
    }
    execute(spec)
}

fn maps(spec: &Spec) -> Result<()> {
    let write =
        |path: &str, text: &str| fs::write(path, text).map_err(|error| Failure::file("unshare: write", path, &error));
    let IdMaps::Explicit { uid, gid } = &spec.id_maps else {
        return match spec.setgroups {
            Some(allowed) if spec.namespaces.contains_key(&Kind::User) => {
                write("/proc/self/setgroups", if allowed { "allow" } else { "deny" })
            }
            _ => Ok(()),
        };
    };
    let line = |map: &zind_core::IdMap| format!("{} {} {}", map.container, map.host, map.size);
    // The kernel demands it of who has no capabilities outside.
    write("/proc/self/setgroups", "deny")?;
    uid.iter().try_for_each(|map| write("/proc/self/uid_map", &line(map)))?;
    gid.iter().try_for_each(|map| write("/proc/self/gid_map", &line(map)))
}

fn execute(spec: &Spec) -> Result {
    let Some((program, rest)) = spec.argv.split_first() else {
        return Err(Failure::new("unshare: there is no program"));
    };
    let mut command = process::Command::new(program);
    command.args(rest);
    if let Some(name) = &spec.argv0 {
        command.arg0(name);
    }
    if !spec.inherit_env {
        command.env_clear();
        let kept = spec.keep_env.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value)));
        command.envs(kept);
    }
    let error = command.exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    Err(Failure::file("unshare: execute", Path::new(program), &error).code(code))
}
