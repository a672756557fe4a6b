//! [`Relay`]: the copying loop between the caller's terminal and a payload's.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::termios::isatty;

use super::{DetachKeys, Signals, Size, resize};
use crate::error::{At, Result, Step};

/// Why a [`Relay`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// What ran in the terminal has ended, or has let go of it; all of its output was passed on.
    Ended,
    /// The detach keys were typed.
    Detached,
    /// The caller's own terminal is gone, or nobody reads the output any more.
    Gone,
    /// One of the caller's signals came. [`Relay::run`] may be called again and goes on.
    Signal(i32),
    /// The caller's function said so.
    Interrupted,
}

/// Where output comes from, if it is not the terminal itself: an attached container's connection.
pub trait Source {
    /// Readable when there is something to read.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Appends what there is without waiting. False at the end.
    fn read(&mut self, into: &mut Vec<u8>) -> Result<bool>;
}

/// Keys to the payload, its output to the caller, and the size of the caller's window to the payload's.
///
/// The caller's terminal should be raw ([`Raw`](super::Raw)). The caller's descriptors are left blocking, since others share
/// them; that of the payload's terminal is not, while this runs.
pub struct Relay<'a> {
    input: Option<BorrowedFd<'a>>,
    output: BorrowedFd<'a>,
    terminal: BorrowedFd<'a>,
    source: Option<&'a mut dyn Source>,
    ended: Option<BorrowedFd<'a>>,
    signals: Option<&'a Signals>,
    keys: DetachKeys,
    size: Option<Size>,
    /// Typed, and not taken by the payload so far.
    typed: Vec<u8>,
    /// Written by the payload, and not taken by the caller so far.
    written: Vec<u8>,
    keys_came: bool,
    source_ended: bool,
}

/// Each `read(2)` takes up to this much; what a pipe that is writable takes without waiting.
const PIECE: usize = 4096;
/// How often the size of the window is looked at where no signal tells of it.
const GLANCE: Duration = Duration::from_millis(200);
/// What a terminal takes for the end of its input: `VEOF`.
const END_OF_INPUT: u8 = 4;

