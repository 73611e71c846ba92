// Owns the conversation with the console: requests with the token, the live channel and its reconnection.

const KEY = "orion.token";

export class Refused extends Error {}

export const token = {
  get: () => localStorage.getItem(KEY),
  set: (value) => localStorage.setItem(KEY, value),
  clear: () => localStorage.removeItem(KEY),
};

export async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${token.get() ?? ""}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const reply = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await reply.text();
  let data = null;
  try { data = text ? JSON.parse(text) : null; } catch { data = null; }
  if (reply.status === 401) throw new Refused(data?.message ?? "not signed in");
  if (!reply.ok) throw new Error(data?.message ?? `the console answered ${reply.status}`);
  return data;
}

export const get = (path) => call("GET", path);

// A live channel reconnects every few seconds with a new ticket; `onState(true)` after each (re)connection
// is the moment to read anew what may have been missed; `onState(false, reason)` says that the token is refused.
export class Live {
  constructor(project, onMessage, onState) {
    this.project = project;
    this.onMessage = onMessage;
    this.onState = onState;
    this.closed = false;
    this.open();
  }

  async open() {
    if (this.closed) return;
    try {
      const { url } = await call("POST", "/api/ws/create", { projectName: this.project });
      if (this.closed) return;
      this.socket = new WebSocket(url);
    } catch (error) {
      if (this.closed) return;
      if (error instanceof Refused) this.onState(false, error.message);
      else this.again();
      return;
    }
    this.socket.onopen = () => this.onState(true);
    this.socket.onmessage = (event) => {
      let message;
      try { message = JSON.parse(event.data); } catch { return; }
      if (!this.closed && message.projectName === this.project) this.onMessage(message);
    };
    this.socket.onclose = () => this.again();
  }

  again() {
    if (this.closed) return;
    this.onState(false);
    this.timer = setTimeout(() => this.open(), 3000);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }
}
