// The address of the page: what is asked and shown, behind "#", which browsers never send. Opening it gives the same page.

import { lastOf } from "./time.js";

export const LANGUAGES = ["pipe", "sql", "logql"];
export const VIEWS = ["rows", "patterns", "chart", "compare", "explain", "watch"];
const LANGUAGE_KEY = "logboom-language";

/** What is asked where an address says nothing. */
export const unsaid = () => ({
  index: "",
  language: LANGUAGES.includes(localStorage.getItem(LANGUAGE_KEY)) ? localStorage.getItem(LANGUAGE_KEY) : "pipe",
  text: null,
  range: lastOf("15m"),
  view: "rows",
  columns: null,
});

export const rememberLanguage = (language) => localStorage.setItem(LANGUAGE_KEY, language);

export function write({ index, language, text, range, view, columns }) {
  const said = new URLSearchParams({ index, language, q: text, from: range.from, to: range.to, view });
  if (columns) said.set("columns", columns.join(","));
  return `#${said}`;
}

/** What an address says; what is wrong or missing in it is as if nothing were said. */
export function read(hash) {
  const said = new URLSearchParams(hash.slice(1));
  const one = unsaid();
  const among = (name, all, other) => (all.includes(said.get(name)) ? said.get(name) : other);
  return {
    index: said.get("index") ?? "",
    language: among("language", LANGUAGES, one.language),
    text: said.get("q"),
    range: said.get("from") && said.get("to") ? { from: said.get("from"), to: said.get("to") } : one.range,
    view: among("view", VIEWS, one.view),
    columns: said.get("columns")?.split(",") ?? null,
  };
}