impl<'a> Relay<'a> {
    /// Between the caller's `input` (none: nothing is typed) and `output`, and the payload's `terminal` (its master).
    pub fn new(input: Option<BorrowedFd<'a>>, output: BorrowedFd<'a>, terminal: BorrowedFd<'a>) -> Relay<'a> {
        Relay {
            input,
            output,
            terminal,
            source: None,
            ended: None,
            signals: None,
            keys: DetachKeys::none(),
            size: None,
            typed: Vec::new(),
            written: Vec::new(),
            keys_came: false,
            source_ended: false,
        }
    }

    /// Output comes from here, and not from the terminal, which may be written to by others only.
    pub fn source(mut self, source: &'a mut dyn Source) -> Relay<'a> {
        self.source = Some(source);
        self
    }

    /// Readable when the payload has ended: then what it wrote is passed on, however long others keep the terminal.
    pub fn ended(mut self, fd: BorrowedFd<'a>) -> Relay<'a> {
        self.ended = Some(fd);
        self
    }

    /// SIGWINCH among them tells that the window was resized; any other comes back as [`Left::Signal`].
    pub fn signals(mut self, signals: &'a Signals) -> Relay<'a> {
        self.signals = Some(signals);
        self
    }

    /// The keys that leave.
    pub fn detach_keys(mut self, keys: DetachKeys) -> Relay<'a> {
        self.keys = keys;
        self
    }

    /// Copies until there is a reason to leave. `interrupted` is asked several times a second.
    ///
    /// Errors: [`Error::Sys`](crate::Error::Sys) at [`Step::Stdio`].
    pub fn run(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<Left> {
        let flags = fcntl_getfl(self.terminal).at(Step::Stdio, "fcntl", "terminal")?;
        fcntl_setfl(self.terminal, flags | OFlags::NONBLOCK).at(Step::Stdio, "fcntl", "terminal")?;
        let result = self.copy(interrupted);
        let _ = fcntl_setfl(self.terminal, flags);
        result
    }

    fn copy(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<Left> {
        self.follow_size();
        loop {
            let ready = self.sleep()?;
            if interrupted() {
                return Ok(Left::Interrupted);
            }
            if (ready.signals || self.signals.is_none())
                && let Some(left) = self.look_at_signals()
            {
                return Ok(left);
            }
            if ready.output && !self.pass_output()? {
                return Ok(Left::Gone);
            }
            if ready.terminal {
                self.pass_typed()?;
            }
            if self.keys_came && self.typed.is_empty() {
                self.keys_came = false;
                return Ok(Left::Detached);
            }
            if ready.source {
                self.read_source()?;
            }
            if ready.input && !self.read_input()? {
                return Ok(Left::Gone);
            }
            if self.written.is_empty() && (self.source_ended || ready.ended && !ready.source) {
                return Ok(Left::Ended);
            }
        }
    }

    fn sleep(&self) -> Result<Ready> {
        let source = self.source.as_ref().map_or(self.terminal, |source| source.fd());
        let reads = self.written.len() < PIECE && !self.source_ended;
        let types = !self.typed.is_empty();
        // A hang-up is told of whatever is in the list, again and again: what cannot be done anything with is left out. The
        // caller's own end stays, since that it is gone is a reason to leave.
        let writes = if self.written.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut fds = Vec::with_capacity(6);
        let source = add(&mut fds, reads.then_some(source), PollFlags::IN);
        let terminal = add(&mut fds, types.then_some(self.terminal), PollFlags::OUT);
        let output = add(&mut fds, Some(self.output), writes);
        // A payload that does not read must not fill our memory.
        let input = add(&mut fds, self.input.filter(|_| !types && !self.keys_came), PollFlags::IN);
        let ended = add(&mut fds, self.ended.filter(|_| reads), PollFlags::IN);
        let signals = add(&mut fds, self.signals.map(Signals::fd), PollFlags::IN);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(GLANCE.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).at(Step::Stdio, "poll", ""),
        }
        let is_ready =
            |index: Option<usize>| index.and_then(|index| fds.get(index)).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            source: is_ready(source),
            terminal: is_ready(terminal),
            output: is_ready(output),
            input: is_ready(input),
            // Only what was looked at in the same moment is known to have nothing more.
            ended: is_ready(ended),
            signals: is_ready(signals),
        })
    }

    fn look_at_signals(&mut self) -> Option<Left> {
        let Some(signals) = self.signals else {
            self.follow_size();
            return None;
        };
        while let Some(signal) = signals.next() {
            if signal != libc::SIGWINCH {
                return Some(Left::Signal(signal));
            }
            self.follow_size();
        }
        None
    }

    /// The payload's window is as large as the caller's.
    fn follow_size(&mut self) {
        let size = Size::of(self.output).or_else(|| Size::of(self.input?));
        if let Some(size) = size.filter(|_| size != self.size) {
            self.size = Some(size);
            // One that is gone shows in what follows.
            let _ = resize(self.terminal, size);
        }
    }

    /// False: nobody takes it any more.
    fn pass_output(&mut self) -> Result<bool> {
        let piece = self.written.get(..self.written.len().min(PIECE)).unwrap_or_default();
        if piece.is_empty() {
            // Not asked for: an error or a hang-up.
            return Ok(false);
        }
        match rustix::io::write(self.output, piece) {
            Ok(count) => drop(self.written.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::PIPE | Errno::IO) => return Ok(false),
            Err(errno) => return Err(errno).at(Step::Stdio, "write", "output"),
        }
        Ok(true)
    }

    fn pass_typed(&mut self) -> Result<()> {
        match rustix::io::write(self.terminal, &self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Its end shows where it is read.
            Err(Errno::IO | Errno::PIPE) => self.typed.clear(),
            Err(errno) => return Err(errno).at(Step::Stdio, "write", "terminal"),
        }
        Ok(())
    }

    fn read_source(&mut self) -> Result<()> {
        if let Some(source) = &mut self.source {
            self.source_ended = !source.read(&mut self.written)?;
            return Ok(());
        }
        let mut piece = [0; PIECE];
        match rustix::io::read(self.terminal, &mut piece) {
            Ok(0) | Err(Errno::IO) => self.source_ended = true,
            Ok(count) => self.written.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno).at(Step::Stdio, "read", "terminal"),
        }
        Ok(())
    }

    /// False: the caller's terminal is gone.
    fn read_input(&mut self) -> Result<bool> {
        let Some(input) = self.input else { return Ok(true) };
        let mut piece = [0; PIECE];
        match rustix::io::read(input, &mut piece) {
            Ok(0) | Err(Errno::IO) if isatty(input) => return Ok(false),
            // A terminal that vanished is none any more.
            Err(Errno::IO) => return Ok(false),
            Ok(0) => {
                self.input = None;
                self.typed.push(END_OF_INPUT);
            }
            Ok(count) => {
                let typed = self.keys.feed(piece.get(..count).unwrap_or_default());
                self.typed.extend(typed.bytes);
                self.keys_came = typed.detach;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno).at(Step::Stdio, "read", "input"),
        }
        Ok(true)
    }
}

/// Waits for a descriptor, too, if there is one. Its place in the list.
fn add<'fd>(fds: &mut Vec<PollFd<'fd>>, fd: Option<BorrowedFd<'fd>>, what: PollFlags) -> Option<usize> {
    fds.push(PollFd::from_borrowed_fd(fd?, what));
    Some(fds.len() - 1)
}

