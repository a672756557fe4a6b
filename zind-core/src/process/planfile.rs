//! [`PlanWriter`]: the flat encoding of a [`Plan`].

use std::ffi::CStr;
use std::marker::PhantomData;

use zind_init::plan::{List, Plan, Str};

/// Changes a finished plan: its launcher ends with its program, whatever the plan said of that.
pub(crate) fn for_once(bytes: &mut [u8]) {
    let at = std::mem::offset_of!(Plan, control);
    if let Some(field) = bytes.get_mut(at..at + size_of::<i32>()) {
        field.copy_from_slice(&(-1i32).to_ne_bytes());
    }
}

/// Collects the strings and lists of a plan behind its header.
pub(crate) struct PlanWriter {
    bytes: Vec<u8>,
}

impl PlanWriter {
    pub(crate) fn new() -> PlanWriter {
        let mut bytes = Vec::with_capacity(8192);
        bytes.resize(size_of::<Plan>().next_multiple_of(8), 0);
        PlanWriter { bytes }
    }

    /// A string; the launcher may cut it into pieces in place, so no two share one.
    pub(crate) fn str(&mut self, text: &CStr) -> Str {
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text.to_bytes_with_nul());
        Str(offset)
    }

    pub(crate) fn optional_str(&mut self, text: Option<&CStr>) -> Str {
        text.map_or(Str(0), |text| self.str(text))
    }

    /// A list of structures of plain integers.
    pub(crate) fn list<T: Plain>(&mut self, items: &[T]) -> List<T> {
        if items.is_empty() {
            return List::EMPTY;
        }
        self.align();
        let offset = self.bytes.len() as u32;
        items.iter().for_each(|item| item.write(&mut self.bytes));
        List { offset, len: items.len() as u32, of: PhantomData }
    }

    /// A list of strings: eight bytes for each offset, and eight more at the end, so that the launcher can turn it
    /// into the array of pointers that `execve(2)` takes.
    pub(crate) fn strings<'a>(&mut self, items: impl Iterator<Item = &'a CStr>) -> List<Str> {
        let offsets: Vec<u64> = items.map(|item| u64::from(self.str(item).0)).collect();
        let len = offsets.len() as u32;
        self.align();
        let offset = self.bytes.len() as u32;
        offsets.iter().chain(&[0]).for_each(|number| number.write(&mut self.bytes));
        List { offset, len, of: PhantomData }
    }

    /// A list of strings by 32-bit offset.
    pub(crate) fn names<'a>(&mut self, items: impl Iterator<Item = &'a CStr>) -> List<Str> {
        let offsets: Vec<u32> = items.map(|item| self.str(item).0).collect();
        let List { offset, len, .. } = self.list(&offsets);
        List { offset, len, of: PhantomData }
    }

    /// The bytes of a list.
    pub(crate) fn bytes_of<T>(&self, list: List<T>) -> Option<&[u8]> {
        let start = list.offset as usize;
        self.bytes.get(start..start + list.len as usize * size_of::<T>())
    }

    /// The finished file.
    pub(crate) fn finish(mut self, mut header: Plan) -> Vec<u8> {
        self.align();
        header.size = self.bytes.len() as u64;
        let mut start = Vec::with_capacity(size_of::<Plan>());
        header.write(&mut start);
        self.bytes[..start.len()].copy_from_slice(&start);
        self.bytes
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }
}

pub(crate) use plain::Plain;

mod plain {
    #![allow(unsafe_code)]
    use zind_init::monitor::{Monitor, Reading};
    use zind_init::plan::{Enter, FdMap, FsOp, Hook, Label, LandlockPath, LandlockPort, Plan, Rlimit, Sysctl};

    /// Structures that are written as they stand in memory.
    pub(crate) trait Plain: Copy {
        fn write(&self, bytes: &mut Vec<u8>) {
            // SAFETY: a live value; implementors are `repr(C)` structures of integers, whose padding, where they have
            // any, was written when the value was made or is ignored by the launcher.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts((&raw const *self).cast::<u8>(), size_of::<Self>())
            });
        }
    }

    impl Plain for u8 {}
    impl Plain for i32 {}
    impl Plain for u32 {}
    impl Plain for u64 {}
    impl Plain for Enter {}
    impl Plain for FdMap {}
    impl Plain for FsOp {}
    impl Plain for Hook {}
    impl Plain for Rlimit {}
    impl Plain for Sysctl {}
    impl Plain for Label {}
    impl Plain for LandlockPath {}
    impl Plain for LandlockPort {}
    impl Plain for Plan {}
    impl Plain for Monitor {}
    impl Plain for Reading {}
}
