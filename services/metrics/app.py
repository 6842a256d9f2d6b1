"""The metrics service: joins, sums and snapshots."""

from __future__ import annotations

from functools import partial

from services.metrics.clocks import horizons_of, interval_of, run_clock
from services.metrics.handlers import make_handler, prepared
from services.metrics.hot.memory import know_every_key, memory_of, remember
from services.metrics.retention import keep_within_bounds
from services.metrics.settings import MetricsSettings
from shared.effects import Handler, Prepare
from shared.service import Context, ServiceDefinition, run


def _handler_for(context: Context) -> Handler:
    settings = context.settings
    return make_handler(settings.clock, interval_of(settings), horizons_of(settings), memory_of(context))


def _prepare_for(context: Context) -> Prepare:
    return partial(prepared, memory=memory_of(context))


DEFINITION = ServiceDefinition(
    name="metrics",
    handler_for=_handler_for,
    prepare_for=_prepare_for,
    keys_meet=True,
    first={"the keys of what is stored to be read": know_every_key},
    background=(run_clock, keep_within_bounds, remember),
)


def main() -> None:
    """Run the service in this process."""
    run(DEFINITION, MetricsSettings())
