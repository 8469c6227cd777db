// Times: how they are read, moved and shown. A range is two texts, each `now`, `now-15m` or an instant, so that a link says the same.

const UNITS = { s: 1e3, m: 60e3, h: 3600e3, d: 86400e3, w: 604800e3 };
const WORDS = { s: "second", m: "minute", h: "hour", d: "day", w: "week" };
const ZONE_KEY = "logboom-zone";

/** Ranges to choose from. */
export const SPANS = ["5m", "15m", "30m", "1h", "3h", "6h", "12h", "1d", "2d", "7d", "30d"];

export const lastOf = (span) => ({ from: `now-${span}`, to: "now" });
export const between = (from, to) => ({ from: new Date(from).toISOString(), to: new Date(to).toISOString() });

/** Milliseconds since 1970 of `now`, `now-15m`, `-15m`, RFC 3339 or a number; null where the text is none of them. */
export function instant(text, now = Date.now()) {
  const said = text.trim();
  const back = /^(?:now)?(?:-(\d+)([smhdw]))?$/.exec(said);
  if (back && said !== "") return back[1] ? now - Number(back[1]) * UNITS[back[2]] : now;
  if (/^\d{9,}$/.test(said)) return Number(said);
  // A text without a zone is of the zone that is shown.
  const plain = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?$/.test(said);
  const iso = said.replace(" ", "T");
  const read = Date.parse(plain && zone.utc ? `${iso.includes("T") ? iso : `${iso}T00:00`}Z` : iso);
  return Number.isNaN(read) ? null : read;
}

/** A range as instants, all of them of one moment. */
export function resolve(range, now = Date.now()) {
  return { from: instant(range.from, now), to: instant(range.to, now) };
}

/** What is wrong with a range, or null. */
export function complaint(range) {
  const { from, to } = resolve(range);
  for (const [text, read] of [[range.from, from], [range.to, to]]) {
    if (read === null) return `“${text}” is no time: write now, now-15m or 2026-11-22 05:00:00`;
  }
  return from < to ? null : "The begin must lie before the end.";
}

export const relative = (range) => range.to === "now" && /^now-\d+[smhdw]$/.test(range.from);

/** A range in words. */
export function describe(range) {
  if (relative(range)) {
    const [, n, unit] = /^now-(\d+)([smhdw])$/.exec(range.from);
    return `Last ${n === "1" ? "" : `${n} `}${WORDS[unit]}${n === "1" ? "" : "s"}`;
  }
  const { from, to } = resolve(range);
  if (from === null || to === null) return `${range.from} to ${range.to}`;
  const [a, b] = [stamp(from, to - from < 600e3), stamp(to, to - from < 600e3)];
  return `${a} – ${a.slice(0, 10) === b.slice(0, 10) ? b.slice(11) : b}`;
}

/** The range moved by so many of its own lengths. */
export function moved(range, lengths) {
  const { from, to } = resolve(range);
  const by = (to - from) * lengths;
  return between(from + by, Math.min(to + by, Math.max(Date.now(), to)));
}

/** The range around the same middle, so many times as long, and not into the future. */
export function widened(range, times) {
  const { from, to } = resolve(range);
  const [middle, half] = [(from + to) / 2, ((to - from) * times) / 2];
  const end = Math.min(middle + half, Math.max(Date.now(), to));
  return between(Math.max(end - 2 * half, 0), end);
}

/** The zone of shown times. */
export const zone = {
  utc: localStorage.getItem(ZONE_KEY) !== "local",
  set(utc) {
    this.utc = utc;
    localStorage.setItem(ZONE_KEY, utc ? "utc" : "local");
  },
  get name() { return this.utc ? "UTC" : "local time"; },
};

const two = (n) => String(n).padStart(2, "0");

function parts(millis) {
  const date = new Date(zone.utc ? millis : millis - new Date(millis).getTimezoneOffset() * 60e3);
  return { iso: date.toISOString(), date };
}

/** An instant as `2026-11-22 05:00:00`. */
export const stamp = (millis, exact = true) => parts(millis).iso.slice(0, exact ? 19 : 16).replace("T", " ");

/** A mark below an axis that covers so many milliseconds. */
export function clock(millis, span) {
  const { date } = parts(millis);
  const time = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
  if (span > 36 * 3600e3) return `${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())} ${time}`;
  return span < 20 * 60e3 ? `${time}:${two(date.getUTCSeconds())}` : time;
}

const RFC3339 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z$/;
export const isTime = (value) => typeof value === "string" && RFC3339.test(value);

/** A time of a row, with milliseconds where it has them. */
export function shownTime(value) {
  const [, seconds, fraction = ""] = RFC3339.exec(value);
  return `${stamp(Date.parse(`${seconds}Z`))}${fraction.slice(0, 4)}`;
}

/** A span of time in its largest fitting unit. */
export function spanText(ms) {
  const unit = ["w", "d", "h", "m", "s"].find((name) => ms >= UNITS[name]);
  return unit ? `${Number((ms / UNITS[unit]).toFixed(1))} ${unit}` : `${Math.round(ms)} ms`;
}
