"""OpenTelemetry: a tracer for the process, so that traces go on from topic to topic."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider


def begin(service: str) -> None:
    """Have spans recorded and carried on, unless ``opentelemetry-instrument`` has set that up already."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        name = {SERVICE_NAME: f"trueward-{service}"}
        trace.set_tracer_provider(TracerProvider(resource=Resource.create(name)))
