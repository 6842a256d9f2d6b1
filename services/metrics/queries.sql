-- name: lock_entity_shards
-- Both halves of a join lock the same shard, in ascending order, before they look for each other.
SELECT pg_advisory_xact_lock(1, shard) FROM unnest($1::integer[]) AS shard

-- name: lock_model_shards
-- After the entities' shards, always: buckets and counters of a model change under one lock.
SELECT pg_advisory_xact_lock(2, shard) FROM unnest($1::integer[]) AS shard

-- name: read_clock
SELECT clock, interval_seconds, bucket_seconds, label_horizon_seconds, correction_horizon_seconds,
       last_as_of, next_boundary
FROM clock

-- name: lock_clock
SELECT clock, interval_seconds, bucket_seconds, last_as_of, next_boundary FROM clock FOR UPDATE

-- name: start_clock
INSERT INTO clock (clock, interval_seconds, bucket_seconds) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING

-- name: start_horizons
UPDATE clock SET label_horizon_seconds = $1, correction_horizon_seconds = $2 WHERE label_horizon_seconds IS NULL

-- name: change_interval
UPDATE clock SET interval_seconds = $1

-- name: move_clock
-- And wake whoever waits for the boundary, on channel $1.
WITH moved AS (UPDATE clock SET last_as_of = $2, next_boundary = $3) SELECT pg_notify($1, '')

-- name: set_first_boundary
UPDATE clock SET next_boundary = $1 WHERE next_boundary IS NULL

-- name: reach
-- Says which partitions have moved; reading a held record again moves nothing.
INSERT INTO partition_time (topic, partition, reached_at)
SELECT topic, partition, reached_at
FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS held (topic, partition, reached_at)
ON CONFLICT (topic, partition) DO UPDATE SET reached_at = excluded.reached_at
WHERE partition_time.reached_at IS DISTINCT FROM excluded.reached_at
RETURNING topic

-- name: expect_partitions
INSERT INTO partition_time (topic, partition)
SELECT topic, partition FROM unnest($1::text[], $2::integer[]) AS there (topic, partition)
ON CONFLICT DO NOTHING

-- name: read_partition_times
SELECT topic, partition, reached_at FROM partition_time

-- name: add_versions
INSERT INTO version (version_id, model_id, version, kind)
SELECT version_id, model_id, version, kind
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) AS seen (version_id, model_id, version, kind)
WHERE NOT EXISTS (SELECT FROM version WHERE version.version_id = seen.version_id)
ON CONFLICT DO NOTHING

-- name: add_models
INSERT INTO model (model_id, model)
SELECT model_id, model FROM unnest($1::bigint[], $2::text[]) AS seen (model_id, model)
WHERE NOT EXISTS (SELECT FROM model WHERE model.model_id = seen.model_id)
ON CONFLICT DO NOTHING

-- name: add_segments
INSERT INTO segment (segment_id, names)
SELECT segment_id, names::jsonb FROM unnest($1::bigint[], $2::text[]) AS seen (segment_id, names)
WHERE NOT EXISTS (SELECT FROM segment WHERE segment.segment_id = seen.segment_id)
ON CONFLICT DO NOTHING

-- name: add_series
INSERT INTO series (series_id, model_id, version_id, segment)
SELECT series_id, model_id, version_id, segment
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS seen (series_id, model_id, version_id, segment)
WHERE NOT EXISTS (SELECT FROM series WHERE series.series_id = seen.series_id)
ON CONFLICT DO NOTHING

-- name: read_versions
SELECT version_id, model_id, kind FROM version WHERE version_id = ANY($1::bigint[])

-- name: read_versions_of_model
SELECT version_id, kind FROM version WHERE model_id = $1

-- name: read_segments
SELECT segment_id, names FROM segment WHERE segment_id = ANY($1::bigint[])

