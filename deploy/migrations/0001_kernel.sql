-- depends:

-- Roles and schemas: one of each a service. A service connects as whom the deployment says and takes its role.
DO $$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['metrics', 'alerting', 'retrain', 'gateway'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'trueward_' || service) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', 'trueward_' || service);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database of this server was migrated at the same moment
            END;
        END IF;
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', service);
    END LOOP;
END
$$;

-- What the exclusion constraint on causes of retraining is built with.
CREATE EXTENSION IF NOT EXISTS btree_gist SCHEMA public;

-- The effects kernel: every service that consumes topics has an inbox, an outbox and the outbox's lease.
DO $$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['metrics', 'alerting', 'retrain'] LOOP
        EXECUTE format($sql$
            CREATE TABLE %1$I.inbox (
                topic text NOT NULL,
                partition integer NOT NULL,
                next_offset bigint NOT NULL CHECK (next_offset >= 0),
                log_end_offset bigint,
                received_at timestamptz,
                lost_records bigint NOT NULL DEFAULT 0,
                updated_at timestamptz NOT NULL DEFAULT now(),
                PRIMARY KEY (topic, partition)
            ) WITH (fillfactor = 50);
            COMMENT ON TABLE %1$I.inbox IS
                'Per partition the next record to take. Its row is locked and advanced by the transaction that takes the records.';
            COMMENT ON COLUMN %1$I.inbox.log_end_offset IS 'Where the log ended when the newest batch was fetched.';
            COMMENT ON COLUMN %1$I.inbox.received_at IS 'When the broker received the newest record taken.';

            CREATE TABLE %1$I.outbox (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                topic text NOT NULL,
                key bytea,
                value bytea NOT NULL,
                headers jsonb NOT NULL,
                created_at timestamptz NOT NULL DEFAULT now()
            );
            COMMENT ON TABLE %1$I.outbox IS
                'Events that became facts with the transaction that wrote them; the relay publishes and removes them.';

            CREATE TABLE %1$I.outbox_lease (
                only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
                holder text NOT NULL,
                epoch bigint NOT NULL,
                expires_at timestamptz NOT NULL
            );
            INSERT INTO %1$I.outbox_lease (holder, epoch, expires_at) VALUES ('nobody', 0, '-infinity');

            CREATE VIEW %1$I.published_inbox AS
                SELECT topic, partition, next_offset, log_end_offset, received_at, lost_records, updated_at FROM %1$I.inbox;
            CREATE VIEW %1$I.published_outbox AS
                SELECT count(*) AS unsent, min(created_at) AS oldest_unsent_at FROM %1$I.outbox;

            GRANT USAGE ON SCHEMA %1$I TO %2$I;
            GRANT USAGE ON SCHEMA %1$I TO trueward_gateway;
            GRANT SELECT, INSERT, UPDATE, DELETE ON %1$I.inbox, %1$I.outbox, %1$I.outbox_lease TO %2$I;
            GRANT SELECT ON %1$I.published_inbox, %1$I.published_outbox TO trueward_gateway;
        $sql$, service, 'trueward_' || service);
    END LOOP;
END
$$;
