// The newest group of attempts; one that is clicked is shown token by token below.
//
// Returns
//   draw(group)        {step, question, list: [{text, feedback, reward}], more}
//   receive(message)   {kind: "credit", step, index, picture, after, teacher} or {..., error}
//   waits()            is an answer on its way

import { compactTokens } from "./compact_tokens.js";
import { literal, make, plain } from "./dom.js";
import { short, verdict } from "./numbers.js";

export function attemptList(parent, below, ask) {
  const root = make(parent, "section", {
    hook: "attempts", "aria-label": "Newest attempts", tabindex: "0",
  });
  const panel = make(below, "section", {
    hook: "tokens", "aria-label": "One attempt, token by token", hidden: "",
  });
  const head = make(panel, "div", { class: "tokens-head" });
  const title = make(head, "b");
  const close = make(head, "button", { hook: "tokens-close", type: "button" }, "Close");
  const note = make(panel, "p", { hook: "tokens-note", class: "quiet", role: "status" });
  const place = make(panel, "div");
  let opened = null; // {step, index}
  let waiting = false;
  let view = null;
  make(root, "p", { class: "quiet" }, "The newest attempts appear here after the first step.");

  function open(step, index) {
    opened = { step, index };
    waiting = true;
    view = null;
    place.replaceChildren();
    panel.hidden = false;
    title.textContent = `Attempt ${index + 1} of step ${step}`;
    note.textContent = "It is scored when the step in hand is over …";
    mark();
    ask({ kind: "credit", step, index });
  }

  const isOpen = ({ step, index }) =>
    opened !== null && Number(step) === opened.step && Number(index) === opened.index;

  function mark() {
    for (const button of root.querySelectorAll("button.attempt"))
      button.setAttribute("aria-expanded", String(isOpen(button.dataset)));
  }

  close.addEventListener("click", () => {
    opened = null;
    waiting = false;
    panel.hidden = true;
    mark();
  });

  function receive(message) {
    if (!isOpen(message)) return; // another page asked, or the hand has moved on
    waiting = false;
    if (message.error) {
      note.textContent = plain(message.error);
      view = null;
      return place.replaceChildren();
    }
    note.textContent = `Scored by the weights after step ${message.after}. ${shownTo(message)}`;
    if (view) view.update(message.picture);
    else view = compactTokens(place, message.picture);
  }

  // What the teacher was shown, in words
  function shownTo({ picture, teacher }) {
    const shown = Object.keys(picture.shown).join(" and ");
    if (teacher && shown) return `Its teacher was shown: ${shown}.`;
    if (teacher) return "Its teacher was shown nothing, so both read the same.";
    return shown
      ? "This run has no teacher: it is what the model itself makes of the feedback."
      : "This run has no teacher, and the judge said nothing.";
  }

  function drawAttempt(attempt, step, k) {
    const [kind, sign, name] = verdict(attempt.reward);
    const item = make(root, "button", {
      class: "attempt " + kind, type: "button", "data-step": step, "data-index": k,
      "aria-expanded": "false",
    });
    item.addEventListener("click", () => open(step, k));
    make(item, "span", { class: "verdict", role: "img", "aria-label": name }, sign);
    const texts = make(item, "span", { class: "texts" });
    literal(make(texts, "code", { class: "text" }), attempt.text);
    if (!attempt.text) make(texts, "span", { class: "quiet" }, "(empty)");
    const reward = ` reward ${short(attempt.reward)}`;
    if (kind === "part") make(texts, "span", { class: "quiet" }, reward);
    if (attempt.feedback) literal(make(texts, "span", { class: "feedback" }), attempt.feedback);
  }

  function draw(group) {
    const top = root.scrollTop;
    const focused = document.activeElement?.dataset?.index;
    const inside = root.contains(document.activeElement);
    root.replaceChildren();
    const heading = make(root, "h4", {}, "Newest attempts");
    const which = ` one question of step ${group.step}; click one for its tokens`;
    make(heading, "small", {}, which);
    literal(make(root, "div", { class: "question" }), group.question);
    group.list.forEach((attempt, k) => drawAttempt(attempt, group.step, k));
    if (group.more) make(root, "p", { class: "quiet" }, `and ${group.more} more`);
    mark();
    root.scrollTop = top;
    if (!inside || focused === undefined) return;
    const again = root.querySelector(`button.attempt[data-index="${focused}"]`);
    again?.focus({ preventScroll: true });
  }

  return { draw, receive, waits: () => waiting };
}
