"""Retrain's behaviour, kept in memory."""

from __future__ import annotations

import pytest

from tests.unit.retrain.deciding import Deciding
from tests.unit.retrain.harness import MemoryRetrain
from tests.unit.retrain.hearing import Hearing
from tests.unit.retrain.kinds import Kinds


@pytest.fixture
def retrain() -> MemoryRetrain:
    return MemoryRetrain()


class TestInMemory(Deciding, Hearing, Kinds):
    pass
