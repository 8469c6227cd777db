// What can be done to the text of a query without asking the server: bound it, filter it, take its times away.
// Each function gives the new text, or null where the text is of a shape that it does not know; then nothing is changed.

// Steps of the pipe language that change rows one by one: what stands before any other step is what panels count.
const ROW_STEPS = new Set(["search", "filter", "where", "keep", "table", "project", "drop", "delete", "del", "rm", "rename", "mv", "let", "eval", "extend",
  "math", "parse", "extract", "extract_kv", "spath", "unpack_json", "unpack_logfmt", "pattern", "rex", "extract_regexp", "regexp", "replace", "format", "fill"]);
const RESERVED = new Set(["and", "or", "not", "in", "by", "as", "every", "over", "within", "gap", "then", "when", "for", "from", "with", "true", "false",
  "left", "inner", "outer", "index", "since", "until", "earliest", "latest", "search"]);
const PIPE_TIMES = /\b(?:since|until|earliest|latest):\S+\s*/g;

/** Calls `see(char, at)` for each character outside of quotes and brackets; a true answer ends it. Answers where it ended, or -1. */
function outside(text, quotes, see) {
  let [quote, depth] = ["", 0];
  for (let i = 0; i < text.length; i += 1) {
    const char = text[i];
    if (quote) {
      if (char === "\\" && quotes.escapes) i += 1;
      else if (char === quote) quote = "";
    } else if (quotes.marks.includes(char)) quote = char;
    else if ("([{".includes(char)) depth += 1;
    else if (")]}".includes(char)) depth -= 1;
    else if (depth === 0 && see(char, i)) return i;
  }
  return -1;
}

const PIPE = { marks: "\"'`", escapes: true };
const SQL = { marks: "\"'", escapes: false };

function steps(text) {
  const cuts = [];
  outside(text, PIPE, (char, i) => { if (char === "|") cuts.push(i); return false; });
  return [...cuts, text.length].map((end, i) => text.slice(i === 0 ? 0 : cuts[i - 1] + 1, end));
}

const isRowStep = (step) => ROW_STEPS.has(/^\s*([a-z_]*)/i.exec(step)[1].toLowerCase());

/** The part of a text that only chooses and changes rows, which panels beside the rows are asked for. */
export function rowPart(text, language) {
  if (language === "sql") return sqlRows(text);
  if (language !== "pipe") return text;
  const all = steps(text);
  const end = all.findIndex((step, i) => i > 0 && !isRowStep(step));
  return (end < 0 ? all : all.slice(0, end)).join("|").trim() || "*";
}

/** Of a statement over one table all of the rows that it looks at; of any other the statement itself. */
function sqlRows(text) {
  const find = keywords(text);
  if (find === null || find("FROM") === undefined) return text;
  const rows = text.slice(find("FROM"), find("GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET") ?? text.length);
  return `SELECT * ${untimed(rows, "sql").replace(/[;\s]+$/, "")}`;
}

/** The text without the times that it says: they are asked for beside it, or it is about what is to come. */
export function untimed(text, language) {
  if (language !== "sql") return retimed(text, language, null);
  const times = SQL_TIMES.source;
  const shapes = [`(?:${times})\\s+AND\\s+`, `\\s+AND\\s+(?:${times})`, `\\s+WHERE\\s+(?:${times})`];
  return shapes.reduce((less, shape) => less.replace(new RegExp(shape, "i"), ""), text);
}

/** The range of time that a text says in a way that is known here, else null. */
export function rangeOf(text, language) {
  if (language === "pipe") {
    const said = (...names) => new RegExp(`\\b(?:${names.join("|")}):(\\S+)`).exec(rowPart(text, "pipe"))?.[1];
    const [from, to] = [said("since", "earliest"), said("until", "latest")];
    const moment = (one) => (/^\d+[smhdw]$/.test(one) ? `now-${one}` : one);
    return from ? { from: moment(from), to: to ? moment(to) : "now" } : null;
  }
  const times = language === "sql" ? SQL_TIMES.exec(text)?.[0] : null;
  if (!times) return null;
  const [first, second] = [...times.matchAll(/'([^']*)'/g)].map(([, one]) => one);
  const back = /^(\d+) (second|minute|hour|day|week)s?$/.exec(first);
  return second ? { from: first, to: second } : back ? { from: `now-${back[1]}${back[2][0]}`, to: "now" } : null;
}

/** Whether a text writes rows somewhere: such a one runs only when somebody says so, never because a page is opened. */
export function writes(text, language) {
  if (language === "sql") return /^\s*(?:--.*\n\s*)*INSERT\b/i.test(text);
  return language === "pipe" && steps(text).some((step, i) => i > 0 && /^\s*into\b/i.test(step));
}

/** What is sent for a text: an empty search finds everything, and one that gives events gives the newest of them. */
export function bounded(text, language, rows) {
  if (language !== "pipe") return text;
  const said = text.trim() === "" ? "*" : text;
  return steps(said).slice(1).every(isRowStep) ? `${said} | head ${rows}` : said;
}

