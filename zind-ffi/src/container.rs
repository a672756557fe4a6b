//! `zind_container`: a container that lives on its own: how it is made and found, and what is known of it.

use std::ffi::{CString, c_char, c_void};
use std::os::fd::IntoRawFd;

use zind_core::container::{LogOptions, Size, State};
use zind_core::{Container, Error, Restart};

use crate::containers::{labels_of, zind_containers};
use crate::error::{zind_error, zind_status};
use crate::exit::{OfSize, Target, read_sized, zind_exit};
use crate::guard::{Out, Outcome, free, guard, handle};
use crate::process::{question, zind_interrupted};
use crate::spec::zind_spec;
use crate::strings::{c_string, give_string, optional_text, text};

/// A container that lives on its own, under a name or an id. The handle is only a way to it: each call looks at what is there
/// now, for another program may have started, renamed or deleted it meanwhile; of one that is deleted each call says
/// ZIND_STATUS_NOT_FOUND. It takes any number of calls at once.
pub struct zind_container {
    pub(crate) container: Container,
    id: CString,
}

/// What a container is doing. Numbers are never reused, and new ones come at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum zind_state {
    /// Something this header does not know.
    None = 0,
    /// It is being made, or started.
    Creating = 1,
    /// It is there, and nothing of it runs.
    Created = 2,
    /// Its program runs, or has ended and is started again by its monitor: "restarting" of zind_container_inspect_json().
    Running = 3,
    /// Everything in it is stopped until it is resumed.
    Paused = 4,
    /// Its program has ended.
    Stopped = 5,
}

/// Its standard input stays open for whoever attaches to it; otherwise it is empty.
pub const ZIND_CONTAINER_STDIN_OPEN: u64 = 1;
/// It is deleted when it has ended, by who waits for it or who opens its place next.
pub const ZIND_CONTAINER_AUTO_REMOVE: u64 = 2;

/// What a container is besides what runs in it. Begin with ZIND_CONTAINER_OPTIONS_INIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_container_options {
    /// sizeof(zind_container_options), set by the caller; no more than this is read.
    pub struct_size: usize,
    /// ZIND_CONTAINER_STDIN_OPEN and the flags after it, or-ed together.
    pub flags: u64,
    /// A name to find it by: a letter or digit, then up to 127 of letters, digits, "_", "." and "-"; NULL for none.
    pub name: *const c_char,
    /// When it is started again after it has ended: "no", "on-failure", "on-failure:3", "always", "unless-stopped"; NULL is
    /// "no".
    pub restart: *const c_char,
    /// Labels, "name=value", an array that ends with NULL; NULL for none.
    pub labels: *const *const c_char,
    /// Bytes of one file of its log; when it is full another one is begun. 0 for 16 MiB.
    pub log_size: u64,
    /// How many files of the log there are at most; the oldest goes. 0 keeps none; -1 for 2.
    pub log_files: i32,
    /// The signal that asks it to end; 0 for the image's, or SIGTERM.
    pub stop_signal: i32,
    /// Rows of a terminal as its standard streams; 0 for none, or for that of the spec.
    pub rows: u32,
    /// Columns of the terminal.
    pub cols: u32,
}

// SAFETY: repr(C), numbers and pointers that own nothing.
unsafe impl OfSize for zind_container_options {
    const FIRST_SIZE: usize = 40 + 3 * size_of::<*const c_char>();
}

impl zind_container {
    pub(crate) fn of(container: Container) -> zind_container {
        zind_container { id: c_string(container.id()), container }
    }
}

/// Runs the body of an entry point of a container.
///
/// # Safety
/// As for [`guard`]; `container` is NULL or live.
pub(crate) unsafe fn on(
    container: *const zind_container,
    err: *mut *mut zind_error,
    body: impl FnOnce(&Container) -> Outcome,
) -> zind_status {
    // SAFETY: the caller's promise.
    unsafe { guard(err, || body(&handle(container, "container")?.container)) }
}

