//! `zind_root`: files and trees into and out of a root.

use std::ffi::{c_char, c_void};
use std::os::fd::{AsFd, AsRawFd};

use zind_core::{CopyOptions, CopyStats, Root};

use crate::error::{zind_error, zind_status};
use crate::exit::{OfSize, Target, read_sized};
use crate::guard::{Out, Outcome, free, guard, handle, quiet};
use crate::process::{question, zind_interrupted, zind_process};
use crate::strings::{path, slice};

/// The inside of a root, held by a descriptor. Its paths begin at the root, absolute or not; links and ".." never lead
/// out of it, whatever a program in there swaps meanwhile.
pub struct zind_root(pub(crate) Root);

/// A link as the last part of the source is followed, inside a root never out of it.
pub const ZIND_COPY_FOLLOW_LINKS: u64 = 1;
/// A file or link that is there already is an error, EEXIST; otherwise it is replaced.
pub const ZIND_COPY_NO_OVERWRITE: u64 = 2;
/// An owner, mode, time or extended attribute that may not be set is an error; otherwise it is counted in not_kept.
pub const ZIND_COPY_STRICT: u64 = 4;
/// Everything that is copied gets uid and gid of the options; otherwise it keeps the source's.
pub const ZIND_COPY_OWNER: u64 = 8;

/// How to copy. Begin with ZIND_COPY_OPTIONS_INIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_copy_options {
    /// sizeof(zind_copy_options), set by the caller; no more than this is read.
    pub struct_size: usize,
    /// ZIND_COPY_FOLLOW_LINKS and the flags after it, or-ed together.
    pub flags: u64,
    /// For ZIND_COPY_OWNER, as a number of the caller's user namespace.
    pub uid: u32,
    /// For ZIND_COPY_OWNER.
    pub gid: u32,
}

/// What a copy did. Begin with ZIND_COPY_STATS_INIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_copy_stats {
    /// sizeof(zind_copy_stats), set by the caller; no more than this is written.
    pub struct_size: usize,
    /// Regular files.
    pub files: u64,
    /// Directories, made or merged into.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files that were copied under another one.
    pub hard_links: u64,
    /// FIFOs and device nodes.
    pub nodes: u64,
    /// Bytes of data; holes are not counted.
    pub bytes: u64,
    /// Sockets, the inside of /proc and its like, and what went away meanwhile.
    pub skipped: u64,
    /// Owners, modes, times and extended attributes that this user, the file system or its user namespace does not allow.
    pub not_kept: u64,
}

// SAFETY: repr(C), numbers only.
unsafe impl OfSize for zind_copy_options {
    const FIRST_SIZE: usize = 24;
}

// SAFETY: repr(C), numbers only.
unsafe impl OfSize for zind_copy_stats {
    const FIRST_SIZE: usize = 72;
}

impl From<CopyStats> for zind_copy_stats {
    fn from(stats: CopyStats) -> zind_copy_stats {
        let CopyStats { files, directories, symlinks, hard_links, nodes, bytes, skipped, not_kept, .. } = stats;
        zind_copy_stats { struct_size: 0, files, directories, symlinks, hard_links, nodes, bytes, skipped, not_kept }
    }
}

/// The options of a caller; the default for NULL.
///
/// # Safety
/// `options` is NULL, or points to as many bytes as its first field says.
unsafe fn options_of(options: *const zind_copy_options) -> Outcome<CopyOptions> {
    let default = zind_copy_options { struct_size: 0, flags: 0, uid: 0, gid: 0 };
    // SAFETY: the caller's promise.
    let given = unsafe { read_sized(options, default, "options")? };
    let has = |flag| given.flags & flag != 0;
    let known = ZIND_COPY_FOLLOW_LINKS | ZIND_COPY_NO_OVERWRITE | ZIND_COPY_STRICT | ZIND_COPY_OWNER;
    if has(!known) {
        return Err(zind_core::Error::spec("options", format!("{:#x} has unknown flags", given.flags)).into());
    }
    let options = CopyOptions::new()
        .follow_links(has(ZIND_COPY_FOLLOW_LINKS))
        .overwrite(!has(ZIND_COPY_NO_OVERWRITE))
        .strict(has(ZIND_COPY_STRICT));
    Ok(if has(ZIND_COPY_OWNER) { options.owner(given.uid, given.gid) } else { options })
}

/// Which way a copy goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// What all copies have in common. `root` is asked for last, when the arguments are known to be right.
///
/// # Safety
/// The header's demands of the arguments.
#[expect(clippy::too_many_arguments, reason = "the arguments of the C function")]
unsafe fn copy(
    way: Way,
    root: impl FnOnce() -> Outcome<Root>,
    source: *const c_char,
    target: *const c_char,
    options: *const zind_copy_options,
    interrupted: zind_interrupted,
    data: *mut c_void,
    stats: *mut zind_copy_stats,
) -> Outcome {
    // SAFETY: the caller's promise.
    let (stats, source, target, options, mut asked) = unsafe {
        let stats = Target::optional(stats, "stats")?;
        (stats, path(source, "source")?, path(target, "target")?, options_of(options)?, question(interrupted, data))
    };
    let root = root()?;
    let done = match way {
        Way::In => root.copy_in_interruptible(source, target, &options, &mut asked)?,
        Way::Out => root.copy_out_interruptible(source, target, &options, &mut asked)?,
    };
    if let Some(stats) = stats {
        stats.put(done.into());
    }
    Ok(())
}

