//! Writing limits into the files of a group, in the right order, and what is looked at beside it.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::limits::{Situation, Version};
use super::{Cgroup, Layout, Part, Resources, devices, files, limits};
use crate::error::{Error, Result, Step};

impl Cgroup {
    /// Changes limits; what is `None` stays as it is. A limit of memory below what is in use and cannot be taken back is
    /// refused (`EBUSY`), on both versions. When the kernel refuses one, those before it stand already.
    ///
    /// Errors: as for [`Cgroup::create`]; [`Error::State`] for a controller that the group was made without, before anything is
    /// changed.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        resources.check()?;
        if resources.memory.is_some() || resources.unified.contains_key("memory.max") {
            self.memory_max.store(0, Ordering::Release);
        }
        if let (Some(memory), Some(part)) = (resources.memory, self.with("memory").filter(|part| part.is_v2)) {
            make_room(part, memory)?;
        }
        self.write_limits(resources, &Layout::read()?)?;
        self.scope.as_ref().map_or(Ok(()), |(scope, name)| scope.update(name, resources))
    }

    pub(super) fn write_limits(&self, resources: &Resources, layout: &Layout) -> Result<()> {
        // What is not there is found out before anything is written.
        let mut parts = Vec::new();
        for (version, controller) in limits::needed(resources, |name| layout.v1_with(name).is_some())? {
            let part = self.parts.iter().find(|part| part.is_v2 == (version == Version::V2) && part.has(controller));
            parts.push((part.ok_or_else(|| without(controller))?, version, controller));
        }
        let program = match !resources.devices.is_empty() && layout.v1_with("devices").is_none() {
            true => Some(self.v2().ok_or_else(|| without("devices"))?),
            false => None,
        };
        let mut raw = Vec::new();
        for (file, text) in &resources.unified {
            let controller = unified_controller(file, layout)?;
            raw.push((self.v2().filter(|part| part.has(controller)).ok_or_else(|| without(controller))?, file, text));
        }
        for (part, version, controller) in parts {
            let current = |file: &str| files::read(part.dir.as_fd(), file).ok();
            let situation = Situation { version, helpers: self.helpers, current: &current };
            let mut writes = limits::writes(resources, controller, &situation)?;
            put_in_order(&mut writes, &current);
            let before = |file: &str| (version == Version::V2).then(|| current(file).unwrap_or_default());
            for write in &writes {
                let set = CPUSETS.into_iter().find(|file| *file == write.alternatives[0].0);
                let before = set.and_then(before);
                write_one(part, write)?;
                if let (Some(file), Some(before)) = (set, before) {
                    check_cpuset(part, write, file, &before)?;
                }
            }
        }
        if let Some(part) = program {
            devices::attach_v2(part.dir.as_fd(), &part.path, &resources.devices)?;
        }
        for (part, file, text) in raw {
            for line in text.lines() {
                let write = limits::Write {
                    option: "unified",
                    alternatives: vec![(file.clone().into(), line.to_owned())],
                    optional: false,
                    every: false,
                };
                write_one(part, &write)?;
            }
        }
        Ok(())
    }
}

/// The error about a controller that a group was made without.
fn without(controller: &str) -> Error {
    Error::State(format!(
        "the container has no group in the hierarchy of {controller}, and zind puts processes into one only as they are born: give a \
         limit of it at the start, be it a high one"
    ))
}

/// The controller of a file of version 2, which must be there.
pub(super) fn unified_controller(file: &str, layout: &Layout) -> Result<&'static str> {
    let controller = file.split('.').next().unwrap_or_default();
    let Some(known) = limits::known(controller) else {
        let names = limits::CONTROLLERS.join(", ");
        return Err(Error::spec("resources", format!("unified: {controller:?} is none of {names}")));
    };
    let v1 = if known == "io" { "blkio" } else { known };
    if layout.v1_with(v1).is_some() {
        let needs = format!("the {v1} controller is on control groups v1 here, and unified has files of v2");
        return Err(Error::unsupported(format!("unified[{file:?}]"), needs));
    }
    Ok(known)
}

/// What has to be written before what: on v1 memory alone may never be above memory and swap together; a burst never above
/// the quota; what is idle takes no weight.
fn put_in_order(writes: &mut [limits::Write], current: &dyn Fn(&str) -> Option<String>) {
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    let number = |text: &str| files::number(text).unwrap_or(u64::MAX);
    let find = |writes: &[limits::Write], names: &[&str]| {
        writes.iter().position(|write| names.contains(&&*write.alternatives[0].0))
    };
    let quota = find(writes, &["cpu.max", "cpu.cfs_period_us", "cpu.cfs_quota_us"]);
    if let (Some(quota), Some(burst)) = (quota, find(writes, &["cpu.max.burst", "cpu.cfs_burst_us"])) {
        let (file, text) = &writes[burst].alternatives[0];
        if quota < burst && current(file).is_some_and(|now| number(text) < number(&now)) {
            writes[quota..=burst].rotate_right(1);
        }
    }
    if let Some(idle) = find(writes, &["cpu.idle"]).filter(|idle| writes[*idle].alternatives[0].1 == "0") {
        writes[..=idle].rotate_right(1);
    }
    let (memory, both) = (find(writes, &["memory.limit_in_bytes"]), find(writes, &[BOTH]));
    let (Some(memory), Some(both)) = (memory, both) else { return };
    let now = current(BOTH).map_or(u64::MAX, |text| number(&text));
    if number(&writes[memory].alternatives[0].1) > now {
        writes.swap(memory, both);
    }
}

