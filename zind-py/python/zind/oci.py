"""OCI's ``config.json``: what a container is to be, as a document that other runtimes read too.

>>> zind.run(config="bundle", capture_output=True)          # a directory with config.json
>>> zind.oci.config(["sh"], hostname="web")["hostname"]     # the document of a call
'web'
"""

from __future__ import annotations

from . import _images, _zind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Unpack

    from ._options import Argv, Options

__all__ = ["config"]


def config(argv: Argv | None = None, **options: Unpack[Options]) -> dict[str, Any]:
    """The OCI ``config.json`` of the container that :func:`zind.run` would run, nothing lost.

    What OCI has no word for is in annotations that begin with ``org.zind.``; ``zind.run(config=...)`` makes the same of it
    again. With ``config=`` among the options it is that document with the other options applied.

    :raises zind.SpecError: an option is a descriptor, or breaks a rule of the document.
    """
    import json

    given: dict[str, Any] = dict(options)
    _images.settle(given)
    document: dict[str, Any] = json.loads(_zind.to_oci(argv, given))
    return document
