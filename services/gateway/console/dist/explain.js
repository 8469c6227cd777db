// What a query cost: what it read, what it left out, and why.

import { bytes, full, make, nothing, percent } from "./dom.js";

function stack(title, total, parts, unit = full) {
  if (total === 0) return null;
  const known = parts.filter(([, count]) => count > 0);
  const fills = known.map(([kind, count]) => {
    const fill = make("span", { class: `fill ${kind}` });
    fill.style.inlineSize = `${(count / total) * 100}%`;
    return fill;
  });
  const rows = known.map(([kind, count, words]) => make(
    "tr",
    {},
    make("td", {}, make("i", { class: `swatch ${kind}` })),
    make("td", { class: "number", text: unit(count) }),
    make("td", { class: "number faint", text: percent(count / total) }),
    make("td", { text: words }),
  ));
  const body = make("tbody");
  body.append(...rows);
  return make(
    "section",
    { class: "stack" },
    make("h3", { text: `${title}: ${unit(total)}` }),
    make("div", { class: "stacked", "aria-hidden": "true" }, ...fills),
    make("table", { class: "plain" }, make("caption", { class: "unseen", text: title }), body),
  );
}

/** Draws what the end of an answer tells. */
export function explain(place, end) {
  if (!end) {
    place.replaceChildren(nothing("Nothing ran yet", "Run a query, and here stands what it read and what it left out."));
    return;
  }
  const { stats, row_count: rows, elapsed_ms: ms } = end;
  const opened = stats.chunks - stats.chunks_by_time - stats.chunks_by_index - stats.chunks_by_order - stats.chunks_counted;
  const figures = [
    ["Time", `${full(ms)} ms`],
    ["Rows found", full(rows)],
    ["Rows looked at", full(stats.rows_scanned)],
    ["Bytes of events", bytes(stats.bytes_scanned)],
    ["Requests to storage", full(stats.requests)],
  ];
  const cards = figures.map(([name, value]) => make("div", { class: "figure" }, make("dt", { text: name }), make("dd", { text: value })));
  const sections = [
    stack("Chunks", stats.chunks, [
      ["read", opened, "opened"],
      ["counted", stats.chunks_counted, "answered by their counters, but for the edges of the time"],
      ["by-time", stats.chunks_by_time, "left out: no event in them is of the time that is asked for"],
      ["by-index", stats.chunks_by_index, "left out: their index says that nothing in them passes the filters"],
      ["by-order", stats.chunks_by_order, "left out: enough rows were found that come before theirs"],
    ]),
    stack("Row groups of opened chunks", stats.row_groups, [
      ["read", stats.row_groups_read, "read"],
      ["by-index", stats.row_groups_by_index, "left out: the index says that nothing in them passes the filters"],
      ["by-order", stats.row_groups_by_order, "left out: enough rows were found that come before theirs"],
    ]),
    stack("Bytes of chunks", stats.chunk_bytes, [
      ["read", stats.chunk_bytes_read, "read: of the row groups the columns that are named"],
      ["by-index", Math.max(stats.chunk_bytes - stats.chunk_bytes_read, 0), "not touched"],
    ], bytes),
  ];
  const came = `${bytes(stats.chunk_bytes_fetched)} came from object storage in ${full(stats.requests)} requests`;
  const fetched = stats.chunk_bytes_read > 0 ? `${came}, what else was read was in memory. ` : "";
  const beside = stats.fragments > 0 ? `${full(stats.fragments)} parts ran beside the rows, ${full(stats.fragments_here)} of them had to run here instead. ` : "";
  const none = stats.chunks === 0 ? "The index has no chunks yet: all rows came from the segment store, which holds the newest events. " : "";
  const cut = end.truncated ? "The answer was cut off at the most rows that a query may give. " : "";
  place.replaceChildren(
    make("dl", { class: "figures" }, ...cards),
    ...sections.filter(Boolean),
    make("p", { class: "note", text: `${none}${beside}${fetched}${cut}` }),
  );
}
