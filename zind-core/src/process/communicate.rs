//! Feeding and reading a payload's streams at the same time, without threads and without a second copy.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::handle::{Exit, Process};
use super::launch::SLICE;
use crate::cgroup::Stats;
use crate::error::{At, Error, Result, Step};
use crate::isolation::Isolation;

/// Output that was read, in pieces: a gigabyte is held once, and can be copied elsewhere piece by piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    pieces: VecDeque<Vec<u8>>,
    len: usize,
}

/// The first pieces are small, for the many programs that say little.
const FIRST_PIECE: usize = 4 << 10;
/// From this much on a program says a lot.
const MUCH: usize = 1 << 20;
/// Large enough for malloc(3) to map each one by itself, whatever it has learnt, and to give it back at once; what is not
/// written to takes no memory.
const LARGE_PIECE: usize = 36 << 20;

impl Captured {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next piece away.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let piece = self.pieces.pop_front()?;
        self.len -= piece.len();
        Some(piece)
    }

    /// All of it in one piece; each part is freed as soon as it is copied.
    pub fn into_vec(mut self) -> Vec<u8> {
        if self.pieces.len() == 1 {
            return self.pop().unwrap_or_default();
        }
        let mut all = Vec::with_capacity(self.len);
        while let Some(piece) = self.pop() {
            all.extend_from_slice(&piece);
        }
        all
    }

    /// A copy of all of it.
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces.iter().flatten().copied().collect()
    }

    /// Reads once into the free end of the last piece. `Ok(0)` at the end of the stream.
    fn read_from(&mut self, fd: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        if self.pieces.back().is_none_or(|piece| piece.len() == piece.capacity()) {
            let size = if self.len < MUCH { self.len.next_power_of_two().max(FIRST_PIECE) } else { LARGE_PIECE };
            self.pieces.push_back(Vec::with_capacity(size));
        }
        let Some(piece) = self.pieces.back_mut() else { return Ok(0) };
        let free = rustix::buffer::spare_capacity(piece);
        let read = rustix::io::read(fd, free)?;
        self.len += read;
        Ok(read)
    }
}

/// A container that has ended, and what it wrote.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote to standard output, where that was piped.
    pub stdout: Captured,
    /// What it wrote to standard error, where that was piped.
    pub stderr: Captured,
    /// What it used.
    pub stats: Stats,
    /// What was in force.
    pub isolation: Isolation,
}

/// The caller's ends of a payload's streams while they are served: what was read is kept over a pause.
#[derive(Debug, Default)]
pub struct Exchange {
    input: Vec<u8>,
    written: usize,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    out: Captured,
    err: Captured,
}

impl Exchange {
    /// Takes the piped streams of `process`, and feeds `input` to its stdin.
    pub fn new(process: &Process, input: Vec<u8>) -> Result<Exchange> {
        if let Some(terminal) = process.take_terminal() {
            return Exchange::of_terminal(terminal, input);
        }
        Exchange::of([process.take_stdin(), process.take_stdout(), process.take_stderr()], input)
    }

    /// The same with a terminal: `input` is typed, and the key for the end of input after it; what is captured has both
    /// what the payload wrote and the echo of what was typed.
    pub fn of_terminal(terminal: OwnedFd, mut input: Vec<u8>) -> Result<Exchange> {
        const END_OF_INPUT: u8 = 4;
        // In the middle of a line the first one only sends what there is of it.
        let is_in_line = input.last().is_some_and(|&last| last != b'\n');
        input.extend(std::iter::repeat_n(END_OF_INPUT, if is_in_line { 2 } else { 1 }));
        let keys = terminal.try_clone().at(Step::Stdio, "dup", "terminal")?;
        Exchange::of([Some(keys), Some(terminal), None], input)
    }

    /// The same with stdin, stdout and stderr given. They become non-blocking.
    pub fn of([stdin, stdout, stderr]: [Option<OwnedFd>; 3], input: Vec<u8>) -> Result<Exchange> {
        for fd in [&stdin, &stdout, &stderr].into_iter().flatten() {
            let flags = fcntl_getfl(fd).at(Step::Stdio, "fcntl", "")?;
            fcntl_setfl(fd, flags | OFlags::NONBLOCK).at(Step::Stdio, "fcntl", "")?;
        }
        Ok(Exchange { input, stdin, stdout, stderr, ..Exchange::default() })
    }

    /// What was read so far.
    pub fn captured(&self) -> (&Captured, &Captured) {
        (&self.out, &self.err)
    }

