// One message as a bubble: its text in the chosen view, reasoning folded, tool calls, facts and scores.

import { h } from "./dom.js";
import { markdown } from "./markdown.js";
import { number, plainText, plural, visible } from "./text.js";
import { tokenView } from "./tokens.js";

const LONGEST = 20000;

// A long text is shown in part at first: laying out megabytes would stop the page.
function long(text, render) {
  if (text.length <= LONGEST) return render(text);
  const holder = h("div", {});
  const more = h("button", { type: "button", onclick: () => holder.replaceChildren(h("pre", { class: "text" }, visible(text))) },
    "Show all " + number(text.length) + " characters");
  holder.append(...[render(text.slice(0, LONGEST)), more].flat(Infinity));
  return holder;
}

export function textView(text, view) {
  if (!text) return h("p", { class: "small" }, "no text");
  return long(text, view === "markdown" ? (part) => h("div", { class: "markdown" }, markdown(part))
    : (part) => h("pre", { class: "text", tabindex: "0" }, visible(part)));
}

function content(message) {
  if (typeof message.content === "string" || !message.content) return message.content || "";
  return JSON.stringify(message.content, null, 1);
}

function toolCalls(calls) {
  return calls.map((call) => {
    const body = call.function || call;
    return h("div", { class: "call" }, h("strong", {}, "calls ", h("code", {}, visible(String(body.name ?? "")))),
      h("pre", { class: "text", tabindex: "0" }, visible(plainText(body.arguments ?? {}))));
  });
}

// Where an answer holds its reasoning in its text, it is folded too.
export function parts(message) {
  const text = content(message);
  const found = /^\s*<(think|thinking|reasoning)>([\s\S]*?)<\/\1>\s*/.exec(text);
  if (message.reasoning_content || !found) return { reasoning: message.reasoning_content || "", text };
  return { reasoning: found[2], text: text.slice(found[0].length) };
}

export function bubble(message, view, options = {}) {
  const { reasoning, text } = parts(message);
  const label = message.role === "tool" ? "tool result" + (message.name ? " of " + message.name : "") : message.role;
  const facts = options.facts || {};
  let shown = options.diff || null;
  if (!shown && options.facts && view === "tokens" && facts.tokens) shown = tokenView(facts.tokens);
  if (!shown && options.facts && view === "raw") shown = h("pre", { class: "text", tabindex: "0" }, visible(facts.raw ?? content(message)));
  if (!shown && (text || !message.tool_calls)) shown = textView(text, message.role === "tool" ? "plain" : view);
  return h("div", { class: "bubble " + message.role, role: "group", "aria-label": visible(label) },
    h("h3", {}, visible(options.label || label), factsLine(facts)),
    reasoning && h("details", { class: "reasoning" }, h("summary", {}, "reasoning, " + number(reasoning.length) + " characters"), textView(reasoning, view)),
    shown,
    options.facts && view === "tokens" && !facts.tokens && h("p", { class: "small" }, "Tokens are recorded with generation.logprobs."),
    message.tool_calls && toolCalls(message.tool_calls),
    facts.note && h("p", { class: "warning" }, visible(facts.note)),
    (options.scores || []).map(score));
}

function factsLine(facts) {
  const said = [];
  if (facts.finish_reason) said.push(facts.finish_reason);
  if (facts.completion_tokens !== undefined) said.push(plural(facts.completion_tokens, "token"));
  if (facts.prompt_tokens !== undefined) said.push("prompt " + number(facts.prompt_tokens));
  if (facts.seconds) said.push(number(facts.seconds.working) + " s");
  if (facts.cut) said.push("cut: " + JSON.stringify(facts.cut));
  return said.length ? h("small", {}, said.join(" · ")) : null;
}

function score(line) {
  const value = line.value === null ? line.status : number(line.value);
  const more = [];
  if (line.parsed !== undefined) more.push(["read from the answer", line.parsed]);
  if (line.expected !== undefined) more.push(["expected", line.expected]);
  for (const [name, found] of Object.entries(line.details || {})) more.push([name, number(found)]);
  if (line.counted !== line.value) more.push(["counted", line.counted === null ? "not in the mean" : number(line.counted)]);
  return h("details", { class: "score " + (line.status === "unscored" ? "" : line.grade) }, h("summary", {}, h("b", {}, visible(line.metric)), " ", value, " ", h("span", {}, visible(line.reason || ""))),
    more.length ? h("dl", { class: "pairs" }, more.map(([name, found]) => h("div", {}, h("dt", {}, visible(name)), h("dd", {}, visible(String(found)))))) : null,
    (line.judge || []).map((said) => h("blockquote", {}, textView(said, "markdown"))));
}
