// A run that can be wound back: a slider over its steps, how far student and teacher disagreed at each, and the attempt at the chosen one.
// Needs dom.js and strip.js. `ask(message)` sends {kind: "rewind", step}; the answer {kind: "past", step, picture}, or {..., error}, goes to `receive`.
// Returns
//   update(steps)     the steps there are now, ascending; whoever looks at the newest follows
//   receive(message)  the answer
//   destroy()
function rewind(parent, ask) {
  const HEIGHT = 58, EDGE = 9, GAP = 250, PATIENCE = 30000;  // px, px (half of a slider's thumb), ms between steps that play, ms for an answer
  let steps = [], wanted = null, shown = null, course = null, view = null, asked = 0, waiting = null, playing = null, width = 0;

  const root = make(parent, "section", { hook: "sdpo-rewind", "aria-label": "The run, step by step", "data-lm-suppress-shortcuts": "" });
  const head = make(root, "div", { class: "line" });
  const play = make(head, "button", { hook: "rewind-play", type: "button" }, "▶ Play");
  const where = make(head, "output", { hook: "rewind-step" });
  const gap = make(head, "span", { hook: "rewind-sum" });
  const track = make(root, "div", { class: "track" });
  const picture = make(track, "div", { hook: "rewind-course" });
  const slider = make(track, "input", { hook: "rewind-slider", type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "Step of the run" });
  const ends = make(track, "div", { class: "ends quiet" }), first = make(ends, "span"), meaning = make(ends, "span", { class: "meaning" }), last = make(ends, "span");
  const notice = make(root, "div", { hook: "rewind-notice", role: "status", hidden: "" });
  const about = make(root, "div", { hook: "rewind-about" });
  const place = make(root, "div", { class: "place" });

  const name = (step) => (step === 0 ? "before the first step" : `after step ${step}`);
  const sum = (step) => { const k = course ? course.steps.indexOf(step) : -1; return k < 0 ? null : course.sums[k]; };

  function go(index) {
    wanted = steps[Math.max(0, Math.min(steps.length - 1, index))];
    draw();
    question();
  }

  // One question at a time; when its answer is here and the hand has moved on, the next.
  function question() {
    if (wanted === null || wanted === shown || (waiting !== null && Date.now() - asked < PATIENCE)) return;
    waiting = wanted;
    asked = Date.now();
    ask({ kind: "rewind", step: wanted });
  }

  function update(found) {
    const follows = wanted === null || wanted === steps.at(-1);
    steps = found;
    if (!steps.length) return draw();
    if (follows || !steps.includes(wanted)) wanted = follows ? steps.at(-1) : steps.findLast((s) => s <= wanted) ?? steps[0];
    draw();
    question();
  }

  function receive(message) {
    if (message.step !== waiting) return;  // another page's answer
    waiting = null;
    show(notice, message.error ? plain(message.error) : message.picture.course?.trouble ? plain(message.picture.course.trouble) : "");
    if (message.error) { shown = message.step; view = null; place.replaceChildren(); stop(); return draw(); }
    shown = message.step;
    course = message.picture.course ?? { steps: [], sums: [] };
    if (view) view.update(message.picture, { limit: course.limit });
    else view = strip(place, message.picture, { limit: course.limit });
    tell(message.picture);
    draw();
    question();
    if (playing !== null) playing = setTimeout(next, GAP);
  }

  function tell(found) {
    const texts = { "the question": course.question, "the teacher also read a solution": found.shown.solution, "the teacher also read the feedback": found.shown.feedback,
      "and the earlier attempt": found.shown.attempt };
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
    play.textContent = "▶ Play";
  }

  play.addEventListener("click", () => {
    if (playing !== null) return stop();
    playing = 0;
    play.textContent = "❚❚ Stop";
    if (wanted === steps.at(-1)) go(0);
    else next();
  });
  slider.addEventListener("input", () => { stop(); go(Number(slider.value)); });
  picture.addEventListener("pointerdown", (e) => {
    const box = picture.getBoundingClientRect();
    stop();
    go(Math.round(((e.clientX - box.left - EDGE) / (box.width - 2 * EDGE)) * (steps.length - 1)));
    slider.focus({ preventScroll: true });
    e.preventDefault();
  });

  // Where a step lies between the ends, 0 to 1, also one that is not in the list any more
  function along(step) {
    const after = steps.findIndex((s) => s >= step);
    if (after <= 0 || steps.length < 2) return 0;
    return (after - (steps[after] - step) / (steps[after] - steps[after - 1])) / (steps.length - 1);
  }

  function draw() {
    const at = Math.max(0, steps.indexOf(wanted));
    slider.max = Math.max(0, steps.length - 1);
    slider.value = at;
    slider.disabled = play.disabled = steps.length < 2;
    Object.assign(root.dataset, { step: shown ?? "", steps: steps.length });
    root.classList.toggle("behind", wanted !== shown);
    where.textContent = wanted === null ? "No step to look at yet: the first failed attempt with feedback will be followed." : name(wanted).replace(/^./, (c) => c.toUpperCase());
    const here = wanted === null ? null : sum(wanted), words = here === null ? "" : `teacher and student differ by ${here.toFixed(2)} nats in all`;
    gap.textContent = words || (wanted !== shown && wanted !== null ? "being computed" : "");
    slider.setAttribute("aria-valuetext", wanted === null ? "no step yet" : name(wanted) + (words ? ", " + words : ""));
    first.textContent = steps.length ? String(steps[0]) : "";
    last.textContent = steps.length > 1 ? String(steps.at(-1)) : "";
    meaning.textContent = steps.length > 1 ? "the sum of |advantage| over the tokens, by step" : "";
    drawCourse(at);
  }

  function drawCourse(at) {
    picture.replaceChildren();
    const w = Math.max(120, picture.clientWidth || width || 400), points = (course?.steps ?? []).map((s, k) => [s, course.sums[k]]);
    const top = Math.max(1e-6, ...points.map(([, v]) => v)), x = (f) => EDGE + f * (w - 2 * EDGE), y = (v) => HEIGHT - 4 - (v / top) * (HEIGHT - 20);
    const svg = picture.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
    for (const [key, value] of Object.entries({ width: w, height: HEIGHT, viewBox: `0 0 ${w} ${HEIGHT}`, role: "img" })) svg.setAttribute(key, value);
    svg.setAttribute("aria-label", points.length ? `Sum of |advantage| by step: ${points[0][1].toFixed(2)} at step ${points[0][0]}, ${points.at(-1)[1].toFixed(2)} at step ${points.at(-1)[0]}` : "No step yet");
    if (!points.length || !steps.length) return;
    const line = points.map(([s, v], k) => `${k ? "L" : "M"}${x(along(s)).toFixed(1)} ${y(v).toFixed(1)}`).join("");
    make(svg, "path", { class: "area", d: `${line}L${x(along(points.at(-1)[0])).toFixed(1)} ${HEIGHT - 4}L${x(along(points[0][0])).toFixed(1)} ${HEIGHT - 4}Z` });
    make(svg, "path", { class: "course", d: line });
    make(svg, "text", { x: EDGE, y: 11 }, `${top.toFixed(1)} nats`);
    const px = x(steps.length > 1 ? at / (steps.length - 1) : 0), here = sum(wanted);
    make(svg, "path", { class: "now", d: `M${px.toFixed(1)} 14V${HEIGHT}` });
    if (here !== null) make(svg, "circle", { class: "now", cx: px.toFixed(1), cy: y(here).toFixed(1), r: 3.5 });
  }

  const watch = new ResizeObserver(() => { if (picture.clientWidth !== width) { width = picture.clientWidth; draw(); } });
  watch.observe(picture);
  draw();
  return { update, receive, waits: () => waiting !== null && Date.now() - asked < PATIENCE, destroy() { stop(); watch.disconnect(); } };
}