    /// What was read, at the end.
    pub fn into_captured(self) -> (Captured, Captured) {
        (self.out, self.err)
    }

    /// Serves the streams until the container has ended, or until `until`. True: it has ended, and everything is read.
    ///
    /// The time limit of the request kills the container when it is over; what it wrote until then is kept.
    pub fn serve(
        &mut self,
        process: &Process,
        until: Option<Instant>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        let left = |instant: Option<Instant>| instant.map(|instant| instant.saturating_duration_since(Instant::now()));
        loop {
            self.step()?;
            if left(process.deadline()) == Some(Duration::ZERO) {
                process.expire()?;
            }
            let pause =
                [left(until), left(process.deadline()), Some(SLICE)].into_iter().flatten().min().unwrap_or(SLICE);
            let pause = if pause.is_zero() && left(until) != Some(Duration::ZERO) { SLICE } else { pause };
            if self.sleep(process.end_fd(), pause)? {
                break;
            }
            if interrupted() {
                return Err(Error::Interrupted);
            }
            if left(until) == Some(Duration::ZERO) {
                return Ok(false);
            }
        }
        // Everybody who could write is gone, or holds a descriptor that is none of ours: take what is in the pipes.
        while self.step()? {}
        process.wait_interruptible(None, interrupted)?;
        Ok(true)
    }

    /// Serves each stream for a while. True: one of them may have more at once.
    fn step(&mut self) -> Result<bool> {
        if self.stdin.is_some() {
            self.write()?;
        }
        Ok(read(&mut self.stdout, &mut self.out)? | read(&mut self.stderr, &mut self.err)?)
    }

    fn write(&mut self) -> Result<()> {
        while let Some(stdin) = &self.stdin {
            let rest = self.input.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.stdin = None;
                self.input = Vec::new();
                break;
            }
            match rustix::io::write(stdin, rest) {
                Ok(written) => self.written += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The payload does not want to know: no error, as in subprocess.
                Err(Errno::PIPE | Errno::IO) => self.stdin = None,
                Err(errno) => return Err(errno).at(Step::Stdio, "write", "stdin"),
            }
        }
        Ok(())
    }

    /// Sleeps until a stream or the container's end has something to say. True: the container has ended.
    fn sleep(&self, end: BorrowedFd<'_>, timeout: Duration) -> Result<bool> {
        let mut fds = vec![PollFd::new(&end, PollFlags::IN)];
        if let Some(stdin) = &self.stdin {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        for fd in [&self.stdout, &self.stderr].into_iter().flatten() {
            fds.push(PollFd::new(fd, PollFlags::IN));
        }
        let timespec = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        match poll(&mut fds, Some(&timespec)) {
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno).at(Step::Stdio, "poll", ""),
        }
    }
}

/// A writer that never pauses must not keep us from the clock and the other streams.
const MOST_READS: usize = 64;

/// Reads what there is, up to a bound; the stream is closed at its end. True: there may be more.
fn read(stream: &mut Option<OwnedFd>, into: &mut Captured) -> Result<bool> {
    for _ in 0..MOST_READS {
        let Some(fd) = stream else { return Ok(false) };
        match into.read_from(fd.as_fd()) {
            // EIO: nobody has the terminal open any more.
            Ok(0) | Err(Errno::IO) => *stream = None,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(errno) => return Err(errno).at(Step::Stdio, "read", "stdout"),
        }
    }
    Ok(true)
}

/// Serves the streams to the end.
pub(crate) fn communicate(process: &Process, input: Vec<u8>, interrupted: &mut dyn FnMut() -> bool) -> Result<Output> {
    let mut exchange = Exchange::new(process, input)?;
    exchange.serve(process, None, interrupted)?;
    let exit = process.try_wait()?.ok_or(Error::Interrupted)?;
    let (stdout, stderr) = exchange.into_captured();
    let stats = process.stats().unwrap_or_default();
    Ok(Output { exit, stdout, stderr, stats, isolation: process.isolation().clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_output_keeps_its_order_over_pieces() {
        let (read_end, write_end) = rustix::pipe::pipe().unwrap();
        let bytes: Vec<u8> = (0..60_000u32).map(|i| (i % 251) as u8).collect();
        rustix::io::write(&write_end, &bytes).unwrap();
        drop(write_end);
        let mut stream = Some(read_end);
        let mut captured = Captured::default();
        while read(&mut stream, &mut captured).unwrap() {}
        assert!(stream.is_none());
        assert_eq!(captured.len(), bytes.len());
        assert_eq!(captured.to_vec(), bytes);
        assert_eq!(captured.into_vec(), bytes);
    }
}
