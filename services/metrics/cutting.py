"""Cutting a snapshot: everything before a boundary, of every model, in one REPEATABLE READ transaction."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from services.metrics.answers.store import DetailKey, detail_totals
from services.metrics.domain import histogram
from services.metrics.domain.buckets import MICROSECONDS, WINDOW_SECONDS, start_of, widths, window_tiles
from services.metrics.domain.clock import ClockName
from services.metrics.domain.figures import NO_DETAIL, DetailTotals, Totals
from services.metrics.domain.horizons import DEFAULT_HORIZONS, Horizons
from services.metrics.domain.kinds import Kind
from services.metrics.domain.reporting import FigureKey, Figures, figures_of
from services.metrics.domain.versions import (
    PolicyEvent,
    VersionEvent,
    all_retired,
    champion,
    in_force,
    new_labels_after,
)
from services.metrics.intake import CLOCK_TOPICS, microseconds, moment_of
from services.metrics.store import QUERIES, lock_models
from shared.contracts.base import canonical_json
from shared.contracts.models import Artifact, Policy
from shared.contracts.snapshots import (
    Champion,
    Metrics,
    Snapshot,
    VersionMetrics,
    snapshot_id,
)
from shared.database import Connection
from shared.effects import Effects
from shared.records import Place
from shared.topics import SNAPSHOTS

FIGURES_IN_A_PORTION = 1_000
"""Computed between two statements: a fraction of a second's work."""


class ChampionChangedError(Exception):
    """A champion changed after new labels were counted for the one before; count again, then cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A boundary to cut: ``as_of`` in seconds since 1970; the rest as the snapshot says it.

    ``overdue``: per input partition the offset below which all was received more than an interval ago; None
    where the broker did not say.
    """

    as_of: int
    clock: ClockName
    interval_seconds: int
    bucket_seconds: int
    horizons: Horizons = DEFAULT_HORIZONS
    missed: int = 0
    overdue: Mapping[Place, int] | None = None

    @property
    def moment(self) -> datetime:
        """``as_of`` as a datetime."""
        return datetime.fromtimestamp(self.as_of, UTC)

    @property
    def microseconds(self) -> int:
        """``as_of`` in microseconds since 1970."""
        return self.as_of * MICROSECONDS


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of one model at the boundary, its sums apart."""

    model_id: int
    model: str
    last_sequence: int
    new_labels: int
    champion: Champion | None
    policy: Policy
    newest_data_at: int | None
    newest_run_at: int | None


@dataclass(frozen=True, slots=True)
class World:
    """Version and policy events of all models, by model; what predicts, and of what kind, by version id."""

    versions: Mapping[str, Sequence[tuple[VersionEvent, dict[str, Any]]]]
    policies: Mapping[str, Sequence[tuple[PolicyEvent, dict[str, Any]]]]
    predicting: Mapping[int, Mapping[int, str]]
    kinds: Mapping[int, Kind]

    def champion_of(self, model: str, as_of: int) -> Champion | None:
        """The champion at ``as_of`` (microseconds since 1970)."""
        events = self.versions.get(model, ())
        found = champion((event for event, _ in events), as_of)
        if found is None:
            return None
        document = next(document for event, document in events if event is found)
        artifact = document.get("artifact")
        trained_through = document.get("trained_through")
        return Champion(
            version=found.version,
            changed_at=moment_of(found.since),
            trained_through=None if trained_through is None else datetime.fromisoformat(trained_through),
            artifact=None if artifact is None else Artifact.model_validate_json(json.dumps(artifact)),
        )

    def policy_of(self, model: str, as_of: int) -> Policy:
        """The policy in force at ``as_of``; the default one where none was received."""
        events = self.policies.get(model, ())
        found = in_force((event for event, _ in events), as_of)
        if found is None:
            return Policy(model=model)
        return Policy.model_validate_json(
            json.dumps(next(document for event, document in events if event is found))
        )

    def is_retired(self, model: str, model_id: int, as_of: int) -> bool:
        """Whether every version of the model is retired."""
        events = (event for event, _ in self.versions.get(model, ()))
        return all_retired(events, self.predicting.get(model_id, {}).values(), as_of)

    def is_known(self, model: str, model_id: int, as_of: int) -> bool:
        """Whether the model has been heard of by ``as_of``: a prediction, a version or a policy."""
        return (
            model_id in self.predicting
            or any(event.since <= as_of for event, _ in self.versions.get(model, ()))
            or in_force((event for event, _ in self.policies.get(model, ())), as_of) is not None
        )


async def read_world(connection: Connection) -> World:
    """Read what operators and trainers have said so far."""
    versions = defaultdict(list)
    for row in await connection.fetch(QUERIES.read_version_events):
        event = VersionEvent(row["version"], row["stage"], row["stage_since"])
        versions[row["model"]].append((event, row["document"]))
    policies: dict[str, list[tuple[PolicyEvent, dict[str, Any]]]] = defaultdict(list)
    for row in await connection.fetch(QUERIES.read_policy_events):
        received = policies[row["model"]]
        received.append((PolicyEvent(len(received), row["effective_at"]), row["document"]))
    predicting: dict[int, dict[int, str]] = defaultdict(dict)
    kinds: dict[int, Kind] = {}
    for row in await connection.fetch(QUERIES.read_predicting_versions):
        predicting[row["model_id"]][row["version_id"]] = row["version"]
        kinds[row["version_id"]] = row["kind"]
    return World(versions, policies, predicting, kinds)


async def adopt_champions(effects: Effects, cut: Cut) -> None:
    """Where the champion at the boundary is another than labels were counted for, count them afresh.

    A transaction of its own before the cut: it takes the models' locks, which the cut must not wait for.
    """
    connection = effects.connection
    world = await read_world(connection)
    changed = {}
    for row in await connection.fetch(QUERIES.read_models_for_snapshot):
        counted_for = _counted_for(world.champion_of(row["model"], cut.microseconds))
        if counted_for != (row["champion_version"], row["new_labels_after"]):
            changed[row["model_id"]] = counted_for
    if not changed:
        return
    await lock_models(connection, changed)
    for model_id, (version, limit) in changed.items():
        bucket = None if limit is None else start_of(limit, cut.bucket_seconds)
        await connection.execute(
            QUERIES.adopt_champion, model_id, version, limit, bucket, cut.bucket_seconds, cut.horizons.label
        )


def _counted_for(found: Champion | None) -> tuple[str | None, int | None]:
    """The champion's name and the moment that labels must be later than to be new to it."""
    if found is None:
        return None, None
    trained = None if found.trained_through is None else microseconds(found.trained_through)
    return found.version, new_labels_after(trained, microseconds(found.changed_at))


