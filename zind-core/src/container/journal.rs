//! The journal of a place: `events/journal` has a record for each thing that happens to its containers, numbered, in order, each
//! once. Whoever changes something writes it: this library, or a monitor. A full file becomes `journal.1`, and what was that is
//! gone.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use zind_init::monitor::{EVENT_MAGIC, EVENT_SIZE, JOURNAL_SIZE, KILLED, VERSION, event};

use super::state::{self, Locked};
use super::{Containers, KILLED as KILLED_EXIT};
use crate::error::{At, Error, Result, Step};
use crate::process::{Exit, ExitKind};
use nix::errno::Errno;

pub(super) const EVENTS: &str = "events";
const JOURNAL: &str = "journal";
const BEFORE: &str = "journal.1";
const NEW: &str = "journal.new";
const SIZE: u64 = EVENT_SIZE as u64;
/// How long somebody else may write.
const PATIENCE: Duration = Duration::from_secs(2);

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) time_ns: u64,
    pub(super) run: u64,
    pub(super) what: u32,
    pub(super) how: u32,
    pub(super) value: i32,
    pub(super) flags: u32,
    pub(super) restarts: u32,
    pub(super) id: String,
    pub(super) name: Option<String>,
}

impl Entry {
    pub(super) fn new(what: u32, id: &str, name: Option<&str>) -> Entry {
        Entry {
            number: 0,
            time_ns: state::now_ns(),
            run: 0,
            what,
            how: 0,
            value: 0,
            flags: 0,
            restarts: 0,
            id: id.to_owned(),
            name: name.map(str::to_owned),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let name = self.name.as_deref().unwrap_or_default().as_bytes();
        let mut bytes = Vec::with_capacity(EVENT_SIZE);
        for word in [EVENT_MAGIC, VERSION] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [self.number, self.time_ns, self.run] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [self.what, self.how, self.value as u32, self.flags, self.restarts, name.len().min(128) as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        let end = bytes.len() + 64;
        bytes.extend(self.id.bytes().take(64));
        bytes.resize(end, 0);
        bytes.extend(name.iter().take(128));
        bytes.resize(EVENT_SIZE, 0);
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Entry> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let long = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
        (bytes.len() == EVENT_SIZE && word(0)? == EVENT_MAGIC && word(4)? == VERSION).then_some(())?;
        let text = |at: usize, len: usize| String::from_utf8(bytes.get(at..at + len)?.to_vec()).ok();
        let name_len = usize::try_from(word(52)?).ok().filter(|len| *len <= 128)?;
        Some(Entry {
            // There is one after it.
            number: long(8).filter(|number| *number < u64::MAX)?,
            time_ns: long(16)?,
            run: long(24)?,
            what: word(32)?,
            how: word(36)?,
            value: word(40)? as i32,
            flags: word(44)?,
            restarts: word(48)?,
            id: text(56, 64).filter(|id| state::is_id(id))?,
            name: text(120, name_len).filter(|name| state::check_name(name).is_ok()),
        })
    }

    /// How it ended, of a [`event::DIED`].
    pub(super) fn exit(&self) -> Option<Exit> {
        use zind_init::monitor::{EXITED, OUT_OF_MEMORY, SIGNALED};
        (self.what == event::DIED).then_some(match self.how {
            EXITED => Exit { kind: ExitKind::Exited, code: Some(self.value), signal: None },
            SIGNALED if self.flags & OUT_OF_MEMORY != 0 => {
                Exit { kind: ExitKind::Oom, signal: Some(self.value), ..KILLED_EXIT }
            }
            SIGNALED => Exit { signal: Some(self.value), ..KILLED_EXIT },
            _ => KILLED_EXIT,
        })
    }
}

/// Whole records of a file.
fn length(file: &File) -> Option<u64> {
    file.metadata().ok().map(|meta| meta.len() - meta.len() % SIZE)
}

fn at(file: &File, offset: u64) -> Option<Entry> {
    let mut bytes = [0u8; EVENT_SIZE];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Entry::parse(&bytes)
}

pub(super) fn last_number(file: &File) -> Option<u64> {
    at(file, length(file)?.checked_sub(SIZE)?).map(|entry| entry.number)
}

/// The records of a file from a number on, in order.
pub(super) fn read_from(file: &File, number: u64) -> Vec<Entry> {
    let (Some(length), Some(first)) = (length(file), at(file, 0)) else { return Vec::new() };
    let skipped = number.saturating_sub(first.number).saturating_mul(SIZE).min(length);
    let mut bytes = vec![0u8; usize::try_from(length - skipped).unwrap_or(0)];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, skipped + filled as u64) {
            Ok(read) if read > 0 => filled += read,
            _ => break,
        }
    }
    let whole = bytes.get(..filled).unwrap_or_default();
    whole.chunks_exact(EVENT_SIZE).filter_map(Entry::parse).filter(|entry| entry.number >= number).collect()
}

impl Containers {
    pub(super) fn journal_dir(&self) -> PathBuf {
        self.path().join(EVENTS)
    }

