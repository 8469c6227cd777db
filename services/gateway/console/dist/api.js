// Talks to /api/v1. The token lives in this tab's session storage and travels in a header, never in an address.

const KEY = "logboom-token";

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
  clear: () => sessionStorage.removeItem(KEY),
};

/** An answer that is not a success: what the server said, else what the browser said. */
export class Refused extends Error {
  constructor(status, error) {
    super(error.message ?? `the server answered ${status}`);
    this.status = status;
    this.kind = error.kind ?? "";
    this.help = error.help ?? null;
    this.line = error.line ?? null;
    this.column = error.column ?? null;
  }
}

const UNREACHABLE = "The server cannot be reached. Is it running?";

async function ask(method, path, { body, signal, accept } = {}) {
  const headers = { authorization: `Bearer ${token.get()}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (accept) headers.accept = accept;
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: UNREACHABLE });
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, said.error ?? {});
  }
  return answer;
}

const get = async (path, signal) => (await ask("GET", path, { signal })).json();
const post = async (path, body, signal) => (await ask("POST", path, { body, signal })).json();
const of = (index, what) => `/indexes/${encodeURIComponent(index)}/${what}`;
const asked = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== undefined));
const iso = (millis) => new Date(millis).toISOString();

export const indexes = () => get("/indexes");
export const jobs = (signal) => get("/jobs", signal);
export const rules = (signal) => get("/rules", signal);
export const complete = (text, cursor, index, signal) => post("/complete", { text, cursor, index: index || null }, signal);

/** What every panel beside the rows asks with: `{index, query, language, from, to}`, times in milliseconds. */
const bodyOf = ({ query, language, from, to }) => ({ query, language, from: iso(from), to: iso(to) });

export const histogram = ({ index, query, language, from, to }, buckets, signal) =>
  get(`${of(index, "histogram")}?${asked({ query, language, from: iso(from), to: iso(to), buckets })}`, signal);
export const facets = (what, signal) => post(of(what.index, "facets"), bodyOf(what), signal);
export const patterns = (what, before, signal) => post(of(what.index, "patterns"), { ...bodyOf(what), ...before }, signal);
export const compare = ({ index, query, language }, a, b, signal) => {
  const span = ({ from, to }) => ({ from: iso(from), to: iso(to) });
  return post(of(index, "compare"), { query, language, a: span(a), b: span(b) }, signal);
};
export const context = (index, place, signal) => get(`${of(index, "context")}?${asked(place)}`, signal);

export const saved = {
  list: (index, signal) => get(of(index, "saved"), signal),
  put: async (index, name, item) => (await ask("PUT", of(index, `saved/${encodeURIComponent(name)}`), { body: item })).json(),
  remove: (index, name) => ask("DELETE", of(index, `saved/${encodeURIComponent(name)}`)),
};

/** The file of a result, written by the server in one of its formats. */
export const file = async (body, format, signal) => (await ask("POST", `/query?format=${format}`, { body, signal })).blob();

/** The parts of a text that comes bit by bit, as they are separated. */
async function* pieces(answer, separator) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, { message: "The connection broke." });
    }
    const all = (rest + (part.value ?? "")).split(separator);
    rest = all.pop();
    yield* all;
    if (part.done) {
      if (rest.trim() !== "") yield rest;
      return;
    }
  }
}

/** Runs a query. Calls, as they come, `columns(list)`, `rows(list)`, `partial(list)` (in place of all rows before) and `progress(so far)`;
 *  answers what stands at its end. */
export async function query(body, on, signal) {
  const answer = await ask("POST", "/query", { body, signal, accept: "application/x-ndjson" });
  for await (const line of pieces(answer, "\n")) {
    if (line === "") continue;
    const said = JSON.parse(line);
    if (said.error) throw new Refused(200, said.error);
    if (said.end) return said.end;
    if (said.columns) on.columns(said.columns);
    if (said.rows) on.rows(said.rows);
    if (said.partial) on.partial(said.partial.rows);
    if (said.progress) on.progress(said.progress);
  }
  throw new Refused(0, { message: "The connection broke before the answer was whole. Run the query again." });
}

/** Follows what comes to an index. Calls `row(row)`, `rate(counts)` once a second and `gap()` where rows went before they were sent,
 *  until `signal` aborts or the server ends; answers why it ended. */
export async function tail({ index, query: text, language }, on, signal) {
  const answer = await ask("GET", `${of(index, "tail")}?${asked({ query: text, language, slow: "drop" })}`, { signal });
  for await (const event of pieces(answer, "\n\n")) {
    const lines = event.split("\n");
    const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
    const [kind, data] = [field("event"), field("data")];
    if (kind === "row") on.row(JSON.parse(data));
    if (kind === "rate") on.rate(JSON.parse(data));
    if (kind === "truncated") on.gap();
    if (kind === "end") return JSON.parse(data).message;
  }
  return "the connection ended";
}
