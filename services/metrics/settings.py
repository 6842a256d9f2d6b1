"""Settings of the metrics service: those that every service has."""

from __future__ import annotations

from shared.settings import Settings


class MetricsSettings(Settings):
    """The metrics service needs nothing of its own; its clock and interval are the deployment's."""
