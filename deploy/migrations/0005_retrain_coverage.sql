-- depends: 0004_retrain

-- A decision says which jobs covered its causes when it was made. A job that is made or that ends afterwards
-- changes that: whoever asks what the policy would do now is told of the jobs that there are now.
CREATE VIEW retrain.published_coverage AS
    SELECT models.model, covering.covered_by
    FROM retrain.models
    JOIN retrain.decisions ON decisions.decision_id = models.latest_decision_id
    LEFT JOIN retrain.jobs AS active ON active.model = models.model AND active.status IN ('queued', 'running')
    CROSS JOIN LATERAL (
        SELECT coalesce(
            jsonb_object_agg(fired.trigger, coalesce(cause.job_id, active.job_id))
                FILTER (WHERE cause.job_id IS NOT NULL OR active.job_id IS NOT NULL),
            '{}'
        ) AS covered_by
        FROM jsonb_array_elements_text(decisions.document -> 'fired') AS fired (trigger)
        LEFT JOIN LATERAL (
            SELECT causes.job_id
            FROM retrain.causes
            WHERE causes.model = models.model
              AND causes.champion = coalesce(decisions.document #>> '{evidence,champion,version}', '')
              AND causes.trigger = fired.trigger
              AND causes.as_of > decisions.as_of - interval '12 hours'
              AND causes.as_of < decisions.as_of + interval '12 hours'
            ORDER BY causes.as_of DESC
            LIMIT 1
        ) AS cause ON true
    ) AS covering;
COMMENT ON VIEW retrain.published_coverage IS
    'Per model, trigger to job: what answers now for the causes of the decision on the newest snapshot.';

GRANT SELECT ON retrain.published_coverage TO trueward_gateway;
