//! The template: a mount namespace with everything that is the same for all containers of root.
//!
//! Copying the host's mounts costs time in proportion to their number, and every container would do it. The template
//! holds a handful: a tmpfs as root with the skeleton of the default root, the host's system directories, a `/dev`, and
//! the empty things that cover masked paths. It is kept by a descriptor, so it is gone with the caller's process; it is
//! made again when what it was made from has changed.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::error::{At, Error, Result, Step};
use crate::process::launch;

/// This process starts only one.
static IS_LAST: AtomicBool = AtomicBool::new(false);

/// Tells that this process starts one container, and ends with it: a command of a shell. Then nothing is prepared of which only
/// further starts would have something. It makes no difference but in time.
pub fn starts_only_one() {
    IS_LAST.store(true, Ordering::Relaxed);
}

/// Whether a template would be of use.
pub(crate) fn is_worth_it() -> bool {
    !IS_LAST.load(Ordering::Relaxed)
}

/// What the template depends on, by device, inode and time of change.
type Key = Vec<(u64, u64, i64, i64)>;

struct Template {
    key: Key,
    namespace: Arc<OwnedFd>,
}

static TEMPLATE: Mutex<Option<Template>> = Mutex::new(None);

/// Where a change of the host's packages or mounts shows.
const WATCHED: [&str; 5] = ["/", "/usr", "/etc", "/etc/alternatives", "/etc/ssl/certs"];

fn key() -> Key {
    let stat = |path: &str| std::fs::metadata(path).ok();
    // The file of a namespace has no times of its own.
    let namespace = stat("/proc/thread-self/ns/mnt").map_or((0, 0, 0, 0), |meta| (meta.dev(), meta.ino(), 0, 0));
    let fields = |meta: std::fs::Metadata| (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec());
    let watched = WATCHED.iter().map(|path| stat(path).map_or((0, 0, 0, 0), fields));
    std::iter::once(namespace).chain(watched).collect()
}

/// The template's mount namespace; made if there is none that fits.
pub(crate) fn namespace() -> Result<Arc<OwnedFd>> {
    let key = key();
    let mut slot = TEMPLATE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(template) = slot.as_ref().filter(|template| template.key == key) {
        return Ok(Arc::clone(&template.namespace));
    }
    let namespace = Arc::new(make()?);
    *slot = Some(Template { key, namespace: Arc::clone(&namespace) });
    Ok(namespace)
}

fn make() -> Result<OwnedFd> {
    let ops = super::plan::template_operations();
    launch::make_mount_namespace(&ops, |pid| {
        let path = format!("/proc/{pid}/ns/mnt");
        File::open(&path).map(OwnedFd::from).at(Step::Template, "open", path)
    })
    .map_err(|error| match error {
        Error::Sys { step, syscall, object, errno, .. } => Error::Sys {
            step: Step::Template,
            syscall,
            object,
            errno,
            hint: format!("while zind was preparing what all containers share: {}", step.words()),
        },
        other => other,
    })
}
