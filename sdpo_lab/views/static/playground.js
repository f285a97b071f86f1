// The page's half of the playground: sends what the reader chose and wrote, and draws the answer.
// Every text is set as text, never as HTML.

import { emptied, literal, make, plain, show } from "./dom.js";
import { rounded, verdict } from "./numbers.js";
import { tokenView } from "./token_view.js";

const EDITED = "", TYPED = "typed";
// Why a preset may not be there
const MISSING = {
  "the real feedback": "The judge says nothing of this attempt",
  "another problem's feedback": "No attempt at another problem got other feedback",
  "the answer itself": "This task does not tell its answers",
  "a sibling's success": "No other sampled attempt at this problem succeeded",
};

// Text on one line of at most `most` characters
function line(text, most) {
  const flat = plain(text);
  return flat.length > most ? flat.slice(0, most) + " …" : flat || "(empty)";
}

function signed(v) {
  if (v === null) return "infinite";
  return (v > 0.005 ? "+" : v < -0.005 ? "−" : "") + Math.abs(v).toFixed(2);
}

const unfamiliar = (least) =>
  `Worded like nothing this model was taught to read (least known: “${line(least, 30)}”). `
  + "What it makes of it means little.";
const SILENT = "No answer from the kernel: it is busy with a cell, was restarted, or is gone. "
  + "This is the last picture it sent.";

