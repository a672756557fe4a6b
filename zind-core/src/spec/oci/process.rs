//! `process`: the program and what it runs as.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::extras::{In, Out};
use super::node::{Fields, Node, wrong};
use super::typed::Typed;
use crate::error::{Error, Result};
use crate::process::DEFAULT_PATH;
use crate::rootfs::Rootfs;
use crate::security::capabilities::{CapSet, CapSets};
use crate::spec::parse::rlimit_name;
use crate::spec::{Rlimit, Scheduler, Size, Spec, User, parse_rlimit_name};

/// Written for a user of whom only the name is known: for another runtime that is nobody, not root.
const NOBODY: u32 = 65534;

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const SCHED_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

pub(super) fn write(spec: &Spec, out: &mut Out) -> Result<Value> {
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
    put("terminal", json!(spec.terminal.is_some()));
    if let Some((height, width)) = spec.terminal.map(|size| (size.rows, size.cols)).or(spec.console_size) {
        put("consoleSize", json!({"height": height, "width": width}));
    }
    put("user", user_of(spec, out));
    put("args", out.texts.list("process.args", &spec.argv));
    let mut env = usual_env(spec);
    if !env.is_empty() {
        out.extra("usual_env", json!(env.len()));
    }
    for (name, value) in &spec.env {
        env.push(line(name, value)?);
    }
    put("env", out.texts.list("process.env", &env));
    match &spec.cwd {
        Some(cwd) => put("cwd", out.texts.os("process.cwd".to_owned(), cwd.as_os_str())),
        None => {
            out.extra("cwd", Value::Null);
            put("cwd", json!("/"));
        }
    }
    if let Some(sets) = capabilities_of(spec, out)? {
        put("capabilities", sets);
    }
    let mut limits: Vec<Value> = Vec::new();
    for (index, limit) in spec.rlimits.iter().enumerate() {
        let name = rlimit_name(limit.resource);
        if name == "unknown" || spec.rlimits[..index].iter().any(|other| other.resource == limit.resource) {
            return Err(Error::spec("rlimits", format!("{name} ({}) is unknown, or there twice", limit.resource)));
        }
        let number = |value: Option<u64>| value.unwrap_or(u64::MAX);
        let name = format!("RLIMIT_{}", name.to_ascii_uppercase());
        limits.push(json!({"type": name, "soft": number(limit.soft), "hard": number(limit.hard)}));
    }
    if !limits.is_empty() {
        put("rlimits", Value::Array(limits));
    }
    put("noNewPrivileges", json!(spec.no_new_privileges));
    for (name, field, label) in
        [("apparmorProfile", "apparmor", &spec.apparmor), ("selinuxLabel", "selinux", &spec.selinux)]
    {
        match label.as_deref() {
            Some("") => return Err(Error::spec(field, "is empty")),
            Some(label) => put(name, json!(label)),
            None => {}
        }
    }
    if let Some(score) = spec.oom_score_adj {
        put("oomScoreAdj", json!(score));
    }
    match &spec.scheduler {
        Some(scheduler) => put("scheduler", scheduler_of(scheduler, spec.nice)?),
        None if spec.nice.is_some() => out.typed("nice", &spec.nice),
        None => {}
    }
    Ok(Value::Object(all))
}

fn is_usual(line: &str) -> bool {
    matches!(line, "HOME=/root" | "HOME=/home" | "LANG=C.UTF-8") || line.strip_prefix("PATH=") == Some(DEFAULT_PATH)
}

/// What a start adds by itself: another runtime would not.
fn usual_env(spec: &Spec) -> Vec<OsString> {
    if spec.clear_env || spec.inherit_env || !matches!(spec.rootfs, Rootfs::Path(_)) {
        return Vec::new();
    }
    let home = if matches!(spec.user, None | Some(User::Ids(0, _))) { "/root" } else { "/home" };
    let is_given = |name: &str| spec.env.iter().any(|(given, _)| given == name);
    [("PATH", DEFAULT_PATH), ("HOME", home), ("LANG", "C.UTF-8")]
        .into_iter()
        .filter(|(name, _)| !is_given(name))
        .map(|(name, value)| format!("{name}={value}").into())
        .collect()
}

