// Charts over time and the reliability diagram, drawn by uPlot in the page's own colours.

import { h } from "/page/dom.js";
import { amount, count, figure, maeLimit, percent } from "/page/format.js";

const SYNC = "over-time";

function colours() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

export class Charts {
  constructor() {
    this.all = [];
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.redraw = () => this.all.forEach((chart) => chart.draw());
    this.dark.addEventListener("change", this.redraw);
    this.sizes = new ResizeObserver((entries) => entries.forEach((entry) => entry.target.chart?.fit()));
  }

  close() {
    this.dark.removeEventListener("change", this.redraw);
    this.sizes.disconnect();
    this.all.forEach((chart) => chart.plot?.destroy());
    this.all = [];
  }

  add(make, height) {
    const chart = new Chart(make, height);
    this.all.push(chart);
    this.sizes.observe(chart.place);
    return chart;
  }

  drop(chart) {
    this.sizes.unobserve(chart.place);
    chart.plot?.destroy();
    this.all = this.all.filter((other) => other !== chart);
  }
}

class Chart {
  constructor(make, height) {
    this.make = make;
    this.height = height;
    this.place = h("div", { class: "plot" });
    this.place.chart = this;
    this.place.style.height = `${height}px`;
    this.input = null;
    this.plot = null;
  }

  // The same shape of chart takes new points in place; anything else is drawn anew.
  show(input) {
    this.input = input;
    this.draw();
  }

  draw() {
    if (!this.input || !this.place.clientWidth) return;
    this.plot?.destroy();
    const { options, data } = this.make(this.input, colours());
    this.plot = new uPlot({ ...options, width: this.place.clientWidth, height: this.height }, data, this.place);
  }

  fit() {
    const width = this.place.clientWidth;
    if (!this.plot) this.draw();
    else if (width && width !== this.plot.width) this.plot.setSize({ width, height: this.height });
  }
}

const seconds = (text) => new Date(text).getTime() / 1000;

function axis(colour, more) {
  return {
    stroke: colour("quiet"), font: "11px system-ui, sans-serif",
    grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, ...more,
  };
}

// A single moment stands in the middle of an hour: of itself it would be stretched over years.
function span(plot, from, to) {
  return from !== null && from === to ? [from - 1800, to + 1800] : [from, to];
}

function frame(colour, series, more) {
  return {
    // To the right, room for half of a time that stands at the edge.
    padding: [12, 28, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: SYNC }, y: false, drag: { x: false, y: false }, points: { size: 7 } },
    axes: [axis(colour, { space: 90, size: 26, values: times }), axis(colour, { size: 52, values: more.values })],
    scales: { x: { time: true, range: span }, y: { range: more.range } },
    series: [{}, ...series],
    ...more.options,
  };
}

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const YEAR = new Intl.DateTimeFormat("en-GB", { month: "short", year: "numeric" });
const MINUTE = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const SECOND = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function times(plot, splits, number, space, step) {
  const format = step < 60 ? SECOND : step < 86400 ? MINUTE : step < 28 * 86400 ? DAY : YEAR;
  let day = "";
  return splits.map((split) => {
    const moment = new Date(split * 1000);
    const text = format.format(moment);
    const today = DAY.format(moment);
    const shown = step < 86400 && today !== day && moment.getHours() === 0 ? today : text;
    day = today;
    return shown;
  });
}

// A range that holds what is measured and the thresholds, with some air, and never a single line's height.
function ranged(values, least, low = -Infinity, high = Infinity) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (!known.length) return [Math.max(low, 0), Math.min(high, 1)];
  const bottom = Math.min(...known);
  const top = Math.max(...known);
  const air = Math.max((top - bottom) * 0.12, (least - (top - bottom)) / 2, 0) || Math.abs(top) * 0.1 || 1;
  return [Math.max(low, bottom - air), Math.min(high, top + air)];
}

function constant(points, value) {
  return points.map(() => value ?? null);
}

