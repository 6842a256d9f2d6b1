-- depends: 0006_metrics_horizons

-- What tells the gateway whether an answer that it keeps still is so: the row's number, and the transaction that wrote the
-- row last. Whatever changes the row changes the revision, and none comes twice while the server runs.
CREATE VIEW metrics.published_revisions AS
    SELECT model, sequence || '.' || xmin::text AS revision FROM metrics.latest_figures;
COMMENT ON VIEW metrics.published_revisions IS
    'Per model, changes with its newest snapshot and the figures by version, segment and window.';

CREATE VIEW alerting.published_revisions AS
    SELECT model, snapshot_sequence || '.' || xmin::text AS revision FROM alerting.models;
COMMENT ON VIEW alerting.published_revisions IS 'Per model, changes with its state, its standing alerts and its evaluations.';

GRANT SELECT ON metrics.published_revisions, alerting.published_revisions TO trueward_gateway;
