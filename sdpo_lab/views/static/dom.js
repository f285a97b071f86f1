// What every view's script builds its page with; it stands in front of each. Every text is set as text, never as HTML.
// Names and no import, so that the file can stand in a <script> as well as in front of a widget's module.

// A new last child of `parent`, in SVG where the parent is SVG; `hook` is its class and its data-testid.
function make(parent, tag, { hook, ...attributes } = {}, text = null) {
  const drawn = parent.namespaceURI?.endsWith("svg");
  const node = drawn ? document.createElementNS(parent.namespaceURI, tag) : document.createElement(tag);
  if (hook) Object.assign(attributes, { class: hook, "data-testid": hook });
  // keys pressed here are meant for here: JupyterLab would take them for its own commands. On a slider it does not help that an element around it says so
  if (/^(button|input|select|textarea|summary)$/.test(tag)) attributes["data-lm-suppress-shortcuts"] = "";
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

// The text of an element that is there only when it has one
function show(element, text) {
  element.hidden = !text;
  if (element.textContent !== text) element.textContent = text;
}

// Characters nobody could see: controls, format and bidi characters, odd spaces, ignorables. Variation selectors stay with what they follow.
const HIDDEN = /((?![\ufe00-\ufe0f])[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]|(?! )\p{Zs})/u;
const coded = (c) => (c === "\t" ? "⇥" : "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));

// Text as it is, at the end of `parent`: line ends marked with `end` ("" for none), what nobody could see written as its code, and with `spaces`
// a <span class="space"> around every one of them.
function literal(parent, text, { end = "⏎", spaces = false } = {}) {
  if (/^\p{M}/u.test(text)) make(parent, "span", { class: "code" }, "◌");  // a combining mark without its letter
  text.split(HIDDEN).forEach((part, k) => {
    if (k % 2) {
      if (part !== "\n" || end) make(parent, "span", { class: "code" }, part === "\n" ? end : coded(part));
      if (part === "\n") parent.append("\n");
    } else if (spaces) {
      part.split(/( )/).forEach((piece) => { if (piece === " ") make(parent, "span", { class: "space" }, " "); else if (piece) parent.append(piece); });
    } else if (part) parent.append(part);
  });
  return parent;
}

// The same as a string, for sentences
const plain = (text) => text.split(HIDDEN).map((part, k) => (k % 2 ? (part === "\n" ? "⏎" : coded(part)) : part)).join("");
