"""Moments as a person gives them on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter

from shared.contracts.base import Timestamp
from shared.errors import UsageError
from shared.settings import parse_duration

_TIMESTAMP: TypeAdapter[datetime] = TypeAdapter(Timestamp)


def read(text: str | None, *, now: datetime | None = None) -> datetime | None:
    """A moment, RFC 3339 or how long ago (``2h``). Raises ``UsageError`` for anything else; None stays None."""
    if text is None:
        return None
    try:
        ago = parse_duration(text)
        if isinstance(ago, timedelta):
            return (now or datetime.now(UTC)) - ago
        return _TIMESTAMP.validate_python(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no moment: 2026-01-31T12:00:00Z, or 2h for two hours ago") from error


def ahead(text: str | None, *, now: datetime | None = None) -> datetime | None:
    """The moment that lies so far ahead (``1h``). Raises ``UsageError`` for anything else; None stays None."""
    if text is None:
        return None
    try:
        lead = parse_duration(text)
        moment = (now or datetime.now(UTC)) + lead if isinstance(lead, timedelta) else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise UsageError(f"{text!r} is no time to let pass: 10m, 1h, 1d")
    return moment
