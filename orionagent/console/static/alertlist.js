// Owns how alerts are shown: the same thing over and over is one article with a count, its last lines folded.

import { ago, h, moment } from "./dom.js";

const STATUS = { active: "bad", silenced: "warn", resolved: "good" };
const SHOWN_LINES = 5;
const FOLDED_FROM = 8;
const CAUSES = { "memory-limit": "memory limit exceeded", "oom-kill": "killed for want of memory" };

// Alerts come newest first, and so do the groups.
export function grouped(alerts) {
  const groups = new Map();
  for (const alert of alerts) {
    const key = [alert.status, alert.rule_name, alert.source_name, alert.server_hostname].join("\n");
    if (!groups.has(key)) groups.set(key, { key, latest: alert, all: [] });
    groups.get(key).all.push(alert);
  }
  return [...groups.values()];
}

function facts({ latest, all }) {
  const crash = latest.details;
  return [
    `source ${latest.source_name}`, latest.server_hostname && `on ${latest.server_hostname}`,
    all.length > 1 && `first ${ago(all[all.length - 1].created_at)}`,
    crash?.exitCode !== undefined && `exit status ${crash.exitCode}`, crash?.signal && `signal ${crash.signal}`, crash?.coreDumped && "core dumped",
    CAUSES[crash?.cause], crash?.ranMs !== undefined && `ran ${(crash.ranMs / 1000).toFixed(1)} s`, crash?.crashesInARow > 1 && `${crash.crashesInARow} crashes in a row`,
    crash && (crash.willRestart ? `restart after ${((crash.restartInMs ?? 0) / 1000).toFixed(1)} s` : "does not restart by itself"), crash?.repeated && `and ${crash.repeated} more like it`,
    latest.resolved_by_pseudo && `resolved by ${latest.resolved_by_pseudo} ${ago(latest.resolved_at)}`,
    latest.status === "silenced" && (latest.silenced_until ? `silent until ${moment(latest.silenced_until)}` : "silent without end"),
  ].filter(Boolean);
}

function lastLines(alert, open, toggle) {
  const lines = alert.details?.lastLines ?? [];
  if (!lines.length) return null;
  const all = open || lines.length < FOLDED_FROM;
  return [h("pre", { tabindex: "0", "aria-label": "Last lines" }, (all ? lines : lines.slice(-SHOWN_LINES)).join("\n")),
    lines.length >= FOLDED_FROM ? h("button", { class: "small quiet fold", "aria-expanded": String(open), onclick: toggle }, open ? "Fewer lines" : `All ${lines.length} lines`) : null];
}

const SILENCES = [["2h", "2 hours"], ["4h", "4 hours"], ["12h", "12 hours"], ["", "without end"]];

// `act(key, method, path, body)` does something to every alert of the group that has this key by then.
export function article(group, { open, toggle, act }) {
  const { key, latest, all } = group;
  const every = all.length > 1 ? ` all ${all.length}` : "";
  return h("article", { class: "alert", "data-alert": latest.id, "data-key": key },
    h("div", { class: "row" }, h("span", { class: `pill ${STATUS[latest.status]}` }, latest.status), h("h3", {}, latest.rule_name),
      all.length > 1 ? h("span", { class: "muted small" }, `${all.length} times`) : null,
      h("span", { class: "push muted small", title: moment(latest.created_at) }, ago(latest.created_at))),
    h("p", {}, latest.message ?? ""),
    h("div", { class: "facts" }, facts(group).map((fact) => h("span", {}, fact))),
    lastLines(latest, open, () => toggle(key)),
    h("div", { class: "row" },
      latest.status !== "resolved" ? h("button", { class: "small", onclick: () => act(key, "POST", "/resolve") }, `Resolve${every}`) : null,
      latest.status === "active" ? h("select", { class: "small", "aria-label": "Silence", onchange: (event) => act(key, "POST", "/silence", { duration: event.target.value || null }) },
        h("option", { disabled: true, selected: true }, "Silence …"), SILENCES.map(([value, name]) => h("option", { value }, name))) : null,
      h("button", { class: "small quiet", onclick: () => act(key, "DELETE", "") }, `Delete${every}`)));
}
