"""What the viewer shows of one chat: everything, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats import Chat
from batchchat.results import Sample
from batchchat.viewer.aligned import Aligned, same_question
from batchchat.viewer.judges import JudgeReplies

_CHAT_COLUMNS = ("messages", "conversations", "batchchat")
"""Columns of which the conversation itself is made."""


def body(found: Aligned, judges: Sequence[JudgeReplies]) -> dict[str, Any]:
    """One chat as all runs have it. `judges` has an entry for each run."""
    leading = next(sample for sample in found if sample is not None)
    answered = leading.answered
    runs = [
        None if sample is None else _run(sample, replies, leading)
        for sample, replies in zip(found, judges, strict=True)
    ]
    shown = {
        "columns": {name: value for name, value in answered.columns.items() if name not in _CHAT_COLUMNS},
        "raw": leading.raw,
        "runs": runs,
    }
    return {**shown, **_conversation(answered.chat)} if answered.chat is not None else shown


def _conversation(chat: Chat) -> dict[str, Any]:
    return {
        "place": str(chat.place),
        "segments": [[message.as_dict() for message in segment] for segment in chat.segments],
        "tail": [message.as_dict() for message in chat.tail],
        "tools": chat.tools,
        "reference": chat.reference,
    }


def _run(sample: Sample, replies: JudgeReplies, leading: Sample) -> dict[str, Any]:
    """The answers of one run; its own conversation too, where it asked something else than the leading one."""
    own = None if same_question(leading, sample) else sample.answered.chat
    answers = [message.as_dict() for message in sample.answered.answers]
    return {
        "state": sample.state,
        "reason": sample.reason,
        "answers": answers,
        "facts": [_facts(turn, answer.get("content")) for turn, answer in zip(sample.turns, answers, strict=False)],
        "scores": [_score(line, replies) for line in sample.scores],
        **({} if own is None else {"own": _conversation(own)}),
    }


def _facts(turn: Mapping[str, Any], content: str | None) -> dict[str, Any]:
    """What is known of an answer, without its token ids; raw text only where it is not what is shown anyway."""
    facts = {name: value for name, value in turn.items() if name not in ("token_ids", "raw", "logprobs")}
    if turn.get("raw") not in (None, content):
        facts["raw"] = turn["raw"]
    if turn.get("logprobs"):
        facts["tokens"] = [_token(step) for step in turn["logprobs"]]
    return facts


def _token(step: Mapping[str, Any]) -> list[Any]:
    """A token with its log-probability, and the likeliest ones with theirs."""
    likeliest = [[top.get("token"), top.get("logprob")] for top in step.get("top", ())]
    return [step.get("token"), step.get("logprob"), likeliest]


def _score(line: Mapping[str, Any], replies: JudgeReplies) -> dict[str, Any]:
    kept = {name: value for name, value in line.items() if name not in ("id", "index", "sample", "asked", "by")}
    said = replies.of(line["metric"], line["index"], line["sample"], line["turn"])
    return {**kept, "judge": said} if said else kept
