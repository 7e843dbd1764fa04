// The list of chats: only the rows in sight are elements, however many chats there are.

import { byId, h, replace } from "./dom.js";
import { number, signed, visible } from "./text.js";

const HEIGHT = 38; // of a row, in pixels
const TALLEST = 8000000; // what browsers lay out without losing precision
const AROUND = 12; // rows above and below what is in sight
const MOST_METRICS = 4;
const FEW_METRICS = 2; // beside an open chat, and on a phone

export class Table {
  constructor(data, state, open) {
    this.data = data;
    this.state = state;
    this.open = open;
    this.rows = [];
    this.at = -1;
    this.element = byId("table");
    this.body = h("div", { role: "rowgroup", class: "rows" });
    this.header = h("div", { role: "rowgroup", class: "header" });
    this.element.append(this.header, this.body);
    this.element.addEventListener("scroll", () => this.later(), { passive: true });
    addEventListener("resize", () => this.later());
    this.waiting = false;
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  // As wide as the ids at the beginning of the list.
  idWidth() {
    const longest = this.data.id.slice(0, 500).reduce((most, id) => Math.max(most, id.length), 4);
    return (1.5 + 0.5 * Math.min(innerWidth < 720 ? 9 : 18, longest)) + "rem";
  }

  columns() {
    const { data, state } = this;
    const several = data.runs.length > 1;
    const { run, metric } = state.values;
    const shown = data.runs[several ? run : 0];
    const key = (name) => (several ? run + "." : "") + name;
    const found = [
      { key: "id", label: "id", width: this.idWidth(), text: (row) => data.id[row] + (data.sample[row] ? " #" + data.sample[row] : "") },
      { key: "", label: "question", width: "minmax(8rem, 3fr)", text: (row) => data.question[row] },
    ];
    if (several) {
      const answers = (place) => ({ key: "", label: data.head.runs[place].name, width: "minmax(6rem, 3fr)", kind: "answer", text: (row) => data.runs[place].answer[row], state: data.runs[place].state });
      found.push(answers(0), answers(run));
      if (metric) found.push({ key: "delta", label: "Δ " + metric, width: "6rem", kind: "number keep", text: (row) => { const gap = data.delta(row, run, metric); return gap === null ? "" : signed(gap); }, tint: (row) => data.delta(row, run, metric) });
    } else {
      found.push({ key: "", label: "answer", width: "minmax(6rem, 4fr)", kind: "answer", text: (row) => shown.answer[row], state: shown.state });
      for (const name of Object.keys(shown.scores).slice(0, MOST_METRICS)) {
        found.push({ key: key("score." + name), label: name, width: "5.5rem", kind: "number keep", text: (row) => (shown.scores[name][row] === null ? "" : number(shown.scores[name][row])) });
      }
    }
    if (shown.finish.some(Boolean)) found.push({ key: key("finish"), label: "finish", width: "6rem", kind: "side", text: (row) => shown.finish[row] || (shown.state[row] === "answered" ? "" : shown.state[row]) });
    if (shown.tokens.some(Boolean)) found.push({ key: key("tokens"), label: "tokens", width: "5rem", kind: "number side", text: (row) => (shown.tokens[row] === null ? "" : number(shown.tokens[row])) });
    return found;
  }

  show(rows) {
    const kept = this.at >= 0 ? this.rows[this.at] : -1;
    this.rows = rows;
    this.at = rows.indexOf(kept);
    this.shown = this.columns();
    const reading = document.body.classList.contains("reading");
    const narrow = innerWidth < 720;
    let metrics = 0;
    const fits = (column) => !/answer|side/.test(column.kind || "") && (!/keep/.test(column.kind || "") || (metrics += 1) <= FEW_METRICS);
    if (reading || narrow) this.shown = this.shown.filter(fits);
    this.element.style.setProperty("--columns", this.shown.map((column) => column.width).join(" "));
    this.element.setAttribute("aria-rowcount", rows.length + 1);
    replace(this.header, h("div", { role: "row", class: "row", "aria-rowindex": 1 }, this.shown.map((column) => this.heading(column))));
    this.height = Math.min(rows.length * HEIGHT, TALLEST);
    this.body.style.height = Math.max(this.height, HEIGHT) + "px";
    this.drawn = "";
    this.draw();
  }

  heading(column) {
    const { sort, desc } = this.state.values;
    const sorted = column.key && sort === column.key;
    const properties = { role: "columnheader", class: column.kind || "", "aria-sort": sorted ? (desc ? "descending" : "ascending") : null };
    if (!column.key) return h("div", properties, visible(column.label));
    const next = () => (!sorted ? { sort: column.key, desc: /number/.test(column.kind || "") } : desc === /number/.test(column.kind || "") ? { sort: column.key, desc: !desc } : { sort: "", desc: false });
    return h("div", properties, h("button", { type: "button", onclick: () => this.state.set(next()) }, visible(column.label), sorted ? (desc ? " ↓" : " ↑") : ""));
  }

  // Where in the list the sight begins: lists taller than browsers can lay out are scrolled through in proportion.
  first() {
    const sight = this.element.clientHeight - HEIGHT;
    const room = Math.max(1, this.height - sight);
    const beyond = Math.max(0, this.rows.length * HEIGHT - sight);
    return Math.floor((Math.min(this.element.scrollTop, room) / room) * beyond / HEIGHT);
  }

  draw() {
    const sight = Math.ceil(this.element.clientHeight / HEIGHT) + 1;
    const first = this.first();
    const begin = Math.max(0, first - AROUND);
    const end = Math.min(this.rows.length, first + sight + AROUND);
    const mark = begin + "-" + end + "-" + this.at;
    if (mark === this.drawn) return;
    this.drawn = mark;
    const scaled = this.rows.length * HEIGHT > TALLEST;
    const top = scaled ? this.element.scrollTop - (first - begin) * HEIGHT : begin * HEIGHT;
    const drawn = [];
    for (let place = begin; place < end; place += 1) drawn.push(this.rowAt(place, top + (place - begin) * HEIGHT));
    if (!this.rows.length) drawn.push(h("div", { role: "row", class: "row none" }, h("div", { role: "gridcell" }, this.data.count ? "No chat fits the search and filters." : "No chats.")));
    this.body.replaceChildren(...drawn);
    if (this.at >= begin && this.at < end) this.element.setAttribute("aria-activedescendant", "row-" + this.at);
    else this.element.removeAttribute("aria-activedescendant");
  }

  rowAt(place, top) {
    const row = this.rows[place];
    const node = h("div", { role: "row", id: "row-" + place, class: "row" + (place === this.at ? " at" : ""), "aria-rowindex": place + 2,
      "aria-selected": String(place === this.at), onclick: () => { this.move(place, false); this.open(row); } },
    this.shown.map((column) => {
      const tint = column.tint?.(row);
      const state = column.state?.[row];
      const kind = [column.kind, tint > 0 ? "up" : tint < 0 ? "down" : "", state === "failed" ? "failed" : state === "absent" || state === "open" ? "absent" : ""].filter(Boolean).join(" ");
      return h("div", { role: "gridcell", class: kind || null }, visible(String(state === "absent" ? "not in this run" : column.text(row) ?? "")));
    }));
    node.style.transform = "translateY(" + top + "px)";
    return node;
  }

  // Put the mark on a row and bring it into sight.
  move(place, scroll = true) {
    if (!this.rows.length) return;
    this.at = Math.max(0, Math.min(this.rows.length - 1, place));
    if (scroll) this.reveal();
    this.draw();
  }

  reveal() {
    const sight = Math.max(1, Math.floor(this.element.clientHeight / HEIGHT) - 1);
    const first = this.first();
    if (this.at >= first && this.at < first + sight - 1) return;
    const wanted = this.at < first ? this.at : this.at - sight + 2;
    const beyond = Math.max(1, this.rows.length * HEIGHT - this.element.clientHeight + HEIGHT);
    const room = Math.max(1, this.height - this.element.clientHeight + HEIGHT);
    this.element.scrollTop = Math.ceil((wanted * HEIGHT / beyond) * room);
  }

  mark(row) {
    const place = this.rows.indexOf(row);
    if (place >= 0 && place !== this.at) this.move(place);
  }
}
