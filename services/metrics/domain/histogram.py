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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add

import numpy as np
import numpy.typing as npt

PROBABILITY_BINS = 50
SUMS_START = 2 * PROBABILITY_BINS
DELAYS_START = 3 * PROBABILITY_BINS

DELAY_EDGES: tuple[int, ...] = (
    1, 2, 5, 10, 20, 30,
    60, 120, 300, 600, 1_200, 1_800,
    3_600, 7_200, 10_800, 14_400, 21_600, 28_800, 43_200, 64_800,
    86_400, 129_600, 172_800, 259_200, 432_000, 604_800,
    1_209_600, 1_814_400, 2_592_000, 5_184_000, 7_776_000,
)  # fmt: skip
"""Upper edges of the delay bins in seconds; the last bin, above 90 days, has none."""

VECTOR_LENGTH = DELAYS_START + len(DELAY_EDGES) + 1
_PAIR = np.dtype([("bin", "<u2"), ("count", "<i8")])
_ONE_PAIR = struct.Struct("<Hq")
FEW_PAIRS = 400
"""So many are added up sooner one by one than by numpy."""

_FLOAT_INT64 = 2.0**63 * (1 - 1e-9)
"""Beyond it a sum of floats may stand for one that 64 bits do not hold."""

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
        (SUMS_START + place, round(probability * 1e9)),
        delay_entry(delay_seconds),
    )


def delay_entry(delay_seconds: float) -> tuple[int, int]:
    """What a label's delay adds to the vector: (bin, amount). Of other kinds than binary nothing else does."""
    return (DELAYS_START + bisect_right(DELAY_EDGES, delay_seconds), 1)


def encode(counts: Mapping[int, int]) -> bytes:
    """The stored form. Raises ``OverflowError`` for a count beyond 64 bits."""
    kept = sorted((place, count) for place, count in counts.items() if count)
    return np.array(kept, dtype=_PAIR).tobytes() if kept else b""


def decode(stored: bytes) -> dict[int, int]:
    """The counts of one stored vector, by bin."""
    return {int(place): int(count) for place, count in np.frombuffer(stored, dtype=_PAIR)}


@dataclass(frozen=True, slots=True)
class BinChanges:
    """Changes of several vectors in columns: which vector, which bin, by how much."""

    vector: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    amount: npt.NDArray[np.int64]

    @classmethod
    def of(cls, changes: Sequence[tuple[int, int, int]]) -> BinChanges:
        """From rows of the three. Raises ``OverflowError`` for an amount beyond 64 bits."""
        columns = np.array(changes, dtype=np.int64).reshape(-1, 3)
        return cls(columns[:, 0], columns[:, 1], columns[:, 2])

    @classmethod
    def together(cls, parts: Sequence[BinChanges]) -> BinChanges:
        """The changes of all parts, of which there is one at least."""
        columns = (
            [part.vector for part in parts],
            [part.place for part in parts],
            [part.amount for part in parts],
        )
        return cls(*(np.concatenate([np.empty(0, np.int64), *column]) for column in columns))

    def moved(self, by: int) -> BinChanges:
        """The same of vectors that stand so many places later."""
        return BinChanges(self.vector + by, self.place, self.amount)


def changed(stored: Sequence[bytes], changes: BinChanges) -> list[bytes]:
    """Stored vectors after changes, all at once. Raises ``OverflowError`` for a count beyond 64 bits."""
    pairs = np.frombuffer(b"".join(stored), dtype=_PAIR)
    sizes = np.fromiter(map(len, stored), dtype=np.int64, count=len(stored)) // _PAIR.itemsize
    vector = np.concatenate([np.repeat(np.arange(len(stored)), sizes), changes.vector])
    place = np.concatenate([pairs["bin"].astype(np.int64), changes.place])
    amount = np.concatenate([pairs["count"].astype(np.int64), changes.amount])
    keys = vector * VECTOR_LENGTH + place
    order = np.argsort(keys, kind="stable")
    begins = np.flatnonzero(np.diff(keys[order], prepend=-1))
    if not len(order):
        return [b""] * len(stored)
    counts = np.add.reduceat(amount[order], begins)
    if np.abs(np.add.reduceat(amount[order].astype(np.float64), begins)).max() >= _FLOAT_INT64:
        raise OverflowError("a count of a histogram does not fit into 64 bits")
    kept = counts != 0
    found = np.empty(int(kept.sum()), dtype=_PAIR)
    chosen = order[begins][kept]
    found["bin"], found["count"] = place[chosen], counts[kept]
    ends = (np.searchsorted(vector[chosen], np.arange(len(stored)), side="right") * _PAIR.itemsize).tolist()
    whole = found.tobytes()
    return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


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
    return vector[0:SUMS_START:2]


def positives(vector: Vector) -> list[int]:
    """Evaluated positives per probability bin."""
    return vector[1:SUMS_START:2]


def probability_sums(vector: Vector) -> list[int]:
    """Sum of probabilities per probability bin, in units of 1e-9."""
    return vector[SUMS_START:DELAYS_START]


def delays(vector: Vector) -> list[int]:
    """Evaluated predictions per delay bin."""
    return vector[DELAYS_START:]
