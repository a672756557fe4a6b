//! Whether anybody on this machine had to wait for memory, or for disks, since a moment. If not, no container had to, and the
//! file of its own has nothing to say: two readings of open files in place of two files of a group that are made known to the
//! kernel, opened, read, and forgotten again.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};

use super::stats::Pressure;
use crate::sys::descriptors::openat;

/// What the whole machine has waited for one thing.
pub(super) struct Machine {
    path: &'static str,
    last: Mutex<Option<Last>>,
}

/// The last reading.
struct Last {
    file: OwnedFd,
    total: Duration,
    /// When it was read first, and nobody has waited since.
    since: Instant,
}

pub(super) static MEMORY: Machine = Machine { path: "/proc/pressure/memory", last: Mutex::new(None) };
pub(super) static DISKS: Machine = Machine { path: "/proc/pressure/io", last: Mutex::new(None) };

impl Machine {
    /// True if it is certain; the first time nothing is.
    pub(super) fn was_calm_since(&self, begin: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = last.as_mut() else {
            *last = self.first();
            return false;
        };
        match total_of(&known.file) {
            Some(total) if total == known.total => known.since <= begin,
            Some(total) => {
                // The moment after: what was waited for until then is in it.
                (known.total, known.since) = (total, Instant::now());
                false
            }
            None => {
                // Somebody has closed all descriptors, and the number is another file's now, which is not ours to close.
                std::mem::forget(last.take());
                false
            }
        }
    }

    fn first(&self) -> Option<Last> {
        let file = openat(CWD, self.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let total = total_of(&file)?;
        Some(Last { file, total, since: Instant::now() })
    }
}

/// For how long somebody had to wait; when all had to, somebody had.
fn total_of(file: &OwnedFd) -> Option<Duration> {
    let mut text = [0; 256];
    let length = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut text, 0)).ok()?;
    Pressure::parse(std::str::from_utf8(text.get(..length)?).ok()?).map(|pressure| pressure.some.total)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn machine(path: &'static str) -> Machine {
        Machine { path, last: Mutex::new(None) }
    }

    #[test]
    fn a_total_that_stays_says_that_nobody_has_waited() {
        let path = std::env::temp_dir().join(format!("zind-test-calm-{}", std::process::id()));
        let write = |total: u32| {
            let line = |kind| format!("{kind} avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n");
            std::fs::write(&path, line("some") + &line("full")).unwrap();
        };
        write(7);
        let machine = machine(Box::leak(path.to_str().unwrap().to_owned().into_boxed_str()));
        let before = Instant::now();
        assert!(!machine.was_calm_since(before), "nothing was known then");
        let later = Instant::now();
        assert!(machine.was_calm_since(later));
        assert!(!machine.was_calm_since(before));
        write(8);
        assert!(!machine.was_calm_since(later));
        assert!(!machine.was_calm_since(later), "it rose since");
        assert!(machine.was_calm_since(Instant::now()));
        std::fs::write(&path, "rubbish").unwrap();
        assert!(!machine.was_calm_since(Instant::now()));
        assert!(machine.last.lock().unwrap().is_none(), "not believed any more");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn where_the_kernel_keeps_no_account_nothing_is_certain() {
        let machine = machine("/proc/pressure/no-such");
        assert!(!machine.was_calm_since(Instant::now()) && !machine.was_calm_since(Instant::now()));
    }

    #[test]
    fn the_files_stay_open_and_go_to_nobody() {
        let _ = MEMORY.was_calm_since(Instant::now());
        let last = MEMORY.last.lock().unwrap();
        let Some(known) = &*last else {
            assert!(std::fs::read(MEMORY.path).is_err(), "there is an account, which was not kept");
            println!("skipped: this kernel keeps no account of pressure");
            return;
        };
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", known.file.as_raw_fd())).unwrap();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
        assert_eq!(i32::from_str_radix(&flags, 8).unwrap() & nix::libc::O_CLOEXEC, nix::libc::O_CLOEXEC);
    }
}
