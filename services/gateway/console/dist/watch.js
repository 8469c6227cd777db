// What runs beside queries: alerts that fire, and jobs. Looked at again every few seconds.

import * as api from "./api.js";
import { at, make, say, show } from "./dom.js";
import { shownTime } from "./time.js";

const REFRESH_MS = 5000;
const STATUS = { running: "info", scheduling: "warn", restarting: "warn", failed: "error", cancelled: "debug" };

const item = (level, name, words, more) => make(
  "li",
  {},
  make("span", { class: `badge ${level}`, text: words[0] }),
  make("strong", { text: name }),
  ...words.slice(1).map((text) => make("span", { class: "faint", text })),
  make("code", { class: "what", text: more }),
);

function list(id, items, empty) {
  at(id).replaceChildren(...items);
  say(at(`${id}-note`), items.length > 0 ? "" : empty);
}

async function jobs() {
  const live = (await api.jobs()).jobs.filter(({ status }) => status !== "cancelled");
  list("jobs", live.map(({ job, status, attempt, checkpoint, failure, text }) => item(STATUS[status] ?? "none", job,
    [
      status,
      attempt > 1 ? `attempt ${attempt}` : "",
      checkpoint === null ? "" : `checkpoint ${checkpoint}`,
    ], failure ?? text.replace(/\s+/g, " "))), "No jobs run on your indexes. A job is a query that goes on: logboom job submit begins one.");
}

async function alerts() {
  const { rules } = await api.rules();
  const firing = rules.flatMap((rule) => rule.instances.filter(({ state }) => state === "firing").map((one) => ({ rule: rule.rule, one })));
  const labels = (one) => Object.entries(one.labels).map(([name, value]) => `${name}=${value}`).join(" ");
  list("alerts", firing.map(({ rule, one }) => item("error", rule.rule,
    [
      "firing",
      labels(one),
      `${rule.condition} (${one.value})`,
      `since ${shownTime(new Date(one.since / 1e6).toISOString())}`,
    ], rule.summary)),
  rules.length > 0 ? `Nothing fires; ${rules.length} rule${rules.length > 1 ? "s" : ""} watching.` : "No rules yet. A rule tells you when a query finds something: logboom rule put makes one.");
  at("firing").textContent = String(firing.length);
  show(at("firing"), firing.length > 0);
}

let waiting = 0;

/** Looks now and again later, as long as the page is seen; `lostToken(error)` says whether the token is the trouble. */
export async function watch(lostToken) {
  stop();
  for (const [look, id] of [[jobs, "jobs"], [alerts, "alerts"]]) {
    try {
      await look();
    } catch (error) {
      if (lostToken(error)) return;
      say(at(`${id}-note`), `Cannot be shown: ${error.message}`);
    }
  }
  stop();
  if (!document.hidden) waiting = setTimeout(() => watch(lostToken), REFRESH_MS);
}

export const stop = () => clearTimeout(waiting);
