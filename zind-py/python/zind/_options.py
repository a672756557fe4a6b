"""Every option of a container, for type checkers. Nothing here exists at run time."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from typing import IO, Any, Literal, Protocol, TypedDict, Union

    from ._images import Image, Policy, Store
    from ._landlock import Landlock
    from ._layers import Layers
    from ._process import Pty
    from ._resources import Resources
    from ._results import IdMap, TimeOffsets
    from ._seccomp import NotifyFunction, ViolationFunction
    from ._zind import Device, Mount

    class HasFileno(Protocol):
        def fileno(self) -> int: ...

    Path = Union[str, "os.PathLike[str]"]
    Arg = Union[str, bytes, "os.PathLike[str]"]
    Argv = Sequence[Arg]
    Size = Union[int, str]
    Stream = Union[int, IO[Any], HasFileno, "os.PathLike[str]", str, None]
    Kind = Literal["user", "mnt", "mount", "pid", "net", "network", "uts", "ipc", "cgroup", "time"]
    NamespaceSource = Union[Literal["new", "host"], Path, int, HasFileno, TimeOffsets]
    Config = Union[Mapping[str, Any], str, bytes, "os.PathLike[str]"]
    IdMaps = Union[Literal["auto", "single"], Sequence[Union[IdMap, "tuple[int, int, int]"]], None]

    class Options(TypedDict, total=False):
        """Options of :func:`zind.run`, :class:`zind.Popen` and :mod:`zind.aio`."""

        # an OCI config.json (its text, a dict, or the path of it or of a bundle) that the others change
        config: Config | None
        # the root
        rootfs: Path | Layers
        image: Image | str | None
        store: Store | Path | None
        pull: Policy | None
        platform: str | None
        entrypoint: str | Sequence[Arg] | None
        overlay: bool | Path
        read_only: bool
        tmpfs_size: Size | None
        mounts: Iterable[Mount] | None
        devices: Iterable[Device | str] | None
        console: int | HasFileno | Path | None
        # the program
        argv0: Arg | None
        env: Mapping[str, str] | Mapping[bytes, bytes] | None
        clear_env: bool
        inherit_env: bool
        keep_env: Iterable[str]
        cwd: Path | None
        stdin: Stream
        stdout: Stream
        stderr: Stream
        pty: bool | Pty | tuple[int, int]
        pass_fds: Iterable[int]
        init: bool
        # namespaces
        namespaces: Mapping[Kind, NamespaceSource] | None
        network: Literal["none", "host"] | None
        pin: Mapping[Kind, Path] | None
        hostname: str | None
        domainname: str | None
        uid_map: IdMaps
        gid_map: IdMaps
        setgroups: bool | Literal["allow", "deny"] | None
        owner: tuple[int, int] | None
        # the process
        user: str | int | None
        groups: Iterable[str | int] | None
        umask: int | None
        rlimits: Mapping[str | int, int | str | tuple[int | str, int | str]] | None
        sysctl: Mapping[str, str | int] | None
        oom_score_adj: int | None
        nice: int | None
        scheduler: str | tuple[str, int] | None
        setsid: bool
        pgid: int | None
        setctty: bool
        noctty: bool
        ctty: int
        foreground: bool
        personality: int | None
        pdeathsig: int | str | None
        ptrace: bool
        cgroup_fd: int | HasFileno | None
        forward_signals: bool
        # limits and readings
        resources: Resources | None
        cgroup_parent: Path | None
        die_with_owner: bool
        # privileges
        capabilities: Iterable[str] | Literal["docker", "podman"] | None
        ambient_caps: Iterable[str] | None
        keep_caps: bool
        privileged: bool
        no_new_privileges: bool
        seccomp: Literal["default", "learn"] | Path | Mapping[str, Any] | None
        violations: bool | ViolationFunction
        notify: NotifyFunction | None
        landlock: Literal["default"] | str | Landlock | None
        apparmor: str | None
        selinux: str | None
        mount_label: str | None
        keyring: bool
        require: Iterable[str] | None

    class ExecOptions(TypedDict, total=False):
        """Options of a program in a running container; what is not given is as the container has it."""

        argv0: Arg | None
        env: Mapping[str, str] | Mapping[bytes, bytes] | None
        clear_env: bool
        cwd: Path | None
        stdin: Stream
        stdout: Stream
        stderr: Stream
        pty: bool | Pty | tuple[int, int]
        pass_fds: Iterable[int]
        user: str | int | None
        groups: Iterable[str | int] | None
        umask: int | None
        rlimits: Mapping[str | int, int | str | tuple[int | str, int | str]] | None
        oom_score_adj: int | None
        nice: int | None
        capabilities: Iterable[str] | Literal["docker", "podman"] | None
        privileged: bool
        no_new_privileges: bool
        seccomp: Literal["default", "learn"] | Path | Mapping[str, Any] | None
        notify: NotifyFunction | None
        keyring: bool
        die_with_owner: bool
