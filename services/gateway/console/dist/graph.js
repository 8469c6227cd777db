// A drawing of an answer: lines or bars over time, bars by group, or one number, as its columns allow.

import { draw, full, make, nothing, short } from "./dom.js";
import { roundUp } from "./histogram.js";
import { shown } from "./table.js";
import { clock, isTime, stamp } from "./time.js";

/** Lines that can be told apart; the others are left out and counted. */
const SERIES_MAX = 8;
const GROUPS_MAX = 40;
const HEIGHT = 300, TOP = 10, BOTTOM = 24, LEFT = 56, RIGHT = 12;
const NUMBERS = new Set(["integer", "number"]);
const PLACES = new Set(["_segment", "_offset", "_received"]);

/** Which drawings the columns and rows allow, best first. */
export function kinds(columns, rows) {
  const numbers = columns.filter(({ name, type }) => NUMBERS.has(type) && !PLACES.has(name));
  if (numbers.length === 0 || rows.length === 0) return [];
  const time = columns.find(({ name }) => isTime(rows.find((row) => row[name])?.[name]) && !PLACES.has(name));
  if (rows.length === 1 && !time) return ["number"];
  if (time && columns.every(({ name }) => name !== "_msg")) return ["line", "area", "columns"];
  if (time && numbers.length > 0) return ["dots"];
  return columns.some(({ type }) => !NUMBERS.has(type)) ? ["bars"] : [];
}

/** The series of rows over time: names and, for each instant, a value for each. */
export function series(columns, rows) {
  const time = columns.find(({ name }) => isTime(rows.find((row) => row[name])?.[name]) && !PLACES.has(name)).name;
  const values = columns.filter(({ name, type }) => NUMBERS.has(type) && !PLACES.has(name)).map(({ name }) => name);
  const isGroup = ({ name, type }) => name !== time && !NUMBERS.has(type) && !PLACES.has(name) && !isTime(rows[0][name]);
  const groups = columns.filter(isGroup).map(({ name }) => name);
  const events = groups.includes("_msg");
  const all = new Map();
  for (const row of rows) {
    const at = Date.parse(row[time]);
    const group = events ? "" : groups.map((name) => shown(row[name]) || "–").join(" ");
    for (const value of values) {
      if (typeof row[value] !== "number" || Number.isNaN(at)) continue;
      const name = group === "" ? value : values.length > 1 ? `${group} ${value}` : group;
      if (!all.has(name)) all.set(name, { name, points: [], sum: 0 });
      all.get(name).points.push([at, row[value]]);
      all.get(name).sum += Math.abs(row[value]);
    }
  }
  const most = [...all.values()].sort((a, b) => b.sum - a.sum);
  most.forEach((one) => one.points.sort((a, b) => a[0] - b[0]));
  return { shown: most.slice(0, SERIES_MAX), left: most.length - Math.min(most.length, SERIES_MAX) };
}

