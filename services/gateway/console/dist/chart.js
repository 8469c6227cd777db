// The histogram: stacked bars by severity, with axes that name their values.

const NAMES = ["trace", "debug", "info", "none", "warn", "error", "fatal"];
const HEIGHT = 190, TOP = 8, BOTTOM = 24, LEFT = 52, RIGHT = 10;

function make(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/** A round number at or above the value, so that the axis has readable marks. */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

export const short = (n) => new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(n);

function clock(millis, span) {
  const date = new Date(millis);
  const two = (n) => String(n).padStart(2, "0");
  const time = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
  if (span > 36 * 3600e3) return `${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())} ${time}`;
  return span < 20 * 60e3 ? `${time}:${two(date.getUTCSeconds())}` : time;
}

/** Draws the answer of the histogram call into `place`; `onPick(from, to)` is called for a chosen bucket. */
export function draw(place, legend, answer, onPick) {
  const width = Math.max(place.clientWidth, 320);
  const buckets = answer.buckets;
  const top = roundUp(Math.max(...buckets.map((bucket) => bucket.count), 1));
  const inner = { width: width - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM };
  const y = (count) => TOP + inner.height * (1 - count / top);
  const step = inner.width / buckets.length;
  const svg = make("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", role: "group", "aria-label": "Events over time by severity" });
  for (const mark of [0, top / 2, top]) {
    if (!Number.isInteger(mark)) continue;
    svg.append(make("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(mark), y2: y(mark) }));
    svg.append(make("text", { x: LEFT - 8, y: y(mark) + 4, "text-anchor": "end" }, short(mark)));
  }
  const span = answer.bucket_ms * buckets.length;
  const marks = Math.max(2, Math.min(8, Math.floor(inner.width / 110)));
  for (let i = 0; i <= marks; i += 1) {
    const at = Math.round((buckets.length * i) / marks);
    const anchor = i === 0 ? "start" : i === marks ? "end" : "middle";
    const label = clock(Date.parse(buckets[0].start) + at * answer.bucket_ms, span);
    svg.append(make("text", { x: LEFT + at * step, y: HEIGHT - 6, "text-anchor": anchor }, label));
  }
  buckets.forEach((bucket, i) => {
    let base = 0;
    const x = LEFT + i * step;
    for (const name of NAMES) {
      const count = bucket.severities[name] ?? 0;
      if (count === 0) continue;
      svg.append(make("rect", { class: name, x: x + step * 0.08, width: step * 0.84, y: y(base + count), height: y(base) - y(base + count) }));
      base += count;
    }
    const from = Date.parse(bucket.start);
    const parts = NAMES.filter((name) => bucket.severities[name]).map((name) => `${bucket.severities[name]} ${name}`);
    const said = `${new Date(from).toISOString().slice(0, 19).replace("T", " ")} UTC: ${bucket.count} events${parts.length ? ` (${parts.join(", ")})` : ""}`;
    const hit = make("rect", { class: "hit", x, width: step, y: TOP, height: inner.height, "aria-label": said });
    if (bucket.count > 0) {
      hit.setAttribute("role", "button");
      hit.setAttribute("tabindex", "0");
      const pick = () => onPick(from, from + answer.bucket_ms);
      hit.addEventListener("click", pick);
      hit.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } });
    }
    hit.append(make("title", {}, said));
    svg.append(hit);
  });
  place.replaceChildren(svg);
  const totals = NAMES.map((name) => [name, buckets.reduce((sum, bucket) => sum + (bucket.severities[name] ?? 0), 0)]);
  legend.replaceChildren(...totals.filter(([, total]) => total > 0).map(([name, total]) => {
    const item = document.createElement("li");
    item.className = name;
    const label = document.createElement("span");
    label.textContent = `${name} ${short(total)}`;
    item.append(label);
    return item;
  }));
}
