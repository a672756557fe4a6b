//! A container whose streams are the caller's: `zind attach`, and `zind run` of one that lives on.
//!
//! Two threads beside the one that writes: one passes stdin on, one signals. They end with the process.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use clap::{ArgMatches, Command};
use rustix::event::{PollFd, PollFlags, poll};
use zind_core::container::{AttachOptions, Attachment, Stream};
use zind_core::terminal::{DetachKeys, Left, Raw, Relay, Signals as TerminalSignals, Size, Source};
use zind_core::{Container, Exit, Result as CoreResult};

use super::find;
use crate::Context;
use crate::arguments::{Given, switch, value, words};
use crate::failure::{Failure, Result};
use crate::run::foreground::{self, OF_OUTSIDE, SIGCONT, SIGHUP};
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
    /// It goes on without the caller's terminal: that this hangs up is no signal for it.
    pub outlives_terminal: bool,
}

impl Default for How {
    fn default() -> How {
        How { interactive: false, signals: true, keys: None, outlives_terminal: false }
    }
}

impl How {
    /// Errors: what is none of its keys.
    pub fn keys(&self) -> Result<DetachKeys> {
        Ok(DetachKeys::parse(self.keys.as_deref().unwrap_or(KEYS))?)
    }
}

pub fn attach_arguments(command: Command) -> Command {
    command
        .arg(switch("no-stdin", "Only look, and type nothing"))
        .arg(switch("sig-proxy", "Pass signals on: so it is unless --sig-proxy=false"))
        .arg(value("detach-keys", "KEYS", "Keys that leave it, and it goes on; ctrl-p,ctrl-q without it"))
        .arg(words("name", "CONTAINER", 1).help("Name, id or the beginning of one"))
}

pub fn attach(given: &ArgMatches, context: &Context) -> Result {
    let container = find(context, given.text("name").unwrap_or_default())?;
    let how = How {
        interactive: !given.is_on("no-stdin"),
        signals: given.switched("sig-proxy").unwrap_or(true),
        keys: given.text("detach-keys").map(str::to_owned),
        outlives_terminal: true,
    };
    how.keys()?;
    let attachment = container.attach(&AttachOptions::default())?;
    let is_typed_into = how.interactive && attachment.has_terminal() && attachment.input().is_some();
    if is_typed_into && !std::io::stdin().is_terminal() {
        // Its end would be typed, too, and end a shell.
        return Err(Failure::new("attach: stdin is no terminal, and the container has one")
            .hint("`zind attach --no-stdin` only looks; `zind exec -i` gives input to a program of its own"));
    }
    let has_window = attachment.has_terminal() && attachment.input().is_some();
    if let (true, Some(size)) = (has_window, Size::of(std::io::stdout())) {
        // A program that fills the screen draws it anew when its window changes, be it there and back.
        attachment.resize(Size::new(size.rows.saturating_sub(1).max(1), size.cols))?;
        attachment.resize(size)?;
    }
    stay(&container, attachment, &how)
}

/// Starts it, and stays with it from its first byte on.
pub fn run(container: &Container, how: &How) -> Result {
    how.keys()?;
    let attachment = container.start_attached(&mut || false)?;
    if let (true, Some(size)) = (attachment.has_terminal(), Size::of(std::io::stdout())) {
        attachment.resize(size)?;
    }
    stay(container, attachment, how)
}

/// An attached container as the relay reads it.
struct Output(Attachment);

/// Until it has ended, or the caller leaves.
fn stay(container: &Container, mut attachment: Attachment, how: &How) -> Result {
    let input = attachment.take_input();
    if attachment.has_terminal() {
        return in_terminal(container, Output(attachment), input, how);
    }
    if how.signals {
        pass_signals(container.clone(), how.outlives_terminal)?;
    }
    if let Some(input) = input.filter(|_| how.interactive) {
        pass_input(container.clone(), input);
    }
    for chunk in attachment {
        let chunk = chunk?;
        match chunk.stream {
            Stream::Stderr => std::io::stderr().lock().write_all(&chunk.bytes)?,
            _ => {
                let mut out = std::io::stdout().lock();
                out.write_all(&chunk.bytes)?;
                out.flush()?;
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
        let is_typed = stdin.is_terminal();
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
        if is_typed && !stdin.is_terminal() {
            // The terminal is gone; that nothing more comes was said by nobody.
            return;
        }
        // Nobody else has it open, unless somebody attaches; then it goes on for them.
        if let Ok(mut attachment) = container.attach(&AttachOptions::default()) {
            let _ = attachment.close_input();
        }
    });
}

fn pass_signals(container: Container, outlives_terminal: bool) -> Result<()> {
    let signals = Signals::hold(Signals::PASSED_ON)?;
    std::thread::spawn(move || {
        loop {
            let mut one = [PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
            let _ = poll(&mut one, None);
            while let Some(signal) = signals.next() {
                if signal.number == SIGHUP && outlives_terminal {
                    std::process::exit(128 + SIGHUP);
                }
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
                    Left::Signal(SIGCONT) => foreground::go_on(raw.as_ref()),
                    Left::Signal(SIGHUP) if how.outlives_terminal => break Left::Gone,
                    Left::Signal(signal) if how.signals => drop(container.kill(signal)),
                    Left::Signal(_) => {}
                    left => break left,
                }
            }
        }
        // It has ended already; what it wrote is there.
        None => {
            for chunk in output.0 {
                std::io::stdout().write_all(&chunk?.bytes)?;
            }
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
        // As a shell whose terminal is gone.
        _ => Err(Failure::silent(128 + SIGHUP as u8)),
    }
}

impl Source for Output {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    fn read(&mut self, into: &mut Vec<u8>) -> CoreResult<bool> {
        let chunk = self.0.try_next()?;
        Ok(chunk.map(|chunk| into.extend(chunk.bytes)).is_some())
    }
}