// Lines down the chart: a new champion, and what alerts did.
function marks(colour, { changes, transitions }, key) {
  const tones = { incident: colour("incident"), watch: colour("watch"), active: colour("active"), none: colour("good") };
  return (plot) => {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio || 1;
    const line = (moment, tone, dash, text) => {
      const x = Math.round(plot.valToPos(moment, "x", true));
      if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) return;
      ctx.strokeStyle = tone;
      ctx.lineWidth = ratio;
      ctx.setLineDash(dash.map((part) => part * ratio));
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      if (!text) return;
      ctx.setLineDash([]);
      ctx.font = `600 ${10.5 * ratio}px system-ui, sans-serif`;
      const width = ctx.measureText(text).width + 8 * ratio;
      const left = Math.min(x + 3 * ratio, bbox.left + bbox.width - width);
      ctx.fillStyle = colour("surface");
      ctx.fillRect(left, bbox.top + 2 * ratio, width, 16 * ratio);
      ctx.fillStyle = tone;
      ctx.fillText(text, left + 4 * ratio, bbox.top + 14 * ratio);
    };
    ctx.save();
    for (const { at, state, worse } of transitions) {
      const x = plot.valToPos(at, "x", true);
      if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
      if (key) line(at, tones[state], [2, 3], "");
      // A triangle at the foot; its direction says better or worse, so that colour is not all there is.
      ctx.setLineDash([]);
      ctx.fillStyle = tones[state];
      const foot = bbox.top + bbox.height;
      const size = 5 * ratio;
      ctx.beginPath();
      ctx.moveTo(x - size, worse ? foot : foot - 1.6 * size);
      ctx.lineTo(x + size, worse ? foot : foot - 1.6 * size);
      ctx.lineTo(x, worse ? foot - 1.6 * size : foot);
      ctx.fill();
    }
    for (const { at, version } of changes) line(at, colour("accent"), [5, 3], key ? version : "");
    ctx.restore();
  };
}

function readout(place, text) {
  return { setCursor: [(plot) => text(plot.cursor.idx === null || plot.cursor.idx === undefined ? null : plot.cursor.idx, place)] };
}

export function overTime(spec) {
  return (input, colour) => {
    const { points, thresholds, events, told } = input;
    const x = points.map((point) => seconds(point.as_of));
    const values = points.map((point) => spec.value(point.metrics));
    const limits = spec.limits(thresholds);
    const sparse = points.length < 60;
    const line = { label: spec.name, stroke: colour("accent"), width: 1.8, points: { show: sparse, size: 4, fill: colour("accent") }, spanGaps: false };
    const dashed = (tone) => ({ stroke: colour(tone), width: 1.2, dash: [6, 4], points: { show: false } });
    const series = [line, ...limits.map(({ tone }) => dashed(tone))];
    const lines = limits.map(({ value, of }) => (of ? points.map((point) => of(point.metrics)) : constant(points, value)));
    const data = [x, values, ...lines];
    const shown = [...values, ...lines.flat()];
    let bands;
    if (spec.band) {
      const low = points.map((point) => spec.band(point.metrics)?.[0] ?? null);
      const high = points.map((point) => spec.band(point.metrics)?.[1] ?? null);
      const edge = { stroke: "transparent", width: 0, points: { show: false } };
      series.push(edge, edge);
      data.push(high, low);
      shown.push(...low, ...high);
      bands = [{ series: [series.length - 1, series.length], fill: colour("band") }];
    }
    const range = spec.range ? () => spec.range(shown) : () => ranged(shown, spec.least ?? 0.04, spec.low ?? 0, spec.most ?? 1);
    const options = { bands, hooks: { draw: [marks(colour, events, spec.main ?? spec.band !== undefined)], ...readout(input.readout, told) } };
    return { options: frame(colour, series, { range, values: (plot, splits) => splits.map(spec.shown), options }), data };
  };
}

