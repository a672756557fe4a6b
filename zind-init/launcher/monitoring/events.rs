//! The journal of a place: what happens to its containers, in the order in which it is written, each once.

use crate::files::Fd;
use crate::monitor::{EVENT_MAGIC, EVENT_SIZE, EventRecord, JOURNAL_SIZE, Monitor, VERSION};
use crate::planfile::{PlanFile, bytes_of};
use crate::sys::{self, CStr, O_CREAT, O_NOFOLLOW, O_PATH, O_RDWR};

const O_TRUNC: u32 = 0o1000;
const MILLISECOND: i64 = 1_000_000;
/// How long somebody else may write.
const PATIENCE: u64 = 2_000_000_000;
const JOURNAL: CStr = c"journal".as_ptr().cast();
const BEFORE: CStr = c"journal.1".as_ptr().cast();
const NEW: CStr = c"journal.new".as_ptr().cast();

/// A record without anything but what it is about.
pub fn record(plan: &PlanFile, monitor: &Monitor, what: u32, restarts: u32) -> EventRecord {
    let mut id = [0u8; 64];
    for (slot, byte) in id.iter_mut().zip(plan.text(monitor.id)) {
        *slot = *byte;
    }
    EventRecord {
        magic: EVENT_MAGIC,
        version: VERSION,
        number: 0,
        time_ns: sys::now_ns(false),
        run: monitor.run,
        what,
        how: 0,
        value: 0,
        flags: 0,
        restarts,
        name_len: 0,
        id,
        name: [0; 128],
        pad: 0,
    }
}

/// Writes one, behind the last. One for which there is no room is lost.
pub fn append(dir: i32, record: &mut EventRecord) -> sys::Result<()> {
    let deadline = sys::now_ns(true) + PATIENCE;
    loop {
        let file = Fd(sys::openat(dir, JOURNAL, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600)?);
        lock(file.0, deadline)?;
        // Another one may have come to its place before we had it.
        let place = Fd(sys::openat(dir, JOURNAL, O_PATH | O_NOFOLLOW, 0)?);
        if sys::fstat(file.0)?.identity() == sys::fstat(place.0)?.identity() {
            return append_locked(dir, file.0, record);
        }
        if sys::now_ns(true) >= deadline {
            return Err(sys::EAGAIN);
        }
    }
}

/// Locks a file, if nobody has it for longer than that.
pub fn lock(file: i32, deadline: u64) -> sys::Result<()> {
    while let Err(errno) = sys::lock_now(file) {
        if sys::now_ns(true) >= deadline {
            return Err(errno);
        }
        let _ = sys::poll_for(&mut [], MILLISECOND);
    }
    Ok(())
}

fn append_locked(dir: i32, file: i32, record: &mut EventRecord) -> sys::Result<()> {
    let size = whole(file)?;
    record.number = match last_number(file, size) {
        Some(number) => number + 1,
        None => sys::openat(dir, BEFORE, O_NOFOLLOW, 0)
            .map(Fd)
            .and_then(|before| Ok(last_number(before.0, whole_of(before.0)?).unwrap_or(0) + 1))
            .unwrap_or(1),
    };
    if size >= JOURNAL_SIZE {
        let next = Fd(sys::openat(dir, NEW, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600)?);
        sys::write_all(next.0, bytes_of(record))?;
        // Whatever happens between two of these, the journal is there.
        let _ = sys::unlink(dir, BEFORE);
        sys::link(dir, JOURNAL, BEFORE)?;
        return sys::rename(dir, NEW, JOURNAL).map(drop);
    }
    match sys::pwrite(file, bytes_of(record), size) {
        Ok(EVENT_SIZE) => Ok(()),
        other => {
            let _ = sys::truncate(file, size);
            other.and(Err(sys::EAGAIN))
        }
    }
}

/// How many bytes of whole records there are.
fn whole_of(file: i32) -> sys::Result<u64> {
    let size = sys::fstat(file)?.size() as u64;
    Ok(size - size % EVENT_SIZE as u64)
}

/// The same; what was cut off by a crash goes.
fn whole(file: i32) -> sys::Result<u64> {
    let size = whole_of(file)?;
    if sys::fstat(file)?.size() as u64 != size {
        sys::truncate(file, size)?;
    }
    Ok(size)
}

fn last_number(file: i32, size: u64) -> Option<u64> {
    let at = size.checked_sub(EVENT_SIZE as u64)?;
    let mut head = [0u8; 16];
    (sys::pread(file, &mut head, at) == Ok(head.len())).then_some(())?;
    let [.., a, b, c, d, e, f, g, h] = head;
    Some(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
}
