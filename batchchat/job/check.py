"""Look before the run: the first rows, their prompts, the batches they would make, and what may go wrong.

No weight is read. Rows and prompts go the same way as in a run, through a store that lives in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from batchchat.chats import Chat, Request, Settings
from batchchat.chats.conversation import Conversation
from batchchat.errors import BadRow
from batchchat.evaluation import Evaluator
from batchchat.job.reading import ChatReader
from batchchat.job.selecting import make_selector
from batchchat.job.sides import MOST_QUERIES, Sides, keep_tools, many_queries, open_sides
from batchchat.job.strict import StrictTools
from batchchat.job.structured import Structured
from batchchat.job.turns import OpenChats, min_known
from batchchat.models import require_in_reach
from batchchat.prompts import Codec, Finding, MessagesCodec, diagnose, row_samples
from batchchat.recipe import Recipe
from batchchat.reporting.meters import Meters
from batchchat.schedule.planner import PlannedBatch, plan_batches
from batchchat.sources.from_recipe import open_recipe_source
from batchchat.store import RunStore
from batchchat.structure import unbounded


@dataclass(frozen=True)
class JobTokens:
    """Tokens of a whole job, told from its first rows; every answer at its full length, so no job takes more."""

    sampled_turns: int
    longest_prompt: int
    """Earlier answers included."""
    turns: int | None
    """Answers that the job will have; None, as the counts below, where the input's length is not known."""
    prompt: int | None
    generated: int | None


@dataclass(frozen=True)
class CheckResult:
    """What the first `rows` rows of a recipe's input show. `errors` are (place, reason) of rows that would fail."""

    rows: int
    total_rows: int | None
    formats: Mapping[str, str]
    errors: Sequence[tuple[str, str]]
    first: Request | None
    first_text: str
    """The first prompt as the template wrote it."""
    first_tokens: Sequence[tuple[int, str, bool]]
    """Its tokens: id, text, whether it is a special token."""
    settings: Settings
    prompt_tokens: Mapping[str, float]
    tokens: JobTokens
    batches: Sequence[PlannedBatch]
    findings: Sequence[Finding]


def check(recipe: Recipe, rows: int = 100, *, count: bool = False) -> CheckResult:
    """Read the first `rows` rows and say what a run would do with them. `count` reads the whole input once, so that
    its length is known. Raises what a run would raise before it loads the model."""
    limit = rows if recipe.source.limit is None else min(rows, recipe.source.limit)
    head = recipe.model_copy(update={"source": recipe.source.model_copy(update={"limit": limit})})
    evaluator = Evaluator(recipe)  # which raises for scorers, judges and gates that cannot be used
    make_selector(recipe)
    if recipe.reads_model:
        require_in_reach(recipe.model)
    with open_recipe_source(recipe) as source:
        sides = open_sides(recipe)
        text, resolver = sides.text, sides.assistant.resolver
        counted = sides.assistant.has_token_ids
        Structured(recipe, text.codec).require(resolver.resolve({}))
        StrictTools(recipe, text.codec).require()
        if count:
            source.fingerprint()
        store = RunStore(Path(":memory:"))
        keep_tools(store, sides)
        reader = ChatReader(source, head, store, lambda chat: row_samples(recipe.generation, chat.settings))
        open_chats = OpenChats(recipe, store, sides, Meters())
        chats: list[Chat] = []
        held: list[tuple[Chat, Mapping[str, Any]]] = []
        requests: list[Request] = []
        for row, chat in reader.chats():
            chats.append(chat)
            held.append((chat, row.data))
            requests += open_chats.open(row, chat)
        errors = [(str(row.place), reason) for row in store.rows() for _, reason in store.errors(row.index).values()]
        result = CheckResult(
            rows=store.num_rows(),
            total_rows=source.count(),
            formats=store.meta("formats") or dict.fromkeys(source.files, recipe.source.format),
            errors=errors,
            first=requests[0] if requests else None,
            first_text=_prompt_text(text.codec, requests[0]) if requests else "",
            first_tokens=[
                (number, *piece)
                for number in (requests[0].prompt_ids if requests else ())
                for piece in text.codec.pieces([number])
            ],
            settings=resolver.resolve({}),
            prompt_tokens=_statistics([len(request.prompt_ids) for request in requests]) if counted else {},
            tokens=_job_tokens(sides, chats, requests, store.num_rows(), _total(source.count(), recipe)),
            batches=plan_batches(requests, recipe.engine.max_batch_rows, recipe.engine.batch_tokens) if counted else [],
            findings=[
                *diagnose(text.codec, text.generation_defaults, recipe, [_begun(chat) for chat in chats]),
                *_endless(requests),
                *_simulation(recipe),
                *_references(evaluator, held),
            ],
        )
        store.close()
    return result


