//! [`Logs`]: what a container has written, read at any time, and followed while it goes on.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
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
    /// Bytes of either stream before it that are missing: the disk had no room for them, or they were thrown away after
    /// [`Container::logs`] was called and before they could be read. If that was the last of all, a record without bytes tells it.
    /// What was thrown away earlier is not told.
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
    /// It ends with a newline. The last one of a stream need not, nor one that was cut because it is longer than a mebibyte, or
    /// because what follows is lost.
    pub is_whole: bool,
    /// As [`LogRecord::lost`]: bytes that are missing before this line, which may begin in the middle of one then. If they are the
    /// last of all, a line without text tells it.
    pub lost: u64,
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
    /// How many bytes of output came before what is read next.
    bytes: u64,
    /// Lines to leave out.
    skip: u64,
    /// What is missing before the next record, and when that was written down.
    lost: u64,
    lost_at: SystemTime,
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

/// A file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) number: u64,
    /// As far as it is whole records.
    pub(super) length: u64,
    /// Bytes of output before its end, over all files, with those that are told as lost.
    pub(super) bytes: u64,
}

/// What a file of the log has; `None`: it has no number.
pub(super) fn measure(file: &File) -> std::io::Result<Option<Measured>> {
    let Some((number, mut bytes)) = number_of(file)? else { return Ok(None) };
    let length = file.metadata()?.len();
    let mut at = 0;
    let mut head = [0u8; HEAD];
    while at + HEAD as u64 <= length {
        file.read_exact_at(&mut head, at)?;
        let Some((_, len, stream)) = head_of(&head) else { break };
        let next = at + (HEAD + len) as u64;
        if next > length {
            break;
        }
        let mut lost = [0u8; 16];
        if stream == LOST && len == lost.len() {
            file.read_exact_at(&mut lost, at + HEAD as u64)?;
        }
        bytes = bytes.saturating_add(counted(stream, len, &lost));
        at = next;
    }
    Ok(Some(Measured { number, length: at, bytes }))
}

/// How many bytes of output a record stands for.
fn counted(stream: u8, length: usize, bytes: &[u8]) -> u64 {
    match stream {
        STDOUT | STDERR => length as u64,
        LOST => word(bytes, 1),
        _ => 0,
    }
}

fn word(bytes: &[u8], index: usize) -> u64 {
    bytes.chunks_exact(8).nth(index).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

/// The number of a file, and how many bytes of output came before it, as far as that is known.
fn number_of(file: &File) -> std::io::Result<Option<(u64, u64)>> {
    let mut first = [0u8; HEAD + 16];
    let mut length = 0;
    while let Some(rest) = first.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let Some((head, number)) = first.get(..length).and_then(|first| first.split_first_chunk::<HEAD>()) else {
        return Ok(None);
    };
    let Some((_, len @ (8 | 16), NUMBER)) = head_of(head) else { return Ok(None) };
    let Some(number) = number.get(..len) else { return Ok(None) };
    // There is one after it.
    Ok(Some((word(number, 0), word(number, 1))).filter(|(number, _)| *number < u64::MAX))
}

fn open(dir: &Dir, place: u32) -> Option<File> {
    let name = if place == 0 { LOG.to_owned() } else { format!("{LOG}.{place}") };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    File::options().read(true).custom_flags(flags).open(dir.at(&name)).ok()
}

/// The file with the lowest number from `wanted` on, and how many bytes of output came before it.
fn find(dir: &Dir, files: u32, wanted: u64) -> Option<(u64, u64, File)> {
    let mut best: Option<(u64, u64, File)> = None;
    for place in 0..files.max(1) {
        let Some(file) = open(dir, place) else { continue };
        let Ok(Some((number, bytes))) = number_of(&file) else { continue };
        if number >= wanted && best.as_ref().is_none_or(|(known, ..)| number < *known) {
            best = Some((number, bytes, file));
        }
    }
    best
}

/// The highest number there is, and how many bytes of output came before the end of that file.
pub(super) fn newest(dir: &Dir, files: u32) -> (u64, u64) {
    let measured = (0..files.max(1)).filter_map(|place| measure(&open(dir, place)?).ok().flatten());
    measured.map(|file| (file.number, file.bytes)).max().unwrap_or_default()
}

/// How many bytes of output were in files that are gone.
pub(super) fn rotated(dir: &Dir, files: u32) -> u64 {
    find(dir, files, 0).map_or(0, |(_, bytes, _)| bytes)
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
            next: 1,
            bytes: 0,
            skip: 0,
            lost: 0,
            lost_at: SystemTime::UNIX_EPOCH,
            watch: None,
            has_ended: false,
            is_over: false,
            query,
        };
        // What is thrown away from here on is told.
        if let Some((number, bytes, file)) = find(self.dir(), logs.files, 0) {
            (logs.next, logs.bytes) = (number, bytes);
            logs.file = Some((number, reader(file), 0));
        }
        if let Some(tail) = logs.query.tail {
            let all = LogQuery { follow: false, tail: None, ..logs.query.clone() };
            let query = std::mem::replace(&mut logs.query, all);
            logs = logs.with_tail(tail, query)?;
        }
        Ok(logs)
    }
}

