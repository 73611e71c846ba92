// Owns building elements and showing values as text. Knows nothing of the console's data.

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "value" || name === "disabled" || name === "selected" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
export function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

export function percent(value) {
  return value === null || value === undefined ? "–" : `${value.toFixed(value < 9.95 ? 1 : 0)} %`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value.toFixed(value < 9.95 && unit ? 1 : 0)} ${units[unit]}`;
}

export const rate = (value) => (value === null || value === undefined ? "–" : `${bytes(value)}/s`);

export function megabytes(value) {
  if (value === null || value === undefined) return "–";
  return value < 1000 ? `${value.toFixed(value < 10 ? 1 : 0)} MiB` : `${(value / 1024).toFixed(1)} GiB`;
}

export const gigabytes = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(value < 100 ? 1 : 0)} GiB`);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  for (let index = 0; index < parts.length; index += 1) {
    const [size, name] = parts[index];
    if (seconds >= size || size === 1) {
      const whole = Math.floor(seconds / size);
      const next = parts[index + 1];
      const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
      return rest && index < 2 ? `${whole} ${name} ${rest} ${next[1]}` : `${whole} ${name}`;
    }
  }
  return "–";
}

export function ago(iso) {
  if (!iso) return "never";
  const seconds = Math.max(0, (Date.now() - Date.parse(iso)) / 1000);
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

const pad = (number, width = 2) => String(number).padStart(width, "0");
export const day = (iso) => new Date(iso).toLocaleDateString(undefined, { weekday: "long", year: "numeric", month: "long", day: "numeric" });
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : many}`;
export function clock(iso, { seconds = true } = {}) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return String(iso);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}${seconds ? `:${pad(at.getSeconds())}` : ""}`;
}
export function moment(iso) {
  const at = new Date(iso);
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock(iso)}`;
}

const MOST_TOASTS = 3;

// What comes again under the same key takes the place of what is still shown, with a count.
export function toast(text, bad = false, key = text) {
  const shown = byId("toasts");
  const before = [...shown.children].find((one) => one.dataset.key === key);
  const times = Number(before?.dataset.times ?? 0) + 1;
  const element = h("div", { class: bad ? "toast bad" : "toast", "data-key": key, "data-times": times, title: "Click to dismiss", onclick: () => element.remove() },
    times > 1 ? `${text} (${times} times)` : text);
  before?.remove();
  shown.append(element);
  while (shown.childElementCount > MOST_TOASTS) shown.firstElementChild.remove();
  setTimeout(() => element.remove(), bad ? 8000 : 4000);
}

// Many changes within one frame are one drawing; a page that nobody looks at draws nothing.
export function framed(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
}
