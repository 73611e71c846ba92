// Owns the overview page: a card per server, what was logged in the last day, the newest alerts.

import { get } from "./api.js";
import { countBars, LEVEL_COLORS } from "./charts.js";
import { ago, h } from "./dom.js";
import { smallGauges, STATE_CLASS, STATUS_CLASS } from "./gauges.js";
import { LogView } from "./logview.js";
import { state } from "./state.js";

export function serverLink(hostname) { return `#/server/${encodeURIComponent(hostname)}`; }

function card(server) {
  const scripts = server.report?.scripts ?? [];
  const shown = scripts.slice(0, 12);
  return h("article", { class: "panel card", "data-server": server.hostname },
    h("div", { class: "row" },
      h("h2", {}, h("a", { href: serverLink(server.hostname) }, server.name ?? server.hostname)),
      h("span", { class: `pill push ${STATUS_CLASS[server.status] ?? ""}` }, server.status)),
    smallGauges(server),
    h("div", { class: "scripts-line" },
      shown.map((script) => h("span", { class: `pill ${STATE_CLASS[script.state] ?? ""}`, title: `${script.name}: ${script.state}` }, script.name)),
      scripts.length > shown.length ? h("a", { class: "small", href: serverLink(server.hostname) }, `and ${scripts.length - shown.length} more`) : null,
      scripts.length ? null : h("span", { class: "muted small" }, "no scripts")),
    h("div", { class: "muted small" }, `heartbeat ${ago(server.last_seen_at)}`, server.ip ? ` · ${server.ip}` : "", server.report ? ` · agent ${server.report.agentVersion}` : ""));
}

function nothingYet() {
  return h("section", { class: "panel empty" }, h("h2", {}, "No server has reported yet"),
    h("p", {}, "Point an agent here and its first heartbeat appears within seconds."),
    h("code", {}, `orion setup --server --api-url=${location.origin}`));
}

export function overview(main, signal) {
  const cards = h("section", { class: "cards", "aria-label": "Servers" });
  const counts = h("section", { class: "panel" });
  const alerts = h("section", { class: "panel" });
  const view = new LogView({ empty: "No entries yet." });
  main.replaceChildren(cards, h("div", { class: "halves" }, counts, alerts),
    h("section", { class: "panel" }, h("div", { class: "row" }, h("h2", {}, "Latest entries"), h("a", { class: "push small", href: "#/logs" }, "All logs")), view.element));

  const drawServers = () => {
    const servers = [...state.servers.values()].filter((server) => server.status !== "archived");
    cards.replaceChildren(...(servers.length ? servers.map(card) : [nothingYet()]));
  };
  const drawAlerts = () => {
    // A script that crashes over and over is one line with a count.
    const groups = new Map();
    for (const alert of state.alerts.filter((one) => one.status === "active")) {
      const key = `${alert.rule_name}|${alert.source_name}|${alert.server_hostname}`;
      const group = groups.get(key) ?? { latest: alert, count: 0 };
      group.count += 1;
      groups.set(key, group);
    }
    alerts.replaceChildren(h("div", { class: "row" }, h("h2", {}, "Active alerts"), h("a", { class: "push small", href: "#/alerts" }, "All alerts")),
      ...(groups.size ? [...groups.values()].slice(0, 4).map(({ latest, count }) => h("div", { class: "alert" },
        h("div", { class: "row" }, h("strong", {}, latest.rule_name), count > 1 ? h("span", { class: "muted small" }, `${count} times`) : null,
          latest.server_hostname ? h("span", { class: "muted small" }, `on ${latest.server_hostname}`) : null, h("span", { class: "push muted small" }, ago(latest.created_at))),
        h("div", {}, latest.message ?? ""))) : [h("p", { class: "empty" }, "Nothing is wrong.")]));
  };
  const drawCounts = async () => {
    const stats = await get(`${state.base()}/stats?window=24h`);
    if (signal.aborted) return;
    const { total = 0, error = 0, fatal = 0, warn = 0 } = stats.log_counts;
    counts.replaceChildren(
      h("div", { class: "row" }, h("h2", {}, "Entries, last 24 hours"), h("span", { class: "push muted small" },
        `${total.toLocaleString()} in all · ${(error + fatal).toLocaleString()} errors · ${warn.toLocaleString()} warnings`)),
      countBars(stats.chart_data),
      h("div", { class: "legend" }, ["info", "warn", "error", "debug"].map((level) => {
        const item = h("span", {}, level);
        item.style.setProperty("--of", LEVEL_COLORS[level]);
        return item;
      })));
  };
  const drawLogs = async () => {
    const entries = await get(`${state.base()}/logs?limit=60`);
    if (!signal.aborted) view.replace(entries);
  };
  drawServers();
  drawAlerts();
  const shrug = () => {};
  drawCounts().catch(shrug);
  drawLogs().catch(shrug);
  state.addEventListener("servers", drawServers, { signal });
  state.addEventListener("alerts", drawAlerts, { signal });
  state.addEventListener("stats", () => drawCounts().catch(shrug), { signal });
  state.addEventListener("log", (event) => view.add(event.detail), { signal });
  state.addEventListener("link", () => { if (state.connected) drawLogs().catch(shrug); }, { signal });
}
