// The page: an address is a view, links change the address, events keep the view current.

import { replace, h, say } from "/page/dom.js";
import { keepTime } from "/page/format.js";
import { Live } from "/page/live.js";
import { ModelView } from "/page/model.js";
import { OverviewView } from "/page/overview.js";
import { Silence } from "/page/silence.js";

const main = document.getElementById("main");
const place = document.getElementById("place");
const banner = document.getElementById("banner");
const pill = document.getElementById("live");

const STATES = {
  connecting: ["Connecting", ""],
  live: ["Live", ""],
  lost: ["Stream lost", "Live updates are lost: what you see may be old. The page reconnects by itself and then reads everything again. If it does not, is the gateway running?"],
  "upstream-away": ["Not following", "The gateway cannot follow the topics, so nothing arrives by itself until it can: is Kafka running? Figures are those of the newest snapshot when the page was read."],
};

let view = null;
let silent = "";

function show(state) {
  if (pill.dataset.live === state) return;
  pill.dataset.live = state;
  document.getElementById("live-words").textContent = STATES[state][0];
  warn();
}

function warn() {
  const text = STATES[pill.dataset.live]?.[1] || silent;
  if (banner.textContent === text && banner.hidden === !text) return;
  banner.hidden = !text;
  banner.textContent = text;
}

const silence = new Silence((text) => {
  silent = text;
  warn();
});
const live = new Live((kind, data) => {
  silence.heard(kind, data);
  view?.heard(kind, data);
}, show);

function parameters() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

// Changes the address. Choices within a view replace it; going elsewhere adds to the history.
export function go(query, { push = false } = {}) {
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
  const address = text ? `/?${text}` : "/";
  if (push) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
  route(push);
}

function route(moved) {
  const asked = parameters();
  const Kind = asked.model ? ModelView : OverviewView;
  if (view instanceof Kind && view.shows(asked)) {
    view.choose(asked);
    return;
  }
  view?.close();
  view = new Kind(main, asked, go);
  replace(place, ...crumbs(asked.model));
  document.title = asked.model ? `${asked.model} · Trueward` : "Models · Trueward";
  live.follow(asked.model ?? null);
  view.open();
  if (moved) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
    say(document.title);
  }
}

function crumbs(model) {
  if (!model) return [h("span", { class: "crumb", "aria-current": "page" }, "Models")];
  return [
    h("a", { class: "crumb", href: "/", "data-link": true }, "Models"),
    h("span", { class: "crumb-mark", "aria-hidden": "true" }, "/"),
    h("span", { class: "crumb crumb-here", "aria-current": "page" }, model),
  ];
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-link]");
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  route(true);
});
addEventListener("popstate", () => route(true));
// "/" goes to the search, as in many tools; never while somebody writes.
addEventListener("keydown", (event) => {
  const search = document.getElementById("search");
  if (event.key === "/" && search && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "")) {
    event.preventDefault();
    search.focus();
  }
});

keepTime();
route(false);
