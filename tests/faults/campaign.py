"""Worlds, one after the other: rounds of faults while traffic flows, then the audit."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from shared.errors import TruewardError
from tests.faults.actors import Asker, Trainer
from tests.faults.audit import Audit
from tests.faults.faults import Fault, deck, few
from tests.faults.traffic import Ledger, Sender, Traffic
from tests.faults.world import BreachError, World

Say = Callable[[str], None]


@dataclass
class Tally:
    """What a campaign has seen so far. Times in seconds, by the fault's name."""

    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    carried_on_after: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    whole_after: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    sent: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)


async def world_of(world: World, seed: int, rounds: int, tally: Tally, say: Say, *, short: bool) -> None:
    """One world: start, rounds under traffic, audit. Breaches are added to the tally, never raised."""
    try:
        begun = time.monotonic()
        await world.start()
        say(f"world of seed {seed}: whole after {time.monotonic() - begun:.0f} s")
        await _live(world, seed, rounds, tally, say, short=short)
    except (AssertionError, TruewardError) as breach:
        tally.breaches.append(str(breach))
    finally:
        await world.stop()


async def _live(world: World, seed: int, rounds: int, tally: Tally, say: Say, *, short: bool) -> None:
    ledger = Ledger()
    sender = Sender(world, ledger)
    traffic = Traffic(seed, sender)
    trainer, asker = Trainer(world, sender, traffic), Asker(world, seed)
    await traffic.begin()
    flowing = [asyncio.create_task(traffic.run())]
    training = asyncio.create_task(trainer.run())
    try:
        await world.fresh()
        flowing.append(asyncio.create_task(asker.run()))
        chance = Random(f"faults {seed}")
        faults = (few if short else deck)(chance, disk=world.disk.is_mount())
        for fault in faults[:rounds]:
            await _round(fault, world, traffic, tally, say)
            _raise_of(flowing, training)
        traffic.stop()
        asker.stop()
        await asyncio.gather(*flowing)
        begun = time.monotonic()
        findings = await Audit(world, ledger, seed).run(asker.answered)
        say(f"audited in {time.monotonic() - begun:.0f} s, {len(findings.breaches)} breaches")
        tally.sent += ledger.counts
        tally.counts += findings.counts
        tally.breaches += findings.breaches
    finally:
        for task in (*flowing, training):
            task.cancel()
        await asyncio.gather(*flowing, training, return_exceptions=True)
        await sender.stop()


async def _round(fault: Fault, world: World, traffic: Traffic, tally: Tally, say: Say) -> None:
    """Strike; where the rest must carry on, wait until it does; heal; wait until everything is whole and fresh."""
    begun = time.monotonic()
    await fault.strike(world, traffic)
    words = f"{fault.name}: "
    if fault.carried:
        await world.fresh()
        tally.carried_on_after[fault.name].append(time.monotonic() - begun)
        words += f"the rest had caught up after {time.monotonic() - begun:.1f} s, "
    healed = time.monotonic()
    await fault.heal(world)
    await world.whole()
    await world.fresh()
    tally.whole_after[fault.name].append(time.monotonic() - healed)
    tally.rounds += 1
    tally.faults[fault.name] += 1
    say(words + f"whole {time.monotonic() - healed:.1f} s after it was over")


def _raise_of(flowing: list[asyncio.Task[None]], training: asyncio.Task[None]) -> None:
    """What lives in the world must not end by itself: it ends with an error, which is raised here."""
    for task in (*flowing, training):
        if task.done():
            task.result()
            raise BreachError(f"{task.get_coro()} has ended")


def report(tally: Tally, seconds: float) -> list[str]:
    """The campaign in lines."""
    lines = [f"{tally.rounds} rounds in {seconds:.0f} s", "", "fault | times | carried on after | whole after (s)"]
    for name in sorted(tally.faults):
        carried, whole = tally.carried_on_after.get(name), tally.whole_after[name]
        lines.append(f"{name} | {tally.faults[name]} | {_spread(carried)} | {_spread(whole)}")
    lines.append("")
    lines.append("sent: " + ", ".join(f"{count} {kind}" for kind, count in sorted(tally.sent.items())))
    lines.append("seen: " + ", ".join(f"{count} {what}" for what, count in sorted(tally.counts.items())))
    lines.append(f"breaches: {len(tally.breaches)}")
    return lines


def _spread(seconds: list[float] | None) -> str:
    """Median and longest."""
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2]:.1f}, at most {ordered[-1]:.1f}"
