// The fields of what was found: how common each is, and its commonest values to choose from.

import { bar, button, full, make, nothing, percent, say, short } from "./dom.js";
import { SEVERITIES } from "./histogram.js";
import { shown } from "./table.js";

/** Values that a field shows before it is opened wide. */
const VALUES_FIRST = 5;
const SIGNS = { text: "a", integer: "1", number: "½", boolean: "?", time: "◷", other: "{}" };
/** Fields that are looked at first: they stand on top. */
const FIRST = ["severity", "service", "service.name", "app", "host", "pod"];
const OPEN_MAX = 3;
const HIDDEN = new Set(["_time", "_received", "_segment", "_offset", "_msg"]);

export class Facets {
  constructor(place, note, does) {
    Object.assign(this, { place, note, does, open: null, wide: new Set(), wanted: "" });
  }

  wait() {
    say(this.note, "counting", true);
  }

  fail(message) {
    this.place.replaceChildren();
    say(this.note, message);
  }

  show(answer) {
    this.answer = answer;
    this.draw();
  }

  /** Shows only fields whose name has this text in it. */
  search(text) {
    this.wanted = text.toLowerCase();
    if (this.answer) this.draw();
  }

  draw() {
    const rank = ({ name }) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
    const all = this.answer.fields.filter(({ name }) => !HIDDEN.has(name)).sort((a, b) => rank(a) - rank(b));
    const fields = all.filter(({ name }) => name.toLowerCase().includes(this.wanted));
    // One look decides what stands open; afterwards it is whoever looks who decides.
    this.open ??= new Set(all.slice(0, OPEN_MAX).map(({ name }) => name));
    this.place.replaceChildren(...fields.map((field) => this.field(field)));
    const { rows, sampled, fields_left_out: more } = this.answer;
    const notes = [
      rows === 0 ? "" : `of ${short(rows)} rows`,
      sampled ? `one in ${sampled.one_in} looked at` : "",
      more > 0 ? `${more} more fields` : "",
    ];
    say(this.note, notes.filter(Boolean).join(", "));
    if (rows === 0) this.place.replaceChildren(nothing("No fields", "There are no rows in this time."));
    else if (fields.length === 0) this.place.replaceChildren(nothing("No such field", "No field has this in its name."));
  }

  field(field) {
    const { name, type, coverage, distinct, at_least: more, values } = field;
    const shownValues = this.wide.has(name) ? values : values.slice(0, VALUES_FIRST);
    const list = make("ul", { class: "values" }, ...shownValues.map((one) => this.value(name, one)));
    const head = make(
      "summary",
      { title: `${type}, in ${percent(coverage)} of the rows` },
      make("span", { class: "sign", "aria-hidden": "true", text: SIGNS[type] ?? "{}" }),
      make("span", { class: "name", text: name }),
      make("span", { class: "faint", text: coverage < 0.9995 ? percent(coverage) : "" }),
      make("span", { class: "pill", text: `${more ? "≥" : ""}${short(distinct)}`, title: `${more ? "at least " : ""}${full(distinct)} values` }),
    );
    const inside = [head, list];
    if (values.length > VALUES_FIRST && !this.wide.has(name)) {
      inside.push(button(`${values.length - VALUES_FIRST} more`, () => { this.wide.add(name); this.draw(); }, { class: "link" }));
    }
    if (typeof field.p50 === "number") {
      const number = (label) => [make("dt", { text: label }), make("dd", { text: short(field[label]) })];
      inside.push(make(
        "dl",
        { class: "spread" },
        ...["min", "p50", "p90", "p99", "max"].filter((label) => typeof field[label] === "number").flatMap(number)
      ));
    }
    const made = make("details", { open: this.open.has(name) }, ...inside);
    made.addEventListener("toggle", () => (made.open ? this.open.add(name) : this.open.delete(name)));
    return made;
  }

  value(name, { value, count, share }) {
    const said = shown(value) === "" ? "(empty)" : shown(value);
    return make("li", {},
      make(
        "button",
        { type: "button", class: "value", title: `Only rows with ${name} = ${said}`, on: { click: () => this.does.only(name, value) } },
        bar(share, name === "severity" && SEVERITIES.includes(value) ? value : ""),
        make("span", { class: "text", text: said }),
        make("span", { class: "count", text: short(count), title: `${full(count)} rows, ${percent(share)}` }),
      ),
      button(
        "−",
        () => this.does.without(name, value),
        { class: "small", "aria-label": `No rows with ${name} = ${said}`, title: "No rows with this value" },
      ));
  }
}
