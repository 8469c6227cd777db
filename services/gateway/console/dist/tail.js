// Rows as they come: how fast they do, how many of them were dropped, and a pause in which they are held back.

import * as api from "./api.js";
import { at, full, say, short, show } from "./dom.js";

/** Rows that are held back while the tail is paused; beyond it the oldest go. */
const HELD_MAX = 2000;
/** Rows that one frame of the screen takes. */
const AT_ONCE = 200;

export const COLUMNS = [{ name: "_time", type: "timestamp" }, { name: "severity", type: "text" }, { name: "_msg", type: "text" }];

export class Tail {
  /** `onRows(rows)` gets new rows, oldest first; `onEnd(error, words)` is called when it has ended. */
  constructor(onRows, onEnd) {
    Object.assign(this, { onRows, onEnd, running: null, paused: false });
    at("pause").addEventListener("click", () => this.pause(!this.paused));
    at("tail-stop").addEventListener("click", () => this.stop());
  }

  get live() {
    return this.running !== null;
  }

  stop() {
    this.running?.abort();
  }

  pause(paused) {
    this.paused = paused;
    at("pause").setAttribute("aria-pressed", String(paused));
    at("pause").textContent = paused ? "Go on" : "Pause";
    at("live").classList.toggle("paused", paused);
    this.tell();
  }

  async start(what) {
    this.stop();
    const mine = (this.running = new AbortController());
    Object.assign(this, { waiting: [], shown: 0, letGo: 0, counts: null, gaps: 0 });
    show(at("live"), true);
    this.pause(false);
    const frame = () => {
      if (this.running !== mine) return;
      this.paint();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    let [failed, words] = [null, ""];
    try {
      words = await api.tail(what, {
        row: (row) => this.take(row),
        rate: (counts) => { this.counts = counts; this.tell(); },
        gap: () => { this.gaps += 1; this.tell(); },
      }, mine.signal);
    } catch (error) {
      failed = error;
      words = error.name === "AbortError" ? "stopped" : error.message;
    }
    if (this.running !== mine) return;
    this.paused = false;
    this.paint();
    this.running = null;
    show(at("live"), false);
    this.onEnd(failed?.name === "AbortError" ? null : failed, words);
  }

  take(row) {
    this.waiting.push(row);
    if (this.waiting.length > HELD_MAX) {
      this.letGo += this.waiting.length - HELD_MAX;
      this.waiting.splice(0, this.waiting.length - HELD_MAX);
    }
  }

  /** Rows are drawn once per frame: a fast index sends more of them than a screen can follow. */
  paint() {
    if (this.waiting.length === 0) return;
    if (this.paused) return this.tell();
    const rows = this.waiting.splice(0, AT_ONCE);
    this.shown += rows.length;
    this.onRows(rows);
    this.tell();
  }

  tell() {
    const { counts } = this;
    const parts = [`${full(this.shown)} shown`];
    if (this.paused) parts.push(`${full(this.waiting.length)} held back`);
    // Nothing is dropped in silence, neither on the way nor here.
    const dropped = (counts?.dropped ?? 0) + this.letGo;
    parts.push(`${full(dropped)} dropped`);
    if (this.gaps > 0) parts.push("some were truncated before they came");
    at("dropped").classList.toggle("bad", dropped > 0);
    say(at("rate"), counts ? `${short(counts.matched_per_s)}/s of ${short(counts.seen_per_s)}/s` : "waiting for events");
    say(at("dropped"), parts.join(", "));
  }
}
