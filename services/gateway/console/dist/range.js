// The menu that chooses the time.

import { at, make, show } from "./dom.js";
import * as menus from "./menus.js";
import { SPANS, complaint, describe, lastOf, resolve, stamp, zone } from "./time.js";

export function label(range) {
  at("range").textContent = describe(range);
  at("range").title = `${range.from} to ${range.to} (d)`;
}

/** `now()` answers the range at present, `choose(range)` takes another, and `zoned()` is called when times are shown in another zone. */
export function start(now, choose, zoned) {
  at("spans").append(...SPANS.map((span) => make(
    "button",
    {
      type: "button",
      text: describe(lastOf(span)).replace("Last ", "").replace(/^\w/, (first) => first.toUpperCase()),
      on: { click: () => { menus.close("range-menu"); choose(lastOf(span)); } },
    },
  )));
  at("zone").checked = zone.utc;
  at("zone").addEventListener("change", () => { zone.set(at("zone").checked); fill(now()); zoned(); });
  at("range-menu").addEventListener("toggle", ({ newState }) => { if (newState === "open") fill(now()); });
  at("range-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const said = { from: at("from").value.trim(), to: at("to").value.trim() };
    const wrong = complaint(said);
    show(at("range-error"), wrong !== null);
    at("range-error").textContent = wrong ?? "";
    if (wrong) return;
    menus.close("range-menu");
    const { from, to } = resolve(said);
    const moving = (text, read) => (text.includes("now") || text.startsWith("-") ? text : new Date(read).toISOString());
    choose({ from: moving(said.from, from), to: moving(said.to, to) });
  });
}

function fill(range) {
  const { from, to } = resolve(range);
  at("from").value = range.from.startsWith("now") ? range.from : stamp(from);
  at("to").value = range.to.startsWith("now") ? range.to : stamp(to);
  show(at("range-error"), false);
}
