// What both views of an attempt's tokens are made of, `token_view.js` and `compact_tokens.js`.

import { make } from "./dom.js";

// What colours the tokens: one of `names` {value: name}. Returns the inputs.
export function colourChoices(parent, names, chosen, onChoice) {
  const group = `colours-${Math.random().toString(36).slice(2, 10)}`;
  return Object.entries(names).map(([value, name]) => {
    const label = make(parent, "label", { class: "choice" });
    const input = make(label, "input", { type: "radio", name: group, value });
    input.checked = value === chosen;
    make(label, "span", {}, name);
    input.addEventListener("change", () => onChoice(value));
    return input;
  });
}

// The colour of a token's value, which is full at `limit`
export function colourToken(box, value, limit) {
  const strength = Number.isNaN(value) ? 0 : Math.min(1, Math.abs(value) / limit).toFixed(3);
  box.classList.toggle("nothing", Number.isNaN(value));
  box.classList.toggle("down", value < 0);
  box.style.setProperty("--v", strength);
}

// A bar for each role's probability
export function probabilityBars(parent, student, teacher, attributes) {
  const bars = make(parent, "span", { class: "bars", ...attributes });
  for (const [role, p] of Object.entries({ student, teacher })) {
    const width = Math.min(1, Math.max(0, p || 0));
    make(bars, "span", { class: "bar " + role }).style.width = `${100 * width}%`;
  }
}
