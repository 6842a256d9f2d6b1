from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from examples.flights.screen import Screen
from examples.flights.story import Story
from examples.flights.stream import FIRST_DAY, midnight
from examples.flights.wire import Heard

JOB: dict[str, Any] = {
    "job_id": "job-7",
    "status": "completed",
    "as_of": "2013-03-01T00:00:00Z",
    "champion": {"version": "first"},
    "reasons": [
        {"outcome": "fired", "text": "accuracy 0.650000001 is below 0.7"},
        {"outcome": "quiet", "text": "the Brier score is well"},
    ],
    "run": {
        "model_version": "second",
        "message": None,
        "details": {"labels": 54_321, "trained_from": "2013-01-01T00:00:00Z"},
    },
    "rollback_plan": {"baseline": {"accuracy": 0.7, "brier_score": 0.2}},
    "aftermath": None,
}


@pytest.fixture
def written() -> StringIO:
    return StringIO()


@pytest.fixture
def screen(written: StringIO) -> Screen:
    return Screen(Console(file=written, width=200))


def chapter(**more: Any) -> Any:
    day = SimpleNamespace(start=midnight(FIRST_DAY), end=midnight(FIRST_DAY))
    return SimpleNamespace(**({"day": day, "transitions": [], "aftermaths": [], "job": None} | more))


def transition(what: str, **more: Any) -> dict[str, Any]:
    said = {
        "transition": what,
        "alert_id": "brier_breach",
        "severity": "high",
        "reason": "0.223245 [is] above 0.2",
    }
    return said | {"previous_state": "none", "state": "watch"} | more


def test_a_quiet_day_is_not_worth_a_line(screen: Screen, written: StringIO) -> None:
    screen.chapter(chapter())
    assert written.getvalue() == ""


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (transition("opened"), "2013-03-01  alert     brier_breach opened (high): 0.2232 [is] above 0.2"),
        (transition("de_escalated"), "brier_breach de-escalated (high): 0.2232 [is] above 0.2"),
        (transition("resolved"), "brier_breach resolved: 0.2232"),
        (transition("state_changed", alert_id=None), "2013-03-01  state     none -> watch"),
    ],
)
def test_transitions(screen: Screen, written: StringIO, said: dict[str, Any], line: str) -> None:
    screen.chapter(chapter(transitions=[said]))
    assert line in written.getvalue()
    assert written.getvalue().count("\n") == 1


def test_a_job_is_told_with_its_cause_and_its_version(screen: Screen, written: StringIO) -> None:
    screen.chapter(chapter(job=JOB))
    first, second = written.getvalue().splitlines()
    assert first == "2013-03-01  retrain   job job-7: accuracy 0.6500 is below 0.7"
    assert "first -> second, trained on 54,321 labels of 2013-01-01 to 2013-03-01" in second


def test_a_job_that_failed_says_why(screen: Screen, written: StringIO) -> None:
    failed = JOB | {"status": "failed", "run": {"message": "ValueError: too few [labels]"}}
    screen.chapter(chapter(job=failed))
    assert "failed: ValueError: too few [labels]" in written.getvalue()


@pytest.mark.parametrize(
    ("accuracy", "brier", "verdict", "words"),
    [
        (0.8, 0.1, "keep", "is better than before"),
        (0.6, 0.3, "revert_to_previous_model_artifact", "is worse than before"),
        (0.8, 0.3, "keep", "is neither better nor worse than before"),
        (None, None, "keep", "is not to be compared"),
    ],
)
def test_a_verdict_compares_with_the_baseline(  # noqa: PLR0917 - fixtures and a row of the table
    screen: Screen, written: StringIO, accuracy: float | None, brier: float | None, verdict: str, words: str
) -> None:
    after = {"model_version": "second", "verdict": verdict, "accuracy": accuracy, "brier_score": brier}
    screen.chapter(chapter(aftermaths=[JOB | {"aftermath": after}]))
    assert words in written.getvalue()
    assert ("revert" in written.getvalue()) is (verdict != "keep")
    assert "accuracy 0.7000 -> " in written.getvalue()


def test_states_that_never_occurred_are_named(screen: Screen, written: StringIO) -> None:
    story = Story()
    story.take(Heard("snapshots", {"model": "flight-late", "as_of": "2013-03-02T00:00:00Z", "sequence": 1}))
    screen.states(story)
    assert written.getvalue().splitlines() == [
        "Days in each state: none 1",
        "States that never occurred: active, watch, incident",
    ]


def test_versions_are_a_table(screen: Screen, written: StringIO) -> None:
    metrics = {"predictions": 4_572, "evaluated_predictions": 4_319, "accuracy": 0.84234, "brier_score": None}
    screen.versions([("first", "01 Mar to 06 Mar", metrics)])
    for part in ("first", "01 Mar to 06 Mar", "4,572", "4,319", "0.8423", "unknown"):
        assert part in written.getvalue()
