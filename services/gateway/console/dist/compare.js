// What is different in this time from another: values that are more common in it, and less.

import { bar, full, make, nothing, percent, short } from "./dom.js";
import { shown } from "./table.js";

/** With one degree of freedom a difference above it comes by chance once in a thousand times. */
const CHANCE_ONE_IN_1000 = 10.83;

function line({ field, value, a, b, ratio, direction, significance }, does) {
  const said = value === null ? "(missing)" : shown(value);
  const times = ratio === null ? "new" : ratio === 0 ? "gone" : `×${short(ratio >= 1 ? ratio : 1 / ratio)}`;
  const surely = significance >= CHANCE_ONE_IN_1000;
  return make("tr", { class: surely ? "" : "weak" },
    make(
      "td",
      {},
      make("span", { class: "faint", text: `${field} ` }),
      make(
        "button",
        {
          type: "button",
          class: "template",
          text: said,
          title: `Only rows with ${field} = ${said}`,
          on: { click: () => does.only(field, value) },
        },
      ),
    ),
    make(
      "td",
      {},
      make(
        "span",
        { class: `change ${direction === "over" ? "more" : "fewer"}`, text: `${direction === "over" ? "more" : "fewer"} ${times}` },
      ),
      surely ? null : make("div", { class: "faint", text: "may be chance" }),
    ),
    make("td", { class: "pair-of-shares" },
      make("div", {}, bar(b.share, "now"), make("span", { text: percent(b.share), title: `${full(b.rows)} rows` })),
      make("div", {}, bar(a.share, "then"), make("span", { class: "faint", text: percent(a.share), title: `${full(a.rows)} rows` }))));
}

/** Draws the answer of the compare call, where `a` is the other time and `b` this one. */
export function compare(place, { a, b, values, fields_left_out: left }, words, does) {
  if (b.rows === 0 || a.rows === 0) {
    const empty = b.rows === 0 ? "this time" : words;
    place.replaceChildren(nothing("Nothing to compare", `There are no rows in ${empty}. Choose another time.`));
    return;
  }
  if (values.length === 0) {
    place.replaceChildren(nothing("No difference", `All fields have their values as often as in ${words}.`));
    return;
  }
  const body = make("tbody");
  body.append(...values.map((one) => line(one, does)));
  const head = make(
    "thead",
    {},
    make("tr", {}, ...["Value", "Is now", "Share of rows, now and then"].map((text) => make("th", { scope: "col", text }))),
  );
  const hidden = left?.length > 0 ? ` Not looked at: ${left.map(({ name, reason }) => `${name} (${reason})`).join(", ")}.` : "";
  place.replaceChildren(
    make(
      "p",
      { class: "note", text: `${full(b.rows)} rows now, ${full(a.rows)} rows in ${words}; what differs most comes first.${hidden}` },
    ),
    make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Differences" },
      make("table", { class: "compare" }, head, body),
    ));
}
