"""The forms in which samples are exported: whole rows, or what trainers read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from batchchat.chats import Message
from batchchat.results.sample import Sample

_CONVERSATION = ("messages", "conversations", "turns", "batchchat")
"""Columns that the answered conversation takes the place of."""


def conversation(sample: Sample) -> list[dict[str, Any]]:
    """The whole chat with its answers."""
    return [message.as_dict() for message in _messages(sample)]


def row(sample: Sample) -> dict[str, Any]:
    """The row's own columns, its conversation, and what is known of the sample; of figures that it has not, nulls."""
    answered = sample.answered
    own = {name: value for name, value in answered.columns.items() if name not in _CONVERSATION}
    return {
        **own,
        "id": answered.id,
        "sample": answered.sample,
        "messages": conversation(sample),
        **({"tools": [*answered.chat.tools]} if answered.chat is not None and answered.chat.tools else {}),
        "finish_reason": sample.finish_reason,
        "prompt_tokens": sample.tokens("prompt_tokens"),
        "completion_tokens": sample.tokens("completion_tokens"),
        "scores": sample.means,
    }


def flat(sample: Sample) -> dict[str, Any]:
    """One value in each column, for tables: texts of the first question and last answer, figures, scores, the row's
    own columns as they are."""
    own = {name: value for name, value in sample.answered.columns.items() if name not in _CONVERSATION}
    return {
        "id": sample.id,
        "index": sample.answered.index,
        "sample": sample.answered.sample,
        "state": sample.state,
        "question": sample.question,
        "answer": sample.answer,
        "finish_reason": sample.finish_reason,
        "prompt_tokens": sample.tokens("prompt_tokens"),
        "completion_tokens": sample.tokens("completion_tokens"),
        **{f"score.{metric}": value for metric, value in sample.means.items()},
        **{(f"column.{name}" if name in _FLAT else name): value for name, value in own.items() if name != "id"},
    }


_FLAT = {
    "index", "sample", "state", "question", "answer", "finish_reason", "prompt_tokens", "completion_tokens",
}  # fmt: skip


def messages(sample: Sample) -> dict[str, Any]:
    """The conversation alone, with its tools where it has some: for supervised training."""
    return {"messages": conversation(sample), **_tools(sample)}


def prompt_completion(sample: Sample) -> dict[str, Any]:
    """The last answer apart from all before it: trainers take the loss of the completion alone."""
    whole = _messages(sample, tail=False)
    prompt, completion = [message.as_dict() for message in whole[:-1]], whole[-1].as_dict()
    return {"prompt": prompt, "completion": [completion], **_tools(sample)}


def preferences(samples: Iterable[Sample], metric: str) -> Iterator[dict[str, Any]]:
    """For each chat with samples of different scores, the best against the worst: for DPO and its like. Samples of a
    chat follow each other. Chats of several turns differ from their first answer on."""
    for _, several in groupby(samples, key=lambda sample: sample.id):
        scored = [sample for sample in several if metric in sample.means]
        if len(scored) < 2:
            continue
        best = max(scored, key=lambda sample: sample.means[metric])
        worst = min(scored, key=lambda sample: sample.means[metric])
        if best.means[metric] == worst.means[metric]:
            continue
        yield preference(best, worst, best.means[metric], worst.means[metric])


def preference(best: Sample, worst: Sample, score_chosen: float, score_rejected: float) -> dict[str, Any]:
    """Two samples of a chat as a pair: what they share, and where they part."""
    first, second = _messages(best, tail=False), _messages(worst, tail=False)
    assert best.answered.chat is not None, "a sample with scores belongs to a chat"
    shared = len(best.answered.chat.segments[0])
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    return {
        "prompt": [message.as_dict() for message in first[:shared]],
        "chosen": [message.as_dict() for message in first[shared:]],
        "rejected": [message.as_dict() for message in second[shared:]],
        "score_chosen": score_chosen,
        "score_rejected": score_rejected,
        "id": best.id,
        **_tools(best),
    }


def best_samples(samples: Iterable[Sample], metric: str) -> Iterator[Sample]:
    """Of each chat the sample with the highest score, the first of equals; chats without a score are left out."""
    for _, several in groupby(samples, key=lambda sample: sample.id):
        scored = [sample for sample in several if metric in sample.means]
        if scored:
            yield max(scored, key=lambda sample: sample.means[metric])


FORMS: Mapping[str, Callable[[Sample], dict[str, Any]]] = {
    "rows": row,
    "table": flat,
    "messages": messages,
    "prompt-completion": prompt_completion,
}
"""Name to what it makes of one sample; `preferences` takes several."""


def _tools(sample: Sample) -> dict[str, Any]:
    chat = sample.answered.chat
    return {"tools": [*chat.tools]} if chat is not None and chat.tools else {}


def _messages(sample: Sample, tail: bool = True) -> list[Message]:
    """The conversation as messages, up to the last answer or with what follows it."""
    chat, answers = sample.answered.chat, sample.answered.answers
    assert chat is not None, "only answered samples are exported, and those belong to a chat"
    found: list[Message] = []
    for turn, segment in enumerate(chat.segments):
        if chat.prefill and turn + 1 == chat.num_turns:  # the answer holds what it continues
            segment = segment[:-1]
        found += segment
        if turn < len(answers):
            found.append(answers[turn])
    return [*found, *chat.tail] if tail else found
