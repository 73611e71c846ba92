// Owns drawing numbers over time as SVG. Knows nothing of where they come from.

import { h, s, clock } from "./dom.js";

// Split where readings are missing (null) or more than `gap` seconds apart: a hole is shown as a hole.
function runs(points, gap) {
  const found = [];
  let current = [];
  let last = null;
  for (const [at, value] of points) {
    if (value === null || (last !== null && at - last > gap)) { if (current.length) found.push(current); current = []; }
    if (value !== null) { current.push([at, value]); last = at; }
  }
  if (current.length) found.push(current);
  return found;
}

function paths(points, scale, color, gap) {
  const drawn = [];
  for (const run of runs(points, gap)) {
    const line = run.map(([at, value]) => `${scale.x(at).toFixed(1)} ${scale.y(value).toFixed(1)}`);
    if (run.length === 1) line.push(`${(scale.x(run[0][0]) + 1.5).toFixed(1)} ${scale.y(run[0][1]).toFixed(1)}`);
    const first = line[0].split(" ")[0];
    const last = line[line.length - 1].split(" ")[0];
    drawn.push(s("path", { class: "area", fill: color, d: `M${first} ${scale.height} L${line.join(" L")} L${last} ${scale.height} Z` }));
    drawn.push(s("path", { class: "stroke", stroke: color, d: `M${line.join(" L")}` }));
  }
  return drawn;
}

function scaling(width, height, from, until, top) {
  return {
    height,
    x: (at) => ((at - from) / Math.max(1, until - from)) * width,
    y: (value) => height - 1 - Math.min(1, value / top) * (height - 3),
  };
}

export function niceTop(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((top) => top >= wanted * 0.999);
}

const largest = (series) => series.reduce((top, one) => one.points.reduce((high, [, value]) => Math.max(high, value ?? 0), top), 0);

// `series`: [{points: [[unix seconds, number|null]], color, name}]
export function sparkline(series, { from, until, top, least = 1, gap }) {
  const scale = scaling(300, 34, from, until, top ?? niceTop(largest(series), least));
  return s("svg", { class: "chart", viewBox: "0 0 300 34", preserveAspectRatio: "none", height: 34, "aria-hidden": "true" },
    ...series.flatMap((one) => paths(one.points, scale, one.color, gap)));
}

export function plot(series, { from, until, top, least = 1, gap, show }) {
  const [width, height] = [600, 130];
  const high = top ?? niceTop(largest(series), least);
  const scale = scaling(width, height, from, until, high);
  const lines = [0, 0.5, 1].map((part) => s("line", { class: "grid", x1: 0, x2: width, y1: scale.y(high * part), y2: scale.y(high * part) }));
  const cursor = s("line", { class: "cursor", y1: 0, y2: height, visibility: "hidden" });
  const picture = s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", height, role: "img", "aria-label": series.map((one) => one.name).join(", ") },
    ...lines, ...series.flatMap((one) => paths(one.points, scale, one.color, gap)), cursor);
  const tip = h("div", { class: "tip", hidden: true });
  const axis = [0.5, 1].map((part) => {
    const label = h("span", { class: "axis" }, show(high * part));
    label.style.top = `${scale.y(high * part)}px`;
    return label;
  });
  const times = h("div", { class: "times" }, ...[0, 0.25, 0.5, 0.75, 1].map((part) => h("span", {}, clock((from + (until - from) * part) * 1000, { seconds: until - from < 900 }))));
  const element = h("div", { class: "plot", "data-whole": true }, picture, axis, tip, times);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const wanted = from + ((event.clientX - box.left) / box.width) * (until - from);
    const nearest = series[0].points.reduce((best, point) => (best === null || Math.abs(point[0] - wanted) < Math.abs(best[0] - wanted) ? point : best), null);
    if (!nearest) return;
    const texts = series.map((one) => {
      const point = one.points.find(([at]) => at === nearest[0]);
      return `${series.length > 1 ? `${one.name} ` : ""}${show(point?.[1] ?? null)}`;
    });
    tip.textContent = `${clock(nearest[0] * 1000)}  ${texts.join(" · ")}`;
    tip.hidden = false;
    const x = (scale.x(nearest[0]) / width) * box.width;
    tip.style.left = `${Math.min(Math.max(x, 60), box.width - 60)}px`;
    cursor.setAttribute("x1", scale.x(nearest[0]));
    cursor.setAttribute("x2", scale.x(nearest[0]));
    cursor.setAttribute("visibility", "visible");
  });
  picture.addEventListener("pointerleave", () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); });
  return element;
}

export const LEVEL_COLORS = {
  info: "var(--info)", debug: "var(--debug)", verbose: "var(--trace)", trace: "var(--trace)",
  warn: "var(--warn)", error: "var(--bad)", fatal: "var(--bad)",
};

// Entry counts per bucket, stacked by level.
export function countBars(buckets) {
  const levels = Object.keys(LEVEL_COLORS);
  const sums = buckets.map((bucket) => levels.reduce((sum, level) => sum + (bucket[level] ?? 0), 0));
  const top = Math.max(1, ...sums);
  const what = (index) => `${sums[index].toLocaleString()} entries, ${((buckets[index].error ?? 0) + (buckets[index].fatal ?? 0)).toLocaleString()} errors`;
  const bars = h("div", { class: "bars", role: "img", "aria-label": "Entries per hour" }, buckets.map((bucket, index) => {
    const bar = h("div", { class: "bar", title: `${clock(bucket.bucket_start, { seconds: false })}: ${what(index)}` });
    for (const level of levels) {
      if (!bucket[level]) continue;
      const part = h("i");
      part.style.height = `${Math.max(1.5, (bucket[level] / top) * 100)}%`;
      part.style.background = LEVEL_COLORS[level];
      bar.append(part);
    }
    return bar;
  }));
  const marks = [0, Math.floor(buckets.length / 2), buckets.length - 1].filter((index) => buckets[index]);
  return h("div", { class: "plot" }, bars, h("div", { class: "times" }, marks.map((index) => h("span", {}, clock(buckets[index].bucket_start, { seconds: false })))));
}
