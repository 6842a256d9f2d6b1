"""One session: the parts, how much of everything is measured, and the data that several figures share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from benchmarks.parts import DataSet, Parts, preload

Part = Literal["all", "sample"]
"""How much of the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything. ``events`` counts predictions, and as many labels; ``seconds`` are of HTTP load."""

    quick: bool
    events: int
    sample: int
    rounds: int
    instances: int
    pending: int
    labels_timed: int
    seconds: int
    trend_minutes: int
    models: int
    boundaries: int


FULL = Scale(
    quick=False,
    events=500_000,
    sample=10_000,
    rounds=3,
    instances=8,
    pending=10_000_000,
    labels_timed=200,
    seconds=10,
    trend_minutes=90 * 24 * 60,
    models=10_000,
    boundaries=3,
)
QUICK = Scale(
    quick=True,
    events=8_000,
    sample=2_000,
    rounds=1,
    instances=2,
    pending=20_000,
    labels_timed=3,
    seconds=1,
    trend_minutes=1_440,
    models=100,
    boundaries=1,
)


@dataclass
class Session:
    """What the figures are measured with."""

    parts: Parts
    scale: Scale
    _data: dict[int, DataSet] = field(default_factory=dict)

    async def data(self, part: Part = "all") -> DataSet:
        """The common data set, or one that is so much smaller, in topics of its own; preloaded once."""
        scale = self.scale
        return await self._preloaded({"all": scale.events, "sample": scale.sample}[part])

    async def _preloaded(self, count: int) -> DataSet:
        if count not in self._data:
            self._data[count] = await preload(self.parts, count)
            self.say(f"{self._data[count].records:,} records preloaded")
        return self._data[count]

    def say(self, text: str) -> None:
        """One line of progress."""
        print(text, flush=True)
