// What could come next in a query, in a list below it: arrows choose, Tab takes, so does Enter once an arrow has chosen, Escape closes.

const WAIT_MS = 150;

const LENGTH = (text) => [...text].length;

export class Completer {
  /** `ask(text, cursor, signal)` answers completions, or null where there are none to ask for; `cursor` counts characters. */
  constructor(area, list, ask) {
    Object.assign(this, { area, list, ask, found: [], chosen: -1, waiting: 0, asking: null });
    area.addEventListener("input", () => this.later());
    area.addEventListener("keydown", (event) => this.key(event));
    area.addEventListener("blur", () => this.close());
    // The mouse takes nothing from the text: the cursor must still stand there.
    list.addEventListener("mousedown", (event) => {
      event.preventDefault();
      const item = event.target.closest("li");
      if (item) this.take([...list.children].indexOf(item));
    });
  }

  later() {
    this.close();
    this.waiting = setTimeout(() => this.open(), WAIT_MS);
  }

  close() {
    clearTimeout(this.waiting);
    this.asking?.abort();
    this.found = [];
    this.list.hidden = true;
    this.area.removeAttribute("aria-activedescendant");
  }

  async open() {
    this.close();
    const mine = new AbortController();
    this.asking = mine;
    const cursor = LENGTH(this.area.value.slice(0, this.area.selectionStart));
    let found;
    try {
      found = await this.ask(this.area.value, cursor, mine.signal);
    } catch {
      return; // Whoever writes is not to be disturbed; running the query tells what is wrong.
    }
    if (mine.signal.aborted || !found || found.length === 0) return;
    Object.assign(this, { found, moved: false });
    this.list.replaceChildren(...found.map((one, place) => {
      const item = document.createElement("li");
      const [text, help] = [document.createElement("span"), document.createElement("span")];
      item.id = `${this.list.id}-${place}`;
      item.setAttribute("role", "option");
      text.textContent = one.text;
      help.textContent = one.help || one.kind;
      help.className = "faint";
      item.append(text, help);
      return item;
    }));
    this.list.hidden = false;
    this.choose(0);
  }

  choose(place) {
    this.chosen = (place + this.found.length) % this.found.length;
    [...this.list.children].forEach((item, at) => item.setAttribute("aria-selected", String(at === this.chosen)));
    this.list.children[this.chosen].scrollIntoView({ block: "nearest" });
    this.area.setAttribute("aria-activedescendant", `${this.list.id}-${this.chosen}`);
  }

  take(place) {
    const { from, text, kind } = this.found[place];
    const cursor = this.area.selectionStart;
    const begin = [...this.area.value].slice(0, from).join("").length;
    this.area.setRangeText(kind === "command" ? `${text} ` : text, begin, cursor, "end");
    if (kind === "command" || /[:(]$/.test(text)) this.later();
    else this.close();
  }

  key(event) {
    if (event.ctrlKey && event.key === " ") {
      event.preventDefault();
      this.open();
    } else if (this.list.hidden || event.ctrlKey || event.metaKey) {
      if (event.key === "Enter") this.close();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      this.choose(this.chosen + (event.key === "ArrowDown" ? 1 : -1));
      this.moved = true;
    } else if (event.key === "Tab" || (event.key === "Enter" && this.moved)) {
      event.preventDefault();
      this.take(this.chosen);
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      this.close();
    }
  }
}
