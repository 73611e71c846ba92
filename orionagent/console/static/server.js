// Owns one server's page: large charts, scripts with their buttons, commands, its entries.

import { get } from "./api.js";
import { ago, duration, gigabytes, h, megabytes, percent, toast } from "./dom.js";
import { largeGauges, STATE_CLASS, STATUS_CLASS } from "./gauges.js";
import { LogView } from "./logview.js";
import { state } from "./state.js";

const ACTIONS = ["start", "stop", "restart"];
const shrug = () => {};

export function serverPage(main, signal, hostname) {
  const head = h("div", { class: "row" });
  const charts = h("div", { class: "halves" });
  const scripts = h("section", { class: "panel" });
  const about = h("section", { class: "panel" });
  const history = h("section", { class: "panel" });
  const view = new LogView({ empty: "No entries from this server yet." });
  main.replaceChildren(head, charts, scripts, h("div", { class: "halves" }, about, history),
    h("section", { class: "panel" }, h("h2", {}, "Latest entries"), view.element));
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
    return h("button", { class: "small", disabled: waits || wrongState, "data-action": `${type}:${script.source}`, onclick: () => press(type, script.source) }, waits ? `${type} …` : type);
  });

  const drawServer = () => {
    const server = state.servers.get(hostname);
    if (!server) {
      main.replaceChildren(h("section", { class: "panel empty" }, h("h2", {}, `No server called ${hostname}`), h("a", { href: "#/" }, "Back to the overview")));
      return;
    }
    const report = server.report ?? {};
    head.replaceChildren(h("h1", {}, hostname), h("span", { class: `pill ${STATUS_CLASS[server.status] ?? ""}` }, server.status),
      h("span", { class: "muted small push" }, `heartbeat ${ago(server.last_seen_at)}`));
    if (!charts.contains(document.querySelector(".plot:hover"))) charts.replaceChildren(...largeGauges(server));
    const rows = report.scripts ?? [];
    scripts.replaceChildren(h("h2", {}, "Scripts"), rows.length ? h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Name", "State", "Up"].map((name) => h("th", {}, name)), ["PID", "CPU", "Memory", "Restarts"].map((name) => h("th", { class: "number" }, name)), h("th", {}))),
      h("tbody", {}, rows.map((script) => h("tr", { "data-script": script.name },
        h("td", {}, h("strong", {}, script.name), script.source !== script.name ? h("span", { class: "muted small" }, ` → ${script.source}`) : null),
        h("td", {}, h("span", { class: `pill ${STATE_CLASS[script.state] ?? ""}` }, script.state)),
        h("td", {}, script.uptimeSeconds === undefined ? "–" : duration(script.uptimeSeconds)),
        h("td", { class: "number mono" }, script.pid ?? "–"),
        h("td", { class: "number" }, percent(script.cpuPercent)),
        h("td", { class: "number" }, megabytes(script.memoryMb)),
        h("td", { class: "number" }, script.restarts ?? 0),
        h("td", {}, h("div", { class: "row" }, buttons(script)))))))) : h("p", { class: "muted" }, "This agent manages no scripts."));
    const facts = [
      ["Agent", report.agentVersion], ["Up", duration(report.uptimeSeconds)], ["Address", server.ip], ["Scope", report.scope === "container" ? "container" : "host"],
      ["Offline buffer", report.buffer ? `${report.buffer.entries.toLocaleString()} entries, ${report.buffer.droppedTotal.toLocaleString()} dropped in all` : "–"],
      ["Stolen CPU", percent(report.cpu?.stealPercent)],
    ];
    about.replaceChildren(h("h2", {}, "About"), h("table", {}, h("tbody", {},
      facts.filter(([, value]) => value).map(([name, value]) => h("tr", {}, h("td", { class: "muted" }, name), h("td", {}, value))),
      (report.disk?.mounts ?? []).map((mount) => h("tr", {}, h("td", { class: "mono" }, mount.path), h("td", {}, `${percent(mount.percent)} of ${gigabytes(mount.totalGb)} (${mount.fstype})`))))));
  };

  const drawCommands = async () => {
    ({ commands } = await get(`${state.base()}/servers/${encodeURIComponent(hostname)}/commands`));
    if (signal.aborted) return;
    history.replaceChildren(h("h2", {}, "Commands"), commands.length ? h("table", {}, h("tbody", {}, commands.slice(0, 8).map((one) => h("tr", {},
      h("td", {}, `${one.type} ${one.source_name ?? "everything"}`),
      h("td", {}, h("span", { class: `pill ${{ ack: "good", failed: "bad" }[one.status] ?? "warn"}` }, { ack: "done" }[one.status] ?? one.status)),
      h("td", { class: "muted small number" }, ago(one.created_at)))))) : h("p", { class: "muted" }, "None sent yet."));
    drawServer();
  };

  const drawLogs = async () => {
    const entries = await get(`${state.base()}/logs?limit=200&server=${encodeURIComponent(hostname)}`);
    if (!signal.aborted) view.replace(entries);
  };

  drawServer();
  if (!state.servers.has(hostname)) return;
  drawCommands().catch(shrug);
  drawLogs().catch(shrug);
  state.addEventListener("servers", drawServer, { signal });
  state.addEventListener("command", (event) => { if (event.detail.hostname === hostname) drawCommands().catch(shrug); }, { signal });
  state.addEventListener("log", (event) => { if (event.detail.server === hostname) view.add(event.detail); }, { signal });
  state.addEventListener("link", () => { if (state.connected) { drawCommands().catch(shrug); drawLogs().catch(shrug); } }, { signal });
}
