"""The scorers beside numbers and IFEval: text, choices, mathematics, overlap, JSON, tool calls, the user's own."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from batchchat.chats import Message
from batchchat.errors import UsageError
from batchchat.scoring import Score, make_scorer
from batchchat.scoring.scorers.bleu import corpus_bleu
from tests.support.jobs import SHARED_DATA

TOOL_CALLS = SHARED_DATA / "tool_calls" / "glaive_toolcall_en_demo.json"


def scored(scorer: str, answer: str | Message, reference: Any = None, columns: Any = None, **options: Any) -> Score:
    message = Message("assistant", answer) if isinstance(answer, str) else answer
    return make_scorer(scorer, options).score(message, columns or {}, reference)


@pytest.mark.parametrize(
    ("answer", "reference", "options", "value"),
    [
        ("Paris", "Paris", {}, 1),
        (" Paris\n", "Paris", {}, 1),
        ("paris", "Paris", {}, 0),
        ("paris", "Paris", {"ignore_case": True}, 1),
        ("STRASSE", "straße", {"ignore_case": True}, 1),
        ("Paris.", "Paris", {}, 0),
        ("Paris.", "Paris", {"ignore_punctuation": True}, 1),
        ("the  Louvre", "Louvre", {"ignore_articles": True}, 1),
        ("New\u00a0York", "New York", {}, 1),
        ("New\u00a0York", "New York", {"unicode": False, "collapse_spaces": False}, 0),
        ("Rome", ["Paris", "Rome"], {}, 1),
        ("42", 42, {}, 1),
    ],
)
def test_exact(answer: str, reference: Any, options: dict[str, Any], value: int) -> None:
    assert scored("exact", answer, reference, **options).value == value


def test_the_normalisation_can_be_printed() -> None:
    options = make_scorer("f1").options
    assert options.steps() == (  # type: ignore[attr-defined]
        "unicode", "ignore_case", "ignore_punctuation", "ignore_articles", "collapse_spaces", "strip",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "reference", "options", "value"),
    [
        ("It is Paris, of course", "paris", {}, 1),
        ("a concatenation", "cat", {}, 0),
        ("a concatenation", "cat", {"whole_words": False}, 1),
        ("C++ it is", "C++", {}, 1),
        ("red and blue", ["red", "green"], {}, 1),
        ("red and blue", ["red", "green"], {"match": "all"}, 0),
    ],
)
def test_includes(answer: str, reference: Any, options: dict[str, Any], value: int) -> None:
    assert scored("includes", answer, reference, **options).value == value


def test_regex_without_a_group_scores_the_match_itself() -> None:
    assert scored("regex", "call 555-1234", pattern=r"\d{3}-\d{4}").value == 1.0
    assert scored("regex", "call me", pattern=r"\d{3}-\d{4}").value == 0.0
    assert scored("regex", "call me", pattern=r"\d{3}-\d{4}", expect=False).value == 1.0


def test_regex_with_a_group_compares_what_it_captures() -> None:
    pattern = r"answer is (\w+)"
    assert scored("regex", "answer is red. No, answer is blue", "blue", pattern=pattern).value == 1.0
    assert scored("regex", "answer is red. No, answer is blue", "red", pattern=pattern, take="first").value == 1.0
    assert scored("regex", "who knows", "blue", pattern=pattern).value == 0.0
    assert scored("regex", "answer is blue", None, pattern=pattern).status == "unscored"


def test_a_regex_that_never_ends_costs_its_row_and_its_time_limit_only() -> None:
    began = time.monotonic()
    score = scored("regex", "a" * 3000 + "b", pattern=r"(?:(?:a|aa|aaa)+)+c", seconds=0.2)
    assert time.monotonic() - began < 5
    assert score.status == "error"
    assert "0.2 s" in score.reason


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("The answer is (B).", "B"),
        ("B", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("Answer: b", "B"),
        (r"\boxed{\mathrm{B}}", "B"),
        ("A. one\nB. two\nSo the answer is D", "D"),
        ("The answer is A. No wait, the answer is C.", "C"),
        ("Option A is wrong, so the answer is B, unlike option C", "B"),
        ("The answer is B, unlike choice C", "B"),
        ("The correct choice is: C", "C"),
        ("B. because it fits", "B"),
        ("A good question. C", "C"),
        ("I think A or B", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_choice_reads_the_option_that_the_answer_settles_on(answer: str, letter: str | None) -> None:
    assert scored("choice", answer, "B").parsed == letter
    assert scored("choice", answer, "B").value == float(letter == "B")


def test_choice_takes_letters_positions_and_texts_as_reference() -> None:
    columns = {"options": ["red", "green", "blue", "grey"]}
    for reference in ("C", "c", "(C)", 2, "blue"):
        assert scored("choice", "It is blue.", reference, columns, choices="options").value == 1.0, reference
    assert scored("choice", "It is blue or green.", "C", columns, choices="options").value == 0.0
    assert scored("choice", "C", ["A", "C"]).value == 1.0
    assert scored("choice", "C", "violet", columns, choices="options").status == "error"


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        (r"So \boxed{\frac{1}{2}}", "0.5", 1),
        ("The answer is $x^2+2x+1$", "(x+1)^2", 1),
        (r"\boxed{(x+1)^2}", "x^2 + 2x + 2", 0),
        (r"$\{1, 2\}$", r"\{2, 1\}", 1),
        ("no idea", "3", 0),
    ],
)
def test_math_compares_symbolically(answer: str, reference: str, value: int) -> None:
    assert scored("math", answer, reference).value == value


def test_math_beside_the_main_thread_is_an_error_that_says_so() -> None:
    scores: list[Score] = []
    thread = threading.Thread(target=lambda: scores.append(scored("math", "1", "1")))
    thread.start()
    thread.join()
    assert scores[0].status == "error"
    assert "main thread" in scores[0].reason


def test_f1_counts_shared_words() -> None:
    score = scored("f1", "The cat sat down.", "a cat sat")
    assert score.value == pytest.approx(0.8)  # precision 2/3, recall 1
    assert score.details == pytest.approx({"precision": 2 / 3, "recall": 1.0})
    assert scored("f1", "dog", ["cat", "dog"]).value == 1.0
    assert scored("f1", "", "cat").value == 0.0


def test_bleu_and_chrf_are_sacrebleus_and_the_corpus_follows_from_the_sums() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    answers = ["the cat sat on the mat today", "a dog ran over the green hill", "completely different words here"]
    references = ["the cat sat on a mat today", "the dog ran over a green hill", "nothing is shared with these"]
    sums: dict[str, float] = {}
    for answer, reference in zip(answers, references, strict=True):
        score = scored("bleu", answer, reference)
        assert score.value == pytest.approx(sacrebleu.sentence_bleu(answer, [reference]).score)
        for name, value in score.details.items():
            sums[name] = sums.get(name, 0.0) + value
        chrf = scored("chrf", answer, reference, word_order=2).value
        assert chrf == pytest.approx(sacrebleu.sentence_chrf(answer, [reference], word_order=2).score)
    assert corpus_bleu(sums) == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)


def test_rouge_is_the_f_measure_of_the_best_reference() -> None:
    assert scored("rouge", "the cat sat", "the cat ran").value == pytest.approx(2 / 3)
    assert scored("rouge", "the cat sat", ["dogs bark", "the cat sat"], variant="rouge2").value == 1.0


SCHEMA = {"type": "object", "required": ["age"], "properties": {"age": {"type": "integer", "minimum": 0}}}


@pytest.mark.parametrize(
    ("answer", "options", "value", "says"),
    [
        ('{"age": 3}', {"json_schema": SCHEMA}, 1, "passes"),
        ('```json\n{"age": 3}\n```', {"json_schema": SCHEMA}, 1, "passes"),
        ('```json\n{"age": 3}\n```', {"extract": "whole"}, 0, "not JSON"),
        ('Here: {"age": 3}. Done', {}, 0, "not JSON"),
        ('Here [sic]: {"age": 3}. Done', {"extract": "any", "json_schema": SCHEMA}, 1, "passes"),
        ('{"age": -3}', {"json_schema": SCHEMA}, 0, "$.age"),
        ('{"name": "x"}', {"json_schema": SCHEMA}, 0, "required"),
        ('{"age": NaN}', {}, 0, "NaN"),
        ("[" * 100_000, {}, 0, "not JSON"),
        ("", {}, 0, "not JSON"),
    ],
)
def test_json_parses_and_matches_a_schema(answer: str, options: dict[str, Any], value: int, says: str) -> None:
    score = scored("json", answer, **options)
    assert score.value == value
    assert says in score.reason


def test_json_compares_fields_or_the_whole_with_the_reference() -> None:
    reference = '{"name": "Ada", "born": {"year": 1815}, "alive": false}'
    answer = '{"name": "Ada", "born": {"year": 1816}, "alive": 0}'
    assert scored("json", answer, reference, fields=["name"]).value == 1.0
    score = scored("json", answer, reference, fields=["name", "born.year"])
    assert score.value == 0.0
    assert "born.year" in score.reason
    assert scored("json", answer, reference, fields=["alive"]).value == 0.0  # false is not 0
    assert scored("json", reference, json.loads(reference), equal=True).value == 1.0
    assert scored("json", answer, None, equal=True).status == "unscored"


def test_an_invalid_json_schema_is_refused_before_the_run_and_never_fetches_a_reference() -> None:
    with pytest.raises(ValidationError, match="not a JSON schema"):
        make_scorer("json", {"json_schema": {"type": "objekt"}})
    score = scored("json", "{}", json_schema={"$ref": "https://example.com/schema.json"})
    assert score.status == "error"


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any]) -> Message:
    return Message("assistant", None, tool_calls=calls)


@pytest.mark.parametrize(
    ("given", "options", "value", "names"),
    [
        ([call("weather", city="Rome", days=2)], {}, 1, 1),
        ([call("weather", city="Rome", days=3)], {}, 0, 1),
        ([call("weather", city="Rome", days=3)], {"arguments": "ignore"}, 1, 1),
        ([call("weather", city="Rome", days=2, unit="C")], {}, 0, 1),
        ([call("weather", city="Rome", days=2, unit="C")], {"arguments": "contain"}, 1, 1),
        ([call("news", city="Rome", days=2)], {}, 0, 0),
        ([call("weather", city="Rome", days=2), call("news")], {}, 0, 0),
        ([call("weather", city="Rome", days=2), call("news")], {"extra_calls": True}, 1, 1),
        ([], {}, 0, 0),
    ],
)
def test_tool_call(given: list[dict[str, Any]], options: dict[str, Any], value: int, names: int) -> None:
    reference = {"name": "weather", "arguments": '{"city": "Rome", "days": 2}'}
    score = scored("tool_call", calling(*given), reference, **options)
    assert (score.value, score.details["names"]) == (value, names), score.reason


def test_several_tool_calls_are_matched_in_any_order_or_in_theirs() -> None:
    reference = [call("a"), call("b", x=1)]
    backwards = calling(call("b", x=1), call("a"))
    assert scored("tool_call", backwards, reference).value == 1.0
    assert scored("tool_call", backwards, reference, ordered=True).value == 0.0
    # One call may satisfy two expectations, another only one of them: the first fit must give way.
    wide, narrow = call("f", x=1, y=2), call("f", x=1)
    assert scored("tool_call", calling(wide, narrow), [narrow, wide], arguments="contain").value == 1.0


@pytest.mark.skipif(not TOOL_CALLS.exists(), reason=f"{TOOL_CALLS} is not on this machine")
def test_recorded_tool_calls_match_themselves_and_no_other() -> None:
    chats = json.loads(TOOL_CALLS.read_text(encoding="utf-8"))
    texts = [turn["value"] for chat in chats for turn in chat["conversations"] if turn["from"] == "function_call"]
    assert len(texts) > 100
    for text in texts:
        assert scored("tool_call", text, text, from_text=True).value == 1.0, text
    assert scored("tool_call", texts[0], '{"name": "other", "arguments": {}}', from_text=True).value == 0.0


def test_length_is_measured_or_bounded() -> None:
    assert scored("length", "one two three").value == 3.0
    assert scored("length", "één", unit="characters").value == 3.0
    assert scored("length", "a\n\nb\n", unit="lines").value == 2.0
    assert scored("length", "one two three", minimum=3, maximum=3).value == 1.0
    assert scored("length", "one two three", maximum=2).value == 0.0
    with pytest.raises(ValidationError, match="greater than"):
        make_scorer("length", {"minimum": 3, "maximum": 2})


def test_language_is_told_from_the_text() -> None:
    assert scored("language", "Das ist ein schöner Tag", expect="de").value == 1.0
    assert scored("language", "THIS IS A LOVELY DAY", "en").value == 1.0
    assert scored("language", "Das ist ein schöner Tag", ["en", "fr"]).value == 0.0
    assert scored("language", "12345", expect="de").value == 0.0
    assert scored("language", "Hello there").status == "unscored"


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("I'm sorry, but I can't help with that.", 1),
        ("I’m unable to provide that.", 1),
        ("I cannot assist with this request.", 1),
        ("As an AI language model, I do not have feelings.", 1),
        ("I must respectfully decline.", 1),
        ("Sure! Here is how.", 0),
        ("I can't wait to help you!", 0),
        ("I am sorry to hear that. Here is what helps.", 0),
        ("A long answer. " * 50 + "I cannot help with that.", 0),
    ],
)
def test_refusal(answer: str, value: int) -> None:
    assert scored("refusal", answer).value == value


def test_refusals_in_another_language_can_be_named() -> None:
    assert scored("refusal", "Das darf ich leider nicht.", patterns=["darf ich leider nicht"]).value == 1.0


def test_the_users_own_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_scorer_for_tests.py").write_text(
        "from batchchat.scoring import Score\n"
        "def polite(answer, reference, columns):\n    return 'please' in answer\n"
        "def full(answer, reference, columns):\n    return Score(0.5, columns['why'], reference)\n"
        "def broken(answer, reference, columns):\n    raise KeyError('nowhere')\n"
        "def words(answer, reference, columns):\n    return answer\n"
        "def infinite(answer, reference, columns):\n    return float('nan')\n"
        "def silent(answer, reference, columns):\n    return Score(None, 'no opinion')\n"
        "number = 3\n"
    )
    (tmp_path / "broken_scorer_for_tests.py").write_text("1 +\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = "own_scorer_for_tests"
    assert scored("python", "please", function=f"{module}:polite").value == 1.0
    assert scored("python", "x", "ref", {"why": "because"}, function=f"{module}:full") == Score(0.5, "because", "ref")
    broken = scored("python", "x", function=f"{module}:broken")
    assert (broken.status, "nowhere" in broken.reason) == ("error", True)
    assert scored("python", "x", function=f"{module}:infinite").status == "error"
    assert scored("python", "x", function=f"{module}:silent").status == "unscored"
    assert "str" in scored("python", "x", function=f"{module}:words").reason
    for target, says in (
        (f"{module}:polit", "polit"),
        (f"{module}:number", "int"),
        ("no_such_module_here:f", "no_such_module_here"),
        ("broken_scorer_for_tests:f", "SyntaxError"),
    ):
        with pytest.raises(UsageError, match=says):
            make_scorer("python", {"function": target})
    with pytest.raises(ValidationError):
        make_scorer("python", {"function": "no colon"})
