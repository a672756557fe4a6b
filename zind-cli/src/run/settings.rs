//! Program, namespaces and limits.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::Path;

use clap::ArgMatches;
use zind_core::{
    DeviceRule, IdMaps, IoLimit, Kind, Resources, Rlimit, Source, Spec, Stdio, User, parse_rlimit_name, parse_size,
};

use crate::arguments::Given;
use crate::failure::{Failure, Result};
use crate::text::parse_duration;

pub fn apply(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    streams(spec, given)?;
    program(spec, given)?;
    namespaces(spec, given)?;
    spec.resources = resources(given)?;
    spec.cgroup_parent = given.file("cgroup-parent");
    for text in given.texts("sysctl") {
        let Some((name, value)) = text.split_once('=') else {
            return Err(wrong("sysctl", text, "no parameter").hint("write net.ipv4.ip_forward=1"));
        };
        spec.sysctl.insert(name.to_owned(), value.to_owned());
    }
    spec.rlimits = given.texts("ulimit").into_iter().map(ulimit).collect::<Result<_>>()?;
    spec.oom_score_adj = number(given, "oom-score-adj")?;
    spec.timeout = given.text("timeout").map(|text| parse_duration("--timeout", text)).transpose()?;
    spec.init = given.switched("init").unwrap_or(true);
    spec.require = given.texts("require").into_iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
    Ok(())
}

fn wrong(option: &str, value: &str, what: &str) -> Failure {
    Failure::new(format!("--{option}: {value:?} is {what}"))
}

/// The number of an option.
fn number<T: std::str::FromStr>(given: &ArgMatches, name: &str) -> Result<Option<T>> {
    given.text(name).map(|text| text.parse().map_err(|_| wrong(name, text, "no number for it"))).transpose()
}

/// The size of an option.
pub fn bytes(given: &ArgMatches, name: &str) -> Result<Option<u64>> {
    given.text(name).map(|text| size(name, text)).transpose()
}

/// The size that is the value of an option.
pub fn size(name: &str, text: &str) -> Result<u64> {
    let is_number =
        || text.trim_end_matches(|char: char| char.is_ascii_alphabetic()).parse::<f64>().is_ok_and(|n| n > 0.0);
    match parse_size("size", text) {
        Ok(size) if i64::try_from(size).is_ok() => Ok(size),
        Err(_) if !is_number() => Err(wrong(name, text, "no size").hint(SIZES)),
        _ => Err(wrong(name, text, "more than there can be").hint("the kernel counts less than 8 EiB")),
    }
}

const SIZES: &str = "write 4096, \"64k\", \"256m\" or \"1.5g\"";

/// `--cpus`. 0 is no limit, as with Docker.
fn cpus(given: &ArgMatches) -> Result<Option<f64>> {
    let cpus = number::<f64>(given, "cpus")?;
    match (cpus, given.text("cpus")) {
        (Some(cpus), Some(text)) if !(0.0..=MOST_CPUS).contains(&cpus) => {
            Err(wrong("cpus", text, "no number of CPUs").hint("write 2, or 0.5 for half of one"))
        }
        _ => Ok(cpus.filter(|cpus| *cpus != 0.0)),
    }
}

/// More than any machine has; what is beyond is a slip, and would not fit into the kernel's microseconds.
const MOST_CPUS: f64 = 1e6;

/// Without `-i` stdin is empty, as with Docker.
fn streams(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    if !given.is_on("interactive") {
        spec.stdin = Stdio::Null;
    }
    let attached = given.texts("attach");
    if let Some(other) =
        attached.iter().find(|name| !["stdin", "stdout", "stderr"].contains(&name.to_lowercase().as_str()))
    {
        return Err(wrong("attach", other, "no stream").hint("it is one of stdin, stdout, stderr"));
    }
    if !attached.is_empty() {
        let is_in = |stream: &str| attached.iter().any(|name| name.eq_ignore_ascii_case(stream));
        let or_null = |stream: &str| if is_in(stream) { Stdio::Inherit } else { Stdio::Null };
        (spec.stdin, spec.stdout, spec.stderr) = (or_null("stdin"), or_null("stdout"), or_null("stderr"));
    }
    Ok(())
}