-- name: read_segment_policies
-- The segments that the newest received policy of each model declares.
SELECT model.model_id, policy.document -> 'segments' AS segments
FROM model
CROSS JOIN LATERAL (
    SELECT document FROM policy_event WHERE policy_event.model = model.model
    ORDER BY received_at DESC, partition DESC, "offset" DESC LIMIT 1
) AS policy
WHERE model.model_id = ANY($1::bigint[])

-- name: read_content_hashes
SELECT prediction_key, content_hash FROM prediction WHERE prediction_key = ANY($1::uuid[])

-- name: read_predictions_of_entities
SELECT prediction_key, entity_key, version_id, segment_id, predicted_at, content_hash, probability,
       predicted_positive, squared_error_if_negative, squared_error_if_positive,
       log_loss_if_negative, log_loss_if_positive
FROM prediction WHERE prediction_key = ANY($1::uuid[]) AND entity_key = prediction_key
UNION ALL
SELECT prediction_key, entity_key, version_id, segment_id, predicted_at, content_hash, probability,
       predicted_positive, squared_error_if_negative, squared_error_if_positive,
       log_loss_if_negative, log_loss_if_positive
FROM prediction WHERE entity_key = ANY($1::uuid[]) AND entity_key <> prediction_key

-- name: read_labels
SELECT entity_key, observed_at, outcome_number, outcome_text, first_observed_at FROM label WHERE entity_key = ANY($1::uuid[])

-- name: read_superseded_labels
SELECT entity_key, observed_at, outcome_number, outcome_text FROM superseded_label WHERE entity_key = ANY($1::uuid[])

-- name: remember_superseded
INSERT INTO superseded_label (entity_key, observed_at, outcome_number, outcome_text)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::double precision[], $4::text[])
ON CONFLICT DO NOTHING

-- name: save_labels
INSERT INTO label (entity_key, observed_at, outcome_number, outcome_text, first_observed_at, kept_from)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::double precision[], $4::text[], $5::bigint[], $6::bigint[])
ON CONFLICT (entity_key) DO UPDATE
SET observed_at = excluded.observed_at,
    outcome_number = excluded.outcome_number,
    outcome_text = excluded.outcome_text,
    first_observed_at = excluded.first_observed_at,
    kept_from = excluded.kept_from

-- name: read_removed_through
-- Of models $1 that have any; and, with no model, the newest of all.
SELECT model_id, removed_through FROM model WHERE removed_through IS NOT NULL AND model_id = ANY($1::bigint[])
UNION ALL
SELECT NULL, max(removed_through) FROM model

-- name: read_histograms
SELECT series_id, width, start, histogram
FROM bucket JOIN unnest($1::bigint[], $2::integer[], $3::bigint[]) AS touched (series_id, width, start)
    USING (series_id, width, start)

-- name: add_to_buckets
INSERT INTO bucket (series_id, width, start, predictions, labelled, evaluated, correct, positives,
                    predicted_positives, squared_error, log_loss, histogram)
SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                     $7::bigint[], $8::bigint[], $9::bigint[], $10::numeric[], $11::numeric[], $12::bytea[])
ON CONFLICT (series_id, width, start) DO UPDATE
SET predictions = bucket.predictions + excluded.predictions,
    labelled = bucket.labelled + excluded.labelled,
    evaluated = bucket.evaluated + excluded.evaluated,
    correct = bucket.correct + excluded.correct,
    positives = bucket.positives + excluded.positives,
    predicted_positives = bucket.predicted_positives + excluded.predicted_positives,
    squared_error = bucket.squared_error + excluded.squared_error,
    log_loss = bucket.log_loss + excluded.log_loss,
    histogram = excluded.histogram

-- name: read_newest_labels
SELECT model_id, start, newest_label_at, newest_labels
FROM label_bucket JOIN unnest($1::bigint[], $2::bigint[]) AS touched (model_id, start) USING (model_id, start)

-- name: add_to_label_buckets
INSERT INTO label_bucket (model_id, start, labelled_entities, newest_data_at, newest_label_at, newest_labels)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
ON CONFLICT (model_id, start) DO UPDATE
SET labelled_entities = label_bucket.labelled_entities + excluded.labelled_entities,
    newest_data_at = greatest(label_bucket.newest_data_at, excluded.newest_data_at),
    newest_label_at = excluded.newest_label_at,
    newest_labels = excluded.newest_labels

