//! [`Profile`]: a system call filter as OCI writes it, with what Docker adds.
//!
//! Source: <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#seccomp>
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use serde_json::{Map, Value, json};

use super::filter::LONGEST;
use super::{Action, Compare, Compiled, Condition, Filter, Policy, Rule, overlap};
use crate::error::{At, Error, Result, Step};
use crate::image::json as strict;
use crate::security::capabilities::CapSet;
use crate::security::syscalls::{self, Arch};

/// As large as a document may be, in bytes.
const LARGEST: usize = 1 << 20;
/// As many rules as there may be: each name of an entry with each of its conditions.
const MOST_RULES: usize = 1 << 16;

/// Every architecture that OCI knows; a profile may name those that this machine never sees.
const ARCHITECTURES: [&str; 21] = [
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
];

/// `SECCOMP_FILTER_FLAG_*`: the bit, and the name.
const FLAGS: [(u32, &str); 4] = [
    (TSYNC, "SECCOMP_FILTER_FLAG_TSYNC"),
    (1 << 1, "SECCOMP_FILTER_FLAG_LOG"),
    (1 << 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
    (WAIT_KILLABLE, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
];
const TSYNC: u32 = 1;
/// Only with a listener.
pub(super) const WAIT_KILLABLE: u32 = 1 << 5;

/// A system call filter as OCI writes it, checked.
///
/// Rules of one call: an entry without `args` counts for the call whatever the arguments are, the first of them if there are
/// several, as libseccomp has it; else an entry counts all of whose `args` hold, else `defaultAction`. Where entries with
/// different actions hold, their order in the profile does not count, again as libseccomp has it: the last argument is asked
/// first, of one argument equality before `<` before `>`, and the narrower range before the wider. An entry that asks for more
/// than one before it is never reached; one that asks for no more than one before it is refused. In an entry that
/// asks twice for the same argument one of the `args` is enough, as runc and crun have it. Entries whose action is the
/// default one anyway are passed over.
///
/// From Docker's own files come `archMap`, `includes` and `excludes` (`caps`, `arches`, `minKernel`), and `name`; from podman's
/// `errno` and `defaultErrno`. Other properties are ignored, as OCI says.
#[derive(Debug)]
pub struct Profile {
    /// As it was given.
    value: Value,
    default: Action,
    architectures: Vec<&'static str>,
    /// Docker's: an architecture and those that its kernel runs, too.
    arch_map: Vec<(&'static str, Vec<&'static str>)>,
    flags: u32,
    listener: Option<Listener>,
    entries: Vec<Entry>,
    compiled: Mutex<Vec<(CapSet, Mode, Compiled)>>,
}

/// Where the listener of a profile goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) path: PathBuf,
    pub(crate) metadata: Option<String>,
}

#[derive(Debug)]
struct Entry {
    names: Vec<String>,
    action: Action,
    conditions: Vec<Condition>,
    includes: Selection,
    excludes: Selection,
}

/// Docker's: for which containers and machines an entry is.
#[derive(Debug, Default)]
struct Selection {
    caps: Vec<CapSet>,
    arches: Vec<String>,
    min_kernel: Option<(u64, u64)>,
}

/// What is made of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What it says.
    Plain,
    /// The same, and somebody is told of what is refused.
    Watched,
}

/// Something wrong, and where.
struct Wrong(String, String);

type Checked<T> = std::result::Result<T, Wrong>;

impl PartialEq for Profile {
    fn eq(&self, other: &Profile) -> bool {
        self.value == other.value
    }
}

impl Eq for Profile {}

impl Profile {
    /// From the text of a profile: the value of `linux.seccomp`, or a file of Docker's.
    ///
    /// Errors: [`Error::Spec`] by the name and the place of what is unknown: system calls that no architecture has, actions,
    /// architectures, flags, operators; for text that is no such document, or has more than 1 MiB.
    pub fn from_json(text: &str) -> Result<Arc<Profile>> {
        if text.len() > LARGEST {
            return Err(Error::spec("seccomp", format!("has {} bytes; {LARGEST} is the most", text.len())));
        }
        let value = strict::strict(text).map_err(|error| Error::spec("seccomp", format!("is no JSON: {error}")))?;
        Profile::shared(value).map_err(|Wrong(at, rule)| {
            Error::spec("seccomp", if at.is_empty() { rule } else { format!("{at}: {rule}") })
        })
    }

