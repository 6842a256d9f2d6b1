// Snapshots that should come and do not: the stream may be in order, and what is shown is old all the same.

import { get } from "/page/api.js";
import { duration, when } from "/page/format.js";

const LOOK_MS = 5000;
const INTERVALS = 3;
const ROOM_MS = 10_000;

export class Silence {
  constructor(tell) {
    Object.assign(this, { tell, newest: 0, clock: null, ahead: 0 });
    setInterval(() => this.look(), LOOK_MS);
    this.look();
  }

  heard(kind, data) {
    if (kind !== "snapshot") return;
    this.newest = Math.max(this.newest, Date.parse(data.as_of));
    this.tell("");
  }

  // On the event clock nothing is ever due.
  isOverdue() {
    const age = Date.now() + this.ahead - this.newest;
    return this.clock?.clock === "wall" && this.newest > 0 && age > INTERVALS * this.clock.interval_seconds * 1000 + ROOM_MS;
  }

  // Before anything is said, the system is asked: a model of which nothing is heard may have been retired.
  async look() {
    if (this.clock && !this.isOverdue()) return;
    let status;
    try {
      status = await get("/api/v1/system/status");
    } catch {
      return; // The lost stream has been said already, or will be.
    }
    this.clock = status.clock;
    // By the gateway's clock: the reader's may be wrong.
    this.ahead = Date.parse(status.at) - Date.now();
    this.newest = Math.max(this.newest, Date.parse(this.clock?.last_as_of ?? 0));
    this.tell(this.isOverdue() ? this.words() : "");
  }

  words() {
    const due = duration(this.clock.interval_seconds);
    return `No snapshot since ${when(new Date(this.newest).toISOString())}, though one is due every ${due}: what you see is of then. Is the metrics service running, and keeping up? “trueward status” tells.`;
  }
}
