"""Retrain on a real PostgreSQL, in the kernel's own transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.database import connect_pool
from tests.unit.retrain.deciding import Deciding
from tests.unit.retrain.harness import PostgresRetrain
from tests.unit.retrain.hearing import Hearing
from tests.unit.retrain.kinds import Kinds


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[Any]:
    """Connections in the service's own role."""
    pool = await connect_pool(database_dsn, role="retrain", application_name="test", max_size=4)
    yield pool
    await pool.close()


@pytest.fixture
def retrain(pool: Any) -> PostgresRetrain:
    return PostgresRetrain(pool)


class TestOnPostgres(Deciding, Hearing, Kinds):
    pass
