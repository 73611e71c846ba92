// Owns the page's frame: sign-in, the bar, which view is shown, light and dark.

import { alertsPage } from "./alerts.js";
import { get, Refused, token } from "./api.js";
import { byId, clock, h, toast } from "./dom.js";
import { logsPage } from "./logs.js";
import { overview } from "./overview.js";
import { serverPage } from "./server.js";
import { state } from "./state.js";

let view = new AbortController();
let title = "Overview";

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("orion.theme", name);
}
const darkSystem = matchMedia("(prefers-color-scheme: dark)");
document.documentElement.dataset.theme = localStorage.getItem("orion.theme") ?? (darkSystem.matches ? "dark" : "light");
// Whoever never chose follows the system, also when that changes at dusk.
darkSystem.addEventListener("change", () => { if (!localStorage.getItem("orion.theme")) document.documentElement.dataset.theme = darkSystem.matches ? "dark" : "light"; });
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
  byId("lost").hidden = true;
  byId("main").classList.remove("fills");
  document.title = "Orion";
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
  const [path, query = ""] = location.hash.split("?");
  const [, page = "", argument = ""] = path.split("/");
  view.abort();
  view = new AbortController();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === page || (page === "server" && link.dataset.page === "")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const main = byId("main");
  const pages = { logs: logsPage, alerts: alertsPage, server: serverPage };
  title = page === "server" ? decodeURIComponent(argument) : { logs: "Logs", alerts: "Alerts" }[page] ?? "Overview";
  name();
  main.classList.toggle("fills", page === "logs");
  scrollTo(0, 0);
  Promise.resolve((pages[page] ?? overview)(main, view.signal, decodeURIComponent(argument), new URLSearchParams(query))).catch((error) => toast(error.message, true));
}

const active = () => state.alerts.filter((alert) => alert.status === "active").length;

function name() { document.title = `${active() ? `(${active()}) ` : ""}${title} · Orion`; }

function badge() {
  byId("alert-count").hidden = !active();
  byId("alert-count").textContent = active();
  byId("alert-count").title = `${active()} active`;
  name();
}

async function enter(project) {
  localStorage.setItem("orion.project", project);
  if (await state.enter(project)) show();
}

// The console's own token sends to this project, so that is where a newcomer finds something.
const HOME_PROJECT = "local";

function firstProject() {
  const names = state.projects.map((project) => project.name);
  return [localStorage.getItem("orion.project"), HOME_PROJECT].find((one) => names.includes(one)) ?? names[0];
}

async function begin() {
  if (!token.get()) { gate(""); return; }
  state.leave();
  const { turn } = state;
  try {
    const projects = await get("/api/projects").catch((error) => { if (turn === state.turn) throw error; });
    // Signed out, or in with another token, meanwhile.
    if (turn !== state.turn) return;
    state.projects = projects;
    const picker = byId("project");
    const project = firstProject();
    picker.replaceChildren(...state.projects.map((one) => h("option", { value: one.name, selected: one.name === project }, one.label || one.name)));
    picker.hidden = state.projects.length < 2;
    byId("bar").hidden = false;
    if (project) await enter(project);
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
  byId("lost").hidden = state.answeredAt === null;
  byId("lost").textContent = state.answeredAt ? `The console has not answered since ${clock(state.answeredAt)}. What is shown is from before; it is read anew once the console is back.` : "";
});
state.addEventListener("refused", (event) => { token.clear(); gate(event.detail); });
state.addEventListener("alerts", badge);
state.addEventListener("new-alert", ({ detail }) => {
  // On their own page they are seen anyway.
  if (!location.hash.startsWith("#/alerts")) toast(detail.message || detail.rule_name, true, `${detail.rule_name} ${detail.server_hostname}`);
});
state.addEventListener("command", (event) => {
  const { type, source_name: source, status } = event.detail;
  toast(`${type} ${source ?? "everything"}: ${status === "ack" ? "done" : "failed"}`, status !== "ack");
});

tokenFromAddress();
begin();
