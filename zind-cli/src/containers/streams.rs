//! A container whose streams are the caller's: `zind attach`, and `zind run` of one that lives on.
//!
//! Two threads beside the one that writes: one passes stdin on, one signals. They end with the process.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use clap::{ArgMatches, Command};
use rustix::event::{PollFd, PollFlags, poll};
use zind_core::container::{AttachOptions, Attachment, LogQuery, Logs, Stream};
use zind_core::terminal::{DetachKeys, Left, Raw, Relay, Signals as TerminalSignals, Size, Source};
use zind_core::{Container, Exit, Result as CoreResult};

use super::find;
use crate::Context;
use crate::arguments::{Given, switch, value, words};
use crate::failure::{Failure, Result};
use crate::run::foreground::{self, OF_OUTSIDE, SIGCONT};
use crate::signals::Signals;

/// What the keys are without `--detach-keys`: Docker's.
const KEYS: &str = "ctrl-p,ctrl-q";

/// How the caller's streams are connected.
#[derive(Clone, Debug)]
pub struct How {
    /// Stdin is passed on.
    pub interactive: bool,
    /// Signals are passed on.
    pub signals: bool,
    /// The keys that leave it running.
    pub keys: Option<String>,
}

impl Default for How {
    fn default() -> How {
        How { interactive: false, signals: true, keys: None }
    }
}

impl How {
    fn keys(&self) -> Result<DetachKeys> {
        Ok(DetachKeys::parse(self.keys.as_deref().unwrap_or(KEYS))?)
    }
}

pub fn attach_arguments(command: Command) -> Command {
    command
        .arg(switch("no-stdin", "Only look"))
        .arg(switch("sig-proxy", "Pass signals on; on without it"))
        .arg(value("detach-keys", "KEYS", "What leaves it running; ctrl-p,ctrl-q without it"))
        .arg(words("name", "CONTAINER", 1).help("Name, id or the beginning of one"))
}

pub fn attach(given: &ArgMatches, context: &Context) -> Result {
    let container = find(context, given.text("name").unwrap_or_default())?;
    let how = How {
        interactive: !given.is_on("no-stdin"),
        signals: given.switched("sig-proxy").unwrap_or(true),
        keys: given.text("detach-keys").map(str::to_owned),
    };
    how.keys()?;
    let size = Size::of(std::io::stdout());
    let attachment = container.attach(&options(size))?;
    let output = Output::Attached(attachment);
    stay(&container, output, None, &how)
}

fn options(size: Option<Size>) -> AttachOptions {
    AttachOptions { size: size.map(|size| zind_core::container::Size { rows: size.rows, cols: size.cols }) }
}

/// Starts it, and stays with it from its first byte on.
pub fn run(container: &Container, how: &How) -> Result {
    how.keys()?;
    container.start()?;
    let logs = container.logs(LogQuery { follow: true, ..LogQuery::default() })?;
    let size = Size::of(std::io::stdout());
    // What ended at once has only its log.
    let input = container.attach(&options(size)).ok().and_then(|mut attachment| attachment.take_input());
    let watch = logs.fd().map(|fd| fd.try_clone_to_owned()).transpose();
    match watch.map_err(|error| Failure::new(format!("watch the log: {error}")))? {
        Some(watch) => stay(container, Output::Logged(Box::new(logs), watch, container.clone()), input, how),
        None => Err(Failure::new("the log of the container cannot be followed")),
    }
}

/// Where output comes from.
enum Output {
    /// From the attaching on.
    Attached(Attachment),
    /// From the first byte on.
    Logged(Box<Logs>, OwnedFd, Container),
}

/// Until it has ended, or the caller leaves.
fn stay(container: &Container, mut output: Output, input: Option<OwnedFd>, how: &How) -> Result {
    let mut input = input;
    if let Output::Attached(attachment) = &mut output {
        input = attachment.take_input();
    }
    if container.has_terminal()? {
        return in_terminal(container, output, input, how);
    }
    if how.signals {
        pass_signals(container.clone())?;
    }
    if let Some(input) = input.filter(|_| how.interactive) {
        pass_input(container.clone(), input);
    }
    let write = |stream: Stream, bytes: &[u8]| -> Result<()> {
        match stream {
            Stream::Stderr => std::io::stderr().lock().write_all(bytes)?,
            _ => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()?;
            }
        }
        Ok(())
    };
    match output {
        Output::Attached(attachment) => {
            for chunk in attachment {
                let chunk = chunk?;
                write(chunk.stream, &chunk.bytes)?;
            }
        }
        Output::Logged(logs, ..) => {
            for record in *logs {
                let record = record?;
                if record.lost > 0 {
                    eprintln!("zind: {} bytes of output were lost", record.lost);
                }
                write(record.stream, &record.bytes)?;
            }
        }
    }
    foreground::told(ended(container)?)
}

