"""The retrain service, put together."""

from __future__ import annotations

from services.retrain.handlers import retrain_handler
from services.retrain.settings import RetrainSettings
from services.retrain.store import PostgresStore
from services.retrain.upkeep import expire_leases, remove_old
from shared.service import ServiceDefinition, run

DEFINITION = ServiceDefinition(
    name="retrain",
    handler_for=lambda _context: retrain_handler(PostgresStore()),
    background=(expire_leases, remove_old),
)


def main() -> None:
    """Run the service, as its environment says, until it is told to stop."""
    run(DEFINITION, RetrainSettings())
