// Results as files: what is at hand is written here, other formats are asked of the server.

const UNMARKED = /["\n\r,]/;

function csvValue(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return UNMARKED.test(text) ? `"${text.replaceAll("\"", "\"\"")}"` : text;
}

export const csv = (names, rows) => [
  names.map(csvValue),
  ...rows.map((row) => names.map((name) => csvValue(row[name]))),
].map((line) => `${line.join(",")}\r\n`).join("");
const ndjson = (rows) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

/** The text of a file with these rows, and what it is. */
export const FORMATS = {
  csv: { kind: "text/csv", write: csv },
  json: { kind: "application/json", write: (_, rows) => `${JSON.stringify(rows, null, 1)}\n` },
  ndjson: { kind: "application/x-ndjson", write: (_, rows) => ndjson(rows) },
};

/** Lets the browser keep a file. */
export function keep(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60e3);
}

export function save(name, format, columns, rows) {
  const { kind, write } = FORMATS[format];
  keep(`${name}.${format}`, new Blob([write(columns, rows)], { type: kind }));
}
