//! Pseudo-terminals: ioctl_tty(2).

use super::Result;

pub fn set_controlling_terminal(fd: i32) -> Result {
    const TIOCSCTTY: usize = 0x540E;
    call!(IOCTL, fd, TIOCSCTTY, 0)
}

pub fn drop_controlling_terminal(fd: i32) -> Result {
    const TIOCNOTTY: usize = 0x5422;
    call!(IOCTL, fd, TIOCNOTTY, 0)
}

pub fn set_foreground(fd: i32, group: i32) -> Result {
    const TIOCSPGRP: usize = 0x5410;
    call!(IOCTL, fd, TIOCSPGRP, &raw const group)
}

/// Lets the other end of a pseudo-terminal be opened.
pub fn unlock_terminal(master: i32) -> Result {
    const TIOCSPTLCK: usize = 0x4004_5431;
    let locked = 0i32;
    call!(IOCTL, master, TIOCSPTLCK, &raw const locked)
}

/// Opens the other end, by no path.
pub fn terminal_of(master: i32) -> Result<i32> {
    const TIOCGPTPEER: usize = 0x5441;
    const O_RDWR_NOCTTY_CLOEXEC: usize = 0o2000000 | 0o400 | 2;
    call!(IOCTL, master, TIOCGPTPEER, O_RDWR_NOCTTY_CLOEXEC).map(|fd| fd as i32)
}

/// `struct winsize`: lines, characters, and no size in dots.
pub fn set_window_size(fd: i32, rows: u16, cols: u16) -> Result {
    const TIOCSWINSZ: usize = 0x5414;
    let size = [rows, cols, 0, 0];
    call!(IOCTL, fd, TIOCSWINSZ, size.as_ptr())
}
