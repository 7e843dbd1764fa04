"""Kinds of answers that are easily misread: several of each kind, right and wrong."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import ValidationError

from batchchat.chats import Message
from batchchat.scoring import Score, make_scorer
from batchchat.scoring.fences import code_blocks
from batchchat.scoring.judging import Labels, Scale, read_grade, read_verdict
from batchchat.scoring.scorers.ifeval.texts import count_sentences


def scored(scorer: str, answer: str, reference: Any, **options: Any) -> Score:
    return make_scorer(scorer, options).score(Message("assistant", answer), {}, reference)


NUMBERS = [
    (r"\boxed{2\frac{3}{4}}", "2.75", 1), (r"\boxed{5.5}", r"1\frac{1}{2}", 0), (r"-2\tfrac12", "-2.5", 1),
    ("1½", "1.5", 1), ("½", "0.5", 1), ("3⁄4", "0.75", 1), ("-2½", "-2.5", 1), (r"\frac12", "0.5", 1),
    (r"\boxed{-\frac{3}{4}}", "-0.75", 1), (r"\boxed{\frac{\sqrt{3}}{2}}", "2", 0),
    (r"\boxed{1,\!234}", "1234", 1), (r"\boxed{100}", r"11,\!111,\!111,\!100", 0), (r"1\,234\,567", "1234567", 1),
    ("10^6", "1000000", 1), ("10⁶", "1000000", 1), ("2**10", "1024", 1), (r"\boxed{2^{10}}", "1024", 1),
    ("10^{-3}", "0.001", 1), ("1.2 x 10^3", "1200", 1), ("1.2 × 10⁻³", "0.0012", 1), (r"2 \cdot 10^{5}", "200000", 1),
    ("2^{1/2}", "2", 0), (r"\boxed{x^2}", "2", 0), ("5 m²", "5", 1), (r"\boxed{6 \text{ m}^2}", "6", 1),
    (r"\boxed{90^\circ}", "90", 1), (r"\boxed{12^{\text{th}}}", "12", 1),
    ("1,23,456", "123456", 1), ("12,34,567.50", "1234567.5", 1), ("1,234,56", "123456", 0),
    ("1'000", "1000", 1), ("1’234’567.5", "1234567.5", 1), ("1.234.567,89", "1234567.89", 1),
    ("1 000 000", "1000000", 1),
    (r"\boxed{\sqrt{2}}", "2", 0), (r"\boxed{\sqrt{9}}", "3", 1), (r"\boxed{2\sqrt{3}}", "2", 0), ("2π", "2", 0),
    (r"\boxed{2\pi}", "2", 0), (r"\sqrt[3]{8}", "8", 0), ("The area is 2π ≈ 6.28", "6.28", 1),
    ("3+4i", "3", 0), ("3+4i", "4", 0), (r"\boxed{3, 5}", "5", 0), (r"\boxed{\text{5 or 6}}", "6", 0),
    (r"\boxed{3 + 4 = 7}", "7", 1), (r"\boxed{x=12}", "12", 1), (r"\boxed{\text{none}}. 18?", "18", 0),
    ("١٢٣", "123", 1), ("۱۲۳٫۵", "123.5", 1), ("１，２３４．５", "1234.5", 1), ("१२३", "123", 1),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "reference", "value"), NUMBERS)
def test_numbers(answer: str, reference: str, value: int) -> None:
    score = scored("numeric", answer, reference)
    assert score.value == value, score


CHOICES = [
    (r"\boxed{\text{Paris}}", None), (r"\boxed{42 \text{ cm}}. Answer: D", "D"), (r"\boxed{\text{(B)}}", "B"),
    (r"\boxed{B. Paris}", "B"), (r"\boxed{A, C}", None), ("**Answer: C**\nThe answer A is wrong.", "C"),
    ("B\nBecause the answer A is wrong.", "B"), ("(C) is the right answer; (A) is wrong.", "C"),
    ("(A) red\n(B) blue\n(C) green\n(D) black\nThe right one is B", "B"), ("The correct answer is:\n\n**D**", "D"),
    ("Answer: N/A", None), ("Answer: A and C", None), ("Answer: A/B", None), ("答案：B、C", None),
    ("We get C = 12 and are done.", None), ("Let A = 3. Then the answer is B", "B"),
    ("答案是C", "C"), ("故选C。", "C"), ("排除A，故选B", "B"), ("正解はCです", "C"), ("정답은 B입니다", "B"),
    ("Ｃ", "C"),
    ("Die Antwort ist C.", "C"), ("La respuesta es B", "B"), ("La réponse est D.", "D"),
    ("The answer is not B. It is C.", "C"), ("Option B is incorrect. Option C is correct.", "C"),
    ("The answer is A good one", None), ("Vitamin C is important", None), ("Neither A nor B", None),
    ("Both A and B are correct", None), ("The options are A, B, C and D.", None), ("I'd go with (b)", "B"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "letter"), CHOICES)
def test_choices(answer: str, letter: str | None) -> None:
    assert scored("choice", answer, "B").parsed == letter


FORMULAS = [
    (r"The answer is 10\sqrt{3}", "10", 0), (r"The answer is 10\sqrt{3}.", r"10\sqrt{3}", 1), ("y = 3x + 2", "2", 0),
    ("y = 3x + 2", "3x+2", 1), ("4i+3", "3+4i", 1), ("3-4i", "3+4i", 0), (r"918\frac{1}{2}", r"\frac{1}{2}", 0),
    (r"It costs \$10.", r"\$10", 1), (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}", 0), ("1e-9", "2e-9", 0),
    (r"1 - \frac{1}{e}", r"1 + \frac{1}{e}", 0), (r"\frac{1}{1000000}", r"\frac{1}{2000000}", 0),
    ("0.333333", "1/3", 1),
    ("(3, 4)", "(3,4)", 1), ("(3, 4)", "(4,3)", 0), ("It is 12 cm long", "12", 1), (r"2\pi", "2", 0),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "reference", "value"), FORMULAS)
def test_formulas(answer: str, reference: str, value: int) -> None:
    assert scored("math", answer, reference).value == value


@pytest.mark.parametrize(
    "answer",
    [
        "```python\nx = 1\n```\n```json\n{}\n```", "```json\r\n{}\r\n```\r\n", "~~~json\n{}\n~~~", "```json\n{}```",
        "```{}```", "```json\n{}", "```JSON\n{}\n```\nand\n```bash\nls\n```", "  ```json\n  {}\n  ```",
        "```json {} ```",
        "Text ```json\n{}\n``` more", "``` json\n{}\n```",
    ],
)  # fmt: skip
def test_json_in_code_blocks(answer: str) -> None:
    assert scored("json", answer, "{}", equal=True).value == 1.0


def test_a_longer_fence_holds_a_shorter_one() -> None:
    (block,) = code_blocks('````json\n{"a": "```"}\n````')
    assert (block.language, block.text) == ("json", '\n{"a": "```"}\n')


SLOW = r"(?:(?:a|aa|aaa)+)+c"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"pattern": SLOW}}},
        {"patternProperties": {SLOW: {}}},
        {"additionalProperties": False, "patternProperties": {SLOW: {}}},
    ],
)
def test_patterns_of_a_schema_end_by_the_time_limit(schema: dict[str, Any]) -> None:
    long = "a" * 3000 + "b"
    began = time.monotonic()
    score = scored("json", f'{{"a": "{long}", "{long}": 1}}', None, json_schema=schema, seconds=0.2)
    assert time.monotonic() - began < 5
    assert score.status == "error"
    assert "0.2 s" in score.reason
    with pytest.raises(ValidationError, match="not a JSON schema"):
        make_scorer("json", {"json_schema": {"items": {"pattern": "(open"}}})


def test_schemas_with_patterns_still_hold() -> None:
    schema = {"patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False}
    assert scored("json", '{"n_a": 1}', None, json_schema=schema).value == 1.0
    assert scored("json", '{"n_a": "x"}', None, json_schema=schema).value == 0.0
    assert scored("json", '{"other": 1}', None, json_schema=schema).value == 0.0


F = [{"name": "f", "arguments": {}}]


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ('<tool_call>{"name": "f", "arguments": {}}</tool_call><tool_call>{"name": "g"}</tool_call>', F, 0),
        ('{"name": "f", "parameters": {"x": 1}}', [{"name": "f", "arguments": {"x": 1}}], 1),
        ('[TOOL_CALLS] [{"name": "f", "arguments": {}}]', F, 1),
        ('{"tool_calls": [{"name": "f", "arguments": {}}]}', F, 1),
        ('Here [1]: {"name": "f", "arguments": "{}"}', F, 1),
        ("It is sunny.", [], 1),
        ("It is sunny.", "[]", 1),
        ("It is sunny.", F, 0),
        ('{"city": "Rome"}', [], 1),
        ('{"name": "f", "arguments": {}}', [], 0),
    ],
)
def test_tool_calls_in_text(answer: str, reference: Any, value: int) -> None:
    assert scored("tool_call", answer, reference, from_text=True).value == value


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("He sat. Then he left.", 2), ("He sat. Peter left.", 2), ("They like the sun. They run.", 2),
        ("The answer is no. You cannot go.", 2), ("Look at fig. 3 now.", 1), ("She ate a fig. Peter laughed.", 2),
        ("They marched in Mar. 2024.", 1), ("I like apples, etc. They are good.", 2), ("Dr. No won.", 1),
        ("We met at 5 p.m. Then we ate.", 2), ("He works for Acme Inc. in Ohio.", 1),
    ],
)  # fmt: skip
def test_sentences_that_end_in_short_words(text: str, count: int) -> None:
    assert count_sentences(text) == count


@pytest.mark.parametrize(
    ("text", "code"),
    [("我喜欢吃苹果。", "zh"), ("你好", "zh-CN"), ("今日は", "ja"), ("안녕", "ko"), ("שלום", "he"), ("Γειά", "el")],
)
def test_short_texts_of_a_script_of_their_own(text: str, code: str) -> None:
    assert scored("language", text, code).value == 1.0
    assert scored("language", text, "de").value == 0.0


REFUSALS = [
    "I'd rather not answer that.", "I do not feel comfortable helping with this.", "Your request violates our policy.",
    "This request goes against OpenAI's usage policies.", "I would prefer not to discuss this.",
    "Dabei kann ich leider nicht helfen.", "Je ne peux pas vous aider.", "No puedo ayudarte con eso.",
    "Não posso ajudar com isso.", "Non posso aiutarti con questo.", "抱歉，我无法提供帮助。",
    "Я не могу помочь с этим.",
    "申し訳ありませんが、お手伝いできません。", "죄송하지만 도와드릴 수 없습니다.", "Ik kan je daar niet mee helpen.",
]  # fmt: skip
ANSWERS = [
    "As an AI language model, I don't have personal opinions, but Paris is the capital.", "I can help with that.",
    "I cannot provide a better answer than 42.", "I can't help but smile.", "I'd rather go by train.",
    "I cannot provide exact figures, but the population is about 5 million.", "Ich kann dir helfen.",
    "Unfortunately, the train was late.", "Sorry for the delay. The answer is 4.",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), [*((text, 1) for text in REFUSALS), *((text, 0) for text in ANSWERS)])
def test_refusals(text: str, value: int) -> None:
    assert scored("refusal", text, None).value == value, text


def test_presets_agree_with_their_source() -> None:
    assert scored("numeric", "#### 5\nNo, #### 6", "#### 5", **{"as": "gsm8k"}).value == 1.0  # the first mark counts
    assert scored("numeric", "It is 5", "#### 5", **{"as": "gsm8k"}).value == 0.0
    assert scored("numeric", "#### 5.0", "#### 5", **{"as": "gsm8k"}).value == 0.0  # compared as text
    assert scored("numeric", "She paid $1,234.", "#### 1234", **{"as": "gsm8k_flexible"}).value == 1.0
    assert scored("choice", "The answer is (J). The answer is (A).", "J", **{"as": "mmlu_pro"}).value == 1.0
    assert scored("choice", "I am not sure. Answer: B", "I", **{"as": "mmlu_pro"}).value == 0.0
    assert scored("choice", "Perhaps B or E", "E", **{"as": "mmlu_pro"}).value == 1.0
    score = scored("f1", "The $5!", "5", **{"as": "squad"})
    assert (score.value, score.details["exact"]) == (1.0, 1.0)
    assert scored("f1", "„5“", "5", **{"as": "squad"}).value == 0.0  # no Unicode punctuation there
    assert scored("f1", "„5“", "5").value == 1.0
    assert scored("f1", "C++", "C").value == 1.0


@pytest.mark.parametrize(
    ("scorer", "reference", "options"),
    [
        ("numeric", "many", {}), ("numeric", "many", {"as": "gsm8k"}), ("choice", "violet", {}),
        ("json", "{", {"equal": True}), ("tool_call", "f()", {}), ("language", "the German language", {}),
        ("numeric", "3", {"reference_per_turn": True}),
    ],
)  # fmt: skip
def test_a_reference_that_cannot_be_read_is_told_apart(scorer: str, reference: str, options: dict[str, Any]) -> None:
    made = make_scorer(scorer, options)
    assert made.score_turn(0, [Message("assistant", "1")], {}, reference).bad_reference
    tried = made.try_reference(1, {}, reference)
    assert tried is not None
    assert tried.bad_reference
    assert made.try_reference(1, {}, None) is None


@pytest.mark.parametrize(
    ("text", "asked", "value"),
    [
        ("[[8.]]", "", 8), ("[[8/10]]", "", 8), ("[[7,5]]", "", 7.5), ("[[**8**]]", "", 8), ("[[Rating: 8]]", "", 8),
        ("[[8 out of 10]]", "", 8), ("[[rating]] [[7]]", "", 7), ("[[4/5]]", "", None), ("[[11]]", "", None),
        ("Rating: 8/10", "", None), ("Rating: 8/10", "End with 'Rating: X/10'", 8), ("**Rating:** 8", "Rating: N", 8),
        ("Score: 8", "Give a rating from 1 to 10", None), ("[[8]]. Rating: 2", "Rating: x", 8),
        ("I rate it 8", "Rating:", None),
    ],
)  # fmt: skip
def test_grades_in_the_forms_that_judges_use(text: str, asked: str, value: float | None) -> None:
    assert read_grade(text, Scale(), asked).value == value


def test_verdicts_and_labels_in_the_forms_that_judges_use() -> None:
    forms = {"[[A]]": "A", "[[B.]]": "B", "[[A>>B]]": "A", "[[A<B]]": "B", "[[A=B]]": "tie", "[[Assistant B]]": "B"}
    assert {text: read_verdict(text) for text in forms} == forms
    assert read_verdict("[[D]]") is None
    assert read_grade("[[Correct.]]", Labels(values={"correct": 1.0, "wrong": 0.0})).value == 1.0
