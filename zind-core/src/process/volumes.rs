//! The named volumes of a start: found or made, held, and filled if they are fresh.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::launch;
use crate::copy::Root;
use crate::error::{Error, Result, Step};
use crate::mount::What;
use crate::rootfs::stand_in::{self, StandIn};
use crate::rootfs::{Overlay, Rootfs};
use crate::spec::Spec;
use crate::volume::Volumes;

/// Finds the volumes that `spec` mounts. Their holds are for the container's first process: they end with it. `kept`: what an
/// earlier start has left in place of the root's overlay.
pub(crate) fn take(
    spec: &mut Spec,
    kept: Option<&StandIn>,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<Vec<OwnedFd>> {
    let mut holds = Vec::new();
    if spec.is_low_level() {
        return Ok(holds);
    }
    for index in 0..spec.mounts.len() {
        let mount = &spec.mounts[index];
        let What::Volume(wanted) = &mount.what else { continue };
        let (volume, hold) = Volumes::open(wanted.place.clone())?.take(&wanted.name, interrupted)?;
        let copy_up = wanted.copy_up;
        volume.fill(interrupted, |interrupted| {
            if !copy_up {
                return Ok(None);
            }
            look(spec, kept, interrupted, |root, interrupted| volume.copy_up(root, mount.target(), interrupted))
        })?;
        if let What::Volume(wanted) = &mut spec.mounts[index].what {
            wanted.data = Some(volume.path());
        }
        holds.push(hold.into_fd());
    }
    Ok(holds)
}

/// Lets `look_into` look into the root as it is before the start.
fn look<T>(
    spec: &Spec,
    kept: Option<&StandIn>,
    interrupted: &mut dyn FnMut() -> bool,
    mut look_into: impl FnMut(&Root, &mut dyn FnMut() -> bool) -> Result<T>,
) -> Result<T> {
    let plain =
        |rootfs: Rootfs| Spec { rootfs, overlay: Overlay::None, read_only: true, sealed: false, ..spec.clone() };
    match kept {
        Some(StandIn::Fuse(_)) => Err(Error::unsupported(
            "a fresh volume in a root by fuse-overlayfs(1) that holds changes",
            "a volume that is there already, or begins empty (copy_up off)",
        )),
        Some(StandIn::Directory(copy)) => {
            launch::look_at_root(&plain(Rootfs::Path(copy.clone())), interrupted, look_into)
        }
        _ => match launch::look_at_root(spec, interrupted, &mut look_into) {
            // Without an overlay nothing was changed so far.
            Err(Error::Sys { step: Step::Mount, errno, .. }) if is_refused(spec, errno) => {
                launch::look_at_root(&plain(spec.rootfs.clone()), interrupted, look_into)
            }
            result => result,
        },
    }
}

fn is_refused(spec: &Spec, errno: Errno) -> bool {
    stand_in::is_allowed(spec) && stand_in::is_refusal(errno)
}