-- name: look_up_newest_labels
-- Only when a correction took the last label of a bucket's newest moment away. Labels that are gone count too.
UPDATE label_bucket
SET (newest_label_at, newest_labels) = (
    SELECT known.observed_at, sum(known.labels)::bigint
    FROM (
        SELECT label.observed_at, 1 AS labels FROM label
        WHERE label.observed_at >= label_bucket.start * 1000000
          AND label.observed_at < (label_bucket.start + $3) * 1000000
          AND (
              SELECT true FROM predicted_entity JOIN version USING (version_id)
              WHERE predicted_entity.entity_key = label.entity_key AND version.model_id = label_bucket.model_id
                AND abs(predicted_entity.predicted_at - coalesce(label.first_observed_at, label.observed_at)) <= $4
              LIMIT 1
          )
        UNION ALL
        SELECT label_bucket.settled_label_at, label_bucket.settled_labels
        WHERE label_bucket.settled_label_at IS NOT NULL
    ) AS known
    GROUP BY known.observed_at ORDER BY known.observed_at DESC LIMIT 1
)
FROM unnest($1::bigint[], $2::bigint[]) AS lost (model_id, start)
WHERE label_bucket.model_id = lost.model_id AND label_bucket.start = lost.start

-- name: read_new_label_limits
SELECT model_id, new_labels_after FROM model WHERE model_id = ANY($1::bigint[])

-- name: add_new_labels
UPDATE model SET new_labels = model.new_labels + change.new_labels
FROM unnest($1::bigint[], $2::bigint[]) AS change (model_id, new_labels)
WHERE model.model_id = change.model_id

-- name: add_pipeline_runs
INSERT INTO pipeline_run (pipeline, model, completed_at, status)
SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
ON CONFLICT DO NOTHING

-- name: add_version_events
-- Two events of one version, stage and time: the greater document stands, whichever came first.
INSERT INTO model_version_event (model, version, stage, stage_since, document)
SELECT DISTINCT ON (model, version, stage, stage_since) model, version, stage, stage_since, document::jsonb
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
    AS said (model, version, stage, stage_since, document)
ORDER BY model, version, stage, stage_since, document::jsonb DESC
ON CONFLICT (model, version, stage, stage_since) DO UPDATE SET document = excluded.document
WHERE excluded.document > model_version_event.document

-- name: add_policies
INSERT INTO policy_event (model, partition, "offset", received_at, effective_at, policy_sha256, document)
SELECT model, partition, "offset", received_at, effective_at, policy_sha256, document::jsonb
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::timestamptz[], $5::bigint[], $6::text[], $7::text[])
    AS said (model, partition, "offset", received_at, effective_at, policy_sha256, document)
ON CONFLICT (model, partition, "offset") DO UPDATE
SET received_at = excluded.received_at, effective_at = excluded.effective_at,
    policy_sha256 = excluded.policy_sha256, document = excluded.document

-- name: remove_segment_buckets
WITH gone AS (
    DELETE FROM bucket_detail USING series
    WHERE bucket_detail.series_id = series.series_id AND series.model_id = $1 AND series.segment <> ''
      AND bucket_detail.width > 0
)
DELETE FROM bucket USING series
WHERE bucket.series_id = series.series_id AND series.model_id = $1 AND series.segment <> '' AND bucket.width > 0

-- name: restore_settled_segment_buckets
-- What raw rows that are gone have contributed to the segments of dimensions $2; the row as it is, but of a day's width.
WITH declared AS (
    SELECT series_id FROM series
    WHERE model_id = $1
      AND EXISTS (SELECT FROM unnest($2::text[]) AS dimension WHERE starts_with(series.segment, dimension || ':'))
), details AS (
    INSERT INTO bucket_detail
    SELECT (jsonb_populate_record(detail, jsonb_build_object('width', -detail.width))).*
    FROM bucket_detail AS detail JOIN declared USING (series_id) WHERE detail.width < 0
)
INSERT INTO bucket
SELECT (jsonb_populate_record(bucket, jsonb_build_object('width', -bucket.width))).*
FROM bucket JOIN declared USING (series_id) WHERE bucket.width < 0

