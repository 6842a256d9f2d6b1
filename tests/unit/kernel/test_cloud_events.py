"""CloudEvents 1.0 in Kafka's binary mode."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from shared.effects import Effects, cloud_event_headers
from shared.topics import ALERTS
from tests.kernel_world import Tallied

EVENT = Tallied(key="münchen", sequence=3, n=7)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_headers_of_an_event() -> None:
    assert cloud_event_headers("alerting", EVENT) == [
        ("ce_specversion", "1.0"),
        ("ce_id", "münchen-3"),
        ("ce_source", "/trueward/alerting"),
        ("ce_type", "trueward.test.tallied.v1"),
        ("ce_subject", "münchen"),
        ("ce_time", "2026-01-01T00:00:00Z"),
        ("content-type", "application/json"),
    ]


def test_the_same_fact_has_the_same_headers() -> None:
    again = Tallied.model_validate_json(EVENT.to_json())
    assert cloud_event_headers("alerting", again) == cloud_event_headers("alerting", EVENT)


def test_a_trace_goes_on_in_the_header() -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("batch") as span:
        headers = dict(cloud_event_headers("alerting", EVENT))
    assert headers["traceparent"].split("-")[1] == trace.format_trace_id(span.get_span_context().trace_id)


def test_keys_are_bytes_or_none() -> None:
    effects = Effects("alerting", None, NOW)  # type: ignore[arg-type]
    for key in ("straße", b"\xff", None):
        effects.emit(ALERTS, EVENT, key=key)
    assert [key for _, key, _, _ in effects._messages] == ["straße".encode(), b"\xff", None]
    topic, _, value, headers = effects._messages[0]
    assert topic == "alerts"
    assert value == b'{"key":"m\xc3\xbcnchen","n":7,"sequence":3}'
    assert json.loads(headers)[0] == ["ce_specversion", "1.0"]