/// Rows and columns of a caller's.
fn size_of_window(rows: u32, cols: u32) -> Outcome<Size> {
    match (u16::try_from(rows), u16::try_from(cols)) {
        (Ok(rows), Ok(cols)) => Ok(Size::new(rows, cols)),
        _ => Err(Error::spec("terminal", format!("{rows} rows and {cols} columns: more than 65535")).into()),
    }
}

/// Makes a container. Nothing of it runs yet.
/// containers: the place where it is kept; NULL for the user's own. spec: borrowed; what runs in it. It ends with the process
/// that starts it, unless the spec has die_with_owner off, or zind_container_detach() is called.
/// options: NULL, or begin with ZIND_CONTAINER_OPTIONS_INIT.
/// container: receives the handle; free it with zind_container_free(), which leaves the container.
/// Returns also ZIND_STATUS_UTF8, _SPEC for what a start would refuse and for what cannot be kept on disk (descriptors, a
/// time limit), _EXISTS if another one has the name, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_create(
    containers: *const zind_containers,
    spec: *const zind_spec,
    options: *const zind_container_options,
    container: *mut *mut zind_container,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        zind_container_create_interruptible(containers, spec, options, None, std::ptr::null_mut(), container, err)
    }
}

/// As zind_container_create(), and asks a function of the caller's whether to stop, as zind_container_start_interruptible(): while an
/// image is unpacked, and while somebody else changes names. Nothing of it is there then.
/// interrupted: NULL asks nobody. data: its argument.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_create_interruptible(
    containers: *const zind_containers,
    spec: *const zind_spec,
    options: *const zind_container_options,
    interrupted: zind_interrupted,
    data: *mut c_void,
    container: *mut *mut zind_container,
    err: *mut *mut zind_error,
) -> zind_status {
    let default = zind_container_options {
        struct_size: 0,
        flags: 0,
        name: std::ptr::null(),
        restart: std::ptr::null(),
        labels: std::ptr::null(),
        log_size: 0,
        log_files: -1,
        stop_signal: 0,
        rows: 0,
        cols: 0,
    };
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let container = Out::handle(container, "container")?;
            let spec = handle(spec, "spec")?.0.clone();
            let given = read_sized(options, default, "options")?;
            let unknown = given.flags & !(ZIND_CONTAINER_STDIN_OPEN | ZIND_CONTAINER_AUTO_REMOVE);
            if unknown != 0 {
                return Err(Error::spec("options", format!("unknown flags {unknown:#x}")).into());
            }
            let mut builder = Container::builder(spec)
                .stdin_open(given.flags & ZIND_CONTAINER_STDIN_OPEN != 0)
                .auto_remove(given.flags & ZIND_CONTAINER_AUTO_REMOVE != 0);
            if let Some(containers) = containers.as_ref() {
                builder = builder.containers(&containers.0);
            }
            if let Some(name) = optional_text(given.name, "name")? {
                builder = builder.name(name);
            }
            if let Some(restart) = optional_text(given.restart, "restart")? {
                builder = builder.restart(Restart::parse(restart)?);
            }
            for (name, value) in labels_of(given.labels)? {
                let rule = || Error::spec("labels", format!("{name:?} is not like name=value"));
                builder = builder.label(&name, value.ok_or_else(rule)?);
            }
            let mut log = LogOptions::default();
            if given.log_size != 0 {
                log.size = given.log_size;
            }
            if let Ok(files) = u32::try_from(given.log_files) {
                log.files = files;
            }
            builder = builder.log(log);
            if given.stop_signal != 0 {
                builder = builder.stop_signal(given.stop_signal);
            }
            if (given.rows, given.cols) != (0, 0) {
                builder = builder.terminal(size_of_window(given.rows, given.cols)?);
            }
            let made = builder.create_interruptible(&mut question(interrupted, data))?;
            container.give(zind_container::of(made));
            Ok(())
        })
    }
}

