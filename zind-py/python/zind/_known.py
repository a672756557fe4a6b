"""What can be asked and said of a container without waiting, here and in :mod:`zind.aio`."""

from __future__ import annotations

import os

from . import _zind
from ._containers import Containers
from ._copy import CopyStats, Root
from ._results import Exit, Isolation, Stats
from .errors import NotFoundError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

    from ._containers import State
    from ._hooks import _Functions
    from ._options import Path
    from ._zind import Mount


class _Known:
    """What can be asked and said without waiting, here and in :mod:`zind.aio`."""

    _container: _zind.Container
    #: Made here, and not detached: the end of a block deletes it.
    _is_ours: bool
    #: None of one that was found.
    _functions: _Functions | None

    @classmethod
    def _of(cls, found: _zind.Container, is_ours: bool = False) -> Self:
        self = cls.__new__(cls)
        self._container, self._is_ours, self._functions = found, is_ours, None
        return self

    def _explained(self, error: BaseException) -> BaseException:
        return error if self._functions is None else self._functions.explain(error)

    # --- what it is
    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._container.id

    @property
    def name(self) -> str | None:
        """Its name, if it has one."""
        return self._container.name

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return self._container.labels

    @property
    def containers(self) -> Containers:
        """Those it is one of."""
        return Containers._of(self._container.containers)

    @property
    def path(self) -> str:
        """The directory it is kept in."""
        return os.fspath(self._container.place)

    @property
    def state(self) -> State:
        """``"creating"``, ``"created"``, ``"running"``, ``"paused"`` or ``"stopped"``, as of now. One that has ended and is
        started again by its restart policy is ``"running"``, and ``inspect()["restarting"]`` says when (``at``), and since when
        (``finished``) and why (``exit``) nothing of it runs.

        :raises zind.NotFoundError: it was deleted; so all do but :attr:`id` and :attr:`path`.
        """
        return self._container.state

    @property
    def pid(self) -> int | None:
        """Its first process in this pid namespace, while it runs; ``None`` between two runs, too."""
        return self._container.pid

    @property
    def pidfd(self) -> int:
        """A pidfd of :attr:`pid`; it belongs to this object, and is another one after another start.

        :raises zind.StateError: it does not run.
        """
        return self._container.pidfd

    @property
    def exit(self) -> Exit | None:
        """How it ended, if it has. One whose monitor was killed, or that a restart of the machine ended, was killed."""
        exit = self._container.exit
        return None if exit is None else Exit(*exit)

    @property
    def created(self) -> float:
        """When it was made, in seconds since 1970."""
        return self._container.created

    @property
    def started(self) -> float | None:
        """When it was started last."""
        return self._container.started

    @property
    def finished(self) -> float | None:
        """When it ended."""
        return self._container.finished

    @property
    def restarts(self) -> int:
        """How often its monitor has started it again."""
        return self._container.restarts

    @property
    def image(self) -> str | None:
        """The name of its image."""
        return self._container.image

    @property
    def spec(self) -> dict[str, Any]:
        """What it is made from, as an OCI ``config.json``."""
        config: dict[str, Any] = self.inspect()["config"]
        return config

    @property
    def isolation(self) -> Isolation | None:
        """What is in force since its last start; ``None`` before the first one."""
        isolation = self._container.isolation
        return None if isolation is None else Isolation(isolation)

    def inspect(self) -> dict[str, Any]:
        """All that is known of it."""
        return self._container.inspect()

    def kill(self, signal: int | str = "KILL") -> None:
        """Sends a signal to its program, by number or name. SIGKILL ends the whole container, and it is not started again.

        :raises zind.StateError: it does not run.
        """
        self._container.kill(signal if isinstance(signal, str) else int(signal))

    def detach(self) -> None:
        """Lets it go on when this program ends, or the block of ``with``."""
        self._container.detach()
        self._is_ours = False

    def rename(self, name: str) -> None:
        """Gives it another name. :raises zind.ExistsError: another container has it."""
        self._container.rename(name)

    def resize(self, rows: int, cols: int) -> None:
        """Gives its terminal another size. :raises zind.StateError: it has none, or does not run."""
        self._container.resize(rows, cols)

    def stats(self) -> Stats:
        """What it uses now; once it has ended, what it used over its whole last run."""
        return Stats._of(self._container.stats())

    @property
    def root(self) -> Root:
        """The inside of its root while it runs: :attr:`zind.Popen.root`."""
        return Root._of(self._container.root)

    def copy_in(
        self,
        source: Path,
        target: Path,
        *,
        owner: tuple[int, int] | None = None,
        follow_links: bool = False,
        overwrite: bool = True,
        strict: bool = False,
    ) -> CopyStats:
        """Copies a file or a tree of the host's into it while it runs: :meth:`zind.Root.copy_in`."""
        with self.root as root:
            return root.copy_in(
                source, target, owner=owner, follow_links=follow_links, overwrite=overwrite, strict=strict
            )

    def copy_out(
        self,
        source: Path,
        target: Path,
        *,
        owner: tuple[int, int] | None = None,
        follow_links: bool = False,
        overwrite: bool = True,
        strict: bool = False,
    ) -> CopyStats:
        """Copies a file or a tree of its own to the host while it runs: :meth:`zind.Root.copy_out`."""
        with self.root as root:
            return root.copy_out(
                source, target, owner=owner, follow_links=follow_links, overwrite=overwrite, strict=strict
            )

    def mount(self, mount: Mount) -> None:
        """Mounts something in it while it runs: :meth:`zind.Popen.mount`. The next start is without it."""
        self._container.mount(mount)

    def umount(self, target: Path) -> None:
        """Takes away what is mounted at ``target`` in it, and what is mounted below that."""
        self._container.umount(target)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _found, (type(self), self.id, self.containers.path)

    def _facts(self) -> dict[str, Any]:
        """For showing, which does not raise."""
        try:
            return self.inspect()
        except NotFoundError:
            return {"id": self.id, "name": None, "state": "deleted"}
        except StateError as error:
            return {"id": self.id, "name": None, "state": f"unreadable: {error}"}

    def __repr__(self) -> str:
        facts = self._facts()
        words = [facts["name"], self.id[:12], facts["state"]]
        if facts.get("pid"):
            words.append(f"pid={facts['pid']}")
        if facts.get("exit"):
            words.append(repr(Exit(**facts["exit"]))[11:-1])
        if facts.get("image"):
            words.append(f"image={facts['image']}")
        return f"<zind.{type(self).__name__} {' '.join(filter(None, words))}>"

    def _repr_html_(self) -> str:
        names = "name id state pid image restart exit fault labels path".split()
        shown = {**self._facts(), "path": self.path}
        if shown.get("exit"):
            shown["exit"] = repr(Exit(**shown["exit"]))[11:-1]
        import html

        rows = ((name, html.escape(str(shown[name]))) for name in names if shown.get(name))
        return f"<table>{''.join(f'<tr><th>{name}</th><td>{value}</td></tr>' for name, value in rows)}</table>"


def _found(kind: type[_Known], id: str, path: str) -> _Known:
    return kind._of(_zind.Containers(path).find(id))
