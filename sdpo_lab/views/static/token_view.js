// Draws attempts token by token into `root`.
//
// `data` is what `token_data.page_data` makes: {attempts: [view_data, ...], color_by, scale,
// limits}. `tokenView` returns
//   update(data)            draws another; the selected token, the quantity and open folds stay
//   select(attempt, token)  both counted from 0
//   destroy()
// `root` sends the event "tokenselect" with {attempt, token} in `detail` when the reader chooses
// a token.

import { literal, make, plain } from "./dom.js";
import { drawEmbedded } from "./embedded.js";
import { fixed, moved, number, probability, rounded } from "./numbers.js";
import {
  drawAlternatives, drawFacts, drawPromptColumns, drawToken, spokenOf,
} from "./token_details.js";
import { colourChoices, colourToken } from "./token_parts.js";

const nats = (name) => ({ unit: " nats", of: (a, t) => number(a[name][t]) });
const likely = (role) => ({ unit: "", of: (a, t) => Math.exp(number(a[role][t])) });
const QUANTITIES = {
  "advantage": {
    name: "Advantage", low: "teacher lowers it", high: "teacher raises it",
    signed: true, limit: "advantage", ...nats("advantage"),
  },
  "divergence": {
    name: "Divergence", low: "both agree here", high: "they differ",
    limit: "divergence", ...nats("divergence"),
  },
  "student": {
    name: "Student", low: "student finds it unlikely", high: "certain", ...likely("student"),
  },
  "teacher": {
    name: "Teacher", low: "teacher finds it unlikely", high: "certain", ...likely("teacher"),
  },
  "student entropy": {
    name: "Student entropy", low: "student is sure what comes", high: "undecided",
    limit: "entropy", ...nats("student_entropy"),
  },
  "teacher entropy": {
    name: "Teacher entropy", low: "teacher is sure what comes", high: "undecided",
    limit: "entropy", ...nats("teacher_entropy"),
  },
  "oracle": {
    name: "Teacher − oracle", low: "teacher below the oracle", high: "above",
    signed: true, limit: "oracle", unit: " nats",
    of: (a, t) => (a.oracle ? number(a.teacher[t]) - number(a.oracle[t]) : NaN),
  },
};
const SHOWN = { attempt: "its own attempt", solution: "a solution" };

const clamp = (value, last) => Math.max(0, Math.min(value, last));

function quoted(a, t) {
  return a.partial[t] ? `bytes ${a.partial[t]}` : `'${plain(a.tokens[t])}'`;
}

// Where to look first: the token whose advantage is largest
function strongest(attempts) {
  let place = [0, 0];
  let largest = -1;
  attempts.forEach((a, n) => a.advantage.forEach((v, t) => {
    if (Math.abs(number(v)) <= largest || Number.isNaN(number(v))) return;
    largest = Math.abs(number(v));
    place = [n, t];
  }));
  return place;
}

