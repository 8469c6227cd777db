// The console: one page over the HTTP API. Here stand what is asked and shown at present, and who is called when.

import * as address from "./address.js";
import * as api from "./api.js";
import { Beside } from "./beside.js";
import { Completer } from "./complete.js";
import { Context } from "./context.js";
import { at, button, full, nothing, say, short, show } from "./dom.js";
import { lostToken } from "./entry.js";
import * as entry from "./entry.js";
import * as error from "./error.js";
import * as keys from "./keys.js";
import * as menus from "./menus.js";
import * as panels from "./panels.js";
import * as range from "./range.js";
import { Saved } from "./saved.js";
import { Table, cost } from "./table.js";
import * as tailing from "./tail.js";
import * as theme from "./theme.js";
import { between, complaint, lastOf, moved, resolve, widened } from "./time.js";
import { bounded, filtered, fresh, rangeOf, retimed, rowPart, untimed, writes } from "./words.js";
import * as watching from "./watch.js";

/** Events that a search without an end of its own gives. */
const NEWEST = 1000;
/** Rows that the page takes of any answer; then it stops asking. */
const ROWS_MAX = 10000;

const state = address.unsaid();
/** What ran last: what its panels are asked with, its text, columns, rows and end. */
let last = null;
let running = null;  // AbortController of the query in flight
let chosenText = ""; // the text that the page wrote itself, so that it may write it anew

// Coming and going

function opened(names) {
  if (names.length > 0) {
    const said = address.read(location.hash);
    open({ ...said, index: names.includes(said.index) ? said.index : names[0] }, false);
  }
  watching.watch(lostToken);
}

function stopAll() {
  running?.abort();
  beside.stop();
  tail.stop();
  watching.stop();
}

// What is asked

/** Shows and runs what an address or a saved search says. */
function open(said, push = true) {
  Object.assign(state, said);
  state.text ??= chosenText = fresh(state.language, state.index, state.range);
  at("index").value = state.index;
  at("language").value = state.language;
  at("text").value = state.text;
  fit();
  view(state.view, false);
  run(push);
}

/** Changes what is asked; a text that somebody wrote stays, the page's own follows. */
function change(said) {
  const own = at("text").value === chosenText;
  const ranged = said.range !== undefined;
  Object.assign(state, said);
  if (own) at("text").value = chosenText = fresh(state.language, state.index, state.range);
  else if (ranged) at("text").value = retimed(at("text").value, state.language, state.range) ?? at("text").value;
  at("index").value = state.index;
  at("language").value = state.language;
  completer.close();
  fit();
  run();
}

const pick = (from, to) => change({ range: between(from, to) });

function filter(field, value, without) {
  const text = filtered(at("text").value, state.language, field, value, without);
  if (text === null) return say(at("outcome"), "this text is too involved to be changed by a click; write the filter into it");
  at("text").value = text;
  if (at("context").open) at("context").close();
  fit();
  run();
}

/** The place of the text is as high as the text. */
function fit() {
  const area = at("text");
  area.placeholder = {
    pipe: "error -healthcheck service=cart | stats count by service",
    sql: "SELECT …",
    logql: "{} |= \"error\"",
  }[state.language];
  area.rows = Math.min(Math.max(area.value.split("\n").length, 1), 12);
  range.label(state.range);
}

/** Runs the query; `meant` where somebody said so, and not only changed what it is about. */
async function run(push = true, meant = false) {
  if (!meant && writes(at("text").value, state.language)) {
    const go = button("Run and write", () => run(true, true));
    at("rows-empty").replaceChildren(nothing("This query writes", "It puts rows into an index, so it waits for you.", go));
    show(at("rows-scroll"), false);
    return;
  }
  tail.stop();
  running?.abort();
  const mine = (running = new AbortController());
  state.text = at("text").value;
  const own = rangeOf(state.text, state.language);
  // What the text says is what is shown, and what is counted beside it.
  if (own && !complaint(own)) range.label(state.range = own);
  const said = address.write(state);
  if (said !== location.hash) history[push ? "pushState" : "replaceState"](null, "", said);
  const times = resolve(state.range);
  const what = { index: state.index, language: state.language, query: rowPart(state.text, state.language), ...times };
  const now = (last = { what, text: state.text, columns: [], rows: [], end: null, cut: false });
  show(at("query-error"), false);
  say(at("outcome"), "running", true);
  say(at("rows-note"), "");
  at("run").textContent = "Cancel";
  at("rows-count").textContent = "";
  at("progress").removeAttribute("value");
  show(at("progress"), true);
  beside.count(what);
  panels.load(state.view, last);
  const iso = (millis) => new Date(millis).toISOString();
  const body = {
    text: bounded(state.text, state.language, NEWEST),
    language: state.language,
    index: state.index || null,
    from: iso(times.from),
    to: iso(times.to),
  };
  try {
    now.end = await api.query(body, {
      columns: (columns) => {
        now.columns = columns;
        table.begin(columns, state.columns);
        show(at("rows-scroll"), false);
        at("rows-empty").replaceChildren();
      },
      rows: (rows) => take(now, now.provisional ? [] : now.rows, rows),
      partial: (rows) => {
        take(now, [], rows);
        now.provisional = true;
        if (state.view === "chart") panels.load("chart", now);
      },
      progress: (done) => progress(now, done),
    }, mine.signal);
    now.provisional = false;
    if (now.rows.length === 0) table.replace([]);
    say(at("outcome"), cost(now.end));
  } catch (failed) {
    if (running !== mine) return;
    if (failed.name === "AbortError") say(at("outcome"), now.cut ? `the first ${full(ROWS_MAX)} rows` : "stopped");
    else if (!lostToken(failed)) wrong(failed);
  } finally {
    if (running === mine) ended(now);
  }
}

