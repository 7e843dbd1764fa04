"""Measures the shipped model on fresh conversations: the share of answers that are right to the letter, per skill.

python -m scripts.tiny_chat.evaluate --per-skill 200 --dtype float32
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from batchchat.benchmarks.contenders import Silent
from batchchat.chats import Request, Settings
from batchchat.engines.base import EngineConfig
from batchchat.engines.continuous.engine import ContinuousEngine
from batchchat.prompts import TokenizerCodec
from batchchat.schedule import Feed
from scripts.tiny_chat.conversations import SKILLS, Conversation, conversation

MODEL_FOLDER = Path(__file__).resolve().parents[2] / "batchchat" / "models" / "tiny_chat"
ROWS = 64
KV_TOKENS = 65_536


@dataclass(frozen=True)
class Outcome:
    """One scored answer. Texts include the end token, so that an answer that does not end is wrong."""

    chat: Conversation
    expected: str
    answer: str

    @property
    def right(self) -> bool:
        return self.answer == self.expected


def prompt_and_answer(tokenizer: PreTrainedTokenizerBase, chat: Conversation) -> tuple[list[int], str]:
    """Token ids up to the scored answer, and that answer with its end token."""
    prompt = tokenizer.apply_chat_template(
        chat.messages[:-1], tools=chat.tools, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    whole = tokenizer.apply_chat_template(chat.messages, tools=chat.tools, return_dict=True)["input_ids"]
    return prompt, tokenizer.decode(whole[len(prompt) :])


def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], limits: Sequence[int]
) -> list[str]:
    """Greedy answers in the order of the prompts, end token included, none longer than its limit in tokens."""
    requests = [
        Request(str(index), index, 0, 0, tuple(prompt), Settings(limit, stop_token_ids=(tokenizer.eos_token_id,)), 0)
        for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]
    engine = ContinuousEngine(model, TokenizerCodec(tokenizer), Silent(), EngineConfig(ROWS, KV_TOKENS))
    texts = [""] * len(prompts)
    for done in engine.run(Feed(iter(requests), look_ahead=len(requests))):
        texts[done.request.index] = tokenizer.decode(list(done.token_ids))
    return texts


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, per_skill: int, skills: Sequence[str] = SKILLS
) -> list[Outcome]:
    """Outcomes of `per_skill` fresh conversations of every skill, skill by skill. An answer that is longer than the
    right one is wrong, so it is not written to its end."""
    chats = [conversation(number, fresh=True, skill=skill) for skill in skills for number in range(per_skill)]
    prompts, expected = zip(*(prompt_and_answer(tokenizer, chat) for chat in chats), strict=True)
    limits = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in expected]
    found = answers(model, tokenizer, prompts, limits)
    return [Outcome(*parts) for parts in zip(chats, expected, found, strict=True)]


def accuracy(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Share of right answers of each skill, and of `all`."""
    groups = {skill: [o.right for o in outcomes if o.chat.skill == skill] for skill in SKILLS}
    groups["all"] = [o.right for o in outcomes]
    return {skill: sum(right) / len(right) for skill, right in groups.items() if right}


def load(folder: Path, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), AutoTokenizer.from_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--per-skill", type=int, default=100)
    parser.add_argument("--dtype", default="auto", help="auto is the dtype as shipped")
    parser.add_argument("--misses", action="store_true", help="print every wrong answer")
    options = parser.parse_args()
    outcomes = evaluate(*load(options.folder, options.dtype), options.per_skill)
    for outcome in outcomes:
        if options.misses and not outcome.right:
            question = outcome.chat.messages[-2]["content"]
            print(f"{outcome.chat.skill}: {question!r}\n  expected {outcome.expected!r}\n  answered {outcome.answer!r}")
    for skill, share in accuracy(outcomes).items():
        print(f"{skill:14} {share:7.1%}")


if __name__ == "__main__":
    main()
