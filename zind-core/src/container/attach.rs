//! [`Attachment`]: the streams of a container that runs, for somebody who was not there at its start.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use zind_init::monitor::{MOST_BYTES, STDERR, request};

use super::logs::Stream;
use super::monitor::Connection;
use super::{Container, Size, state};
use crate::error::{At, Error, Result, Step};
use crate::process::launch::wait_readable;

/// How to attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Give the container's terminal this size.
    pub size: Option<Size>,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk {
    /// Where it was written to.
    pub stream: Stream,
    /// What.
    pub bytes: Vec<u8>,
}

/// A connection to a container's streams. It gets all output from the attaching on, and loses none of it: the container waits
/// for who reads slowly, and goes on when that one is dropped. (Who only wants to read follows the log.)
#[derive(Debug)]
pub struct Attachment {
    connection: OwnedFd,
    input: Option<OwnedFd>,
    has_terminal: bool,
    container: Container,
}

impl Container {
    /// Attaches to its streams, beside whoever else is.
    ///
    /// Errors: [`Error::State`] if it does not run, or if as many are attached as there can be; [`Error::Sys`] at
    /// [`Step::AskMonitor`].
    pub fn attach(&self, options: &AttachOptions) -> Result<Attachment> {
        let why = "and has that one's own streams; a further program can be run in it (zind exec), and started with --name or -d it can be attached to";
        self.is_apart("attach to", why)?;
        let record = self.record()?;
        let attached = self.connect(record.terminal.is_some())?;
        if record.auto_remove {
            // Who sees it end may ask how, when it is gone.
            self.hold()?;
        }
        if let Some(size) = options.size {
            attached.resize(size)?;
        }
        Ok(attached)
    }

    pub(super) fn connect(&self, has_terminal: bool) -> Result<Attachment> {
        let none = || self.not_running("attach to");
        let Some(connection) = Connection::open(self.dir())? else { return Err(none()) };
        if !connection.send(request::ATTACH, 0)? {
            return Err(none());
        }
        let Some((_, _, input)) = connection.reply_soon()? else {
            let text = "as many are connected to the container as can be, or it has just ended";
            return Err(Error::State(text.to_owned()));
        };
        Ok(Attachment { connection: connection.into_fd(), input, has_terminal, container: self.clone() })
    }

    /// Gives its terminal another size; whoever runs in its foreground is told by SIGWINCH.
    ///
    /// Errors: [`Error::State`] without a terminal, or if it does not run.
    pub fn resize(&self, size: Size) -> Result<()> {
        self.attach(&AttachOptions::default())?.resize(size)
    }
}

impl Attachment {
    /// Where input is written to: the container's standard input, or its terminal. `None`: it has no input, or that was closed.
    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(|fd| fd.as_fd())
    }

    pub(super) fn set_input(&mut self, input: Option<OwnedFd>) {
        self.input = input;
    }

    /// Takes the input, for somebody else to write to.
    pub fn take_input(&mut self) -> Option<OwnedFd> {
        self.input.take()
    }

    /// True if it is a terminal.
    pub fn has_terminal(&self) -> bool {
        self.has_terminal
    }

    /// Ends the container's standard input, for everybody.
    pub fn close_input(&mut self) -> Result<()> {
        self.input = None;
        self.end_input()
    }

    /// The same for who has taken the input, or waits for output in another thread: an end of it that is open here, or was taken, stays
    /// open, and the program reads its end when that is closed, too.
    pub fn end_input(&self) -> Result<()> {
        super::monitor::ask(self.container.dir(), request::CLOSE_STDIN, 0).map(drop)
    }

    /// Gives the terminal another size.
    ///
    /// Errors: [`Error::State`] without one.
    pub fn resize(&self, size: Size) -> Result<()> {
        let Some(terminal) = self.input.as_ref().filter(|_| self.has_terminal) else {
            return Err(Error::State(format!("container {} has no terminal", state::short(self.container.id()))));
        };
        let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size).at(Step::AskMonitor, "ioctl", "")
    }

    /// Becomes readable when there is output, or at the end.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// The next piece of output; `None` when the container has ended and all was read. `interrupted` is asked now and then,
    /// and ends the wait with [`Error::Interrupted`] when it says so.
    pub fn next_interruptible(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<Option<Chunk>> {
        while !self.wait_interruptible(None, interrupted)? {}
        self.try_next()
    }

    /// Waits until there is output, or the end; false when `timeout` is over first.
    pub fn wait_interruptible(&self, timeout: Option<Duration>, interrupted: &mut dyn FnMut() -> bool) -> Result<bool> {
        wait_readable(self.fd(), timeout, interrupted)
    }

    /// The same for when [`Attachment::fd`] is readable.
    pub fn try_next(&self) -> Result<Option<Chunk>> {
        let mut bytes = vec![0; 1 + MOST_BYTES];
        let received = rustix::io::retry_on_intr(|| recv(&self.connection, bytes.as_mut_slice(), RecvFlags::empty()));
        let length = match received {
            Ok((length, _)) => length,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(errno) => return Err(errno).at(Step::AskMonitor, "recv", ""),
        };
        bytes.truncate(length);
        if bytes.is_empty() {
            return Ok(None);
        }
        let stream = if bytes.remove(0) == STDERR { Stream::Stderr } else { Stream::Stdout };
        Ok(Some(Chunk { stream, bytes }))
    }
}

impl Iterator for Attachment {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Result<Chunk>> {
        self.next_interruptible(&mut || false).transpose()
    }
}
