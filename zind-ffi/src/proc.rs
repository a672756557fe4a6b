//! One process as `/proc/<pid>` shows it, and all namespaces: JSON for all, typed for the common ones.

use std::ffi::{OsStr, c_char, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use zind_core::proc::{NamespaceId, Proc};
use zind_core::{Error, IdMap, Kind, Result};

use crate::error::{zind_error, zind_status};
use crate::guard::{Failure, Out, Outcome, guard};
use crate::strings::give_string;

/// The process with this number; 0 is the caller.
fn open(pid: i32) -> Result<Proc> {
    if pid == 0 { Proc::current() } else { Proc::open(pid) }
}

fn words(text: impl AsRef<OsStr>) -> Value {
    text.as_ref().to_string_lossy().into()
}

fn numbers(list: Vec<(&'static str, i128)>) -> Map<String, Value> {
    let number = |value| serde_json::Number::from_i128(value).map_or(Value::Null, Value::Number);
    list.into_iter().map(|(name, value)| (name.to_owned(), number(value))).collect()
}

fn kinds(list: Vec<(Kind, NamespaceId)>) -> Value {
    let id = |id: NamespaceId| json!({"id": id.inode, "dev": id.dev});
    list.into_iter().map(|(kind, namespace)| (kind.name().to_owned(), id(namespace))).collect::<Map<_, _>>().into()
}

fn stat(process: &Proc) -> Result<Value> {
    let stat = process.stat()?;
    let mut all = numbers(stat.numbers());
    all.insert("pid".into(), stat.pid.into());
    all.insert("comm".into(), words(&stat.comm));
    all.insert("state".into(), stat.state.to_string().into());
    Ok(all.into())
}

fn maps(process: &Proc) -> Result<Value> {
    let letter = |is, letter| if is { letter } else { '-' };
    let map = |map: zind_core::proc::Map| {
        let perms = map.perms;
        let shared = if perms.shared { 's' } else { 'p' };
        let text: String =
            [letter(perms.read, 'r'), letter(perms.write, 'w'), letter(perms.exec, 'x'), shared].iter().collect();
        json!({
            "start": map.start,
            "end": map.end,
            "perms": text,
            "offset": map.offset,
            "dev": map.dev,
            "inode": map.inode,
            "path": map.path.map(words),
        })
    };
    Ok(process.maps()?.into_iter().map(map).collect())
}

fn idmaps(process: &Proc) -> Result<Value> {
    let range = |map: IdMap| json!({"container": map.container, "host": map.host, "size": map.size});
    let ranges = |maps: Vec<IdMap>| maps.into_iter().map(range).collect::<Value>();
    process.id_maps().map(|maps| json!({"uid": ranges(maps.uid), "gid": ranges(maps.gid)}))
}

fn cgroup(process: &Proc) -> Result<Value> {
    let one = |group: zind_core::proc::CgroupMembership| {
        let path = words(group.path);
        json!({"hierarchy": group.hierarchy, "controllers": group.controllers, "path": path})
    };
    Ok(process.cgroup()?.into_iter().map(one).collect())
}

/// How one entry is read.
type Reader = fn(&Proc) -> Result<Value>;

/// Every entry by its name.
const ENTRIES: [(&str, Reader); 15] = [
    ("cmdline", |process| Ok(process.cmdline()?.iter().map(words).collect())),
    ("cwd", |process| process.cwd().map(words)),
    ("root", |process| process.root().map(words)),
    ("exe", |process| process.exe().map(words)),
    ("environ", |process| {
        let entry = |(name, value): (std::ffi::OsString, _)| (name.to_string_lossy().into_owned(), words(value));
        Ok(process.environ()?.into_iter().map(entry).collect::<Map<_, _>>().into())
    }),
    ("fds", |process| {
        let fd = |fd: zind_core::proc::Fd| json!({"number": fd.number, "target": words(fd.target)});
        Ok(process.fds()?.into_iter().map(fd).collect())
    }),
    ("maps", maps),
    ("stat", stat),
    ("statm", |process| Ok(numbers(process.statm()?.numbers()).into())),
    ("status", |process| {
        let field = |(name, value): &(String, String)| (name.clone(), Value::from(value.as_str()));
        Ok(process.status()?.fields().iter().map(field).collect::<Map<_, _>>().into())
    }),
    ("ns", |process| process.namespaces().map(kinds)),
    ("children_ns", |process| process.children_namespaces().map(kinds)),
    ("idmaps", idmaps),
    ("setgroups", |process| process.setgroups().map(Into::into)),
    ("cgroup", cgroup),
];

/// All of it; an entry that cannot be read is null and named under `errors`.
fn everything(process: &Proc) -> Result<Value> {
    let mut all = Map::new();
    let mut errors = Map::new();
    all.insert("pid".into(), process.pid().into());
    for (name, read) in ENTRIES {
        let value = match read(process) {
            Ok(value) => value,
            Err(error @ Error::NotFound { .. }) => return Err(error),
            Err(error) => {
                let errno = error.errno().map_or(0, |errno| errno as i32);
                errors.insert(name.into(), json!({"errno": errno, "message": error.to_string()}));
                Value::Null
            }
        };
        all.insert(name.into(), value);
    }
    all.insert("errors".into(), errors.into());
    Ok(all.into())
}

/// Everything that /proc/<pid> tells, as a JSON object: "pid", "cmdline", "cwd", "root", "exe", "environ", "fds",
/// "maps", "stat", "statm", "status", "ns", "children_ns", "idmaps", "setgroups", "cgroup". An entry the caller may not
/// read is null, and "errors" says why. Bytes that are not UTF-8 are replaced by U+FFFD; the typed functions keep them.
/// pid: 0 for the caller. json: receives a string; free it with zind_string_free().
/// Returns also ZIND_STATUS_NOT_FOUND (no such process), and _SYS (no procfs on /proc).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_proc_json(pid: i32, json: *mut *mut c_char, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            give_string(json, everything(&open(pid)?)?.to_string());
            Ok(())
        })
    }
}

