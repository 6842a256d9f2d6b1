"""The join of a batch: finds what meets, and turns it into changes of sums. The rule is domain/joining.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from services.metrics import store
from services.metrics.answers import store as answers
from services.metrics.domain.buckets import start_of, widths
from services.metrics.domain.horizons import Horizons, Standing, reaches_back, rule
from services.metrics.domain.identity import id_of, key_of
from services.metrics.domain.joining import AnyEvaluation, Label, StoredPrediction, evaluate, is_new
from services.metrics.domain.kinds import Kind
from services.metrics.domain.sums import Changes
from services.metrics.instruments import LABELS_TOTAL, PREDICTIONS_TOTAL, TOO_LATE_TOTAL
from services.metrics.intake import NewPrediction
from services.metrics.store import LabelBucketChange, Names, Series
from shared.contracts.models import OTHER
from shared.database import Connection
from shared.effects import Effects
from shared.errors import Refusal

log = structlog.get_logger()

Declared = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a batch is joined by: the width of buckets, the horizons, and the newest boundary that was cut.

    ``boundary`` is in microseconds since 1970, None before the first: retention counts from it.
    """

    bucket_seconds: int
    horizons: Horizons
    boundary: int | None = None

    def kept_from(self, moment: int) -> int | None:
        """When the time that a row is kept begins; None where the next pass of retention is to tell."""
        return None if self.boundary is None else max(moment, self.boundary)


@dataclass(frozen=True, slots=True)
class NewNames:
    """Models, versions with what they say, and segments, which new predictions name."""

    models: set[str] = field(default_factory=set)
    versions: set[tuple[str, str, Kind]] = field(default_factory=set)
    segments: set[tuple[tuple[str, str], ...]] = field(default_factory=set)


@dataclass(slots=True)
class Join:
    """What is known while one batch is joined.

    ``winners`` are the entities whose standing the batch changes, as it is afterwards.
    """

    bounds: Bounds
    new: list[NewPrediction]
    standing: Mapping[UUID, Standing]
    winners: dict[UUID, Standing]
    siblings: dict[UUID, list[StoredPrediction]] = field(default_factory=lambda: defaultdict(list))
    model_ids: dict[int, int] = field(default_factory=dict)
    names: dict[int, Names] = field(default_factory=dict)
    declared: dict[int, dict[str, frozenset[str]]] = field(default_factory=dict)

    def named(self) -> NewNames:
        """What new predictions name."""
        return NewNames(
            models={prediction.model for prediction in self.new},
            versions={(prediction.model, prediction.version, prediction.kind) for prediction in self.new},
            segments={prediction.segments for prediction in self.new},
        )

    def settled(self, entity_key: UUID) -> Standing | None:
        """The standing label of an entity after this batch."""
        return self.winners.get(entity_key) or self.standing.get(entity_key)

    def label_for(self, prediction: StoredPrediction, standing: Standing | None) -> Label | None:
        """The standing label, where it lies within the prediction's horizon."""
        return None if standing is None else standing.label_for(prediction.predicted_at, self.bounds.horizons)

    def evaluate(self, prediction: StoredPrediction, standing: Standing | None) -> AnyEvaluation | None:
        """What a prediction and the standing label of its entity make together."""
        return evaluate(prediction, self.label_for(prediction, standing))

    def series_of(self, prediction: StoredPrediction) -> tuple[Series, ...]:
        """The series that a prediction counts in."""
        model_id = self.model_ids[prediction.version_id]
        return series_of(
            model_id, prediction.version_id, self.names[prediction.segment_id], self.declared.get(model_id, {})
        )


def series_of(model_id: int, version_id: int, names: Names, declared: Declared) -> tuple[Series, ...]:
    """The version's own series, and one of each declared dimension; each once, whatever the dimensions' names."""
    values = dict(names)
    found = [Series(model_id, version_id, "")]
    for dimension, known in declared.items():
        value = values.get(dimension)
        segment = f"{dimension}:{value if value in known else OTHER}"
        found.append(Series(model_id, version_id, segment))
    return tuple(dict.fromkeys(found))


async def find(
    effects: Effects, predictions: Sequence[NewPrediction], labels: Iterable[tuple[str, Label]], bounds: Bounds
) -> Join | None:
    """Find what predictions and labels meet, of each other and of all that came before; None without any.

    Locks the entities. What is new must be named next (:func:`make_names_known`), then the models locked, those
    of ``model_ids`` and all others that the batch changes: whatever it locks, it locks in one order.
    """
    arrived = _by_entity(labels)
    if not predictions and not arrived:
        return None
    connection = effects.connection
    entity_keys = {prediction.stored.entity_key for prediction in predictions} | set(arrived)
    await store.lock_entities(connection, entity_keys)
    new = await _without_repeats(effects, predictions)
    standing = await store.labels(connection, entity_keys)
    work = Join(bounds, new, standing, await _judge(effects, standing, arrived, bounds.horizons))
    await _find_siblings(connection, work)
    return work


