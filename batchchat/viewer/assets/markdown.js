// Markdown as elements. HTML stays text, images are named and not loaded, links lead to web and mail addresses alone.

import { h } from "./dom.js";
import { visible } from "./text.js";

const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*(?=\S)([\s\S]+?)(?<=\S)\*\*|__(?=\S)([\s\S]+?)(?<=\S)__|~~(?=\S)([\s\S]+?)(?<=\S)~~|\*(?=[^\s*])([^*]+?)(?<=\S)\*|\b_(?=[^\s_])([^_]+?)(?<=\S)_\b|(!?)\[([^\]\n]*)\]\(\s*<?([^\s)>]*)>?(?:\s+"[^"]*")?\s*\)|(https?:\/\/[^\s<>()]+[^\s<>().,;:!?'"])/u;
const MOST_LEVELS = 6;

export function markdown(text) {
  return blocks(visible(text).split("\n"), 0);
}

function blocks(lines, level) {
  const found = [];
  let at = 0;
  const take = (test) => {
    const begin = at;
    while (at < lines.length && test(lines[at], at - begin)) at += 1;
    return lines.slice(begin, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/.exec(line);
    const heading = /^\s{0,3}(#{1,6})\s+(.*?)\s*#*$/.exec(line);
    if (!line.trim()) at += 1;
    else if (fence) {
      at += 1;
      const code = take((one) => !one.trimStart().startsWith(fence[1]));
      at += 1;
      found.push(h("pre", { tabindex: "0", "aria-label": "code " + fence[2] }, h("code", {}, code.join("\n"))));
    } else if (heading) {
      at += 1;
      found.push(h("p", { class: "heading h" + heading[1].length }, inline(heading[2], 0)));
    } else if (/^\s{0,3}([-*_])(\s*\1){2,}\s*$/.test(line)) {
      at += 1;
      found.push(h("hr"));
    } else if (/^\s{0,3}>/.test(line) && level < MOST_LEVELS) {
      const inside = take((one) => /^\s{0,3}>/.test(one)).map((one) => one.replace(/^\s{0,3}> ?/, ""));
      found.push(h("blockquote", {}, blocks(inside, level + 1)));
    } else if (isItem(line) && level < MOST_LEVELS) found.push(list(take, line, level));
    else if (isTable(lines, at)) found.push(table(take((one) => one.includes("|"))));
    else {
      const said = take((one, place) => place === 0 || (one.trim() && !/^\s{0,3}(`{3,}|~{3,}|#{1,6}\s|>)/.test(one) && !isItem(one)));
      found.push(h("p", {}, said.map((one, place) => [place ? h("br") : null, inline(one.trimEnd(), 0)])));
    }
  }
  return found;
}

// Whether two items belong to one list: both with bullets, or both numbered.
function alike(one, other) {
  return /^\s*\d/.test(one) === /^\s*\d/.test(other);
}

function isItem(line) {
  return /^\s*([-*+]|\d{1,9}[.)])\s+\S/.test(line);
}

function list(take, first, level) {
  const mark = /^(\s*)([-*+]|(\d{1,9})[.)])\s+/.exec(first);
  const indent = mark[1].length;
  const inList = (one) => one.trim() === "" || one.search(/\S/) > indent + 1 || (isItem(one) && alike(one, first));
  const lines = take((one, place) => place === 0 || inList(one));
  while (lines.length && !lines[lines.length - 1].trim()) lines.pop();
  const items = [];
  for (const line of lines) {
    const item = isItem(line) && line.search(/\S/) <= indent + 1;
    if (item) items.push([line.replace(/^\s*([-*+]|\d{1,9}[.)])\s+/, "")]);
    else items[items.length - 1].push(line.slice(Math.min(Math.max(0, line.search(/\S/)), indent + 2)));
  }
  const inside = (lines) => (lines.length === 1 ? inline(lines[0], 0) : blocks(lines, level + 1));
  return h(mark[3] ? "ol" : "ul", { start: mark[3] && mark[3] !== "1" ? mark[3] : null }, items.map((lines) => h("li", {}, inside(lines))));
}

function isTable(lines, at) {
  return lines[at].includes("|") && /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$/.test(lines[at + 1] || "") && lines[at + 1].includes("|");
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim(), 0));
  const row = (line, tag) => h("tr", {}, cells(line).map((cell) => h(tag, {}, cell)));
  return h("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "table" },
    h("table", {}, h("thead", {}, row(lines[0], "th")), h("tbody", {}, lines.slice(2).map((line) => row(line, "td")))));
}

function inline(text, level) {
  const found = [];
  let rest = text;
  while (rest) {
    const match = level < MOST_LEVELS && INLINE.exec(rest);
    if (!match) return [...found, rest];
    if (match.index) found.push(rest.slice(0, match.index));
    found.push(span(match, level + 1));
    rest = rest.slice(match.index + match[0].length);
  }
  return found;
}

function span(match, level) {
  const [whole, ticks, code, bold, bolder, gone, slanted, slant, image, label, address, bare] = match;
  if (ticks) return h("code", {}, code.trim());
  if (bold || bolder) return h("strong", {}, inline(bold || bolder, level));
  if (gone) return h("s", {}, inline(gone, level));
  if (slanted || slant) return h("em", {}, inline(slanted || slant, level));
  if (image) return h("span", { class: "image-name", title: address }, "image: " + (label || address));
  return link(bare || address, bare ? [bare] : inline(label, level), whole);
}

function link(address, shown, whole) {
  let parsed;
  try {
    parsed = new URL(address);
  } catch {
    return whole;
  }
  if (!["http:", "https:", "mailto:"].includes(parsed.protocol)) return whole;
  return h("a", { href: parsed.href, target: "_blank", rel: "noopener noreferrer", title: parsed.href }, shown);
}
