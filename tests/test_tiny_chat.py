"""The built-in model: its tokenizer, templates and files, its skills on fresh questions, and how it is made."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing.spawn import ProcessException
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from scripts.tiny_chat import train as training
from scripts.tiny_chat.conversations import SKILLS, conversation
from scripts.tiny_chat.evaluate import MODEL_FOLDER, accuracy, evaluate
from scripts.tiny_chat.muon import Muon
from scripts.tiny_chat.team import Team, run_team
from scripts.tiny_chat.tokenizer import SPECIAL, TEMPLATE_FILE
from scripts.tiny_chat.train import Settings, Stage, train, trained

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
WEATHER_LINE = (
    '\n{"name": "get_weather", "description": "Get the weather in a city.",'
    ' "parameters": {"city": "string", "days": "integer"}}'
)
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>'
CALL_MESSAGE: dict[str, Any] = {
    "role": "assistant",
    "tool_calls": [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}],
}
TINY = Settings(
    stages=tuple(Stage(steps=4, learning_rate=1e-3, falls_from=2, ends_at=6) for _ in range(3)),
    tokens_per_step=256,
    short_row=64,
    long_row=128,
    long_every=2,
    warmup=2,
    processes=1,
    compiled=False,
    checkpoint_every=2,
    tokenizer_conversations=60,
    vocab_size=400,
    context=256,
    hidden=16,
    inner=32,
    layers=1,
    heads=2,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MODEL_FOLDER)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(MODEL_FOLDER, dtype="float32")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], **options: Any) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


# The tokenizer


@settings(deadline=None, max_examples=300)
@given(text=st.text() | st.text(alphabet=" \t\r\n\x00.,'\"<|>/_aZ09é"))
def test_every_string_comes_back_unchanged(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    "text", ["", "\x00", "\r\n", "  a  b ", "don 't .", "👩‍👩‍👧 日本", "<|end|> <tool_call>", "\ufeff\u2028"]
)
def test_awkward_strings_come_back_unchanged(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_numbers_of_two_digits_are_single_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("12047+38-7")["input_ids"])
    assert tokens == ["1", "20", "47", "+", "38", "-", "7"]


def test_special_tokens_agree_everywhere(tokenizer: PreTrainedTokenizerBase) -> None:
    config, generation = (
        json.loads((MODEL_FOLDER / name).read_text()) for name in ("config.json", "generation_config.json")
    )
    assert tokenizer.convert_tokens_to_ids(SPECIAL) == list(range(len(SPECIAL)))
    assert set(tokenizer.all_special_tokens) == set(SPECIAL)
    for name, token in (("pad", "<|pad|>"), ("bos", "<|begin|>"), ("eos", "<|end|>")):
        ids = {config[f"{name}_token_id"], generation[f"{name}_token_id"], getattr(tokenizer, f"{name}_token_id")}
        assert ids == {tokenizer.convert_tokens_to_ids(token)}
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
    assert tokenizer.padding_side == "left"
    assert tokenizer.model_max_length == config["max_position_embeddings"] == 2048
    assert len(tokenizer) == config["vocab_size"]


# The templates


def test_turns_and_system_text(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        user("Hi!"),
        {"role": "assistant", "content": "Hello!"},
        user("Bye!"),
    ]
    turns = "<|begin|><|system|>Be brief.<|end|><|user|>Hi!<|end|><|assistant|>Hello!<|end|><|user|>Bye!<|end|>"
    assert rendered(tokenizer, messages) == turns
    assert rendered(tokenizer, messages, add_generation_prompt=True) == turns + "<|assistant|>"


def test_tools_are_offered_with_and_without_a_system_text(tokenizer: PreTrainedTokenizerBase) -> None:
    alone = rendered(tokenizer, [user("Hi!")], tools=[WEATHER])
    assert alone == f"<|begin|><|system|>{WEATHER_LINE}<|end|><|user|>Hi!<|end|>"
    below = rendered(
        tokenizer, [{"role": "system", "content": "Be brief."}, user("Hi!")], tools=[WEATHER, WEATHER["function"]]
    )
    assert below == f"<|begin|><|system|>Be brief.{WEATHER_LINE}{WEATHER_LINE}<|end|><|user|>Hi!<|end|>"


def test_a_tool_without_parameters_is_offered(tokenizer: PreTrainedTokenizerBase) -> None:
    text = rendered(tokenizer, [user("Hi!")], tools=[{"type": "function", "function": {"name": "stop"}}])
    assert '\n{"name": "stop", "description": "", "parameters": {}}<|end|>' in text


@pytest.mark.parametrize("arguments", [{"city": "Oslo"}, '{"city": "Oslo"}'])
def test_calls_and_results(tokenizer: PreTrainedTokenizerBase, arguments: object) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    messages = [
        user("?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "21"},
    ]
    expected = f"<|begin|><|user|>?<|end|><|assistant|>{CALL}<|end|><|tool|>21<|end|><|assistant|>"
    assert rendered(tokenizer, messages, add_generation_prompt=True) == expected


def test_text_parts_are_joined(tokenizer: PreTrainedTokenizerBase) -> None:
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    assert rendered(tokenizer, [{"role": "user", "content": parts}]) == "<|begin|><|user|>Hi there<|end|>"


def test_an_unknown_role_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(Exception, match="Unknown role: judge"):
        rendered(tokenizer, [{"role": "judge", "content": "Hi!"}])


def test_the_final_message_can_be_continued(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [user("Hi!"), {"role": "assistant", "content": "Hello"}]
    assert rendered(tokenizer, messages, continue_final_message=True).endswith("<|assistant|>Hello")


def test_the_assistant_mask_covers_its_answers_and_end_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [user("Hi!"), {"role": "assistant", "content": "Hello!"}, user("?"), CALL_MESSAGE]
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    spoken = [token for token, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(spoken) == f"Hello!<|end|>{CALL}<|end|>"


def test_answers_are_parsed_into_messages(tokenizer: PreTrainedTokenizerBase) -> None:
    prefix = rendered(tokenizer, [user(CALL)], add_generation_prompt=True)
    assert tokenizer.parse_response(" Hi!\n<|end|>", prefix=prefix) == {"role": "assistant", "content": " Hi!\n"}
    called = tokenizer.parse_response(f"{CALL}<|end|>", prefix=prefix)
    assert called == CALL_MESSAGE | {"content": ""}
    assert tokenizer.parse_response("<tool_call>{", prefix=prefix)["content"] == ""


def test_the_shipped_template_is_the_one_of_the_script(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.chat_template == TEMPLATE_FILE.read_text(encoding="utf-8")


# The files


def test_the_model_is_small(model: PreTrainedModel) -> None:
    assert sum(parameter.numel() for parameter in model.parameters()) <= 3_000_000
    assert (MODEL_FOLDER / "model.safetensors").stat().st_size <= 6_000_000


def test_the_folder_holds_what_is_shipped_and_nothing_else() -> None:
    assert {file.name for file in MODEL_FOLDER.iterdir() if not file.name.startswith("__")} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_generation_defaults_are_the_intended_ones() -> None:
    saved = json.loads((MODEL_FOLDER / "generation_config.json").read_text())
    saved.pop("transformers_version")
    assert saved == {"do_sample": False, "max_new_tokens": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def test_the_model_card_reports_every_skill() -> None:
    card = (MODEL_FOLDER / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")
    table = dict(re.findall(r"^\| ([a-z ]+) \| ([\d.]+)%", card, flags=re.MULTILINE))
    assert set(table) == {*SKILLS, "all"}
    assert float(table["all"]) >= 95
    assert min(float(share) for share in table.values()) >= 85
    assert not re.search(r"\{[a-z_]+\}", card)


# The skills


def test_fresh_questions_are_answered(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """The card says 95% over all and 85% in each skill at least; a sample of 24 conversations a skill may miss some."""
    shares = accuracy(evaluate(model, tokenizer, per_skill=24))
    assert shares.pop("all") >= 0.92
    assert min(shares.values()) >= 0.7, shares


# The conversations


def test_conversations_are_reproducible() -> None:
    for skill in (None, *SKILLS):
        first, second = (conversation(7, fresh=True, skill=skill) for _ in range(2))
        assert first == second
        assert first != conversation(8, fresh=True, skill=skill)


def test_fresh_words_are_never_trained_on() -> None:
    trained, fresh = (
        {conversation(n, fresh=side, skill="reverse").messages[-1]["content"] for n in range(600)}
        for side in (False, True)
    )
    assert len(trained) > 300
    assert len(fresh) > 100
    assert not trained & fresh


@pytest.mark.parametrize("fresh", [False, True])
def test_answers_are_right(fresh: bool) -> None:
    """Checked from the question alone, by other means than the generator's."""
    checked = 0
    for number in range(300):
        for skill in ("sums", "differences", "reverse", "repeat", "json"):
            question, answer = (m["content"] for m in conversation(number, fresh=fresh, skill=skill).messages[-2:])
            if found := re.search(r"(\d+) ?([+-]) ?(\d+)( = \?|[?.])?$", question):
                a, b = int(found[1]), int(found[3])
                assert answer.split(", ")[-1] == str(a + b if found[2] == "+" else a - b)
            elif found := re.search(r"[Rr]everse (?:the word )?\"?([a-z]+)\"?\.?$", question):
                assert answer[::-1] == found[1]
            elif found := re.search(r"(\d+) times?\.?$", question):
                assert len(answer.split()) == int(found[1])
                assert set(answer.split()) == {answer.split()[0]} <= set(re.findall("[a-z]+", question))
            elif skill == "json":
                assert all(str(value).lower() in question.lower() for value in json.loads(answer).values())
            else:
                continue
            checked += 1
    assert checked > 900


