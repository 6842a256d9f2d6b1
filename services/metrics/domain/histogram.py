"""The fixed histograms in a bucket, as one vector of integers.

Bins of the vector:

* 0..99, ``PROBABILITY_BINS`` x 2: evaluated predictions by probability (100 / 2 = 50 bins of width 0.02) and
  outcome; bin ``2 * k`` counts the negatives, ``2 * k + 1`` the positives with ``int(50 * probability) == k``,
  the last bin including 1. AUC, ECE and the reliability table come from these.
* 100..149: the sum of probabilities in each of the 50 bins, in units of 1e-9.
* 150..: label delays (evaluation minus prediction, in seconds, at least 0) by the edges of ``DELAY_EDGES``.

Stored sparse: pairs (bin uint16, count int64), little-endian, bins ascending, zeros left out; so equal vectors
have equal bytes.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from operator import add

import numpy as np

PROBABILITY_BINS = 50
_SUMS_START = 2 * PROBABILITY_BINS
_DELAYS_START = 3 * PROBABILITY_BINS

DELAY_EDGES: tuple[int, ...] = (
    1, 2, 5, 10, 20, 30,
    60, 120, 300, 600, 1_200, 1_800,
    3_600, 7_200, 10_800, 14_400, 21_600, 28_800, 43_200, 64_800,
    86_400, 129_600, 172_800, 259_200, 432_000, 604_800,
    1_209_600, 1_814_400, 2_592_000, 5_184_000, 7_776_000,
)  # fmt: skip
"""Upper edges of the delay bins in seconds; the last bin, above 90 days, has none."""

VECTOR_LENGTH = _DELAYS_START + len(DELAY_EDGES) + 1
_PAIR = np.dtype([("bin", "<u2"), ("count", "<i8")])
_ONE_PAIR = struct.Struct("<Hq")
FEW_PAIRS = 400
"""So many are added up sooner one by one than by numpy."""

Vector = list[int]
"""``VECTOR_LENGTH`` Python integers: they never overflow."""


def probability_bin(probability: float) -> int:
    """Which of the 50 bins a probability falls in."""
    return min(int(probability * PROBABILITY_BINS), PROBABILITY_BINS - 1)


def entries(probability: float, *, positive: bool, delay_seconds: float) -> tuple[tuple[int, int], ...]:
    """What one evaluated prediction adds to the vector: (bin, amount)."""
    place = probability_bin(probability)
    return (
        (2 * place + positive, 1),
        (_SUMS_START + place, round(probability * 1e9)),
        delay_entry(delay_seconds),
    )


def delay_entry(delay_seconds: float) -> tuple[int, int]:
    """What a label's delay adds to the vector: (bin, amount). Of other kinds than binary nothing else does."""
    return (_DELAYS_START + bisect_right(DELAY_EDGES, delay_seconds), 1)


def encode(counts: Mapping[int, int]) -> bytes:
    """The stored form. Raises ``OverflowError`` for a count beyond 64 bits."""
    kept = sorted((place, count) for place, count in counts.items() if count)
    return np.array(kept, dtype=_PAIR).tobytes() if kept else b""


def decode(stored: bytes) -> dict[int, int]:
    """The counts of one stored vector, by bin."""
    return {int(place): int(count) for place, count in np.frombuffer(stored, dtype=_PAIR)}


def total(stored: Iterable[bytes]) -> Vector:
    """The sum of stored vectors, exact."""
    joined = b"".join(stored)
    return total_of_few(joined) if len(joined) <= FEW_PAIRS * _ONE_PAIR.size else total_of_many(joined)


def total_of_few(joined: bytes) -> Vector:
    """The sum of stored vectors that are strung together, pair by pair."""
    vector = [0] * VECTOR_LENGTH
    for place, count in _ONE_PAIR.iter_unpack(joined):
        vector[place] += count
    return vector


def total_of_many(joined: bytes) -> Vector:
    """The same by numpy: halves of 32 bits are summed apart, then joined in Python integers."""
    pairs = np.frombuffer(joined, dtype=_PAIR)
    high = np.zeros(VECTOR_LENGTH, dtype=np.int64)
    low = np.zeros(VECTOR_LENGTH, dtype=np.int64)
    np.add.at(high, pairs["bin"], pairs["count"] >> 32)
    np.add.at(low, pairs["bin"], pairs["count"] & 0xFFFFFFFF)
    return [(above << 32) + below for above, below in zip(high.tolist(), low.tolist(), strict=True)]


def plus(one: Vector, other: Vector) -> Vector:
    """The sum of two vectors."""
    return list(map(add, one, other))


def negatives(vector: Vector) -> list[int]:
    """Evaluated negatives per probability bin."""
    return vector[0:_SUMS_START:2]


def positives(vector: Vector) -> list[int]:
    """Evaluated positives per probability bin."""
    return vector[1:_SUMS_START:2]


def probability_sums(vector: Vector) -> list[int]:
    """Sum of probabilities per probability bin, in units of 1e-9."""
    return vector[_SUMS_START:_DELAYS_START]


def delays(vector: Vector) -> list[int]:
    """Evaluated predictions per delay bin."""
    return vector[_DELAYS_START:]
