//! Scopes: a subtree of our own, asked of systemd where it owns the tree.
//!
//! A scope exists only with a process in it. So the launcher, which waits for the word to go on, is what a scope is made
//! around; the group with the limits is made below it. Its last process gone, systemd takes the scope away.
//! Source: <https://systemd.io/CONTROL_GROUP_INTERFACE/>, <https://systemd.io/CGROUP_DELEGATION/>
#![forbid(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::dbus::{Body, Bus, Call, ERROR, Incoming, METHOD_RETURN, Reader, SIGNAL};
use crate::error::{Error, Result, Step};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";
const BUS: &str = "org.freedesktop.DBus";

/// How long systemd may take; a loaded machine takes tenths of seconds.
const PATIENCE: Duration = Duration::from_secs(25);

/// Which manager is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    /// That of the machine: root's.
    System(PathBuf),
    /// That of the user.
    User(PathBuf),
}

impl Manager {
    /// The one that a caller of this kind asks; `None` where systemd does not run, or has no manager for this user.
    pub(crate) fn find(is_root: bool) -> Option<Manager> {
        if !Manager::runs() {
            return None;
        }
        let (variable, usual) = match is_root {
            true => ("DBUS_SYSTEM_BUS_ADDRESS", PathBuf::from("/run/dbus/system_bus_socket")),
            false => ("DBUS_SESSION_BUS_ADDRESS", runtime_dir().join("bus")),
        };
        let named = std::env::var_os(variable).and_then(|address| path_of(address.as_bytes()));
        let path = named.filter(|path| path.exists()).or_else(|| Some(usual).filter(|path| path.exists()))?;
        Some(if is_root { Manager::System(path) } else { Manager::User(path) })
    }

    /// systemd is what started this machine: sd_booted(3).
    pub(crate) fn runs() -> bool {
        Path::new("/run/systemd/system").is_dir()
    }

    /// For messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Manager::System(_) => "the system manager",
            Manager::User(_) => "the user manager",
        }
    }

    pub(crate) fn bus(&self) -> &Path {
        match self {
            Manager::System(path) | Manager::User(path) => path,
        }
    }

    /// Makes a scope around processes, and waits until they are in it.
    ///
    /// `properties` are numbers of the scope's; `unit` is its name (`"zind-….scope"`), `slice` the one it goes into (`None`: where the manager puts scopes).
    /// Errors: [`Error::Sys`] at [`Step::Systemd`], with what systemd said as the hint: `EACCES` where it refuses this user,
    /// `EEXIST` where the unit exists, `ETIMEDOUT` where it does not answer; [`Error::Interrupted`] when `interrupted` says so.
    pub(crate) fn start_scope(
        &self,
        unit: &str,
        slice: Option<&str>,
        pids: &[u32],
        properties: &[(&'static str, u64)],
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let mut bus = Bus::connect(self.bus(), PATIENCE, interrupted)?;
        let empty = Body::default();
        bus.call(&to_bus("Hello", "", &empty))?;
        let mut rule = Body::default();
        rule.string(&format!(
            "type='signal',sender='{SYSTEMD}',path='{OBJECT}',interface='{MANAGER}',member='JobRemoved'"
        ));
        bus.call(&to_bus("AddMatch", "s", &rule))?;
        bus.call(&to_systemd("Subscribe", "", &empty))?;
        let body = request(unit, slice, pids, properties);
        let asked = bus.call(&to_systemd("StartTransientUnit", "ssa(sv)a(sa(sv))", &body))?;
        // The end of the job may be told before the answer that names it.
        let mut job: Option<(String, String)> = None;
        let mut ended: Vec<((String, String), String)> = Vec::new();
        loop {
            let message = bus.receive()?;
            match message.kind {
                METHOD_RETURN if message.reply_to == asked => {
                    let path = Reader::new(&message.body).string().ok_or_else(|| protocol(unit))?.to_owned();
                    job = Some((message.sender, path));
                }
                // Who does not need Subscribe may be refused it; the job's own client is told all the same.
                ERROR if message.reply_to == asked => return Err(refusal(unit, "StartTransientUnit", &message)),
                SIGNAL => ended.extend(removed(&message)),
                _ => {}
            }
            let Some(job) = &job else { continue };
            if let Some((_, result)) = ended.iter().find(|(which, _)| which == job) {
                return match &**result {
                    "done" => Ok(()),
                    other => Err(Error::sys(Step::Systemd, "StartTransientUnit", unit, Errno::EIO)
                        .with_hint(format!("systemd's job ended as {other:?}: its log says why"))),
                };
            }
        }
    }

    /// Changes properties of a unit, until it ends.
    ///
    /// Errors: as for [`Manager::start_scope`].
    pub(crate) fn set_properties(&self, unit: &str, properties: &[(&'static str, u64)]) -> Result<()> {
        let mut body = Body::default();
        body.string(unit).u32(1).array(8, |all| numbers(all, properties));
        self.ask(unit, "SetUnitProperties", "sba(sv)", &body, &mut || false)
    }

    /// Moves processes into a group below a unit that was delegated: `"/name"`. They are there when it returns.
    ///
    /// Errors: as for [`Manager::start_scope`]; `ENOENT` for a unit that has ended.
    pub(crate) fn attach(
        &self,
        unit: &str,
        below: &str,
        pids: &[u32],
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let mut body = Body::default();
        body.string(unit).string(below).array(4, |list| {
            for pid in pids {
                list.u32(*pid);
            }
        });
        self.ask(unit, "AttachProcessesToUnit", "ssau", &body, interrupted)
    }

    /// One call about a unit, and its answer.
    fn ask(
        &self,
        unit: &str,
        call: &'static str,
        signature: &str,
        body: &Body,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let mut bus = Bus::connect(self.bus(), PATIENCE, interrupted)?;
        bus.call(&to_bus("Hello", "", &Body::default()))?;
        let asked = bus.call(&to_systemd(call, signature, body))?;
        loop {
            let message = bus.receive()?;
            match message.kind {
                METHOD_RETURN if message.reply_to == asked => return Ok(()),
                ERROR if message.reply_to == asked => return Err(refusal(unit, call, &message)),
                _ => {}
            }
        }
    }
}

fn to_bus<'a>(member: &'a str, signature: &'a str, body: &'a Body) -> Call<'a> {
    Call { destination: BUS, path: "/org/freedesktop/DBus", interface: BUS, member, signature, body }
}

fn to_systemd<'a>(member: &'a str, signature: &'a str, body: &'a Body) -> Call<'a> {
    Call { destination: SYSTEMD, path: OBJECT, interface: MANAGER, member, signature, body }
}

