"""The scorer `ifeval`: every published prompt is understood; each of the 25 kinds can pass and can fail."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchchat.chats import Message
from batchchat.scoring import Score, make_scorer
from batchchat.scoring.scorers.ifeval.instructions import INSTRUCTIONS
from batchchat.scoring.scorers.ifeval.texts import count_sentences, words_in_capitals
from tests.support.jobs import SHARED_DATA

IFEVAL = SHARED_DATA / "ifeval" / "input_data.jsonl"


def ifeval(response: str, *given: tuple[str, dict[str, Any]], **options: Any) -> Score:
    columns = {"instruction_id_list": [name for name, _ in given], "kwargs": [dict(kwargs) for _, kwargs in given]}
    return make_scorer("ifeval", options).score(Message("assistant", response), columns)


# kind, parameters, a response that follows it, one that does not
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["land", "river"]}, "The River runs through the land.", "The river runs."),
    ("keywords:frequency", {"keyword": "dog", "frequency": 2, "relation": "at least"}, "Dog eats dog.", "One dog."),
    ("keywords:frequency", {"keyword": "dog", "frequency": 2, "relation": "less than"}, "One dog.", "Dog eats dog."),
    ("keywords:forbidden_words", {"forbidden_words": ["can"]}, "A candle burns.", "You CAN go."),
    (
        "keywords:letter_frequency",
        {"letter": "q", "let_frequency": 2, "let_relation": "at least"},
        "Quick quiz",
        "Quiz",
    ),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": "at least"}, "# Title", "Title"),
    ("language:response_language", {"language": "hi"}, "यह एक छोटी कहानी है और मुझे पसंद है", "This is a short story."),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        "One here. Two!",
        "Only one.",
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "Dr. No won.", "Yes. No."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo", "One\n\nTwo"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\nOne\n***\nTwo\n***", "One\n***\n***\nTwo"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "one two", "one two three"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "elm"},
        'First.\n\n"Elm, the tree.',
        "First.\n\nThe elm.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [town]", "[name] of town"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP. S. I forgot", "Bye. PS I forgot"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S. More", "Bye.\nP.S. More"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "* one\n* two\n* three"),
    ("detectable_format:constrained_response", {}, "Well. My answer is maybe.", "My answer is perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and two"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "SECTION one\na\nSECTION 2\nb",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{'a': 1}"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "<< >>\ntext"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "say HI. Hi!", "Hi! Say hi."),
    ("startend:end_checker", {"end_phrase": "Peace!"}, 'So it ends. "peace!"', "Peace! And so on."),
    ("startend:quotation", {}, '"All of it."', '"Some" of it.'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "GO NOW",
        "GO now",
    ),
    ("change_case:english_capital", {}, "THIS IS ALL IN LARGE LETTERS", "This is not"),
    ("change_case:english_capital", {}, "THE SUN IS WARM TODAY", "DAS IST EIN SCHÖNER TAG HEUTE"),
    ("change_case:english_lowercase", {}, "this is all in small letters", "This is not"),
    ("punctuation:no_comma", {}, "One and two.", "One, two."),
]


@pytest.mark.parametrize(("kind", "parameters", "follows", "breaks"), CASES)
def test_each_kind_passes_and_fails(kind: str, parameters: dict[str, Any], follows: str, breaks: str) -> None:
    assert ifeval(follows, (kind, parameters)).value == 1.0
    assert ifeval(breaks, (kind, parameters)).value == 0.0


def test_all_twenty_five_kinds_are_among_the_cases() -> None:
    assert {kind for kind, *_ in CASES} == set(INSTRUCTIONS)
    assert len(INSTRUCTIONS) == 25


@pytest.mark.skipif(not IFEVAL.exists(), reason=f"{IFEVAL} is not on this machine")
def test_every_published_prompt_is_understood() -> None:
    rows = [json.loads(line) for line in IFEVAL.read_text(encoding="utf-8").split("\n") if line]
    scorer = make_scorer("ifeval")
    scores = [scorer.score(Message("assistant", row["prompt"]), row) for row in rows]
    assert len(scores) == 541
    assert {score.status for score in scores} == {"scored"}, [score.reason for score in scores if score.value is None]
    assert sum(score.details["instructions"] for score in scores) == 834
    # A prompt that asks to be repeated and nothing else follows itself; so some pass and most do not.
    assert 0 < sum(score.value == 1.0 for score in scores) < 541
    assert all(score.details["loose"] >= score.details["strict"] for score in scores)
    # The copy of the data that pads every mapping with nulls reads the same.
    padded = {**rows[0], "kwargs": [{**kwargs, "unused": None} for kwargs in rows[0]["kwargs"]]}
    assert scorer.score(Message("assistant", "x"), padded).status == "scored"


def test_loose_forgives_a_first_line_a_last_line_and_asterisks() -> None:
    ending: tuple[str, dict[str, Any]] = ("startend:end_checker", {"end_phrase": "Peace!"})
    repeat: tuple[str, dict[str, Any]] = ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."})
    quoted: tuple[str, dict[str, Any]] = ("startend:quotation", {})
    for response, check in (
        ("All good. Peace!\nIs that what you wanted?", ending),
        ("Sure, here it is:\nSay hi. Hi!", repeat),
        ('Here:\n**"All of it."**\nDone', quoted),
    ):
        score = ifeval(response, check)
        assert (score.value, score.details["loose"]) == (0.0, 1.0)
        assert ifeval(response, check, mode="loose").value == 1.0


def test_one_broken_instruction_fails_the_prompt_and_is_named() -> None:
    score = ifeval("One, two", ("punctuation:no_comma", {}), ("keywords:existence", {"keywords": ["two"]}))
    assert score.value == 0.0
    assert "punctuation:no_comma" in score.reason
    assert "keywords:existence" not in score.reason
    assert (score.details["followed_strict"], score.details["instructions"]) == (1.0, 2.0)


def test_a_blank_answer_follows_nothing() -> None:
    assert ifeval("  \n", ("punctuation:no_comma", {})).value == 0.0


@pytest.mark.parametrize(
    ("kind", "parameters", "says"),
    [
        ("keywords:existance", {"keywords": []}, "keywords:existence"),
        ("keywords:existence", {}, "keywords"),
        ("punctuation:no_comma", {"commas": 3}, "commas"),
        ("keywords:frequency", {"keyword": "a", "frequency": 1, "relation": "about"}, "about"),
    ],
)
def test_what_is_not_in_the_definition_is_that_rows_error(kind: str, parameters: dict[str, Any], says: str) -> None:
    score = ifeval("text", (kind, parameters))
    assert score.status == "error"
    assert says in score.reason


def test_a_row_without_instructions_is_unscored() -> None:
    assert make_scorer("ifeval").score(Message("assistant", "x"), {}).status == "unscored"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Smith went home.", 1),
        ("Pi is 3.14. True!", 2),
        ('He said "Go." Then he left.', 2),
        ("Is it? It is! Fine.", 3),
        ("no end mark", 1),
        ("We met at 5 p.m. on Monday.", 1),
    ],
)
def test_sentences_are_counted_past_abbreviations_and_decimals(text: str, count: int) -> None:
    assert count_sentences(text) == count


def test_words_in_capitals_count_one_letter_words_and_parts_of_contractions() -> None:
    assert words_in_capitals("I SAID: go HOME, A.S.A.P.") == 4


def test_a_keyword_that_is_a_slow_pattern_costs_its_row_alone() -> None:
    columns = {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["^(?:(?:a|aa|aaa)+)+c"]}]}
    scorer = make_scorer("ifeval", {"seconds": 0.2})
    score = scorer.score(Message("assistant", "a" * 3000 + "b"), columns)
    assert score.status == "error"
    assert "took longer than 0.2 s" in score.reason
