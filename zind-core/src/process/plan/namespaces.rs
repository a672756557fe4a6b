//! Which namespaces there are: to make, to join, whose they are, and what is told in them: names, ids, parameters.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};
use zind_init::plan::{self as wire, Enter, Topology};

use super::Builder;
use crate::error::{At, Error, Result, Step};
use crate::namespace::idmap::{self, IdMaps, ReadyMaps};
use crate::process::identity::{Caller, Identity};
use crate::rootfs::ops::c_string;
use crate::rootfs::plan::Situation;
use crate::rootfs::template;
use crate::spec::sysctl;
use crate::spec::{Kind, Source, Spec};
use crate::sys::clone::NetworkMaker;

/// Has the network namespace made from now on, if that is nobody's but the caller's own to make: with a user namespace it
/// has to belong to that. In a user namespace a sysfs can be mounted only while the one before is still to be seen, which is before the
/// network would be there.
pub(super) fn begin_network(spec: &Spec, caller: Caller, have_clone3: bool) -> Result<Option<NetworkMaker>> {
    let is_own =
        caller.admin && caller.initial_user_namespace && !spec.is_new(Kind::User) && !spec.is_joined(Kind::User);
    let is_wanted = spec.is_new(Kind::Net) && !spec.is_low_level() && spec.pins.is_empty();
    if !(is_own && is_wanted && have_clone3) {
        return Ok(None);
    }
    NetworkMaker::start().map(Some).at(Step::Clone, "clone3", "")
}

