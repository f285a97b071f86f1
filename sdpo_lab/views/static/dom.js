// What every view builds its page with. Every text is set as text, never as HTML.

// Keys pressed in these are meant for them: JupyterLab would take them for its own commands.
// On a slider it does not help that an element around it says so.
const CONTROLS = /^(button|input|select|textarea|summary)$/;

// A new last child of `parent`, in SVG where the parent is SVG.
// `hook` is its class and its data-testid.
export function make(parent, tag, { hook, ...attributes } = {}, text = null) {
  const space = parent.namespaceURI;
  const drawn = space?.endsWith("svg");
  const node = drawn ? document.createElementNS(space, tag) : document.createElement(tag);
  if (hook) Object.assign(attributes, { class: hook, "data-testid": hook });
  if (CONTROLS.test(tag)) attributes["data-lm-suppress-shortcuts"] = "";
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

// The text of an element that is there only when it has one
export function show(element, text) {
  element.hidden = !text;
  if (element.textContent !== text) element.textContent = text;
}

export function emptied(element) {
  element.replaceChildren();
  return element;
}

// Characters nobody could see: controls, format and bidi characters, unusual spaces, ignorables.
// Variation selectors stay with what they follow.
const SPECIAL = String.raw`\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}`;
const HIDDEN = new RegExp(`((?![\ufe00-\ufe0f])[${SPECIAL}\u2800]|(?! )\\p{Zs})`, "u");
const coded = (c) => (c === "\t" ? "⇥" : "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));

// Text as it is, at the end of `parent`: line ends marked with `end` ("" for none), what nobody
// could see written as its code, and with `spaces` a <span class="space"> around every one.
export function literal(parent, text, { end = "⏎", spaces = false } = {}) {
  const code = (sign) => make(parent, "span", { class: "code" }, sign);
  if (/^\p{M}/u.test(text)) code("◌"); // a combining mark without its letter
  text.split(HIDDEN).forEach((part, k) => {
    if (k % 2) {
      if (part !== "\n") code(coded(part));
      else if (end) code(end);
      if (part === "\n") parent.append("\n");
    } else {
      for (const piece of spaces ? part.split(/( )/) : [part]) {
        if (spaces && piece === " ") make(parent, "span", { class: "space" }, " ");
        else if (piece) parent.append(piece);
      }
    }
  });
  return parent;
}

// The same as a string, for sentences
export function plain(text) {
  const sign = (part) => (part === "\n" ? "⏎" : coded(part));
  return text.split(HIDDEN).map((part, k) => (k % 2 ? sign(part) : part)).join("");
}
