"""The audit's own yardsticks: they say what the rules say, and see what is wrong."""

from __future__ import annotations

import json
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from shared.contracts.models import Policy
from shared.contracts.observations import Label, Prediction
from tests.faults import judgement
from tests.faults.audit import Audit
from tests.faults.kinds import GIVEN, answer, contradiction, outcomes
from tests.faults.recomputation import DERIVED, Recomputation, differences
from tests.faults.traffic import Ledger
from tests.metrics_world import START_SECONDS, classified, label, prediction, valued, version
from tests.plain_kinds import KINDS, kind_of

POLICY = Policy(model="m").known()


def snapshot(sequence: int, accuracy: float, *, brier: float = 0.1, evaluated: int = 30, **more: Any) -> Any:
    metrics = {
        "kind": "binary",
        "evaluated_predictions": evaluated,
        "accuracy": accuracy,
        "brier_score": brier,
        "data_freshness_seconds": more.pop("data_age", None),
        "pipeline_freshness_seconds": None,
        "new_labels": 0,
    }
    return {"sequence": sequence, "policy": POLICY, "metrics": metrics, "catching_up": False, **more}


def test_an_alert_opens_climbs_and_is_resolved_and_the_state_goes_along() -> None:
    found = list(judgement.transitions([snapshot(1, 0.5), snapshot(2, 0.5), snapshot(3, 0.5), snapshot(4, 0.9)]))
    assert found == [
        (1, 1, "opened", "accuracy_breach", "high", 1, "watch", None, "watch", "none"),
        (2, 1, "state_changed", None, None, None, None, None, "watch", "none"),
        (3, 2, "escalated", "accuracy_breach", "high", 2, "incident", "watch", "incident", "watch"),
        (4, 2, "state_changed", None, None, None, None, None, "incident", "watch"),
        (5, 4, "resolved", "accuracy_breach", "high", 0, "none", "incident", "none", "incident"),
        (6, 4, "state_changed", None, None, None, None, None, "none", "incident"),
    ]


@pytest.mark.parametrize(
    ("seen", "breaches"),
    [
        (snapshot(1, 0.55), {}),
        (snapshot(1, 0.549), {"accuracy_breach": "high"}),
        (snapshot(1, 0.1, evaluated=29), {}),
        (snapshot(1, 0.9, brier=0.25), {}),
        (snapshot(1, 0.9, brier=0.33), {"brier_breach": "medium"}),
        (snapshot(1, 0.9, brier=0.34), {"brier_breach": "high"}),
        (snapshot(1, 0.9, data_age=172_801.0), {"data_stale": "medium"}),
        (snapshot(1, 0.9, data_age=172_801.0) | {"catching_up": True}, {}),
    ],
)
def test_a_rule_is_breached_where_the_design_says(seen: Any, breaches: dict[str, str]) -> None:
    assert judgement.breached(seen) == breaches


def of_kind(kind: str, policy: dict[str, Any] | None = None, **figures: Any) -> Any:
    """A snapshot of a model of the kind, its figures those of a good one except as said."""
    found = snapshot(1, 0.9, brier=0.1)
    good = {"mae": 1.0, "baseline_mae": 1.0, "baseline_evaluated_predictions": 30} if kind == "regression" else {}
    unknown = {"accuracy": None, "brier_score": None} if kind == "regression" else {}
    return found | {
        "policy": POLICY | (policy or {}),
        "metrics": found["metrics"] | {"kind": kind} | unknown | good | figures,
    }


MAE_OF_3 = {
    "rules": POLICY["rules"] | {"mae_breach": {"baseline": 3, "above_ratio": 1.1, "high_above_ratio": 2.0}}
}


