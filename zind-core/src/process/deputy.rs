//! [`Deputy`]: makes system calls in a user namespace for who is not in it.
//!
//! An ordinary user with a range of subordinate ids may give files to those ids only inside of a user namespace, and
//! may only there read and remove what belongs to them. A process with threads cannot enter one. So the launcher
//! does, and makes the calls that it is sent: `zind-init/src/deputy.rs` has the language. Descriptors go both ways: what
//! the deputy has opened is read and written by the library itself.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use zind_init::deputy::{Answer, Call, Kind, MOST_BYTES, MOST_CALLS, MOST_FDS, Message, SEND_RESULT};

use super::launch::{self, Starting};
use crate::error::Result;
use crate::namespace::idmap::ReadyMaps;

/// A process in a user namespace that makes system calls for us. It ends with this value, and with our process.
pub(crate) struct Deputy {
    /// One conversation at a time.
    starting: Mutex<Starting>,
}

/// An argument of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg<'a> {
    Number(u64),
    Text(&'a CStr),
    Bytes(&'a [u8]),
    Fd(BorrowedFd<'a>),
    /// The bytes that an argument of an earlier call of the request is about: which call, which argument.
    Again(usize, usize),
}

/// System calls to be made one after the other, up to the first that fails.
#[derive(Default)]
pub(crate) struct Request<'a> {
    calls: Vec<(u64, [Arg<'a>; 6])>,
}

/// A call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Which one of the request.
    pub(crate) index: usize,
    pub(crate) errno: Errno,
}

impl Refusal {
    /// The deputy is not there any more, or a request does not fit into a message.
    fn of(errno: Errno) -> Refusal {
        Refusal { index: 0, errno }
    }
}

impl<'a> Request<'a> {
    pub(crate) fn new() -> Request<'a> {
        Request::default()
    }

    /// Adds a call.
    #[must_use]
    pub(crate) fn call(mut self, number: i64, arguments: &[Arg<'a>]) -> Request<'a> {
        let mut all = [Arg::Number(0); 6];
        for (slot, argument) in all.iter_mut().zip(arguments) {
            *slot = *argument;
        }
        self.calls.push((number.unsigned_abs(), all));
        self
    }

    /// The message, and the descriptors that go with it.
    fn encode(&self, flags: u32) -> Result<(Vec<u8>, Vec<BorrowedFd<'a>>), Errno> {
        let head = size_of::<Message>() + size_of::<Call>() * self.calls.len();
        let (mut message, mut bytes) = (Vec::with_capacity(head), Vec::new());
        let mut fds = Vec::new();
        let mut placed: Vec<[u64; 6]> = Vec::new();
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&u32::try_from(self.calls.len()).unwrap_or(u32::MAX).to_ne_bytes());
        for (number, arguments) in &self.calls {
            let (mut kinds, mut values) = ([0u8; 6], [0u64; 6]);
            for (place, argument) in arguments.iter().enumerate() {
                let (kind, value) = match *argument {
                    Arg::Number(number) => (Kind::Number, number),
                    Arg::Text(text) => (Kind::Bytes, append(&mut bytes, head, text.to_bytes_with_nul())),
                    Arg::Bytes(more) => (Kind::Bytes, append(&mut bytes, head, more)),
                    Arg::Fd(fd) => {
                        fds.push(fd);
                        (Kind::Fd, fds.len() as u64 - 1)
                    }
                    Arg::Again(call, argument) => {
                        let value = placed.get(call).and_then(|values| values.get(argument));
                        (Kind::Bytes, *value.ok_or(Errno::INVAL)?)
                    }
                };
                (kinds[place], values[place]) = (kind as u8, value);
            }
            placed.push(values);
            message.extend_from_slice(&number.to_ne_bytes());
            message.extend_from_slice(&kinds);
            message.extend_from_slice(&[0; 2]);
            values.iter().for_each(|value| message.extend_from_slice(&value.to_ne_bytes()));
        }
        message.append(&mut bytes);
        let fits = self.calls.len() <= MOST_CALLS && fds.len() <= MOST_FDS;
        if fits && message.len() <= MOST_BYTES { Ok((message, fds)) } else { Err(Errno::TOOBIG) }
    }
}

/// Appends to the bytes behind the head of a message; where that is, from the start of the message.
fn append(bytes: &mut Vec<u8>, head: usize, more: &[u8]) -> u64 {
    // What the kernel reads as numbers must be aligned.
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let offset = (head + bytes.len()) as u64;
    bytes.extend_from_slice(more);
    offset
}

impl Deputy {
    /// Starts one as user 0 of a new user namespace with these maps, in the caller's mount namespace.
    /// Errors: those of a start with such maps.
    pub(crate) fn start(maps: ReadyMaps) -> Result<Deputy> {
        Ok(Deputy { starting: Mutex::new(launch::start_deputy(maps)?) })
    }

    /// Has calls made: the result of the last one.
    pub(crate) fn ask(&self, request: &Request<'_>) -> Result<i64, Refusal> {
        self.converse(request, 0).map(|(result, _)| result)
    }

    /// Has calls made of which the last opens something, which is ours then.
    pub(crate) fn open(&self, request: &Request<'_>) -> Result<OwnedFd, Refusal> {
        let (_, fd) = self.converse(request, SEND_RESULT)?;
        // None came, because we have as many as we may have.
        fd.ok_or(Refusal::of(Errno::MFILE))
    }

    fn converse(&self, request: &Request<'_>, flags: u32) -> Result<(i64, Option<OwnedFd>), Refusal> {
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        send(starting.fd(), request, flags).map_err(Refusal::of)?;
        receive(starting.fd())
    }
}

fn send(socket: BorrowedFd<'_>, request: &Request<'_>, flags: u32) -> Result<(), Errno> {
    let (message, fds) = request.encode(flags)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::TOOBIG);
    }
    let pieces = [IoSlice::new(&message)];
    rustix::io::retry_on_intr(|| sendmsg(socket, &pieces, &mut ancillary, SendFlags::NOSIGNAL)).map(drop)
}