    /// From a file with such a text.
    ///
    /// Errors: as of [`Profile::from_json`]; [`Error::Sys`] at [`Step::SeccompProfile`] if it cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Arc<Profile>> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        // A FIFO or a terminal must not keep us waiting.
        let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.at(Step::SeccompProfile, "open", path)?;
        file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).at(Step::SeccompProfile, "read", path)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::spec("seccomp", "is no UTF-8"))?;
        Profile::from_json(&text)
    }

    /// From the value of `linux.seccomp`; the error is the place below it, and the rule.
    pub(crate) fn from_value(value: Value) -> std::result::Result<Arc<Profile>, (String, String)> {
        let length = value.to_string().len();
        if length > LARGEST {
            return Err((String::new(), format!("has {length} bytes; {LARGEST} is the most")));
        }
        Profile::shared(value).map_err(|Wrong(at, rule)| (at, rule))
    }

    /// The same profile is the same object, and is compiled once.
    fn shared(value: Value) -> Checked<Arc<Profile>> {
        const MOST: usize = 32;
        static KNOWN: Mutex<Vec<Arc<Profile>>> = Mutex::new(Vec::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.iter().position(|profile| profile.value == value) {
            // The one used last is the last one to go.
            let profile = known.remove(place);
            known.push(profile.clone());
            return Ok(profile);
        }
        let profile = Arc::new(read(value)?);
        if known.len() >= MOST {
            known.remove(0);
        }
        known.push(profile.clone());
        Ok(profile)
    }

    /// The text of it, as it was given.
    pub fn to_json(&self) -> String {
        self.value.to_string()
    }

    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// As OCI has it, for a container with these capabilities on this machine: nothing of Docker's is left.
    pub(crate) fn to_oci(&self, capabilities: CapSet) -> Value {
        let docker = ["archMap", "defaultErrno", "includes", "excludes", "errno", "name", "comment"];
        let is_docker = |value: &Value| docker.iter().any(|name| value.get(name).is_some());
        let entries = |value: &Value| value.get("syscalls").and_then(Value::as_array).cloned().unwrap_or_default();
        if !is_docker(&self.value) && !entries(&self.value).iter().any(is_docker) {
            return self.value.clone();
        }
        let mut all = Map::new();
        let mut put = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
        let (action, errno) = written(self.default);
        put("defaultAction", json!(action));
        errno.into_iter().for_each(|errno| put("defaultErrnoRet", json!(errno)));
        put("architectures", json!(self.architectures_here()));
        for name in ["flags", "listenerPath", "listenerMetadata"] {
            if let Some(value) = self.value.get(name) {
                put(name, value.clone());
            }
        }
        let mut syscalls = Vec::new();
        for (entry, given) in self.entries.iter().zip(entries(&self.value)) {
            if !entry.is_for(Arch::NATIVE, capabilities) {
                continue;
            }
            let (action, errno) = written(entry.action);
            let mut one = Map::new();
            one.insert("names".to_owned(), json!(entry.names));
            one.insert("action".to_owned(), json!(action));
            errno.into_iter().for_each(|errno| drop(one.insert("errnoRet".to_owned(), json!(errno))));
            if let Some(args) = given.get("args").filter(|_| !entry.conditions.is_empty()) {
                one.insert("args".to_owned(), args.clone());
            }
            syscalls.push(Value::Object(one));
        }
        put("syscalls", Value::Array(syscalls));
        Value::Object(all)
    }

    /// The architectures that the profile is for, on this machine; its own is always one of them.
    fn architectures_here(&self) -> Vec<&'static str> {
        let native = Arch::NATIVE.oci_name();
        let mapped = self.arch_map.iter().find(|(name, _)| *name == native);
        let mut all = vec![native];
        all.extend(mapped.iter().flat_map(|(_, others)| others).chain(&self.architectures).copied());
        let mut seen = BTreeSet::new();
        all.retain(|name| seen.insert(*name));
        all
    }

    /// The rules for a container with these capabilities, and what of the profile means nothing here.
    ///
    /// Errors: [`Error::Spec`] by the name of a call, of which two entries are no filter together.
    pub(super) fn filter(&self, capabilities: CapSet) -> Result<(Filter, Vec<String>)> {
        let mut notes = BTreeSet::new();
        let mut parts = Vec::new();
        for name in self.architectures_here() {
            let arch = Arch::ALL.into_iter().find(|arch| arch.oci_name() == name);
            let is_here = |arch: &Arch| match Arch::NATIVE {
                Arch::X86_64 => matches!(arch, Arch::X86_64 | Arch::X86 | Arch::X32),
                _ => matches!(arch, Arch::Aarch64 | Arch::Arm),
            };
            match arch.filter(is_here) {
                Some(arch) => parts.push((arch, self.policy(arch, capabilities, &mut notes)?)),
                None => drop(notes.insert(format!("{name}: never seen by this machine"))),
            }
        }
        for entry in self.entries.iter().filter(|entry| entry.is_for(Arch::NATIVE, capabilities)) {
            for name in &entry.names {
                if parts.iter().all(|(arch, _)| arch.number(name).is_none()) {
                    notes.insert(format!("{name}: a system call of other architectures"));
                }
            }
        }
        notes.extend(self.overruled(capabilities));
        Ok((Filter { parts }, notes.into_iter().collect()))
    }

    /// Calls of which the arguments that are asked for do not count.
    fn overruled(&self, capabilities: CapSet) -> Vec<String> {
        let entries = || self.entries.iter().filter(|entry| entry.counts(self.default, capabilities));
        let mut always: BTreeMap<&str, Action> = BTreeMap::new();
        for entry in entries().filter(|entry| entry.conditions.is_empty()) {
            for name in &entry.names {
                always.entry(name).or_insert(entry.action);
            }
        }
        let is_overruled = |name: &str, action| always.get(name).is_some_and(|other| *other != action);
        entries()
            .flat_map(|entry| entry.names.iter().map(move |name| (name, entry.action)))
            .filter(|(name, action)| is_overruled(name, *action))
            .map(|(name, _)| format!("{name}: the first entry for it without args counts, and no other"))
            .collect()
    }

    fn policy(&self, arch: Arch, capabilities: CapSet, notes: &mut BTreeSet<String>) -> Result<Policy> {
        let mut always: BTreeMap<u32, Action> = BTreeMap::new();
        let mut sometimes: BTreeMap<u32, Vec<(Vec<Condition>, Action)>> = BTreeMap::new();
        for entry in &self.entries {
            if !entry.counts(self.default, capabilities) {
                continue;
            }
            for number in entry.names.iter().filter_map(|name| arch.number(name)) {
                let list = sometimes.entry(number).or_default();
                if entry.conditions.is_empty() {
                    always.entry(number).or_insert(entry.action);
                } else if asks_twice(&entry.conditions) {
                    list.extend(entry.conditions.iter().map(|one| (vec![*one], entry.action)));
                } else {
                    list.push((entry.conditions.clone(), entry.action));
                }
            }
        }
        let mut policy = Policy::new(self.default);
        for (number, choices) in sometimes {
            if let Some(action) = always.get(&number) {
                policy.set(number, Rule::Do(*action));
                continue;
            }
            let name = || arch.name(number).unwrap_or("?");
            let (choices, is_hidden) = overlap::ordered(choices).map_err(|overlap::Conflict| {
                let rule = "an entry asks for no more than another one with a different action, and comes after it";
                Error::spec("seccomp", format!("{}: {rule}", name()))
            })?;
            if is_hidden {
                notes.insert(format!("{}: an entry asks for more than one before it, and is never reached", name()));
            }
            policy.set(number, Rule::First(choices, self.default));
        }
        Ok(policy)
    }

    /// What a process with these capabilities gets.
    ///
    /// Errors: [`Error::Spec`] if the program is longer than the kernel takes.
    fn compile(&self, capabilities: CapSet, mode: Mode) -> Result<Compiled> {
        let mut known = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., compiled)) = known.iter().find(|(set, other, _)| *set == capabilities && *other == mode) {
            return Ok(compiled.clone());
        }
        let (filter, notes) = self.filter(capabilities)?;
        let compiled = make(filter, self.flags, mode, notes)?;
        const MOST: usize = 64;
        if known.len() >= MOST {
            known.remove(0);
        }
        known.push((capabilities, mode, compiled.clone()));
        Ok(compiled)
    }
}

