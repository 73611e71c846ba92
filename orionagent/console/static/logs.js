// Owns the logs page: filters over what is kept, and what arrives now.

import { get, token } from "./api.js";
import { h, toast } from "./dom.js";
import { LogView } from "./logview.js";
import { state } from "./state.js";

const LEVELS = ["trace", "verbose", "debug", "info", "warn", "error", "fatal"];

export async function logsPage(main, signal) {
  const view = new LogView({ tall: true, empty: "Nothing matches." });
  const wanted = { levels: new Set(), source: "", server: "", text: "", tags: "" };
  let paused = false;

  const query = (more = {}) => new URLSearchParams(Object.entries({
    search: wanted.text, level: [...wanted.levels].join(","), source: wanted.source, server: wanted.server, tags: wanted.tags, ...more,
  }).filter(([, value]) => value !== "")).toString();

  const load = async () => {
    try {
      const entries = await get(`${state.base()}/logs?${query({ limit: 500 })}`);
      if (!signal.aborted) view.replace(entries);
    } catch (error) { toast(error.message, true); }
  };

  const matches = (entry) => (!wanted.levels.size || wanted.levels.has(entry.level))
    && (!wanted.source || entry.source === wanted.source) && (!wanted.server || entry.server === wanted.server)
    && (!wanted.tags || (entry.tags ?? []).includes(wanted.tags))
    && (!wanted.text || `${entry.message} ${JSON.stringify(entry.metadata ?? "")} ${(entry.tags ?? []).join(" ")}`.toLowerCase().includes(wanted.text.toLowerCase()));

  const chips = h("div", { class: "chips", role: "group", "aria-label": "Levels" }, LEVELS.map((level) => {
    const chip = h("button", { class: `small level-${level}`, "aria-pressed": "false", onclick: () => {
      if (!wanted.levels.delete(level)) wanted.levels.add(level);
      chip.setAttribute("aria-pressed", String(wanted.levels.has(level)));
      load();
    } }, level);
    return chip;
  }));

  const choose = (name, all, values) => h("select", { "aria-label": name, onchange: (event) => { wanted[name] = event.target.value; load(); } },
    h("option", { value: "" }, all), values.map((value) => h("option", { value }, value)));

  let typing = 0;
  const search = h("input", { type: "search", placeholder: "Search message, metadata, tags", "aria-label": "Search", oninput: (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => { wanted.text = event.target.value.trim(); load(); }, 250);
  } });

  const pause = h("button", { "aria-pressed": "false", onclick: () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Resume" : "Pause";
    if (!paused) load();
  } }, "Pause");

  const save = h("button", { title: "Save what matches, at most 10,000 entries", onclick: async () => {
    const reply = await fetch(`${state.base()}/logs/export?${query({ format: "csv", limit: 10000 })}`, { headers: { Authorization: `Bearer ${token.get()}` } });
    if (!reply.ok) { toast("cannot save the entries", true); return; }
    const address = URL.createObjectURL(await reply.blob());
    h("a", { href: address, download: `${state.project}-logs.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  } }, "Save as CSV");

  const [{ sources }, { tags }] = await Promise.all([get(`${state.base()}/sources`), get(`${state.base()}/tags`)]);
  if (signal.aborted) return;
  main.replaceChildren(h("section", { class: "panel" },
    h("div", { class: "filters" }, search, choose("source", "Every source", sources.map((source) => source.name)),
      choose("server", "Every server", [...state.servers.keys()]), tags.length ? choose("tags", "Every tag", tags) : null,
      h("span", { class: "break" }), chips, h("span", { class: "push" }), pause, save),
    view.element));
  await load();
  state.addEventListener("log", (event) => { if (!paused && matches(event.detail)) view.add(event.detail); }, { signal });
  state.addEventListener("skipped", (event) => { if (!paused) view.note(`${event.detail.count.toLocaleString()} entries of a burst are not shown live; search finds them`); }, { signal });
  state.addEventListener("link", () => { if (state.connected && !paused) load(); }, { signal });
}