function overTime(place, kind, columns, rows) {
  const { shown: lines, left } = series(columns, rows);
  const across = Math.max(place.clientWidth, 300);
  const times = lines.flatMap(({ points }) => points.map(([at]) => at));
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value));
  const [from, to] = [Math.min(...times), Math.max(...times)];
  const gaps = lines[0].points.slice(1).map(([at], i) => at - lines[0].points[i][0]).filter((gap) => gap > 0);
  const wide = kind === "columns" ? Math.min(...gaps, to - from || 60e3) : 0;
  const span = Math.max(to - from + wide, 1);
  const top = roundUp(Math.max(...values, 1e-9));
  const low = Math.min(...values, 0) < 0 ? -roundUp(-Math.min(...values)) : 0;
  const inner = { width: across - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM };
  const x = (at) => LEFT + (inner.width * (at - from)) / span;
  const y = (value) => TOP + inner.height * (1 - (value - low) / (top - low));
  const svg = draw(
    "svg",
    {
      viewBox: `0 0 ${across} ${HEIGHT}`,
      width: across,
      height: HEIGHT,
      role: "img",
      "aria-label": `${lines.map(({ name }) => name).join(", ")} over time; the rows have the values`,
    },
  );
  for (let i = 0; i <= 4; i += 1) {
    const mark = low + ((top - low) * i) / 4;
    svg.append(
      draw("line", { class: "axis", x1: LEFT, x2: across - RIGHT, y1: y(mark), y2: y(mark) }),
      draw("text", { x: LEFT - 8, y: y(mark) + 4, "text-anchor": "end", text: short(mark) }),
    );
  }
  for (let i = 0; i <= 6; i += 1) {
    const at = from + (span * i) / 6;
    svg.append(draw(
      "text",
      { x: x(at), y: HEIGHT - 6, "text-anchor": i === 0 ? "start" : i === 6 ? "end" : "middle", text: clock(at, span) },
    ));
  }
  const tip = (name, at, value) => draw("title", { text: `${name}, ${stamp(at)}: ${full(value)}` });
  lines.forEach(({ name, points }, i) => {
    const path = points.map(([at, value], n) => `${n === 0 ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    if (kind === "area") svg.append(draw(
      "path",
      {
        class: `series-${i} filled`,
        d: `${path}L${x(points.at(-1)[0])} ${y(Math.max(low, 0))}L${x(points[0][0])} ${y(Math.max(low, 0))}Z`,
      },
    ));
    if (kind === "line" || kind === "area") svg.append(draw("path", { class: `series-${i} stroke`, d: path }));
    for (const [at, value] of points) {
      if (kind === "columns") {
        const width = Math.max(((inner.width * wide) / span / lines.length) * 0.85, 1);
        svg.append(draw(
          "rect",
          { class: `series-${i}`, x: x(at) + i * width, width, y: Math.min(y(value), y(0)), height: Math.abs(y(value) - y(0)) },
          tip(name, at, value),
        ));
      } else {
        svg.append(draw(
          "circle",
          { class: `series-${i} ${kind === "dots" || points.length === 1 ? "" : "faded"}`, cx: x(at), cy: y(value), r: 3.5 },
          tip(name, at, value),
        ));
      }
    }
  });
  const legend = make(
    "ul",
    { class: "legend" },
    ...lines.map(({ name }, i) => make("li", {}, make("i", { class: `swatch series-${i}` }), name))
  );
  if (left > 0) legend.append(make("li", { class: "faint", text: `${left} smaller ones are not drawn` }));
  place.replaceChildren(svg, legend);
}

function byGroup(place, columns, rows) {
  const numbers = columns.filter(({ name, type }) => NUMBERS.has(type) && !PLACES.has(name));
  const value = (numbers.find(({ name }) => /count|^n$|sum|total/.test(name)) ?? numbers[0]).name;
  const groups = columns.filter(({ type }) => !NUMBERS.has(type)).map(({ name }) => name);
  const top = Math.max(...rows.map((row) => Math.abs(row[value] ?? 0)), 1e-9);
  const body = make("tbody");
  body.append(...rows.slice(0, GROUPS_MAX).map((row) => {
    const fill = make("span", { class: "fill series-0" });
    fill.style.inlineSize = `${(Math.abs(row[value] ?? 0) / top) * 100}%`;
    return make(
      "tr",
      {},
      make("th", { scope: "row", text: groups.map((name) => shown(row[name]) || "–").join(" · ") }),
      make("td", { class: "long" }, make("span", { class: "share", "aria-hidden": "true" }, fill)),
      make("td", { class: "number", text: typeof row[value] === "number" ? full(row[value]) : "–" }),
    );
  }));
  const note = rows.length > GROUPS_MAX ? `, the first ${GROUPS_MAX} of ${full(rows.length)}` : "";
  place.replaceChildren(make("table", { class: "plain bars" }, make("caption", { text: `${value} by ${groups.join(", ")}${note}` }), body));
}

/** Draws an answer; where it cannot be drawn it says what can. */
export function graph(place, kind, columns, rows) {
  if (!kind) {
    place.replaceChildren(nothing(
      "These rows have no chart",
      "A chart needs a number, and a time or a group beside it: try | chart count by severity every 1m, or | top 10 service.",
    ));
  } else if (kind === "number") {
    const numbers = columns.filter(({ type }) => NUMBERS.has(type));
    place.replaceChildren(make(
      "dl",
      { class: "figures large" },
      ...numbers.map(({ name }) => make(
        "div",
        { class: "figure" },
        make("dt", { text: name }),
        make("dd", { text: rows[0][name] === null ? "–" : full(rows[0][name]) }),
      ))
    ));
  } else if (kind === "bars") byGroup(place, columns, rows);
  else overTime(place, kind, columns, rows);
}
