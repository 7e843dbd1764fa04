"""The chat on real models: the same tokens as a run and as transformers, streaming, and stopping."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from batchchat import load_recipe, run
from batchchat.chats import Message
from batchchat.interactive.conversation import Conversation, Provenance
from batchchat.interactive.opening import open_recipe
from batchchat.interactive.responder import Reply, Responder
from batchchat.interactive.session import ChatSession
from batchchat.prompts import ParsedAnswer
from tests.support import zoo
from tests.support.jobs import ROOT, read_jsonl

QUESTIONS = ("How many letters are in banana?", "And in <|im_end|> café?", "東京 😀")


class Kept(Responder):
    """Keeps what it replied."""

    replies: tuple[Reply, ...] = ()

    def answer(self, *arguments: object, **named: object) -> Reply:
        reply = super().answer(*arguments, **named)  # type: ignore[arg-type]
        self.replies = (*self.replies, reply)
        return reply


def session_of(*arguments: str) -> tuple[ChatSession, Kept]:
    recipe = open_recipe(arguments)
    responder = Kept(recipe)
    return ChatSession(recipe, lambda: responder, Console(file=io.StringIO(), width=500)), responder


@pytest.mark.parametrize("sampling", ["temperature=0", "temperature=0.9"])
@pytest.mark.parametrize(
    ("overflow", "context"), [("drop_oldest_turns", 150), ("truncate_left", 150), ("reduce_generation", 212)]
)
def test_a_run_writes_the_same_tokens(
    small_model: Path, tmp_path: Path, sampling: str, overflow: str, context: int
) -> None:
    flags = (sampling, "max_new_tokens=40", "ignore_eos=true", "seed=11", f"chat.overflow={overflow}")
    session, responder = session_of(str(small_model), *flags, f"chat.max_context={context}", "chat.system=Be brief.")
    for line in (*QUESTIONS, "!retry"):
        session.do(line)
    assert len(responder.replies) == 4
    assert any(reply.cut for reply in responder.replies), "the conversation is too short to overflow"
    session.do(f"!export {tmp_path / 'last.yaml'}")
    result = run(load_recipe(tmp_path / "last.yaml", [f"sink.directory={tmp_path / 'out'}"]))
    (row,) = read_jsonl(result.directory / "outputs.jsonl")
    assert tuple(row["batchchat"]["turns"][-1]["token_ids"]) == responder.replies[-1].token_ids
    assert row["messages"][-1]["content"] == session.conversation.messages[-1].content


def test_greedy_answers_are_those_of_transformers(small_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    theirs = pipeline(
        "text-generation", AutoModelForCausalLM.from_pretrained(small_model, dtype="float32"), tokenizer=tokenizer
    )
    session, _ = session_of(str(small_model), "model.dtype=float32", "do_sample=false", "max_new_tokens=12")
    chat: list[dict[str, str]] = []
    for question in ("How many letters are in banana?", "And in café?"):
        session.do(question)
        chat.append({"role": "user", "content": question})
        (found,) = theirs(chat, do_sample=False, max_new_tokens=12, max_length=None)
        chat = found["generated_text"]
    assert [message["content"] for message in chat] == [m.content for m in session.conversation.messages]


def test_what_is_watched_grows_into_the_answer(small_model: Path) -> None:
    recipe = open_recipe([str(small_model), "max_new_tokens=60", "temperature=1", "ignore_eos=true"])
    talk = Conversation([Message("user", "Hello")])
    seen: list[str] = []
    reply = Responder(recipe).answer(
        talk, Provenance("c", 0, recipe), lambda answer: seen.append(answer.message.content)
    )
    whole = reply.message.content or ""
    assert seen
    assert all(whole.startswith(text) for text in seen)
    assert sorted(seen, key=len) == seen


def test_a_stopped_answer_is_kept_as_it_is_and_the_engine_goes_on(small_model: Path, tmp_path: Path) -> None:
    recipe = open_recipe([str(small_model), "max_new_tokens=240", "temperature=1", "ignore_eos=true"])
    responder = Responder(recipe)
    talk = Conversation([Message("user", "Hello")])
    origin = Provenance("c", 0, recipe)
    whole = responder.answer(talk, origin)

    def watch(answer: ParsedAnswer) -> None:
        responder.stop()  # at once: a fast processor is done soon

    stopped = responder.answer(talk, origin, watch)
    assert stopped.stopped
    assert 0 < len(stopped.token_ids) < 240
    assert stopped.token_ids == whole.token_ids[: len(stopped.token_ids)]
    assert responder.answer(talk, origin).token_ids == whole.token_ids


def test_a_template_that_refuses_costs_the_question(tmp_path: Path) -> None:
    zoo.byte_bpe(zoo.STRICT).save_pretrained(tmp_path)
    zoo.llama().save_pretrained(tmp_path)
    session, responder = session_of(str(tmp_path), "chat.system=Be brief.", "max_new_tokens=5")
    session.do("hello")
    stream = session.console.file
    assert isinstance(stream, io.StringIO)
    assert "System role not supported" in stream.getvalue()
    assert [m.role for m in session.conversation.messages] == ["system"]
    session.do("!system -")
    session.do("hello")
    assert len(responder.replies) == 1


def test_set_reaches_the_template(small_model: Path, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ mood }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    session, responder = session_of(str(small_model), f"chat.template={template}", "max_new_tokens=3")
    session.do("hello")
    plain = responder.num_tokens(session.conversation, session.recipe)
    session.do("!set chat.template_kwargs.mood=excellent")
    assert responder.num_tokens(session.conversation, session.recipe) > plain
    session.do("!set chat.template=nowhere.jinja")
    assert session.recipe.chat.template == str(template)


def test_pipe_in_a_shell(small_model: Path, tmp_path: Path) -> None:
    flags = ("max_new_tokens=8", "temperature=0.9", "seed=2")
    script = f"echo hi | {sys.executable} -W error -m batchchat chat {small_model} {' '.join(flags)} > answer.txt"
    done = subprocess.run(
        script, shell=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    session, _ = session_of(str(small_model), *flags)
    session.do("hi")
    assert (tmp_path / "answer.txt").read_text() == f"{session.conversation.messages[-1].content}\n"
