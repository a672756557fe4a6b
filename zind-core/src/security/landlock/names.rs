//! Rights, scopes and flags of Landlock by name, each with the ABI that has it first.
//!
//! Source: <https://docs.kernel.org/userspace-api/landlock.html>, `include/uapi/linux/landlock.h`.
#![forbid(unsafe_code)]

use super::Rights;
use crate::error::{Error, Result};

/// A name, its bit, and the ABI.
type Row = (&'static str, u64, u32);

const FS: [Row; 17] = [
    ("execute", 1 << 0, 1),
    ("write_file", 1 << 1, 1),
    ("read_file", 1 << 2, 1),
    ("read_dir", 1 << 3, 1),
    ("remove_dir", 1 << 4, 1),
    ("remove_file", 1 << 5, 1),
    ("make_char", 1 << 6, 1),
    ("make_dir", 1 << 7, 1),
    ("make_reg", 1 << 8, 1),
    ("make_sock", 1 << 9, 1),
    ("make_fifo", 1 << 10, 1),
    ("make_block", 1 << 11, 1),
    ("make_sym", 1 << 12, 1),
    ("refer", REFER, 2),
    ("truncate", 1 << 14, 3),
    ("ioctl_dev", 1 << 15, 5),
    ("resolve_unix", 1 << 16, 9),
];

const NET: [Row; 2] = [("bind_tcp", BIND_TCP, 4), ("connect_tcp", CONNECT_TCP, 4)];

const SCOPES: [Row; 2] = [("abstract", ABSTRACT, 6), ("signal", SIGNAL, 6)];

const LOG: [Row; 3] = [("same_exec_off", 1, 7), ("new_exec_on", 2, 7), ("subdomains_off", 4, 7)];

/// The Linux that has an ABI first.
const LINUX: [&str; 9] = ["5.13", "5.19", "6.2", "6.7", "6.10", "6.12", "6.15", "7.0", "7.1"];

pub(super) const REFER: u64 = 1 << 13;
pub(super) const BIND_TCP: u64 = 1 << 0;
pub(super) const CONNECT_TCP: u64 = 1 << 1;
pub(crate) const ABSTRACT: u64 = 1 << 0;
pub(crate) const SIGNAL: u64 = 1 << 1;

pub(super) const EXECUTE: u64 = 1 << 0;
/// `read_file` and `read_dir`.
pub(super) const READ: u64 = 1 << 2 | 1 << 3;
/// `write_file`, `truncate`, what makes and removes, and `refer`.
pub(super) const WRITE: u64 = 1 << 1 | 0x1ff << 4 | REFER | 1 << 14;
pub(super) const ALL_FS: u64 = (1 << FS.len()) - 1;
pub(super) const ALL_NET: u64 = BIND_TCP | CONNECT_TCP;
/// What means something for a file that is no directory: `execute`, `write_file`, `read_file`, `truncate`, `ioctl_dev`,
/// `resolve_unix`.
pub(super) const OF_FILES: u64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15 | 1 << 16;

/// Which rights are meant.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Class {
    Fs,
    Both,
}

fn since(table: &[Row], abi: u32) -> u64 {
    table.iter().filter(|(_, _, first)| *first <= abi).map(|(_, bit, _)| bit).sum()
}

fn of(table: &[Row], bits: u64) -> Vec<&'static str> {
    table.iter().filter(|(_, bit, _)| bits & bit != 0).map(|(name, ..)| *name).collect()
}

fn with_abi(table: &[Row], bits: u64) -> Vec<(&'static str, u32)> {
    table.iter().filter(|(_, bit, _)| bits & bit != 0).map(|(name, _, abi)| (*name, *abi)).collect()
}

macro_rules! of_tables {
    ($($table:ident: $since:ident $of:ident $with_abi:ident;)*) => {
        $(
            /// What an ABI has of them.
            pub(super) fn $since(abi: u32) -> u64 {
                since(&$table, abi)
            }

            /// Their names.
            pub(super) fn $of(bits: u64) -> Vec<&'static str> {
                of(&$table, bits)
            }

            /// Their names, and the ABI that each needs.
            pub(super) fn $with_abi(bits: u64) -> Vec<(&'static str, u32)> {
                with_abi(&$table, bits)
            }
        )*
    };
}

of_tables! {
    FS: fs_since of_fs with_abi_fs;
    NET: net_since of_net with_abi_net;
    SCOPES: scopes_since of_scopes with_abi_scopes;
    LOG: log_since of_log with_abi_log;
}