fn program(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    spec.env = variables(given)?;
    spec.cwd = given.text("workdir").map(Into::into);
    spec.user = given.text("user").map(|text| User::Name(text.to_owned()));
    let groups = given.texts("group-add");
    spec.groups = (!groups.is_empty()).then(|| groups.into_iter().map(str::to_owned).collect());
    spec.entrypoint = given.text("entrypoint").map(|text| match text {
        "" => Vec::new(),
        program => vec![OsString::from(program)],
    });
    Ok(())
}

/// `--env-file`, then `--env`: `NAME=value`; of `NAME` the caller's value, if there is one.
pub fn variables(given: &ArgMatches) -> Result<Vec<(OsString, OsString)>> {
    let mut all = Vec::new();
    let mut add = |text: &str| match text.split_once('=') {
        Some((name, value)) => all.push((name.into(), value.into())),
        None => all.extend(std::env::var_os(text).map(|value| (text.into(), value))),
    };
    for file in given.texts("env-file") {
        lines(file)?.iter().for_each(|line| add(line));
    }
    given.texts("env").into_iter().for_each(&mut add);
    Ok(all)
}

/// The lines of a file that are not empty and no comments.
pub fn lines(file: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::file("read", Path::new(file), &error))?;
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// The options of namespaces.
const MODES: [(&str, Kind, &str); 5] = [
    ("network", Kind::Net, "none"),
    ("pid", Kind::Pid, "private"),
    ("ipc", Kind::Ipc, "private"),
    ("uts", Kind::Uts, "private"),
    ("cgroupns", Kind::Cgroup, "private"),
];

fn namespaces(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    spec.hostname = given.text("hostname").map(str::to_owned);
    spec.domainname = given.text("domainname").map(str::to_owned);
    for (name, kind, new) in MODES {
        let Some(text) = given.text(name) else { continue };
        let source = match text {
            "host" => Source::Host,
            text if text == new || (text == "shareable" && kind == Kind::Ipc) => Source::New,
            text => joined(name, text, new)?,
        };
        spec.namespaces.insert(kind, source);
    }
    match given.text("userns") {
        None | Some("") => {}
        Some("host") => drop(spec.namespaces.insert(Kind::User, Source::Host)),
        Some(mode @ ("single" | "auto")) => {
            spec.namespaces.insert(Kind::User, Source::New);
            spec.id_maps = if mode == "auto" { IdMaps::Auto } else { IdMaps::Single };
        }
        Some(text) => drop(spec.namespaces.insert(Kind::User, joined("userns", text, "single, auto")?)),
    }
    Ok(())
}

/// A namespace that exists.
fn joined(option: &str, text: &str, new: &str) -> Result<Source> {
    if let Some(path) = text.strip_prefix("ns:") {
        return Ok(Source::Path(path.into()));
    }
    let failure = wrong(option, text, "no mode");
    match (option, text) {
        ("network", "bridge" | "default") => Err(Failure::new(format!("--network: zind does not have {text} yet"))
            .hint("--network host shares this machine's network; without it there is none")),
        _ => Err(failure.hint(format!("it is one of {new}, host, ns:FILE"))),
    }
}

/// The limits, if there are any.
pub fn resources(given: &ArgMatches) -> Result<Option<Resources>> {
    let mut limits = Resources::new();
    limits.memory = bytes(given, "memory")?;
    limits.memory_low = bytes(given, "memory-reservation")?;
    limits.swap = swap(given, limits.memory)?;
    limits.swappiness = number::<i64>(given, "memory-swappiness")?.and_then(|value| u64::try_from(value).ok());
    limits.oom_kill_disable = given.switched("oom-kill-disable").filter(|on| *on);
    limits.cpus = cpus(given)?;
    limits.cpu_shares = number(given, "cpu-shares")?.filter(|shares| *shares != 0);
    limits.cpu_period_us = number(given, "cpu-period")?.filter(|period| *period != 0);
    limits.cpu_quota_us = number(given, "cpu-quota")?.filter(|quota| *quota != 0);
    limits.cpu_rt_period_us = number(given, "cpu-rt-period")?;
    limits.cpu_rt_runtime_us = number(given, "cpu-rt-runtime")?;
    limits.cpuset_cpus = given.text("cpuset-cpus").map(str::to_owned);
    limits.cpuset_mems = given.text("cpuset-mems").map(str::to_owned);
    limits.pids = number::<i64>(given, "pids-limit")?.filter(|most| *most > 0).map(|most| most as u64);
    disks(&mut limits, given)?;
    for rule in given.texts("device-cgroup-rule") {
        limits.devices.push(DeviceRule::parse(rule, true)?);
    }
    Ok((limits != Resources::new()).then_some(limits))
}

