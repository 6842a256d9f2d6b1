-- depends: 0001_kernel

CREATE TABLE alerting.models (
    model text COLLATE "C" PRIMARY KEY,
    snapshot_sequence bigint NOT NULL DEFAULT 0 CHECK (snapshot_sequence >= 0),
    snapshot_id text,
    as_of timestamptz,
    policy_sha256 text,
    alert_sequence bigint NOT NULL DEFAULT 0 CHECK (alert_sequence >= 0),
    state text NOT NULL DEFAULT 'none' CHECK (state IN ('none', 'active', 'watch', 'incident')),
    standing jsonb NOT NULL DEFAULT '{}',
    evaluations jsonb NOT NULL DEFAULT '{}',
    CHECK (snapshot_sequence = 0 OR (snapshot_id IS NOT NULL AND as_of IS NOT NULL AND policy_sha256 IS NOT NULL))
-- Every snapshot rewrites the row and no index covers what it changes: room on the page keeps that local.
) WITH (fillfactor = 50);
COMMENT ON TABLE alerting.models IS
    'A model after the last snapshot judged. The row''s lock serialises its judgements, so alert_sequence has no gaps.';
COMMENT ON COLUMN alerting.models.standing IS 'The standing alerts by alert id.';
COMMENT ON COLUMN alerting.models.evaluations IS 'By alert id, what the rule said of that snapshot.';

CREATE TABLE alerting.transitions (
    model text COLLATE "C" NOT NULL REFERENCES alerting.models,
    alert_sequence bigint NOT NULL CHECK (alert_sequence > 0),
    as_of timestamptz NOT NULL,
    document jsonb NOT NULL,
    PRIMARY KEY (model, alert_sequence)
);
COMMENT ON TABLE alerting.transitions IS 'Every event published on the topic alerts. Rows are added, never changed.';

CREATE VIEW alerting.published_states AS
    SELECT model, state, snapshot_sequence, alert_sequence, as_of, evaluations
    FROM alerting.models;

CREATE VIEW alerting.published_alerts AS
    SELECT
        models.model,
        standing.alert_id,
        alert.severity,
        alert.breach_streak,
        alert.escalation_level,
        alert.recommended_action,
        alert.reason,
        alert.value,
        alert.threshold,
        alert.opened_as_of,
        models.snapshot_id,
        models.snapshot_sequence
    FROM alerting.models
    CROSS JOIN LATERAL jsonb_each(models.standing) AS standing (alert_id, document)
    CROSS JOIN LATERAL jsonb_to_record(standing.document) AS alert (
        severity text,
        breach_streak bigint,
        escalation_level text,
        recommended_action text,
        reason text,
        value double precision,
        threshold double precision,
        opened_as_of timestamptz
    );

CREATE VIEW alerting.published_transitions AS
    SELECT model, alert_sequence, as_of, document
    FROM alerting.transitions;

GRANT SELECT, INSERT, UPDATE ON alerting.models TO trueward_alerting;
GRANT SELECT, INSERT ON alerting.transitions TO trueward_alerting;
GRANT SELECT ON alerting.published_states, alerting.published_alerts, alerting.published_transitions
    TO trueward_gateway;