async def make_names_known(connection: Connection, parts: Iterable[NewNames]) -> None:
    """Make known what a batch names, all at once and before the models are locked: nobody waits in a circle."""
    found = NewNames()
    for part in parts:
        found.models.update(part.models)
        found.versions.update(part.versions)
        found.segments.update(part.segments)
    if found.models:
        await store.add_names(connection, models=found.models, versions=found.versions, segments=found.segments)


async def settle(effects: Effects, work: Join) -> None:
    """Store what is new and change the sums. The models must be locked."""
    connection = effects.connection
    work.declared = await store.declared_segments(connection, set(work.model_ids.values()))
    if work.new:
        stored = [prediction.stored for prediction in work.new]
        await store.add_predictions(connection, stored, work.bounds.kept_from)
    if work.winners:
        await store.save_labels(connection, work.winners, work.bounds.kept_from)
    await save_sums(connection, *_changes_of(effects, work), work.bounds.bucket_seconds)
    await _save_label_counts(connection, work)
    await _say_what_may_have_come_too_late(effects, work)


def _by_entity(labels: Iterable[tuple[str, Label]]) -> dict[UUID, list[Label]]:
    arrived: dict[UUID, list[Label]] = defaultdict(list)
    for entity, label in labels:
        arrived[key_of(entity)].append(label)
    return arrived


async def _judge(
    effects: Effects, standing: Mapping[UUID, Standing], arrived: Mapping[UUID, list[Label]], horizons: Horizons
) -> dict[UUID, Standing]:
    """Judge the arrived labels, one after the other; returns what stands now where that has changed."""
    back = [key for key, labels in arrived.items() if reaches_back(standing.get(key), labels, horizons)]
    known = await store.superseded_labels(effects.connection, back) if back else {}
    superseded: list[tuple[UUID, Label]] = []
    winners = {}
    for key, labels in arrived.items():
        found = standing.get(key)
        others = known.get(key, [])
        for label in labels:
            ruling = rule(found, label, others, horizons)
            effects.count(LABELS_TOTAL, verdict=ruling.verdict)
            if ruling.verdict == "too_late":
                effects.count(TOO_LATE_TOTAL, horizon="correction")
            if ruling.superseded is not None:
                others.append(ruling.superseded)
                superseded.append((key, ruling.superseded))
            found = ruling.standing
        if found is not None and found != standing.get(key):
            winners[key] = found
    if superseded:
        await store.remember_superseded(effects.connection, superseded)
    return winners


async def _without_repeats(effects: Effects, predictions: Sequence[NewPrediction]) -> list[NewPrediction]:
    """Predictions not known before; one that says something else under a known id is a conflict."""
    keys = [prediction.stored.prediction_key for prediction in predictions]
    known = await store.content_hashes(effects.connection, keys) if keys else {}
    removed = await store.removed_through(effects.connection, {id_of(one.model) for one in predictions})
    fresh = []
    for prediction in predictions:
        stored = prediction.stored
        standing = known.get(stored.prediction_key)
        removed_through = removed.by_model.get(id_of(prediction.model))
        if standing is None and removed_through is not None and stored.predicted_at <= removed_through:
            # Whether it was counted before cannot be known any more, so it must not count now.
            detail = "older than predictions of its model that retention has removed"
            effects.refuse(prediction.record, Refusal("too_late", "predicted_at", detail))
            effects.count(PREDICTIONS_TOTAL, verdict="too_late")
            effects.count(TOO_LATE_TOTAL, horizon="retention")
        elif standing is None:
            known[stored.prediction_key] = stored.content_hash
            fresh.append(prediction)
            effects.count(PREDICTIONS_TOTAL, verdict="new")
        elif standing == stored.content_hash:
            effects.count(PREDICTIONS_TOTAL, verdict="duplicate")
        else:
            detail = "a prediction with this id and other content came before"
            effects.refuse(prediction.record, Refusal("conflict", "prediction_id", detail))
            effects.count(PREDICTIONS_TOTAL, verdict="conflict")
    return fresh


async def _find_siblings(connection: Connection, work: Join) -> None:
    """Stored predictions that a label of this batch settles, or that share a labelled entity with a new one."""
    entities = set(work.winners)
    for prediction in work.new:
        stored = prediction.stored
        work.model_ids[stored.version_id] = id_of(prediction.model)
        work.names[stored.segment_id] = prediction.segments
        if work.settled(stored.entity_key) is not None:
            entities.add(stored.entity_key)
    found = await store.predictions_of(connection, entities) if entities else []
    kinds = {prediction.stored.version_id: prediction.kind for prediction in work.new}
    versions = {stored.version_id for stored in found} - set(work.model_ids)
    if versions:
        models, kinds_found = await store.models_and_kinds_of_versions(connection, versions)
        work.model_ids.update(models)
        kinds.update(kinds_found)
    for stored in await answers.with_answers(connection, found, kinds):
        work.siblings[stored.entity_key].append(stored)
    segments = {stored.segment_id for stored in found} - set(work.names)
    if segments:
        work.names.update(await store.segment_names(connection, segments))


