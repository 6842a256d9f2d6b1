-- depends: 0001_kernel

-- The clock of the deployment: one row.
CREATE TABLE metrics.clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    clock text NOT NULL CHECK (clock IN ('wall', 'event')),
    interval_seconds bigint NOT NULL,
    bucket_seconds bigint NOT NULL,
    last_as_of bigint,
    next_boundary bigint
);
COMMENT ON COLUMN metrics.clock.last_as_of IS 'The newest boundary that was cut, in seconds since 1970.';
COMMENT ON COLUMN metrics.clock.next_boundary IS 'Event clock only: the boundary that partitions wait at, in seconds since 1970.';

CREATE TABLE metrics.partition_time (
    topic text NOT NULL,
    partition integer NOT NULL,
    reached_at bigint,
    PRIMARY KEY (topic, partition)
);
COMMENT ON TABLE metrics.partition_time IS
    'Event clock only: the event time, in microseconds since 1970, of the record that a partition waits at, or waited at last.';

-- Names. Ids are 64-bit hashes of the names, so that every instance knows them without asking.
CREATE TABLE metrics.version (
    version_id bigint PRIMARY KEY,
    model_id bigint NOT NULL,
    version text NOT NULL
);
CREATE INDEX version_by_model ON metrics.version (model_id);

CREATE TABLE metrics.segment (
    segment_id bigint PRIMARY KEY,
    names jsonb NOT NULL
);
COMMENT ON TABLE metrics.segment IS 'Combinations of segment names and values that predictions carried.';

CREATE TABLE metrics.series (
    series_id bigint PRIMARY KEY,
    model_id bigint NOT NULL,
    version_id bigint NOT NULL,
    segment text NOT NULL
);
CREATE INDEX series_by_model ON metrics.series (model_id);
COMMENT ON COLUMN metrics.series.segment IS 'Empty for all of the version, else dimension:value.';

