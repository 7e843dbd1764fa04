"""Forms in whole runs: said to be wrong before the model is asked, kept by it, and looked at afterwards."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchchat.chats import GrammarBackend, Structure
from batchchat.structure import agreement, refusal, unbounded
from batchchat.structure.backends import BACKENDS, byte_matchers
from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl

OPEN = {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}}}}


def nested(depth: int) -> Any:
    return {"type": "object", "properties": {"a": nested(depth - 1)}} if depth else {"type": "integer"}


def schema_of(size: int) -> Any:
    return {"type": "object", "properties": {f"field_{n}": {"enum": ["v" * 90]} for n in range(size // 120)}}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "array", "uniqueItems": True}, "has the keyword uniqueItems, which cannot be enforced"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "has the keyword not,"),
        ({"properties": {"a": {"type": "string", "format": "sonnet"}}}, "Unknown format: sonnet"),
        ({"type": "string", "const": 5}, "Unsatisfiable schema"),
        ({"type": "array", "minItems": 5, "maxItems": 2}, r"minItems \(5\) is greater than maxItems \(2\)"),
        ({"$ref": "#"}, "at # for a value that holds another one like it without end"),
        (
            {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
            "at #/properties/next for a value that holds another",
        ),
        ({"anyOf": [{"$ref": "#/anyOf/1"}, {"$ref": "#/anyOf/0"}]}, "without end"),
        ({"$ref": "#/nowhere"}, "/nowhere"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "not"),
        ({"type": "objekt"}, "is none at #/type"),
        ({"properties": 5}, "is none at #/properties"),
        ({"pattern": "^(?=a)b$", "type": "string"}, "look-around"),
        ({"pattern": "^a{1000}{1000}$", "type": "string"}, "repeats a part 1,000,000 times"),
        ({"const": "a" * 20_000}, "a text of 20,000 characters"),
        ({"const": "\ud83d"}, "half a surrogate pair"),
        (nested(300), "nested too deeply"),
        (schema_of(2_000_000), "bytes, more than the 1,000,000 that are allowed"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_in_a_sentence(schema: Any, says: str) -> None:
    reason = refusal(Structure("json_schema", json.dumps(schema)))
    assert reason is not None
    assert re.search(says, reason), reason
    assert "\n" not in reason
    assert len(reason) < 500


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (Structure("regex", "[^\\s\\S]"), "matches no text at all"),
        (Structure("regex", "(a"), "unclosed group"),
        (Structure("regex", "(?-u:\\xc3)"), "can match invalid UTF-8"),
        (Structure("regex", "(a)\\1"), "backreferences are not supported"),
        (Structure("grammar", "start: foo"), 'unknown name: "foo"'),
        (Structure("grammar", 'start: "a" start'), "the rule start, which never ends"),
        (Structure("grammar", 'start: x | "b"\nx: "y" (z | "(" x ")")\nz: x x'), "the rule x, which never ends"),
        (Structure("grammar", 'start: /a/ more+\n?more[lazy]: "," (start | [more] start)'), "the rule start, which"),
        (Structure("grammar", 'start: x* "b"\nx: "a" x'), "the rule x, which never ends"),
        (Structure("grammar", 'start: x{0,2} "b"\nx: "a" x'), "the rule x, which never ends"),
        (Structure("grammar", "start: list\nlist: item{1,3}\nitem: /[0-9]/ list"), "the rule list, which never ends"),
        (Structure("grammar", "begin: /a/"), "no start rule"),
        (Structure("grammar", "start: <|im_end|>"), "special_token"),
        (Structure("grammar", "start: <[195]>"), "can't validate"),
        (Structure("grammar", "start: /(?-u:\\xc3)/"), "can match invalid UTF-8"),
    ],
)
def test_other_forms_too(form: Structure, says: str) -> None:
    assert says in (refusal(form) or "")


BY_XGRAMMAR: list[tuple[Structure, str]] = [
    *(
        (Structure("json_schema", json.dumps(schema)), says)
        for schema, says in (
            ({"properties": {"a": {"uniqueItems": True, "type": "array"}}}, "keyword uniqueItems at #/properties/a"),
            ({"x-guidance": {}, "not": {}}, "keyword not at #"),
            ({"type": "object", "patternProperties": {"^a": {}}}, "keyword patternProperties at #"),
            (
                {"oneOf": [{"minimum": 3}, {"type": "string"}]},
                "keyword oneOf with parts that may have values in common",
            ),
            ({"oneOf": [{"enum": ["a"]}, {"type": "string"}]}, "keyword oneOf with parts"),
            ({"anyOf": [{"type": "null"}], "minimum": 3}, "keyword minimum beside anyOf"),
            ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, "keyword allOf with several parts"),
            ({"type": "object", "properties": {"a": {}}, "additionalProperties": {}}, "beside properties at #"),
            ({"type": "number", "multipleOf": 0.1}, "keyword multipleOf at #"),
            ({"type": "integer", "multipleOf": 3, "minimum": 1}, "keyword minimum beside multipleOf at #"),
            ({"type": "number", "minimum": 1e-9}, "keyword minimum 1e-09 at #"),
            ({"type": "string", "format": "json-pointer"}, "the format json-pointer at #"),
            ({"type": "string", "pattern": "a", "maxLength": 3}, "keyword maxLength beside pattern"),
            ({"type": "string", "pattern": "^a|b$"}, "an anchor on one side of | is not read"),
            ({"type": "string", "pattern": "a\\bc"}, "in which \\b is not read"),
            ({"type": "string", "pattern": "^\\t$"}, "in which \\t is not read"),
            ({"$ref": "#/nowhere"}, "a reference to #/nowhere, which is none of its parts"),
            ({"type": "integer", "minimum": 5, "maximum": 2}, "minimum greater than maximum"),
            ({"type": "string", "const": 5}, "a part at # that no value is allowed for"),
        )
    ),
    (Structure("regex", "(?=a)b"), "its regex holds (?=, which xgrammar cannot enforce"),
    (Structure("regex", "\\W"), "its regex holds \\W,"),
    (Structure("regex", "(?-u:\\xc3)"), "its regex holds (?-,"),
    (Structure("regex", "[b-a]"), "lower bound is larger"),
    (Structure("grammar", "start: /a(?!b)/"), "its grammar holds (?!,"),
    (Structure("grammar", 'start: %json {"type": "string"}'), "its grammar holds %json,"),
    (Structure("grammar", "start: <|im_end|>"), "its grammar holds <|im_end|>,"),
    (Structure("grammar", "start: a\na[lazy]: /x/"), "its grammar holds an attribute of a,"),
    (Structure("grammar", "start: foo"), "unknown name"),
    (Structure("grammar", 'start: "a" start'), "the rule start, which never ends"),
]


@pytest.mark.parametrize(("form", "says"), BY_XGRAMMAR, ids=lambda one: one.text if isinstance(one, Structure) else "")
def test_what_xgrammar_would_pass_over_is_refused_in_a_sentence(form: Structure, says: str) -> None:
    reason = refusal(replace(form, backend="xgrammar"))
    assert reason is not None
    assert says in reason
    assert "\n" not in reason
    assert ("engine.grammar_backend=llguidance" in reason) == ("which xgrammar cannot enforce" in reason)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "grammar",
    [
        'start: "(" start ")" | "x"',
        'start: "a" start?',
        'start: item ("," item)*\nitem: "[" [start] "]" -> start',
        'start: "start" | /start: x/ // start: start',
        'start: A\nA: "x" | /[a-z]+/i\n%ignore /[ ]+/',
    ],
)
def test_grammars_that_can_end_are_kept(grammar: str, backend: GrammarBackend) -> None:
    assert refusal(Structure("grammar", grammar, backend=backend)) is None


@pytest.mark.parametrize(
    "grammar",
    [
        'start: value\nvalue: %json {"type": "object", "properties": {"start": {"const": "{ start"}}}\n  | "b"',
        '# start: start\n%llguidance {}\nstart: A\nA: "x" | /[a-z]+/\n%ignore /[ ]+/',
    ],
)
def test_grammars_in_what_llguidance_adds_to_lark_are_kept_by_it(grammar: str) -> None:
    assert refusal(Structure("grammar", grammar)) is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {"type": "array", "items": {"$ref": "#"}},
        {"$defs": {"tree": {"type": "object", "required": ["left"], "properties": {
            "left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]}}}}, "$ref": "#/$defs/tree"},
        {"type": "object", "properties": {"a": {"const": None}}, "required": ["a", "unlisted"]},
    ],
)  # fmt: skip
def test_recursion_that_can_end_is_kept(schema: Any, backend: GrammarBackend) -> None:
    assert refusal(Structure("json_schema", json.dumps(schema), backend=backend)) is None


@pytest.mark.parametrize(
    ("schema", "kept", "kept_out"),
    [
        ({"properties": {"a": {}, "b": {}}, "required": ["a", "b"]}, '{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
        ({"const": {"a": 1, "b": 2}}, '{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
        ({"type": "integer"}, "1000", "1e3"),
        ({"enum": [1, [0]]}, "1", "1.0"),
        ({"type": "string", "format": "date"}, '"1963-06-19"', '"06/19/1963"'),
    ],
)
def test_of_equal_values_one_spelling_is_written_and_formats_are_kept(schema: Any, kept: str, kept_out: str) -> None:
    """The schema allows both, and each other value that it allows can be written."""
    form = Structure("json_schema", json.dumps(schema), "capped")
    assert [agreement(form, text, cut=False).state for text in (kept, kept_out)] == ["valid", "valid"]
    found = []
    for text in (kept, kept_out):
        matcher = byte_matchers("llguidance").matcher(form)
        found.append(matcher.take(text.encode()) and matcher.may_end)
    assert found == [True, False]


def test_an_answer_is_looked_at_whoever_wrote_it() -> None:
    form = Structure(
        "json_schema", json.dumps({"type": "object", "required": ["a"], "properties": {"a": {"maximum": 3}}})
    )
    assert agreement(form, '{"a": 3}', cut=True).state == "valid"
    wrong = agreement(form, '{"a": 4}', cut=False)
    assert (wrong.state, "$.a: 4 is greater than the maximum of 3" in str(wrong.reason)) == ("invalid", True)
    letters = Structure("json_schema", json.dumps({"type": "string", "pattern": r"^[\W\d]$"}))
    assert [agreement(letters, one, cut=False).state for one in ('"é"', '"٣"', '"3"')] == ["valid"] * 3
    assert agreement(letters, '"e"', cut=False).state == "invalid"
    cut = agreement(form, '{"a": ', cut=True)
    assert cut.state == "cut off"
    assert "cut off by max_new_tokens" in str(cut.reason)
    assert agreement(Structure("json"), "[]", cut=False).state == "invalid"
    for kind, text, good, bad in (
        ("regex", "^[0-9]+€?$", "12€", "12€€"),
        ("grammar", 'start: "(" start ")" | "x"', "((x))", "((x)"),
        ("choice", '["a", "b"]', "b", "ab"),
    ):
        structure = Structure(kind, text)  # type: ignore[arg-type]
        assert [agreement(structure, one, cut=False).state for one in (good, bad)] == ["valid", "invalid"]


def test_what_has_no_limit_is_told() -> None:
    (array, text) = unbounded(Structure("json_schema", json.dumps(OPEN)))
    assert array == "an array without maxItems at #/properties/tags"
    assert text == "a string without maxLength at #/properties/tags/items"


def recipe(tmp_path: Path, model: Path, structured: Any, rows: list[Any], kind: str = "continuous") -> Path:
    return scripted_recipe(
        tmp_path / "recipe.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows),
        model={"name": str(model)},
        engine={"kind": kind, "max_batch_rows": 4},
        generation={"max_new_tokens": 40, "temperature": 1.0, "samples": 2, "structured": structured},
        sink={"formats": ["jsonl", "parquet"]},
        max_error_rate=1.0,
    )


@pytest.mark.parametrize(
    ("kind", "backend"), [("continuous", "llguidance"), ("pipeline", "llguidance"), ("continuous", "xgrammar")]
)
def test_a_row_may_have_its_own_form_and_a_bad_one_costs_its_row(
    kind: str, backend: str, tmp_path: Path, batchchat: Command, small_model: Path
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    own: list[Any] = [
        {},
        {"structured": {"regex": "[0-9]{2}"}},
        {"max_new_tokens": 30},
        {"structured": {"json_schema": {"type": "array", "uniqueItems": True}}},
        {"structured": {"json_schema": schema, "white_space": "none"}, "max_new_tokens": 3},
        {"structured": {"choice": ["a"], "json": True}},
        {"structured": {"choice": ["a"]}, "ignore_eos": True},
    ]
    rows = [{"messages": [{"role": "user", "content": "hi"}], "generation": settings} for settings in own]
    path = recipe(tmp_path, small_model, {"choice": ["yes", "no"]}, rows, kind)
    ended = batchchat("run", path, "-q", f"engine.grammar_backend={backend}")
    assert ended.code == 0, ended.err
    found = read_jsonl(tmp_path / "runs" / "test" / "outputs.jsonl")
    turns = [(row["batchchat"]["index"], row["batchchat"]["turns"][0], row["messages"][-1]["content"]) for row in found]
    assert [index for index, _, _ in turns] == [0, 0, 1, 1, 2, 2, 4, 4]
    assert all(text in ("yes", "no") for index, _, text in turns if index in (0, 2))
    assert all(len(text) == 2 and text.isdigit() for index, _, text in turns if index == 1)
    for index, turn, _ in turns:
        assert turn["structure"] == ("cut off" if index == 4 else "valid")
        assert ("max_new_tokens" in turn.get("note", "")) == (index == 4)
    said = {error["index"]: error["reason"] for error in read_jsonl(tmp_path / "runs" / "test" / "errors.jsonl")}
    assert "the keyword uniqueItems" in said[3]
    assert ("which xgrammar cannot enforce" in said[3]) == (backend == "xgrammar")
    assert "has choice and json" in said[5]
    assert "needs a token that ends the answer" in said[6]
    report = json.loads((tmp_path / "runs" / "test" / "report.json").read_text())
    assert "structure: cut off" in json.dumps(report)
    other = "xgrammar" if backend == "llguidance" else "llguidance"
    ended = batchchat("run", path, "-q", f"engine.grammar_backend={other}")
    assert ended.code == 2
    assert f'engine.grammar_backend: "{backend}" -> "{other}"' in ended.err


def test_a_continued_turn_is_looked_at_as_a_whole(tmp_path: Path, batchchat: Command, small_model: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": begun}]}
        for begun in ("yes, in", "perhaps")
    ]
    path = recipe(tmp_path, small_model, {"choice": ["yes, indeed", "no"]}, rows, "pipeline")
    assert batchchat("run", path, "-q", "chat.prefill=true").code == 0
    found = read_jsonl(tmp_path / "runs" / "test" / "outputs.jsonl")
    assert [row["batchchat"]["turns"][0]["structure"] for row in found] == ["valid"] * 2
    assert {row["batchchat"]["turns"][0]["raw"] for row in found} == {"deed"}
    (one, other) = read_jsonl(tmp_path / "runs" / "test" / "errors.jsonl")
    assert "does not begin as its form demands" in one["reason"] == other["reason"]


def test_a_recipe_that_cannot_be_kept_is_refused_and_one_without_limits_warned_of(
    tmp_path: Path, batchchat: Command, small_model: Path
) -> None:
    row = {"messages": [{"role": "user", "content": "hi"}]}
    path = recipe(tmp_path, small_model, {"json_schema": {"type": "array", "uniqueItems": True}}, [row])
    for command in ("check", "run"):
        ended = batchchat(command, path)
        assert ended.code == 2
        assert "generation.structured cannot be kept" in ended.err
        assert "uniqueItems" in ended.err
    assert not (tmp_path / "runs").exists()
    path = recipe(tmp_path, small_model, {"json_schema": OPEN}, [row])
    checked = batchchat("check", path, "--json")
    assert checked.code == 0
    told = [finding["what"] for finding in json.loads(checked.out)["findings"]]
    assert any("an array without maxItems at #/properties/tags" in what for what in told)


def test_without_its_libraries_it_says_what_to_install(
    tmp_path: Path, batchchat: Command, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"messages": [{"role": "user", "content": "hi"}]}
    for number, library in enumerate(("llguidance", "jsonschema", "xgrammar")):
        backend = "llguidance" if library == "jsonschema" else library
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            schema = {"const": f"nobody asked for this before {number}"}
            path = recipe(tmp_path, small_model, {"json_schema": schema}, [row])
            ended = batchchat("run", path, f"engine.grammar_backend={backend}")
        assert ended.code == 5, ended.err
        by_backend = library == "xgrammar"
        what = "engine.grammar_backend=xgrammar" if by_backend else "generation.structured"
        assert f"{what} needs the library '{library}'" in ended.err
        assert f"pip install 'batchchat[{'xgrammar' if by_backend else 'structured'}]'" in ended.err


def test_a_backend_is_for_models_on_this_machine(tmp_path: Path, batchchat: Command) -> None:
    path = scripted_recipe(tmp_path / "recipe.yaml", write_jsonl(tmp_path / "in.jsonl", []))
    ended = batchchat("check", path, "engine.grammar_backend=xgrammar")
    assert ended.code == 2
    assert "leave engine.grammar_backend out" in ended.err