    fn open_journal(&self, name: &str) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(CWD, self.journal_dir().join(name), flags, Mode::empty()).ok().map(File::from)
    }

    /// The number that the next record will have.
    pub(super) fn next_number(&self) -> u64 {
        let last = |name: &str| self.open_journal(name).and_then(|file| last_number(&file));
        last(JOURNAL).or_else(|| last(BEFORE)).unwrap_or(0) + 1
    }

    /// Those from a number on that are still there.
    pub(super) fn journal_from(&self, number: u64) -> Vec<Entry> {
        // A file that becomes the one before it meanwhile is found as one of the two.
        for _ in 0..8 {
            let now = self.open_journal(JOURNAL).map(|file| read_from(&file, number)).unwrap_or_default();
            match now.first() {
                Some(first) if first.number > number => {}
                _ if !now.is_empty() => return now,
                // There may be some of before, and none of now.
                _ if self.next_number() <= number => return now,
                _ => {}
            }
            let mut all = self.open_journal(BEFORE).map(|file| read_from(&file, number)).unwrap_or_default();
            let is_joined = match (all.last(), now.first()) {
                (Some(last), Some(first)) => last.number + 1 >= first.number,
                _ => true,
            };
            if is_joined {
                let next = all.last().map_or(0, |last| last.number + 1);
                all.extend(now.into_iter().filter(|entry| entry.number >= next));
                return all;
            }
        }
        Vec::new()
    }

    /// The journal for writing, which is ours until it is dropped.
    fn lock_journal(&self) -> Result<Locked> {
        let path = self.journal_dir().join(JOURNAL);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let file: OwnedFd =
                openat(CWD, &path, flags, Mode::from_raw_mode(0o600)).at(Step::Journal, "open", &path)?;
            while let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                if Instant::now() >= deadline {
                    return Err(errno).at(Step::Journal, "flock", &path);
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            let locked = Locked::new(file);
            let own = rustix::fs::fstat(&locked).at(Step::Journal, "fstat", &path)?;
            if std::fs::metadata(&path).is_ok_and(|meta| meta.ino() == own.st_ino) {
                return Ok(locked);
            }
            if Instant::now() >= deadline {
                return Err(Error::sys(Step::Journal, "open", &path, Errno::EAGAIN));
            }
        }
    }

    /// Writes what has happened. That it cannot be written, on a full disk say, ends nothing that has happened already.
    pub(super) fn tell(&self, entry: Entry) {
        let _ = self.try_tell(entry, |_| true);
    }

    /// The end of a container whose monitor was killed, of which nobody has told. Of all who notice one tells it.
    pub(super) fn tell_lost_end(&self, id: &str, run: u64) {
        let entry = Entry { run, how: KILLED, ..Entry::new(event::DIED, id, None) };
        let _ = self.try_tell(entry, |all| {
            let is_its = |entry: &&Entry| entry.id == id && matches!(entry.what, event::STARTED | event::DIED);
            all.iter().rev().find(is_its).is_some_and(|last| last.what == event::STARTED)
        });
    }

    fn try_tell(&self, mut entry: Entry, is_wanted: impl FnOnce(&[Entry]) -> bool) -> Result<()> {
        let locked = self.lock_journal()?;
        if entry.how == KILLED && !is_wanted(&self.journal_from(0)) {
            return Ok(());
        }
        let dir = self.journal_dir();
        let file = std::os::fd::AsFd::as_fd(&locked).try_clone_to_owned().at(Step::Journal, "dup", &dir)?;
        let file = File::from(file);
        let length = length(&file).unwrap_or(0);
        // What was cut off by a crash goes.
        file.set_len(length).at(Step::Journal, "ftruncate", &dir)?;
        entry.number = self.next_number();
        let bytes = entry.encode();
        if length >= JOURNAL_SIZE {
            std::fs::write(dir.join(NEW), &bytes).at(Step::Journal, "write", dir.join(NEW))?;
            // Whatever happens between two of these, the journal is there.
            let _ = std::fs::remove_file(dir.join(BEFORE));
            std::fs::hard_link(dir.join(JOURNAL), dir.join(BEFORE)).at(Step::Journal, "link", dir.join(BEFORE))?;
            return std::fs::rename(dir.join(NEW), dir.join(JOURNAL)).at(Step::Journal, "rename", dir.join(JOURNAL));
        }
        let written = file.write_all_at(&bytes, length);
        if written.is_err() {
            let _ = file.set_len(length);
        }
        written.at(Step::Journal, "write", dir.join(JOURNAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_no_other_bytes_do() {
        let entry = Entry {
            number: 7,
            run: 2,
            how: 1,
            value: -3,
            flags: 8,
            restarts: 4,
            ..Entry::new(event::DIED, &"0123456789abcdef".repeat(4), Some("web"))
        };
        let bytes = entry.encode();
        assert_eq!((bytes.len(), Entry::parse(&bytes)), (EVENT_SIZE, Some(entry)));
        for end in 0..EVENT_SIZE {
            assert_eq!(Entry::parse(&bytes[..end]), None);
        }
        let mut last = bytes.clone();
        last[8..16].fill(0xff);
        assert_eq!(Entry::parse(&last), None, "none could come after it");
        for at in 0..EVENT_SIZE {
            for byte in [0, 0xff, b'/'] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                let _ = Entry::parse(&changed);
            }
        }
    }

    #[test]
    fn numbers_go_on_over_files_and_a_cut_off_end() {
        let dir = std::env::temp_dir().join(format!("zind-journal-{}", std::process::id()));
        let containers = Containers::open(Some(&dir)).unwrap();
        let id = "ab".repeat(32);
        let most = JOURNAL_SIZE / SIZE;
        for _ in 0..most + 3 {
            containers.tell(Entry::new(event::PAUSED, &id, None));
        }
        let numbers = |from: u64| containers.journal_from(from).iter().map(|entry| entry.number).collect::<Vec<_>>();
        assert_eq!(numbers(most - 1), (most - 1..=most + 3).collect::<Vec<_>>());
        assert_eq!(numbers(most + 4), [0u64; 0]);
        assert_eq!(numbers(0).len() as u64, most + 3);
        let path = containers.journal_dir().join(JOURNAL);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(3 * SIZE - 5).unwrap();
        containers.tell(Entry::new(event::RESUMED, &id, None));
        assert_eq!(numbers(most + 1), [most + 1, most + 2, most + 3]);
        assert_eq!(containers.journal_from(most + 3)[0].what, event::RESUMED);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
