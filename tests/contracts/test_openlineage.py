"""An OpenLineage RunEvent is taken as it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from shared.contracts.observations import OpenLineageRunEvent, PipelineRun
from tests.contracts.examples import example


def run_event(case: str) -> OpenLineageRunEvent:
    event = example("openlineage-run-event.v1", case).decode()
    assert isinstance(event, OpenLineageRunEvent)
    return event


def test_a_completed_run_is_a_successful_pipeline_run_of_every_model() -> None:
    assert run_event("airflow-complete").as_pipeline_run() == PipelineRun(
        pipeline="airflow-production/weather.load_hourly",
        completed_at=datetime(2026, 1, 31, 6, 4, 59, 871_000, tzinfo=UTC),
        status="success",
        run_id="01941f29-7c00-7312-b6d4-9a3f3a1a8b52",
    )


@pytest.mark.parametrize(
    ("event_type", "status"),
    [
        ("COMPLETE", "success"),
        ("FAIL", "failed"),
        ("ABORT", "failed"),
        ("START", None),
        ("RUNNING", None),
        ("OTHER", None),
    ],
)
def test_only_the_end_of_a_run_is_a_pipeline_run(event_type: str, status: str | None) -> None:
    document = {**example("openlineage-run-event.v1", "start").canonical, "eventType": event_type}
    run = OpenLineageRunEvent.model_validate_json(json.dumps(document)).as_pipeline_run()
    assert (run.status if run is not None else None) == status


def test_an_event_that_does_not_say_its_type_ends_nothing() -> None:
    assert run_event("without-event-type").as_pipeline_run() is None


def test_a_name_longer_than_ours_is_shortened_and_stays_apart_from_its_neighbours() -> None:
    event = run_event("spark-fail-long-name")
    neighbour = event.model_copy(update={"job": event.job.model_copy(update={"name": f"{event.job.name}_again"})})
    first, second = event.as_pipeline_run(), neighbour.as_pipeline_run()
    assert first is not None
    assert second is not None
    assert first.status == "failed"
    assert len(first.pipeline) == len(second.pipeline) == 128
    assert first.pipeline.startswith("spark-production/weather_features.execute_insert_into")
    assert first.pipeline != second.pipeline
    assert event.as_pipeline_run() == first


@pytest.mark.parametrize(("length", "shortened"), [(127, False), (128, False), (129, True)])
def test_a_name_of_our_length_is_left_as_it_is(length: int, shortened: bool) -> None:
    event = run_event("start").model_copy(update={"eventType": "COMPLETE"})
    name = "j" * (length - len("n/"))
    named = event.model_copy(update={"job": event.job.model_copy(update={"namespace": "n", "name": name})})
    run = named.as_pipeline_run()
    assert run is not None
    assert (run.pipeline != f"n/{name}") is shortened
