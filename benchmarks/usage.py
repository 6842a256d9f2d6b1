"""CPU time and memory of processes, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
KIB_IN_A_MB = 1024


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time so far of these processes."""
    return sum(_times(pid)[0] for pid in pids)


def cpu_seconds_of_family(pid: int) -> float:
    """The same of a process, its living children, and those that it has seen end (PostgreSQL's sessions)."""
    own, ended = _times(pid)
    return own + ended + cpu_seconds(_children(pid))


def peak_rss_mb_of_family(pid: int) -> float:
    """Of a process and its children: the sum of the most that each ever had."""
    return sum(peak_rss_mb(one) for one in (pid, *_children(pid)))


def peak_rss_mb(pid: int) -> float:
    """The most resident memory that the process ever had, in MB of 2^20 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / KIB_IN_A_MB
    raise ProcessLookupError(f"process {pid} has no memory of its own")


def bytes_written(pid: int) -> int:
    """What the process has written so far, to files and sockets; what it sends from files is included."""
    for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise ProcessLookupError(f"process {pid} does not tell what it has written")


def _times(pid: int) -> tuple[float, float]:
    """Seconds of the process itself, and of its children that have ended; none where it has ended itself."""
    try:
        # The command's name stands in parentheses and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    user, system, ended_user, ended_system = (int(fields[place]) for place in (11, 12, 13, 14))
    return (user + system) / TICKS_A_SECOND, (ended_user + ended_system) / TICKS_A_SECOND


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