fn line(name: &OsStr, value: &OsStr) -> Result<OsString> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(Error::spec("env", format!("{:?} is no name of a variable", name.to_string_lossy())));
    }
    let mut line = name.as_bytes().to_vec();
    line.push(b'=');
    line.extend_from_slice(value.as_bytes());
    Ok(OsString::from_vec(line))
}

fn user_of(spec: &Spec, out: &mut Out) -> Value {
    let (uid, gid) = match &spec.user {
        Some(User::Ids(uid, Some(gid))) => (*uid, *gid),
        Some(User::Ids(uid, None)) => {
            out.extra("user", json!(uid));
            (*uid, 0)
        }
        Some(User::Name(name)) => {
            out.extra("user", json!(name));
            (NOBODY, NOBODY)
        }
        None => {
            out.extra("user", Value::Null);
            (0, 0)
        }
    };
    let mut user = json!({"uid": uid, "gid": gid});
    match spec.umask {
        Some(mask) => user["umask"] = json!(mask),
        None => out.extra("umask", Value::Null),
    }
    if let Some(groups) = &spec.groups {
        // As numbers, where that says the same.
        let number = |name: &String| name.parse::<u32>().ok().filter(|number| number.to_string() == *name);
        match groups.iter().map(number).collect::<Option<Vec<u32>>>() {
            Some(numbers) => user["additionalGids"] = json!(numbers),
            None => out.typed("groups", groups),
        }
    }
    user
}

fn read_user(mut user: Fields, spec: &mut Spec, from: &mut In) -> Result<()> {
    let (uid, gid) = (user.need("uid")?.u32()?, user.need("gid")?.u32()?);
    let told = from.take("user");
    let (who, expected) = match told.map(|node| (node.value.clone(), node)) {
        None => (Some(User::Ids(uid, Some(gid))), (uid, gid)),
        Some((Value::Null, _)) => (None, (0, 0)),
        Some((Value::String(name), _)) => (Some(User::Name(name)), (NOBODY, NOBODY)),
        Some((Value::Number(_), node)) => {
            let uid = node.u32()?;
            (Some(User::Ids(uid, None)), (uid, 0))
        }
        Some((_, node)) => return node.is_no("user"),
    };
    if expected != (uid, gid) {
        return Err(wrong("process.user", "is not what org.zind.user stands for; take that away, or this back"));
    }
    spec.user = who;
    spec.umask = match (user.take("umask"), from.typed::<Option<u32>>("umask")?) {
        (Some(node), Some(_)) => return Err(node.wrong("is in org.zind.umask too; take that away")),
        (Some(node), None) => Some(node.u32()?),
        (None, Some(told)) => told,
        (None, None) => spec.umask,
    };
    spec.groups = match (user.take("additionalGids"), from.typed("groups")?) {
        (Some(node), Some(_)) => return Err(node.wrong("are in org.zind.groups too; take that away")),
        (Some(node), None) => {
            Some(node.list()?.into_iter().map(|node| node.u32().map(|id| id.to_string())).collect::<Result<_>>()?)
        }
        (None, told) => told,
    };
    Ok(())
}

/// The five sets; `None`: none are given.
fn capabilities_of(spec: &Spec, out: &mut Out) -> Result<Option<Value>> {
    let known = |set: CapSet| match CapSet::from_names(set.names()) {
        Ok(same) if same == set => Ok(set),
        _ => Err(Error::spec("capabilities", format!("{set} has bits without a name"))),
    };
    known(spec.ambient)?;
    if !spec.ambient.is_empty() {
        out.typed("ambient", &spec.ambient);
    }
    let sets = match (spec.cap_sets, spec.capabilities) {
        (Some(_), Some(_)) => return Err(Error::spec("capabilities", "are given as one set and as five")),
        (Some(sets), None) => sets,
        (None, Some(set)) => {
            out.extra("capabilities", json!("one-set"));
            of_one_set(set, spec)
        }
        (None, None) => return Ok(None),
    };
    let mut all = Map::new();
    for (name, set) in named(&sets) {
        all.insert(name.to_owned(), known(*set)?.write());
    }
    Ok(Some(Value::Object(all)))
}

