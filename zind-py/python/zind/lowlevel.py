"""The low level: what unshare(1), nsenter(1), Go's SysProcAttr and mount(2) offer.

``spawn`` starts a process that shares everything with the caller until its :class:`ProcAttr` says otherwise; the other
functions act on the calling thread or process itself.
"""

from __future__ import annotations

from . import _zind
from ._process import Popen
from ._results import IdMap
from ._text import Text
from ._zind import Proc, chroot, mount, pivot_root, setdomainname, sethostname, setns, umount, unshare
from .errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from ._options import Arg, Argv, HasFileno, Kind, NamespaceSource, Path, Stream

__all__ = [
    "Namespace",
    "Proc",
    "ProcAttr",
    "chroot",
    "mount",
    "namespaces",
    "pivot_root",
    "proc",
    "setdomainname",
    "sethostname",
    "setns",
    "spawn",
    "umount",
    "unshare",
]

_KINDS = {
    _zind.CLONE_NEWUSER: "user",
    _zind.CLONE_NEWNS: "mnt",
    _zind.CLONE_NEWPID: "pid",
    _zind.CLONE_NEWNET: "net",
    _zind.CLONE_NEWUTS: "uts",
    _zind.CLONE_NEWIPC: "ipc",
    _zind.CLONE_NEWCGROUP: "cgroup",
    _zind.CLONE_NEWTIME: "time",
}


