//! The plan as the launcher sees it: mapped, checked, its strings and lists by name.

use core::cell::Cell;
use core::ops::Deref;

use crate::exec::Outcome;
use crate::plan::{List, MAGIC, PDEATHSIG, Plan, ROOT_MOVED, Str, Topology, VERSION};
use crate::step::Step;
use crate::sys::{self, CStr};
use crate::{At, Done};

/// A mapped plan. The mapping lasts as long as the program does, or until another one takes its place.
pub struct PlanFile {
    base: *mut u8,
    header: &'static mut Plan,
    /// Of whoever has forked us, if we end with it.
    above: Cell<Option<Outcome>>,
}

impl Deref for PlanFile {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        self.header
    }
}

impl PlanFile {
    /// The report socket has moved.
    pub fn set_socket(&mut self, fd: i32) {
        self.header.socket = fd;
    }

    /// The same of where a listener goes.
    pub fn set_handover(&mut self, fd: i32) {
        self.header.handover = fd;
    }

    /// Descriptors that are ours take the place of the plan's: a pidfd of the owner and one of the container.
    pub fn set_standing(&mut self, owner: i32, container: i32) {
        (self.header.owner, self.header.container) = (owner, container);
    }

    /// Before a fork: with whom the child ends, if there is an owner for whose sake it does, or it is the payload and asks for a signal.
    pub fn set_above(&mut self, outcome: Outcome) {
        if self.owner >= 0 || self.topology != Topology::Init && self.has(PDEATHSIG) {
            outcome.watch_over();
            self.set_forked_by(outcome);
        }
    }

    /// In a child: it ends with the one that this is of, which is watched over.
    pub fn set_forked_by(&self, outcome: Outcome) {
        self.above.set(Some(outcome));
    }

    /// That one has ended. Asked by a child of it that is killed with it from now on.
    pub fn is_abandoned(&self) -> bool {
        self.above.get().is_some_and(|above| above.is_abandoned())
    }

    /// The plan of the next program, when nothing of this one is in use any more: it is unmapped. False if it is none.
    pub fn replace(&mut self, fd: i32) -> bool {
        let Some(next) = from_descriptor(fd) else { return false };
        let (base, size) = (self.base, self.header.size as usize);
        *self = next;
        sys::unmap(base, size);
        true
    }

    /// The root could not be pivoted to.
    pub fn set_root_moved(&mut self) {
        self.header.flags |= ROOT_MOVED;
    }

    pub fn has(&self, flag: u64) -> bool {
        self.header.flags & flag != 0
    }

    /// The string, or a null pointer for "none".
    pub fn str(&self, text: Str) -> CStr {
        if text.0 == 0 { core::ptr::null() } else { self.base.wrapping_add(text.0 as usize) }
    }

    /// The bytes of a string, without the NUL.
    pub fn text(&self, text: Str) -> &'static [u8] {
        if text.0 == 0 {
            return &[];
        }
        let start = self.str(text);
        // SAFETY: the library ends each string in NUL within the mapping, which is never unmapped.
        unsafe { core::slice::from_raw_parts(start, length(start)) }
    }

    /// The bytes of a string, with the NUL.
    pub fn text_and_nul(&self, text: Str) -> &'static [u8] {
        let start = self.str(text);
        // SAFETY: as in `text`.
        unsafe { core::slice::from_raw_parts(start, length(start) + 1) }
    }

    /// The same bytes with their NUL, to be cut into pieces in place.
    pub fn text_mut(&mut self, text: Str) -> &'static mut [u8] {
        let start = self.base.wrapping_add(text.0 as usize);
        // SAFETY: as in `text`; the mapping is private and writable, and one caller at a time edits one string.
        unsafe { core::slice::from_raw_parts_mut(start, length(start) + 1) }
    }

    pub fn list<T: Copy>(&self, list: List<T>) -> &'static [T] {
        if list.len == 0 {
            return &[];
        }
        // SAFETY: the library wrote `len` elements of this type, aligned, within the mapping.
        unsafe { core::slice::from_raw_parts(self.base.wrapping_add(list.offset as usize).cast(), list.len as usize) }
    }

    /// Turns a list of string offsets into the array of pointers that `execve(2)` wants, where it stands. The library
    /// leaves eight bytes for each entry and a zero entry at the end.
    pub fn pointers(&self, list: List<Str>) -> *const CStr {
        let entries: *mut u64 = self.base.wrapping_add(list.offset as usize).cast();
        for i in 0..list.len as usize {
            // SAFETY: `len + 1` entries of eight bytes are within the private, writable mapping.
            unsafe {
                let entry = entries.add(i);
                *entry += self.base as u64;
            }
        }
        entries.cast()
    }
}

