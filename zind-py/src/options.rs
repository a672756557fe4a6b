//! Keyword options of Python as a [`Spec`].

use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyString};
use zind_core::{
    Binfmt, CapSet, Console, Exec, IdMap, IdMaps, Kind, Landlock, LandlockPolicy, Overlay, Profile, Rlimit, Rootfs,
    Scheduler, Seccomp, Source, Spec, Stdio, TimeOffsets, User, parse_duration, parse_rlimit_name, parse_signal,
    parse_size,
};

use zind_core::terminal::Size;

use crate::device::Device;
use crate::errors::{raise, spec as spec_error, unsupported};
use crate::mount::Mount;

pub(crate) fn type_error(field: &str, wanted: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let found = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{field} must be {wanted}, not {found}"))
}

pub(crate) fn size_of_object(field: &'static str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if let Ok(text) = value.cast::<PyString>() {
        return parse_size(field, &text.extract::<String>()?).map_err(|error| raise(value.py(), &error));
    }
    value.extract().map_err(|_| match value.cast::<PyInt>() {
        Ok(number) => spec_error(value.py(), field, &format!("{number} is no number or size within 0 to 2**64 - 1")),
        Err(_) => type_error(field, "a number of bytes or text like \"64m\"", value),
    })
}

/// `str`, `bytes` or a path, as the kernel's bytes.
fn os_string(field: &str, value: &Bound<'_, PyAny>) -> PyResult<OsString> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(OsString::from_vec(bytes.as_bytes().to_vec()));
    }
    if let Ok(text) = value.extract::<OsString>() {
        return Ok(text);
    }
    value
        .extract::<PathBuf>()
        .map(PathBuf::into_os_string)
        .map_err(|_| type_error(field, "str, bytes or a path", value))
}

