// The table of rows. Every value is set as text, so nothing that a log line holds can become markup.

const SHOWN_MAX = 1000;
const SEVERITIES = new Set(["trace", "debug", "info", "warn", "error", "fatal"]);

/** A text to look at: a byte that is not UTF-8, which comes as a character of U+F780 to U+F7FF, reads `\xe9`. */
export const legible = (text) => String(text ?? "").replace(/[\uf780-\uf7ff]/g, (mark) => `\\x${(mark.charCodeAt(0) & 0xff).toString(16)}`);

function node(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = legible(text);
  return made;
}

export function shown(value, type) {
  if (value === null || value === undefined) return "";
  if (type === "timestamp" || (typeof value === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(value))) {
    return value.replace("T", " ").replace(/(\.\d{3})\d+/, "$1").replace("Z", "");
  }
  return legible(typeof value === "object" ? JSON.stringify(value) : String(value));
}

function cell(column, row) {
  const value = row[column.name];
  const made = node("td");
  if (value === null || value === undefined) {
    made.className = "null";
    made.textContent = "–";
    return made;
  }
  made.textContent = shown(value, column.type).split("\n", 1)[0];
  if (column.type === "integer" || column.type === "number") made.classList.add("number");
  if (column.name === "_msg") made.classList.add("message");
  if (column.name === "severity" && SEVERITIES.has(value)) made.classList.add(value);
  return made;
}

function detail(row, span) {
  const line = node("tr", "detail");
  const place = node("td");
  place.colSpan = span;
  const list = node("dl");
  for (const [name, value] of Object.entries(row)) {
    if (value === null || value === undefined) continue;
    list.append(node("dt", "", name), node("dd", "", typeof value === "object" ? JSON.stringify(value, null, 2) : String(value)));
  }
  place.append(list);
  line.append(place);
  return line;
}

export class Table {
  constructor(table) {
    this.head = table.tHead;
    this.body = table.tBodies[0];
    this.columns = [];
  }

  /** Starts anew with these columns; the ones that say where a row lies are left to the details. */
  begin(columns) {
    const plain = columns.filter(({ name }) => !["_received", "_segment", "_offset"].includes(name));
    this.columns = plain.length > 0 ? plain : columns;
    const line = node("tr");
    line.append(node("th"));
    line.firstChild.append(node("span", "unseen", "details"));
    for (const { name } of this.columns) {
      const made = node("th", "", name);
      made.scope = "col";
      line.append(made);
    }
    this.head.replaceChildren(line);
    this.body.replaceChildren();
  }

  row(row) {
    const line = node("tr");
    const place = node("td", "toggle");
    const button = node("button", "", "›");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", "Show all fields of this row");
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) line.nextSibling.remove();
      else line.after(detail(row, this.columns.length + 1));
    });
    place.append(button);
    line.append(place, ...this.columns.map((column) => cell(column, row)));
    return line;
  }

  /** Appends rows; answers how many are shown, which is at most a thousand. */
  fill(rows) {
    this.body.append(...rows.slice(0, SHOWN_MAX).map((row) => this.row(row)));
    return Math.min(rows.length, SHOWN_MAX);
  }

  /** Puts new rows on top and lets the oldest go. */
  prepend(rows) {
    this.body.prepend(...rows.map((row) => this.row(row)).reverse());
    while (this.body.rows.length > SHOWN_MAX) this.body.lastChild.remove();
  }
}
