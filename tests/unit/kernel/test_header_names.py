"""Header names that are not UTF-8 are read, not stumbled over."""

from __future__ import annotations

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from shared.header_names import ForgivingRecords, forgive_header_names
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
        found += [(record.offset, record.key, record.value, list(record.headers)) for record in one]
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


def test_the_fetcher_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    forgive_header_names()
    assert fetcher.MemoryRecords is ForgivingRecords
