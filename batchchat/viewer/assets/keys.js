// The keyboard.

import { byId } from "./dom.js";

export function listenToKeys(app) {
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
    if (event.key === "Escape") return escape(app, event, typing);
    if (typing || event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return undefined;
    const act = actions(app)[event.key];
    if (!act) return undefined;
    if (event.key === "Enter" && event.target !== byId("table") && event.target !== document.body) return undefined;
    if (/^(Arrow|Page|Home|End)/.test(event.key) && event.target !== byId("table")) return undefined;
    event.preventDefault();
    act();
    return undefined;
  });
}

function escape(app, event, typing) {
  if (byId("help").open) return;
  if (typing) event.target.blur();
  else if (app.state.values.chat !== null) {
    app.state.set({ chat: null }, true);
    byId("table").focus();
  }
}

function actions(app) {
  const { state, table } = app;
  const { view, diff } = state.values;
  const page = Math.max(1, Math.floor(byId("table").clientHeight / 38) - 2);
  return {
    j: () => app.step(1), k: () => app.step(-1),
    ArrowDown: () => app.step(1), ArrowUp: () => app.step(-1),
    PageDown: () => app.step(page), PageUp: () => app.step(-page),
    Home: () => app.step(-Infinity), End: () => app.step(Infinity),
    Enter: () => table.at >= 0 && app.open(table.rows[table.at], true),
    "/": () => byId("query").select(),
    f: () => app.toggleFilters(),
    d: () => state.set({ diff: !diff }),
    m: () => state.set({ view: view === "markdown" ? "plain" : "markdown", diff: false }),
    t: () => state.set({ view: view === "tokens" ? "markdown" : "tokens", diff: false }),
    r: () => state.set({ view: view === "raw" ? "markdown" : "raw", diff: false }),
    "?": () => byId("help").showModal(),
  };
}
