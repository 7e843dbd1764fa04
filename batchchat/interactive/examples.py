"""Questions to begin with."""

EXAMPLES = {
    "sum": "What is 17 plus 25?",
    "spell": "Spell the word lantern, letter by letter.",
    "memory": "My name is Noor and I live in Oslo. Please remember both.",
    "json": "Give me a JSON object with the keys name and age for Ida, who is 34.",
    "code": "Write a Python function that tells whether a text reads the same backwards.",
    "table": "Compare tea and coffee in a Markdown table with three rows.",
    "riddle": "Which is heavier, a kilogram of feathers or a kilogram of iron, and why?",
}
