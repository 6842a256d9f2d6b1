"""Header names that are not UTF-8: Kafka carries any bytes, and aiokafka's reader raises at the first such name.

It would raise again at every fetch, so that one record would keep all of its partition from the service, for ever.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

LENGTH_AT: Final = 8
OVERHEAD_BYTES: Final = 12
"""Before a batch's own bytes: its first offset (8) and its length (4)."""


def forgive_header_names() -> None:
    """Let the consumers of this process read any name, with U+FFFD for what is not UTF-8."""
    fetcher.MemoryRecords = ForgivingRecords


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

    def next_batch(self) -> _Batch:
        """The next batch; read by aiokafka's fast reader as far as it can."""
        (length,) = struct.unpack_from(">i", self._data, self._start + LENGTH_AT)
        start, self._start = self._start, self._start + OVERHEAD_BYTES + length
        return _Batch(self._strict.next_batch(), partial(_read_again, self._data[start : self._start]))


class _Batch:
    """One batch; everything but reading its records is the strict batch's own."""

    def __init__(self, strict: Any, again: Callable[[], Iterator[Any]]) -> None:
        self._strict = strict
        self._again = again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strict, name)

    def __next__(self) -> Any:
        return next(self._strict)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._strict:
                yield record
                read += 1
        except UnicodeDecodeError:
            yield from itertools.islice(self._again(), read, None)


class _ForgivingBytes(bytearray):
    """Bytes whose slices decode whatever they hold."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _ForgivingBytes(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """Text, with U+FFFD for what is none."""
        return super().decode(encoding, errors)


def _read_again(data: bytes) -> Iterator[Any]:
    """Every record of a batch, by aiokafka's slow reader, which works on Python's own bytes."""
    batch = _DefaultRecordBatchPy(data)
    batch._maybe_uncompress()  # noqa: SLF001 - the names stand in the uncompressed bytes
    batch._buffer = _ForgivingBytes(batch._buffer)  # noqa: SLF001 - likewise
    return iter(batch)
