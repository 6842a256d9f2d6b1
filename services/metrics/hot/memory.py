"""What one process remembers of the store between its transactions, and how it learns what others changed.

It answers for nothing that it is not sure of: what it does not know is looked up. It is brought up to date, and
asked, in transactions that have locked the entities, so that nobody changes them until the transaction ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import numpy.typing as npt
from asyncpg import Record

from services.metrics.domain.hot.keys import KEY_BYTES, Keys, as_keys
from services.metrics.domain.hot.membership import MOST_KEYS, Membership
from services.metrics.domain.hot.states import Recent, States
from services.metrics.hot.combinations import Combinations
from shared.database import Connection, Queries, take_all_the_time
from shared.service import Context

QUERIES = Queries.load("services.metrics.hot")
MOST_RECENT = 200_000
"""Entities that are remembered with what is known of them: about 30 MB."""
LOOK_SECONDS = 10.0
"""Between two looks at what others changed, where no batch looks."""
CHANGES_KEPT = timedelta(minutes=5)
"""How long it is told what changed; who has not looked for longer reads every key anew."""
READING_SECONDS = 600.0
"""How long all keys may take to be read."""
_COPY_HEADER_BYTES = 19
_COPIED = np.dtype([("fields", ">i2"), ("size", ">i4"), ("key", f"V{KEY_BYTES}")])


@dataclass(frozen=True, slots=True)
class Look:
    """A look at what others have changed, and the transaction in which it was (None: it had no number yet)."""

    number: int
    transaction: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What a transaction will leave known: of which entities; names, by number, and series that are stored."""

    keys: Keys
    names: Collection[int]
    series: Collection[int]


