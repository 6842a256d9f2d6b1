"""What the gateway is told by its deployment, beside what every service is told."""

from __future__ import annotations

from pydantic import Field

from shared.settings import Settings

MEBIBYTE = 1024 * 1024


class GatewaySettings(Settings):
    """Settings of the gateway."""

    metrics_url: str | None = Field(
        None, description="Where the metrics service answers HTTP; without it its readiness is unknown."
    )
    alerting_url: str | None = Field(None, description="Where the alerting service answers HTTP.")
    retrain_url: str | None = Field(None, description="Where the retrain service answers HTTP.")
    decision_wait_seconds: float = Field(
        5.0, ge=0, le=60, description="How long an executed policy's decision is waited for before a 202."
    )
    database_wait_seconds: float = Field(
        3.0, gt=0, le=60, description="How long a request waits for PostgreSQL before a 503."
    )
    kafka_wait_seconds: float = Field(
        3.0, gt=0, le=60, description="How long a request waits for the broker before it counts as away."
    )
    kept_answers_bytes: int = Field(
        64 * MEBIBYTE,
        ge=0,
        description="Most memory for answers that are kept, the least lately used going first; 0 keeps none.",
    )
    ingest_body_bytes: int = Field(16 * MEBIBYTE, gt=0, description="Largest body of events taken over HTTP.")
    ingest_bytes_in_flight: int = Field(
        64 * MEBIBYTE, gt=0, description="Most bytes of events held at once; more is answered by a 429."
    )
    ingest_requests_in_flight: int = Field(
        32, gt=0, description="Most requests with events held at once; more are answered by a 429."
    )
    ingest_wait_seconds: float = Field(
        10.0,
        gt=0,
        le=300,
        description="How long the broker's acknowledgement of events is waited for before a 503.",
    )

    def service_urls(self) -> dict[str, str | None]:
        """Where each consuming service answers HTTP, by the service's name."""
        return {"metrics": self.metrics_url, "alerting": self.alerting_url, "retrain": self.retrain_url}