# Training


class KilledError(Exception):
    pass


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt")["model"]


def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "REPORT_EVERY", 1)
    lines: list[str] = []

    def kill_at_step_7(line: str) -> None:
        lines.append(line)
        if line.startswith("step 7/"):
            raise KilledError

    train(Team(), TINY, tmp_path / "whole", report=lambda line: None)
    with pytest.raises(KilledError):
        train(Team(), TINY, tmp_path / "stopped", report=kill_at_step_7)
    before = weights(tmp_path / "stopped")
    resumed: list[str] = []
    train(Team(), TINY, tmp_path / "stopped", report=resumed.append)
    assert [line.split()[1] for line in resumed] == [f"{step}/12" for step in range(7, 13)]
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert not all(torch.equal(before[name], stopped[name]) for name in whole)
    again: list[str] = []
    train(Team(), TINY, tmp_path / "stopped", report=again.append)
    assert again == []


def test_no_conversation_sees_another_in_its_row(tokenizer: PreTrainedTokenizerBase) -> None:
    settings = replace(TINY, layers=2)
    model = training.build_model(settings, tokenizer).eval()
    forward = training.Forward(model, settings)
    first, second, other = (tokenizer(f"<|begin|>{text}")["input_ids"] for text in ("What is", " 12 + 3?", " 98 + 7?"))
    row, other_row = (torch.tensor([[*before, *first, *second]]) for before in (second, other))
    with torch.no_grad():
        states, other_states = forward(row), forward(other_row)
    assert torch.equal(states[:, len(second) :], other_states[:, len(second) :])
    assert not torch.equal(states[:, : len(second)], other_states[:, : len(second)])


