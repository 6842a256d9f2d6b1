"""Keys of 128 bits in columns, and a hash table that finds all of a batch's keys at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
"""Shape (n, 2): the 16 bytes of each key as two numbers, both of evenly spread bits."""
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

KEY_BYTES = 16
_LEAST_SLOT_BITS = 4
_FACTOR = np.uint64(hash("where keys begin") & (1 << 64) - 1 | 1)
"""Another one in each process, as the seed is that Python's own dicts are safe by."""


def as_keys(stored: bytes) -> Keys:
    """Keys from their bytes, one behind the other."""
    return np.frombuffer(stored, dtype="<u8").reshape(-1, 2)


def one_by_one(keys: Keys) -> list[bytes]:
    """The bytes of each key."""
    stored = keys.tobytes()
    return [stored[place : place + KEY_BYTES] for place in range(0, len(stored), KEY_BYTES)]


def among(keys: Keys, others: Keys) -> Mask:
    """Which keys are one of the others."""
    if not len(others):
        return np.zeros(len(keys), dtype=np.bool_)
    table = KeyTable(len(others))
    table.add(others)
    found: Mask = table.find(keys) >= 0
    return found


class KeyTable:
    """Numbers distinct keys from 0 on, ``most`` of them at most.

    Open addressing with linear probing (Knuth, The Art of Computer Programming 6.4, algorithm L), half full at
    most. Where a key begins is said by its bits and a ``factor`` that only this process knows (Dietzfelbinger
    and others 1997, A reliable randomized algorithm for the closest-pair problem): who chooses identifiers
    could else choose many that begin in one place. No outcome depends on it.
    """

    def __init__(self, most: int, factor: int | None = None) -> None:
        bits = max(_LEAST_SLOT_BITS, (2 * most - 1).bit_length())
        self._factor = _FACTOR if factor is None else np.uint64(factor | 1)
        self._shift = np.uint64(64 - bits)
        self._slots = np.full(1 << bits, -1, dtype=np.int32)
        self._keys = np.empty((max(1, most), 2), dtype="<u8")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def keys(self) -> Keys:
        """The keys in the order of their numbers."""
        return self._keys[: self._count]

    def find(self, keys: Keys) -> Places:
        """The number of each key; -1 where it has none."""
        numbers = np.full(len(keys), -1, dtype=np.int64)
        slots, left = self._first_slots(keys), np.arange(len(keys))
        while len(left):
            held = self._slots[slots[left]]
            # Most of what is not there begins where nothing is.
            there = held >= 0
            left, held = left[there], held[there]
            same = self._hold(held, keys[left])
            numbers[left[same]] = held[same]
            left = left[~same]
            slots[left] = self._behind(slots[left])
        return numbers

    def add(self, keys: Keys) -> Places:
        """The number of each key, a new one where it has none; a key may come several times.

        Raises ``IndexError`` where there is no room for all.
        """
        numbers = np.full(len(keys), -1, dtype=np.int64)
        slots, left = self._first_slots(keys), np.arange(len(keys))
        while len(left):
            self._give_numbers(keys, slots, left)
            held = self._slots[slots[left]]
            same = self._hold(held, keys[left])
            numbers[left[same]] = held[same]
            left = left[~same]
            slots[left] = self._behind(slots[left])
        return numbers

    def _give_numbers(self, keys: Keys, slots: Places, left: Places) -> None:
        """Fill the empty slots among those that the keys have come to: of several at one, one gets it."""
        empty = left[self._slots[slots[left]] < 0]
        if not len(empty):
            return
        # Each writes its rank, for the moment; whose stands there afterwards has the slot, whoever it is.
        self._slots[slots[empty]] = np.arange(len(empty))
        winners = empty[self._slots[slots[empty]] == np.arange(len(empty))]
        if self._count + len(winners) > len(self._keys):
            self._slots[slots[empty]] = -1
            raise IndexError("no room for as many keys")
        numbers = self._count + np.arange(len(winners))
        self._slots[slots[winners]] = numbers
        self._keys[numbers] = keys[winners]
        self._count += len(winners)

    def _first_slots(self, keys: Keys) -> Places:
        return (keys[:, 0] * self._factor >> self._shift).astype(np.int64)

    def _behind(self, slots: Places) -> Places:
        return (slots + 1) % len(self._slots)

    def _hold(self, held: npt.NDArray[np.int32], keys: Keys) -> Mask:
        """Whether the numbers that slots hold are those of the keys."""
        found = self._keys[held]
        same: Mask = (held >= 0) & (found[:, 0] == keys[:, 0]) & (found[:, 1] == keys[:, 1])
        return same
