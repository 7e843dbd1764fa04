"""Trains the model from scratch: one deterministic schedule, resumable at every checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from scripts.tiny_chat.conversations import MIXES, conversation
from scripts.tiny_chat.data import Rows, pack
from scripts.tiny_chat.muon import Muon
from scripts.tiny_chat.team import Team
from scripts.tiny_chat.tokenizer import train_tokenizer

ROWS_APART = 100_000_000  # rows of each stage and width take their conversations from numbers of their own
Packed = dict[tuple[int, int], Rows]  # by stage and width
REPORT_EVERY = 20  # steps


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own mix of conversations and its own learning rate.

    The rate is constant up to step `falls_from` of the stage, then falls like 1 - sqrt towards zero at step `ends_at`.
    """

    steps: int
    learning_rate: float
    falls_from: int
    ends_at: int


@dataclass(frozen=True)
class Settings:
    """Everything that decides the weights. A step sees `tokens_per_step` tokens in short rows, or one long row for each
    process."""

    stages: tuple[Stage, ...] = (
        Stage(steps=3_000, learning_rate=2.5e-3, falls_from=3_000, ends_at=5_000),
        Stage(steps=6_400, learning_rate=2.5e-3, falls_from=1_900, ends_at=6_400),
        Stage(steps=1_100, learning_rate=1.5e-3, falls_from=300, ends_at=1_100),
    )
    tokens_per_step: int = 2_048
    short_row: int = 256
    long_row: int = 2_048
    long_every: int = 24
    warmup: int = 100
    weight_decay: float = 0.05
    clip: float = 1.0
    seed: int = 1
    processes: int = 2  # of one thread each
    compiled: bool = True  # short rows through torch's compiler, which wants a C++ compiler and takes a minute at first
    checkpoint_every: int = 250
    tokenizer_conversations: int = 20_000
    vocab_size: int = 1_024
    context: int = 2_048
    hidden: int = 192
    inner: int = 512
    layers: int = 6
    heads: int = 6

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def tokens(self) -> int:
        """Places of all rows that are trained on."""
        long = sum(map(self.long_steps, self.stages))
        parts = ((self.short_row, self.steps - long), (self.long_row, long))
        return sum(steps * self.rows_per_step(width) * width for width, steps in parts)

    def long_steps(self, stage: Stage) -> int:
        """How many steps of a stage read long rows."""
        return stage.steps // self.long_every

    def rows_per_step(self, width: int) -> int:
        return max(self.processes, self.tokens_per_step // width)


def build_model(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.inner,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def place(settings: Settings, step: int) -> tuple[int, int]:
    """The stage of a step, and its number in that stage."""
    for index, stage in enumerate(settings.stages):
        if step < stage.steps:
            return index, step
        step -= stage.steps
    raise AssertionError("the step is after the last stage")


def learning_rate(settings: Settings, step: int) -> float:
    """Linear warm-up, then what the stage says. The shape of the fall is that of https://arxiv.org/abs/2405.18392."""
    warm = min(1.0, (step + 1) / settings.warmup)
    index, step = place(settings, step)
    stage = settings.stages[index]
    fallen = max(0.0, 1.0 - (stage.ends_at - step) / (stage.ends_at - stage.falls_from))
    return stage.learning_rate * warm * (1.0 - math.sqrt(fallen))


class Optimizers:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
        other = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
        self.all: list[torch.optim.Optimizer] = [
            Muon(inner, lr=0.0, weight_decay=settings.weight_decay),
            torch.optim.AdamW(other, lr=0.0, weight_decay=0.0, betas=(0.9, 0.98)),
        ]

    def step(self, learning_rate: float) -> None:
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


class Forward:
    """The hidden states of a batch: of short rows by compiled code, of long ones by torch's fused attention.

    The conversations of a row see nothing of each other: where several offers of tools lie side by side, which of them
    holds is hard to learn.
    """

    def __init__(self, model: LlamaForCausalLM, settings: Settings) -> None:
        self._model = model.model
        self._short_row = settings.short_row if settings.compiled else 0
        self._compiled = torch.compile(model.model, dynamic=False) if settings.compiled else model.model

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """`[rows, width, hidden]` for `ids` `[rows, width]`."""
        is_short = ids.shape[1] <= self._short_row
        self._model.config._attn_implementation = "eager" if is_short else "sdpa"
        model = self._compiled if is_short else self._model
        return model(input_ids=ids, attention_mask=self._mask(ids), use_cache=False).last_hidden_state

    def _mask(self, ids: torch.Tensor) -> torch.Tensor:
        """`[rows, 1, width, width]`: 0 where a token sees another one, -inf where not."""
        number = (ids == self._model.config.bos_token_id).cumsum(1)
        seen = (number[:, :, None] == number[:, None, :]).tril()
        return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None]


def step_loss(model: LlamaForCausalLM, forward: Forward, batch: torch.Tensor, team: Team) -> torch.Tensor:
    """This process's part of the mean cross-entropy over the assistant's tokens of a batch (rows, 2, width + 1)."""
    num_learnt = batch[:, 1, 1:].sum()
    own = batch[team.rank :: team.size]
    ids, learnt = own[:, 0], own[:, 1, 1:].bool()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.lm_head(forward(ids[:, :-1])[learnt])
    return nn.functional.cross_entropy(logits.float(), ids[:, 1:][learnt], reduction="sum") / num_learnt


def prepare(settings: Settings, folder: Path) -> tuple[PreTrainedTokenizerBase, Packed]:
    """The tokenizer and the packed rows of every stage and width; made once, then read from `folder`."""
    if not (folder / "tokenizer").exists():
        chats = (conversation(number, fresh=False) for number in range(settings.tokenizer_conversations))
        train_tokenizer(chats, settings.vocab_size, settings.context).save_pretrained(folder / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    packed: Packed = {}
    for index, (stage, mix) in enumerate(zip(settings.stages, MIXES, strict=True)):
        num_long = settings.long_steps(stage)
        for width, num_steps in ((settings.short_row, stage.steps - num_long), (settings.long_row, num_long)):
            file = folder / f"rows-{index}-{width}.npy"
            if not file.exists():
                start = ROWS_APART * (2 * index + (width == settings.long_row))
                rows = pack(tokenizer, start, width, mix, num_steps * settings.rows_per_step(width))
                np.save(folder / "unfinished.npy", rows)
                (folder / "unfinished.npy").replace(file)
            packed[index, width] = np.load(file, mmap_mode="r")
    return tokenizer, packed


def batch_at(settings: Settings, packed: Packed, step: int) -> torch.Tensor:
    """The rows of one step. Every `long_every`-th step of a stage reads long rows, the others short ones, in order."""
    index, step = place(settings, step)
    num_long, phase = divmod(step, settings.long_every)
    is_long = phase == settings.long_every - 1
    width, first = (settings.long_row, num_long) if is_long else (settings.short_row, step - num_long)
    size = settings.rows_per_step(width)
    return torch.from_numpy(packed[index, width][first * size : (first + 1) * size].astype(np.int64))


class Trained(NamedTuple):
    model: LlamaForCausalLM
    seconds: float  # spent in training steps, over all starts


@dataclass
class Run:
    """The state of a training run that a checkpoint holds."""

    model: LlamaForCausalLM
    optimizers: Optimizers
    step: int = 0
    seconds: float = 0.0

    def save(self, file: Path) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers.all],
            "rng": torch.get_rng_state(),
        }
        torch.save(state, file.with_suffix(".tmp"))
        file.with_suffix(".tmp").replace(file)

    def load(self, file: Path) -> None:
        state = torch.load(file)
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers.all, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["rng"])


