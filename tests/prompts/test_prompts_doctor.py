"""What `check` finds in prompts and settings."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from batchchat.chats import Chat, Message, Place
from batchchat.prompts import ByteCodec, Finding, TokenizerCodec, diagnose
from batchchat.recipe.generation import GenerationSection
from tests.support import zoo

HELLO = (Message("user", "Hello"),)


def findings(
    template: str | None = zoo.CHATML,
    *,
    chats: tuple[Chat, ...] | None = None,
    defaults: dict[str, Any] | None = None,
    generation: dict[str, Any] | None = None,
    system: str | None = None,
    tokenizer: Any = None,
    context_length: int | None = 100,
) -> list[Finding]:
    tokenizer = tokenizer or zoo.byte_bpe(template)
    tokenizer.pad_token = "</s>"
    codec = TokenizerCodec(tokenizer, context_length=context_length)
    recipe = SimpleNamespace(
        generation=GenerationSection.model_validate(generation or {}), chat=SimpleNamespace(system=system)
    )
    return diagnose(codec, defaults or {}, recipe, chats if chats is not None else (chat(HELLO),))


def chat(*segments: tuple[Message, ...], prefill: bool = False) -> Chat:
    return Chat("a", 0, Place("chats.jsonl", 3), segments, prefill=prefill)


def text(found: list[Finding]) -> str:
    return "\n".join(f"{finding.level}: {finding.what} / {finding.advice}" for finding in found)


def test_a_sound_recipe_has_no_findings() -> None:
    assert findings() == []


def test_a_doubled_and_a_missing_beginning() -> None:
    doubled = findings("{{ bos_token }}{{ bos_token }}" + zoo.CHATML)
    assert [finding.level for finding in doubled] == ["warning"]
    assert "'<s>' twice" in text(doubled)
    assert findings("{{ bos_token }}" + zoo.CHATML) == []


def test_roles_that_the_template_refuses() -> None:
    found = text(findings(zoo.STRICT))
    assert "note: a system turn: the chat template refuses this chat: System role not supported" in found
    assert "note: two user turns in a row" in found
    found = text(findings(zoo.STRICT, system="Be brief."))
    assert "error: a system turn" in found
    assert "note: two user turns" in found
    found = text(findings(zoo.STRICT, chats=(chat((*HELLO, *HELLO)),)))
    assert "error: two user turns in a row" in found


def test_a_date_in_the_prompt() -> None:
    found = findings(zoo.DATED)
    assert [finding.level for finding in found] == ["warning"]
    assert "today's date" in text(found)
    assert "chat.template=FILE" in text(found)
    switchable = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b') %}{% endif %}{{ date_string }}"
    )
    assert "chat.template_kwargs.date_string" in text(findings(switchable + zoo.CHATML))


def test_settings_that_leak_or_do_nothing() -> None:
    found = text(findings(defaults={"do_sample": True, "temperature": 0.6}))
    assert "temperature=0.6 comes from the model's generation config" in found
    assert "generation.temperature" in found
    said = {"temperature": 0.6, "top_k": 0}
    assert findings(defaults={"do_sample": True, "temperature": 0.6}, generation=said) == []
    assert "generation.top_p does nothing" in text(findings(generation={"top_p": 0.9}))


def test_an_unstated_top_k_is_another_than_that_of_generate() -> None:
    found = findings(generation={"temperature": 0.6})
    assert [finding.level for finding in found] == ["note"]
    assert "generate takes 50" in text(found)
    assert findings(generation={"temperature": 0.6, "top_k": 50}) == []
    assert "generate takes 50" not in text(findings(defaults={"do_sample": True, "top_k": 20}))
    assert findings() == []  # greedy


def test_prefill_that_ends_in_white_space() -> None:
    opened = (*HELLO, Message("assistant", "The answer is "))
    found = text(findings(chats=(chat(opened, prefill=True),)))
    assert "chats.jsonl:3 ends in white space" in found
    assert findings(chats=(chat((*HELLO, Message("assistant", "The answer is")), prefill=True),)) == []


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}{% if not loop.last or m.role != 'assistant' %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_what_a_turn_to_be_continued_meets() -> None:
    opened = (*HELLO, Message("assistant", "The answer is"))
    found = text(findings(THINKING, chats=(chat(opened, prefill=True),)))
    assert r"chats.jsonl:3 the template writes '<think>\n\n</think>\n\n', but ''" in found
    assert findings(THINKING, chats=(chat(HELLO),)) == []
    special = (*HELLO, Message("assistant", "<|im_start|>analysis"))
    assert "holds '<|im_start|>', which stays text" in text(findings(chats=(chat(special, prefill=True),)))


def test_calls_and_tools_of_which_the_template_writes_nothing() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    asked = chat((*HELLO, Message("assistant", None, tool_calls=(call,)), Message("tool", "1"), *HELLO))
    silent = "{% for m in messages %}{{ m.content or '' }}{% endfor %}"
    found = text(findings(silent, chats=(replace(asked, tools=(call,)),)))
    assert "leaves out the tool calls of earlier turns, as in chats.jsonl:3" in found
    assert "leaves out the tools that chats offer" in found
    speaking = silent + "{{ messages | tojson }}{{ tools | tojson }}"
    assert "leaves out" not in text(findings(speaking, chats=(replace(asked, tools=(call,)),)))


def test_missing_limits_and_tokens() -> None:
    tokenizer = zoo.byte_bpe()
    assert "context length is unknown" in text(findings(tokenizer=tokenizer, context_length=None))
    tokenizer.eos_token = None
    assert "every answer runs to max_new_tokens" in text(findings(tokenizer=tokenizer))


def test_no_template_is_an_error() -> None:
    found = findings(None)
    assert [finding.level for finding in found] == ["error"]
    assert "chat.template=FILE" in found[0].advice


def test_a_run_without_a_model_has_nothing_to_find() -> None:
    recipe = SimpleNamespace(generation=GenerationSection(), chat=SimpleNamespace(system=None))
    assert diagnose(ByteCodec(), {}, recipe, (chat(HELLO),)) == []
