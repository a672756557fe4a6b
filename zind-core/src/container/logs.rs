//! [`Logs`]: what a container has written, read at any time, and followed while it goes on.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::inotify;
use zind_init::monitor::{LOG_MARK, LOST, MOST_BYTES, NUMBER, STDERR, STDOUT};

use super::Container;
use super::state::{Dir, LOG, Phase, time_of};
use crate::error::{At, Error, Result, Step};
use crate::process::launch::{SLICE, wait_readable};

/// Which of the container's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stream {
    /// Standard output; of a container with a terminal, all of it.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// `"stdout"`, `"stderr"`.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// What of the log is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Go on until the container has ended.
    pub follow: bool,
    /// Only the last that many lines of what there is; `None`: all.
    pub tail: Option<u64>,
    /// Only what was written at this time or later.
    pub since: Option<SystemTime>,
    /// Only what was written before this time.
    pub until: Option<SystemTime>,
    /// With the standard output.
    pub stdout: bool,
    /// With the standard error.
    pub stderr: bool,
}

impl Default for LogQuery {
    fn default() -> LogQuery {
        LogQuery { follow: false, tail: None, since: None, until: None, stdout: true, stderr: true }
    }
}

/// Something the container has written, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRecord {
    /// When.
    pub time: SystemTime,
    /// Where to.
    pub stream: Stream,
    /// What.
    pub bytes: Vec<u8>,
    /// Bytes before it that the disk had no room for, or that were thrown away before they could be read.
    pub lost: u64,
}

/// A line the container has written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// When its last part came.
    pub time: SystemTime,
    /// Where to.
    pub stream: Stream,
    /// What, without the newline.
    pub text: Vec<u8>,
    /// It ends with a newline. The last one of a stream need not, nor one that was cut because it is longer than a mebibyte.
    pub is_whole: bool,
}

/// The log of a container, record by record: [`Container::logs`].
#[derive(Debug)]
pub struct Logs {
    container: Container,
    query: LogQuery,
    files: u32,
    /// What is read now, and its number.
    file: Option<(u64, BufReader<File>, u64)>,
    /// The next file to read.
    next: u64,
    /// Lines to leave out.
    skip: u64,
    lost: u64,
    watch: Option<OwnedFd>,
    has_ended: bool,
    /// Its end has been told.
    is_over: bool,
}

const HEAD: usize = 16;

/// The head of a record: time, length, stream.
fn head_of(bytes: &[u8; HEAD]) -> Option<(u64, usize, u8)> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, stream, mark @ ..] = *bytes;
    let length = usize::try_from(u32::from_ne_bytes([i, j, k, l])).ok()?;
    let is_good = mark == LOG_MARK && length <= MOST_BYTES && (1..=NUMBER).contains(&stream);
    is_good.then(|| (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), length, stream))
}

/// The number of a file of the log, and how much of it is whole records; `None`: it has no number.
pub(super) fn measure(file: &File) -> std::io::Result<Option<(u64, u64)>> {
    let Some(number) = number_of(file)? else { return Ok(None) };
    let length = file.metadata()?.len();
    let mut at = 0;
    let mut head = [0u8; HEAD];
    while at + HEAD as u64 <= length {
        file.read_exact_at(&mut head, at)?;
        let Some((_, len, _)) = head_of(&head) else { break };
        let next = at + (HEAD + len) as u64;
        if next > length {
            break;
        }
        at = next;
    }
    Ok(Some((number, at)))
}

fn number_of(file: &File) -> std::io::Result<Option<u64>> {
    let mut first = [0u8; HEAD + 8];
    match file.read_exact_at(&mut first, 0) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let Some((head, number)) = first.split_first_chunk::<HEAD>() else { return Ok(None) };
    let is_number = matches!(head_of(head), Some((_, 8, NUMBER)));
    // There is one after it.
    Ok(number.try_into().ok().map(u64::from_ne_bytes).filter(|number| is_number && *number < u64::MAX))
}

fn open(dir: &Dir, place: u32) -> Option<File> {
    let name = if place == 0 { LOG.to_owned() } else { format!("{LOG}.{place}") };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    File::options().read(true).custom_flags(flags).open(dir.at(&name)).ok()
}

/// The file with the lowest number from `wanted` on.
fn find(dir: &Dir, files: u32, wanted: u64) -> Option<(u64, File)> {
    let mut best: Option<(u64, File)> = None;
    for place in 0..files.max(1) {
        let Some(file) = open(dir, place) else { continue };
        let Ok(Some(number)) = number_of(&file) else { continue };
        if number >= wanted && best.as_ref().is_none_or(|(known, _)| number < *known) {
            best = Some((number, file));
        }
    }
    best
}

/// The highest number there is.
pub(super) fn newest(dir: &Dir, files: u32) -> u64 {
    (0..files.max(1)).filter_map(|place| number_of(&open(dir, place)?).ok().flatten()).max().unwrap_or(0)
}

