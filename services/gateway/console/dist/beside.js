// What is counted beside the rows: events over time, and the fields.

import * as api from "./api.js";
import { at, full, say } from "./dom.js";
import { Facets } from "./facets.js";
import { Histogram, legend } from "./histogram.js";
import { stamp, zone } from "./time.js";

const BUCKETS = 90;

export class Beside {
  /** `does` filters by a value, `pick(from, to)` takes a time, `lostToken(error)` says whether the token is the trouble. */
  constructor(does, pick, lostToken) {
    Object.assign(this, { does, lostToken, asking: null });
    this.facets = new Facets(at("facets"), at("fields-note"), does);
    this.histogram = new Histogram(at("histogram"), pick);
    at("fields-search").addEventListener("input", () => this.facets.search(at("fields-search").value));
  }

  stop() {
    this.asking?.abort();
  }

  async count(what) {
    this.stop();
    const { signal } = (this.asking = new AbortController());
    say(at("histogram-note"), "counting", true);
    this.facets.wait();
    const failed = (tell) => (error) => { if (error.name !== "AbortError" && !this.lostToken(error)) tell(error); };
    const drawn = api.histogram(what, BUCKETS, signal).then((answer) => this.draw(what, answer), failed((error) => {
      this.histogram.clear();
      at("legend").replaceChildren();
      say(at("histogram-note"), `not drawn: ${error.message}`);
    }));
    const fields = api.facets(what, signal).then(
      (answer) => this.facets.show(answer),
      failed((error) => this.facets.fail(`Fields cannot be counted: ${error.message}`)),
    );
    await Promise.all([drawn, fields]);
  }

  draw(what, answer) {
    this.histogram.show(answer);
    legend(at("legend"), answer, (severity) => this.does.only("severity", severity));
    const time = `${stamp(what.from)} to ${stamp(what.to)} ${zone.name}`;
    say(at("histogram-note"), `${full(this.histogram.total())} from ${time}`);
  }
}
