from __future__ import annotations

from types import SimpleNamespace

from aiokafka import TopicPartition
from opentelemetry.sdk.trace import TracerProvider

from shared.broker import _middlewares, _parse_raw
from shared.contracts.alerts import AlertTransition
from shared.effects import cloud_event_headers
from shared.reading import Fetched, Taken
from shared.settings import Settings
from tests.contracts.examples import EXAMPLES


def an_event() -> AlertTransition:
    event = next(one for one in EXAMPLES if one.contract is AlertTransition).decode()
    assert isinstance(event, AlertTransition)
    return event


def test_an_event_published_inside_a_span_carries_its_traceparent() -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("batch") as span:
        headers = dict(cloud_event_headers("alerting", an_event()))
    assert headers["traceparent"].split("-")[1] == f"{span.get_span_context().trace_id:032x}"


def test_without_a_trace_there_is_no_traceparent() -> None:
    assert "traceparent" not in dict(cloud_event_headers("alerting", an_event()))


async def test_a_batch_is_linked_to_the_traces_of_its_records_whatever_else_their_headers_hold() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    plain = [
        SimpleNamespace(value=b"{}", headers=headers)
        for headers in ([("traceparent", trace.encode()), ("other", b"\xff\xfe")], [("traceparent", b"\xff")], [])
    ]
    message = await _parse_raw(Fetched([Taken(TopicPartition("labels", 0), plain)]))
    assert message.batch_headers == [{"traceparent": trace}, {"traceparent": "\N{REPLACEMENT CHARACTER}"}]


def test_tracing_is_off_unless_asked_for() -> None:
    assert len(_middlewares(Settings())) == 1
    assert len(_middlewares(Settings(tracing=True))) == 2
