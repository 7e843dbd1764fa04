// The fields by which chats are filtered and sorted: their names, kinds and values.

const MOST_CHOICES = 60;

// kind: "choice" (few values), "number" or "text". `of(row)` is a chat's value.
export function fieldsOf(data) {
  const several = data.runs.length > 1;
  const fields = [];
  const own = Object.entries(data.columns).filter(([, values]) => !values.every((value, row) => String(value) === data.id[row]));
  for (const [name, values] of own) fields.push(fieldOf("column." + name, name, values, null));
  data.runs.forEach((run, place) => {
    const label = several ? data.head.runs[place].name + ": " : "";
    const key = (name) => (several ? place + "." : "") + name;
    const add = (name, shown, values) => fields.push(fieldOf(key(name), label + shown, values, place));
    add("state", "state", run.state);
    add("finish", "finish reason", run.finish);
    for (const [metric, values] of Object.entries(run.scores)) add("score." + metric, metric, values);
    add("tokens", "tokens written", run.tokens);
    add("prompt_tokens", "prompt tokens", run.prompt_tokens);
    add("characters", "characters of the answer", run.characters);
    add("tool_calls", "tool calls", run.tool_calls);
  });
  if (data.sample.some((value) => value > 0)) fields.push(fieldOf("sample", "sample", data.sample, null));
  fields.push(fieldOf("id", "id", data.id, null));
  return fields.filter((field) => field.kind !== "none");
}

function fieldOf(key, label, values, run) {
  const field = { key, label, run, values, kind: "none", of: (row) => values[row] };
  let numbers = 0;
  let known = 0;
  const counts = new Map();
  for (const value of values) {
    if (value === null || value === undefined) continue;
    known += 1;
    if (typeof value === "number") numbers += 1;
    if (counts.size <= MOST_CHOICES) counts.set(value, (counts.get(value) || 0) + 1);
  }
  if (!known || (counts.size === 1 && known === values.length)) return field; // nothing to tell chats apart by
  if (numbers === known) {
    field.kind = "number";
    field.low = values.reduce((low, value) => (typeof value === "number" && value < low ? value : low), Infinity);
    field.high = values.reduce((high, value) => (typeof value === "number" && value > high ? value : high), -Infinity);
  } else if (counts.size <= MOST_CHOICES && (key !== "id")) {
    field.kind = "choice";
    field.counts = [...counts].sort((a, b) => b[1] - a[1]);
  } else {
    field.kind = "text";
  }
  return field;
}
