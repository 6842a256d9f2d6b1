"""RFC 3339 times read in columns: the spelling that nearly every sender uses, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_Digits = npt.NDArray[np.uint8]

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_TO_SECONDS = len("2026-01-31T12:00:00")
_MOST_DECIMALS = 6
_ZONES = (b"Z", b"+00:00")
_LENGTHS = {
    _TO_SECONDS + decimals + len(zone) for zone in _ZONES for decimals in (0, *range(2, _MOST_DECIMALS + 2))
}
_MARKS = ((4, b"-"), (7, b"-"), (10, b"T"), (13, b":"), (16, b":"))
_FIELDS = ((0, 4), (5, 2), (8, 2), (11, 2), (14, 2), (17, 2))
_FEBRUARY = 2
_DAYS_OF_MONTH = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0], dtype=np.int64)


def read_times(texts: Sequence[str]) -> tuple[Integers, Mask]:
    """Microseconds since 1970 of texts, and which of them were read.

    Read is ``YYYY-MM-DDThh:mm:ss``, up to six decimals of the second, ``Z`` or ``+00:00``. What is not read may
    still be a time in another of RFC 3339's spellings.
    """
    moments = np.zeros(len(texts), dtype=np.int64)
    known = np.zeros(len(texts), dtype=np.bool_)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    # Of one sender all are as long, nearly always: the set of them is small.
    for length in sorted(set(lengths.tolist()) & _LENGTHS):
        places = np.flatnonzero(lengths == length)
        # What is not ASCII becomes a question mark, one for each character: no digit, and no mark of ours.
        together = "".join(texts if len(places) == len(texts) else [texts[place] for place in places.tolist()])
        matrix = np.frombuffer(together.encode("ascii", "replace"), dtype=np.uint8).reshape(len(places), length)
        columns = np.ascontiguousarray(matrix.T)  # each digit's place is read by itself
        for zone in _ZONES:
            decimals = length - _TO_SECONDS - len(zone) - 1  # less the point; -1: there is none
            if decimals == -1 or 1 <= decimals <= _MOST_DECIMALS:
                found, read = _read(columns, zone, max(decimals, 0))
                moments[places[read]] = found[read]
                known[places[read]] = True
                if read.all():
                    break
    return moments, known


def _read(columns: _Digits, zone: bytes, decimals: int) -> tuple[Integers, Mask]:
    end = len(columns) - len(zone)
    marks = [*_MARKS, *((end + place, zone[place : place + 1]) for place in range(len(zone)))]
    if decimals:
        marks.append((_TO_SECONDS, b"."))
    expected = np.frombuffer(b"".join(mark for _, mark in marks), dtype=np.uint8)
    read: Mask = (columns[[place for place, _ in marks]] == expected[:, None]).all(axis=0)
    fields = [*_FIELDS, (_TO_SECONDS + 1, decimals)]
    digits = columns[[place for start, size in fields for place in range(start, start + size)]]
    digits = digits - np.uint8(ord("0"))  # what is below wraps around, above nine
    read &= (digits < 10).all(axis=0)  # noqa: PLR2004
    # Numbers of six digits at most are exact as floats.
    numbers = (_weights([size for _, size in fields]) @ digits.astype(np.float64)).astype(np.int64)
    year, month, day, hour, minute, second, fraction = numbers
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    # A month that there is not has no days.
    longest = _DAYS_OF_MONTH[np.minimum(month, len(_DAYS_OF_MONTH) - 1)] + (leap & (month == _FEBRUARY))
    read &= (year >= 1) & (day >= 1) & (day <= longest) & (hour < 24) & (minute < 60) & (second < 60)  # noqa: PLR2004
    seconds = (hour * 60 + minute) * 60 + second
    moments = _days_since_1970(year, month, day) * _DAY + seconds * _SECOND
    return moments + fraction * 10 ** (_MOST_DECIMALS - decimals), read


def _weights(sizes: Sequence[int]) -> npt.NDArray[np.float64]:
    """What each of so many digits counts in its own number: shape (numbers, digits)."""
    weights = np.zeros((len(sizes), sum(sizes)))
    start = 0
    for row, size in enumerate(sizes):
        weights[row, start : start + size] = 10.0 ** np.arange(size - 1, -1, -1)
        start += size
    return weights


def _days_since_1970(year: Integers, month: Integers, day: Integers) -> Integers:
    """Days of the proleptic Gregorian calendar, in years that begin in March, so that leap days end them."""
    year = year - (month <= _FEBRUARY)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days: Integers = year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719_468
    return days