def _changes_of(effects: Effects, work: Join) -> tuple[Changes, set[Series]]:
    """What the batch adds to the sums and takes out of them, and the series concerned."""
    changes = Changes(work.bounds.bucket_seconds)
    touched: set[Series] = set()
    for entity_key, standing in work.winners.items():
        for stored in work.siblings.get(entity_key, ()):
            series = work.series_of(stored)
            ids = tuple(one.series_id for one in series)
            stood = work.standing.get(entity_key)
            before, after = work.evaluate(stored, stood), work.evaluate(stored, standing)
            if work.label_for(stored, standing) is None and (stood is None or work.label_for(stored, stood)):
                effects.count(TOO_LATE_TOTAL, horizon="label")
            if before == after:
                continue
            touched.update(series)
            if before is not None:
                changes.evaluated(ids, stored, before, -1)
            if after is not None:
                changes.evaluated(ids, stored, after, 1)
    for prediction in work.new:
        series = work.series_of(prediction.stored)
        ids = tuple(one.series_id for one in series)
        touched.update(series)
        changes.predicted(ids, prediction.stored)
        settled = work.settled(prediction.stored.entity_key)
        if settled is not None and work.label_for(prediction.stored, settled) is None:
            effects.count(TOO_LATE_TOTAL, horizon="label")
        evaluation = work.evaluate(prediction.stored, settled)
        if evaluation is not None:
            changes.evaluated(ids, prediction.stored, evaluation, 1)
    return changes, touched


async def save_sums(connection: Connection, changes: Changes, touched: set[Series], bucket_seconds: int) -> None:
    """Make the series known and add the changes at every width. The models must be locked."""
    by_bucket = changes.by_bucket(widths(bucket_seconds))
    if by_bucket:
        await store.add_series(connection, sorted(touched, key=lambda one: one.series_id))
        await store.add_to_buckets(connection, by_bucket)


async def _save_label_counts(connection: Connection, work: Join) -> None:
    """Per model: which buckets its distinct labelled entities fall in, its newest data, its new labels."""
    model_ids = set(work.model_ids.values())
    limits = await store.new_label_limits(connection, model_ids) if model_ids else {}
    buckets: dict[tuple[int, int], LabelBucketChange] = defaultdict(LabelBucketChange)
    new_labels: dict[int, int] = defaultdict(int)
    for model_id, before, after in _label_changes(work):
        for label, sign in ((before, -1), (after, 1)):
            if label is None:
                continue
            bucket = buckets[model_id, start_of(label.observed_at, work.bounds.bucket_seconds)]
            bucket.labels[label.observed_at] += sign
            if label.outcome is not None:
                bucket.labelled_entities += sign
                new_labels[model_id] += sign * is_new(label, limits.get(model_id))
    for prediction in work.new:
        if prediction.data_as_of is not None:
            start = start_of(prediction.data_as_of, work.bounds.bucket_seconds)
            buckets[id_of(prediction.model), start].saw_data(prediction.data_as_of)
    if buckets:
        await store.add_to_label_buckets(connection, buckets, work.bounds.bucket_seconds, work.bounds.horizons)
    if any(new_labels.values()):
        await store.add_new_labels(connection, new_labels)


def _label_changes(work: Join) -> Iterator[tuple[int, Label | None, Label | None]]:
    """(model id, label before, label after) for every model and entity whose label this batch changes.

    A model has the label of an entity where one of its predictions about the entity lies within the horizon.
    """
    before: dict[tuple[int, UUID], Label] = {}
    after: dict[tuple[int, UUID], Label] = {}
    new = [prediction.stored for prediction in work.new]
    known = [stored for found in work.siblings.values() for stored in found]
    for stored in known:
        label = work.label_for(stored, work.standing.get(stored.entity_key))
        if label is not None:
            before[work.model_ids[stored.version_id], stored.entity_key] = label
    for stored in (*known, *new):
        label = work.label_for(stored, work.settled(stored.entity_key))
        if label is not None:
            after[work.model_ids[stored.version_id], stored.entity_key] = label
    for place in sorted(before.keys() | after.keys(), key=lambda pair: (pair[0], pair[1].int)):
        if before.get(place) != after.get(place):
            yield place[0], before.get(place), after.get(place)


async def _say_what_may_have_come_too_late(effects: Effects, work: Join) -> None:
    """Labels that meet nothing and are so old that what they settle may be gone: they are kept, and counted."""
    meeting = work.siblings.keys() | {prediction.stored.entity_key for prediction in work.new}
    alone = [standing for key, standing in work.winners.items() if key not in meeting]
    if not alone:
        return
    removed = (await store.removed_through(effects.connection, ())).newest
    if removed is None:
        return
    late = sum(one.label.observed_at - work.bounds.horizons.label <= removed for one in alone)
    if late:
        effects.count(TOO_LATE_TOTAL, late, horizon="retention")
        effects.after_commit(
            lambda: log.warning("labels without a prediction, which may have been removed", count=late)
        )
