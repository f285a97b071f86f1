// Tokens as buttons: those pressed are blamed.

import { make } from "./dom.js";

const ASK =
  "Which tokens do you blame? Click them, or move with the arrow keys and press the space bar.";

function render({ model, el }) {
  const labels = model.get("labels");
  const name = (t) => `${labels[t]} (position ${t})`;
  const root = make(el, "div", { hook: "sdpo-blame" });
  make(root, "p", { class: "ask" }, ASK);
  const row = make(root, "div", {
    class: "row", role: "group", "aria-label": "Tokens of the attempt; pressed means blamed",
  });
  const buttons = labels.map((label, t) => make(row, "button", {
    type: "button", class: "token", tabindex: t ? -1 : 0, "data-position": t, "aria-label": name(t),
  }, label));
  const foot = make(root, "div", { class: "foot" });
  const said = make(foot, "span", {
    class: "said", "data-testid": "blame-said", role: "status", "aria-live": "polite",
  });
  const none = make(foot, "button", {
    type: "button", class: "none", "data-testid": "blame-none",
  }, "Blame nothing");

  function set(blamed) {
    model.set("blamed", blamed);
    model.save_changes();
    draw(); // at once, whether or not a kernel answers
  }

  function draw() {
    const blamed = model.get("blamed");
    buttons.forEach((button, t) => button.setAttribute("aria-pressed", blamed.includes(t)));
    none.disabled = !blamed.length;
    said.textContent = "Blamed: " + (blamed.map(name).join(", ") || "nothing");
  }

  // The row is one stop of the Tab key; the arrows move along it
  function focus(t) {
    const target = buttons[Math.max(0, Math.min(buttons.length - 1, t))];
    for (const button of buttons) button.tabIndex = button === target ? 0 : -1;
    target.focus();
  }

  function toggle(t) {
    const blamed = model.get("blamed");
    const without = blamed.filter((b) => b !== t);
    set(blamed.includes(t) ? without : [...blamed, t].sort((a, b) => a - b));
    focus(t);
  }

  buttons.forEach((button, t) => {
    button.addEventListener("click", () => toggle(t));
    button.addEventListener("keydown", (e) => {
      const to = { ArrowLeft: t - 1, ArrowRight: t + 1, Home: 0, End: buttons.length - 1 }[e.key];
      if (to === undefined) return;
      e.preventDefault();
      focus(to);
    });
  });
  none.addEventListener("click", () => {
    set([]);
    focus(0);
  });
  model.on("change:blamed", draw);
  draw();
  return () => model.off("change:blamed", draw);
}

export default { render };
