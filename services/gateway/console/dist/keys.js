// The keys of the page, and the sheet that lists them.

import { at, make } from "./dom.js";

/** What is pressed while nothing is written, what it does, and the name of what is called for it. */
const KEYS = [
  ["/", "go to the query", "query"],
  ["r", "run the query", "run"],
  ["j", "next row", "next"],
  ["k", "row before", "before"],
  ["c", "rows around the row in focus", "context"],
  ["t", "begin or end the live tail", "tail"],
  ["p", "pause the live tail, or go on", "pause"],
  ["[", "the time before", "earlier"],
  ["]", "the time after", "later"],
  ["-", "three times as much time", "wider"],
  ["d", "choose the time", "range"],
  ["h", "go to the histogram", "histogram"],
  ["f", "search a field", "fields"],
  ["s", "share", "share"],
  ["e", "export", "export"],
  ["1", "rows", "view-rows"],
  ["2", "patterns", "view-patterns"],
  ["3", "chart", "view-chart"],
  ["4", "compare", "view-compare"],
  ["5", "explain", "view-explain"],
  ["6", "alerts and jobs", "view-watch"],
  ["?", "this sheet", "help"],
];
const ELSEWHERE = [
  ["Enter", "in the query: run it; on a row: all its fields"],
  ["Shift Enter", "in the query: a new line"],
  ["Ctrl Space", "in the query: what could come next"],
  ["Tab", "in the query: take what is offered"],
  ["Esc", "stop the query or the live tail, leave the query, close what is open"],
  ["← →", "in the histogram: move; with Shift: extend; Enter: choose the time"],
];

const line = ([keys, does]) => make(
  "tr",
  {},
  make("td", {}, ...keys.split(" ").map((key) => make("kbd", { text: key }))),
  make("td", { text: does }),
);

const writes = (node) => node.closest("textarea, select, input:not([type=checkbox], [type=radio])") !== null;

/** Begins to listen; `does` has a function for each name. */
export function start(does) {
  const body = at("keys");
  body.append(...KEYS.map(line), ...ELSEWHERE.map(line));
  at("help-open").addEventListener("click", () => at("help").showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open], :popover-open")) return;
    if (event.key === "Escape") return does.stop();
    if (writes(event.target) || at("workplace").hidden) return;
    const found = KEYS.find(([key]) => key === event.key);
    if (!found) return;
    event.preventDefault();
    if (found[2] === "help") at("help").showModal();
    else if (found[2].startsWith("view-")) does.view(found[2].slice(5));
    else does[found[2]]();
  });
}
