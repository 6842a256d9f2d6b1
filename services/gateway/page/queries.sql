-- What the page asks of the published views, one statement an answer. Documents leave as text, read by contracts.

-- name: overview
-- $1 text to find in the name or null, $2 standing or null, $3 order, $4 and $5 the place behind which to go on
-- (null: from the first), $6 how many, $7 points of a sparkline.
-- Only the listed models' documents are read; the order by a figure is by what the alert rules were given.
WITH streaks AS (
    SELECT model, max(breach_streak) AS streak FROM alerting.published_alerts GROUP BY model
), judged AS (
    SELECT models.model, models.champion, coalesce(states.state, 'none') AS state,
           coalesce(streaks.streak, 0) AS streak, states.evaluations,
           CASE WHEN coalesce(states.state, 'none') <> 'none' THEN states.state
                WHEN states.model IS NULL
                  OR states.evaluations -> 'accuracy_breach' ->> 'outcome' = 'insufficient_data'
                  OR states.evaluations -> 'brier_breach' ->> 'outcome' = 'insufficient_data'
                  OR states.evaluations -> 'multiclass_brier_breach' ->> 'outcome' = 'insufficient_data'
                  OR states.evaluations -> 'mae_breach' ->> 'outcome' = 'insufficient_data' THEN 'waiting'
                ELSE 'good' END AS standing
    FROM metrics.published_models AS models
    LEFT JOIN alerting.published_states AS states USING (model)
    LEFT JOIN streaks USING (model)
    WHERE $1::text IS NULL OR strpos(lower(models.model), lower($1)) > 0
), ranked AS (
    SELECT judged.*,
           CASE $3::text
               WHEN 'worst' THEN 1e12 * array_position(
                   ARRAY['incident', 'watch', 'active', 'waiting', 'good'], judged.standing) - judged.streak
               WHEN 'streak' THEN -judged.streak
               WHEN 'accuracy' THEN (judged.evaluations #>> '{accuracy_breach,value}')::float8
               WHEN 'brier' THEN -coalesce(judged.evaluations #>> '{brier_breach,value}',
                                           judged.evaluations #>> '{multiclass_brier_breach,value}')::float8
               WHEN 'freshness' THEN -(judged.evaluations #>> '{data_stale,value}')::float8
               ELSE 0
           END AS figure
    FROM judged
    WHERE $2::text IS NULL OR judged.standing = $2
), placed AS (
    SELECT *, coalesce(figure, 'infinity')::float8 AS rank FROM ranked
), listed AS (
    SELECT * FROM placed
    WHERE $4::float8 IS NULL OR (rank, model COLLATE "C") > ($4, $5::text COLLATE "C")
    ORDER BY rank, model COLLATE "C"
    LIMIT $6
), counted AS (
    SELECT jsonb_build_object(
               'incident', count(*) FILTER (WHERE standing = 'incident'),
               'watch', count(*) FILTER (WHERE standing = 'watch'),
               'active', count(*) FILTER (WHERE standing = 'active'),
               'good', count(*) FILTER (WHERE standing = 'good'),
               'waiting', count(*) FILTER (WHERE standing = 'waiting')
           )::text AS counts
    FROM judged
)
SELECT counted.counts, listed.model, listed.champion, listed.state, listed.standing, listed.rank,
       latest.sequence, latest.as_of, latest.document ->> 'window' AS time_window,
       ((latest.document -> 'metrics') - '{reliability,class_recall}'::text[])::text AS metrics,
       (latest.document -> 'policy')::text AS policy,
       coalesce((
           SELECT jsonb_agg(to_jsonb(alerts) - 'model' ORDER BY alerts.alert_id)
           FROM alerting.published_alerts AS alerts WHERE alerts.model = listed.model
       ), '[]')::text AS alerts,
       coalesce((
           SELECT jsonb_agg(recent.figure ORDER BY recent.sequence)
           FROM (
               SELECT sequence, document -> 'metrics' -> CASE document #>> '{metrics,kind}'
                   WHEN 'regression' THEN 'mae' ELSE 'accuracy' END AS figure
               FROM metrics.published_snapshots AS snapshots WHERE snapshots.model = listed.model
               ORDER BY sequence DESC LIMIT $7
           ) AS recent
       ), '[]')::text AS sparkline,
       job.document::text AS job
FROM counted
LEFT JOIN listed ON true
LEFT JOIN metrics.published_latest_snapshots AS latest ON latest.model = listed.model
LEFT JOIN LATERAL (
    SELECT jobs.document - 'evidence' AS document FROM retrain.published_jobs AS jobs
    WHERE jobs.model = listed.model
    ORDER BY jobs.created_at DESC, jobs.job_id DESC LIMIT 1
) AS job ON true
ORDER BY listed.rank, listed.model COLLATE "C"

-- name: series
-- $1 model, $2 how far back from the newest snapshot, $3 most points. Every n-th snapshot by sequence, the newest
-- among them: only those are looked up. A row for every known model.
WITH newest AS (
    SELECT models.model, latest.sequence, latest.as_of
    FROM metrics.published_models AS models
    LEFT JOIN metrics.published_latest_snapshots AS latest USING (model)
    WHERE models.model = $1
), span AS (
    SELECT newest.*, first.sequence AS first_sequence,
           greatest(1, ceil((newest.sequence - first.sequence + 1) / $3::numeric))::bigint AS every
    FROM newest
    LEFT JOIN LATERAL (
        SELECT min(snapshots.sequence) AS sequence FROM metrics.published_snapshots AS snapshots
        WHERE snapshots.model = newest.model AND snapshots.as_of > newest.as_of - $2::interval
    ) AS first ON true
)
SELECT span.as_of, span.every, points.point
FROM span
LEFT JOIN LATERAL (
    SELECT jsonb_build_object(
               'snapshot_sequence', snapshots.sequence, 'as_of', snapshots.document -> 'as_of',
               'version', coalesce(snapshots.document -> 'champion' ->> 'version', 'all'),
               'window', snapshots.document -> 'window',
               'metrics', (snapshots.document -> 'metrics') - '{reliability,class_recall}'::text[]
           )::text AS point, snapshots.sequence
    FROM generate_series(span.sequence, span.first_sequence, -span.every) AS wanted (sequence)
    JOIN metrics.published_snapshots AS snapshots
      ON snapshots.model = span.model AND snapshots.sequence = wanted.sequence
) AS points ON true
ORDER BY points.sequence

-- name: segments
-- $1 model, $2 version ('' for all together, null for the champion), $3 window or null. A row for every known model.
WITH known AS (
    SELECT models.model, latest.as_of,
           coalesce($2::text, latest.document -> 'champion' ->> 'version', '') AS version,
           coalesce($3::text, latest.document ->> 'window', models.policy ->> 'window') AS time_window
    FROM metrics.published_models AS models
    LEFT JOIN metrics.published_latest_snapshots AS latest USING (model)
    WHERE models.model = $1
)
SELECT known.version, known.time_window, known.as_of, figures.segment, figures.metrics::text AS metrics
FROM known
LEFT JOIN metrics.published_figures AS figures
       ON figures.model = known.model AND figures.version = known.version
      AND figures.time_window = known.time_window AND figures.segment <> ''
ORDER BY figures.segment COLLATE "C"

-- name: transitions
-- $1 model, $2 below this number, $3 how many. A row for every known model.
SELECT models.model, transitions.alert_sequence, transitions.document::text AS transition
FROM (SELECT $1::text AS model FROM metrics.published_models WHERE model = $1) AS models
LEFT JOIN LATERAL (
    SELECT alert_sequence, document FROM alerting.published_transitions
    WHERE model = $1 AND alert_sequence < $2
    ORDER BY alert_sequence DESC LIMIT $3
) AS transitions ON true
ORDER BY transitions.alert_sequence DESC

-- name: decisions
-- $1 model, $2 action or null, $3 below this number, $4 how many. A row for every known model.
SELECT models.model, decisions.decision_sequence, decisions.document::text AS decision
FROM (SELECT $1::text AS model FROM metrics.published_models WHERE model = $1) AS models
LEFT JOIN LATERAL (
    SELECT decision_sequence, document FROM retrain.published_decisions
    WHERE model = $1 AND ($2::text IS NULL OR action = $2) AND decision_sequence < $3
    ORDER BY decision_sequence DESC LIMIT $4
) AS decisions ON true
ORDER BY decisions.decision_sequence DESC