class ProcAttr:
    """Attributes of a process: the fields of Go's ``SysProcAttr`` and the options of unshare(1) and nsenter(1).

    ==================  =====================================================================================
    attribute           unshare(1), nsenter(1) or ``SysProcAttr``
    ==================  =====================================================================================
    cloneflags          ``-m -u -i -n -p -U -C -T``; ``Cloneflags``, ``Unshareflags`` (``CLONE_NEW*``)
    namespaces          nsenter ``-t -m -u ...``: kind -> pid, path, descriptor, "new" or ``TimeOffsets``
    target              nsenter ``-t PID -a``: join all namespaces of this process that differ from ours
    pin                 ``--net=FILE``: bind a new namespace to a file
    uid_mappings        ``--map-user[s]``, ``UidMappings``: ``IdMap`` list, "auto" (``--map-auto``), or None
    gid_mappings        ``--map-group[s]``, ``GidMappings``
    map_root_user       ``-r``; map_current_user: ``-c``
    setgroups           ``--setgroups allow|deny``, ``GidMappingsEnableSetgroups``
    owner               ``--owner UID:GID``
    propagation         ``--propagation``: private (the default with a new mount namespace), slave, shared, unchanged
    mount_proc          ``--mount-proc[=DIR]``; mount_binfmt: ``--mount-binfmt[=DIR]``; load_interp: ``-l``
    root, wd            ``-R`` (``Chroot``), ``-w`` (``Dir``)
    setuid, setgid      ``-S``, ``-G`` (``Credential.Uid``, ``.Gid``); groups: ``Credential.Groups``
    keep_caps           ``--keep-caps``; ambient_caps: ``AmbientCaps``
    kill_child          ``--kill-child[=SIG]``, ``Pdeathsig``
    forward_signals     ``--forward-signals``
    monotonic, boottime ``--monotonic``, ``--boottime``, in seconds
    clear_env, keep_env ``--clear-env``, ``--whitelist-env``
    setsid ... ptrace   the fields of the same name: setsid, pgid (``Setpgid``), setctty, noctty, ctty, foreground
    cgroup_fd           ``UseCgroupFD``, ``CgroupFD``
    ==================  =====================================================================================

    ``-f`` (``--fork``) is always so: the caller itself never enters the namespaces. ``PidFD`` is ``Popen.pidfd``.
    """

    def __init__(
        self,
        *,
        cloneflags: int = 0,
        unshareflags: int = 0,
        namespaces: Mapping[Kind, NamespaceSource] | None = None,
        target: int | None = None,
        pin: Mapping[Kind, Path] | None = None,
        uid_mappings: Sequence[IdMap | tuple[int, int, int]] | str | None = None,
        gid_mappings: Sequence[IdMap | tuple[int, int, int]] | str | None = None,
        map_root_user: bool = False,
        map_current_user: bool = False,
        setgroups: bool | str | None = None,
        gid_mappings_enable_setgroups: bool | None = None,
        owner: tuple[int, int] | None = None,
        propagation: str | None = None,
        mount_proc: bool | Path = False,
        mount_binfmt: bool | Path = False,
        load_interp: Arg | None = None,
        root: Path | None = None,
        chroot: Path | None = None,
        wd: Path | None = None,
        setuid: int | None = None,
        setgid: int | None = None,
        groups: Iterable[int | str] | None = None,
        keep_caps: bool = False,
        ambient_caps: Iterable[str] | None = None,
        kill_child: bool | int | str = False,
        pdeathsig: int | str | None = None,
        forward_signals: bool = False,
        monotonic: float | None = None,
        boottime: float | None = None,
        clear_env: bool = False,
        keep_env: Iterable[str] = (),
        setsid: bool = False,
        setpgid: bool = False,
        pgid: int = 0,
        setctty: bool = False,
        noctty: bool = False,
        ctty: int = 0,
        foreground: bool = False,
        ptrace: bool = False,
        cgroup_fd: int | HasFileno | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.__dict__.update(self._given)

    def __repr__(self) -> str:
        changed = ", ".join(f"{name}={value!r}" for name, value in self._given.items() if value not in (None, False, 0, ()))
        return f"zind.ProcAttr({changed})"

    def to_options(self) -> dict[str, Any]:
        """The same as options of the engine."""
        given = self._given
        options: dict[str, Any] = dict(given["options"] or {})
        namespaces = self._namespaces()
        if namespaces:
            options["namespaces"] = namespaces
        self._maps(options)
        new_mount = namespaces.get("mnt") == "new"
        options["propagation"] = given["propagation"] or ("private" if new_mount else None)
        setgroups = given["setgroups"] if given["setgroups"] is not None else given["gid_mappings_enable_setgroups"]
        if setgroups is not None:
            options["setgroups"] = setgroups
        options["chroot"] = given["root"] if given["root"] is not None else given["chroot"]
        options["cwd"] = given["wd"]
        options["mount_proc"] = given["mount_proc"] or None
        if given["mount_binfmt"] or given["load_interp"] is not None:
            path = given["mount_binfmt"]
            options["binfmt"] = path if path and path is not True else "/proc/sys/fs/binfmt_misc"
            options["load_interp"] = given["load_interp"]
        if given["setuid"] is not None or given["setgid"] is not None:
            if given["setuid"] is None or given["setgid"] is None:
                raise SpecError("setuid: goes together with setgid", "setuid")
            options["user"] = f"{given['setuid']}:{given['setgid']}"
        signal = given["pdeathsig"] or given["kill_child"]
        options["pdeathsig"] = "KILL" if signal is True else signal or None
        if given["setpgid"] or given["pgid"]:
            options["pgid"] = given["pgid"]
        for name in _SAME:
            options[name] = given[name]
        return {name: value for name, value in options.items() if value is not None}

    def _namespaces(self) -> dict[str, Any]:
        given = self._given
        namespaces: dict[str, Any] = {}
        if given["target"] is not None:
            ours, theirs = Proc(_self_pid()).ns, Proc(given["target"]).ns
            namespaces.update({kind: given["target"] for kind in _KINDS.values() if theirs.get(kind) != ours.get(kind)})
        flags = given["cloneflags"] | given["unshareflags"]
        for flag, kind in _KINDS.items():
            if flags & flag:
                namespaces[kind] = "new"
                flags &= ~flag
        if flags:
            raise SpecError(f"cloneflags: {flags:#x} are no CLONE_NEW* flags", "cloneflags")
        namespaces.update(given["namespaces"] or {})
        if given["monotonic"] is not None or given["boottime"] is not None:
            from ._results import TimeOffsets

            namespaces["time"] = TimeOffsets(given["monotonic"] or 0.0, given["boottime"] or 0.0)
        if (given["map_root_user"] or given["map_current_user"] or given["uid_mappings"]) and "user" not in namespaces:
            namespaces["user"] = "new"
        return namespaces

    def _maps(self, options: dict[str, Any]) -> None:
        import os

        given = self._given
        options["uid_map"], options["gid_map"] = given["uid_mappings"], given["gid_mappings"]
        uid, gid = os.geteuid(), os.getegid()
        if given["map_root_user"] and given["map_current_user"]:
            raise SpecError("map_root_user: excludes map_current_user", "map_root_user")
        if (given["map_root_user"] or given["map_current_user"]) and given["uid_mappings"] is None:
            inner = (0, 0) if given["map_root_user"] else (uid, gid)
            options["uid_map"] = [IdMap(inner[0], uid, 1)]
            options["gid_map"] = [IdMap(inner[1], gid, 1)]
            if given["setgroups"] is None and given["gid_mappings_enable_setgroups"] is None:
                options["setgroups"] = "deny"


_SAME = (
    "pin owner groups keep_caps ambient_caps forward_signals clear_env keep_env setsid setctty noctty ctty foreground "
    "ptrace cgroup_fd"
).split()


def _self_pid() -> int:
    import os

    return os.getpid()


def spawn(
    argv: Argv,
    attr: ProcAttr | None = None,
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    env: Mapping[str, str] | None = None,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    pass_fds: Iterable[int] = (),
    **options: Any,
) -> Popen:
    """Start a process with the namespaces and attributes of ``attr``, and nothing else changed.

    The caller's environment, directory, ids and mounts stay unless ``attr`` says otherwise. The process ends with this one
    unless ``die_with_owner=False``.
    """
    given = (attr if attr is not None else ProcAttr()).to_options()
    given.update(options, stdin=stdin, stdout=stdout, stderr=stderr, env=env, pass_fds=tuple(pass_fds))
    process = Popen.__new__(Popen)
    process._start(_zind.spawn(argv, given, True), argv, -1, Text(text, encoding, errors))
    return process


def proc(pid: int | None = None) -> Proc:
    """``/proc/<pid>``: cmdline cwd environ exe fds maps mem() root stat statm status ns idmaps cgroup."""
    return Proc(_self_pid() if pid is None else pid)


class Namespace:
    """A namespace and who is in it, as lsns(8) shows it. ``parent`` is the id of the one above, of a pid or user namespace, and
    ``owner`` that of the user namespace that owns it, as far as the caller may know them. ``netnsid`` is the number by which the
    caller's network namespace knows it, if it is one and has got such a number."""

    __slots__ = ("command", "dev", "id", "kind", "netnsid", "owner", "parent", "pids", "uid")

    def __init__(
        self,
        kind: str,
        id: int,
        dev: int,
        pids: list[int],
        uid: int | None,
        command: str,
        parent: int | None = None,
        owner: int | None = None,
        netnsid: int | None = None,
    ) -> None:
        self.kind = kind
        self.id = id
        self.dev = dev
        self.pids = pids
        self.uid = uid
        self.command = command
        self.parent = parent
        self.owner = owner
        self.netnsid = netnsid

    def __repr__(self) -> str:
        return f"<zind.Namespace {self.kind}:[{self.id}] {len(self.pids)} processes: {self.command!r}>"


def namespaces() -> list[Namespace]:
    """Every namespace that can be seen from here, with its processes: lsns(8)."""
    return [Namespace(*row) for row in _zind.namespaces()]