fn ended(container: &Container) -> Result<Exit> {
    Ok(container.wait(None)?.ok_or(zind_core::Error::Interrupted)?)
}

/// On a thread, because stdin may be a file, which is always ready.
fn pass_input(container: Container, input: OwnedFd) {
    std::thread::spawn(move || {
        let mut input = File::from(input);
        let mut bytes = [0; 65536];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    if input.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            }
        }
        drop(input);
        // Nobody else has it open, unless somebody attaches; then it goes on for them.
        if let Ok(mut attachment) = container.attach(&AttachOptions::default()) {
            let _ = attachment.close_input();
        }
    });
}

fn pass_signals(container: Container) -> Result<()> {
    let signals = Signals::hold(Signals::PASSED_ON)?;
    std::thread::spawn(move || {
        loop {
            let mut one = [PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
            let _ = poll(&mut one, None);
            while let Some(signal) = signals.next() {
                let _ = container.kill(signal.number);
            }
        }
    });
    Ok(())
}

/// A terminal in a terminal.
fn in_terminal(container: &Container, mut output: Output, input: Option<OwnedFd>, how: &How) -> Result {
    let signals = TerminalSignals::take(&OF_OUTSIDE)?;
    let stdin = std::io::stdin();
    let stdout = std::io::stdout();
    let raw = if how.interactive && stdin.is_terminal() { Raw::enter(&stdin)? } else { None };
    let left = match &input {
        Some(terminal) => {
            let typed = how.interactive.then(|| stdin.as_fd());
            let mut relay = Relay::new(typed, stdout.as_fd(), terminal.as_fd())
                .source(&mut output)
                .signals(&signals)
                .detach_keys(how.keys()?);
            loop {
                match relay.run(&mut || false)? {
                    Left::Signal(SIGCONT) => drop(raw.as_ref().map(Raw::resume).transpose()?),
                    Left::Signal(signal) if how.signals => drop(container.kill(signal)),
                    Left::Signal(_) => {}
                    left => break left,
                }
            }
        }
        None => {
            drain(&mut output)?;
            Left::Ended
        }
    };
    drop(raw);
    match left {
        Left::Detached => {
            container.detach()?;
            let name = container.name()?.unwrap_or_else(|| container.short_id().to_owned());
            eprintln!("\r\nzind: {name} goes on; `zind attach {name}` comes back to it");
            Ok(0)
        }
        Left::Ended => foreground::told(ended(container)?),
        _ => Err(Failure::silent(128 + 1)),
    }
}

/// What one that has ended already has written.
fn drain(output: &mut Output) -> Result<()> {
    let mut bytes = Vec::new();
    while output.read(&mut bytes)? {
        let mut one = [PollFd::from_borrowed_fd(output.fd(), PollFlags::IN)];
        let _ = poll(&mut one, None);
    }
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}

impl Source for Output {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Output::Attached(attachment) => attachment.fd(),
            Output::Logged(_, watch, _) => watch.as_fd(),
        }
    }

    fn read(&mut self, into: &mut Vec<u8>) -> CoreResult<bool> {
        match self {
            Output::Attached(attachment) => match attachment.try_next()? {
                Some(chunk) => into.extend(chunk.bytes),
                None => return Ok(false),
            },
            Output::Logged(logs, watch, container) => {
                let mut bytes = [0u8; 4096];
                while rustix::io::read(&*watch, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
                // First, since what is written after it would be missed.
                let has_ended = container.exit()?.is_some();
                while let Some(record) = logs.try_next()? {
                    into.extend(record.bytes);
                }
                return Ok(!has_ended);
            }
        }
        Ok(true)
    }
}
