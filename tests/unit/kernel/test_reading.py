"""What was fetched is read a batch at a time, and header names that are not UTF-8 are not stumbled over."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record._crc32c import crc
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from shared import reading
from shared.reading import (
    Batch,
    Fetched,
    FetchedPortions,
    ForgivingRecords,
    PartitionPortions,
    Taken,
    read_in_portions,
)
from tests.kernel_world import RawName

GZIP = 1
names = st.one_of(st.text(max_size=5).map(str.encode), st.binary(max_size=5))
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=5)), max_size=3)
records = st.lists(
    st.tuples(st.none() | st.binary(max_size=5), st.binary(max_size=20), headers), min_size=1, max_size=6
)


def batch(
    found: list[tuple[bytes | None, bytes, list[tuple[bytes, bytes | None]]]], compression: int = 0
) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 1 << 20)
    for offset, (key, value, own) in enumerate(found):
        builder.append(offset, 1_000 + offset, key, value, [(RawName(name), content) for name, content in own])
    return bytes(builder.build())


def read(
    reader: ForgivingRecords | MemoryRecords,
) -> list[tuple[int, bytes | None, bytes, list[tuple[str, bytes]]]]:
    found = []
    while reader.has_next():
        one = reader.next_batch()
        assert one.validate_crc()
        records = [record for portion in one for record in portion.records] if isinstance(one, Batch) else one
        found += [(record.offset, record.key, record.value, list(record.headers)) for record in records]
    return found


@given(batches=st.lists(records, min_size=1, max_size=3), compression=st.sampled_from([0, GZIP]))
def test_every_record_is_read_whatever_the_names(
    batches: list[list[tuple[bytes | None, bytes, list[tuple[bytes, bytes | None]]]]], compression: int
) -> None:
    data = b"".join(batch(found, compression) for found in batches)
    assert read(ForgivingRecords(data)) == [
        (offset, key, value, [(name.decode(errors="replace"), content) for name, content in own])
        for found in batches
        for offset, (key, value, own) in enumerate(found)
    ]


def test_the_library_itself_stumbles() -> None:
    """Once it does not, this module has no reason left."""
    with pytest.raises(UnicodeDecodeError):
        read(MemoryRecords(batch([(None, b"v", [(b"caf\xe9", None)])])))


def test_a_batch_is_what_it_was_but_for_the_names() -> None:
    data = batch([(b"k", b"v", [])])
    mine, theirs = ForgivingRecords(data), MemoryRecords(data)
    assert mine.size_in_bytes() == theirs.size_in_bytes()
    one, other = mine.next_batch(), theirs.next_batch()
    for name in ("base_offset", "next_offset", "producer_id", "is_control_batch", "is_transactional"):
        assert getattr(one, name) == getattr(other, name)
    assert not mine.has_next()


def test_a_batch_that_did_not_come_whole_waits_for_the_next_fetch() -> None:
    data = batch([(None, b"first", [])]) + batch([(None, b"second", [])])[:-3]
    assert [value for _, _, value, _ in read(ForgivingRecords(data))] == [b"first"]
    assert not ForgivingRecords(data[:20]).has_next()
    assert not ForgivingRecords(b"").has_next()


PLACE = TopicPartition("labels", 3)
REPLACED = ("MemoryRecords", "PartitionRecords", "FetchResult")


@contextmanager
def portions_read() -> Iterator[pytest.MonkeyPatch]:
    """The fetcher as a service has it; aiokafka's own afterwards."""
    with pytest.MonkeyPatch.context() as patched:
        for name in REPLACED:
            patched.setattr(fetcher, name, None)
        read_in_portions()
        yield patched


class State:
    """A partition's position, as aiokafka keeps it."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.paused = False

    def consumed_to(self, position: int) -> None:
        assert position >= self.position
        self.position = position


def fetch(data: bytes, position: int, isolation: int = 0, aborted: Sequence[tuple[int, int]] = ()) -> Any:
    """The answer to a fetch from a position on, and the position."""
    state = State(position)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    records = fetcher.PartitionRecords(
        PLACE, fetcher.MemoryRecords(data), aborted, position, None, None, True, isolation
    )
    return fetcher.FetchResult(PLACE, assignment=assignment, partition_records=records, backoff=0), state


def batches_from(first: int, sizes: Sequence[int]) -> bytes:
    return batches_with(
        [[first + sum(sizes[:number]) + place for place in range(size)] for number, size in enumerate(sizes)]
    )


def batches_with(offsets: Sequence[Sequence[int]], headers: Mapping[int, bytes] = MappingProxyType({})) -> bytes:
    """Batches of records with these offsets, and of some a header's name; what compaction took is missing."""
    data = b""
    for own in offsets:
        builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1 << 22)
        for offset in own:
            names = [(RawName(headers[offset]), b"")] if offset in headers else []
            builder.append(offset - own[0], 1_000, b"k", b"%d" % offset, names)
        built = builder.build()
        struct.pack_into(">q", built, 0, own[0])
        data += bytes(built)
    return data


def take(answer: Any, most: Sequence[int | None], state: State) -> list[Any]:
    """What is given one after the other, until nothing is left."""
    given = []
    for one in itertools.cycle(most):
        found = answer.getall(one)
        assert one is None or len(found) <= one
        given += [(each.offset, each.value, each.topic, each.partition, each.timestamp) for each in found]
        if not answer.has_more():
            break
        assert not found or state.position > found[-1].offset
    return given


