// What is shown of a model, by its kind: the tiles, the charts, the columns, and in words what a job would be held to.

import { ACCURACY, BIAS, BRIER, COVERAGE, EVALUATED, MAE, MULTICLASS_BRIER } from "/page/charts.js";
import { amount, count, duration, figure, maeLimit, percent, UNKNOWN } from "/page/format.js";

export const RULES_OF_QUALITY = ["accuracy_breach", "brier_breach", "multiclass_brier_breach", "mae_breach"];

const interval = ({ accuracy_interval_95: range }) => (range ? `${percent(range[0])} to ${percent(range[1])}` : null);
const has = (value) => value !== null && value !== undefined;
const above = (value, limit) => has(value) && has(limit) && value > limit;

const accuracy = (metrics, limits) => ({ name: "Accuracy", value: percent(metrics.accuracy), under: interval(metrics) && `95 %: ${interval(metrics)}`,
  limit: has(limits.accuracy_below) && `≥ ${percent(limits.accuracy_below, 0)}`, broken: above(limits.accuracy_below, metrics.accuracy) });
const brier = (metrics, limit, under) => ({ name: "Brier score", value: figure(metrics.brier_score), under, limit: has(limit) && `≤ ${figure(limit, 2)}`, broken: above(metrics.brier_score, limit) });

// Whether the rules of quality have what they need: enough evaluated, and for MAE a baseline.
export function judgeable(metrics, limits) {
  if (!has(metrics.evaluated_predictions) || metrics.evaluated_predictions < (limits.min_evaluated ?? 0)) return false;
  return metrics.kind !== "regression" || !has(limits.mae_above_ratio) || has(limits.mae_baseline) || (metrics.baseline_evaluated_predictions ?? 0) >= limits.min_evaluated;
}

// What is still missing for a judgement.
export function missing(metrics, limits) {
  const needed = count(limits.min_evaluated);
  if ((metrics.evaluated_predictions ?? 0) >= limits.min_evaluated) return `${count(metrics.baseline_evaluated_predictions ?? 0)} evaluated before the window, ${needed} needed for a baseline`;
  return `${count(metrics.evaluated_predictions ?? 0)} evaluated, ${needed} needed`;
}

// How far predictions lie from what happened, on the whole.
export function leaning(bias) {
  if (!has(bias)) return "unknown";
  return bias === 0 ? "neither too high nor too low" : bias > 0 ? "too high, on average" : "too low, on average";
}

const accuracyColumns = [["Accuracy", (metrics) => percent(metrics.accuracy)], ["95 %", (metrics) => interval(metrics) ?? UNKNOWN], ["Brier", (metrics) => figure(metrics.brier_score)]];