/// Without privilege a container needs a user namespace of its own.
pub(super) fn choose_user_namespace(spec: &mut Spec, caller: Caller) -> Result<()> {
    if spec.owner.is_some() && !caller.admin {
        return Err(Error::unsupported("owner", "becoming another user first takes CAP_SETUID: run as root"));
    }
    if spec.is_low_level() {
        return Ok(());
    }
    let asks_for_maps = spec.id_maps != IdMaps::ByPrivilege;
    match spec.namespaces.get(&Kind::User) {
        None if !caller.admin || asks_for_maps => {
            spec.namespaces.insert(Kind::User, Source::New);
        }
        Some(Source::Host) if !caller.admin => {
            return Err(Error::unsupported(
                "a container without a user namespace",
                "an ordinary user needs one; leave namespaces[\"user\"] out, or run as root",
            ));
        }
        Some(Source::Host) if asks_for_maps => {
            return Err(Error::spec("uid_map", "needs a new user namespace, but namespaces[\"user\"] is \"host\""));
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn id_maps(spec: &Spec, identity: &mut Identity, caller: Caller) -> Result<Option<ReadyMaps>> {
    if !spec.is_new(Kind::User) || (spec.is_low_level() && spec.id_maps == IdMaps::ByPrivilege) {
        return Ok(None);
    }
    let target = identity.user.unwrap_or((0, 0));
    let maps = idmap::resolve(&spec.id_maps, spec.setgroups, target, caller.admin)?;
    for (map, id, what) in [(&maps.uid, target.0, "user"), (&maps.gid, target.1, "group")] {
        if identity.user.is_some() && idmap::to_host(map, id).is_none() {
            return Err(Error::spec("user", format!("{what} {id} is not in the id map of the user namespace")));
        }
    }
    if identity.groups_by_membership {
        // Nobody asked for them by name: where only some can be had, the others grant nothing.
        let has = |gid: &u32| maps.setgroups && idmap::to_host(&maps.gid, *gid).is_some();
        identity.groups.iter_mut().for_each(|groups| groups.retain(has));
    }
    if let (Some(groups), false) = (&identity.groups, maps.setgroups)
        && !groups.is_empty()
    {
        return Err(Error::spec(
            "groups",
            "cannot be set where setgroups is denied: a single id is mapped; use uid_map=\"auto\"",
        ));
    }
    Ok(Some(maps))
}

impl Builder {
    /// Who is cloned into what: namespaces to join come before those to make, and before the fork that makes them.
    pub(super) fn topology(&mut self, spec: &Spec, situation: Situation, have_clone3: bool) -> Result<()> {
        let mut flags: u64 = Kind::ALL
            .into_iter()
            // A new time namespace takes its offsets before anybody is in it, so it is made later.
            .filter(|kind| *kind != Kind::Time && spec.is_new(*kind))
            .map(Kind::flag)
            .sum();
        let mut enter = Vec::new();
        let changed = sysctl::joined(spec);
        for kind in Kind::ALL.into_iter().filter(|kind| spec.is_joined(*kind)) {
            let fd = self.open_namespace(kind, &spec.namespaces[&kind])?;
            if changed.contains(&kind) {
                refuse_own(&self.descriptors[self.descriptors.len() - 1], kind)?;
            }
            enter.push(Enter { fd, flags: kind.flag() as u32 });
            self.names.enter.push(PathBuf::from(kind.name()));
        }
        if !enter.is_empty() {
            // There it is told which namespace the launcher is in.
            self.open_proc()?;
        }
        let init = spec.init && spec.is_new(Kind::Pid) && !spec.is_low_level();
        let fork_first = init && (!enter.is_empty() || spec.owner.is_some() || !have_clone3);
        if situation.template {
            let template = template::namespace()?;
            enter.push(Enter { fd: template.as_raw_fd(), flags: Kind::Mount.flag() as u32 });
            self.shared.push(template);
            self.names.enter.push("mnt".into());
            if init && !fork_first {
                flags &= !Kind::Mount.flag();
                enter.push(Enter { fd: -1, flags: Kind::Mount.flag() as u32 });
                self.names.enter.push("mnt".into());
            }
        }
        if spec.is_new(Kind::Net) {
            self.plan.flags |= wire::NEW_NETWORK;
        }
        if let Some(network) = &self.network {
            flags &= !Kind::Net.flag();
            self.plan.network = network.pidfd().as_raw_fd();
            self.plan.network_ready = network.ready().as_raw_fd();
        }
        if let Some((uid, gid)) = spec.owner {
            self.plan.flags |= wire::OWNER;
            (self.plan.owner_uid, self.plan.owner_gid) = (uid, gid);
        }
        if fork_first {
            self.plan.flags |= wire::FORK_FIRST;
        }
        self.plan.topology = if init { Topology::Init } else { Topology::Watcher };
        if init && !fork_first {
            self.clone_flags = flags;
        } else {
            self.plan.fork_flags = flags;
        }
        if !spec.is_new(Kind::Pid) && !spec.is_low_level() {
            self.plan.flags |= wire::KILL_DESCENDANTS;
            self.open_proc()?;
        }
        self.plan.enter = self.writer.list(&enter);
        Ok(())
    }

    fn open_namespace(&mut self, kind: Kind, source: &Source) -> Result<RawFd> {
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            rustix::fs::open(path, flags, Mode::empty()).at(Step::OpenNamespace, "open", path)
        };
        let (fd, name) = match source {
            Source::Path(path) => (open(path)?, path.clone()),
            Source::Pid(pid) => {
                let path = PathBuf::from(format!("/proc/{pid}/ns/{}", kind.name()));
                let fd = open(&path).map_err(|error| match error.errno() {
                    Some(Errno::ENOENT) => Error::NotFound { what: "process", name: pid.to_string() },
                    _ => error,
                })?;
                (fd, path)
            }
            Source::Fd(fd) => {
                let fd = fd.as_fd().try_clone_to_owned().at(Step::OpenNamespace, "dup", kind.name())?;
                (fd, PathBuf::from(kind.name()))
            }
            Source::New | Source::Host => return Err(Error::spec("namespaces", "is not one to join")),
        };
        check_namespace(&fd, kind, &name)?;
        let number = fd.as_raw_fd();
        self.descriptors.push(fd);
        Ok(number)
    }

    pub(super) fn names_of_host(&mut self, spec: &Spec) -> Result<()> {
        let hostname = match &spec.hostname {
            None if spec.is_new(Kind::Uts) && !spec.is_low_level() => Some(crate::rootfs::host::HOSTNAME),
            other => other.as_deref(),
        };
        if let Some(name) = hostname {
            self.plan.hostname = self.writer.str(&c_string("hostname", name.as_ref())?);
        }
        if let Some(name) = spec.domainname.as_ref().or_else(|| sysctl::domainname(spec)) {
            self.plan.domainname = self.writer.str(&c_string("domainname", name.as_ref())?);
        }
        if spec.is_new(Kind::Net) && !spec.is_low_level() && self.network.is_none() {
            self.plan.flags |= wire::LOOPBACK;
        }
        if spec.is_new(Kind::Time) {
            self.open_proc()?;
            self.plan.flags |= wire::TIME_OFFSETS;
            let text = spec.time_offsets.map(|offsets| offsets.text()).unwrap_or_default();
            self.plan.time_offsets = self.writer.str(&c_string("namespaces", text.as_ref())?);
        }
        Ok(())
    }

    pub(super) fn sysctls(&mut self, spec: &Spec) -> Result<()> {
        if spec.sysctl.is_empty() {
            return Ok(());
        }
        self.open_proc()?;
        let mut list = Vec::new();
        for (name, value) in &spec.sysctl {
            let path = sysctl::path_of(name)?;
            if path == sysctl::DOMAINNAME {
                continue;
            }
            let path = format!("sys/{path}");
            list.push(wire::Sysctl {
                path: self.writer.str(&c_string("sysctl", path.as_ref())?),
                value: self.writer.str(&c_string("sysctl", value.as_ref())?),
            });
            self.names.sysctls.push(Path::new("/proc").join(path));
        }
        self.plan.sysctls = self.writer.list(&list);
        Ok(())
    }
}

/// What the kernel would refuse later is told now, by name.
fn check_namespace(fd: &OwnedFd, kind: Kind, name: &Path) -> Result<()> {
    // NS_GET_NSTYPE: ioctl_ns(2). A file of another file system answers ENOTTY.
    let found = crate::sys::descriptors::namespace_type(fd.as_fd()).map_err(|errno| {
        Error::sys(Step::OpenNamespace, "ioctl", name, errno)
            .with_hint("this is no namespace; give a file like /proc/<pid>/ns/net, or one a namespace was pinned to")
    })?;
    if found != kind.flag() {
        let actual = Kind::ALL.into_iter().find(|other| other.flag() == found).map_or("other", Kind::name);
        return Err(Error::spec("namespaces", format!("{} is a {actual} namespace, not a {kind} one", name.display())));
    }
    Ok(())
}

/// Parameters of a namespace that is joined are its owner's, unless it is the caller's own by another name.
fn refuse_own(fd: &OwnedFd, kind: Kind) -> Result<()> {
    let own = format!("/proc/self/ns/{}", kind.name());
    let (own, joined) = (rustix::fs::stat(&own).at(Step::OpenNamespace, "stat", &own)?, rustix::fs::fstat(fd));
    if joined.is_ok_and(|joined| (joined.st_dev, joined.st_ino) == (own.st_dev, own.st_ino)) {
        let rule = format!("the {kind} namespace that is joined is the caller's own, which would be changed");
        return Err(Error::spec("sysctl", rule));
    }
    Ok(())
}
