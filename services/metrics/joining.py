"""The join of a batch: finds what meets, and turns it into changes of sums. The rule is domain/joining.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from services.metrics import store
from services.metrics.answers import store as answers
from services.metrics.domain.buckets import start_of, widths
from services.metrics.domain.identity import id_of, key_of
from services.metrics.domain.joining import Label, StoredPrediction, evaluate, is_new, judge_label
from services.metrics.domain.sums import Changes
from services.metrics.instruments import LABELS_TOTAL, PREDICTIONS_TOTAL
from services.metrics.intake import NewPrediction
from services.metrics.store import LabelBucketChange, Names, Series
from shared.database import Connection
from shared.effects import Effects
from shared.errors import Refusal

OTHER = "other"
"""The segment value of whatever the policy does not declare."""

Declared = Mapping[str, frozenset[str]]


@dataclass(slots=True)
class Join:
    """What is known while one batch is joined."""

    bucket_seconds: int
    new: list[NewPrediction]
    standing: Mapping[UUID, Label]
    winners: dict[UUID, Label]
    siblings: dict[UUID, list[StoredPrediction]] = field(default_factory=lambda: defaultdict(list))
    model_ids: dict[int, int] = field(default_factory=dict)
    names: dict[int, Names] = field(default_factory=dict)
    declared: dict[int, dict[str, frozenset[str]]] = field(default_factory=dict)

    def settled(self, entity_key: UUID) -> Label | None:
        """The label of an entity after this batch."""
        return self.winners.get(entity_key) or self.standing.get(entity_key)

    def series_of(self, prediction: StoredPrediction) -> tuple[Series, ...]:
        """The series that a prediction counts in."""
        model_id = self.model_ids[prediction.version_id]
        return series_of(
            model_id, prediction.version_id, self.names[prediction.segment_id], self.declared.get(model_id, {})
        )


def series_of(model_id: int, version_id: int, names: Names, declared: Declared) -> tuple[Series, ...]:
    """The version's own series, and one of each declared dimension."""
    values = dict(names)
    found = [Series(model_id, version_id, "")]
    for dimension, known in declared.items():
        value = values.get(dimension)
        segment = f"{dimension}:{value if value in known else OTHER}"
        found.append(Series(model_id, version_id, segment))
    return tuple(found)


async def join(
    effects: Effects,
    predictions: Sequence[NewPrediction],
    labels: Iterable[tuple[str, Label]],
    bucket_seconds: int,
    *,
    also_lock: Iterable[int] = (),
) -> None:
    """Join predictions and labels with each other and with all that came before, and change the sums.

    ``also_lock`` are models that the batch changes in other ways: all that it locks, it locks in one order.
    """
    arrived = _newest_by_entity(effects, labels)
    if not predictions and not arrived:
        return
    connection = effects.connection
    entity_keys = {prediction.stored.entity_key for prediction in predictions} | set(arrived)
    await store.lock_entities(connection, entity_keys)
    new = await _without_repeats(effects, predictions)
    standing = await store.labels(connection, entity_keys)
    work = Join(bucket_seconds, new, standing, _winners(effects, standing, arrived))
    await _make_names_known(connection, new)
    await _find_siblings(connection, work)
    await store.lock_models(connection, {*work.model_ids.values(), *also_lock})
    work.declared = await store.declared_segments(connection, set(work.model_ids.values()))
    if new:
        await store.add_predictions(connection, (prediction.stored for prediction in new))
    if work.winners:
        await store.save_labels(connection, work.winners)
    await save_sums(connection, *_changes_of(work), bucket_seconds)
    await _save_label_counts(connection, work)


def _newest_by_entity(effects: Effects, labels: Iterable[tuple[str, Label]]) -> dict[UUID, Label]:
    """The winner among the batch's own labels, per entity."""
    newest: dict[UUID, Label] = {}
    for entity, label in labels:
        key = key_of(entity)
        verdict = judge_label(newest.get(key), label)
        if verdict in ("first", "corrected"):
            if verdict == "corrected":
                effects.count(LABELS_TOTAL, verdict="stale")
            newest[key] = label
        else:
            effects.count(LABELS_TOTAL, verdict=verdict)
    return newest


