// The open chat: what was asked, what each run answered, and the row's own columns.

import { bubble, parts } from "./answer.js";
import { byId, h, replace } from "./dom.js";
import { wordDiff } from "./diff.js";
import { number, plainText, visible } from "./text.js";

export class ChatPane {
  constructor(data, state, step) {
    this.data = data;
    this.state = state;
    this.step = step;
    this.row = -1;
  }

  // Which runs are shown side by side: the first, and the one that it is compared with.
  places() {
    return this.data.runs.length > 1 ? [0, this.state.values.run] : [0];
  }

  async show(row) {
    this.row = row;
    const pane = byId("chat");
    pane.hidden = row < 0;
    document.body.classList.toggle("reading", row >= 0);
    if (row < 0) return;
    replace(pane, this.head(row), h("p", { class: "small" }, "opening …"));
    let chat;
    try {
      chat = await this.data.chat(row);
    } catch (error) {
      replace(pane, this.head(row), h("p", { class: "warning" }, visible(error.message)));
      return;
    }
    if (row !== this.row) return;
    replace(pane, this.head(row), this.badges(row), this.body(chat), this.rest(chat));
    pane.scrollTop = 0;
  }

  head(row) {
    const button = (label, act, text) => h("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
    return h("div", { class: "chat-head" },
      h("h2", {}, visible(this.data.id[row]), this.data.sample[row] ? h("small", {}, "sample " + this.data.sample[row]) : null),
      h("div", { class: "actions" },
        this.views(), button("Previous chat (k)", () => this.step(-1), "↑"), button("Next chat (j)", () => this.step(1), "↓"),
        button("Close (Esc)", () => this.state.set({ chat: null }, true), "×")));
  }

  views() {
    const { view, diff } = this.state.values;
    const choice = (name, key) => h("button", { type: "button", "aria-pressed": String(view === name && !diff), title: "key " + key,
      onclick: () => this.state.set({ view: name, diff: false }) }, name);
    return h("div", { class: "segmented", role: "group", "aria-label": "How texts are shown" },
      choice("markdown", "m"), choice("plain", "m"), choice("tokens", "t"), choice("raw", "r"),
      this.data.runs.length > 1 && h("button", { type: "button", "aria-pressed": String(diff), title: "key d",
        onclick: () => this.state.set({ diff: !diff }) }, "differences"));
  }

  badges(row) {
    const found = [];
    for (const place of this.places()) {
      const run = this.data.runs[place];
      const name = this.data.runs.length > 1 ? this.data.head.runs[place].name + ": " : "";
      if (run.state[row] !== "answered") found.push(h("span", { class: "badge bad" }, visible(name), run.state[row]));
      for (const [metric, values] of Object.entries(run.scores)) {
        if (values[row] === null || values[row] === undefined) continue;
        found.push(h("span", { class: "badge " + this.data.grade(metric, values[row]) }, visible(name + metric), " ", h("b", {}, number(values[row]))));
      }
      if (run.asked_else[row]) found.push(h("span", { class: "badge bad" }, visible(name), "asks something else under this id"));
    }
    return h("p", { class: "badges" }, found);
  }

  body(chat) {
    const { view } = this.state.values;
    const found = [];
    if (chat.raw) found.push(h("div", { class: "bubble" }, h("h3", {}, "the row, which could not be read"), h("pre", { class: "text", tabindex: "0" }, visible(chat.raw))));
    const places = this.places();
    const segments = chat.segments || [];
    const turns = Math.max(segments.length, ...places.map((place) => chat.runs[place]?.answers.length || 0));
    for (let turn = 0; turn < turns; turn += 1) {
      for (const message of segments[turn] || []) found.push(bubble(message, view));
      found.push(this.answers(chat, turn, places));
    }
    for (const message of chat.tail || []) found.push(bubble(message, view));
    for (const place of places) {
      const run = chat.runs[place];
      if (run?.reason) found.push(h("p", { class: "warning" }, visible(this.data.head.runs[place].name + ": " + run.reason)));
    }
    return h("div", { class: "conversation" }, found);
  }

  answers(chat, turn, places) {
    const { view, diff } = this.state.values;
    const texts = places.map((place) => chat.runs[place]?.answers[turn]).map((answer) => (answer ? parts(answer).text : null));
    const compared = diff && places.length > 1 && texts[0] !== null && texts[1] !== null ? wordDiff(texts[0], texts[1]) : null;
    const shown = places.map((place, side) => {
      const run = chat.runs[place];
      const several = places.length > 1;
      const label = several ? this.data.head.runs[place].name : "assistant";
      const scores = (run?.scores || []).filter((line) => line.turn === turn)
        .map((line) => ({ ...line, grade: line.value === null ? "bad" : this.data.grade(line.metric, line.value) }));
      const answer = run?.answers[turn];
      if (!answer) {
        const why = !run ? "this run has no such chat" : run.state === "open" ? "not answered yet" : "no answer";
        return h("div", { class: "bubble assistant missing" }, h("h3", {}, visible(label)), h("p", { class: "small" }, why));
      }
      const own = run.own?.segments?.[turn];
      const asked = own ? h("details", { class: "own" }, h("summary", {}, "asked here"), own.map((message) => bubble(message, view))) : null;
      return h("div", {}, asked, bubble(answer, view, { label, facts: run.facts[turn] || {}, scores, diff: compared && sideOf(compared, side) }));
    });
    return h("div", { class: places.length > 1 ? "sides" : "" }, shown);
  }

  rest(chat) {
    const fold = (label, value) => h("details", { class: "fold" }, h("summary", {}, label), h("pre", { class: "text", tabindex: "0" }, visible(plainText(value))));
    const columns = Object.entries(chat.columns || {});
    return [
      chat.reference !== null && chat.reference !== undefined && fold("reference answer", chat.reference),
      chat.tools && fold("tools, " + chat.tools.length, chat.tools),
      columns.length > 0 && h("details", { class: "fold", open: true }, h("summary", {}, "columns of the row"),
        h("dl", { class: "pairs" }, columns.map(([name, value]) => h("div", {}, h("dt", {}, visible(name)), h("dd", {}, visible(plainText(value).slice(0, 5000))))))),
      chat.place && h("p", { class: "small" }, visible(chat.place)),
    ];
  }
}

function sideOf(compared, side) {
  const kind = side === 0 ? "gone" : "new";
  return h("pre", { class: "text diff", tabindex: "0" }, compared.filter(([what]) => what === "same" || what === kind)
    .map(([what, text]) => (what === "same" ? visible(text) : h(side === 0 ? "del" : "ins", {}, visible(text)))));
}
