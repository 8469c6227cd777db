// Elements of the page. Every text is set as text, so nothing that a log line holds can become markup.

export const at = (id) => document.getElementById(id);

/** Makes an element: `class`, `text` and `on` (listeners by name) besides its attributes; a value of null or false is left out. */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  dress(made, attributes);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** The same for a drawing. */
export function draw(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  dress(made, attributes);
  made.append(...children);
  return made;
}

function dress(made, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") made.textContent = legible(value);
    else if (key === "class") made.setAttribute("class", value);
    else if (key === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else made.setAttribute(key, value === true ? "" : value);
  }
}

/** A button that does one thing. */
export const button = (text, does, attributes = {}) => make("button", { type: "button", text, ...attributes, on: { click: does } });

/** A text to look at: a byte that is not UTF-8, which comes as a character of U+F780 to U+F7FF, reads `\xe9`. */
export const legible = (text) => String(text ?? "").replace(/[\uf780-\uf7ff]/g, (mark) => `\\x${(mark.charCodeAt(0) & 0xff).toString(16)}`);

export function say(node, text, busy = false) {
  node.textContent = legible(text);
  node.classList.toggle("busy", busy);
}

export function show(node, visible) {
  node.hidden = !visible;
}

/** What stands where nothing is: what that means, and what to do next. */
export const nothing = (title, next, ...actions) =>
  make("div", { class: "nothing" }, make("strong", { text: title }), make("p", { text: next }), make("p", { class: "bar" }, ...actions));

const numbers = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const full = (n) => numbers.format(n);
export const short = (n) => (Math.abs(n) < 10000 ? numbers.format(Math.round(n * 100) / 100) : compact.format(n));
export const percent = (share) => (share > 0 && share < 0.001 ? "<0.1%" : `${Number((share * 100).toFixed(share < 0.1 ? 1 : 0))}%`);

export function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  const step = Math.min(Math.floor(Math.log10(Math.max(n, 1)) / 3), units.length - 1);
  return `${Number((n / 1000 ** step).toFixed(step === 0 ? 0 : 1))} ${units[step]}`;
}

/** A share as a bar; its number stands beside it, so it is hidden from readers of the screen. */
export function bar(share, kind = "") {
  const inner = make("span", { class: `fill ${kind}` });
  inner.style.inlineSize = `${Math.max(share > 0 ? 1 : 0, Math.min(100, share * 100))}%`;
  return make("span", { class: "share", "aria-hidden": "true" }, inner);
}