def _winners(effects: Effects, standing: Mapping[UUID, Label], arrived: Mapping[UUID, Label]) -> dict[UUID, Label]:
    """The arrived labels that change what stands."""
    winners = {}
    for key, label in arrived.items():
        verdict = judge_label(standing.get(key), label)
        effects.count(LABELS_TOTAL, verdict=verdict)
        if verdict in ("first", "corrected"):
            winners[key] = label
    return winners


async def _without_repeats(effects: Effects, predictions: Sequence[NewPrediction]) -> list[NewPrediction]:
    """Predictions not known before; one that says something else under a known id is a conflict."""
    keys = [prediction.stored.prediction_key for prediction in predictions]
    known = await store.content_hashes(effects.connection, keys) if keys else {}
    fresh = []
    for prediction in predictions:
        stored = prediction.stored
        standing = known.get(stored.prediction_key)
        if standing is None:
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


async def _make_names_known(connection: Connection, new: Sequence[NewPrediction]) -> None:
    if new:
        await store.add_names(
            connection,
            models=[prediction.model for prediction in new],
            versions={(prediction.model, prediction.version, prediction.kind) for prediction in new},
            segments={prediction.segments for prediction in new},
        )


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


def _changes_of(work: Join) -> tuple[Changes, set[Series]]:
    """What the batch adds to the sums and takes out of them, and the series concerned."""
    changes = Changes(work.bucket_seconds)
    touched: set[Series] = set()
    for entity_key, label in work.winners.items():
        for stored in work.siblings.get(entity_key, ()):
            series = work.series_of(stored)
            ids = tuple(one.series_id for one in series)
            before = evaluate(stored, work.standing.get(entity_key))
            after = evaluate(stored, label)
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
        evaluation = evaluate(prediction.stored, work.settled(prediction.stored.entity_key))
        if evaluation is not None:
            changes.evaluated(ids, prediction.stored, evaluation, 1)
    return changes, touched


async def save_sums(connection: Connection, changes: Changes, touched: set[Series], bucket_seconds: int) -> None:
    """Make the series known and add the changes at every width. The models must be locked."""
    by_bucket = changes.by_bucket(widths(bucket_seconds))
    if by_bucket:
        await store.add_series(connection, sorted(touched, key=lambda one: one.series_id))
        await store.add_to_buckets(connection, by_bucket)
        details = {key: sums.detail for key, sums in by_bucket.items() if sums.detail is not None}
        if details:
            await answers.add_to_details(connection, details)


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
            bucket = buckets[model_id, start_of(label.observed_at, work.bucket_seconds)]
            bucket.labels[label.observed_at] += sign
            if label.outcome is not None:
                bucket.labelled_entities += sign
                new_labels[model_id] += sign * is_new(label, limits.get(model_id))
    for prediction in work.new:
        if prediction.data_as_of is not None:
            start = start_of(prediction.data_as_of, work.bucket_seconds)
            buckets[id_of(prediction.model), start].saw_data(prediction.data_as_of)
    if buckets:
        await store.add_to_label_buckets(connection, buckets, work.bucket_seconds)
    if any(new_labels.values()):
        await store.add_new_labels(connection, new_labels)


def _label_changes(work: Join) -> Iterator[tuple[int, Label | None, Label]]:
    """(model id, label before, label after) for every model and entity whose label this batch changes.

    A model that meets the entity for the first time has had no label of it before.
    """
    known = {
        (work.model_ids[stored.version_id], entity_key)
        for entity_key, found in work.siblings.items()
        for stored in found
    }
    for model_id, entity_key in sorted(known, key=lambda pair: (pair[0], pair[1].int)):
        if entity_key in work.winners:
            yield model_id, work.standing.get(entity_key), work.winners[entity_key]
    met = {(id_of(prediction.model), prediction.stored.entity_key) for prediction in work.new} - known
    for model_id, entity_key in met:
        label = work.settled(entity_key)
        if label is not None:
            yield model_id, None, label
