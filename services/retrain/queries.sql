-- Everything that changes a model's decisions or jobs holds the lock of the model's row, so it is read after the
-- lock, in statements of their own: a joined table would be read as it was before the wait for the lock.

-- name: models_of_jobs
-- A job's model never changes, so this needs no lock.
SELECT DISTINCT model FROM jobs WHERE job_id = ANY ($1::text[])

-- name: add_models
-- A row for every model met for the first time, so that there is one to lock. In ascending order, as all locks
-- here are taken, so that two transactions never wait for each other in a circle.
INSERT INTO models (model)
SELECT met.model
FROM unnest($1::text[]) AS met (model)
ORDER BY met.model COLLATE "C"
ON CONFLICT (model) DO NOTHING

-- name: lock_models
-- $2: the models whose newest snapshot is asked for.
SELECT
    model,
    snapshot_sequence,
    alert_sequence,
    decision_sequence,
    as_of,
    standing_alerts::text AS standing_alerts,
    latest_decision_id,
    CASE WHEN model = ANY ($2::text[]) THEN snapshot::text END AS snapshot
FROM models
WHERE model = ANY ($1::text[])
ORDER BY model
FOR NO KEY UPDATE

-- name: active_jobs
SELECT model, job_id FROM jobs WHERE model = ANY ($1::text[]) AND status IN ('queued', 'running')

-- name: load_jobs
-- $1: jobs by id; $2: models whose jobs that await their aftermath are wanted too.
SELECT job_id, awaits_aftermath, document::text AS document
FROM jobs
WHERE job_id = ANY ($1::text[])
UNION ALL
SELECT job_id, awaits_aftermath, document::text
FROM jobs
WHERE model = ANY ($2::text[]) AND awaits_aftermath AND job_id <> ALL ($1::text[])

-- name: load_causes
-- Per model, the causes that can cover a moment between the first and the last that is judged.
SELECT causes.model, causes.champion, causes.trigger, causes.as_of, causes.job_id
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS judged (model, first_as_of, last_as_of)
JOIN causes
    ON causes.model = judged.model
    AND causes.as_of > judged.first_as_of - interval '12 hours'
    AND causes.as_of < judged.last_as_of + interval '12 hours'

-- name: answered_requests
SELECT decisions.model, decisions.request_id
FROM unnest($1::text[], $2::text[]) AS asked (model, request_id)
JOIN decisions USING (model, request_id)

-- name: save_models
-- The rows are locked. A snapshot that is null leaves the kept one alone.
UPDATE models
SET snapshot_sequence = told.snapshot_sequence,
    alert_sequence = told.alert_sequence,
    decision_sequence = told.decision_sequence,
    as_of = told.as_of,
    standing_alerts = told.standing_alerts::jsonb,
    latest_decision_id = told.latest_decision_id,
    snapshot = coalesce(told.snapshot::jsonb, models.snapshot)
FROM unnest(
    $1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[], $8::text[]
) AS told (
    model, snapshot_sequence, alert_sequence, decision_sequence, as_of, standing_alerts, latest_decision_id, snapshot
)
WHERE models.model = told.model

-- name: append_decisions
INSERT INTO decisions (decision_id, model, decision_sequence, asked_by, request_id, as_of, action, document)
SELECT decision_id, model, decision_sequence, asked_by, request_id, as_of, action, document::jsonb
FROM unnest(
    $1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::text[]
) AS made (decision_id, model, decision_sequence, asked_by, request_id, as_of, action, document)

-- name: save_jobs
UPDATE jobs
SET job_sequence = changed.job_sequence,
    status = changed.status,
    updated_at = $1,
    lease_expires_at = changed.lease_expires_at,
    awaits_aftermath = changed.awaits_aftermath,
    document = changed.document::jsonb
FROM unnest($2::text[], $3::bigint[], $4::text[], $5::timestamptz[], $6::boolean[], $7::text[])
    AS changed (job_id, job_sequence, status, lease_expires_at, awaits_aftermath, document)
WHERE jobs.job_id = changed.job_id

-- name: append_jobs
-- Two transactions that make a job for one model meet here, should both get so far: the second waits for the
-- first, and fails when that one is durable. It is tried again, and then sees the job.
INSERT INTO jobs (
    job_id, model, decision_id, job_sequence, status, as_of, created_at, updated_at, lease_expires_at,
    awaits_aftermath, document
)
SELECT
    job_id, model, decision_id, job_sequence, status, as_of, created_at, $1, lease_expires_at, awaits_aftermath,
    document::jsonb
FROM unnest(
    $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::timestamptz[], $8::timestamptz[],
    $9::timestamptz[], $10::boolean[], $11::text[]
) AS made (
    job_id, model, decision_id, job_sequence, status, as_of, created_at, lease_expires_at, awaits_aftermath, document
)

-- name: append_causes
INSERT INTO causes (job_id, model, champion, trigger, as_of)
SELECT job_id, model, champion, trigger, as_of
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
    AS made (job_id, model, champion, trigger, as_of)

-- name: keep_refused_requests
INSERT INTO refused_requests (model, request_id, refused_at, detail)
SELECT model, request_id, $1, detail
FROM unnest($2::text[], $3::text[], $4::text[]) AS refused (model, request_id, detail)
ON CONFLICT (model, request_id) DO UPDATE SET refused_at = excluded.refused_at, detail = excluded.detail

-- name: overdue_jobs
SELECT job_id FROM jobs WHERE status = 'running' AND lease_expires_at <= $1 ORDER BY lease_expires_at LIMIT $2

-- name: remove_old_decisions
-- Those on snapshots that made no job, older than $1 before the model's newest snapshot; at most $2 of them.
DELETE FROM decisions
WHERE decision_id IN (
    SELECT decisions.decision_id
    FROM models
    JOIN decisions ON decisions.model = models.model
    WHERE decisions.asked_by = 'snapshot'
      AND decisions.action <> 'queued-retrain'
      AND decisions.as_of < models.as_of - $1::interval
      AND decisions.decision_id <> models.latest_decision_id
    ORDER BY decisions.model, decisions.as_of
    LIMIT $2
)

-- name: remove_old_refused_requests
DELETE FROM refused_requests WHERE refused_at < $1
