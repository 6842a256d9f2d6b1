"""A record as it was read from a topic, and runs of them: what one fetch has of a partition."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, overload

Place = tuple[str, int]
"""A topic (registry name) and a partition."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record. ``topic`` is the registry's name, without the deployment's prefix.

    ``received_at`` is the broker's append time in UTC, ``offset`` its place in its partition.
    """

    topic: str
    partition: int
    offset: int
    received_at: datetime
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


_offset_of = attrgetter("offset")
_value_of = attrgetter("value")


class Run(Sequence[Record]):
    """Records of one partition, in the order of their offsets.

    Each is made from what was fetched when it is asked for: who reads values alone makes none.
    """

    __slots__ = ("_bounds", "_fetched", "_make", "_received_between", "place")

    def __init__(
        self,
        place: Place,
        fetched: Sequence[Any],
        make: Callable[[Any], Record],
        received_between: Callable[[Sequence[Any]], tuple[datetime, datetime]],
    ) -> None:
        self.place = place
        self._fetched = fetched
        self._make = make
        self._received_between = received_between
        self._bounds: tuple[datetime, datetime] | None = None

    @classmethod
    def of(cls, place: Place, records: Sequence[Record]) -> Run:
        """A run of records that are there already."""
        return cls(place, records, _itself, _between)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Run: ...

    def __getitem__(self, index: int | slice) -> Record | Run:
        if isinstance(index, slice):
            return Run(self.place, self._fetched[index], self._make, self._received_between)
        return self._make(self._fetched[index])

    def __len__(self) -> int:
        return len(self._fetched)

    def __iter__(self) -> Iterator[Record]:
        return map(self._make, self._fetched)

    @property
    def first_offset(self) -> int:
        """The offset of the first record."""
        return int(self._fetched[0].offset)

    @property
    def next_offset(self) -> int:
        """The offset behind the last record."""
        return int(self._fetched[-1].offset) + 1

    def values(self) -> list[bytes | None]:
        """What the records say."""
        return list(map(_value_of, self._fetched))

    def received_between(self) -> tuple[datetime, datetime]:
        """A moment that none of the records was received before, and one that none was received after."""
        if self._bounds is None:
            self._bounds = self._received_between(self._fetched)
        return self._bounds

    def since(self, offset: int) -> Run:
        """The records from an offset on; the run itself where that is all of them."""
        return self if self.first_offset >= offset else self[bisect_left(self._fetched, offset, key=_offset_of) :]

    def before(self, offset: int) -> Run:
        """The records below an offset; the run itself where that is all of them."""
        return self if self.next_offset <= offset else self[: bisect_left(self._fetched, offset, key=_offset_of)]


class Records(Sequence[Record]):
    """Records of several partitions, in runs, none of them empty; those of a partition follow each other.

    ``memo`` is for a handler to keep what it has decoded; a part of the records begins without. ``parts`` are the
    records that they were put together of, if they were.
    """

    __slots__ = ("memo", "parts", "runs")

    def __init__(self, runs: Iterable[Run] = (), parts: Sequence[Records] = ()) -> None:
        self.runs: tuple[Run, ...] = tuple(run for run in runs if len(run))
        self.parts = tuple(parts)
        self.memo: Any = None

    @classmethod
    def together(cls, parts: Sequence[Records]) -> Records:
        """What was fetched one after the other, as one."""
        return parts[0] if len(parts) == 1 else cls((run for part in parts for run in part.runs), parts)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Records:
        """Records in any order; each partition's in the order of their offsets."""
        places: dict[Place, list[Record]] = defaultdict(list)
        for record in records:
            places[record.topic, record.partition].append(record)
        return cls(Run.of(place, sorted(found, key=_offset_of)) for place, found in places.items())

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return list(self)[index]
        rest = index if index >= 0 else len(self) + index
        for run in self.runs:
            if 0 <= rest < len(run):
                return run[rest]
            rest -= len(run)
        raise IndexError(index)

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def __iter__(self) -> Iterator[Record]:
        for run in self.runs:
            yield from run

    def halves(self) -> tuple[Records, Records]:
        """The first half and the rest; neither is empty where there are two records or more."""
        left = len(self) // 2
        first: list[Run] = []
        second: list[Run] = []
        for run in self.runs:
            first.append(run[:left] if left < len(run) else run)
            second.append(run[left:] if left > 0 else run)
            left = max(0, left - len(run))
        return Records(first), Records(second)

    def outside(self, places: Iterable[Place]) -> Records:
        """The records of other partitions than these."""
        without = set(places)
        if not any(run.place in without for run in self.runs):
            return self
        return Records(run for run in self.runs if run.place not in without)

    def before(self, offsets: Mapping[Place, int]) -> Records:
        """The records below an offset of their partition, where there is one."""
        if not offsets:
            return self
        return Records(run.before(offsets.get(run.place, run.next_offset)) for run in self.runs)


def _itself(record: Record) -> Record:
    return record


def _between(records: Sequence[Record]) -> tuple[datetime, datetime]:
    moments = [record.received_at.astimezone(UTC) for record in records]
    return min(moments), max(moments)
