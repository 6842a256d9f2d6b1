"""The services' way to PostgreSQL: real connections, one statement at a time, which can break anywhere."""

from __future__ import annotations

import asyncio
import inspect
import io
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from services.alerting.store import QUERIES as ALERTING
from services.metrics.hot.memory import QUERIES as HOT
from services.metrics.store import QUERIES as METRICS
from services.retrain.store import QUERIES as RETRAIN
from shared.database import _prepare, _session
from shared.effects import QUERIES as KERNEL
from tests.simulation.scheduler import Actor, Kind, LostError, Scheduler, refuse_the_dead
from tests.simulation.virtual import VirtualLoop

LOCK_SECONDS = 5.0
"""The services' ``lock_timeout``, here in virtual time."""
NAMES = {text: name for queries in (KERNEL, METRICS, HOT, ALERTING, RETRAIN) for name, text in queries.items()}
WITHOUT_COMMENTS = re.compile(r"--.*")
CONNECTION_LOST = "connection was closed in the middle of operation"

VIRTUAL_TIME = """
CREATE SCHEMA simulation;
CREATE SEQUENCE simulation.now AS bigint MINVALUE 0 START 0;
CREATE FUNCTION simulation.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS $$ SELECT to_timestamp(last_value / 1e6) FROM simulation.now $$;
GRANT USAGE ON SCHEMA simulation TO PUBLIC;
GRANT SELECT ON simulation.now TO PUBLIC;
"""
WITNESS = """
CREATE TABLE simulation.taken (service text, topic text, partition integer, "offset" bigint);
GRANT INSERT ON simulation.taken TO PUBLIC;
"""
"""Where every record is written down whenever it is taken, in the transaction that takes it. No key forbids a
second row: an effect that happened twice shows, even where the service itself would not mind the repeat."""


class Operation:
    """A statement that PostgreSQL was sent and has not answered yet."""

    def __init__(self, connection: Lent, task: asyncio.Task[Any]) -> None:
        self.connection = connection
        self.task = task
        self.blocked = False
        self.timer: asyncio.TimerHandle | None = None


