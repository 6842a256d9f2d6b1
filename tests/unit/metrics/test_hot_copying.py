"""Rows in the form that binary COPY reads; that PostgreSQL reads them is tested with one."""

from __future__ import annotations

import struct
from uuid import UUID

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.hot.keys import as_keys
from services.metrics.hot import copying

Row = tuple[UUID, int, float, bool]
rows = st.lists(
    st.tuples(st.uuids(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.booleans()), max_size=6
)


def read_back(data: bytes) -> list[list[bytes | None]]:
    """The fields of every row, by PostgreSQL's description of the format."""
    assert data[:11] == b"PGCOPY\n\xff\r\n\0"
    flags, extension = struct.unpack_from(">II", data, 11)
    assert (flags, extension) == (0, 0)
    found: list[list[bytes | None]] = []
    place = 19
    while (count := struct.unpack_from(">h", data, place)[0]) != -1:
        place += 2
        row: list[bytes | None] = []
        for _ in range(count):
            (size,) = struct.unpack_from(">i", data, place)
            place += 4
            row.append(None if size == -1 else data[place : place + size])
            place += max(size, 0)
        found.append(row)
    assert place + 2 == len(data)
    return found


@given(rows)
def test_every_field_of_every_row_is_written(said: list[Row]) -> None:
    data = copying.encode(
        {
            "key": copying.uuids(as_keys(b"".join(key.bytes for key, *_ in said))),
            "nothing": None,
            "number": copying.bigints(np.array([number for _, number, _, _ in said], dtype=np.int64)),
            "share": copying.doubles(np.array([share for _, _, share, _ in said], dtype=np.float64)),
            "truth": copying.booleans(np.array([truth for *_, truth in said], dtype=np.bool_)),
            "nothing either": None,
        },
        len(said),
    )
    assert read_back(data) == [
        [key.bytes, None, struct.pack(">q", number), struct.pack(">d", share), bytes([truth]), None]
        for key, number, share, truth in said
    ]


def test_truth_values_are_written_as_double_precision_where_they_are_numbers() -> None:
    data = copying.encode({"outcome": copying.doubles(np.array([True, False]))}, 2)
    assert read_back(data) == [[struct.pack(">d", 1.0)], [struct.pack(">d", 0.0)]]