-- name: read_predictions_of_model
-- Only for a change of the declared segments: reads the model's raw rows.
SELECT prediction.*, label.observed_at, label.outcome_number, label.outcome_text, label.first_observed_at,
       label.entity_key IS NOT NULL AS labelled
FROM prediction LEFT JOIN label USING (entity_key)
WHERE prediction.version_id IN (SELECT version_id FROM version WHERE model_id = $1)

-- name: read_counted_champions
SELECT model_id, model, champion_version, new_labels_after FROM model

-- name: read_models_for_snapshot
-- $1: as_of in seconds since 1970. Labels observed at or after it are not new yet; newest_data_at and newest_run_at
-- are the newest moments before it, of runs those that concern every model too.
SELECT model.model_id, model.model, model.champion_version, model.new_labels_after,
       greatest(0, model.new_labels - coalesce(late.entities, 0))::bigint AS new_labels,
       coalesce(latest.sequence, 0) AS last_sequence, coalesce(counted.series, 0) AS series,
       newest.moment AS newest_data_at, greatest(own_run.completed_at, any_run.completed_at) AS newest_run_at
FROM model
LEFT JOIN latest_figures AS latest USING (model)
LEFT JOIN (SELECT model_id, count(*) AS series FROM series GROUP BY model_id) AS counted USING (model_id)
CROSS JOIN LATERAL (
    SELECT sum(labelled_entities) AS entities FROM label_bucket
    WHERE label_bucket.model_id = model.model_id AND start >= $1
) AS late
LEFT JOIN LATERAL (
    SELECT greatest(newest_data_at, newest_label_at) AS moment FROM label_bucket
    WHERE label_bucket.model_id = model.model_id AND start < $1
      AND (newest_data_at IS NOT NULL OR newest_label_at IS NOT NULL)
    ORDER BY start DESC LIMIT 1
) AS newest ON true
LEFT JOIN LATERAL (
    SELECT completed_at FROM pipeline_run
    WHERE pipeline_run.model = model.model AND status = 'success' AND completed_at < $1 * 1000000
    ORDER BY completed_at DESC LIMIT 1
) AS own_run ON true
LEFT JOIN (
    SELECT max(completed_at) AS completed_at FROM pipeline_run
    WHERE model = '' AND status = 'success' AND completed_at < $1 * 1000000
) AS any_run ON true
ORDER BY model.model

-- name: read_version_events
SELECT model, version, stage, stage_since, document FROM model_version_event

-- name: read_policy_events
SELECT model, effective_at, document FROM policy_event ORDER BY received_at, partition, "offset"

-- name: read_predicting_versions
SELECT model_id, version_id, version, kind FROM version

-- name: adopt_champion
-- Counts afresh: buckets behind the limit's, and of its own bucket the entities observed after the limit.
UPDATE model
SET champion_version = $2,
    new_labels_after = $3,
    summed_anew = model.summed_anew + 1,
    settled_new_labels = (
        SELECT coalesce(sum(settled_entities), 0) FROM label_bucket
        WHERE label_bucket.model_id = $1 AND ($4::bigint IS NULL OR label_bucket.start >= $4 + $5)
    ),
    new_labels = (
        SELECT coalesce(sum(labelled_entities), 0) FROM label_bucket
        WHERE label_bucket.model_id = $1 AND ($4::bigint IS NULL OR label_bucket.start >= $4 + $5)
    ) + (
        SELECT count(*) FROM label
        WHERE label.observed_at > $3 AND label.observed_at < ($4 + $5) * 1000000
          AND (label.outcome_number IS NOT NULL OR label.outcome_text IS NOT NULL)
          -- LIMIT keeps the planner from joining all predictions: the labels are few, and looked up one by one.
          AND (
              SELECT true FROM predicted_entity JOIN version USING (version_id)
              WHERE predicted_entity.entity_key = label.entity_key AND version.model_id = $1
                AND abs(predicted_entity.predicted_at - coalesce(label.first_observed_at, label.observed_at)) <= $6
              LIMIT 1
          )
    )
