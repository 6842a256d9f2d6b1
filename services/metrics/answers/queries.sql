-- name: add_class_sets
INSERT INTO class_set (class_set_id, names)
SELECT class_set_id, names::jsonb FROM unnest($1::bigint[], $2::text[]) AS seen (class_set_id, names)
WHERE NOT EXISTS (SELECT FROM class_set WHERE class_set.class_set_id = seen.class_set_id)
ON CONFLICT DO NOTHING

-- name: read_class_sets
SELECT class_set_id, names FROM class_set WHERE class_set_id = ANY($1::bigint[])

-- name: add_classes
INSERT INTO class (class_id, name)
SELECT class_id, name FROM unnest($1::bigint[], $2::text[]) AS seen (class_id, name)
WHERE NOT EXISTS (SELECT FROM class WHERE class.class_id = seen.class_id)
ON CONFLICT DO NOTHING

-- name: read_classes
SELECT class_id, name FROM class WHERE class_id = ANY($1::bigint[])

-- name: read_every_class
SELECT class_id, name FROM class

-- name: save_answers
-- The row in prediction says whether a prediction is known: an answer that outlived its row is written over.
INSERT INTO answer (prediction_key, answer)
SELECT prediction_key, answer FROM unnest($1::uuid[], $2::bytea[]) AS said (prediction_key, answer)
ON CONFLICT (prediction_key) DO UPDATE SET answer = excluded.answer

-- name: read_answers
SELECT prediction_key, answer FROM answer WHERE prediction_key = ANY($1::uuid[])

-- name: read_class_counts
SELECT series_id, width, start, classes
FROM bucket_detail JOIN unnest($1::bigint[], $2::integer[], $3::bigint[]) AS touched (series_id, width, start)
    USING (series_id, width, start)

-- name: add_to_details
INSERT INTO bucket_detail (series_id, width, start, error, absolute_error, squared_error, classes)
SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bigint[], $4::numeric[], $5::numeric[], $6::numeric[], $7::bytea[])
ON CONFLICT (series_id, width, start) DO UPDATE
SET error = bucket_detail.error + excluded.error,
    absolute_error = bucket_detail.absolute_error + excluded.absolute_error,
    squared_error = bucket_detail.squared_error + excluded.squared_error,
    classes = excluded.classes

-- name: read_detail_totals
-- Of models $5, one row a series and window, of series that are not binary: each tile is a range of the primary key.
SELECT series.version_id, series.segment, tile.time_window,
       sum(sums.error)::text AS error, sum(sums.absolute_error)::text AS absolute_error,
       sum(sums.squared_error)::text AS squared_error, string_agg(sums.classes, ''::bytea) AS classes
FROM series JOIN version USING (version_id)
CROSS JOIN unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[]) AS tile (time_window, width, since, until)
CROSS JOIN LATERAL (
    SELECT sum(error) AS error, sum(absolute_error) AS absolute_error, sum(squared_error) AS squared_error,
           string_agg(classes, ''::bytea) AS classes
    FROM bucket_detail AS detail
    WHERE detail.series_id = series.series_id AND detail.width = tile.width
      AND detail.start >= tile.since AND detail.start < tile.until
) AS sums
WHERE version.kind <> 'binary' AND series.model_id = ANY($5::bigint[])
GROUP BY series.version_id, series.segment, tile.time_window
HAVING sum(sums.error) IS NOT NULL