fn make(filter: Filter, flags: u32, mode: Mode, notes: Vec<String>) -> Result<Compiled> {
    let is_watched = mode == Mode::Watched;
    if is_watched && filter.has(Action::Notify) {
        let rule = "the profile has SCMP_ACT_NOTIFY: a filter has one listener, so it cannot be watched, too";
        return Err(Error::spec("violations", rule));
    }
    let program = if is_watched { filter.watched().assemble() } else { filter.assemble() };
    if program.len() > LONGEST {
        let rule = format!("makes a program of {} instructions; the kernel takes {LONGEST}", program.len());
        return Err(Error::spec("seccomp", rule));
    }
    let has_listener = is_watched || filter.has(Action::Notify);
    let usual = if is_watched && has_wait_killable() { WAIT_KILLABLE } else { 0 };
    // A payload has one thread when it gets the filter, and that flag is for listeners only.
    let flags = (flags | usual) & !TSYNC & if has_listener { u32::MAX } else { !WAIT_KILLABLE };
    Ok(Compiled { filter: Arc::new(filter), program: program.into(), flags, has_listener, notes: notes.into() })
}

/// What a process gets of the default policy, of a profile, or of none but a listener that is told of every call.
pub(crate) fn compiled(profile: Option<&Profile>, capabilities: CapSet, mode: Mode) -> Result<Compiled> {
    if let Some(profile) = profile {
        return profile.compile(capabilities, mode);
    }
    let filter = Filter { parts: vec![(Arch::NATIVE, Policy::standard(capabilities))] };
    make(filter, 0, mode, Vec::new())
}

