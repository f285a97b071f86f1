// One attempt token by token, as `sdpo_lab.pictures.picture` packs it, at the end of `parent`. Needs dom.js; every text is set as text.
//
// options: {limit: nats of full colour (the attempt's own when it is left out), quantity: "advantage", "student" or "teacher"}. Returns
//   update(data, options)   draws another; the token and the quantity that were chosen stay
//   root                    the element
function strip(parent, data, options = {}) {
  const FULL = [0.5, 1, 2, 3, 5];  // as in timeline.py
  const QUANTITIES = { advantage: "Advantage", student: "Student", teacher: "Teacher" };
  const uid = "strip-" + Math.random().toString(36).slice(2, 10);
  const or = (v, f, none = "–") => (v === null || v === undefined ? none : f(v));
  const fixed = (v, digits = 2) => v.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");
  const nats = (v) => or(v, (x) => (x > 0 ? "+" : "") + fixed(x));
  const share = (p) => or(p, (x) => (x > 0.9995 && x < 1 ? "> 0.999" : x < 0.0005 ? "< 0.001" : x.toFixed(3)));
  const chance = (v) => or(v, (x) => Math.exp(x), null);
  let quantity = options.quantity ?? "advantage", limit = 1, chosen = 0, preview = null, boxes = [];

  const root = make(parent, "div", { hook: "sdpo-strip", "data-lm-suppress-shortcuts": "" });  // keys pressed here are meant for here, not for JupyterLab
  const head = make(root, "div", { class: "head" });
  const choices = make(head, "div", { class: "choices", role: "radiogroup", "aria-label": "Colour the tokens by" });
  const inputs = Object.entries(QUANTITIES).map(([value, name]) => {
    const label = make(choices, "label", { class: "choice" });
    const input = make(label, "input", { type: "radio", name: uid, value });
    make(label, "span", {}, name);
    input.addEventListener("change", () => { quantity = value; paint(); });
    return input;
  });
  const legend = make(head, "div", { class: "legend" });
  const text = make(root, "div", { hook: "strip-text", role: "listbox", "aria-orientation": "horizontal", "aria-label": "Tokens of the attempt", dir: "ltr" });
  const detail = make(root, "div", { hook: "strip-detail" });

  const value = (t) => (quantity === "advantage" ? data.advantage[t] : chance(data[quantity][t]));
  const moved = (a) => or(a, (v) => (Math.abs(v) < 0.005 ? "the teacher leaves it as it is" : `the teacher ${v < 0 ? "lowers" : "raises"} it by ${fixed(Math.abs(v))} nats`), "no advantage");
  const said = (t) => (quantity === "advantage" ? moved(data.advantage[t]) : `${quantity} ${share(value(t))}`);

  function draw() {
    const had = boxes.some((b) => b === document.activeElement);
    text.replaceChildren();
    boxes = data.tokens.map((token, t) => {
      const box = make(text, "span", { class: "token", role: "option" });
      literal(box, token, { spaces: true });
      box.addEventListener("pointerenter", () => { preview = t; describe(); });
      box.addEventListener("click", () => choose(t));
      return box;
    });
    if (data.cut) make(text, "span", { class: "quiet" }, ` … and ${data.cut} more tokens`);
    chosen = Math.min(chosen, boxes.length - 1);
    preview = preview !== null && preview < boxes.length ? preview : null;
    if (had) boxes[chosen]?.focus({ preventScroll: true });
    paint();
  }

  function paint() {
    const most = quantity === "advantage" ? limit : 1;
    root.dataset.quantity = quantity;
    for (const input of inputs) input.checked = input.value === quantity;
    legend.replaceChildren();
    make(legend, "span", {}, quantity === "advantage" ? `lowered ≤ −${limit}` : "0");
    make(legend, "span", { class: "bar" });
    make(legend, "span", {}, quantity === "advantage" ? `raised ≥ +${limit} nats` : "1, probability");
    boxes.forEach((box, t) => {
      const v = value(t);
      box.classList.toggle("down", v < 0);
      box.classList.toggle("nothing", v === null);
      box.style.setProperty("--v", v === null ? 0 : Math.min(1, Math.abs(v) / most).toFixed(3));
      box.setAttribute("aria-label", `token ${t + 1} of ${boxes.length}: '${plain(data.tokens[t])}', ${said(t)}`);
      box.setAttribute("aria-selected", String(t === chosen));
      box.tabIndex = t === chosen ? 0 : -1;
    });
    describe();
  }

  // What is known of the token under the pointer, or else of the chosen one
  function describe() {
    const t = preview ?? chosen;
    detail.replaceChildren();
    boxes.forEach((box, k) => box.classList.toggle("shown", k === t));
    if (t < 0) return make(detail, "span", { class: "quiet" }, "An empty attempt: there is no token.");
    const line = make(detail, "div", { class: "line" });
    literal(make(line, "b", { class: "which" }), data.tokens[t].replace(/\n/g, "⏎"));
    make(line, "span", { class: "quiet" }, `token ${t + 1} of ${boxes.length}`);
    make(line, "span", {}, moved(data.advantage[t]).replace(/^the/, "The"));
    const grid = make(detail, "div", { class: "grid" });
    const row = (cells, kind = "") => cells.forEach((c) => make(grid, "span", { class: kind }, c));
    row(["", "probability", "entropy"], "quiet");
    for (const role of ["student", "teacher"]) row([role, share(chance(data[role][t])), or(data[role + "_entropy"][t], fixed)]);
    const list = make(detail, "div", { class: "list" });
    for (const [place, p, q] of data.top[t]) {
      const entry = make(list, "div", { class: "entry" });
      literal(make(entry, "span", { class: "name" }), data.vocabulary[place].replace(/\n/g, "⏎"));
      const bars = make(entry, "span", { class: "bars", "aria-hidden": "true" });
      for (const [role, v] of [["student", p], ["teacher", q]]) make(bars, "span", { class: "bar " + role }).style.width = `${100 * Math.min(1, v ?? 0)}%`;
      make(entry, "span", { class: "value" }, `student ${share(p)}, teacher ${share(q)}`);
    }
  }

  function choose(t) {
    chosen = Math.max(0, Math.min(boxes.length - 1, t));
    preview = null;
    paint();
    boxes[chosen]?.focus({ preventScroll: true });
  }

  text.addEventListener("pointerleave", () => { preview = null; describe(); });
  text.addEventListener("keydown", (e) => {
    const to = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: boxes.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    choose(to);
  });

  function update(next, { limit: full } = {}) {
    data = next;
    const largest = Math.max(0, ...data.advantage.map((a) => Math.abs(a ?? 0)));
    limit = full ?? FULL.find((f) => f >= largest) ?? FULL.at(-1);
    draw();
  }

  // until the reader chooses, the token that matters most
  chosen = data.advantage.reduce((best, a, t) => (Math.abs(a ?? 0) > Math.abs(data.advantage[best] ?? 0) ? t : best), 0);
  update(data, options);
  return { update, root };
}
