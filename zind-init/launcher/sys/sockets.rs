//! Local sockets, whose messages carry descriptors: unix(7).

use super::descriptors::{Iov, close};
use super::{EINTR, Result, again_if_interrupted};

/// The next connection, if there is one.
pub fn accept(listener: i32) -> Result<i32> {
    const SOCK_CLOEXEC_NONBLOCK: usize = 0o2004000;
    again_if_interrupted(|| call!(ACCEPT4, listener, 0, 0, SOCK_CLOEXEC_NONBLOCK)).map(|fd| fd as i32)
}

/// One message, if there is one. 0: the sender is gone.
pub fn receive_now(socket: i32, buffer: &mut [u8]) -> Result {
    const MSG_DONTWAIT: usize = 0x40;
    again_if_interrupted(|| call!(RECVFROM, socket, buffer.as_mut_ptr(), buffer.len(), MSG_DONTWAIT, 0, 0))
}

/// Sends one message with a descriptor, if it is not negative, or says why that would have to wait.
pub fn send_now(socket: i32, message: &[u8], fd: i32) -> Result {
    again_if_interrupted(|| send_descriptors(socket, message, [fd, -1]))
}

/// A pair of connected sockets that keep messages apart; each is told who has sent one.
pub fn message_pair() -> Result<[i32; 2]> {
    const AF_UNIX: usize = 1;
    const SOCK_SEQPACKET_CLOEXEC: usize = 5 | 0o2000000;
    let mut pair = [-1i32; 2];
    call!(SOCKETPAIR, AF_UNIX, SOCK_SEQPACKET_CLOEXEC, 0, pair.as_mut_ptr())?;
    Ok(pair)
}

/// `struct msghdr`: name, its length, the pieces, their number, control data, its length, flags.
#[repr(C)]
struct MessageHeader(usize, u32, *const Iov, usize, *const u8, usize, i32);

/// Receives one message and the descriptors that come with it, which fill `fds` from the front. 0: the sender is gone.
pub fn receive<const N: usize>(socket: i32, buffer: &mut [u8], fds: &mut [i32; N]) -> Result {
    receive_from(socket, buffer, fds).map(|(length, _)| length)
}

/// The same; and who has sent it, if the socket asks for that, or 0.
pub fn receive_from<const N: usize>(socket: i32, buffer: &mut [u8], fds: &mut [i32; N]) -> Result<(usize, i32)> {
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    const CONTROL_HEADER: usize = 16;
    const SCM_RIGHTS: u64 = 1;
    const SCM_CREDENTIALS: u64 = 2;
    // A header, and more descriptors than anybody sends; another one, and who that is.
    let mut control = [0u64; 24];
    loop {
        let iov = Iov(buffer.as_mut_ptr(), buffer.len());
        let mut header = MessageHeader(0, 0, &raw const iov, 1, control.as_mut_ptr().cast(), size_of_val(&control), 0);
        match call!(RECVMSG, socket, &raw mut header, MSG_CMSG_CLOEXEC) {
            Err(EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(length) => {
                // The kernel has written back how much control data there is.
                let words = control.get(..header.5 / 8).unwrap_or(&[]);
                let (mut at, mut sender, mut filled) = (0, 0, 0);
                while let Some([len, kind, data @ ..]) = words.get(at..) {
                    let count = (*len as usize).saturating_sub(CONTROL_HEADER) / size_of::<i32>();
                    let number =
                        |index: usize| data.get(index / 2).map_or(-1, |word| (word >> (32 * (index % 2))) as i32);
                    match kind >> 32 {
                        SCM_RIGHTS => {
                            for index in 0..count {
                                match fds.get_mut(filled) {
                                    Some(slot) => *slot = number(index),
                                    None => close(number(index)),
                                }
                                filled += 1;
                            }
                        }
                        SCM_CREDENTIALS if count > 0 => sender = number(0),
                        _ => {}
                    }
                    at += (*len as usize).div_ceil(8).max(2);
                }
                return Ok((length, sender));
            }
        }
    }
}

/// Has the socket tell who sends.
pub fn tell_senders(socket: i32) -> Result {
    const SOL_SOCKET: usize = 1;
    const SO_PASSCRED: usize = 16;
    let yes = 1u32;
    call!(SETSOCKOPT, socket, SOL_SOCKET, SO_PASSCRED, &raw const yes, size_of::<u32>())
}

/// Nobody can send us anything more; what was sent can be received.
pub fn shutdown_reading(socket: i32) -> Result {
    const SHUT_RD: usize = 0;
    call!(SHUTDOWN, socket, SHUT_RD)
}

/// Sends one message, with a descriptor if it is not negative. A reader that is gone is no error of ours.
pub fn send(socket: i32, message: &[u8], fd: i32) {
    let _ = tell(socket, message, fd);
}

/// The same; tells whether it was sent.
pub fn tell(socket: i32, message: &[u8], fd: i32) -> Result {
    again_if_interrupted(|| send_descriptors(socket, message, [fd, -1]))
}

/// Sends a message with up to two descriptors; those that are negative, and what follows them, are left out.
fn send_descriptors(socket: i32, message: &[u8], fds: [i32; 2]) -> Result {
    #[repr(C)]
    struct Control(usize, i32, i32, [i32; 2]);
    const SOL_SOCKET: i32 = 1;
    const SCM_RIGHTS: i32 = 1;
    const MSG_NOSIGNAL: usize = 0x4000;
    let count = fds.iter().take_while(|&&fd| fd >= 0).count();
    let iov = Iov(message.as_ptr(), message.len());
    let control = Control(16 + 4 * count, SOL_SOCKET, SCM_RIGHTS, fds);
    let control_len = if count == 0 { 0 } else { size_of::<Control>() };
    let header = MessageHeader(0, 0, &raw const iov, 1, (&raw const control).cast(), control_len, 0);
    call!(SENDMSG, socket, &raw const header, MSG_NOSIGNAL)
}

/// Puts `fd` where only the kernel's garbage collector of sockets finds it, which then closes it in its own time: into the
/// queue of a socket that only this queue holds. Otherwise it is closed at once.
pub fn close_later(fd: i32) {
    const AF_UNIX: i32 = 1;
    const SOCK_DGRAM: i32 = 2;
    let mut pair = [-1i32; 2];
    if call!(SOCKETPAIR, AF_UNIX, SOCK_DGRAM, 0, pair.as_mut_ptr()).is_ok() {
        let [sender, receiver] = pair;
        let _ = send_descriptors(sender, b".", [receiver, fd]);
        close(receiver);
        // The end of a socket is what wakes the collector, so the sender goes after the receiver.
        close(sender);
    }
    close(fd);
}

/// A socket of nothing but this machine.
pub fn local_socket() -> Result<i32> {
    const AF_UNIX: usize = 1;
    const SOCK_DGRAM_CLOEXEC: usize = 2 | 0o2000000;
    call!(SOCKET, AF_UNIX, SOCK_DGRAM_CLOEXEC, 0).map(|fd| fd as i32)
}
