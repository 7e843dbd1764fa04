"""What both local engines make of texts in settings, in any script, and of log-probabilities."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from batchchat.chats import Completion, Request
from batchchat.engines.answer import OpenAnswer
from batchchat.engines.continuous.engine import ContinuousEngine
from batchchat.engines.pipeline.engine import PipelineEngine
from batchchat.errors import UsageError
from batchchat.prompts import TokenizerCodec, resolve_settings
from batchchat.prompts.answers import answer_text
from batchchat.prompts.token_texts import spellings
from batchchat.recipe.flags import freeze_flags
from batchchat.recipe.generation import GenerationSection
from batchchat.schedule import Feed
from tests.support import zoo
from tests.support.engines import continuous as make_continuous
from tests.support.engines import padded
from tests.support.requests import prompt


@cache
def codec(name: str = "byte_bpe") -> TokenizerCodec:
    tokenizer = getattr(zoo, name)()
    tokenizer.pad_token = "<unk>"
    return TokenizerCodec(tokenizer)


def continuous(model: Any) -> ContinuousEngine:
    return make_continuous(model, zoo.Clock(), codec(), max_rows=8)


def pipeline(model: Any) -> PipelineEngine:
    return padded(model, zoo.Clock(), codec(), max_tokens=8192)


ENGINES = pytest.mark.parametrize("engine", [continuous, pipeline])
Engine = Callable[[Any], Any]


def answers(engine: Engine, requests: Iterable[Request], model: Any = None) -> list[Completion]:
    found = engine(model or zoo.llama()).run(Feed(iter(requests), look_ahead=100))
    return sorted(found, key=lambda done: done.request.index)


def parrot(ids: tuple[int, ...]) -> LlamaForCausalLM:
    """A model that goes on with these tokens, one after the other: each knows its successor."""
    assert len(set(ids)) == len(ids), "a token has one successor"
    config = LlamaConfig(
        vocab_size=480, hidden_size=480, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in (model.model.layers[0].self_attn.o_proj.weight, model.model.layers[0].mlp.down_proj.weight):
            weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(480))
        model.lm_head.weight.zero_()
        for token, successor in pairwise(ids):
            model.lm_head.weight[successor, token] = 1.0
    return model


SCRIPTS = {
    "latin": "naïve",
    "combining": "e\u0301",
    "hebrew": "שלום",
    "one_hebrew_letter": "ש",
    "arabic": "مرحبا",
    "devanagari": "हि",
    "thai": "ที่",
    "cjk": "東京",
    "hangul": "한글",
    "emoji": "😀",
    "family": "👩\u200d🔬",
    "newline": "\n\n",
}


# stop strings


@ENGINES
@pytest.mark.parametrize("script", ["latin", "one_hebrew_letter", "cjk", "emoji", "combining"])
def test_an_answer_ends_at_a_stop_string_of_any_script(engine: Engine, script: str) -> None:
    stop = SCRIPTS[script]
    begun, end = codec().encode_text("q"), codec().encode_text(" z")
    written = codec().encode_text(stop)
    values = {"max_new_tokens": len(written) + 2, "stop": (stop,)}
    (done,) = answers(engine, [zoo.request(0, begun, **values)], parrot((*begun, *written, *end)))
    assert (done.finish_reason, done.token_ids, answer_text(done)) == ("stop_string", written, "")


@ENGINES
def test_a_stop_string_ends_an_answer_that_spells_it_otherwise(engine: Engine) -> None:
    begun, written, end = (codec().encode_text(text) for text in ("q", "e\u0301", " z"))
    given = resolve_settings(GenerationSection(max_new_tokens=9, stop=("\u00e9",)), {}, {}, codec())
    one = zoo.request(0, begun, max_new_tokens=9, stop=given.stop)
    (done,) = answers(engine, [one], parrot((*begun, *written, *end)))
    assert (done.finish_reason, answer_text(done)) == ("stop_string", "")


@settings(max_examples=150)
@given(
    st.sampled_from(["byte_bpe", "metaspace_bpe"]),
    st.sampled_from(sorted(SCRIPTS.values())),
    st.text(st.sampled_from("ab é東😀\n.ש"), max_size=40),
    st.integers(0, 2**32),
)
def test_a_stop_string_is_found_with_its_last_token_however_it_is_cut(
    name: str, stop: str, before: str, seed: int
) -> None:
    ids = cut_at_random(codec(name), before + stop + "b", seed)
    row = OpenAnswer(zoo.request(0, max_new_tokens=10_000, stop=("never here", stop)), codec(name))
    for place, token in enumerate(ids, 1):
        row.add(token)
        held = stop in codec(name).decode(ids[:place])
        assert row.done == held, codec(name).decode(ids[:place])
        if held:
            return
    raise AssertionError("the text holds the stop string")


def test_a_stop_string_that_shares_its_token_with_the_next_character_is_found_at_once() -> None:
    """A token of a newline and the first byte of a character."""

    class Fused:
        """Ids are bytes, and 256 is a newline with the first byte of 東."""

        def decode(self, ids: Iterable[int]) -> str:
            return b"".join(b"\n\xe6" if n == 256 else bytes([n]) for n in ids).decode("utf-8", "replace")

    codec_: Any = Fused()
    row = OpenAnswer(zoo.request(0, max_new_tokens=9, stop=("\n",)), codec_)
    row.add(97)
    row.add(256)
    assert row.finish_reason == "stop_string"


def cut_at_random(codec_: TokenizerCodec, text: str, seed: int) -> list[int]:
    """The text as any tokens that decode to it: some characters as single bytes, some joined."""
    bits = torch.randint(0, 2, (len(text),), generator=torch.Generator().manual_seed(seed)).tolist()
    bytes_of = {piece: number for number, piece in reversed(list(enumerate(codec_.token_texts().pieces))) if piece}
    ids: list[int] = []
    for character, apart in zip(text, bits, strict=True):
        encoded = character.encode()
        whole = bytes_of.get(encoded)
        if apart or whole is None:
            ids += [bytes_of[bytes([byte])] for byte in encoded]
        else:
            ids.append(whole)
    return ids


# texts that must not be written


def forbidden(words: tuple[str, ...]) -> tuple[str, ...]:
    return resolve_settings(GenerationSection(bad_words=words), {}, {}, codec()).bad_texts


def written_often(texts: Iterable[str]) -> tuple[str, ...]:
    """Pieces of one to four characters that the answers hold; a few, so that answers remain possible."""
    pieces: dict[str, None] = {}
    for text in texts:
        for length in (1, 2, 3, 4):
            pieces.update(dict.fromkeys(text[n : n + length] for n in range(0, len(text) - length, 5)))
    return tuple(piece for piece in pieces if "\N{REPLACEMENT CHARACTER}" not in piece and piece.isprintable())[:40]


@pytest.mark.parametrize(
    ("engine", "values"),
    [
        (continuous, {}),
        (continuous, {"temperature": 1.2}),
        (pipeline, {}),
        (pipeline, {"temperature": 1.2}),
        (pipeline, {"temperature": 0.9, "flags": freeze_flags({"top_h": 0.9})}),
        (pipeline, {"flags": (("num_beams", 2),)}),
    ],
)
def test_a_text_that_is_forbidden_is_never_written(engine: Engine, values: dict[str, Any]) -> None:
    requests = [zoo.request(n, prompt(n, 8), max_new_tokens=40, **values) for n in range(4)]
    words = written_often(done.text for done in answers(engine, requests))
    assert len(words) > 10
    banned = forbidden(words)
    held = [zoo.request(n, prompt(n, 8), max_new_tokens=40, bad_texts=banned, **values) for n in range(4)]
    for done in answers(engine, held):
        assert done.error is None
        assert len(done.token_ids) == 40
        assert not [word for word in banned if word in done.text]


@ENGINES
def test_a_forbidden_text_keeps_to_itself(engine: Engine) -> None:
    """What has no part of it is written as without, and one row's is not another's."""
    free = answers(engine, [zoo.request(n, prompt(n, 8), max_new_tokens=30) for n in range(3)])
    absent = ("no such text", "東京都")
    held = answers(engine, [zoo.request(n, prompt(n, 8), max_new_tokens=30, bad_texts=absent) for n in range(3)])
    assert [done.token_ids for done in held] == [done.token_ids for done in free]
    word = next(text for text in written_often([free[1].text]) if len(text) > 1)
    mixed = [zoo.request(n, prompt(n, 8), max_new_tokens=30, bad_texts=(word,) if n == 1 else ()) for n in range(3)]
    found = answers(engine, mixed)
    assert [found[n].token_ids == free[n].token_ids for n in range(3)] == [True, False, True]


@ENGINES
@pytest.mark.parametrize("text", [" fox", "fox", " fo", "東", "é"])
def test_a_word_is_kept_out_with_and_without_its_space(engine: Engine, text: str) -> None:
    begun, end = codec().encode_text("q"), codec().encode_text("z")
    for written in (text, text.strip()):
        ids = codec().encode_text(written)
        one = zoo.request(0, begun, max_new_tokens=len(ids), bad_texts=forbidden((text.strip(),)))
        (done,) = answers(engine, [one], parrot((*begun, *ids, *end)))
        assert text.strip() not in done.text
        assert done.token_ids[:-1] == ids[:-1], "only the last token completes it"


def test_special_tokens_are_no_text_and_do_not_part_one() -> None:
    texts = codec().token_texts()
    end = codec().tokenizer.eos_token_id
    assert texts.pieces[end] == b""
    (done,) = answers(continuous, [zoo.request(0, (5,), bad_texts=("</s>",), stop_token_ids=(end,))], parrot((5, end)))
    assert done.finish_reason == "stop"
    other = codec().tokenizer.convert_tokens_to_ids("<|im_start|>")
    (done,) = answers(continuous, [zoo.request(0, (5,), bad_texts=("<|im_",))], parrot((5, other)))
    assert other not in done.token_ids
    (first, *_), last = codec().encode_text("fo"), codec().encode_text("x")[0]
    assert texts.joined([first, end]) == texts.joined([first])
    assert last in texts.completing(b"fox", b"fo")


@pytest.mark.parametrize("name", ["byte_bpe", "metaspace_bpe", "unigram"])
def test_the_texts_of_tokens_in_a_row_are_the_text(name: str) -> None:
    known = codec(name).token_texts()
    generator = torch.Generator().manual_seed(0)
    special = codec(name).special_ids
    anchor = codec(name).encode_text("a")
    for _ in range(200):
        ids = [int(n) for n in torch.randint(0, len(known.pieces), (12,), generator=generator) if int(n) not in special]
        written = known.joined([*anchor, *ids])
        text = codec(name).decode([*anchor, *ids])
        if "\N{REPLACEMENT CHARACTER}" not in text:
            assert written.decode().lstrip() == text


def test_a_tokenizer_whose_tokens_have_no_text_of_their_own_is_refused() -> None:
    class Titled(TokenizerCodec):
        def decode(self, ids: Sequence[int]) -> str:
            return super().decode(ids).title()

    odd = Titled(zoo.byte_bpe())
    with pytest.raises(UsageError, match=r"generation\.bad_words cannot be kept out"):
        resolve_settings(GenerationSection(bad_words=("cat",)), {}, {}, odd)
    assert resolve_settings(GenerationSection(), {}, {}, odd).bad_texts == ()


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8))
def test_spellings_are_the_same_text(text: str) -> None:
    found = spellings((text,))
    assert found[0] == text
    assert {unicodedata.normalize("NFD", one) for one in found} == {unicodedata.normalize("NFD", text)}
    assert unicodedata.normalize("NFC", text) in found


# log-probabilities


OWN: list[dict[str, Any]] = [
    {"temperature": 0.7, "top_k": 5, "repetition_penalty": 1.5, "logit_bias": ((40, 9.0),), "min_new_tokens": 3},
    {"bad_words": ((41,), (50, 51)), "presence_penalty": 1.0},
]
OF_GENERATE: list[dict[str, Any]] = [
    {"flags": freeze_flags({"no_repeat_ngram_size": 1, "suppress_tokens": [44, 45]}), "temperature": 1.0},
    {"flags": freeze_flags({"guidance_scale": 1.5, "sequence_bias": [[[60], 8.0]]}), "repetition_penalty": 1.3},
    {"flags": freeze_flags({"watermarking_config": {"bias": 4.0}})},
]


@pytest.mark.parametrize(
    ("engine", "values"),
    [*((continuous, values) for values in OWN), *((pipeline, values) for values in (*OWN, *OF_GENERATE))],
)
def test_log_probabilities_are_the_models_own_whatever_else_is_set(engine: Engine, values: dict[str, Any]) -> None:
    one = zoo.request(0, prompt(3, 12), max_new_tokens=6, logprobs=2, **values)
    (done,) = answers(engine, [one])
    assert done.logprobs is not None
    logs = own_logs(one, done)
    for place, (found, token) in enumerate(zip(done.logprobs, done.token_ids, strict=True)):
        assert found.token_id == token
        assert found.logprob == pytest.approx(float(logs[place, token]), abs=1e-4)
        assert found.top[0][1] == pytest.approx(float(logs[place].max()), abs=1e-4)


@ENGINES
def test_processed_ones_are_of_what_the_token_was_chosen_from(engine: Engine) -> None:
    values = {"logprobs": 5, "logprobs_of": "processed", "max_new_tokens": 5}
    sampled = zoo.request(0, prompt(3, 12), temperature=0.5, top_k=3, **values)
    greedy = zoo.request(1, prompt(4, 12), logit_bias=((40, 100.0),), **values)
    first, second = answers(engine, [sampled, greedy])
    assert first.logprobs is not None
    assert second.logprobs is not None
    logs = own_logs(sampled, first)
    for place, found in enumerate(first.logprobs):
        best = logs[place].topk(3)
        expected = torch.log_softmax(best.values / 0.5, dim=-1).tolist()
        assert [token for token, _ in found.top] == best.indices.tolist()
        assert [value for _, value in found.top] == pytest.approx(expected, abs=1e-4)
        assert found.logprob == dict(found.top)[found.token_id]
    assert [found.token_id for found in second.logprobs] == [40] * 5
    assert all(found.logprob > -1e-6 for found in second.logprobs)


def own_logs(one: Request, done: Completion) -> torch.Tensor:
    ids = torch.tensor([[*one.prompt_ids, *done.token_ids]])
    with torch.inference_mode():
        return torch.log_softmax(zoo.llama()(ids).logits[0, len(one.prompt_ids) - 1 : -1].float(), dim=-1)


@ENGINES
def test_a_setting_that_names_no_token_costs_its_row(engine: Engine) -> None:
    odd = zoo.request(1, prompt(1, 5), logit_bias=((9999, 2.0),))
    fine, refused = answers(engine, [zoo.request(0, prompt(0, 5)), odd])
    assert fine.error is None
    assert "the model's vocabulary has 480 tokens" in str(refused.error)
