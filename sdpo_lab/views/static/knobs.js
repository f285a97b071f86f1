// Knobs: a value that is set takes effect at the next step, and the knob says so until then.
//
// `specs` are what knobs.py makes; `first` takes the first of them, `rest` the others. Returns
//   update(now, over)   now: {field: [value at the next step, does it wait, why it does nothing]};
//                       over: nothing can be changed any more

import { make } from "./dom.js";
import { short } from "./numbers.js";

const TOUCHED = 1500; // ms after which a knob shows the run's value again

// Each kind of knob: {input, chosen() -> value, write(value), word(value) -> text}

function slider(label, spec, set) {
  const to = spec.log ? Math.log10 : (v) => v;
  const from = spec.log ? (v) => 10 ** v : (v) => v;
  const low = to(spec.low);
  const high = to(spec.high);
  const grain = (high - low) / (spec.log ? 200 : 20);
  const input = make(label, "input", {
    type: "range", min: low - (spec.zero ? 4 * grain : 0), max: high, step: grain,
    hook: spec.field,
  });
  const zero = () => spec.zero && input.value < low - grain;
  const chosen = () => (zero() ? 0 : Number(from(Number(input.value)).toPrecision(2)));
  const write = (v) => {
    input.value = spec.log && !(v > 0) ? input.min : to(v);
    input.setAttribute("aria-valuetext", short(v));
  };
  let timer;
  input.addEventListener("change", () => {
    clearTimeout(timer); // arrow keys fire many; the last one counts
    timer = setTimeout(() => set(chosen()), 120);
  });
  return { input, chosen, write, word: short };
}

function choice(label, spec, set) {
  const input = make(label, "select", { hook: spec.field });
  for (const name of spec.choices)
    make(input, "option", { value: name }, name.replaceAll("_", " "));
  const chosen = () => input.value;
  input.addEventListener("change", () => set(chosen()));
  return { input, chosen, write: (v) => { input.value = v; }, word: () => "" };
}

function toggle(label, spec, set) {
  const input = make(label, "input", { type: "checkbox", hook: spec.field });
  const chosen = () => input.checked;
  input.addEventListener("change", () => set(chosen()));
  return {
    input, chosen, write: (v) => { input.checked = v; }, word: (v) => (v ? "on" : "off"),
  };
}

const KINDS = { slider, choice, switch: toggle };

// Returns update([value, does it wait, why it does nothing], over)
function knob(parent, spec, set) {
  const label = make(parent, "label", { class: "knob " + spec.kind });
  const line = make(label, "span", { class: "name" });
  make(line, "span", {}, spec.label);
  const value = make(line, "output");
  const { input, chosen, write, word } = KINDS[spec.kind](label, spec, set);
  const hint = make(label, "span", { class: "hint" });
  let touched = 0;
  let held = false;
  input.addEventListener("pointerdown", () => { held = true; });
  for (const end of ["pointerup", "pointercancel", "blur"])
    input.addEventListener(end, () => { held = false; });
  for (const event of ["input", "change"])
    input.addEventListener(event, () => {
      touched = Date.now();
      value.textContent = word(chosen());
    });
  return ([now, waits, idle], over) => {
    const when = waits ? "waits for the next step" : spec.says || "takes effect at the next step";
    label.classList.toggle("waits", waits);
    label.classList.toggle("idle", Boolean(idle));
    hint.textContent = idle ? "does nothing here: " + idle : when;
    input.disabled = Boolean(idle) || over;
    if (held || Date.now() - touched < TOUCHED) return; // still in a hand
    write(now);
    value.textContent = word(now);
  };
}

export function knobPanel(first, rest, specs, ask) {
  const knobs = specs.map((spec, k) => {
    const set = (value) => ask({ kind: "set", field: spec.field, value });
    return [spec.field, knob(k ? rest : first, spec, set)];
  });
  return {
    update(now, over) {
      for (const [field, update] of knobs) if (now[field]) update(now[field], over);
    },
  };
}
