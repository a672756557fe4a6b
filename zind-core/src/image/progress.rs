//! [`Progress`]: what long work tells, and how it is stopped.
#![forbid(unsafe_code)]

use std::cell::RefCell;

use super::digest::Digest;
use crate::sys::asking::asking;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgressKind {
    /// A blob comes from a registry.
    Download,
    /// A blob goes to a registry.
    Upload,
    /// A layer is unpacked.
    Unpack,
    /// A blob comes from an archive or a directory.
    Load,
    /// A blob goes to an archive or a directory.
    Save,
    /// Digests are checked.
    Check,
    /// Files become a layer, or a tar.
    Pack,
    /// A step of a build begins; its number is the layer's.
    Build,
    /// What nothing refers to is removed; the bytes done are those given back.
    Collect,
}

impl ProgressKind {
    /// `"download"`, `"upload"`, `"unpack"`, `"load"`, `"save"`, `"check"`, `"pack"`, `"build"` or `"collect"`.
    pub fn name(self) -> &'static str {
        match self {
            ProgressKind::Download => "download",
            ProgressKind::Upload => "upload",
            ProgressKind::Unpack => "unpack",
            ProgressKind::Load => "load",
            ProgressKind::Save => "save",
            ProgressKind::Check => "check",
            ProgressKind::Pack => "pack",
            ProgressKind::Build => "build",
            ProgressKind::Collect => "collect",
        }
    }
}

/// How far one piece of work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgressEvent<'a> {
    /// What is being done.
    pub kind: ProgressKind,
    /// Which layer, counted from 0, of how many. `None` for what is no layer.
    pub layer: Option<(usize, usize)>,
    /// The blob, where its name is known before it was read.
    pub digest: Option<&'a Digest>,
    /// Bytes done, as they are stored or sent (compressed).
    pub done: u64,
    /// Bytes in all; `None` if that is not known.
    pub total: Option<u64>,
}

impl<'a> ProgressEvent<'a> {
    /// An event about something of unknown size that begins.
    pub fn new(kind: ProgressKind) -> ProgressEvent<'a> {
        ProgressEvent { kind, layer: None, digest: None, done: 0, total: None }
    }

    /// Sets [`ProgressEvent::layer`].
    #[must_use]
    pub fn layer(self, index: usize, of: usize) -> ProgressEvent<'a> {
        ProgressEvent { layer: Some((index, of)), ..self }
    }

    /// Sets [`ProgressEvent::digest`].
    #[must_use]
    pub fn digest(self, digest: &'a Digest) -> ProgressEvent<'a> {
        ProgressEvent { digest: Some(digest), ..self }
    }

    /// Sets [`ProgressEvent::done`] and [`ProgressEvent::total`].
    #[must_use]
    pub fn bytes(self, done: u64, total: Option<u64>) -> ProgressEvent<'a> {
        ProgressEvent { done, total, ..self }
    }
}

/// Hears of long work, on the caller's thread, and may stop it. `()` hears nothing and never stops.
pub trait Progress {
    /// Something went on: at the beginning and end of each piece, and at most a few hundred times in between.
    fn step(&mut self, event: &ProgressEvent<'_>) {
        let _ = event;
    }

    /// Asked several times a second: true stops the work with [`crate::Error::Interrupted`], and nothing is left half done.
    fn interrupted(&mut self) -> bool {
        false
    }
}

impl Progress for () {}

/// A progress that is also asked while something waits that was not given it.
struct Shared<'a, 'b>(&'a RefCell<&'b mut dyn Progress>);

impl Progress for Shared<'_, '_> {
    fn step(&mut self, event: &ProgressEvent<'_>) {
        if let Ok(mut progress) = self.0.try_borrow_mut() {
            progress.step(event);
        }
    }

    fn interrupted(&mut self) -> bool {
        // Somebody who is just being asked, and calls us from there, is not asked once more.
        self.0.try_borrow_mut().is_ok_and(|mut progress| progress.interrupted())
    }
}

/// Does work that takes no [`Progress`], like [`Store::tag`](crate::Store::tag), so that its waits for the locks of a store can be
/// stopped: in `work`, on this thread, `progress` is asked several times a second whether to stop with
/// [`Error::Interrupted`](crate::Error::Interrupted). Others hold those locks for moments. Calls that take a progress do
/// this by themselves.
pub fn interruptible<T>(progress: &mut dyn Progress, work: impl FnOnce() -> T) -> T {
    asked(progress, |_| work())
}

/// Does work whose waits for the locks of a store ask `progress` whether to stop.
pub(crate) fn asked<T>(progress: &mut dyn Progress, work: impl FnOnce(&mut dyn Progress) -> T) -> T {
    let shared = RefCell::new(progress);
    asking(&|| Shared(&shared).interrupted(), || work(&mut Shared(&shared)))
}
