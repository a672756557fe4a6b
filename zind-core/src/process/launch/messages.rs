//! The report socket: what a launcher says, message by message.
#![forbid(unsafe_code)]

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use zind_init::measured::{READING, READING_SIZE};
use zind_init::report::{REPORT_SIZE, Report, Usage};

use crate::error::{At, Error, Result, Step};
use crate::process::measured::Reading;

/// The report socket: our end, and the launcher's.
pub(in crate::process) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).at(Step::Socket, "socketpair", "")
}

/// One report and what came with it.
pub(crate) struct Message {
    pub(crate) report: Report,
    pub(super) fd: Option<OwnedFd>,
    pub(super) pid: Option<i32>,
}

pub(crate) enum Received {
    Report(Message),
    Log(String),
    Reading(Reading),
    End,
}

/// The next message of a launcher; `EAGAIN` where there is none is an error here.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Received> {
    let mut bytes = [0u8; 512];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let length = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
            // It is gone, and has not read all that we have sent. The error comes once; what it has said is there still.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
            other => break other.at(Step::Report, "recvmsg", "")?.bytes,
        }
    };
    let (mut fd, mut pid) = (None, None);
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fd = fds.next(),
            RecvAncillaryMessage::ScmCredentials(credentials) => pid = Some(credentials.pid.as_raw_nonzero().get()),
            _ => {}
        }
    }
    match bytes.get(..length).unwrap_or_default() {
        [] => Ok(Received::End),
        [b'#', text @ ..] => Ok(Received::Log(String::from_utf8_lossy(text).trim().to_owned())),
        [READING, ..] if length == READING_SIZE => {
            Reading::decode(bytes.get(..length).unwrap_or_default()).map(Received::Reading).ok_or_else(protocol)
        }
        report if report.len() == REPORT_SIZE => Ok(Received::Report(Message { report: decode(report), fd, pid })),
        _ => Err(protocol()),
    }
}

pub(super) fn protocol() -> Error {
    Error::sys(Step::Report, "recvmsg", "", Errno::EPROTO)
}

fn decode(bytes: &[u8]) -> Report {
    let take = |at: usize, len: usize| bytes.get(at..at + len).unwrap_or_default();
    let word = |at| u64::from_ne_bytes(take(at, 8).try_into().unwrap_or_default());
    let short = |at| u16::from_ne_bytes(take(at, 2).try_into().unwrap_or_default());
    Report {
        step: short(0),
        index: short(2),
        value: i32::from_ne_bytes(take(4, 4).try_into().unwrap_or_default()),
        usage: Usage { user_us: word(8), system_us: word(16), max_rss: word(24) },
    }
}