async def cut_snapshots(effects: Effects, cut: Cut) -> int:
    """Make and publish one snapshot of every model that has any. Returns how many.

    The transaction must be REPEATABLE READ and hold the clock's row, so that figures and offsets agree and each
    boundary is cut by one instance.
    """
    connection = effects.connection
    world = await read_world(connection)
    facts = await _read_facts(connection, world, cut)
    totals, details = await _read_totals(connection, cut)
    offsets, catching_up = await _read_offsets(connection, cut)
    made: list[tuple[Snapshot, dict[FigureKey, Figures]]] = []
    for fact in facts:
        found = _figures_of(fact, _totals_of(totals.get(fact.model_id, ()), details, world), cut)
        snapshot = _snapshot(fact, found, cut, offsets, catching_up=catching_up)
        effects.emit(SNAPSHOTS, snapshot, key=fact.model)
        made.append((snapshot, found))
        # Saved in portions, so that the session is never idle for long, nor the event loop kept from others.
        if sum(len(figures_of_one) for _, figures_of_one in made) >= FIGURES_IN_A_PORTION:
            await _save(connection, made)
            made = []
    await _save(connection, made)
    return len(facts)


async def _read_facts(connection: Connection, world: World, cut: Cut) -> list[ModelFacts]:
    late = {
        row["model_id"]: int(row["entities"])
        for row in await connection.fetch(QUERIES.read_late_labels, cut.as_of)
    }
    newest = {
        row["model_id"]: row["moment"] for row in await connection.fetch(QUERIES.read_newest_data, cut.as_of)
    }
    runs = {
        row["model"]: row["completed_at"]
        for row in await connection.fetch(QUERIES.read_newest_runs, cut.microseconds)
    }
    facts = []
    for row in await connection.fetch(QUERIES.read_models_for_snapshot):
        model_id, model = row["model_id"], row["model"]
        if not world.is_known(model, model_id, cut.microseconds):
            continue
        if world.is_retired(model, model_id, cut.microseconds):
            continue
        found = world.champion_of(model, cut.microseconds)
        if _counted_for(found) != (row["champion_version"], row["new_labels_after"]):
            raise ChampionChangedError
        run_times = [runs[name] for name in ("", model) if name in runs]
        facts.append(
            ModelFacts(
                model_id=model_id,
                model=model,
                last_sequence=row["last_sequence"],
                new_labels=max(0, row["new_labels"] - late.get(model_id, 0)),
                champion=found,
                policy=world.policy_of(model, cut.microseconds),
                newest_data_at=newest.get(model_id),
                newest_run_at=max(run_times, default=None),
            )
        )
    return facts


ModelTotals = dict[FigureKey, dict[Kind, Totals]]
Details = Mapping[DetailKey, DetailTotals]


