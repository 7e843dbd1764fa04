"""The report of a run, typed: what report.json holds, and report.md and the terminal are rendered from."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, JsonValue

from batchchat.chats.record import (
    Batches,
    Bytes,
    BytesPerSecond,
    FlopsPerSecond,
    Joules,
    MeanRows,
    Record,
    Requests,
    Rows,
    Samples,
    Seconds,
    Share,
    Times,
    Tokens,
    TokensPerSecond,
    Turns,
    TurnsPerSecond,
    Unit,
)
from batchchat.engines.facts import AnyEngineFacts
from batchchat.engines.machine import Machine
from batchchat.reporting.limits import MachineLimits
from batchchat.reporting.scores import Evaluation, Histogram


class Provenance(Record):
    """With what, where and when."""

    versions: dict[str, str] = Field(description="Of Python and of the packages that decide about answers.")
    machine: Machine = Field(description="The machine of the last session.")
    started: str = Field(description="When the last session began, as ISO 8601 in UTC.")
    command: tuple[str, ...] = Field(default=(), description="Its command line; empty from Python.")


class About(Provenance):
    """What answered, with what, where and when."""

    model: str = Field(description="The model, as the recipe names it.")
    revision: str | None = Field(
        default=None, description="The hub's branch, tag or commit that the recipe asks for, where it does."
    )
    identity: dict[str, JsonValue] = Field(description="What tells it from others: a hash of its files, or its commit.")
    dtype: str | None = Field(default=None, description="Number type of its weights; null where no model was loaded.")
    quantization: str = Field(description="How its weights were made smaller, or `none`.")
    settings: dict[str, JsonValue] = Field(
        default={},
        description="By dotted name, how answers are generated, the model's own defaults laid over by the recipe's "
        "settings, and what else the recipe sets apart from its defaults. A row's own settings are not among them.",
    )


class Failure(Record):
    """Why rows failed: one of the commonest reasons, alike but for numbers and quoted texts."""

    lines: Annotated[int, Unit("lines of errors.jsonl")] = Field(description="How often it stands in errors.jsonl.")
    reason: str = Field(description="In the words of the first one.")
    first: str = Field(description="Where that one is: file and line of the input.")


class RowCounts(Record):
    """Rows of the input. `in` is the sum of the others."""

    in_: Rows = Field(validation_alias="in", serialization_alias="in", description="All that were read.")
    answered: Rows = Field(description="With all their samples.")
    failed: Rows = Field(description="In errors.jsonl, with at least one sample.")


class SampleCounts(Record):
    """Independent answers to the rows."""

    answered: Samples = Field(description="Complete ones.")
    failed: Samples = Field(description="Those in errors.jsonl; all of a row that could not be read.")


class TokenCounts(Record):
    """Tokens without padding, over all sessions."""

    prompt: Tokens = Field(description="Of all prompts, each turn's whole prompt.")
    generated: Tokens = Field(description="Of all answers, their end tokens included.")


class Simulation(Record):
    """A model played the user: both sides of the chats."""

    user_turns: Turns = Field(description="Written for the user, those that were not used included.")
    user_tokens: TokenCounts = Field(description="Of them.")
    assistant_turns: Turns = Field(description="Written as answers.")
    assistant_tokens: TokenCounts = Field(description="Of them.")
    faults: dict[str, Turns] = Field(description="By kind, how many user turns were not used.")
    ended: dict[str, Samples] = Field(description="By reason, how many chats ended so.")
    engine: AnyEngineFacts | None = Field(
        default=None, description="The engine that played the user; null where the run's own did."
    )


class ToolUse(Record):
    """Calls of a tool that were run, over all sessions."""

    calls: Times = Field(description="How often it was called.")
    failed: Times = Field(description="Of them, those whose result is an error, which the model was told.")
    seconds: Seconds = Field(description="All calls together.")
    longest_seconds: Seconds = Field(description="The longest call.")


class Session(Record):
    """What the last process did: what speed can be said of. Only `turns` where it generated nothing."""

    turns: Turns = Field(description="Turns written.")
    prompt_tokens: Tokens | None = Field(default=None, description="Tokens of their prompts, without padding.")
    generated_tokens: Tokens | None = Field(default=None, description="Tokens of the answers.")
    generated_tokens_per_second: TokensPerSecond | None = Field(default=None, description="Over the phase `generate`.")
    total_tokens_per_second: TokensPerSecond | None = Field(
        default=None, description="The same with the prompts' tokens."
    )
    turns_per_second: TurnsPerSecond | None = Field(default=None, description="Over the phase `generate`.")
    padding_efficiency: Share | None = Field(
        default=None, description="True tokens of the token places that were computed."
    )
    batches: Batches | None = Field(default=None, description="Batches, or steps in flight.")
    mean_batch_rows: MeanRows | None = Field(default=None, description="Rows of a batch, in the mean.")
    batch_rows: dict[str, Batches] = Field(default={}, description="By number of rows, how many batches had so many.")


class Shard(Record):
    """A run that answered a part of the input."""

    shard: str = Field(description="Which part of how many, counted from 0.")
    directory: str = Field(description="Where it lies.")
    rows: RowCounts = Field(description="Its rows.")
    generated_tokens: Tokens = Field(description="Tokens of its answers.")
    generated_tokens_per_second: TokensPerSecond | None = Field(
        description="Of its last process; null where that generated nothing."
    )
    wall_seconds: Seconds = Field(description="All its processes together.")


class PastSession(Record):
    """One process that worked on the run."""

    started: str = Field(description="When it began, as ISO 8601 in UTC.")
    handed_out: Requests = Field(description="Requests that it gave to the engine.")
    completed: Turns = Field(description="Turns that came back.")
    seconds: Seconds = Field(description="How long it worked.")


class Device(Record):
    """An accelerator."""

    name: str = Field(description="As its driver says.")
    peak_allocated_bytes: Bytes = Field(description="Most that tensors took.")
    peak_reserved_bytes: Bytes = Field(description="Most that torch held.")
    total_bytes: Bytes = Field(description="What there is.")


class Memory(Record):
    """Peaks of the last process."""

    host_peak_bytes: Bytes = Field(description="Largest resident set.")
    model_footprint_bytes: Bytes | None = Field(description="Weights and buffers; null where no model was loaded.")
    devices: dict[str, Device] = Field(description="Accelerators, by torch's name.")


class Event(Record):
    """Something that happened on the way."""

    event: str = Field(description="Its kind.")
    detail: str = Field(description="In words.")


class Events(Record):
    """What happened on the way: split batches, fallbacks, cut prompts."""

    counts: dict[str, Times] = Field(description="By kind.")
    first: tuple[Event, ...] = Field(description="The first hundred, in words.")


class Recording(Record):
    """The machine over time."""

    interval_seconds: Seconds = Field(description="Between two samples.")
    columns: dict[str, tuple[float | None, ...]] = Field(
        description="Of equal length, `seconds` since the start first; bytes, percent and watts as the names say; "
        "`prompt_tokens`, `generated_tokens`, `batches` and `batch_rows` count up what was computed until then."
    )
    energy_joules: dict[str, Joules] = Field(default={}, description="By device, what it used.")


class Lengths(Record):
    """How long prompts and answers were, in tokens, over all sessions."""

    prompt: Histogram = Field(description="Prompts, each turn's whole prompt.")
    answer: Histogram = Field(description="Answers, their end tokens included.")


class PhaseUse(Record):
    """What a phase achieved. The shares are left out where the model lies on several devices."""

    seconds: Seconds = Field(description="Time of its passes.")
    flops_per_second: FlopsPerSecond = Field(description="Arithmetic, padding included.")
    bytes_per_second: BytesPerSecond = Field(description="Weights and cache read.")
    share_of_flops_per_second: Share | None = Field(default=None, description="Of the machine's limit.")
    share_of_bytes_per_second: Share | None = Field(default=None, description="Of the machine's limit.")
    above_limit: str | None = Field(default=None, description="Why a share is above 1, where one is.")


class Utilisation(Record):
    """How much of the machine's limits was used."""

    prefill: PhaseUse | None = Field(default=None, description="By the prompts.")
    decode: PhaseUse | None = Field(default=None, description="By the answers, token by token.")
    limits: MachineLimits | None = Field(default=None, description="What this machine can do, measured.")


