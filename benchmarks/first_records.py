"""When a drain begins, for everyone alike: when the broker first sends records."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from benchmarks.usage import bytes_written

FIRST_BYTES = 500_000
"""Once the broker has written so much since a program was started, some of it was records: all else that is said
to one that starts is less."""


@dataclass(slots=True)
class FirstRecords:
    """Looks when the broker first sends records to whoever is started now, of whichever sort: by its output.

    What is published first would not tell: some peers have taken everything before they publish anything.
    """

    broker_pid: int
    started_at: float = field(default_factory=time.time)
    fetched_at: float | None = None
    _written: int = field(init=False)

    def __post_init__(self) -> None:
        self._written = bytes_written(self.broker_pid)

    @property
    def begun_at(self) -> float:
        """When, in seconds since 1970; of so little that it was not seen, when the program was started."""
        return self.fetched_at or self.started_at

    def look(self) -> None:
        if self.fetched_at is None and bytes_written(self.broker_pid) - self._written > FIRST_BYTES:
            self.fetched_at = time.time()


def drained_a_second(records: int, fetched_at: float, ended_at: float) -> float:
    """Records a second between two moments. Raises ``RuntimeError`` where all of it fell between two looks."""
    if ended_at <= fetched_at:
        raise RuntimeError("everything was drained between two looks; take more events")
    return records / (ended_at - fetched_at)