@pytest.mark.parametrize(
    ("seen", "breaches"),
    [
        (of_kind("multiclass", accuracy=0.54), {"accuracy_breach": "high"}),
        (of_kind("multiclass", brier_score=0.5), {}),
        (of_kind("multiclass", brier_score=0.66), {"multiclass_brier_breach": "medium"}),
        (of_kind("multiclass", brier_score=0.67), {"multiclass_brier_breach": "high"}),
        (of_kind("multiclass", brier_score=0.67, evaluated_predictions=29), {}),
        (of_kind("binary", brier_score=0.3), {"brier_breach": "medium"}),
        (of_kind("regression", mae=1.25), {}),
        (of_kind("regression", mae=1.5), {"mae_breach": "medium"}),
        (of_kind("regression", mae=1.51), {"mae_breach": "high"}),
        (of_kind("regression", mae=1.51, evaluated_predictions=29), {}),
        (of_kind("regression", mae=1.51, baseline_evaluated_predictions=29), {}),
        (of_kind("regression", mae=1.51, baseline_evaluated_predictions=0, baseline_mae=None), {}),
        (of_kind("regression", MAE_OF_3, mae=3.3, baseline_evaluated_predictions=0, baseline_mae=None), {}),
        (of_kind("regression", MAE_OF_3, mae=3.3000000000000003), {"mae_breach": "medium"}),
        (of_kind("regression", MAE_OF_3, mae=6.1, baseline_mae=9.0), {"mae_breach": "high"}),
    ],
)
def test_a_kind_is_judged_by_its_own_rules_and_fires_their_triggers(seen: Any, breaches: dict[str, str]) -> None:
    assert judgement.breached(seen) == breaches
    assert judgement.fired(seen) == list(breaches)


def test_an_alert_of_the_kind_that_a_model_was_is_resolved() -> None:
    found = judgement.transitions([snapshot(1, 0.9, brier=0.3), of_kind("multiclass", brier_score=0.6)])
    assert [one[2:4] for one in found] == [
        ("opened", "brier_breach"),
        ("state_changed", None),
        ("resolved", "brier_breach"),
        ("opened", "multiclass_brier_breach"),
    ]


def job(number: int, change: int, status: str, trigger: str = "accuracy_breach") -> dict[str, Any]:
    champion = {"version": "1"}
    return {
        "job_id": f"j{number}",
        "job_sequence": change,
        "status": status,
        "champion": champion,
        "triggers": [trigger],
    }


LIFE = [job(1, 1, "queued"), job(1, 2, "running"), job(1, 3, "completed")]


@pytest.mark.parametrize(
    ("jobs", "wrong"),
    [
        (LIFE, None),
        ([*LIFE, job(2, 1, "queued", "brier_breach")], None),
        ([*LIFE, job(2, 1, "queued")], "j2 for ('1', 'accuracy_breach'), which made j1 already"),
        ([*LIFE[:2], job(2, 1, "queued", "brier_breach")], "j2 beside ['j1']"),
        ([LIFE[0], LIFE[2]], "j1: change 3 after 1"),
        ([*LIFE, job(1, 4, "running")], "j1: running after completed"),
    ],
)
def test_a_job_made_twice_or_living_on_is_seen(jobs: list[dict[str, Any]], wrong: str | None) -> None:
    assert next(judgement.faults_of_jobs(jobs), None) == wrong


def test_a_figure_that_is_off_by_one_prediction_is_seen() -> None:
    facts = [version("1", 0), prediction("p", 5, 0.7), prediction("q", 6, 0.2), label("p", 7, 1), label("q", 8, 1)]
    expected = Recomputation(facts).figures_of("m", "1", "", "1h", START_SECONDS + 60)
    assert (expected["evaluated_predictions"], expected["accuracy"]) == (2, 0.5)
    derived = dict.fromkeys(DERIVED, 0.1)
    assert differences({**expected, **derived}, expected) == {}
    twice = Recomputation([*facts, prediction("r", 6, 0.2, entity_id="q")])
    assert differences({**expected, **derived}, twice.figures_of("m", "1", "", "1h", START_SECONDS + 60)) != {}
    assert differences({**expected, **derived, "ece": None}, expected) != {}


END_SECONDS = START_SECONDS + 7_200
CLASSIFIED = [
    version("1", 0),
    classified("p", 5, {"cat": 0.5, "dog": 0.5}, entity_id="e"),
    classified("q", 6, {"cat": 0.2, "dog": 0.8}),
    label("e", 7, "dog"),
    label("q", 8, "owl"),
]
VALUED = [
    version("1", 0),
    valued("p", 5, 0.8, entity_id="e"),
    valued("q", 4_000, 2.0),
    label("e", 7, 0.77),
    label("q", 4_001, 1),
]