impl Logs {
    /// Counts what there is, and begins anew.
    fn with_tail(mut self, tail: u64, query: LogQuery) -> Result<Logs> {
        let (next, bytes) = (self.next, self.bytes);
        let again = match &self.file {
            Some((number, file, _)) => {
                Some((*number, file.get_ref().try_clone().at(Step::Log, "dup", self.container.dir().at(LOG))?))
            }
            None => None,
        };
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
        let file = match again {
            Some((number, mut file)) => {
                file.rewind().at(Step::Log, "lseek", self.container.dir().at(LOG))?;
                Some((number, reader(file), 0))
            }
            None => None,
        };
        Ok(Logs { file, next, bytes, skip, lost: 0, has_ended: false, is_over: false, query, ..self })
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
            if self.has_ended && self.lost > 0 {
                let stream = if self.query.stdout { Stream::Stdout } else { Stream::Stderr };
                let lost = std::mem::take(&mut self.lost);
                return Ok(Some(LogRecord { time: self.lost_at, stream, bytes: Vec::new(), lost }));
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
                LOST if self.is_within(when) => {
                    self.lost = self.lost.saturating_add(word(&bytes, 1));
                    self.lost_at = when;
                    continue;
                }
                STDOUT if self.query.stdout => {}
                STDERR if self.query.stderr => {}
                _ => continue,
            }
            if self.query.since.is_some_and(|since| when < since) {
                // Before what is wanted.
                self.lost = 0;
            }
            if !self.is_within(when) {
                continue;
            }
            if self.skip > 0 {
                self.lost = 0;
            }
            let bytes = self.after_skip(bytes);
            if bytes.is_empty() {
                continue;
            }
            let stream = if stream == STDERR { Stream::Stderr } else { Stream::Stdout };
            return Ok(Some(LogRecord { time: when, stream, bytes, lost: std::mem::take(&mut self.lost) }));
        }
    }

    fn is_within(&self, when: SystemTime) -> bool {
        self.query.since.is_none_or(|since| when >= since) && self.query.until.is_none_or(|until| when < until)
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
                let Some((number, bytes, file)) = find(self.container.dir(), self.files, self.next) else {
                    return Ok(None);
                };
                self.miss(bytes.saturating_sub(self.bytes).max((number > self.next).into()));
                self.bytes = bytes;
                self.file = Some((number, reader(file), 0));
            }
            let Some((number, file, at)) = &mut self.file else { return Ok(None) };
            match one(file, at).at(Step::Log, "read", self.container.dir().at(LOG))? {
                Some((_, NUMBER, _)) => {}
                Some(record) => return Ok(Some(self.count(record))),
                None => {
                    // Another one is begun only when this one is finished.
                    let is_finished = find(self.container.dir(), self.files, *number + 1).is_some();
                    if !is_finished {
                        return Ok(None);
                    }
                    if let Some(record) = one(file, at).at(Step::Log, "read", self.container.dir().at(LOG))? {
                        return Ok(Some(self.count(record)));
                    }
                    self.next = *number + 1;
                    self.file = None;
                }
            }
        }
    }

    fn count(&mut self, record: (u64, u8, Vec<u8>)) -> (u64, u8, Vec<u8>) {
        self.bytes = self.bytes.saturating_add(counted(record.1, record.2.len(), &record.2));
        record
    }

    /// As many bytes were thrown away before they could be read.
    fn miss(&mut self, bytes: u64) {
        if bytes > 0 {
            self.lost = self.lost.saturating_add(bytes);
            self.lost_at = SystemTime::now();
            // Some of what was to be left out is among it, and nobody knows how many lines that is.
            self.skip = 0;
        }
    }

    /// Line by line instead.
    pub fn lines(self) -> LogLines {
        LogLines { logs: self, ready: VecDeque::new(), open: [None, None] }
    }
}

fn reader(file: File) -> BufReader<File> {
    BufReader::with_capacity(64 << 10, file)
}

/// A record, if a whole one is there.
pub(super) fn one(file: &mut BufReader<File>, at: &mut u64) -> std::io::Result<Option<(u64, u8, Vec<u8>)>> {
    use std::io::SeekFrom;
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

    fn take(&mut self, LogRecord { time, stream, bytes, mut lost }: LogRecord) {
        if lost > 0 {
            // What follows need not be of the same line.
            self.ready.extend(self.open.iter_mut().filter_map(Option::take));
        }
        let Some(open) = self.open.get_mut(stream as usize) else { return };
        let mut begin = || LogLine { time, stream, text: Vec::new(), is_whole: false, lost: std::mem::take(&mut lost) };
        if bytes.is_empty() {
            self.ready.push_back(begin());
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = open.get_or_insert_with(&mut begin);
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn record(stream: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [&5u64.to_ne_bytes()[..], &length.to_ne_bytes(), &[stream], &LOG_MARK, bytes].concat()
    }

    #[test]
    fn files_of_this_and_of_an_earlier_version_are_measured() {
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let rest = [record(STDOUT, b"one"), record(LOST, &words(&[2, 70])), record(STDERR, b"four")].concat();
        for (number, bytes) in [(words(&[6, 1000]), 1077), (words(&[6]), 77)] {
            let mut file = File::from(rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
            let whole = [record(NUMBER, &number), rest.clone()].concat();
            file.write_all(&whole).unwrap();
            file.write_all(&record(STDOUT, b"cut off")[..20]).unwrap();
            let length = whole.len() as u64;
            assert_eq!(measure(&file).unwrap(), Some(Measured { number: 6, length, bytes }));
        }
        for wrong in [words(&[]), words(&[u64::MAX, 0]), words(&[1, 2, 3]), vec![1; 9]] {
            let mut file = File::from(rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
            file.write_all(&[record(NUMBER, &wrong), rest.clone()].concat()).unwrap();
            assert_eq!(measure(&file).unwrap(), None, "{wrong:?}");
        }
    }
}
