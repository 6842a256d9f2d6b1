"""What holds for every history of snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.alerting.domain.escalation import RANK
from services.alerting.handlers import decide
from shared.contracts.alerts import AlertTransition
from shared.contracts.models import Rules
from shared.contracts.snapshots import Snapshot
from tests.unit.alerting.builders import DAY, make_snapshot
from tests.unit.alerting.fake_store import FakeStore

MODELS = ("a", "b")

# A busy machine is no fault of an example's.
unhurried = settings(deadline=None)


def figures() -> st.SearchStrategy[dict[str, Any]]:
    """Figures that are mostly in breach, so that streaks grow and end."""
    freshness = st.sampled_from([None, 0.0, 2.0 * DAY, 3.0 * DAY, 3.0 * DAY, 4.0 * DAY, 5.0 * DAY])
    return st.fixed_dictionaries(
        {
            "evaluated_predictions": st.sampled_from([0, 29, 30, 100, 100, 100]),
            "accuracy": st.sampled_from([None, 0.3, 0.5, 0.5, 0.55, 0.9]),
            "brier_score": st.sampled_from([None, 0.25, 0.3, 0.3, 0.3, 0.33, 0.4, 0.4]),
            "data_freshness_seconds": freshness,
            "pipeline_freshness_seconds": freshness,
            "catching_up": st.sampled_from([False] * 5 + [True]),
            "rules": st.sampled_from([Rules()] * 5 + [Rules(accuracy_breach=None), Rules(data_stale=None)]),
        }
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Snapshot]:
    """Snapshots of two models, interleaved, in each model's order, with gaps and repeats."""
    sequences = dict.fromkeys(MODELS, 0)
    snapshots: list[Snapshot] = []
    for _ in range(draw(st.integers(0, 14))):
        model = draw(st.sampled_from(MODELS))
        sequences[model] += draw(st.sampled_from([1, 1, 1, 1, 1, 2, 3]))
        snapshots.append(make_snapshot(sequences[model], model=model, **draw(figures())))
        if draw(st.integers(0, 5)) == 0:
            snapshots.append(draw(st.sampled_from(snapshots)))
    return snapshots


def run(batches: Sequence[Sequence[Snapshot]]) -> tuple[FakeStore, list[AlertTransition]]:
    """Every batch through the store, as the handler does it."""
    store, transitions = FakeStore(), []
    for batch in batches:
        decided = decide(store.read({snapshot.model for snapshot in batch}), batch)
        store.write(decided.models.values())
        transitions += decided.transitions
    return store, transitions


def new_ones(history: Sequence[Snapshot], model: str) -> list[Snapshot]:
    """A model's snapshots without those that are not above the ones before them."""
    kept: list[Snapshot] = []
    for snapshot in history:
        if snapshot.model == model and (not kept or snapshot.sequence > kept[-1].sequence):
            kept.append(snapshot)
    return kept


@unhurried
@given(histories(), st.data())
def test_batching_changes_nothing(history: list[Snapshot], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=5)))
    bounds = [0, *cuts, len(history)]
    batched, together = run([history[start:end] for start, end in pairwise(bounds)]), run([history])
    one_by_one = run([[snapshot] for snapshot in history])
    assert batched[1] == together[1] == one_by_one[1]
    assert batched[0].rows == together[0].rows == one_by_one[0].rows


@unhurried
@given(histories(), st.data())
def test_repeats_change_nothing(history: list[Snapshot], data: st.DataObject) -> None:
    repeated: list[Snapshot] = []
    for snapshot in history:
        repeated.append(snapshot)
        repeated += data.draw(st.lists(st.sampled_from(repeated), max_size=2))
    store, transitions = run([repeated])
    expected_store, expected = run([history])
    assert transitions == expected
    assert store.rows == expected_store.rows


@unhurried
@given(histories())
def test_how_models_are_interleaved_changes_nothing_for_each(history: list[Snapshot]) -> None:
    store, transitions = run([history])
    for model in MODELS:
        alone, own = run([[snapshot for snapshot in history if snapshot.model == model]])
        assert [each for each in transitions if each.model == model] == own
        assert store.rows.get(model) == alone.rows.get(model)


@unhurried
@given(histories())
def test_the_history_of_transitions_is_legal(history: list[Snapshot]) -> None:
    _, transitions = run([history])
    for model in MODELS:
        own = [each for each in transitions if each.model == model]
        assert [each.alert_sequence for each in own] == list(range(1, len(own) + 1))
        assert_alerts_move_legally(own)
        assert_states_follow(own)


