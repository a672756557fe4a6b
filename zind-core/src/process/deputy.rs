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
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use zind_init::deputy::{ANSWER, Answer, Call, Kind, MOST_BYTES, MOST_CALLS, MOST_FDS, Message, SEND_RESULT};

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
    /// The result of an earlier call of the same request.
    Result(usize),
    /// Memory of this many bytes, which come with the answer.
    Out(usize),
}

/// System calls to be made one after the other, up to the first that fails.
#[derive(Default)]
pub(crate) struct Request<'a> {
    calls: Vec<(u64, bool, [Arg<'a>; 6])>,
    tag: u64,
}

/// A call that failed: of which request, which call of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) tag: u64,
    pub(crate) index: usize,
    pub(crate) errno: Errno,
}

impl Refusal {
    /// The deputy itself is not there any more, or a request does not fit into a message.
    fn of(errno: Errno) -> Refusal {
        Refusal { tag: 0, index: 0, errno }
    }
}

impl<'a> Request<'a> {
    /// A request whose failure is told by this number.
    pub(crate) fn new(tag: u64) -> Request<'a> {
        Request { calls: Vec::new(), tag }
    }

    /// Adds a call.
    #[must_use]
    pub(crate) fn call(self, number: i64, arguments: &[Arg<'a>]) -> Request<'a> {
        self.add(number, false, arguments)
    }

    /// Adds a call whose result is a descriptor, for the calls after it.
    #[must_use]
    pub(crate) fn opening(self, number: i64, arguments: &[Arg<'a>]) -> Request<'a> {
        self.add(number, true, arguments)
    }

    fn add(mut self, number: i64, closes: bool, arguments: &[Arg<'a>]) -> Request<'a> {
        let mut all = [Arg::Number(0); 6];
        for (slot, argument) in all.iter_mut().zip(arguments) {
            *slot = *argument;
        }
        self.calls.push((number.unsigned_abs(), closes, all));
        self
    }

    /// The message, and the descriptors that go with it.
    fn encode(&self, flags: u32) -> Result<(Vec<u8>, Vec<BorrowedFd<'a>>), Errno> {
        let head = size_of::<Message>() + size_of::<Call>() * self.calls.len();
        let (mut calls, mut bytes) = (Vec::with_capacity(head), Vec::new());
        let (mut fds, mut out) = (Vec::new(), 0);
        calls.extend_from_slice(&flags.to_ne_bytes());
        calls.extend_from_slice(&u32::try_from(self.calls.len()).unwrap_or(u32::MAX).to_ne_bytes());
        calls.extend_from_slice(&self.tag.to_ne_bytes());
        for (number, closes, arguments) in &self.calls {
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
                    Arg::Result(index) => (Kind::Result, index as u64),
                    Arg::Out(length) => {
                        out += length;
                        (Kind::Out, (out - length) as u64)
                    }
                };
                (kinds[place], values[place]) = (kind as u8, value);
            }
            calls.extend_from_slice(&number.to_ne_bytes());
            calls.extend_from_slice(&kinds);
            calls.extend_from_slice(&[u8::from(*closes), 0]);
            values.iter().for_each(|value| calls.extend_from_slice(&value.to_ne_bytes()));
        }
        let fits = self.calls.len() <= MOST_CALLS && fds.len() <= MOST_FDS && out <= MOST_BYTES;
        calls.append(&mut bytes);
        if fits && calls.len() <= MOST_BYTES { Ok((calls, fds)) } else { Err(Errno::E2BIG) }
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

    /// Has calls made. Nobody waits for them: the next answer tells the first failure, and what came after it was not made.
    pub(crate) fn tell(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        send(starting.fd(), request, 0).map_err(Refusal::of)
    }

    /// Has calls made: the result of the last one, and the bytes that they wrote.
    pub(crate) fn ask(&self, request: &Request<'_>) -> Result<(i64, Vec<u8>), Refusal> {
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        send(starting.fd(), request, ANSWER).map_err(Refusal::of)?;
        receive(starting.fd()).map(|(result, bytes, _)| (result, bytes))
    }

    /// Has calls made of which the last opens something, which is ours then.
    pub(crate) fn open(&self, request: &Request<'_>) -> Result<OwnedFd, Refusal> {
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        send(starting.fd(), request, ANSWER | SEND_RESULT).map_err(Refusal::of)?;
        let (_, _, fd) = receive(starting.fd())?;
        // None came, because we have as many as we may have.
        fd.ok_or(Refusal::of(Errno::EMFILE))
    }

    /// Waits until everything that was told is done.
    pub(crate) fn finish(&self) -> Result<(), Refusal> {
        self.ask(&Request::new(0)).map(drop)
    }
}

fn send(socket: BorrowedFd<'_>, request: &Request<'_>, flags: u32) -> Result<(), Errno> {
    let (message, fds) = request.encode(flags)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::E2BIG);
    }
    let pieces = [IoSlice::new(&message)];
    rustix::io::retry_on_intr(|| sendmsg(socket, &pieces, &mut ancillary, SendFlags::NOSIGNAL))
        .map_err(crate::error::IntoErrno::into_errno)?;
    Ok(())
}

/// The answer: the last result, the bytes, and a descriptor, if one came.
fn receive(socket: BorrowedFd<'_>) -> Result<(i64, Vec<u8>, Option<OwnedFd>), Refusal> {
    let mut bytes = vec![0u8; size_of::<Answer>() + MOST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Refusal::of(Errno::from_raw(errno.raw_os_error()))),
            Ok(message) => break message.bytes,
        }
    };
    let mut fd = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fd = fds.next();
        }
    }
    if length < size_of::<Answer>() {
        return Err(Refusal::of(Errno::ESRCH));
    }
    let word = |at: usize| bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_ne_bytes);
    let short = |at: usize| bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, i32::from_ne_bytes);
    let (result, tag, index, errno) = (word(0), word(8), short(16), short(20));
    if errno != 0 {
        return Err(Refusal { tag, index: index.unsigned_abs() as usize, errno: Errno::from_raw(errno) });
    }
    bytes.truncate(length);
    bytes.drain(..size_of::<Answer>());
    Ok((result.cast_signed(), bytes, fd))
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_deputy_gives_files_to_ids_of_its_namespace() {
        if !is_root() {
            return;
        }
        let dir = std::env::temp_dir().join(format!("zind-deputy-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let place = rustix::fs::open(&dir, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let deputy = deputy();
        let create = (libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC) as u64;
        for number in 0..200u32 {
            let name = std::ffi::CString::new(number.to_string()).unwrap();
            let arguments = [Arg::Fd(place.as_fd()), Arg::Text(&name), Arg::Number(create), Arg::Number(0o600)];
            let file = deputy.open(&Request::new(1).call(libc::SYS_openat, &arguments)).unwrap();
            rustix::io::write(&file, b"content").unwrap();
            let ids = [Arg::Fd(file.as_fd()), Arg::Number(5), Arg::Number(6)];
            let mode = [Arg::Fd(file.as_fd()), Arg::Number(0o4711)];
            deputy.tell(&Request::new(2).call(libc::SYS_fchown, &ids).call(libc::SYS_fchmod, &mode)).unwrap();
        }
        deputy.finish().unwrap();
        for number in 0..200u32 {
            let file = std::fs::metadata(dir.join(number.to_string())).unwrap();
            assert_eq!((file.uid(), file.gid(), file.mode()), (200_004, 200_005, 0o104_711));
            assert_eq!(file.size(), 7);
        }
        drop(deputy);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_first_failure_is_told_and_what_follows_is_not_made() {
        if !is_root() {
            return;
        }
        let dir = std::env::temp_dir().join(format!("zind-deputy-failure-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let place = rustix::fs::open(&dir, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let deputy = deputy();
        let mkdir = |name| [Arg::Fd(place.as_fd()), Arg::Text(name), Arg::Number(0o700)];
        let request = |tag, name| Request::new(tag).call(libc::SYS_mkdirat, &mkdir(name));
        deputy.tell(&request(1, c"a")).unwrap();
        deputy
            .tell(&request(2, c"b").call(libc::SYS_mkdirat, &mkdir(c"a")).call(libc::SYS_mkdirat, &mkdir(c"c")))
            .unwrap();
        deputy.tell(&request(3, c"d")).unwrap();
        assert_eq!(deputy.finish(), Err(Refusal { tag: 2, index: 1, errno: Errno::EEXIST }));
        assert!(dir.join("b").exists() && !dir.join("c").exists() && !dir.join("d").exists());
        deputy.tell(&request(4, c"d")).unwrap();
        deputy.finish().unwrap();
        // What calls write comes back: an opened directory is read by its entries.
        let flags = Arg::Number((libc::O_RDONLY | libc::O_DIRECTORY) as u64);
        let list = Request::new(5)
            .opening(libc::SYS_openat, &[Arg::Fd(place.as_fd()), Arg::Text(c"."), flags])
            .call(libc::SYS_getdents64, &[Arg::Result(0), Arg::Out(4096), Arg::Number(4096)]);
        let (length, bytes) = deputy.ask(&list).unwrap();
        assert!(length > 0 && bytes.len() == 4096);
        assert!(bytes.windows(3).any(|part| part == b"d\0\0"));
        drop(deputy);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_deputy_of_an_ended_process_is_told_so() {
        if !is_root() {
            return;
        }
        let deputy = deputy();
        let exit = Request::new(1).call(libc::SYS_exit_group, &[Arg::Number(0)]);
        assert_eq!(deputy.ask(&exit).map_err(|refusal| refusal.errno), Err(Errno::ESRCH));
        let _ = deputy.tell(&exit);
        assert!(deputy.finish().is_err());
    }
}
