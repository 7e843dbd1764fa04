// How two runs differ: each metric with its paired interval, and which chats to look at.

import { byId, h, replace } from "./dom.js";
import { number, signed, visible } from "./text.js";

const MODES = ["all", "changed", "worse", "better"];

function verdict(found) {
  if (found.low === null || found.low === undefined) return "";
  return found.low > 0 ? "good" : found.high < 0 ? "bad" : "";
}

export function renderComparison(data, state) {
  const { head } = data;
  const panel = byId("comparison");
  panel.hidden = head.runs.length < 2;
  if (panel.hidden) return;
  const { run, metric } = state.values;
  const name = head.runs[run].name;
  const found = head.differences[name] || [];
  replace(panel,
    h("p", {}, head.runs.length > 2
      ? h("label", {}, "compared: ", h("select", { onchange: (event) => state.set({ run: Number(event.target.value) }) },
        head.runs.slice(1).map((one, place) => h("option", { value: place + 1, selected: place + 1 === run }, visible(one.name)))))
      : h("b", {}, visible(name)), " against ", h("b", {}, visible(head.runs[0].name))),
    found.length ? h("div", { class: "tiles" }, found.map((one) => h("button", { type: "button", class: "tile " + verdict(one),
      "aria-pressed": String(one.metric === metric), title: one.method + "; " + one.test + ", p " + number(one.p) + " after correction",
      onclick: () => state.set({ metric: one.metric }) },
    h("span", {}, visible(one.metric)), h("b", {}, signed(one.difference)),
    h("small", {}, one.low === null || one.low === undefined ? "no interval" : signed(one.low) + " to " + signed(one.high), ", n " + number(one.n)),
    h("small", {}, number(one.theirs) + " → " + number(one.ours))))) : null);
}

export function renderModes(data, state) {
  const group = byId("modes");
  group.hidden = data.runs.length < 2;
  const { show } = state.values;
  replace(group, MODES.map((mode) => h("button", { type: "button", "aria-pressed": String(show === mode),
    onclick: () => state.set({ show: mode }) }, mode)));
}