def assert_alerts_move_legally(transitions: Sequence[AlertTransition]) -> None:
    """Opened when it does not stand, moved or resolved from the level where it stands; once a snapshot."""
    standing: dict[str, str] = {}
    seen: set[tuple[int, str | None]] = set()
    for each in transitions:
        assert (each.snapshot_sequence, each.alert_id) not in seen
        seen.add((each.snapshot_sequence, each.alert_id))
        if each.alert_id is None:
            continue
        assert each.escalation_level is not None
        assert each.breach_streak is not None
        level, before = each.escalation_level, each.previous_escalation_level
        assert before == standing.get(each.alert_id)
        if each.transition == "resolved":
            assert (level, each.breach_streak) == ("none", 0)
            del standing[each.alert_id]
            continue
        assert each.breach_streak >= 1
        standing[each.alert_id] = level
        if before is None:
            assert (each.transition, each.breach_streak) == ("opened", 1)
        else:
            climbs = RANK[level] - RANK[before]
            assert climbs != 0
            assert each.transition == ("escalated" if climbs > 0 else "de_escalated")


def assert_states_follow(transitions: Sequence[AlertTransition]) -> None:
    """States form a chain, and the change of state is the last transition of its snapshot."""
    state = "none"
    for _, group in groupby(transitions, key=lambda each: each.snapshot_sequence):
        changes = list(group)
        after = changes[-1].state
        assert {(each.previous_state, each.state) for each in changes} == {(state, after)}
        told = [each.transition == "state_changed" for each in changes]
        assert told == [False] * (len(changes) - 1) + [after != state]
        state = after


def breaches(snapshot: Snapshot) -> dict[str, str]:
    """The severity of each rule in breach: the table of the design, written a second time."""
    metrics, rules = snapshot.metrics, snapshot.policy.rules
    found = {}
    judged = metrics.evaluated_predictions >= 30
    if rules.accuracy_breach and judged and metrics.accuracy is not None and metrics.accuracy < 0.55:
        found["accuracy_breach"] = "high"
    if judged and metrics.brier_score is not None and metrics.brier_score > 0.25:
        found["brier_breach"] = "high" if metrics.brier_score > 0.33 else "medium"
    for alert_id, rule, age in (
        ("data_stale", rules.data_stale, metrics.data_freshness_seconds),
        ("pipeline_stale", rules.pipeline_stale, metrics.pipeline_freshness_seconds),
    ):
        if rule and not snapshot.catching_up and age is not None and age > 172_800:
            found[alert_id] = "high" if age > 345_600 else "medium"
    return found


def streak(history: Sequence[Snapshot], alert_id: str) -> int:
    """Counted back from the last snapshot, while each is in breach and follows the one before it."""
    count = 0
    for snapshot, later in zip(reversed(history), [None, *reversed(history)], strict=False):
        follows = later is None or later.sequence == snapshot.sequence + 1
        if not follows or alert_id not in breaches(snapshot):
            break
        count += 1
    return count


@unhurried
@given(histories())
def test_the_state_equals_a_recomputation_from_all_snapshots(history: list[Snapshot]) -> None:
    store, transitions = run([history])
    for model in MODELS:
        own = new_ones(history, model)
        if not own:
            assert model not in store.rows
            continue
        standing = store.read([model])[model].standing
        found = {alert.alert_id: (alert.severity, alert.breach_streak) for alert in standing}
        assert found == {
            alert_id: (severity, streak(own, alert_id)) for alert_id, severity in breaches(own[-1]).items()
        }
        assert store.rows[model]["snapshot_sequence"] == own[-1].sequence
        told = {each.alert_id: each for each in transitions if each.model == model and each.alert_id}
        assert {alert_id for alert_id, last in told.items() if last.transition != "resolved"} == set(found)


@unhurried
@given(histories())
def test_every_streak_told_follows_from_the_snapshots(history: list[Snapshot]) -> None:
    _, transitions = run([history])
    for each in transitions:
        if each.alert_id is None or each.transition == "resolved":
            continue
        until = [
            snapshot for snapshot in new_ones(history, each.model) if snapshot.sequence <= each.snapshot_sequence
        ]
        assert each.breach_streak == streak(until, each.alert_id)
        assert each.severity == breaches(until[-1])[each.alert_id]
