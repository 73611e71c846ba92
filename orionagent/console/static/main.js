// Owns the page's frame: sign-in, the bar, which view is shown, light and dark.

import { alertsPage } from "./alerts.js";
import { get, Refused, token } from "./api.js";
import { byId, h, toast } from "./dom.js";
import { logsPage } from "./logs.js";
import { overview } from "./overview.js";
import { serverPage } from "./server.js";
import { state } from "./state.js";

let view = new AbortController();

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("orion.theme", name);
}
const darkSystem = matchMedia("(prefers-color-scheme: dark)");
document.documentElement.dataset.theme = localStorage.getItem("orion.theme") ?? (darkSystem.matches ? "dark" : "light");
byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));

// A token in the address (`#token=…`, then perhaps a page: `#token=…/logs`) is taken over and taken out of the
// address, so that it is not bookmarked or shared.
function tokenFromAddress() {
  const match = /^#token=([^/]+)(\/.*)?$/.exec(location.hash);
  if (!match) return;
  token.set(decodeURIComponent(match[1]));
  history.replaceState(null, "", `#${match[2] ?? "/"}`);
}

function gate(message) {
  state.leave();
  view.abort();
  byId("bar").hidden = true;
  const input = h("input", { type: "password", name: "token", autocomplete: "current-password", required: true, autofocus: true });
  byId("main").replaceChildren(h("div", { class: "gate" }, h("form", { class: "panel", onsubmit: (event) => {
    event.preventDefault();
    token.set(input.value.trim());
    begin();
  } },
  h("div", { class: "row" }, h("img", { src: "/static/orion.svg", alt: "", width: 32, height: 32 }), h("h1", {}, "Orion console")),
  h("p", { class: "muted" }, "Enter the token that ", h("code", {}, "orion console"), " printed when it started. It is also in the file ", h("code", {}, "token"), " of its data folder."),
  h("label", {}, "Token", input),
  message ? h("p", { class: "error", role: "alert" }, message) : null,
  h("button", { class: "main" }, "Continue"),
  h("p", { class: "small" }, h("a", { href: "/login" }, "Sign in with an account instead")))));
  input.focus();
}

function show() {
  const [, page = "", argument = ""] = location.hash.split("/");
  view.abort();
  view = new AbortController();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === page || (page === "server" && link.dataset.page === "")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const main = byId("main");
  const pages = { logs: logsPage, alerts: alertsPage, server: serverPage };
  Promise.resolve((pages[page] ?? overview)(main, view.signal, decodeURIComponent(argument))).catch((error) => toast(error.message, true));
}

function badge() {
  const count = state.alerts.filter((alert) => alert.status === "active").length;
  byId("alert-count").hidden = !count;
  byId("alert-count").textContent = count;
}

async function enter(name) {
  localStorage.setItem("orion.project", name);
  await state.enter(name);
  show();
}

async function begin() {
  if (!token.get()) { gate(""); return; }
  try {
    state.projects = await get("/api/projects");
    const picker = byId("project");
    const kept = localStorage.getItem("orion.project");
    const name = state.projects.some((project) => project.name === kept) ? kept : state.projects[0]?.name;
    picker.replaceChildren(...state.projects.map((project) => h("option", { value: project.name, selected: project.name === name }, project.label || project.name)));
    picker.hidden = state.projects.length < 2;
    byId("bar").hidden = false;
    if (name) await enter(name);
    else byId("main").replaceChildren(h("section", { class: "panel empty" }, h("h2", {}, "No project yet"), h("p", {}, "Make one with "), h("code", {}, "orion setup --server")));
  } catch (error) {
    if (error instanceof Refused) { token.clear(); gate(error.message); } else { gate(`The console does not answer: ${error.message}`); }
  }
}

byId("project").addEventListener("change", (event) => { location.hash = "#/"; enter(event.target.value).catch((error) => toast(error.message, true)); });
byId("leave").addEventListener("click", () => { token.clear(); gate(""); });
addEventListener("hashchange", () => { if (location.hash.startsWith("#token=")) { tokenFromAddress(); begin(); } else if (state.project) show(); });
state.addEventListener("link", () => {
  byId("link").textContent = state.connected ? "live" : "reconnecting";
  byId("link").classList.toggle("live", state.connected);
});
state.addEventListener("alerts", badge);
state.addEventListener("new-alert", (event) => toast(event.detail.message || event.detail.rule_name, true));
state.addEventListener("command", (event) => {
  const { type, source_name: source, status } = event.detail;
  toast(`${type} ${source ?? "everything"}: ${status === "ack" ? "done" : "failed"}`, status !== "ack");
});

tokenFromAddress();
begin();
