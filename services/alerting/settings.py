"""What the alerting service is told by its deployment: nothing beside what every service is told.

Thresholds are no settings: they come with each snapshot, in the model's policy.
"""

from __future__ import annotations

from shared.settings import Settings


class AlertingSettings(Settings):
    """Settings of the alerting service."""
