// The page's half of the dashboard: asks for news and draws it. Every text is set as text, never
// as HTML.

import { attemptList } from "./attempts.js";
import { chart } from "./chart.js";
import { make, plain, show } from "./dom.js";
import { knobPanel } from "./knobs.js";
import { letter, short } from "./numbers.js";
import { rewind } from "./rewind.js";
import { picture } from "./svg.js";

const WORDS = {
  waiting: "Waiting for the kernel", gone: "Gone", ready: "Ready", running: "Running",
  pausing: "Pausing after this step", paused: "Paused",
  stopping: "Stopping after this step", stopped: "Stopped", finished: "Finished", failed: "Failed",
};
const ENDED = ["finished", "stopped", "failed"], AWAY = ["waiting", "gone"];
const RESTING = ["ready", "running", "paused"], SOON = 300;  // ms
const SMALL = [
  ["reward", "Mean reward", "smooth"], ["held_out", "Held-out accuracy", "sparse"],
  ["teacher", "Teacher's accuracy", "sparse"], ["loss", "Loss", "smooth"],
  ["active", "Active fraction", "smooth"], ["entropy", "Entropy, nats", "smooth"],
  ["length", "Length, tokens", "smooth"], ["grad_norm", "Gradient norm", "smooth"],
];
const FRACTIONS = ["reward", "held_out", "teacher", "active"];
const WRITE = "Write the whole run to disk at the next step boundary";
const SILENT = {
  early: "No answer from the kernel yet: it is busy with a cell, or the run behind this picture "
    + "is gone. Run the cell again for a new one.",
  quiet: "No answer from the kernel: it is busy with a cell, was restarted, or is gone. "
    + "This is the last picture it sent.",
  busy: "The kernel is busy with a cell: what you chose waits for its end.",
  gone: "The kernel was restarted or has ended, and this run with it: what you see is its last "
    + "picture. ",
};
const clock = (s) => new Date(1000 * Math.round(s)).toISOString().slice(s < 3599.5 ? 14 : 11, 19);