/// Everything is told to the listener.
pub(crate) fn learning() -> Result<Compiled> {
    let filter = Filter { parts: vec![(Arch::NATIVE, Policy::new(Action::Notify))] };
    make(filter, if has_wait_killable() { WAIT_KILLABLE } else { 0 }, Mode::Plain, Vec::new())
}

fn asks_twice(conditions: &[Condition]) -> bool {
    let mut seen = BTreeSet::new();
    !conditions.iter().all(|condition| seen.insert(condition.argument))
}

impl Entry {
    /// Docker asks for the machine's own architecture, whichever the call is of.
    fn counts(&self, default: Action, capabilities: CapSet) -> bool {
        self.action != default && self.is_for(Arch::NATIVE, capabilities)
    }

    fn is_for(&self, native: Arch, capabilities: CapSet) -> bool {
        let (wanted, unwanted) = (&self.includes, &self.excludes);
        let is_kernel = |least: &Option<(u64, u64)>| least.is_some_and(|least| kernel() >= least);
        let is_native = |arches: &[String]| arches.iter().any(|name| name == native.docker_name());
        wanted.caps.iter().all(|cap| capabilities.intersects(*cap))
            && (wanted.arches.is_empty() || is_native(&wanted.arches))
            && (wanted.min_kernel.is_none() || is_kernel(&wanted.min_kernel))
            && !unwanted.caps.iter().any(|cap| capabilities.intersects(*cap))
            && !is_native(&unwanted.arches)
            && !is_kernel(&unwanted.min_kernel)
    }
}

/// Signals that do not kill wait until a call is answered, so that it need not be asked about again.
fn has_wait_killable() -> bool {
    kernel() >= (5, 19)
}

/// The version of this kernel: 6.1.
fn kernel() -> (u64, u64) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The name of an action, and its errno.
fn written(action: Action) -> (&'static str, Option<u16>) {
    match action {
        Action::Allow => ("SCMP_ACT_ALLOW", None),
        Action::Errno(errno) => ("SCMP_ACT_ERRNO", Some(errno)),
        Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        Action::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        Action::Trap => ("SCMP_ACT_TRAP", None),
        Action::Trace(number) => ("SCMP_ACT_TRACE", Some(number)),
        Action::Log => ("SCMP_ACT_LOG", None),
        Action::Notify => ("SCMP_ACT_NOTIFY", None),
    }
}

// Reading.

fn wrong<T>(at: &str, rule: impl Into<String>) -> Checked<T> {
    Err(Wrong(at.to_owned(), rule.into()))
}

/// A value for a message, shortened.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { format!("{short}...") } else { short }
}

