//! Running the hooks of a container: programs of the host's, with the container's state on their standard input.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::error::{Error, Result, Step};
use crate::process::helper;
use crate::spec::Hook;
use nix::errno::Errno;

/// Without a limit of its own a hook may take as long as it likes, which is this.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs programs one after the other, up to the first that fails.
///
/// Errors: [`Error::State`] with what it said; [`Error::Sys`] at [`Step::Hook`].
pub(super) fn run(when: &str, hooks: &[Hook], state: &str, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
    for hook in hooks {
        let answer = helper::ask_hook(hook, state, hook.timeout.unwrap_or(FOREVER), interrupted)?;
        if !answer.exit.success() {
            let how = match answer.exit.code {
                Some(code) => format!("exited with {code}"),
                None => format!("was ended by signal {}", answer.exit.signal.unwrap_or_default()),
            };
            let said = answer.text.trim();
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            return Err(Error::sys(Step::Hook, "", &hook.path, Errno::ECANCELED)
                .with_hint(format!("the {when} hook {how}{said}")));
        }
    }
    Ok(())
}
