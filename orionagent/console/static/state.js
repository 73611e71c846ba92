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
    this.live = null;
    this.timers = [];
    // Grows with every project entered or left: what began under an earlier turn came too late.
    this.turn = 0;
  }

  base() { return `/api/projects/${encodeURIComponent(this.project)}`; }

  tell(kind, detail) { this.dispatchEvent(new CustomEvent(kind, { detail })); }

  // Tells whether the project was entered: false when another one was, or all was left, meanwhile.
  async enter(project) {
    this.leave();
    this.project = project;
    const turn = this.turn;
    await this.refresh();
    if (turn !== this.turn) return false;
    this.live = new Live(project, (message) => this.take(message), (up, refused) => {
      if (refused) { this.tell("refused", refused); return; }
      if (up) this.answeredAt = null;
      else if (this.connected) this.answeredAt = Date.now();
      this.connected = up;
      this.tell("link");
      if (up) this.refresh().catch(() => {});
    });
    this.timers = [setInterval(() => this.refresh().catch(() => {}), 30000), setInterval(() => this.tell("tick"), 5000)];
    return true;
  }

  leave() {
    this.turn += 1;
    this.project = null;
    this.live?.close();
    this.live = null;
    this.timers.forEach(clearInterval);
    this.timers = [];
    this.answeredAt = null;
    this.servers.clear();
    this.samples.clear();
    this.alerts = [];
    this.connected = false;
  }

  // Reads all anew. What comes, or fails, after its project was left is nobody's concern any more.
  async refresh() {
    if (this.project === null) return;
    const turn = this.turn;
    try { await this.read(turn); } catch (error) { if (turn === this.turn) throw error; }
  }

  async read(turn) {
    const base = this.base();
    const [{ servers }, alerts] = await Promise.all([get(`${base}/servers`), get(`${base}/alerts`)]);
    if (turn !== this.turn) return;
    this.servers = new Map(servers.map((server) => [server.hostname, server]));
    this.alerts = alerts;
    await Promise.all(servers.map(async (server) => {
      const { samples } = await get(`${base}/servers/${encodeURIComponent(server.hostname)}/samples?minutes=60`);
      if (turn === this.turn) this.samples.set(server.hostname, samples);
    }));
    if (turn !== this.turn) return;
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
