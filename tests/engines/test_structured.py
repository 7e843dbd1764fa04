"""Answers in a form from whole engines: the same from each of them, in any company and at any pace."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from batchchat.chats import Completion, Request, Structure
from batchchat.engines.continuous.speculative.drafters import LookUp, ModelDrafts
from batchchat.recipe.flags import freeze_flags
from batchchat.schedule import Feed
from batchchat.structure import agreement
from tests.support.engines import continuous, padded
from tests.support.requests import CODEC, prompt
from tests.support.zoo import Clock, llama, request

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kinds": {"type": "array", "items": {"enum": ["cat", "dog"]}, "maxItems": 2},
    },
    "required": ["name", "age", "kinds"],
    "additionalProperties": False,
}
FORMS = (
    None,
    Structure("json_schema", json.dumps(SCHEMA), "none"),
    Structure("regex", "[a-z]{3}-[0-9]{2}"),
    Structure("choice", '["yes", "no", "東京"]'),
    Structure("grammar", 'start: "(" start ")" | "x"'),
)
MORE: tuple[dict[str, Any], ...] = (
    {"temperature": 1.0},
    {},
    {"temperature": 1.5, "top_k": 9, "min_p": 0.01, "logprobs": 2},
    {"repetition_penalty": 1.2, "frequency_penalty": 0.4, "temperature": 0.8},
    {"stop": ("-", '"age"'), "temperature": 1.0},
)


def requests() -> list[Request]:
    return [
        request(
            n, prompt(n, 1 + n * 7 % 60), max_new_tokens=20 + n * 5 % 30, stop_token_ids=(1,), structured=FORMS[n % 5],
            **MORE[n // 3 % 5],
        )
        for n in range(30)
    ]  # fmt: skip


def drained(engine: Any, asked: list[Request] | None = None) -> dict[int, Completion]:
    return {one.request.index: one for one in engine.run(Feed(iter(asked or requests()), look_ahead=100))}


@cache
def plain() -> dict[int, Completion]:
    return drained(continuous(llama(), Clock(), max_rows=1))


def test_answers_have_their_forms() -> None:
    states = []
    for one in plain().values():
        assert one.error is None
        if one.request.settings.structured is None:
            continue
        text = one.text
        found = agreement(one.request.settings.structured, text, cut=one.finish_reason == "length")
        states.append((one.finish_reason, found.state))
        assert one.finish_reason != "stop" or found.state == "valid", (text, found.reason)
        assert one.finish_reason != "length" or found.reason is None or "cut off by max_new_tokens" in found.reason
    assert {("stop", "valid"), ("length", "cut off"), ("stop_string", "invalid")} <= set(states)


@pytest.mark.parametrize(
    "how",
    [
        {"max_rows": 8},
        {"max_rows": 8, "overlap": True},
        {"max_rows": 8, "batch_invariant": True},
        {"max_rows": 8, "max_tokens": 256},  # some lose their slots and begin again
        {"max_rows": 8, "cache": "paged"},
        {"max_rows": 8, "drafter": lambda: LookUp(4, 3), "always_draft": True},
        {"max_rows": 8, "drafter": lambda: ModelDrafts(llama(), "itself", 3, 8192, 480), "always_draft": True},
    ],
    ids=["crowd", "overlap", "strict", "little memory", "paged", "look-up", "draft"],
)
def test_answers_are_the_same_at_any_pace(how: dict[str, Any]) -> None:
    made = {name: value() if callable(value) else value for name, value in how.items()}
    engine = continuous(llama(), Clock(), **made)
    found = drained(engine)
    for index, one in plain().items():
        assert found[index].token_ids == one.token_ids, (index, one.request.settings, found[index].error)
        assert found[index].finish_reason == one.finish_reason
    drafts = engine.describe().drafts
    assert drafts is None or drafts.proposed > 0
    assert drafts is None or drafts.by == "prompt look-up" or drafts.accepted > 0


def by_xgrammar() -> list[Request]:
    asked = requests()
    for number, one in enumerate(asked):
        if one.settings.structured is not None:
            form = replace(one.settings.structured, backend="xgrammar")
            asked[number] = replace(one, settings=replace(one.settings, structured=form))
    return asked


def test_another_library_keeps_them_as_well_in_any_company() -> None:
    """Of forms in ASCII with one spelling it leaves the same tokens; within characters it allows more of them."""
    found = drained(continuous(llama(), Clock(), max_rows=8, drafter=LookUp(4, 3), always_draft=True), by_xgrammar())
    for index, one in drained(padded(llama(), Clock()), by_xgrammar()).items():
        assert found[index].token_ids == one.token_ids
        form = one.request.settings.structured
        if form is None or form.kind in ("regex", "grammar"):
            assert one.token_ids == plain()[index].token_ids
        assert one.error is None
        assert one.finish_reason != "stop" or form is None or agreement(form, one.text, cut=False).state == "valid"


def test_padded_batches_give_the_same() -> None:
    found = drained(padded(llama(), Clock()))
    for index, one in plain().items():
        assert found[index].token_ids == one.token_ids
        assert found[index].finish_reason == one.finish_reason


def test_a_form_that_fails_costs_its_row() -> None:
    """A grammar of which no answer can ever be whole: the library gives it up."""
    asked = requests()[:4]
    broken = replace(asked[2].settings, structured=Structure("regex", "[^\\s\\S]"))
    asked[2] = replace(asked[2], settings=broken)
    for engine in (continuous(llama(), Clock()), padded(llama(), Clock())):
        found = drained(engine, asked)
        assert [one.error is None for _, one in sorted(found.items())] == [True, True, False, True]
        assert found[0].token_ids == plain()[0].token_ids


def test_beams_and_forms_do_not_combine() -> None:
    (one,) = drained(
        padded(llama(), Clock()),
        [request(0, (5, 6), structured=FORMS[2], stop_token_ids=(1,), max_new_tokens=4,
                 flags=freeze_flags({"num_beams": 2}))],
    ).values()  # fmt: skip
    assert "structured cannot be combined with beam search" in (one.error or "")


def test_an_end_that_must_wait_says_that_nothing_is_left() -> None:
    asked = [request(0, (5, 6), structured=Structure("choice", '["a"]'), stop_token_ids=(1,), min_new_tokens=9,
                     max_new_tokens=20)]  # fmt: skip
    for engine in (continuous(llama(), Clock()), padded(llama(), Clock())):
        (one,) = drained(engine, asked).values()
        assert "min_new_tokens" in (one.error or "")
        assert CODEC.decode(one.token_ids) == "a"
