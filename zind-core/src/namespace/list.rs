//! [`namespaces`]: every namespace that some process is in, as lsns(8) shows them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use crate::error::{At, Result, Step};
use crate::namespace::kind::Kind;
use crate::namespace::netnsid::Numbers;
use crate::proc::{self, Proc};
use crate::sys::descriptors::{Relation, namespace_behind};

/// How much of a command line is shown, in bytes: it may be megabytes of anything.
const MAX_COMMAND: usize = 4096;

/// A namespace and who is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its kind.
    pub kind: Kind,
    /// Its inode, the number in `net:[4026531840]`.
    pub id: u64,
    /// The device of that inode, as `st_dev` of stat(2).
    pub dev: u64,
    /// The inode of the namespace above, of a pid or user namespace; `None` for the topmost that the caller may see, and for
    /// other kinds.
    pub parent: Option<u64>,
    /// The inode of the user namespace that owns it; of a user namespace, that is the parent. `None` as of `parent`.
    pub owner: Option<u64>,
    /// The number under which the caller's network namespace knows it, of a network namespace; `None` if it has got none (lsns(8)
    /// calls it unassigned), and for other kinds.
    /// Source: `RTM_GETNSID` in <https://man7.org/linux/man-pages/man7/rtnetlink.7.html>
    pub netnsid: Option<u32>,
    /// The processes in it, by number; never empty.
    pub processes: Vec<i32>,
    /// Effective user of the process with the lowest number, in the caller's user namespace; `None` if it ended.
    pub owner_uid: Option<u32>,
    /// Command line of that process, joined by spaces, its name in brackets where there is none, with control
    /// characters replaced by `?` and cut to 4096 bytes. The process chose it: it proves nothing.
    pub command: String,
}

/// The namespaces of all processes whose `/proc/<pid>/ns` the caller may read, by kind (in the order of [`Kind::ALL`])
/// and inode.
///
/// Processes that end meanwhile are left out; so are namespaces that only a file, a descriptor or a single thread
/// holds.
/// Errors: [`Error::Sys`](crate::Error::Sys) at [`Step::Proc`] when `/proc` is not a mounted procfs.
/// Source: <https://man7.org/linux/man-pages/man7/namespaces.7.html>
pub fn namespaces() -> Result<Vec<Namespace>> {
    if !proc::is_procfs("/proc") {
        return Err(proc::no_procfs("/proc".into()));
    }
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").at(Step::Proc, "openat", "/proc")? {
        let entry = entry.at(Step::Proc, "getdents64", "/proc")?;
        pids.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    pids.sort_unstable();
    let numbers = Numbers::open();
    let mut found = BTreeMap::<(Kind, u64, u64), Namespace>::new();
    for pid in pids {
        // Gone meanwhile, or not ours to see.
        let Ok(process) = Proc::open(pid) else { continue };
        let Ok(ids) = process.namespaces() else { continue };
        let mut seen = None;
        for (kind, id) in ids {
            let namespace = found.entry((kind, id.inode, id.dev)).or_insert_with(|| {
                let (owner_uid, command) = seen.get_or_insert_with(|| describe(&process)).clone();
                let Relations { parent, owner, netnsid } = relations(&process, kind, numbers.as_ref());
                let processes = Vec::new();
                Namespace { kind, id: id.inode, dev: id.dev, parent, owner, netnsid, processes, owner_uid, command }
            });
            namespace.processes.push(pid);
        }
    }
    Ok(found.into_values().collect())
}

/// What a namespace has to do with others.
#[derive(Default)]
struct Relations {
    parent: Option<u64>,
    owner: Option<u64>,
    netnsid: Option<u32>,
}

/// The inodes of the namespace above and of the owner, and the number in the caller's network namespace, as far as the caller may know
/// them.
fn relations(process: &Proc, kind: Kind, numbers: Option<&Numbers>) -> Relations {
    let Ok(file) = std::fs::File::open(format!("/proc/{}/ns/{}", process.pid(), kind.name())) else {
        return Relations::default();
    };
    let inode = |relation| {
        let fd = namespace_behind(file.as_fd(), relation).ok()?;
        rustix::fs::fstat(&fd).ok().map(|meta| meta.st_ino)
    };
    Relations {
        parent: if matches!(kind, Kind::Pid | Kind::User) { inode(Relation::Parent) } else { None },
        owner: inode(Relation::Owner),
        netnsid: numbers.filter(|_| kind == Kind::Net).and_then(|numbers| numbers.of(file.as_fd())),
    }
}

/// The effective user and the command line, as far as they can still be read.
fn describe(process: &Proc) -> (Option<u32>, String) {
    let status = process.status().ok();
    let uid = status.as_ref().and_then(|status| status.uids()).map(|ids| ids[1]);
    let text = process.read_prefix("cmdline", MAX_COMMAND).unwrap_or_default();
    let command = command_line(&text);
    match (command.is_empty(), status) {
        (true, Some(status)) => (uid, format!("[{}]", proc::printable(status.name()))),
        _ => (uid, command),
    }
}

fn command_line(text: &[u8]) -> String {
    let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let words: Vec<u8> = text[..end].iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    proc::printable(OsStr::from_bytes(&words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_namespaces_are_listed_in_order() {
        let all = namespaces().unwrap();
        let own = Proc::current().unwrap();
        for (kind, id) in own.namespaces().unwrap() {
            let namespace = all.iter().find(|n| (n.kind, n.id, n.dev) == (kind, id.inode, id.dev)).unwrap();
            assert!(namespace.processes.contains(&own.pid()));
        }
        assert!(all.is_sorted_by_key(|n| (n.kind, n.id)));
        assert!(all.iter().all(|n| !n.processes.is_empty() && n.processes.is_sorted() && !n.command.is_empty()));
    }

    #[test]
    fn commands_cannot_act_on_a_terminal() {
        assert_eq!(command_line(b"sh\0-c\0\x1b[31mred\n\0\0"), "sh -c ?[31mred?");
        assert_eq!(command_line(b"\0\0"), "");
        assert_eq!(command_line(b"a\xff"), "a\u{fffd}");
    }
}
