//! A small client of D-Bus: as much as it takes to ask systemd for a scope, in the caller's thread, and no more.
//!
//! What comes from the bus is as foreign as anything: every length is checked, and more than [`MOST_BYTES`] are not read.
//! Source: <https://dbus.freedesktop.org/doc/dbus-specification.html>
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use crate::error::{At, Error, Result, Step};
use crate::process::launch::SLICE;

/// A longer message than this ends the conversation; the ones awaited have a few hundred bytes.
pub(super) const MOST_BYTES: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// A body under construction; every value is put where its alignment has it.
#[derive(Default)]
pub(super) struct Body {
    bytes: Vec<u8>,
}

impl Body {
    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(super) fn u32(&mut self, number: u32) -> &mut Body {
        self.pad(4);
        self.bytes.extend(number.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, number: u64) -> &mut Body {
        self.pad(8);
        self.bytes.extend(number.to_le_bytes());
        self
    }

    pub(super) fn string(&mut self, text: &str) -> &mut Body {
        self.u32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self
    }

    pub(super) fn signature(&mut self, text: &str) -> &mut Body {
        self.bytes.push(text.len() as u8);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self
    }

    /// An array, whose elements are aligned to `to`.
    pub(super) fn array(&mut self, to: usize, fill: impl FnOnce(&mut Body)) -> &mut Body {
        self.u32(0);
        let at = self.bytes.len();
        self.pad(to);
        let begin = self.bytes.len();
        fill(self);
        let length = (self.bytes.len() - begin) as u32;
        self.bytes[at - 4..at].copy_from_slice(&length.to_le_bytes());
        self
    }

    #[cfg(test)]
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The start of a structure.
    pub(super) fn structure(&mut self) -> &mut Body {
        self.pad(8);
        self
    }
}

/// Reads values in their order; `None` where there are none any more, or none of that form.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    fn pad(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.pad(4)?;
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// A string or object path.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let text = self.take(length)?;
        (self.byte()? == 0).then_some(())?;
        std::str::from_utf8(text).ok()
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        let text = self.take(length)?;
        (self.byte()? == 0).then_some(())?;
        std::str::from_utf8(text).ok()
    }
}

/// A message of somebody else's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) kind: u8,
    /// The serial number of the call that it answers.
    pub(super) reply_to: u32,
    pub(super) sender: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) signature: String,
    pub(super) body: Vec<u8>,
}

/// The length of the message that begins here, as soon as it can be told.
pub(super) fn length_of(bytes: &[u8]) -> std::result::Result<Option<usize>, ()> {
    let Some(head) = bytes.get(..16) else { return Ok(None) };
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let (body, fields) = (number(4), number(12));
    if head[0] != b'l' || head[3] != 1 || body > MOST_BYTES || fields > MOST_BYTES {
        return Err(());
    }
    let length = (16 + fields).next_multiple_of(8) + body;
    if length > MOST_BYTES { Err(()) } else { Ok(Some(length)) }
}

/// Takes a whole message apart.
pub(super) fn parse(bytes: &[u8]) -> Option<Incoming> {
    let mut message = Incoming { kind: *bytes.get(1)?, ..Incoming::default() };
    let mut reader = Reader { bytes, at: 4 };
    let body_length = reader.u32()? as usize;
    reader.u32()?;
    let end = reader.u32()? as usize + 16;
    while reader.at < end {
        reader.pad(8)?;
        let (field, signature) = (reader.byte()?, reader.signature()?);
        match (field, signature) {
            (5, "u") => message.reply_to = reader.u32()?,
            (8, "g") => message.signature = reader.signature()?.to_owned(),
            (_, "u") => drop(reader.u32()?),
            (_, "g") => drop(reader.signature()?),
            (_, "s" | "o") => {
                let text = reader.string()?.to_owned();
                match field {
                    2 => message.interface = text,
                    3 => message.member = text,
                    4 => message.error = text,
                    7 => message.sender = text,
                    _ => {}
                }
            }
            // The specification has no field of another type.
            _ => return None,
        }
    }
    (reader.at == end).then_some(())?;
    reader.pad(8)?;
    message.body = reader.take(body_length)?.to_vec();
    Some(message)
}

/// Where a call goes, and what it says.
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) signature: &'a str,
    pub(super) body: &'a Body,
}

fn encode(call: &Call<'_>, serial: u32) -> Vec<u8> {
    let mut message = Body { bytes: vec![b'l', METHOD_CALL, 0, 1] };
    message.u32(call.body.bytes.len() as u32).u32(serial);
    message.array(8, |fields| {
        for (field, signature, text) in [
            (1, "o", call.path),
            (2, "s", call.interface),
            (3, "s", call.member),
            (6, "s", call.destination),
            (8, "g", call.signature),
        ] {
            if text.is_empty() {
                continue;
            }
            fields.structure().bytes.push(field);
            fields.signature(signature);
            match signature {
                "g" => fields.signature(text),
                _ => fields.string(text),
            };
        }
    });
    message.pad(8);
    message.bytes.extend(&call.body.bytes);
    message.bytes
}

/// A connection to a bus.
pub(super) struct Bus<'a> {
    socket: OwnedFd,
    address: PathBuf,
    serial: u32,
    buffer: Vec<u8>,
    until: Instant,
    interrupted: &'a mut dyn FnMut() -> bool,
}

