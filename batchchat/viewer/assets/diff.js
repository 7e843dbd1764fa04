// What differs between two texts, word by word (Myers 1986, with a bound on the work).

const MOST_EDITS = 1200;

export function words(text) {
  return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || [];
}

// A list of [kind, text] with kind "same", "gone" (only in the first) or "new" (only in the second).
export function wordDiff(first, second) {
  const [a, b] = [words(first), words(second)];
  let begin = 0;
  while (begin < a.length && begin < b.length && a[begin] === b[begin]) begin += 1;
  let end = 0;
  while (end < a.length - begin && end < b.length - begin && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const middle = edits(a.slice(begin, a.length - end), b.slice(begin, b.length - end));
  return joined([["same", a.slice(0, begin).join("")], ...middle, ["same", a.slice(a.length - end).join("")]]);
}

function joined(parts) {
  const found = [];
  for (const [kind, text] of parts) {
    if (!text) continue;
    const last = found[found.length - 1];
    if (last && last[0] === kind) last[1] += text;
    else found.push([kind, text]);
  }
  return found;
}

function edits(a, b) {
  const offset = a.length + b.length + 1;
  const furthest = new Int32Array(2 * offset + 1);
  const trace = [];
  for (let edit = 0; edit <= Math.min(a.length + b.length, MOST_EDITS); edit += 1) {
    trace.push(furthest.slice(offset - edit - 1, offset + edit + 2));
    for (let line = -edit; line <= edit; line += 2) {
      const down = line === -edit || (line !== edit && furthest[offset + line - 1] < furthest[offset + line + 1]);
      let x = down ? furthest[offset + line + 1] : furthest[offset + line - 1] + 1;
      while (x < a.length && x - line < b.length && a[x] === b[x - line]) x += 1;
      furthest[offset + line] = x;
      if (x >= a.length && x - line >= b.length) return walked(a, b, trace, edit);
    }
  }
  return [["gone", a.join("")], ["new", b.join("")]]; // too different to say word by word
}

function walked(a, b, trace, last) {
  const found = [];
  let [x, y] = [a.length, b.length];
  for (let edit = last; edit >= 0; edit -= 1) {
    const at = (line) => trace[edit][line + edit + 1];
    const line = x - y;
    const down = line === -edit || (line !== edit && at(line - 1) < at(line + 1));
    const before = down ? line + 1 : line - 1;
    const [fromX, fromY] = [at(before), at(before) - before];
    while (x > fromX && y > fromY) {
      x -= 1;
      y -= 1;
      found.push(["same", a[x]]);
    }
    if (edit === 0) break;
    found.push(down ? ["new", b[fromY]] : ["gone", a[fromX]]);
    [x, y] = [fromX, fromY];
  }
  return found.reverse();
}
