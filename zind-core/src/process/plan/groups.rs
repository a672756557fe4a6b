//! The control group, and how the launcher comes into it.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zind_init::plan as wire;

use super::{Attach, Builder};
use crate::cgroup::{self, Cgroup};
use crate::error::{At, Result, Step};
use crate::namespace::idmap::{self, ReadyMaps};
use crate::spec::{Kind, Spec};

impl Builder {
    /// Makes the control group. It comes last, when nothing else can be refused any more.
    pub(super) fn groups(
        &mut self,
        spec: &Spec,
        have_clone3: bool,
        maps: Option<&ReadyMaps>,
    ) -> Result<(Option<Arc<Cgroup>>, Option<Attach>)> {
        let Some(resources) = &spec.resources else {
            // Without clone3 nobody is born into one.
            let fd = spec.cgroup.as_ref().filter(|_| !have_clone3);
            let entrance = fd.map(|fd| cgroup::entrance(fd.as_fd(), Path::new("cgroup_fd"))).transpose()?;
            return Ok((None, self.attach(entrance.into_iter().collect(), false)?));
        };
        let forks_first = self.plan.flags & wire::FORK_FIRST != 0;
        let mut group = Cgroup::make(crate::cgroup::Request {
            resources,
            parent: spec.cgroup_parent.as_deref(),
            helpers: 1 + u64::from(forks_first),
            dies_with_owner: spec.die_with_owner,
        })?;
        if group.is_nowhere() {
            // Told in the report, and to whoever asks for what only a group can do.
            return Ok((Some(Arc::new(group)), None));
        }
        // Who is to make groups of its own below has to own the group; the limits stay ours.
        let is_to_own = |mount: &crate::mount::Mount| mount.kind() == "cgroup2" && !mount.is_read_only();
        if let (Some(maps), true) = (maps, spec.mounts.iter().any(is_to_own))
            && let (Some(uid), Some(gid)) = (idmap::to_host(&maps.uid, 0), idmap::to_host(&maps.gid, 0))
        {
            group.give(uid, gid)?;
        }
        if let Some(counted) = group.oom_count() {
            let news = counted.news.as_ref().map(AsRawFd::as_raw_fd);
            self.plan.memory_events = counted.file.as_raw_fd();
            self.plan.memory_news = news.unwrap_or(self.plan.memory_events);
            self.shared.push(counted.file);
            self.descriptors.extend(counted.news);
        }
        // A namespace begins at the groups of whoever makes it, which at the clone are still the caller's.
        if self.clone_flags & Kind::Cgroup.flag() != 0 {
            self.clone_flags &= !Kind::Cgroup.flag();
            self.plan.flags |= wire::CGROUP_NAMESPACE;
            self.open_proc()?;
        }
        let is_mounted = |mount: &crate::mount::Mount| matches!(mount.kind(), "cgroup" | "cgroup2");
        let is_pinned = spec.pins.iter().any(|(kind, _)| *kind == Kind::Cgroup);
        // On v1 only root may move somebody whose ids have changed.
        let is_early = !rustix::process::geteuid().is_root() || is_pinned || spec.mounts.iter().any(is_mounted);
        if is_early || group.is_to_settle() || self.has_hooks {
            self.plan.flags |= wire::GROUPS_EARLY;
        }
        let attach = self.attach(group.entrances(have_clone3)?, group.is_to_settle())?;
        Ok((Some(Arc::new(group)), attach))
    }

    /// Has the launcher wait until its pid was written to these files, or somebody else has settled it.
    pub(in crate::process) fn attach(
        &mut self,
        entrances: Vec<(OwnedFd, PathBuf)>,
        is_to_settle: bool,
    ) -> Result<Option<Attach>> {
        if entrances.is_empty() && !is_to_settle {
            return Ok(None);
        }
        let (files, paths) = entrances.into_iter().unzip();
        self.names.groups = paths;
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (ready, done) = pipe.at(Step::Socket, "pipe2", "")?;
        self.plan.groups_ready = ready.as_raw_fd();
        self.descriptors.push(ready);
        Ok(Some(Attach { files, done, crossing: None }))
    }
}
