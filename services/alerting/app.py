"""The alerting service, put together."""

from __future__ import annotations

from services.alerting.handlers import alerting_handler
from services.alerting.settings import AlertingSettings
from services.alerting.store import PostgresStore
from shared.service import ServiceDefinition, run

DEFINITION = ServiceDefinition(name="alerting", handler_for=lambda _context: alerting_handler(PostgresStore()))


def main() -> None:
    """Run the service, as its environment says, until it is told to stop."""
    run(DEFINITION, AlertingSettings())
