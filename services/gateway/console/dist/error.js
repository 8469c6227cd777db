// What is wrong with a query: the line, a caret below the place, and what was probably meant.

import { button, make, show } from "./dom.js";

/** Where the place of an error lies in the text, counted as the browser counts. */
function offset(text, line, column) {
  const lines = text.split("\n");
  const before = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
  return Math.min(before + [...(lines[line - 1] ?? "")].slice(0, column - 1).join("").length, text.length);
}

/** Shows an error of a text; `onFix(text)` is called for a text in which the likely meaning stands. */
export function tell(place, area, text, error, onFix) {
  const parts = [];
  if (error.line) {
    const source = text.split("\n")[error.line - 1] ?? "";
    const number = String(error.line);
    const gutter = " ".repeat(number.length);
    parts.push(make(
      "pre",
      {},
      `${number} | ${source}\n${gutter} | ${" ".repeat(Math.min(error.column - 1, [...source].length))}`,
      make("b", { class: "caret", text: "^" }),
    ));
    const begin = offset(text, error.line, error.column);
    area.setSelectionRange(begin, begin);
    parts.push(make("p", {}, make("strong", { text: error.message })));
    const meant = /^did you mean (.+)\?$/.exec(error.help ?? "")?.[1];
    const word = /^[\p{L}\p{N}_.@]+/u.exec(text.slice(begin))?.[0];
    if (error.help) parts.push(make(
      "p",
      { class: "bar" },
      make("span", { text: error.help }),
      meant && word ? button(
        `Use ${meant}`,
        () => onFix(text.slice(0, begin) + meant + text.slice(begin + word.length)),
        { class: "fix" },
      ) : null,
    ));
  } else {
    parts.push(make("p", {}, make("strong", { text: error.message })));
    if (error.help) parts.push(make("p", { text: error.help }));
  }
  place.replaceChildren(...parts);
  show(place, true);
}
