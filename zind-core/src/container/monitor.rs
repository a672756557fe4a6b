//! Talking to the monitor of a container: one request and one answer over its socket.
#![forbid(unsafe_code)]

use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, bind, connect, listen, recvmsg, send, socket_with, sockopt,
};
use zind_init::monitor::{LOG_MARK, LogHead, NUMBER};

use super::LogOptions;
use super::logs::{self, Measured};
use super::state::{self, Dir, LOG, SOCKET};
use crate::error::{At, Error, Result, Step};
use crate::process::launch::wait_readable;
use crate::process::watched::LogFile;

/// A connection to a monitor.
#[derive(Debug)]
pub(super) struct Connection(OwnedFd);

/// The path of the socket, however long that of its directory is.
fn address(dir: BorrowedFd<'_>) -> Result<SocketAddrUnix> {
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    SocketAddrUnix::new(&path).at(Step::AskMonitor, "socket", &path)
}

fn new_socket() -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).at(Step::Socket, "socket", "")
}

/// The socket on which the monitor will listen. One that is left over goes.
pub(super) fn listener(dir: &Dir, open: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = dir.at(SOCKET);
    let socket = new_socket()?;
    let _ = std::fs::remove_file(&path);
    bind(&socket, &address(open)?).at(Step::Monitor, "bind", &path)?;
    listen(&socket, 64).at(Step::Monitor, "listen", &path)?;
    Ok(socket)
}

impl Connection {
    /// `None`: there is no monitor any more.
    pub(super) fn open(dir: &Dir) -> Result<Option<Connection>> {
        let open = dir.open()?;
        let socket = new_socket()?;
        // Who is stopped takes nobody in, and after so many those who connect would wait for good.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE)).at(
            Step::Socket,
            "setsockopt",
            "",
        )?;
        match rustix::io::retry_on_intr(|| {
            connect(&socket, &address(open.as_fd()).map_err(|_| rustix::io::Errno::NOENT)?)
        }) {
            Ok(()) => Ok(Some(Connection(socket))),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Ok(None),
            Err(rustix::io::Errno::AGAIN) => Err(silent("connect")),
            Err(errno) => Err(errno).at(Step::AskMonitor, "connect", dir.at(SOCKET)),
        }
    }

    /// False: it has hung up.
    pub(super) fn send(&self, what: u8, argument: u8) -> Result<bool> {
        match rustix::io::retry_on_intr(|| send(&self.0, &[what, argument], SendFlags::NOSIGNAL)) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(false),
            Err(errno) => Err(errno).at(Step::AskMonitor, "send", ""),
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn of(socket: OwnedFd) -> Connection {
        Connection(socket)
    }

    pub(super) fn try_clone(&self) -> Result<Connection> {
        self.0.try_clone().map(Connection).at(Step::AskMonitor, "dup", "")
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// [`Connection::reply`], for which nobody waits longer than it takes.
    ///
    /// Errors: `ETIMEDOUT` at [`Step::AskMonitor`].
    pub(super) fn reply_soon(&self) -> Result<Option<(i32, i32, Option<OwnedFd>)>> {
        if wait_readable(self.fd(), Some(PATIENCE), &mut || false)? { self.reply() } else { Err(silent("recvmsg")) }
    }

    /// The answer: its errno, its value, and what came with it. `None`: it has hung up.
    pub(super) fn reply(&self) -> Result<Option<(i32, i32, Option<OwnedFd>)>> {
        let mut bytes = [0u8; 8];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let received =
            rustix::io::retry_on_intr(|| recvmsg(&self.0, &mut pieces, &mut ancillary, RecvFlags::CMSG_CLOEXEC));
        let length = match received {
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            result => result.at(Step::AskMonitor, "recvmsg", "")?.bytes,
        };
        let mut fd = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                fd = fds.next();
            }
        }
        if length != bytes.len() {
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h] = bytes;
        Ok(Some((i32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]), fd)))
    }
}

/// How long it may take to answer, which it does at once; who is stopped by a debugger does not.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

fn silent(call: &'static str) -> Error {
    Error::sys(Step::AskMonitor, call, "zind-monitor", Errno::ETIMEDOUT)
        .with_hint("the monitor of the container does not answer: is it stopped?")
}

/// One request and its answer. `None`: there is no monitor any more.
pub(super) fn ask(dir: &Dir, what: u8, argument: u8) -> Result<Option<(i32, Option<OwnedFd>)>> {
    let Some(connection) = Connection::open(dir)? else { return Ok(None) };
    if !connection.send(what, argument)? {
        return Ok(None);
    }
    match connection.reply_soon()? {
        None => Ok(None),
        Some((0, value, fd)) => Ok(Some((value, fd))),
        Some((errno, ..)) if errno == libc::ESRCH => Ok(None),
        Some((errno, ..)) => Err(Error::sys(Step::AskMonitor, "", "zind-monitor", Errno::from_raw(errno))),
    }
}

/// The log, ready for more. What was cut off at its end by a crash goes.
pub(super) fn log(dir: &Dir, options: LogOptions) -> Result<Option<LogFile>> {
    if options.files == 0 {
        return Ok(None);
    }
    let path = dir.at(LOG);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = state::open_at(&path, flags, Mode::from_raw_mode(0o600)).at(Step::Log, "open", &path)?;
    let mut file = std::fs::File::from(file);
    let Measured { number, length, bytes } = match logs::measure(&file).at(Step::Log, "read", &path)? {
        Some(known) => {
            file.set_len(known.length).at(Step::Log, "ftruncate", &path)?;
            known
        }
        None => {
            file.set_len(0).at(Step::Log, "ftruncate", &path)?;
            let (newest, before) = logs::newest(dir, options.files);
            let number = newest + 1;
            let mut bytes = Vec::with_capacity(size_of::<LogHead>() + 16);
            bytes.extend_from_slice(&state::now_ns().to_ne_bytes());
            bytes.extend_from_slice(&16u32.to_ne_bytes());
            bytes.push(NUMBER);
            bytes.extend_from_slice(&LOG_MARK);
            bytes.extend_from_slice(&number.to_ne_bytes());
            bytes.extend_from_slice(&before.to_ne_bytes());
            file.write_all(&bytes).at(Step::Log, "write", &path)?;
            Measured { number, length: bytes.len() as u64, bytes: before }
        }
    };
    Ok(Some(LogFile { file: file.into(), length, number, bytes, size: options.size, files: options.files }))
}
