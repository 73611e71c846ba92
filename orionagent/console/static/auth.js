// Owns the pages of signing up, signing in, and confirming a command line that waits for its token.

import { call, get, Refused, token } from "./api.js";
import { byId, h } from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset.theme = localStorage.getItem("orion.theme") ?? (dark ? "dark" : "light");

const state = location.pathname === "/auth/cli" ? new URLSearchParams(location.search).get("state") : null;

function frame(title, ...children) {
  document.title = `${title} · Orion`;
  byId("main").replaceChildren(h("div", { class: "gate" }, h("section", { class: "panel" },
    h("div", { class: "row" }, h("img", { src: "/static/orion.svg", alt: "", width: 32, height: 32 }), h("h1", {}, title)), ...children)));
  byId("main").querySelector("input")?.focus();
}

function form(fields, button, submit) {
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const press = h("button", { class: "main" }, button);
  return h("form", { onsubmit: async (event) => {
    event.preventDefault();
    press.disabled = true;
    error.hidden = true;
    try {
      await submit(Object.fromEntries(new FormData(event.target)));
    } catch (reason) {
      error.textContent = reason.message;
      error.hidden = false;
    }
    press.disabled = false;
  } }, fields.map(([name, label, type, autocomplete, more = {}]) => h("label", {}, label, h("input", { name, type, autocomplete, required: true, ...more }))), error, press);
}

const link = (text, show) => h("a", { href: "#", onclick: (event) => { event.preventDefault(); show(); } }, text);
const forCli = () => (state ? h("p", { class: "muted" }, "A command line on this computer waits for you to sign in.") : null);

async function signedIn() {
  if (state) await confirm();
  else location.assign("/");
}

function signIn() {
  frame("Sign in", forCli(), form([
    ["email", "E-mail", "email", "username"], ["password", "Password", "password", "current-password"],
  ], "Sign in", async ({ email, password }) => {
    const { accessToken } = await call("POST", "/api/auth/login", { email, password });
    token.set(accessToken);
    await signedIn();
  }), h("p", { class: "small" }, link("Make an account", signUp), " · ", link("Use the console's token", useToken)));
}

function signUp() {
  frame("Sign up", forCli(), form([
    ["firstName", "First name", "text", "given-name"], ["lastName", "Last name", "text", "family-name"], ["pseudo", "Shown name", "text", "nickname"],
    ["email", "E-mail", "email", "username"], ["password", "Password, 8 characters or more", "password", "new-password", { minlength: 8 }],
  ], "Sign up", async (fields) => {
    const { accessToken } = await call("POST", "/api/auth/register", fields);
    token.set(accessToken);
    await signedIn();
  }), h("p", { class: "small" }, link("I have an account", signIn)));
}

function useToken() {
  frame("Use the console's token", h("p", { class: "muted" }, h("code", {}, "orion console"), " printed it at its start."),
    form([["token", "Token", "password", "off"]], "Continue", async (fields) => {
      token.set(fields.token.trim());
      try { await get("/api/auth/me"); } catch (error) { token.clear(); throw error; }
      await signedIn();
    }), h("p", { class: "small" }, link("Sign in with an account", signIn)));
}

async function confirm() {
  const { user } = await get("/api/auth/me");
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const press = h("button", { class: "main", id: "confirm", onclick: async () => {
    press.disabled = true;
    try {
      const answer = await call("POST", "/api/auth/cli/confirm", { state });
      const back = new URL(`http://localhost:${answer.callbackPort}/callback`);
      back.searchParams.set("token", answer.token);
      back.searchParams.set("state", state);
      frame("Confirmed", h("p", {}, "Handing over to the command line. You can close this page once it says so."));
      location.replace(back);
    } catch (reason) {
      error.textContent = reason.message;
      error.hidden = false;
    }
  } }, "Confirm");
  frame("Confirm sign-in", h("p", {}, "A command line on this computer asks to act as ", h("strong", {}, user.name), ` (${user.email}). Confirm only if you just started it.`),
    error, press, h("p", { class: "small" }, link("Use another account", () => { token.clear(); signIn(); })));
}

async function begin() {
  if (location.pathname === "/auth/cli" && !state) { frame("Nothing to confirm", h("p", {}, "Start again from the command line: the address lacks its state.")); return; }
  if (state && token.get()) {
    try { await confirm(); return; } catch (error) {
      if (!(error instanceof Refused)) { frame("No answer", h("p", { class: "error" }, error.message)); return; }
      token.clear();
    }
  }
  if (location.pathname === "/register") signUp();
  else signIn();
}

begin();
