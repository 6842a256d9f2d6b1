"""Retrain's behaviour, kept in memory."""

from __future__ import annotations

import pytest

from tests.unit.retrain.behaviour import Behaviour
from tests.unit.retrain.harness import MemoryRetrain


@pytest.fixture
def retrain() -> MemoryRetrain:
    return MemoryRetrain()


class TestInMemory(Behaviour):
    pass
