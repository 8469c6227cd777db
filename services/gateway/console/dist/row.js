// All fields of one row, each with what can be done with it.

import { button, legible, make } from "./dom.js";
import { isTime, shownTime } from "./time.js";

const filterable = (value) => ["string", "number", "boolean"].includes(typeof value) && String(value).length <= 500;
const text = (value) => (isTime(value) ? shownTime(value) : typeof value === "object" ? JSON.stringify(value, null, 2) : String(value));

function field(name, value, columns, does) {
  const said = `${name} = ${legible(String(value)).slice(0, 60)}`;
  const acts = make("td", { class: "acts" });
  // Two events seldom have the same time, and never the same place.
  if (filterable(value) && !/^_(time|received|segment|offset)$/.test(name)) {
    acts.append(button(
      "+",
      () => does.only(name, value),
      { class: "small", "aria-label": `Only rows with ${said}`, title: "Only rows with this value" },
    ));
    acts.append(button(
      "−",
      () => does.without(name, value),
      { class: "small", "aria-label": `No rows with ${said}`, title: "No rows with this value" },
    ));
  }
  const there = columns.includes(name);
  acts.append(button(
    "▥",
    () => does.column(name),
    {
      class: "small",
      "aria-pressed": String(there),
      "aria-label": `Column ${name}`,
      title: there ? "Take this column away" : "Show this column",
    },
  ));
  return make("tr", {}, acts, make("th", { scope: "row", text: name }), make("td", { class: "value", text: text(value) }));
}

export function detail(row, columns, does) {
  const told = Object.entries(row).filter(([, value]) => value !== null && value !== undefined);
  const bar = make("div", { class: "bar" });
  if (row._segment !== undefined && row._offset !== undefined && row._segment !== null) {
    bar.append(button("Rows around it", () => does.context(row), { class: "context" }));
  }
  bar.append(button("Copy as JSON", () => navigator.clipboard?.writeText(JSON.stringify(row, null, 2)), {}));
  const fields = make("tbody");
  fields.append(...told.map(([name, value]) => field(name, value, columns, does)));
  return make(
    "div",
    { class: "fields-of-row" },
    bar,
    make("table", { class: "plain" }, make("caption", { class: "unseen", text: "All fields of the row" }), fields),
  );
}
