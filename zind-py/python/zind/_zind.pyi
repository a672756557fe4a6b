"""The part of zind that is written in Rust. Not an interface: users import :mod:`zind`."""

from pathlib import PosixPath
from collections.abc import Sequence
from typing import Any, Final, Literal, final

from ._constants import *
from ._options import Argv, HasFileno, Path, Size
from ._results import IdMap

__all__ = [
    "LAUNCHER_SIZE",
    "Builder",
    "Cancel",
    "Device",
    "Events",
    "Exchange",
    "Image",
    "Isolation",
    "Layers",
    "Mount",
    "Proc",
    "Process",
    "Resources",
    "Root",
    "Start",
    "Store",
    "Volume",
    "Volumes",
    "__version__",
    "begin",
    "chroot",
    "doctor",
    "mount",
    "namespaces",
    "pivot_root",
    "resize",
    "run",
    "setdomainname",
    "sethostname",
    "setns",
    "spawn",
    "sweep_groups",
    "to_oci",
    "umount",
    "unshare",
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

# kind, code, signal
_Exit = tuple[Literal["exited", "signaled", "timeout", "oom"], int | None, int | None]
# CPU seconds in user mode, CPU seconds in the kernel, largest resident set in bytes, wall seconds; with a control group all
_Stats = tuple[float | None, float | None, int | None, float, dict[str, Any] | None]
# start, end, permissions, offset, device, inode, path
_Map = tuple[int, int, str, int, int, int, PosixPath | None]
# files, directories, symlinks, hard_links, nodes, bytes, skipped, not_kept
_CopyStats = tuple[int, int, int, int, int, int, int, int]
# container, host, size
_IdMap = tuple[int, int, int]

# progress, cancel
_Watch = tuple[Any, Cancel | None]
# entries, whiteouts, bytes, skipped
_PackStats = tuple[int, int, int, int]

__version__: str
LAUNCHER_SIZE: Final[int]

def run(argv: Argv | None, options: dict[str, Any], input: bytes) -> tuple[_Exit, _Stats, Isolation, bytes, bytes]: ...
def spawn(argv: Argv | None, options: dict[str, Any], low_level: bool) -> Process: ...
def begin(argv: Argv | None, options: dict[str, Any]) -> Start: ...
def resize(fd: int, rows: int, cols: int) -> None: ...
def to_oci(argv: Argv | None, options: dict[str, Any]) -> str: ...
def sweep_groups(parent: Path | None = None) -> list[PosixPath]: ...
def doctor() -> tuple[dict[str, Any], str]: ...
def namespaces() -> list[tuple[str, int, int, list[int], int | None, str]]: ...
def unshare(flags: int, /) -> None: ...
def setns(target: int | HasFileno | Path | None = None, flags: int = 0, *, pid: int | None = None) -> None: ...
def mount(source: Path | None, target: Path, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None: ...
def umount(target: Path, flags: int = 0) -> None: ...
def pivot_root(new_root: Path, put_old: Path) -> None: ...
def chroot(path: Path) -> None: ...
def sethostname(name: str) -> None: ...
def setdomainname(name: str) -> None: ...
@final
class Device:
    """A device of the host's, or every device of a directory, with the rights that the payload gets: ``"r"``, ``"w"``, ``"m"``
    (make further nodes) or several of them. ``mode``, ``uid`` and ``gid`` take a node of the container's own, which root makes
    without a user namespace."""

    def __new__(
        cls,
        path: Path,
        target: Path | None = None,
        *,
        access: str = "rwm",
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
    ) -> Device: ...
    @staticmethod
    def node(
        type: Literal["c", "u", "b", "p"],
        path: Path,
        major: int = 0,
        minor: int = 0,
        *,
        access: str = "rwm",
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
    ) -> Device:
        """By its numbers, as OCI's ``linux.devices`` has it. Root only, but for a FIFO (``"p"``), or where the host has that
        device at the same path."""

    @staticmethod
    def parse(text: str) -> Device:
        """``"host[:container[:rwm]]"``, as ``docker run --device`` takes it. ``devices=`` takes such texts too."""

    @property
    def target(self) -> PosixPath: ...
    @property
    def access(self) -> str: ...

@final
class Mount:
    """A mount of a container's: by its kind, or in the words of OCI. A target that is missing is made."""

    def __new__(
        cls, *, type: str, target: Path, source: Path | None = None, options: Sequence[str] = ...
    ) -> Mount:
        """Any OCI mount: ``Mount(type="tmpfs", target="/x", options=["ro", "size=1m"])``."""

    @staticmethod
    def bind(
        source: Path,
        target: Path,
        *,
        read_only: bool = False,
        recursive: bool = True,
        propagation: str = "private",
        create: bool = True,
        idmap: Sequence[IdMap | _IdMap] | None = None,
        options: Sequence[str] = ...,
    ) -> Mount:
        """A file or directory of the host. ``idmap`` (root only): ids of the source (``container``) are the host's ids
        ``host`` in the container."""

    @staticmethod
    def tmpfs(target: Path, *, size: Size | None = None, mode: int = 0o1777, options: Sequence[str] = ...) -> Mount:
        """An empty file system in memory; with ``options=["tmpcopyup"]`` it begins with what is at the target."""

    @staticmethod
    def overlay(
        target: Path,
        *,
        lower: Sequence[Path],
        upper: Path | None = None,
        work: Path | None = None,
        read_only: bool = False,
        options: Sequence[str] = ...,
    ) -> Mount:
        """Directories as one, the topmost first. Without ``upper`` changes are kept in memory."""

    @staticmethod
    def file(target: Path, content: bytes, *, mode: int = 0o644, read_only: bool = False) -> Mount:
        """A file with these bytes, in memory."""

    @staticmethod
    def volume(
        name: str,
        target: Path,
        *,
        read_only: bool = False,
        copy_up: bool = True,
        create: bool = True,
        idmap: Sequence[IdMap | _IdMap] | None = None,
        place: Path | None = None,
        options: Sequence[str] = ...,
    ) -> Mount:
        """A named directory that outlives the container; the first start that mounts it makes it. With ``copy_up`` a fresh one
        begins with what the root has at ``target``. ``place``: as of :class:`zind.Volumes`."""

    @staticmethod
    def proc(target: Path = ..., *, options: Sequence[str] = ...) -> Mount:
        """A procfs: ``options=["hidepid=2", "subset=pid"]``."""

    @staticmethod
    def sysfs(target: Path = ..., *, options: Sequence[str] = ...) -> Mount: ...
    @staticmethod
    def devpts(target: Path = ..., *, options: Sequence[str] = ...) -> Mount: ...
    @staticmethod
    def mqueue(target: Path = ..., *, options: Sequence[str] = ...) -> Mount: ...
    @staticmethod
    def cgroup(target: Path = ..., *, options: Sequence[str] = ...) -> Mount:
        """A cgroup2 file system, read-only unless told otherwise."""

    @property
    def target(self) -> PosixPath: ...
    @property
    def type(self) -> str: ...

# type, mode, uid, gid, size, mtime_ns, device, target
_Metadata = tuple[
    Literal["file", "directory", "symlink", "char", "block", "fifo", "socket"],
    int,
    int,
    int,
    int,
    int,
    tuple[int, int] | None,
    str | None,
]
# kind, path, old, new
_Change = tuple[Literal["added", "modified", "deleted"], str, _Metadata | None, _Metadata | None]

@final
class Layers:
    """A directory of layers."""

    @staticmethod
    def create(dir: Path, base: list[Path], volatile: bool) -> Layers: ...
    @staticmethod
    def create_over(
        dir: Path, image: Image, volatile: bool, uid_map: Any | None, gid_map: Any | None, watch: _Watch
    ) -> Layers: ...
    @staticmethod
    def open(dir: Path) -> Layers: ...
    def image(self) -> Image | None: ...
    def commit(self, store: Store | None, options: tuple[Any, ...], watch: _Watch) -> Image: ...
    def export(self, path: Path, name: str, watch: _Watch) -> _PackStats: ...
    def dir(self) -> str: ...
    def upper(self) -> str: ...
    def base(self) -> list[str]: ...
    def is_volatile(self) -> bool: ...
    def set_volatile(self, volatile: bool) -> None: ...
    def snapshot(self, name: str) -> None: ...
    def restore(self, name: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def snapshots(self) -> list[tuple[str, str | None, int]]: ...
    def diff(self, since: str | None) -> list[_Change]: ...
    def clone_to(self, dir: Path) -> Layers: ...
    def delete(self) -> None: ...

@final
class Cancel:
    """Stops work on another thread."""

    def __new__(cls) -> Cancel: ...
    def set(self) -> None: ...

@final
class Image:
    """An image of a store."""

    @property
    def id(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def tags(self) -> list[str]: ...
    @property
    def size(self) -> int: ...
    @property
    def created(self) -> str | None: ...
    @property
    def platform(self) -> str: ...
    @property
    def place(self) -> PosixPath: ...
    def to_dict(self) -> dict[str, Any]: ...
    def mount(self, watch: _Watch) -> Root: ...
    def unpack(self, watch: _Watch) -> None: ...
    def export(self, path: Path, name: str, watch: _Watch) -> _PackStats: ...

@final
class Store:
    """Images on disk."""

    def __new__(cls, place: Path | None = None, limits: Sequence[tuple[str, int]] = ...) -> Store: ...
    def limits(self) -> dict[str, int]: ...
    @property
    def place(self) -> PosixPath: ...
    def image(self, name: str) -> Image: ...
    def images(self) -> list[Image]: ...
    def tag(self, image: Image, name: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def gc(self, watch: _Watch) -> dict[str, Any]: ...
    def usage(self, watch: _Watch) -> dict[str, Any]: ...
    def verify(self, watch: _Watch) -> list[dict[str, Any]]: ...
    def load(self, path: Path, watch: _Watch) -> list[Image]: ...
    def import_rootfs(self, source: Path, tag: str | None, config: str | None, watch: _Watch) -> Image: ...
    def save(self, images: Sequence[Image], path: Path, name: str, watch: _Watch) -> None: ...
    def pull(
        self,
        reference: str,
        find: bool,
        policy: str,
        platform: str | None,
        foreign_layers: bool,
        unpack: bool,
        given: tuple[Any, ...],
        watch: _Watch,
    ) -> Image: ...
    def push(
        self,
        image: Image,
        reference: str,
        chunk_size: int | None,
        mount_from: str | None,
        extra_tags: Sequence[str],
        given: tuple[Any, ...],
        watch: _Watch,
    ) -> None: ...

@final
class Builder:
    """The steps of an image that is to be built."""

    def __new__(
        cls, store: Store, base: Image | None, uid_map: Any | None, gid_map: Any | None, cache: bool
    ) -> Builder: ...
    def run(self, argv: Argv, options: dict[str, Any]) -> None: ...
    def copy(self, source: Path, target: Path, owner: str) -> None: ...
    def configure(self, what: str, values: Sequence[str]) -> None: ...
    def commit(self, options: tuple[Any, ...], watch: _Watch) -> tuple[Image, list[dict[str, Any]]]: ...

@final
class Resources:
    """Checked resources."""

    def __new__(cls, values: dict[str, Any]) -> Resources: ...
    @staticmethod
    def from_oci(text: str) -> Resources: ...
    def to_oci(self) -> dict[str, Any]: ...
    def values(self) -> dict[str, Any]: ...

@final
class Isolation:
    def to_dict(self) -> dict[str, Any]: ...

@final
class Events:
    """What happens in a container, as it happens."""

    def fileno(self) -> int: ...
    def next(self, timeout: float | None = None) -> Any: ...
    @property
    def is_over(self) -> bool: ...
    def close(self) -> None: ...

@final
class Process:
    """A running container."""

    @property
    def pid(self) -> int: ...
    @property
    def pidfd(self) -> int: ...
    @property
    def end_fd(self) -> int: ...
    @property
    def isolation(self) -> dict[str, Any]: ...
    def stats(self) -> _Stats: ...
    def update(self, resources: Any) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def is_paused(self) -> bool: ...
    def processes(self) -> list[dict[str, Any]]: ...
    @property
    def root(self) -> Root: ...
    @property
    def image(self) -> Image | None: ...
    @property
    def stop_signal(self) -> int: ...
    def commit(self, options: tuple[Any, ...], watch: _Watch) -> Image: ...
    def stop(self, patience: float) -> _Exit: ...
    def take_streams(self) -> tuple[int, int, int]: ...
    def take_terminal(self) -> int: ...
    def interact(self, input: int, output: int) -> None: ...
    def exec(self, argv: Argv | None, options: dict[str, Any]) -> Process: ...
    def exec_to_end(
        self, argv: Argv | None, options: dict[str, Any], input: bytes
    ) -> tuple[_Exit, _Stats, Isolation, bytes, bytes]: ...
    def begin_exec(self, argv: Argv | None, options: dict[str, Any]) -> Start: ...
    def poll(self) -> _Exit | None: ...
    def wait(self, timeout: float | None = None) -> _Exit | None: ...
    def events(self, pressure: list[tuple[str, bool, float, float]]) -> Events: ...
    def kill(self) -> None: ...
    def mount(self, mount: Mount) -> None: ...
    def umount(self, target: Path) -> None: ...
    def expire(self) -> None: ...
    def signal(self, signal: int) -> None: ...

@final
class Root:
    """The inside of a root, held by a descriptor."""

    def __new__(cls, path: Path) -> Root: ...
    @property
    def path(self) -> PosixPath: ...
    def fileno(self) -> int: ...
    def copy_in(
        self,
        source: Path,
        target: Path,
        *,
        owner: tuple[int, int] | None = None,
        follow_links: bool = False,
        overwrite: bool = True,
        strict: bool = False,
    ) -> _CopyStats: ...
    def copy_out(
        self,
        source: Path,
        target: Path,
        *,
        owner: tuple[int, int] | None = None,
        follow_links: bool = False,
        overwrite: bool = True,
        strict: bool = False,
    ) -> _CopyStats: ...
    def read_file(self, path: Path, limit: int) -> bytes: ...
    def write_file(self, path: Path, data: bytes, mode: int) -> None: ...

@final
class Volumes:
    """The place where volumes are."""

    def __new__(cls, place: Path | None = None) -> Volumes: ...
    @property
    def place(self) -> PosixPath: ...
    def create(self, name: str) -> Volume: ...
    def get(self, name: str) -> Volume: ...
    def get_or_create(self, name: str) -> Volume: ...
    def list(self) -> list[Volume]: ...
    def remove(self, name: str) -> None: ...

@final
class Volume:
    """A named directory that outlives containers."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> PosixPath: ...
    @property
    def is_fresh(self) -> bool: ...
    def hold(self) -> int: ...
    def fill_from(self, root: Root, path: Path) -> _CopyStats | None: ...
    def mark_used(self) -> None: ...

@final
class Start:
    """A start that is under way."""

    def fileno(self) -> int: ...
    def finish(self) -> Process: ...
    def cancel(self) -> None: ...

@final
class Exchange:
    """The exchange of data with a container, which survives a timeout."""

    def __new__(cls, stdin: int, stdout: int, stderr: int, input: bytes) -> Exchange: ...
    def serve(self, process: Process, timeout: float | None = None) -> bool: ...
    def so_far(self) -> tuple[bytes, bytes]: ...
    def take(self) -> tuple[bytes, bytes]: ...

@final
class Proc:
    """``/proc/<pid>``, held by a descriptor: a later process with the same number does not answer."""

    def __new__(cls, pid: int) -> Proc: ...
    @property
    def pid(self) -> int: ...
    @property
    def cmdline(self) -> list[str]: ...
    @property
    def cwd(self) -> str: ...
    @property
    def root(self) -> str: ...
    @property
    def exe(self) -> str: ...
    @property
    def environ(self) -> dict[str, str]: ...
    @property
    def fds(self) -> dict[int, str]: ...
    @property
    def maps(self) -> list[_Map]: ...
    @property
    def stat(self) -> dict[str, Any]: ...
    @property
    def statm(self) -> dict[str, int]: ...
    @property
    def status(self) -> dict[str, str]: ...
    @property
    def ns(self) -> dict[str, int]: ...
    @property
    def idmaps(self) -> tuple[list[_IdMap], list[_IdMap]]: ...
    @property
    def cgroup(self) -> list[tuple[int, list[str], str]]: ...
    def mem(self, offset: int, size: int) -> bytes: ...
