// Owns the logs page: filters over what is kept, and what arrives now. The filters are in the address.

import { get, token } from "./api.js";
import { h, toast } from "./dom.js";
import { LogView } from "./logview.js";
import { state } from "./state.js";

const LEVELS = ["trace", "verbose", "debug", "info", "warn", "error", "fatal"];
const FILTERS = ["search", "level", "source", "server", "tags", "from", "to"];
const LIMIT = 500;

const words = (text) => text.split(",").filter(Boolean);

function matches(wanted, entry) {
  const levels = words(wanted.level);
  const text = `${entry.message} ${JSON.stringify(entry.metadata ?? "")} ${(entry.tags ?? []).join(" ")}`.toLowerCase();
  return (!levels.length || levels.includes(entry.level)) && (!wanted.source || entry.source === wanted.source)
    && (!wanted.server || entry.server === wanted.server) && (!wanted.tags || (entry.tags ?? []).includes(wanted.tags))
    && (!wanted.to || entry.timestamp.slice(0, 10) <= wanted.to) && (!wanted.from || entry.timestamp.slice(0, 10) >= wanted.from)
    && text.includes(wanted.search.toLowerCase());
}

export async function logsPage(main, signal, _argument, given) {
  const wanted = Object.fromEntries(FILTERS.map((name) => [name, given.get(name) ?? ""]));
  const earlier = (id) => get(`${state.base()}/logs?${query({ limit: LIMIT, before: id })}`).catch((error) => { toast(error.message, true); return []; });
  const view = new LogView({ tall: true, showServer: state.servers.size > 1, earlier });
  let paused = false;

  const query = (more = {}) => new URLSearchParams(Object.entries({ ...wanted, ...more }).filter(([, value]) => value !== "")).toString();

  const load = async (how) => {
    view.empty = query() ? "Nothing matches these filters." : "No entries yet.";
    clear.hidden = !query();
    try { await view.load(() => get(`${state.base()}/logs?${query({ limit: LIMIT })}`), how); } catch (error) { if (!signal.aborted) toast(error.message, true); }
  };
  const change = (name, value) => {
    wanted[name] = value;
    history.replaceState(null, "", query() ? `#/logs?${query()}` : "#/logs");
    load();
  };

  const chips = h("div", { class: "chips", role: "group", "aria-label": "Levels" }, LEVELS.map((level) => {
    const pressed = () => words(wanted.level).includes(level);
    const chip = h("button", { class: `small level-${level}`, "aria-pressed": String(pressed()), onclick: () => {
      change("level", LEVELS.filter((one) => (one === level ? !pressed() : words(wanted.level).includes(one))).join(","));
      chip.setAttribute("aria-pressed", String(pressed()));
    } }, level);
    return chip;
  }));

  const choose = (name, all, values) => h("select", { "aria-label": name, onchange: (event) => change(name, event.target.value) },
    h("option", { value: "" }, all), [...new Set([...values, wanted[name]])].filter(Boolean).map((value) => h("option", { value, selected: value === wanted[name] }, value)));
  const date = (name, label) => h("label", { class: "date" }, label, h("input", { type: "date", value: wanted[name], title: "A day, in UTC", onchange: (event) => change(name, event.target.value) }));

  let typing = 0;
  const search = h("input", { type: "search", value: wanted.search, placeholder: "Search message, metadata, tags  ( / )", "aria-label": "Search", oninput: (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => change("search", event.target.value.trim()), 250);
  } });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    search.focus();
  }, { signal });

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
  const clear = h("a", { class: "small", href: "#/logs", hidden: true }, "Clear filters");

  const [{ sources }, { tags }] = await Promise.all([get(`${state.base()}/sources`), get(`${state.base()}/tags`)]);
  if (signal.aborted) return;
  main.replaceChildren(h("section", { class: "panel fill" },
    h("div", { class: "filters" }, search, choose("source", "Every source", sources.map((source) => source.name)),
      choose("server", "Every server", [...state.servers.keys()]), tags.length ? choose("tags", "Every tag", tags) : null,
      h("span", { class: "break" }), chips, date("from", "from"), date("to", "to"), clear, h("span", { class: "push" }), pause, save),
    view.element));
  await load();
  state.addEventListener("log", (event) => { if (!paused && matches(wanted, event.detail)) view.add(event.detail); }, { signal });
  state.addEventListener("skipped", (event) => { if (!paused) view.note(`${event.detail.count.toLocaleString()} entries of a burst are not shown live; search finds them`); }, { signal });
  state.addEventListener("link", () => { if (state.connected && !paused) load({ keep: true }); }, { signal });
}
