// What is searched, filtered, sorted and open. It stands in the address, so that a link leads to it.

const DEFAULTS = { q: "", regex: false, filters: {}, sort: "", desc: false, show: "all", metric: "", run: 1,
  chat: null, sample: 0, view: "markdown", diff: false };

export class State {
  constructor() {
    this.values = { ...DEFAULTS };
    this.listeners = [];
    this.read();
    addEventListener("hashchange", () => {
      if (location.hash.slice(1) === this.text()) return;
      this.read();
      this.tell();
    });
  }

  listen(act) {
    this.listeners.push(act);
  }

  // Change some values. What opens a chat becomes a step back in the browser's history.
  set(values, step = false) {
    Object.assign(this.values, values);
    const address = "#" + this.text();
    if (step) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    this.tell(values);
  }

  tell(values = this.values) {
    for (const act of this.listeners) act(values);
  }

  text() {
    const found = new URLSearchParams();
    for (const [name, value] of Object.entries(this.values)) {
      if (JSON.stringify(value) === JSON.stringify(DEFAULTS[name])) continue;
      found.set(name, typeof value === "object" ? JSON.stringify(value) : String(value));
    }
    return found.toString();
  }

  read() {
    this.values = { ...DEFAULTS };
    for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
      const usual = DEFAULTS[name];
      if (usual === undefined) continue;
      try {
        if (typeof usual === "boolean") this.values[name] = text === "true";
        else if (typeof usual === "number") this.values[name] = Number(text) || 0;
        else if (name === "filters") this.values[name] = Object(JSON.parse(text));
        else this.values[name] = text;
      } catch {
        // an address that was cut off says nothing of this value
      }
    }
  }
}
