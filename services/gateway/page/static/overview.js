// Every model at a glance. The server searches, sorts and pages; the page shows what it is given.

import { get } from "/page/api.js";
import { h, replace, say, svg } from "/page/dom.js";
import { alertName, count, duration, time, UNKNOWN } from "/page/format.js";
import { judgeable, known as ofKind, missing } from "/page/kinds.js";
import { job, sign, standing, WORDS } from "/page/signs.js";

const STANDINGS = ["incident", "watch", "active", "waiting", "good"];
const SORTS = {
  worst: "Worst first",
  name: "Name",
  accuracy: "Lowest accuracy",
  brier: "Highest Brier",
  freshness: "Oldest data",
  streak: "Longest streak",
};
const PAGE = 50;
const MOST = 200;
const POINTS = 30;
const TYPING_MS = 200;
const READ_AGAIN_MS = 1500;

export class OverviewView {
  constructor(main, asked, go) {
    Object.assign(this, { main, asked, go, models: [], rows: new Map(), next: null, counts: null });
    this.reading = null;
    this.timers = new Map();
  }

  shows() {
    return true;
  }

  open() {
    const search = h("input", {
      id: "search", type: "search", placeholder: "Find a model", "aria-label": "Find a model by name",
      autocomplete: "off", spellcheck: "false", oninput: () => this.later("typing", TYPING_MS, () => this.change({ q: search.value.trim() })),
    });
    search.value = this.asked.q ?? "";
    this.sort = h("select", { "aria-label": "Sort by", onchange: () => this.change({ sort: this.sort.value === "worst" ? "" : this.sort.value }) },
      Object.entries(SORTS).map(([value, text]) => h("option", { value }, text)));
    this.sort.value = SORTS[this.asked.sort] ? this.asked.sort : "worst";
    this.search = search;
    this.chips = h("div", { class: "chips", role: "group", "aria-label": "Show only" });
    this.body = h("tbody", {});
    this.foot = h("div", { class: "foot" });
    this.table = h("table", { class: "models", "aria-busy": "true" },
      h("caption", { class: "hidden-words" }, "Models, with their state, figures against thresholds and last retraining job"),
      h("thead", {}, h("tr", {}, ["State", "Model", "Accuracy", "Brier", "Lately", "Data age", "Streak", "Last job", "As of"].map(
        (text, number) => h("th", { scope: "col", class: [2, 3, 5, 6].includes(number) ? "number" : null }, text)))),
      this.body);
    replace(this.main,
      h("div", { class: "wide" },
        h("div", { class: "head-line" }, h("h1", {}, "Models"), h("p", { class: "lead", id: "lead" }, "\u00a0")),
        h("div", { class: "tools" }, this.chips, h("span", { class: "grow" }),
          h("span", { class: "search" }, search, h("kbd", { "aria-hidden": "true" }, "/")),
          h("label", { class: "select" }, h("span", { class: "select-name" }, "Sort"), this.sort)),
        h("div", { class: "card table-card" }, this.table), this.foot));
    replace(this.body, Array.from({ length: 8 }, () => h("tr", { class: "bones", "aria-hidden": "true" }, h("td", { colspan: "9" }, h("span", { class: "bone" })))));
    this.watcher = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.more());
    this.watcher.observe(this.foot);
    this.read();
  }

  close() {
    this.reading?.abort();
    this.watcher.disconnect();
    for (const timer of this.timers.values()) clearTimeout(timer);
  }

  later(name, wait, action) {
    clearTimeout(this.timers.get(name));
    this.timers.set(name, setTimeout(action, wait));
  }

  change(what) {
    this.go({ ...this.asked, ...what });
  }

  choose(asked) {
    this.asked = asked;
    this.sort.value = SORTS[asked.sort] ? asked.sort : "worst";
    if (document.activeElement !== this.search) this.search.value = asked.q ?? "";
    this.read();
  }

  parameters() {
    const { q, state, sort } = this.asked;
    return { q, state: STANDINGS.includes(state) ? state : null, sort: SORTS[sort] ? sort : null, points: POINTS };
  }

  async read() {
    this.reading?.abort();
    const reading = new AbortController();
    this.reading = reading;
    this.table.setAttribute("aria-busy", "true");
    try {
      const limit = Math.min(MOST, Math.max(PAGE, this.models.length));
      const answer = await get("/api/v1/overview", { ...this.parameters(), limit }, reading.signal);
      this.again(answer);
      this.tell();
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error);
    } finally {
      if (this.reading === reading) {
        this.reading = null;
        this.table.setAttribute("aria-busy", "false");
      }
    }
  }

  // What is listed already keeps its row, and with it the reader's place.
  again(answer) {
    const focused = document.activeElement?.closest?.("tr")?.dataset.model;
    const before = this.rows;
    this.models = [];
    this.rows = new Map();
    this.body.replaceChildren();
    this.take(answer, before);
    if (focused !== undefined) this.rows.get(focused)?.element.querySelector("a").focus({ preventScroll: true });
  }

  // Events that move models: the list is read again, but one that was read on far only has its counts told.
  // One that is being read is let finish: events must not starve a slow answer.
  async refresh() {
    if (this.reading) {
      this.later("events", READ_AGAIN_MS, () => this.refresh());
      return;
    }
    this.due = false;
    if (this.models.length <= MOST) {
      await this.read();
      return;
    }
    try {
      this.counts = (await get("/api/v1/overview", { ...this.parameters(), limit: 1 })).counts;
      this.showChips();
      this.tell();
    } catch {
      // The counts stay as they were; the next event asks again.
    }
  }

  async more() {
    if (!this.next || this.reading) return;
    const reading = new AbortController();
    this.reading = reading;
    try {
      this.take(await get("/api/v1/overview", { ...this.parameters(), limit: PAGE, cursor: this.next }, reading.signal));
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error);
    } finally {
      if (this.reading === reading) this.reading = null;
    }
  }

  take(answer, before = new Map()) {
    this.counts = answer.counts;
    this.next = answer.next_cursor;
    const fresh = answer.models.filter((model) => !this.rows.has(model.model));
    this.models.push(...fresh);
    this.body.append(...fresh.map((model) => this.row(model, before.get(model.model)?.element)));
    this.showChips();
    this.showFoot();
    // What was seen stays watched: an observer speaks only of changes.
    this.watcher.unobserve(this.foot);
    this.watcher.observe(this.foot);
  }

  tell() {
    const all = total(this.counts);
    const bad = this.counts.incident + this.counts.watch;
    const lead = all === 0 ? "" : bad === 0 ? `${plural(all, "model")}; none needs anybody now.` : `${count(bad)} of ${plural(all, "model")} ${bad === 1 ? "needs" : "need"} somebody.`;
    document.getElementById("lead").textContent = this.asked.q ? `${plural(all, "model")} with “${this.asked.q}” in the name.` : lead;
    say(`${plural(this.shownTotal(), "model")} listed.`);
  }

  shownTotal() {
    return STANDINGS.includes(this.asked.state) ? this.counts[this.asked.state] : total(this.counts);
  }

  showChips() {
    const chosen = STANDINGS.includes(this.asked.state) ? this.asked.state : "";
    const focused = document.activeElement?.dataset?.chip;
    const chip = (value, text, number) => h("button", {
      type: "button", class: `chip ${value ? `tone-${value}` : ""}`, "data-chip": value || "all", "aria-pressed": String(chosen === value),
      onclick: () => this.change({ state: chosen === value ? "" : value }),
    }, value && sign(value), text, h("span", { class: "chip-count" }, count(number)));
    replace(this.chips, chip("", "All", total(this.counts)), STANDINGS.map((name) => chip(name, name === "active" ? "Active" : name === "waiting" ? "Waiting" : WORDS[name], this.counts[name])));
    if (focused) this.chips.querySelector(`[data-chip="${focused}"]`)?.focus();
  }

  showFoot() {
    this.table.parentElement.hidden = !this.models.length;
    if (this.next) {
      replace(this.foot, h("button", { type: "button", class: "button", onclick: () => this.more() }, `Show more (${count(this.models.length)} of ${count(this.shownTotal())})`));
      return;
    }
    if (this.models.length) {
      replace(this.foot, this.models.length > PAGE && h("p", { class: "quiet" }, `All ${count(this.models.length)} shown.`));
      return;
    }
    replace(this.foot, this.asked.q || this.asked.state ? this.nothingFound() : nothingYet());
  }

  nothingFound() {
    return h("div", { class: "empty" }, h("h2", {}, "No model matches"),
      h("p", {}, "Nothing has this name and this state at the moment."),
      h("button", { type: "button", class: "button", onclick: () => { this.search.value = ""; this.change({ q: "", state: "" }); } }, "Show all models"));
  }

  fail(error) {
    // What was read stays; only its age is said.
    replace(this.foot, h("div", { class: "empty problem", role: "alert" }, h("h2", {}, error.title ?? "Something went wrong"), h("p", {}, error.message),
      h("button", { type: "button", class: "button", onclick: () => this.read() }, "Try again")));
    if (!this.models.length) this.body.replaceChildren();
    this.later("retry", 5000, () => this.read());
  }

  row(model, kept) {
    const cells = kept ?? h("tr", { "data-model": model.model, "data-standing": model.standing, onclick: (event) => {
      if (!event.target.closest("a") && !getSelection().toString()) this.go({ model: model.model }, { push: true });
    } });
    this.rows.set(model.model, { element: cells, model });
    this.fill(cells, model);
    return cells;
  }

  fill(element, model) {
    const { metrics, thresholds } = model;
    const limits = thresholds ?? {};
    const enough = metrics.evaluated_predictions >= (limits.min_evaluated ?? 0);
    const { glance, sparkline: lately } = ofKind(metrics.kind);
    const [first, second] = glance(metrics, limits);
    element.dataset.standing = model.standing;
    const cells = [
      h("td", { class: "c-state" }, standing(model.standing)),
      h("th", { scope: "row", class: "c-model" }, h("a", { href: `/?model=${encodeURIComponent(model.model)}`, "data-link": true }, model.model),
        h("span", { class: "under" }, underName(model))),
      h("td", { class: "c-accuracy number", "data-label": first.name ?? "Error" }, glanced(first, enough)),
      h("td", { class: "c-brier number", "data-label": second.name ?? "Error" }, glanced(second, enough)),
      h("td", { class: "c-spark" }, sparkline(model.sparkline, lately.limit(limits, metrics), lately)),
      h("td", { class: "c-fresh number", "data-label": "Data age" }, against(duration(metrics.data_freshness_seconds), limits.data_freshness_above_seconds, (limit) => `≤ ${duration(limit)}`, metrics.data_freshness_seconds > limits.data_freshness_above_seconds)),
      h("td", { class: "c-streak number", "data-label": "Streak" }, model.longest_streak ? h("strong", {}, count(model.longest_streak)) : h("span", { class: "quiet" }, UNKNOWN)),
      h("td", { class: "c-job", "data-label": "Last job" }, model.last_job ? [job(model.last_job.status), h("span", { class: "under" }, time(model.last_job.created_at, { ago: true }))] : h("span", { class: "quiet" }, "None")),
      h("td", { class: "c-asof", "data-label": "As of" }, time(model.as_of, { ago: true })),
    ];
    if (!element.firstChild) {
      element.append(...cells);
      return;
    }
    // The cell with the link stays the same element: it may hold the focus.
    cells.forEach((cell, number) => {
      const old = element.children[number];
      if (cell.tagName === "TH") old.querySelector(".under").textContent = cell.querySelector(".under").textContent;
      else old.replaceWith(cell);
    });
  }

  heard(kind, data) {
    const row = this.rows.get(data.model);
    if (kind === "snapshot" && row) this.snapshot(row, data);
    if (kind === "alert" && data.transition === "state_changed") {
      say(`${data.model}: ${WORDS[data.state === "none" ? "good" : data.state]}`);
    }
    if (this.moves(kind, row) && !this.due) {
      this.due = true;
      this.later("events", READ_AGAIN_MS, () => this.refresh());
    }
  }

  // Whether an event changes the list or its order: that is the server's to say.
  moves(kind, row) {
    if (kind !== "snapshot") return ["resync", "alert", "job"].includes(kind);
    if (!row) return this.models.length < PAGE && !this.asked.q && !this.asked.state;
    const { standing: now, metrics, thresholds } = row.model;
    const enough = thresholds !== null && judgeable(metrics, thresholds);
    return !thresholds || (now === "waiting" && enough) || (now === "good" && !enough);
  }

  snapshot(row, data) {
    const { model } = row;
    if (model.snapshot_sequence !== null && data.snapshot_sequence <= model.snapshot_sequence) return;
    Object.assign(model, { snapshot_sequence: data.snapshot_sequence, as_of: data.as_of, champion: data.version ?? model.champion });
    model.metrics = { ...model.metrics, ...data.metrics };
    const lately = data.metrics.kind === "regression" ? data.metrics.mae : data.metrics.accuracy;
    model.sparkline = [...model.sparkline, lately ?? null].slice(-POINTS);
    this.fill(row.element, model);
  }
}