/// Opens the root in a directory of the host. Links in path itself are followed.
/// root: receives the handle; free it with zind_root_free(). Returns also ZIND_STATUS_SYS, _SPEC (an empty path).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_root_open(
    path: *const c_char,
    root: *mut *mut zind_root,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let root = Out::handle(root, "root")?;
            root.give(zind_root(Root::open(crate::strings::path(path, "path")?)?));
            Ok(())
        })
    }
}

/// The inside of a running container's root, with all its mounts.
/// root: receives the handle; free it with zind_root_free(). Returns also ZIND_STATUS_STATE (it has ended), _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_root(
    process: *const zind_process,
    root: *mut *mut zind_root,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let root = Out::handle(root, "root")?;
            root.give(zind_root(handle(process, "process")?.0.root()?));
            Ok(())
        })
    }
}

/// The root as a descriptor, opened with O_PATH. Borrowed: the root closes it. -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_root_fd(root: *const zind_root) -> i32 {
    // SAFETY: the header's demand.
    let root = unsafe { root.as_ref() };
    quiet(-1, || root.map_or(-1, |root| root.0.as_fd().as_raw_fd()))
}

/// Frees a root. root: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_root_free(root: *mut zind_root) {
    // SAFETY: the header's demand.
    unsafe { free(root) }
}

/// Copies a file or a tree from the host into a root, as `cp -a` does: owners, modes, times, extended attributes, hard
/// links, holes. If target is a directory the source goes into it; a source that ends with "/." means what is inside.
/// Missing directories on the way to target are made. Each file is written aside and renamed: nobody sees half of it.
/// options: NULL, or begin with ZIND_COPY_OPTIONS_INIT. stats: NULL, or begin with ZIND_COPY_STATS_INIT.
/// interrupted: asked now and then whether to stop, with data; NULL asks nobody.
/// Returns also ZIND_STATUS_SYS with the path that refused (what was copied before stays), _SPEC, _INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_root_copy_in(
    root: *const zind_root,
    source: *const c_char,
    target: *const c_char,
    options: *const zind_copy_options,
    interrupted: zind_interrupted,
    data: *mut c_void,
    stats: *mut zind_copy_stats,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let root = &handle(root, "root")?.0;
            copy(Way::In, || Ok(root.try_clone()?), source, target, options, interrupted, data, stats)
        })
    }
}

/// Copies a file or a tree out of a root to the host, by the rules of zind_root_copy_in(), except that missing directories
/// on the way to target are an error. Set-uid programs stay what they are, and for root device nodes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_root_copy_out(
    root: *const zind_root,
    source: *const c_char,
    target: *const c_char,
    options: *const zind_copy_options,
    interrupted: zind_interrupted,
    data: *mut c_void,
    stats: *mut zind_copy_stats,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let root = &handle(root, "root")?.0;
            copy(Way::Out, || Ok(root.try_clone()?), source, target, options, interrupted, data, stats)
        })
    }
}

/// zind_root_copy_in() for the root of a running container. Returns also ZIND_STATUS_STATE (it has ended).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_copy_in(
    process: *const zind_process,
    source: *const c_char,
    target: *const c_char,
    options: *const zind_copy_options,
    stats: *mut zind_copy_stats,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let process = &handle(process, "process")?.0;
            let nobody = std::ptr::null_mut();
            copy(Way::In, || Ok(process.root()?), source, target, options, None, nobody, stats)
        })
    }
}

/// zind_root_copy_out() for the root of a running container. Returns also ZIND_STATUS_STATE (it has ended).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_copy_out(
    process: *const zind_process,
    source: *const c_char,
    target: *const c_char,
    options: *const zind_copy_options,
    stats: *mut zind_copy_stats,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let process = &handle(process, "process")?.0;
            let nobody = std::ptr::null_mut();
            copy(Way::Out, || Ok(process.root()?), source, target, options, None, nobody, stats)
        })
    }
}

/// Reads a regular file of a root. Links are followed inside the root.
/// buffer: size bytes. read: receives how many the file has. Returns also ZIND_STATUS_SYS: EFBIG if the buffer is too
/// small, EISDIR, EINVAL for FIFOs, devices and sockets, which are not opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_root_read_file(
    root: *const zind_root,
    path: *const c_char,
    buffer: *mut c_void,
    size: usize,
    read: *mut usize,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let (read, start) = (Out::new(read, "read")?, Out::new(buffer.cast::<u8>(), "buffer")?);
            let bytes = handle(root, "root")?.0.read_file(crate::strings::path(path, "path")?, size as u64)?;
            start.fill(&bytes);
            read.put(bytes.len());
            Ok(())
        })
    }
}

/// Writes a file of a root, or replaces one at once. Missing directories are made; a link as the last part is replaced.
/// content: len bytes; NULL only with len 0. mode: exact, whatever the umask. Returns also ZIND_STATUS_SYS, _SPEC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_root_write_file(
    root: *const zind_root,
    path: *const c_char,
    content: *const u8,
    len: usize,
    mode: u32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let content = slice(content, len, "content")?;
            Ok(handle(root, "root")?.0.write_file(crate::strings::path(path, "path")?, content, mode)?)
        })
    }
}
