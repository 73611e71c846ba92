// Owns one server's page: large charts, scripts with their buttons, commands, its entries.

import { get } from "./api.js";
import { ago, duration, framed, gigabytes, h, megabytes, percent, plural, toast } from "./dom.js";
import { largeGauges, STATE_CLASS, STATUS_CLASS } from "./gauges.js";
import { LogView } from "./logview.js";
import { update } from "./morph.js";
import { state } from "./state.js";

const ACTIONS = ["start", "stop", "restart"];
const crashedFirst = (one, other) => (other.state === "crashed") - (one.state === "crashed");
const shrug = () => {};

function aboutRows(server) {
  const report = server.report ?? {};
  const facts = [
    ["Agent", report.agentVersion], ["Up", duration(report.uptimeSeconds)], ["Address", server.ip], ["Scope", report.scope === "container" ? "container" : "host"],
    ["Offline buffer", report.buffer ? `${plural(report.buffer.entries, "entry", "entries")}, ${report.buffer.droppedTotal.toLocaleString()} dropped in all` : "–"],
    ["Stolen CPU", percent(report.cpu?.stealPercent)],
  ];
  return [facts.filter(([, value]) => value).map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value))),
    (report.disk?.mounts ?? []).map((mount) => h("tr", {}, h("th", { class: "mono", scope: "row" }, mount.path), h("td", {}, `${percent(mount.percent)} of ${gigabytes(mount.totalGb)} (${mount.fstype})`)))];
}

const COLUMNS = [["Name"], ["State"], ["Up"], ["PID", "number"], ["CPU", "number"], ["Memory", "number"], ["Restarts", "number"]];

function scriptRow(script, buttons) {
  return h("tr", { "data-script": script.name, "data-key": script.name },
    h("td", { class: "who" }, h("strong", { title: script.name }, script.name), script.source !== script.name ? h("span", { class: "muted small" }, ` → ${script.source}`) : null),
    h("td", {}, h("span", { class: `pill ${STATE_CLASS[script.state] ?? ""}` }, script.state)),
    h("td", {}, script.uptimeSeconds === undefined ? "–" : duration(script.uptimeSeconds)),
    h("td", { class: "number mono" }, script.pid ?? "–"),
    h("td", { class: "number" }, percent(script.cpuPercent)),
    h("td", { class: "number" }, megabytes(script.memoryMb)),
    h("td", { class: "number" }, script.restarts ?? 0),
    h("td", {}, h("div", { class: "row buttons" }, buttons)));
}

export function serverPage(main, signal, hostname) {
  const head = h("div", { class: "row" });
  const charts = h("div", { class: "halves" });
  const scripts = h("section", { class: "panel" });
  const about = h("section", { class: "panel" });
  const history = h("section", { class: "panel" });
  const view = new LogView({ empty: "No entries from this server yet." });
  const logsLink = `#/logs?server=${encodeURIComponent(hostname)}`;
  const missing = h("section", { class: "panel empty" }, h("h2", {}, `No server called ${hostname}`),
    h("p", {}, "It appears here with its first heartbeat."), h("a", { href: "#/" }, "Back to the overview"));
  const page = h("div", { class: "stack" }, head, charts, scripts, h("div", { class: "halves" }, about, history),
    h("section", { class: "panel" }, h("div", { class: "row" }, h("h2", {}, "Latest entries"), h("a", { class: "push small", href: logsLink }, "All logs of this server")), view.element));
  main.replaceChildren(missing, page);
  let commands = [];

  const pending = (type, source) => commands.some((one) => one.status === "pending" && one.type === type && one.source_name === source);

  const press = async (type, source) => {
    try {
      await state.command(hostname, type, source);
      toast(`${type} ${source ?? "everything"}: sent, the agent takes it with its next heartbeat`);
      await drawCommands();
    } catch (error) { toast(error.message, true); }
  };

  const buttons = (script) => ACTIONS.map((type) => {
    const wrongState = (type === "start") === (script.state === "running");
    const waits = pending(type, script.source);
    return h("button", { class: "small", disabled: waits || wrongState, "aria-label": `${type} ${script.name}`, "data-action": `${type}:${script.source}`, onclick: () => press(type, script.source) }, waits ? `${type} …` : type);
  });

  const drawServer = () => {
    if (signal.aborted) return;
    const server = state.servers.get(hostname);
    missing.hidden = Boolean(server);
    page.hidden = !server;
    if (!server) return;
    const alerts = state.alerts.filter((alert) => alert.status === "active" && alert.server_hostname === hostname).length;
    const rows = [...(server.report?.scripts ?? [])].sort(crashedFirst);
    update(head, h("h1", {}, hostname), h("span", { class: `pill ${STATUS_CLASS[server.status] ?? ""}` }, server.status),
      alerts ? h("a", { class: "small", href: "#/alerts" }, plural(alerts, "active alert")) : null,
      h("span", { class: "muted small push" }, `heartbeat ${ago(server.last_seen_at)}`));
    update(charts, largeGauges(server));
    update(scripts, h("h2", {}, "Scripts"), rows.length ? h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, COLUMNS.map(([name, kind = ""]) => h("th", { class: kind, scope: "col" }, name)), h("td", {}))),
      h("tbody", {}, rows.map((script) => scriptRow(script, buttons(script)))))) : h("p", { class: "muted" }, "This agent manages no scripts."));
    update(about, h("h2", {}, "About"), h("table", {}, h("tbody", {}, aboutRows(server))));
  };

  const drawCommands = async () => {
    if (!state.servers.has(hostname)) return;
    ({ commands } = await get(`${state.base()}/servers/${encodeURIComponent(hostname)}/commands`));
    if (signal.aborted) return;
    update(history, h("h2", {}, "Commands"), commands.length ? h("table", {}, h("tbody", {}, commands.slice(0, 8).map((one) => h("tr", { "data-key": one.id },
      h("td", {}, `${one.type} ${one.source_name ?? "everything"}`),
      h("td", {}, h("span", { class: `pill ${{ ack: "good", failed: "bad" }[one.status] ?? "warn"}` }, { ack: "done" }[one.status] ?? one.status)),
      h("td", { class: "muted small number" }, ago(one.created_at)))))) : h("p", { class: "muted" }, "None sent yet."));
    drawServer();
  };

  const read = (how) => {
    drawCommands().catch(shrug);
    view.load(() => get(`${state.base()}/logs?limit=200&server=${encodeURIComponent(hostname)}`), how).catch(shrug);
  };

  drawServer();
  read();
  for (const kind of ["servers", "alerts", "tick"]) state.addEventListener(kind, framed(drawServer), { signal });
  state.addEventListener("command", (event) => { if (event.detail.hostname === hostname) drawCommands().catch(shrug); }, { signal });
  state.addEventListener("log", (event) => { if (event.detail.server === hostname) view.add(event.detail); }, { signal });
  state.addEventListener("link", () => { if (state.connected) read({ keep: true }); }, { signal });
}
