// Which chats are listed, in which order, and the panel in which that is said.

import { byId, h, replace, settled } from "./dom.js";
import { number, visible } from "./text.js";

function predicate(field, wanted) {
  if (wanted.in) {
    const values = new Set(wanted.in);
    return (row) => values.has(field.of(row) ?? null);
  }
  if (wanted.has !== undefined) {
    const text = wanted.has.toLowerCase();
    return (row) => String(field.of(row) ?? "").toLowerCase().includes(text);
  }
  const low = wanted.min ?? -Infinity;
  const high = wanted.max ?? Infinity;
  return (row) => {
    const value = field.of(row);
    return typeof value === "number" && value >= low && value <= high;
  };
}

function shown(data, values) {
  const { show, run, metric } = values;
  const theirs = data.runs[run];
  if (!theirs || show === "all") return null;
  if (show === "changed") return (row) => theirs.changed[row] === 1;
  if (show === "worse") return (row) => (data.delta(row, run, metric) ?? 0) < 0;
  if (show === "better") return (row) => (data.delta(row, run, metric) ?? 0) > 0;
  return null;
}

// The numbers of the chats that are listed, in order.
export function listed(data, fields, values, search) {
  const tests = [];
  for (const [key, wanted] of Object.entries(values.filters)) {
    const field = fields.find((one) => one.key === key);
    if (field && wanted) tests.push(predicate(field, wanted));
  }
  const mode = shown(data, values);
  if (mode) tests.push(mode);
  if (search.test) tests.push((row) => search.matches(row));
  const rows = [];
  for (let row = 0; row < data.count; row += 1) if (tests.every((test) => test(row))) rows.push(row);
  return sorted(data, fields, rows, values);
}

function sorted(data, fields, rows, values) {
  const field = fields.find((one) => one.key === values.sort);
  const of = values.sort === "delta" ? (row) => data.delta(row, values.run, values.metric) : field?.of;
  if (!of) return values.sort === "index" && values.desc ? rows.reverse() : rows;
  const none = (row) => of(row) === null || of(row) === undefined;
  const [known, last] = [rows.filter((row) => !none(row)), rows.filter(none)];
  const keys = known.every((row) => typeof of(row) === "number") ? new Float64Array(data.count) : new Array(data.count);
  for (const row of known) keys[row] = of(row);
  const sign = values.desc ? -1 : 1;
  if (keys instanceof Float64Array) known.sort((a, b) => sign * (keys[a] - keys[b]) || a - b);
  else known.sort((a, b) => (keys[a] === keys[b] ? a - b : keys[a] < keys[b] ? -sign : sign));
  return [...known, ...last]; // chats without a value come last either way
}

export class FilterPanel {
  constructor(data, state) {
    this.data = data;
    this.state = state;
    this.fields = [];
    this.set = settled(120, (key, wanted) => this.change(key, wanted));
  }

  change(key, wanted) {
    const filters = { ...this.state.values.filters };
    if (wanted) filters[key] = wanted;
    else delete filters[key];
    this.state.set({ filters });
  }

  render(fields) {
    this.fields = fields;
    const opened = new Set([...byId("filters").querySelectorAll("details[open]")].map((one) => one.dataset.key));
    replace(
      byId("filters"),
      h("div", { class: "panel-head" }, h("h2", {}, "Filters"), h("button", { type: "button", class: "quiet",
        onclick: () => this.state.set({ filters: {} }) }, "Clear all")),
      fields.map((field, place) => {
        const active = this.state.values.filters[field.key];
        const open = active || opened.has(field.key) || (opened.size === 0 && place < 3);
        return h("details", { open, "data-key": field.key, class: active ? "active" : "" },
          h("summary", {}, visible(field.label)), this.control(field, active));
      }),
    );
    this.chips();
  }

  control(field, active) {
    if (field.kind === "choice") return this.choices(field, active);
    if (field.kind === "number") return this.span(field, active);
    const name = "has-" + field.key;
    return h("p", {}, h("label", { for: name, class: "hidden" }, "contains"), h("input", { id: name, type: "search",
      placeholder: "contains", value: active?.has ?? "",
      oninput: (event) => this.set(field.key, event.target.value ? { has: event.target.value } : null) }));
  }

  choices(field, active) {
    const chosen = new Set(active?.in || []);
    return h("ul", { class: "choices" }, field.counts.map(([value, count]) => h("li", {}, h("label", {},
      h("input", { type: "checkbox", checked: chosen.has(value), onchange: (event) => {
        if (event.target.checked) chosen.add(value);
        else chosen.delete(value);
        this.change(field.key, chosen.size ? { in: [...chosen] } : null);
      } }), h("span", {}, visible(String(value))), h("small", {}, number(count))))));
  }

  span(field, active) {
    const wanted = { ...active };
    const input = (end, usual) => h("input", { type: "number", step: "any", "aria-label": (end === "min" ? "least " : "most ") + field.label,
      placeholder: number(usual), value: wanted[end] ?? "", oninput: (event) => {
        if (event.target.value === "") delete wanted[end];
        else wanted[end] = Number(event.target.value);
        this.set(field.key, Object.keys(wanted).length ? { ...wanted } : null);
      } });
    return h("p", { class: "span" }, input("min", field.low), " to ", input("max", field.high));
  }

  chips() {
    const said = ([key, wanted]) => {
      const label = this.fields.find((field) => field.key === key)?.label ?? key;
      if (wanted.in) return label + ": " + wanted.in.join(", ");
      if (wanted.has !== undefined) return label + " contains " + wanted.has;
      return label + ": " + (wanted.min ?? "…") + " to " + (wanted.max ?? "…");
    };
    replace(byId("chips"), Object.entries(this.state.values.filters).map((entry) => h("button", { type: "button", class: "chip",
      "aria-label": "Remove the filter " + visible(said(entry)), onclick: () => this.change(entry[0], null) }, visible(said(entry)), " ×")));
  }
}