def train(team: Team, settings: Settings, folder: Path, report: Callable[[str], None] = print) -> None:
    """Train up to the last step, from the newest checkpoint in `folder` if there is one.

    Every process of a team calls this; the first one writes and reports. The weights depend on the settings, the
    versions of the libraries and the kind of CPU, and on nothing else: a run that was stopped and started again ends
    with the same bits.
    """
    if team.size != settings.processes:
        raise ValueError(f"the settings are for {settings.processes} processes, and these are {team.size}")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    checkpoint = folder / "checkpoint.pt"
    if team.rank == 0:
        record(settings, folder)
        prepare(settings, folder)
    team.wait()
    tokenizer, packed = prepare(settings, folder)
    model = build_model(settings, tokenizer)
    run = Run(model, Optimizers(model, settings))
    if checkpoint.exists():
        run.load(checkpoint)
    forward = Forward(model.train(), settings)
    while run.step < settings.steps:
        begun = time.perf_counter()
        loss = step_loss(model, forward, batch_at(settings, packed, run.step), team)
        loss.backward()
        team.add_up(model.parameters())
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        run.optimizers.step(learning_rate(settings, run.step))
        run.step += 1
        run.seconds += time.perf_counter() - begun
        if team.rank == 0 and run.step % REPORT_EVERY == 0:
            report(f"step {run.step}/{settings.steps}  loss {team.size * loss:.4f}  {run.seconds / 60:.1f} min")
        if team.rank == 0 and (run.step % settings.checkpoint_every == 0 or run.step == settings.steps):
            run.save(checkpoint)


def trained(settings: Settings, folder: Path) -> Trained:
    """What was trained so far."""
    model = build_model(settings, AutoTokenizer.from_pretrained(folder / "tokenizer"))
    run = Run(model, Optimizers(model, settings))
    run.load(folder / "checkpoint.pt")
    return Trained(model.eval(), run.seconds)


def record(settings: Settings, folder: Path) -> None:
    """Keep the settings beside what is made with them. Raises SystemExit where others are kept there."""
    described, recorded = json.dumps(asdict(settings), indent=2), folder / "settings.json"
    if recorded.exists() and recorded.read_text() != described:
        raise SystemExit(f"{folder} was made with other settings; remove it, then run this again")
    recorded.write_text(described)