@st.composite
def logs(draw: st.DrawFn) -> list[list[int]]:
    """Offsets of the records in each batch, in order, with gaps where compaction took some."""
    found = sorted(draw(st.sets(st.integers(0, 40), min_size=1, max_size=20)))
    cuts = sorted(draw(st.sets(st.integers(1, len(found)), max_size=4)) | {len(found)})
    return [found[since:until] for since, until in pairwise([0, *cuts])]


@given(
    log=logs(),
    into=st.integers(0, 9),
    most=st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=1, max_size=4),
    portion=st.integers(1, 4),
)
def test_the_same_is_given_as_by_the_library(
    log: list[list[int]], into: int, most: list[int | None], portion: int
) -> None:
    """Whatever the batches, wherever in them the fetch begins, and however many are taken at a time."""
    # The broker begins with the batch that holds the position.
    data, position = batches_with(log), min(log[0][0] + into, log[0][-1])
    theirs, their_state = fetch(data, position)
    expected = take(theirs, most, their_state)
    with portions_read() as patched:
        patched.setattr(reading, "PORTION_RECORDS", portion)
        mine, my_state = fetch(data, position)
        assert take(mine, most, my_state) == expected
        assert my_state.position == their_state.position == log[-1][-1] + 1
        one_by_one, state = fetch(data, position)
        found = []
        while one_by_one.has_more():
            record = one_by_one.getone()
            found += [] if record is None else [(record.offset, record.value)]
        assert found == [each[:2] for each in expected]
        assert state.position == my_state.position


def test_of_a_long_batch_a_portion_is_made_at_a_time_also_where_a_name_is_not_utf_8() -> None:
    offsets = [list(range(10_000))]
    with portions_read():
        answer, _ = fetch(batches_with(offsets), 0)
        assert len(answer.getall(7)) == 7
        assert len(answer._partition_records._left) == reading.PORTION_RECORDS
        answer, state = fetch(batches_with(offsets, {9_000: b"caf\xe9"}), 0)
        found = take(answer, [7], state)
        assert [offset for offset, *_ in found] == offsets[0]


def test_who_wants_records_decoded_is_told() -> None:
    with portions_read(), pytest.raises(NotImplementedError):
        fetcher.PartitionRecords(PLACE, fetcher.MemoryRecords(b""), (), 0, None, bytes.decode, True, 0)


def test_the_position_is_behind_what_was_given_not_behind_the_batch() -> None:
    with portions_read():
        answer, state = fetch(batches_from(10, [5]), 10)
        assert [each.offset for each in answer.getall(2)] == [10, 11]
        assert state.position == 12
        assert answer.getone().offset == 12
        assert state.position == 13
        state.position = 10
        assert not answer.getall(2), "it was sought meanwhile"


def transactional(first: int, key: bytes | None, value: bytes, *, control: bool) -> bytes:
    """A batch of one record in a transaction of the producer 77."""
    builder = _DefaultRecordBatchBuilderPy(2, 0, 1, 77, 0, 0, 1 << 20)
    builder.append(0, 1_000, key, value, [])
    built = bytearray(builder.build())
    (attributes,) = struct.unpack_from(">h", built, 21)
    struct.pack_into(">h", built, 21, attributes | (0x20 if control else 0))
    struct.pack_into(">I", built, 17, crc(built[21:]))
    struct.pack_into(">q", built, 0, first)
    return bytes(built)


def test_what_was_aborted_and_what_only_marks_is_left_out() -> None:
    aborted = transactional(0, None, b"aborted", control=False)
    marker = transactional(1, struct.pack(">hh", 0, 0), struct.pack(">hi", 0, 0), control=True)
    with portions_read():
        answer, state = fetch(
            aborted + marker + batches_from(2, [2]), 0, isolation=READ_COMMITTED, aborted=[(77, 0)]
        )
        assert [each.value for each in answer.getall(None)] == [b"2", b"3"]
        assert state.position == 4


def test_a_damaged_batch_is_refused() -> None:
    data = bytearray(batches_from(0, [2]))
    data[-1] ^= 1
    with portions_read():
        answer, state = fetch(bytes(data), 0)
        with pytest.raises(CorruptRecordException):
            answer.getall(None)
        assert state.position == 0


def test_records_are_made_when_they_are_asked_for() -> None:
    (portion,) = ForgivingRecords(batch([(b"key", b"value", [(b"name", b"content")])])).next_batch()
    (plain,) = portion.records
    taken = Taken(PLACE, [plain])
    (record,) = taken
    assert (record.topic, record.partition, record.offset) == ("labels", 3, 0)
    assert (record.key, record.value, record.timestamp) == (b"key", b"value", 1_000)
    assert (record.serialized_key_size, record.serialized_value_size) == (3, 5)
    assert record.headers == (("name", b"content"),)
    assert list(taken[:1]) == [record]
    fetched = Fetched([taken, Taken(TopicPartition("labels", 4), [plain])])
    assert len(fetched) == 2
    assert [one.partition for one in fetched] == [3, 4]
    assert fetched[0] == record
    assert list(fetched.plain()) == [plain, plain]
    assert [part.partition for part in Fetched.of(fetched).parts] == [part.partition for part in fetched.parts]


def test_a_service_reads_so() -> None:
    with portions_read():
        assert fetcher.MemoryRecords is ForgivingRecords
        assert fetcher.PartitionRecords is PartitionPortions
        assert fetcher.FetchResult is FetchedPortions
