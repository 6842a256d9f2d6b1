"""PostgreSQL: connections in a service's role, named SQL, migrations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import psycopg
from asyncpg.pool import PoolConnectionProxy
from yoyo import get_backend, read_migrations
from yoyo.exceptions import BadMigration

from shared.errors import TruewardError

Connection: TypeAlias = "asyncpg.Connection[Any] | PoolConnectionProxy[Any]"
"""A connection of one's own, or one lent by the pool."""

LOCK_TIMEOUT = "5s"
"""So that a stopped process, holding locks, holds nobody up for longer."""
TRANSACTION_TIMEOUT = "120s"
"""A process that stops between a statement's preparation and its execution is not idle to PostgreSQL: no other
timeout ends it, and it would keep its locks for ever. Far more than any transaction takes."""

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


class Queries(Mapping[str, str]):
    """The named blocks of a ``queries.sql``: ``-- name: load_states`` and the SQL below it."""

    def __init__(self, blocks: Mapping[str, str]) -> None:
        self._blocks = dict(blocks)

    @classmethod
    def load(cls, package: str, filename: str = "queries.sql") -> Queries:
        """Read the file that lies in ``package``. Raises ``ValueError`` for a name given twice."""
        parts = _NAME.split(resources.files(package).joinpath(filename).read_text(encoding="utf-8"))
        names, bodies = parts[1::2], parts[2::2]
        if len(set(names)) != len(names):
            raise ValueError(f"{package}/{filename} names a query twice")
        return cls({name: body.strip() for name, body in zip(names, bodies, strict=True)})

    def __getitem__(self, name: str) -> str:
        return self._blocks[name]

    def __getattr__(self, name: str) -> str:
        try:
            return self._blocks[name]
        except KeyError:
            raise AttributeError(name) from None

    def __iter__(self) -> Any:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)


async def _prepare(connection: asyncpg.Connection[Any]) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog", format="text"
        )


async def connect_pool(
    dsn: str, *, role: str, application_name: str, min_size: int = 1, max_size: int = 8
) -> asyncpg.Pool[Any]:
    """A pool whose connections act as ``trueward_<role>`` in the schema of that name.

    Raises asyncpg's errors when the server cannot be reached or the role does not exist.
    """
    return await asyncpg.create_pool(
        dsn,
        min_size=min_size,
        max_size=max_size,
        init=_prepare,
        server_settings=_session(role, application_name),
        command_timeout=60,
    )


async def connect(dsn: str, *, role: str, application_name: str) -> asyncpg.Connection[Any]:
    """One connection beside the pool, for LISTEN."""
    connection = await asyncpg.connect(dsn, server_settings=_session(role, application_name), timeout=10)
    await _prepare(connection)
    return connection


async def take_all_the_time(connection: Connection) -> None:
    """Let the open transaction last as long as it takes: what reads all raw rows of a model may well need more."""
    await connection.execute("SET LOCAL transaction_timeout = 0")


def _session(role: str, application_name: str) -> dict[str, str]:
    return {
        "role": f"trueward_{role}",
        "search_path": role,
        "application_name": application_name,
        "lock_timeout": LOCK_TIMEOUT,
        "idle_in_transaction_session_timeout": LOCK_TIMEOUT,
        "transaction_timeout": TRANSACTION_TIMEOUT,
        "timezone": "UTC",
    }


class NotMigratedError(Exception):
    """The database lacks migrations that this code needs; waiting helps, once somebody applies them."""


async def require_migrations(pool: asyncpg.Pool[Any]) -> None:
    """Raises ``NotMigratedError`` for a database that is older than this code. A newer one is fine."""
    needed = {file.stem for file in _migrations().glob("*.sql")}
    try:
        rows = await pool.fetch(Queries.load("shared", "kernel.sql").read_migrations)
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as error:
        raise NotMigratedError(f"the database was not migrated for this version: {error}") from error
    missing = needed - {row["migration_id"] for row in rows}
    if missing:
        raise NotMigratedError(f"the database lacks {', '.join(sorted(missing))}")


def _migrations() -> Path:
    return Path(str(resources.files("deploy").joinpath("migrations")))


def migrate(dsn: str) -> int:
    """Apply what is missing of deploy/migrations; two callers at once take turns. Returns how many.

    Raises ``TruewardError`` when the database is away or a migration fails.
    """
    scheme, found, rest = dsn.partition("://")
    if not found or scheme not in ("postgres", "postgresql"):
        raise TruewardError("the PostgreSQL address must begin with postgresql://")
    folder = _migrations()
    try:
        with psycopg.connect(dsn) as turn:
            # The library's own lock is a row, which outlives a process that is killed while it holds it.
            turn.execute("SELECT pg_advisory_xact_lock(hashtext('trueward.migrations'))")
            backend = get_backend(f"postgresql+psycopg://{rest}")
            try:
                backend.break_lock()
                missing = backend.to_apply(read_migrations(str(folder)))
                backend.apply_migrations(missing)
            finally:
                backend.connection.close()
    except (psycopg.Error, BadMigration) as error:
        raise TruewardError(f"migration failed: {str(error).partition(chr(10))[0]}") from error
    return len(missing)