def test_the_optimizer_computes_what_torch_computes_one_matrix_at_a_time() -> None:
    shapes = [(8, 8), (24, 8), (8, 24), (8, 8)]
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    optimizers = (
        Muon(ours, lr=0.01, weight_decay=0.05),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def train_until(team: Team, settings: Settings, folder: Path, last: int) -> None:
    def report(line: str) -> None:
        if line.startswith(f"step {last}/"):
            raise KilledError

    training.REPORT_EVERY = 1
    train(team, settings, folder, report)


def test_two_processes_train_the_model_of_one(tmp_path: Path) -> None:
    two = replace(TINY, processes=2)
    train(Team(), TINY, tmp_path / "alone", report=lambda line: None)
    run_team(2, train_until, two, tmp_path / "whole", 0)
    with pytest.raises(ProcessException):  # of the one that is killed, or of the other, which then is alone
        run_team(2, train_until, two, tmp_path / "stopped", 7)
    assert torch.load(tmp_path / "stopped" / "checkpoint.pt")["step"] == 6
    run_team(2, train_until, two, tmp_path / "stopped", 0)
    alone, whole, stopped = (weights(tmp_path / name) for name in ("alone", "whole", "stopped"))
    for name, weight in whole.items():
        assert torch.equal(weight, stopped[name])
        torch.testing.assert_close(weight, alone[name], rtol=0, atol=2e-3)
    assert sum(p.numel() for p in trained(two, tmp_path / "whole").model.parameters()) < 50_000


def test_other_settings_do_not_continue_a_run(tmp_path: Path) -> None:
    train(Team(), TINY, tmp_path, report=lambda line: None)
    with pytest.raises(SystemExit, match="other settings"):
        train(Team(), replace(TINY, seed=2), tmp_path, report=lambda line: None)
