"""Worlds by number: what a seed means, how a world is judged, and how a failing one is made small."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Self, TypeVar

import psycopg
import structlog

from shared.database import migrate
from tests.simulation.checks import check, same
from tests.simulation.outcome import Outcome, outcome_of
from tests.simulation.scheduler import Fault, FaultKind
from tests.simulation.virtual import VirtualLoop
from tests.simulation.wire import Server
from tests.simulation.workload import History, Kind, Size
from tests.simulation.world import Plan, World

T = TypeVar("T")
WORLDS_OF_A_HISTORY = 8
"""So many seeds in a row share a history, whose undisturbed run is made once."""
KINDS: Sequence[FaultKind] = ("crash", "crash", "crash", "pause", "pause", "lose", "lose", "rebalance", "delay")
SECONDS = {
    # Shorter and longer than a session with the broker, a relay's lease, PostgreSQL's patience.
    "crash": (0.5, 3.0, 12.0, 25.0),
    "pause": (1.0, 6.0, 12.0, 25.0),
    "delay": (1.0, 6.0, 11.0),
    "lose": (0.0,),
    "rebalance": (0.0,),
}
KINDS_OF_MODELS: Sequence[tuple[Kind, ...]] = (
    ("binary",),
    ("multiclass",),
    ("regression",),
    ("binary", "multiclass"),
    ("regression", "binary"),
    ("binary", "multiclass", "regression"),
)
"""Of one history after the other: six in a row have all of them, twelve have all on both clocks."""
COMPACT = Size(phases=1, kinds=("binary",), predictions=4, boundaries=2)
"""For the systematic runs: the least in which snapshots, alerts, a job and its life occur."""

LIKENESS = 25
"""Failures that begin with so many equal characters are taken for the same."""
COMPACT_SEED = 16
"""Whose compact world has alerts, and a job that a trainer completes."""


@dataclass(frozen=True)
class Verdict:
    """What became of one world. ``failure`` None: every promise was kept."""

    seed: int
    plan: Plan
    failure: str | None
    effects: int
    struck: tuple[Fault, ...]
    history: tuple[str, ...]


def history_of(seed: int) -> tuple[History, str]:
    """The history of a seed, and its clock: every fourth history is one of wall time."""
    number = seed // WORLDS_OF_A_HISTORY
    chance = Random(f"size {number}")
    phases, boundaries = chance.choice([(1, 2), (1, 3), (1, 4), (2, 1), (2, 2)])
    kinds = KINDS_OF_MODELS[number % len(KINDS_OF_MODELS)]
    size = Size(phases, kinds, chance.randint(3, 7) + len(kinds) - 1, boundaries)
    clock = "wall" if number % 4 == 3 else "event"
    return History(number, size, ticks=clock == "event"), clock


def undisturbed(history: History, clock: str) -> Plan:
    """The plainest run of a history: one instance of each service, everything at once, no fault."""
    return Plan(
        history, 0, clock=clock, instances=1, publish_weight=1.0, fetch_weight=0.01, max_batch_records=1_000
    )


def plan_of(seed: int, effects: int) -> Plan:
    """The plan of a seed; ``effects`` is how many its undisturbed run has."""
    history, clock = history_of(seed)
    chance = Random(f"plan {seed}")
    faults = {}
    for _ in range(chance.choice([1, 2, 3, 5, 8])):
        kind = chance.choice(KINDS)
        at = chance.randint(1, round(effects * 1.4))
        faults[at] = Fault(at, kind, chance.choice(SECONDS[kind]))
    return Plan(
        history,
        seed,
        clock=clock,
        max_batch_records=chance.choice([3, 10, 1_000]),
        publish_weight=chance.choice([0.2, 0.8, 0.95]),
        fetch_weight=chance.choice([0.05, 0.3, 1.0]),
        faults=tuple(faults[at] for at in sorted(faults)),
    )


class Laboratory:
    """Runs worlds on one database, one after the other."""

    def __init__(self, dsn: str, name: str) -> None:
        """``dsn``: a server with an administrator's rights; ``name``: of the database to make there."""
        self._admin, self._name = dsn, name
        self._loop = VirtualLoop()
        self._server = Server(f"{dsn.partition('?')[0].rpartition('/')[0]}/{name}", self._loop)
        self._expected: dict[tuple[int, Size, str, frozenset[str]], tuple[Outcome, int]] = {}

    def __enter__(self) -> Self:
        self._logging = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        asyncio.set_event_loop(self._loop)
        self._execute(f'DROP DATABASE IF EXISTS "{self._name}" WITH (FORCE)', f'CREATE DATABASE "{self._name}"')
        migrate(self._server.dsn)
        self._loop.run_until_complete(self._server.begin())
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.run_until_complete(self._server.end())
        self._loop.close()
        asyncio.set_event_loop(None)
        # What runs after it in this process logs as before.
        structlog.configure(**self._logging)
        self._execute(f'DROP DATABASE IF EXISTS "{self._name}" WITH (FORCE)')

    def _execute(self, *statements: str) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def expected(self, history: History, clock: str) -> tuple[Outcome, int]:
        """What the undisturbed run of a history comes to, and how many effects it has."""
        key = (history.seed, history.size, clock, history.without)
        if key not in self._expected:
            self._expected.clear()
            world = World(undisturbed(history, clock), self._server)
            self._expected[key] = (self._outcome(world), world.scheduler.effects)
        return self._expected[key]

    def _outcome(self, world: World) -> Outcome:
        self._ran = world
        self._loop.run_until_complete(world.run())
        outcome = self._loop.run_until_complete(outcome_of(world))
        check(world, outcome)
        return outcome

    def judge(self, plan: Plan, seed: int) -> Verdict:
        """Run a world and hold it against every promise."""
        world, failure = World(plan, self._server), None
        self._ran = world
        try:
            expected, _ = self.expected(plan.history, plan.clock)
            outcome = self._outcome(world)
            if plan.clock == "event":
                same("against the undisturbed run", outcome.comparable(), expected.comparable())
        except Exception as error:  # noqa: BLE001 - whatever a world ends with is its failure
            failure = f"{type(error).__name__}: {error}"
        # Where not even the undisturbed run came to its end, its history is the one to read.
        told = tuple(self._ran.scheduler.history)
        return Verdict(seed, plan, failure, world.scheduler.effects, tuple(world.struck), told)

    def world(self, seed: int) -> Verdict:
        """The world of a seed."""
        history, clock = history_of(seed)
        try:
            _, effects = self.expected(history, clock)
        except AssertionError:
            # Not even the undisturbed run keeps its promises: the judgement says so.
            effects = 1
        return self.judge(plan_of(seed, effects), seed)

    def crash_points(self, seed: int) -> list[int]:
        """The effects of a seed's compact world that are points to crash before. Raises what it fails with."""
        world = World(compact(seed), self._server)
        self._outcome(world)
        return world.scheduler.crash_points

    def crash_at(self, seed: int, point: int) -> Verdict:
        """The compact world of a seed, with one crash, before its ``point``-th effect."""
        crash = Fault(point, "crash", SECONDS["crash"][point % 4])
        return self.judge(replace(compact(seed), faults=(crash,)), seed)

    def shrink(self, verdict: Verdict) -> Verdict:
        """The smallest failing world that taking away faults, then predictions, leads to."""
        smallest = verdict
        progress = True
        while progress:
            progress = False
            for smaller in _smaller(smallest.plan):
                tried = self.judge(smaller, verdict.seed)
                if tried.failure is not None and tried.failure[:LIKENESS] == (verdict.failure or "")[:LIKENESS]:
                    smallest, progress = tried, True
                    break
        return smallest


def compact(seed: int) -> Plan:
    """A small world without faults, of one model: from ``COMPACT_SEED`` on of each kind in turn."""
    size = replace(COMPACT, kinds=KINDS_OF_MODELS[(seed - COMPACT_SEED) % 3])
    return Plan(History(seed, size), seed, instances=1, max_batch_records=1_000, fetch_weight=0.05)


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans that have less: half of the faults, one fault less, half of the predictions, one less."""
    for kept in _subsets(plan.faults):
        yield replace(plan, faults=tuple(kept))
    there = [name for name in plan.history.all_predictions() if name not in plan.history.without]
    for kept in _subsets(there):
        without = plan.history.without | (set(there) - set(kept))
        yield replace(plan, history=replace(plan.history, without=frozenset(without)))


def _subsets(items: Sequence[T]) -> Iterator[Sequence[T]]:
    half = len(items) // 2
    if half:
        yield items[half:]
        yield items[:half]
    for index in range(len(items)):
        yield [*items[:index], *items[index + 1 :]]
