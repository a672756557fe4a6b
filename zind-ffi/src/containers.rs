//! `zind_containers`: the containers of one place, and `zind_watch`: what happens to them.

use std::ffi::{OsStr, c_char};
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use zind_core::container::{ContainerEvent, ContainerEvents, Filter, Summary};
use zind_core::{Containers, Error, Exit};

use crate::container::zind_container;
use crate::error::{zind_error, zind_status};
use crate::guard::{Failure, Out, Outcome, free, guard, handle, handle_mut, quiet};
use crate::strings::{give_string, optional_list, optional_path, text};

/// The containers that are kept in one directory. It takes any number of calls at once.
pub struct zind_containers(pub(crate) Containers);

/// What happens to the containers of one place.
pub struct zind_watch(ContainerEvents);

/// Milliseconds of a caller's; negative is as long as it takes.
pub(crate) fn timeout_of(ms: i64) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}

/// Nanoseconds since 1970.
pub(crate) fn ns_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Labels as C has them: `name=value`, or only the name, which is `None`.
///
/// # Safety
/// `pointer` is NULL, or a NULL-terminated array of NUL-terminated strings.
pub(crate) unsafe fn labels_of(pointer: *const *const c_char) -> Outcome<Vec<(String, Option<String>)>> {
    let pair = |label: &OsStr| {
        let label = label.to_str().ok_or(Failure::Utf8("labels"))?;
        Ok(match label.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (label.to_owned(), None),
        })
    };
    // SAFETY: the caller's promise.
    unsafe { optional_list(pointer) }.unwrap_or_default().into_iter().map(pair).collect()
}

fn exit_value(exit: Option<Exit>) -> Value {
    exit.map_or(Value::Null, |exit| {
        json!({"kind": exit.kind.name(), "code": exit.code, "signal": exit.signal, "returncode": exit.returncode()})
    })
}

/// Opens a place, which is made if it is missing; what programs left there that died in the middle of something is removed.
/// path: a directory; NULL for the user's own: /var/lib/zind for root, $XDG_DATA_HOME/zind or ~/.local/share/zind for others.
/// containers: receives the handle; free it with zind_containers_free().
/// Returns also ZIND_STATUS_SPEC without a home, _STATE if it belongs to somebody else, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_containers_open(
    path: *const c_char,
    containers: *mut *mut zind_containers,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let containers = Out::handle(containers, "containers")?;
            containers.give(zind_containers(Containers::open(optional_path(path))?));
            Ok(())
        })
    }
}

/// The container with this name or id, or with an id that begins so, if it is the only one.
/// container: receives the handle; free it with zind_container_free().
/// Returns also ZIND_STATUS_UTF8, _NOT_FOUND, _SPEC if it is several, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_containers_find(
    containers: *const zind_containers,
    name: *const c_char,
    container: *mut *mut zind_container,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let container = Out::handle(container, "container")?;
            let found = handle(containers, "containers")?.0.find(text(name, "name")?)?;
            container.give(zind_container::of(found));
            Ok(())
        })
    }
}

fn summary_value(of: &Summary) -> Value {
    json!({
        "id": of.id,
        "name": of.name,
        "labels": of.labels,
        "image": of.image,
        "command": of.command,
        "state": of.state.name(),
        "pid": of.pid,
        "created_ns": ns_of(of.created),
        "started_ns": of.started.map(ns_of),
        "finished_ns": of.finished.map(ns_of),
        "exit": exit_value(of.exit),
        "restarts": of.restarts,
        "restarting": of.restarting.map(|restarting| json!({
            "at_ns": ns_of(restarting.at),
            "finished_ns": ns_of(restarting.finished),
            "exit": exit_value(Some(restarting.exit)),
        })),
    })
}