/// The answer: the last result, and a descriptor, if one came.
fn receive(socket: BorrowedFd<'_>) -> Result<(i64, Option<OwnedFd>), Refusal> {
    let mut bytes = [0u8; size_of::<Answer>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(&mut bytes)];
    let length = loop {
        match recvmsg(socket, &mut pieces, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result.map_err(Refusal::of)?.bytes,
        }
    };
    let mut fd = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fd = fds.next();
        }
    }
    if length < size_of::<Answer>() {
        return Err(Refusal::of(Errno::SRCH));
    }
    let word = |at: usize| bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, i64::from_ne_bytes);
    let short = |at: usize| bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, i32::from_ne_bytes);
    match short(12) {
        0 => Ok((word(0), fd)),
        errno => Err(Refusal { index: short(8).unsigned_abs() as usize, errno: Errno::from_raw_os_error(errno) }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use nix::libc;

    use super::*;
    use crate::namespace::idmap::IdMap;

    fn is_root() -> bool {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root {
            eprintln!("skipped: only root may map ids without a helper");
        }
        is_root
    }

    fn deputy() -> Deputy {
        let map = vec![IdMap { container: 0, host: 0, size: 1 }, IdMap { container: 1, host: 200_000, size: 100 }];
        Deputy::start(ReadyMaps::of_root(map.clone(), map)).unwrap()
    }

    fn place(name: &str) -> (std::path::PathBuf, OwnedFd) {
        let dir = std::env::temp_dir().join(format!("zind-deputy-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let fd = rustix::fs::open(&dir, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn a_deputy_gives_files_to_ids_of_its_namespace() {
        if !is_root() {
            return;
        }
        let ((dir, place), deputy) = (place("gives"), deputy());
        let create = (libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC) as u64;
        for number in 0..50u32 {
            let name = std::ffi::CString::new(number.to_string()).unwrap();
            let arguments = [Arg::Fd(place.as_fd()), Arg::Text(&name), Arg::Number(create), Arg::Number(0o600)];
            let file = deputy.open(&Request::new().call(libc::SYS_openat, &arguments)).unwrap();
            rustix::io::write(&file, b"content").unwrap();
            let ids = [Arg::Fd(file.as_fd()), Arg::Number(5), Arg::Number(6)];
            let mode = [Arg::Fd(file.as_fd()), Arg::Number(0o4711)];
            deputy.ask(&Request::new().call(libc::SYS_fchown, &ids).call(libc::SYS_fchmod, &mode)).unwrap();
            let file = std::fs::metadata(dir.join(number.to_string())).unwrap();
            assert_eq!((file.uid(), file.gid(), file.mode(), file.size()), (200_004, 200_005, 0o104_711, 7));
        }
        drop(deputy);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_first_failure_is_told_and_what_follows_is_not_made() {
        if !is_root() {
            return;
        }
        let ((dir, place), deputy) = (place("fails"), deputy());
        let mkdir = |name| [Arg::Fd(place.as_fd()), Arg::Text(name), Arg::Number(0o700)];
        let three = Request::new()
            .call(libc::SYS_mkdirat, &mkdir(c"a"))
            .call(libc::SYS_mkdirat, &mkdir(c"a"))
            .call(libc::SYS_mkdirat, &mkdir(c"b"));
        assert_eq!(deputy.ask(&three), Err(Refusal { index: 1, errno: Errno::EXIST }));
        assert!(dir.join("a").exists() && !dir.join("b").exists());
        assert!(deputy.ask(&Request::new().call(libc::SYS_mkdirat, &mkdir(c"b"))).is_ok());
        drop(deputy);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_deputy_that_has_ended_is_an_error() {
        if !is_root() {
            return;
        }
        let deputy = deputy();
        let exit = Request::new().call(libc::SYS_exit_group, &[Arg::Number(0)]);
        assert!(deputy.ask(&exit).is_err());
        assert!(deputy.ask(&exit).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_sent() {
        if !is_root() {
            return;
        }
        let deputy = deputy();
        let long = vec![0; MOST_BYTES];
        let request = Request::new().call(libc::SYS_write, &[Arg::Number(1), Arg::Bytes(&long)]);
        assert_eq!(deputy.ask(&request), Err(Refusal::of(Errno::TOOBIG)));
        assert!(deputy.ask(&Request::new().call(libc::SYS_getpid, &[])).is_ok());
    }
}