impl Container {
    /// What it has written, as far as the log still has it.
    ///
    /// Errors: [`Error::State`] for a container that keeps no log; [`Error::Sys`] at [`Step::Log`].
    pub fn logs(&self, query: LogQuery) -> Result<Logs> {
        let why =
            "and writes straight to that one's output, which nobody copies; started with --name or -d it has a log";
        self.is_apart("read the log of", why)?;
        let record = self.record()?;
        if record.log.files == 0 {
            return Err(Error::State("the container keeps no log: it was made with log files: 0".to_owned()));
        }
        let mut logs = Logs {
            container: self.clone(),
            files: record.log.files,
            file: None,
            next: 0,
            skip: 0,
            lost: 0,
            watch: None,
            has_ended: false,
            is_over: false,
            query,
        };
        if let Some(tail) = logs.query.tail {
            let all = LogQuery { follow: false, tail: None, ..logs.query.clone() };
            let counted = Logs { container: self.clone(), watch: None, file: None, query: all, ..logs };
            logs = counted.with_tail(tail, logs.query)?;
        }
        Ok(logs)
    }
}

impl Logs {
    /// Counts what there is, and begins anew.
    fn with_tail(mut self, tail: u64, query: LogQuery) -> Result<Logs> {
        let (mut lines, mut open_lines) = (0u64, [false; 2]);
        while let Some(record) = self.read()? {
            let newlines = record.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            lines += newlines;
            if let Some(is_open) = open_lines.get_mut(record.stream as usize) {
                *is_open = record.bytes.last() != Some(&b'\n');
            }
        }
        let partial = open_lines.iter().filter(|is_open| **is_open).count() as u64;
        let skip = (lines + partial).saturating_sub(tail);
        Ok(Logs { file: None, next: 0, skip, lost: 0, has_ended: false, is_over: false, query, ..self })
    }

    /// Becomes readable when there may be more, while it is followed; before the first wait there is none.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(|fd| fd.as_fd())
    }

    /// The next record; `None` at the end, which comes with that of the container for one that is followed. `interrupted` is
    /// asked now and then while there is nothing, and ends the wait with [`Error::Interrupted`] when it says so.
    pub fn next_interruptible(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<Option<LogRecord>> {
        self.next_within(None, interrupted)
    }

    /// The same; `None`, too, when `timeout` is over first: [`Logs::is_over`] tells which it was.
    pub fn next_within(
        &mut self,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<LogRecord>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut is_late = false;
        loop {
            if let Some(record) = self.read()? {
                return Ok(Some(record));
            }
            if !self.query.follow || self.query.until.is_some_and(|until| until <= SystemTime::now()) {
                self.has_ended = true;
            }
            if self.has_ended || is_late {
                self.is_over = self.has_ended;
                return Ok(None);
            }
            if self.watch.is_none() {
                self.watch()?;
                continue;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // What is written last is written before it ends.
            match self.container.phase() {
                Ok((_, Phase::Running(_) | Phase::Starting | Phase::Created)) => self.wait(left, interrupted)?,
                Ok((_, Phase::Ended(_))) | Err(Error::NotFound { .. }) => self.has_ended = true,
                Err(error) => return Err(error),
            }
            is_late = left == Some(Duration::ZERO);
        }
    }

    /// True once the end was told.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// What there is now; `None` if there is nothing more at this moment.
    pub fn try_next(&mut self) -> Result<Option<LogRecord>> {
        self.read()
    }

    fn watch(&mut self) -> Result<()> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
        let fd = fd.at(Step::Watch, "inotify_init1", "")?;
        let what = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVE_SELF;
        let dir = &self.container.dir().0;
        inotify::add_watch(&fd, dir, what).at(Step::Watch, "inotify_add_watch", dir)?;
        self.watch = Some(fd);
        Ok(())
    }

    fn wait(&mut self, left: Option<Duration>, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let Some(watch) = &self.watch else { return Ok(()) };
        // A monitor that was killed says nothing.
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        if wait_readable(watch.as_fd(), Some(slice), interrupted)? {
            let mut bytes = [0u8; 4096];
            while rustix::io::read(watch, &mut bytes).is_ok_and(|len| len == bytes.len()) {}
        }
        Ok(())
    }

    /// The next record that is wanted, if there is one.
    fn read(&mut self) -> Result<Option<LogRecord>> {
        loop {
            let Some((time, stream, bytes)) = self.next_raw()? else { return Ok(None) };
            let when = time_of(time);
            match stream {
                LOST => {
                    let lost = bytes.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes);
                    self.lost = self.lost.saturating_add(lost);
                    continue;
                }
                STDOUT if self.query.stdout => {}
                STDERR if self.query.stderr => {}
                _ => continue,
            }
            if self.query.since.is_some_and(|since| when < since) {
                continue;
            }
            if self.query.until.is_some_and(|until| when >= until) {
                continue;
            }
            let bytes = self.after_skip(bytes);
            if bytes.is_empty() {
                continue;
            }
            let stream = if stream == STDERR { Stream::Stderr } else { Stream::Stdout };
            return Ok(Some(LogRecord { time: when, stream, bytes, lost: std::mem::take(&mut self.lost) }));
        }
    }

    /// Without the lines that are to be left out.
    fn after_skip(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        while self.skip > 0 {
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Vec::new() };
            bytes.drain(..=end);
            self.skip -= 1;
        }
        bytes
    }

    fn next_raw(&mut self) -> Result<Option<(u64, u8, Vec<u8>)>> {
        loop {
            if self.file.is_none() {
                let Some((number, file)) = find(self.container.dir(), self.files, self.next) else { return Ok(None) };
                if self.next > 0 && number > self.next {
                    // How much that was nobody knows.
                    self.lost = self.lost.saturating_add(1);
                }
                self.file = Some((number, BufReader::with_capacity(64 << 10, file), 0));
            }
            let Some((number, file, at)) = &mut self.file else { return Ok(None) };
            match one(file, at).at(Step::Log, "read", self.container.dir().at(LOG))? {
                Some((_, NUMBER, _)) => {}
                Some(record) => return Ok(Some(record)),
                None => {
                    // Another one is begun only when this one is finished.
                    let is_finished = find(self.container.dir(), self.files, *number + 1).is_some();
                    if !is_finished {
                        return Ok(None);
                    }
                    if let Some(record) = one(file, at).at(Step::Log, "read", self.container.dir().at(LOG))? {
                        return Ok(Some(record));
                    }
                    self.next = *number + 1;
                    self.file = None;
                }
            }
        }
    }

    /// Line by line instead.
    pub fn lines(self) -> LogLines {
        LogLines { logs: self, ready: VecDeque::new(), open: [None, None] }
    }
}

