-- depends: 0005_kinds

-- Horizons, and what it takes to let raw rows go with age. Old code runs beside it: it gives none of these columns, and
-- null says "not told".
ALTER TABLE metrics.clock
    ADD COLUMN label_horizon_seconds bigint,
    ADD COLUMN correction_horizon_seconds bigint;
COMMENT ON COLUMN metrics.clock.label_horizon_seconds IS
    'The horizons that the sums were begun with; sums of others could not be corrected.';

ALTER TABLE metrics.prediction ADD COLUMN kept_from bigint;
COMMENT ON COLUMN metrics.prediction.kept_from IS
    'Retention counts from here, in microseconds since 1970: its own time, or the newest boundary when it was taken, whichever is later. Null: the next pass tells.';
CREATE INDEX prediction_by_age ON metrics.prediction (kept_from);

ALTER TABLE metrics.label
    ADD COLUMN kept_from bigint,
    ADD COLUMN first_observed_at bigint;
COMMENT ON COLUMN metrics.label.first_observed_at IS
    'When the first of the entity''s labels was observed, in microseconds since 1970; null: the winning one was the first.';
CREATE INDEX label_by_age ON metrics.label (kept_from);

CREATE TABLE metrics.superseded_label (
    entity_key uuid NOT NULL,
    observed_at bigint NOT NULL,
    outcome_number double precision,
    outcome_text text,
    UNIQUE NULLS NOT DISTINCT (entity_key, observed_at, outcome_number, outcome_text)
);
COMMENT ON TABLE metrics.superseded_label IS
    'Labels that stood or were stale: one counts again where an earlier first label puts the winning one beyond the correction horizon.';

ALTER TABLE metrics.model
    ADD COLUMN removed_through bigint,
    ADD COLUMN settled_new_labels bigint NOT NULL DEFAULT 0,
    ADD COLUMN summed_anew bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN metrics.model.summed_anew IS
    'How often sums or counts of the model were replaced, not added to: a rebuild that meanwhile read them begins again.';
COMMENT ON COLUMN metrics.model.settled_new_labels IS 'Of new_labels, those whose raw rows are gone.';
COMMENT ON COLUMN metrics.model.removed_through IS
    'The newest predicted_at (microseconds since 1970) of the raw rows that retention removed; null: none.';

-- What raw rows that are gone have contributed: a day's bucket is this and the sum of its raw rows.
COMMENT ON COLUMN metrics.bucket.width IS
    'Seconds. Minus a day: the part of the day''s bucket whose raw rows retention has removed; no window reads it.';
COMMENT ON COLUMN metrics.bucket_detail.width IS 'As of bucket: minus a day is what raw rows that are gone have contributed.';

ALTER TABLE metrics.label_bucket
    ADD COLUMN settled_entities bigint NOT NULL DEFAULT 0,
    ADD COLUMN settled_label_at bigint,
    ADD COLUMN settled_labels bigint;
COMMENT ON COLUMN metrics.label_bucket.settled_entities IS 'Of labelled_entities, those whose raw rows are gone.';
COMMENT ON COLUMN metrics.label_bucket.settled_label_at IS
    'The newest observed_at of the labels that are gone, and settled_labels how many had it.';

CREATE TABLE metrics.retention (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    narrow_before bigint NOT NULL
);
COMMENT ON COLUMN metrics.retention.narrow_before IS
    'Buckets below a day''s width that start before this (seconds since 1970, a midnight) are gone, or go: no window reaches them.';

CREATE OR REPLACE VIEW metrics.predicted_entity AS
    SELECT prediction_key AS entity_key, version_id, predicted_at
    FROM metrics.prediction WHERE entity_key = prediction_key
    UNION ALL
    SELECT entity_key, version_id, predicted_at FROM metrics.prediction WHERE entity_key <> prediction_key;

GRANT SELECT, INSERT, UPDATE, DELETE ON
    metrics.superseded_label, metrics.retention TO trueward_metrics;
