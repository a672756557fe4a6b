//! The number under which one network namespace knows another: `RTM_GETNSID` of rtnetlink(7).
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt};

const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const NLM_F_REQUEST: u16 = 1;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// `nlmsghdr` and `rtgenmsg`, each with the room that is left up to a multiple of four bytes.
const HEADS: usize = 20;
/// The kernel answers while it is asked; whoever stands in for it must not keep us.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection on which the network namespace of the caller is asked.
#[derive(Debug)]
pub(crate) struct Numbers(OwnedFd);

impl Numbers {
    /// `None`: this kernel, or a filter, has no such sockets.
    pub(crate) fn open() -> Option<Numbers> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).ok()?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE)).ok()?;
        Some(Numbers(socket))
    }

    /// The number of this network namespace; `None` if it has got none, which only happens on purpose (`ip netns set`) or when a
    /// device leads into it, or for what is no network namespace.
    pub(crate) fn of(&self, namespace: BorrowedFd<'_>) -> Option<u32> {
        let asked = question(namespace.as_raw_fd());
        rustix::io::retry_on_intr(|| send(&self.0, &asked, SendFlags::empty())).ok()?;
        let mut answer = vec![0; 256];
        let length = rustix::io::retry_on_intr(|| recv(&self.0, answer.as_mut_slice(), RecvFlags::empty())).ok()?.0;
        number(answer.get(..length)?)
    }
}

fn question(fd: i32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADS + 8);
    bytes.extend_from_slice(&(HEADS as u32 + 8).to_ne_bytes());
    bytes.extend_from_slice(&RTM_GETNSID.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    // The number of the message, the sender (the kernel fills it in), and the family: none.
    bytes.extend_from_slice(&[0; 12]);
    bytes.extend_from_slice(&8u16.to_ne_bytes());
    bytes.extend_from_slice(&NETNSA_FD.to_ne_bytes());
    bytes.extend_from_slice(&fd.to_ne_bytes());
    bytes
}

/// What an answer says: an error, or one that is not ours, says nothing.
fn number(answer: &[u8]) -> Option<u32> {
    let half = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let word = |bytes: &[u8], at: usize| Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(word(answer, 0)?).ok()?;
    if half(answer, 4)? != RTM_NEWNSID {
        return None;
    }
    let mut rest = answer.get(HEADS..length)?;
    while let (Some(length), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        if kind == NETNSA_NSID {
            // Without one it is -1.
            return word(rest.get(..usize::from(length))?, 4).and_then(|number| u32::try_from(number).ok());
        }
        rest = rest.get(usize::from(length.max(4)).next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_answer_is_read_within_its_bounds() {
        let mut answer = question(7);
        answer[4..6].copy_from_slice(&RTM_NEWNSID.to_ne_bytes());
        assert_eq!(number(&answer), None, "an attribute of another kind");
        answer[22..24].copy_from_slice(&NETNSA_NSID.to_ne_bytes());
        assert_eq!(number(&answer), Some(7));
        answer[24..28].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(number(&answer), None, "none was given");
        for length in 0..answer.len() {
            assert_eq!(number(&answer[..length]), None);
        }
        answer[20..22].copy_from_slice(&0u16.to_ne_bytes());
        assert_eq!(number(&answer), None, "an attribute without a length");
        answer[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(number(&answer), None, "a length beyond the answer");
        answer[4..6].copy_from_slice(&2u16.to_ne_bytes());
        assert_eq!(number(&answer), None, "an error");
    }

    #[test]
    fn what_is_no_network_namespace_has_no_number() {
        let numbers = Numbers::open().unwrap();
        assert_eq!(numbers.of(std::fs::File::open("/proc/self/ns/uts").unwrap().as_fd()), None);
        assert_eq!(numbers.of(std::fs::File::open("/dev/null").unwrap().as_fd()), None);
    }
}