/// The containers of a place, the latest first, as a JSON list of objects: "id", "name", "labels", "image", "command",
/// "state", "pid", "created_ns", "started_ns", "finished_ns" (nanoseconds since 1970), "exit" ("kind", "code", "signal",
/// "returncode"), "restarts" and "restarting" ("at_ns", "finished_ns", "exit": nothing of it runs, and its monitor starts it again
/// then); null where there is none. One whose state cannot be read is left out.
/// all: those, too, that do not run. labels: NULL, or an array that ends with NULL of labels they must have: "name=value", or
/// "name" for any value. json: receives a string; free it with zind_string_free().
/// Returns also ZIND_STATUS_UTF8 and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_containers_list_json(
    containers: *const zind_containers,
    all: bool,
    labels: *const *const c_char,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            let filter = Filter { all, labels: labels_of(labels)?, ..Filter::default() };
            let list = handle(containers, "containers")?.0.summaries(&filter)?;
            give_string(json, Value::from_iter(list.iter().map(summary_value)).to_string());
            Ok(())
        })
    }
}

/// Deletes every container of a place that does not run, and the control groups that nobody is in any more.
/// json: receives a JSON object, "containers" (ids) and "groups" (paths); free it with zind_string_free().
/// Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_containers_prune_json(
    containers: *const zind_containers,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            let pruned = handle(containers, "containers")?.0.prune()?;
            let groups: Vec<_> = pruned.groups.iter().map(|path| path.to_string_lossy()).collect();
            give_string(json, json!({"containers": pruned.containers, "groups": groups}).to_string());
            Ok(())
        })
    }
}

/// Frees the handle; the containers stay. containers: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_containers_free(containers: *mut zind_containers) {
    // SAFETY: the header's demand.
    unsafe { free(containers) }
}

/// What happens to the containers of a place from now on: each thing once, in order.
/// watch: receives the handle; free it with zind_watch_free(). Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_containers_watch(
    containers: *const zind_containers,
    watch: *mut *mut zind_watch,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let watch = Out::handle(watch, "watch")?;
            watch.give(zind_watch(handle(containers, "containers")?.0.events()?));
            Ok(())
        })
    }
}

/// As zind_containers_watch(), and before that what has happened since the event with this number, itself included: the last four
/// thousand and more are kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_containers_watch_from(
    containers: *const zind_containers,
    number: u64,
    watch: *mut *mut zind_watch,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let watch = Out::handle(watch, "watch")?;
            watch.give(zind_watch(handle(containers, "containers")?.0.events_from(number)?));
            Ok(())
        })
    }
}

/// Becomes readable when something may have happened, for an event loop; that a monitor was killed is noticed only
/// by a zind_watch_next_json(), so call it every second, too. Borrowed: the watch closes it; do not read from it. -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_watch_fd(watch: *const zind_watch) -> i32 {
    // SAFETY: the header's demand.
    let watch = unsafe { watch.as_ref() };
    quiet(-1, || watch.map_or(-1, |watch| watch.0.fd().as_raw_fd()))
}

fn event_value(event: &ContainerEvent) -> Value {
    json!({
        "time_ns": ns_of(event.time),
        "what": event.what.name(),
        "id": event.id,
        "name": event.name,
        "exit": exit_value(event.exit),
        "number": event.number,
    })
}

/// The next event, as a JSON object: "time_ns" (nanoseconds since 1970), "what" ("created", "started", "oom", "paused",
/// "resumed", "died", "deleted", "renamed"), "id", "name" (null without one), "exit" (of "died", as in
/// zind_containers_list_json(); or null) and "number" (from 1 on without a gap, for zind_containers_watch_from()).
/// timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
/// json: receives a string; free it with zind_string_free().
/// Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_watch_next_json(
    watch: *mut zind_watch,
    timeout_ms: i64,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            let timeout = timeout_of(timeout_ms);
            let watch = &mut handle_mut(watch, "watch")?.0;
            let event = match timeout {
                Some(timeout) => {
                    let event = watch.next_within(Some(timeout), &mut || false)?;
                    event.ok_or(Error::Timeout(timeout))?
                }
                None => watch.next_interruptible(&mut || false)?,
            };
            give_string(json, event_value(&event).to_string());
            Ok(())
        })
    }
}

/// Frees a watch and closes its descriptor; the containers are none of its business. watch: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_watch_free(watch: *mut zind_watch) {
    // SAFETY: the header's demand.
    unsafe { free(watch) }
}
