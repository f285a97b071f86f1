// A picture at the end of `parent`; `make` of dom.js draws in it.
export function picture(parent, attributes) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries(attributes)) svg.setAttribute(name, value);
  parent.append(svg);
  return svg;
}
