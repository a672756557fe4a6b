"""The kernel's constants, by their own names, for type checkers: at run time they are in ``zind`` and ``zind._zind``."""

from typing import Final

__all__ = [
    "CLONE_CLEAR_SIGHAND",
    "CLONE_FILES",
    "CLONE_FS",
    "CLONE_INTO_CGROUP",
    "CLONE_IO",
    "CLONE_NEWCGROUP",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWTIME",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "CLONE_PARENT",
    "CLONE_PIDFD",
    "CLONE_PTRACE",
    "CLONE_SIGHAND",
    "CLONE_SYSVSEM",
    "CLONE_THREAD",
    "CLONE_UNTRACED",
    "CLONE_VFORK",
    "CLONE_VM",
    "MNT_DETACH",
    "MNT_EXPIRE",
    "MNT_FORCE",
    "MOUNT_ATTR_IDMAP",
    "MOUNT_ATTR_NOATIME",
    "MOUNT_ATTR_NODEV",
    "MOUNT_ATTR_NODIRATIME",
    "MOUNT_ATTR_NOEXEC",
    "MOUNT_ATTR_NOSUID",
    "MOUNT_ATTR_NOSYMFOLLOW",
    "MOUNT_ATTR_RDONLY",
    "MOUNT_ATTR_RELATIME",
    "MOUNT_ATTR_STRICTATIME",
    "MOUNT_ATTR__ATIME",
    "MS_ACTIVE",
    "MS_BIND",
    "MS_BORN",
    "MS_DIRSYNC",
    "MS_I_VERSION",
    "MS_KERNMOUNT",
    "MS_LAZYTIME",
    "MS_MANDLOCK",
    "MS_MGC_MSK",
    "MS_MGC_VAL",
    "MS_MOVE",
    "MS_NOATIME",
    "MS_NODEV",
    "MS_NODIRATIME",
    "MS_NOEXEC",
    "MS_NOREMOTELOCK",
    "MS_NOSEC",
    "MS_NOSUID",
    "MS_NOSYMFOLLOW",
    "MS_NOUSER",
    "MS_POSIXACL",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_RELATIME",
    "MS_REMOUNT",
    "MS_RMT_MASK",
    "MS_SHARED",
    "MS_SILENT",
    "MS_SLAVE",
    "MS_STRICTATIME",
    "MS_SUBMOUNT",
    "MS_SYNCHRONOUS",
    "MS_UNBINDABLE",
    "MS_VERBOSE",
    "UMOUNT_NOFOLLOW",
]

CLONE_CLEAR_SIGHAND: Final[int]
CLONE_FILES: Final[int]
CLONE_FS: Final[int]
CLONE_INTO_CGROUP: Final[int]
CLONE_IO: Final[int]
CLONE_NEWCGROUP: Final[int]
CLONE_NEWIPC: Final[int]
CLONE_NEWNET: Final[int]
CLONE_NEWNS: Final[int]
CLONE_NEWPID: Final[int]
CLONE_NEWTIME: Final[int]
CLONE_NEWUSER: Final[int]
CLONE_NEWUTS: Final[int]
CLONE_PARENT: Final[int]
CLONE_PIDFD: Final[int]
CLONE_PTRACE: Final[int]
CLONE_SIGHAND: Final[int]
CLONE_SYSVSEM: Final[int]
CLONE_THREAD: Final[int]
CLONE_UNTRACED: Final[int]
CLONE_VFORK: Final[int]
CLONE_VM: Final[int]
MNT_DETACH: Final[int]
MNT_EXPIRE: Final[int]
MNT_FORCE: Final[int]
MOUNT_ATTR_IDMAP: Final[int]
MOUNT_ATTR_NOATIME: Final[int]
MOUNT_ATTR_NODEV: Final[int]
MOUNT_ATTR_NODIRATIME: Final[int]
MOUNT_ATTR_NOEXEC: Final[int]
MOUNT_ATTR_NOSUID: Final[int]
MOUNT_ATTR_NOSYMFOLLOW: Final[int]
MOUNT_ATTR_RDONLY: Final[int]
MOUNT_ATTR_RELATIME: Final[int]
MOUNT_ATTR_STRICTATIME: Final[int]
MOUNT_ATTR__ATIME: Final[int]
MS_ACTIVE: Final[int]
MS_BIND: Final[int]
MS_BORN: Final[int]
MS_DIRSYNC: Final[int]
MS_I_VERSION: Final[int]
MS_KERNMOUNT: Final[int]
MS_LAZYTIME: Final[int]
MS_MANDLOCK: Final[int]
MS_MGC_MSK: Final[int]
MS_MGC_VAL: Final[int]
MS_MOVE: Final[int]
MS_NOATIME: Final[int]
MS_NODEV: Final[int]
MS_NODIRATIME: Final[int]
MS_NOEXEC: Final[int]
MS_NOREMOTELOCK: Final[int]
MS_NOSEC: Final[int]
MS_NOSUID: Final[int]
MS_NOSYMFOLLOW: Final[int]
MS_NOUSER: Final[int]
MS_POSIXACL: Final[int]
MS_PRIVATE: Final[int]
MS_RDONLY: Final[int]
MS_REC: Final[int]
MS_RELATIME: Final[int]
MS_REMOUNT: Final[int]
MS_RMT_MASK: Final[int]
MS_SHARED: Final[int]
MS_SILENT: Final[int]
MS_SLAVE: Final[int]
MS_STRICTATIME: Final[int]
MS_SUBMOUNT: Final[int]
MS_SYNCHRONOUS: Final[int]
MS_UNBINDABLE: Final[int]
MS_VERBOSE: Final[int]
UMOUNT_NOFOLLOW: Final[int]
