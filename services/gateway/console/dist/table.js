// The rows of an answer as a table: which columns stand in it, and more of a row behind its first cell.

import { bytes, full, legible, make } from "./dom.js";
import { detail } from "./row.js";
import { isTime, shownTime } from "./time.js";

/** Rows in the page; the others are at hand. */
const DRAWN_AT_ONCE = 200;
/** Rows of a live tail that stay in the page. */
const LIVE_MAX = 1000;
/** Fields besides the message that a line shows. */
const PAIRS_MAX = 12;
const PLACES = new Set(["_received", "_segment", "_offset"]);
const LEVELS = new Set(["trace", "debug", "info", "warn", "error", "fatal"]);
/** What tells best whose event it is. */
const WHOSE = ["service", "service.name", "app", "container", "pod", "program", "host"];

export function shown(value) {
  if (value === null || value === undefined) return "";
  if (isTime(value)) return shownTime(value);
  return legible(typeof value === "object" ? JSON.stringify(value) : String(value));
}

const isNull = (value) => value === null || value === undefined;
const oneLine = (text) => (text.length > 2000 ? `${text.slice(0, 2000)}…` : text).split("\n", 1)[0];

export class Table {
  /** `does` is what the buttons of a row call: `only`, `without`, `column`, `context`. */
  constructor(table, more, does) {
    Object.assign(
      this,
      {
        table,
        head: table.tHead,
        body: table.tBodies[0],
        more,
        does,
        columns: [],
        rows: [],
        chosen: null,
        sorted: null,
        drawn: [],
        lines: new WeakMap(),
      },
    );
    more.addEventListener("click", () => this.drawOn());
  }

  /** The row in whose line an element stands. */
  rowOf(node) {
    return this.lines.get(node?.closest?.("tr"));
  }

  /** Starts anew with the columns of an answer; `chosen` are the names to show, null for the page's own choice. */
  begin(columns, chosen) {
    Object.assign(this, { columns, chosen, rows: [], sorted: null });
    this.layOut();
  }

  /** Whether the rows are events, whose message stands last and takes its other fields along. */
  get events() {
    const names = this.columns.map(({ name }) => name);
    return names.includes("_time") && names.includes("_msg");
  }

  /** The names of the columns that are shown. */
  names() {
    const all = this.columns.map(({ name }) => name);
    const chosen = this.chosen?.filter((name) => all.includes(name)) ?? [];
    if (chosen.length > 0) return chosen;
    if (this.events) return [
      "_time",
      "severity",
      WHOSE.find((name) => all.includes(name)),
      "_msg",
    ].filter((name) => name && all.includes(name));
    const plain = all.filter((name) => !PLACES.has(name));
    return plain.length > 0 ? plain : all;
  }

  choose(chosen) {
    this.chosen = chosen;
    this.layOut();
  }

  layOut() {
    const types = new Map(this.columns.map(({ name, type }) => [name, type]));
    this.drawn = this.names().map((name) => ({ name, type: types.get(name) }));
    const heads = this.drawn.map(({ name, type }) => make("th", {
      scope: "col",
      class: ["integer", "number"].includes(type) ? "number" : name === "_msg" ? "message" : null,
      "aria-sort": this.sorted?.name === name ? (this.sorted.down ? "descending" : "ascending") : null,
    },
      make("button", { type: "button", title: `Sort the shown rows by ${name}`, text: name, on: { click: () => this.sort(name) } })));
    this.head.replaceChildren(make(
      "tr",
      {},
      make("th", { class: "toggle" }, make("span", { class: "unseen", text: "details" })),
      ...heads
    ));
    this.table.classList.toggle("events", this.events);
    this.redraw();
  }

  redraw() {
    this.body.replaceChildren();
    this.drawOn();
  }

  /** Draws the next rows that are at hand. */
  drawOn() {
    const from = this.body.querySelectorAll("tr.row").length;
    // Up to the next full step: what comes bit by bit stands as what comes at once.
    const to = (Math.floor(from / DRAWN_AT_ONCE) + 1) * DRAWN_AT_ONCE;
    this.body.append(...this.rows.slice(from, to).map((row) => this.line(row)));
    this.tellMore();
  }

