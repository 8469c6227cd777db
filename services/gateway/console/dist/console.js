// The console: one page over the HTTP API.

import * as api from "./api.js";
import { draw, short } from "./chart.js";
import { Completer } from "./complete.js";
import { Table, legible, shown } from "./table.js";

const at = (id) => document.getElementById(id);
const table = new Table(at("rows"));
const REFRESH_MS = 5000;
const LANGUAGE_KEY = "logboom-language";
const BUCKETS = 72;
const TAIL_COLUMNS = [{ name: "_time", type: "timestamp" }, { name: "severity", type: "text" }, { name: "_msg", type: "text" }];

let running = null;   // AbortController of the query in flight
let charting = null;
let tailing = null;
let refreshing = 0;
let chosenText = "";  // the text that the page wrote itself, so that it may write it anew

function say(node, text, busy = false) {
  node.textContent = text;
  node.classList.toggle("busy", busy);
}

function show(node, visible) {
  node.hidden = !visible;
}

const quoted = (index) => `"${index}"`;
const spanMs = () => Number(at("span").value) * 60e3;
const index = () => at("index").value;

const language = () => at("language").value;

function newestText() {
  const minutes = Number(at("span").value);
  if (language() === "pipe") return `index:${index()} since:${minutes}m | head 200`;
  return `SELECT *\nFROM ${quoted(index())}\nWHERE _time > now() - INTERVAL '${minutes} minutes'\nORDER BY _time DESC LIMIT 200`;
}

// Token and indexes

function askForToken(message) {
  stopAll();
  show(at("workplace"), false);
  show(at("leave"), false);
  show(at("entry"), true);
  say(at("connection"), "not connected");
  at("connection").className = "pill";
  show(at("entry-error"), Boolean(message));
  at("entry-error").textContent = message ?? "";
  at("token").focus();
}

async function enter() {
  say(at("connection"), "connecting", true);
  let answer;
  try {
    answer = await api.indexes();
  } catch (error) {
    if (error.status === 401) {
      api.token.clear();
      return askForToken("This token is not known, was revoked or has expired.");
    }
    return askForToken(error.message);
  }
  const select = at("index");
  select.replaceChildren(...answer.indexes.map(({ index }) => new Option(index, index)));
  select.disabled = answer.indexes.length < 2;
  say(at("connection"), answer.role === "platform" ? "admin" : `may ${answer.role}`);
  at("connection").className = "pill good";
  show(at("entry"), false);
  show(at("workplace"), true);
  show(at("leave"), true);
  const readable = answer.indexes.length > 0 && answer.role !== "write";
  for (const id of ["run", "reset", "tail", "sql", "language"]) at(id).disabled = !readable;
  if (answer.indexes.length === 0) {
    select.replaceChildren(new Option("no index", ""));
    say(at("rows-note"), "There is no log index yet. Create a service instance, and it appears here.");
    say(at("chart-note"), "No index, no events.");
  } else if (answer.role === "write") {
    say(at("rows-note"), "This token may only write. Open the console with a binding that may read.");
    say(at("chart-note"), "");
  } else {
    freshText();
    run();
    chart();
  }
  refresh();
}

function stopAll() {
  running?.abort();
  charting?.abort();
  stopTail();
  clearTimeout(refreshing);
}

/** A refusal that concerns the token itself brings back its entry; everything else is told where it happened. */
function lostToken(error) {
  if (error.status !== 401) return false;
  api.token.clear();
  askForToken("This token is not known, was revoked or has expired.");
  return true;
}

// Query

function freshText() {
  chosenText = newestText();
  at("sql").value = chosenText;
}

