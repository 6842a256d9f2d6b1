"""Rows written by binary COPY, made from whole columns: no row passes through Python by itself.

The format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.database import Connection

Column = npt.NDArray[Any] | None
"""Values of a fixed width in PostgreSQL's own form (big-endian); None: null in every row."""

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_PIECE_BYTES = 1 << 18


def encode(columns: Mapping[str, Column], rows: int) -> bytes:
    """The rows as COPY reads them, fields in the order of the columns."""
    layout: list[tuple[str, Any]] = [("fields", ">i2")]
    for name, column in columns.items():
        layout.append((f"size of {name}", ">i4"))
        if column is not None:
            layout.append((name, column.dtype))
    table = np.zeros(rows, dtype=layout)
    table["fields"] = len(columns)
    for name, column in columns.items():
        table[f"size of {name}"] = -1 if column is None else column.dtype.itemsize
        if column is not None:
            table[name] = column
    return _HEADER + table.tobytes() + _TRAILER


async def copy(connection: Connection, table: str, columns: Mapping[str, Column], rows: int) -> None:
    """Append rows to a table. Raises asyncpg's errors, such as for a key that is there already."""
    data = encode(columns, rows)

    async def pieces() -> AsyncIterator[bytes]:
        for place in range(0, len(data), _PIECE_BYTES):
            yield data[place : place + _PIECE_BYTES]

    await connection.copy_to_table(table, source=pieces(), columns=list(columns), format="binary")


def uuids(keys: npt.NDArray[np.uint64]) -> Column:
    """Keys (shape (n, 2): their bytes as two numbers) as ``uuid``."""
    return np.frombuffer(keys.tobytes(), dtype="V16")


def bigints(values: npt.NDArray[np.int64]) -> Column:
    """Integers as ``bigint``."""
    return values.astype(">i8")


def doubles(values: npt.NDArray[Any]) -> Column:
    """Numbers as ``double precision``."""
    return values.astype(">f8")


def booleans(values: npt.NDArray[np.bool_]) -> Column:
    """Truth values as ``boolean``."""
    return values.astype(np.uint8).view("V1")