/// Hands one link of a process over.
///
/// # Safety
/// `path` is NULL or writable; `err` as for [`guard`].
unsafe fn link(
    pid: i32,
    path: *mut *mut c_char,
    err: *mut *mut zind_error,
    read: fn(&Proc) -> Result<PathBuf>,
) -> zind_status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(err, || {
            let path = Out::handle(path, "path")?;
            give_string(path, read(&open(pid)?)?.into_os_string().into_vec());
            Ok(())
        })
    }
}

/// The program of a process; with " (deleted)" at the end if it was removed.
/// pid: 0 for the caller. path: receives a string; free it with zind_string_free().
/// Returns also ZIND_STATUS_NOT_FOUND (no such process), and _SYS (EACCES: the caller may not trace it).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_proc_exe(pid: i32, path: *mut *mut c_char, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { link(pid, path, err, Proc::exe) }
}

/// The working directory of a process; else as zind_proc_exe().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_proc_cwd(pid: i32, path: *mut *mut c_char, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { link(pid, path, err, Proc::cwd) }
}

/// The root directory of a process, as seen from the caller's; else as zind_proc_exe().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_proc_root(pid: i32, path: *mut *mut c_char, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { link(pid, path, err, Proc::root) }
}

/// Reads memory of a process.
/// pid: 0 for the caller. address: where it begins there. buffer: room for len bytes.
/// read: receives how many were read, fewer where the mapped memory ends.
/// Returns also ZIND_STATUS_NOT_FOUND (no such process), and _SYS (EIO: nothing is mapped there; EACCES).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_proc_mem(
    pid: i32,
    address: u64,
    buffer: *mut c_void,
    len: usize,
    read: *mut usize,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let read = Out::new(read, "read")?;
            let to = memory(buffer, len)?;
            let bytes = open(pid)?.mem(address, len)?;
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            read.put(bytes.len());
            Ok(())
        })
    }
}

/// The address of a buffer of the caller's; any address for an empty one.
fn memory(buffer: *mut c_void, len: usize) -> Outcome<*mut u8> {
    match (buffer.is_null(), len) {
        (true, 0) => Ok(std::ptr::dangling_mut()),
        (true, _) => Err(Failure::Null("buffer")),
        (false, _) => Ok(buffer.cast()),
    }
}

/// Every namespace that some process is in, as lsns(8) shows them: [{"kind", "id", "dev", "processes", "owner_uid",
/// "command", "parent" (the id of the one above, of a pid or user namespace), "owner" (that of its user namespace), "netnsid" (the
/// number by which the caller's network namespace knows it)}], null where it cannot be known, or there is none.
/// json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_SYS (no procfs on /proc).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_namespaces_json(json: *mut *mut c_char, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            let one = |namespace: zind_core::Namespace| {
                json!({
                    "kind": namespace.kind.name(),
                    "id": namespace.id,
                    "dev": namespace.dev,
                    "processes": namespace.processes,
                    "owner_uid": namespace.owner_uid,
                    "parent": namespace.parent,
                    "owner": namespace.owner,
                    "netnsid": namespace.netnsid,
                    "command": namespace.command,
                })
            };
            give_string(json, zind_core::namespaces()?.into_iter().map(one).collect::<Value>().to_string());
            Ok(())
        })
    }
}