async function run() {
  stopTail();
  running?.abort();
  const mine = new AbortController();
  running = mine;
  show(at("query-error"), false);
  say(at("outcome"), "running", true);
  at("run").disabled = true;
  const text = at("sql").value;
  try {
    const answer = await api.query(text, language(), index(), mine.signal);
    table.begin(answer.columns);
    const visible = table.fill(answer.rows);
    show(at("rows-scroll"), answer.rows.length > 0);
    say(at("rows-note"), answer.rows.length > 0 ? "" : "No rows. Choose a longer time or a wider query.");
    at("rows-count").textContent = `${visible < answer.row_count ? `${visible} of ` : ""}${answer.row_count} rows${answer.truncated ? ", cut off" : ""}`;
    say(at("outcome"), `${answer.elapsed_ms} ms, ${short(answer.stats.rows_scanned)} rows read`);
  } catch (error) {
    if (error.name === "AbortError") return say(at("outcome"), "stopped");
    if (lostToken(error)) return;
    say(at("outcome"), "");
    at("query-error").textContent = error.rendered ?? `error: ${error.message}`;
    show(at("query-error"), true);
    if (error.line) place(text, error.line, error.column);
  } finally {
    if (running === mine) {
      running = null;
      at("run").disabled = false;
    }
  }
}

/** Puts the cursor where the text is wrong. */
function place(text, line, column) {
  const lines = text.split("\n");
  const before = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
  const here = before + [...(lines[line - 1] ?? "")].slice(0, column - 1).join("").length;
  at("sql").setSelectionRange(here, here);
}

// Histogram

async function chart() {
  if (!index()) return;
  charting?.abort();
  const mine = new AbortController();
  charting = mine;
  say(at("chart-note"), "loading", true);
  const to = Date.now();
  try {
    const answer = await api.histogram(index(), to - spanMs(), to, BUCKETS, mine.signal);
    draw(at("chart"), at("legend"), answer, pick);
    const total = answer.buckets.reduce((sum, bucket) => sum + bucket.count, 0);
    say(at("chart-note"), total > 0 ? "" : "No events in this time.");
  } catch (error) {
    if (error.name === "AbortError" || lostToken(error)) return;
    at("chart").replaceChildren();
    at("legend").replaceChildren();
    say(at("chart-note"), `The chart cannot be drawn: ${error.message}`);
  }
}

function pick(from, to) {
  const text = (millis) => new Date(millis).toISOString();
  at("sql").value = language() === "pipe"
    ? `index:${index()} since:${text(from)} until:${text(to)} | head 200`
    : `SELECT *\nFROM ${quoted(index())}\nWHERE _time >= '${text(from)}' AND _time < '${text(to)}'\nORDER BY _time DESC LIMIT 200`;
  at("sql").focus();
  run();
}

// Live tail

function stopTail() {
  tailing?.abort();
  tailing = null;
  at("tail").setAttribute("aria-pressed", "false");
}

async function startTail() {
  running?.abort();
  const mine = new AbortController();
  tailing = mine;
  at("tail").setAttribute("aria-pressed", "true");
  show(at("query-error"), false);
  table.begin(TAIL_COLUMNS);
  show(at("rows-scroll"), false);
  say(at("rows-note"), "Waiting for new events", true);
  let count = 0;
  let waiting = [];
  // Rows are drawn once per frame: a fast index sends more of them than a screen can follow.
  const paint = () => {
    if (waiting.length > 0) {
      table.prepend(waiting.slice(-500));
      waiting = [];
      show(at("rows-scroll"), true);
      say(at("rows-note"), "");
    }
    at("rows-count").textContent = `${count} new rows`;
  };
  const flush = () => {
    if (tailing !== mine) return;
    paint();
    requestAnimationFrame(flush);
  };
  requestAnimationFrame(flush);
  say(at("outcome"), "live");
  try {
    const ended = await api.tail(
      index(),
      (row) => { count += 1; waiting.push(row); },
      () => say(at("outcome"), "some rows were truncated before they could be shown"),
      mine.signal,
    );
    say(at("outcome"), `live tail ended: ${ended}`);
  } catch (error) {
    if (error.name === "AbortError") say(at("outcome"), "live tail stopped");
    else if (!lostToken(error)) say(at("outcome"), `live tail ended: ${error.message}`);
  }
  if (tailing === mine) {
    paint();
    if (count === 0) say(at("rows-note"), "No event came while the tail was open.");
    stopTail();
  }
}

// Jobs and alerts

function item(parts) {
  const line = document.createElement("li");
  for (const [name, className, text] of parts) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.textContent = legible(text);
    line.append(made, " ");
  }
  return line;
}

