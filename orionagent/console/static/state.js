// Owns what the page knows: projects, servers with their samples, alerts. Views listen and draw.

import { call, get, Live } from "./api.js";

export const KEEP_S = 3600;

class State extends EventTarget {
  constructor() {
    super();
    this.projects = [];
    this.project = null;
    this.servers = new Map();
    this.samples = new Map();
    this.alerts = [];
    this.connected = false;
    // When the channel was last up, while it is down.
    this.answeredAt = null;
    this.timers = [];
  }

  base() { return `/api/projects/${encodeURIComponent(this.project)}`; }

  tell(kind, detail) { this.dispatchEvent(new CustomEvent(kind, { detail })); }

  async enter(project) {
    this.leave();
    this.project = project;
    await this.refresh();
    this.live = new Live(project, (message) => this.take(message), (up, refused) => {
      if (refused) { this.tell("refused", refused); return; }
      if (up) this.answeredAt = null;
      else if (this.connected) this.answeredAt = Date.now();
      this.connected = up;
      this.tell("link");
      if (up) this.refresh().catch(() => {});
    });
    this.timers = [setInterval(() => this.refresh().catch(() => {}), 30000), setInterval(() => this.tell("tick"), 5000)];
  }

  leave() {
    this.live?.close();
    this.timers.forEach(clearInterval);
    this.answeredAt = null;
    this.servers.clear();
    this.samples.clear();
    this.alerts = [];
    this.connected = false;
  }

  async refresh() {
    const [{ servers }, alerts] = await Promise.all([get(`${this.base()}/servers`), get(`${this.base()}/alerts`)]);
    this.servers = new Map(servers.map((server) => [server.hostname, server]));
    this.alerts = alerts;
    await Promise.all(servers.map(async (server) => {
      const { samples } = await get(`${this.base()}/servers/${encodeURIComponent(server.hostname)}/samples?minutes=60`);
      this.samples.set(server.hostname, samples);
    }));
    this.tell("servers");
    this.tell("alerts");
  }

  take({ type, payload, timestamp }) {
    switch (type) {
      case "host": this.takeReport(payload.hostname, payload.report, timestamp); break;
      case "server_status": this.takeStatus(payload, timestamp); break;
      case "log": this.tell("log", payload); break;
      case "skipped": this.tell("skipped", payload); break;
      case "alert": this.alerts = [payload, ...this.alerts]; this.tell("alerts"); this.tell("new-alert", payload); break;
      case "command_status": this.tell("command", payload); break;
      case "stats_update": this.tell("stats"); break;
      default: break;
    }
  }

  takeReport(hostname, report, timestamp) {
    const server = this.servers.get(hostname);
    if (!server) return;
    server.report = report;
    server.last_seen_at = timestamp;
    const rows = this.samples.get(hostname) ?? [];
    const at = Date.parse(timestamp) / 1000;
    rows.push([at, report.cpu?.percent ?? null, report.memory?.percent ?? null, report.disk?.percent ?? null,
      report.network?.rxBytesPerSecond ?? null, report.network?.txBytesPerSecond ?? null]);
    while (rows.length && rows[0][0] < at - KEEP_S) rows.shift();
    this.samples.set(hostname, rows);
    this.tell("servers");
  }

  takeStatus(payload, timestamp) {
    const server = this.servers.get(payload.hostname);
    if (!server) { this.refresh().catch(() => {}); return; }
    if (payload.status !== "offline" && payload.status !== "archived") server.last_seen_at = timestamp;
    server.status = payload.status;
    server.source_count = payload.sources.length;
    this.tell("servers");
  }

  command(hostname, type, source) {
    return call("POST", `${this.base()}/servers/${encodeURIComponent(hostname)}/commands`, source ? { type, source } : { type });
  }
}

export const state = new State();
