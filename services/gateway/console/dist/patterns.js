// The shapes of what was found: how often each comes, over time, and beside the period before.

import { bar, button, draw, full, make, nothing, percent, short } from "./dom.js";

const WIDTH = 120, HEIGHT = 24;
const WORSE = ["fatal", "error", "warn", "info", "debug", "trace", "none"];

/** A small drawing of counts over time. */
export function spark(counts, kind) {
  const top = Math.max(...counts, 1);
  const step = WIDTH / Math.max(counts.length, 1);
  const bars = counts.map((count, i) => draw(
    "rect",
    {
      class: kind,
      x: i * step,
      width: Math.max(step - 0.6, 0.6),
      y: HEIGHT - (count > 0 ? Math.max((count / top) * HEIGHT, 1.5) : 0),
      height: count > 0 ? Math.max((count / top) * HEIGHT, 1.5) : 0,
    },
  ));
  return draw(
    "svg",
    { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...bars
  );
}

/** The text of a template, with its holes marked. */
function holes(template) {
  return template.split("<*>").flatMap((text, i) => (i === 0 ? [text] : [
    make("span", { class: "hole", text: "∗", title: "any word" }),
    text,
  ]));
}

/** The longest run of words without a hole, which finds the rows of a pattern. */
export function phraseOf(template) {
  const runs = template.split("<*>").map((run) => run.trim()).filter((run) => /\w/.test(run));
  return runs.sort((a, b) => b.length - a.length)[0] ?? null;
}

function changed({ change, before }) {
  if (!change) return "";
  const times = change.ratio ? ` ×${short(change.ratio >= 1 ? change.ratio : 1 / change.ratio)}` : "";
  const words = { new: "new", gone: "gone", more: `more${times}`, fewer: `fewer${times}`, same: "as before" };
  return make(
    "span",
    {
      class: `change ${change.kind}`,
      text: words[change.kind] ?? change.kind,
      title: before ? `${full(before.count)} in the period before` : "none in the period before",
    },
  );
}

function line(pattern, compared, does) {
  const worst = WORSE.find((name) => pattern.severities?.[name] > 0) ?? "none";
  const phrase = phraseOf(pattern.template);
  const template = make(
    "button",
    {
      type: "button",
      class: "template",
      disabled: !phrase,
      title: phrase ? `Search for “${phrase}”` : "This pattern has no words to search for",
      on: { click: () => does.only("_msg", phrase) },
    },
    ...holes(pattern.template)
  );
  const without = phrase ? button(
    "−",
    () => does.without("_msg", phrase),
    { class: "small", "aria-label": `No rows with ${phrase}`, title: "No rows with these words" },
  ) : null;
  const cells = [
    make("td", { class: "number" }, make("strong", { text: short(pattern.count), title: `${full(pattern.count)} rows` })),
    make("td", { class: "share-cell" }, bar(pattern.share, worst), make("span", { class: "faint", text: percent(pattern.share) })),
    make("td", {}, spark(pattern.buckets ?? [], worst)),
  ];
  if (compared) cells.push(make("td", {}, changed(pattern)));
  return make(
    "tr",
    { class: `row ${worst}` },
    ...cells,
    make("td", { class: "message" }, template),
    make("td", { class: "acts" }, without),
  );
}

/** Draws the answer of the patterns call. */
export function patterns(place, answer, does) {
  const { rows, patterns: all, other, compare } = answer;
  if (all.length === 0) {
    place.replaceChildren(nothing("No patterns", "There are no messages in this time. Choose a longer time or a wider search."));
    return;
  }
  const heads = ["Rows", "Share", "Over time", ...(compare ? ["Before"] : []), "Pattern", ""];
  const head = make(
    "thead",
    {},
    make(
      "tr",
      {},
      ...heads.map((text) => make(
        "th",
        { scope: "col", class: text === "Rows" ? "number" : null },
        text === "" ? make("span", { class: "unseen", text: "without" }) : text,
      ))
    ),
  );
  const body = make("tbody");
  body.append(...all.map((pattern) => line(pattern, Boolean(compare), does)));
  const told = `${full(rows)} rows have ${full(all.length + (other?.patterns ?? 0))} patterns`;
  const rest = other?.patterns > 0 ? `; ${full(other.patterns)} rarer ones with ${full(other.count)} rows are not shown` : "";
  const note = make(
    "p",
    {
      class: "note",
      text: `${told}${rest}.${compare ? ` The period before has ${full(compare.rows)} rows; what stands out most comes first.` : ""}`,
    },
  );
  place.replaceChildren(
    note,
    make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Patterns" },
      make("table", { class: "patterns" }, head, body),
    ),
  );
}
