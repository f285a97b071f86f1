// One attempt token by token, as `sdpo_lab.analysis.pictures.picture` packs it, at the end of
// `parent`.
//
// options: {limit: nats of full colour; the attempt's own when it is left out}. Returns
//   update(data, options)   draws another; the token and the quantity that were chosen stay
//   root                    the element

import { literal, make, plain } from "./dom.js";
import { fixed, moved, number, probability } from "./numbers.js";
import { colourChoices, colourToken, probabilityBars } from "./token_parts.js";

const LIMITS = [0.5, 1, 2, 3, 5]; // nats; as in timeline.py
const QUANTITIES = { advantage: "Advantage", student: "Student", teacher: "Teacher" };
const chance = (p) => (p < 0.0005 ? "< 0.001" : probability(p)); // a picture has three digits
const marked = (text) => text.replace(/\n/g, "⏎");

export function compactTokens(parent, data, options = {}) {
  let quantity = "advantage";
  let limit = 1;
  let chosen = 0;
  let preview = null;
  let boxes = [];

  const root = make(parent, "div", { hook: "sdpo-compact", "data-lm-suppress-shortcuts": "" });
  const head = make(root, "div", { class: "head" });
  const choices = make(head, "div", {
    class: "choices", role: "radiogroup", "aria-label": "Colour the tokens by",
  });
  const inputs = colourChoices(choices, QUANTITIES, quantity, (name) => {
    quantity = name;
    paint();
  });
  const legend = make(head, "div", { class: "legend" });
  const text = make(root, "div", {
    hook: "compact-text", role: "listbox", "aria-orientation": "horizontal",
    "aria-label": "Tokens of the attempt", dir: "ltr",
  });
  const detail = make(root, "div", { hook: "compact-detail" });

  const advantage = (t) => number(data.advantage[t]);
  const likely = (role, t) => Math.exp(number(data[role][t]));
  const value = (t) => (quantity === "advantage" ? advantage(t) : likely(quantity, t));
  const inWords = (t) =>
    quantity === "advantage" ? moved(advantage(t)) : `${quantity} ${chance(value(t))}`;

  function draw() {
    const focused = boxes.some((box) => box === document.activeElement);
    text.replaceChildren();
    boxes = data.tokens.map((token, t) => {
      const box = make(text, "span", { class: "token", role: "option" });
      literal(box, token, { spaces: true });
      box.addEventListener("pointerenter", () => look(t));
      box.addEventListener("click", () => choose(t));
      return box;
    });
    if (data.cut) make(text, "span", { class: "quiet" }, ` … and ${data.cut} more tokens`);
    chosen = Math.min(chosen, boxes.length - 1);
    preview = preview !== null && preview < boxes.length ? preview : null;
    if (focused) boxes[chosen]?.focus({ preventScroll: true });
    paint();
  }

  function paint() {
    const full = quantity === "advantage" ? limit : 1;
    root.dataset.quantity = quantity;
    for (const input of inputs) input.checked = input.value === quantity;
    legend.replaceChildren();
    make(legend, "span", {}, quantity === "advantage" ? `lowered ≤ −${limit}` : "0");
    make(legend, "span", { class: "bar" });
    const most = quantity === "advantage" ? `raised ≥ +${limit} nats` : "1, probability";
    make(legend, "span", {}, most);
    boxes.forEach((box, t) => {
      colourToken(box, value(t), full);
      const which = `token ${t + 1} of ${boxes.length}: '${plain(data.tokens[t])}'`;
      box.setAttribute("aria-label", `${which}, ${inWords(t)}`);
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
    if (t < 0) {
      make(detail, "span", { class: "quiet" }, "An empty attempt: there is no token.");
      return;
    }
    const line = make(detail, "div", { class: "line" });
    literal(make(line, "b", { class: "which" }), marked(data.tokens[t]));
    make(line, "span", { class: "quiet" }, `token ${t + 1} of ${boxes.length}`);
    make(line, "span", {}, moved(advantage(t)).replace(/^teacher/, "The teacher"));
    const grid = make(detail, "div", { class: "grid" });
    const row = (cells, kind = "") => cells.forEach((c) => make(grid, "span", { class: kind }, c));
    row(["", "probability", "entropy"], "quiet");
    for (const role of ["student", "teacher"])
      row([role, chance(likely(role, t)), fixed(number(data[role + "_entropy"][t]))]);
    const list = make(detail, "div", { class: "list" });
    for (const [place, ...both] of data.top[t]) {
      const [student, teacher] = both.map(number);
      const entry = make(list, "div", { class: "entry" });
      literal(make(entry, "span", { class: "name" }), marked(data.vocabulary[place]));
      probabilityBars(entry, student, teacher, { "aria-hidden": "true" });
      const words = `student ${chance(student)}, teacher ${chance(teacher)}`;
      make(entry, "span", { class: "value" }, words);
    }
  }

  function look(t) {
    preview = t;
    describe();
  }

  function choose(t) {
    chosen = Math.max(0, Math.min(boxes.length - 1, t));
    preview = null;
    paint();
    boxes[chosen]?.focus({ preventScroll: true });
  }

  text.addEventListener("pointerleave", () => look(null));
  text.addEventListener("keydown", (e) => {
    const end = boxes.length - 1;
    const places = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: end };
    const to = places[e.key];
    if (to === undefined) return;
    e.preventDefault();
    choose(to);
  });

  const sizes = () => data.advantage.map((a) => Math.abs(a ?? 0));

  function update(next, { limit: full } = {}) {
    data = next;
    const largest = Math.max(0, ...sizes());
    limit = full ?? LIMITS.find((l) => l >= largest) ?? LIMITS.at(-1);
    draw();
  }

  // until the reader chooses, the token that matters most
  chosen = Math.max(0, sizes().indexOf(Math.max(...sizes())));
  update(data, options);
  return { update, root };
}
