// One model: is it still good, and if not, what is being done? The address holds every choice.

import { get } from "/page/api.js";
import { Charts, overTime, reliability } from "/page/charts.js";
import { h, replace, say } from "/page/dom.js";
import { actionName, alertName, amount, count, duration, figure, listed, percent, time, triggerName, UNKNOWN, utc, when, words } from "/page/format.js";
import { charts, judgeable, known, leaning, missing, RULES_OF_QUALITY, tiles } from "/page/kinds.js";
import { PolicyDialog, reasons } from "/page/policy.js";
import { action, job, level, sign, standing, WORDS } from "/page/signs.js";

const WINDOWS = ["1h", "1d", "7d", "30d", "all"];
const RANGES = { "1d": 1, "7d": 7, "30d": 30, "90d": 90, "1y": 365, all: 36500 };
const RANGE = "30d";
const POINTS = 400;
const HISTORY = 200;
const READ_AGAIN_MS = 400;
const RETRY_MS = 5000;
const SEVERITY = { none: 0, active: 1, watch: 2, incident: 3 };

export class ModelView {
  constructor(main, asked, go) {
    Object.assign(this, { main, asked, go, model: asked.model, known: {} });
    this.charts = new Charts();
    this.due = new Map();
    this.readings = new Map();
  }

  shows(asked) {
    return asked.model === this.model;
  }

  open() {
    this.parts = Object.fromEntries(["head", "verdict", "controls", "tiles", "time", "shape", "segments", "alerts", "jobs", "decisions", "history"].map((name) => [name, h("div", { class: `part part-${name}` })]));
    this.build();
    const { head, verdict, controls, tiles, time: over, shape, segments, alerts, jobs, decisions, history } = this.parts;
    this.whole = h("div", { class: "wide" });
    replace(this.main, replace(this.whole, head, verdict, controls, tiles,
      h("div", { class: "columns" }, h("div", { class: "column main-column" }, over, segments, decisions), h("div", { class: "column side-column" }, alerts, jobs, shape, history))));
    this.readAll();
  }

  close() {
    this.closed = true;
    this.charts.close();
    for (const timer of this.due.values()) clearTimeout(timer);
    for (const reading of this.readings.values()) reading.abort();
  }

  choose(asked) {
    const before = this.asked;
    this.asked = asked;
    this.showControls();
    if (before.range !== asked.range) this.read("series");
    if (before.window !== asked.window || before.version !== asked.version) this.read("segments");
    if (["window", "version", "segment"].some((name) => before[name] !== asked[name])) this.read("monitoring");
  }

  change(what) {
    this.go({ ...this.asked, ...what });
  }

  // What each part of the page is read from.
  sources() {
    const { model, asked } = this;
    const days = RANGES[asked.range] ?? RANGES[RANGE];
    return {
      monitoring: ["/api/v1/mlops/monitoring", { model, window: asked.window, version: asked.version, segment: asked.segment }, () => this.showMonitoring()],
      series: ["/api/v1/mlops/monitoring/series", { model, days, points: POINTS }, () => this.showTime()],
      segments: ["/api/v1/mlops/monitoring/segments", { model, window: asked.window, version: asked.version }, () => this.showSegments()],
      transitions: ["/api/v1/mlops/alerts/transitions", { model, limit: HISTORY }, () => { this.showHistory(); this.showTime(); }],
      decisions: ["/api/v1/mlops/retrain/decisions", { model, limit: 12 }, () => this.showDecisions()],
      jobs: ["/api/v1/mlops/retrain/jobs", { model, limit: 10 }, () => { this.showJobs(); this.showVerdict(); }],
    };
  }

  readAll() {
    Object.keys(this.sources()).forEach((name) => this.read(name));
  }

  async read(name) {
    const [path, parameters, show] = this.sources()[name];
    this.readings.get(name)?.abort();
    const reading = new AbortController();
    this.readings.set(name, reading);
    try {
      const answer = await get(path, parameters, reading.signal);
      if (this.closed) return;
      this.known[name] = answer;
      if (name === "monitoring") this.cleared();
      show();
    } catch (error) {
      if (error.name !== "AbortError" && !this.closed) this.fail(name, error);
    } finally {
      if (this.readings.get(name) === reading) this.readings.delete(name);
    }
  }

