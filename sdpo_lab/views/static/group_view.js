// The table of attempts at one problem, which stands in the HTML: each row unfolds its token view.

import { make } from "./dom.js";
import { drawEmbedded } from "./embedded.js";
import { tokenView } from "./token_view.js";

function addFold(row, data) {
  const cell = row.querySelector(".number");
  const words = [...cell.childNodes];
  const button = make(cell, "button", {
    type: "button", "aria-expanded": "false",
    "aria-label": `attempt ${cell.textContent}, token by token`,
  });
  button.append(...words);
  const below = document.createElement("tr");
  below.className = "unfolded";
  below.setAttribute("role", "row");
  const place = make(below, "td", { role: "cell", colspan: row.children.length });
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    if (!open) return below.remove();
    row.after(below);
    const attempts = [data.attempts[row.dataset.view]];
    if (!place.firstChild) tokenView(make(place, "div"), { ...data, attempts });
  });
}

export function draw(id) {
  drawEmbedded(id, (root, data) => {
    for (const row of root.querySelectorAll("tr[data-view]")) addFold(row, data);
  });
}
