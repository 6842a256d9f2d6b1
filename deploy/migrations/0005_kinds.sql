-- depends: 0004_retrain

-- Multiclass and regression models. What they say lies beside the tables of the join, so that a binary model's rows
-- and buckets stay as they are, and as small.

-- A version that says things of two kinds has two ids here, and so sums of its own for each.
ALTER TABLE metrics.version
    ADD COLUMN kind text NOT NULL DEFAULT 'binary' CHECK (kind IN ('binary', 'multiclass', 'regression'));

CREATE TABLE metrics.class_set (
    class_set_id bigint PRIMARY KEY,
    names jsonb NOT NULL
);
COMMENT ON TABLE metrics.class_set IS 'The classes that predictions named together, ascending by code point.';

CREATE TABLE metrics.class (
    class_id bigint PRIMARY KEY,
    name text NOT NULL
);
COMMENT ON TABLE metrics.class IS 'Classes that happened to a multiclass prediction.';

CREATE TABLE metrics.answer (
    prediction_key uuid PRIMARY KEY,
    answer bytea NOT NULL
);
COMMENT ON TABLE metrics.answer IS
    'What a prediction of another kind than binary said; the row in prediction says that it exists, and its version of what kind it is.';
COMMENT ON COLUMN metrics.answer.answer IS
    'Regression: the value, a little-endian float64. Multiclass: little-endian int64s: class set, place of the class decided, then by class (and last for one not named) squared error in 1e-12 and log loss in 1e-9.';

CREATE TABLE metrics.bucket_detail (
    series_id bigint NOT NULL,
    width integer NOT NULL,
    start bigint NOT NULL,
    error numeric NOT NULL,
    absolute_error numeric NOT NULL,
    squared_error numeric NOT NULL,
    classes bytea NOT NULL,
    PRIMARY KEY (series_id, width, start)
) WITH (fillfactor = 80);
COMMENT ON TABLE metrics.bucket_detail IS 'What multiclass and regression models sum beside what is in bucket, by evaluation.';
COMMENT ON COLUMN metrics.bucket_detail.error IS 'Predicted minus happened, in units of 1e-324; so is absolute_error.';
COMMENT ON COLUMN metrics.bucket_detail.squared_error IS 'In units of 1e-648.';
COMMENT ON COLUMN metrics.bucket_detail.classes IS
    'Little-endian int64s (class, how often it happened, how often it was decided then), classes ascending.';

GRANT SELECT, INSERT, UPDATE, DELETE ON
    metrics.class_set, metrics.class, metrics.answer, metrics.bucket_detail
TO trueward_metrics;

CREATE OR REPLACE VIEW metrics.published_models AS
    SELECT model.model,
           coalesce(champion.version, model.champion_version) AS champion,
           coalesce(versions.documents, '[]'::jsonb) AS versions,
           -- Versions that predict without ever having been registered; one may predict in several kinds.
           (SELECT coalesce(jsonb_agg(DISTINCT seen.version ORDER BY seen.version), '[]'::jsonb)
            FROM metrics.version AS seen
            WHERE seen.model_id = model.model_id AND NOT EXISTS (
                SELECT FROM metrics.model_version_event AS event
                WHERE event.model = model.model AND event.version = seen.version
            )) AS unregistered_versions,
           latest.sequence AS last_sequence,
           policy.document AS policy,
           policy.policy_sha256
    FROM metrics.model
    LEFT JOIN metrics.latest_figures AS latest ON latest.model = model.model
    LEFT JOIN LATERAL (
        SELECT event.version FROM metrics.model_version_event AS event
        WHERE event.model = model.model AND event.stage = 'champion'
        ORDER BY event.stage_since DESC, event.version DESC LIMIT 1
    ) AS champion ON true
    LEFT JOIN LATERAL (
        SELECT jsonb_agg(newest.document ORDER BY newest.stage_since, newest.version) AS documents
        FROM (
            SELECT DISTINCT ON (event.version) event.version, event.stage_since, event.document
            FROM metrics.model_version_event AS event
            WHERE event.model = model.model
            ORDER BY event.version, event.stage_since DESC, event.stage DESC
        ) AS newest
    ) AS versions ON true
    LEFT JOIN LATERAL (
        SELECT event.document, event.policy_sha256 FROM metrics.policy_event AS event
        WHERE event.model = model.model
        ORDER BY event.received_at DESC, event.partition DESC, event."offset" DESC LIMIT 1
    ) AS policy ON true;

-- Their triggers.
ALTER TABLE retrain.causes DROP CONSTRAINT causes_trigger_check;
ALTER TABLE retrain.causes ADD CONSTRAINT causes_trigger_check CHECK (
    trigger IN ('accuracy_breach', 'brier_breach', 'multiclass_brier_breach', 'mae_breach', 'new_labels')
);
