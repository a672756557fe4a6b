//! Entering and leaving namespaces, and what they hold: host name, loopback, numbers.

use super::Result;
use super::descriptors::close;

/// The mount namespace of the process behind a pidfd; from Linux 6.11 on. pidfd's ioctls: `PIDFD_GET_MNT_NAMESPACE`.
pub fn mount_namespace(pidfd: i32) -> Result<i32> {
    const PIDFD_GET_MNT_NAMESPACE: usize = 0xff03;
    call!(IOCTL, pidfd, PIDFD_GET_MNT_NAMESPACE, 0).map(|fd| fd as i32)
}

pub fn setns(fd: i32, flags: u32) -> Result {
    call!(SETNS, fd, flags)
}

pub fn unshare(flags: u64) -> Result {
    call!(UNSHARE, flags)
}

pub fn sethostname(name: &[u8]) -> Result {
    call!(SETHOSTNAME, name.as_ptr(), name.len())
}

pub fn setdomainname(name: &[u8]) -> Result {
    call!(SETDOMAINNAME, name.as_ptr(), name.len())
}

/// `ip link set lo up`, with the oldest interface there is: netdevice(7).
pub fn loopback_up() -> Result<()> {
    const AF_INET: usize = 2;
    const SOCK_DGRAM_CLOEXEC: usize = 2 | 0o2000000;
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP_RUNNING: u8 = 0x41;
    let fd = call!(SOCKET, AF_INET, SOCK_DGRAM_CLOEXEC, 0)? as i32;
    let mut request = [0u8; 40];
    request[0] = b'l';
    request[1] = b'o';
    request[16] = IFF_UP_RUNNING;
    let result = call!(IOCTL, fd, SIOCSIFFLAGS, request.as_ptr());
    close(fd);
    result.map(drop)
}

/// `struct utsname`: six fields of 65 bytes.
pub fn uname(fields: &mut [u8; 390]) -> Result {
    call!(UNAME, fields.as_mut_ptr())
}

/// A number for the network namespace in which a socket was made; from Linux 5.14 on: `SO_NETNS_COOKIE` of socket(7).
pub fn network_cookie(socket: i32) -> Result<u64> {
    const SOL_SOCKET: usize = 1;
    const SO_NETNS_COOKIE: usize = 71;
    let (mut cookie, mut length) = (0u64, 8u32);
    call!(GETSOCKOPT, socket, SOL_SOCKET, SO_NETNS_COOKIE, &raw mut cookie, &raw mut length)?;
    Ok(cookie)
}
