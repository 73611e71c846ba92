// Owns a list of log entries on the screen: bounded, appended in batches, following the end unless scrolled up.

import { clock, day, h, moment } from "./dom.js";

const MOST = 1500;
const LONG_CHARACTERS = 900;
const LONG_LINES = 8;

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function message(entry) {
  const text = h("div", { class: "text" }, entry.message);
  if (entry.message.length <= LONG_CHARACTERS && entry.message.split("\n").length <= LONG_LINES) return text;
  text.classList.add("long");
  const fold = h("button", { class: "small quiet fold", "aria-expanded": "false", onclick: () => {
    const open = text.classList.toggle("open");
    fold.setAttribute("aria-expanded", String(open));
    fold.textContent = open ? "Less" : "More";
  } }, "More");
  return h("div", {}, text, fold);
}

export class LogView {
  // `earlier(id)` brings what stands above an entry; without it there is no way up.
  constructor({ tall = false, showServer = false, empty = "No entries yet.", earlier = null } = {}) {
    this.showServer = showServer;
    this.earlier = earlier;
    this.older = h("button", { class: "small quiet older", hidden: true, onclick: () => this.prepend() }, "Earlier entries");
    // Not live for screen readers: a log that talks without end is of no use to anybody.
    this.list = h("div", { class: `log ${tall ? "tall" : "short"}${showServer ? " with-server" : ""}`, tabindex: "0", role: "log", "aria-live": "off", "aria-label": "Log entries" });
    this.jump = h("button", { class: "main small jump", hidden: true, onclick: () => this.toEnd() });
    this.element = h("div", { class: tall ? "held grow" : "held" }, this.list, this.jump);
    this.empty = empty;
    this.waiting = [];
    this.seen = new Set();
    // What came while an answer is awaited; null while none is.
    this.arrived = null;
    this.missed = 0;
    this.following = true;
    this.list.addEventListener("scroll", () => {
      this.following = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 24;
      if (this.following) { this.missed = 0; this.jump.hidden = true; }
    });
  }

  draw(entry) {
    const extra = (entry.tags ?? []).map((tag) => h("span", { class: "tag" }, `#${tag}`));
    const metadata = Object.entries(entry.metadata ?? {});
    if (metadata.length) extra.push(metadata.map(([key, value]) => `${key}=${shown(value)}`).join("  "));
    const from = entry.stream === "stderr" ? `${entry.source} · stderr` : entry.source;
    return h("div", { class: `entry is-${entry.level}`, "data-id": entry.id, "data-at": entry.timestamp },
      h("span", { class: "at", title: `${moment(entry.timestamp)}, ${entry.timestamp}` }, clock(entry.timestamp)),
      h("span", { class: `level level-${entry.level}` }, entry.level),
      this.showServer ? h("span", { class: "from", title: entry.server ?? "" }, entry.server ?? "–") : null,
      h("span", { class: "from", title: entry.server ? `${from} on ${entry.server}` : from }, from),
      message(entry),
      extra.length ? h("div", { class: "more" }, extra) : null);
  }

  // An entry with the line that names its day, where that is another than the one before.
  rows(entry) {
    const date = day(entry.timestamp);
    const row = this.draw(entry);
    const rows = date === this.date ? [row] : [h("div", { class: "note day" }, date), row];
    this.date = date;
    return rows;
  }

  async prepend() {
    const top = this.list.querySelector(".entry");
    if (!top || this.older.disabled) return;
    this.older.disabled = true;
    try {
      const entries = await this.earlier(top.dataset.id);
      if (!top.isConnected) return;
      const [shownDate, below] = [this.date, this.list.scrollHeight - this.list.scrollTop];
      this.date = null;
      const rows = entries.flatMap((entry) => this.rows(entry));
      this.joinDays(top, rows);
      this.date = shownDate;
      this.older.after(...rows);
      this.older.hidden = !entries.length;
      this.list.scrollTop = this.list.scrollHeight - below;
    } finally { this.older.disabled = false; }
  }

  // Between what is put above `top` and `top` itself stands a day exactly where it changes.
  joinDays(top, rows) {
    const head = top.previousElementSibling;
    const date = day(top.dataset.at);
    if (!rows.length) return;
    if (head === this.older && this.date !== date) rows.push(h("div", { class: "note day" }, date));
    if (head.classList.contains("day") && this.date === date) head.remove();
  }

  // Drops the oldest rows over the limit: they can be had again.
  trim() {
    while (this.list.childElementCount > MOST + 1) {
      this.older.nextSibling.remove();
      this.older.hidden = !this.earlier;
    }
  }

  replace(entries) {
    this.waiting = [];
    this.seen = new Set(entries.map((entry) => entry.id));
    // Today goes without saying, until another day has been named.
    this.date = day(Date.now());
    this.older.hidden = !this.earlier || !entries.length;
    this.list.replaceChildren(this.older, ...(entries.length ? entries.slice(-MOST).flatMap((entry) => this.rows(entry)) : [h("div", { class: "empty" }, this.empty)]));
    this.toEnd();
  }

  // Shows what `read` brings. What arrives meanwhile is held back and follows it: an answer is older than it looks.
  // With `keep`, what is shown stays and only what is new is appended: so it is after a reconnection.
  async load(read, { keep = false } = {}) {
    const arrived = [];
    this.arrived = arrived;
    try {
      const entries = await read();
      if (this.arrived !== arrived) return;
      this.arrived = null;
      if (keep && this.seen.size) for (const entry of entries) this.add(entry);
      else this.replace(entries);
    } finally {
      if (this.arrived === arrived) this.arrived = null;
      if (this.arrived === null) for (const entry of arrived) this.add(entry);
    }
  }

  // Many entries may come within one frame: they are drawn together in the next one.
  add(entry) {
    if (this.arrived) { this.arrived.push(entry); return; }
    if (entry.id && this.seen.has(entry.id)) return;
    if (entry.id) this.seen.add(entry.id);
    this.waiting.push(() => this.rows(entry));
    this.schedule();
  }

  note(text) {
    this.waiting.push(() => [h("div", { class: "note" }, text)]);
    this.schedule();
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => this.flush());
  }

  flush() {
    this.scheduled = false;
    const drawn = this.waiting.splice(0).slice(-MOST);
    if (!drawn.length) return;
    this.list.querySelector(".empty")?.remove();
    this.list.append(...drawn.flatMap((make) => make()));
    if (this.following) {
      this.trim();
      this.list.scrollTop = this.list.scrollHeight;
    } else {
      // Removing what is above would move what is being read.
      while (this.list.childElementCount > 3 * MOST) this.list.lastElementChild.remove();
      this.missed += drawn.length;
      this.jump.textContent = `↓ ${this.missed.toLocaleString()} new`;
      this.jump.hidden = false;
    }
    if (this.seen.size > 20000) this.seen = new Set([...this.seen].slice(-5000));
  }

  toEnd() {
    this.following = true;
    this.missed = 0;
    this.jump.hidden = true;
    this.list.scrollTop = this.list.scrollHeight;
  }
}
