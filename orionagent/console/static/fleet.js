// Owns how servers are shown together: cards while they are few, rows with a filter when they are many.

import { ago, h } from "./dom.js";
import { figures, smallGauges, STATE_CLASS, STATUS_CLASS, trend } from "./gauges.js";
import { update } from "./morph.js";

const FEW = 4;
const MOST_PILLS = 12;
const RANK = { offline: 0, partial: 1, online: 2 };

export const serverLink = (hostname) => `#/server/${encodeURIComponent(hostname)}`;

const worstFirst = (one, other) => (RANK[one.status] ?? 3) - (RANK[other.status] ?? 3) || one.hostname.localeCompare(other.hostname, undefined, { numeric: true });

const scriptsOf = (server) => server.report?.scripts ?? [];
export const inState = (server, state) => scriptsOf(server).filter((script) => script.state === state);

const statusPill = (server, more = "") => h("span", { class: `pill ${STATUS_CLASS[server.status] ?? ""} ${more}` }, server.status);

function card(server) {
  const scripts = scriptsOf(server);
  const shown = scripts.slice(0, MOST_PILLS);
  return h("article", { class: `panel card ${server.status === "offline" ? "old" : ""}`, "data-server": server.hostname, "data-key": server.hostname },
    h("div", { class: "row" }, h("h2", {}, h("a", { href: serverLink(server.hostname) }, server.name ?? server.hostname)), statusPill(server, "push")),
    smallGauges(server),
    h("div", { class: "scripts-line" },
      shown.map((script) => h("span", { class: `pill ${STATE_CLASS[script.state] ?? ""}`, title: `${script.name}: ${script.state}` }, script.name)),
      scripts.length > shown.length ? h("a", { class: "small", href: serverLink(server.hostname) }, `and ${scripts.length - shown.length} more`) : null,
      scripts.length ? null : h("span", { class: "muted small" }, "no scripts")),
    h("div", { class: "muted small" }, `heartbeat ${ago(server.last_seen_at)}`, server.ip ? ` · ${server.ip}` : "", server.report ? ` · agent ${server.report.agentVersion}` : ""));
}

function scriptsCell(server) {
  if (!scriptsOf(server).length) return h("span", { class: "muted" }, "none");
  return h("div", { class: "scripts-line" }, ["crashed", "stopped", "running"].map((state) => {
    const found = inState(server, state);
    return found.length ? h("span", { class: `pill ${STATE_CLASS[state]}`, title: `${state}: ${found.map((script) => script.name).join(", ")}` }, `${found.length} ${state}`) : null;
  }));
}

function row(server) {
  return h("tr", { class: server.status === "offline" ? "old" : "", "data-server": server.hostname, "data-key": server.hostname },
    h("td", { class: "who" }, h("a", { href: serverLink(server.hostname), title: server.hostname }, server.name ?? server.hostname), h("div", { class: "muted small" }, `heartbeat ${ago(server.last_seen_at)}`)),
    h("td", {}, statusPill(server)),
    figures(server).map((figure) => h("td", { class: "figure", "data-name": figure.name, title: `${figure.name} ${figure.detail}` },
      h("div", { class: figure.high ? "value high" : "value" }, figure.value), trend(server, figure))),
    h("td", {}, scriptsCell(server)));
}

export class Fleet {
  constructor() {
    this.text = "";
    this.servers = [];
    this.filter = h("input", { type: "search", placeholder: "Filter by server or script", "aria-label": "Filter servers", oninput: (event) => { this.text = event.target.value.trim().toLowerCase(); this.draw(); } });
    this.rows = h("tbody");
    this.none = h("p", { class: "empty", hidden: true }, "No server or script of this name.");
    this.cards = h("div", { class: "cards" });
    this.list = h("section", { class: "panel", hidden: true },
      h("div", { class: "row" }, h("h2", {}, "Servers"), this.filter),
      h("div", { class: "scroll" }, h("table", { class: "fleet" },
        h("thead", {}, h("tr", {}, ["Server", "Status", "CPU", "Memory", "Disk", "Network", "Scripts"].map((name) => h("th", { scope: "col" }, name)))), this.rows), this.none));
    this.element = h("div", { role: "region", "aria-label": "Servers" }, this.cards, this.list);
  }

  show(servers) {
    this.servers = [...servers].sort(worstFirst);
    this.draw();
  }

  draw() {
    const many = this.servers.length > FEW;
    this.list.hidden = !many;
    this.cards.hidden = many;
    const matches = (server) => `${server.hostname} ${server.name ?? ""} ${scriptsOf(server).map((script) => script.name).join(" ")}`.toLowerCase().includes(this.text);
    const found = many ? this.servers.filter(matches) : [];
    update(this.rows, found.map(row));
    this.none.hidden = !many || found.length > 0;
    update(this.cards, many ? [] : this.servers.map(card));
  }
}
