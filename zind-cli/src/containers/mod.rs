//! Containers that live on: the verbs around them.

pub mod changes;
pub mod copy;
pub mod events;
pub mod exec;
pub mod life;
pub mod list;
pub mod logs;
pub mod look;
pub mod names;
pub mod streams;

use zind_core::Container;

use crate::Context;
use crate::failure::{Failure, Result};

/// The container of that name or id.
pub fn find(context: &Context, name: &str) -> Result<Container> {
    Ok(context.containers()?.find(name)?)
}

/// Does it to each of them, and writes their names, as they were given; one that fails does not keep the others from it.
pub fn each(names: &[&str], mut act: impl FnMut(&str) -> Result<()>) -> Result {
    each_done(names, |name| act(name).map(|()| true))
}

/// The same; the name of one for which there was nothing to do (`false`) is not written.
pub fn each_done(names: &[&str], mut act: impl FnMut(&str) -> Result<bool>) -> Result {
    let mut failed: Option<Failure> = None;
    for name in names {
        match act(name) {
            Ok(true) => crate::table::print(&format!("{name}\n"))?,
            Ok(false) => {}
            Err(failure) => {
                if let Some(before) = failed.replace(failure) {
                    eprintln!("zind: {before}");
                }
            }
        }
    }
    failed.map_or(Ok(0), Err)
}
