//! New files come into being under a name of their own and are renamed: nobody sees half of one, nothing at the target is
//! followed, and a failure leaves nothing.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::rootfs::fault::{By, Fault};

const ATTEMPTS: usize = 32;

/// An entry under a temporary name, which goes away unless it is put in its place.
#[derive(Debug)]
pub(crate) struct Temp<'a> {
    dir: BorrowedFd<'a>,
    name: String,
}

impl<'a> Temp<'a> {
    /// Makes an entry by `make`, which gets the name and must fail where there is one already.
    pub(crate) fn make<T>(
        dir: BorrowedFd<'a>,
        call: &'static str,
        mut make: impl FnMut(&str) -> rustix::io::Result<T>,
    ) -> Result<(Temp<'a>, T), Fault> {
        for _ in 0..ATTEMPTS {
            let name = unused_name();
            match make(&name) {
                Err(Errno::EXIST | Errno::INTR) => {}
                Err(errno) => return Err(Fault::new(call, errno)),
                Ok(made) => return Ok((Temp { dir, name }, made)),
            }
        }
        Err(Fault::new(call, Errno::EXIST))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Gives the entry its name. Without `overwrite` an entry that is there is an error.
    pub(crate) fn place(self, name: &OsStr, overwrite: bool) -> Result<(), Fault> {
        if overwrite {
            return renameat(self.dir, &self.name, self.dir, name).by("renameat");
        }
        match renameat_with(self.dir, &self.name, self.dir, name, RenameFlags::NOREPLACE) {
            // Not every file system can; a link does not replace anything either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(self.dir, &self.name, self.dir, name, AtFlags::empty()).by("linkat")
            }
            result => result.by("renameat2"),
        }
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        // After a rename it is gone, except where both names were links to one file, which rename(2) leaves alone.
        if unlinkat(self.dir, &self.name, AtFlags::empty()) == Err(Errno::ISDIR) {
            let _ = unlinkat(self.dir, &self.name, AtFlags::REMOVEDIR);
        }
    }
}

/// A name that nobody can foresee.
pub(crate) fn unused_name() -> String {
    format!(".zind-{:016x}", RandomState::new().hash_one(std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{Mode, mkdirat, symlinkat};

    use super::*;

    #[test]
    fn names_differ() {
        assert_ne!(unused_name(), unused_name());
    }

    #[test]
    fn what_was_not_put_in_its_place_goes_away() {
        let path = std::env::temp_dir().join(unused_name());
        std::fs::create_dir(&path).unwrap();
        let dir = std::fs::File::open(&path).unwrap();
        let (temp, ()) = Temp::make(dir.as_fd(), "mkdirat", |name| mkdirat(&dir, name, Mode::RWXU)).unwrap();
        assert!(path.join(temp.name()).is_dir());
        drop(temp);
        let (temp, ()) = Temp::make(dir.as_fd(), "symlinkat", |name| symlinkat("x", &dir, name)).unwrap();
        drop(temp);
        assert!(std::fs::read_dir(&path).unwrap().next().is_none());
        std::fs::remove_dir(path).unwrap();
    }
}
