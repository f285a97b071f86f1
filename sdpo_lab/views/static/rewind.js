// A run that can be wound back: a slider over its steps, how far student and teacher disagreed at
// each, and the attempt at the chosen one.
//
// `ask(message)` sends {kind: "rewind", step}; the answer {kind: "past", step, picture}, or
// {..., error}, goes to `receive`. Returns
//   update(steps)     the steps there are now, ascending; whoever looks at the newest follows
//   receive(message)  the answer
//   waits()           is an answer on its way
//   destroy()

import { compactTokens } from "./compact_tokens.js";
import { emptied, literal, make, plain, show } from "./dom.js";
import { picture } from "./svg.js";

const HEIGHT = 58; // px
const EDGE = 9; // px, half of a slider's thumb
const GAP = 250; // ms between steps that play
const PATIENCE = 30000; // ms for an answer
const NOTHING_YET =
  "No step to look at yet: the first failed attempt with feedback will be followed.";
const PLAY = "▶ Play";

const nameOf = (step) => (step === 0 ? "before the first step" : `after step ${step}`);
const capital = (text) => text.replace(/^./, (c) => c.toUpperCase());

export function rewind(parent, ask) {
  let steps = [];
  let wanted = null; // the step the slider is at
  let shown = null; // the step whose picture is drawn
  let course = null; // {steps, sums, limit, question}
  let view = null;
  let asked = 0;
  let waiting = null; // the step that was asked for
  let playing = null;
  let width = 0;

  const root = make(parent, "section", {
    hook: "sdpo-rewind", "aria-label": "The run, step by step", "data-lm-suppress-shortcuts": "",
  });
  const head = make(root, "div", { class: "line" });
  const play = make(head, "button", { hook: "rewind-play", type: "button" }, PLAY);
  const where = make(head, "output", { hook: "rewind-step" });
  const gap = make(head, "span", { hook: "rewind-sum" });
  const track = make(root, "div", { class: "track" });
  const place = make(track, "div", { hook: "rewind-course" });
  const slider = make(track, "input", {
    hook: "rewind-slider", type: "range", min: 0, max: 0, step: 1, value: 0,
    "aria-label": "Step of the run",
  });
  const ends = make(track, "div", { class: "ends quiet" });
  const first = make(ends, "span");
  const meaning = make(ends, "span", { class: "meaning" });
  const last = make(ends, "span");
  const notice = make(root, "div", { hook: "rewind-notice", role: "status", hidden: "" });
  const about = make(root, "div", { hook: "rewind-about" });
  const tokens = make(root, "div", { class: "place" });

  function sumAt(step) {
    const k = course ? course.steps.indexOf(step) : -1;
    return k < 0 ? null : course.sums[k];
  }

  function go(index) {
    wanted = steps[Math.max(0, Math.min(steps.length - 1, index))];
    draw();
    question();
  }

  const waits = () => waiting !== null && Date.now() - asked < PATIENCE;

  // One question at a time; when its answer is here and the hand has moved on, the next
  function question() {
    if (wanted === null || wanted === shown || waits()) return;
    waiting = wanted;
    asked = Date.now();
    ask({ kind: "rewind", step: wanted });
  }

  function update(now) {
    const follows = wanted === null || wanted === steps.at(-1);
    steps = now;
    if (!steps.length) return draw();
    if (follows) wanted = steps.at(-1);
    else if (!steps.includes(wanted)) wanted = steps.findLast((s) => s <= wanted) ?? steps[0];
    draw();
    question();
  }

  function receive(message) {
    if (message.step !== waiting) return; // another page's answer
    waiting = null;
    shown = message.step;
    show(notice, plain(message.error || message.picture?.course?.trouble || ""));
    if (message.error) {
      view = null;
      tokens.replaceChildren();
      stop();
      return draw();
    }
    course = message.picture.course ?? { steps: [], sums: [] };
    if (view) view.update(message.picture, { limit: course.limit });
    else view = compactTokens(tokens, message.picture, { limit: course.limit });
    tell(message.picture.shown);
    draw();
    question();
    if (playing !== null) playing = setTimeout(next, GAP);
  }

  // What the two of them read
  function tell({ solution, feedback, attempt }) {
    const texts = {
      "the question": course.question,
      "the teacher also read a solution": solution,
      "the teacher also read the feedback": feedback,
      "and the earlier attempt": attempt,
    };
    about.replaceChildren();
    for (const [title, text] of Object.entries(texts)) {
      if (!text) continue;
      const line = make(about, "div");
      make(line, "span", { class: "quiet" }, title + ": ");
      literal(make(line, "span", { class: "said" }), text);
    }
  }

  function next() {
    const at = steps.indexOf(wanted);
    if (at < 0 || at >= steps.length - 1) return stop();
    go(at + 1);
  }

  function stop() {
    clearTimeout(playing ?? undefined);
    playing = null;
    play.textContent = PLAY;
  }

  play.addEventListener("click", () => {
    if (playing !== null) return stop();
    playing = 0;
    play.textContent = "❚❚ Stop";
    if (wanted === steps.at(-1)) go(0);
    else next();
  });
  slider.addEventListener("input", () => {
    stop();
    go(Number(slider.value));
  });
  place.addEventListener("pointerdown", (e) => {
    const box = place.getBoundingClientRect();
    const part = (e.clientX - box.left - EDGE) / (box.width - 2 * EDGE);
    stop();
    go(Math.round(part * (steps.length - 1)));
    slider.focus({ preventScroll: true });
    e.preventDefault();
  });

  // Where a step lies between the ends, 0 to 1, also one that is not in the list any more
  function along(step) {
    const after = steps.findIndex((s) => s >= step);
    if (after <= 0 || steps.length < 2) return 0;
    const before = (steps[after] - step) / (steps[after] - steps[after - 1]);
    return (after - before) / (steps.length - 1);
  }

  function draw() {
    const at = Math.max(0, steps.indexOf(wanted));
    slider.max = Math.max(0, steps.length - 1);
    slider.value = at;
    slider.disabled = play.disabled = steps.length < 2;
    Object.assign(root.dataset, { step: shown ?? "", steps: steps.length });
    root.classList.toggle("behind", wanted !== shown);
    const sum = wanted === null ? null : sumAt(wanted);
    const words = sum === null ? "" : `teacher and student differ by ${sum.toFixed(2)} nats in all`;
    where.textContent = wanted === null ? NOTHING_YET : capital(nameOf(wanted));
    gap.textContent = words || (wanted !== shown && wanted !== null ? "being computed" : "");
    const value = wanted === null ? "no step yet" : nameOf(wanted) + (words && ", " + words);
    slider.setAttribute("aria-valuetext", value);
    first.textContent = steps.length ? String(steps[0]) : "";
    last.textContent = steps.length > 1 ? String(steps.at(-1)) : "";
    const what = "the sum of |advantage| over the tokens, by step";
    meaning.textContent = steps.length > 1 ? what : "";
    drawCourse(at);
  }

  // The sum of |advantage| by step as an area, and a line at the chosen step
  function drawCourse(at) {
    const w = Math.max(120, place.clientWidth || width || 400);
    const points = (course?.steps ?? []).map((step, k) => [step, course.sums[k]]);
    const top = Math.max(1e-6, ...points.map(([, v]) => v));
    const x = (f) => (EDGE + f * (w - 2 * EDGE)).toFixed(1);
    const y = (v) => (HEIGHT - 4 - (v / top) * (HEIGHT - 20)).toFixed(1);
    const pointAt = ([step, v]) => `${v.toFixed(2)} at step ${step}`;
    const words = points.length
      ? `Sum of |advantage| by step: ${pointAt(points[0])}, ${pointAt(points.at(-1))}`
      : "No step yet";
    const svg = picture(emptied(place), {
      width: w, height: HEIGHT, viewBox: `0 0 ${w} ${HEIGHT}`, role: "img", "aria-label": words,
    });
    if (!points.length || !steps.length) return;
    const [begin, end] = [points[0], points.at(-1)].map(([step]) => x(along(step)));
    const line = points.map(([s, v], k) => `${k ? "L" : "M"}${x(along(s))} ${y(v)}`).join("");
    const floor = HEIGHT - 4;
    make(svg, "path", { class: "area", d: `${line}L${end} ${floor}L${begin} ${floor}Z` });
    make(svg, "path", { class: "course", d: line });
    make(svg, "text", { x: EDGE, y: 11 }, `${top.toFixed(1)} nats`);
    const now = x(steps.length > 1 ? at / (steps.length - 1) : 0);
    make(svg, "path", { class: "now", d: `M${now} 14V${HEIGHT}` });
    const sum = sumAt(wanted);
    if (sum !== null) make(svg, "circle", { class: "now", cx: now, cy: y(sum), r: 3.5 });
  }

  const watch = new ResizeObserver(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    draw();
  });
  watch.observe(place);
  draw();

  function destroy() {
    stop();
    watch.disconnect();
  }

  return { update, receive, waits, destroy };
}