export const ACCURACY = {
  name: "Accuracy", value: (metrics) => metrics.accuracy, band: (metrics) => metrics.accuracy_interval_95, shown: (value) => percent(value, Number.isInteger(value * 100) ? 0 : 1),
  limits: (limits) => (limits.accuracy_below === null ? [] : [{ value: limits.accuracy_below, tone: "incident" }]),
};
export const BRIER = {
  name: "Brier score", value: (metrics) => metrics.brier_score, shown: (value) => figure(value, 2), least: 0.06,
  limits: (limits) => [[limits.brier_above, "watch"], [limits.brier_high_above, "incident"]].filter(([value]) => value !== null).map(([value, tone]) => ({ value, tone })),
};
export const MULTICLASS_BRIER = {
  ...BRIER, most: 2,
  limits: (limits) => [[limits.multiclass_brier_above, "watch"], [limits.multiclass_brier_high_above, "incident"]].filter(([value]) => value !== null).map(([value, tone]) => ({ value, tone })),
};
export const MAE = {
  name: "Mean absolute error", value: (metrics) => metrics.mae, shown: amount, least: 0, most: Infinity, main: true,
  limits: (limits) => [["mae_above_ratio", "watch"], ["mae_high_above_ratio", "incident"]].filter(([ratio]) => limits[ratio] !== null).map(([ratio, tone]) => ({ of: (metrics) => maeLimit(limits, metrics, ratio), tone })),
};
export const BIAS = {
  name: "Bias", value: (metrics) => metrics.bias, shown: amount, least: 0, low: -Infinity, most: Infinity, limits: () => [{ value: 0, tone: "quiet" }],
};
export const COVERAGE = {
  name: "Label coverage", value: (metrics) => metrics.label_coverage, shown: (value) => percent(value, 0), limits: () => [], range: () => [0, 1.02],
};
export const EVALUATED = {
  name: "Evaluated", value: (metrics) => metrics.evaluated_predictions, shown: (value) => (Number.isInteger(value) ? count(value) : ""), limits: (limits) => [{ value: limits.min_evaluated, tone: "watch" }],
  range: (shown) => [0, Math.max(...shown.filter((value) => value !== null), 1) * 1.1],
};

export function reliability(input, colour) {
  const bins = input.bins;
  const most = Math.max(...bins.map((bin) => bin.count), 1);
  const data = [[0, ...bins.map((bin) => bin.mean_probability), 1], [0, ...bins.map(() => null), 1], [null, ...bins.map((bin) => bin.positive_rate), null]];
  const draw = (plot) => {
    const { ctx } = plot;
    const ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.fillStyle = colour("accent");
    ctx.strokeStyle = colour("surface");
    ctx.lineWidth = 1.5 * ratio;
    for (const bin of bins) {
      const size = (3 + 6 * Math.sqrt(bin.count / most)) * ratio;
      ctx.beginPath();
      ctx.arc(plot.valToPos(bin.mean_probability, "x", true), plot.valToPos(bin.positive_rate, "y", true), size, 0, 2 * Math.PI);
      ctx.fill();
      ctx.stroke();
    }
    ctx.restore();
  };
  const shown = (plot, splits) => splits.map((value) => figure(value, 1));
  const options = {
    padding: [12, 14, 0, 0], legend: { show: false }, cursor: { show: false },
    scales: { x: { time: false, range: () => [0, 1] }, y: { range: () => [0, 1] } },
    axes: [axis(colour, { values: shown, size: 26, label: "Predicted probability", labelSize: 18, labelFont: "11px system-ui, sans-serif" }), axis(colour, { values: shown, size: 40, label: "Share that came true", labelSize: 18, labelFont: "11px system-ui, sans-serif" })],
    series: [{}, { stroke: colour("quiet"), width: 1.2, dash: [5, 4], points: { show: false }, spanGaps: true }, { stroke: colour("accent"), width: 1.2, points: { show: false } }],
    hooks: { draw: [draw] },
  };
  return { options, data };
}
