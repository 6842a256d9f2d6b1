"""What the metrics service counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

PREDICTIONS_TOTAL = Counter(
    "trueward_predictions_total", "Predictions by verdict: new, duplicate, conflict.", ["verdict"]
)
LABELS_TOTAL = Counter(
    "trueward_labels_total", "Labels by verdict: first, corrected, duplicate, stale.", ["verdict"]
)
SNAPSHOTS_TOTAL = Counter("trueward_snapshots_total", "Snapshots made by this instance.")
LAST_AS_OF_SECONDS = Gauge("trueward_last_as_of_seconds", "as_of of the newest boundary, seconds since 1970.")
