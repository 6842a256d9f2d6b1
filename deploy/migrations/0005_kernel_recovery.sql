-- depends: 0001_kernel

-- What notices that something went wrong outside: a flood of dead letters, a topic that was made anew. Only additions:
-- the code of before runs on this schema too.
DO $$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['metrics', 'alerting', 'retrain'] LOOP
        EXECUTE format($sql$
            CREATE TABLE %1$I.refusals (
                topic text NOT NULL,
                partition integer NOT NULL,
                since timestamptz NOT NULL,
                since_offset bigint NOT NULL,
                refused bigint NOT NULL,
                PRIMARY KEY (topic, partition)
            ) WITH (fillfactor = 50);
            COMMENT ON TABLE %1$I.refusals IS
                'Per partition how many records became dead letters since a moment: what the breaker judges. Written under the lock of the inbox row, and only where a record is refused.';

            CREATE TABLE %1$I.breaker (
                only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
                tripped_at timestamptz,
                reason text CHECK ((reason IS NULL) = (tripped_at IS NULL)),
                passes_until timestamptz
            );
            COMMENT ON TABLE %1$I.breaker IS
                'While tripped_at is set, no instance takes records in. Until passes_until nothing trips it.';
            INSERT INTO %1$I.breaker DEFAULT VALUES;

            CREATE TABLE %1$I.topic_identities (
                topic text PRIMARY KEY,
                topic_id uuid NOT NULL
            );
            COMMENT ON TABLE %1$I.topic_identities IS
                'The id that Kafka gave the topic which the inbox has read: a topic made anew has another.';

            -- So that a service that is started before its migrations can tell, and wait.
            GRANT SELECT ON public._yoyo_migration TO %2$I;
            GRANT SELECT, UPDATE ON %1$I.breaker TO %2$I;
            GRANT SELECT, INSERT, UPDATE, DELETE ON %1$I.refusals, %1$I.topic_identities TO %2$I;
        $sql$, service, 'trueward_' || service);
    END LOOP;
END
$$;
