// The rows around one row, as they came, in a dialog; it grows in both directions.

import * as api from "./api.js";
import { at, make, say, show } from "./dom.js";
import { shown } from "./table.js";

const STEP = 20;
/** Fields by which the rows around are commonly chosen. */
const SAME = ["service", "service.name", "app", "host", "node", "pod", "container", "instance", "program", "stream", "file"];
const LEVELS = new Set(["trace", "debug", "info", "warn", "error", "fatal"]);

function line(row, isHit) {
  const level = LEVELS.has(row.severity) ? row.severity : "none";
  return make(
    "tr",
    { class: `row ${level}${isHit ? " hit" : ""}`, "aria-current": isHit ? "true" : null },
    make("td", { class: "time", text: shown(row._time) }),
    make("td", {}, make("span", { class: `badge ${level}`, text: row.severity ?? "" })),
    make("td", { class: "message whole", text: row._msg ?? JSON.stringify(row) }),
  );
}

export class Context {
  constructor(lostToken) {
    this.lostToken = lostToken;
    this.dialog = at("context");
    at("context-before").addEventListener("click", () => this.grow("before"));
    at("context-after").addEventListener("click", () => this.grow("after"));
    this.dialog.addEventListener("close", () => this.asking?.abort());
  }

  open(index, row) {
    Object.assign(this, { index, hit: row, same: new Set(), rows: [] });
    const names = SAME.filter((name) => ["string", "number"].includes(typeof row[name]));
    at("context-same").replaceChildren(...names.map((name) => {
      const box = make(
        "input",
        { type: "checkbox", on: { change: () => { if (box.checked) this.same.add(name); else this.same.delete(name); this.begin(); } } },
      );
      return make("label", { class: "check" }, box, ` same ${name} `, make("code", { text: shown(row[name]) }));
    }));
    this.dialog.showModal();
    this.begin();
  }

  begin() {
    this.rows = [];
    return this.ask(this.hit._segment, this.hit._offset, STEP, STEP);
  }

  grow(way) {
    const end = way === "before" ? this.rows[0] : this.rows.at(-1);
    return this.ask(end.segment, end.offset, way === "before" ? STEP : 0, way === "after" ? STEP : 0, way);
  }

  async ask(segment, offset, before, after, way) {
    this.asking?.abort();
    const mine = (this.asking = new AbortController());
    say(at("context-note"), "reading", true);
    try {
      const place = { segment, offset, before, after, same: this.same.size > 0 ? [...this.same].join(",") : null };
      const { rows, more_before, more_after } = await api.context(this.index, place, mine.signal);
      const hit = (one) => one.segment === this.hit._segment && one.offset === this.hit._offset;
      if (way === "before") this.rows = [...rows.filter((row) => !row.hit), ...this.rows];
      else if (way === "after") this.rows = [...this.rows, ...rows.filter((row) => !row.hit)];
      else this.rows = rows;
      if (way !== "after") show(at("context-before"), more_before);
      if (way !== "before") show(at("context-after"), more_after);
      say(at("context-note"), `${this.rows.length} rows, in the order they came`);
      this.draw(hit, way);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (this.lostToken(error)) this.dialog.close();
      else say(at("context-note"), `Cannot be shown: ${error.message}`);
    }
  }

  draw(hit, way) {
    const body = at("context-rows");
    const scroll = body.closest(".scroll");
    const fromEnd = scroll.scrollHeight - scroll.scrollTop;
    body.replaceChildren(...this.rows.map((one) => line(one.row, hit(one))));
    // What was looked at stays where it is.
    if (way === "before") scroll.scrollTop = scroll.scrollHeight - fromEnd;
    if (!way) body.querySelector(".hit")?.scrollIntoView({ block: "center" });
  }
}

