//! [`Status`]: lines with a name and a value.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::str::FromStr;

use super::is_procfs;

/// What `/proc/<pid>/status` tells.
///
/// Source: <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    name: OsString,
    fields: Vec<(String, String)>,
}

/// The five capability sets of a process; bit N stands for capability number N.
///
/// Source: <https://man7.org/linux/man-pages/man7/capabilities.7.html>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// `CapInh`
    pub inheritable: u64,
    /// `CapPrm`
    pub permitted: u64,
    /// `CapEff`
    pub effective: u64,
    /// `CapBnd`
    pub bounding: u64,
    /// `CapAmb`
    pub ambient: u64,
}

impl Status {
    pub(super) fn parse(text: &[u8]) -> Status {
        let mut name = OsString::new();
        let mut fields = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (key, value) = (&line[..colon], line[colon + 1..].trim_ascii_end());
            let value = value.strip_prefix(b"\t").unwrap_or(value);
            if key == b"Name" && fields.is_empty() {
                name = unescape_name(line[colon + 1..].strip_prefix(b"\t").unwrap_or(&line[colon + 1..]));
            }
            fields.push((String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned()));
        }
        Status { name, fields }
    }

    /// The status of the calling thread, whose capabilities may differ from those of the process.
    pub(crate) fn of_this_thread() -> Option<Status> {
        if !is_procfs("/proc") {
            return None;
        }
        Some(Status::parse(&std::fs::read("/proc/thread-self/status").ok()?))
    }

    /// Every line as name and value, in the kernel's order; bytes that are not UTF-8 are replaced.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// The value of the first line with this name: `get("VmRSS")` is `Some("1024 kB")`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The name of the program, cut to 15 bytes; the process can change it to any bytes.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The letter of the state, as in [`Stat::state`](super::Stat::state).
    pub fn state(&self) -> Option<char> {
        self.get("State")?.chars().next()
    }

    /// The parent; 0 if it is in an outer pid namespace.
    pub fn ppid(&self) -> Option<i32> {
        self.get("PPid")?.parse().ok()
    }

    /// Real, effective, saved and file system user id.
    pub fn uids(&self) -> Option<[u32; 4]> {
        self.numbers("Uid")?.try_into().ok()
    }

    /// Real, effective, saved and file system group id.
    pub fn gids(&self) -> Option<[u32; 4]> {
        self.numbers("Gid")?.try_into().ok()
    }

    /// The supplementary groups.
    pub fn groups(&self) -> Vec<u32> {
        self.numbers("Groups").unwrap_or_default()
    }

    /// The process's number in each pid namespace, from that of `/proc` to its own.
    pub fn ns_pids(&self) -> Vec<i32> {
        self.numbers("NSpid").unwrap_or_default()
    }

    /// The capability sets.
    pub fn capabilities(&self) -> Option<CapabilitySets> {
        let set = |key| u64::from_str_radix(self.get(key)?, 16).ok();
        Some(CapabilitySets {
            inheritable: set("CapInh")?,
            permitted: set("CapPrm")?,
            effective: set("CapEff")?,
            bounding: set("CapBnd")?,
            ambient: set("CapAmb")?,
        })
    }

    /// Whether `no_new_privs` is set: PR_SET_NO_NEW_PRIVS(2const).
    pub fn no_new_privs(&self) -> Option<bool> {
        Some(self.get("NoNewPrivs")? != "0")
    }

    /// The seccomp mode: 0 none, 1 strict, 2 filter. `None` where the kernel has no seccomp.
    pub fn seccomp(&self) -> Option<u32> {
        self.get("Seccomp")?.parse().ok()
    }

    /// Number of threads.
    pub fn threads(&self) -> Option<u32> {
        self.get("Threads")?.parse().ok()
    }

    fn numbers<T: FromStr>(&self, key: &str) -> Option<Vec<T>> {
        self.get(key)?.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
    }
}

/// The kernel shows a newline in the name as `\n` and a backslash as `\\`.
fn unescape_name(text: &[u8]) -> OsString {
    let mut name = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let decoded = match (byte, bytes.peek()) {
            (b'\\', Some(b'n')) => Some(b'\n'),
            (b'\\', Some(b'\\')) => Some(b'\\'),
            _ => None,
        };
        if decoded.is_some() {
            bytes.next();
        }
        name.push(decoded.unwrap_or(byte));
    }
    OsString::from_vec(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_by_name() {
        let text = b"Name:\ta\\nUid:\\\\x\nUmask:\t0022\nState:\tS (sleeping)\nPPid:\t7\nUid:\t1\t2\t3\t4\n\
            Groups:\t5 6 \nNSpid:\t900\t1\nThreads:\t3\nCapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\n\
            CapEff:\t0000000000200000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n\
            Seccomp:\t2\n";
        let status = Status::parse(text);
        assert_eq!(status.name(), "a\nUid:\\x");
        assert_eq!(status.fields()[1], ("Umask".to_owned(), "0022".to_owned()));
        assert_eq!((status.state(), status.ppid(), status.uids()), (Some('S'), Some(7), Some([1, 2, 3, 4])));
        assert_eq!((status.gids(), status.groups(), status.ns_pids()), (None, vec![5, 6], vec![900, 1]));
        assert_eq!((status.no_new_privs(), status.seccomp(), status.threads()), (Some(true), Some(2), Some(3)));
        assert_eq!(status.capabilities().unwrap().effective, 1 << 21);
    }
}