impl<'a> Bus<'a> {
    /// Connects to the bus at a path (of `unix:path=`); the whole conversation has `timeout`, and ends with
    /// [`Error::Interrupted`] when `interrupted` says so, which is asked now and then while the bus is silent.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Systemd`].
    pub(super) fn connect(path: &Path, timeout: Duration, interrupted: &'a mut dyn FnMut() -> bool) -> Result<Bus<'a>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).at(Step::Systemd, "socket", path)?;
        let address = SocketAddrUnix::new(path).at(Step::Systemd, "connect", path)?;
        connect(&socket, &address).at(Step::Systemd, "connect", path)?;
        let until = Instant::now() + timeout;
        let mut bus = Bus { socket, address: path.to_owned(), serial: 0, buffer: Vec::new(), until, interrupted };
        // Who we are, the kernel tells the bus; no number of ours, which a user namespace would make a wrong one.
        bus.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let ok = bus.line()?;
        let ok = if ok == "DATA" || ok == "DATA " { bus.line()? } else { ok };
        if !ok.starts_with("OK ") {
            return Err(Error::sys(Step::Systemd, "", &bus.address, Errno::EACCES)
                .with_hint(format!("the bus does not let this user in: {ok:?}")));
        }
        Ok(bus)
    }

    fn fails(&self, errno: Errno) -> Error {
        Error::sys(Step::Systemd, "", &self.address, errno)
    }

    /// Waits until the socket is ready.
    fn wait(&mut self, flags: PollFlags) -> Result<()> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left.min(SLICE)).map_err(|_| self.fails(Errno::EINVAL))?;
            match poll(&mut [PollFd::new(&self.socket, flags)], Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {
                    if (self.interrupted)() {
                        return Err(Error::Interrupted);
                    }
                    if left.is_zero() {
                        return Err(self.fails(Errno::ETIMEDOUT).with_hint("systemd does not answer"));
                    }
                }
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno).at(Step::Systemd, "poll", &self.address),
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => self.wait(PollFlags::OUT)?,
                Err(errno) => return Err(errno).at(Step::Systemd, "send", &self.address),
            }
        }
        Ok(())
    }

    /// More bytes of the bus.
    fn fill(&mut self) -> Result<()> {
        let mut bytes = [0u8; 4096];
        loop {
            match recv(&self.socket, &mut bytes[..], RecvFlags::empty()).map(|(length, _)| length) {
                Ok(0) => return Err(self.fails(Errno::ECONNRESET).with_hint("the bus hung up")),
                Ok(length) => {
                    self.buffer.extend(&bytes[..length.min(4096)]);
                    return Ok(());
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => self.wait(PollFlags::IN)?,
                Err(errno) => return Err(errno).at(Step::Systemd, "recv", &self.address),
            }
        }
    }

    /// A line of the handshake.
    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.buffer.len() > 4096 {
                return Err(self.fails(Errno::EPROTO));
            }
            self.fill()?;
        }
    }

    /// Sends a call; its serial number, for [`Incoming::reply_to`].
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<u32> {
        self.serial += 1;
        let bytes = encode(call, self.serial);
        self.send(&bytes)?;
        Ok(self.serial)
    }

    /// The next message.
    pub(super) fn receive(&mut self) -> Result<Incoming> {
        loop {
            match length_of(&self.buffer) {
                Ok(Some(length)) if self.buffer.len() >= length => {
                    let message = parse(&self.buffer[..length]);
                    self.buffer.drain(..length);
                    return message
                        .ok_or_else(|| self.fails(Errno::EPROTO).with_hint("the bus speaks another language"));
                }
                Ok(_) => self.fill()?,
                Err(()) => return Err(self.fails(Errno::EPROTO).with_hint("the bus speaks another language")),
            }
        }
    }
}

impl AsFd for Bus<'_> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Vec<u8> {
        let mut body = Body::default();
        body.u32(7).string("/org/freedesktop/systemd1/job/7").string("a.scope").string("done");
        let call = Call {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "JobRemoved",
            signature: "uoss",
            body: &body,
        };
        encode(&call, 3)
    }

    #[test]
    fn what_is_encoded_can_be_read() {
        let bytes = message();
        assert_eq!(length_of(&bytes), Ok(Some(bytes.len())));
        let read = parse(&bytes).unwrap();
        assert_eq!((read.kind, &*read.member, &*read.signature), (METHOD_CALL, "JobRemoved", "uoss"));
        let mut reader = Reader::new(&read.body);
        assert_eq!(reader.u32(), Some(7));
        assert_eq!(reader.string(), Some("/org/freedesktop/systemd1/job/7"));
        assert_eq!(reader.string(), Some("a.scope"));
        assert_eq!(reader.string(), Some("done"));
        assert_eq!(reader.string(), None);
    }

    #[test]
    fn damaged_messages_are_refused_without_harm() {
        let whole = message();
        for at in 0..whole.len() {
            assert!(parse(&whole[..at]).is_none(), "{at} bytes");
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = (length_of(&damaged), parse(&damaged));
            }
        }
        let mut huge = whole;
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(length_of(&huge), Err(()));
    }

    #[test]
    fn a_silent_bus_is_waited_for_until_somebody_interrupts() {
        let path = std::env::temp_dir().join(format!("zind-test-bus-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut asked = 0;
        let mut interrupted = || {
            asked += 1;
            asked == 2
        };
        let error = Bus::connect(&path, Duration::from_secs(60), &mut interrupted).err().unwrap();
        assert!(matches!(error, Error::Interrupted), "{error}");
        let error = Bus::connect(&path, Duration::from_millis(50), &mut || false).err().unwrap();
        assert_eq!(error.errno(), Some(Errno::ETIMEDOUT));
        drop(listener);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_bus_that_is_not_there_is_an_error_with_its_path() {
        let error = Bus::connect(Path::new("/nonexistent/bus"), Duration::from_secs(1), &mut || false).err().unwrap();
        assert_eq!(error.errno(), Some(Errno::ENOENT));
        assert_eq!(error.path(), Some(Path::new("/nonexistent/bus")));
    }
}
