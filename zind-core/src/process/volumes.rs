//! The named volumes of a start: found or made, held, and filled if they are fresh.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use super::launch;
use crate::error::Result;
use crate::mount::What;
use crate::spec::Spec;
use crate::volume::Volumes;

/// Finds the volumes that `spec` mounts. Their holds are for the container's first process: they end with it.
pub(crate) fn take(spec: &mut Spec, interrupted: &mut dyn FnMut() -> bool) -> Result<Vec<OwnedFd>> {
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
            launch::look_at_root(spec, interrupted, |root, interrupted| {
                volume.copy_up(root, mount.target(), interrupted)
            })
        })?;
        if let What::Volume(wanted) = &mut spec.mounts[index].what {
            wanted.data = Some(volume.path());
        }
        holds.push(hold.into_fd());
    }
    Ok(holds)
}
