//! The flags of mount(2), umount2(2) and mount_setattr(2): constants, named tables and typed sets.
//!
//! The tables [`MS`], [`MNT`] and [`MOUNT_ATTR`] hold every constant under its C name, for bindings that re-export
//! them. The sets ([`MsFlags`], [`MntFlags`], [`MountAttr`]) keep unknown bits, so that a newer kernel's flags pass.
#![forbid(unsafe_code)]

use std::fmt;

/// Declares constants, their table and their typed set from one list.
macro_rules! flags {
    (
        $(#[$set_doc:meta])* $set:ident;
        $(#[$table_doc:meta])* $table:ident;
        $($(#[$doc:meta])* $constant:ident as $short:ident = $value:expr;)*
    ) => {
        $($(#[$doc])* pub const $constant: u64 = $value;)*

        $(#[$table_doc])*
        pub const $table: &[(&str, u64)] = &[$((stringify!($constant), $constant),)*];

        $(#[$set_doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $set(u64);

        impl $set {
            $($(#[$doc])* pub const $short: $set = $set($constant);)*

            /// The set without any flag.
            pub const fn empty() -> $set {
                $set(0)
            }

            /// The set with exactly these bits; unknown ones are kept.
            pub const fn from_bits(bits: u64) -> $set {
                $set(bits)
            }

            /// The bits, as the system call takes them.
            pub const fn bits(self) -> u64 {
                self.0
            }

            /// Whether no flag is set.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether every flag of `other` is set here too.
            pub const fn contains(self, other: $set) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether some flag of `other` is set here too.
            pub const fn intersects(self, other: $set) -> bool {
                self.0 & other.0 != 0
            }

            /// The set with this C name, `"MS_RDONLY"`.
            pub fn from_name(name: &str) -> Option<$set> {
                $table.iter().find(|(known, _)| *known == name).map(|(_, bits)| $set(*bits))
            }
        }

        impl std::ops::BitOr for $set {
            type Output = $set;
            fn bitor(self, other: $set) -> $set {
                $set(self.0 | other.0)
            }
        }

        impl std::ops::BitOrAssign for $set {
            fn bitor_assign(&mut self, other: $set) {
                self.0 |= other.0;
            }
        }

        impl std::ops::BitAnd for $set {
            type Output = $set;
            fn bitand(self, other: $set) -> $set {
                $set(self.0 & other.0)
            }
        }

        impl std::ops::Sub for $set {
            type Output = $set;
            fn sub(self, other: $set) -> $set {
                $set(self.0 & !other.0)
            }
        }

        impl From<$set> for u64 {
            fn from(set: $set) -> u64 {
                set.0
            }
        }

        impl fmt::Debug for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($set))
            }
        }

        /// The C names joined by `|`, unknown bits in hexadecimal, `0` for the empty set.
        impl fmt::Display for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&names($table, self.0))
            }
        }
    };
}

/// The C names in `table` of the single bits of `bits`, joined by `|`; what has no name in hexadecimal.
pub fn names(table: &[(&str, u64)], bits: u64) -> String {
    let mut rest = bits;
    let mut words = Vec::new();
    for (name, value) in table {
        if value.is_power_of_two() && rest & value != 0 {
            words.push((*name).to_owned());
            rest &= !value;
        }
    }
    if rest != 0 || words.is_empty() {
        words.push(if rest == 0 { "0".into() } else { format!("{rest:#x}") });
    }
    words.join("|")
}

flags! {
    /// Flags of mount(2).
    MsFlags;
    /// Every flag of mount(2) by its C name, those that only the kernel uses included.
    MS;
    /// Read-only.
    MS_RDONLY as RDONLY = 1;
    /// Ignore set-user-ID, set-group-ID and file capabilities.
    MS_NOSUID as NOSUID = 2;
    /// No access to device files.
    MS_NODEV as NODEV = 4;
    /// No execution of programs.
    MS_NOEXEC as NOEXEC = 8;
    /// Writes are synchronous.
    MS_SYNCHRONOUS as SYNCHRONOUS = 16;
    /// Change the flags and data of an existing mount; with [`MS_BIND`] only the flags of this mount, not the file
    /// system's.
    MS_REMOUNT as REMOUNT = 32;
    /// Mandatory locking; without effect since Linux 5.15.
    MS_MANDLOCK as MANDLOCK = 64;
    /// Changes of directories are synchronous.
    MS_DIRSYNC as DIRSYNC = 128;
    /// Do not follow symbolic links on this mount (Linux 5.10).
    MS_NOSYMFOLLOW as NOSYMFOLLOW = 256;
    /// Do not update access times.
    MS_NOATIME as NOATIME = 1024;
    /// Do not update access times of directories.
    MS_NODIRATIME as NODIRATIME = 2048;
    /// Bind a file or directory to another place.
    MS_BIND as BIND = 4096;
    /// Move a mount.
    MS_MOVE as MOVE = 8192;
    /// With [`MS_BIND`] or a propagation flag: the mounts below too.
    MS_REC as REC = 16384;
    /// Suppress some messages in the kernel log.
    MS_SILENT as SILENT = 32768;
    /// Old name of [`MS_SILENT`].
    MS_VERBOSE as VERBOSE = 32768;
    /// POSIX access control lists; set by file systems.
    MS_POSIXACL as POSIXACL = 1 << 16;
    /// Propagation: private, and not to be bound.
    MS_UNBINDABLE as UNBINDABLE = 1 << 17;
    /// Propagation: none in either direction.
    MS_PRIVATE as PRIVATE = 1 << 18;
    /// Propagation: received, not sent.
    MS_SLAVE as SLAVE = 1 << 19;
    /// Propagation: in both directions.
    MS_SHARED as SHARED = 1 << 20;
    /// Update access times only when older than the modification; the default.
    MS_RELATIME as RELATIME = 1 << 21;
    /// A mount of the kernel itself; not accepted from programs.
    MS_KERNMOUNT as KERNMOUNT = 1 << 22;
    /// Keep a version counter of inodes.
    MS_I_VERSION as I_VERSION = 1 << 23;
    /// Always update access times.
    MS_STRICTATIME as STRICTATIME = 1 << 24;
    /// Keep time stamps in memory and write them late.
    MS_LAZYTIME as LAZYTIME = 1 << 25;
    /// Kernel-internal: mounted from inside a file system, as automounts are.
    MS_SUBMOUNT as SUBMOUNT = 1 << 26;
    /// Kernel-internal: no locks on the server.
    MS_NOREMOTELOCK as NOREMOTELOCK = 1 << 27;
    /// Kernel-internal: no security attributes on this file system.
    MS_NOSEC as NOSEC = 1 << 28;
    /// Kernel-internal: the superblock is set up.
    MS_BORN as BORN = 1 << 29;
    /// Kernel-internal: the superblock is in use.
    MS_ACTIVE as ACTIVE = 1 << 30;
    /// Kernel-internal: not to be mounted by programs.
    MS_NOUSER as NOUSER = 1 << 31;
    /// The flags that [`MS_REMOUNT`] can change on a file system.
    MS_RMT_MASK as RMT_MASK = MS_RDONLY | MS_SYNCHRONOUS | MS_MANDLOCK | MS_I_VERSION | MS_LAZYTIME;
    /// Magic number that Linux before 2.4 wanted in the upper half; ignored.
    MS_MGC_VAL as MGC_VAL = 0xC0ED_0000;
    /// The bits of [`MS_MGC_VAL`].
    MS_MGC_MSK as MGC_MSK = 0xFFFF_0000;
}

flags! {
    /// Flags of umount2(2).
    MntFlags;
    /// Every flag of umount2(2) by its C name.
    MNT;
    /// Abort pending requests, so that an unreachable network or FUSE file system can be unmounted; may lose data.
    MNT_FORCE as FORCE = 1;
    /// Detach now, clean up when it is no longer in use.
    MNT_DETACH as DETACH = 2;
    /// Mark as expired, unmount when it is marked already; the first call fails with `EAGAIN`.
    MNT_EXPIRE as EXPIRE = 4;
    /// Do not follow the target if it is a symbolic link.
    UMOUNT_NOFOLLOW as NOFOLLOW = 8;
}

flags! {
    /// Attributes of mount_setattr(2) and fsmount(2).
    MountAttr;
    /// Every attribute of mount_setattr(2) by its C name.
    MOUNT_ATTR;
    /// Read-only.
    MOUNT_ATTR_RDONLY as RDONLY = 0x1;
    /// Ignore set-user-ID, set-group-ID and file capabilities.
    MOUNT_ATTR_NOSUID as NOSUID = 0x2;
    /// No access to device files.
    MOUNT_ATTR_NODEV as NODEV = 0x4;
    /// No execution of programs.
    MOUNT_ATTR_NOEXEC as NOEXEC = 0x8;
    /// The bits of the access time attributes; to change one, clear all of them.
    MOUNT_ATTR__ATIME as ATIME = 0x70;
    /// Update access times only when older than the modification; the default.
    MOUNT_ATTR_RELATIME as RELATIME = 0;
    /// Do not update access times.
    MOUNT_ATTR_NOATIME as NOATIME = 0x10;
    /// Always update access times.
    MOUNT_ATTR_STRICTATIME as STRICTATIME = 0x20;
    /// Do not update access times of directories.
    MOUNT_ATTR_NODIRATIME as NODIRATIME = 0x80;
    /// Map ids through the user namespace given in `userns_fd` (Linux 5.12).
    MOUNT_ATTR_IDMAP as IDMAP = 0x10_0000;
    /// Do not follow symbolic links on this mount (Linux 5.14).
    MOUNT_ATTR_NOSYMFOLLOW as NOSYMFOLLOW = 0x20_0000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_c_library() {
        for (ours, theirs) in [
            (MS_RDONLY, libc::MS_RDONLY),
            (MS_NOSUID, libc::MS_NOSUID),
            (MS_NODEV, libc::MS_NODEV),
            (MS_NOEXEC, libc::MS_NOEXEC),
            (MS_SYNCHRONOUS, libc::MS_SYNCHRONOUS),
            (MS_REMOUNT, libc::MS_REMOUNT),
            (MS_MANDLOCK, libc::MS_MANDLOCK),
            (MS_DIRSYNC, libc::MS_DIRSYNC),
            (MS_NOSYMFOLLOW, libc::MS_NOSYMFOLLOW),
            (MS_NOATIME, libc::MS_NOATIME),
            (MS_NODIRATIME, libc::MS_NODIRATIME),
            (MS_BIND, libc::MS_BIND),
            (MS_MOVE, libc::MS_MOVE),
            (MS_REC, libc::MS_REC),
            (MS_SILENT, libc::MS_SILENT),
            (MS_POSIXACL, libc::MS_POSIXACL),
            (MS_UNBINDABLE, libc::MS_UNBINDABLE),
            (MS_PRIVATE, libc::MS_PRIVATE),
            (MS_SLAVE, libc::MS_SLAVE),
            (MS_SHARED, libc::MS_SHARED),
            (MS_RELATIME, libc::MS_RELATIME),
            (MS_KERNMOUNT, libc::MS_KERNMOUNT),
            (MS_I_VERSION, libc::MS_I_VERSION),
            (MS_STRICTATIME, libc::MS_STRICTATIME),
            (MS_LAZYTIME, libc::MS_LAZYTIME),
            (MS_RMT_MASK, libc::MS_RMT_MASK),
            (MS_ACTIVE, libc::MS_ACTIVE),
            (MS_NOUSER, libc::MS_NOUSER as u32 as libc::c_ulong),
            (MS_MGC_VAL, libc::MS_MGC_VAL),
            (MS_MGC_MSK, libc::MS_MGC_MSK),
            (MNT_FORCE, libc::MNT_FORCE as libc::c_ulong),
            (MNT_DETACH, libc::MNT_DETACH as libc::c_ulong),
            (MNT_EXPIRE, libc::MNT_EXPIRE as libc::c_ulong),
            (UMOUNT_NOFOLLOW, libc::UMOUNT_NOFOLLOW as libc::c_ulong),
            (MOUNT_ATTR_IDMAP, libc::MOUNT_ATTR_IDMAP as libc::c_ulong),
            (MOUNT_ATTR__ATIME, libc::MOUNT_ATTR__ATIME as libc::c_ulong),
            (MOUNT_ATTR_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME as libc::c_ulong),
            (MOUNT_ATTR_NOSYMFOLLOW, libc::MOUNT_ATTR_NOSYMFOLLOW as libc::c_ulong),
        ] {
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn names_are_unique_and_lead_back() {
        for table in [MS, MNT, MOUNT_ATTR] {
            for (index, (name, _)) in table.iter().enumerate() {
                assert!(table[..index].iter().all(|(other, _)| other != name), "{name} twice");
            }
        }
        assert_eq!(MsFlags::from_name("MS_BIND"), Some(MsFlags::BIND));
        assert_eq!(MsFlags::from_name("bind"), None);
    }

    #[test]
    fn sets_show_names_and_keep_unknown_bits() {
        assert_eq!((MsFlags::BIND | MsFlags::REC).to_string(), "MS_BIND|MS_REC");
        assert_eq!(MntFlags::from_bits(0x102).to_string(), "MNT_DETACH|0x100");
        assert_eq!(MntFlags::from_bits(0x102).bits(), 0x102);
        assert_eq!(MountAttr::empty().to_string(), "0");
        assert_eq!(format!("{:?}", MsFlags::SILENT), "MsFlags(MS_SILENT)");
    }

    #[test]
    fn sets_add_and_subtract() {
        let set = MsFlags::BIND | MsFlags::REC;
        assert!(set.contains(MsFlags::REC) && !set.contains(MsFlags::REC | MsFlags::RDONLY));
        assert!(set.intersects(MsFlags::REC | MsFlags::RDONLY));
        assert_eq!(set - MsFlags::REC, MsFlags::BIND);
        assert!((set & MsFlags::MOVE).is_empty());
    }
}
