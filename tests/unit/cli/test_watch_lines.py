"""One readable line an event."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.topics import ALERTS, RETRAIN_DECISIONS, RETRAIN_JOBS, SNAPSHOTS, Topic
from trueward.cli.output import figure
from trueward.cli.watch import printed

GOLDEN = Path(__file__).parents[2] / "contracts" / "golden"
TOPICS = {
    "alert-transition.v1": ALERTS,
    "retrain-job.v1": RETRAIN_JOBS,
    "retrain-decision.v1": RETRAIN_DECISIONS,
    "snapshot.v1": SNAPSHOTS,
}
EXAMPLES = [
    pytest.param(topic, example, id=f"{folder}/{example.stem}")
    for folder, topic in TOPICS.items()
    for example in sorted((GOLDEN / folder).glob("*.json"))
]


def test_there_are_examples_of_everything() -> None:
    assert {example.id.split("/")[0] for example in EXAMPLES if example.id} == set(TOPICS)


@pytest.mark.parametrize(("topic", "example"), EXAMPLES)
def test_every_golden_example_has_a_line(topic: Topic, example: Path) -> None:
    document = json.loads(example.read_bytes())
    line = printed(topic, example.read_bytes(), model=None, as_json=False)
    assert line is not None
    assert "\n" not in line
    assert document["model"] in line
    assert "Z  " in line
    as_json = printed(topic, example.read_bytes(), model=document["model"], as_json=True)
    assert as_json is not None
    assert "\n" not in as_json
    assert json.loads(as_json)["model"] == document["model"]


@pytest.mark.parametrize(("topic", "example"), EXAMPLES)
def test_other_models_are_left_out(topic: Topic, example: Path) -> None:
    assert printed(topic, example.read_bytes(), model="another", as_json=False) is None


@pytest.mark.parametrize("value", [None, b"", b"x", b"{}"])
def test_what_cannot_be_read_is_passed_over_with_a_note(
    value: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(ALERTS, value, model=None, as_json=False) is None
    assert capsys.readouterr().err.startswith("note: passed over a record that is no AlertTransition")


def test_lines_say_what_matters() -> None:
    line = _line(ALERTS, "alert-transition.v1", transition="escalated")
    for part in ("escalated", "severity", "level", "streak"):
        assert part in line
    assert "state" in _line(ALERTS, "alert-transition.v1", transition="state_changed")
    assert "evaluated, accuracy" in _line(SNAPSHOTS, "snapshot.v1")


def _line(topic: Topic, folder: str, **wanted: str) -> str:
    for example in sorted((GOLDEN / folder).glob("*.json")):
        document = json.loads(example.read_bytes())
        if wanted.items() <= document.items():
            return printed(topic, example.read_bytes(), model=None, as_json=False) or ""
    pytest.fail(f"no golden example in {folder} with {wanted}")


@pytest.mark.parametrize(("value", "said"), [(None, "unknown"), (0.0, "0.0000"), (0.12346, "0.1235")])
def test_figures(value: float | None, said: str) -> None:
    assert figure(value) == said
