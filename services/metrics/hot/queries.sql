-- name: look
-- What anybody but the transactions $2 has changed since the snapshot $1 (null: never looked), and whether that is all:
-- told apart from another server, another table and a log that was removed in between. One snapshot sees it all. The
-- transaction $3 (null: it had no number) took that snapshot, which may count its changes among those that it saw.
WITH since AS (
    SELECT $1::text::pg_snapshot AS snapshot
), changed AS (
    SELECT keys FROM changed_keys, since
    WHERE (
          writer >= pg_snapshot_xmin(since.snapshot) AND NOT pg_visible_in_snapshot(writer, since.snapshot)
          OR writer = $3::text::xid8
      )
      AND writer <> ALL ($2::text[]::xid8[])
)
SELECT pg_current_snapshot()::text AS snapshot,
       pg_current_xact_id_if_assigned()::text AS transaction,
       concat_ws(
           ' ', pg_postmaster_start_time(), (SELECT oid FROM pg_database WHERE datname = current_database()),
           'prediction'::regclass::oid, 'label'::regclass::oid
       ) AS store,
       NOT EXISTS (SELECT FROM changed_keys_removed, since WHERE through >= pg_snapshot_xmin(since.snapshot)) AS is_complete,
       (SELECT count(*) FROM changed WHERE keys IS NULL) > 0 AS anything_changed,
       (SELECT string_agg(keys, ''::bytea) FROM changed) AS keys

-- name: estimate_keys
SELECT sum(greatest(reltuples, 0))::bigint FROM pg_class WHERE oid IN ('prediction'::regclass, 'label'::regclass)

-- name: read_every_key
-- Of COPY.
SELECT prediction_key FROM prediction
UNION ALL
SELECT entity_key FROM prediction WHERE entity_key <> prediction_key
UNION ALL
SELECT entity_key FROM label

-- name: remove_old_changes
WITH removed AS (
    -- Of transactions that every snapshot from now on has seen: else who looks later could not be sure either.
    DELETE FROM changed_keys
    WHERE changed_at < now() - $1::interval AND writer < pg_snapshot_xmin(pg_current_snapshot())
    RETURNING writer
), newest AS (
    -- There is no max() of these numbers.
    SELECT writer FROM removed ORDER BY writer DESC LIMIT 1
)
INSERT INTO changed_keys_removed (through) SELECT writer FROM newest
ON CONFLICT (only_row) DO UPDATE SET through = greatest(changed_keys_removed.through, excluded.through)

-- name: read_predictions
-- Whatever has one of the keys as its own, or is about an entity that has.
SELECT prediction_key, entity_key, version_id, segment_id, predicted_at, content_hash, probability,
       predicted_positive, squared_error_if_negative, squared_error_if_positive,
       log_loss_if_negative, log_loss_if_positive
FROM prediction WHERE prediction_key = ANY($1::uuid[])
UNION ALL
SELECT prediction_key, entity_key, version_id, segment_id, predicted_at, content_hash, probability,
       predicted_positive, squared_error_if_negative, squared_error_if_positive,
       log_loss_if_negative, log_loss_if_positive
FROM prediction WHERE entity_key = ANY($1::uuid[]) AND entity_key <> prediction_key
