"""Which keys may be stored: never denies one that is, seldom affirms one that is not.

A Bloom filter (Bloom 1970, Space/time trade-offs in hash coding with allowable errors) of words: the four bits of
a key lie in one 64-bit word, so that a look is one read (Putze, Sanders, Singler 2007, Cache-, hash- and
space-efficient Bloom filters). It grows by parts, each twice as large as the one before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.metrics.domain.hot.keys import Keys

Mask = npt.NDArray[np.bool_]

BITS_A_KEY = 16
"""Of a full part: of keys that were never added it affirms about one in two hundred."""
FIRST_PART_KEYS = 1 << 18
MOST_KEYS = 1 << 25
"""Beyond as many (64 MiB) nothing more is added, and every key may be stored."""
_PROBES = 4


class Membership:
    """Keys that were added; none is ever taken away."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.uint64]] = []
        self._room = 0
        self._keys = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing is told apart any more."""
        return self._keys > MOST_KEYS

    def add(self, keys: Keys) -> None:
        """Remember keys."""
        bits = _bits(keys)
        new = ~self._hold(keys, bits)
        keys, bits = keys[new], bits[new]
        while len(keys) and not self.is_full:
            if not self._room:
                self._room = FIRST_PART_KEYS << len(self._parts)
                self._parts.append(np.zeros(self._room * BITS_A_KEY // 64, dtype=np.uint64))
            part, count = self._parts[-1], min(self._room, len(keys))
            np.bitwise_or.at(part, _words(keys[:count], part), bits[:count])
            keys, bits = keys[count:], bits[count:]
            self._room -= count
            self._keys += count

    def may_hold(self, keys: Keys) -> Mask:
        """False where a key was never added."""
        return self._hold(keys, _bits(keys))

    def _hold(self, keys: Keys, bits: npt.NDArray[np.uint64]) -> Mask:
        held = np.full(len(keys), self.is_full)
        for part in self._parts:
            held |= part[_words(keys, part)] & bits == bits
        return held


def _words(keys: Keys, part: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Which word of a part, whose size is a power of two, is each key's."""
    return (keys[:, 0] & np.uint64(len(part) - 1)).astype(np.int64)


def _bits(keys: Keys) -> npt.NDArray[np.uint64]:
    bits = np.zeros(len(keys), dtype=np.uint64)
    for probe in range(_PROBES):
        bits |= np.uint64(1) << (keys[:, 1] >> np.uint64(6 * probe) & np.uint64(63))
    return bits
