-- depends: 0001_kernel

CREATE TABLE retrain.models (
    model text COLLATE "C" PRIMARY KEY,
    snapshot_sequence bigint NOT NULL DEFAULT 0 CHECK (snapshot_sequence >= 0),
    alert_sequence bigint NOT NULL DEFAULT 0 CHECK (alert_sequence >= 0),
    decision_sequence bigint NOT NULL DEFAULT 0 CHECK (decision_sequence >= 0),
    as_of timestamptz,
    standing_alerts jsonb NOT NULL DEFAULT '{}',
    latest_decision_id text,
    snapshot jsonb,
    CHECK (snapshot_sequence = 0 OR (snapshot IS NOT NULL AND as_of IS NOT NULL AND latest_decision_id IS NOT NULL))
-- Every snapshot rewrites the row and no index covers what it changes: room on the page keeps that local.
) WITH (fillfactor = 50);
COMMENT ON TABLE retrain.models IS
    'A model after the last snapshot and alert heard of. Whoever decides about a model or changes a job of it holds the row''s lock.';
COMMENT ON COLUMN retrain.models.standing_alerts IS 'By alert id, the alerts that stand, to be cited.';
COMMENT ON COLUMN retrain.models.snapshot IS 'The newest snapshot: what a request is decided on.';
COMMENT ON COLUMN retrain.models.latest_decision_id IS 'The decision on that snapshot.';

CREATE TABLE retrain.decisions (
    decision_id text COLLATE "C" PRIMARY KEY,
    model text COLLATE "C" NOT NULL REFERENCES retrain.models,
    decision_sequence bigint NOT NULL CHECK (decision_sequence > 0),
    asked_by text NOT NULL CHECK (asked_by IN ('snapshot', 'request')),
    request_id text COLLATE "C" CHECK ((request_id IS NOT NULL) = (asked_by = 'request')),
    as_of timestamptz NOT NULL,
    action text NOT NULL CHECK (action IN ('dry-run-noop', 'noop', 'queued-retrain', 'already-queued')),
    document jsonb NOT NULL,
    CONSTRAINT decisions_in_sequence UNIQUE (model, decision_sequence)
);
COMMENT ON TABLE retrain.decisions IS
    'Every event published on retrain-decisions. Never changed; those on snapshots that made no job are removed with age.';

-- A request acts once.
CREATE UNIQUE INDEX decisions_once_a_request ON retrain.decisions (model, request_id) WHERE request_id IS NOT NULL;

-- What is removed with age.
CREATE INDEX decisions_by_age ON retrain.decisions (model, as_of)
    WHERE asked_by = 'snapshot' AND action <> 'queued-retrain';

CREATE TABLE retrain.jobs (
    job_id text COLLATE "C" PRIMARY KEY,
    model text COLLATE "C" NOT NULL REFERENCES retrain.models,
    decision_id text COLLATE "C" NOT NULL UNIQUE REFERENCES retrain.decisions,
    job_sequence bigint NOT NULL CHECK (job_sequence > 0),
    status text NOT NULL CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled', 'expired')),
    as_of timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    lease_expires_at timestamptz CHECK ((lease_expires_at IS NOT NULL) = (status = 'running')),
    awaits_aftermath boolean NOT NULL CHECK (NOT awaits_aftermath OR status = 'completed'),
    document jsonb NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE retrain.jobs IS 'Every job as the newest event on retrain-jobs tells of it (heartbeats are newer).';
COMMENT ON COLUMN retrain.jobs.awaits_aftermath IS 'Completed, with a version of its own on which no verdict is given yet.';

-- The guarantee: a model has at most one job queued or running.
CREATE UNIQUE INDEX jobs_one_active_a_model ON retrain.jobs (model) WHERE status IN ('queued', 'running');

CREATE INDEX jobs_of_a_model ON retrain.jobs (model, created_at DESC, job_id DESC);
CREATE INDEX jobs_newest ON retrain.jobs (created_at DESC, job_id DESC);
CREATE INDEX jobs_awaiting_aftermath ON retrain.jobs (model) WHERE awaits_aftermath;
CREATE INDEX jobs_leases ON retrain.jobs (lease_expires_at) WHERE status = 'running';

CREATE TABLE retrain.causes (
    job_id text COLLATE "C" NOT NULL REFERENCES retrain.jobs,
    model text COLLATE "C" NOT NULL,
    champion text COLLATE "C" NOT NULL,
    trigger text COLLATE "C" NOT NULL CHECK (trigger IN ('accuracy_breach', 'brier_breach', 'new_labels')),
    as_of timestamptz NOT NULL,
    PRIMARY KEY (job_id, trigger),
    -- The guarantee: a covered cause makes no second job within 12 hours, whatever became of the first.
    -- (In UTC, since adding hours to a timestamptz is not immutable and could not be indexed.)
    CONSTRAINT causes_once_in_12_hours EXCLUDE USING gist (
        model WITH =,
        champion WITH =,
        trigger WITH =,
        tsrange(as_of AT TIME ZONE 'UTC', as_of AT TIME ZONE 'UTC' + interval '12 hours') WITH &&
    )
);
COMMENT ON TABLE retrain.causes IS
    'What each job was made for, written in the transaction that makes the job. champion is empty where none was named.';

CREATE INDEX causes_of_a_model ON retrain.causes (model, as_of);

CREATE TABLE retrain.refused_requests (
    model text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    refused_at timestamptz NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (model, request_id)
);
COMMENT ON TABLE retrain.refused_requests IS 'Requests that could not be decided, for whoever waits for their decision.';

CREATE INDEX refused_requests_by_age ON retrain.refused_requests (refused_at);

CREATE VIEW retrain.published_decisions AS
    SELECT decision_id, model, decision_sequence, asked_by, request_id, as_of, action, document
    FROM retrain.decisions;

CREATE VIEW retrain.published_latest_decisions AS
    SELECT
        decisions.decision_id,
        decisions.model,
        decisions.decision_sequence,
        decisions.asked_by,
        decisions.request_id,
        decisions.as_of,
        decisions.action,
        decisions.document
    FROM retrain.models JOIN retrain.decisions ON decisions.decision_id = models.latest_decision_id;

CREATE VIEW retrain.published_models AS
    SELECT model, snapshot_sequence FROM retrain.models WHERE snapshot_sequence > 0;

CREATE VIEW retrain.published_jobs AS
    SELECT job_id, model, status, created_at, updated_at, as_of, document FROM retrain.jobs;

CREATE VIEW retrain.published_refused_requests AS
    SELECT model, request_id, refused_at, detail FROM retrain.refused_requests;

GRANT SELECT, INSERT, UPDATE ON retrain.models, retrain.jobs TO trueward_retrain;
GRANT SELECT, INSERT ON retrain.causes TO trueward_retrain;
GRANT SELECT, INSERT, DELETE ON retrain.decisions TO trueward_retrain;
GRANT SELECT, INSERT, UPDATE, DELETE ON retrain.refused_requests TO trueward_retrain;
GRANT SELECT ON
    retrain.published_decisions,
    retrain.published_latest_decisions,
    retrain.published_models,
    retrain.published_jobs,
    retrain.published_refused_requests
    TO trueward_gateway;