/** Takes rows behind those that are there. */
function take(now, before, rows) {
  const room = ROWS_MAX - before.length;
  const fitting = rows.length > room ? rows.slice(0, room) : rows;
  if (before === now.rows) {
    for (const row of fitting) now.rows.push(row);
    table.append(fitting);
  } else {
    now.rows = [...fitting];
    now.provisional = false;
    table.replace(fitting);
  }
  show(at("rows-scroll"), now.rows.length > 0);
  at("rows-count").textContent = short(now.rows.length);
  if (fitting.length < rows.length) {
    now.cut = true;
    running.abort();
  }
}

function progress(now, done) {
  const bar = at("progress");
  if (done.bytes_total > 0) {
    bar.max = done.bytes_total;
    bar.value = done.bytes;
  }
  const words = `${full(done.chunks)} of ${full(done.chunks_total)} chunks, ${short(done.rows_scanned)} rows looked at`;
  say(at("outcome"), now.provisional ? `${words}; counts so far` : words, true);
}

function wrong(failed) {
  say(at("outcome"), "");
  at("rows-empty").replaceChildren();
  error.tell(at("query-error"), at("text"), last.text, failed, (text) => { at("text").value = text; fit(); run(); });
}

function ended(now) {
  running = null;
  at("run").textContent = "Run";
  show(at("progress"), false);
  const rows = now.rows.length;
  show(at("rows-scroll"), rows > 0);
  at("rows-count").textContent = rows > 0 ? short(rows) : "";
  if (rows > 0) {
    const newest = bounded(now.text, state.language, NEWEST) !== (now.text.trim() || "*") && rows === NEWEST;
    const cut = now.cut || now.end?.truncated;
    say(
      at("rows-note"),
      newest ? `the newest ${full(rows)} rows` : cut ? `${full(rows)} rows, cut off` : `${full(rows)} row${rows === 1 ? "" : "s"}`,
    );
  } else if (now.end) {
    at("rows-empty").replaceChildren(nothing("No rows", "Nothing of this time is found by this query. Look at a longer time, or search for less.",
      button("Three times as much time", () => change({ range: widened(state.range, 3) })),
      button("Last 24 hours", () => change({ range: lastOf("1d") })),
      button("Empty query", reset)));
  }
  panels.load(state.view, now);
}

function reset() {
  at("text").value = chosenText = fresh(state.language, state.index, state.range);
  state.columns = null;
  fit();
  run();
  at("text").focus();
}

// Views

function view(name, keep = true) {
  state.view = name;
  for (const tab of at("tabs").children) {
    const chosen = tab.dataset.view === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    show(at(`view-${tab.dataset.view}`), chosen);
  }
  if (keep && last) history.replaceState(null, "", address.write(state));
  if (last) panels.load(name, last);
}

function columns(names) {
  state.columns = names;
  table.choose(names);
  if (last) history.replaceState(null, "", address.write(state));
}

// Live tail

function startTail() {
  running?.abort();
  view("rows");
  at("tail").setAttribute("aria-pressed", "true");
  show(at("query-error"), false);
  at("rows-empty").replaceChildren();
  const what = { index: state.index, language: state.language, query: rowPart(untimed(at("text").value, state.language), state.language) };
  const columns = table.events ? table.columns : tailing.COLUMNS;
  last = { what: { ...what, ...resolve(state.range) }, text: at("text").value, columns, rows: [], end: null };
  table.begin(columns, state.columns);
  show(at("rows-scroll"), false);
  at("rows-count").textContent = "";
  say(at("outcome"), "live");
  say(at("rows-note"), "waiting for new events", true);
  tail.start(what);
}

function liveRows(rows) {
  const known = new Set(last.columns.map(({ name }) => name));
  const added = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((name) => !known.has(name));
  last.columns = [...last.columns, ...added.map((name) => ({ name, type: "other" }))];
  table.columns = last.columns;
  table.prepend(rows);
  last.rows = table.rows;
  show(at("rows-scroll"), true);
  say(at("rows-note"), "newest first");
}