/// Properties that are numbers.
fn numbers(all: &mut Body, properties: &[(&'static str, u64)]) {
    for (name, value) in properties {
        all.structure().string(name).signature("t").u64(*value);
    }
}

fn runtime_dir() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR")
        .map_or_else(|| PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw())), PathBuf::from)
}

/// The path of an address as `"unix:path=/run/user/1000/bus,guid=…"`; of several the first that is a path.
fn path_of(address: &[u8]) -> Option<PathBuf> {
    address.split(|byte| *byte == b';').find_map(|one| {
        let keys = one.strip_prefix(b"unix:")?;
        let path = keys.split(|byte| *byte == b',').find_map(|key| key.strip_prefix(b"path="))?;
        unescape(path).map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(&path)))
    })
}

/// `%2f` is `/`.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(out)
}

/// The body of `StartTransientUnit`: name, mode, properties, no further units.
fn request(unit: &str, slice: Option<&str>, pids: &[u32], properties: &[(&'static str, u64)]) -> Body {
    let mut body = Body::default();
    body.string(unit).string("fail");
    body.array(8, |all| {
        let text = |all: &mut Body, name: &str, value: &str| {
            all.structure().string(name).signature("s").string(value);
        };
        let yes_or_no = |all: &mut Body, name: &str, value: bool| {
            all.structure().string(name).signature("b").u32(u32::from(value));
        };
        text(all, "Description", "a container of zind");
        if let Some(slice) = slice {
            text(all, "Slice", slice);
        }
        // Gone with its last process, also when a job of it failed.
        text(all, "CollectMode", "inactive-or-failed");
        yes_or_no(all, "DefaultDependencies", false);
        // Ours to make groups in; and each controller is there, whatever the manager's defaults are.
        yes_or_no(all, "Delegate", true);
        yes_or_no(all, "MemoryAccounting", true);
        yes_or_no(all, "CPUAccounting", true);
        yes_or_no(all, "IOAccounting", true);
        yes_or_no(all, "TasksAccounting", true);
        // The default is a share of the machine's; the limit is the caller's business, on the group below.
        numbers(all, &[("TasksMax", u64::MAX)]);
        numbers(all, properties);
        all.structure().string("PIDs").signature("au").array(4, |list| {
            for pid in pids {
                list.u32(*pid);
            }
        });
    });
    body.array(8, |_| {});
    body
}

/// The job (who says so, and its path) and its result, of a signal that one is done.
fn removed(message: &Incoming) -> Option<((String, String), String)> {
    if (&*message.interface, &*message.member, &*message.signature) != (MANAGER, "JobRemoved", "uoss") {
        return None;
    }
    let mut reader = Reader::new(&message.body);
    reader.u32()?;
    let job = reader.string()?.to_owned();
    reader.string()?;
    Some(((message.sender.clone(), job), reader.string()?.to_owned()))
}

fn protocol(unit: &str) -> Error {
    Error::sys(Step::Systemd, "StartTransientUnit", unit, Errno::EPROTO)
}

/// What systemd said no with.
fn refusal(unit: &str, call: &'static str, message: &Incoming) -> Error {
    let errno = match message.error.rsplit('.').next().unwrap_or_default() {
        "AccessDenied" | "InteractiveAuthorizationRequired" | "AuthFailed" => Errno::EACCES,
        "UnitExists" => Errno::EEXIST,
        "NoSuchUnit" | "ServiceUnknown" | "NameHasNoOwner" => Errno::ENOENT,
        "NoReply" | "Timeout" | "TimedOut" => Errno::ETIMEDOUT,
        "InvalidArgs" | "PropertyReadOnly" => Errno::EINVAL,
        "LimitsExceeded" => Errno::EAGAIN,
        _ => Errno::EPROTO,
    };
    let said = Reader::new(&message.body).string().filter(|_| message.signature.starts_with('s')).unwrap_or_default();
    Error::sys(Step::Systemd, call, unit, errno).with_hint(format!(
        "systemd says {}: {}",
        message.error,
        said.chars().take(300).collect::<String>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_a_bus_is_taken_apart() {
        let path = |text: &str| path_of(text.as_bytes());
        assert_eq!(path("unix:path=/run/user/1000/bus"), Some("/run/user/1000/bus".into()));
        assert_eq!(path("unix:guid=00,path=/a%20b"), Some("/a b".into()));
        assert_eq!(path("tcp:host=x;unix:path=/b"), Some("/b".into()));
        assert_eq!(path("unix:abstract=/x"), None);
        assert_eq!(path("unix:path=/a%2"), None);
    }

    #[test]
    fn refusals_keep_what_systemd_said() {
        let mut body = Body::default();
        body.string("Access denied");
        let message = Incoming {
            kind: ERROR,
            error: "org.freedesktop.DBus.Error.AccessDenied".to_owned(),
            signature: "s".to_owned(),
            body: body.into_bytes(),
            ..Incoming::default()
        };
        let error = refusal("a.scope", "StartTransientUnit", &message);
        assert_eq!(error.errno(), Some(Errno::EACCES));
        assert!(error.hint().unwrap().contains("Access denied"));
    }

    /// Where systemd runs (in the virtual machine): a process of ours is moved into a scope, which goes away with it.
    #[test]
    fn scope_is_made_around_a_process_and_goes_with_it() {
        let Some(manager) = Manager::find(rustix::process::geteuid().is_root()) else {
            return; // no systemd here
        };
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let group = || std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
        let unit = format!("zind-test-{}.scope", child.id());
        let before = group();
        manager.start_scope(&unit, None, &[child.id()], &[("CPUWeight", 50)], &mut || false).unwrap();
        let after = group();
        assert!(after.trim_end().ends_with(&unit), "{before} {after}");
        manager.set_properties(&unit, &[("CPUWeight", 60)]).unwrap();
        let again = manager.start_scope(&unit, None, &[child.id()], &[("CPUWeight", 50)], &mut || false).unwrap_err();
        assert_eq!(again.errno(), Some(Errno::EEXIST), "{again}");
        let path = after.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
        child.kill().unwrap();
        child.wait().unwrap();
        let dir = PathBuf::from(format!("/sys/fs/cgroup{path}"));
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while dir.exists() {
            assert!(std::time::Instant::now() < until, "{} is still there", dir.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
