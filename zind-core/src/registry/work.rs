//! The threads of one pull or push: they end before the call returns, and the caller's own thread hears of the progress.
#![forbid(unsafe_code)]

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};

use super::net::Link;
use crate::error::{At, Result, Step};
use crate::image::{Digest, Progress, ProgressEvent, ProgressKind};
use crate::sys::asking::asking;

/// How often the caller is asked whether it goes on.
const PAUSE: Duration = Duration::from_millis(50);

/// An [`ProgressEvent`] on its way to the caller's thread.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    kind: ProgressKind,
    layer: Option<(usize, usize)>,
    digest: Option<Digest>,
    done: u64,
    total: Option<u64>,
}

/// Hears of work on another thread than the caller's, and passes it on to there.
pub(crate) struct Relay<'a> {
    pub(crate) notes: &'a Sender<Note>,
    pub(crate) link: &'a Link,
}

impl Progress for Relay<'_> {
    fn step(&mut self, event: &ProgressEvent<'_>) {
        let ProgressEvent { kind, layer, digest, done, total } = *event;
        // Nobody listens any more when the work is being given up.
        let _ = self.notes.send(Note { kind, layer, digest: digest.copied(), done, total });
    }

    fn interrupted(&mut self) -> bool {
        self.link.stopped()
    }
}

/// Tells of one blob: its beginning, its end, and not too often in between.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    notes: Sender<Note>,
    note: Note,
    total: u64,
    told: u64,
    when: Instant,
}

impl Meter {
    pub(crate) fn new(
        notes: &Sender<Note>,
        kind: ProgressKind,
        layer: Option<(usize, usize)>,
        digest: Digest,
        total: u64,
    ) -> Meter {
        let note = Note { kind, layer, digest: Some(digest), done: 0, total: Some(total) };
        Meter { notes: notes.clone(), note, total, told: 0, when: Instant::now() }
    }

    /// So many bytes are done: told at the beginning, the end, and after a hundredth or a while.
    pub(crate) fn at(&mut self, done: u64) {
        let much = done.abs_diff(self.told) >= (self.total / 100).max(256 << 10);
        let late = self.when.elapsed() > Duration::from_millis(500) && done != self.told;
        if done == 0 || done == self.total || much || late {
            self.note.done = done;
            self.told = done;
            self.when = Instant::now();
            let _ = self.notes.send(self.note.clone());
        }
    }
}

/// Ends all waiting when the caller's thread leaves, however it does.
struct StopAtEnd<'a>(&'a Link);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Does `work` on a thread of its own, tells `progress` on this one, and ends the waiting of all connections of `link` as soon
/// as it says so. Returns when the thread has ended.
pub(crate) fn drive<T: Send>(
    link: &Link,
    progress: &mut dyn Progress,
    work: impl FnOnce(Sender<Note>) -> Result<T> + Send,
) -> Result<T> {
    let (sender, notes) = mpsc::channel::<Note>();
    thread::scope(|scope| {
        let worker = start(scope, move || asking(&|| link.stopped(), || work(sender)))?;
        let end = StopAtEnd(link);
        let mut asked = Instant::now();
        loop {
            match notes.recv_timeout(PAUSE) {
                Ok(Note { kind, layer, digest, done, total }) => {
                    let event = ProgressEvent::new(kind).bytes(done, total);
                    progress.step(&ProgressEvent { layer, digest: digest.as_ref(), ..event });
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if asked.elapsed() >= PAUSE {
                asked = Instant::now();
                if progress.interrupted() {
                    link.stop();
                }
            }
        }
        drop(end);
        join(worker)
    })
}

/// Starts a thread that ends before `scope` does. The signals of this process are not for it.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).at(Step::Call, "pthread_sigmask", "")?;
    let worker = thread::Builder::new().name("zind-registry".into()).spawn_scoped(scope, work);
    before.thread_set_mask().at(Step::Call, "pthread_sigmask", "")?;
    worker.at(Step::Call, "clone", "a thread")
}

/// The result of a thread; a panic goes on in this one.
pub(crate) fn join<T>(worker: ScopedJoinHandle<'_, T>) -> T {
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    struct Ear {
        heard: Vec<u64>,
        stop: bool,
    }

    impl Progress for Ear {
        fn step(&mut self, event: &ProgressEvent<'_>) {
            self.heard.push(event.done);
        }

        fn interrupted(&mut self) -> bool {
            self.stop
        }
    }

    #[test]
    fn progress_is_told_on_the_callers_thread() {
        let link = Link::new(Duration::from_secs(1));
        let mut ear = Ear { heard: Vec::new(), stop: false };
        let digest = Digest::of(b"");
        let result = drive(&link, &mut ear, |notes| {
            let mut meter = Meter::new(&notes, ProgressKind::Download, Some((0, 1)), digest, 1000 << 20);
            (0..=1000).for_each(|done| meter.at(done << 20));
            Ok(7)
        });
        assert_eq!(result.unwrap(), 7);
        assert_eq!((ear.heard.first(), ear.heard.last()), (Some(&0), Some(&(1000 << 20))));
        assert!(ear.heard.len() < 200, "{}", ear.heard.len());
    }

    #[test]
    fn an_interruption_ends_the_waiting() {
        let link = Link::new(Duration::from_secs(600));
        let mut ear = Ear { heard: Vec::new(), stop: true };
        let result = drive(&link, &mut ear, |_notes| {
            let slept = link.sleep(Duration::from_secs(600));
            if slept { Ok(()) } else { Err(Error::Interrupted) }
        });
        assert!(matches!(result, Err(Error::Interrupted)));
    }
}
