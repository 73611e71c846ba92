// Owns the overview page: how things stand, every server, what was logged in the last day, alerts, newest entries.

import { grouped } from "./alertlist.js";
import { get } from "./api.js";
import { countBars, LEVEL_COLORS } from "./charts.js";
import { ago, framed, h, plural } from "./dom.js";
import { Fleet, inState } from "./fleet.js";
import { LogView } from "./logview.js";
import { update } from "./morph.js";
import { state } from "./state.js";

const shrug = () => {};

function nothingYet() {
  return h("section", { class: "panel empty" }, h("h2", {}, "No server has reported yet"),
    h("p", {}, "Point an agent here and its first heartbeat appears within seconds."),
    h("code", {}, `orion setup --server --api-url=${location.origin}`));
}

const tile = (name, value, detail, href, bad) => h(href ? "a" : "div", { class: bad ? "panel tile bad" : "panel tile", href, "data-key": name },
  h("span", { class: "muted small" }, name), h("strong", {}, value), h("span", { class: "muted small" }, detail));

function tiles(servers, counts) {
  const count = (status) => servers.filter((server) => server.status === status).length;
  // What a silent server last said of its scripts says nothing about now.
  const scripts = (status) => servers.filter((server) => server.status !== "offline").reduce((sum, server) => sum + inState(server, status).length, 0);
  const active = state.alerts.filter((alert) => alert.status === "active");
  const [offline, partial, crashed, stopped] = [count("offline"), count("partial"), scripts("crashed"), scripts("stopped")];
  const known = (words) => words.filter(Boolean).join(" · ");
  const errors = (counts?.error ?? 0) + (counts?.fatal ?? 0);
  return [
    tile("Servers", offline ? `${offline} offline` : `${servers.length} online`, known([offline && `${servers.length - offline} of ${servers.length} online`, partial && `${partial} with a script down`]) || "every script runs", null, offline > 0),
    tile("Scripts", crashed ? `${crashed} crashed` : `${scripts("running")} running`, known([crashed && `${scripts("running")} running`, stopped && `${stopped} stopped`, offline && `unknown on ${plural(offline, "server")}`]) || "none down", null, crashed > 0),
    tile("Active alerts", active.length.toLocaleString(), active.length ? `newest ${ago(active[0].created_at)}` : "nothing is wrong", "#/alerts", active.length > 0),
    tile("Errors, 24 hours", counts ? errors.toLocaleString() : "–", counts ? `of ${plural(counts.total ?? 0, "entry", "entries")}` : "", "#/logs?level=error,fatal", false),
  ];
}

export function overview(main, signal) {
  const top = h("section", { class: "tiles", "aria-label": "Summary" });
  const fleet = new Fleet();
  const empty = nothingYet();
  const counts = h("section", { class: "panel" });
  const alerts = h("section", { class: "panel" });
  const view = new LogView({ empty: "No entries yet.", showServer: state.servers.size > 1 });
  main.replaceChildren(top, empty, fleet.element, h("div", { class: "halves" }, counts, alerts),
    h("section", { class: "panel" }, h("div", { class: "row" }, h("h2", {}, "Latest entries"), h("a", { class: "push small", href: "#/logs" }, "All logs")), view.element));
  let totals = null;

  const drawServers = () => {
    const servers = [...state.servers.values()].filter((server) => server.status !== "archived");
    top.hidden = !servers.length;
    empty.hidden = servers.length > 0;
    update(top, tiles(servers, totals));
    fleet.show(servers);
  };
  const drawAlerts = () => {
    const groups = grouped(state.alerts.filter((one) => one.status === "active"));
    update(alerts, h("div", { class: "row" }, h("h2", {}, "Active alerts"), h("a", { class: "push small", href: "#/alerts" }, "All alerts")),
      groups.length ? groups.slice(0, 4).map(({ latest, all }) => h("div", { class: "alert", "data-key": latest.id },
        h("div", { class: "row" }, h("strong", {}, latest.rule_name), all.length > 1 ? h("span", { class: "muted small" }, `${all.length} times`) : null,
          latest.server_hostname ? h("span", { class: "muted small" }, `on ${latest.server_hostname}`) : null, h("span", { class: "push muted small" }, ago(latest.created_at))),
        h("div", {}, latest.message ?? ""))) : h("p", { class: "empty" }, "Nothing is wrong."),
      groups.length > 4 ? h("a", { class: "small", href: "#/alerts", "data-key": "more" }, `and ${groups.length - 4} more`) : null);
  };
  const drawCounts = async () => {
    const stats = await get(`${state.base()}/stats?window=24h`);
    if (signal.aborted) return;
    totals = stats.log_counts;
    const { total = 0, error = 0, fatal = 0, warn = 0 } = totals;
    update(counts,
      h("div", { class: "row" }, h("h2", {}, "Entries, last 24 hours"), h("span", { class: "push muted small" },
        `${total.toLocaleString()} in all · ${plural(error + fatal, "error")} · ${plural(warn, "warning")}`)),
      countBars(stats.chart_data),
      h("div", { class: "legend" }, ["info", "warn", "error", "debug"].map((level) => {
        const item = h("span", {}, level);
        item.style.setProperty("--of", LEVEL_COLORS[level]);
        return item;
      })));
    draw();
  };
  const readLogs = (how) => view.load(() => get(`${state.base()}/logs?limit=60`), how).catch(shrug);
  const draw = framed(() => { if (!signal.aborted) { drawServers(); drawAlerts(); } });
  drawServers();
  drawAlerts();
  drawCounts().catch(shrug);
  readLogs();
  for (const kind of ["servers", "alerts", "tick"]) state.addEventListener(kind, draw, { signal });
  state.addEventListener("stats", () => drawCounts().catch(shrug), { signal });
  state.addEventListener("log", (event) => view.add(event.detail), { signal });
  state.addEventListener("link", () => { if (state.connected) { readLogs({ keep: true }); drawCounts().catch(shrug); } }, { signal });
}