function list(id, items, empty) {
  at(id).replaceChildren(...items);
  say(at(`${id}-note`), items.length > 0 ? "" : empty);
  at(`${id}-count`).textContent = String(items.length);
  show(at(`${id}-count`), items.length > 0);
}

const STATUS = { running: "info", scheduling: "warn", restarting: "warn", failed: "error", cancelled: "debug" };

async function refreshJobs() {
  const { jobs } = await api.jobs();
  const live = jobs.filter(({ status }) => status !== "cancelled");
  list("jobs", live.map((job) => item([
    ["span", `dot ${STATUS[job.status] ?? "none"}`, ""],
    ["strong", "", job.job],
    ["span", "faint", `${job.status}${job.attempt > 1 ? `, attempt ${job.attempt}` : ""}${job.checkpoint === null ? "" : `, checkpoint ${job.checkpoint}`}`],
    ["span", "what", job.failure ?? job.text.replace(/\s+/g, " ")],
  ])), "No jobs run on your indexes.");
}

async function refreshAlerts() {
  const { rules } = await api.rules();
  const firing = rules.flatMap((rule) => rule.instances.filter(({ state }) => state === "firing").map((one) => ({ rule: rule.rule, one })));
  const labels = (one) => Object.entries(one.labels).map(([name, value]) => `${name}=${value}`).join(" ");
  list("alerts", firing.map(({ rule, one }) => item([
    ["span", "dot error", ""],
    ["strong", "", rule.rule],
    ["span", "", labels(one)],
    ["span", "faint", `${rule.condition} (${one.value}) since ${shown(new Date(one.since / 1e6).toISOString())}`],
    ["span", "what", rule.summary],
  ])), rules.length > 0 ? `Nothing fires; ${rules.length} rule${rules.length > 1 ? "s" : ""} watching.` : "No rules yet.");
  at("alerts-count").className = firing.length > 0 ? "pill bad" : "pill";
}

async function refresh() {
  clearTimeout(refreshing);
  for (const [part, id] of [[refreshJobs, "jobs"], [refreshAlerts, "alerts"]]) {
    try {
      await part();
    } catch (error) {
      if (lostToken(error)) return;
      say(at(`${id}-note`), `Cannot be shown: ${error.message}`);
    }
  }
  if (!document.hidden) refreshing = setTimeout(refresh, REFRESH_MS);
}

// Wiring

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.token.set(at("token").value.trim());
  at("token").value = "";
  enter();
});
at("leave").addEventListener("click", () => { api.token.clear(); askForToken(); });
at("run").addEventListener("click", run);
at("reset").addEventListener("click", () => { freshText(); run(); chart(); });
at("tail").addEventListener("click", () => (tailing ? stopTail() : startTail()));
at("sql").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { running?.abort(); if (tailing) stopTail(); }
});
for (const id of ["index", "span"]) {
  at(id).addEventListener("change", () => {
    // A text that somebody wrote stays; only the page's own follows the choice.
    if (at("sql").value === chosenText) { freshText(); run(); }
    chart();
  });
}
at("language").value = localStorage.getItem(LANGUAGE_KEY) === "pipe" ? "pipe" : "sql";
at("language").addEventListener("change", () => {
  localStorage.setItem(LANGUAGE_KEY, language());
  completer.close();
  if (at("sql").value === chosenText) { freshText(); run(); }
});
const completer = new Completer(at("sql"), at("completions"), async (text, cursor, signal) =>
  (language() === "pipe" ? (await api.complete(text, cursor, index(), signal)).completions : null));
document.addEventListener("visibilitychange", () => { if (!document.hidden && !at("workplace").hidden) refresh(); });
let resized = 0;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => { if (!at("workplace").hidden) chart(); }, 200); });

// An address may bring the token behind "#", which browsers never send; it is taken and removed from sight and history.
const brought = new URLSearchParams(location.hash.slice(1)).get("token");
if (brought) {
  api.token.set(brought);
  history.replaceState(null, "", location.pathname + location.search);
}

if (api.token.get()) enter();
else askForToken();
