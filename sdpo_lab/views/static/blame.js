// Tokens as buttons: those pressed are blamed. Behind dom.js.
function render({ model, el }) {
  const labels = model.get("labels"), name = (t) => `${labels[t]} (position ${t})`;
  const root = make(el, "div", { hook: "sdpo-blame" });
  make(root, "p", { class: "ask" }, "Which tokens do you blame? Click them, or move with the arrow keys and press the space bar.");
  const row = make(root, "div", { class: "row", role: "group", "aria-label": "Tokens of the attempt; pressed means blamed" });
  const buttons = labels.map((label, t) => make(row, "button", { type: "button", class: "token", tabindex: t ? -1 : 0, "data-position": t, "aria-label": name(t) }, label));
  const foot = make(root, "div", { class: "foot" });
  const said = make(foot, "span", { class: "said", "data-testid": "blame-said", role: "status", "aria-live": "polite" });
  const none = make(foot, "button", { type: "button", class: "none", "data-testid": "blame-none" }, "Blame nothing");

  function set(blamed) {
    model.set("blamed", blamed);
    model.save_changes();
    draw();  // at once, whether or not a kernel answers
  }

  function draw() {
    const blamed = model.get("blamed");
    buttons.forEach((button, t) => button.setAttribute("aria-pressed", blamed.includes(t)));
    none.disabled = !blamed.length;
    said.textContent = "Blamed: " + (blamed.map(name).join(", ") || "nothing");
  }

  function focus(t) {  // the row is one stop of the Tab key; the arrows move along it
    const target = buttons[Math.max(0, Math.min(buttons.length - 1, t))];
    for (const button of buttons) button.tabIndex = button === target ? 0 : -1;
    target.focus();
  }

  buttons.forEach((button, t) => {
    button.addEventListener("click", () => {
      const blamed = model.get("blamed");
      set(blamed.includes(t) ? blamed.filter((b) => b !== t) : [...blamed, t].sort((a, b) => a - b));
      focus(t);
    });
    button.addEventListener("keydown", (e) => {
      const to = { ArrowLeft: t - 1, ArrowRight: t + 1, Home: 0, End: buttons.length - 1 }[e.key];
      if (to === undefined) return;
      e.preventDefault();
      focus(to);
    });
  });
  none.addEventListener("click", () => { set([]); focus(0); });
  model.on("change:blamed", draw);
  draw();
  return () => model.off("change:blamed", draw);
}

export default { render };
