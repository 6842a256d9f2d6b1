"""How this process reads what aiokafka has fetched: many records at a time, whatever their header names are.

Of itself aiokafka hands every record through four generators and wraps it in one that repeats its topic, its
partition and its sizes: half of what a fetch costs. And at the first header name that is not UTF-8 it raises,
again at every fetch, so that one record would keep all of its partition from the service, for ever.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from typing import Any, Final, overload

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

LENGTH_AT: Final = 8
OVERHEAD_BYTES: Final = 12
"""Before a batch's own bytes: its first offset (8) and its length (4)."""
PORTION_RECORDS: Final = 4_096
"""Of a batch so many are made at once; compressed ones may hold millions."""
PlainRecord = Any
"""A record as it lies in its batch: ``offset``, ``timestamp`` and its type, ``key``, ``value``, ``headers``."""
_offset_of = attrgetter("offset")


def read_in_portions() -> None:
    """Let the consumers of this process read so. Before any of them has fetched."""
    fetcher.MemoryRecords = ForgivingRecords
    fetcher.PartitionRecords = PartitionPortions
    fetcher.FetchResult = FetchedPortions


class Taken(Sequence[ConsumerRecord[bytes, bytes]]):
    """Records of one partition, each made when it is asked for; ``plain`` are what they are made from."""

    __slots__ = ("partition", "plain")

    def __init__(self, partition: TopicPartition, plain: Sequence[PlainRecord]) -> None:
        self.partition = partition
        self.plain = plain

    @overload
    def __getitem__(self, index: int) -> ConsumerRecord[bytes, bytes]: ...

    @overload
    def __getitem__(self, index: slice) -> Taken: ...

    def __getitem__(self, index: int | slice) -> ConsumerRecord[bytes, bytes] | Taken:
        if isinstance(index, slice):
            return Taken(self.partition, self.plain[index])
        one = self.plain[index]
        key, value = one.key, one.value
        sizes = (-1 if part is None else len(part) for part in (key, value))
        return ConsumerRecord(
            *self.partition,
            *(one.offset, one.timestamp, one.timestamp_type),
            *(key, value, one.checksum, *sizes, tuple(one.headers)),
        )

    def __len__(self) -> int:
        return len(self.plain)


class Fetched(Sequence[ConsumerRecord[bytes, bytes]]):
    """Records of several partitions; those of a partition are in the order of their offsets."""

    __slots__ = ("parts",)

    def __init__(self, parts: Iterable[Taken] = ()) -> None:
        self.parts = tuple(parts)

    @classmethod
    def of(cls, records: Iterable[ConsumerRecord[bytes, bytes]]) -> Fetched:
        """Of records that are made already."""
        parts: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]] = {}
        for record in records:
            parts.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
        return cls(Taken(partition, found) for partition, found in parts.items())

    @overload
    def __getitem__(self, index: int) -> ConsumerRecord[bytes, bytes]: ...

    @overload
    def __getitem__(self, index: slice) -> list[ConsumerRecord[bytes, bytes]]: ...

    def __getitem__(self, index: int | slice) -> ConsumerRecord[bytes, bytes] | list[ConsumerRecord[bytes, bytes]]:
        # FastStream asks for the first, to name its topic.
        return self.parts[0][0] if index == 0 and self.parts else list(self)[index]

    def __iter__(self) -> Iterator[ConsumerRecord[bytes, bytes]]:
        return chain.from_iterable(self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def plain(self) -> Iterator[PlainRecord]:
        """The same without a record made of each."""
        return chain.from_iterable(part.plain for part in self.parts)


class ForgivingRecords:
    """The record batches of a fetch, in the place of aiokafka's ``MemoryRecords``."""

    def __init__(self, data: bytes) -> None:
        self._strict = MemoryRecords(data)
        self._data = data
        self._start = 0

    def size_in_bytes(self) -> int:
        """The size of all batches."""
        return int(self._strict.size_in_bytes())

    def has_next(self) -> bool:
        """Whether there is a batch left that came whole."""
        return bool(self._strict.has_next())

    def next_batch(self) -> Batch:
        """The next batch; read by aiokafka's fast reader where that can."""
        (length,) = struct.unpack_from(">i", self._data, self._start + LENGTH_AT)
        start, self._start = self._start, self._start + OVERHEAD_BYTES + length
        return Batch(self._strict.next_batch(), partial(_read_again, self._data[start : self._start]))


class Batch:
    """One batch. It is walked through in few steps, each a ``Portion`` of its records."""

    def __init__(self, strict: Any, again: Callable[[], list[PlainRecord]]) -> None:
        self._strict = strict
        self._again = again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strict, name)

    def __next__(self) -> PlainRecord:
        return next(self._strict)

    def __iter__(self) -> Iterator[Portion]:
        """With U+FFFD for what is not UTF-8 in a header's name; no portion is empty."""
        # The strict batch begins anew when it is asked once more after its end; a chain is not asked.
        records = chain(self._strict)
        read = 0
        try:
            while portion := list(islice(records, PORTION_RECORDS)):
                yield Portion(portion)
                read += len(portion)
        except UnicodeDecodeError:
            yield Portion(self._again()[read:])


