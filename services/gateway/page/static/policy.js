// "Run the policy": what it would do comes first, then, once asked, it is done. The answer shows its reasons.

import { get, post } from "/page/api.js";
import { h, replace, say } from "/page/dom.js";
import { time, triggerName, words } from "/page/format.js";
import { action, sign } from "/page/signs.js";

const OUTCOMES = { fired: ["incident", "up", "Fired"], quiet: ["good", "good", "Quiet"], off: ["waiting", "cancelled", "Off"], insufficient_data: ["waiting", "waiting", "Too little data"] };
const LOOKS = 10;

export function reasons(list) {
  return h("ul", { class: "reasons" }, list.map((reason) => {
    const [tone, icon, word] = OUTCOMES[reason.outcome] ?? ["waiting", "dot", reason.outcome];
    return h("li", {}, h("span", { class: `badge tone-${tone}` }, sign(icon), word), h("span", { class: "reason" }, h("strong", {}, triggerName(reason.trigger)), " ", h("span", { class: "reason-text", title: reason.text }, words(reason.text))));
  }));
}

export class PolicyDialog {
  constructor(model, onDone) {
    Object.assign(this, { model, onDone });
    this.body = h("div", { class: "dialog-body", "aria-live": "polite" });
    this.foot = h("div", { class: "dialog-foot" });
    this.element = h("dialog", { class: "dialog", "aria-labelledby": "policy-title", onclose: () => this.element.remove() },
      h("div", { class: "dialog-head" }, h("h2", { id: "policy-title" }, "Run the policy"),
        h("button", { type: "button", class: "button bare", "aria-label": "Close", onclick: () => this.element.close() }, sign("failed"))),
      this.body, this.foot);
  }

  open() {
    document.body.append(this.element);
    this.element.showModal();
    this.ask();
  }

  async ask() {
    replace(this.body, h("p", { class: "quiet" }, "Asking what the policy says of the newest snapshot…"));
    replace(this.foot);
    try {
      // One key for the one question: pressing twice, or a lost answer, makes no second job.
      this.key = crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("-");
      const answer = await get("/api/v1/mlops/retrain/policy", { model: this.model, dry_run: true });
      this.propose(answer);
    } catch (error) {
      this.fail(error, () => this.ask());
    }
  }

  propose(answer) {
    if (answer.should_retrain === null) {
      replace(this.body, h("p", {}, "No snapshot of this model was judged yet, so the policy has nothing to say. Wait for the next snapshot, then ask again."));
      this.buttons(["Close", () => this.element.close(), "primary"]);
      return;
    }
    const covering = Object.values(answer.execution.covered_by);
    const words = !answer.should_retrain ? "Dry run: the policy sees no cause to retrain." : covering.length ? `Dry run: the policy would retrain, but ${covering[0]} already covers the cause.` : "Dry run: the policy would queue a retraining job.";
    replace(this.body, h("p", { class: "verdict-line" }, words), reasons(answer.reasons), this.basis(answer),
      h("p", { class: "quiet" }, "Nothing was done yet. Running it decides on the newest snapshot; a cause that a job covers makes no second job, however often you ask."));
    this.buttons(["Cancel", () => this.element.close()], ["Run it now", () => this.execute(), "primary"]);
    say(words);
  }

  async execute() {
    this.buttons(["Running…", () => {}, "primary", true]);
    try {
      const answer = await post("/api/v1/mlops/retrain/requests", { model: this.model, dry_run: false, requested_by: "the page" }, { "Idempotency-Key": this.key });
      await this.settle(answer, 0);
    } catch (error) {
      this.fail(error, () => this.execute());
    }
  }

  async settle(answer, looks) {
    if (answer.status !== "pending") {
      this.show(answer);
      return;
    }
    if (looks === LOOKS) {
      replace(this.body, h("p", {}, "The request is on its way, but no decision came yet. Is the retrain service running? It will decide when it is; this page then shows the decision below."));
      this.buttons(["Look again", () => this.execute(), "primary"]);
      return;
    }
    await new Promise((done) => setTimeout(done, 1000));
    await this.settle(await get(answer.location), looks + 1);
  }

  show(answer) {
    const words = { "queued-retrain": "A retraining job was queued.", "already-queued": "A job already covers the cause: no second one was made.", noop: "No cause to retrain: nothing was queued." }[answer.action] ?? answer.action;
    replace(this.body, h("p", { class: "verdict-line", "data-outcome": answer.action }, action(answer.action), " ", words),
      answer.execution.job_id && h("p", {}, "Job ", h("code", {}, answer.execution.job_id)), reasons(answer.reasons), this.basis(answer));
    this.buttons(["Done", () => this.element.close(), "primary"]);
    say(words);
    this.onDone();
  }

  basis(answer) {
    const champion = answer.champion ? `champion ${answer.champion.version}` : "no champion";
    return h("p", { class: "quiet" }, `On snapshot ${answer.snapshot_sequence}, `, time(answer.as_of), `, ${champion}, mode ${answer.mode}, ${answer.metrics.evaluated_predictions} evaluated.`);
  }

  fail(error, again) {
    replace(this.body, h("div", { class: "problem" }, h("h3", {}, error.title ?? "Something went wrong"), h("p", {}, error.message)));
    this.buttons(["Close", () => this.element.close()], ["Try again", again, "primary"]);
  }

  buttons(...list) {
    replace(this.foot, list.map(([text, onclick, tone, disabled]) => h("button", { type: "button", class: `button ${tone ?? ""}`, onclick, disabled }, text)));
    if (!this.element.contains(document.activeElement) || document.activeElement === document.body) this.foot.lastElementChild?.focus();
  }
}