/// What a sleep has found.
struct Ready {
    source: bool,
    terminal: bool,
    output: bool,
    input: bool,
    ended: bool,
    signals: bool,
}

impl AsFd for Relay<'_> {
    /// The payload's terminal.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.terminal
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::terminal::{Pty, Raw};

    /// A caller's terminal and a payload's, with `keys` typed at the first.
    fn session(keys: &[u8], payload: impl FnOnce(std::fs::File) + Send) -> (Left, String) {
        let (caller, inner) = (Pty::open(Size::new(30, 90)).unwrap(), Pty::open(Size::default()).unwrap());
        let raw = Raw::enter(&caller.terminal).unwrap();
        let mut screen = std::fs::File::from(caller.master);
        screen.write_all(keys).unwrap();
        let terminal = std::fs::File::from(inner.terminal);
        let mut seen = Vec::new();
        let left = std::thread::scope(|scope| {
            scope.spawn(move || payload(terminal));
            // Until both descriptors of the caller's end are gone.
            scope.spawn(|| screen.read_to_end(&mut seen));
            let (raw, console) = (raw, caller.terminal);
            let mut relay = Relay::new(Some(console.as_fd()), console.as_fd(), inner.master.as_fd());
            relay = relay.detach_keys(DetachKeys::default());
            let left = relay.run(&mut || false).unwrap();
            drop(raw);
            left
        });
        (left, String::from_utf8_lossy(&seen).into_owned())
    }

    #[test]
    fn keys_go_in_and_output_comes_out_to_the_end() {
        let (left, seen) = session(b"abc\r", |mut terminal| {
            let mut line = [0; 64];
            let count = terminal.read(&mut line).unwrap();
            assert_eq!(&line[..count], b"abc\n");
            assert_eq!(Size::of(&terminal), Some(Size::new(30, 90)));
            terminal.write_all(&b"x".repeat(100_000)).unwrap();
            terminal.write_all(b"END").unwrap();
        });
        assert_eq!(left, Left::Ended);
        assert!(seen.ends_with("xxxEND") && seen.matches('x').count() == 100_000, "{}", seen.len());
    }

    #[test]
    fn detach_keys_leave_what_runs_alone() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let (left, _) = session(b"ab\x10\x11", move |terminal| {
            let _ = receiver.recv_timeout(Duration::from_secs(1));
            drop(terminal);
        });
        drop(sender);
        assert_eq!(left, Left::Detached);
    }

    #[test]
    fn a_terminal_that_vanishes_is_told() {
        let (caller, inner) = (Pty::open(Size::default()).unwrap(), Pty::open(Size::default()).unwrap());
        drop(caller.master);
        let console = caller.terminal.as_fd();
        let left = Relay::new(Some(console), console, inner.master.as_fd()).run(&mut || false).unwrap();
        assert_eq!(left, Left::Gone);
    }

    #[test]
    fn the_end_of_a_pipe_is_the_end_of_input() {
        let inner = Pty::open(Size::default()).unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (sink, out) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&write, b"line\n").unwrap();
        drop(write);
        let terminal = std::fs::File::from(inner.terminal);
        let left = std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut all = String::new();
                (&terminal).read_to_string(&mut all).unwrap();
                (&terminal).write_all(format!("<{}>", all.trim()).as_bytes()).unwrap();
            });
            Relay::new(Some(read.as_fd()), out.as_fd(), inner.master.as_fd()).run(&mut || false).unwrap()
        });
        drop(out);
        let mut seen = String::new();
        std::fs::File::from(sink).read_to_string(&mut seen).unwrap();
        assert_eq!(left, Left::Ended);
        assert!(seen.ends_with("<line>"), "{seen:?}");
    }

    #[test]
    fn what_was_written_before_the_end_is_passed_on() {
        let (inner, (sink, out)) = (Pty::open(Size::default()).unwrap(), rustix::pipe::pipe().unwrap());
        // Raw, since what is written should be as long as what is read.
        let _raw = Raw::enter(&inner.terminal).unwrap();
        let (has_ended, _) = rustix::pipe::pipe().unwrap();
        let text = b"x".repeat(2 * PIECE);
        // Somebody still has the terminal, and the program has ended.
        assert_eq!(rustix::io::write(&inner.terminal, &text).unwrap(), text.len());
        let left = Relay::new(None, out.as_fd(), inner.master.as_fd()).ended(has_ended.as_fd()).run(&mut || false);
        assert_eq!(left.unwrap(), Left::Ended);
        drop(out);
        let mut seen = Vec::new();
        std::fs::File::from(sink).read_to_end(&mut seen).unwrap();
        assert_eq!(seen.len(), text.len());
    }

    /// How often a relay looks about within the shortest time that so many looks may take.
    fn rests(relay: &mut Relay<'_>) -> bool {
        let (began, mut looks) = (std::time::Instant::now(), 0);
        let left = relay.run(&mut || {
            looks += 1;
            looks > 12
        });
        // Nothing happens, so each of the looks but a few is a glance.
        left.unwrap() == Left::Interrupted && began.elapsed() > 4 * GLANCE
    }

    #[test]
    fn a_hang_up_that_nothing_follows_from_keeps_nobody_busy() {
        // Nobody reads the output, which waits, and who wrote it is gone.
        let (inner, (_sink, out)) = (Pty::open(Size::default()).unwrap(), rustix::pipe::pipe().unwrap());
        let _raw = Raw::enter(&inner.terminal).unwrap();
        rustix::pipe::fcntl_setpipe_size(&out, PIECE).unwrap();
        assert_eq!(rustix::io::write(&out, &b"x".repeat(PIECE)).unwrap(), PIECE);
        assert_eq!(rustix::io::write(&inner.terminal, &b"x".repeat(2 * PIECE)).unwrap(), 2 * PIECE);
        drop((_raw, inner.terminal));
        assert!(rests(&mut Relay::new(None, out.as_fd(), inner.master.as_fd())));

        /// One that goes on, and says nothing.
        struct Silent(std::os::fd::OwnedFd);
        impl Source for Silent {
            fn fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
            fn read(&mut self, _: &mut Vec<u8>) -> Result<bool> {
                Ok(true)
            }
        }
        // An attached container that has let go of its terminal.
        let inner = Pty::open(Size::default()).unwrap();
        let ((silent, _keeps), (_sink, out)) = (rustix::pipe::pipe().unwrap(), rustix::pipe::pipe().unwrap());
        drop(inner.terminal);
        let mut source = Silent(silent);
        assert!(rests(&mut Relay::new(None, out.as_fd(), inner.master.as_fd()).source(&mut source)));
    }

    #[test]
    fn a_signal_comes_back_and_the_loop_goes_on() {
        let (caller, inner) = (Pty::open(Size::default()).unwrap(), Pty::open(Size::new(1, 1)).unwrap());
        let signals = Signals::take(&[libc::SIGWINCH, libc::SIGUSR1]).unwrap();
        let console = caller.terminal.as_fd();
        let mut relay = Relay::new(Some(console), console, inner.master.as_fd()).signals(&signals);
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGUSR1).unwrap();
        assert_eq!(relay.run(&mut || false).unwrap(), Left::Signal(libc::SIGUSR1));
        resize(&caller.terminal, Size::new(11, 22)).unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGWINCH).unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGUSR1).unwrap();
        assert_eq!(relay.run(&mut || false).unwrap(), Left::Signal(libc::SIGUSR1));
        assert_eq!(Size::of(&inner.terminal), Some(Size::new(11, 22)));
    }
}