/// The first Linux with an ABI.
pub(super) fn linux_of(abi: u32) -> &'static str {
    LINUX.get(abi as usize - 1).copied().unwrap_or("a later one")
}

fn find(table: &[Row], name: &str) -> Option<u64> {
    table.iter().find(|(other, ..)| *other == name).map(|(_, bit, _)| *bit)
}

/// The kernel's own names begin with one of these.
fn short(name: &str, prefixes: &[&str]) -> String {
    let name = name.to_ascii_lowercase();
    prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name).to_owned()
}

fn shown(word: &str) -> String {
    word.chars().take(40).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('+').map(str::trim)
}

/// Rights of these names.
pub(super) fn rights(text: &str, class: Class) -> Result<Rights> {
    let mut all = Rights::default();
    for word in words(text) {
        let name = short(word, &["landlock_access_fs_", "landlock_access_net_"]);
        let set = match name.as_str() {
            "read" => Some((READ, 0)),
            "write" => Some((WRITE, 0)),
            "fs" if class == Class::Both => Some((ALL_FS, 0)),
            "net" if class == Class::Both => Some((0, ALL_NET)),
            _ => None,
        };
        if let Some((fs, net)) = set {
            (all.fs, all.net) = (all.fs | fs, all.net | net);
        } else if let Some(bit) = find(&FS, &name) {
            (all.fs, all.exact_fs) = (all.fs | bit, all.exact_fs | bit);
        } else if let Some(bit) = find(&NET, &name).filter(|_| class == Class::Both) {
            (all.net, all.exact_net) = (all.net | bit, all.exact_net | bit);
        } else {
            let mut known = vec!["read", "write"];
            known.extend(of(&FS, u64::MAX));
            if class == Class::Both {
                known.extend(["fs", "net"]);
                known.extend(of(&NET, u64::MAX));
            }
            let rule = format!("{:?} is no right; there are {}", shown(word), known.join(", "));
            return Err(Error::spec("landlock", rule));
        }
    }
    Ok(all)
}

/// Scopes of these names.
pub(super) fn scopes(text: &str) -> Result<u64> {
    let mut all = 0;
    for word in words(text) {
        let name = short(word, &["landlock_scope_"]);
        all |= match name.as_str() {
            "none" => 0,
            "abstract_unix_socket" => ABSTRACT,
            name => find(&SCOPES, name).ok_or_else(|| {
                Error::spec("landlock", format!("{:?} is no scope; there are abstract, signal, none", shown(word)))
            })?,
        };
    }
    Ok(all)
}

/// Flags of the audit log of these names.
pub(super) fn log(text: &str) -> Result<u64> {
    let mut all = 0;
    for word in words(text) {
        let name = short(word, &["landlock_restrict_self_log_"]);
        all |= find(&LOG, &name).ok_or_else(|| {
            let rule = format!("{:?} is none of {}", shown(word), of(&LOG, u64::MAX).join(", "));
            Error::spec("landlock", rule)
        })?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_stand_in_their_order_and_sets_are_made_of_them() {
        for (place, (_, bit, _)) in FS.iter().enumerate() {
            assert_eq!(*bit, 1 << place);
        }
        assert_eq!(of_fs(READ), ["read_file", "read_dir"]);
        let write = "write_file remove_dir remove_file make_char make_dir make_reg make_sock make_fifo make_block make_sym refer truncate";
        assert_eq!(of_fs(WRITE).join(" "), write);
        assert_eq!(of_fs(OF_FILES).join(" "), "execute write_file read_file truncate ioctl_dev resolve_unix");
    }

    #[test]
    fn the_kernels_own_names_are_taken() {
        let named = rights("LANDLOCK_ACCESS_FS_READ_FILE+Make_Dir", Class::Fs).unwrap();
        assert_eq!((named.fs, named.exact_fs), (1 << 2 | 1 << 7, 1 << 2 | 1 << 7));
        assert_eq!(rights("LANDLOCK_ACCESS_NET_BIND_TCP", Class::Both).unwrap().exact_net, BIND_TCP);
        assert_eq!(scopes("LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET+signal").unwrap(), ABSTRACT | SIGNAL);
        assert_eq!(log("LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON").unwrap(), 2);
        for wrong in ["", "reed", "bind_tcp", "fs", "read+"] {
            assert_eq!(rights(wrong, Class::Fs).unwrap_err().field(), Some("landlock"), "{wrong}");
        }
        assert!(scopes("all").is_err() && log("").is_err());
    }
}
