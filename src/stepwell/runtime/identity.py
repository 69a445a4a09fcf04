"""Which process this is, so that others on the machine can tell when it is dead.

A process id alone says little: it is used again, and means something else in another container. So
a worker's row holds the machine's boot and the process's name space beside it, and the moment the
process began. A row of this very boot and name space whose process is gone, or began at another
moment, belongs to the dead, and what it held can be taken over without waiting for its lease.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _space() -> str:
    """This machine, since its last boot, as this process sees it."""
    try:
        names = os.readlink("/proc/self/ns/pid")
    except OSError:
        names = ""
    return f"{socket.gethostname()}/{_text('/proc/sys/kernel/random/boot_id')[:8]}/{names}"


def _began(pid: int) -> str:
    """When a process began, in the kernel's count; empty when there is none or it can't be told."""
    stat = _text(f"/proc/{pid}/stat")
    fields = stat.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def host_of_this_process() -> str:
    """What a worker's row says of where it runs."""
    return f"{_space()}/{_began(os.getpid())}"


def is_dead(host: str, pid: int) -> bool:
    """Whether the process that wrote this row is known to be dead."""
    space, _, began = host.rpartition("/")
    if space != _space():
        return False  # another machine, or another container: only its lease tells
    if began:
        return _began(pid) != began
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
