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
    this.rendered = error.rendered ?? null;
    this.line = error.line ?? null;
    this.column = error.column ?? null;
  }
}

async function ask(method, path, body, signal) {
  const headers = { authorization: `Bearer ${token.get()}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: "The server cannot be reached. Is it running?" });
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, said.error ?? {});
  }
  return answer;
}

const json = async (...request) => (await ask(...request)).json();

export const indexes = () => json("GET", "/indexes");
export const jobs = (signal) => json("GET", "/jobs", undefined, signal);
export const rules = (signal) => json("GET", "/rules", undefined, signal);
export const query = (text, language, index, signal) => json("POST", "/query", { text, language, index: index || null }, signal);
export const complete = (text, cursor, index, signal) => json("POST", "/complete", { text, cursor, index: index || null }, signal);
export const histogram = (index, from, to, buckets, signal) =>
  json("GET", `/indexes/${encodeURIComponent(index)}/histogram?from=${from}&to=${to}&buckets=${buckets}`, undefined, signal);

/** Calls `onRow(row)` for each new row, and `onGap()` where rows were truncated before they were sent, until `signal` aborts or
 *  the server ends; answers why it ended. */
export async function tail(index, onRow, onGap, signal) {
  const answer = await ask("GET", `/indexes/${encodeURIComponent(index)}/tail`, undefined, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return "the connection ended";
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const field = (name) => event.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("event") === "row") onRow(JSON.parse(field("data")));
      if (field("event") === "truncated") onGap();
      if (field("event") === "end") return JSON.parse(field("data")).message;
    }
  }
}
