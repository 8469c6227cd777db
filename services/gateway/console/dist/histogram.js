// Events over time: bars stacked by severity. A drag chooses a range; so do the arrow keys with Enter.

import { draw, full, make, short } from "./dom.js";
import { clock, stamp } from "./time.js";

export const SEVERITIES = ["trace", "debug", "info", "none", "warn", "error", "fatal"];
const HEIGHT = 150, TOP = 8, BOTTOM = 22, LEFT = 48, RIGHT = 8;
/** A pointer that moved less has clicked. */
const CLICK_PX = 4;

/** A round number at or above the value, so that the axis has readable marks. */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999999);
}

export class Histogram {
  /** Draws into `place`; `onPick(from, to)` is called for a chosen range, in milliseconds. */
  constructor(place, onPick) {
    Object.assign(this, { place, onPick, answer: null, cursor: -1, anchor: -1, dragging: null });
    this.tip = make("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    place.addEventListener("keydown", (event) => this.key(event));
    place.addEventListener("blur", () => this.unpoint());
    place.addEventListener("pointerdown", (event) => this.press(event));
    place.addEventListener("pointermove", (event) => this.move(event));
    place.addEventListener("pointerup", (event) => this.release(event));
    place.addEventListener("pointercancel", () => this.unpoint());
    place.addEventListener("pointerleave", () => { if (this.dragging === null && document.activeElement !== place) this.unpoint(); });
    new ResizeObserver(() => { if (this.answer && place.clientWidth !== this.width) this.paint(); }).observe(place);
  }

  clear() {
    this.answer = null;
    this.place.replaceChildren();
  }

  show(answer) {
    this.answer = answer;
    [this.cursor, this.anchor, this.dragging] = [-1, -1, null];
    this.paint();
    this.place.setAttribute("aria-valuemin", "0");
    this.place.setAttribute("aria-valuemax", String(answer.buckets.length - 1));
    this.place.setAttribute("aria-valuenow", "0");
    this.place.setAttribute("aria-valuetext", `${full(this.total())} events; arrow keys move, Shift extends, Enter chooses the time`);
  }

  total() {
    return this.answer.buckets.reduce((sum, bucket) => sum + bucket.count, 0);
  }

  paint() {
    const { buckets, bucket_ms: width } = this.answer;
    this.width = this.place.clientWidth;
    const across = Math.max(this.width, 280);
    const inner = { width: across - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM };
    const top = Math.max(roundUp(Math.max(...buckets.map((bucket) => bucket.count), 1)), 2);
    const y = (count) => TOP + inner.height * (1 - count / top);
    this.step = inner.width / Math.max(buckets.length, 1);
    const svg = draw("svg", { viewBox: `0 0 ${across} ${HEIGHT}`, width: across, height: HEIGHT, "aria-hidden": "true" });
    for (const mark of [0, top / 2, top]) {
      if (!Number.isInteger(mark)) continue;
      svg.append(draw("line", { class: "axis", x1: LEFT, x2: across - RIGHT, y1: y(mark), y2: y(mark) }));
      svg.append(draw("text", { x: LEFT - 8, y: y(mark) + 4, "text-anchor": "end", text: short(mark) }));
    }
    const marks = Math.max(2, Math.min(8, Math.floor(inner.width / 120)));
    for (let i = 0; i <= marks && buckets.length > 0; i += 1) {
      const at = Math.round((buckets.length * i) / marks);
      const anchor = i === 0 ? "start" : i === marks ? "end" : "middle";
      svg.append(draw(
        "text",
        { x: LEFT + at * this.step, y: HEIGHT - 5, "text-anchor": anchor, text: clock(this.start(0) + at * width, width * buckets.length) },
      ));
    }
    const gap = Math.min(this.step * 0.16, 3);
    buckets.forEach((bucket, i) => {
      let base = 0;
      for (const name of SEVERITIES) {
        const count = bucket.severities[name] ?? 0;
        if (count === 0) continue;
        // What is there is seen, however little of it.
        const height = Math.max(y(base) - y(base + count), 1);
        svg.append(draw(
          "rect",
          { class: `bar ${name}`, x: LEFT + i * this.step + gap / 2, width: Math.max(this.step - gap, 0.5), y: y(base) - height, height },
        ));
        base += count;
      }
    });
    this.brush = draw("rect", { class: "brush", y: TOP, height: inner.height, x: 0, width: 0 });
    svg.append(this.brush);
    this.place.replaceChildren(svg, this.tip);
  }

  start(i) {
    return Date.parse(this.answer.buckets[0].start) + i * this.answer.bucket_ms;
  }

  /** The bucket below a pointer. */
  below(event) {
    const x = event.clientX - this.place.getBoundingClientRect().left - LEFT;
    return Math.max(0, Math.min(this.answer.buckets.length - 1, Math.floor(x / this.step)));
  }

  press(event) {
    if (!this.answer || this.answer.buckets.length === 0 || event.button !== 0) return;
    this.place.setPointerCapture(event.pointerId);
    this.anchor = this.below(event);
    this.dragging = event.clientX;
    this.point(this.anchor, false);
  }

  move(event) {
    if (!this.answer || this.answer.buckets.length === 0) return;
    this.point(this.below(event), this.dragging !== null);
  }

  release(event) {
    if (this.dragging === null) return;
    const clicked = Math.abs(event.clientX - this.dragging) < CLICK_PX;
    this.dragging = null;
    if (clicked) this.anchor = this.cursor;
    if (!clicked || this.answer.buckets[this.cursor].count > 0) this.pick();
    else this.unpoint();
  }

  key(event) {
    const last = (this.answer?.buckets.length ?? 0) - 1;
    if (last < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = {
      ArrowLeft: this.cursor - 1,
      ArrowRight: this.cursor + 1,
      Home: 0,
      End: last,
      PageUp: this.cursor - 10,
      PageDown: this.cursor + 10,
    }[event.key];
    if (to !== undefined) {
      this.point(Math.max(0, Math.min(last, to)), event.shiftKey);
    } else if ((event.key === "Enter" || event.key === " ") && this.cursor >= 0) {
      this.pick();
    } else if (event.key === "Escape" && this.cursor >= 0) {
      event.stopPropagation();
      this.unpoint();
    } else return;
    event.preventDefault();
  }

  pick() {
    const [first, last] = [Math.min(this.anchor, this.cursor), Math.max(this.anchor, this.cursor)];
    this.unpoint();
    this.onPick(this.start(first), this.start(last + 1));
  }

  /** Points at a bucket; with `extend` the range goes on from where it began. */
  point(i, extend) {
    this.cursor = i;
    if (!extend || this.anchor < 0) this.anchor = i;
    const [first, last] = [Math.min(this.anchor, i), Math.max(this.anchor, i)];
    this.brush.setAttribute("x", LEFT + first * this.step);
    this.brush.setAttribute("width", (last - first + 1) * this.step);
    const chosen = this.answer.buckets.slice(first, last + 1);
    const sum = (name) => chosen.reduce((all, bucket) => all + (bucket.severities[name] ?? 0), 0);
    const count = chosen.reduce((all, bucket) => all + bucket.count, 0);
    const counts = SEVERITIES.map((name) => [name, sum(name)]).filter(([, n]) => n > 0).reverse();
    const time = `${stamp(this.start(first))} – ${stamp(this.start(last + 1)).slice(11)}`;
    this.place.setAttribute("aria-valuenow", String(i));
    this.place.setAttribute(
      "aria-valuetext",
      `${time}: ${full(count)} events${counts.length ? `, ${counts.map(([name, n]) => `${full(n)} ${name}`).join(", ")}` : ""}`,
    );
    this.tip.replaceChildren(
      make("div", { class: "faint", text: time }),
      make("div", {}, make("strong", { text: full(count) }), count === 1 ? " event" : " events"),
      ...counts.map(([name, n]) => make("div", { class: `level ${name}` }, make("span", { text: name }), make("span", { text: full(n) }))),
    );
    this.tip.hidden = false;
    const middle = LEFT + ((first + last + 1) / 2) * this.step;
    // Beside what is chosen, on the side where there is more room.
    const room = this.place.clientWidth;
    const aside = middle > room / 2 ? middle - this.tip.offsetWidth - 16 : middle + 16;
    this.tip.style.insetInlineStart = `${Math.max(0, Math.min(room - this.tip.offsetWidth, aside))}px`;
  }

  unpoint() {
    [this.cursor, this.anchor, this.dragging] = [-1, -1, null];
    this.tip.hidden = true;
    this.brush?.setAttribute("width", "0");
  }
}

/** What the colours mean and how many events of each there are; `onOnly(severity)` is called for a chosen one, null for none. */
export function legend(place, answer, onOnly) {
  const total = (name) => answer.buckets.reduce((sum, bucket) => sum + (bucket.severities[name] ?? 0), 0);
  const item = (name) => make("li", {}, make(
    "button",
    {
      type: "button",
      class: `key ${name}`,
      title: name === "none" ? "Only events without a severity" : `Only ${name}`,
      on: { click: () => onOnly(name === "none" ? null : name) },
    },
    make("i", { class: `swatch ${name}` }),
    `${name} `,
    make("b", { text: short(total(name)) }),
  ));
  place.replaceChildren(...SEVERITIES.filter((name) => total(name) > 0).map(item));
}
