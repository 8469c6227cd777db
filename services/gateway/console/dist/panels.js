// The views beside the rows, and the menus that give the result away. A view is asked for when somebody looks at it.

import * as address from "./address.js";
import * as api from "./api.js";
import { compare } from "./compare.js";
import { at, full, make, nothing, say } from "./dom.js";
import { explain } from "./explain.js";
import { keep, save } from "./files.js";
import { graph, kinds } from "./graph.js";
import { patterns } from "./patterns.js";
import { between, resolve } from "./time.js";
import { bounded } from "./words.js";

const DAY_MS = 86400e3;
const KINDS = { line: "lines", area: "areas", columns: "columns", dots: "dots", bars: "bars", number: "the number" };
const EXPORT_ROWS = 100000;

let page = null;
/** Which run each view shows. */
const shown = { patterns: null, compare: null };
let asking = null;

/** `{does, lostToken, table, columns(names), last(), state}` of the page. */
export function start(given) {
  page = given;
  at("patterns-before").addEventListener("change", () => again("patterns"));
  at("compare-with").addEventListener("change", () => again("compare"));
  at("chart-kind").addEventListener("change", () => drawChart(page.last(), at("chart-kind").value));
  at("share-menu").addEventListener("beforetoggle", ({ newState }) => { if (newState === "open") fillShare(); });
  at("share-menu").addEventListener("click", (event) => { const { copies } = event.target.dataset; if (copies) copy(at(copies)); });
  at("export-menu").addEventListener("beforetoggle", ({ newState }) => { if (newState === "open") fillExport(); });
  at("export-menu").addEventListener("click", (event) => { const { format } = event.target.dataset; if (format) give(format); });
  at("columns-menu").addEventListener("beforetoggle", ({ newState }) => { if (newState === "open") fillColumns(); });
  at("columns-reset").addEventListener("click", () => { page.columns(null); fillColumns(); });
}

function again(name) {
  shown[name] = null;
  load(name, page.last());
}

/** Shows a view of a run. */
export function load(name, run) {
  if (name === "explain") explain(at("explain"), run.end);
  if (name === "chart") chart(run);
  if (name === "patterns" && shown.patterns !== run.what) ask("patterns", run, loadPatterns);
  if (name === "compare" && shown.compare !== run.what) ask("compare", run, loadCompare);
}

async function ask(name, run, loads) {
  asking?.abort();
  const mine = (asking = new AbortController());
  shown[name] = run.what;
  say(at(`${name}-note`), "counting", true);
  try {
    await loads(run.what, mine.signal);
    say(at(`${name}-note`), "");
  } catch (error) {
    shown[name] = null;
    if (error.name === "AbortError" || page.lostToken(error)) return;
    say(at(`${name}-note`), "");
    at(name).replaceChildren(nothing("This cannot be shown", error.message));
  }
}

async function loadPatterns(what, signal) {
  const before = at("patterns-before").checked ? { compare_from: "before" } : {};
  patterns(at("patterns"), await api.patterns(what, before, signal), page.does);
}

async function loadCompare(what, signal) {
  const length = what.to - what.from;
  const back = { before: length, day: DAY_MS, week: 7 * DAY_MS }[at("compare-with").value];
  const answer = await api.compare(what, { from: what.from - back, to: what.to - back }, what, signal);
  compare(at("compare"), answer, at("compare-with").selectedOptions[0].text, page.does);
}

function chart(run) {
  const possible = kinds(run.columns, run.rows);
  const before = at("chart-kind").value;
  at("chart-kind").replaceChildren(...possible.map((kind) => new Option(KINDS[kind], kind)));
  at("chart-tools").hidden = possible.length < 2;
  const kind = possible.includes(before) ? before : possible[0];
  if (kind) at("chart-kind").value = kind;
  drawChart(run, kind);
}

const drawChart = (run, kind) => graph(at("chart"), kind, run.columns, run.rows);

function fillShare() {
  const { state } = page;
  const { from, to } = resolve(state.range);
  const link = (range) => `${location.origin}${location.pathname}${address.write({ ...state, text: at("text").value, range })}`;
  at("share-exact").value = link(between(from, to));
  at("share-moving").value = link(state.range);
  const { from: begin, to: end } = between(from, to);
  const body = JSON.stringify({
    text: bounded(at("text").value, state.language, 1000),
    language: state.language,
    index: state.index,
    from: begin,
    to: end,
  });
  const headers = "-H \"Authorization: Bearer $LOGBOOM_TOKEN\" -H 'content-type: application/json'";
  at("share-curl").value = `curl ${headers} -d '${body.replaceAll("'", "'\\''")}' ${location.origin}/api/v1/query`;
  say(at("share-note"), "");
}

async function copy(field) {
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    say(at("share-note"), "Copied.");
  } catch {
    say(at("share-note"), "The browser does not let this page copy: the text is marked, copy it yourself.");
  }
}

function fillExport() {
  const { rows } = page.last() ?? { rows: [] };
  const anew = `Parquet asks the server anew, for at most ${full(EXPORT_ROWS)} rows.`;
  at("export-note").textContent = `The ${full(rows.length)} rows that are shown, with their columns; ${anew}`;
  for (const one of at("export-menu").querySelectorAll("button")) one.disabled = rows.length === 0;
  say(at("export-said"), "");
}

async function give(format) {
  const { what, text, rows, columns } = page.last();
  const name = `${what.index}-${new Date(what.to).toISOString().slice(0, 19).replaceAll(":", "")}`;
  if (format !== "parquet") {
    const { chosen } = page.table;
    save(name, format, chosen ?? columns.map((column) => column.name), rows);
    return say(at("export-said"), `Saved as ${name}.${format}.`);
  }
  say(at("export-said"), "writing", true);
  try {
    const { from, to } = between(what.from, what.to);
    const body = { text: bounded(text, what.language, EXPORT_ROWS), language: what.language, index: what.index, from, to };
    keep(`${name}.parquet`, await api.file(body, "parquet"));
    say(at("export-said"), `Saved as ${name}.parquet.`);
  } catch (error) {
    if (!page.lostToken(error)) say(at("export-said"), `Not written: ${error.message}`);
  }
}

function fillColumns() {
  const { table } = page;
  const names = table.names();
  const others = table.columns.map(({ name }) => name).filter((name) => !names.includes(name));
  at("columns-list").replaceChildren(...[...names, ...others].map((name) => {
    const box = make(
      "input",
      {
        type: "checkbox",
        on: { change: () => page.columns(box.checked ? [...table.names(), name] : table.names().filter((one) => one !== name)) },
      },
    );
    box.checked = names.includes(name);
    return make("label", { class: "check" }, box, ` ${name}`);
  }));
  if (names.length + others.length === 0) at("columns-list").replaceChildren(nothing("No columns", "Run a query first."));
}
