// Owns the list of alert rules and the form that adds one.

import { call, get } from "./api.js";
import { h, toast } from "./dom.js";
import { state } from "./state.js";

const WINDOWS = [[60, "1 min"], [120, "2 min"], [300, "5 min"], [600, "10 min"], [1800, "30 min"], [3600, "1 h"]];
const windowName = (seconds) => WINDOWS.find(([value]) => value === seconds)?.[1] ?? `${seconds} s`;

const rulesPath = () => `${state.base()}/alerts/rules`;

function row(rule, change) {
  const hook = rule.channels.some((channel) => channel.type === "webhook");
  return h("tr", {},
    h("td", {}, h("label", {}, h("input", { type: "checkbox", checked: rule.enabled, onchange: (event) => change("PUT", `/${rule.id}`, { enabled: event.target.checked }) }), " on")),
    h("td", {}, h("strong", {}, rule.name)),
    h("td", {}, `${rule.threshold} × ${rule.level} in ${windowName(rule.window_seconds)}, ${rule.source_name ?? "every source"}`),
    h("td", { class: "number" }, hook ? h("button", { class: "small", onclick: () => change("POST", `/${rule.id}/test`) }, "Try the webhook") : null,
      h("button", { class: "small quiet", onclick: () => change("DELETE", `/${rule.id}`) }, "Delete")));
}

function form(sources, change) {
  const field = (label, control) => h("label", { class: "field" }, label, control);
  const submit = (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    const hook = given.get("webhook").trim();
    change("POST", "", { name: given.get("name"), level: given.get("level"), threshold: Number(given.get("threshold")) || null,
      window_seconds: Number(given.get("window")), source_name: given.get("source") || null, channels: hook ? [{ type: "webhook", target: hook }] : [], enabled: true });
  };
  return h("form", { class: "fields", onsubmit: submit },
    field("Name", h("input", { name: "name", required: true, maxlength: "100" })),
    field("Entries", h("input", { name: "threshold", type: "number", min: "1", value: "10" })),
    field("of level", h("select", { name: "level" }, ["error", "fatal", "warn", "info", "debug"].map((level) => h("option", {}, level)))),
    field("within", h("select", { name: "window" }, WINDOWS.map(([value, name]) => h("option", { value }, name)))),
    field("from", h("select", { name: "source" }, h("option", { value: "" }, "every source"), sources.map((source) => h("option", { value: source.name }, source.name)))),
    field("Webhook (optional)", h("input", { name: "webhook", type: "url", placeholder: "https://" })),
    h("button", { class: "main" }, "Add rule"));
}

export function rulesPanel(signal) {
  const panel = h("section", { class: "panel" });
  const draw = async () => {
    const [found, { sources }] = await Promise.all([get(rulesPath()), get(`${state.base()}/sources`)]);
    if (signal.aborted) return;
    panel.replaceChildren(h("h2", {}, "Rules"),
      h("p", { class: "muted small" }, "Every crash of a script raises an alert by itself. A rule raises one when entries of a level come too often."),
      ...(found.length ? [h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, found.map((rule) => row(rule, change)))))] : []),
      form(sources, change));
  };
  const change = async (method, path, body) => {
    try {
      await call(method, `${rulesPath()}${path}`, body);
      await draw();
    } catch (error) { toast(error.message, true); }
  };
  draw().catch((error) => toast(error.message, true));
  return panel;
}
