// Owns the alerts page: what happened, and the rules that watch the entries.

import { call, get } from "./api.js";
import { ago, h, moment, toast } from "./dom.js";
import { state } from "./state.js";

const STATUS = { active: "bad", silenced: "warn", resolved: "good" };

function details(alert) {
  const crash = alert.details;
  if (!crash) return null;
  const facts = [
    crash.exitCode !== undefined && `exit status ${crash.exitCode}`, crash.signal && `signal ${crash.signal}`, crash.coreDumped && "core dumped",
    crash.cause === "memory-limit" && "memory limit exceeded", crash.cause === "oom-kill" && "killed for want of memory",
    crash.ranMs !== undefined && `ran ${(crash.ranMs / 1000).toFixed(1)} s`, crash.crashesInARow > 1 && `${crash.crashesInARow} crashes in a row`,
    crash.willRestart ? `restarts in ${((crash.restartInMs ?? 0) / 1000).toFixed(1)} s` : "does not restart by itself", crash.repeated && `and ${crash.repeated} more like it`,
  ].filter(Boolean);
  return [h("div", { class: "facts" }, facts.map((fact) => h("span", {}, fact))), crash.lastLines?.length ? h("pre", {}, crash.lastLines.join("\n")) : null];
}

export function alertsPage(main, signal) {
  let status = "active";
  const list = h("div");
  const rules = h("section", { class: "panel" });
  const refresh = () => state.refresh().catch((error) => toast(error.message, true));

  const act = async (method, path, body) => {
    try { await call(method, `${state.base()}/alerts/${path}`, body); } catch (error) { toast(error.message, true); }
    await refresh();
  };

  const draw = () => {
    const shown = state.alerts.filter((alert) => !status || alert.status === status);
    list.replaceChildren(...(shown.length ? shown.map((alert) => h("article", { class: "alert", "data-alert": alert.id },
      h("div", { class: "row" }, h("span", { class: `pill ${STATUS[alert.status]}` }, alert.status), h("h3", {}, alert.rule_name),
        h("span", { class: "push muted small", title: moment(alert.created_at) }, ago(alert.created_at))),
      h("p", {}, alert.message ?? ""),
      h("div", { class: "facts" }, h("span", {}, `source ${alert.source_name}`), alert.server_hostname ? h("span", {}, `on ${alert.server_hostname}`) : null,
        alert.resolved_by_pseudo ? h("span", {}, `resolved by ${alert.resolved_by_pseudo} ${ago(alert.resolved_at)}`) : null,
        alert.status === "silenced" ? h("span", {}, alert.silenced_until ? `silent until ${moment(alert.silenced_until)}` : "silent without end") : null),
      details(alert),
      h("div", { class: "row" },
        alert.status !== "resolved" ? h("button", { class: "small", onclick: () => act("POST", `${alert.id}/resolve`) }, "Resolve") : null,
        alert.status === "active" ? h("select", { class: "small", "aria-label": "Silence", onchange: (event) => act("POST", `${alert.id}/silence`, { duration: event.target.value === "" ? null : event.target.value }) },
          h("option", { disabled: true, selected: true }, "Silence …"), [["2h", "2 hours"], ["4h", "4 hours"], ["12h", "12 hours"], ["", "without end"]].map(([value, name]) => h("option", { value }, name))) : null,
        h("button", { class: "small quiet", onclick: () => act("DELETE", String(alert.id)) }, "Delete"))))
      : [h("p", { class: "empty" }, status === "active" ? "Nothing is wrong." : "None.")]));
  };

  const tabs = h("div", { class: "chips push" }, [["active", "Active"], ["silenced", "Silenced"], ["resolved", "Resolved"], ["", "All"]].map(([value, name]) =>
    h("button", { class: "small", "data-status": value, onclick: () => { status = value; mark(); draw(); } }, name)));
  const mark = () => { for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(tab.dataset.status === status)); };

  const drawRules = async () => {
    const [found, { sources }] = await Promise.all([get(`${state.base()}/alerts/rules`), get(`${state.base()}/sources`)]);
    if (signal.aborted) return;
    const submit = async (event) => {
      event.preventDefault();
      const form = new FormData(event.target);
      const hook = form.get("webhook").trim();
      try {
        await call("POST", `${state.base()}/alerts/rules`, { name: form.get("name"), level: form.get("level"), threshold: Number(form.get("threshold")) || null,
          window_seconds: Number(form.get("window")), source_name: form.get("source") || null, channels: hook ? [{ type: "webhook", target: hook }] : [], enabled: true });
        await drawRules();
      } catch (error) { toast(error.message, true); }
    };
    const change = async (method, path, body) => {
      try { await call(method, `${state.base()}/alerts/rules/${path}`, body); } catch (error) { toast(error.message, true); }
      await drawRules();
    };
    rules.replaceChildren(h("h2", {}, "Rules"), h("p", { class: "muted small" }, "Every crash of a script raises an alert by itself. A rule raises one when entries of a level come too often."),
      found.length ? h("table", {}, h("tbody", {}, found.map((rule) => h("tr", {},
        h("td", {}, h("label", {}, h("input", { type: "checkbox", checked: rule.enabled, onchange: (event) => change("PUT", String(rule.id), { enabled: event.target.checked }) }), " on")),
        h("td", {}, h("strong", {}, rule.name)),
        h("td", {}, `${rule.threshold} × ${rule.level} in ${rule.window_seconds} s, ${rule.source_name ?? "every source"}`),
        h("td", { class: "number" }, rule.channels.some((channel) => channel.type === "webhook") ? h("button", { class: "small", onclick: () => change("POST", `${rule.id}/test`) }, "Try the webhook") : null,
          h("button", { class: "small quiet", onclick: () => change("DELETE", String(rule.id)) }, "Delete")))))) : null,
      h("form", { class: "filters", onsubmit: submit }, h("input", { name: "name", placeholder: "Name", required: true, "aria-label": "Name" }),
        h("input", { name: "threshold", type: "number", min: "1", value: "10", "aria-label": "Threshold", size: "4" }),
        h("select", { name: "level", "aria-label": "Level" }, ["error", "fatal", "warn", "info", "debug"].map((level) => h("option", {}, level))),
        h("select", { name: "window", "aria-label": "Window" }, [[60, "in 1 min"], [120, "in 2 min"], [300, "in 5 min"], [600, "in 10 min"], [1800, "in 30 min"], [3600, "in 1 h"]].map(([value, name]) => h("option", { value }, name))),
        h("select", { name: "source", "aria-label": "Source" }, h("option", { value: "" }, "every source"), sources.map((source) => h("option", { value: source.name }, source.name))),
        h("input", { name: "webhook", type: "url", placeholder: "Webhook (optional)", "aria-label": "Webhook" }), h("button", { class: "main" }, "Add rule")));
  };

  main.replaceChildren(h("section", { class: "panel" }, h("div", { class: "row" }, h("h2", {}, "Alerts"), tabs), list), rules);
  mark();
  draw();
  drawRules().catch((error) => toast(error.message, true));
  state.addEventListener("alerts", draw, { signal });
}
