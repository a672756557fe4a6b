"""zind for :mod:`asyncio`: the same names, awaited.

Starts, ends and streams are watched as descriptors in the running loop; there is no helper thread. But what works on
images (:class:`Store`, and a start whose image has to be pulled or unpacked first) cannot be watched that way, since files
have no readiness and decompression is work: it goes to a thread of the loop's default executor, one per call, and is
stopped when the call is cancelled. So does what may have to wait for somebody else: a start with ``resources=``, a
volume, a root other than the machine's, or a profile or document of the caller's, and that of each further program in a
:class:`Container`. :meth:`Popen.update`, :meth:`Popen.pause`, :meth:`Popen.resume` and :meth:`Popen.processes` go
there, too, and cannot be stopped half way; cancelled, the call waits until it is through. Of a :class:`Container`, what
changes its files and may wait for others who do is done there too: making, starting and deleting it. Its end, its log,
its streams and its events are watched in the loop.
"""

from __future__ import annotations

from subprocess import PIPE

from ._container import Container
from ._events import ContainerEvents, Events
from ._images import Builder, Store, build
from ._output import Attachment, Logs
from ._process import Popen, learn, run
from ._seccomp import Notifier, Violations

__all__ = [
    "PIPE",
    "Attachment",
    "Builder",
    "Container",
    "ContainerEvents",
    "Events",
    "Logs",
    "Notifier",
    "Popen",
    "Store",
    "Violations",
    "build",
    "learn",
    "run",
]

# Pickles and messages name them by where they are to be imported from.
for _name in __all__[1:]:
    globals()[_name].__module__ = __name__
del _name
