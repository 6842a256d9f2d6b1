"""The scheduler: every effect waits at a point until it is picked, by seed, one at a time; faults strike there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol

from tests.simulation.virtual import VirtualLoop

Kind = Literal["statement", "commit", "publish", "offsets", "ask", "fetch", "group"]
EFFECTS: frozenset[Kind] = frozenset({"statement", "commit", "publish", "offsets"})
"""What a crash can stand between."""

FaultKind = Literal["crash", "pause", "lose", "rebalance", "delay"]


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What happens to the instance that is about to pass its ``at``-th effect point of the world.

    crash: it dies, and starts again after ``seconds``. pause: it stands still for ``seconds``, as under SIGSTOP.
    lose: its connection breaks there: before an effect that never happens, or after one whose answer is lost.
    rebalance: its group is told to share out its partitions anew.
    """

    at: int
    kind: FaultKind
    seconds: float = 0.0


class LostError(Exception):
    """Raised at a point: the connection broke here. Wires translate it to what their library raises."""


class Actor(Protocol):
    """Whose points these are."""

    name: str
    dead: bool
    paused: bool


@dataclass(eq=False)
class Point:
    """A place where an actor waits before it goes on."""

    actor: Actor
    kind: Kind
    label: str
    passed: asyncio.Future[None]
    enabled: Callable[[], bool]
    is_effect: bool
    changes_nothing: bool

    def can_pass(self) -> bool:
        return not self.passed.done() and not self.actor.paused and self.enabled()


def _always() -> bool:
    return True


class Scheduler:
    """Lets one point pass after the other; ``history`` tells which, in words."""

    def __init__(self, loop: VirtualLoop, order: Random) -> None:
        self._loop = loop
        self._order = order
        self._waiting: list[Point] = []
        self.effects = 0
        self.steps = 0
        self.crash_points: list[int] = []
        """Numbers of the effects before which a crash is unlike one before the effect that comes next."""
        self.history: list[str] = []

    async def point(
        self,
        actor: Actor,
        kind: Kind,
        label: str,
        enabled: Callable[[], bool] = _always,
        *,
        changes_nothing: bool = False,
    ) -> None:
        """Wait to be picked. Raises ``LostError`` where the connection breaks here."""
        refuse_the_dead(actor)
        found = Point(actor, kind, label, self._loop.create_future(), enabled, kind in EFFECTS, changes_nothing)
        self._waiting.append(found)
        try:
            await found.passed
        finally:
            self._waiting.remove(found)
        refuse_the_dead(actor)

    def candidates(self) -> list[Point]:
        """The points that could pass now, in an order that does not depend on who was quicker to come to one."""
        found = [point for point in self._waiting if point.can_pass()]
        return sorted(found, key=lambda point: (point.actor.name, point.label))

    def tell(self, what: str) -> None:
        """Write a line of history."""
        self.history.append(f"{self._loop.time():10.3f}  {what}")

    def let_pass(self, point: Point, *, lost: bool = False) -> None:
        """The actor goes on, or learns that its connection broke."""
        self.steps += 1
        if point.is_effect:
            self.effects += 1
            if not point.changes_nothing:
                self.crash_points.append(self.effects)
        number = f"#{self.effects}" if point.is_effect else ""
        self.tell(f"{number:>6}  {point.actor.name:<11} {point.label}{' LOST' if lost else ''}")
        if lost:
            point.passed.set_exception(LostError())
        else:
            point.passed.set_result(None)

    def drop(self, actor: Actor) -> None:
        """Nobody waits for this actor any more."""
        for point in self._waiting:
            if point.actor is actor and not point.passed.done():
                point.passed.cancel()


def refuse_the_dead(actor: Actor) -> None:
    """What an instance does on its way out, after it has died, happens to nobody. Raises ``CancelledError``."""
    if actor.dead:
        raise asyncio.CancelledError


@contextmanager
def translated(error: Exception) -> Iterator[None]:
    """A broken connection as the wire's own library tells it."""
    try:
        yield
    except LostError:
        raise error from None
