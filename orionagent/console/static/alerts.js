// Owns the alerts page: what happened, and beside it the rules that watch the entries.

import { article, grouped } from "./alertlist.js";
import { call } from "./api.js";
import { framed, h, toast } from "./dom.js";
import { update } from "./morph.js";
import { rulesPanel } from "./rules.js";
import { state } from "./state.js";

const TABS = [["active", "Active"], ["silenced", "Silenced"], ["resolved", "Resolved"], ["", "All"]];
const MOST_SHOWN = 100;

export function alertsPage(main, signal) {
  let status = "active";
  const open = new Set();
  const list = h("div");

  const groups = () => grouped(state.alerts.filter((alert) => !status || alert.status === status));
  const act = async (key, method, path, body) => {
    // Another project may be entered before the last of them is answered.
    const base = state.base();
    try {
      for (const alert of groups().find((group) => group.key === key)?.all ?? []) await call(method, `${base}/alerts/${alert.id}${path}`, body);
    } catch (error) { toast(error.message, true); }
    await state.refresh().catch((error) => toast(error.message, true));
  };
  const toggle = (key) => {
    if (!open.delete(key)) open.add(key);
    draw();
  };
  const draw = () => {
    if (signal.aborted) return;
    const found = groups();
    update(list, found.length ? found.slice(0, MOST_SHOWN).map((group) => article(group, { open: open.has(group.key), toggle, act }))
      : h("p", { class: "empty" }, status === "active" ? "Nothing is wrong." : "None."),
    found.length > MOST_SHOWN ? h("p", { class: "note" }, `and ${found.length - MOST_SHOWN} more, older`) : null);
  };

  const tabs = h("div", { class: "chips push", role: "group", "aria-label": "Status" }, TABS.map(([value, name]) =>
    h("button", { class: "small", "data-status": value, onclick: () => { status = value; mark(); draw(); } }, name)));
  const mark = () => { for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(tab.dataset.status === status)); };

  main.replaceChildren(h("section", { class: "panel" }, h("div", { class: "row" }, h("h2", {}, "Alerts"), tabs), list), rulesPanel(signal));
  mark();
  draw();
  for (const kind of ["alerts", "tick"]) state.addEventListener(kind, framed(draw), { signal });
}