@pytest.mark.parametrize(
    ("facts", "another", "figures"),
    [
        (
            CLASSIFIED,
            classified("r", 6, {"cat": 0.2, "dog": 0.8}, entity_id="e"),
            {"kind": "multiclass", "accuracy": 0.0, "brier_score": 1.09, "classes": 2, "mae": None},
        ),
        (
            VALUED,
            valued("r", 6, 0.8001, entity_id="e"),
            {"kind": "regression", "accuracy": None, "mae": 0.515, "bias": 0.515, "baseline_mae": None},
        ),
    ],
)
def test_figures_of_every_kind_that_are_off_by_one_prediction_are_seen(
    facts: list[Any], another: Any, figures: dict[str, Any]
) -> None:
    def told(of: list[Any], window: str = "1d") -> dict[str, Any]:
        return Recomputation(of).figures_of("m", "1", "", window, END_SECONDS)

    expected = told(facts)
    assert expected | figures == expected
    derived = {name: 0.1 for name, kinds in DERIVED.items() if figures["kind"] in kinds}
    assert differences({**expected, **derived}, expected) == {}
    assert differences({**expected, **derived}, told([*facts, another])) != {}
    assert set(differences({**expected, **derived, "ece": 0.1}, expected)) == {"ece"}
    of_another = told([*facts, prediction("r", 6, entity_id="e")])
    assert set(differences({**expected, **derived}, of_another)) == {"predictions_of_other_kinds"}


def test_the_baseline_is_of_what_was_evaluated_before_the_window() -> None:
    found = Recomputation(VALUED).figures_of("m", "1", "", "1h", END_SECONDS)
    assert (found["mae"], found["baseline_mae"], found["baseline_evaluated_predictions"]) == (1.0, 0.03, 1)


def test_a_version_that_said_nothing_yet_is_of_the_kind_of_its_model() -> None:
    plain = Recomputation([*VALUED, version("2", 100)])
    assert plain.figures_of("m", "2", "", "1d", END_SECONDS)["kind"] == "regression"


@pytest.mark.parametrize("kind", KINDS)
def test_traffic_of_a_kind_is_accepted_and_what_contradicts_it_says_something_else(kind: str) -> None:
    chance = Random(kind)
    others = set()
    for number in range(300):
        _, plain = prediction(f"p{number}")
        del plain["probability"]
        event = plain | answer(kind, chance)
        against = contradiction(event, chance)
        said, contradicted = (Prediction.model_validate_json(json.dumps(one)) for one in (event, against))
        assert said != contradicted
        assert kind_of(event) == kind
        others.add(kind_of(against))
        for outcome in outcomes(kind, chance)[0]:
            Label.model_validate(label("e", 0, outcome)[1])
    assert others == set(GIVEN) == set(KINDS)


def test_a_champion_of_later_is_none_yet() -> None:
    plain = Recomputation([version("1", 0), version("2", 100), prediction("p", 5)])
    assert [plain.champion("m", START_SECONDS + second)[1] for second in (99, 100)] == ["1", "2"]  # type: ignore[index]


def published(numbers: list[int]) -> list[Any]:
    """A log of one model's events with these sequences."""
    return [
        SimpleNamespace(
            topic="snapshots",
            key=b"m",
            headers=(("ce_id", f"m-{number}".encode()),),
            value=json.dumps({"model": "m", "sequence": number}).encode(),
        )
        for number in numbers
    ]


@pytest.mark.parametrize(
    ("numbers", "breaches", "repeats"),
    [
        ([1, 2, 3], 0, 0),
        ([1, 2, 1, 2, 3], 0, 2),  # a relay that was stopped between sending and removing
        ([1, 2, 4, 5], 2, 0),
        ([1, 2, 4, 3], 1, 0),  # sent too late to be anything but lost for a reader
    ],
)
def test_a_hole_in_a_sequence_is_seen_and_a_repeat_is_none(
    numbers: list[int], breaches: int, repeats: int
) -> None:
    audit = Audit(None, Ledger(), 1)  # type: ignore[arg-type]  # it asks the world nothing here
    audit._in_sequence(published(numbers), "sequence")
    assert len(audit.found.breaches) == breaches
    assert audit.found.counts["events published again"] == repeats