export function tokenView(root, data) {
  const uid = "tokens-" + Math.random().toString(36).slice(2, 10);
  const many = () => data.attempts.length > 1;
  let quantity = data.color_by;
  let selected = null; // [attempt, token]
  let preview = null; // the same, under the pointer
  let boxes = [];
  let texts = [];
  let last = null; // the box whose details are shown
  const folds = [];

  // The frame, made once
  root.replaceChildren();
  root.classList.add("sdpo-tokens");
  root.setAttribute("data-lm-suppress-shortcuts", "");
  root.setAttribute("data-testid", "sdpo-tokens");
  const head = make(root, "div", { class: "head" });
  const choices = make(head, "div", {
    hook: "choices", role: "radiogroup", "aria-label": "Colour the tokens by",
  });
  const legend = make(head, "div", { hook: "legend" });
  const attempts = make(root, "div", { class: "attempts" });
  const panel = make(root, "section", { hook: "details", "aria-label": "The selected token" });
  const facts = make(panel, "div", { hook: "facts" });
  const list = make(panel, "div", {
    hook: "list", role: "table", tabindex: "0", "aria-label": "What else could have stood here",
  });
  const spoken = make(root, "div", { hook: "spoken", role: "status", "aria-live": "polite" });

  // The value at which the colour of a quantity is full
  function limit(name = quantity) {
    const q = QUANTITIES[name];
    if (q.signed && data.scale) return data.scale;
    return q.limit ? data.limits[q.limit] : 1;
  }

  function label(a, t) {
    const q = QUANTITIES[quantity];
    const v = q.of(a, t);
    const value = `${q.name} ${q.unit ? fixed(v) : probability(v)}${q.unit}`;
    const says = Number.isNaN(v) ? `${q.name}: no value` : value;
    const words = quantity === "advantage" ? moved(v) : says;
    return `token ${t + 1} of ${a.tokens.length}: ${quoted(a, t)}, ${words}`;
  }

  function drawChoices() {
    const oracle = data.attempts.some((a) => a.oracle);
    const known = Object.entries(QUANTITIES).filter(([name]) => name !== "oracle" || oracle);
    const names = Object.fromEntries(known.map(([name, q]) => [name, q.name]));
    if (!(quantity in names)) quantity = "advantage";
    const found = Object.keys(names).join();
    if (choices.dataset.found === found) return;
    choices.dataset.found = found;
    choices.replaceChildren();
    colourChoices(choices, names, quantity, (name) => {
      quantity = name;
      paint();
    });
  }

  function drawLegend() {
    const q = QUANTITIES[quantity];
    const full = limit();
    legend.replaceChildren();
    make(legend, "span", { class: "end" }, q.low);
    const scale = make(legend, "span", { class: "scale" });
    make(scale, "span", { class: "bar " + (q.signed ? "signed" : "") });
    const marks = make(scale, "span", { class: "marks" });
    for (const v of q.signed ? [-1, -0.5, 0, 0.5, 1] : [0, 0.5, 1]) {
      const open = q.limit && Math.abs(v) === 1 ? (v > 0 ? "≥ " : "≤ ") : "";
      make(marks, "span", {}, open + rounded(v * full));
    }
    make(legend, "span", { class: "end" }, q.high + (q.unit ? `, in${q.unit}` : ", probability"));
    if (q.limit !== "oracle") return;
    make(make(legend, "span", { class: "end" }), "span", { class: "swatch" }).after(" no opinion");
  }

  function drawAttempts() {
    texts = [];
    attempts.replaceChildren();
    boxes = data.attempts.map((a, n) => {
      const part = make(attempts, "section", { hook: "attempt" });
      const name = a.title || (many() ? `Attempt ${n + 1}` : "");
      const title = { hook: "title", id: `${uid}-${n}` };
      if (name) literal(make(part, "div", title), name, { end: "" });
      const text = make(part, "div", {
        hook: "text", role: "listbox", "aria-orientation": "horizontal", dir: "ltr",
        "aria-label": `Tokens of ${plain(name) || "the attempt"}`,
      });
      texts.push(text);
      drawPrompts(part, a, n);
      return a.tokens.map((token, t) => {
        const special = a.special.includes(t) ? " special" : "";
        const box = make(text, "span", {
          class: "token" + (a.partial[t] ? " partial" : special),
          role: "option", tabindex: "-1", "aria-selected": "false",
        });
        drawToken(box, a, t, token);
        box.place = [n, t];
        return box;
      });
    });
  }

  // The two prompts; filled when they are first opened, since most never are
  function drawPrompts(part, a, n) {
    if (!a.prompts) return;
    const fold = make(part, "details", { hook: "prompts" });
    const summary = make(fold, "summary", {}, "The two prompts");
    const names = Object.keys(a.shown).map((name) => SHOWN[name] ?? name);
    const also = ` · the teacher was also shown: ${names.join(", ")}`;
    make(summary, "span", { class: "quiet" }, names.length ? also : " · the same for both");
    const fill = () => {
      if (fold.children.length > 1) return;
      drawPromptColumns(fold, a);
      const words = "Underlined: what the teacher reads and the student does not.";
      if (names.length) make(fold, "div", { class: "quiet" }, words);
    };
    fold.open = Boolean(folds[n]);
    if (fold.open) fill();
    fold.addEventListener("toggle", () => {
      folds[n] = fold.open;
      if (fold.open) fill();
    });
  }

  // Colours and labels of the chosen quantity
  function paint() {
    const q = QUANTITIES[quantity];
    root.dataset.quantity = quantity;
    for (const input of choices.querySelectorAll("input")) input.checked = input.value === quantity;
    drawLegend();
    data.attempts.forEach((a, n) => boxes[n].forEach((box, t) => {
      colourToken(box, q.of(a, t), limit());
      box.setAttribute("aria-label", label(a, t));
    }));
    drawDetails();
  }

  function drawDetails() {
    const [n, t] = preview ?? selected;
    const a = data.attempts[n];
    const elsewhere = preview && (preview[0] !== selected[0] || preview[1] !== selected[1]);
    panel.classList.toggle("previewing", Boolean(elsewhere));
    facts.replaceChildren();
    const title = many() ? plain(a.title) || `attempt ${n + 1}` : "";
    drawFacts(facts, a, t, title, limit("advantage"));
    drawAlternatives(list, a, t);
    last?.classList.remove("shown");
    last = boxes[n][t];
    last.classList.add("shown");
  }

  function select(n, t, { focus = false, tell = true } = {}) {
    n = clamp(n, boxes.length - 1);
    t = clamp(t, boxes[n].length - 1);
    const old = selected && boxes[selected[0]]?.[selected[1]];
    if (old) {
      old.setAttribute("aria-selected", "false");
      old.tabIndex = -1;
    }
    selected = [n, t];
    preview = null;
    const box = boxes[n][t];
    box.setAttribute("aria-selected", "true");
    box.tabIndex = 0;
    if (focus) box.focus({ preventScroll: false });
    drawDetails();
    if (!tell) return;
    spoken.textContent = spokenOf(data.attempts[n], t);
    root.dispatchEvent(new CustomEvent("tokenselect", { detail: { attempt: n, token: t } }));
  }

  const boxOf = (event) => event.target.closest?.(".token");

  function middle(box) {
    const { left, top, width, height } = box.getClientRects()[0] ?? box.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  }

  // The token one line up (-1) or down (1), in this attempt or the next one
  function nextLine(n, t, by) {
    const [x, y] = middle(boxes[n][t]);
    // of the candidates beyond `from`, the nearest of those on the nearest line
    const nearest = (candidates, from) => {
      const places = candidates
        .map((box) => [box, ...middle(box)])
        .filter(([, , top]) => by * (top - from) > 6);
      if (!places.length) return null;
      const edge = places.reduce((best, [, , top]) => Math.min(best, by * top), Infinity);
      const line = places.filter(([, , top]) => by * top - edge < 6);
      const closer = (a, b) => (Math.abs(b[1] - x) < Math.abs(a[1] - x) ? b : a);
      return line.reduce(closer)[0];
    };
    const beyond = boxes[n + by];
    const box = nearest(boxes[n], y) ?? (beyond ? nearest(beyond, -Infinity * by) : null);
    return box ? box.place : [n, t];
  }

  function onKey(event) {
    const box = boxOf(event);
    if (!box || event.ctrlKey || event.metaKey || event.altKey) return;
    const [n, t] = box.place;
    const places = {
      ArrowLeft: () => [n, t - 1], ArrowRight: () => [n, t + 1],
      ArrowUp: () => nextLine(n, t, -1), ArrowDown: () => nextLine(n, t, 1),
      Home: () => [n, 0], End: () => [n, boxes[n].length - 1],
      Enter: () => [n, t], " ": () => [n, t],
    };
    if (!Object.hasOwn(places, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const [to, place] = places[event.key]();
    if (place >= 0 && place < boxes[to].length) select(to, place, { focus: true });
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
    if (box) select(...box.place, { focus: true });
  }

  const listeners = Object.entries({
    keydown: onKey, pointerover: onOver, pointerleave: onLeave, click: onClick,
  });
  for (const [name, listener] of listeners) attempts.addEventListener(name, listener);

  function draw() {
    const active = document.activeElement;
    const focused = attempts.contains(active) && active.closest(".token");
    const scrolled = texts.map((text) => text.scrollTop);
    drawChoices();
    drawAttempts();
    preview = null;
    last = null;
    const [n, t] = selected ?? strongest(data.attempts);
    const attempt = Math.min(n, boxes.length - 1);
    selected = [attempt, Math.min(t, boxes[attempt].length - 1)];
    paint();
    root.classList.toggle("tall", attempts.offsetHeight > 420);
    select(...selected, { tell: false });
    texts.forEach((text, k) => { text.scrollTop = scrolled[k] ?? 0; });
    if (focused) boxes[selected[0]][selected[1]].focus({ preventScroll: true });
  }

  function update(next) {
    data = next;
    draw();
  }

  function destroy() {
    for (const [name, listener] of listeners) attempts.removeEventListener(name, listener);
    root.replaceChildren();
  }

  draw();
  return { update, select: (attempt, token) => select(attempt, token), destroy };
}

// Draws the view in static HTML
export const draw = (id) => drawEmbedded(id, tokenView);
