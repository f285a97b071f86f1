// Knobs that leave a wish: it takes effect at the next step, and says so until then. Behind dom.js and chart.js.
//
// `specs` are what knobs.py makes; `first` takes the first of them, `rest` the others. Returns
//   update(now, over)   now: {field: [value at the next step, does it wait, why it does nothing]}; over: nothing can be changed any more
function knobPanel(first, rest, specs, ask) {
  const set = (field, value) => ask({ kind: "set", field, value });

  function slider(label, spec) {
    const to = spec.log ? Math.log10 : (v) => v, from = spec.log ? (v) => 10 ** v : (v) => v;
    const low = to(spec.low), high = to(spec.high), grain = (high - low) / (spec.log ? 200 : 20);
    const input = make(label, "input", { type: "range", min: low - (spec.zero ? 4 * grain : 0), max: high, step: grain, hook: spec.field });
    const chosen = () => (spec.zero && input.value < low - grain ? 0 : Number(from(Number(input.value)).toPrecision(2)));
    let timer;
    input.addEventListener("change", () => {
      clearTimeout(timer);  // arrow keys fire many; the last one counts
      timer = setTimeout(() => set(spec.field, chosen()), 120);
    });
    return { input, chosen, write: (v) => { input.value = spec.log && !(v > 0) ? input.min : to(v); input.setAttribute("aria-valuetext", short(v)); }, word: short };
  }

  function choice(label, spec) {
    const input = make(label, "select", { hook: spec.field });
    for (const name of spec.choices) make(input, "option", { value: name }, name.replaceAll("_", " "));
    input.addEventListener("change", () => set(spec.field, input.value));
    return { input, chosen: () => input.value, write: (v) => { input.value = v; }, word: () => "" };
  }

  function toggle(label, spec) {
    const input = make(label, "input", { type: "checkbox", hook: spec.field });
    input.addEventListener("change", () => set(spec.field, input.checked));
    return { input, chosen: () => input.checked, write: (v) => { input.checked = v; }, word: (v) => (v ? "on" : "off") };
  }

  function knob(parent, spec) {
    const label = make(parent, "label", { class: "knob " + spec.kind });
    const line = make(label, "span", { class: "name" });
    make(line, "span", {}, spec.label);
    const value = make(line, "output");
    const { input, chosen, write, word } = { slider, choice, switch: toggle }[spec.kind](label, spec);
    const hint = make(label, "span", { class: "hint" });
    let touched = 0, held = false;
    input.addEventListener("pointerdown", () => { held = true; });
    for (const end of ["pointerup", "pointercancel", "blur"]) input.addEventListener(end, () => { held = false; });
    const touch = () => { touched = Date.now(); value.textContent = word(chosen()); };
    for (const event of ["input", "change"]) input.addEventListener(event, touch);
    return ([now, waits, idle], over) => {
      label.classList.toggle("waits", waits);
      label.classList.toggle("idle", Boolean(idle));
      hint.textContent = idle ? "does nothing here: " + idle : waits ? "waits for the next step" : spec.says || "takes effect at the next step";
      input.disabled = Boolean(idle) || over;
      if (held || Date.now() - touched < 1500) return;  // still in a hand
      write(now);
      value.textContent = word(now);
    };
  }

  const knobs = specs.map((spec, k) => [spec.field, knob(k ? rest : first, spec)]);
  return { update(now, over) { for (const [field, turn] of knobs) if (now[field]) turn(now[field], over); } };
}
