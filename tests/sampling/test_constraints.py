"""Rows are kept in their forms by the sampler, whatever the logits, the tokenizer and the other rows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchchat.chats import GrammarBackend, Message, Request, Structure
from batchchat.prompts import TokenizerCodec
from batchchat.sampling import SamplerRows, masks
from batchchat.structure import agreement, utf8
from batchchat.structure.backends import BACKENDS, byte_matchers
from tests.support import zoo

END = 1
PADDED = 40
"""Rows of the model beyond the tokenizer's vocabulary."""

SHORT = {"type": "string", "maxLength": 5}
SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "integer", "minimum": -5, "maximum": 300},
            {"type": "boolean"},
            {"type": "null"},
            SHORT,
            {"enum": ["東京", 'a "quoted" one', 3, None]},
            {"type": "string", "pattern": "^[A-Z]{2}[0-9]$"},
            {"type": "string", "format": "date"},
            {"const": {"a": [1, 2]}},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda one, most: {"type": "array", "items": one, "maxItems": most}, inner, st.integers(0, 3)),
        st.builds(
            lambda fields, required: {
                "type": "object",
                "properties": fields,
                "required": [name for name in fields if name in required],
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from(["name", "é", "b c"]), inner, min_size=1),
            st.sets(st.sampled_from(["name", "é", "b c"])),
        ),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
    ),
    max_leaves=5,
)
FORMS = st.one_of(
    st.builds(
        lambda schema, space: Structure("json_schema", json.dumps(schema), space),
        SCHEMAS,
        st.sampled_from(["none", "capped"]),
    ),
    st.sampled_from(["[0-9]{3}-(ab|cd)?", "^(naïve|café)$", "[^a-z\\s]{2,4}"]).map(lambda one: Structure("regex", one)),
    st.just(Structure("choice", json.dumps(["yes", "yes, but", "東京", "no\n"], ensure_ascii=False))),
    st.just(Structure("grammar", 'start: "(" start ")" | item\nitem: /[0-9]{1,2}/ | "x"')),
)


@cache
def codec(name: str, template: str = zoo.CHATML) -> TokenizerCodec:
    return TokenizerCodec(getattr(zoo, name)(template))


def request(index: int, structure: Structure | None, **settings: Any) -> Request:
    given = {"max_new_tokens": 400, "temperature": 1.0, "stop_token_ids": (END,), **settings}
    return zoo.request(index, (5, 6, 7), structured=structure, **given)


def written(
    requests: list[Request], known: TokenizerCodec, seed: int = 0, favoured: tuple[int, ...] = (), steps: int = 400
) -> list[tuple[list[int], bool]]:
    """What rows write on noise, in which `favoured` tokens stand out, and whether they came to an end."""
    size = known.vocab_size + PADDED
    rows = SamplerRows.from_requests(requests, size, texts=known.token_texts)
    noise = torch.Generator().manual_seed(seed)
    found: dict[int, list[int]] = {one.index: [] for one in requests}
    live = [one.index for one in requests]
    for _ in range(steps):
        logits = torch.randn((len(live), size), generator=noise)
        logits[:, known.vocab_size :] += 20.0  # a model may favour what it was never trained on
        logits[:, list(favoured)] += 10.0
        before = logits.clone()
        choice = rows.choose(logits)
        assert torch.equal(logits, before)
        assert not choice.failed.any(), choice.reasons
        rows.append(choice.ids)
        for index, token in zip(live, choice.ids.tolist(), strict=True):
            found[index].append(token)
        keep = [row for row, index in enumerate(live) if found[index][-1] != END]
        if len(keep) < len(live):
            live = [live[row] for row in keep]
            rows.select(keep)
        if not live:
            break
    return [(tokens, tokens[-1] == END) for tokens in found.values()]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["byte_bpe", "metaspace_bpe"])
