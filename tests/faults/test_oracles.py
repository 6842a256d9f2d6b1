"""The audit's own yardsticks: they say what the rules say, and see what is wrong."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from shared.contracts.models import Policy
from tests.faults import judgement
from tests.faults.audit import Audit
from tests.faults.recomputation import DERIVED, Recomputation, differences
from tests.faults.traffic import Ledger
from tests.metrics_world import START_SECONDS, label, prediction, version

POLICY = Policy(model="m").known()


def snapshot(sequence: int, accuracy: float, *, brier: float = 0.1, evaluated: int = 30, **more: Any) -> Any:
    metrics = {
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