/// The user's own container with this name or id, or with an id that begins so; zind_containers_find() for another place.
/// container: receives the handle; free it with zind_container_free().
/// Returns also what zind_containers_open() and zind_containers_find() return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_open(
    name: *const c_char,
    container: *mut *mut zind_container,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let container = Out::handle(container, "container")?;
            container.give(zind_container::of(Container::open(text(name, "name")?)?));
            Ok(())
        })
    }
}

/// Frees the handle; the container goes on, and stays. container: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_free(container: *mut zind_container) {
    // SAFETY: the header's demand.
    unsafe { free(container) }
}

/// Its id: 64 hexadecimal digits; the first 12 are what is shown. Borrowed from the handle; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_id(container: *const zind_container) -> *const c_char {
    // SAFETY: the header's demand.
    unsafe { container.as_ref() }.map_or(std::ptr::null(), |container| container.id.as_ptr())
}

/// Its name. string: receives it, or NULL if it has none; free it with zind_string_free().
/// Returns also ZIND_STATUS_NOT_FOUND, _STATE for a state that a later zind has written, or nobody, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_name(
    container: *const zind_container,
    string: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let string = Out::handle(string, "string")?;
            if let Some(name) = container.name()? {
                give_string(string, name);
            }
            Ok(())
        })
    }
}

/// What it is doing. state: receives a zind_state. Returns also what zind_container_name() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_state(
    container: *const zind_container,
    state: *mut i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let state = Out::new(state, "state")?;
            let found = match container.state()? {
                State::Creating => zind_state::Creating,
                State::Created => zind_state::Created,
                State::Running => zind_state::Running,
                State::Paused => zind_state::Paused,
                State::Stopped => zind_state::Stopped,
                _ => zind_state::None,
            };
            state.put(found as i32);
            Ok(())
        })
    }
}

/// Its first process in the caller's pid namespace. pid: receives the number; -1 while it does not run, between two
/// runs, too. To signal or join it, prefer the functions of zind and the pidfd: numbers are reused. Returns also what zind_container_name() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_pid(
    container: *const zind_container,
    pid: *mut i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let pid = Out::new(pid, "pid")?;
            pid.put(container.pid()?.unwrap_or(-1));
            Ok(())
        })
    }
}

/// A pidfd of its first process, for setns(2) and the like. fd: receives it, close-on-exec; the caller closes it.
/// Returns also ZIND_STATUS_STATE if it does not run, and what zind_container_name() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_pidfd(
    container: *const zind_container,
    fd: *mut i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let fd = Out::new(fd, "fd")?;
            fd.put(container.pidfd()?.into_raw_fd());
            Ok(())
        })
    }
}

/// How it ended, without waiting. One whose monitor was killed, or that did not survive a restart of the machine, was ended by
/// SIGKILL.
/// exit: begin with ZIND_EXIT_INIT; its kind is ZIND_EXIT_KIND_RUNNING as long as there is no end.
/// Returns also ZIND_STATUS_SPEC for a struct_size that is too small, and what zind_container_name() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_exit(
    container: *const zind_container,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let exit = Target::new(exit, "exit")?;
            exit.put(container.exit()?.map_or(zind_exit::RUNNING, Into::into));
            Ok(())
        })
    }
}

/// All that is known of it, as a JSON object: "id", "name", "labels", "state", "pid", "created", "started", "finished" (seconds
/// since 1970), "restarts", "restarting" (null, or "at", "finished" and "exit": its monitor starts it again then), "exit", "fault",
/// "log", "isolation", "config" (OCI's config.json) and others.
/// json: receives a string; free it with zind_string_free(). Returns also what zind_container_name() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_inspect_json(
    container: *const zind_container,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let json = Out::handle(json, "json")?;
            give_string(json, container.inspect()?.to_string());
            Ok(())
        })
    }
}
