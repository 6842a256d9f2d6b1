"""One session: the parts, how much of everything is measured, and the data that several figures share."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.parts import DataSet, Parts, preload

FEW = 100


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
    sample=50_000,
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

    async def data(self) -> DataSet:
        """The common data set, preloaded once."""
        return await self._preloaded(self.scale.events)

    async def sample(self) -> DataSet:
        """A tenth of it, in topics of its own, for peers that would take too long."""
        return await self._preloaded(self.scale.sample)

    async def few(self) -> DataSet:
        """As good as nothing, to tell the start of a peer from its work."""
        return await self._preloaded(FEW)

    async def _preloaded(self, count: int) -> DataSet:
        if count not in self._data:
            self._data[count] = await preload(self.parts, count)
            self.say(f"{self._data[count].records:,} records preloaded")
        return self._data[count]

    def say(self, text: str) -> None:
        """One line of progress."""
        print(text, flush=True)
