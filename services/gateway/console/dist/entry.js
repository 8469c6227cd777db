// The way in: a token, and the indexes that it opens.

import * as api from "./api.js";
import { at, nothing, say, show } from "./dom.js";

/** What only somebody who may read an index can use. */
const READING = ["run", "reset", "tail", "text", "language", "range", "earlier", "later", "saved", "share", "export"];

let page = null;

/** `{opened(names), closed()}`: called when there are indexes to read, and before a token is asked for. */
export function start(given) {
  page = given;
  at("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    api.token.set(at("token").value.trim());
    at("token").value = "";
    enter();
  });
  at("leave").addEventListener("click", () => { api.token.clear(); askForToken(); });
  // An address may bring the token behind "#", which browsers never send; it is taken and removed from sight and history.
  const brought = new URLSearchParams(location.hash.slice(1));
  if (brought.has("token")) {
    api.token.set(brought.get("token"));
    brought.delete("token");
    history.replaceState(null, "", `${location.pathname}${location.search}${brought.size > 0 ? `#${brought}` : ""}`);
  }
  if (api.token.get()) enter();
  else askForToken();
}

function askForToken(message) {
  page.closed();
  for (const id of ["workplace", "leave"]) show(at(id), false);
  show(at("entry"), true);
  say(at("connection"), "not connected");
  at("connection").className = "pill";
  show(at("entry-error"), Boolean(message));
  at("entry-error").textContent = message ?? "";
  at("token").focus();
}

/** A refusal that concerns the token itself brings back its entry; everything else is told where it happened. */
export function lostToken({ status }) {
  if (status !== 401) return false;
  api.token.clear();
  askForToken("This token is not known, was revoked or has expired.");
  return true;
}

async function enter() {
  say(at("connection"), "connecting", true);
  let answer;
  try {
    answer = await api.indexes();
  } catch (failed) {
    if (!lostToken(failed)) askForToken(failed.message);
    return;
  }
  const names = answer.indexes.map(({ index }) => index);
  at("index").replaceChildren(...(names.length > 0 ? names.map((name) => new Option(name, name)) : [new Option("no index", "")]));
  at("index").disabled = names.length < 2;
  say(at("connection"), answer.role === "platform" ? "admin" : `may ${answer.role}`);
  at("connection").className = "pill good";
  show(at("entry"), false);
  for (const id of ["workplace", "leave"]) show(at(id), true);
  const readable = names.length > 0 && answer.role !== "write";
  for (const id of READING) at(id).disabled = !readable;
  if (names.length === 0) {
    at("rows-empty").replaceChildren(nothing("There is no log index yet", "Create a service instance, and it appears here."));
  } else if (!readable) {
    at("rows-empty").replaceChildren(nothing("This token may only write", "Open the console with a binding that may read."));
  }
  page.opened(readable ? names : []);
}
