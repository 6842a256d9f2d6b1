"""Migrations, roles and sessions on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from shared import database
from shared.database import connect, connect_pool, migrate
from shared.errors import TruewardError
from tests.conftest import _created, _sibling
from tests.kernel_world import change, eventually, query

ROOT = Path(__file__).parents[2]
SERVICES = ("metrics", "alerting", "retrain")
ROLES = (*SERVICES, "gateway")
MIGRATIONS = sorted(path.stem for path in (ROOT / "deploy" / "migrations").glob("*.sql"))


@pytest.fixture
def empty_dsn(postgres_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database that nobody has migrated."""
    name = f"trueward_empty_{abs(hash(request.node.nodeid)) % 10**9}"
    with _created(postgres_server, name):
        yield _sibling(postgres_server, name)


def applied(dsn: str) -> list[str]:
    return sorted(name for (name,) in query(dsn, "SELECT migration_id FROM _yoyo_migration"))


def test_a_second_migration_finds_nothing_to_do(empty_dsn: str) -> None:
    assert migrate(empty_dsn) == len(MIGRATIONS)
    assert migrate(empty_dsn) == 0
    assert applied(empty_dsn) == MIGRATIONS


def test_two_that_migrate_at_once_take_turns(empty_dsn: str) -> None:
    """Each service of a deployment may be the first: they start at the same moment."""
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(migrate, [empty_dsn] * 4))
    assert sorted(counts) == [0, 0, 0, len(MIGRATIONS)]
    assert applied(empty_dsn) == MIGRATIONS


def test_databases_of_one_server_can_be_migrated_at_once(postgres_server: str, empty_dsn: str) -> None:
    """Roles belong to the server: both make them."""
    with (
        _created(postgres_server, f"{empty_dsn.rpartition('/')[2]}_b"),
        ThreadPoolExecutor(2) as pool,
    ):
        other = f"{empty_dsn}_b"
        assert list(pool.map(migrate, [empty_dsn, other])) == [len(MIGRATIONS)] * 2


def test_one_that_was_killed_while_it_migrated_locks_nobody_out(empty_dsn: str) -> None:
    """The library's lock is a row, which a killed process leaves behind."""
    migrate(empty_dsn)
    change(empty_dsn, "INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1)")
    assert migrate(empty_dsn) == 0


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgresql://postgres@127.0.0.1:1/nowhere", "migration failed: .*onnection"),
        ("mysql://root@127.0.0.1/x", "must begin with postgresql://"),
        ("host=127.0.0.1", "must begin with postgresql://"),
        ("postgresql://postgres@127.0.0.1:port/x", "migration failed: .*port"),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_clear_line(dsn: str, words: str) -> None:
    with pytest.raises(TruewardError, match=words) as raised:
        migrate(dsn)
    assert "\n" not in str(raised.value)


def test_a_database_that_does_not_exist_is_one_clear_line(postgres_server: str) -> None:
    with pytest.raises(TruewardError, match=r"migration failed: .*does not exist") as raised:
        migrate(_sibling(postgres_server, "no_such_database"))
    assert "\n" not in str(raised.value)


def tables_of(dsn: str, schema: str) -> dict[str, str]:
    """Name to kind (r: table, v: view) of everything in a schema."""
    statement = """
        SELECT relname, relkind FROM pg_class
        WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'v', 'm', 'p')
    """
    return {
        name: kind.decode() if isinstance(kind, bytes) else kind for name, kind in query(dsn, statement, schema)
    }