@dataclass
class Memory:
    """The entities met last, and which keys are stored at all (``membership``; None while that is not known).

    ``series`` are stored for certain, as the names of ``combinations.stored`` are: neither is ever removed.
    """

    most_recent: int = MOST_RECENT
    combinations: Combinations = field(init=False, default_factory=Combinations)
    recent: Recent = field(init=False)
    series: set[int] = field(init=False, default_factory=set)
    membership: Membership | None = field(init=False, default=None)
    lost: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """Set while every key must be read anew."""
    _store: str | None = field(init=False, default=None)
    _position: Position = field(init=False, default=(None, None))
    _looking: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _own: set[str] = field(init=False, default_factory=set)
    _kept: dict[int, Kept] = field(init=False, default_factory=dict)
    _looks: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._forget_everything()

    def _forget_everything(self) -> None:
        self.recent = Recent(self.most_recent)
        self.combinations.stored.clear()
        self.series.clear()
        self.membership = None
        self.lost.set()

    async def look(self, connection: Connection) -> Look:
        """Learn what others have changed since the last look.

        Inside a transaction that has locked the entities it asks about, before it asks. Whoever comes while
        another looks waits for its end: else what was told to one could be passed over by the other.
        """
        async with self._looking:
            return await self._look(connection)

    async def _look(self, connection: Connection) -> Look:
        row = await _ask(connection, self._position, self._own)
        # Of a transaction that was never heard to be durable: it may be, and is then told of, or it never was.
        for kept in self._kept.values():
            self.recent.forget(kept.keys)
        self._kept.clear()
        if not _is_sure(row, self._store):
            self._forget_everything()
        elif row["keys"]:
            changed = as_keys(row["keys"])
            self.recent.forget(changed)
            if self.membership is not None:
                self.membership.add(changed)
        if self.combinations.is_full:
            self.combinations = Combinations()
            self.recent = Recent(self.most_recent)
            self.series.clear()
        self._store, self._position = row["store"], _position_of(row)
        # What is committed is seen from now on: the next look tells of none of it.
        self._own.clear()
        self._looks += 1
        return Look(self._looks, row["transaction"])

    def may_be_stored(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """False where a key certainly has no row."""
        return np.ones(len(keys), dtype=np.bool_) if self.membership is None else self.membership.may_hold(keys)

    def keep(self, look: Look, kept: Kept, states: States) -> None:
        """Keep what a transaction will leave known; it is forgotten unless :meth:`committed` follows.

        ``look`` is the look that it was done by. Where there was another since, nothing is kept.
        """
        if look.number == self._looks:
            self._kept[look.number] = kept
            self.recent.keep(kept.keys, states)

    def committed(self, look: Look, keys: Keys, others: Keys) -> None:
        """The transaction is durable that has changed ``keys``, and ``others`` in ways that are not kept.

        Where there was another look since, others may have changed its entities already: nothing is kept of them.
        """
        self.recent.forget(others)
        kept = self._kept.pop(look.number, None)
        if kept is None:
            self.recent.forget(keys)
        else:
            self.combinations.stored.update(kept.names)
            self.series.update(kept.series)
        if self.membership is not None:
            self.membership.add(np.concatenate([keys, others]))
        if look.transaction is not None:
            self._own.add(look.transaction)

    async def read_every_key(self, context: Context) -> None:
        """Read which keys are stored, beside the batches. What changes meanwhile is learned at the end.

        Of more than a filter tells apart none is read: then every key may be stored.
        """
        membership = Membership()
        portions = _Portions(membership)
        async with context.pool.acquire() as connection:
            if await connection.fetchval(QUERIES.estimate_keys) > MOST_KEYS:
                self.lost.clear()
                return
            async with connection.transaction(isolation="repeatable_read"):
                await take_all_the_time(connection)
                begun = await _ask(connection, (None, None), ())
                await connection.copy_from_query(
                    QUERIES.read_every_key, output=portions.take, format="binary", timeout=READING_SECONDS
                )
            async with self._looking, connection.transaction(isolation="repeatable_read"):
                since = await _ask(connection, _position_of(begun), ())
                await self._look(connection)
                # Both looks see one snapshot, and nothing comes between the second one and this.
                if _is_sure(since, begun["store"]) and begun["store"] == self._store:
                    membership.add(as_keys(since["keys"] or b""))
                    self.membership = membership
                    self.lost.clear()


Position = tuple[str | None, str | None]
"""A snapshot, and the transaction that took it (None: it has no number): that one's changes are none that it has
seen, though PostgreSQL may tell otherwise."""


def _position_of(looked: Record) -> Position:
    return looked["snapshot"], looked["transaction"]


async def _ask(connection: Connection, position: Position, own: Iterable[str]) -> Record:
    snapshot, transaction = position
    rows: list[Record] = await connection.fetch(QUERIES.look, snapshot, list(own), transaction)
    return rows[0]


def _is_sure(looked: Record, store: str | None) -> bool:
    """Whether a look tells of all that changed in a store."""
    return looked["is_complete"] and not looked["anything_changed"] and looked["store"] == store


class _Portions:
    """Takes the pieces of a binary COPY of keys, wherever they are cut."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._rest = b""
        self._header = _COPY_HEADER_BYTES

    async def take(self, piece: bytes) -> None:
        data = self._rest + piece
        if self._header:
            if len(data) < self._header:
                self._rest = data
                return
            data, self._header = data[self._header :], 0
        rows = len(data) // _COPIED.itemsize
        whole = rows * _COPIED.itemsize
        found = np.frombuffer(data[:whole], dtype=_COPIED)["key"]
        self._membership.add(as_keys(found.tobytes()))
        self._rest = data[whole:]


async def know_every_key(context: Context) -> None:
    """Know which keys are stored before the first record is taken: meanwhile each would be looked up."""
    await memory_of(context).read_every_key(context)


def memory_of(context: Context) -> Memory:
    """The memory that an instance's parts share."""
    found: Memory = context.kept.setdefault("hot", Memory())
    return found


async def remember(context: Context) -> None:
    """Know which keys are stored, and keep knowing it; runs until cancelled."""
    memory = memory_of(context)
    while True:
        if memory.lost.is_set():
            await memory.read_every_key(context)
        async with context.pool.acquire() as connection:
            if not memory.lost.is_set():
                await memory.look(connection)
            await connection.execute(QUERIES.remove_old_changes, CHANGES_KEPT)
        if memory.lost.is_set():
            # It was in vain, or was lost again: not at once once more.
            await asyncio.sleep(LOOK_SECONDS)
            continue
        with suppress(TimeoutError):
            await asyncio.wait_for(memory.lost.wait(), LOOK_SECONDS)
