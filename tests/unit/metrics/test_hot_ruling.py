"""Labels judged in columns have the verdicts that each has by itself, one after the other."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.metrics.domain.horizons import Horizons, LabelVerdict, Standing, reaches_back, rule
from services.metrics.domain.hot.ruling import MOST_LABELS, VERDICTS, Arrived, counts, rule_all
from services.metrics.domain.hot.states import States, nothing_known
from services.metrics.domain.joining import Label

ENTITIES = 4
Said = tuple[int, int, bool]
"""An entity, when its label was observed, and what it says."""

labels = st.lists(st.tuples(st.integers(0, ENTITIES - 1), st.integers(0, 12), st.booleans()), max_size=40)
standings = st.none() | st.tuples(st.integers(0, 12), st.integers(0, 8), st.booleans())
"""None, or when the first label was observed, by how much the standing one is later, and what that says."""


def stood(drawn: tuple[int, int, bool] | None, correction: int) -> Standing | None:
    """A standing label that is a correction of the first, as every stored one is."""
    if drawn is None:
        return None
    first, later, positive = drawn
    return Standing(Label(first + min(later, correction), float(positive)), first)


def states_of(standing: list[Standing | None]) -> States:
    states = nothing_known(len(standing))
    for place, one in enumerate(standing):
        if one is not None:
            states[place]["labelled"] = True
            states[place]["observed_at"] = one.label.observed_at
            states[place]["positive"] = one.label.outcome == 1.0
            states[place]["first_observed_at"] = one.first_observed_at
    return states


def standing_in(states: States, place: int) -> Standing | None:
    state = states[place]
    if not state["labelled"]:
        return None
    return Standing(Label(int(state["observed_at"]), float(state["positive"])), int(state["first_observed_at"]))


def arrived_of(said: list[Said]) -> Arrived:
    return Arrived(
        np.array([entity for entity, _, _ in said], dtype=np.int64),
        np.array([observed_at for _, observed_at, _ in said], dtype=np.int64),
        np.array([positive for _, _, positive in said], dtype=np.bool_),
    )


@dataclass
class OneByOne:
    """What the rule says of each label by itself; ``reached_back``: entities that need their superseded labels."""

    standing: list[Standing | None]
    verdicts: list[LabelVerdict] = field(default_factory=list)
    superseded: dict[int, list[Label]] = field(default_factory=lambda: defaultdict(list))
    reached_back: set[int] = field(default_factory=set)

    def judge(self, said: list[Said], horizons: Horizons) -> None:
        for entity, observed_at, positive in said:
            label = Label(observed_at, float(positive))
            if reaches_back(self.standing[entity], [label], horizons):
                self.reached_back.add(entity)
            ruling = rule(self.standing[entity], label, self.superseded[entity], horizons)
            self.standing[entity] = ruling.standing
            self.verdicts.append(ruling.verdict)
            if ruling.superseded is not None:
                self.superseded[entity].append(ruling.superseded)


@given(st.lists(standings, min_size=ENTITIES, max_size=ENTITIES), labels, st.integers(0, 8))
@example([None] * ENTITIES, [(0, 5, True)] * (MOST_LABELS + 1), 3)
@example([None] * ENTITIES, [(0, 5, True)] * MOST_LABELS, 3)
@example([(5, 3, True)] * ENTITIES, [(0, 4, False), (0, 4, True), (1, 6, False)], 3)
@example([(5, 3, True)] * ENTITIES, [(0, 5, False), (0, 9, False), (0, 8, False), (1, 8, True)], 3)
@example([(5, 3, False)] * ENTITIES, [(0, 8, True), (0, 8, False), (1, 9, True), (1, 8, True)], 3)
def test_labels_are_judged_as_each_is_by_itself(
    drawn: list[tuple[int, int, bool] | None], said: list[Said], correction: int
) -> None:
    standing = [stood(one, correction) for one in drawn]
    expected = OneByOne(list(standing))
    expected.judge(said, Horizons(label=90, correction=correction))
    states = states_of(standing)
    ruled = rule_all(states, arrived_of(said), correction)

    difficult = set(ruled.difficult.tolist())
    many = {entity for entity, count in Counter(entity for entity, _, _ in said).items() if count > MOST_LABELS}
    assert many <= difficult <= many | expected.reached_back
    assert expected.reached_back <= difficult
    for entity in set(range(ENTITIES)) - difficult:
        assert standing_in(states, entity) == expected.standing[entity]
    superseded = zip(*(column.tolist() for column in said_of(ruled.superseded)), strict=True)
    assert sorted((entity, moment, float(positive)) for entity, moment, positive in superseded) == sorted(
        (entity, label.observed_at, label.outcome)
        for entity, found in expected.superseded.items()
        if entity not in difficult
        for label in found
    )
    for (entity, _, _), number, verdict in zip(said, ruled.verdicts.tolist(), expected.verdicts, strict=True):
        assert entity in difficult or VERDICTS[number] == verdict


def said_of(arrived: Arrived) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert len(arrived) == len(arrived.observed_at) == len(arrived.positive)
    return arrived.entity, arrived.observed_at, arrived.positive


@given(labels)
def test_a_prediction_is_not_touched_by_labels(said: list[Said]) -> None:
    states = nothing_known(ENTITIES)
    states["predicted_at"], states["probability"], states["content_hash"] = 7, 0.25, range(ENTITIES)
    before = states.copy()
    rule_all(states, arrived_of(said), 3)
    fields = [name for name in before.dtype.names or () if name not in STANDING_FIELDS]
    assert states[fields].tolist() == before[fields].tolist()


STANDING_FIELDS = ("labelled", "observed_at", "positive", "first_observed_at")


@pytest.mark.parametrize(
    ("observed_at", "positive", "verdict"),
    [
        (130, False, "corrected"),
        (131, False, "too_late"),
        (110, True, "duplicate"),
        (110, False, "stale"),
        (99, False, "stale"),
    ],
)
def test_a_label_of_a_known_entity_has_each_verdict(
    observed_at: int, positive: bool, verdict: LabelVerdict
) -> None:
    states = states_of([None, Standing(Label(110, 1.0), 100)])
    ruled = rule_all(states, arrived_of([(1, observed_at, positive), (0, 1, True)]), 30)
    assert [VERDICTS[number] for number in ruled.verdicts.tolist()] == [verdict, "first"]
    assert counts(ruled.verdicts) == {"first": 1, verdict: 1}
    assert not len(ruled.difficult)


def test_verdicts_that_none_had_are_not_counted() -> None:
    numbers = np.array([VERDICTS.index("stale")] * 3 + [VERDICTS.index("first")], dtype=np.int8)
    assert counts(numbers) == {"stale": 3, "first": 1}
    assert counts(numbers[:0]) == {}