struct Node<'a> {
    at: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    /// A property; `null` is as good as missing.
    fn get(&self, name: &str) -> Option<Node<'a>> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        let at = if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) };
        Some(Node { at, value })
    }

    fn need(&self, name: &str) -> Checked<Node<'a>> {
        match self.get(name) {
            Some(node) => Ok(node),
            None if self.at.is_empty() => wrong(name, "is missing"),
            None => wrong(&format!("{}.{name}", self.at), "is missing"),
        }
    }

    fn is_no<T>(&self, wanted: &str) -> Checked<T> {
        wrong(&self.at, format!("{} is no {wanted}", shown(self.value)))
    }

    fn object(self) -> Checked<Node<'a>> {
        if self.value.is_object() { Ok(self) } else { self.is_no("object") }
    }

    fn text(&self) -> Checked<&'a str> {
        self.value.as_str().map_or_else(|| self.is_no("text"), Ok)
    }

    fn number(&self) -> Checked<u64> {
        self.value.as_u64().map_or_else(|| self.is_no("whole number of 64 bits from 0 on"), Ok)
    }

    fn list(&self) -> Checked<Vec<Node<'a>>> {
        let Some(list) = self.value.as_array() else { return self.is_no("list") };
        let node = |(index, value)| Node { at: format!("{}[{index}]", self.at), value };
        Ok(list.iter().enumerate().map(node).collect())
    }

    /// A list that may be missing.
    fn items(&self, name: &str) -> Checked<Vec<Node<'a>>> {
        self.get(name).map_or(Ok(Vec::new()), |node| node.list())
    }
}

fn read(value: Value) -> Checked<Profile> {
    let all = Node { at: String::new(), value: &value };
    if !value.is_object() {
        return all.is_no("object with defaultAction and syscalls");
    }
    let default = action(&all.need("defaultAction")?, all.get("defaultErrnoRet"), all.get("defaultErrno"))?;
    let architectures: Vec<_> = all.items("architectures")?.iter().map(architecture).collect::<Checked<_>>()?;
    let mut arch_map = Vec::new();
    for node in all.items("archMap")? {
        let node = node.object()?;
        let others = node.items("subArchitectures")?.iter().map(architecture).collect::<Checked<_>>()?;
        arch_map.push((architecture(&node.need("architecture")?)?, others));
    }
    if !arch_map.is_empty() && !architectures.is_empty() {
        return wrong("archMap", "excludes architectures");
    }
    let mut flags = 0;
    for node in all.items("flags")? {
        let name = node.text()?;
        let Some((bit, _)) = FLAGS.iter().find(|(_, known)| *known == name) else { return node.is_no("known flag") };
        flags |= bit;
    }
    let metadata = all.get("listenerMetadata").map(|node| node.text().map(str::to_owned)).transpose()?;
    let metadata = metadata.filter(|text| !text.is_empty());
    let path = all.get("listenerPath").map(|node| node.text()).transpose()?.filter(|path| !path.is_empty());
    let listener = match (path, metadata) {
        (Some(path), metadata) => Some(Listener { path: path.into(), metadata }),
        (None, Some(_)) => return wrong("listenerMetadata", "needs listenerPath"),
        (None, None) => None,
    };
    let mut entries = Vec::new();
    let mut rules = 0usize;
    for node in all.items("syscalls")? {
        let at = node.at.clone();
        let entry = entry(node.object()?)?;
        rules = rules.saturating_add(entry.names.len().saturating_mul(entry.conditions.len().max(1)));
        if rules > MOST_RULES {
            return wrong(&at, format!("too many: {MOST_RULES} names and arguments are the most"));
        }
        entries.push(entry);
    }
    let compiled = Mutex::new(Vec::new());
    Ok(Profile { default, architectures, arch_map, flags, listener, entries, compiled, value })
}