function render({ model, el }) {
  const setup = model.get("setup"), page = Math.random().toString(36).slice(2);
  const root = make(el, "div", {
    hook: "sdpo-play", role: "group", "aria-label": "Feedback playground",
  });
  root.setAttribute("data-lm-suppress-shortcuts", "");
  let chosen = {
    problem: 0, attempt: 0, text: "", preset: setup.presets[0], feedback: "", solution: "",
    ...model.get("state"),
  };
  let now = null;  // the newest answer that is drawn
  // questions are numbered; those on their way; how long answers take, ms
  let turn = 0, flying = [], heard = 0, spent = 0, timer, later, saving;
  let writes = 0, wroteFor = 0, samples = 0, view = null, viewed = "";

  // the problem and the attempt
  const choice = (hook, label) => {
    const box = make(root, "div", { class: "pick" });
    const select = make(box, "select", { hook, id: `${page}-${hook}` });
    box.prepend(make(box, "label", { for: `${page}-${hook}` }, label));
    return [box, select];
  };
  const [problemBox, problem] = choice("chosen-problem", "Problem");
  const step = (by, hook, text, label) => {
    const b = make(problemBox, "button", {
      type: "button", hook, "aria-label": label, title: label,
    }, text);
    const count = setup.problems.length;
    b.addEventListener("click", () => goTo((chosen.problem + by + count) % count));
  };
  step(-1, "previous", "‹", "Previous problem");
  step(1, "next", "›", "Next problem");
  const question = make(root, "div", { hook: "question" });
  const [, attempt] = choice("chosen-attempt", "Attempt");
  const typed = make(root, "textarea", {
    hook: "typed", rows: 2, maxlength: setup.most, spellcheck: "false",
    "aria-label": "Your own attempt", hidden: "",
  });
  const judged = make(root, "div", { hook: "judged" });

  // what the teacher is shown
  const told = make(root, "div", { class: "told" });
  make(told, "span", { class: "heading" }, "The teacher is shown");
  const presets = make(told, "div", {
    class: "presets", role: "group", "aria-label": "The teacher is shown",
  });
  const buttons = setup.presets.map((name) => {
    const b = make(presets, "button", {
      type: "button", hook: "preset", "aria-pressed": "false",
    }, name);
    b.addEventListener("click", () => choose({ preset: name, ...(now?.contexts[name] ?? {}) }));
    return [name, b];
  });
  const fields = {};
  const pair = make(root, "div", { class: "fields" });
  for (const [name, label] of [["feedback", "Feedback"], ["solution", "Solution"]]) {
    const box = make(pair, "div", { class: "field" });
    make(box, "label", { for: `${page}-${name}` }, label);
    const area = make(box, "textarea", {
      hook: name, id: `${page}-${name}`, rows: 3, maxlength: setup.most, spellcheck: "false",
      placeholder: "nothing",
    });
    area.addEventListener("input", () => {
      const { feedback, solution } = fields;
      choose({ preset: EDITED, feedback: feedback.area.value, solution: solution.area.value });
    });
    const badge = make(box, "div", { hook: `${name}-badge`, role: "status", hidden: "" });
    fields[name] = { area, badge };
  }
  const unknown = make(root, "div", { hook: "unknown", hidden: "" },
    "It is not known what texts this model was taught to read.");
  const notes = make(root, "div", { class: "notes" });
  const failure = make(notes, "div", { hook: "failure", role: "alert", hidden: "" });
  const silent = make(notes, "div", { hook: "silent", role: "status", hidden: "" });

  // what it makes of the attempt
  const result = make(root, "div", { class: "result" });
  const stat = (hook, label) => {
    const box = make(result, "div", { class: "stat" });
    const value = make(box, "span", { hook });
    make(box, "span", { class: "hush" }, label);
    return value;
  };
  const bits = stat("bits", "bits: how far the predictions moved");
  const sum = stat("sum", "nats: advantages, summed");
  const mean = stat("mean", "nats: advantage, mean of a token");
  const words = make(result, "div", { hook: "words", "aria-live": "polite" });
  const tokens = make(root, "div", { class: "picture" });

  // what it would write itself
  const own = make(root, "section", { hook: "own", "aria-label": "The teacher's own attempt" });
  const head = make(own, "div", { class: "own-head" });
  make(head, "span", { class: "heading" }, "The teacher's own attempt");
  for (const [hook, text, sample] of [["greedy", "Greedy", false], ["sample", "Sample one", true]])
    make(head, "button", { type: "button", hook }, text)
      .addEventListener("click", () => write(sample));
  const written = make(own, "div", { hook: "fresh", "aria-live": "polite" });

  function judgement(parent, v, text = null) {
    const [kind, sign, name] = verdict(v.reward, v.right);
    const reward = kind === "part" ? `, reward ${rounded(v.reward)}` : "";
    make(parent, "span", { class: `mark ${kind}` }, `${sign} ${name}${reward}`);
    if (text !== null) literal(make(parent, "code", { class: "fresh-text" }), text || "(empty)");
    if (v.feedback) literal(make(parent, "span", { class: "judge-said" }), v.feedback);
  }

  // choosing
  function goTo(n) {
    const preset = chosen.preset === EDITED ? setup.presets[0] : chosen.preset;
    choose({ problem: n, attempt: 0, preset });
  }

  function choose(what) {
    chosen = { ...chosen, ...what };
    clearTimeout(saving);
    saving = setTimeout(save, 400);  // the kernel has better to do while somebody types
    changed();
  }

  function save() {
    model.set("state", { ...chosen, page });
    model.save_changes();
  }

  function changed() {
    turn += 1;
    root.dataset.turn = turn;
    written.replaceChildren();  // what it wrote was of other texts
    make(written, "span", { class: "hush" }, "…");
    drawChoices();
    clearTimeout(timer);
    clearTimeout(later);
    // at once where answers are quick; a slow model is asked when the hand rests
    timer = setTimeout(ask, spent > 400 ? 400 : 15);
  }

  function which() {
    const { problem, attempt, text } = chosen;
    return attempt === TYPED ? { problem, text } : { problem, attempt };
  }

  function contents() {
    const { preset, feedback, solution } = chosen;
    return preset === EDITED ? { feedback, solution } : { preset };
  }

  function ask() {
    const time = Date.now();
    if (flying.at(-1)?.turn === turn) return;
    // Two on their way, so that the kernel reads one while the other travels, and only one where
    // reading takes long. An answer asks again.
    // What has no answer after five seconds may have been lost, and stands in nobody's way.
    if (flying.filter((q) => time - q.began < 5000).length >= (spent < 300 ? 2 : 1)) return;
    if (chosen.attempt === TYPED && !chosen.text) {
      root.classList.add("stale");
      return show(failure, "There is no attempt yet: type one.");
    }
    flying.push({ turn, began: time, key: JSON.stringify(which()) });
    model.send({ kind: "score", page, turn, ...which(), ...contents() });
  }

  function write(sample) {
    clearTimeout(later);
    if (!now) return;
    writes += 1;
    wroteFor = turn;
    written.replaceChildren();
    make(written, "span", { class: "hush" }, "writing …");
    const extra = sample ? { sample: samples++ } : {};
    model.send({ kind: "write", page, turn: writes, ...which(), ...now.shown, ...extra });
  }

  function receive(message) {
    if (message.page !== page) return;
    heard = Date.now();
    if (message.kind === "write") {
      if (message.turn === writes && turn === wroteFor) drawWritten(message);
      return;
    }
    const question = flying.find((q) => q.turn === message.turn);
    if (!question) return;
    flying = flying.filter((q) => q.turn > message.turn);  // what was overtaken is not answered
    spent = heard - question.began;
    root.classList.toggle("stale", Boolean(message.error));
    if (message.error) show(failure, message.error);
    else draw(message, question.key);
    root.dataset.answered = message.turn;
    if (message.turn < turn) ask();
    else if (!message.error && spent < 500) later = setTimeout(() => write(false), 600);
  }

  // drawing
  function drawChoices() {
    const here = setup.problems[chosen.problem];
    if (problem.options.length === 0)
      setup.problems.forEach((p, n) => {
        make(problem, "option", { value: n }, `${n + 1}. ${line(p.question, 110)}`);
      });
    problem.value = chosen.problem;
    if (attempt.dataset.of !== String(chosen.problem)) {
      attempt.dataset.of = chosen.problem;
      attempt.replaceChildren();
      here.attempts.forEach((a, n) => {
        const sign = verdict(a.reward, a.right)[1];
        make(attempt, "option", { value: n }, `${sign} ${line(a.text, 110)}`);
      });
      make(attempt, "option", { value: TYPED }, "✎ type one …");
      literal(emptied(question), here.question);
    }
    attempt.value = chosen.attempt;
    typed.hidden = chosen.attempt !== TYPED;
    if (typed.value !== chosen.text) typed.value = chosen.text;
    for (const [name, b] of buttons) b.setAttribute("aria-pressed", String(name === chosen.preset));
    for (const [name, { area }] of Object.entries(fields))
      if (area.value !== chosen[name]) area.value = chosen[name];
    const reset = chosen.preset === EDITED ? "↺ " : "";
    buttons[0][1].textContent = reset + setup.presets[0];
  }

  function draw(answer, key) {
    const newest = answer.turn === undefined || answer.turn === turn;
    now = answer;
    show(failure, "");
    if (newest && chosen.preset !== EDITED) {  // the texts of a preset come with the answer
      const there = chosen.preset in answer.contexts ? chosen.preset : "nothing";
      chosen = { ...chosen, preset: there, ...answer.shown };
    }
    drawChoices();
    for (const [name, b] of buttons) {
      b.disabled = !(name in answer.contexts);
      b.title = b.disabled ? MISSING[name] ?? "" : "";
    }
    judged.replaceChildren();
    judgement(judged, answer.verdict);
    for (const [name, { badge }] of Object.entries(fields)) {
      const found = answer.familiar[name];
      show(badge, found?.unfamiliar ? unfamiliar(found.least) : "");
    }
    unknown.hidden = answer.familiar.feedback !== null;
    bits.textContent = answer.bits === null ? "∞" : answer.bits.toFixed(answer.bits < 10 ? 2 : 1);
    sum.textContent = signed(answer.sum);
    mean.textContent = signed(answer.mean);
    literal(emptied(words), answer.words[0].toUpperCase() + answer.words.slice(1));
    if (view && viewed === key) view.update(answer.view);
    else {
      const quantity = tokens.firstChild?.dataset.quantity ?? answer.view.color_by;
      const data = view ? { ...answer.view, color_by: quantity } : answer.view;
      view?.destroy();
      tokens.replaceChildren();
      view = tokenView(make(tokens, "div"), data);
      viewed = key;
    }
    root.dataset.drawn = answer.turn ?? 0;
  }

  function drawWritten(answer) {
    written.replaceChildren();
    if (answer.error) return make(written, "span", { class: "mark bad" }, answer.error);
    const how = answer.sample === null ? "greedy" : `sample ${answer.sample + 1}`;
    make(written, "span", { class: "hush" }, how);
    judgement(written, answer, answer.text);
    root.dataset.written = answer.turn;
  }

  function watch() {
    const waited = flying.length ? Date.now() - flying[0].began : 0;
    show(silent, waited > 5000 ? SILENT
      : waited > 1500 ? "The kernel is busy: the picture follows." : "");
  }

  problem.addEventListener("change", () => goTo(Number(problem.value)));
  attempt.addEventListener("change", () => {
    if (attempt.value !== TYPED) return choose({ attempt: Number(attempt.value) });
    const sampled = setup.problems[chosen.problem].attempts[chosen.attempt]?.text;
    choose({ attempt: TYPED, text: chosen.text || sampled || "" });
    typed.focus();
  });
  typed.addEventListener("input", () => choose({ text: typed.value }));
  // another view of the same playground has moved: follow it
  const follow = () => {
    const state = model.get("state");
    if (!state || state.page === page) return;
    chosen = { ...chosen, ...state };
    changed();
  };
  model.on("change:state", follow);
  model.on("msg:custom", receive);
  const timing = setInterval(watch, 500);
  drawChoices();
  const restored = Object.keys(model.get("state") ?? {}).length > 0;
  const first = { ...setup.first, turn: restored ? -1 : undefined };
  draw(first, JSON.stringify({ problem: 0, attempt: 0 }));
  if (restored) changed();
  else later = setTimeout(() => write(false), 300);
  return () => {
    clearInterval(timing);
    clearTimeout(timer);
    clearTimeout(later);
    clearTimeout(saving);
    model.off("change:state", follow);
    model.off("msg:custom", receive);
    view?.destroy();
  };
}

export default { render };
