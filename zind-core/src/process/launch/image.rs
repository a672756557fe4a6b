//! The launcher's image: a file in memory that nobody can change, or one without a name.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::errno::Errno;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use crate::error::{At, Error, Result, Step};

pub(in crate::process) fn memory_file(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).at(Step::Memfd, "memfd_create", name)?;
    write_all(&fd, bytes).at(Step::Memfd, "write", name)?;
    Ok(fd)
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(fd, bytes))?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// The launcher's image, made once in this process.
static IMAGE: Mutex<Option<std::sync::Arc<OwnedFd>>> = Mutex::new(None);

pub(super) fn image() -> Result<std::sync::Arc<OwnedFd>> {
    let mut slot = IMAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(image) = slot.as_ref() {
        return Ok(image.clone());
    }
    let image = std::sync::Arc::new(sealed_image().or_else(|error| image_file().map_err(|_| error))?);
    *slot = Some(image.clone());
    Ok(image)
}

/// A memory file that nobody, the payload least of all, can change (CVE-2019-5736).
fn sealed_image() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC, from Linux 6.3 on, says that it is meant to be executed; older kernels do not know it.
    let fd = rustix::fs::memfd_create("zind-init", flags | MemfdFlags::EXEC)
        .or_else(|_| {
            if memfds_may_execute() {
                rustix::fs::memfd_create("zind-init", flags)
            } else {
                Err(rustix::io::Errno::ACCESS)
            }
        })
        .at(Step::Memfd, "memfd_create", "zind-init")?;
    write_all(&fd, zind_init::IMAGE).at(Step::Memfd, "write", "zind-init")?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).at(Step::Memfd, "fcntl", "zind-init")?;
    Ok(fd)
}

fn memfds_may_execute() -> bool {
    std::fs::read_to_string("/proc/sys/vm/memfd_noexec").map_or(true, |value| value.trim() == "0")
}

/// Where memory files may not be executed (`vm.memfd_noexec=2`): a file without a name.
fn image_file() -> Result<OwnedFd> {
    let mut last = Error::sys(Step::Memfd, "open", "/tmp", Errno::ENOENT);
    for place in places() {
        match unnamed_executable(&place) {
            Ok(fd) => return Ok(fd),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn file_to_execute(place: &Path) -> Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(place, flags, Mode::from_raw_mode(0o700)).at(Step::Memfd, "open", place)?;
    let flags = rustix::fs::fstatvfs(&file).at(Step::Memfd, "fstatvfs", place)?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        return Err(Error::sys(Step::Memfd, "open", place, Errno::EACCES).with_hint("it is mounted noexec"));
    }
    Ok(file)
}

/// Where the launcher could be executed from if not from memory: each place, and whether it can be there.
pub(crate) fn places_to_execute() -> Vec<(PathBuf, Result<()>)> {
    places().map(|place| (place.clone(), file_to_execute(&place).map(drop))).collect()
}

fn places() -> impl Iterator<Item = PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime.into_iter().chain(["/run", "/dev/shm", "/tmp", "/var/tmp"].map(PathBuf::from))
}

fn unnamed_executable(place: &Path) -> Result<OwnedFd> {
    let file = file_to_execute(place)?;
    write_all(&file, zind_init::IMAGE).at(Step::Memfd, "write", place)?;
    // A file that is open for writing cannot be executed.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Memfd, "open", place)
}
