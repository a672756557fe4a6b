//! `zind_events`: what happens in a container, as it happens.

use std::ffi::c_char;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use zind_core::{Error, EventKind, Events, EventsCloser, PressureOf, PressureTrigger};

use crate::error::{zind_error, zind_status};
use crate::exit::{OfSize, Target};
use crate::guard::{Out, Outcome, free, guard, handle, handle_mut, quiet};
use crate::process::zind_process;
use crate::strings::text;

/// The events of a container.
pub struct zind_events(pub(crate) Events);

/// What happened. Numbers are never reused, and new ones come at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum zind_event_kind {
    /// Nothing: there are no more.
    None = 0,
    /// Memory ran out: the limit is reached and nothing could be taken back.
    Oom = 1,
    /// A process was killed because memory ran out.
    OomKill = 2,
    /// The container is beyond memory_high and is slowed down. Version 2 only, as all below but the last.
    MemoryHigh = 3,
    /// It was about to go beyond its memory; mostly some can be taken back.
    MemoryMax = 4,
    /// A fork met the limit of processes.
    PidsMax = 5,
    /// More time than a trigger's was lost waiting for the resource.
    Pressure = 6,
    /// Everything in the container stands still.
    Frozen = 7,
    /// It goes on.
    Thawed = 8,
    /// The container has ended. Nothing comes after it.
    Empty = 9,
}

/// What is waited for, in a pressure event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum zind_pressure {
    /// It is no pressure event.
    None = 0,
    /// A CPU.
    Cpu = 1,
    /// Memory.
    Memory = 2,
    /// A disk.
    Io = 3,
}

/// One event; equal ones that came together are one with a count. Begin with ZIND_EVENT_INIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_event {
    /// sizeof(zind_event), set by the caller; no more than this is written.
    pub struct_size: usize,
    /// A zind_event_kind.
    pub kind: i32,
    /// A zind_pressure.
    pub resource: i32,
    /// How often since it was last told.
    pub count: u64,
}

// SAFETY: repr(C), numbers only.
unsafe impl OfSize for zind_event {
    const FIRST_SIZE: usize = 24;
}

impl From<zind_core::Event> for zind_event {
    fn from(event: zind_core::Event) -> zind_event {
        let (kind, resource) = match event.kind {
            EventKind::Oom => (zind_event_kind::Oom, zind_pressure::None),
            EventKind::OomKill => (zind_event_kind::OomKill, zind_pressure::None),
            EventKind::MemoryHigh => (zind_event_kind::MemoryHigh, zind_pressure::None),
            EventKind::MemoryMax => (zind_event_kind::MemoryMax, zind_pressure::None),
            EventKind::PidsMax => (zind_event_kind::PidsMax, zind_pressure::None),
            EventKind::Pressure(PressureOf::Cpu) => (zind_event_kind::Pressure, zind_pressure::Cpu),
            EventKind::Pressure(PressureOf::Memory) => (zind_event_kind::Pressure, zind_pressure::Memory),
            EventKind::Pressure(PressureOf::Io) => (zind_event_kind::Pressure, zind_pressure::Io),
            EventKind::Frozen => (zind_event_kind::Frozen, zind_pressure::None),
            EventKind::Thawed => (zind_event_kind::Thawed, zind_pressure::None),
            EventKind::Empty => (zind_event_kind::Empty, zind_pressure::None),
            _ => (zind_event_kind::None, zind_pressure::None),
        };
        zind_event { struct_size: 0, kind: kind as i32, resource: resource as i32, count: event.count }
    }
}

/// A trigger as the kernel writes it, after the resource: `"cpu some 150000 2000000"`.
fn trigger(line: &str) -> Result<PressureTrigger, Error> {
    let wrong = || Error::Spec {
        field: "pressure",
        rule: format!(
            "{line:?} is not like \"cpu some 150000 2000000\": cpu, memory or io; some or full; microseconds"
        ),
    };
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [of, which, stall, window] = words[..] else { return Err(wrong()) };
    let microseconds = |word: &str| word.parse().map(Duration::from_micros).map_err(|_| wrong());
    Ok(PressureTrigger {
        of: PressureOf::from_name(of).ok_or_else(wrong)?,
        full: match which {
            "some" => false,
            "full" => true,
            _ => return Err(wrong()),
        },
        stall: microseconds(stall)?,
        window: microseconds(window)?,
    })
}