class Server:
    """The database of all worlds of this process, with an administrator's connection beside the services'."""

    def __init__(self, dsn: str, loop: VirtualLoop) -> None:
        self.dsn = dsn
        self.loop = loop
        self._free: dict[str, list[asyncpg.Connection[Any]]] = {}
        self._operations: set[Operation] = set()
        self._overdue: list[Operation] = []
        self.admin: asyncpg.Connection[Any] = None  # type: ignore[assignment]  # until begun
        self._truncate = ""
        self.one_at_a_time = asyncio.Lock()
        """Held while PostgreSQL is asked beside the points, so that who asked first goes on first in every run."""
        self.lock_waits = 0
        self.lock_timeouts = 0

    async def begin(self) -> None:
        """Connect, and give the database the virtual clock."""
        self.admin = await asyncpg.connect(self.dsn)
        await _prepare(self.admin)
        await self.admin.execute(VIRTUAL_TIME + WITNESS)
        tables = await self.admin.fetch(
            "SELECT schemaname || '.' || tablename AS name FROM pg_tables "
            "WHERE schemaname IN ('metrics', 'alerting', 'retrain') AND tablename <> 'outbox_lease' ORDER BY 1"
        )
        names = ", ".join(["simulation.taken", *(row["name"] for row in tables)])
        self._truncate = f"TRUNCATE {names} RESTART IDENTITY;" + "".join(
            f"UPDATE {service}.outbox_lease SET holder = 'nobody', epoch = 0, expires_at = '-infinity';"
            for service in ("metrics", "alerting", "retrain")
        )

    async def end(self) -> None:
        for connections in self._free.values():
            for connection in connections:
                await connection.close()
        await self.admin.close()

    async def empty(self) -> None:
        """A new world begins with nothing."""
        await self.admin.execute(self._truncate)
        self.lock_waits = self.lock_timeouts = 0
        await self.tell_time()

    async def tell_time(self) -> None:
        """Let the database's clock say what the loop's does."""
        moment = round(self.loop.now().timestamp() * 1e6)
        await self.admin.execute("SELECT setval('simulation.now', $1)", moment)

    async def connection(self, role: str) -> asyncpg.Connection[Any]:
        """One that nobody uses, in a service's role."""
        free = self._free.setdefault(role, [])
        if free:
            return free.pop()
        session = _session(role, f"simulation-{role}") | {
            # Functions that this names are found before PostgreSQL's own: time is virtual there as well.
            "search_path": f"simulation, {role}, pg_catalog",
            # Waits end in virtual time, by LOCK_SECONDS: on a busy machine a real one would end differently.
            "lock_timeout": "0",
            "idle_in_transaction_session_timeout": "0",
            "deadlock_timeout": "1h",
            # A plan must not depend on how often the connection has made it before.
            "plan_cache_mode": "force_generic_plan",
        }
        with self._busy():
            made = await asyncpg.connect(self.dsn, server_settings=session)
            await _prepare(made)
        return made

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Nothing is idle while PostgreSQL is asked beside the points."""
        self.loop.under_way += 1
        try:
            yield
        finally:
            self.loop.under_way -= 1

    def give_back(self, role: str, connection: asyncpg.Connection[Any]) -> None:
        self._free[role].append(connection)

    def begun(self, connection: Lent, work: Coroutine[Any, Any, Any]) -> Operation:
        """PostgreSQL has work to do."""
        operation = Operation(connection, self.loop.create_task(work))
        self._operations.add(operation)
        self.loop.under_way += 1
        operation.task.add_done_callback(lambda _task: self._ended(operation))
        return operation

    def _ended(self, operation: Operation) -> None:
        self._operations.discard(operation)
        # Whoever sent it may be gone: then nobody asks what became of it.
        operation.task.exception()
        if operation.timer is not None:
            operation.timer.cancel()
        if not operation.blocked:
            self.loop.under_way -= 1

    def locks_released(self) -> None:
        """What waited for locks may go on."""
        for operation in self._operations:
            if operation.blocked:
                operation.blocked = False
                self.loop.under_way += 1

    async def look_for_locks(self) -> None:
        """Find the statements that wait for locks: they go on when another transaction ends, or time does."""
        asked = {op.connection.process_id: op for op in self._operations if not op.blocked}
        waiting = await self.admin.fetch(
            "SELECT pid FROM unnest($1::integer[]) AS pid WHERE cardinality(pg_blocking_pids(pid)) > 0",
            list(asked),
        )
        for row in waiting:
            operation = asked[row["pid"]]
            if operation.task.done() or operation.blocked:
                continue
            operation.blocked = True
            self.loop.under_way -= 1
            if operation.timer is None:
                self.lock_waits += 1
                operation.timer = self.loop.call_later(LOCK_SECONDS, self._is_overdue, operation)

    def _is_overdue(self, operation: Operation) -> None:
        self._overdue.append(operation)

    async def end_overdue_waits(self) -> bool:
        """End the waits for locks that have lasted for ``LOCK_SECONDS``. Returns whether there was one."""
        overdue, self._overdue = self._overdue, []
        ended = False
        for operation in overdue:
            if operation.blocked and not operation.task.done():
                self.lock_timeouts += 1
                operation.blocked = False
                self.loop.under_way += 1
                await self.admin.execute("SELECT pg_cancel_backend($1)", operation.connection.process_id)
                ended = True
        return ended

    async def cut(self, connection: Lent) -> None:
        """End a session as PostgreSQL does when its client is gone: what is not committed never happened."""
        with self._busy():
            await self._cut(connection)
        connection.in_transaction = False
        self.locks_released()

    async def _cut(self, connection: Lent) -> None:
        operation = connection.operation
        if operation is None or operation.task.done():
            real = connection.real
            if connection.in_transaction:
                await real.execute("ROLLBACK")
            self.give_back(connection.role, real)
        else:
            if operation.blocked:
                operation.blocked = False
                self.loop.under_way += 1
            await self.admin.execute("SELECT pg_terminate_backend($1, 10000)", connection.process_id)
            await asyncio.wait([operation.task])
            connection.real.terminate()


class Lent:
    """One real connection, lent to an instance. Has what the services use of asyncpg's."""

    def __init__(self, server: Server, scheduler: Scheduler, actor: Actor, role: str, notify: Notify) -> None:
        self._server = server
        self._scheduler = scheduler
        self._actor = actor
        self._notify = notify
        self._notifications: list[str] = []
        self.role = role
        self.real: asyncpg.Connection[Any] = None  # type: ignore[assignment]  # until opened
        self.operation: Operation | None = None
        self.in_transaction = False
        self.is_cut = False

    async def open(self) -> None:
        async with self._server.one_at_a_time:
            self.real = await self._server.connection(self.role)

    @property
    def process_id(self) -> int:
        return self.real.get_server_pid()

    async def close(self) -> None:
        """Back to the others, whatever was left open."""
        if not self.is_cut:
            self.is_cut = True
            await self._server.cut(self)

    @asynccontextmanager
    async def transaction(self, *, isolation: str = "read_committed") -> AsyncIterator[None]:
        async with self._server.one_at_a_time:
            self._refuse_when_cut()
            await self._run(lambda: self.real.execute(f"BEGIN ISOLATION LEVEL {isolation.replace('_', ' ')}"))
        self.in_transaction = True
        self._notifications = []
        try:
            yield
        except BaseException:
            if self.in_transaction and not self._actor.dead and not self.is_cut:
                await self._roll_back()
            raise
        self._refuse_when_cut()
        await self._effect("commit", "commit", self._commit, durable=True)

    async def _commit(self) -> None:
        await self.real.execute("COMMIT")
        self.in_transaction = False
        self._server.locks_released()
        for channel in self._notifications:
            self._notify(channel)

    async def _roll_back(self) -> None:
        if self.operation is not None and not self.operation.task.done():
            await self.close()
            return
        async with self._server.one_at_a_time:
            await self._run(lambda: self.real.execute("ROLLBACK"))
        self.in_transaction = False
        self._server.locks_released()

    async def execute(self, query: str, *arguments: Any) -> str:
        return await self._statement(query, arguments, self.real.execute)

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return await self._statement(query, arguments, self.real.fetch)

    async def fetchrow(self, query: str, *arguments: Any) -> asyncpg.Record | None:
        return await self._statement(query, arguments, self.real.fetchrow)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        return await self._statement(query, arguments, self.real.fetchval)

    async def cursor(self, query: str, *arguments: Any) -> LentCursor:
        """A cursor of PostgreSQL's; opening it is a statement, and every portion that is fetched another."""
        return LentCursor(self, await self._statement(query, arguments, self.real.cursor), query)

    async def fetch_portion(self, cursor: Any, query: str, count: int) -> list[asyncpg.Record]:
        self._refuse_when_cut()
        label = f"{NAMES.get(query, query)} (portion)"
        found: list[asyncpg.Record] = await self._effect(
            "statement", label, lambda: cursor.fetch(count), durable=False
        )
        return found

    async def copy_records_to_table(self, table: str, *, records: Iterable[Any], columns: Iterable[str]) -> None:
        rows = list(records)
        await self._effect(
            "statement",
            f"COPY {table}",
            lambda: self.real.copy_records_to_table(table, records=rows, columns=columns),
            durable=not self.in_transaction,
        )

    async def copy_to_table(
        self,
        table: str,
        *,
        source: AsyncIterator[bytes],
        columns: list[str],
        format: str,  # noqa: A002 (asyncpg's name)
    ) -> None:
        data = b"".join([piece async for piece in source])
        await self._effect(
            "statement",
            f"COPY {table}",
            lambda: self.real.copy_to_table(table, source=io.BytesIO(data), columns=columns, format=format),
            durable=not self.in_transaction,
        )

    async def copy_from_query(
        self,
        query: str,
        *,
        output: Callable[[bytes], Any],
        format: str,  # noqa: A002 (asyncpg's name)
        timeout: float,  # noqa: ARG002, ASYNC109 (asyncpg's name)
    ) -> None:
        self._refuse_when_cut()
        await self._effect(
            "statement",
            f"COPY {NAMES.get(query, query)}",
            lambda: self.real.copy_from_query(query, output=output, format=format),
            durable=False,
        )

    async def _statement(self, query: str, arguments: tuple[Any, ...], run: Callable[..., Any]) -> Any:
        self._refuse_when_cut()
        if "pg_notify" in query:
            self._notifications.append(arguments[0])
        label = NAMES.get(query, " ".join(query.split()))
        # A statement of its own is durable at once; of one that only reads there is nothing to lose.
        durable = not self.in_transaction and WITHOUT_COMMENTS.sub("", query).split()[0] != "SELECT"
        answer = await self._effect("statement", label, lambda: run(query, *arguments), durable=durable)
        if durable:
            self._server.locks_released()
        return answer

    async def _effect(self, kind: Kind, label: str, act: Callable[[], Any], *, durable: bool) -> Any:
        only_reads = not durable and not self.in_transaction
        try:
            await self._scheduler.point(self._actor, kind, label, changes_nothing=only_reads)
            # The session may have ended while this one stood still.
            self._refuse_when_cut()
            answer = await self._run(act)
            if durable:
                await self._scheduler.point(self._actor, kind, f"{label} (answer)", changes_nothing=True)
        except LostError:
            await self.close()
            raise asyncpg.ConnectionDoesNotExistError(CONNECTION_LOST) from None
        return answer

    async def _run(self, act: Callable[[], Any]) -> Any:
        work = act()
        assert inspect.isawaitable(work)
        self.operation = self._server.begun(self, _awaited(work))
        try:
            return await asyncio.shield(self.operation.task)
        except asyncpg.QueryCanceledError as error:
            message = "canceling statement due to lock timeout"
            raise asyncpg.LockNotAvailableError(message) from error
        finally:
            refuse_the_dead(self._actor)

    def _refuse_when_cut(self) -> None:
        refuse_the_dead(self._actor)
        if self.is_cut:
            raise asyncpg.ConnectionDoesNotExistError(CONNECTION_LOST)


