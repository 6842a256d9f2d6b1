-- depends: 0006_metrics_horizons

-- Which raw rows changed, told by the tables themselves: an instance keeps what it met last in memory, and reads here what
-- anybody else (another instance, an older version, retention, a person) has changed since it last looked. It is
-- written in the transaction that changes the rows, and read in those that have locked the entities.
CREATE TABLE metrics.changed_keys (
    writer xid8 NOT NULL DEFAULT pg_current_xact_id(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    keys bytea
);
ALTER TABLE metrics.changed_keys ALTER COLUMN keys SET STORAGE EXTERNAL;
CREATE INDEX changed_keys_by_writer ON metrics.changed_keys (writer);
COMMENT ON COLUMN metrics.changed_keys.writer IS
    'The transaction. Rows are read by what a snapshot sees, since ids are not given in the order of commits.';
COMMENT ON COLUMN metrics.changed_keys.keys IS
    'Keys of predictions, entities and labels, 16 bytes each, one behind the other. Null: any row may have changed.';

CREATE TABLE metrics.changed_keys_removed (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    through xid8 NOT NULL
);
COMMENT ON TABLE metrics.changed_keys_removed IS
    'The newest transaction whose changed keys were removed with age: who has not seen it must read all keys anew.';

-- A block range's summary comes with a vacuum: until then every newest label was read to find those of one minute.
DROP INDEX metrics.label_by_time;
CREATE INDEX label_by_time ON metrics.label (observed_at);

CREATE FUNCTION metrics.tell_changed_predictions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO metrics.changed_keys (keys)
    SELECT string_agg(
        CASE WHEN entity_key = prediction_key THEN uuid_send(prediction_key)
             ELSE uuid_send(prediction_key) || uuid_send(entity_key) END,
        ''::bytea
    )
    FROM changed HAVING count(*) > 0;
    RETURN NULL;
END
$$;

CREATE FUNCTION metrics.tell_changed_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO metrics.changed_keys (keys)
    SELECT string_agg(uuid_send(entity_key), ''::bytea) FROM changed HAVING count(*) > 0;
    RETURN NULL;
END
$$;

CREATE FUNCTION metrics.tell_all_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO metrics.changed_keys (keys) VALUES (NULL);
    RETURN NULL;
END
$$;

-- A prediction's row is never updated, but for how long it is kept.
CREATE TRIGGER tell_inserted AFTER INSERT ON metrics.prediction
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION metrics.tell_changed_predictions();
CREATE TRIGGER tell_deleted AFTER DELETE ON metrics.prediction
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION metrics.tell_changed_predictions();
CREATE TRIGGER tell_truncated AFTER TRUNCATE ON metrics.prediction
    FOR EACH STATEMENT EXECUTE FUNCTION metrics.tell_all_changed();
CREATE TRIGGER tell_inserted AFTER INSERT ON metrics.label
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION metrics.tell_changed_labels();
CREATE TRIGGER tell_updated AFTER UPDATE ON metrics.label
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION metrics.tell_changed_labels();
CREATE TRIGGER tell_deleted AFTER DELETE ON metrics.label
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION metrics.tell_changed_labels();
CREATE TRIGGER tell_truncated AFTER TRUNCATE ON metrics.label
    FOR EACH STATEMENT EXECUTE FUNCTION metrics.tell_all_changed();

GRANT SELECT, INSERT, UPDATE, DELETE ON
    metrics.changed_keys, metrics.changed_keys_removed TO trueward_metrics;