/// # Safety
/// `lines` is NULL, or an array of strings that ends with NULL.
pub(crate) unsafe fn triggers(lines: *const *const c_char) -> Outcome<Vec<PressureTrigger>> {
    let mut found = Vec::new();
    if lines.is_null() {
        return Ok(found);
    }
    // SAFETY: the caller's promise: every element up to the NULL is there.
    unsafe {
        let mut next = lines;
        while !(*next).is_null() {
            found.push(trigger(text(*next, "pressure")?)?);
            next = next.add(1);
        }
    }
    Ok(found)
}

/// What happens in a container from its start on, as it happens: memory that runs out, processes killed for it, limits met,
/// freezing, and its end.
/// pressure: NULL, or an array of lines that ends with NULL, to be told of time lost waiting, too: the resource (cpu, memory,
/// io), some or full (of the tasks), the time lost and the window it is measured in, in microseconds (500000 to 10000000;
/// for an ordinary user a multiple of 2000000): "cpu some 150000 2000000".
/// events: receives the handle; free it with zind_events_free(). The process need not live as long.
/// Returns also ZIND_STATUS_UTF8, _SPEC, _STATE (it was started without resources), _UNSUPPORTED (pressure without a group of
/// version 2), _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_events(
    process: *const zind_process,
    pressure: *const *const c_char,
    events: *mut *mut zind_events,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let events = Out::handle(events, "events")?;
            let triggers = triggers(pressure)?;
            events.give(zind_events(handle(process, "process")?.0.events(&triggers)?));
            Ok(())
        })
    }
}

/// Readable when zind_events_next() will not block, for an event loop. Borrowed: the events close it; do not read from it.
/// -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_events_fd(events: *const zind_events) -> i32 {
    // SAFETY: the header's demand.
    let events = unsafe { events.as_ref() };
    quiet(-1, || events.map_or(-1, |events| events.0.as_fd().as_raw_fd()))
}

/// The next event.
/// timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
/// event: begin with ZIND_EVENT_INIT; its kind is ZIND_EVENT_KIND_NONE when there are no more.
/// Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_events_next(
    events: *mut zind_events,
    timeout_ms: i64,
    event: *mut zind_event,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let event = Target::new(event, "event")?;
            let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
            let events = &mut handle_mut(events, "events")?.0;
            match events.next_within(timeout)? {
                Some(found) => event.put(found.into()),
                None if events.is_over() => event.put(zind_event { struct_size: 0, kind: 0, resource: 0, count: 0 }),
                None => return Err(Error::Timeout(timeout.unwrap_or_default()).into()),
            }
            Ok(())
        })
    }
}

/// Ends events from another thread.
pub struct zind_events_closer(EventsCloser);

/// What ends events from another thread, while one waits in zind_events_next(); to be made before that.
/// closer: receives the handle; free it with zind_events_closer_free(). It may outlive the events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_events_closer_new(
    events: *const zind_events,
    closer: *mut *mut zind_events_closer,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let closer = Out::handle(closer, "closer")?;
            closer.give(zind_events_closer(handle(events, "events")?.0.closer()));
            Ok(())
        })
    }
}

/// There will be no more events: a zind_events_next() that waits returns at once, as each later one does, with the kind
/// ZIND_EVENT_KIND_NONE; their descriptor is readable. Any thread may call it, also while another one waits, and twice.
/// closer: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_events_closer_close(closer: *const zind_events_closer) {
    // SAFETY: the header's demand.
    let closer = unsafe { closer.as_ref() };
    quiet((), || closer.iter().for_each(|closer| closer.0.close()));
}

/// Frees a closer; the events go on. closer: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_events_closer_free(closer: *mut zind_events_closer) {
    // SAFETY: the header's demand.
    unsafe { free(closer) }
}

/// Frees events and closes their descriptors; the container is none of their business. events: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_events_free(events: *mut zind_events) {
    // SAFETY: the header's demand.
    unsafe { free(events) }
}