@dataclass(frozen=True)
class LentCursor:
    """A cursor of a transaction. Has what the services use of asyncpg's."""

    connection: Lent
    real: Any
    query: str

    async def fetch(self, count: int) -> list[asyncpg.Record]:
        """The next rows, ``count`` at most; none at the end."""
        return await self.connection.fetch_portion(self.real, self.query, count)


Notify = Callable[[str], None]


async def _awaited(work: Any) -> Any:
    return await work


class Pool:
    """An instance's pool of connections. Has what the services use of asyncpg's."""

    def __init__(self, server: Server, scheduler: Scheduler, actor: Actor, role: str, notify: Notify) -> None:
        self._make = lambda: Lent(server, scheduler, actor, role, notify)
        self._actor = actor
        self.lent: list[Lent] = []

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Lent]:
        refuse_the_dead(self._actor)
        connection = self._make()
        await connection.open()
        self.lent.append(connection)
        try:
            refuse_the_dead(self._actor)
            yield connection
        finally:
            # A crash has taken the dead one's connections already.
            if connection in self.lent:
                self.lent.remove(connection)
                await connection.close()

    async def execute(self, query: str, *arguments: Any) -> str:
        async with self.acquire() as connection:
            return await connection.execute(query, *arguments)

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self.acquire() as connection:
            return await connection.fetch(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(query, *arguments)

    def terminate(self) -> None:
        """Nothing to do: a crash cuts the connections by itself."""

    async def cut(self, *, in_transaction_only: bool = False) -> None:
        """Break the connections as a dead process, or PostgreSQL's patience with a silent one, does."""
        for connection in list(self.lent):
            if connection.in_transaction or not in_transaction_only:
                if not in_transaction_only:
                    self.lent.remove(connection)
                await connection.close()
