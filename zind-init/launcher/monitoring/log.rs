//! The log of a container: records in files that follow each other. A full disk costs records, never the payload's time.

use core::mem::size_of;

use crate::monitor::{LOG_MARK, LOST, LogHead, Monitor, NUMBER};
use crate::planfile::bytes_of;
use crate::sys::{self, CStr, O_CREAT, O_WRONLY};

const O_APPEND: u32 = 0o2000;
const O_NOFOLLOW: u32 = 0o400000;
const O_TRUNC: u32 = 0o1000;
/// Of a file with nothing but its number in it.
const EMPTY_LENGTH: u64 = size_of::<LogHead>() as u64 + 16;

pub struct Log {
    dir: i32,
    /// -1: it could not be opened.
    file: i32,
    length: u64,
    size: u64,
    number: u64,
    files: u32,
    /// Bytes of output that are in it, were in files that are gone, or are told as lost.
    bytes: u64,
    /// Lost since the last record: how many, and bytes in them.
    lost: [u64; 2],
    pub lost_records: u64,
    pub lost_bytes: u64,
}

impl Log {
    pub fn new(monitor: &Monitor) -> Log {
        Log {
            dir: monitor.dir,
            file: monitor.log,
            length: monitor.log_length,
            size: monitor.log_size,
            number: monitor.log_number,
            files: monitor.log_files,
            bytes: monitor.log_bytes,
            lost: [0; 2],
            lost_records: 0,
            lost_bytes: 0,
        }
    }

    /// Appends a record.
    pub fn write(&mut self, stream: u8, bytes: &[u8]) {
        if self.files == 0 {
            return;
        }
        let most = self.size.saturating_sub(EMPTY_LENGTH + size_of::<LogHead>() as u64).max(1);
        bytes.chunks(most as usize).for_each(|part| self.write_part(stream, part));
    }

    fn write_part(&mut self, stream: u8, bytes: &[u8]) {
        let longer = (size_of::<LogHead>() + bytes.len()) as u64;
        if self.file < 0 || self.length > EMPTY_LENGTH && self.length + longer > self.size {
            self.begin_another();
        }
        if self.tell_lost() && self.append(stream, bytes) {
            self.bytes += bytes.len() as u64;
        } else {
            self.lost[0] += 1;
            self.lost[1] += bytes.len() as u64;
            self.lost_records += 1;
            self.lost_bytes += bytes.len() as u64;
        }
    }

    /// Writes down what was lost since the last record. False: there is no room for that either.
    pub fn tell_lost(&mut self) -> bool {
        let lost = self.lost;
        let is_told = lost == [0; 2] || self.append(LOST, bytes_of(&lost));
        if is_told {
            self.bytes += lost[1];
            self.lost = [0; 2];
        }
        is_told
    }

    /// A record as a whole, or nothing of it.
    fn append(&mut self, stream: u8, bytes: &[u8]) -> bool {
        if self.file < 0 {
            return false;
        }
        let head = LogHead { time_ns: sys::now_ns(false), length: bytes.len() as u32, stream, mark: LOG_MARK };
        let whole = size_of::<LogHead>() + bytes.len();
        match sys::write_both(self.file, bytes_of(&head), bytes) {
            Ok(written) if written == whole => {
                self.length += whole as u64;
                true
            }
            Ok(_) => {
                let _ = sys::truncate(self.file, self.length);
                false
            }
            Err(_) => false,
        }
    }

    /// Begins a file, after those there are have moved on by one place.
    fn begin_another(&mut self) {
        if self.file >= 0 {
            sys::close(self.file);
            self.file = -1;
            let (mut from, mut to) = ([0; 16], [0; 16]);
            for place in (0..self.files.saturating_sub(1)).rev() {
                let _ = sys::rename(self.dir, name(place, &mut from), name(place + 1, &mut to));
            }
            if self.files == 1 {
                // Who reads it has it whole, and no other one's middle.
                let _ = sys::unlink(self.dir, name(0, &mut from));
            }
        }
        let flags = O_CREAT | O_WRONLY | O_APPEND | O_NOFOLLOW | O_TRUNC;
        let Ok(file) = sys::openat(self.dir, c"log".as_ptr().cast(), flags, 0o600) else { return };
        self.file = file;
        self.length = 0;
        let next = self.number + 1;
        if self.append(NUMBER, bytes_of(&[next, self.bytes])) {
            self.number = next;
        } else {
            sys::close(file);
            self.file = -1;
        }
    }
}

/// `log`, `log.1`, `log.2`...
fn name(place: u32, text: &mut [u8; 16]) -> CStr {
    *text = *b"log\0\0\0\0\0\0\0\0\0\0\0\0\0";
    if place > 0 {
        let mut digits = [0u8; 12];
        text[3] = b'.';
        for (slot, digit) in text[4..15].iter_mut().zip(crate::watch::decimal(place as i32, &mut digits)) {
            *slot = *digit;
        }
    }
    text.as_ptr()
}
