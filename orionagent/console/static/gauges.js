// Owns how a server's figures are shown, small on the overview and large on its own page.

import { plot, sparkline } from "./charts.js";
import { gigabytes, h, megabytes, percent, plural, rate } from "./dom.js";
import { KEEP_S, state } from "./state.js";

export const STATUS_CLASS = { online: "good", partial: "warn", offline: "bad", archived: "" };
export const STATE_CLASS = { running: "good", stopped: "", crashed: "bad" };

const column = (rows, index) => rows.map((row) => [row[0], row[index]]);

const FULL = 90;

export function figures(server) {
  const report = server.report ?? {};
  const { cpu = {}, memory = {}, disk = {}, network = {} } = report;
  return [
    { name: "CPU", value: percent(cpu.percent), detail: cpu.load1 === undefined ? "" : `load ${cpu.load1.toFixed(2)}${cpu.count ? ` · ${plural(cpu.count, "CPU")}` : ""}`,
      series: [{ name: "CPU", index: 1, color: "var(--cpu)" }], top: 100, show: percent },
    { name: "Memory", value: percent(memory.percent), high: memory.percent >= FULL, detail: memory.totalMb ? `${megabytes(memory.usedMb)} of ${megabytes(memory.totalMb)}` : "",
      series: [{ name: "memory", index: 2, color: "var(--memory)" }], top: 100, show: percent },
    { name: "Disk", value: percent(disk.percent), high: disk.percent >= FULL, detail: disk.totalGb ? `${gigabytes(disk.usedGb)} of ${gigabytes(disk.totalGb)}` : "",
      series: [{ name: "disk", index: 3, color: "var(--disk)" }], top: 100, show: percent },
    { name: "Network", value: `↓ ${rate(network.rxBytesPerSecond)}`, detail: `↑ ${rate(network.txBytesPerSecond)}`,
      series: [{ name: "in", index: 4, color: "var(--network)" }, { name: "out", index: 5, color: "var(--network-out)" }], least: 1000, show: rate },
  ];
}

function span(rows) {
  const until = Date.now() / 1000;
  const from = Math.max(until - KEEP_S, Math.min(rows[0]?.[0] ?? until - 120, until - 120));
  // Readings further apart than three of their usual distances are a gap in the line.
  const steps = rows.slice(1).map((row, index) => row[0] - rows[index][0]).sort((a, b) => a - b);
  return { from, until, gap: Math.max(20, 3.2 * (steps[Math.floor(steps.length / 2)] ?? 30)) };
}

export function trend(server, figure) {
  const rows = state.samples.get(server.hostname) ?? [];
  return sparkline(figure.series.map((one) => ({ ...one, points: column(rows, one.index) })), { ...span(rows), top: figure.top, least: figure.least });
}

export function smallGauges(server) {
  return h("div", { class: "gauges" }, figures(server).map((figure) => h("div", { class: "gauge" },
    h("div", { class: "name" }, h("span", {}, figure.name), h("small", { title: figure.detail }, figure.detail)),
    h("div", { class: figure.high ? "value high" : "value" }, figure.value),
    trend(server, figure))));
}

export function largeGauges(server) {
  const rows = state.samples.get(server.hostname) ?? [];
  const range = span(rows);
  return figures(server).map((figure) => h("section", { class: "panel" },
    h("div", { class: "row" }, h("h2", {}, figure.name), h("strong", { class: figure.high ? "push high" : "push" }, figure.value), h("span", { class: "muted small" }, figure.detail)),
    plot(figure.series.map((one) => ({ ...one, points: column(rows, one.index) })), { ...range, top: figure.top, least: figure.least, show: figure.show })));
}
