// Draws attempts token by token into `root`. Every text is set as text, never as HTML.
// One name and no import, so that the file can stand in a <script> as well as in front of a widget's module; dom.js stands before it.
//
// `data` is what `tokens.page_data` makes: {attempts: [view_data, ...], color_by, scale, limits}. Returns
//   update(data)            draws another; the selected token, the quantity and open folds stay
//   select(attempt, token)  both counted from 0
//   destroy()
// `root` sends the event "tokenselect" with {attempt, token} in `detail` when the reader chooses a token.
function sdpoTokenView(root, data) {
  const number = (v) => (v === null ? NaN : v === "-inf" ? -Infinity : v === "inf" ? Infinity : v);
  const QUANTITIES = {
    "advantage": { name: "Advantage", signed: true, unit: " nats", low: "teacher lowers it", high: "teacher raises it", limit: "advantage", of: (a, t) => number(a.advantage[t]) },
    "divergence": { name: "Divergence", unit: " nats", low: "both agree here", high: "they differ", limit: "divergence", of: (a, t) => number(a.divergence[t]) },
    "student": { name: "Student", unit: "", low: "student finds it unlikely", high: "certain", of: (a, t) => Math.exp(number(a.student[t])) },
    "teacher": { name: "Teacher", unit: "", low: "teacher finds it unlikely", high: "certain", of: (a, t) => Math.exp(number(a.teacher[t])) },
    "student entropy": { name: "Student entropy", unit: " nats", low: "student is sure what comes", high: "undecided", limit: "entropy", of: (a, t) => number(a.student_entropy[t]) },
    "teacher entropy": { name: "Teacher entropy", unit: " nats", low: "teacher is sure what comes", high: "undecided", limit: "entropy", of: (a, t) => number(a.teacher_entropy[t]) },
    "oracle": { name: "Teacher − oracle", signed: true, unit: " nats", low: "teacher below the oracle", high: "above", limit: "oracle",
      of: (a, t) => (a.oracle ? number(a.teacher[t]) - number(a.oracle[t]) : NaN) },
  };
  const uid = "tokens-" + Math.random().toString(36).slice(2, 10);
  const many = () => data.attempts.length > 1;
  let quantity = data.color_by, pinned = null, preview = null, boxes = [], folds = [], texts = [];

  // Numbers
  const probability = (p) => (Number.isNaN(p) ? "–" : p === 0 ? "0" : p < 0.00095 ? p.toExponential(0).replace("-", "−") : p > 0.9995 && p < 1 ? "> 0.999" : p.toFixed(3));
  const fixed = (v, digits = 2) => (Number.isNaN(v) ? "–" : Number.isFinite(v) ? v.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−") : v > 0 ? "∞" : "−∞");
  const signed = (v) => (v > 0 ? "+" : "") + fixed(v);
  const round = (v) => String(Number(v.toPrecision(3))).replace("-", "−");
  const times = (a) => (a < 0.7 ? Math.exp(a).toFixed(2) : a < Math.log(1000) ? String(Number(Math.exp(a).toPrecision(2))) : "over 1000");

  function limit(name = quantity) {
    const q = QUANTITIES[name];
    if (q.signed && data.scale) return data.scale;
    return q.limit ? data.limits[q.limit] : 1;
  }

  function quoted(a, t) {
    return a.partial[t] ? `bytes ${a.partial[t]}` : `'${plain(a.tokens[t])}'`;
  }

  function moved(advantage) {
    return Number.isNaN(advantage) ? "no advantage" : Math.abs(advantage) < 0.005 ? "teacher leaves it as it is"
      : `teacher ${advantage < 0 ? "lowers" : "raises"} it by ${fixed(Math.abs(advantage))} nats`;
  }

  function label(a, t) {
    const q = QUANTITIES[quantity], v = q.of(a, t);
    const says = quantity === "advantage" ? moved(v) : Number.isNaN(v) ? `${q.name}: no value` : `${q.name} ${q.unit ? fixed(v) : probability(v)}${q.unit}`;
    return `token ${t + 1} of ${a.tokens.length}: ${quoted(a, t)}, ${says}`;
  }

  // The frame, made once
  root.replaceChildren();
  root.classList.add("sdpo-tokens");
  root.setAttribute("data-lm-suppress-shortcuts", "");  // keys pressed here are meant for here: JupyterLab would take them for its own commands
  root.setAttribute("data-testid", "sdpo-tokens");
  const head = make(root, "div", { class: "head" });
  const choices = make(head, "div", { hook: "choices", role: "radiogroup", "aria-label": "Colour the tokens by" });
  const legend = make(head, "div", { hook: "legend" });
  const attempts = make(root, "div", { class: "attempts" });
  const panel = make(root, "section", { hook: "details", "aria-label": "The selected token" });
  const facts = make(panel, "div", { hook: "facts" });
  const list = make(panel, "div", { hook: "list", role: "table", tabindex: "0", "aria-label": "What else could have stood here" });
  const spoken = make(root, "div", { hook: "spoken", role: "status", "aria-live": "polite" });

  function drawChoices() {
    const found = Object.keys(QUANTITIES).filter((name) => name !== "oracle" || data.attempts.some((a) => a.oracle));
    if (!found.includes(quantity)) quantity = "advantage";
    if (choices.dataset.found === found.join()) return;
    choices.dataset.found = found.join();
    choices.replaceChildren();
    for (const name of found) {
      const box = make(choices, "label", { class: "choice" });
      const input = make(box, "input", { type: "radio", name: uid, value: name });
      input.checked = name === quantity;
      make(box, "span", {}, QUANTITIES[name].name);
      input.addEventListener("change", () => { quantity = name; paint(); });
    }
  }

  function drawLegend() {
    const q = QUANTITIES[quantity], most = limit(), open = Boolean(q.limit);
    legend.replaceChildren();
    make(legend, "span", { class: "end" }, q.low);
    const scale = make(legend, "span", { class: "scale" });
    make(scale, "span", { class: "bar " + (q.signed ? "signed" : "") });
    const marks = make(scale, "span", { class: "marks" });
    const values = q.signed ? [-1, -0.5, 0, 0.5, 1] : [0, 0.5, 1];
    for (const v of values) make(marks, "span", {}, (open && v === 1 ? "≥ " : open && v === -1 ? "≤ " : "") + round(v * most));
    make(legend, "span", { class: "end" }, q.high + (q.unit ? `, in${q.unit}` : ", probability"));
    if (q.limit === "oracle") make(make(legend, "span", { class: "end" }), "span", { class: "swatch" }).after(" no opinion");
  }

  function drawAttempts() {
    boxes = [];
    texts = [];
    attempts.replaceChildren();
    data.attempts.forEach((a, n) => {
      const part = make(attempts, "section", { hook: "attempt" });
      const name = a.title || (many() ? `Attempt ${n + 1}` : "");
      if (name) literal(make(part, "div", { hook: "title", id: `${uid}-${n}` }), name, { end: "" });
      const text = make(part, "div", { hook: "text", role: "listbox", "aria-orientation": "horizontal", dir: "ltr",
        "aria-label": `Tokens of ${plain(name) || "the attempt"}` });
      texts.push(text);
      boxes.push(a.tokens.map((token, t) => {
        const kind = a.partial[t] ? " partial" : a.special.includes(t) ? " special" : "";
        const box = make(text, "span", { class: "token" + kind, role: "option", tabindex: "-1", "aria-selected": "false" });
        if (a.partial[t]) make(box, "span", { class: "code" }, a.partial[t] === "?" ? "◌" : a.partial[t]);
        else literal(box, token, { spaces: true });
        box.place = [n, t];
        return box;
      }));
      drawPrompts(part, a, n);
    });
  }

  // The two prompts; filled when they are first opened, since most never are.
  function drawPrompts(part, a, n) {
    if (!a.prompts) return;
    const fold = make(part, "details", { hook: "prompts" });
    const summary = make(fold, "summary", {}, "The two prompts");
    const names = Object.keys(a.shown);
    make(summary, "span", { class: "quiet" }, names.length ? ` · the teacher was also shown: ${names.map((x) => (x === "attempt" ? "its own attempt" : x === "solution" ? "a solution" : x)).join(", ")}`
      : " · the same for both");
    const fill = () => {
      if (fold.children.length > 1) return;
      const columns = make(fold, "div", { class: "columns" });
      for (const [role, title] of [["student", "Student reads"], ["teacher", "Teacher reads"]]) {
        const column = make(columns, "div", { class: "column" });
        make(column, "div", { class: "role " + role }, title);
        const words = make(column, "div", { hook: "prompt", tabindex: "0", role: "group", "aria-label": title });
        for (const [marked, text] of a.prompts[role]) literal(make(words, marked ? (role === "teacher" ? "ins" : "del") : "span"), text, { end: "" });
      }
      if (names.length) make(fold, "div", { class: "quiet" }, "Underlined: what the teacher reads and the student does not.");
    };
    fold.open = Boolean(folds[n]);
    if (fold.open) fill();
    fold.addEventListener("toggle", () => { folds[n] = fold.open; if (fold.open) fill(); });
  }

  // Colours and labels of the chosen quantity
  function paint() {
    const q = QUANTITIES[quantity], most = limit();
    root.dataset.quantity = quantity;
    for (const input of choices.querySelectorAll("input")) input.checked = input.value === quantity;
    drawLegend();
    data.attempts.forEach((a, n) => boxes[n].forEach((box, t) => {
      const v = q.of(a, t), nothing = Number.isNaN(v);
      box.classList.toggle("nothing", nothing);
      box.classList.toggle("down", v < 0);
      box.style.setProperty("--v", nothing ? 0 : Math.min(1, Math.abs(v) / most).toFixed(3));
      box.setAttribute("aria-label", label(a, t));
    }));
    drawDetails();
  }

  function drawDetails() {
    const [n, t] = preview ?? pinned, a = data.attempts[n];
    const [p, q, advantage] = [a.student[t], a.teacher[t], a.advantage[t]].map(number);
    panel.classList.toggle("previewing", Boolean(preview && (preview[0] !== pinned[0] || preview[1] !== pinned[1])));
    facts.replaceChildren();
    const top = make(facts, "div", { class: "line" });
    const shown = make(top, "span", { hook: "which" });
    if (a.partial[t]) make(shown, "span", { class: "code" }, a.partial[t] === "?" ? "◌" : a.partial[t]);
    else literal(shown, a.tokens[t].replace(/\n/g, "\u23ce"), { spaces: true });
    const [begin, end] = [t ? a.ends[t - 1] : 0, a.ends[t]];
    make(top, "span", { class: "quiet where" }, `token ${t + 1} of ${a.tokens.length}, `
      + (end - begin === 1 ? `byte ${begin}` : `bytes ${begin}–${end}`) + (a.partial[t] ? ", part of a character" : a.special.includes(t) ? ", a special token" : "")
      + (many() ? ` · ${plain(a.title) || `attempt ${n + 1}`}` : ""));
    const said = make(facts, "div", { hook: "said" });
    if (Math.abs(advantage) < 0.005) said.append("The teacher leaves it as it is.");
    else if (Number.isNaN(advantage)) said.append("There is no advantage here: a log-probability is not a number.");
    else {
      said.append("The teacher ");
      make(said, "b", { class: advantage < 0 ? "lowers" : "raises" }, `${advantage < 0 ? "lowers" : "raises"} it by ${fixed(Math.abs(advantage))} nats`);
      said.append(`: ${times(Math.abs(advantage))} times ${advantage < 0 ? "less" : "more"} likely.`);
    }
    const grid = make(facts, "div", { class: "grid" });
    for (const cell of ["", "probability", "rank", "entropy"]) make(grid, "span", { class: "quiet" }, cell);
    for (const [role, value] of [["student", p], ["teacher", q]]) {
      make(grid, "span", { class: "role " + role }, role);
      make(grid, "span", {}, probability(Math.exp(value)));
      make(grid, "span", {}, String(a[role + "_rank"][t]));
      make(grid, "span", {}, fixed(number(a[role + "_entropy"][t])));
    }
    const oracle = a.oracle ? number(a.oracle[t]) : null;
    if (a.oracle) {
      make(grid, "span", { class: "role oracle" }, "oracle");
      make(grid, "span", { class: "wide" }, Number.isNaN(oracle) ? "no opinion" : oracle === -Infinity ? "excluded" : probability(Math.exp(oracle)));
    }
    make(facts, "div", { class: "numbers quiet" }, `advantage ${signed(advantage)} nats${Math.abs(advantage) > limit("advantage") ? ` (the colour ends at ${round(limit("advantage"))})` : ""} · divergence ${fixed(number(a.divergence[t]), 3)} nats`);
    drawList(a, t);
    boxes[n][t].classList.add("shown");
    if (drawDetails.last && drawDetails.last !== boxes[n][t]) drawDetails.last.classList.remove("shown");
    drawDetails.last = boxes[n][t];
  }

  function drawList(a, t) {
    list.replaceChildren();
    const row = (kind, name, p, q) => {
      const line = make(list, "div", { class: "entry " + kind, role: "row" });
      const text = make(line, "span", { class: "name", role: "rowheader" });
      if (kind === "rest") text.append(name); else literal(text, name.replace(/\n/g, "\u23ce"), { spaces: true });
      const bars = make(line, "span", { class: "bars", role: "presentation" });
      for (const [role, v] of [["student", p], ["teacher", q]])
        make(bars, "span", { class: "bar " + role }).style.width = `${Math.min(1, Math.max(0, v)) * 100}%`;
      make(line, "span", { class: "value", role: "cell" }, probability(p));
      make(line, "span", { class: "value", role: "cell" }, probability(q));
    };
    const line = make(list, "div", { class: "entry names", role: "row" });
    make(line, "span", { class: "name quiet", role: "columnheader" }, "token");
    make(line, "span", { class: "bars", role: "presentation" });
    for (const role of ["student", "teacher"]) make(line, "span", { class: "value role " + role, role: "columnheader" }, role);
    a.top[t].forEach((v, k) => row(k ? "other" : "written", a.vocabulary[v], Math.exp(number(a.top_student[t][k])), Math.exp(number(a.top_teacher[t][k]))));
    row("rest", `${a.size - a.top[t].length} others`, number(a.tail_student[t]), number(a.tail_teacher[t]));
  }

  // Selecting
  function pin(n, t, { focus = false, tell = true } = {}) {
    n = Math.max(0, Math.min(n, boxes.length - 1));
    t = Math.max(0, Math.min(t, boxes[n].length - 1));
    const old = pinned && boxes[pinned[0]]?.[pinned[1]];
    if (old) { old.setAttribute("aria-selected", "false"); old.tabIndex = -1; }
    pinned = [n, t];
    preview = null;
    const box = boxes[n][t];
    box.setAttribute("aria-selected", "true");
    box.tabIndex = 0;
    if (focus) box.focus({ preventScroll: false });
    drawDetails();
    if (!tell) return;
    const a = data.attempts[n], best = (values) => a.top[t].map((v, k) => [number(values[t][k]), a.vocabulary[v]]).reduce((x, y) => (y[0] > x[0] ? y : x));
    const [studentBest, teacherBest] = [best(a.top_student), best(a.top_teacher)];
    spoken.textContent = `student ${probability(Math.exp(number(a.student[t])))}, rank ${a.student_rank[t]}; teacher ${probability(Math.exp(number(a.teacher[t])))}, `
      + `rank ${a.teacher_rank[t]}. Most likely for the student: ${plain(studentBest[1])}, ${probability(Math.exp(studentBest[0]))}; for the teacher: ${plain(teacherBest[1])}, ${probability(Math.exp(teacherBest[0]))}.`;
    root.dispatchEvent(new CustomEvent("tokenselect", { detail: { attempt: n, token: t } }));
  }

  const boxOf = (event) => event.target.closest?.(".token");
  const middle = (box) => { const r = box.getClientRects(); const first = r[0] ?? box.getBoundingClientRect(); return [first.left + first.width / 2, first.top + first.height / 2]; };

  // The token one line up (-1) or down (1), in this attempt or the next one.
  function nextLine(n, t, by) {
    const [x, y] = middle(boxes[n][t]);
    const line = (candidates, from) => {  // of the candidates beyond `from`, those on the nearest line; the nearest of them
      const places = candidates.map((box) => [box, ...middle(box)]).filter(([, , top]) => by * (top - from) > 6);
      if (!places.length) return null;
      const edge = places.reduce((best, place) => Math.min(best, by * place[2]), Infinity);
      return places.filter((place) => by * place[2] - edge < 6).reduce((best, place) => (Math.abs(place[1] - x) < Math.abs(best[1] - x) ? place : best))[0];
    };
    const found = line(boxes[n], y) ?? (boxes[n + by] ? line(boxes[n + by], -Infinity * by) : null);
    return found ? found.place : [n, t];
  }

  function onKey(event) {
    const box = boxOf(event);
    if (!box || event.ctrlKey || event.metaKey || event.altKey) return;
    const [n, t] = box.place, end = boxes[n].length - 1;
    const to = { ArrowLeft: [n, t - 1], ArrowRight: [n, t + 1], Home: [n, 0], End: [n, end], Enter: [n, t], " ": [n, t] }[event.key]
      ?? { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const place = Array.isArray(to) ? to : nextLine(n, t, to);
    if (place[1] >= 0 && place[1] <= boxes[place[0]].length - 1) pin(...place, { focus: true });
  }

  function onOver(event) {
    const box = boxOf(event);
    if (!box) return;
    preview = box.place;
    drawDetails();
  }

  function onLeave() {
    if (!preview) return;
    preview = null;
    drawDetails();
  }

  function onClick(event) {
    const box = boxOf(event);
    if (box) pin(...box.place, { focus: true });
  }

  const listeners = [["keydown", onKey], ["pointerover", onOver], ["pointerleave", onLeave], ["click", onClick]];
  for (const [name, listener] of listeners) attempts.addEventListener(name, listener);

  // Where to look first: the token whose advantage is largest
  function strongest() {
    let found = [0, 0], most = -1;
    data.attempts.forEach((a, n) => a.advantage.forEach((v, t) => { if (Math.abs(number(v)) > most) { most = Math.abs(number(v)); found = [n, t]; } }));
    return found;
  }

  function draw() {
    const focused = attempts.contains(document.activeElement) && boxOf({ target: document.activeElement }), scrolled = texts.map((text) => text.scrollTop);
    drawChoices();
    drawAttempts();
    preview = null;
    drawDetails.last = null;
    pinned = pinned ?? strongest();
    const n = Math.min(pinned[0], boxes.length - 1);
    pinned = [n, Math.min(pinned[1], boxes[n].length - 1)];
    paint();
    root.classList.toggle("tall", attempts.offsetHeight > 420);
    pin(...pinned, { tell: false });
    texts.forEach((text, k) => { text.scrollTop = scrolled[k] ?? 0; });
    if (focused) boxes[pinned[0]][pinned[1]].focus({ preventScroll: true });
  }

  draw();
  return {
    update(next) { data = next; draw(); },
    select(attempt, token) { pin(attempt, token); },
    destroy() {
      for (const [name, listener] of listeners) attempts.removeEventListener(name, listener);
      root.replaceChildren();
    },
  };
}
