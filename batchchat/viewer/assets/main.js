// Puts the parts together: data arrives, the address says what to show, and each part shows it.

import { ChatPane } from "./chat.js";
import { renderComparison, renderModes } from "./compare.js";
import { Data } from "./data.js";
import { byId, h, replace, settled } from "./dom.js";
import { exportLines, exportTable } from "./export.js";
import { fieldsOf } from "./fields.js";
import { FilterPanel, listed } from "./filters.js";
import { listenToKeys } from "./keys.js";
import { arrived, canUnpack, inFolder, inPage, served } from "./packed.js";
import { Search } from "./search.js";
import { State } from "./state.js";
import { Table } from "./table.js";
import { number, visible } from "./text.js";

const THEMES = ["auto", "light", "dark"];
const SECONDS_BETWEEN_LOOKS = 3;

class App {
  constructor(head) {
    this.head = head;
    this.state = new State();
    const source = head.mode === "served" ? served() : head.mode === "folder" ? inFolder() : inPage();
    this.data = new Data(head, canUnpack || head.mode === "served" ? source : null);
    this.search = new Search(this.data, () => this.list());
    this.panel = new FilterPanel(this.data, this.state);
    this.table = new Table(this.data, this.state, (row) => this.open(row, true));
    this.pane = new ChatPane(this.data, this.state, (by) => this.step(by));
    this.fields = [];
    this.complete = false;
  }

  start() {
    const { head, state } = this;
    this.title();
    if (head.first) this.data.add(head.first);
    this.choose();
    byId("query").value = state.values.q;
    byId("regex").checked = state.values.regex;
    const look = settled(150, () => state.set({ q: byId("query").value, regex: byId("regex").checked }));
    byId("query").addEventListener("input", look);
    byId("regex").addEventListener("change", look);
    byId("show-filters").addEventListener("click", () => this.toggleFilters());
    byId("show-help").addEventListener("click", () => byId("help").showModal());
    byId("export-jsonl").addEventListener("click", () => this.export(exportLines));
    byId("export-csv").addEventListener("click", () => this.export(exportTable));
    this.theme();
    listenToKeys(this);
    state.listen((values) => this.changed(values));
    this.refresh();
    this.load().catch((error) => this.note(error.message));
  }

  // Without a word in the address, the metric is the first that both runs have.
  choose() {
    const { head, state } = this;
    if (!head.runs[state.values.run] || state.values.run < 1) state.values.run = Math.min(1, head.runs.length - 1);
    const known = (head.differences[head.runs[state.values.run].name] || []).map((one) => one.metric);
    if (head.runs.length > 1 && !known.includes(state.values.metric)) state.values.metric = known[0] || "";
  }

  title() {
    const { runs } = this.head;
    byId("title").textContent = visible(runs.map((run) => run.title || run.name).filter((one, place, all) => all.indexOf(one) === place).join(" and "));
    const facts = runs.length === 1 ? Object.entries(runs[0].facts || {}) : [];
    replace(byId("facts"), facts.map(([name, value]) => h("li", {}, h("span", {}, visible(name)), " ", h("b", {}, visible(String(value))))));
    this.notes = [...this.head.notes, ...runs.filter((run) => !run.finished && this.head.mode !== "served" && !/\.jsonl/.test(run.path)).map((run) => run.name + " is not finished: this is what was done so far.")];
    this.showNotes();
  }

  note(text) {
    if (!this.notes.includes(text)) this.notes.push(text);
    this.showNotes();
  }

  showNotes() {
    replace(byId("notes"), this.notes.map((text) => h("p", { class: "warning" }, visible(text))));
  }

  async load() {
    if (this.head.mode === "served") return this.follow();
    await arrived();
    if (!canUnpack) {
      this.note("This browser has no DecompressionStream, so chats cannot be opened, and only the first "
        + number(this.data.count) + " of " + number(this.head.count) + " are listed; open the page in a newer browser.");
      return undefined;
    }
    for (let block = 0; block < this.head.blocks; block += 1) {
      this.data.add(JSON.parse(await this.data.source.block(block)));
      await new Promise((resolve) => setTimeout(resolve));
    }
    this.complete = true;
    this.search.begin(this.state.values.q, this.state.values.regex);
    this.refresh();
    return undefined;
  }

