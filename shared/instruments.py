"""What every service counts, for its ``/metrics``."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECORDS_TOTAL = Counter("trueward_records_total", "Records taken in, once each.", ["topic"])
REPEATS_TOTAL = Counter("trueward_repeats_total", "Records dropped because they were taken before.", ["topic"])
DEAD_LETTERS_TOTAL = Counter("trueward_dead_letters_total", "Records refused.", ["reason"])
UNKNOWN_FIELDS_TOTAL = Counter("trueward_unknown_fields_total", "Fields that no contract knows.", ["topic"])
LOST_RECORDS_TOTAL = Counter("trueward_lost_records_total", "Records that retention removed unread.", ["topic"])
BATCH_SECONDS = Histogram("trueward_batch_seconds", "Time from fetched to durable, per batch.")
RETRIES_TOTAL = Counter("trueward_retries_total", "Batches tried again after a fault.", ["fault"])
PUBLISHED_TOTAL = Counter("trueward_published_total", "Events that the relay published.", ["topic"])
BREAKER_TRIPPED = Gauge(
    "trueward_breaker_tripped", "1 where a flood of dead letters has stopped the intake; read at each look."
)
RELAY_LEADER = Gauge("trueward_relay_leader", "1 where this instance publishes the outbox.")