  tellMore() {
    const left = this.rows.length - this.body.querySelectorAll("tr.row").length;
    this.more.hidden = left <= 0;
    this.more.textContent = `Show ${full(Math.min(left, DRAWN_AT_ONCE))} more of ${full(left)}`;
  }

  append(rows) {
    for (const row of rows) this.rows.push(row);
    if (this.body.rows.length < DRAWN_AT_ONCE) this.drawOn();
    else this.tellMore();
  }

  replace(rows) {
    this.rows = [...rows];
    this.redraw();
  }

  /** Puts new rows on top and lets the oldest go. */
  prepend(rows) {
    this.rows.unshift(...[...rows].reverse());
    this.rows.length = Math.min(this.rows.length, LIVE_MAX);
    this.body.prepend(...rows.map((row) => this.line(row, "row new")).reverse());
    while (this.body.rows.length > LIVE_MAX) this.body.lastChild.remove();
    this.more.hidden = true;
  }

  sort(name) {
    this.sorted = { name, down: this.sorted?.name === name ? !this.sorted.down : false };
    const sign = this.sorted.down ? -1 : 1;
    const before = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    this.rows.sort(({ [name]: a }, { [name]: b }) => (isNull(a) ? (isNull(b) ? 0 : 1) : isNull(b) ? -1 : sign * before(a, b)));
    this.layOut();
  }

  line(row, kind = "row") {
    const open = make(
      "button",
      { type: "button", class: "open", "aria-expanded": "false", "aria-label": "All fields of this row", text: "›" },
    );
    const level = LEVELS.has(row.severity) ? row.severity : "none";
    const line = make(
      "tr",
      { class: `${kind} ${level}` },
      make("td", { class: "toggle" }, open),
      ...this.drawn.map((column) => this.cell(column, row))
    );
    this.lines.set(line, row);
    const turn = () => {
      const closed = open.getAttribute("aria-expanded") === "false";
      open.setAttribute("aria-expanded", String(closed));
      if (closed) line.after(make(
        "tr",
        { class: "detail" },
        make("td", { colspan: this.drawn.length + 1 }, detail(row, this.names(), this.does)),
      ));
      else line.nextSibling.remove();
    };
    open.addEventListener("click", turn);
    // A click opens the row, marking a text does not.
    line.addEventListener("click", (event) => { if (!event.target.closest("button") && getSelection().isCollapsed) turn(); });
    return line;
  }

  cell({ name, type }, row) {
    const value = row[name];
    if (name === "_msg" && this.chosen === null && this.events) return this.message(row);
    if (isNull(value)) return make("td", { class: "null", text: "–" });
    if (name === "severity") return make("td", {}, make("span", { class: `badge ${LEVELS.has(value) ? value : "none"}`, text: value }));
    const kind = type === "integer" || type === "number" ? "number" : name === "_time" ? "time" : name === "_msg" ? "message" : null;
    return make("td", { class: kind, text: oneLine(shown(value)) });
  }

  /** The message, and behind it what else the event says. */
  message(row) {
    const taken = new Set([...this.drawn.map(({ name }) => name), ...PLACES, "_msg"]);
    const others = Object.entries(row).filter(([name, value]) => !taken.has(name) && !isNull(value) && value !== "");
    const pairs = others.slice(0, PAIRS_MAX).map(([name, value]) => make(
      "span",
      { class: "pair" },
      make("span", { text: `${name}=` }),
      oneLine(shown(value)).slice(0, 120),
    ));
    return make("td", { class: "message" }, make("span", { text: oneLine(shown(row._msg)) }), ...pairs);
  }
}

/** What it took to get the rows, in a few words. */
export function cost({ elapsed_ms: ms, stats }) {
  return `${ms} ms, ${full(stats.rows_scanned)} rows looked at, ${bytes(stats.chunk_bytes_read ?? stats.bytes_scanned)} of chunks read`;
}