/// A record, if a whole one is there.
pub(super) fn one(file: &mut BufReader<File>, at: &mut u64) -> std::io::Result<Option<(u64, u8, Vec<u8>)>> {
    use std::io::{Seek, SeekFrom};
    let mut head = [0u8; HEAD];
    let whole = match read_whole(file, &mut head)? {
        true => head_of(&head),
        false => None,
    };
    if let Some((time, length, stream)) = whole {
        let mut bytes = vec![0; length];
        if read_whole(file, &mut bytes)? {
            *at += (HEAD + length) as u64;
            return Ok(Some((time, stream, bytes)));
        }
    }
    // It is still being written, or was cut off.
    file.seek(SeekFrom::Start(*at))?;
    Ok(None)
}

fn read_whole(file: &mut BufReader<File>, bytes: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    }
}

impl Iterator for Logs {
    type Item = Result<LogRecord>;

    fn next(&mut self) -> Option<Result<LogRecord>> {
        self.next_interruptible(&mut || false).transpose()
    }
}

/// A longer line is cut.
const LONGEST: usize = 1 << 20;

/// The log of a container, line by line: [`Logs::lines`].
#[derive(Debug)]
pub struct LogLines {
    logs: Logs,
    ready: VecDeque<LogLine>,
    /// What has no end yet, for each stream.
    open: [Option<LogLine>; 2],
}

impl LogLines {
    /// The next line; as [`Logs::next_interruptible`].
    pub fn next_interruptible(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<Option<LogLine>> {
        self.next_within(None, interrupted)
    }

    /// As [`Logs::next_within`].
    pub fn next_within(
        &mut self,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<LogLine>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if self.logs.is_over {
                return Ok(self.open.iter_mut().find_map(Option::take));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match self.logs.next_within(left, interrupted)? {
                Some(record) => self.take(record),
                None if self.logs.is_over => {}
                None => return Ok(None),
            }
        }
    }

    /// True once the last line was told.
    pub fn is_over(&self) -> bool {
        self.logs.is_over && self.ready.is_empty() && self.open.iter().all(Option::is_none)
    }

    /// As [`Logs::fd`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.logs.fd()
    }

    /// What of a line is there that has not ended: the prompt of a program that waits for an answer, say.
    pub fn take_open(&mut self) -> Option<LogLine> {
        self.open.iter_mut().find_map(Option::take)
    }

    fn take(&mut self, LogRecord { time, stream, bytes, .. }: LogRecord) {
        let Some(open) = self.open.get_mut(stream as usize) else { return };
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = open.get_or_insert_with(|| LogLine { time, stream, text: Vec::new(), is_whole: false });
            line.time = time;
            line.text.extend_from_slice(part);
            if line.text.last() == Some(&b'\n') {
                line.text.pop();
                line.is_whole = true;
            }
            if line.is_whole || line.text.len() >= LONGEST {
                self.ready.extend(open.take());
            }
        }
    }
}

impl Iterator for LogLines {
    type Item = Result<LogLine>;

    fn next(&mut self) -> Option<Result<LogLine>> {
        self.next_interruptible(&mut || false).transpose()
    }
}
