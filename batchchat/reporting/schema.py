"""The JSON schema of what a run writes, and the page that is rendered from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from batchchat.chats.record import Record, unit_of
from batchchat.recipe.json_schema import Node, WithoutFieldTitles
from batchchat.reporting.report import Report, ScoreReport
from batchchat.scoring.row import ScoreRow
from batchchat.store.rows import ErrorRow, OutputFacts

_FILES: Mapping[str, tuple[str, tuple[type[Record], ...]]] = {
    "report.json": ("The report of a run, or of answers that another tool wrote.", (Report, ScoreReport)),
    "outputs.jsonl": (
        "One line for each sample that was answered, in the order of the input: the row's own columns, with the turns "
        "where its format has them, and the column `batchchat`. outputs.parquet holds the same.",
        (OutputFacts,),
    ),
    "errors.jsonl": ("One line for each row or sample that could not be answered.", (ErrorRow,)),
    "scores.jsonl": ("One line for each answer and metric.", (ScoreRow,)),
}
_REF = "#/$defs/"


def results_json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of an object with one member per file: what the file, or a line of it, holds."""
    models = [model for _, found in _FILES.values() for model in found]
    _, shared = models_json_schema(
        [(model, "validation") for model in models], schema_generator=WithoutFieldTitles, by_alias=True
    )
    return {
        "$schema": WithoutFieldTitles.schema_dialect,
        "$id": "results.schema.json",
        "title": "batchchat results",
        "type": "object",
        "properties": {file: _file(file, text, models) for file, (text, models) in _FILES.items()},
        **shared,
    }


def _file(file: str, text: str, models: tuple[type[Record], ...]) -> Node:
    found = [{"$ref": f"{_REF}{model.__name__}"} for model in models]
    if file == "outputs.jsonl":
        return {"description": text, "type": "object", "properties": {"batchchat": found[0]}, "required": ["batchchat"]}
    return {"description": text, "anyOf": found}


def results_page() -> str:
    """docs/OUTPUT.md: every field of every file as Markdown tables."""
    records: Mapping[str, Node] = results_json_schema()["$defs"]
    lines = [
        "# What a run writes",
        "",
        "Made from the schema by `batchchat schema --results --markdown --output docs/OUTPUT.md`; not written by hand.",
        "`batchchat schema --results` prints the JSON schema itself.",
        "",
        "A field that is not always there is left out where there is nothing to say. Where something could not be",
        "measured, `missing` says why, under the field's dotted name.",
    ]
    told: set[str] = set()
    for file, (text, models) in _FILES.items():
        lines += ["", f"## {file}", "", text]
        for model in models:
            for name in _reached(model.__name__, records):
                if name not in told:
                    told.add(name)
                    lines += _section(name, records)
    return "\n".join(lines) + "\n"


def _reached(name: str, records: Mapping[str, Node]) -> Iterator[str]:
    """A record and those inside of it that have fields, each once, depth first."""
    seen: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in seen or "properties" not in records[name]:
            return
        seen[name] = None
        for node in records[name]["properties"].values():
            for inside in _references(node):
                visit(inside)

    visit(name)
    return iter(seen)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "$ref" in node:
            yield node["$ref"].removeprefix(_REF)
        for inside in node.values():
            yield from _references(inside)
    elif isinstance(node, list):
        for inside in node:
            yield from _references(inside)


def _section(name: str, records: Mapping[str, Node]) -> list[str]:
    node = records[name]
    head = ["", f"### {name}", "", _line(node["description"]), ""]
    head += ["| field | holds | unit | always | meaning |", "|---|---|---|---|---|"]
    required = node.get("required", ())
    return head + [
        f"| `{field}` | {_holds(of)} | {unit_of(of) or ''} | {'yes' if field in required else 'no'} | "
        f"{_line(_meaning(of, records))} |"
        for field, of in node["properties"].items()
    ]


def _meaning(node: Node, records: Mapping[str, Node]) -> str:
    """What a field says of itself; where it says the same as its record does, the schema says it once."""
    found: str = node.get("description") or records[node["$ref"].removeprefix(_REF)]["description"]
    return found


def _holds(node: Node) -> str:
    """What a value may be, in words; records are links to their tables."""
    if "$ref" in node:
        name = node["$ref"].removeprefix(_REF)
        return "any JSON" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if "enum" in node or "const" in node:
        return " or ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    branches = node.get("anyOf", node.get("oneOf"))
    if branches:
        return " or ".join(_holds(branch) for branch in branches)
    kind = str(node.get("type", "any JSON"))
    if kind == "array":
        inside = node.get("prefixItems")
        return f"list of {_holds(node['items'])}" if inside is None else f"pair of {' and '.join(map(_holds, inside))}"
    if kind == "object":
        return f"object of {_holds(node.get('additionalProperties', {}))}"
    return _WORDS.get(kind, kind)


_WORDS = {"string": "text", "boolean": "true or false"}


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")