async def may(connection: asyncpg.Connection[Any], statement: str) -> bool:
    """Whether a role may do it; what it does is undone."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    else:
        return True
    finally:
        await transaction.rollback()


async def test_the_gateway_reads_the_published_views_and_nothing_else(database_dsn: str) -> None:
    connection = await connect(database_dsn, role="gateway", application_name="test")
    try:
        for schema in SERVICES:
            found = tables_of(database_dsn, schema)
            assert {"inbox", "outbox", "outbox_lease", "published_inbox", "published_outbox"} <= set(found)
            for name, kind in found.items():
                published = kind == "v" and name.startswith("published_")
                readable = await may(connection, f"SELECT * FROM {schema}.{name} LIMIT 1")
                assert readable is published, f"{schema}.{name}"
                writes = "SELECT has_table_privilege($1, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES')"
                assert not await connection.fetchval(writes, f"{schema}.{name}")
            assert not await may(connection, f"CREATE TABLE {schema}.mine (n integer)")
        assert not await may(connection, "CREATE TABLE public.mine (n integer)")
    finally:
        await connection.close()


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_sees_nothing_of_the_others(database_dsn: str, service: str) -> None:
    connection = await connect(database_dsn, role=service, application_name="test")
    try:
        for schema in set(SERVICES) - {service}:
            for name in tables_of(database_dsn, schema):
                assert not await may(connection, f"SELECT * FROM {schema}.{name} LIMIT 1"), f"{schema}.{name}"
        for schema in (*SERVICES, "public"):
            assert not await may(connection, f"CREATE TABLE {schema}.mine (n integer)")
            assert not await may(connection, f"DROP SCHEMA {schema} CASCADE")
        for name in ("inbox", "outbox", "outbox_lease"):
            assert await may(connection, f"SELECT * FROM {name} LIMIT 1")
            assert not await may(connection, f"DROP TABLE {name}")
            assert not await may(connection, f"TRUNCATE {name}")
    finally:
        await connection.close()


@pytest.mark.parametrize("role", ROLES)
async def test_a_session_acts_as_its_role_in_its_schema_whoever_used_the_connection(
    database_dsn: str, role: str
) -> None:
    pool = await connect_pool(database_dsn, role=role, application_name="whoami", max_size=1)
    settings = [
        "role",
        "search_path",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "timezone",
    ]
    try:
        for _time in range(2):
            assert await pool.fetchval("SELECT current_user::text") == f"trueward_{role}"
            found = [await pool.fetchval(f"SHOW {name}") for name in settings]
            assert found == [f"trueward_{role}", role, "5s", "5s", "UTC"]
            async with pool.acquire() as connection:
                # What one user of the pool leaves behind, the next does not find.
                await connection.execute("SET lock_timeout = '1h'; SET search_path = public; SET timezone = 'CET'")
    finally:
        await pool.close()


async def test_roles_cannot_log_in(database_dsn: str) -> None:
    rows = query(database_dsn, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'trueward%%' AND rolcanlogin")
    assert rows == []


async def test_a_transaction_that_sleeps_loses_its_session_and_its_locks(database_dsn: str) -> None:
    """The setting of every session, shortened here: a stopped process holds nobody up for longer."""
    sleeper = await connect(database_dsn, role="alerting", application_name="sleeper")
    other = await connect(database_dsn, role="alerting", application_name="other")
    try:
        await sleeper.execute("SET idle_in_transaction_session_timeout = '100ms'")
        transaction = sleeper.transaction()
        await transaction.start()
        await sleeper.execute("SELECT * FROM outbox_lease FOR UPDATE")
        await other.execute("UPDATE outbox_lease SET epoch = epoch + 1")  # its lock_timeout is the deadline
        # The client says it in one of several ways, by how far it has heard of its session's end.
        gone = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
        with pytest.raises(gone):
            await sleeper.execute("SELECT 1")
    finally:
        sleeper.terminate()
        await other.close()


async def test_a_transaction_that_sleeps_in_the_middle_of_a_statement_loses_its_locks_too(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared and not yet executed, it is not idle to PostgreSQL: no other timeout would ever end it."""
    monkeypatch.setattr(database, "LOCK_TIMEOUT", "1s")
    monkeypatch.setattr(database, "TRANSACTION_TIMEOUT", "1s")
    stopped = await connect(database_dsn, role="metrics", application_name="stopped")
    monkeypatch.undo()
    other = await connect(database_dsn, role="metrics", application_name="other")
    lease = "UPDATE outbox_lease SET holder = $1"
    try:
        await stopped.execute("BEGIN")
        await stopped.execute(lease, "stopped")
        await stopped.prepare("SELECT 1 AS what_was_never_prepared_before")

        async def take() -> bool:
            try:
                await other.execute(lease, "other")
            except asyncpg.LockNotAvailableError:
                return False
            return True

        await eventually(take, bool, "the lock is free", seconds=20)
    finally:
        stopped.terminate()
        await other.close()


async def test_a_transaction_may_be_given_all_the_time_that_it_takes(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "TRANSACTION_TIMEOUT", "300ms")
    connection = await connect(database_dsn, role="metrics", application_name="patient")
    try:
        async with connection.transaction():
            await database.take_all_the_time(connection)
            await connection.execute("SELECT pg_sleep(0.5)")
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            async with connection.transaction():
                await connection.execute("SELECT pg_sleep(30)")
    finally:
        connection.terminate()


async def test_json_goes_in_and_out_as_python_values(database_dsn: str) -> None:
    pool = await connect_pool(database_dsn, role="alerting", application_name="test", max_size=1)
    try:
        document = {"ä": [1, 2.5, None, True], "nested": {"empty": {}}}
        for kind in ("json", "jsonb"):
            assert await pool.fetchval(f"SELECT $1::{kind}", document) == document
    finally:
        await pool.close()


def test_an_inbox_offset_cannot_be_negative(database_dsn: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        change(database_dsn, "INSERT INTO alerting.inbox (topic, partition, next_offset) VALUES ('t', 0, -1)")


def test_there_is_one_lease_a_service(database_dsn: str) -> None:
    for service in SERVICES:
        assert query(database_dsn, f"SELECT holder, epoch FROM {service}.outbox_lease") == [("nobody", 0)]
        with pytest.raises(psycopg.errors.UniqueViolation):
            change(
                database_dsn,
                f"INSERT INTO {service}.outbox_lease (holder, epoch, expires_at) VALUES ('x', 1, now())",
            )
