// What happens, as it happens. A stream that is lost is said, and what was missed is read again when it is back.

const LOST_AFTER_MS = 4000;

export class Live {
  constructor(onEvent, onState) {
    this.onEvent = onEvent;
    this.onState = onState;
    this.source = null;
    this.opened = false;
    this.timer = 0;
  }

  follow(model) {
    this.source?.close();
    clearTimeout(this.timer);
    this.opened = false;
    const path = model ? `/api/v1/events?model=${encodeURIComponent(model)}` : "/api/v1/events";
    const source = new EventSource(path);
    this.source = source;
    source.addEventListener("open", () => this.#open());
    source.addEventListener("error", () => this.#lost(source, model));
    for (const kind of ["snapshot", "alert", "decision", "job", "resync", "upstream"]) {
      source.addEventListener(kind, (message) => this.#heard(kind, JSON.parse(message.data)));
    }
  }

  #open() {
    clearTimeout(this.timer);
    // A browser that comes back names the last event it saw, unless it saw none: then only reading again tells.
    if (this.opened) this.onEvent("resync", {});
    this.opened = true;
  }

  #heard(kind, data) {
    if (kind === "upstream") this.onState(data.following ? "live" : "upstream-away");
    else this.onEvent(kind, data);
  }

  #lost(source, model) {
    if (source !== this.source) return;
    this.onState("lost");
    // The browser tries again by itself, unless the answer was an error: then it gives up and we do.
    if (source.readyState === EventSource.CLOSED) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        const opened = this.opened;
        this.follow(model);
        this.opened = opened;
      }, LOST_AFTER_MS);
    }
  }
}
