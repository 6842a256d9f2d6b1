-- depends: 0006_metrics_horizons

-- Figures that are the same for several versions, segments or windows are kept once, and without their nulls. Rows of
-- both forms are told alike: old code runs beside this, and rows that it wrote stay until the next boundary.
CREATE OR REPLACE VIEW metrics.published_figures AS
    SELECT latest.model,
           place ->> 'version' AS version,
           place ->> 'segment' AS segment,
           place ->> 'window' AS time_window,
           '{
               "label_coverage": null, "label_delay_p50_seconds": null, "label_delay_p95_seconds": null,
               "accuracy": null, "accuracy_interval_95": null, "brier_score": null, "log_loss": null, "auc": null,
               "ece": null, "positive_rate": null, "predicted_positive_rate": null, "classes": null, "mae": null,
               "rmse": null, "bias": null, "baseline_mae": null, "baseline_evaluated_predictions": null,
               "new_labels": null, "data_freshness_seconds": null, "pipeline_freshness_seconds": null
           }'::jsonb || (figure -> 'metrics') AS metrics,
           latest.snapshot_id, latest.sequence, latest.as_of
    FROM metrics.latest_figures AS latest
    CROSS JOIN LATERAL jsonb_array_elements(latest.figures) AS figure
    CROSS JOIN LATERAL jsonb_array_elements(coalesce(figure -> 'places', jsonb_build_array(figure))) AS place;

COMMENT ON COLUMN metrics.latest_figures.figures IS
    'Sets of figures of the newest snapshot: metrics (what is unknown left out), and the places that have them: version (empty: all together), segment (empty: all), window.';
