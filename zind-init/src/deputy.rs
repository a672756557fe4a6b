//! The language of a deputy: a launcher that stays in a user namespace and makes system calls there for the library.
//!
//! It has the capabilities of that namespace, which the library has not: to chown to ids that are mapped there, and to read
//! and remove what belongs to them. A message is a header, its calls, and the bytes that they point to; descriptors come
//! with it and are closed after it. The calls are made in their order up to the first that fails, and each message is
//! answered. The deputy knows nothing of what it does, and keeps nothing. Descriptors from [`FIRST_FREE`] on are free.

/// The answer comes with the last call's result as a descriptor, which the deputy then closes.
pub const SEND_RESULT: u32 = 1;

/// A number that no descriptor of the deputy's has by itself.
pub const FIRST_FREE: u64 = 50;

/// As many bytes as a message, and what an answer brings, has at most: an extended attribute is at most 64 KiB, and a name 255 bytes.
pub const MOST_BYTES: usize = 72 * 1024;
/// As many calls as a message has at most.
pub const MOST_CALLS: usize = 16;
/// As many descriptors as come with a message at most.
pub const MOST_FDS: usize = 4;

/// What a message begins with.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Message {
    /// [`SEND_RESULT`] or 0.
    pub flags: u32,
    /// How many calls follow.
    pub calls: u32,
}

/// What an argument of a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The number itself.
    #[default]
    Number = 0,
    /// A pointer: the number is an offset from the start of the message.
    Bytes = 1,
    /// A descriptor: the number is its index among those that came with the message.
    Fd = 2,
    /// A pointer to memory that comes with the answer, which has room for one such argument. The argument behind it says how
    /// many bytes.
    Out = 3,
}

/// One system call.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Call {
    /// Its number.
    pub number: u64,
    /// What its arguments are; [`Kind`] as a number.
    pub kinds: [u8; 6],
    /// To fill up to eight bytes.
    pub pad: [u8; 2],
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What an answer begins with; the bytes of [`Kind::Out`] follow.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Answer {
    /// The result of the last call, if none failed.
    pub result: i64,
    /// Which call failed, if `errno` is not 0.
    pub index: u32,
    /// The errno of it, or 0.
    pub errno: i32,
}