fn strings(field: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Vec<OsString>> {
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() {
        return Err(type_error(field, "a sequence of strings", value));
    }
    let items = value.try_iter().map_err(|_| type_error(field, "a sequence of strings", value))?;
    items.map(|item| os_string(field, &item?)).collect()
}

fn texts(field: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let items = strings(field, value)?;
    items
        .into_iter()
        .map(|item| item.into_string().map_err(|_| spec_error(value.py(), field, "is not UTF-8")))
        .collect()
}

/// The spec of one call.
pub(crate) fn spec(
    py: Python<'_>,
    argv: &Bound<'_, PyAny>,
    options: &Bound<'_, PyDict>,
    low_level: bool,
) -> PyResult<Spec> {
    let argv = if argv.is_none() && !low_level {
        // What the image says.
        Vec::new()
    } else if argv.is_instance_of::<PyString>() || argv.is_instance_of::<PyBytes>() {
        return Err(spec_error(
            py,
            "argv",
            "is a string; give a list like [\"ls\", \"-l\"], or [\"sh\", \"-c\", text] for a shell",
        ));
    } else {
        strings("argv", argv)?
    };
    let config = options.get_item("config")?.filter(|config| !config.is_none());
    let mut spec = match &config {
        Some(_) if low_level => return Err(spec_error(py, "config", "is for containers, not for the low level")),
        Some(config) => of_config(py, config, argv)?,
        None if low_level => Spec::low_level(argv),
        None => Spec::new(argv),
    };
    let mut maps = (None, None);
    for (key, value) in options {
        let key: String = key.extract()?;
        option(py, &mut spec, &mut maps, &key, &value)?;
    }
    if config.is_none() || maps.0.is_some() || maps.1.is_some() {
        spec.id_maps = id_maps(py, maps)?;
    }
    Ok(spec)
}

/// Options of a program in a running container.
const OF_EXEC: [&str; 21] = [
    "argv0",
    "capabilities",
    "clear_env",
    "cwd",
    "die_with_owner",
    "env",
    "groups",
    "keyring",
    "nice",
    "no_new_privileges",
    "oom_score_adj",
    "pass_fds",
    "privileged",
    "pty",
    "rlimits",
    "seccomp",
    "stderr",
    "stdin",
    "stdout",
    "timeout",
    "user",
];

/// A program in a running container.
pub(crate) fn exec(py: Python<'_>, argv: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Exec> {
    for key in options.keys() {
        let key: String = key.extract()?;
        if !OF_EXEC.contains(&key.as_str()) && key != "umask" {
            check_known(&key)?;
            return Err(spec_error(py, "exec", &format!("takes no {key}: that is the container's")));
        }
    }
    let given = |key: &str| options.contains(key);
    let has = |key: &str| options.get_item(key).map(|value| value.is_some_and(|value| !value.is_none()));
    let spec = self::spec(py, argv, options, false)?;
    let mut exec = Exec::new(spec.argv);
    (exec.argv0, exec.env, exec.clear_env, exec.cwd) = (spec.argv0, spec.env, spec.clear_env, spec.cwd);
    (exec.user, exec.groups, exec.rlimits) = (spec.user, spec.groups, spec.rlimits);
    exec.umask = spec.umask.filter(|_| has("umask").unwrap_or(false));
    (exec.oom_score_adj, exec.nice) = (spec.oom_score_adj, spec.nice);
    (exec.capabilities, exec.privileged) = (spec.capabilities, spec.privileged);
    exec.no_new_privileges = has("no_new_privileges")?.then_some(spec.no_new_privileges);
    exec.seccomp = given("seccomp")?.then_some(spec.seccomp);
    exec.keyring = has("keyring")?.then_some(spec.keyring);
    (exec.stdin, exec.stdout, exec.stderr, exec.terminal) = (spec.stdin, spec.stdout, spec.stderr, spec.terminal);
    (exec.pass_fds, exec.timeout) = (spec.pass_fds, spec.timeout);
    exec.outlive_owner = !spec.die_with_owner;
    Ok(exec)
}

/// `"default"`, `"learn"`, a profile (a mapping), or the path of one.
fn seccomp(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Seccomp> {
    match value.extract::<String>().as_deref() {
        Ok("default") => return Ok(Seccomp::Default),
        Ok("learn") => return Ok(Seccomp::Learn),
        // A word that was to be another one is no file's name.
        Ok(word) if !word.contains(['/', '.']) => {
            return Err(spec_error(
                py,
                "seccomp",
                &format!("{word:?} is neither default nor learn, nor the path of a profile"),
            ));
        }
        _ => {}
    }
    let profile = if value.hasattr("keys")? {
        // Any mapping, and anything in it that JSON can say.
        let json = py.import("json")?;
        let plain = py.get_type::<PyDict>().call1((value,))?;
        let text: String = json.call_method1("dumps", (plain,))?.extract()?;
        py.detach(|| Profile::from_json(&text))
    } else {
        let path = os_string("seccomp", value)?;
        py.detach(|| Profile::from_file(path))
    };
    profile.map(Seccomp::Profile).map_err(|error| raise(py, &error))
}

/// Rules of Landlock by their text; none: everything is refused.
fn landlock_rules(py: Python<'_>, text: &OsStr) -> PyResult<Landlock> {
    let mut rules = Landlock::new();
    if !text.is_empty() {
        rules.extend(text).map_err(|error| raise(py, &error))?;
    }
    Ok(rules)
}

/// The usual text of rules, which says the same.
#[pyfunction]
pub(crate) fn landlock(py: Python<'_>, text: &[u8]) -> PyResult<Py<PyBytes>> {
    let rules = landlock_rules(py, OsStr::from_bytes(text))?;
    Ok(PyBytes::new(py, rules.to_text().as_bytes()).unbind())
}

/// `"default"`, a `zind.Landlock`, or its text.
fn landlock_policy(value: &Bound<'_, PyAny>) -> PyResult<LandlockPolicy> {
    let wrong = || type_error("landlock", "\"default\", a zind.Landlock or its text", value);
    let text = match value.extract::<OsString>() {
        Ok(text) if text == "default" => return Ok(LandlockPolicy::Default),
        Ok(text) if text.is_empty() => return Err(spec_error(value.py(), "landlock", "is an empty text")),
        Ok(text) => text,
        Err(_) => {
            let text = value.getattr("_text").map_err(|_| wrong())?;
            OsString::from_vec(text.cast::<PyBytes>().map_err(|_| wrong())?.as_bytes().to_vec())
        }
    };
    landlock_rules(value.py(), &text).map(LandlockPolicy::Rules)
}

/// What an OCI config.json says: its text (bytes), or the path of it or of a bundle.
fn of_config(py: Python<'_>, config: &Bound<'_, PyAny>, argv: Vec<OsString>) -> PyResult<Spec> {
    let read = match config.cast::<PyBytes>() {
        Ok(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => py.detach(|| Spec::from_oci(text)),
            Err(_) => return Err(spec_error(py, "config", "is no UTF-8")),
        },
        Err(_) => {
            let path = os_string("config", config)?;
            py.detach(|| Spec::from_bundle(path))
        }
    };
    let mut spec = read.map_err(|error| raise(py, &error))?;
    if !argv.is_empty() {
        if !spec.argv.is_empty() {
            return Err(spec_error(
                py,
                "argv",
                "and config both say what is run; take process.args out of the document",
            ));
        }
        spec.argv = argv;
    }
    Ok(spec)
}

/// The OCI config.json of what would be started.
#[pyfunction]
pub(crate) fn to_oci(py: Python<'_>, argv: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<String> {
    let spec = spec(py, argv, options, false)?;
    py.detach(|| spec.to_oci()).map_err(|error| raise(py, &error))
}

pub(crate) type Maps<'py> = (Option<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>);

/// The options of later versions, told apart from plain typing errors.
const LATER: [&str; 4] = ["publish", "dns", "hosts", "volumes"];

/// Those of a container that is kept.
const OF_CONTAINERS: [&str; 8] =
    ["name", "labels", "restart", "log", "stdin_open", "auto_remove", "stop_signal", "hooks"];

fn option<'py>(
    py: Python<'py>,
    spec: &mut Spec,
    maps: &mut Maps<'py>,
    key: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<()> {
    if value.is_none() {
        // None is the default everywhere, except where it is an answer of its own.
        match key {
            "seccomp" => spec.seccomp = Seccomp::None,
            "landlock" => spec.landlock = LandlockPolicy::None,
            "rootfs" => {
                return Err(spec_error(
                    py,
                    "rootfs",
                    "is \"host\" or a path; the low level (zind.spawn) keeps the caller's",
                ));
            }
            _ => check_known(key)?,
        }
        return Ok(());
    }
    if key == "config" {
        return Ok(());
    }
    if file_system(py, spec, key, value)? || namespace(py, spec, maps, key, value)? {
        return Ok(());
    }
    if process(py, spec, key, value)? || privileges(py, spec, key, value)? {
        return Ok(());
    }
    if LATER.contains(&key) {
        return Err(unsupported(py, key, "this version of zind does not have it"));
    }
    if OF_CONTAINERS.contains(&key) {
        let needs = format!("zind.Container(argv, {key}=...): what is run once is not kept, and has none");
        return Err(unsupported(py, key, &needs));
    }
    check_known(key)
}

/// Every option, for the error about one that is none.
const KNOWN: &[&str] = &[
    "ambient_caps",
    "apparmor",
    "argv0",
    "binfmt",
    "capabilities",
    "cgroup_fd",
    "cgroup_parent",
    "chroot",
    "clear_env",
    "config",
    "console",
    "ctty",
    "cwd",
    "devices",
    "die_with_owner",
    "domainname",
    "entrypoint",
    "env",
    "foreground",
    "forward_signals",
    "gid_map",
    "groups",
    "hostname",
    "image",
    "inherit_env",
    "init",
    "keep_caps",
    "keep_env",
    "keyring",
    "landlock",
    "load_interp",
    "mount_label",
    "mount_proc",
    "mounts",
    "namespaces",
    "network",
    "nice",
    "no_new_privileges",
    "noctty",
    "oom_score_adj",
    "overlay",
    "owner",
    "pass_fds",
    "pdeathsig",
    "personality",
    "pgid",
    "pin",
    "privileged",
    "propagation",
    "ptrace",
    "pty",
    "read_only",
    "require",
    "resources",
    "rlimits",
    "rootfs",
    "scheduler",
    "seccomp",
    "selinux",
    "setctty",
    "setgroups",
    "setsid",
    "stderr",
    "stdin",
    "stdout",
    "sysctl",
    "timeout",
    "tmpfs_size",
    "uid_map",
    "umask",
    "user",
    "violations",
];

fn check_known(key: &str) -> PyResult<()> {
    if KNOWN.contains(&key) || LATER.contains(&key) || OF_CONTAINERS.contains(&key) {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!("{key:?} is none of zind's options: {}", KNOWN.join(", "))))
}

fn file_system(py: Python<'_>, spec: &mut Spec, key: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match key {
        "image" => {
            let image = value.getattr("_image").ok();
            let image = image.as_ref().and_then(|image| image.cast::<crate::images::Image>().ok());
            let image = image.ok_or_else(|| type_error("image", "a zind.Image or the name of one", value))?;
            if spec.rootfs != Rootfs::Host {
                return Err(spec_error(py, "image", "excludes rootfs: the image is the root"));
            }
            spec.rootfs = Rootfs::Image(image.get().0.clone());
        }
        "entrypoint" => {
            spec.entrypoint = Some(match value.cast::<PyString>() {
                Ok(text) if text.len()? == 0 => Vec::new(),
                Ok(_) => vec![os_string("entrypoint", value)?],
                Err(_) => strings("entrypoint", value)?,
            });
        }
        "rootfs" if matches!(spec.rootfs, Rootfs::Image(_)) => {
            return Err(spec_error(py, "image", "excludes rootfs: the image is the root"));
        }
        "rootfs" if layers(value).is_some() => spec.rootfs = layers(value).unwrap_or_default(),
        "rootfs" => {
            let path = os_string("rootfs", value)?;
            spec.rootfs = if path == "host" { Rootfs::Host } else { Rootfs::Path(path.into()) };
        }
        "overlay" => {
            spec.overlay = match value.cast::<PyBool>() {
                Ok(on) if on.is_true() => Overlay::Tmpfs,
                Ok(_) => Overlay::None,
                Err(_) => match os_string("overlay", value)? {
                    text if text == "tmpfs" => Overlay::Tmpfs,
                    text if text == "none" => Overlay::None,
                    path => Overlay::Dir(path.into()),
                },
            };
        }
        "pty" => {
            spec.terminal = match value.cast::<PyBool>() {
                Ok(on) => on.is_true().then(Size::default),
                Err(_) => {
                    let size: PyResult<(u16, u16)> = value.extract();
                    let (rows, cols) = size.map_err(|_| type_error("pty", "a bool or a zind.Pty", value))?;
                    Some(Size::new(rows, cols))
                }
            };
        }
        "read_only" => spec.read_only = value.extract()?,
        "tmpfs_size" => spec.tmpfs_size = Some(size_of_object("tmpfs_size", value)?),
        "mounts" => {
            for mount in value.try_iter()? {
                let mount = mount?;
                let mount =
                    mount.cast::<Mount>().map_err(|_| type_error("mounts", "a sequence of zind.Mount", &mount))?;
                spec.mounts.push(mount.get().0.clone());
            }
        }
        "devices" => {
            for device in
                value.try_iter().map_err(|_| type_error("devices", "a sequence of zind.Device and text", value))?
            {
                spec.devices.push(device_of(&device?)?);
            }
        }
        "console" => {
            spec.console = Some(if value.is_instance_of::<PyInt>() || value.hasattr("fileno")? {
                Console::Fd(Arc::new(descriptor("console", value)?))
            } else {
                Console::Path(os_string("console", value)?.into())
            });
        }
        "mount_proc" => {
            let path = match value.cast::<PyBool>() {
                Ok(on) if !on.is_true() => return Ok(true),
                Ok(_) => "/proc".into(),
                Err(_) => os_string("mount_proc", value)?,
            };
            spec.mount_proc = Some(path.into());
        }
        "binfmt" => {
            let interpreter = spec.binfmt.take().and_then(|binfmt| binfmt.interpreter);
            spec.binfmt = Some(Binfmt { path: os_string("binfmt", value)?.into(), interpreter });
        }
        "load_interp" => {
            let path = spec.binfmt.take().map_or_else(|| "/proc/sys/fs/binfmt_misc".into(), |binfmt| binfmt.path);
            spec.binfmt = Some(Binfmt { path, interpreter: Some(os_string("load_interp", value)?) });
        }
        "chroot" => spec.chroot = Some(os_string("chroot", value)?.into()),
        "propagation" => spec.propagation = propagation(py, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// A `zind.Layers`, if it is one.
fn layers(value: &Bound<'_, PyAny>) -> Option<Rootfs> {
    let layers = value.getattr("_layers").ok()?;
    layers.cast::<crate::layers::Layers>().ok().map(|layers| Rootfs::Layers(layers.get().0.clone()))
}

/// A device as an object or as the text of `docker run --device`.
fn device_of(value: &Bound<'_, PyAny>) -> PyResult<zind_core::Device> {
    if let Ok(device) = value.cast::<Device>() {
        return Ok(device.get().0.clone());
    }
    let text: String =
        value.extract().map_err(|_| type_error("devices", "a sequence of zind.Device and text", value))?;
    zind_core::Device::parse(&text).map_err(|error| raise(value.py(), &error))
}

fn propagation(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let text: String = value.extract().map_err(|_| type_error("propagation", "text", value))?;
    Ok(match text.as_str() {
        "private" => libc::MS_PRIVATE,
        "slave" => libc::MS_SLAVE,
        "shared" => libc::MS_SHARED,
        "unbindable" => libc::MS_UNBINDABLE,
        "unchanged" => 0,
        _ => return Err(spec_error(py, "propagation", "is one of private, slave, shared, unbindable, unchanged")),
    })
}

fn namespace<'py>(
    py: Python<'py>,
    spec: &mut Spec,
    maps: &mut Maps<'py>,
    key: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<bool> {
    match key {
        "namespaces" => {
            let dict = value.cast::<PyDict>().map_err(|_| type_error("namespaces", "a dict", value))?;
            for (name, how) in dict {
                one_namespace(py, spec, &name, &how)?;
            }
        }
        "network" => {
            let source = match value.extract::<String>().as_deref() {
                Ok("none") => Source::New,
                Ok("host") => Source::Host,
                _ => {
                    return Err(unsupported(
                        py,
                        "network",
                        "this version has \"none\" and \"host\"; namespaces={\"net\": path} joins one",
                    ));
                }
            };
            spec.namespaces.insert(Kind::Net, source);
        }
        "pin" => {
            let dict = value.cast::<PyDict>().map_err(|_| type_error("pin", "a dict of kind and path", value))?;
            for (name, path) in dict {
                spec.pins.push((kind(py, "pin", &name)?, os_string("pin", &path)?.into()));
            }
        }
        "hostname" => spec.hostname = Some(value.extract()?),
        "domainname" => spec.domainname = Some(value.extract()?),
        "uid_map" => maps.0 = Some(value.clone()),
        "gid_map" => maps.1 = Some(value.clone()),
        "setgroups" => {
            spec.setgroups = Some(match value.extract::<String>().as_deref() {
                Ok("allow") => true,
                Ok("deny") => false,
                _ => value.extract().map_err(|_| type_error("setgroups", "\"allow\", \"deny\" or a bool", value))?,
            });
        }
        "owner" => spec.owner = Some(value.extract().map_err(|_| type_error("owner", "a pair of uid and gid", value))?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn kind(py: Python<'_>, field: &str, name: &Bound<'_, PyAny>) -> PyResult<Kind> {
    let text: String = name.extract()?;
    Kind::from_name(&text).ok_or_else(|| {
        let all = Kind::ALL.map(Kind::name).join(", ");
        spec_error(py, field, &format!("{text:?} is no kind of namespace; there are {all}"))
    })
}

fn one_namespace(py: Python<'_>, spec: &mut Spec, name: &Bound<'_, PyAny>, how: &Bound<'_, PyAny>) -> PyResult<()> {
    let kind = kind(py, "namespaces", name)?;
    if let (Ok(monotonic), Ok(boottime)) = (how.getattr("monotonic"), how.getattr("boottime")) {
        if kind != Kind::Time {
            return Err(spec_error(py, "namespaces", "TimeOffsets are for the time namespace"));
        }
        let nanoseconds =
            |value: &Bound<'_, PyAny>| -> PyResult<i64> { Ok((value.extract::<f64>()? * 1e9).round() as i64) };
        spec.time_offsets =
            Some(TimeOffsets { monotonic_ns: nanoseconds(&monotonic)?, boottime_ns: nanoseconds(&boottime)? });
        spec.namespaces.insert(kind, Source::New);
        return Ok(());
    }
    let source = if how.is_instance_of::<PyInt>() && !how.is_instance_of::<PyBool>() {
        Source::Pid(how.extract()?)
    } else if how.hasattr("fileno")? {
        Source::Fd(Arc::new(descriptor("namespaces", how)?))
    } else {
        match os_string("namespaces", how)? {
            text if text == "new" => Source::New,
            text if text == "host" => Source::Host,
            path => Source::Path(path.into()),
        }
    };
    spec.namespaces.insert(kind, source);
    Ok(())
}

pub(crate) fn id_maps(py: Python<'_>, (uid, gid): Maps<'_>) -> PyResult<IdMaps> {
    let word = |value: &Option<Bound<'_, PyAny>>| value.as_ref().and_then(|value| value.extract::<String>().ok());
    match (word(&uid).as_deref(), word(&gid).as_deref()) {
        (Some("auto"), None | Some("auto")) if gid.is_none() || word(&gid).is_some() => return Ok(IdMaps::Auto),
        (Some("single"), None | Some("single")) if gid.is_none() || word(&gid).is_some() => return Ok(IdMaps::Single),
        _ => {}
    }
    match (uid, gid) {
        (None, None) => Ok(IdMaps::ByPrivilege),
        (Some(uid), Some(gid)) => Ok(IdMaps::Explicit { uid: lines("uid_map", &uid)?, gid: lines("gid_map", &gid)? }),
        _ => Err(spec_error(py, "uid_map", "and gid_map go together; or uid_map is \"auto\" or \"single\" for both")),
    }
}

pub(crate) fn lines(field: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Vec<IdMap>> {
    let wrong = || type_error(field, "a list of zind.IdMap (container, host, size), \"auto\" or \"single\"", value);
    let items = value.try_iter().map_err(|_| wrong())?;
    items
        .map(|item| {
            let (container, host, size) = item?.extract::<(u32, u32, u32)>().map_err(|_| wrong())?;
            Ok(IdMap { container, host, size })
        })
        .collect()
}

/// A copy of the descriptor of a number or of an object with `fileno()`.
fn descriptor(field: &'static str, value: &Bound<'_, PyAny>) -> PyResult<OwnedFd> {
    let number: i32 = match value.extract() {
        Ok(number) => number,
        Err(_) => value
            .call_method0("fileno")
            .and_then(|fd| fd.extract())
            .map_err(|_| type_error(field, "a descriptor", value))?,
    };
    if number < 0 {
        return Err(spec_error(value.py(), field, &format!("{number} is no descriptor")));
    }
    // SAFETY: only used to duplicate it; a number that is not open makes that fail.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().map_err(|error| {
        let errno = zind_core::IntoErrno::into_errno(error);
        raise(value.py(), &zind_core::Error::sys(zind_core::Step::OpenStdio, "dup", number.to_string(), errno))
    })
}

/// As `subprocess` has it: PIPE is -1, STDOUT -2, DEVNULL -3.
fn stdio(field: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Stdio> {
    if let Ok(number) = value.extract::<i32>() {
        match number {
            -1 => return Ok(Stdio::Pipe),
            -2 => return Ok(Stdio::Stdout),
            -3 => return Ok(Stdio::Null),
            _ => {}
        }
    } else if !value.hasattr("fileno")? {
        return Ok(Stdio::File(os_string(field, value)?.into()));
    }
    descriptor(field, value).map(|fd| Stdio::Fd(Arc::new(fd)))
}

fn process(py: Python<'_>, spec: &mut Spec, key: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let failed = |error: zind_core::Error| raise(py, &error);
    match key {
        "argv0" => spec.argv0 = Some(os_string("argv0", value)?),
        "env" => {
            let items = value.call_method0("items").map_err(|_| type_error("env", "a mapping", value))?;
            for item in items.try_iter()? {
                let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item?.extract()?;
                spec.env.push((os_string("env", &name)?, os_string("env", &value)?));
            }
        }
        "clear_env" => spec.clear_env = value.extract()?,
        "inherit_env" => spec.inherit_env = value.extract()?,
        "keep_env" => spec.keep_env = strings("keep_env", value)?,
        "cwd" => spec.cwd = Some(os_string("cwd", value)?.into()),
        "stdin" => spec.stdin = stdio("stdin", value)?,
        "stdout" => spec.stdout = stdio("stdout", value)?,
        "stderr" => spec.stderr = stdio("stderr", value)?,
        "pass_fds" => spec.pass_fds = value.try_iter()?.map(|fd| fd?.extract()).collect::<PyResult<_>>()?,
        "umask" => spec.umask = Some(value.extract()?),
        "rlimits" => {
            for (name, limit) in value.cast::<PyDict>().map_err(|_| type_error("rlimits", "a dict", value))? {
                spec.rlimits.push(rlimit(&name, &limit)?);
            }
        }
        "sysctl" => {
            for (name, value) in value.cast::<PyDict>().map_err(|_| type_error("sysctl", "a dict", value))? {
                // Numbers as sysctl(8) prints them.
                let value: String = match value.extract::<i64>() {
                    Ok(number) if !value.is_instance_of::<PyBool>() => number.to_string(),
                    _ => value.extract().map_err(|_| type_error("sysctl", "a dict of texts and numbers", &value))?,
                };
                spec.sysctl.insert(name.extract()?, value);
            }
        }
        "oom_score_adj" => spec.oom_score_adj = Some(value.extract()?),
        "nice" => spec.nice = Some(value.extract()?),
        "scheduler" => spec.scheduler = Some(scheduler(py, value)?),
        "setsid" => spec.session.setsid = value.extract()?,
        "pgid" => spec.session.pgid = Some(value.extract()?),
        "setctty" => spec.session.setctty = value.extract()?,
        "noctty" => spec.session.noctty = value.extract()?,
        "ctty" => spec.session.ctty = value.extract()?,
        "foreground" => spec.session.foreground = value.extract()?,
        "personality" => spec.personality = Some(value.extract()?),
        "pdeathsig" => {
            spec.pdeathsig = Some(match value.extract::<i32>() {
                Ok(number) => number,
                Err(_) => parse_signal(&value.extract::<String>()?).map_err(failed)?,
            });
        }
        "ptrace" => spec.ptrace = value.extract()?,
        "cgroup_fd" => spec.cgroup = Some(Arc::new(descriptor("cgroup_fd", value)?)),
        "resources" => spec.resources = Some(crate::resources::of_object(value)?),
        "cgroup_parent" => spec.cgroup_parent = Some(os_string("cgroup_parent", value)?.into()),
        "timeout" => spec.timeout = Some(parse_duration("timeout", value.extract()?).map_err(failed)?),
        "init" => spec.init = value.extract()?,
        "die_with_owner" => spec.die_with_owner = value.extract()?,
        "forward_signals" => spec.forward_signals = value.extract()?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn rlimit(name: &Bound<'_, PyAny>, limit: &Bound<'_, PyAny>) -> PyResult<Rlimit> {
    let resource = match name.extract::<u32>() {
        Ok(number) => number,
        Err(_) => parse_rlimit_name(&name.extract::<String>()?).map_err(|error| raise(name.py(), &error))?,
    };
    let one = |value: &Bound<'_, PyAny>| -> PyResult<Option<u64>> {
        if value.extract::<String>().is_ok_and(|text| text == "unlimited")
            || value.extract::<i64>().is_ok_and(|number| number == -1)
        {
            return Ok(None);
        }
        value
            .extract()
            .map(Some)
            .map_err(|_| type_error("rlimits", "a number, a pair of numbers, or \"unlimited\"", value))
    };
    let (soft, hard) = match limit.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() {
        Ok((soft, hard)) => (one(&soft)?, one(&hard)?),
        Err(_) => (one(limit)?, one(limit)?),
    };
    Ok(Rlimit { resource, soft, hard })
}

fn scheduler(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Scheduler> {
    let (name, priority) = match value.extract::<(String, u32)>() {
        Ok(pair) => pair,
        Err(_) => {
            (value.extract::<String>().map_err(|_| type_error("scheduler", "a name or (name, priority)", value))?, 0)
        }
    };
    let policy = match name.as_str() {
        "other" => libc::SCHED_OTHER,
        "fifo" => libc::SCHED_FIFO,
        "rr" => libc::SCHED_RR,
        "batch" => libc::SCHED_BATCH,
        "idle" => libc::SCHED_IDLE,
        _ => return Err(spec_error(py, "scheduler", "is one of other, batch, idle, fifo, rr")),
    };
    Ok(Scheduler { policy: policy as u32, priority, ..Scheduler::default() })
}

fn privileges(py: Python<'_>, spec: &mut Spec, key: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let capabilities = |field| -> PyResult<CapSet> {
        match value.extract::<String>().as_deref() {
            Ok("docker") => Ok(CapSet::docker()),
            Ok("podman") => Ok(CapSet::podman()),
            _ => CapSet::from_names(texts(field, value)?.iter().map(String::as_str)).map_err(|error| raise(py, &error)),
        }
    };
    match key {
        "user" => {
            spec.user = Some(match value.extract::<u32>() {
                Ok(uid) => User::Ids(uid, None),
                Err(_) if value.is_instance_of::<PyInt>() => User::Name(value.str()?.extract()?),
                Err(_) => User::Name(
                    value.extract().map_err(|_| type_error("user", "a number or text like \"1000:1000\"", value))?,
                ),
            });
        }
        "groups" => {
            let items = value.try_iter().map_err(|_| type_error("groups", "a sequence of names and numbers", value))?;
            spec.groups = Some(items.map(|item| item?.str()?.extract()).collect::<PyResult<_>>()?);
        }
        "capabilities" => (spec.capabilities, spec.cap_sets) = (Some(capabilities("capabilities")?), None),
        "ambient_caps" => (spec.ambient, spec.cap_sets) = (capabilities("ambient_caps")?, None),
        "keep_caps" => spec.keep_caps = value.extract()?,
        "privileged" => {
            spec.privileged = value.extract()?;
            if spec.privileged {
                // Of a document.
                spec.cap_sets = None;
            }
        }
        "no_new_privileges" => spec.no_new_privileges = value.extract()?,
        "keyring" => spec.keyring = value.extract()?,
        "seccomp" => spec.seccomp = seccomp(py, value)?,
        "landlock" => spec.landlock = landlock_policy(value)?,
        "apparmor" => spec.apparmor = Some(value.extract().map_err(|_| type_error("apparmor", "text", value))?),
        "mount_label" => {
            spec.mount_label = Some(value.extract().map_err(|_| type_error("mount_label", "text", value))?);
        }
        "selinux" => spec.selinux = Some(value.extract().map_err(|_| type_error("selinux", "text", value))?),
        "violations" => spec.violations = value.extract()?,
        "require" => spec.require = texts("require", value)?,
        _ => return Ok(false),
    }
    Ok(true)
}
