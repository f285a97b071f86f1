// Views in static HTML. A notebook may show an output several times, so there can be several
// elements of one id.

// Draws `draw(root, data)` in every element of this id that still has its data, each once.
export function drawEmbedded(id, draw) {
  for (const root of document.querySelectorAll(`#${id}`)) {
    const given = root.querySelector(":scope > script");
    if (!given) continue;
    given.remove();
    draw(root, JSON.parse(given.textContent));
  }
}
