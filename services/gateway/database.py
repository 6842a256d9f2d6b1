"""The gateway's way into PostgreSQL: a pool that may be asked at any time, whether the server is up or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from services.gateway.problems import Problem, describe
from services.gateway.settings import GatewaySettings
from shared.database import connect, connect_pool

AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    OSError,
    TimeoutError,
)
"""What asyncpg raises while the server is down, starting, stopping or full, or does not let us in."""

NOT_MIGRATED = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InvalidParameterValueError,
    asyncpg.InsufficientPrivilegeError,
)
"""What it raises where the role, a view or a right to read is missing."""


class Database:
    """Reads through the published views, in the role that can read nothing else."""

    def __init__(self, pool: asyncpg.Pool[Any], wait_seconds: float) -> None:
        self._pool = pool
        self._wait_seconds = wait_seconds

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: GatewaySettings) -> AsyncIterator[Database]:
        """A pool without a first connection, so that a server that is down at start holds nothing up."""
        pool = await connect_pool(
            settings.postgres_dsn.get_secret_value(),
            role="gateway",
            application_name="trueward-gateway",
            min_size=0,
        )
        try:
            yield cls(pool, settings.database_wait_seconds)
        finally:
            pool.terminate()

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """What a query answers: one statement, so that everything in it is of one moment.

        Raises ``Problem`` (503) when PostgreSQL is away, or not migrated.
        """
        with _as_problem():
            async with self._pool.acquire(timeout=self._wait_seconds) as connection:
                return list(await connection.fetch(query, *arguments, timeout=self._wait_seconds))

    async def row(self, query: str, *arguments: object) -> asyncpg.Record | None:
        """The first row of an answer, if there is one. Raises as ``rows`` does."""
        return next(iter(await self.rows(query, *arguments)), None)


class Line:
    """One connection of its own, for one short question that is asked over and over, by one asker at a time.

    A connection lent by the pool is set back before it is lent again, which takes as long as such a question.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._dsn = settings.postgres_dsn.get_secret_value()
        self._wait_seconds = settings.database_wait_seconds
        self._connection: asyncpg.Connection[Any] | None = None

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """What a query answers, over a new connection where there is none. Raises as ``Database.rows`` does."""
        with _as_problem():
            try:
                async with asyncio.timeout(self._wait_seconds):
                    connection = await self._connected()
                    return list(await connection.fetch(query, *arguments))
            except BaseException:
                # In whatever state it is: a question that was given up may still be answered.
                self.close()
                raise

    def close(self) -> None:
        """Cut the connection off, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _connected(self) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(
                self._dsn, role="gateway", application_name="trueward-gateway-revisions"
            )
        return self._connection


@contextmanager
def _as_problem() -> Iterator[None]:
    try:
        yield
    except AWAY as error:
        detail = (
            f"PostgreSQL does not answer ({describe(error)}). The gateway goes on trying: ask again in a moment."
        )
        raise Problem(503, "database-away", detail, title="Database away", headers={"Retry-After": "1"}) from error
    except NOT_MIGRATED as error:
        detail = f"The database is not migrated ({describe(error)}): run `trueward migrate`, then ask again."
        raise Problem(
            503, "database-not-migrated", detail, title="Database not migrated", headers={"Retry-After": "5"}
        ) from error
