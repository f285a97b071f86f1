// What the token view says of one token, and the two prompts.

import { literal, make, plain } from "./dom.js";
import { fixed, number, probability, rounded, signed } from "./numbers.js";
import { probabilityBars } from "./token_parts.js";

const ROLES = ["student", "teacher"];
const marked = (text) => text.replace(/\n/g, "⏎");

// How many times as likely, for a difference in nats
function times(a) {
  if (a >= Math.log(1000)) return "over 1000";
  return a < 0.7 ? Math.exp(a).toFixed(2) : String(Number(Math.exp(a).toPrecision(2)));
}

// A token's text, or the bytes of one that is only part of a character
export function drawToken(parent, a, t, text) {
  const bytes = a.partial[t];
  if (bytes) make(parent, "span", { class: "code" }, bytes === "?" ? "◌" : bytes);
  else literal(parent, text, { spaces: true });
}

// The one prompt beside the other, what only one of them has marked
export function drawPromptColumns(parent, a) {
  const columns = make(parent, "div", { class: "columns" });
  for (const [role, title] of [["student", "Student reads"], ["teacher", "Teacher reads"]]) {
    const column = make(columns, "div", { class: "column" });
    make(column, "div", { class: "role " + role }, title);
    const words = make(column, "div", {
      hook: "prompt", tabindex: "0", role: "group", "aria-label": title,
    });
    const tag = role === "teacher" ? "ins" : "del";
    for (const [differs, text] of a.prompts[role])
      literal(make(words, differs ? tag : "span"), text, { end: "" });
  }
}

// What is known of a token: what the teacher does with it, and each role's numbers
export function drawFacts(facts, a, t, title, fullAt) {
  const [p, q, advantage] = [a.student[t], a.teacher[t], a.advantage[t]].map(number);
  const top = make(facts, "div", { class: "line" });
  drawToken(make(top, "span", { hook: "which" }), a, t, marked(a.tokens[t]));
  const [begin, end] = [t ? a.ends[t - 1] : 0, a.ends[t]];
  const bytes = end - begin === 1 ? `byte ${begin}` : `bytes ${begin}–${end}`;
  const special = a.special.includes(t) ? ", a special token" : "";
  const kind = a.partial[t] ? ", part of a character" : special;
  const where = `token ${t + 1} of ${a.tokens.length}, ${bytes}${kind}${title && ` · ${title}`}`;
  make(top, "span", { class: "quiet where" }, where);

  const said = make(facts, "div", { hook: "said" });
  const size = Math.abs(advantage);
  if (size < 0.005) said.append("The teacher leaves it as it is.");
  else if (Number.isNaN(advantage))
    said.append("There is no advantage here: a log-probability is not a number.");
  else {
    const [does, than] = advantage < 0 ? ["lowers", "less"] : ["raises", "more"];
    said.append("The teacher ");
    make(said, "b", { class: does }, `${does} it by ${fixed(size)} nats`);
    said.append(`: ${times(size)} times ${than} likely.`);
  }

  const grid = make(facts, "div", { class: "grid" });
  const cell = (kind, text) => make(grid, "span", { class: kind }, text);
  for (const name of ["", "probability", "rank", "entropy"]) cell("quiet", name);
  for (const [role, value] of [["student", p], ["teacher", q]]) {
    cell("role " + role, role);
    cell("", probability(Math.exp(value)));
    cell("", String(a[role + "_rank"][t]));
    cell("", fixed(number(a[role + "_entropy"][t])));
  }
  if (a.oracle) {
    const oracle = number(a.oracle[t]);
    const allowed = oracle === -Infinity ? "excluded" : probability(Math.exp(oracle));
    cell("role oracle", "oracle");
    cell("wide", Number.isNaN(oracle) ? "no opinion" : allowed);
  }
  const beyond = size > fullAt ? ` (the colour ends at ${rounded(fullAt)})` : "";
  const divergence = fixed(number(a.divergence[t]), 3);
  const numbers = `advantage ${signed(advantage)} nats${beyond} · divergence ${divergence} nats`;
  make(facts, "div", { class: "numbers quiet" }, numbers);
}

// What else could have stood at a position, as a table
export function drawAlternatives(list, a, t) {
  list.replaceChildren();
  const row = (kind, name, p, q) => {
    const line = make(list, "div", { class: "entry " + kind, role: "row" });
    const text = make(line, "span", { class: "name", role: "rowheader" });
    if (kind === "rest") text.append(name);
    else literal(text, marked(name), { spaces: true });
    probabilityBars(line, p, q, { role: "presentation" });
    for (const v of [p, q])
      make(line, "span", { class: "value", role: "cell" }, probability(v));
  };
  const head = make(list, "div", { class: "entry names", role: "row" });
  make(head, "span", { class: "name quiet", role: "columnheader" }, "token");
  make(head, "span", { class: "bars", role: "presentation" });
  for (const role of ROLES)
    make(head, "span", { class: "value role " + role, role: "columnheader" }, role);
  const likely = (role, k) => Math.exp(number(a[`top_${role}`][t][k]));
  a.top[t].forEach((place, k) => {
    const kind = k ? "other" : "written";
    row(kind, a.vocabulary[place], likely("student", k), likely("teacher", k));
  });
  const others = `${a.size - a.top[t].length} others`;
  row("rest", others, number(a.tail_student[t]), number(a.tail_teacher[t]));
}

// A selected token in a sentence, for screen readers
export function spokenOf(a, t) {
  const role = (name) =>
    `${name} ${probability(Math.exp(number(a[name][t])))}, rank ${a[name + "_rank"][t]}`;
  const best = (name) => {
    const values = a[`top_${name}`][t].map(number);
    const k = values.reduce((found, v, k) => (v > values[found] ? k : found), 0);
    return `${plain(a.vocabulary[a.top[t][k]])}, ${probability(Math.exp(values[k]))}`;
  };
  return `${role("student")}; ${role("teacher")}. Most likely for the student: `
    + `${best("student")}; for the teacher: ${best("teacher")}.`;
}
