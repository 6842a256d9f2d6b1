// Standings, levels and job states: always a sign and a word, never a colour alone.

import { h, svg } from "/page/dom.js";

const PATHS = {
  incident: ["M8 1.8 14.6 13.4H1.4Z", "M8 6v3.4", "M8 11.3v.1"],
  watch: ["M1.3 8S3.7 3.6 8 3.6 14.7 8 14.7 8 12.3 12.4 8 12.4 1.3 8 1.3 8Z", "M8 6.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6Z"],
  active: ["M4 6.8a4 4 0 0 1 8 0c0 3.4 1.3 4.2 1.3 4.2H2.7S4 10.2 4 6.8Z", "M6.7 13.4h2.6"],
  good: ["M8 1.6a6.4 6.4 0 1 0 0 12.8A6.4 6.4 0 0 0 8 1.6Z", "m5.2 8.2 2 2 3.7-4.2"],
  waiting: ["M8 1.6a6.4 6.4 0 1 0 0 12.8A6.4 6.4 0 0 0 8 1.6Z", "M8 4.6V8l2.3 1.6"],
  queued: ["M3 4.5h10", "M3 8h10", "M3 11.5h6"],
  running: ["M13.6 8A5.6 5.6 0 1 1 10.8 3.2", "M10.6 1v2.6H13"],
  completed: ["m3 8.5 3.4 3.3L13 4.6"],
  failed: ["m4 4 8 8", "m12 4-8 8"],
  cancelled: ["M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8Z", "m3.8 3.8 8.4 8.4"],
  expired: ["M4.5 2h7", "M4.5 14h7", "M5 2.2c0 3 6 8.6 6 11.6", "M11 2.2c0 3-6 8.6-6 11.6"],
  dot: ["M8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4Z"],
  up: ["M8 13V3.4", "m4 7.2 4-4 4 4"],
  down: ["M8 3v9.6", "m4 8.8 4 4 4-4"],
};

export const WORDS = {
  incident: "Incident",
  watch: "Watch",
  active: "Active alert",
  good: "Good",
  waiting: "Waiting for data",
};

export function sign(name) {
  const paths = (PATHS[name] ?? PATHS.dot).map((d) => svg("path", { d }));
  return svg("svg", { class: "sign", viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, paths);
}

export function standing(name) {
  return h("span", { class: `badge tone-${name}`, "data-standing": name }, sign(name), WORDS[name] ?? name);
}

const LEVELS = { incident: ["incident", "Incident"], watch: ["watch", "Watch"], none: ["active", "Active"] };

export function level(name) {
  const [tone, word] = LEVELS[name] ?? ["waiting", name];
  return h("span", { class: `badge tone-${tone}` }, sign(tone), word);
}

const JOBS = { queued: "watch", running: "info", completed: "good", failed: "incident", cancelled: "waiting", expired: "incident" };

export function job(status) {
  return h("span", { class: `badge tone-${JOBS[status] ?? "waiting"}` }, sign(status), status[0].toUpperCase() + status.slice(1));
}

const DONE = {
  noop: ["good", "completed", "Nothing to do"],
  "dry-run-noop": ["waiting", "dot", "Dry run"],
  "queued-retrain": ["watch", "queued", "Retraining queued"],
  "already-queued": ["info", "running", "Already covered by a job"],
};

export function action(name) {
  const [tone, icon, word] = DONE[name] ?? ["waiting", "dot", name];
  return h("span", { class: `badge tone-${tone}` }, sign(icon), word);
}
