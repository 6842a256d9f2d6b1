"""What the metrics service counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

PREDICTIONS_TOTAL = Counter(
    "trueward_predictions_total", "Predictions by verdict: new, duplicate, conflict, too_late.", ["verdict"]
)
LABELS_TOTAL = Counter(
    "trueward_labels_total", "Labels by verdict: first, corrected, duplicate, stale, too_late.", ["verdict"]
)
SNAPSHOTS_TOTAL = Counter("trueward_snapshots_total", "Snapshots made by this instance.")
LAST_AS_OF_SECONDS = Gauge("trueward_last_as_of_seconds", "as_of of the newest boundary, seconds since 1970.")
TOO_LATE_TOTAL = Counter(
    "trueward_too_late_total",
    "What came beyond a horizon. label: a prediction whose label lies beyond the label horizon; correction: a "
    "label beyond the correction horizon; retention: an event whose like may have been removed.",
    ["horizon"],
)
REMOVED_ROWS_TOTAL = Counter(
    "trueward_removed_rows_total",
    "Rows that retention removed: predictions, unlabelled_predictions among them, labels, unmatched_labels among "
    "them, buckets, label_buckets, pipeline_runs, snapshots.",
    ["kind"],
)
