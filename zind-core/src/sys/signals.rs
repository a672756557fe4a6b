//! Signals as values: blocked in the calling thread, and read from a descriptor.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use crate::error::{At, Error, Result, Step};

/// Some signals, which do to this thread what they usually do no more but can be read. Dropped, all is as before.
///
/// Signals for the whole process go to any thread that does not block them: this is for programs whose other threads do,
/// or that have none. Source: <https://man7.org/linux/man-pages/man2/signalfd.2.html>
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    before: libc::sigset_t,
    /// The mask belongs to the thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Signals {
    /// Takes these signals from now on.
    ///
    /// Errors: [`Error::Spec`] for a number that is no signal; [`Error::Sys`] at [`Step::Terminal`].
    pub fn take(signals: &[i32]) -> Result<Signals> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: fills in the set.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for &signal in signals {
            // SAFETY: a live set and a number, which is checked.
            if unsafe { libc::sigaddset(&raw mut set, signal) } != 0 {
                return Err(Error::spec("signal", format!("{signal} is no signal")));
            }
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: a live set; -1 asks for a new descriptor.
        let fd = Errno::result(unsafe { libc::signalfd(-1, &raw const set, flags) });
        // SAFETY: fresh, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd.at(Step::Terminal, "signalfd", "")?) };
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: two live sets, of which the second is filled in.
        let before = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr());
            before.assume_init()
        };
        Ok(Signals { fd, before, _not_send: std::marker::PhantomData })
    }

    /// The next one that has come, if there is one. [`Signals::fd`] tells when.
    pub fn next(&self) -> Option<i32> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        loop {
            // SAFETY: the buffer has that size.
            let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
            match Errno::result(read) {
                // SAFETY: the kernel filled it in as a whole.
                Ok(read) if read as usize == size => return Some(unsafe { info.assume_init().ssi_signo as i32 }),
                Err(Errno::EINTR) => {}
                _ => return None,
            }
        }
    }

    /// Becomes readable when one has come.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by the kernel, on this very thread.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_comes_as_a_value() {
        let signals = Signals::take(&[libc::SIGWINCH, libc::SIGUSR2]).unwrap();
        assert_eq!(signals.next(), None);
        // SAFETY: a signal for this thread, which blocks it.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
        assert_eq!(signals.next(), Some(libc::SIGUSR2));
        assert!(Signals::take(&[0]).is_err());
    }
}
