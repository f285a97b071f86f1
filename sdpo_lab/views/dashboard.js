// The page's half of the dashboard: asks for news and draws it. Every text is set as text, never as HTML.
const WORDS = {
  ready: "Ready", running: "Running", pausing: "Pausing after this step", paused: "Paused", stopping: "Stopping after this step",
  stopped: "Stopped", finished: "Finished", failed: "Failed",
};
const ENDED = ["finished", "stopped", "failed"];
const SERIES = [["active", "active fraction"], ["teacher", "teacher accuracy"], ["reward", "mean reward"]];  // drawn where a step has a value
const HEIGHT = 250, PAD = { left: 38, right: 14, top: 20, bottom: 26 }, SVG = "http://www.w3.org/2000/svg";

// A new last child of `parent`; `hook` is its class and its data-testid.
function make(parent, tag, { hook, ...attributes } = {}, text = null) {
  const node = parent.namespaceURI === SVG || tag === "svg" ? document.createElementNS(SVG, tag) : document.createElement(tag);
  if (hook) Object.assign(attributes, { class: hook, "data-testid": hook });
  // keys pressed here are meant for here: JupyterLab would take them for its own commands
  if (/button|input/.test(tag) || attributes.tabindex) attributes["data-lm-suppress-shortcuts"] = "";
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

// Model text as it is: line ends marked, characters nobody could see written as their code.
function literal(parent, text) {
  text.split(/([\u0000-\u0008\u000a-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff])/).forEach((part, k) => {
    const end = part === "\n";
    if (k % 2) make(parent, "span", { class: "code" }, end ? "↵" : "\\u" + part.charCodeAt(0).toString(16).padStart(4, "0"));
    if (end || k % 2 === 0) parent.append(part);
  });
}

const clock = (s) => new Date(1000 * Math.round(s)).toISOString().slice(s < 3599.5 ? 14 : 11, 19);
const short = (v) => (v && Math.abs(v) < 1e-3 ? v.toExponential(1) : String(Number(v.toPrecision(3))));
const letter = (k) => (k < 26 ? String.fromCharCode(97 + k) : String(k + 1));

function smooth(points, key) {
  let now = null;
  return points.map((p) => (p[key] === null ? now : (now = now === null ? p[key] : now + 0.4 * (p[key] - now))));
}

function ticks(low, high, most) {
  const size = 10 ** Math.floor(Math.log10((high - low) / most || 1));
  const gap = [1, 2, 5, 10, 20].map((k) => k * size).find((g) => (high - low) / g <= most);
  const found = [];
  for (let v = Math.ceil(low / gap - 1e-9) * gap; v <= high + gap * 1e-6; v += gap) found.push(Number(v.toPrecision(6)));
  return found;
}

function render({ model, el }) {
  const setup = model.get("setup");
  const root = make(el, "div", { hook: "sdpo-dash", role: "group", "aria-label": "Training run" });
  let points = [], next = 0, seen = -1, news = setup.news, asked = 0, wished = 0, heard = Date.now(), cursor = Infinity, width = 0;
  const over = () => ENDED.includes(news.state);

  // head: state, progress, time
  const head = make(root, "div", { class: "head" });
  const state = make(head, "span", { hook: "state", role: "status", "aria-live": "polite" });
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
  const sliders = make(controls, "div", { class: "knobs" });
  const knobs = setup.knobs.map((k) => knob(sliders, k));

  // messages
  const note = (hook, role) => make(make(root, "div", { class: "notes" }), "div", { hook, role, hidden: "" });
  const silent = note("silent", "status"), failure = note("failure", "alert"), notice = note("notice", "status"), warning = note("warning", "status");

  // chart and attempts
  const body = make(root, "div", { class: "body" });
  const left = make(body, "div", { class: "left" });
  const legend = make(left, "div", { class: "legend" });
  const svg = make(left, "svg", { height: HEIGHT, role: "img", tabindex: "0", hook: "chart" });
  const readout = make(left, "div", { hook: "readout" });
  const changes = make(left, "ul", { hook: "changes" });
  const right = make(body, "section", { hook: "attempts", "aria-label": "Newest attempts", tabindex: "0" });
  make(right, "p", { class: "quiet" }, "The newest attempts appear here after the first step.");

  function show(element, text) {
    element.hidden = !text;
    if (element.textContent !== text) element.textContent = text;
  }

  function knob(parent, spec) {
    const low = Math.log10(spec.low), high = Math.log10(spec.high), grain = (high - low) / 200;
    const label = make(parent, "label", { class: "knob" });
    const line = make(label, "span", { class: "line" });
    make(line, "span", {}, spec.label);
    const value = make(line, "output");
    const input = make(label, "input", { type: "range", min: low - (spec.zero ? 4 * grain : 0), max: high, step: grain, hook: spec.field });
    const hint = make(label, "span", { class: "hint" });
    let touched = 0, timer;
    const chosen = () => (spec.zero && input.value < low - grain ? 0 : Number((10 ** input.value).toPrecision(2)));
    const write = (v) => { value.textContent = short(v); input.setAttribute("aria-valuetext", short(v)); };
    input.addEventListener("input", () => { touched = Date.now(); write(chosen()); });
    input.addEventListener("change", () => {
      touched = Date.now();
      clearTimeout(timer);  // arrow keys fire many; the last one counts
      timer = setTimeout(() => ask({ kind: "set", field: spec.field, value: chosen() }), 120);
    });
    return {
      update() {
        const v = news.values[spec.field], waits = news.pending.includes(spec.field);
        label.classList.toggle("waits", waits);
        hint.textContent = spec.idle || (waits ? "waits for the next step" : "takes effect at the next step");
        input.disabled = !!spec.idle || over();
        if (Date.now() - touched < 1500) return;  // still in a hand
        input.value = v > 0 ? Math.log10(v) : input.min;
        write(v);
      },
    };
  }

  function ask(message) {
    const now = Date.now();
    asked = asked || now;
    if (message.kind !== "tick") wished = wished || now;
    model.send({ ...message, since: next, seen });
  }

  function tick() {
    const now = Date.now(), dead = now - heard > 5000;
    root.classList.toggle("no-answer", dead);
    show(silent, dead ? "No answer from the kernel: it is busy with a cell, was restarted, or is gone. This is the last picture it sent."
      : wished && now - wished > 1500 ? "The kernel is busy with a cell: what you chose waits for its end." : "");
    if (document.hidden || (asked && now - Math.max(asked, heard) < 5000)) return;  // one question at a time, so none pile up
    if (over() && now - heard < 3000) return;
    asked = 0;
    ask({ kind: "tick" });
  }

  function receive(message) {
    if (message.kind !== "news") return;
    heard = Date.now();
    if (!message.pushed) asked = wished = 0;
    if (message.from > next && !message.cut) return;  // an answer to another view; ours is on its way
    news = message;
    points = points.filter((p) => p.i < message.from).concat(message.points);
    next = message.next;
    if (message.attempts) { seen = message.attempts.seen; drawAttempts(message.attempts); }
    draw();
    if (message.notice) {
      show(notice, message.notice);
      clearTimeout(notice.timer);
      notice.timer = setTimeout(() => show(notice, ""), 8000);
    }
    if (next < message.count) ask({ kind: "tick" });
  }

  function draw() {
    const ended = over();
    Object.assign(root.dataset, { state: news.state, done: news.done, points: points.length });
    show(state, WORDS[news.state] || news.state);
    count.textContent = `step ${news.done} of ${news.steps}`;
    bar.value = news.done;
    const rest = news.each && !ended ? ` · about ${clock(news.each * (news.steps - news.done))} left` : "";
    const pace = (v) => Number(v.toPrecision(2));
    const speed = !news.each ? "" : news.each > 1 ? ` · ${pace(news.each)} s/step` : ` · ${pace(1 / news.each)} steps/s`;
    time.textContent = `${clock(news.seconds)} elapsed${rest}${speed}`;
    go.textContent = news.state === "running" ? "❚❚ Pause" : news.state === "ready" || ended ? "▶ Start" : "▶ Continue";
    go.dataset.action = news.state === "running" ? "pause" : "start";
    go.disabled = end.disabled = ended || news.state === "stopping";
    one.disabled = go.disabled || news.state === "running";
    knobs.forEach((k) => k.update());
    show(warning, news.warnings.join(" "));
    show(failure, news.error);
    drawChart();
  }

  function drawChart() {
    const w = Math.max(280, width || 600), wall = w - PAD.right, floor = HEIGHT - PAD.bottom, newest = points.at(-1);
    svg.setAttribute("viewBox", `0 0 ${w} ${HEIGHT}`);
    svg.setAttribute("width", w);
    svg.replaceChildren();
    const first = points[0]?.step ?? 1, last = Math.max(setup.first + setup.steps, newest?.step ?? 0, first + 1);
    const values = points.flatMap((p) => SERIES.map(([key]) => p[key] ?? 0));
    const low = values.reduce((a, b) => Math.min(a, b), 0), high = values.reduce((a, b) => Math.max(a, b), 1);
    const x = (step) => PAD.left + ((step - first) / (last - first)) * (wall - PAD.left);
    const y = (v) => PAD.top + ((high - v) / (high - low)) * (floor - PAD.top);
    for (const v of ticks(low, high, 5)) {
      make(svg, "path", { class: "grid", d: `M${PAD.left} ${y(v)}H${wall}` });
      make(svg, "text", { x: PAD.left - 7, y: y(v) + 4, "text-anchor": "end" }, String(v));
    }
    for (const s of ticks(first, last, Math.min(10, w / 60)).filter(Number.isInteger))
      make(svg, "text", { x: x(s), y: floor + 17, "text-anchor": "middle" }, String(s));
    make(svg, "text", { x: PAD.left - 7, y: floor + 17, "text-anchor": "end" }, "step");
    const marks = points.filter((p) => Object.keys(p.changes).length);
    marks.forEach((p, k) => {
      const at = x(p.step);
      make(svg, "path", { class: "mark", d: `M${at} ${PAD.top}V${floor}`, "data-step": p.step });
      make(svg, "rect", { class: "flag", x: at - 8, y: 2, width: 16, height: 16, rx: 4 });
      make(svg, "text", { class: "flag", x: at, y: 14, "text-anchor": "middle" }, letter(k));
    });
    const place = (v, k) => `${x(points[k].step).toFixed(1)} ${y(v).toFixed(1)}`;
    const line = (list) => list.map((v, k) => (v === null ? "" : ((list[k - 1] ?? null) === null ? "M" : "L") + place(v, k))).join("");
    const drawn = SERIES.filter(([key]) => key === "reward" || points.some((p) => p[key] !== null));
    for (const [key] of drawn) make(svg, "path", { class: "line " + key, d: line(key === "reward" ? smooth(points, key) : points.map((p) => p[key])) });
    make(svg, "path", { class: "dots", d: points.map((p, k) => (p.reward === null ? "" : `M${place(p.reward, k)}h0`)).join("") });
    const at = points.reduce((a, p) => (Math.abs(p.step - cursor) < Math.abs(a.step - cursor) ? p : a), newest), hovered = cursor < Infinity;
    if (at && hovered) make(svg, "path", { class: "cursor", d: `M${x(at.step)} ${PAD.top}V${floor}` });
    if (!points.length) make(svg, "text", { class: "empty", x: w / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "No step yet: press Start, or take a single step.");
    const said = at ? `step ${at.step}: ` + drawn.filter(([key]) => at[key] !== null).reverse().map(([key, name]) => `${name} ${at[key].toFixed(2)}`).join(" · ")
      + (at.loss === null ? " · skipped, no loss" : ` · loss ${short(at.loss)}`) : "";
    readout.textContent = said;
    svg.setAttribute("aria-label", "Mean reward by step. " + said);
    svg.scale = (px) => first + ((px - PAD.left) / (wall - PAD.left)) * (last - first);
    drawLists(drawn, marks);
  }

  function drawLists(drawn, marks) {
    if (legend.children.length !== drawn.length) {
      legend.replaceChildren();
      for (const [key, name] of [...drawn].reverse()) {
        const item = make(legend, "span", { class: "item" });
        make(make(item, "svg", { width: 24, height: 10, "aria-hidden": "true" }), "path", { class: "line " + key, d: "M1 5H23" });
        item.append(key === "reward" ? name + " (dots: each step, line: smoothed)" : name);
      }
    }
    if (changes.children.length === marks.length) return;
    changes.replaceChildren();
    marks.forEach((p, k) => {
      const item = make(changes, "li");
      make(item, "b", {}, letter(k));
      item.append(` from step ${p.step}: ` + Object.entries(p.changes).map(([f, v]) => `${f.replaceAll("_", " ")} ${typeof v === "number" ? short(v) : v}`).join(", "));
    });
  }

  function drawAttempts(group) {
    const top = right.scrollTop;
    right.replaceChildren();
    const title = make(right, "h4", {}, "Newest attempts");
    make(title, "small", {}, ` one question of step ${group.step}`);
    literal(make(right, "div", { class: "question" }), group.question);
    for (const attempt of group.list) {
      const [kind, name, sign] = attempt.reward >= 1 ? ["good", "right", "✓"] : attempt.reward > 0 ? ["part", "partly right", "½"] : ["bad", "wrong", "✗"];
      const item = make(right, "div", { class: "attempt " + kind });
      make(item, "span", { class: "verdict", role: "img", "aria-label": name }, sign);
      const texts = make(item, "div", { class: "texts" });
      literal(make(texts, "code", { class: "text" }), attempt.text);
      if (!attempt.text) make(texts, "span", { class: "quiet" }, "(empty)");
      if (kind === "part") make(texts, "span", { class: "quiet" }, ` reward ${short(attempt.reward)}`);
      if (attempt.feedback) literal(make(texts, "div", { class: "feedback" }), attempt.feedback);
    }
    if (group.more) make(right, "p", { class: "quiet" }, `and ${group.more} more`);
    right.scrollTop = top;
  }

  const look = (step) => { cursor = step; drawChart(); };
  svg.addEventListener("pointermove", (e) => look(svg.scale(e.clientX - svg.getBoundingClientRect().left)));
  for (const leave of ["pointerleave", "blur"]) svg.addEventListener(leave, () => look(Infinity));
  svg.addEventListener("keydown", (e) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key], newest = points.at(-1);
    if (!by || !newest) return;
    e.preventDefault();
    look(Math.min(newest.step, Math.max(points[0].step, Math.round(Math.min(cursor, newest.step)) + by)));
  });
  model.on("msg:custom", receive);
  const watch = new ResizeObserver(() => { if (left.clientWidth !== width) { width = left.clientWidth; drawChart(); } });
  watch.observe(left);
  draw();
  const timer = setInterval(tick, setup.interval);
  tick();
  return () => { clearInterval(timer); watch.disconnect(); model.off("msg:custom", receive); };
}

export default { render };