class Portion:
    """Some records of a batch in the place of one, whose offset is the last one's."""

    __slots__ = ("offset", "records")

    def __init__(self, records: list[PlainRecord]) -> None:
        self.records = records
        self.offset = records[-1].offset


class PartitionPortions(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka's fetcher has no types
    """What was fetched of a partition. Which batches count (aborted ones, control ones) is aiokafka's to say."""

    def __init__(self, partition: TopicPartition, *rest: Any, **named: Any) -> None:
        super().__init__(partition, *rest, **named)
        if self._key_deserializer or self._value_deserializer:
            raise NotImplementedError("records are read as bytes; decode them afterwards")
        self._left: list[PlainRecord] = []
        self._place = 0

    def _consumer_record(self, _partition: TopicPartition, portion: Portion) -> list[PlainRecord]:
        first = bisect_left(portion.records, self.next_fetch_offset, key=_offset_of)
        return portion.records[first:]

    def take(self, most: int | None) -> tuple[list[PlainRecord], bool]:
        """So many records at most, and whether there may be more."""
        taken: list[PlainRecord] = []
        is_exhausted = False
        while not is_exhausted and (most is None or len(taken) < most):
            if self._place == len(self._left):
                self._left, self._place = next(self._records_iterator, []), 0
                is_exhausted = not self._left
            until = len(self._left) if most is None else self._place + most - len(taken)
            taken += self._left[self._place : until]
            self._place = min(until, len(self._left))
        if self._left:
            # The generator has passed the whole portion; what is taken ends here.
            self.next_fetch_offset = self._left[self._place - 1].offset + 1
        return taken, not is_exhausted

    def __next__(self) -> ConsumerRecord[bytes, bytes]:
        taken, _ = self.take(1)
        if not taken:
            raise StopIteration
        return Taken(self._tp, taken)[0]


class FetchedPortions(fetcher.FetchResult):  # type: ignore[misc]  # likewise
    """A fetch's answer for one partition."""

    _partition_records: PartitionPortions | None

    def getall(self, max_records: int | None = None) -> Sequence[ConsumerRecord[bytes, bytes]]:
        """So many records at most; none where the partition was sought, paused or taken away meanwhile."""
        if not self.check_assignment(self._topic_partition) or self._partition_records is None:
            return []
        taken, may_have_more = self._partition_records.take(max_records)
        self._update_position()
        if not may_have_more:
            self._partition_records = None
        return Taken(self._topic_partition, taken)


class _ForgivingBytes(bytearray):
    """Bytes whose slices decode whatever they hold."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _ForgivingBytes(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """Text, with U+FFFD for what is none."""
        return super().decode(encoding, errors)


def _read_again(data: bytes) -> list[PlainRecord]:
    """Every record of a batch, by aiokafka's slow reader, which works on Python's own bytes."""
    batch = _DefaultRecordBatchPy(data)
    batch._maybe_uncompress()  # noqa: SLF001 - the names stand in the uncompressed bytes
    batch._buffer = _ForgivingBytes(batch._buffer)  # noqa: SLF001 - likewise
    return list(batch)