fn architecture(node: &Node<'_>) -> Checked<&'static str> {
    let name = node.text()?;
    match ARCHITECTURES.into_iter().find(|known| *known == name) {
        Some(known) => Ok(known),
        None => node.is_no("known architecture"),
    }
}

fn action(node: &Node<'_>, errno: Option<Node<'_>>, name: Option<Node<'_>>) -> Checked<Action> {
    let number = match (&errno, &name) {
        (Some(node), _) => Some(match u16::try_from(node.number()?) {
            Ok(number) if number <= 4095 => number,
            _ => return node.is_no("errno from 0 to 4095"),
        }),
        (None, Some(node)) if node.value != "" => Some(errno_by_name(node)?),
        _ => None,
    };
    let action = match node.text()? {
        "SCMP_ACT_ERRNO" => return Ok(Action::Errno(number.unwrap_or(libc::EPERM as u16))),
        "SCMP_ACT_TRACE" => return Ok(Action::Trace(number.unwrap_or(libc::EPERM as u16))),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_NOTIFY" => Action::Notify,
        _ => return node.is_no("known action"),
    };
    match number {
        // Docker writes it out where it means nothing.
        None | Some(0) => Ok(action),
        Some(_) => wrong(&node.at, format!("{} takes no errno", shown(node.value))),
    }
}

fn errno_by_name(node: &Node<'_>) -> Checked<u16> {
    let name = node.text()?;
    match (1..=133u16).find(|number| format!("{:?}", Errno::from_raw(i32::from(*number))) == name) {
        Some(number) => Ok(number),
        None => node.is_no("errno that has a name"),
    }
}

fn entry(node: Node<'_>) -> Checked<Entry> {
    let mut names = Vec::new();
    let single = node.get("name").filter(|name| name.value != "");
    let listed = node.items("names")?;
    if single.is_some() && !listed.is_empty() {
        return wrong(&format!("{}.name", node.at), "excludes names");
    }
    for name in single.into_iter().chain(listed) {
        let text = name.text()?;
        if !syscalls::is_known(text) {
            return name.is_no("system call of any architecture");
        }
        names.push(text.to_owned());
    }
    if names.is_empty() {
        return wrong(&format!("{}.names", node.at), "is missing or empty");
    }
    let action = action(&node.need("action")?, node.get("errnoRet"), node.get("errno"))?;
    let mut conditions = Vec::new();
    for arg in node.items("args")? {
        conditions.push(condition(arg.object()?)?);
    }
    let selection = |name| node.get(name).map_or(Ok(Selection::default()), |node| selection(node.object()?));
    Ok(Entry { names, action, conditions, includes: selection("includes")?, excludes: selection("excludes")? })
}

fn condition(node: Node<'_>) -> Checked<Condition> {
    let index = node.need("index")?;
    let argument = match index.number()? {
        number @ 0..=5 => number as u8,
        _ => return index.is_no("argument of a system call: they are 0 to 5"),
    };
    let value = node.need("value")?.number()?;
    let second = node.get("valueTwo").map(|node| node.number()).transpose()?.unwrap_or(0);
    let op = node.need("op")?;
    let compare = match op.text()? {
        "SCMP_CMP_NE" => Compare::NotEqual,
        "SCMP_CMP_LT" => Compare::Less,
        "SCMP_CMP_LE" => Compare::LessOrEqual,
        "SCMP_CMP_EQ" => Compare::Equal,
        "SCMP_CMP_GE" => Compare::GreaterOrEqual,
        "SCMP_CMP_GT" => Compare::Greater,
        // As libseccomp has it: bits of the second outside of the mask do not count.
        "SCMP_CMP_MASKED_EQ" => {
            return Ok(Condition { argument, compare: Compare::Equal, value: second & value, mask: value });
        }
        _ => return op.is_no("known operator"),
    };
    Ok(Condition { argument, compare, value, mask: u64::MAX })
}

fn selection(node: Node<'_>) -> Checked<Selection> {
    let mut selection = Selection::default();
    for cap in node.items("caps")? {
        match CapSet::from_name(cap.text()?) {
            Ok(set) => selection.caps.push(set),
            Err(_) => return cap.is_no("known capability"),
        }
    }
    for arch in node.items("arches")? {
        selection.arches.push(arch.text()?.to_owned());
    }
    if let Some(least) = node.get("minKernel") {
        let parts: Vec<&str> = least.text()?.split('.').collect();
        let number = |text: &str| text.parse::<u64>().ok();
        selection.min_kernel = match parts[..] {
            [one, two] => number(one).zip(number(two)),
            _ => None,
        };
        if selection.min_kernel.is_none() {
            return least.is_no("version of a kernel, as 4.8");
        }
    }
    Ok(selection)
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
