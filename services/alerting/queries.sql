-- name: add_models
-- A row for every model met for the first time, so that lock_models finds one to lock. In ascending order,
-- as all locks here are taken, so that two transactions never wait for each other.
INSERT INTO alerting.models (model)
SELECT met.model
FROM unnest($1::text[]) AS met (model)
ORDER BY met.model COLLATE "C"
ON CONFLICT (model) DO NOTHING

-- name: lock_models
-- The alerts of the models as they stand, locked until the transaction ends.
SELECT model, snapshot_sequence, as_of, alert_sequence, standing
FROM alerting.models
WHERE model = ANY ($1::text[])
ORDER BY model
FOR UPDATE

-- name: save_models
-- What the last snapshot of each model made of it; the rows are locked already.
UPDATE alerting.models
SET snapshot_sequence = judged.snapshot_sequence,
    snapshot_id = judged.snapshot_id,
    as_of = judged.as_of,
    policy_sha256 = judged.policy_sha256,
    alert_sequence = judged.alert_sequence,
    state = judged.state,
    standing = judged.standing,
    evaluations = judged.evaluations
FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::timestamptz[], $5::text[], $6::bigint[], $7::text[], $8::jsonb[],
    $9::jsonb[]
) AS judged (
    model, snapshot_sequence, snapshot_id, as_of, policy_sha256, alert_sequence, state, standing, evaluations
)
WHERE models.model = judged.model

-- name: append_transitions
INSERT INTO alerting.transitions (model, alert_sequence, as_of, document)
SELECT model, alert_sequence, as_of, document
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::jsonb[])
    AS made (model, alert_sequence, as_of, document)
