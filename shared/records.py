"""A record as it was read from a topic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Record:
    """One record. ``topic`` is the registry's name, without the deployment's prefix.

    ``received_at`` is the broker's append time in UTC, ``offset`` its place in its partition.
    """

    topic: str
    partition: int
    offset: int
    received_at: datetime
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