class AnswerRows(Record):
    """Rows of a file of answers."""

    rows: Rows = Field(description="All.")
    failed: Rows = Field(description="That could not be read: in errors.jsonl.")


class ScoreReport(Evaluation):
    """The report on answers that another tool wrote."""

    name: str = Field(description="The recipe's name.")
    batchchat: str = Field(description="Version that wrote this.")
    directory: str = Field(description="Where the files lie.")
    answers_in: str = Field(description="The file of the answers.")
    about: Provenance | None = Field(default=None, description="What scored them, where and when.")
    input: AnswerRows | None = Field(default=None, description="How many rows that file has.")
    files: tuple[str, ...] = Field(description="What was left, the results first.")
    wall_seconds: Seconds = Field(description="From start to end.")
    missing: dict[str, str] = Field(description="Figures that could not be had, and why.")


class Report(Evaluation):
    """The report of a run. `rows`, `samples`, `turns`, `tokens`, `finish_reasons`, `latency_seconds`, `lengths` and
    `sessions` are of the whole run, however often it was interrupted; all else is of the process that finished it. A
    figure that could not be measured is null or left out, and `missing` says why."""

    name: str = Field(description="The recipe's name.")
    batchchat: str = Field(description="Version that wrote this.")
    directory: str = Field(description="Where the files lie.")
    files: tuple[str, ...] = Field(description="What the run left, the results first.")
    about: About | None = Field(default=None, description="What answered, with what, where and when.")
    rows: RowCounts = Field(description="Rows of the input.")
    failures: tuple[Failure, ...] = Field(
        default=(), description="The three commonest reasons for which rows or samples failed, if any did."
    )
    samples: SampleCounts = Field(description="Independent answers to the rows.")
    turns: Turns = Field(description="Turns written.")
    tokens: TokenCounts = Field(description="Tokens without padding.")
    simulation: Simulation | None = Field(default=None, description="Both sides, where a model played the user.")
    tools: dict[str, ToolUse] = Field(default={}, description="By name, tools whose calls were run.")
    finish_reasons: dict[str, Turns] = Field(description="By reason, how many turns ended so.")
    latency_seconds: dict[str, Seconds] | None = Field(
        description="From entering the engine to the end of the answer, by percentile (`p50`); null without a turn."
    )
    lengths: Lengths | None = Field(default=None, description="How long prompts and answers were.")
    session: Session = Field(description="What the last process did.")
    phases_seconds: dict[str, Seconds] = Field(description="Phases of the last process; they exclude each other.")
    wall_seconds: Seconds = Field(description="The last process from start to end.")
    memory: Memory = Field(description="Peaks of the last process.")
    engine: AnyEngineFacts = Field(description="The engine and its model.")
    events: Events = Field(description="What happened on the way.")
    sessions: tuple[PastSession, ...] = Field(description="All processes that worked on the run, in order.")
    shards: tuple[Shard, ...] = Field(default=(), description="The runs that were merged to this one.")
    watch: Recording | None = Field(default=None, description="The machine over time.")
    utilisation: Utilisation | None = Field(default=None, description="How much of the machine's limits was used.")
    missing: dict[str, str] = Field(description="Figures that could not be had, and why.")

    def evaluated(self, found: Evaluation, **changed: object) -> Self:
        """The report with other scores, and other values of some fields."""
        kept = {name: value for name, value in self.values().items() if name not in Evaluation.model_fields}
        return type(self).model_validate({**kept, **found.values(), **changed})


AnyReport = Report | ScoreReport
