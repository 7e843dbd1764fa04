// Search through all texts: at once in what the table holds, then chat by chat in what is compressed.

// A test for texts, or the reason why there is none.
export function matcher(query, regex) {
  if (!query) return { test: null, pattern: null };
  if (!regex) {
    const wanted = query.toLowerCase();
    return { test: (text) => text.toLowerCase().includes(wanted), pattern: null };
  }
  try {
    const pattern = new RegExp(query, "iu");
    return { test: (text) => pattern.test(text), pattern };
  } catch (error) {
    return { test: null, pattern: null, wrong: error.message };
  }
}

// All texts of a chat that are searched.
export function* textsOf(chat) {
  yield* conversationTexts(chat);
  if (chat.raw) yield chat.raw;
  for (const value of Object.values(chat.columns || {})) yield typeof value === "string" ? value : JSON.stringify(value);
  for (const run of chat.runs) {
    if (!run) continue;
    if (run.reason) yield run.reason;
    if (run.own) yield* conversationTexts(run.own);
    yield* messageTexts(run.answers);
    for (const score of run.scores) {
      if (score.reason) yield score.reason;
      yield* score.judge || [];
    }
  }
}

function* conversationTexts(chat) {
  for (const segment of chat.segments || []) yield* messageTexts(segment);
  yield* messageTexts(chat.tail || []);
}

function* messageTexts(messages) {
  for (const message of messages) {
    if (typeof message.content === "string") yield message.content;
    else if (message.content) yield JSON.stringify(message.content);
    if (message.reasoning_content) yield message.reasoning_content;
    if (message.tool_calls) yield JSON.stringify(message.tool_calls);
  }
}

export class Search {
  constructor(data, tell) {
    this.data = data;
    this.tell = tell;
    this.test = null;
    this.number = 0;
    this.stop();
  }

  stop() {
    this.number += 1;
    this.hits = new Set();
    this.near = new Uint8Array(this.data.count); // what the table's own texts say: 1 yes, 2 no
    this.done = 0;
    this.running = false;
  }

  // Begin another search. Whoever lists chats asks `matches`, again each time that `tell` is called.
  begin(query, regex) {
    const found = matcher(query, regex);
    this.stop();
    this.test = found.test;
    this.wrong = found.wrong;
    if (this.test && this.data.source) this.through(query, regex, this.number);
  }

  matches(row) {
    if (!this.test) return true;
    if (this.hits.has(row)) return true;
    if (!this.near[row]) this.near[row] = this.inTable(row) ? 1 : 2;
    return this.near[row] === 1;
  }

  inTable(row) {
    const { id, question, runs } = this.data;
    return this.test(id[row]) || this.test(question[row]) || runs.some((run) => this.test(run.answer[row]));
  }

  async through(query, regex, mine) {
    this.running = true;
    // JSON holds plain letters as they are, so a chunk without them need not be read
    const plain = !regex && /^[\x20-\x7e]*$/.test(query) && !/["\\<]/.test(query) ? query.toLowerCase() : null;
    let told = performance.now();
    const chunks = [...this.data.rowsOf.keys()];
    for (const number of chunks) {
      let text;
      try {
        text = await this.data.chunkText(number);
      } catch {
        continue; // the chat says what is wrong when it is opened
      }
      if (mine !== this.number) return;
      if (plain === null || text.toLowerCase().includes(plain)) {
        const rows = this.data.rowsOf.get(number);
        JSON.parse(text).forEach((chat, place) => {
          for (const one of textsOf(chat)) if (this.test(one)) { this.hits.add(rows[place]); break; }
        });
      }
      this.done += 1;
      if (performance.now() - told > 250) {
        told = performance.now();
        this.tell();
        await new Promise((resolve) => setTimeout(resolve));
      }
    }
    if (mine !== this.number) return;
    this.running = false;
    this.tell();
  }
}