fn write_one(part: &Part, write: &limits::Write) -> Result<()> {
    let mut first = None;
    let mut is_written = false;
    for (file, text) in &write.alternatives {
        let refused = match files::write(part.dir.as_fd(), file, text) {
            Ok(()) if write.every => {
                is_written = true;
                continue;
            }
            Ok(()) => return Ok(()),
            Err(Errno::ENOENT) if write.optional => return Ok(()),
            Err(errno) => (file, text, errno),
        };
        if first.is_none_or(|(_, _, errno)| errno == Errno::ENOENT) {
            first = Some(refused);
        }
        if refused.2 != Errno::ENOENT && !write.every {
            break;
        }
    }
    if is_written {
        return Ok(());
    }
    let Some((file, text, errno)) = first else { return Ok(()) };
    let cure = limits::cure(write.option, file, errno);
    let cure = if cure.is_empty() { String::new() } else { format!(": {cure}") };
    let hint = format!("{text:?} was to be written for {}{cure}", write.option);
    Err(Error::sys(Step::WriteCgroup, "write", part.path.join(&**file), errno).with_hint(hint))
}

const CPUSETS: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// On v2 a list that has nothing of what the group above may use is taken without a word, and then all that the group above
/// may use is in force. Here it is refused as on v1, and `before` is put back.
fn check_cpuset(part: &Part, write: &limits::Write, file: &str, before: &str) -> Result<()> {
    let asked = &write.alternatives[0].1;
    let effective = part.read(&format!("{file}.effective"))?;
    let effective = effective.trim();
    if limits::is_within(effective, asked) {
        return Ok(());
    }
    let _ = files::write(part.dir.as_fd(), file, if before.trim().is_empty() { "\n" } else { before });
    let hint = format!(
        "{asked:?} was to be written for {}: the group above may use {effective} only, and nothing of that was asked for",
        write.option
    );
    Err(Error::sys(Step::WriteCgroup, "write", part.path.join(file), Errno::EINVAL).with_hint(hint))
}

/// On v2 a limit below what is in use would kill; as on v1, it is refused where the memory cannot be taken back.
fn make_room(part: &Part, memory: u64) -> Result<()> {
    let current = || part.read("memory.current").map(|text| files::number(&text).unwrap_or(0));
    let used = current()?;
    if used <= memory {
        return Ok(());
    }
    // Linux 5.19; EAGAIN where not all of it could be taken back.
    let _ = files::write(part.dir.as_fd(), "memory.reclaim", &(used - memory).to_string());
    let left = current()?;
    if left <= memory {
        return Ok(());
    }
    let cure = limits::cure("memory", "memory.max", Errno::EBUSY);
    let hint = format!("\"{memory}\" was to be written for memory, {left} bytes are in use: {cure}");
    Err(Error::sys(Step::WriteCgroup, "write", part.path.join("memory.max"), Errno::EBUSY).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn weights_of_disks_are_written_for_every_scheduler() {
        let dir = tempfile();
        let written = |names: &[&str]| -> Result<Vec<String>> {
            names.iter().for_each(|name| std::fs::write(dir.join(name), "").unwrap());
            let part =
                Part { dir: files::open_dir(&dir).unwrap(), path: dir.clone(), is_v2: true, controllers: Vec::new() };
            let r = Resources { io_weight: Some(910), ..Resources::default() };
            let situation = Situation { version: Version::V2, helpers: 1, current: &|_| None };
            let result = limits::writes(&r, "io", &situation)?.iter().try_for_each(|write| write_one(&part, write));
            let texts = names.iter().map(|name| {
                let text = std::fs::read_to_string(dir.join(name)).unwrap();
                std::fs::remove_file(dir.join(name)).unwrap();
                text
            });
            let texts = texts.collect();
            result.map(|()| texts)
        };
        assert_eq!(written(&["io.weight", "io.bfq.weight"]).unwrap(), ["910", "100"]);
        assert_eq!(written(&["io.weight"]).unwrap(), ["910"]);
        assert_eq!(written(&["io.bfq.weight"]).unwrap(), ["100"]);
        assert_eq!(written(&[]).unwrap_err().errno(), Some(Errno::ENOENT));
        std::fs::remove_dir(&dir).unwrap();
    }

    fn tempfile() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("zind-test-weights-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn limits_that_depend_on_each_other_are_written_in_order() {
        let files = |r: &Resources, version: Version, burst: u64| -> Vec<String> {
            let current = |file: &str| file.contains("burst").then(|| burst.to_string());
            let situation = Situation { version, helpers: 1, current: &current };
            let mut writes = limits::writes(r, "cpu", &situation).unwrap();
            put_in_order(&mut writes, &current);
            writes.iter().map(|write| write.alternatives[0].0.to_string()).collect()
        };
        let mut r = Resources { cpu_quota_us: Some(20_000), cpu_burst_us: Some(10_000), ..Resources::default() };
        assert_eq!(files(&r, Version::V2, 50_000), ["cpu.max.burst", "cpu.max"], "it falls");
        assert_eq!(files(&r, Version::V2, 5_000), ["cpu.max", "cpu.max.burst"], "it rises");
        r.cpu_period_us = Some(100_000);
        assert_eq!(files(&r, Version::V1, 50_000), ["cpu.cfs_burst_us", "cpu.cfs_period_us", "cpu.cfs_quota_us"]);
        let mut r = Resources { cpu_weight: Some(50), cpu_idle: Some(false), ..Resources::default() };
        assert_eq!(files(&r, Version::V2, 0), ["cpu.idle", "cpu.weight"]);
        r.cpu_idle = Some(true);
        assert_eq!(files(&r, Version::V1, 0), ["cpu.shares", "cpu.idle"]);
    }
}
