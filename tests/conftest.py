"""Fixtures of the real parts. They start when a test first asks for them, once a session."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from xdist.workermanage import WorkerController

from deploy.local.broker import Broker, choose
from shared.database import migrate
from tests import parts

PARTS_CHOSEN = pytest.StashKey[list[str]]()
SESSION = uuid.uuid4().hex[:8]
NUMBERS = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[PARTS_CHOSEN] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells whoever prints the summary what it ran on."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["parts"] = session.config.stash[PARTS_CHOSEN]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """One of several workers is done."""
    node.config.stash[PARTS_CHOSEN] += getattr(node, "workeroutput", {}).get("parts", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[PARTS_CHOSEN]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def kafka_broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """The shared broker; use ``topic_prefix`` for topics of the test's own.

    TRUEWARD_TEST_KAFKA=host:port uses one that runs, TRUEWARD_TEST_BROKER=kafka|tansu forces a kind.
    """
    with parts.running_broker() as broker:
        pytestconfig.stash[PARTS_CHOSEN].append(broker.line())
        yield broker


@pytest.fixture
def restartable_broker() -> Iterator[parts.RestartableBroker]:
    """A broker of the test's own, not started; mark the test ``needs_restartable_broker`` if it must remember."""
    with parts.scratch_folder() as folder, parts.restartable_broker(folder, parts.broker_choice()) as broker:
        yield broker


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """What the names of the test's topics begin with; those on the shared broker go afterwards."""
    prefix = f"test-{SESSION}-{next(NUMBERS)}."
    yield prefix
    if "kafka_broker" in request.fixturenames:
        broker: Broker = request.getfixturevalue("kafka_broker")
        asyncio.run(parts.delete_topics(broker.bootstrap_servers, prefix))


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[str]:
    """A DSN with the rights of an administrator. TRUEWARD_TEST_POSTGRES=DSN uses a server that runs."""
    with parts.running_postgres() as (dsn, line):
        pytestconfig.stash[PARTS_CHOSEN].append(line)
        yield dsn


@pytest.fixture(scope="session")
def template_database(postgres_server: str) -> Iterator[str]:
    """The name of a migrated database that nobody connects to, to be cloned."""
    name = f"trueward_template_{SESSION}"
    with _created(postgres_server, name):
        migrate(_sibling(postgres_server, name))
        yield name


@pytest.fixture
def database_dsn(postgres_server: str, template_database: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = f"trueward_test_{SESSION}_{next(NUMBERS)}"
    with _created(postgres_server, name, template_database):
        yield _sibling(postgres_server, name)


@pytest.fixture(scope="module")
def module_database_dsn(postgres_server: str, template_database: str) -> Iterator[str]:
    """A migrated database that the tests of one module share: quicker where each can empty it."""
    name = f"trueward_test_{SESSION}_{next(NUMBERS)}"
    with _created(postgres_server, name, template_database):
        yield _sibling(postgres_server, name)


@pytest.fixture(autouse=True)
def _skip_what_the_broker_lacks(request: pytest.FixtureRequest) -> None:
    """The one ground for skipping: the fallback broker cannot do what the test is about."""
    if request.node.get_closest_marker("needs_end_offsets"):
        broker: Broker = request.getfixturevalue("kafka_broker")
        if not broker.true_end_offsets:
            pytest.skip(f"needs true log-end offsets, which {broker.name} does not report ({broker.why})")
    if request.node.get_closest_marker("needs_restartable_broker"):
        own = choose(data_dir=Path(), broker=parts.broker_choice()).broker
        if not own.keeps_records_across_restarts:
            pytest.skip(f"needs a broker that keeps its records; {own.name} is {own.why}")


@contextmanager
def _created(server: str, name: str, template: str = "template1") -> Iterator[None]:
    """A database that exists for the length of a ``with``."""
    _execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield
    finally:
        _execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _execute(server: str, statement: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement.encode())


def _sibling(server: str, database: str) -> str:
    """The DSN of another database of the same server."""
    base, mark, options = server.partition("?")
    return f"{base.rpartition('/')[0]}/{database}{mark}{options}"
