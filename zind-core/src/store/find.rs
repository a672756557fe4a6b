//! The image that a name of the caller's means.
#![forbid(unsafe_code)]

use super::Store;
use crate::error::{Error, Result};
use crate::image::{Image, Progress};
use crate::registry::{PullOptions, PullPolicy};

impl Store {
    /// The image of a name, an id or the beginning of one, as the command line of a start has it: what is in the store, else
    /// what the registry has, as far as the policy lets it.
    /// Errors: as of [`Store::pull`]; [`Error::NotFound`] if it may not be pulled and is not there.
    pub fn get(&self, name: &str, options: &PullOptions, progress: &mut dyn Progress) -> Result<Image> {
        if options.policy != PullPolicy::Always {
            let here = PullOptions { policy: PullPolicy::Never, ..options.clone() };
            match self.pull(name, &here, progress) {
                Err(Error::NotFound { .. } | Error::Spec { .. }) => {}
                other => return other,
            }
            match self.image(name) {
                Ok(image) if options.platform.as_ref().is_none_or(|wanted| wanted.fit(image.platform()).is_some()) => {
                    return Ok(image);
                }
                Ok(_) | Err(Error::NotFound { .. } | Error::Spec { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.pull(name, options, progress)
    }
}