/// Docker's swap counts memory, too.
fn swap(given: &ArgMatches, memory: Option<u64>) -> Result<Option<u64>> {
    let Some(text) = given.text("memory-swap") else { return Ok(None) };
    match (text, memory) {
        ("0", _) => Ok(None),
        ("-1", _) => Ok(Some(u64::MAX)),
        (_, None) => Err(Failure::new("--memory-swap is memory and swap together").hint("give --memory, too")),
        (text, Some(memory)) => match size("memory-swap", text)?.checked_sub(memory) {
            Some(swap) => Ok(Some(swap)),
            None => Err(wrong("memory-swap", text, "less than --memory, which it contains")),
        },
    }
}

/// 10 to 1000 of v1 as 1 to 10000, as runc converts it.
fn weight(option: &str, text: &str) -> Result<u64> {
    let weight = text.parse::<u64>().ok().filter(|weight| (10..=1000).contains(weight));
    let weight = weight.ok_or_else(|| wrong(option, text, "no weight").hint("it is a number from 10 to 1000"))?;
    Ok(1 + (weight - 10) * 9999 / 990)
}

fn disks(limits: &mut Resources, given: &ArgMatches) -> Result<()> {
    limits.io_weight =
        given.text("blkio-weight").filter(|text| *text != "0").map(|text| weight("blkio-weight", text)).transpose()?;
    let mut disks: Vec<IoLimit> = Vec::new();
    for name in ["blkio-weight-device", "device-read-bps", "device-write-bps", "device-read-iops", "device-write-iops"]
    {
        for text in given.texts(name) {
            let (device, value) = text.rsplit_once(':').ok_or_else(|| wrong(name, text, "not DEVICE:VALUE"))?;
            let at = disks.iter().position(|disk| disk.device == Path::new(device)).unwrap_or_else(|| {
                disks.push(IoLimit::of(device));
                disks.len() - 1
            });
            let disk = &mut disks[at];
            let count = || value.parse().map_err(|_| wrong(name, text, "no number for it"));
            match name {
                "blkio-weight-device" => disk.weight = Some(weight(name, value)?),
                "device-read-bps" => disk.rbps = Some(size(name, value)?),
                "device-write-bps" => disk.wbps = Some(size(name, value)?),
                "device-read-iops" => disk.riops = Some(count()?),
                _ => disk.wiops = Some(count()?),
            }
        }
    }
    limits.io = disks;
    Ok(())
}

/// `nofile=1024:2048`; -1 is no limit.
fn ulimit(text: &str) -> Result<Rlimit> {
    let bad = || wrong("ulimit", text, "no limit").hint("write nofile=1024 or nofile=1024:2048; -1 is no limit");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let limit = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        digits => digits.parse::<u64>().map(Some).map_err(|_| bad()),
    };
    Ok(Rlimit { resource: parse_rlimit_name(name)?, soft: limit(soft)?, hard: limit(hard)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_docker_writes_them() {
        let limit = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((limit.resource, limit.soft, limit.hard), (7, Some(1024), Some(2048)));
        assert_eq!(ulimit("core=-1").unwrap().soft, None);
        assert!(ulimit("nofile").is_err() && ulimit("nofile=x").is_err() && ulimit("files=1").is_err());
        assert_eq!(weight("blkio-weight", "1000").unwrap(), 10_000);
        assert_eq!(weight("blkio-weight", "10").unwrap(), 1);
    }
}
