//! The digest of a file or tree that is to be copied: names, types, permissions, extended attributes, contents and link
//! targets. Times and owners do not count.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{At, Error, Result, Step};
use crate::image::{Algorithm, Digest, Hasher};

/// Digest of what is at `path`.
/// Errors: [`Error::Sys`] at [`Step::Build`] with the path of what cannot be read.
pub(super) fn digest(path: &Path, interrupted: &mut dyn FnMut() -> bool) -> Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut waiting = vec![(PathBuf::new(), path.to_owned())];
    let mut buffer = vec![0; 1 << 17];
    while let Some((name, path)) = waiting.pop() {
        if interrupted() {
            return Err(Error::Interrupted);
        }
        // A link as the source itself is copied as a link, unless its path ends with a slash or a dot.
        let meta = std::fs::symlink_metadata(&path).at(Step::Build, "lstat", &path)?;
        let name_bytes = name.as_os_str().as_bytes();
        hasher.update(format!("{} {:o} {} ", name_bytes.len(), meta.mode(), meta.rdev()).as_bytes());
        hasher.update(name_bytes);
        attributes(&path, &mut hasher)?;
        if meta.is_symlink() {
            let target = std::fs::read_link(&path).at(Step::Build, "readlink", &path)?;
            hasher.update(format!("{} ", target.as_os_str().len()).as_bytes());
            hasher.update(target.as_os_str().as_bytes());
        } else if meta.is_dir() {
            let entries = std::fs::read_dir(&path).at(Step::Build, "open", &path)?;
            let mut names = Vec::new();
            for entry in entries {
                names.push(entry.at(Step::Build, "getdents64", &path)?.file_name());
            }
            names.sort();
            waiting.extend(names.iter().rev().map(|child| (name.join(child), path.join(child))));
        } else if meta.is_file() {
            hasher.update(content(&path, &mut buffer, interrupted)?.as_bytes());
        }
    }
    Ok(hasher.finish())
}

/// Those that are copied along. Who may not read them copies none.
fn attributes(path: &Path, hasher: &mut Hasher) -> Result<()> {
    let mut buffer = vec![0; LARGEST_ATTRIBUTE];
    let Ok(length) = rustix::fs::llistxattr(path, buffer.as_mut_slice()) else { return Ok(()) };
    let mut names: Vec<Vec<u8>> =
        buffer[..length].split(|&byte| byte == 0).filter(|name| counts(name)).map(<[u8]>::to_vec).collect();
    names.sort();
    hasher.update(format!("{} ", names.len()).as_bytes());
    for name in names {
        let length = match rustix::fs::lgetxattr(path, name.as_slice(), buffer.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::NODATA | Errno::ACCESS | Errno::PERM) => continue,
            Err(errno) => return Err(errno).at(Step::Build, "lgetxattr", path),
        };
        hasher.update(format!("{} {length} ", name.len()).as_bytes());
        hasher.update(&name);
        hasher.update(&buffer[..length]);
    }
    Ok(())
}

/// The most that the kernel gives: `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
const LARGEST_ATTRIBUTE: usize = 1 << 16;

fn counts(name: &[u8]) -> bool {
    !name.is_empty() && (!name.starts_with(b"security.") || name == b"security.capability")
}

fn content(path: &Path, buffer: &mut [u8], interrupted: &mut dyn FnMut() -> bool) -> Result<Digest> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut file = File::options().read(true).custom_flags(flags).open(path).at(Step::Build, "open", path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at(Step::Build, "read", path),
        }
        if interrupted() {
            return Err(Error::Interrupted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn content_decides_and_times_do_not() {
        let place = std::env::temp_dir().join(format!("zind-test-tree-{}", std::process::id()));
        std::fs::create_dir_all(place.join("d/e")).unwrap();
        std::fs::write(place.join("d/file"), "1").unwrap();
        let digest = || digest(&place, &mut || false).unwrap();
        let first = digest();
        std::fs::write(place.join("d/file"), "1").unwrap();
        assert_eq!(digest(), first);
        let mut seen = vec![first];
        let mut changed = |what: &str| {
            let now = digest();
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        std::fs::write(place.join("d/file"), "2").unwrap();
        changed("content");
        std::fs::set_permissions(place.join("d/file"), PermissionsExt::from_mode(0o600)).unwrap();
        changed("mode");
        std::fs::rename(place.join("d/file"), place.join("d/e/file")).unwrap();
        changed("place");
        std::os::unix::fs::symlink("e", place.join("d/link")).unwrap();
        changed("link");
        let mark = |value: &[u8]| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(place.join("d/e/file"), "user.mark", value, flags).unwrap();
        };
        mark(b"1");
        changed("attribute");
        mark(b"2");
        changed("value of an attribute");
        std::fs::remove_dir_all(place).unwrap();
    }
}