const KINDS = {
  binary: {
    charts: [[ACCURACY, 230], [BRIER, 170]],
    columns: accuracyColumns,
    tiles: (metrics, limits) => [accuracy(metrics, limits), brier(metrics, limits.brier_above, "0 is perfect"),
      { name: "AUC", value: figure(metrics.auc), under: "0.5 is a coin" },
      { name: "Calibration error", value: figure(metrics.ece), under: `log loss ${figure(metrics.log_loss)}` }],
    glance: (metrics, limits) => [accuracy(metrics, limits), brier(metrics, limits.brier_above)],
    rollback: ({ baseline, ...plan }) => `accuracy falls by more than ${figure(plan.accuracy_drop, 2)} or the Brier score rises by more than ${figure(plan.brier_rise, 2)} against accuracy ${percent(baseline.accuracy)}, Brier ${figure(baseline.brier_score)}`,
    sparkline: { name: "Accuracy", shown: percent, limit: (limits) => limits.accuracy_below, low: true },
  },
  multiclass: {
    charts: [[ACCURACY, 230], [MULTICLASS_BRIER, 170]],
    columns: accuracyColumns,
    tiles: (metrics, limits) => [accuracy(metrics, limits), brier(metrics, limits.multiclass_brier_above, "over all classes, 0 to 2"),
      { name: "Log loss", value: figure(metrics.log_loss), under: "0 is perfect" },
      { name: "Classes", value: count(metrics.classes), under: "that happened" }],
    glance: (metrics, limits) => [accuracy(metrics, limits), brier(metrics, limits.multiclass_brier_above)],
    rollback: ({ baseline, ...plan }) => `accuracy falls by more than ${figure(plan.accuracy_drop, 2)} or the Brier score rises by more than ${figure(plan.multiclass_brier_rise, 2)} against accuracy ${percent(baseline.accuracy)}, Brier ${figure(baseline.brier_score)}`,
    sparkline: { name: "Accuracy", shown: percent, limit: (limits) => limits.accuracy_below, low: true },
  },
  regression: {
    charts: [[MAE, 230], [BIAS, 170]],
    columns: [["MAE", (metrics) => amount(metrics.mae)], ["RMSE", (metrics) => amount(metrics.rmse)], ["Bias", (metrics) => amount(metrics.bias)]],
    tiles: (metrics, limits) => {
      const limit = maeLimit(limits, metrics);
      return [{ name: "Mean absolute error", value: amount(metrics.mae), under: "MAE", limit: limit !== null && `≤ ${amount(limit)}`, broken: above(metrics.mae, limit) },
        { name: "RMSE", value: amount(metrics.rmse), under: "large errors weigh more" },
        { name: "Bias", value: amount(metrics.bias), under: leaning(metrics.bias) },
        { name: "Baseline MAE", value: amount(limits.mae_baseline ?? metrics.baseline_mae), under: limits.mae_baseline === null ? `${count(metrics.baseline_evaluated_predictions)} before the window` : "from the policy" }];
    },
    glance: (metrics, limits) => {
      const limit = maeLimit(limits, metrics);
      return [{ value: `MAE ${amount(metrics.mae)}`, limit: limit !== null && `≤ ${amount(limit)}`, broken: above(metrics.mae, limit) }, { value: `RMSE ${amount(metrics.rmse)}`, limit: `bias ${amount(metrics.bias)}` }];
    },
    rollback: ({ baseline, ...plan }) => `MAE rises by more than ${percent(plan.mae_rise, 0)} against ${amount(baseline.mae)}`,
    sparkline: { name: "Mean absolute error", shown: amount, limit: (limits, metrics) => maeLimit(limits, metrics), low: false },
  },
};

export const known = (kind) => KINDS[kind] ?? KINDS.binary;

export function charts(kind) {
  return [...known(kind).charts, [EVALUATED, 120], [COVERAGE, 120]];
}

// The tiles that every kind has, behind its own.
export function tiles(metrics, limits) {
  const enough = metrics.evaluated_predictions !== null && metrics.evaluated_predictions >= limits.min_evaluated;
  const own = known(metrics.kind).tiles(metrics, limits).map((one) => ({ ...one, broken: enough && one.broken }));
  return [...own,
    { name: "Evaluated", value: count(metrics.evaluated_predictions), under: `${count(metrics.predictions)} new predictions`, limit: `≥ ${count(limits.min_evaluated)}`, broken: metrics.evaluated_predictions !== null && !enough, word: "needs" },
    { name: "Label coverage", value: percent(metrics.label_coverage, 0), under: `${count(metrics.labels_awaited)} awaited` },
    { name: "Label delay", value: duration(metrics.label_delay_p50_seconds), under: `95 % within ${duration(metrics.label_delay_p95_seconds)}` },
    { name: "New labels", value: count(metrics.new_labels), under: "since the training" },
    { name: "Data age", value: duration(metrics.data_freshness_seconds), under: "newest data", ...aged(metrics.data_freshness_seconds, limits.data_freshness_above_seconds) },
    { name: "Pipeline age", value: duration(metrics.pipeline_freshness_seconds), under: "last good run", ...aged(metrics.pipeline_freshness_seconds, limits.pipeline_freshness_above_seconds) },
    metrics.predictions_of_other_kinds ? { name: "Of other kinds", value: count(metrics.predictions_of_other_kinds), under: "predictions not judged here" } : null,
  ].filter(Boolean);
}

function aged(seconds, limit) {
  return { limit: has(limit) && `≤ ${duration(limit)}`, broken: above(seconds, limit) };
}
