// Searches that were saved in the index, by name: to open again, to keep, to take away.

import * as api from "./api.js";
import { at, button, make, nothing, say } from "./dom.js";
import * as menus from "./menus.js";

/** A name as the library takes it. */
const NAME = /^[a-z0-9][a-z0-9_-]*$/;

export class Saved {
  /** `now()` answers what is asked at present; `open(item)` is called for a chosen search. */
  constructor(now, open, lostToken) {
    Object.assign(this, { now, open, lostToken });
    at("saved-menu").addEventListener("toggle", ({ newState }) => { if (newState === "open") this.list(); });
    at("save-form").addEventListener("submit", (event) => { event.preventDefault(); this.keep(); });
  }

  async list() {
    say(at("saved-note"), "loading", true);
    try {
      const { items } = await api.saved.list(this.now().index);
      say(at("saved-note"), "");
      at("saved-list").replaceChildren(...items.map((item) => this.item(item)));
      if (items.length === 0) at("saved-list").replaceChildren(nothing(
        "No saved searches",
        "Give the present one a name, and it stands here for all who may read the index.",
      ));
    } catch (error) {
      at("saved-list").replaceChildren();
      if (!this.lostToken(error)) say(at("saved-note"), `Cannot be shown: ${error.message}`);
    }
  }

  item(item) {
    const open = button(
      item.title || item.name,
      () => { menus.close("saved-menu"); this.open(item); },
      { class: "link", title: item.text },
    );
    const remove = button("×", () => this.remove(item.name), { class: "small", "aria-label": `Remove ${item.name}` });
    return make("li", {}, open, make("span", { class: "faint", text: item.language }), remove);
  }

  async keep() {
    const title = at("save-name").value.trim();
    const name = title.toLowerCase().replace(/[^a-z0-9_-]+/g, "-").replace(/^[-_]+|-+$/g, "").slice(0, 40);
    if (!NAME.test(name)) return say(at("saved-note"), "A name has letters or digits.");
    const { index, text, language, range, columns } = this.now();
    try {
      await api.saved.put(
        index,
        name,
        { text: text === "" ? "*" : text, language, title, from: range.from, to: range.to, ...(columns ? { columns } : {}) },
      );
      at("save-name").value = "";
      await this.list();
      say(at("saved-note"), `Saved as ${name}.`);
    } catch (error) {
      if (!this.lostToken(error)) say(at("saved-note"), `Not saved: ${error.message}`);
    }
  }

  async remove(name) {
    try {
      await api.saved.remove(this.now().index, name);
      await this.list();
    } catch (error) {
      if (!this.lostToken(error)) say(at("saved-note"), `Not removed: ${error.message}`);
    }
  }
}
