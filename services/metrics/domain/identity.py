"""Compact keys: 128-bit hashes of the ids that users choose, 64-bit hashes of names.

Every instance computes the same key without asking the database. With 128 bits, two different ids among 10^12
share a key with a chance of 10^-15 (birthday bound, n^2 / 2^129).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from uuid import UUID


def key_of(identifier: str) -> UUID:
    """The key of a prediction id or an entity id."""
    return UUID(bytes=hashlib.blake2b(identifier.encode(), digest_size=16).digest())


@lru_cache(maxsize=65_536)
def id_of(*names: str) -> int:
    """A signed 64-bit id of a sequence of names; ("a", "bc") and ("ab", "c") differ."""
    return id_of_all(names)


def id_of_all(names: Sequence[str]) -> int:
    """The same id, not remembered: of sequences that may be long and many, such as the classes of predictions."""
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        encoded = name.encode()
        digest.update(len(encoded).to_bytes(4, "little"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "little", signed=True)


def shard_of(key: UUID, shards: int) -> int:
    """Which of ``shards`` locks guards the key."""
    return key.int % shards
