"""How much of the machine somebody else used: busy time of all processors less ours and less the kernel threads'.

Kernel threads are left out because they do our own work too: they take down network namespaces after their last user.
"""
import os
import time

TICK = 1 / os.sysconf("SC_CLK_TCK")


class ForeignLoad:
    """Measures from its making to `fraction()`."""

    def __init__(self, own):
        """`own`: the processes whose time, with that of the children they waited for, is ours."""
        self.own = own
        self.begin = self._reading()

    def fraction(self):
        """Foreign time divided by elapsed time; 1.0 is one processor's worth."""
        (then, foreign_then), (now, foreign_now) = self.begin, self._reading()
        return max(0.0, (foreign_now - foreign_then) / max(now - then, 1e-9))

    def _reading(self):
        ours = sum(process_time(pid) for pid in self.own)
        return time.monotonic(), busy_time() - ours - kernel_thread_time()


def busy_time():
    """Seconds in user and kernel mode and stolen by the hypervisor, without interrupts."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + steal) * TICK


def stat_fields(pid):
    """The fields of /proc/<pid>/stat after the command's name: state is the first."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def process_time(pid):
    try:
        return sum(map(int, stat_fields(pid)[11:15])) * TICK
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def kernel_thread_time():
    total = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = stat_fields(name)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[1] == b"2":  # the parent is kthreadd
            total += int(fields[11]) + int(fields[12])
    return total * TICK
