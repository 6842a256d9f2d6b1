-- What the gateway asks of the views that the services publish. One statement an answer: everything in it is of
-- one moment. Documents leave as text: they are read by their contracts.

-- name: ping
-- Names what it reads of every service, so that a database that is not migrated is told from one that is.
SELECT 1 FROM metrics.published_inbox, alerting.published_inbox, retrain.published_inbox LIMIT 0

-- name: monitoring
-- $1 model, $2 version ('' for all together, null for the default), $3 segment ('' for everything), $4 window or null.
WITH known AS (
    SELECT models.model, models.versions, models.unregistered_versions, models.policy, models.policy_sha256,
           snapshots.document AS snapshot,
           coalesce($2::text, snapshots.document -> 'champion' ->> 'version', '') AS version,
           coalesce($4::text, snapshots.document ->> 'window', models.policy ->> 'window') AS time_window
    FROM metrics.published_models AS models
    LEFT JOIN metrics.published_latest_snapshots AS snapshots USING (model)
    WHERE models.model = $1
)
SELECT known.model, known.version, known.time_window, known.policy::text, known.policy_sha256,
       known.snapshot::text, figures.metrics::text AS figures,
       EXISTS (
           SELECT FROM jsonb_array_elements(known.versions) AS registered
           WHERE registered ->> 'version' = known.version
       ) OR known.unregistered_versions ? known.version AS version_is_known,
       states.state, states.snapshot_sequence AS judged_sequence, states.as_of AS judged_as_of,
       states.evaluations::text,
       coalesce(
           (SELECT jsonb_agg(to_jsonb(alerts) - 'model' ORDER BY alerts.alert_id)
            FROM alerting.published_alerts AS alerts WHERE alerts.model = known.model), '[]'
       )::text AS alerts
FROM known
LEFT JOIN metrics.published_figures AS figures
       ON figures.model = known.model AND figures.version = known.version
      AND figures.segment = $3 AND figures.time_window = known.time_window
LEFT JOIN alerting.published_states AS states ON states.model = known.model

-- name: newest_snapshot
-- A row for every known model; as_of is null before its first snapshot.
SELECT models.model, snapshots.as_of
FROM metrics.published_models AS models
LEFT JOIN metrics.published_latest_snapshots AS snapshots USING (model)
WHERE models.model = $1

-- name: trend
-- $1 model, $2 points after this moment, $3 points below this sequence, $4 how many. A model's moments grow with its
-- sequence, so what is too old among the newest so many is followed by nothing but older ones: no more are looked at.
SELECT jsonb_build_object(
           'snapshot_id', snapshot_id, 'snapshot_sequence', sequence, 'as_of', document -> 'as_of',
           'version', coalesce(document -> 'champion' ->> 'version', 'all'), 'window', document -> 'window',
           'catching_up', document -> 'catching_up', 'missed_boundaries', document -> 'missed_boundaries',
           'policy_sha256', document -> 'policy_sha256',
           'metrics', (document -> 'metrics') - '{reliability,class_recall}'::text[]
       )::text AS point,
       sequence
FROM (
    SELECT snapshot_id, sequence, as_of, document
    FROM metrics.published_snapshots
    WHERE model = $1 AND sequence < $3
    ORDER BY sequence DESC
    LIMIT $4
) AS newest
WHERE as_of > $2
ORDER BY sequence DESC

-- name: latest_decision
-- A row for every known model; the decision, and the jobs that cover its causes now, are null before the first.
SELECT models.model, decisions.document::text AS decision, coverage.covered_by::text AS covered_by
FROM metrics.published_models AS models
LEFT JOIN retrain.published_latest_decisions AS decisions USING (model)
LEFT JOIN retrain.published_coverage AS coverage USING (model)
WHERE models.model = $1

-- name: outcome_of_request
-- $1 model, $2 request. A row for every known model; both outcomes are null while there is none.
SELECT models.model, decisions.document::text AS decision, refused.refused_at, refused.detail
FROM metrics.published_models AS models
LEFT JOIN retrain.published_decisions AS decisions
       ON decisions.model = models.model AND decisions.request_id = $2
LEFT JOIN retrain.published_refused_requests AS refused
       ON refused.model = models.model AND refused.request_id = $2
WHERE models.model = $1

-- name: jobs
-- $1 model or null, $2 status or null, $3 and $4 the place behind which to go on (null: from the newest), $5 how many.
SELECT job_id, created_at, document::text AS job
FROM retrain.published_jobs
WHERE ($1::text IS NULL OR model = $1)
  AND ($2::text IS NULL OR status = $2)
  AND ($3::timestamptz IS NULL OR (created_at, job_id COLLATE "C") < ($3, $4::text COLLATE "C"))
ORDER BY created_at DESC, job_id COLLATE "C" DESC
LIMIT $5

-- name: policy_in_force
-- As the newest snapshot has it. A row for every known model; null before its first snapshot.
SELECT (snapshots.document -> 'policy')::text AS policy, snapshots.document ->> 'policy_sha256' AS policy_sha256
FROM metrics.published_models AS models
LEFT JOIN metrics.published_latest_snapshots AS snapshots USING (model)
WHERE models.model = $1

-- name: policies
-- $1 model, $2 and $3 the place behind which to go on (null: from the newest), $4 how many.
SELECT received_at, "offset", policy_sha256, effective_at, document::text AS policy
FROM metrics.published_policies
WHERE model = $1 AND ($2::timestamptz IS NULL OR (received_at, "offset") < ($2, $3::bigint))
ORDER BY received_at DESC, "offset" DESC
LIMIT $4

-- name: models
-- $1 the name behind which to go on (null: from the first), $2 how many.
SELECT models.model, models.champion, models.versions::text, models.unregistered_versions::text,
       models.policy_sha256, models.last_sequence,
       coalesce(states.state, 'none') AS state, states.snapshot_sequence AS alerting_sequence,
       retrained.snapshot_sequence AS retrain_sequence
FROM metrics.published_models AS models
LEFT JOIN alerting.published_states AS states USING (model)
LEFT JOIN retrain.published_models AS retrained USING (model)
WHERE $1::text IS NULL OR models.model COLLATE "C" > $1 COLLATE "C"
ORDER BY models.model COLLATE "C"
LIMIT $2

-- name: artifacts
SELECT models.model, models.champion AS version, registered.version_document ->> 'trained_through' AS trained_through,
       registered.version_document ->> 'artifact' AS artifact
FROM metrics.published_models AS models
LEFT JOIN LATERAL (
    SELECT version_document
    FROM jsonb_array_elements(models.versions) AS version_document
    WHERE version_document ->> 'version' = models.champion
    LIMIT 1
) AS registered ON true
ORDER BY models.model COLLATE "C"

-- name: inboxes
SELECT 'metrics' AS service, inbox.* FROM metrics.published_inbox AS inbox
UNION ALL SELECT 'alerting', inbox.* FROM alerting.published_inbox AS inbox
UNION ALL SELECT 'retrain', inbox.* FROM retrain.published_inbox AS inbox
ORDER BY 1, 2, 3

-- name: outboxes
SELECT 'metrics' AS service, outbox.* FROM metrics.published_outbox AS outbox
UNION ALL SELECT 'alerting', outbox.* FROM alerting.published_outbox AS outbox
UNION ALL SELECT 'retrain', outbox.* FROM retrain.published_outbox AS outbox

-- name: clock
SELECT clock, interval_seconds, last_as_of, next_boundary, held_by_topic, held_by_partition, held_at
FROM metrics.published_clock
