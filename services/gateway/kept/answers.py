"""What is kept: bounded in entries and bytes, the least lately used goes first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MOST_ENTRIES = 50_000
OVERHEAD_BYTES = 1_024
"""What an entry takes beside its key and its content."""
LARGEST_PART = 8
"""An answer that would take more than this part of the room is not kept: it would drive out all the others."""

Key = tuple[str, bytes]
"""A path and the query as it was sent: whoever asks the same in another spelling has an entry of his own."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The bytes of an answer about a model, and the revision that they are at least as new as."""

    model: str
    revision: str
    content: bytes


class KeptAnswers:
    """The answers kept, by what was asked."""

    def __init__(self, most_bytes: int, most_entries: int = MOST_ENTRIES) -> None:
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._entries: OrderedDict[Key, KeptAnswer] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> KeptAnswer | None:
        """The answer kept for a key, of whatever revision."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def keep(self, key: Key, answer: KeptAnswer) -> None:
        """Keep an answer in the place of what was kept for its key, where there is room for its like."""
        self._remove(key)
        size = _size(key, answer)
        if size * LARGEST_PART > self._most_bytes:
            return
        self._entries[key] = answer
        self.bytes += size
        while self.bytes > self._most_bytes or len(self._entries) > self._most_entries:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: Key) -> None:
        gone = self._entries.pop(key, None)
        if gone is not None:
            self.bytes -= _size(key, gone)


def _size(key: Key, answer: KeptAnswer) -> int:
    return OVERHEAD_BYTES + len(key[1]) + len(answer.content)
