// The newest group of attempts; one that is clicked is shown token by token below. Behind dom.js, chart.js and strip.js.
//
// Returns
//   draw(group)        {step, question, list: [{text, feedback, reward}], more}
//   receive(message)   {kind: "credit", step, index, picture, after, teacher} or {..., error}
//   waits()            is an answer on its way
function attemptList(parent, below, ask) {
  const root = make(parent, "section", { hook: "attempts", "aria-label": "Newest attempts", tabindex: "0" });
  const panel = make(below, "section", { hook: "tokens", "aria-label": "One attempt, token by token", hidden: "" });
  const head = make(panel, "div", { class: "tokens-head" }), title = make(head, "b"), close = make(head, "button", { hook: "tokens-close", type: "button" }, "Close");
  const note = make(panel, "p", { hook: "tokens-note", class: "quiet", role: "status" });
  const place = make(panel, "div");
  let opened = null, waiting = false, view = null;
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

  function mark() {
    for (const b of root.querySelectorAll("button.attempt")) {
      const on = opened && Number(b.dataset.step) === opened.step && Number(b.dataset.index) === opened.index;
      b.setAttribute("aria-expanded", String(Boolean(on)));
    }
  }

  close.addEventListener("click", () => { opened = null; waiting = false; panel.hidden = true; mark(); });

  function receive(message) {
    if (!opened || message.step !== opened.step || message.index !== opened.index) return;  // another page asked, or the hand has moved on
    waiting = false;
    if (message.error) { note.textContent = plain(message.error); view = null; return place.replaceChildren(); }
    const shown = Object.keys(message.picture.shown).join(" and ");
    note.textContent = `Scored by the weights after step ${message.after}. `
      + (message.teacher ? (shown ? `Its teacher was shown: ${shown}.` : "Its teacher was shown nothing, so both read the same.")
        : shown ? "This run has no teacher: it is what the model itself makes of the feedback." : "This run has no teacher, and the judge said nothing.");
    if (view) view.update(message.picture);
    else view = strip(place, message.picture);
  }

  function draw(group) {
    const top = root.scrollTop, focused = document.activeElement?.dataset?.index, inside = root.contains(document.activeElement);
    root.replaceChildren();
    const heading = make(root, "h4", {}, "Newest attempts");
    make(heading, "small", {}, ` one question of step ${group.step}; click one for its tokens`);
    literal(make(root, "div", { class: "question" }), group.question);
    group.list.forEach((attempt, k) => {
      const [kind, name, sign] = attempt.reward >= 1 ? ["good", "right", "✓"] : attempt.reward > 0 ? ["part", "partly right", "½"] : ["bad", "wrong", "✗"];
      const item = make(root, "button", { class: "attempt " + kind, type: "button", "data-step": group.step, "data-index": k, "aria-expanded": "false" });
      item.addEventListener("click", () => open(group.step, k));
      make(item, "span", { class: "verdict", role: "img", "aria-label": name }, sign);
      const texts = make(item, "span", { class: "texts" });
      literal(make(texts, "code", { class: "text" }), attempt.text);
      if (!attempt.text) make(texts, "span", { class: "quiet" }, "(empty)");
      if (kind === "part") make(texts, "span", { class: "quiet" }, ` reward ${short(attempt.reward)}`);
      if (attempt.feedback) literal(make(texts, "span", { class: "feedback" }), attempt.feedback);
    });
    if (group.more) make(root, "p", { class: "quiet" }, `and ${group.more} more`);
    mark();
    root.scrollTop = top;
    if (inside && focused !== undefined) root.querySelector(`button.attempt[data-index="${focused}"]`)?.focus({ preventScroll: true });
  }

  return { draw, receive, waits: () => waiting };
}