  later(...names) {
    for (const name of names) this.after(READ_AGAIN_MS, name);
  }

  after(wait, name) {
    if (!this.due.has(name)) this.due.set(name, setTimeout(() => this.dueNow(name), wait));
  }

  // What is being read is let finish: events must not starve a slow answer.
  dueNow(name) {
    this.due.delete(name);
    if (this.readings.has(name)) this.later(name);
    else this.read(name);
  }

  heard(kind, data) {
    if (kind === "resync") this.readAll();
    else if (kind === "snapshot") this.later("monitoring", "series", "segments");
    else if (kind === "alert") {
      this.later("monitoring", "transitions");
      if (data.transition === "state_changed") say(`${data.model} is now ${WORDS[data.state === "none" ? "good" : data.state]}: ${data.reason}`);
    } else if (kind === "decision") this.later("monitoring", "decisions");
    else if (kind === "job") this.later("jobs", "decisions");
  }

  cleared() {
    this.whole.classList.remove("nothing-known");
  }

  fail(name, error) {
    const lost = error.status === 0 || error.status >= 500;
    if (lost) this.after(RETRY_MS, name);
    // The figures speak for the page; the other parts keep what they have.
    if (name !== "monitoring") return;
    const chosen = this.asked.version || this.asked.segment || this.asked.window;
    const wrong = [404, 422].includes(error.status) && chosen && error.title !== "Unknown model";
    replace(this.parts.verdict, h("div", { class: "card problem", role: "alert" }, h("h2", {}, error.title), h("p", {}, error.message.split(" Check (1)")[0]),
      error.check?.length ? [h("p", {}, "What to check:"), h("ol", {}, error.check.map((item) => h("li", {}, item)))] : null,
      h("div", { class: "actions" }, wrong && h("button", { type: "button", class: "button", onclick: () => this.change({ version: "", segment: "", window: "" }) }, "Show the champion, all segments"),
        h("button", { type: "button", class: "button", onclick: () => this.readAll() }, "Try again"), h("a", { class: "button", href: "/", "data-link": true }, "All models"))));
    if (!this.known.monitoring) {
      replace(this.parts.head, h("h1", {}, this.model));
      this.whole.classList.add("nothing-known");
    }
  }

  build() {
    this.readout = h("p", { class: "readout", "aria-hidden": "true" }, "\u00a0");
    this.curve = this.charts.add(reliability, 260);
    this.buildTime("binary");
    replace(this.parts.head, h("h1", {}, this.model));
    replace(this.parts.verdict, h("div", { class: "card verdict" }, h("span", { class: "bone" })));
    for (const [name, title] of [["alerts", "Standing alerts"], ["jobs", "Retraining jobs"], ["decisions", "Decisions"], ["segments", "Segments"]]) replace(this.parts[name], card(title, [], h("span", { class: "bone" })));
    this.showControls();
  }

