"""Cursors of lists: a place in a list's order, opaque to clients.

A cursor names a place in the order, not a row: the row there may be gone, the list goes on behind the place.
The pattern is the whole rule, so every text that follows it is a place, and what the API says of itself is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_MOMENT = "0[0-2][0-9a-f]{14}"  # microseconds since 1970, up to the year 8820
_NAME = "(?:[0-9a-f]{2}){1,512}"  # 128 characters of UTF-8
NAME_CURSOR = f"^{_NAME}$"
MOMENT_NAME_CURSOR = f"^{_MOMENT}{_NAME}$"
MOMENT_NUMBER_CURSOR = f"^{_MOMENT}0[0-9a-f]{{15}}$"
_MOMENT_DIGITS = 16


@dataclass(frozen=True, slots=True)
class MomentName:
    """A place in an order by time, then by name."""

    moment: datetime
    name: str


@dataclass(frozen=True, slots=True)
class MomentNumber:
    """A place in an order by number, and the moment that the list is relative to."""

    moment: datetime
    number: int


def write_name(name: str) -> str:
    """The place behind ``name`` in an order by name."""
    return name.encode().hex()


def read_name(cursor: str) -> str:
    """Back from a text that follows ``NAME_CURSOR``.

    What is no UTF-8, or no text for PostgreSQL, still is a place: the nearest one that can be said.
    """
    text = bytes.fromhex(cursor).decode("utf-8", "replace")
    return text.replace("\x00", "\x01")


def write_moment_name(place: MomentName) -> str:
    """The place behind a row in an order by time, then by name."""
    return _write_moment(place.moment) + write_name(place.name)


def read_moment_name(cursor: str) -> MomentName:
    """Back from a text that follows ``MOMENT_NAME_CURSOR``."""
    return MomentName(_read_moment(cursor), read_name(cursor[_MOMENT_DIGITS:]))


def write_moment_number(place: MomentNumber) -> str:
    """The place behind a row in an order by number."""
    return f"{_write_moment(place.moment)}{place.number:016x}"


def read_moment_number(cursor: str) -> MomentNumber:
    """Back from a text that follows ``MOMENT_NUMBER_CURSOR``."""
    return MomentNumber(_read_moment(cursor), int(cursor[_MOMENT_DIGITS:], 16))


def _write_moment(moment: datetime) -> str:
    return f"{(moment - _EPOCH) // _MICROSECOND:016x}"


def _read_moment(cursor: str) -> datetime:
    return _EPOCH + int(cursor[:_MOMENT_DIGITS], 16) * _MICROSECOND