/// Bytes before the NUL.
fn length(start: CStr) -> usize {
    let mut len = 0;
    // SAFETY: a NUL is within the mapping.
    while unsafe { *start.add(len) } != 0 {
        len += 1;
    }
    len
}

/// The memory of a value of plain integers.
pub fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: the types sent are `repr(C)` structures of integers without padding.
    unsafe { core::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

/// Maps the plan whose descriptor is the first argument, in decimal.
pub fn from_arguments(stack: *const usize) -> Option<PlanFile> {
    // SAFETY: the kernel puts argc there, and argc pointers to NUL-terminated strings after it.
    let argument: CStr = unsafe {
        if *stack < 2 {
            return None;
        }
        *stack.add(2) as CStr
    };
    let mut fd = 0;
    // SAFETY: NUL-terminated, as above.
    for &digit in unsafe { core::slice::from_raw_parts(argument, length(argument)) } {
        fd = fd * 10 + i32::from(digit.wrapping_sub(b'0'));
    }
    from_descriptor(fd)
}

/// Maps the plan in a file, and closes that.
fn from_descriptor(fd: i32) -> Option<PlanFile> {
    let size = sys::fstat(fd).ok()?.size();
    if size < size_of::<Plan>() {
        return None;
    }
    let base = sys::map_private(fd, size).ok()?;
    sys::close(fd);
    // SAFETY: mapped, page-aligned, long enough, and unmapped only by `replace`; written by the library as this very type.
    let header: &'static mut Plan = unsafe { &mut *base.cast() };
    (header.magic == MAGIC && header.version == VERSION && header.size as usize == size).then_some(PlanFile {
        base,
        header,
        above: Cell::new(None),
    })
}

/// Closes what the caller left open for others: everything between the descriptors of the plan.
pub fn close_other_descriptors(plan: &PlanFile) -> Done {
    let keep = plan.list(plan.keep);
    match close_all_but(keep, u32::MAX) {
        Err(errno) if sys::is_hidden(errno) => close_listed_but(keep).map_err(|_| errno).at(Step::CloseFds),
        other => other.at(Step::CloseFds),
    }
}

/// The same where close_range(2) is hidden: by the list of the caller's procfs, which is still the one that is mounted here.
fn close_listed_but(keep: &[i32]) -> sys::Result<()> {
    const PROCFS: u64 = 0x9fa0;
    const NAME: usize = 19;
    let flags = sys::O_DIRECTORY | sys::O_CLOEXEC;
    let list = sys::openat(sys::AT_FDCWD, c"/proc/self/fd".as_ptr().cast(), flags, 0)?;
    if sys::statfs_type(list)? != PROCFS {
        return Err(sys::ENODEV);
    }
    let mut highest = keep.last().copied().unwrap_or(0);
    let mut entries = [0u8; 1024];
    loop {
        let length = sys::getdents(list, &mut entries)?;
        // `struct linux_dirent64`: inode, offset, length, type, name.
        let mut rest = entries.get(..length).unwrap_or(&[]);
        if rest.is_empty() {
            break;
        }
        while let Some(size) = rest.get(16..18).map(|size| usize::from(u16::from_ne_bytes([size[0], size[1]]))) {
            let name = rest.get(NAME..size).unwrap_or(&[]);
            let digits = name.iter().take_while(|byte| byte.is_ascii_digit());
            let number =
                digits.fold(0i32, |number, digit| number.wrapping_mul(10).wrapping_add(i32::from(digit - b'0')));
            // The others are `.` and `..`.
            let is_number = name.first().is_some_and(u8::is_ascii_digit);
            if is_number && number != list && !keep.contains(&number) {
                sys::close(number);
            }
            rest = rest.get(size.max(1)..).unwrap_or(&[]);
        }
    }
    sys::close(list);
    highest = highest.max(list);
    sys::set_highest_descriptor(highest);
    Ok(())
}

/// Closes all descriptors up to `last` but these, which are in ascending order.
pub fn close_between(keep: &[i32], last: u32) -> bool {
    close_all_but(keep, last).is_ok()
}

fn close_all_but(keep: &[i32], last: u32) -> sys::Result<()> {
    let mut next = 0;
    for &fd in keep {
        let fd = fd as u32;
        if fd > next {
            sys::close_range(next, fd - 1, 0)?;
        }
        next = fd + 1;
    }
    if next > last { Ok(()) } else { sys::close_range(next, last, 0).map(drop) }
}