  // The charts of a kind; they are made anew where the model turns out to be of another.
  buildTime(kind) {
    this.kind = kind;
    for (const { chart } of this.over ?? []) this.charts.drop(chart);
    this.over = charts(kind).map(([spec, height]) => ({ spec, chart: this.charts.add(overTime(spec), height), caption: h("figcaption", {}) }));
    const figures = this.over.map(({ spec, chart, caption }) => h("figure", { class: "chart" }, caption, h("div", { role: "img", class: "chart-image", "aria-label": `${spec.name} over time: not read yet` }, chart.place)));
    this.timeNote = h("p", { class: "quiet note" });
    this.table = h("details", { class: "more" }, h("summary", {}, "The newest points as a table"), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Newest points" }));
    replace(this.parts.time, card("Over time", [h("div", { class: "legend" }, key("line", "value"), kind !== "regression" && key("band", "95 % interval"), key("dash-watch", "threshold"), key("dash-incident", "high"), key("version", "new champion"), h("span", { class: "key" }, h("span", { class: "triangle worse" }), "alerts got worse"), h("span", { class: "key" }, h("span", { class: "triangle better" }), "got better"))],
      this.readout, figures[0], figures[1], h("div", { class: "pair" }, figures[2], figures[3]), this.timeNote, this.table));
  }

  showMonitoring() {
    this.showHead();
    this.showVerdict();
    this.showControls();
    this.showTiles();
    this.showAlerts();
    this.showShape();
    if (this.known.series) this.showTime();
  }

  standing() {
    const { escalation, judged, evaluations } = this.known.monitoring;
    if (escalation.state !== "none") return escalation.state;
    const unsure = RULES_OF_QUALITY.some((id) => evaluations?.[id]?.outcome === "insufficient_data");
    return !judged || unsure ? "waiting" : "good";
  }

  showHead() {
    const { champion, as_of: asOf, snapshot_sequence: sequence } = this.known.monitoring;
    const facts = [champion ? ["Champion ", h("strong", {}, champion.version), " since ", time(champion.changed_at, { ago: true })] : ["No champion named: all versions together"],
      asOf ? [`Snapshot ${count(sequence)}, `, time(asOf, { ago: true })] : ["No snapshot yet"]];
    const focused = this.parts.head.contains(document.activeElement);
    replace(this.parts.head, h("div", { class: "head-line" }, h("h1", {}, this.model), standing(this.standing()), h("span", { class: "grow" }),
      h("button", { type: "button", id: "run-policy", class: "button primary", onclick: () => new PolicyDialog(this.model, () => this.later("decisions", "jobs")).open() }, "Run the policy")),
    h("p", { class: "facts" }, facts.map((fact) => h("span", {}, fact))));
    if (focused) document.getElementById("run-policy").focus();
    document.title = `${WORDS[this.standing()]}: ${this.model} · Trueward`;
  }

  showVerdict() {
    const monitoring = this.known.monitoring;
    if (!monitoring) return;
    const name = this.standing();
    replace(this.parts.verdict, h("div", { class: `card verdict tone-${name}` }, sign(name), h("div", {}, h("p", { class: "answer" }, answerOf(name, monitoring)), h("p", { class: "doing" }, this.doing(name)))));
  }

  doing(name) {
    const last = this.known.jobs?.jobs[0];
    const { mode, fired } = this.known.decisions?.decisions[0] ?? {};
    if (last && ["queued", "running"].includes(last.status)) {
      const cause = listed(last.triggers.map(triggerName));
      if (last.status === "queued") return [`Retraining for ${cause} was queued `, time(last.created_at, { ago: true }), " and waits for a trainer."];
      return [`Retraining for ${cause} runs${last.run.trainer ? ` on ${last.run.trainer}` : ""}, started `, time(last.started_at, { ago: true }), "."];
    }
    if (name === "waiting") return this.known.monitoring.as_of ? "The rules of quality judge once enough predictions have labels. Nothing is in breach as far as is known." : "The first snapshot comes at the next boundary after data arrived.";
    if (name === "good" && fired?.length && mode === "observe") return `Nothing has to be done. The policy would retrain for ${listed(fired.map(triggerName))}, but only observes: run it to have a job.`;
    if (name === "good") return last ? ["Nothing to do. The last retraining ", `${last.status} `, time(last.finished_at ?? last.created_at, { ago: true }), "."] : "Nothing to do.";
    if (last) return [`The last retraining ${last.status} `, time(last.finished_at ?? last.created_at, { ago: true }), mode === "observe" ? "; the policy only observes." : "."];
    return mode === "observe" ? "The policy only observes: no retraining is queued by itself. Run the policy to have one." : "No retraining job yet.";
  }

  showControls() {
    const monitoring = this.known.monitoring;
    const chosen = { window: this.asked.window ?? monitoring?.window, range: RANGES[this.asked.range] ? this.asked.range : RANGE };
    const focused = document.activeElement?.dataset?.choice;
    const group = (name, text, values) => h("div", { class: "segmented", role: "group", "aria-label": text }, h("span", { class: "select-name", "aria-hidden": "true" }, text),
      values.map((value) => h("button", { type: "button", "data-choice": `${name}-${value}`, "aria-pressed": String(chosen[name] === value), onclick: () => this.change({ [name]: value }) }, value)));
    const select = (name, text, options, value) => h("label", { class: "select" }, h("span", { class: "select-name" }, text), options_(h("select", { "data-choice": name, "aria-label": text, onchange: (event) => this.change({ [name]: event.target.value }) }), options, value));
    replace(this.parts.controls, h("div", { class: "tools" }, group("window", "Window", WINDOWS), select("version", "Version", this.versions(), this.asked.version ?? ""), this.segmentNames().length > 1 && select("segment", "Segment", this.segmentNames(), this.asked.segment ?? ""), h("span", { class: "grow" }), group("range", "Range", Object.keys(RANGES))));
    if (focused) this.parts.controls.querySelector(`[data-choice="${CSS.escape(focused)}"]`)?.focus();
  }

  versions() {
    const champion = this.known.monitoring?.champion?.version;
    const seen = new Set([...(this.known.series?.points ?? []).map((point) => point.version), champion, this.asked.version].filter((name) => name && name !== "all"));
    return [["", champion ? `champion (${champion})` : "champion"], ...[...seen].sort().map((name) => [name, name]), ["all", "all together"]];
  }

  segmentNames() {
    const seen = new Set((this.known.segments?.segments ?? []).map((part) => part.segment));
    if (this.asked.segment) seen.add(this.asked.segment);
    return [["", "everything"], ...[...seen].sort().map((name) => [name, name.replace(":", ": ")])];
  }

  showTiles() {
    const { metrics, thresholds: limits, window: over, version, segment } = this.known.monitoring;
    const of = [version === "all" ? "all versions" : version ? `version ${version}` : "no version yet", segment && segment.replace(":", ": "), over === "all" ? "all time" : `the last ${over}`].filter(Boolean).join(", ");
    replace(this.parts.tiles, h("h2", { class: "hidden-words" }, `Figures of ${of}`), h("dl", { class: "tiles", "aria-label": `Figures of ${of}` }, tiles(metrics, limits).map((one) => tile(one.name, one.value, one.under, one.limit, one.broken, one.word))), h("p", { class: "quiet note" }, `Figures of ${of}.`));
  }

  showTime() {
    const { series, monitoring, transitions } = this.known;
    if (!series || !monitoring) return;
    const { points } = series;
    const kind = points.at(-1)?.metrics.kind ?? this.kind;
    if (kind !== this.kind) this.buildTime(kind);
    this.showControls();
    if (!points.length) {
      this.timeNote.textContent = "No snapshot in this range yet: the first comes at the next boundary.";
      return;
    }
    const changes = points.flatMap((point, number) => (number && point.version !== points[number - 1].version ? [{ at: seconds(point.as_of), version: point.version }] : []));
    const states = (transitions?.transitions ?? []).filter((change) => change.transition === "state_changed").map((change) => ({ at: seconds(change.as_of), state: change.state, worse: SEVERITY[change.state] > SEVERITY[change.previous_state] }));
    const told = (index) => this.tell(points, index);
    for (const { spec, chart, caption } of this.over) {
      chart.show({ points, thresholds: monitoring.thresholds, events: { changes, transitions: states }, told, readout: this.readout });
      const values = points.map((point) => spec.value(point.metrics)).filter((value) => value !== null && value !== undefined);
      replace(caption, h("strong", {}, spec.name), h("span", { class: "quiet" }, values.length ? ` ${spec.shown(values.at(-1))}` : " unknown"));
      chart.place.parentElement.setAttribute("aria-label", describe(spec, values, points, changes, states));
    }
    this.tell(points, null);
    const every = series.every > 1 ? ` Every ${ordinal(series.every)} snapshot is shown.` : "";
    this.timeNote.textContent = `The champion's figures over the policy's window (${points.at(-1).window}), ${count(points.length)} snapshots from ${when(points[0].as_of)}.${every}`;
    replace(this.table.lastElementChild, pointsTable(points.slice(-20).reverse(), this.kind));
  }

  tell(points, index) {
    const point = points[index ?? points.length - 1];
    if (!point) return;
    const { metrics } = point;
    this.readout.title = utc(point.as_of);
    replace(this.readout, h("span", { class: "readout-time" }, when(point.as_of)), ...[...known(this.kind).columns.map(([name, shown]) => [name, shown(metrics)]), ["Evaluated", count(metrics.evaluated_predictions)], ["Coverage", percent(metrics.label_coverage, 0)], ["Champion", point.version]].map(([name, value]) => h("span", {}, h("span", { class: "quiet" }, `${name} `), value)));
  }

  showAlerts() {
    const { alerts, evaluations } = this.known.monitoring;
    const quiet = Object.entries(evaluations ?? {}).filter(([id]) => !alerts.some((alert) => alert.alert_id === id));
    replace(this.parts.alerts, card("Standing alerts", [h("span", { class: "quiet" }, alerts.length ? count(alerts.length) : "none")],
      alerts.map((alert) => h("article", { class: "alert", "data-alert": alert.alert_id, "aria-label": alertName(alert.alert_id) },
        h("div", { class: "alert-head" }, h("h3", {}, alertName(alert.alert_id)), level(alert.escalation_level), h("span", { class: "quiet" }, `${alert.severity} severity`)),
        h("p", { title: alert.reason }, words(alert.reason)),
        h("p", { class: "alert-facts" }, h("strong", {}, actionName(alert.recommended_action)), h("span", {}, `streak ${count(alert.breach_streak)}`), h("span", {}, "opened ", time(alert.opened_as_of, { ago: true }))))),
      quiet.length ? h("ul", { class: "rules" }, quiet.map(([id, rule]) => h("li", {}, sign(rule.outcome === "quiet" ? "good" : rule.outcome === "off" ? "cancelled" : "waiting"), h("span", {}, h("strong", {}, alertName(id)), h("span", { class: "rule-words", title: rule.reason }, words(rule.reason)))))) : !alerts.length && h("p", { class: "quiet" }, "No rule has judged a snapshot yet.")));
  }

  showShape() {
    const { metrics } = this.known.monitoring;
    if (metrics.kind === "multiclass") this.showClasses(metrics);
    else if (metrics.kind === "regression") this.showErrors(metrics);
    else this.showReliability();
  }

  showClasses({ class_recall: classes, classes: all }) {
    if (!classes.length) {
      replace(this.parts.shape, card("Recall by class", [], h("p", { class: "quiet" }, "Nothing evaluated in this window yet.")));
      return;
    }
    const rows = classes.map(({ name, support, recall }) => [name, percent(recall), meter(recall, `Recall of ${name}: ${percent(recall)}`), count(support)]);
    const rest = all > classes.length ? ` The ${count(classes.length)} most frequent of ${count(all)} classes are shown.` : "";
    replace(this.parts.shape, card("Recall by class", [h("span", { class: "quiet" }, `${count(all)} classes`)], h("p", { class: "quiet note" }, `Of what turned out to be of a class, the share that was decided so.${rest}`),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Recall by class" }, plainTable(["Class", "Recall", "", "Happened"], rows))));
  }

  showErrors({ mae, rmse, bias, evaluated_predictions: evaluated }) {
    if (mae === null) {
      replace(this.parts.shape, card("Errors", [], h("p", { class: "quiet" }, "Nothing evaluated in this window yet.")));
      return;
    }
    replace(this.parts.shape, card("Errors", [], h("p", { class: "quiet note" }, "In the unit of the outcome. RMSE far above MAE tells of a few large errors; a bias of either sign, of a model that leans one way."),
      facts([["Off by, on average", amount(mae)], ["RMSE", amount(rmse)], ["Predicted minus happened", `${amount(bias)}: ${leaning(bias)}`], ["Evaluated", count(evaluated)]])));
  }

  showReliability() {
    const bins = this.known.monitoring.metrics.reliability.filter((bin) => bin.count > 0);
    if (!bins.length) {
      replace(this.parts.shape, card("Reliability", [], h("p", { class: "quiet" }, "Nothing evaluated in this window yet.")));
      return;
    }
    if (!this.curve.place.isConnected) {
      this.curveImage = h("div", { role: "img", class: "chart-image" }, this.curve.place);
      this.curveTable = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Reliability table" });
      replace(this.parts.shape, card("Reliability", [], h("p", { class: "quiet note" }, "On the dashed line, what is said to happen 7 times in 10 does. Larger points hold more predictions."), this.curveImage, h("details", { class: "more" }, h("summary", {}, "As a table"), this.curveTable)));
    }
    const worst = bins.reduce((one, other) => (Math.abs(other.mean_probability - other.positive_rate) * other.count > Math.abs(one.mean_probability - one.positive_rate) * one.count ? other : one));
    this.curveImage.setAttribute("aria-label", `Reliability diagram of ${bins.length} bins. Farthest off by weight: predicted ${percent(worst.mean_probability, 0)}, came true ${percent(worst.positive_rate, 0)}, ${count(worst.count)} predictions.`);
    replace(this.curveTable, plainTable(["Bin", "Predictions", "Predicted", "Came true"], bins.map((bin) => [`${figure(bin.lower, 1)} to ${figure(bin.upper, 1)}`, count(bin.count), percent(bin.mean_probability), percent(bin.positive_rate)])));
    this.curve.show({ bins });
  }

  showSegments() {
    const { segments } = this.known.segments;
    const limits = this.known.monitoring?.thresholds;
    if (!segments.length) {
      replace(this.parts.segments, card("Segments", [], h("p", { class: "quiet" }, "The policy declares no segments. Name them in its field “segments”, for example {\"region\": [\"eu\", \"us\"]}, and each gets its own figures.")));
      return;
    }
    const kind = segments[0].metrics.kind;
    const decides = kind !== "regression";
    const rows = segments.map(({ segment, metrics }) => {
      const [dimension, ...value] = segment.split(":");
      const broken = limits && metrics.evaluated_predictions >= limits.min_evaluated && known(kind).glance(metrics, limits)[0].broken;
      const [first, second, third] = known(kind).columns.map(([, shown]) => shown(metrics));
      return h("tr", { "aria-current": this.asked.segment === segment ? "true" : null },
        h("th", { scope: "row" }, h("button", { type: "button", class: "as-link", onclick: () => this.change({ segment: this.asked.segment === segment ? "" : segment }) }, h("span", { class: "quiet" }, `${dimension} `), value.join(":"))),
        h("td", { class: "number" }, h("span", { class: broken ? "broken" : "" }, first, broken && h("span", { class: "hidden-words" }, decides ? " (below the threshold)" : " (above the threshold)"))), decides ? h("td", {}, bar(metrics)) : h("td", { class: "number" }, second), h("td", { class: "number" }, third), h("td", { class: "number" }, count(metrics.evaluated_predictions)), kind === "binary" && h("td", { class: "number" }, percent(metrics.positive_rate, 0)), h("td", { class: "number" }, percent(metrics.label_coverage, 0)));
    });
    replace(this.parts.segments, card("Segments", [h("span", { class: "quiet" }, `window ${this.known.segments.window}`)], h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures by segment" }, h("table", { class: "plain" },
      h("caption", { class: "hidden-words" }, "Figures by segment"),
      h("thead", {}, h("tr", {}, ["Segment", ...known(kind).columns.map(([name]) => name), "Evaluated", kind === "binary" && "Positive", "Coverage"].filter(Boolean).map((text) => h("th", { scope: "col", class: text === "Segment" || text === "95 %" ? null : "number" }, text)))), h("tbody", {}, rows)))));
    this.showControls();
  }

  showJobs() {
    const { jobs, next_cursor: more } = this.known.jobs;
    const open = openOnes(this.parts.jobs);
    replace(this.parts.jobs, card("Retraining jobs", [h("span", { class: "quiet" }, jobs.length ? `${count(jobs.length)}${more ? " newest" : ""}` : "none")],
      jobs.length ? jobs.map((one, number) => jobCard(one, open.has(one.job_id) || (number === 0 && !open.size && ["queued", "running"].includes(one.status)))) : h("p", { class: "quiet" }, "No retraining was ever queued for this model.")));
  }

  showDecisions() {
    const { decisions } = this.known.decisions;
    const open = openOnes(this.parts.decisions);
    replace(this.parts.decisions, card("Decisions", [h("span", { class: "quiet" }, decisions.length ? `newest ${count(decisions.length)}` : "none")],
      decisions.length ? decisions.map((one) => decisionCard(one, open.has(one.decision_id))) : h("p", { class: "quiet" }, "The policy has judged no snapshot yet.")));
    this.showVerdict();
  }

  showHistory() {
    const { transitions } = this.known.transitions;
    const shown = transitions.slice(0, 12);
    replace(this.parts.history, card("Alert history", [], shown.length ? h("ol", { class: "history" }, shown.map((change) => h("li", {},
      sign(change.transition === "state_changed" ? (change.state === "none" ? "good" : change.state) : change.transition === "resolved" || change.transition === "de_escalated" ? "down" : "up"),
      h("div", {}, h("p", {}, h("strong", {}, change.transition === "state_changed" ? `${WORDS[change.previous_state === "none" ? "good" : change.previous_state]} → ${WORDS[change.state === "none" ? "good" : change.state]}` : `${alertName(change.alert_id)} ${change.transition.replace("_", "-")}`), " ", time(change.as_of, { ago: true })), h("p", { class: "quiet", title: change.reason }, words(change.reason)))))) : h("p", { class: "quiet" }, "No alert has ever stood for this model.")));
  }
}

function options_(select, options, value) {
  select.append(...options.map(([name, text]) => h("option", { value: name }, text)));
  select.value = options.some(([name]) => name === value) ? value : "";
  return select;
}

function answerOf(name, { alerts, metrics, thresholds, as_of: asOf }) {
  if (!asOf) return "Not known yet: there is no snapshot of this model.";
  if (name === "waiting" && judgeable(metrics, thresholds)) return "Not known yet: the newest snapshot is still to be judged.";
  if (name === "waiting") return `Not known yet: ${missing(metrics, thresholds)}.`;
  if (name === "good") return "Yes. Every rule is quiet at the newest snapshot.";
  const worst = [...alerts].sort((one, other) => rank(other) - rank(one) || other.breach_streak - one.breach_streak)[0];
  if (!worst) return "An alert stands; its details are on their way.";
  const others = alerts.length > 1 ? ` ${count(alerts.length - 1)} more alert${alerts.length > 2 ? "s stand" : " stands"}.` : "";
  return `${name === "active" ? "Mostly" : "No"}. ${words(worst.reason).replace(/\.?$/, ".")} ${actionName(worst.recommended_action)}.${others}`;
}

const rank = (alert) => ({ incident: 2, watch: 1, none: 0 })[alert.escalation_level];
const seconds = (text) => new Date(text).getTime() / 1000;

function ordinal(number) {
  const rest = number % 100;
  const ending = rest > 10 && rest < 14 ? "th" : ({ 1: "st", 2: "nd", 3: "rd" }[number % 10] ?? "th");
  return `${count(number)}${ending}`;
}

function describe(spec, known, points, changes, states) {
  if (!known.length) return `${spec.name} over time: unknown at every snapshot.`;
  const spread = `${spec.name} over time, ${points.length} snapshots from ${when(points[0].as_of)} to ${when(points.at(-1).as_of)}: first ${spec.shown(known[0])}, last ${spec.shown(known.at(-1))}, lowest ${spec.shown(Math.min(...known))}, highest ${spec.shown(Math.max(...known))}.`;
  return `${spread} ${changes.length} changes of champion, ${states.filter((change) => change.at >= seconds(points[0].as_of)).length} changes of the alert state.`;
}

function card(title, aside, ...content) {
  return h("section", { class: "card", "aria-label": title }, h("div", { class: "card-head" }, h("h2", {}, title), h("span", { class: "grow" }), aside), content);
}

function key(kind, text) {
  return h("span", { class: "key" }, h("span", { class: `swatch ${kind}` }), text);
}

function tile(name, value, under, limit, broken, word = "limit") {
  return h("div", { class: `tile ${broken ? "tile-broken" : ""}` }, h("dt", {}, name), h("dd", {}, h("span", { class: "tile-value" }, value, broken && sign("incident"), broken && h("span", { class: "hidden-words" }, " (in breach)")), h("span", { class: "under" }, [under, limit && `${word} ${limit}`].filter(Boolean).join(" · ") || "\u00a0")));
}

function meter(share, said) {
  const element = h("span", { class: "range", role: "img", "aria-label": said }, h("span", { class: "range-band" }));
  element.firstChild.style.left = "0";
  element.firstChild.style.width = `${share * 100}%`;
  return element;
}

function bar(metrics) {
  const interval = metrics.accuracy_interval_95;
  if (!interval) return h("span", { class: "quiet" }, UNKNOWN);
  const element = h("span", { class: "range", role: "img", "aria-label": `95 %: ${percent(interval[0])} to ${percent(interval[1])}` }, h("span", { class: "range-band" }), h("span", { class: "range-dot" }));
  element.firstChild.style.left = `${interval[0] * 100}%`;
  element.firstChild.style.width = `${(interval[1] - interval[0]) * 100}%`;
  element.lastChild.style.left = `${metrics.accuracy * 100}%`;
  return element;
}

function plainTable(heads, rows) {
  return h("table", { class: "plain" }, h("thead", {}, h("tr", {}, heads.map((text, number) => h("th", { scope: "col", class: number ? "number" : null }, text)))), h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, number) => h(number ? "td" : "th", number ? { class: "number" } : { scope: "row" }, cell))))));
}