function underName(model) {
  const worst = model.alerts.toSorted((one, other) => other.breach_streak - one.breach_streak)[0];
  const parts = [model.champion ? `champion ${model.champion}` : "no champion named"];
  if (worst) parts.push(`${alertName(worst.alert_id)}: ${worst.severity}`);
  else if (model.standing === "waiting") parts.push(model.thresholds ? missing(model.metrics, model.thresholds) : `${count(model.metrics.evaluated_predictions ?? 0)} evaluated`);
  return parts.join(" · ");
}

function against(shown, limit, text, broken) {
  return [
    h("span", { class: broken ? "broken" : "value" }, shown, broken && h("span", { class: "hidden-words" }, " (in breach)")),
    h("span", { class: "under" }, limit === null || limit === undefined ? "\u00a0" : text(limit)),
  ];
}

function glanced({ value, limit, broken }, enough) {
  return against(value, limit || null, (text) => text, enough && broken);
}

const WIDTH = 120;
const HEIGHT = 28;

function sparkline(values, threshold, { name, shown, low: lowIsBad }) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return h("span", { class: "quiet" }, UNKNOWN);
  const limit = threshold ?? known[0];
  const low = Math.min(...known, limit);
  const high = Math.max(...known, limit);
  const room = Math.max(high - low, lowIsBad ? 0.02 : high * 0.02) || 1;
  const last = known.at(-1);
  const broken = threshold !== null && threshold !== undefined && (lowIsBad ? last < threshold : last > threshold);
  const x = (number) => ((number / (values.length - 1)) * (WIDTH - 4) + 2).toFixed(1);
  const y = (value) => (HEIGHT - 3 - ((value - low) / room) * (HEIGHT - 6)).toFixed(1);
  let line = "";
  values.forEach((value, number) => {
    if (value !== null) line += `${line && values[number - 1] !== null ? "L" : "M"}${x(number)} ${y(value)}`;
  });
  const words = `${name} over the last ${values.length} snapshots: from ${shown(known[0])} to ${shown(last)}`;
  return svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words },
    threshold !== null && threshold !== undefined && svg("path", { class: "spark-limit", d: `M0 ${y(threshold)}H${WIDTH}` }),
    svg("path", { class: "spark-line", d: line }),
    svg("circle", { class: broken ? "spark-end broken-end" : "spark-end", cx: x(values.findLastIndex((value) => value !== null)), cy: y(known.at(-1)), r: "2.2" }));
}

function nothingYet() {
  return h("div", { class: "empty" }, h("h2", {}, "No model yet"),
    h("p", {}, "A model is here as soon as something is published for it: a prediction, a registered version or a policy."),
    h("pre", {}, "trueward publish predictions predictions.jsonl\ntrueward publish labels labels.jsonl"),
    h("p", { class: "quiet" }, "Or watch a year of flights go by: make demo"));
}

const total = (counts) => Object.values(counts).reduce((sum, number) => sum + number, 0);
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