/** The text that the page itself writes for a language. */
export function fresh(language, index, range) {
  if (language === "pipe") return "";
  if (language === "logql") return "{}";
  return `SELECT *\nFROM "${index}"\nWHERE ${clause(range)}\nORDER BY _time DESC LIMIT 500`;
}

const INTERVALS = { s: "seconds", m: "minutes", h: "hours", d: "days", w: "weeks" };

function clause({ from, to }) {
  const back = /^now-(\d+)([smhdw])$/.exec(from);
  if (back && to === "now") return `_time > now() - INTERVAL '${back[1]} ${INTERVALS[back[2]]}'`;
  return `_time >= '${from}' AND _time < '${to}'`;
}

const SQL_TIMES = /_time\s*>=?\s*now\(\)\s*-\s*INTERVAL\s*'[^']*'|_time\s*>=\s*(?:TIMESTAMP\s*)?'[^']*'\s+AND\s+_time\s*<\s*(?:TIMESTAMP\s*)?'[^']*'/i;

/** The text for another range: SQL gets the times in place of those that it says, a search loses its own. */
export function retimed(text, language, range) {
  if (language === "pipe") return text.replace(PIPE_TIMES, "").trimEnd();
  if (language === "logql") return text;
  return SQL_TIMES.test(text) ? text.replace(SQL_TIMES, clause(range)) : null;
}

/** The name of a field as the pipe language writes it. */
export const fieldText = (name) =>
  /^[\p{L}_@][\p{L}\p{N}_@.]*$/u.test(name) && !RESERVED.has(name.toLowerCase()) ? name : `\`${name.replaceAll("`", "``")}\``;

const quoted = (text) => `"${String(text).replaceAll("\\", "\\\\").replaceAll("\"", "\\\"")}"`;
const literal = (value) => (typeof value === "number" || typeof value === "boolean" ? String(value) : quoted(value));

/** The text that finds only rows with this value of a field, or with `without` only the others; a value of null is a missing field. */
export function filtered(text, language, field, value, without = false) {
  if (language === "pipe") return pipeFiltered(text, field, value, without);
  if (language === "sql") return sqlFiltered(text, field, value, without);
  if (value === null || !/^[A-Za-z_]\w*$/.test(field) || /^\s*[a-z_]+\s*[(]/.test(text) || !text.trim().startsWith("{")) return null;
  const step = field === "_msg" ? `${without ? "!=" : "|="} ` : `| ${field}${without ? "!=" : "="}`;
  return `${text.trimEnd()} ${step}${quoted(value)}`;
}

function pipeFiltered(text, field, value, without) {
  const missing = value === null;
  const test = missing ? `${fieldText(field)}=*` : field === "_msg" ? quoted(value) : `${fieldText(field)}=${literal(value)}`;
  const [add, opposite] = without !== missing ? [`-${test}`, test] : [test, `-${test}`];
  const [search, ...rest] = steps(text);
  let words = search.trim();
  const has = (word) => ` ${words} `.includes(` ${word} `);
  if (has(add)) return text;
  if (has(opposite)) words = ` ${words} `.replace(` ${opposite} `, " ").trim();
  // Where alternatives stand, one more word would belong to the last of them only.
  const alternatives = outside(` ${words} `, PIPE, (_, i) => /^\sor\s/i.test(` ${words} `.slice(i, i + 4))) >= 0;
  const everything = words === "*" || words === "";
  const begun = alternatives ? `${words} | search ${add}` : everything ? add : `${words} ${add}`;
  return [begun, ...rest.map((step) => step.trim())].join(" | ");
}

/** Where the first of some words of a statement stands, outside of quotes and brackets; null where it is not over one table. */
function keywords(text) {
  const words = [];
  outside(text, SQL, (char, i) => {
    if (/[a-z]/i.test(char) && !/[\w"']/.test(text[i - 1] ?? " ")) words.push([/^\w+/.exec(text.slice(i))[0].toUpperCase(), i]);
    return false;
  });
  const find = (...names) => words.find(([word]) => names.includes(word))?.[1];
  return words[0]?.[0] === "SELECT" && find("UNION", "EXCEPT", "INTERSECT", "JOIN") === undefined ? find : null;
}

function sqlFiltered(text, field, value, without) {
  const find = keywords(text);
  if (find === null) return null;
  const name = `"${field.replaceAll("\"", "\"\"")}"`;
  const said = typeof value === "string" ? `'${value.replaceAll("'", "''")}'` : String(value);
  const test = value === null ? `${name} IS ${without ? "NOT " : ""}NULL` : `${name} ${without ? "IS DISTINCT FROM" : "="} ${said}`;
  const where = find("WHERE");
  const end = find("GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET") ?? text.length;
  const [before, after] = [text.slice(0, end).trimEnd(), end < text.length ? `\n${text.slice(end)}` : ""];
  if (where === undefined) return `${before}\nWHERE ${test}${after}`;
  if (before.includes(test)) return text;
  const conditions = before.slice(where + 5).trim();
  const kept = find("OR") > where ? `(${conditions})` : conditions;
  return `${text.slice(0, where)}WHERE ${kept} AND ${test}${after}`;
}