function pointsTable(points, kind) {
  const { columns } = known(kind);
  return plainTable(["As of", "Champion", ...columns.map(([name]) => name), "Evaluated", "Coverage"], points.map(({ as_of: asOf, version, metrics }) => [time(asOf), version, ...columns.map(([, shown]) => shown(metrics)), count(metrics.evaluated_predictions), percent(metrics.label_coverage, 0)]));
}

function openOnes(part) {
  return new Set([...part.querySelectorAll("details[open]")].map((details) => details.dataset.id));
}

function facts(list) {
  return h("dl", { class: "facts-list" }, list.filter(([, value]) => value !== null && value !== undefined && value !== false).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function artifact(one) {
  return one ? h("code", {}, one.uri) : UNKNOWN;
}

function jobCard(one, open) {
  const { rollback_plan: plan, run, aftermath } = one;
  const life = [["queued", one.created_at], ["started", one.started_at], ["heartbeat", one.status === "running" ? one.heartbeat_at : null], [one.status, one.finished_at]].filter(([, at]) => at);
  return h("details", { class: "entry", "data-id": one.job_id, "data-job": one.status, open },
    h("summary", {}, job(one.status), h("span", { class: "entry-title" }, listed(one.triggers.map(triggerName))), h("span", { class: "grow" }), time(one.created_at, { ago: true })),
    h("div", { class: "entry-body" },
      h("ol", { class: "life" }, life.map(([word, at]) => h("li", {}, h("strong", {}, word), " ", time(at)))),
      run.message && h("p", {}, run.message),
      aftermath && h("p", { class: `aftermath ${aftermath.verdict === "keep" ? "tone-good" : "tone-incident"}` }, sign(aftermath.verdict === "keep" ? "good" : "incident"), h("span", {}, h("strong", {}, aftermath.verdict === "keep" ? "Keep it. " : "Revert to the previous artifact. "), aftermath.reason)),
      h("h3", {}, "Cause"), reasons(one.reasons.filter((reason) => reason.outcome === "fired")),
      h("h3", {}, "Rollback plan"), h("p", {}, `Back to ${plan.previous_version ?? "the previous version"} if ${known(plan.baseline.kind).rollback(plan)} on ${count(plan.baseline.evaluated_predictions)} predictions.`),
      facts([["Job", h("code", {}, one.job_id)], ["Previous artifact", plan.previous_artifact && artifact(plan.previous_artifact)], ["Trainer", run.trainer], ["New version", run.model_version], ["Decision", h("code", {}, one.decision_id)], ["Lease", one.status === "running" && one.lease_expires_at && time(one.lease_expires_at)]])));
}

function decisionCard(one, open) {
  const { evidence } = one;
  const asked = one.asked_by === "request" ? "asked for" : `snapshot ${count(evidence.snapshot_sequence)}`;
  return h("details", { class: "entry", "data-id": one.decision_id, "data-action": one.action, open },
    h("summary", {}, action(one.action), h("span", { class: "entry-title" }, one.fired.length ? `${listed(one.fired.map(triggerName))} fired` : "no trigger fired"), h("span", { class: "grow" }), h("span", { class: "quiet" }, asked), time(evidence.as_of, { ago: true })),
    h("div", { class: "entry-body" }, reasons(one.reasons),
      facts([...known(evidence.metrics.kind).columns.map(([name, shown]) => [name, shown(evidence.metrics)]), ["Evaluated", count(evidence.metrics.evaluated_predictions)], ["New labels", count(evidence.metrics.new_labels)], ["Champion", evidence.champion?.version ?? "none"], ["Artifact", evidence.champion?.artifact && artifact(evidence.champion.artifact)], ["Mode", one.mode], ["Dry run", one.dry_run ? "yes" : "no"],
        ["Alerts cited", evidence.standing_alerts.length ? listed(evidence.standing_alerts.map((alert) => `${alertName(alert.alert_id)} (${alert.escalation_level}, streak ${alert.breach_streak})`)) : "none"], ["Job", one.job_id && h("code", {}, one.job_id)], ["Snapshot", h("code", {}, evidence.snapshot_id)], ["Policy", h("code", { title: evidence.policy_sha256 }, evidence.policy_sha256.slice(0, 16))], ["Decision", h("code", {}, one.decision_id)]])));
}