  // A run that goes on: what is not finished is asked for again.
  async follow() {
    const finished = [];
    for (;;) {
      const head = JSON.parse(await this.data.source.head());
      Object.assign(this.head, head);
      const blocks = [];
      for (let block = 0; block < head.blocks; block += 1) {
        if (!finished[block]) {
          const found = JSON.parse(await this.data.source.block(block));
          if (found.open === 0 && (block + 1 < head.blocks || head.finished)) finished[block] = found;
          blocks.push(found);
        } else blocks.push(finished[block]);
      }
      this.data.clear();
      this.data.forget();
      for (const block of blocks) this.data.add(block);
      this.complete = true;
      this.search.begin(this.state.values.q, this.state.values.regex);
      this.title();
      this.choose();
      this.refresh(this.pane.row >= 0 && this.pane.opened !== this.data.open);
      this.pane.opened = this.data.open;
      if (head.finished) return;
      await new Promise((resolve) => setTimeout(resolve, 1000 * SECONDS_BETWEEN_LOOKS));
    }
  }

  refresh(again = false) {
    this.fields = fieldsOf(this.data);
    renderComparison(this.data, this.state);
    renderModes(this.data, this.state);
    this.panel.render(this.fields);
    this.search.begin(this.state.values.q, this.state.values.regex);
    this.list();
    this.show(again);
  }

  list() {
    const rows = listed(this.data, this.fields, this.state.values, this.search);
    this.table.show(rows);
    const total = this.complete ? this.data.count : Math.max(this.head.count || 0, this.data.count);
    const more = this.search.wrong ? "the expression is not complete: " + this.search.wrong
      : this.search.running ? ", looked through " + Math.floor(100 * this.search.done / Math.max(1, this.data.rowsOf.size)) + " %" : "";
    const open = this.data.open ? ", " + number(this.data.open) + " not done yet" : "";
    byId("count").textContent = number(rows.length) + " of " + number(total) + " chats" + open + more;
  }

  changed(values) {
    const has = (...names) => names.some((name) => name in values);
    if (has("q", "regex")) {
      if (document.activeElement !== byId("query")) byId("query").value = this.state.values.q;
      this.search.begin(this.state.values.q, this.state.values.regex);
    }
    if (has("run", "metric")) { this.choose(); renderComparison(this.data, this.state); }
    if (has("show")) renderModes(this.data, this.state);
    if (has("filters")) {
      if (byId("filters").contains(document.activeElement) && document.activeElement.tagName === "INPUT") this.panel.chips();
      else this.panel.render(this.fields);
    }
    if (has("q", "regex", "filters", "show", "sort", "desc", "run", "metric")) this.list();
    if (has("chat", "sample", "view", "diff", "run")) this.show(has("view", "diff", "run"));
  }

  // Show the chat that the address names.
  async show(again = false) {
    const { chat, sample } = this.state.values;
    const row = chat === null ? -1 : this.data.find(chat, sample);
    if (chat !== null && row < 0 && this.complete) this.note("There is no chat " + chat + " here.");
    if (row === this.pane.row && !again) return;
    const before = document.body.classList.contains("reading");
    if (row >= 0 && !this.data.source) return;
    await this.pane.show(row);
    if (before !== document.body.classList.contains("reading")) this.list();
    if (row >= 0) this.table.mark(row);
  }

  open(row, step = false) {
    this.state.set({ chat: this.data.id[row], sample: this.data.sample[row] }, step);
  }

  step(by) {
    this.table.move(this.table.at < 0 && by > 0 && by < Infinity ? 0 : this.table.at + by);
    if (this.state.values.chat !== null && this.table.at >= 0) this.open(this.table.rows[this.table.at]);
  }

  toggleFilters() {
    const panel = byId("filters");
    panel.hidden = !panel.hidden;
    byId("show-filters").setAttribute("aria-expanded", String(!panel.hidden));
    this.list();
    if (!panel.hidden) panel.querySelector("summary")?.focus();
  }

  async export(write) {
    byId("export-menu").open = false;
    if (!this.data.source) return;
    const before = byId("count").textContent;
    byId("count").textContent = "writing " + number(this.table.rows.length) + " chats …";
    try {
      await write(this.data, this.table.rows);
      byId("count").textContent = before;
    } catch (error) {
      this.note(error.message);
    }
  }

  theme() {
    const button = byId("theme");
    const apply = (theme) => {
      if (theme === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = theme;
      button.textContent = "Theme: " + theme;
    };
    let theme = "auto";
    try { theme = localStorage.getItem("batchchat-theme") || "auto"; } catch { /* a page on a disk may keep nothing */ }
    apply(theme);
    button.addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      try { localStorage.setItem("batchchat-theme", theme); } catch { /* the same */ }
      apply(theme);
    });
  }
}

new App(JSON.parse(byId("head").textContent)).start();
