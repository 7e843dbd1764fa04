// The table's columns in memory, and the chats on demand.

const KEPT_CHUNKS = 24;

function emptyRun() {
  return { state: [], finish: [], answer: [], tokens: [], prompt_tokens: [], characters: [], tool_calls: [],
    changed: [], asked_else: [], scores: {} };
}

function extend(columns, more, before, count) {
  for (const [name, values] of Object.entries(more)) {
    if (!columns[name]) columns[name] = new Array(before).fill(null);
    for (const value of values) columns[name].push(value);
  }
  for (const values of Object.values(columns)) while (values.length < before + count) values.push(null);
}

export class Data {
  constructor(head, source) {
    this.head = head;
    this.source = source;
    this.chunks = new Map();
    this.clear();
  }

  clear() {
    this.count = 0;
    this.open = 0;
    this.id = []; this.sample = []; this.index = []; this.question = []; this.chunk = []; this.place = [];
    this.columns = {};
    this.runs = this.head.runs.map(emptyRun);
    this.rowsOf = new Map();
  }

  add(block) {
    const before = this.count;
    for (const name of ["id", "sample", "index", "question"]) for (const value of block[name]) this[name].push(value);
    for (const chunk of block.chunk) {
      const rows = this.rowsOf.get(chunk) || [];
      this.chunk.push(chunk);
      this.place.push(rows.length);
      rows.push(this.chunk.length - 1);
      this.rowsOf.set(chunk, rows);
    }
    extend(this.columns, block.columns, before, block.count);
    block.runs.forEach((run, place) => {
      const { scores, ...figures } = run;
      for (const [name, values] of Object.entries(figures)) for (const value of values) this.runs[place][name].push(value);
      extend(this.runs[place].scores, scores, before, block.count);
    });
    this.count += block.count;
    this.open += block.open;
  }

  // Forget chats that may have changed since.
  forget() {
    this.chunks.clear();
  }

  chunkText(number) {
    return this.source.chunk(number);
  }

  async chats(number) {
    let chats = this.chunks.get(number);
    this.chunks.delete(number);
    if (!chats) chats = this.chunkText(number).then(JSON.parse);
    this.chunks.set(number, chats);
    chats.catch(() => this.chunks.delete(number));
    if (this.chunks.size > KEPT_CHUNKS) this.chunks.delete(this.chunks.keys().next().value);
    return chats;
  }

  async chat(row) {
    return (await this.chats(this.chunk[row]))[this.place[row]];
  }

  find(id, sample) {
    for (let row = 0; row < this.count; row += 1) if (this.id[row] === id && this.sample[row] === sample) return row;
    return -1;
  }

  // Whether a metric says right or wrong, or how right: only then is 1 good and 0 bad.
  isShare(metric) {
    if (this.sharesOf !== this.count) {
      this.sharesOf = this.count;
      this.shares = new Map();
    }
    if (!this.shares.has(metric)) {
      const fits = (value) => value === null || value === undefined || (value >= 0 && value <= 1);
      this.shares.set(metric, this.runs.every((run) => (run.scores[metric] || []).every(fits)));
    }
    return this.shares.get(metric);
  }

  // good, bad or nothing
  grade(metric, value) {
    if (!this.isShare(metric)) return "";
    return value === 1 ? "good" : value === 0 ? "bad" : "";
  }

  // What a run's score of a chat is more than the first run's; null where one of them has none.
  delta(row, run, metric) {
    const ours = this.runs[run].scores[metric]?.[row];
    const theirs = this.runs[0].scores[metric]?.[row];
    return ours === null || ours === undefined || theirs === null || theirs === undefined ? null : ours - theirs;
  }
}
