// Numbers and times as people read them. Unknown is a dash, never a zero.

import { h } from "/page/dom.js";

export const UNKNOWN = "–";
const MINUS = "−";

export function figure(value, digits = 3) {
  if (value === null || value === undefined) return UNKNOWN;
  return value.toFixed(digits).replace("-", MINUS);
}

export function percent(value, digits = 1) {
  return value === null || value === undefined ? UNKNOWN : `${(value * 100).toFixed(digits)} %`;
}

// An error in the unit of the outcome, of whatever size.
export function amount(value) {
  if (value === null || value === undefined) return UNKNOWN;
  const size = Math.abs(value);
  const text = size !== 0 && (size >= 1e6 || size < 1e-3) ? value.toExponential(2) : value.toLocaleString("en", { maximumSignificantDigits: 4 });
  return text.replaceAll("-", MINUS);
}

// What a mean absolute error is held against: a share of the policy's baseline, or of that before the window.
export function maeLimit(limits, metrics, ratio = "mae_above_ratio") {
  const baseline = limits.mae_baseline ?? metrics.baseline_mae ?? null;
  return baseline === null || (limits[ratio] ?? null) === null ? null : limits[ratio] * baseline;
}

export function count(value) {
  return value === null || value === undefined ? UNKNOWN : value.toLocaleString("en");
}

const UNITS = [
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
];

// Two units at most: 2 d 4 h, 45 s.
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  const size = Math.abs(seconds);
  if (size < 1) return size === 0 ? "0 s" : "< 1 s";
  const first = UNITS.findIndex(([, length]) => size >= length);
  const [name, length] = UNITS[first];
  const whole = Math.floor(size / length);
  const next = UNITS[first + 1];
  const rest = next && whole < 10 ? Math.floor((size - whole * length) / next[1]) : 0;
  return rest ? `${whole} ${name} ${rest} ${next[0]}` : `${whole} ${name}`;
}

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function when(text) {
  const moment = new Date(text);
  return `${DAY.format(moment)}, ${CLOCK.format(moment)}`;
}

export function utc(text) {
  return `${new Date(text).toISOString().replace("T", " ").replace(/\.\d+Z$/, "")} UTC`;
}

// In the reader's zone; the pointer or the focus finds UTC.
export function time(text, { ago = false } = {}) {
  if (!text) return h("span", {}, UNKNOWN);
  const shown = ago ? since(text) : when(text);
  const element = h("time", { datetime: text, title: ago ? `${when(text)} · ${utc(text)}` : utc(text) }, shown);
  if (ago) element.dataset.ago = text;
  return element;
}

export function since(text) {
  const seconds = (Date.now() - new Date(text).getTime()) / 1000;
  if (seconds < 1) return "now";
  if (seconds > 30 * 86400) return DAY.format(new Date(text));
  return `${duration(seconds).replace(/^(\d+ \S+).*/, "$1")} ago`;
}

// Every "5 s ago" on the page moves on, by one timer.
export function keepTime() {
  setInterval(() => {
    for (const element of document.querySelectorAll("time[data-ago]")) {
      const text = since(element.dataset.ago);
      if (element.textContent !== text) element.textContent = text;
    }
  }, 1000);
}

const ALERTS = {
  accuracy_breach: "Accuracy",
  brier_breach: "Brier score",
  multiclass_brier_breach: "Brier score",
  mae_breach: "Mean absolute error",
  data_stale: "Data freshness",
  pipeline_stale: "Pipeline freshness",
};

const TRIGGERS = {
  accuracy_breach: "accuracy breach",
  brier_breach: "Brier breach",
  multiclass_brier_breach: "Brier breach",
  mae_breach: "MAE breach",
  new_labels: "new labels",
};

const ACTIONS = {
  monitor: "Keep an eye on it",
  investigate_now: "Investigate now",
  open_incident: "Open an incident",
};

// A service's own words, with its numbers as long as they need be; the whole stands in the tooltip.
export function words(text) {
  const short = text.replace(/\d+\.\d{4,}/g, (number) => String(Number(Number(number).toPrecision(4))));
  const named = short.replace(/\bbrier_score\b/g, "Brier score").replace(/\bmae\b/g, "MAE").replace(/_/g, " ");
  return named.charAt(0).toUpperCase() + named.slice(1);
}

export const alertName = (id) => ALERTS[id] ?? id;
export const triggerName = (id) => TRIGGERS[id] ?? id;
export const actionName = (id) => ACTIONS[id] ?? id;
export const listed = (names) =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
