//! Calls about mounts that no library has: id maps of a detached tree, and files as block devices.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;

/// `mount_setattr(2)` with `MOUNT_ATTR_IDMAP`, on a detached tree.
pub(crate) fn set_idmap(tree: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
    // struct mount_attr: set, clear, propagation, user namespace.
    let attributes = [MOUNT_ATTR_IDMAP, 0, 0, user_namespace.as_raw_fd() as u64];
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty path, and a live structure of the size given.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    })
    .map(drop)
}

/// A file as a block device, which ends with its last user: loop(4).
pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
    /// While this is open the device stays.
    device: OwnedFd,
}

/// `struct loop_config` of `linux/loop.h`, of which only the head is used.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// `lo_device` to `lo_sizelimit`
    place: [u64; 5],
    /// `lo_number`, `lo_encrypt_type`, `lo_encrypt_key_size`
    unused: [u32; 3],
    flags: u32,
    /// Names, keys and what is reserved.
    rest: [u8; 240],
}

impl LoopDevice {
    /// What keeps it.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.device
    }

    /// Finds a free one for `file`.
    pub(crate) fn attach(file: BorrowedFd<'_>, read_only: bool) -> Result<LoopDevice, Errno> {
        const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
        const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
        const LO_FLAGS_READ_ONLY: u32 = 1;
        const LO_FLAGS_AUTOCLEAR: u32 = 4;
        const MOST_TRIES: usize = 64;
        let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        let control = std::fs::File::options().read(true).write(true).open("/dev/loop-control").map_err(errno)?;
        let flags = LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
        let config = LoopConfig {
            fd: file.as_raw_fd() as u32,
            block_size: 0,
            place: [0; 5],
            unused: [0; 3],
            flags,
            rest: [0; 240],
        };
        for _ in 0..MOST_TRIES {
            // SAFETY: this ioctl takes no argument.
            let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = std::fs::File::options().read(true).write(!read_only).open(&path).map_err(errno)?;
            // SAFETY: a live structure of the size the kernel reads.
            match Errno::result(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CONFIGURE, &raw const config) }) {
                Ok(_) => return Ok(LoopDevice { path, device: device.into() }),
                // Somebody else took it in between.
                Err(Errno::EBUSY) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EBUSY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_the_kernels_size() {
        // 2 words, struct loop_info64 (232 bytes), 8 reserved ones: linux/loop.h.
        assert_eq!(size_of::<LoopConfig>(), 8 + 232 + 64);
    }
}
