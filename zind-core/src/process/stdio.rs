//! The standard streams and passed descriptors of a payload.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use zind_init::plan::FdMap;

use crate::error::{At, Error, Result, Step};
use crate::spec::{Spec, Stdio};
use crate::sys::descriptors::is_open;
use crate::terminal::{Pty, Size};

/// Descriptors made ready for one start.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// Number in the payload -> number here.
    pub(crate) map: BTreeMap<RawFd, RawFd>,
    /// What has to stay open until the launcher has its copies.
    pub(crate) kept: Vec<OwnedFd>,
    shared: Vec<Arc<OwnedFd>>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Our end of the terminal: at once if it is one of this machine's, else when the launcher has made it.
    pub(crate) terminal: Option<OwnedFd>,
    /// The launcher puts the terminal in the place of this descriptor.
    pub(crate) terminal_place: Option<RawFd>,
}

impl Streams {
    /// The launcher has its copies: a reader must see the last writer leave.
    pub(crate) fn close_ours(&mut self) {
        self.kept.clear();
        self.shared.clear();
    }
}

/// The launcher moves at most this many descriptors.
const MOST_PASSED: usize = 1000;

impl Streams {
    pub(crate) fn of(spec: &Spec) -> Result<Streams> {
        let mut streams = Streams::default();
        // Before anything is opened: what we open could get the number of a stream that is closed.
        let open = [0, 1, 2].map(is_open);
        if spec.pass_fds.len() > MOST_PASSED {
            return Err(Error::spec("pass_fds", format!("has more than {MOST_PASSED} descriptors")));
        }
        for &fd in &spec.pass_fds {
            if !is_open(fd) {
                return Err(Error::sys(Step::ArrangeFds, "fcntl", fd.to_string(), Errno::EBADF)
                    .with_hint("pass_fds names a descriptor that is not open in this process"));
            }
            streams.map.insert(fd, fd);
        }
        if let Some(size) = spec.terminal {
            streams.on_terminal(size, spec.has_own_terminals())?;
            return Ok(streams);
        }
        streams.stdin = streams.standard(0, &spec.stdin, open[0])?;
        streams.stdout = streams.standard(1, &spec.stdout, open[1])?;
        streams.stderr = streams.standard(2, &spec.stderr, open[2])?;
        Ok(streams)
    }

    /// Prepares one stream; the caller's end of a pipe comes back.
    fn standard(&mut self, number: RawFd, stdio: &Stdio, is_open: bool) -> Result<Option<OwnedFd>> {
        match stdio {
            Stdio::Inherit if is_open => {
                self.map.insert(number, number);
            }
            Stdio::Inherit | Stdio::Null => self.keep(number, open("/dev/null".as_ref(), number == 0)?),
            Stdio::File(path) => self.keep(number, open(path, number == 0)?),
            Stdio::Fd(fd) => {
                self.map.insert(number, fd.as_raw_fd());
                self.shared.push(Arc::clone(fd));
            }
            Stdio::Stdout => {
                let stdout = self.map.get(&1).copied().unwrap_or(1);
                self.map.insert(number, stdout);
            }
            Stdio::Pipe => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC).at(Step::Socket, "pipe2", "")?;
                let (theirs, ours) = if number == 0 { (read, write) } else { (write, read) };
                self.keep(number, theirs);
                return Ok(Some(ours));
            }
        }
        Ok(None)
    }

    /// All three are one terminal: of this machine's, or what the launcher puts in the place of a descriptor.
    fn on_terminal(&mut self, size: Size, is_the_containers: bool) -> Result<()> {
        let place = if is_the_containers {
            open("/dev/null".as_ref(), true)?
        } else {
            let Pty { master, terminal } = Pty::open(size)?;
            self.terminal = Some(master);
            terminal
        };
        self.terminal_place = is_the_containers.then_some(place.as_raw_fd());
        self.map.extend([(1, place.as_raw_fd()), (2, place.as_raw_fd())]);
        self.keep(0, place);
        Ok(())
    }

    fn keep(&mut self, number: RawFd, fd: OwnedFd) {
        self.map.insert(number, fd.as_raw_fd());
        self.kept.push(fd);
    }

    /// For the plan, by number in the payload.
    pub(crate) fn maps(&self) -> Vec<FdMap> {
        self.map.iter().map(|(&to, &from)| FdMap { from, to }).collect()
    }
}

fn open(path: &Path, for_reading: bool) -> Result<OwnedFd> {
    let mut options = OpenOptions::new();
    if for_reading {
        options.read(true);
    } else {
        options.write(true).create(path != Path::new("/dev/null")).truncate(true);
    }
    options.open(path).map(OwnedFd::from).at(Step::OpenStdio, "open", path)
}