def _references(evaluator: Evaluator, chats: Sequence[tuple[Chat, Mapping[str, Any]]]) -> list[Finding]:
    """A finding for each metric that cannot read the references of these chats."""
    return [
        Finding(
            "error",
            f"{len(bad.mistakes)} of {bad.tried} references of the metric '{metric}' cannot be read; {bad.mistakes[0]}",
            "name the right column with `reference:`, or a scorer that reads it",
        )
        for metric, bad in evaluator.bad_references(chats).items()
    ]


def _endless(requests: Sequence[Request]) -> list[Finding]:
    """A finding for each form of these requests that lets an answer go on and on."""
    forms = dict.fromkeys(request.settings.structured for request in requests)
    return [
        Finding(
            "warning",
            f"{'strict tools have' if form.kind == 'calls' else 'generation.structured has'} {', '.join(found)}, with "
            "which an answer can go on until max_new_tokens cuts it off",
            "give each a limit (maxItems, maxLength, additionalProperties: false)",
        )
        for form in forms
        if form is not None and (found := unbounded(form))
    ]


def _begun(chat: Chat) -> Chat:
    """The chat as its first answer finds it: a simulated user may begin it."""
    told = Conversation(chat)
    if told.writer == "user":
        told.add({"message": {"role": "user", "content": "hello"}})
    return told.as_chat()


def _simulation(recipe: Recipe) -> list[Finding]:
    simulate = recipe.simulate
    if simulate is None or simulate.method != "magpie" or simulate.turns <= MOST_QUERIES:
        return []
    return [Finding("warning", many_queries(simulate.turns), f"set simulate.turns={MOST_QUERIES} or lower")]


def _prompt_text(codec: Codec, request: Request) -> str:
    """The prompt's token ids as text; the messages, for an engine that takes those."""
    if isinstance(codec, MessagesCodec):
        return codec.render_text(request.messages, request.tools)
    return codec.decode(request.prompt_ids)


def _total(rows: int | None, recipe: Recipe) -> int | None:
    chosen = None if rows is None else min_known(rows, recipe.source.sample, recipe.source.limit)
    number, count = recipe.source.part
    return None if chosen is None else max(0, -(-(chosen - number) // count))


def _job_tokens(
    sides: Sides, chats: Sequence[Chat], requests: Sequence[Request], rows: int, total: int | None
) -> JobTokens:
    """`requests` are the first ones of the chats' samples; later turns are measured with empty turns before them, those
    of a simulated user without what it is told. Without a tokenizer prompts have no length that could be known."""
    by_index = {chat.index: chat for chat in chats}
    codec = sides.assistant.codec
    lengths: list[tuple[int, int]] = []
    for request in requests:
        chat = by_index[request.index]
        limits = {"assistant": sides.assistant.resolver.resolve(chat.settings).max_new_tokens}
        if sides.user is not None:
            limits["user"] = sides.user.resolver.resolve({}).max_new_tokens
        told, length, written = Conversation(chat), len(request.prompt_ids), 0
        while (writer := told.writer) is not None:
            if told.num_written:
                try:
                    length = len(codec.render(told.messages, chat.tools))
                except BadRow:  # the template refuses this turn; it costs no tokens, and the run says why
                    break
            lengths.append((length + written, limits[writer]))
            written += limits[writer]
            told.add({"message": {"role": writer, "content": ""}})
    scale = None if total is None or not rows else total / rows
    sums = [len(lengths), sum(prompt for prompt, _ in lengths), sum(answer for _, answer in lengths)]
    turns, prompt, answers = (None if scale is None else round(count * scale) for count in sums)
    if isinstance(codec, MessagesCodec):
        prompt = None
    return JobTokens(len(lengths), max((prompt for prompt, _ in lengths), default=0), turns, prompt, answers)


def _statistics(lengths: Sequence[int]) -> dict[str, Any]:
    if not lengths:
        return {}
    return {
        "prompts": len(lengths),
        "total": sum(lengths),
        "shortest": min(lengths),
        "median": median(lengths),
        "mean": round(mean(lengths), 1),
        "longest": max(lengths),
    }