fn named(sets: &CapSets) -> [(&'static str, &CapSet); 5] {
    [
        ("bounding", &sets.bounding),
        ("effective", &sets.effective),
        ("inheritable", &sets.inheritable),
        ("permitted", &sets.permitted),
        ("ambient", &sets.ambient),
    ]
}

/// What a start makes of one set.
fn of_one_set(set: CapSet, spec: &Spec) -> CapSets {
    let as_root = matches!(spec.user, None | Some(User::Ids(0, _)));
    let ambient = if as_root { spec.ambient & set } else { set };
    CapSets { bounding: set, permitted: set, effective: set, inheritable: ambient, ambient }
}

fn read_capabilities(node: Option<Node>, spec: &mut Spec, from: &mut In) -> Result<()> {
    if let Some(ambient) = from.typed("ambient")? {
        spec.ambient = ambient;
    }
    let told = from.take("capabilities");
    let Some(node) = node else {
        return told.map_or(Ok(()), |told| Err(told.wrong("stands for process.capabilities, which are not there")));
    };
    let edited = node.wrong("are not what org.zind.capabilities stands for; take that away, or this back");
    let mut fields = node.fields()?;
    let mut set = |name| fields.take(name).map_or(Ok(CapSet::EMPTY), CapSet::read);
    let sets = CapSets {
        bounding: set("bounding")?,
        effective: set("effective")?,
        inheritable: set("inheritable")?,
        permitted: set("permitted")?,
        ambient: set("ambient")?,
    };
    match told {
        None => spec.cap_sets = Some(sets),
        Some(node) if node.value != json!("one-set") => return node.is_no("form of capabilities"),
        Some(_) if sets != of_one_set(sets.permitted, spec) => return Err(edited),
        Some(_) => spec.capabilities = Some(sets.permitted),
    }
    Ok(())
}

fn scheduler_of(scheduler: &Scheduler, nice: Option<i32>) -> Result<Value> {
    let Scheduler { policy, priority, flags, deadline_ns: (runtime, deadline, period) } = *scheduler;
    let name = POLICIES.iter().find(|(_, number)| *number == policy);
    let known: u64 = SCHED_FLAGS.iter().map(|(_, bit)| bit).sum();
    let (Some((name, _)), 0) = (name, flags & !known) else {
        return Err(Error::spec("scheduler", format!("policy {policy} or flags {flags:#x} have no name")));
    };
    let flags: Vec<&str> = SCHED_FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name).collect();
    let mut all = json!({"policy": name});
    if let Some(nice) = nice {
        all["nice"] = json!(nice);
    }
    if !flags.is_empty() {
        all["flags"] = json!(flags);
    }
    for (name, value) in
        [("priority", u64::from(priority)), ("runtime", runtime), ("deadline", deadline), ("period", period)]
    {
        if value != 0 {
            all[name] = json!(value);
        }
    }
    Ok(all)
}

fn read_scheduler(node: Node, spec: &mut Spec) -> Result<()> {
    fn find<T: Copy>(node: Node, table: &[(&str, T)], what: &str) -> Result<T> {
        let error = node.wrong(format!("is no {what}"));
        let text = node.text()?;
        table.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or(error)
    }
    let mut all = node.fields()?;
    let policy = find(all.need("policy")?, &POLICIES, "policy")?;
    spec.nice = all.take("nice").map(i32::read).transpose()?;
    let mut flags = 0;
    for node in all.list("flags")? {
        flags |= find(node, &SCHED_FLAGS, "flag of a scheduler")?;
    }
    let priority = all.take("priority").map(Node::u32).transpose()?.unwrap_or(0);
    let mut time = |name| all.take(name).map(Node::u64).transpose().map(Option::unwrap_or_default);
    let deadline_ns = (time("runtime")?, time("deadline")?, time("period")?);
    spec.scheduler = Some(Scheduler { policy, priority, flags, deadline_ns });
    Ok(())
}

