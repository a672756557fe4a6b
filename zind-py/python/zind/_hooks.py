"""Hooks: programs, and functions of this program, that are run at points of a container's life."""

from __future__ import annotations

import warnings
from collections import namedtuple

from . import _zind
from .errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Literal, NamedTuple, Union

    from ._options import Path

    HookPoint = Literal["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    AnyHook = Union["Hook", Path, Mapping[str, Any], Callable[[dict[str, Any]], object]]

    class _HookBase(NamedTuple):
        path: Path
        args: Iterable[str] = ()
        env: Mapping[str, str] | Iterable[str] = ()
        timeout: float | None = None

else:
    _HookBase = namedtuple("_HookBase", "path args env timeout", defaults=((), (), None))

__all__ = ["Hook", "HookWarning"]


class HookWarning(UserWarning):
    """A hook failed whose failure changes nothing: one of ``poststart`` or ``poststop``."""


class Hook(_HookBase):
    """A program that is run at a point of a container's life, as OCI has it, the container's own at ``startContainer`` and else
    one of the host's: ``args`` with ``argv[0]`` (without
    any: the path alone), ``env`` as a mapping or ``NAME=value``, ``timeout`` in seconds. It gets the container's state as
    JSON on its standard input."""

    __slots__ = ()


def _hook(when: str, hook: Any) -> tuple[str, Any, list[str], list[str], float | None]:
    one = Hook(**hook) if isinstance(hook, dict) else Hook(*hook) if isinstance(hook, tuple) else Hook(hook)
    env: Any = one.env or ()
    texts = [f"{name}={value}" for name, value in env.items()] if hasattr(env, "items") else list(env)
    return when, one.path, list(one.args or ()), texts, one.timeout


class _Functions:
    """Functions of this program that are called at points of a container's life, and what they have raised."""

    def __init__(self, container: _zind.Container, functions: list[tuple[str, Any]]) -> None:
        self.raised: list[BaseException] = []
        for when, function in functions:
            container.on(when, self._called(function))

    def _called(self, function: Any) -> Any:
        raised = self.raised

        def call(state: dict[str, Any]) -> None:
            try:
                function(state)
            except BaseException as error:
                raised.append(error)
                raise

        return call

    def explain(self, error: BaseException) -> BaseException:
        """The error of a start, with what a function has raised as its cause."""
        if not self.raised or getattr(error, "step", None) != "Hook":
            return error
        cause = self.raised[-1]
        if not isinstance(cause, Exception):
            return cause
        error.__cause__ = cause
        return error


def _split(hooks: Mapping[HookPoint, Iterable[AnyHook]] | None) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Programs, and functions of this program."""
    pairs = [(when, hook) for when, all in (hooks or {}).items() for hook in all]
    functions: list[tuple[str, Any]] = [(when, hook) for when, hook in pairs if callable(hook)]
    for when, hook in functions:
        if when not in ("createRuntime", "poststart", "poststop"):
            text = f"hooks: {when}: a function of this program is called at createRuntime, poststart and poststop"
            raise SpecError(text, "hooks")
    return [(when, hook) for when, hook in pairs if not callable(hook)], functions


def _warn(container: _zind.Container, level: int = 3) -> None:
    for text in container.take_warnings():
        warnings.warn(text, HookWarning, stacklevel=level)
