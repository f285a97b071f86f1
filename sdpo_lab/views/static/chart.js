// Lines over the steps of a run, as SVG.

import { make } from "./dom.js";
import { letter, short } from "./numbers.js";
import { picture } from "./svg.js";

function ticks(low, high, most) {
  const size = 10 ** Math.floor(Math.log10((high - low) / most || 1));
  const gap = [1, 2, 5, 10, 20].map((k) => k * size).find((g) => (high - low) / g <= most);
  const found = [];
  for (let v = Math.ceil(low / gap - 1e-9) * gap; v <= high + gap * 1e-6; v += gap)
    found.push(Number(v.toPrecision(6)));
  return found;
}

// [step, value or null] of a series; "smooth" is an average that forgets, "sparse" leaves out the
// steps where nothing was measured
function values(points, { key, kind }) {
  let average = null;
  const smoothed = (v) => (average = average === null ? v : average + 0.4 * (v - average));
  if (kind === "sparse") return points.filter((p) => p[key] !== null).map((p) => [p.step, p[key]]);
  const plain = kind !== "smooth";
  return points.map(({ step, [key]: v }) => [step, plain || v === null ? v : smoothed(v)]);
}

// Of many points the lowest and the highest of each stretch, so that drawing takes as long for
// 5000 steps as for 500, and no spike is lost
function thinned(list, most) {
  const size = Math.ceil((2 * list.length) / most), found = [];
  if (size < 3) return list;
  for (let start = 0; start < list.length; start += size) {
    const part = list.slice(start, start + size), there = part.filter(([, v]) => v !== null);
    if (!there.length) { found.push(part[0]); continue; }
    const low = there.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = there.reduce((a, b) => (b[1] > a[1] ? b : a));
    found.push(...(low === high ? [low] : low[0] < high[0] ? [low, high] : [high, low]));
  }
  if (found.at(-1) !== list.at(-1)) found.push(list.at(-1));
  return found;
}

// A chart at the end of `parent`. `series`: {key, name, kind: "smooth" | "line" | "sparse"}, the
// last drawn on top; `height` in px; values from 0 to 1 at
// least where `unit` is true; `small` leaves out letters and legend. Returns
//   draw(points, marks, first, last)   points {step, [key]: number or null}, ascending; marks: the
//                                      points at which something was changed
//   look(step)                         a line there, Infinity for none
//   svg, stepAt(px)
export function chart(parent, { hook, series, height, unit = false, small = false, empty = "" }) {
  const pad = small
    ? { left: 36, right: 6, top: 6, bottom: 8 }
    : { left: 38, right: 14, top: 20, bottom: 26 };
  const svg = picture(parent, {
    height, class: hook, "data-testid": hook, role: "img", ...(small ? {} : { tabindex: 0 }),
  });
  let points = [], marks = [], first = 1, last = 2, cursor = Infinity, width = 0;

  const room = () => width - pad.right - pad.left;
  const x = (step) => pad.left + ((step - first) / (last - first)) * room();
  const stepAt = (px) => first + ((px - pad.left) / room()) * (last - first);

  function render() {
    width = Math.max(small ? 120 : 280, parent.clientWidth || 600);
    const wall = width - pad.right, floor = height - pad.bottom;
    const drawn = series.filter(({ key }) => points.some((p) => p[key] !== null));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.replaceChildren();
    let low = unit ? 0 : Infinity, high = unit ? 1 : -Infinity;
    for (const { key } of drawn) {
      for (const { [key]: v } of points) {
        if (v === null) continue;
        low = Math.min(low, v);
        high = Math.max(high, v);
      }
    }
    if (low > high) [low, high] = [0, 1];
    if (low === high) [low, high] = [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2];
    const y = (v) => pad.top + ((high - v) / (high - low)) * (floor - pad.top);
    for (const v of ticks(low, high, small ? 3 : 5)) {
      make(svg, "path", { class: "rule", d: `M${pad.left} ${y(v)}H${wall}` });
      make(svg, "text", { x: pad.left - 6, y: y(v) + 4, "text-anchor": "end" }, short(v));
    }
    if (!small) {
      for (const s of ticks(first, last, Math.min(10, width / 60)).filter(Number.isInteger))
        make(svg, "text", { x: x(s), y: floor + 17, "text-anchor": "middle" }, String(s));
      make(svg, "text", { x: pad.left - 7, y: floor + 17, "text-anchor": "end" }, "step");
    }
    let flag = -Infinity;  // letters of neighbouring steps stand side by side
    marks.forEach((p, k) => {
      const at = x(p.step);
      make(svg, "path", { class: "mark", d: `M${at} ${pad.top}V${floor}`, "data-step": p.step });
      if (small) return;
      flag = Math.min(Math.max(at, flag + 18), width - 8);
      make(svg, "rect", { class: "flag", x: flag - 8, y: 2, width: 16, height: 16, rx: 4 });
      make(svg, "text", { class: "flag", x: flag, y: 14, "text-anchor": "middle" }, letter(k));
    });
    for (const one of drawn) {
      const place = ([step, v]) => `${x(step).toFixed(1)} ${y(v).toFixed(1)}`;
      const dot = (p) => (p[1] === null ? "" : `M${place(p)}h0`);
      const list = thinned(values(points, one), width);
      const starts = (k) => (list[k - 1]?.[1] ?? null) === null;
      const d = list.map((p, k) => (p[1] === null || starts(k) ? dot(p) : "L" + place(p))).join("");
      make(svg, "path", { class: "line " + one.key, d });
      let raw = [];
      if (one.kind === "sparse" && list.length < 100) raw = list;
      if (one.kind === "smooth") raw = thinned(values(points, { key: one.key }), width);
      make(svg, "path", { class: "dots " + one.key, d: raw.map(dot).join("") });
    }
    const middle = { x: width / 2, y: height / 2, "text-anchor": "middle" };
    if (!points.length && empty) make(svg, "text", { class: "empty", ...middle }, empty);
    drawCursor();
  }

  function drawCursor() {
    svg.querySelector(".cursor")?.remove();
    if (cursor === Infinity || !points.length) return;
    make(svg, "path", { class: "cursor", d: `M${x(cursor)} ${pad.top}V${height - pad.bottom}` });
  }

  return {
    svg, stepAt,
    draw(...now) { [points, marks, first, last] = now; render(); },
    look(step) { cursor = step; drawCursor(); },
  };
}
