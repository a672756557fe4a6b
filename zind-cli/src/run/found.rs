//! A program in the foreground that nobody gave a name: others find it while it runs.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::thread::Scope;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use zind_core::{Error, Process};

use crate::Context;
use crate::containers::names;
use crate::signals::Signals;

/// What has ended within this time nobody would have found.
const SOON: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Ends the answering when it is dropped.
pub struct Found {
    _end: OwnedFd,
}

/// True if the program ends before it is worth while. It is not waited for when a signal comes.
pub fn ends_soon(process: &Process, signals: Option<&Signals>) -> bool {
    let end = process.end_fd();
    let mut both = vec![PollFd::new(&end, PollFlags::IN)];
    both.extend(signals.map(|signals| PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)));
    poll(&mut both, Some(&SOON)).is_ok_and(|_| !both[0].revents().is_empty())
}

/// Lets others find it until it has ended or the value is dropped. What goes wrong with that is nobody's concern who runs it.
pub fn let_others<'scope>(
    scope: &'scope Scope<'scope, '_>,
    process: &'scope Process,
    context: &'scope Context,
) -> Option<Found> {
    let (stop, end) = pipe_with(PipeFlags::CLOEXEC).ok()?;
    scope.spawn(move || serve(process, context, &stop));
    Some(Found { _end: end })
}

fn serve(process: &Process, context: &Context, stop: &OwnedFd) -> Option<()> {
    let containers = context.containers().ok()?;
    loop {
        match containers.attend(process, &names::propose()) {
            Err(Error::Exists { .. }) => {}
            Err(_) => return None,
            Ok(mut attended) => return attended.serve(stop.as_fd()).ok(),
        }
    }
}