@settings(max_examples=25)
@given(forms=st.lists(FORMS, min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_whatever_the_logits_answers_have_their_forms(
    name: str, backend: GrammarBackend, forms: list[Structure], seed: int
) -> None:
    known = codec(name)
    forms = [replace(form, backend=backend) for form in forms]
    for form, (tokens, ended) in zip(
        forms, written([request(n, form) for n, form in enumerate(forms)], known, seed), strict=True
    ):
        assert max(tokens) < known.vocab_size
        assert not known.special_ids & set(tokens[: len(tokens) - ended])
        found = agreement(form, known.decode(tokens[: len(tokens) - ended]), cut=not ended)
        assert found.state == "valid" or not ended, found.reason


LITERAL = st.recursive(
    st.sampled_from(
        [
            {"type": "integer", "minimum": 5, "maximum": 300},
            {"type": "integer", "exclusiveMinimum": 7.5},
            {"type": "integer", "minimum": -20, "exclusiveMaximum": 0},
            {"type": "boolean"},
            {"type": "null"},
            {"enum": ["東京", 'a "quoted" one', 3, None]},
            {"type": "string", "enum": ["a", 1, "ab"]},
            {"type": "string", "pattern": "^[A-Z]{2}[0-9]$"},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda one, least, more: {"type": "array", "items": one, "minItems": least, "maxItems": least + more},
            inner, st.integers(0, 2), st.integers(0, 2),
        ),
        st.builds(
            lambda first, second, others: {
                "type": "array", "prefixItems": [first, second], "items": others, "minItems": 2, "maxItems": 3
            },
            inner, inner, inner,
        ),
        st.builds(
            lambda fields, required: {
                "type": "object", "properties": fields, "required": sorted(required), "additionalProperties": False
            },
            st.fixed_dictionaries({"a": inner, "b c": inner}, optional={'é"': inner}),
            st.sets(st.sampled_from(["a", "b c"])),
        ),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
    ),
    max_leaves=5,
)  # fmt: skip
"""Schemas of values that both libraries have one spelling for."""


@settings(max_examples=60, deadline=None)
@given(schema=LITERAL, space=st.sampled_from(["none", "capped"]), data=st.data())
def test_both_libraries_allow_the_same_at_every_step(schema: Any, space: Any, data: st.DataObject) -> None:
    schema = {"$defs": {"x/y": schema}, "type": "array", "items": {"$ref": "#/$defs/x~1y"}, "maxItems": 2}
    forms = [Structure("json_schema", json.dumps(schema), space, backend) for backend in BACKENDS]
    known = [byte_matchers(form.backend) for form in forms]
    matchers = [one.matcher(form) for one, form in zip(known, forms, strict=True)]
    text = b""
    for _ in range(60):
        ours, others = (one.allowed([matcher])[0] for one, matcher in zip(known, matchers, strict=True))
        assert ours.tolist() == others.tolist(), text
        assert len({matcher.may_end for matcher in matchers}) == 1, text
        left = [byte for byte in range(256) if masks.holds(ours, byte)]
        if not left:
            break
        byte = data.draw(st.sampled_from(left))
        text += bytes([byte])
        fork = matchers[1].fork()
        assert fork.take([byte])
        assert all(matcher.take([byte]) for matcher in matchers), text


@settings(max_examples=300)
@given(text=st.text(st.characters(min_codepoint=0x7E)), cut=st.integers(0, 9), piece=st.binary(min_size=1, max_size=4))
@example(text="", cut=0, piece=b"\xed\xa0")
@example(text="", cut=0, piece=b"\xf4\x90")
@example(text="\ud000", cut=1, piece=b"\xa0")
def test_tokens_go_on_with_utf_8_where_it_can_be_completed(text: str, cut: int, piece: bytes) -> None:
    def is_prefix(some: bytes) -> bool:
        ends = (fill * number for fill in (b"\x80", b"\xbf") for number in range(4))
        return any((some + end).decode("utf-8", "ignore").encode() == some + end for end in ends)

    begun = text.encode("utf-8", "replace")[:cut]
    whole = begun.decode("utf-8", "ignore").encode()
    tokens = utf8.Utf8Tokens([piece, b""])
    assert tokens.allowed(begun[len(whole) :]).tolist() == [int(is_prefix(begun + piece))]
    assert (tokens.after(begun[len(whole) :], 0) is not None) == is_prefix(begun + piece)


@pytest.mark.parametrize("of", ['{"type": "string"}', '{"type": "string", "maxLength": 2}', '{"type": "object"}'])
def test_no_text_is_let_through_that_is_not_utf_8(of: str) -> None:
    """Halves of surrogate pairs, and characters in more bytes than they need."""
    for backend in BACKENDS:
        matcher = byte_matchers(backend).matcher(Structure("json_schema", of, backend=backend))
        assert matcher.take(b'{"' if "object" in of else b'"')
        for wrong in (b"\xed\xa0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xff"):
            assert not matcher.fork().take(wrong), (backend, wrong)
        assert matcher.take("東".encode())


def test_rows_without_a_form_are_as_they_were() -> None:
    known = codec("byte_bpe")
    size = known.vocab_size
    logits = torch.randn((3, size), generator=torch.Generator().manual_seed(0))
    free = [request(0, None), request(1, None, temperature=0.0), request(2, None, top_k=5)]
    alone = SamplerRows.from_requests(free, size).choose(logits)
    form = request(3, Structure("choice", '["a"]'))
    crowd = SamplerRows.from_requests([free[0], form, *free[1:]], size, texts=known.token_texts)
    found = crowd.choose(logits[[0, 0, 1, 2]])
    assert found.ids[[0, 2, 3]].tolist() == alone.ids.tolist()
    assert known.decode([int(found.ids[1])]) == "a"


@pytest.mark.parametrize("top_k", [0, 5, 300])
@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_a_form_that_leaves_few_tokens_goes_with_cuts(top_k: int, top_p: float) -> None:
    """In a vocabulary of which a cut looks at the likeliest tokens only, nearly all of which are forbidden."""
    known = codec("byte_bpe")
    form = Structure("choice", '["b", "c"]')
    for seed in range(5):
        ((found, ended),) = written([request(0, form, top_k=top_k, top_p=top_p)], known, seed)
        assert ended
        assert known.decode(found[:-1]) in ("b", "c")


@pytest.mark.parametrize("backend", BACKENDS)
def test_white_space_is_capped_and_free_white_space_is_a_trap(backend: GrammarBackend) -> None:
    known = codec("byte_bpe")
    spaces = tuple(n for n, piece in enumerate(known.token_texts().pieces) if piece and not piece.strip(b" \n\t\r"))
    schema = json.dumps({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
                         "additionalProperties": False})  # fmt: skip
    ended = {
        space: written([request(0, Structure("json_schema", schema, space, backend))], known, 0, spaces)[0][1]
        for space in ("none", "capped", "free")
    }
    assert ended == {"none": True, "capped": True, "free": False}


def test_an_answer_may_end_exactly_where_its_form_may() -> None:
    known = codec("byte_bpe")
    rows = SamplerRows.from_requests([request(0, Structure("regex", "a{2,3}"), logprobs=20)], known.vocab_size,
                                     texts=known.token_texts)  # fmt: skip
    logits = torch.zeros((1, known.vocab_size))
    logits[0, END] = 50.0
    single = next(n for n, piece in enumerate(known.token_texts().pieces) if piece == b"a")
    logits[0, single] = 40.0
    tokens = []
    for _ in range(3):
        choice = rows.choose(logits)
        tokens.append(int(choice.ids[0]))
        rows.append(choice.ids)
    assert tokens == [single, single, END]


@pytest.mark.parametrize("opened_by", ["the template", "the model", "nobody"])
def test_reasoning_is_free_until_its_end(opened_by: str) -> None:
    known = codec("byte_bpe", zoo.CHATML + "{# <think></think> #}")
    texts = known.token_texts()
    assert texts.thinks
    marks = {"the template": "<think>\n", "the model": "", "nobody": "<think>\n\n</think>\n\n"}[opened_by]
    prompt = known.encode_text("assistant\n" + marks)
    one = zoo.request(
        0, prompt, structured=Structure("choice", '["yes", "no"]'), stop_token_ids=(END,), max_new_tokens=90
    )
    rows = SamplerRows.from_requests([one], known.vocab_size, texts=known.token_texts)
    said = known.encode_text("\nAll of this { is free\n</think>\n\n") if opened_by == "the template" else ()
    for token in said:
        logits = torch.zeros((1, known.vocab_size))
        logits[0, token], logits[0, END] = 5.0, 9.0  # no end before the answer
        choice = rows.choose(logits)
        assert int(choice.ids[0]) == token, known.decode([token])
        rows.append(choice.ids)
    tokens = []
    for _ in range(5):
        choice = rows.choose(torch.zeros((1, known.vocab_size)))
        rows.append(choice.ids)
        tokens.append(int(choice.ids[0]))
        if tokens[-1] == END:
            break
    assert known.decode(tokens[:-1]) in ("yes", "no")


def test_a_model_that_opens_its_reasoning_itself_may() -> None:
    tokenizer = zoo.byte_bpe()
    tokenizer.add_tokens(["<think>", "</think>"])
    known = TokenizerCodec(tokenizer)
    opening, closing = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    one = request(0, Structure("regex", "[0-9]"), temperature=0.0)
    for marks in ((opening, 77, closing), ()):
        rows = SamplerRows.from_requests([one], known.vocab_size, texts=known.token_texts)
        for token in (*marks, known.encode_text("7")[0], END):
            logits = torch.zeros((1, known.vocab_size))
            logits[0, token] = 5.0
            choice = rows.choose(logits)
            assert int(choice.ids[0]) == token
            rows.append(choice.ids)


def test_a_turn_that_is_continued_counts_as_the_beginning_of_its_form() -> None:
    known = codec("byte_bpe")
    form = Structure("choice", '["yes, indeed", "no"]')
    for begun, fits in (("yes, in", True), ("perhaps", False)):
        one = zoo.request(0, (5, 6), structured=form, stop_token_ids=(END,), max_new_tokens=50)
        one = Request(
            **{name: getattr(one, name) for name in one.__slots__} | {"messages": (Message("assistant", begun),)}
        )
        rows = SamplerRows(known.vocab_size, texts=known.token_texts)
        reason = rows.refusal(one)
        assert (reason is None) == fits
        if fits:
            ((tokens, ended),) = written([one], known)
            assert ended
            assert known.decode(tokens[:-1]) == "deed"
        else:
            assert reason is not None
            assert "does not begin as its form demands" in reason


def test_a_form_of_which_nothing_is_left_says_so() -> None:
    """Characters that the tokenizer has no tokens for; and bans that leave nothing."""
    known = codec("unigram")
    rows = SamplerRows.from_requests([request(0, Structure("regex", "§x"))], known.vocab_size, texts=known.token_texts)
    choice = rows.choose(torch.zeros((1, known.vocab_size)))
    told = choice.read()
    assert told.failed == [True]
    assert "allows nothing more at this place" in told.reasons[0]
    known = codec("byte_bpe")
    banned = tuple((n, -math.inf) for n, piece in enumerate(known.token_texts().pieces) if piece == b"a")
    row = request(0, Structure("choice", '["a"]'), logit_bias=banned)
    assert SamplerRows.from_requests([row], known.vocab_size, texts=known.token_texts).choose(
        torch.zeros((1, known.vocab_size))
    ).read().failed == [True]
