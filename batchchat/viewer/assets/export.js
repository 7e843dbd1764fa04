// What is listed, as a file: made in the browser, chat by chat.

function save(name, parts, type) {
  const address = URL.createObjectURL(new Blob(parts, { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function conversation(chat, run) {
  const found = [];
  (chat.segments || []).forEach((segment, turn) => {
    found.push(...segment);
    if (run.answers[turn]) found.push(run.answers[turn]);
  });
  return [...found, ...(chat.tail || [])];
}

// One line for each chat and run.
export async function exportLines(data, rows) {
  const parts = [];
  for (const row of rows) {
    const chat = await data.chat(row);
    chat.runs.forEach((run, place) => {
      if (!run) return;
      const scores = Object.fromEntries(Object.entries(data.runs[place].scores).map(([name, values]) => [name, values[row] ?? null]));
      parts.push(JSON.stringify({ ...chat.columns, id: data.id[row], sample: data.sample[row], run: data.head.runs[place].name,
        state: run.state, finish_reason: data.runs[place].finish[row], messages: conversation(run.own || chat, run), scores,
        ...(run.reason ? { reason: run.reason } : {}) }) + "\n");
    });
  }
  save("chats.jsonl", parts, "application/jsonl");
}

export async function exportTable(data, rows) {
  const cell = (value) => (value === null || value === undefined ? "" : '"' + String(value).replaceAll('"', '""') + '"');
  const columns = Object.keys(data.columns);
  const header = ["id", "sample", "run", "state", "finish_reason", "question", "answer", "completion_tokens", "prompt_tokens"];
  const metrics = [...new Set(data.runs.flatMap((run) => Object.keys(run.scores)))];
  const lines = [[...header, ...metrics, ...columns].map(cell).join(",") + "\r\n"];
  for (const row of rows) {
    const chat = await data.chat(row);
    chat.runs.forEach((run, place) => {
      if (!run) return;
      const figures = data.runs[place];
      const users = (chat.segments || []).flat().filter((message) => message.role === "user");
      const answer = run.answers[run.answers.length - 1];
      lines.push([data.id[row], data.sample[row], data.head.runs[place].name, run.state, figures.finish[row], users[0]?.content, answer?.content,
        figures.tokens[row], figures.prompt_tokens[row], ...metrics.map((name) => figures.scores[name]?.[row]), ...columns.map((name) => data.columns[name][row])]
        .map(cell).join(",") + "\r\n");
    });
  }
  save("chats.csv", lines, "text/csv");
}
