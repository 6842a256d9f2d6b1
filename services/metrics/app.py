"""The metrics service: joins, sums and snapshots."""

from __future__ import annotations

from services.metrics.clocks import interval_of, run_clock
from services.metrics.handlers import make_handler
from services.metrics.settings import MetricsSettings
from shared.effects import Handler
from shared.service import Context, ServiceDefinition, run


def _handler_for(context: Context) -> Handler:
    return make_handler(context.settings.clock, interval_of(context.settings))


DEFINITION = ServiceDefinition(name="metrics", handler_for=_handler_for, background=(run_clock,))


def main() -> None:
    """Run the service in this process."""
    run(DEFINITION, MetricsSettings())
