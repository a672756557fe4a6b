//! Files that are read again and again: once open they stay so, and a reading is one call.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::{Part, files};
use crate::sys::descriptors::openat;

/// How many are kept in all groups together: a caller with many containers needs its descriptors for more than this.
const MOST_KEPT: usize = 256;

/// Those of all groups of this process.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// What is longer is read the slow way.
const ROOM: usize = 16 << 10;

/// The open files of a group.
#[derive(Debug, Default)]
pub(super) struct Readings(Mutex<Files>);

#[derive(Debug, Default)]
struct Files {
    /// What was read when there was still a group; then nothing else is.
    texts: Option<Vec<(bool, String, String)>>,
    /// What is asked for is noted here.
    asked: Option<Vec<(bool, &'static str)>>,
    kept: Vec<Kept>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Kept {
    is_v2: bool,
    name: &'static str,
    /// `None`: there is no such file here.
    file: Option<Arc<OwnedFd>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.file.is_some() {
            KEPT.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Readings {
    /// What `meaning` makes of the file's text; `None` if there is no such file, or no group any more. Names are of one part
    /// of the group in each version.
    pub(super) fn of<T>(&self, part: &Part, name: &'static str, meaning: impl FnOnce(&str) -> T) -> Option<T> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(texts) = &files.texts {
            let text = texts.iter().find(|(is_v2, known, _)| *is_v2 == part.is_v2 && known == name);
            return text.map(|(.., text)| meaning(text));
        }
        let Files { kept, buffer, .. } = &mut *files;
        let known = kept.iter().position(|one| one.is_v2 == part.is_v2 && one.name == name);
        let at = match known {
            Some(at) => at,
            None => match keep(part, name) {
                Some(one) => {
                    kept.push(one);
                    kept.len() - 1
                }
                None => return files::read(part.dir.as_fd(), name).ok().map(|text| meaning(&text)),
            },
        };
        let file = kept[at].file.as_ref()?;
        buffer.resize(ROOM, 0);
        let length = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[..], 0)).ok()?;
        if length == ROOM {
            return files::read(part.dir.as_fd(), name).ok().map(|text| meaning(&text));
        }
        std::str::from_utf8(&buffer[..length]).ok().map(meaning)
    }

    /// A file as it stays open, for somebody else to read as well; not kept, it is open only for them.
    pub(super) fn shared(&self, part: &Part, name: &'static str) -> Option<Arc<OwnedFd>> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = files.kept.iter().find(|one| one.is_v2 == part.is_v2 && one.name == name) {
            return one.file.clone();
        }
        let Some(one) = keep(part, name) else {
            let file = openat(&part.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            return file.ok().map(Arc::new);
        };
        let file = one.file.clone();
        files.kept.push(one);
        file
    }

    /// The same for the last time: a file that is not open yet is not kept.
    pub(super) fn once<T>(&self, part: &Part, name: &'static str, meaning: impl FnOnce(&str) -> T) -> Option<T> {
        let is_kept = {
            let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(asked) = &mut files.asked {
                asked.push((part.is_v2, name));
            }
            files.texts.is_some() || files.kept.iter().any(|one| one.is_v2 == part.is_v2 && one.name == name)
        };
        match is_kept {
            true => self.of(part, name, meaning),
            false => files::read(part.dir.as_fd(), name).ok().map(|text| meaning(&text)),
        }
    }

    /// Readings that were taken before.
    pub(super) fn of_texts(texts: Vec<(bool, String, String)>) -> Readings {
        Readings(Mutex::new(Files { texts: Some(texts), ..Files::default() }))
    }

    /// What is asked for meanwhile.
    pub(super) fn asked_in(&self, body: impl FnOnce()) -> Vec<(bool, &'static str)> {
        let files = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files().asked = Some(Vec::new());
        body();
        files().asked.take().unwrap_or_default()
    }

    /// True while what is asked for is noted, for somebody who knows nothing else.
    pub(super) fn are_noted(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).asked.is_some()
    }

    /// Closes all.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Files::default();
    }
}

/// `None` where it is not to be kept.
fn keep(part: &Part, name: &'static str) -> Option<Kept> {
    let is_room =
        KEPT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < MOST_KEPT).then_some(count + 1));
    is_room.ok()?;
    match openat(&part.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => Some(Kept { is_v2: part.is_v2, name, file: Some(Arc::new(file)) }),
        Err(errno) => {
            KEPT.fetch_sub(1, Ordering::Relaxed);
            (errno == rustix::io::Errno::NOENT).then_some(Kept { is_v2: part.is_v2, name, file: None })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestGroup;
    use super::*;

    #[test]
    fn a_file_is_opened_once_and_a_removed_group_says_nothing() {
        let Some(group) = TestGroup::v2("readings") else { return };
        let part = Part { dir: group.open().into(), path: group.dir.clone(), is_v2: true, controllers: Vec::new() };
        let readings = Readings::default();
        let populated = || readings.of(&part, "cgroup.events", |text| files::value_of(text, "populated"));
        assert_eq!(populated(), Some(Some(0)));
        let mut child = group.start("exec sleep 60");
        assert_eq!(populated(), Some(Some(1)), "read anew");
        assert_eq!(readings.of(&part, "no.such.file", str::len), None);
        let count = |readings: &Readings| readings.0.lock().unwrap().kept.len();
        assert_eq!(count(&readings), 2);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(group);
        assert_eq!(populated(), None);
        readings.close();
        assert_eq!(count(&readings), 0);
    }
}
