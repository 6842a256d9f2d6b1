-- depends: 0007_metrics_changed_keys 0007_metrics_figures

-- Every batch asks for the newest of all: without it that is a look at every model.
CREATE INDEX model_by_removed_through ON metrics.model (removed_through) WHERE removed_through IS NOT NULL;

-- A batch changes every bucket of its minutes, and so do the batches of all instances: where a page has room for its rows
-- once more, the new ones stay in it, and no index is written to.
ALTER TABLE metrics.bucket SET (fillfactor = 50);
ALTER TABLE metrics.label_bucket SET (fillfactor = 50);
