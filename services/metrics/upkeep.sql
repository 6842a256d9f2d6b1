-- What the metrics service does beside its input: it lets rows go with age, and holds its sums against the raw rows.

-- name: read_boundary
-- The newest boundary, and whether intake was behind when it was cut. Or is: a snapshot that was taken back from its topic
-- after a restore names offsets that the inbox has yet to reach again.
SELECT last_as_of, coalesce((
           SELECT bool_or((document ->> 'catching_up')::boolean OR EXISTS (
               SELECT FROM jsonb_each(document -> 'offsets') AS input (topic, partitions)
               CROSS JOIN jsonb_each_text(input.partitions) AS taken (partition, next_offset)
               LEFT JOIN inbox ON inbox.topic = input.topic AND inbox.partition = taken.partition::integer
               WHERE taken.next_offset::bigint > coalesce(inbox.next_offset, 0)
           ))
           FROM published_latest_snapshots
           WHERE as_of = to_timestamp(clock.last_as_of)
       ), false) AS catching_up
FROM clock

-- name: tell_predictions
-- Rows that were taken before there was a boundary, or by code that did not tell: at most $2, passing by what others hold.
UPDATE prediction SET kept_from = greatest(predicted_at, $1)
WHERE prediction_key IN (
    SELECT prediction_key FROM prediction WHERE kept_from IS NULL LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: tell_labels
UPDATE label SET kept_from = greatest(observed_at, $1)
WHERE entity_key IN (SELECT entity_key FROM label WHERE kept_from IS NULL LIMIT $2 FOR UPDATE SKIP LOCKED)

-- name: read_old_entities
-- Entities that have a row kept from before $1, the oldest first; about $2.
SELECT entity_key FROM (
    SELECT entity_key FROM prediction WHERE kept_from < $1 ORDER BY kept_from LIMIT $2
) AS predicted
UNION
SELECT entity_key FROM (SELECT entity_key FROM label WHERE kept_from < $1 ORDER BY kept_from LIMIT $2) AS labelled

-- name: read_rows_of_entities
SELECT * FROM prediction WHERE prediction_key = ANY($1::uuid[]) AND entity_key = prediction_key
UNION ALL
SELECT * FROM prediction WHERE entity_key = ANY($1::uuid[]) AND entity_key <> prediction_key

-- name: read_labels_of_entities
SELECT * FROM label WHERE entity_key = ANY($1::uuid[])

-- name: keep_predictions_longer
UPDATE prediction SET kept_from = longer.kept_from
FROM unnest($1::uuid[], $2::bigint[]) AS longer (prediction_key, kept_from)
WHERE prediction.prediction_key = longer.prediction_key

-- name: keep_labels_longer
UPDATE label SET kept_from = longer.kept_from
FROM unnest($1::uuid[], $2::bigint[]) AS longer (entity_key, kept_from)
WHERE label.entity_key = longer.entity_key

-- name: settle_label_buckets
-- Of the counts that stand in the buckets already, so many are of rows that go. The newest of them all is remembered.
UPDATE label_bucket
SET settled_entities = label_bucket.settled_entities + gone.entities,
    settled_labels = CASE
        WHEN label_bucket.settled_label_at IS NULL OR gone.label_at > label_bucket.settled_label_at THEN gone.labels
        WHEN gone.label_at = label_bucket.settled_label_at THEN label_bucket.settled_labels + gone.labels
        ELSE label_bucket.settled_labels
    END,
    settled_label_at = greatest(label_bucket.settled_label_at, gone.label_at)
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
    AS gone (model_id, start, entities, label_at, labels)
WHERE label_bucket.model_id = gone.model_id AND label_bucket.start = gone.start

-- name: settle_models
UPDATE model
SET removed_through = greatest(model.removed_through, gone.predicted_at),
    settled_new_labels = model.settled_new_labels + gone.new_labels
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS gone (model_id, predicted_at, new_labels)
WHERE model.model_id = gone.model_id

-- name: remove_predictions
WITH removed AS (DELETE FROM answer WHERE prediction_key = ANY($1::uuid[]))
DELETE FROM prediction WHERE prediction_key = ANY($1::uuid[])

-- name: remove_labels
WITH removed AS (DELETE FROM superseded_label WHERE entity_key = ANY($1::uuid[]))
DELETE FROM label WHERE entity_key = ANY($1::uuid[])

-- name: move_narrow_before
INSERT INTO retention (narrow_before) VALUES ($1)
ON CONFLICT (only_row) DO UPDATE SET narrow_before = excluded.narrow_before
WHERE retention.narrow_before < excluded.narrow_before

-- name: read_narrow_before
SELECT narrow_before FROM retention

-- name: read_models_with_narrow_buckets
-- Models that have buckets of the widths $1 from before $2: one look at the index a series and width.
SELECT DISTINCT series.model_id
FROM series CROSS JOIN unnest($1::integer[]) AS narrow (width)
WHERE EXISTS (
    SELECT FROM bucket
    WHERE bucket.series_id = series.series_id AND bucket.width = narrow.width AND bucket.start < $2
)

-- name: remove_narrow_buckets
-- At most $4 of model $3, with what they have in detail; the model must be locked.
WITH old AS MATERIALIZED (
    SELECT old.series_id, old.width, old.start
    FROM series CROSS JOIN unnest($1::integer[]) AS narrow (width)
    CROSS JOIN LATERAL (
        SELECT series_id, width, start FROM bucket
        WHERE bucket.series_id = series.series_id AND bucket.width = narrow.width AND bucket.start < $2
        ORDER BY start LIMIT $4
    ) AS old
    WHERE series.model_id = $3
    LIMIT $4
), details AS (
    DELETE FROM bucket_detail WHERE (series_id, width, start) IN (SELECT series_id, width, start FROM old)
)
DELETE FROM bucket WHERE (series_id, width, start) IN (SELECT series_id, width, start FROM old)

-- name: remove_pipeline_runs
-- Older than $1, except each model's newest success of before the newest boundary $2: freshness still counts from it.
DELETE FROM pipeline_run
WHERE (model, status, completed_at, pipeline) IN (
    SELECT run.model, run.status, run.completed_at, run.pipeline
    FROM pipeline_run AS run
    WHERE run.completed_at < $1
      AND (
          run.status <> 'success'
          OR run.completed_at < (
              SELECT max(newest.completed_at) FROM pipeline_run AS newest
              WHERE newest.model = run.model AND newest.status = 'success' AND newest.completed_at < $2
          )
      )
    LIMIT $3
)

-- name: remove_snapshots
-- At most $2, older than $1 before the model's newest, which stays.
DELETE FROM snapshot
WHERE (model, sequence) IN (
    SELECT old.model, old.sequence
    FROM latest_figures AS latest
    CROSS JOIN LATERAL (
        SELECT model, sequence, as_of FROM snapshot
        WHERE snapshot.model = latest.model AND snapshot.sequence < latest.sequence
        ORDER BY sequence LIMIT $2
    ) AS old
    WHERE old.as_of < latest.as_of - $1::interval
    LIMIT $2
)

-- name: say_summed_anew
UPDATE model SET summed_anew = summed_anew + 1 WHERE model_id = $1

-- name: claim_rebuild
-- Nothing when the sums were replaced since they were read.
UPDATE model SET summed_anew = summed_anew + 1 WHERE model_id = $1 AND summed_anew = $2 RETURNING model_id

-- name: count_raw_rows
-- Every model and how many predictions of it there are.
SELECT model.model_id, model.model, (
           SELECT count(*) FROM prediction
           WHERE version_id IN (SELECT version_id FROM version WHERE version.model_id = model.model_id)
       ) AS predictions
FROM model ORDER BY model.model COLLATE "C"

-- name: read_model
SELECT model_id, model, new_labels_after, new_labels, settled_new_labels, summed_anew FROM model WHERE model_id = $1

-- name: read_raw_rows
-- Entity by entity, so that each label is counted once a model.
SELECT prediction.*, label.observed_at, label.outcome_number, label.outcome_text, label.first_observed_at,
       label.entity_key IS NOT NULL AS labelled
FROM prediction LEFT JOIN label USING (entity_key)
WHERE prediction.version_id IN (SELECT version_id FROM version WHERE model_id = $1)
ORDER BY prediction.entity_key

-- name: read_series
SELECT version_id, segment FROM series WHERE model_id = $1

-- name: read_versions_of_model
SELECT version_id, version FROM version WHERE model_id = $1

-- name: read_buckets
-- Of the series $1, with what they have in detail; the parts of rows that are gone (width below 0) first.
SELECT series_id, width, start,
       coalesce(sums.predictions, 0) AS predictions, coalesce(sums.labelled, 0) AS labelled,
       coalesce(sums.evaluated, 0) AS evaluated, coalesce(sums.correct, 0) AS correct,
       coalesce(sums.positives, 0) AS positives, coalesce(sums.predicted_positives, 0) AS predicted_positives,
       coalesce(sums.squared_error, 0) AS squared_error, coalesce(sums.log_loss, 0) AS log_loss,
       coalesce(sums.histogram, '') AS histogram, detail.series_id IS NOT NULL AS detailed,
       coalesce(detail.error, 0) AS error, coalesce(detail.absolute_error, 0) AS absolute_error,
       coalesce(detail.squared_error, 0) AS detail_squared_error, coalesce(detail.classes, '') AS classes
FROM (SELECT * FROM bucket WHERE series_id = ANY($1::bigint[])) AS sums
FULL JOIN (SELECT * FROM bucket_detail WHERE series_id = ANY($1::bigint[])) AS detail USING (series_id, width, start)
ORDER BY width, series_id, start

-- name: read_label_buckets
SELECT start, labelled_entities, newest_label_at, newest_labels, settled_entities, settled_label_at, settled_labels
FROM label_bucket WHERE model_id = $1

-- name: empty_broken_histogram
-- Only while it still is what was read.
UPDATE bucket SET histogram = ''
WHERE series_id = $1 AND width = $2 AND start = $3 AND histogram = $4
RETURNING series_id

-- name: empty_broken_classes
UPDATE bucket_detail SET classes = ''
WHERE series_id = $1 AND width = $2 AND start = $3 AND classes = $4
RETURNING series_id

-- name: mend_label_buckets
INSERT INTO label_bucket (model_id, start, labelled_entities)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])
ON CONFLICT (model_id, start) DO UPDATE
SET labelled_entities = label_bucket.labelled_entities + excluded.labelled_entities
