// Text as it is shown: control characters, direction marks and lone surrogates become visible.

// Joiners belong to emoji and to several scripts; line ends and tabs stay.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0001}\u{e0020}-\u{e007f}]|\p{Surrogate}/gu;

export function visible(text) {
  return text.replace(HIDDEN, (found) => {
    const code = found.codePointAt(0);
    return code < 256 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u" + code.toString(16).padStart(4, "0");
  });
}

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) || Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

export function plural(count, word) {
  return number(count) + " " + word + (count === 1 ? "" : "s");
}

export function signed(value, digits = 3) {
  return value > 0 ? "+" + number(value, digits) : number(value, digits);
}

// A value of a column, as text.
export function plainText(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 1);
}