WHERE model_id = $1

-- name: read_totals
-- Of models $5, one row a series and window: the sums of the window's tiles. The histograms are added up by the caller.
-- Each tile is summed by itself, so that it is a range of the primary key however large the table has grown.
SELECT series.model_id, series.version_id, series.segment, tile.time_window,
       sum(sums.predictions)::bigint AS predictions, sum(sums.labelled)::bigint AS labelled,
       sum(sums.evaluated)::bigint AS evaluated, sum(sums.correct)::bigint AS correct,
       sum(sums.positives)::bigint AS positives, sum(sums.predicted_positives)::bigint AS predicted_positives,
       sum(sums.squared_error)::text AS squared_error, sum(sums.log_loss)::text AS log_loss,
       string_agg(sums.histograms, ''::bytea) AS histograms
FROM series
CROSS JOIN unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[]) AS tile (time_window, width, since, until)
CROSS JOIN LATERAL (
    SELECT sum(predictions) AS predictions, sum(labelled) AS labelled, sum(evaluated) AS evaluated,
           sum(correct) AS correct, sum(positives) AS positives, sum(predicted_positives) AS predicted_positives,
           sum(squared_error) AS squared_error, sum(log_loss) AS log_loss,
           string_agg(histogram, ''::bytea) AS histograms
    FROM bucket
    WHERE bucket.series_id = series.series_id AND bucket.width = tile.width
      AND bucket.start >= tile.since AND bucket.start < tile.until
) AS sums
WHERE series.model_id = ANY($5::bigint[])
GROUP BY series.model_id, series.version_id, series.segment, tile.time_window
-- What came and went again leaves buckets of zeros; they must say no more than buckets that never were.
HAVING sum(sums.predictions) > 0 OR sum(sums.evaluated) > 0

-- name: read_offsets
SELECT topic, partition, next_offset, log_end_offset, received_at FROM inbox ORDER BY topic, partition

-- name: save_snapshots
WITH made AS (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[], $5::text[], $6::text[])
        AS made (model, sequence, snapshot_id, as_of, document, figures)
), kept AS (
    INSERT INTO snapshot (model, sequence, snapshot_id, as_of, document)
    SELECT model, sequence, snapshot_id, as_of, document::jsonb FROM made
)
INSERT INTO latest_figures (model, sequence, snapshot_id, as_of, figures)
SELECT model, sequence, snapshot_id, as_of, figures::jsonb FROM made
ON CONFLICT (model) DO UPDATE
SET sequence = excluded.sequence, snapshot_id = excluded.snapshot_id, as_of = excluded.as_of,
    figures = excluded.figures

-- name: read_last_as_of
SELECT last_as_of FROM clock

-- name: read_latest_sequences
SELECT model, sequence FROM latest_figures

-- name: take_snapshots_back
INSERT INTO snapshot (model, sequence, snapshot_id, as_of, document)
SELECT model, sequence, snapshot_id, as_of, document::jsonb
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[], $5::text[])
    AS published (model, sequence, snapshot_id, as_of, document)

-- name: resume_sequences
-- The next snapshot has the next number. Its figures for other windows are known again with it.
INSERT INTO latest_figures (model, sequence, snapshot_id, as_of, figures)
SELECT model, sequence, snapshot_id, as_of, '[]'::jsonb
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[]) AS newest (model, sequence, snapshot_id, as_of)
ON CONFLICT (model) DO UPDATE
SET sequence = excluded.sequence, snapshot_id = excluded.snapshot_id, as_of = excluded.as_of

-- name: resume_clock
UPDATE clock SET last_as_of = greatest(coalesce(last_as_of, $1), $1)
