"""Figures of draining: the service, a bare consumer and the peers take turns on the same topics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import asdict

from benchmarks.draining import Drained, bare_drain, service_drain
from benchmarks.peer import is_installed, peer_drain
from benchmarks.results import Measured, Run, middle, ratio
from benchmarks.session import Part, Session
from shared.errors import UsageError

PEERS: Mapping[str, Part] = {
    "pathway": "all",
    "flink": "all",
    "bytewax": "all",
    "quixstreams": "all",
    "faust": "sample",
}
"""How much of the data each drains: all of it would take a peer under 2,000 events/s too long."""
BARE, MEMORY, SCALING = "drain_vs_bare_aiokafka", "metrics_rss_mb", "cpu_per_event_8_vs_1"
NAMES = (BARE, MEMORY, SCALING, *(f"drain_vs_{peer}" for peer in PEERS))


async def measure(session: Session, names: Collection[str]) -> dict[str, Measured]:
    """Interleave what the figures need, round by round. A peer that is not installed is an error, unless quick."""
    peers = [peer for peer in PEERS if f"drain_vs_{peer}" in names]
    for peer in [peer for peer in peers if not is_installed(peer)]:
        if not session.scale.quick:
            raise UsageError(f"{peer} is not installed: make bench-peers")
        session.say(f"drain_vs_{peer} skipped: {peer} is not installed (make bench-peers)")
        peers.remove(peer)
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(session.scale.rounds):
        found = await _round(session, names, peers)
        rounds.append(found)
        for who, run in found.items():
            session.say(f"round {number + 1}: {who} {run['events_per_second']:,.0f} events/s")
    return _figures(rounds, names, peers)


async def _round(session: Session, names: Collection[str], peers: Collection[str]) -> dict[str, dict[str, float]]:
    parts, data = session.parts, await session.data()
    quick = session.scale.quick
    found: dict[str, dict[str, float]] = {}
    if BARE in names:
        found["bare"] = {"events_per_second": await bare_drain(parts, data)}
    found["trueward"] = _as_run(await service_drain(parts, data, meet_boundary=not quick))
    for peer in peers:
        found[peer] = asdict(await peer_drain(parts, await session.data(PEERS[peer]), peer))
    if SCALING in names:
        several = await service_drain(parts, data, instances=session.scale.instances, meet_boundary=not quick)
        found["several"] = _as_run(several)
    return found


def _as_run(drained: Drained) -> dict[str, float]:
    return {**asdict(drained), "cpu": drained.service_cpu + drained.postgres_cpu}


def _figures(
    rounds: Collection[dict[str, dict[str, float]]], names: Collection[str], peers: Collection[str]
) -> dict[str, Measured]:
    measured: dict[str, Measured] = {}
    for figure, other in [(BARE, "bare"), *((f"drain_vs_{peer}", peer) for peer in peers)]:
        if figure in names:
            measured[figure] = _against(rounds, other)
    if MEMORY in names:
        runs = tuple({key: one["trueward"][key] for key in ("peak_rss_mb", "events_per_second")} for one in rounds)
        measured[MEMORY] = Measured(middle(runs, "peak_rss_mb"), runs)
    if SCALING in names:
        measured[SCALING] = ratio(map(_both, rounds), "several_cpu", "one_cpu")
    return measured


def _against(rounds: Collection[dict[str, dict[str, float]]], other: str) -> Measured:
    runs: list[Run] = []
    for one in rounds:
        rest = {f"other_{key}": number for key, number in one[other].items()}
        runs.append({"events_per_second": one["trueward"]["events_per_second"], **rest})
    return ratio(runs, "events_per_second", "other_events_per_second")


def _both(one: dict[str, dict[str, float]]) -> Run:
    """CPU seconds a million events by component, of one instance and of several."""
    run: dict[str, float] = defaultdict(float)
    for who, name in (("trueward", "one"), ("several", "several")):
        for key in ("cpu", "service_cpu", "postgres_cpu", "broker_cpu", "events_per_second"):
            run[f"{name}_{key}"] = one[who][key]
    return dict(run)