function tailEnded(failed, words) {
  at("tail").setAttribute("aria-pressed", "false");
  if (failed && lostToken(failed)) return;
  if (failed?.line) return wrong(failed);
  say(at("outcome"), `live tail ${words === "stopped" ? words : `ended: ${words}`}`);
  say(at("rows-note"), "");
  if (last.rows.length === 0 && !running) at("rows-empty").replaceChildren(nothing(
    "No event came",
    "Nothing that the query finds came while the tail was open.",
    button("Run the query", () => run()),
  ));
}

// Wiring

const does = {
  only: (field, value) => filter(field, value, false),
  without: (field, value) => filter(field, value, true),
  column: (name) => columns(table.names().includes(name) ? table.names().filter((one) => one !== name) : [...table.names(), name]),
  context: (row) => context.open(state.index, row),
};
const table = new Table(at("rows"), at("rows-more"), does);
const beside = new Beside(does, pick, lostToken);
const context = new Context(lostToken);
const tail = new tailing.Tail(liveRows, tailEnded);
const completer = new Completer(at("text"), at("completions"), async (text, cursor, signal) =>
  (state.language === "pipe" ? (await api.complete(text, cursor, state.index, signal)).completions : null));
new Saved(() => ({ ...state, text: at("text").value }), (item) => open({
  text: item.text,
  language: item.language,
  columns: item.columns?.length > 0 ? item.columns : null,
  range: item.from && item.to ? { from: item.from, to: item.to } : state.range,
}), lostToken);

theme.start();
// On a small screen the fields would stand before the rows.
at("fields-box").open = matchMedia("(min-width: 901px)").matches;
menus.start();
panels.start({ does, lostToken, table, columns, last: () => last, state });
range.start(() => state.range, (chosen) => change({ range: chosen }), () => { fit(); table.layOut(); if (last) beside.count(last.what); });

const toggleTail = () => (tail.live ? tail.stop() : startTail());
/** Stops what runs; where nothing does, it leaves the query, so that keys mean something else again. */
function stop() {
  if (running || tail.live) {
    running?.abort();
    tail.stop();
  } else if (document.activeElement === at("text")) {
    (at("rows-scroll").checkVisibility() ? at("rows-scroll") : at(`tab-${state.view}`)).focus({ preventScroll: true });
  }
}
const runOrStop = () => (running ? running.abort() : run(true, true));
at("run").addEventListener("click", runOrStop);
at("reset").addEventListener("click", reset);
at("tail").addEventListener("click", toggleTail);
at("text").addEventListener("input", fit);
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.defaultPrevented) {
    event.preventDefault();
    completer.close();
    run(true, true);
  }
});
at("index").addEventListener("change", () => change({ index: at("index").value, columns: null }));
at("language").addEventListener("change", () => {
  address.rememberLanguage(at("language").value);
  const own = at("text").value === chosenText;
  Object.assign(state, { language: at("language").value });
  if (own) at("text").value = chosenText = fresh(state.language, state.index, state.range);
  completer.close();
  fit();
  // A text of another language is no query of this one: it waits until it is written.
  if (own) run();
});
at("earlier").addEventListener("click", () => change({ range: moved(state.range, -1) }));
at("later").addEventListener("click", () => change({ range: moved(state.range, 1) }));
at("wrap").addEventListener("change", () => at("rows").classList.toggle("wrap", at("wrap").checked));
at("tabs").addEventListener("click", (event) => { const tab = event.target.closest("[role=tab]"); if (tab) view(tab.dataset.view); });
at("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const all = [...at("tabs").children];
  const next = all[(all.indexOf(event.target.closest("[role=tab]")) + step + all.length) % all.length];
  view(next.dataset.view);
  next.focus();
});

/** Moves the focus between rows. */
function step(by) {
  const all = [...at("rows").querySelectorAll("tr.row .open")];
  const here = all.indexOf(document.activeElement?.closest?.("tr")?.querySelector(".open"));
  all[Math.max(0, Math.min(all.length - 1, here + by))]?.focus();
}

keys.start({
  stop, view,
  query: () => at("text").focus(),
  run: () => run(true, true),
  next: () => step(1),
  before: () => step(-1),
  context: () => { const row = table.rowOf(document.activeElement); if (row?._segment) context.open(state.index, row); },
  tail: toggleTail,
  pause: () => { if (tail.live) tail.pause(!tail.paused); },
  earlier: () => at("earlier").click(),
  later: () => at("later").click(),
  wider: () => change({ range: widened(state.range, 3) }),
  range: () => at("range").click(),
  histogram: () => at("histogram").focus(),
  fields: () => { at("fields-box").open = true; at("fields-search").focus(); },
  share: () => at("share").click(),
  export: () => at("export").click(),
});
addEventListener("popstate", () => {
  if (!last) return;
  const said = address.read(location.hash);
  open({ ...said, index: said.index || state.index }, false);
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && !at("workplace").hidden) watching.watch(lostToken); });

entry.start({ opened, closed: stopAll });