pub(super) fn read(mut all: Fields, spec: &mut Spec, from: &mut In) -> Result<()> {
    let has_terminal = all.flag("terminal")?;
    if let Some(size) = all.take("consoleSize") {
        let mut size = size.fields()?;
        let mut side = |name| size.need(name)?.small("number of rows or columns");
        spec.console_size = Some((side("height")?, side("width")?));
    }
    if has_terminal {
        // None, or no size at all, is the usual one.
        let size = spec.console_size.take().filter(|(rows, cols)| *rows > 0 && *cols > 0);
        spec.terminal = Some(size.map_or_else(Size::default, |(rows, cols)| Size::new(rows, cols)));
    }
    read_user(all.need("user")?.fields()?, spec, from)?;
    for node in all.list("args")? {
        spec.argv.push(node.os(&mut from.bytes)?);
    }
    let usual = from.typed::<u32>("usual_env")?.unwrap_or(0) as usize;
    let lines = all.list("env")?;
    if usual > lines.len() {
        return Err(wrong("process.env", "has fewer lines than org.zind.usual_env stands for; take that away"));
    }
    for (index, node) in lines.into_iter().enumerate() {
        // Those that are as a start makes them; one that was changed is somebody's wish.
        if index < usual && node.value.as_str().is_some_and(is_usual) {
            continue;
        }
        let error = node.wrong("is not NAME=value");
        let line = node.os(&mut from.bytes)?.into_vec();
        let at = line.iter().position(|byte| *byte == b'=').filter(|at| *at > 0).ok_or(error)?;
        let (name, value) = (line[..at].to_vec(), line[at + 1..].to_vec());
        spec.env.push((OsString::from_vec(name), OsString::from_vec(value)));
    }
    let cwd = all.need("cwd")?;
    let edited = cwd.wrong("is in org.zind.cwd too; take that away");
    let cwd = cwd.path(&mut from.bytes)?;
    spec.cwd = match from.typed::<Option<PathBuf>>("cwd")? {
        None => Some(cwd),
        Some(None) if cwd == Path::new("/") => None,
        Some(_) => return Err(edited),
    };
    read_capabilities(all.take("capabilities"), spec, from)?;
    for node in all.list("rlimits")? {
        let twice = node.wrong("is there twice");
        let mut limit = node.fields()?;
        let name = limit.need("type")?;
        let unknown = name.wrong("is no limit of a process");
        let resource = parse_rlimit_name(&name.text()?).map_err(|_| unknown)?;
        let mut number = |name| limit.need(name)?.u64().map(|value| Some(value).filter(|value| *value != u64::MAX));
        let limit = Rlimit { resource, soft: number("soft")?, hard: number("hard")? };
        if spec.rlimits.iter().any(|other| other.resource == resource) {
            return Err(twice);
        }
        spec.rlimits.push(limit);
    }
    spec.no_new_privileges = all.flag("noNewPrivileges")?;
    spec.oom_score_adj = all.take("oomScoreAdj").map(i32::read).transpose()?;
    if let Some(node) = all.take("scheduler") {
        read_scheduler(node, spec)?;
    }
    if let Some(node) = from.take("nice") {
        if spec.scheduler.is_some() {
            return Err(node.wrong("is for a process without process.scheduler, which has one of its own"));
        }
        spec.nice = Typed::read(node)?;
    }
    spec.apparmor = all.text("apparmorProfile")?.filter(|name| !name.is_empty());
    spec.selinux = all.text("selinuxLabel")?.filter(|label| !label.is_empty());
    all.refuse("ioPriority", "cannot be set: zind has no I/O priorities yet")?;
    all.refuse("execCPUAffinity", "is not known to zind yet; linux.resources.cpu.cpus limits all of the container")
}