CREATE TABLE metrics.model (
    model_id bigint PRIMARY KEY,
    model text NOT NULL,
    champion_version text,
    new_labels_after bigint,
    new_labels bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN metrics.model.champion_version IS 'The champion that new_labels is counted for; null while none was ever named.';
COMMENT ON COLUMN metrics.model.new_labels_after IS 'Labels observed later than this (microseconds since 1970; null: ever) are new.';

-- The join. Keys are 128-bit hashes of the ids. A prediction carries what it would contribute for either
-- outcome, so that its row is written once and never again, whatever its label does.
CREATE TABLE metrics.prediction (
    prediction_key uuid PRIMARY KEY,
    entity_key uuid NOT NULL,
    version_id bigint NOT NULL,
    segment_id bigint NOT NULL,
    predicted_at bigint NOT NULL,
    content_hash bigint NOT NULL,
    probability double precision NOT NULL,
    predicted_positive boolean NOT NULL,
    squared_error_if_negative bigint NOT NULL,
    squared_error_if_positive bigint NOT NULL,
    log_loss_if_negative bigint NOT NULL,
    log_loss_if_positive bigint NOT NULL
);
-- A prediction whose entity is its own id is found by the primary key: most need no second index entry.
CREATE INDEX prediction_by_entity ON metrics.prediction (entity_key) WHERE entity_key <> prediction_key;
CREATE VIEW metrics.predicted_entity AS
    SELECT prediction_key AS entity_key, version_id FROM metrics.prediction WHERE entity_key = prediction_key
    UNION ALL
    SELECT entity_key, version_id FROM metrics.prediction WHERE entity_key <> prediction_key;
COMMENT ON VIEW metrics.predicted_entity IS 'Which versions predicted an entity, in the form that both indexes answer.';
COMMENT ON COLUMN metrics.prediction.predicted_at IS 'Microseconds since 1970.';
COMMENT ON COLUMN metrics.prediction.squared_error_if_positive IS 'In units of 1e-12.';
COMMENT ON COLUMN metrics.prediction.log_loss_if_positive IS 'In units of 1e-9.';

CREATE TABLE metrics.label (
    entity_key uuid PRIMARY KEY,
    observed_at bigint NOT NULL,
    outcome_number double precision,
    outcome_text text
) WITH (fillfactor = 90);
CREATE INDEX label_by_time ON metrics.label USING brin (observed_at) WITH (autosummarize = on);
COMMENT ON TABLE metrics.label IS 'The winning label of each entity; both outcomes null: retracted.';

-- Exact sums. Widths: the clock's bucket_seconds, a minute, an hour, a day; all are written together.
CREATE TABLE metrics.bucket (
    series_id bigint NOT NULL,
    width integer NOT NULL,
    start bigint NOT NULL,
    predictions bigint NOT NULL,
    labelled bigint NOT NULL,
    evaluated bigint NOT NULL,
    correct bigint NOT NULL,
    positives bigint NOT NULL,
    predicted_positives bigint NOT NULL,
    squared_error numeric(40, 0) NOT NULL,
    log_loss numeric(40, 0) NOT NULL,
    histogram bytea NOT NULL,
    PRIMARY KEY (series_id, width, start)
) WITH (fillfactor = 80);
COMMENT ON COLUMN metrics.bucket.start IS 'Seconds since 1970; the bucket is [start, start + width).';
COMMENT ON COLUMN metrics.bucket.predictions IS 'By predicted_at, as is labelled; everything behind them is by evaluated_at.';
COMMENT ON COLUMN metrics.bucket.histogram IS 'Sparse counts: little-endian pairs (bin uint16, count int64), bins ascending.';

CREATE TABLE metrics.label_bucket (
    model_id bigint NOT NULL,
    start bigint NOT NULL,
    labelled_entities bigint NOT NULL,
    newest_data_at bigint,
    newest_label_at bigint,
    newest_labels bigint,
    PRIMARY KEY (model_id, start)
) WITH (fillfactor = 80);
COMMENT ON TABLE metrics.label_bucket IS
    'Per model and bucket: distinct entities with a standing label observed in it, and the newest moments of data and labels.';
COMMENT ON COLUMN metrics.label_bucket.newest_data_at IS 'The newest data_as_of of predictions, in microseconds since 1970.';
COMMENT ON COLUMN metrics.label_bucket.newest_label_at IS 'The newest observed_at of winning labels, and newest_labels how many have it.';

CREATE TABLE metrics.pipeline_run (
    pipeline text NOT NULL,
    model text NOT NULL,
    completed_at bigint NOT NULL,
    status text NOT NULL,
    PRIMARY KEY (model, status, completed_at, pipeline)
);
COMMENT ON COLUMN metrics.pipeline_run.model IS 'Empty: the run concerns every model.';

-- What operators and trainers said.
CREATE TABLE metrics.model_version_event (
    model text NOT NULL,
    version text NOT NULL,
    stage text NOT NULL,
    stage_since bigint NOT NULL,
    document jsonb NOT NULL,
    PRIMARY KEY (model, version, stage, stage_since)
);

CREATE TABLE metrics.policy_event (
    model text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    received_at timestamptz NOT NULL,
    effective_at bigint,
    policy_sha256 text NOT NULL,
    document jsonb NOT NULL,
    PRIMARY KEY (model, partition, "offset")
);

-- What became of it all.
CREATE TABLE metrics.snapshot (
    model text NOT NULL,
    sequence bigint NOT NULL,
    snapshot_id text NOT NULL,
    as_of timestamptz NOT NULL,
    document jsonb NOT NULL,
    PRIMARY KEY (model, sequence)
);

CREATE TABLE metrics.latest_figures (
    model text PRIMARY KEY,
    sequence bigint NOT NULL,
    snapshot_id text NOT NULL,
    as_of timestamptz NOT NULL,
    figures jsonb NOT NULL
);
COMMENT ON COLUMN metrics.latest_figures.figures IS
    'Rows of the newest snapshot: version (empty: all together), segment (empty: all), window, metrics.';

CREATE VIEW metrics.published_snapshots AS
    SELECT model, sequence, snapshot_id, as_of, document FROM metrics.snapshot;

CREATE VIEW metrics.published_latest_snapshots AS
    SELECT snapshot.model, snapshot.sequence, snapshot.snapshot_id, snapshot.as_of, snapshot.document
    FROM metrics.latest_figures AS latest
    JOIN metrics.snapshot ON snapshot.model = latest.model AND snapshot.sequence = latest.sequence;

CREATE VIEW metrics.published_figures AS
    SELECT latest.model,
           figure ->> 'version' AS version,
           figure ->> 'segment' AS segment,
           figure ->> 'window' AS time_window,
           figure -> 'metrics' AS metrics,
           latest.snapshot_id, latest.sequence, latest.as_of
    FROM metrics.latest_figures AS latest
    CROSS JOIN LATERAL jsonb_array_elements(latest.figures) AS figure;

CREATE VIEW metrics.published_policies AS
    SELECT model, received_at,
           to_timestamp(effective_at / 1e6) AS effective_at,
           policy_sha256, document, partition, "offset"
    FROM metrics.policy_event;

CREATE VIEW metrics.published_models AS
    SELECT model.model,
           coalesce(champion.version, model.champion_version) AS champion,
           coalesce(versions.documents, '[]'::jsonb) AS versions,
           -- Versions that predict without ever having been registered.
           (SELECT coalesce(jsonb_agg(seen.version ORDER BY seen.version), '[]'::jsonb)
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

CREATE VIEW metrics.published_clock AS
    SELECT clock.clock, clock.interval_seconds,
           to_timestamp(clock.last_as_of) AS last_as_of,
           to_timestamp(clock.next_boundary) AS next_boundary,
           holder.topic AS held_by_topic,
           holder.partition AS held_by_partition,
           to_timestamp(holder.reached_at / 1e6) AS held_at
    FROM metrics.clock
    LEFT JOIN LATERAL (
        SELECT topic, partition, reached_at FROM metrics.partition_time
        WHERE reached_at IS NULL OR reached_at < clock.next_boundary * 1000000
        ORDER BY reached_at NULLS FIRST, topic, partition LIMIT 1
    ) AS holder ON true;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA metrics TO trueward_metrics;
GRANT SELECT ON
    metrics.published_snapshots, metrics.published_latest_snapshots, metrics.published_figures,
    metrics.published_policies, metrics.published_models, metrics.published_clock
TO trueward_gateway;