function render({ model, el }) {
  const setup = model.get("setup");
  const root = make(el, "div", { hook: "sdpo-dash", role: "group", "aria-label": "Training run" });
  root.setAttribute("data-lm-suppress-shortcuts", "");
  let points = [], changes = {}, next = 0, seen = -1, drawn = "", past = "[]";
  let news = setup.news, answered = false, gone = false;
  let asked = 0, wished = 0, heard = Date.now(), closed = 0, saving = false;  // times in ms
  const state = () => (gone ? "gone" : answered ? news.state : "waiting");
  const over = () => ENDED.includes(state()) || AWAY.includes(state());

  // head: state, progress, time
  const head = make(root, "div", { class: "dash-head" });
  const status = make(head, "span", { hook: "state", role: "status", "aria-live": "polite" });
  const count = make(head, "span", { hook: "count" });
  const bar = make(head, "progress", { max: setup.steps, value: 0, "aria-label": "steps taken" });
  const time = make(head, "span", { hook: "time" });

  // controls
  const controls = make(root, "div", { class: "controls" });
  const buttons = make(controls, "div", { class: "buttons" });
  const button = (hook, text, title, kind) => {
    const b = make(buttons, "button", { type: "button", hook, title }, text);
    b.addEventListener("click", () => ask({ kind: kind() }));
    return b;
  };
  const go = button("run", "", "", () => go.dataset.action);
  const one = button("step", "Single step", "Exactly one step, then rest", () => "step");
  const end = button("stop", "Stop", "End this run; what was learned stays", () => "stop");
  const keep = button("save", "Save", WRITE, () => {
    saving = true;
    return "save";
  });
  const first = make(controls, "div", { class: "first" });

  const fold = (hook, title) => {
    const box = make(root, "details", { hook });
    make(box, "summary", {}, title);
    return box;
  };
  const more = make(fold("more", "More knobs"), "div", { class: "knobs" });
  const knobs = knobPanel(first, more, setup.knobs, ask);

  // messages
  const notes = make(root, "div", { class: "notes" });
  const note = (hook, role) => make(notes, "div", { hook, role, hidden: "" });
  const silent = note("silent", "status"), failure = note("failure", "alert");
  const notice = note("notice", "status"), warning = note("warning", "status");
  const saved = note("saved", "status");

  // charts and attempts
  const body = make(root, "div", { class: "body" });
  const left = make(body, "div", { class: "left" });
  const legend = make(left, "div", { class: "dash-legend" });
  const item = (key, name) => {
    const label = make(legend, "span", { class: "item" });
    const sample = picture(label, { width: 24, height: 10, "aria-hidden": "true" });
    make(sample, "path", { class: "line " + key, d: "M1 5H23" });
    label.append(name);
    return label;
  };
  item("reward", "student: mean reward (dots: each step, line: smoothed)");
  const every = setup.evaluate ? `, every ${setup.evaluate} steps` : "";
  const measured = item("teacher", "teacher: its accuracy on test problems" + every);
  const main = chart(left, {
    hook: "chart", height: 250, unit: true,
    empty: "No step yet: press Start, or take a single step.",
    series: [{ key: "teacher", kind: "sparse" }, { key: "reward", kind: "smooth" }],
  });
  const readout = make(left, "div", { hook: "readout" });
  const list = make(left, "ul", { hook: "changes" });
  const below = make(root, "div", { class: "below" });
  const attempts = attemptList(body, below, ask);
  const charts = fold("charts", "More charts"), grid = make(charts, "div", { class: "small" });
  const small = SMALL.map(([key, name, kind]) => {
    const box = make(grid, "div", { class: "one" }), line = make(box, "div", { class: "one-head" });
    make(line, "span", {}, name);
    return {
      key, value: make(line, "output"),
      ...chart(box, {
        hook: "chart-" + key, height: 92, small: true, unit: FRACTIONS.includes(key),
        series: [{ key, kind }],
      }),
    };
  });
  const title = "Rewind: one attempt at any step of this run";
  const back = setup.rewind ? rewind(fold("rewind", title), ask) : null;

  function ask(message) {
    const now = Date.now();
    asked = asked || now;
    if (message.kind !== "tick") wished = wished || now;
    try {
      model.send({ ...message, since: next, seen });
    } catch (error) {  // there is no channel to the kernel any more
      closed = closed || now;
    }
  }

  // ms until the next question: what somebody waits for is asked for at once; else seldom, since
  // every question costs the training time
  function pause() {
    if (gone) return 10000;
    if (saving || attempts.waits() || back?.waits() || root.querySelector(".knob.waits")) return 0;
    if (ENDED.includes(state())) return 3000;
    return RESTING.includes(state()) ? setup.interval : 0;
  }

  function silence(now, quiet) {
    const again = () =>
      `It was saved after step ${news.saved[0]}: `
      + `SDPOTrainer.resume("${plain(news.saved[1])}") goes on from there.`;
    if (gone) return SILENT.gone + (news.saved ? again() : "Run the cell again for a new one.");
    if (!answered && now - heard > 3000) return SILENT.early;
    if (quiet) return SILENT.quiet;
    return wished && now - wished > 1500 ? SILENT.busy : "";
  }

  function tick() {
    const now = Date.now(), quiet = now - heard > 5000, wait = pause();
    // closed, and it has not been opened again
    if (!gone && closed && closed >= heard && now - closed > 1500) {
      gone = true;
      draw();
    }
    root.classList.toggle("no-answer", quiet || !answered);
    show(silent, silence(now, quiet));
    // one question at a time, so none pile up
    if (document.hidden || (asked && now - Math.max(asked, heard) < 5000)) return;
    if (now - Math.max(asked, heard) < wait) return;
    asked = 0;
    ask({ kind: "tick" });
  }

  function receive(message) {
    if (message.kind === "credit") return attempts.receive(message);
    if (message.kind === "past") return back?.receive(message);
    if (message.kind === "saved") {
      saving = false;
      return message.error ? tell(`Not saved. ${plain(message.error)}`) : undefined;
    }
    if (message.kind !== "news") return;
    heard = Date.now();
    answered = true;
    gone = false;
    closed = 0;
    if (!message.pushed) asked = wished = 0;
    // its points are for another view, the rest is true of all; ours are on their way
    if (message.from > next && !message.cut) {
      news = message;
      return draw();
    }
    news = message;
    points = points.filter((p) => p.i < message.from);
    message.points.forEach((row, k) => {
      const named = setup.columns.map((name, n) => [name, row[n]]);
      points.push({ i: message.from + k, ...Object.fromEntries(named) });
    });
    Object.assign(changes, message.changes);
    next = message.next;
    if (message.attempts) { seen = message.attempts.seen; attempts.draw(message.attempts); }
    if (back && JSON.stringify(message.past) !== past) {
      past = JSON.stringify(message.past);
      const span = ([a, b, by]) =>
        Array.from({ length: (b - a) / by + 1 }, (_, k) => a + k * by);
      back.update(message.past.flatMap(span));
    }
    draw();
    if (message.notice) tell(message.notice);
    if (next < message.count) ask({ kind: "tick" });
  }

  function tell(text) {
    show(notice, text);
    clearTimeout(notice.timer);
    notice.timer = setTimeout(() => show(notice, ""), 10000);
  }

  function draw() {
    const now = state(), ended = over();
    Object.assign(root.dataset, { state: now, done: news.done, points: points.length });
    show(status, WORDS[now] || now);
    count.textContent = `step ${news.done} of ${news.steps}`;
    bar.value = news.done;
    const seconds = news.each * (news.steps - news.done);
    const rest = news.each && !ended ? ` · about ${clock(seconds)} left` : "";
    const pace = (v) => Number(v.toPrecision(2));
    const rate = news.each > 1 ? `${pace(news.each)} s/step` : `${pace(1 / news.each)} steps/s`;
    const speed = news.each ? ` · ${rate}` : "";
    time.textContent = `${clock(news.seconds)} elapsed${rest}${speed}`;
    const start = now === "ready" || ended ? "▶ Start" : "▶ Continue";
    go.textContent = now === "running" ? "❚❚ Pause" : start;
    go.dataset.action = now === "running" ? "pause" : "start";
    go.disabled = end.disabled = ended || now === "stopping";
    one.disabled = go.disabled || now === "running";
    keep.disabled = AWAY.includes(now);
    knobs.update(news.knobs, ended);
    show(warning, news.warnings.join(" "));
    show(failure, news.error);
    show(saved, news.saved ? `Saved after step ${news.saved[0]} in ${plain(news.saved[1])}` : "");
    drawCharts();
  }

  const marked = () => points.filter((p) => changes[p.step]);
  const range = () => {
    const first = points[0]?.step ?? 1;
    return [first, Math.max(setup.first + setup.steps, points.at(-1)?.step ?? 0, first + 1)];
  };

  function drawCharts(force = false) {
    const mark = `${next} ${points.length} ${left.clientWidth} ${charts.open}`;
    if (mark === drawn && !force) return;
    drawn = mark;
    const marks = marked();
    main.draw(points, marks, ...range());
    measured.hidden = !setup.evaluate && !points.some((p) => p.teacher !== null);
    if (charts.open) for (const one of small) one.draw(points, marks, ...range());
    look(Infinity);
    if (list.children.length === marks.length) return;
    list.replaceChildren();
    marks.forEach((p, k) => {
      const line = make(list, "li");
      make(line, "b", {}, letter(k));
      const word = (v) => (typeof v === "number" ? short(v) : plain(String(v)));
      const words = Object.entries(changes[p.step]).map(([f, v]) => `${f} ${word(v)}`);
      line.append(` from step ${p.step}: ` + words.join(", "));
    });
  }

  // What is known of the step under the pointer, or of the newest; in all charts at once
  let looked = null;
  function look(step) {
    const newest = points.at(-1);
    const nearer = (a, p) => (Math.abs(p.step - step) < Math.abs(a.step - step) ? p : a);
    const at = step < Infinity ? points.reduce(nearer, newest) : newest;
    looked = step < Infinity ? at : null;
    main.look(looked ? at.step : Infinity);
    const latest = (key) => (looked ? at : points.findLast((p) => p[key] !== null))?.[key] ?? null;
    for (const one of charts.open ? small : []) {
      const value = latest(one.key);
      one.look(looked ? at.step : Infinity);
      one.value.textContent = value === null ? "–" : short(value);
    }
    const two = (name, v) => (v === null ? "" : ` · ${name} ${v.toFixed(2)}`);
    const reward = at?.reward === null ? "–" : at?.reward.toFixed(2);
    const said = !at ? "" : `step ${at.step}: mean reward ${reward}`
      + two("teacher", at.teacher) + two("held-out", at.held_out)
      + (at.loss === null ? " · skipped, no loss" : ` · loss ${short(at.loss)}`);
    readout.textContent = said;
    main.svg.setAttribute("aria-label", "Mean reward and teacher's accuracy by step. " + said);
  }

  for (const one of [main, ...small]) {
    one.svg.addEventListener("pointermove", (e) => {
      if (points.length) look(one.stepAt(e.clientX - one.svg.getBoundingClientRect().left));
    });
    for (const leave of ["pointerleave", "blur"])
      one.svg.addEventListener(leave, () => look(Infinity));
  }
  main.svg.addEventListener("keydown", (e) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (!by || !points.length) return;
    e.preventDefault();
    const to = (looked ?? points.at(-1)).step + by;
    look(Math.max(points[0].step, Math.min(points.at(-1).step, to)));
  });
  charts.addEventListener("toggle", () => drawCharts(true));
  // the channel was closed, as when the kernel is restarted, or opened again: the next answer tells
  // which
  const changed = () => { closed = Date.now(); asked = 0; };
  model.on("msg:custom", receive);
  model.on("comm_live_update", changed);
  const watch = new ResizeObserver(() => drawCharts());
  watch.observe(left);
  draw();
  const timer = setInterval(tick, Math.min(SOON, setup.interval));
  tick();
  return () => {
    clearInterval(timer);
    watch.disconnect();
    back?.destroy();
    model.off("msg:custom", receive);
    model.off("comm_live_update", changed);
  };
}

export default { render };
