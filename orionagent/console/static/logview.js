// Owns a list of log entries on the screen: bounded, appended in batches, following the end unless scrolled up.

import { clock, h, moment } from "./dom.js";

const MOST = 1500;

function draw(entry, showSource) {
  const text = h("div", { class: "text" }, entry.message);
  if (entry.message.length > 900 || entry.message.split("\n").length > 8) {
    text.classList.add("long");
    text.title = "Click to unfold";
    text.addEventListener("click", () => text.classList.toggle("open"));
  }
  const extra = [];
  for (const tag of entry.tags ?? []) extra.push(h("span", { class: "tag" }, `#${tag}`));
  if (entry.metadata && Object.keys(entry.metadata).length) {
    extra.push(Object.entries(entry.metadata).map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("  "));
  }
  const from = [showSource ? entry.source : null, entry.stream === "stderr" ? "stderr" : null].filter(Boolean).join(" · ");
  return h("div", { class: `entry is-${entry.level}`, "data-id": entry.id },
    h("span", { class: "at", title: `${moment(entry.timestamp)}${entry.server ? ` on ${entry.server}` : ""}` }, clock(entry.timestamp)),
    h("span", { class: `level level-${entry.level}` }, entry.level),
    h("span", { class: "from", title: from }, from),
    text,
    extra.length ? h("div", { class: "more" }, extra) : null);
}

export class LogView {
  constructor({ tall = false, showSource = true, empty = "No entries yet." } = {}) {
    this.showSource = showSource;
    this.list = h("div", { class: `log ${tall ? "tall" : "short"}`, tabindex: "0", role: "log", "aria-label": "Log entries" });
    this.jump = h("button", { class: "main small jump", hidden: true, onclick: () => this.toEnd() });
    this.element = h("div", { class: "held" }, this.list, this.jump);
    this.empty = empty;
    this.waiting = [];
    this.seen = new Set();
    this.missed = 0;
    this.following = true;
    this.list.addEventListener("scroll", () => {
      this.following = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 24;
      if (this.following) { this.missed = 0; this.jump.hidden = true; }
    });
  }

  replace(entries) {
    this.waiting = [];
    this.seen = new Set(entries.map((entry) => entry.id));
    this.list.replaceChildren(...(entries.length ? entries.slice(-MOST).map((entry) => draw(entry, this.showSource)) : [h("div", { class: "empty" }, this.empty)]));
    this.toEnd();
  }

  // Many entries may come within one frame: they are drawn together in the next one.
  add(entry) {
    if (entry.id && this.seen.has(entry.id)) return;
    if (entry.id) this.seen.add(entry.id);
    this.waiting.push(() => draw(entry, this.showSource));
    this.schedule();
  }

  note(text) {
    this.waiting.push(() => h("div", { class: "note" }, text));
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
    this.list.append(...drawn.map((make) => make()));
    if (this.following) {
      while (this.list.childElementCount > MOST) this.list.firstElementChild.remove();
      this.list.scrollTop = this.list.scrollHeight;
    } else {
      while (this.list.childElementCount > 3 * MOST) this.list.firstElementChild.remove();
      this.missed += drawn.length;
      this.jump.textContent = `↓ ${this.missed} new`;
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
