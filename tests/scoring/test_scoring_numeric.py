"""The scorer `numeric`: near misses in GSM8K's style, every reference against itself, number formats, speed."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batchchat.chats import Message
from batchchat.scoring import Score, make_scorer
from batchchat.scoring.numbers import NumberFormat, boxed, last_number, show
from tests.support.jobs import SHARED_DATA

GSM8K = SHARED_DATA / "gsm8k" / "test.jsonl"

needs_gsm8k = pytest.mark.skipif(not GSM8K.exists(), reason=f"{GSM8K} is not on this machine")


def numeric(answer: str, reference: Any, **options: Any) -> Score:
    return make_scorer("numeric", options).score(Message("assistant", answer), {}, reference)


RIGHT_OR_WRONG = [
    # the mark
    ("She makes 9 * 2 = $18 a day.\n#### 18", "18", 1),
    ("She makes 9 * 2 = $18 a day.\n#### 19", "18", 0),
    ("#### 18\nI checked it twice in 3 ways.", "18", 1),
    ("####18", "18", 1),
    ("#### $18.00", "18", 1),
    ("#### 18 dollars", "18", 1),
    ("#### Step 1: add\n9 + 9\n#### Step 2: answer\n18", "18", 1),
    ("#### 1. Add\nThe total is 18", "18", 1),
    ("#### 12\nWait, that is wrong.\n#### 18", "18", 1),
    ("#### the answer is not known", "18", 0),
    # the box
    (r"So the answer is \boxed{18}.", "18", 1),
    (r"So the answer is \boxed{18}, after 2 steps.", "18", 1),
    (r"First \boxed{17}, but then \boxed{18}", "18", 1),
    (r"\boxed{\frac{3}{4}}", "0.75", 1),
    (r"\boxed{\text{18 eggs}}", "18", 1),
    (r"\boxed{1{,}000}", "1000", 1),
    (r"\boxed{18", "18", 1),
    # the last number
    ("The answer is 18.", "18", 1),
    ("The answer is 18", "118", 0),
    ("The answer is 118", "18", 0),
    ("It takes 18 days, not 20.", "18", 0),
    ("The answer is 18.0", "18", 1),
    ("The answer is 18.01", "18", 0),
    ("The answer is 1.8", "18", 0),
    ("The answer is -18", "18", 0),
    ("The answer is −18", "-18", 1),
    ("The temperature fell to -$5", "-5", 1),
    ("He has between 10-18 of them", "18", 1),
    ("There is no answer.", "18", 0),
    ("", "18", 0),
    ("eighteen", "18", 0),
    # thousands
    ("He made $70,000 in profit", "70000", 1),
    ("He made $70,000.50", "70000.5", 1),
    ("He made 70\u202f000 dollars", "70000", 1),
    ("He has 18 100 dollar notes", "18100", 0),
    ("He made 70,00 dollars", "7000", 0),
    ("They are 1, 2 and 3", "123", 0),
    ("They have 1,234,567 votes", "1234567", 1),
    ("It costs 70_000", "70000", 1),
    # units, percent, fractions
    ("It weighs 18kg", "18", 1),
    ("That is 50%", "50", 1),
    ("That is 50%", "0.5", 0),
    ("That is 1/2 of it", "0.5", 1),
    ("That is 1 1/2 cups", "1.5", 1),
    ("That is 3/2 cups", "1 1/2", 1),
    ("On 3/4/2024 he had 18", "18", 1),
    ("GPT-4 says eighteen", "4", 0),
    ("**18**", "18", 1),
    ("The answer is: 1.8e1", "18", 1),
    (r"It is $1.8 \times 10^{1}$", "18", 1),
    ("It is 1/3", "0.3333", 0),
    ("0.1 + 0.2 = 0.3", "3/10", 1),
    ("Chemical H2O is wet", "2", 0),
    ("18! That is the answer!", "18", 1),
    ("<think>12 or 13?</think>\nThe answer is 18", "18", 1),
    ("The answer is 18 <think>or 20", "18", 0),
]


@pytest.mark.parametrize(("answer", "reference", "value"), RIGHT_OR_WRONG)
def test_near_misses_get_the_verdict_of_a_careful_reader(answer: str, reference: str, value: int) -> None:
    score = numeric(answer, reference)
    assert (score.value, score.status) == (value, "scored"), score.reason


def test_there_are_fifty_near_misses_or_more() -> None:
    assert len(RIGHT_OR_WRONG) >= 50


@needs_gsm8k
def test_every_gsm8k_reference_scores_one_against_itself_and_zero_against_its_successor() -> None:
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").split("\n") if line]
    scorer = make_scorer("numeric", {"reference": "answer"})
    assert len(rows) == 1319
    for row in rows:
        text = row["answer"]
        final = text.rsplit("#### ", 1)[1]
        assert scorer.score(Message("assistant", text), row).value == 1.0
        assert scorer.score(Message("assistant", f"So the answer is {final}."), row).value == 1.0
        other = int(final.replace(",", "")) + 1
        assert scorer.score(Message("assistant", f"{text}\n#### {other}"), row).value == 0.0


@needs_gsm8k
def test_a_hundred_thousand_rows_are_scored_in_half_a_minute() -> None:
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").split("\n") if line]
    answers = [Message("assistant", row["answer"].replace("####", "So it is")) for row in rows]
    scorer = make_scorer("numeric", {"reference": "answer"})
    began = time.process_time()
    right = sum(scorer.score(answers[i % 1319], rows[i % 1319]).value == 1.0 for i in range(100_000))
    assert right == 100_000
    assert time.process_time() - began < 30


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12))
def test_a_number_written_with_thousands_marks_reads_as_itself(value: Any) -> None:
    assert last_number(f"about {value:,f} units", NumberFormat()) == Fraction(value)


@settings(deadline=None)
@given(st.fractions())
def test_a_shown_number_reads_back_as_itself(value: Fraction) -> None:
    assert last_number(show(value), NumberFormat()) == value


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_text_breaks_the_reading_of_numbers(text: str) -> None:
    assert numeric(text, "3").status == "scored"


def test_a_comma_may_be_the_decimal_mark() -> None:
    assert numeric("Das macht 1.234,5 Euro", "1234,5", decimal_mark=",").value == 1.0
    assert numeric("Das macht 1.234,5 Euro", "1234.5").value == 0.0


def test_percent_is_a_share_where_the_recipe_says_so() -> None:
    assert numeric("50%", "0.5", percent="fraction").value == 1.0


def test_tolerances_are_absolute_or_relative_and_inclusive() -> None:
    assert numeric("102", "100", tolerance=2).value == 1.0
    assert numeric("102.5", "100", tolerance=2).value == 0.0
    assert numeric("102", "100", relative_tolerance=0.02).value == 1.0
    assert numeric("98", "-100", relative_tolerance=0.02).value == 0.0


def test_a_pattern_says_where_the_number_stands() -> None:
    pattern = r"(?i)answer is (?P<answer>[^.\n]+)"
    assert numeric("The answer is $1,000 and 3 cents of it are mine. 7", "3", pattern=pattern).value == 1.0
    assert numeric("It is 3", "3", pattern=pattern).value == 0.0
    assert numeric("x = 3; y = 4", "4", pattern=r"[xy] = \d").value == 1.0


def test_where_the_number_is_taken_from_can_be_chosen() -> None:
    text = "1 then \\boxed{2} then\n#### 3\nand 4"
    for extract, expected in {"first": 1, "boxed": 2, "marked": 3, "auto": 3, "last": 4}.items():
        assert numeric(text, str(expected), extract=extract).value == 1.0, extract


def test_several_references_are_each_accepted() -> None:
    assert numeric("It is 7", [5, 7]).value == 1.0
    assert numeric("It is 6", [5, 7]).value == 0.0


def test_a_reference_without_a_number_is_that_rows_error() -> None:
    score = numeric("18", "many")
    assert score.status == "error"
    assert "many" in score.reason


def test_numbers_too_large_to_write_out_are_not_read() -> None:
    for text in ("1e999999999", "7" * 100_000, "1/" + "3" * 5_000, "0." + "3" * 5_000):
        assert numeric(text, "1").value == 0.0


def test_answers_that_repeat_themselves_without_end_are_read_in_no_time() -> None:
    began = time.process_time()
    for piece in ("\\boxed{", "1,", "1/", "-", "$", "<think>", "#### ", "{", "1 "):
        assert numeric(piece * 20_000, "5").status == "scored"
    assert time.process_time() - began < 10


def test_a_pattern_that_does_not_compile_is_refused_before_the_run() -> None:
    with pytest.raises(ValidationError, match="not a regular expression"):
        make_scorer("numeric", {"pattern": "(unclosed"})


def test_a_box_is_read_with_its_braces_balanced() -> None:
    assert boxed(r"a \boxed{x^{2}_{i}} b") == "x^{2}_{i}"
    assert boxed(r"\boxed{1} and \boxed{2") == "1"
    assert boxed("no box") is None
    assert boxed(r"\boxed{a \boxed{b} c}") == "b"
    assert boxed(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"
