-- What the gateway asks before it gives an answer that it keeps.

-- name: revisions
-- $1 models. A row for each that has a snapshot. The server's start is in it: what was restored, or lost and written again
-- by a server that came back, must not be taken for what was.
SELECT asked.model, concat_ws(' ', pg_postmaster_start_time(), made.revision, judged.revision) AS revision
FROM unnest($1::text[]) AS asked (model)
JOIN metrics.published_revisions AS made ON made.model = asked.model
LEFT JOIN alerting.published_revisions AS judged ON judged.model = asked.model