async def _read_totals(connection: Connection, cut: Cut) -> tuple[dict[int, list[asyncpg.Record]], Details]:
    """Sums of every series and window, by model, as the database has them; and their details."""
    kept = widths(cut.bucket_seconds)
    tiles = [(window, tile) for window in WINDOW_SECONDS for tile in window_tiles(window, cut.as_of, kept)]
    rows = await connection.fetch(
        QUERIES.read_totals,
        [window for window, _ in tiles],
        [tile.width for _, tile in tiles],
        [tile.since for _, tile in tiles],
        [tile.until for _, tile in tiles],
    )
    result: dict[int, list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        result[row["model_id"]].append(row)
    return result, await detail_totals(connection, tiles)


def _totals_of(rows: Iterable[asyncpg.Record], details: Details, world: World) -> ModelTotals:
    """One model's sums by version, segment and window, and by kind."""
    found: ModelTotals = defaultdict(dict)
    for row in rows:
        version_id, segment, window = row["version_id"], row["segment"], row["time_window"]
        key = (world.predicting[row["model_id"]][version_id], segment, window)
        found[key][world.kinds[version_id]] = Totals(
            predictions=row["predictions"],
            labelled=row["labelled"],
            evaluated=row["evaluated"],
            correct=row["correct"],
            positives=row["positives"],
            predicted_positives=row["predicted_positives"],
            squared_error=int(row["squared_error"]),
            log_loss=int(row["log_loss"]),
            vector=histogram.total([row["histograms"]]),
            detail=details.get((version_id, segment, window), NO_DETAIL),
        )
    return found


async def _read_offsets(connection: Connection, cut: Cut) -> tuple[dict[str, dict[str, int]], bool]:
    """Where every input partition stands, and whether intake is more than an interval behind the broker."""
    rows = await connection.fetch(QUERIES.read_offsets)
    offsets: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        offsets[row["topic"]][str(row["partition"])] = row["next_offset"]
    if cut.clock == "event":
        return dict(offsets), False
    if cut.overdue is None:
        return dict(offsets), any(_was_behind(row, cut) for row in rows)
    taken = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
    return dict(offsets), any(taken.get(place, 0) < end for place, end in cut.overdue.items())


def _was_behind(row: Mapping[str, Any], cut: Cut) -> bool:
    """Whether the newest batch of a partition left records unread and was itself more than an interval late."""
    if row["topic"] not in {topic.name for topic in CLOCK_TOPICS} or row["received_at"] is None:
        return False
    left = row["log_end_offset"] is not None and row["log_end_offset"] > row["next_offset"]
    return left and row["received_at"] < cut.moment - timedelta(seconds=cut.interval_seconds)


def _figures_of(fact: ModelFacts, totals: ModelTotals, cut: Cut) -> dict[FigureKey, Figures]:
    champion_version = None if fact.champion is None else fact.champion.version
    facts = {
        "new_labels": fact.new_labels,
        "data_freshness_seconds": _freshness(fact.newest_data_at, cut),
        "pipeline_freshness_seconds": _freshness(fact.newest_run_at, cut),
    }
    return figures_of(totals, champion_version, facts)


def _freshness(newest: int | None, cut: Cut) -> float | None:
    return None if newest is None else (cut.microseconds - newest) / MICROSECONDS


def _snapshot(
    fact: ModelFacts,
    found: Mapping[FigureKey, Figures],
    cut: Cut,
    offsets: dict[str, dict[str, int]],
    *,
    catching_up: bool,
) -> Snapshot:
    window = fact.policy.window
    judged = "" if fact.champion is None else fact.champion.version
    versions = {
        version: VersionMetrics(
            kind=known["kind"],
            evaluated_predictions=known["evaluated_predictions"],
            accuracy=known["accuracy"],
            brier_score=known["brier_score"],
            log_loss=known["log_loss"],
            mae=known["mae"],
            rmse=known["rmse"],
            bias=known["bias"],
        )
        for (version, segment, time_window), known in found.items()
        if version and not segment and time_window == window and known["evaluated_predictions"]
    }
    return Snapshot(
        snapshot_id=snapshot_id(fact.model, fact.last_sequence + 1),
        model=fact.model,
        sequence=fact.last_sequence + 1,
        as_of=cut.moment,
        clock=cut.clock,
        interval_seconds=cut.interval_seconds,
        missed_boundaries=cut.missed,
        catching_up=catching_up,
        window=window,
        champion=fact.champion,
        policy=fact.policy,
        policy_sha256=fact.policy.sha256(),
        metrics=Metrics.model_validate(found[judged, "", window]),
        versions=versions,
        offsets=offsets,
    )


async def _save(connection: Connection, made: Sequence[tuple[Snapshot, Mapping[FigureKey, Figures]]]) -> None:
    snapshots = [snapshot for snapshot, _ in made]
    columns = (
        [snapshot.model for snapshot in snapshots],
        [snapshot.sequence for snapshot in snapshots],
        [snapshot.snapshot_id for snapshot in snapshots],
        [snapshot.as_of for snapshot in snapshots],
    )
    await connection.execute(
        QUERIES.save_snapshots, *columns, [snapshot.to_json().decode() for snapshot in snapshots]
    )
    await connection.execute(QUERIES.save_latest_figures, *columns, [_figure_rows(found) for _, found in made])


def _figure_rows(found: Mapping[FigureKey, Figures]) -> str:
    rows = [
        {"version": version, "segment": segment, "window": window, "metrics": known}
        for (version, segment, window), known in found.items()
    ]
    return canonical_json(rows).decode()
