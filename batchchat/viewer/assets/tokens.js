// An answer as its tokens, coloured by how probable each was, with what else was likely.

import { h } from "./dom.js";
import { visible } from "./text.js";

const STEPS = [0.9, 0.7, 0.5, 0.3, 0.1];

function share(logprob) {
  return logprob === null || logprob === undefined ? "unknown" : (100 * Math.exp(logprob)).toPrecision(3) + " %";
}

function told([token, logprob, top]) {
  const others = top.map(([text, p]) => share(p) + "  " + JSON.stringify(text));
  return JSON.stringify(token) + ": " + share(logprob) + (others.length ? "\nlikeliest:\n" + others.join("\n") : "");
}

export function tokenView(tokens) {
  const least = tokens.reduce((low, token) => Math.min(low, token[1] ?? 0), 0);
  return h("div", { class: "tokens" },
    h("p", { class: "small" }, tokens.length + " tokens; the least likely had " + share(least) + ". Rest the pointer on one, or tab to it."),
    tokens.map((token) => {
      const p = token[1] === null ? 1 : Math.exp(token[1]);
      const step = STEPS.filter((bound) => p < bound).length;
      return h("span", { class: "token p" + step, title: visible(told(token)), tabindex: step ? "0" : null,
        "aria-label": step ? visible(told(token)) : null, role: step ? "note" : null }, visible(token[0] ?? "").replaceAll("\n", "↵\n"));
    }));
}
