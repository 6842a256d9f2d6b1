-- The effects kernel's SQL. It runs with the service's schema as search_path.

-- name: ensure_inbox_rows
INSERT INTO inbox (topic, partition, next_offset)
SELECT topic, partition, 0 FROM unnest($1::text[], $2::integer[]) AS places (topic, partition)
ON CONFLICT DO NOTHING

-- name: lock_inbox_rows
-- In one order for everyone, so that two batches never wait for each other in a circle.
SELECT inbox.topic, inbox.partition, inbox.next_offset
FROM inbox JOIN unnest($1::text[], $2::integer[]) AS places (topic, partition) USING (topic, partition)
ORDER BY inbox.topic, inbox.partition
FOR UPDATE OF inbox

-- name: advance_inbox_rows
UPDATE inbox
SET next_offset = moved.next_offset,
    log_end_offset = coalesce(moved.log_end_offset, inbox.log_end_offset),
    received_at = coalesce(moved.received_at, inbox.received_at),
    lost_records = inbox.lost_records + moved.lost_records,
    updated_at = clock_timestamp()
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::bigint[])
    AS moved (topic, partition, next_offset, log_end_offset, received_at, lost_records)
WHERE inbox.topic = moved.topic AND inbox.partition = moved.partition

-- name: read_inbox
SELECT topic, partition, next_offset, log_end_offset, received_at FROM inbox ORDER BY topic, partition

-- name: reset_inbox
DELETE FROM inbox WHERE $1::text IS NULL OR topic = $1

-- name: append_to_outbox
-- And wake whoever listens on channel $1, once the transaction is durable.
WITH appended AS (
    INSERT INTO outbox (topic, key, value, headers)
    SELECT topic, key, value, headers::jsonb
    FROM unnest($2::text[], $3::bytea[], $4::bytea[], $5::text[])
        WITH ORDINALITY AS message (topic, key, value, headers, place)
    ORDER BY place
)
SELECT pg_notify($1, '')

-- name: take_lease
-- The epoch grows with every change of holder, never with a renewal.
UPDATE outbox_lease
SET holder = $1,
    epoch = CASE WHEN holder = $1 THEN epoch ELSE epoch + 1 END,
    expires_at = clock_timestamp() + make_interval(secs => $2)
WHERE holder = $1 OR expires_at < clock_timestamp()
RETURNING epoch

-- name: release_lease
UPDATE outbox_lease SET expires_at = '-infinity' WHERE holder = $1

-- name: read_unsent
-- The oldest $1, as far as the bytes before each stay below $2: one is always read, however large it is.
-- Nothing for a relay whose lease ($3 the holder, $4 the epoch) has become another's.
SELECT id, topic, key, value, headers
FROM (
    SELECT id, topic, key, value, headers,
        sum(octet_length(value)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - octet_length(value) AS bytes_before
    FROM outbox
    WHERE EXISTS (SELECT FROM outbox_lease WHERE holder = $3 AND epoch = $4)
    ORDER BY id
    LIMIT $1
) AS oldest
WHERE bytes_before < $2
ORDER BY id

-- name: remove_sent
-- Only while the lease still is ours: a relay that was stopped meanwhile must not remove what its successor sends.
DELETE FROM outbox
WHERE id = ANY($1::bigint[])
  AND EXISTS (SELECT FROM outbox_lease WHERE holder = $2 AND epoch = $3)

-- name: read_breaker
SELECT tripped_at, reason, passes_until FROM breaker

-- name: trip_breaker
UPDATE breaker SET tripped_at = $1, reason = $2, passes_until = NULL WHERE tripped_at IS NULL

-- name: reset_breaker
UPDATE breaker SET tripped_at = NULL, reason = NULL, passes_until = $1

-- name: count_refusals
-- A window that is over, or that begins in the future since a clock was set back, is begun anew.
INSERT INTO refusals AS counted (topic, partition, since, since_offset, refused)
SELECT topic, partition, $5, since_offset, refused
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[]) AS more (topic, partition, since_offset, refused)
ON CONFLICT (topic, partition) DO UPDATE
SET (since, since_offset, refused) = (
    SELECT CASE WHEN goes_on THEN counted.since ELSE excluded.since END,
           CASE WHEN goes_on THEN counted.since_offset ELSE excluded.since_offset END,
           CASE WHEN goes_on THEN counted.refused ELSE 0 END + excluded.refused
    FROM (SELECT counted.since <= $5 AND $5 < counted.since + $6::interval AS goes_on) AS judged
)

-- name: read_refusals
-- Of every instance's partitions, as far as they are committed. Records are counted by their offsets.
SELECT topic, sum(greatest(inbox.next_offset - refusals.since_offset, 0)) AS records, sum(refusals.refused) AS refused
FROM refusals JOIN inbox USING (topic, partition)
WHERE topic = ANY($1::text[]) AND refusals.since <= $2 AND $2 < refusals.since + $3::interval
GROUP BY topic

-- name: forget_refusals
DELETE FROM refusals WHERE $1::text IS NULL OR topic = $1

-- name: read_topic_identities
-- With whether anything was read of the topic.
SELECT topic, topic_id, coalesce(bool_or(inbox.next_offset > 0), false) AS is_read
FROM topic_identities LEFT JOIN inbox USING (topic)
GROUP BY topic, topic_id

-- name: remember_topic_identities
INSERT INTO topic_identities (topic, topic_id)
SELECT * FROM unnest($1::text[], $2::uuid[])
ON CONFLICT (topic) DO UPDATE SET topic_id = excluded.topic_id

-- name: forget_topic_identities
DELETE FROM topic_identities WHERE $1::text IS NULL OR topic = $1

-- name: read_migrations
SELECT migration_id FROM public._yoyo_migration
