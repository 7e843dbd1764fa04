"""Runs packed passes through an unmodified transformers model, by its attention function and its cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface, Cache
from transformers.modeling_outputs import MoeModelOutputWithPast

from batchchat.engines.continuous.acceleration import acceleration
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.base import KVStore, PackedPass
from batchchat.engines.continuous.graphs import Record, Recordings
from batchchat.engines.continuous.paged.batch import Form, PagedPass
from batchchat.engines.facts import ProductFacts

_NAME = "batchchat_slots"
"""What models are told as the name of their attention function, for the time of a pass."""

_at_work: ContextVar[ModelRunner] = ContextVar("the runner whose model is computing")


class UnsupportedModelError(Exception):
    """The model's attention asks for something that a KV cache of packed passes cannot give."""


class Lowered(Protocol):
    """What computes a pass in place of a model's modules, over one kind of cache."""

    def serves(self, cache: Any) -> bool:
        """Whether it computes over this cache."""
        ...

    def weights(self) -> Iterator[torch.Tensor]:
        """Those of its products `[outputs, width]`, as far as they are torch's own."""
        ...

    def forward(self, work: Any, cache: Any) -> torch.Tensor:
        """The last hidden states of a pass `[size, hidden]`, normed; valid until the next pass."""
        ...


PROGRAMS: WeakKeyDictionary[torch.nn.Module, Lowered] = WeakKeyDictionary()
"""Of the models that have one: see `engines.cpu.lowering` and `engines.cuda.lowering`."""
NO_PROGRAM: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()
"""Why a model that was tried has none."""


class PassCache(Cache):
    """What the model takes for its cache: it hands new keys and values back as they came. The attention function gets
    them and puts them into the KV cache, since models with latent attention expand them in between."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class ModelRunner:
    """A model bound to a KV cache. `by_modules`: the model's own modules compute, even if it has a program."""

    def __init__(self, model: Any, cache: KVStore[Any], by_modules: bool = False):
        self.model = model
        self.cache = cache
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.scorings: dict[int, AttentionSpec] = {}
        """Per layer that called the attention function: what it asked for."""
        self._faster = acceleration(self.device)
        self._current: PackedPass | None = None
        self._pass_cache = PassCache()
        self._configs = _configs(model)
        program = None if by_modules else PROGRAMS.get(model)
        self._program: Lowered | None = program if program is not None and program.serves(cache) else None
        self.recordings: Recordings | None = None

    @property
    def current(self) -> PackedPass:
        assert self._current is not None
        return self._current

    @torch.inference_mode()
    def forward(self, work: PackedPass, every: bool = False) -> torch.Tensor:
        """Compute a pass. Logits `[wanted, vocabulary]`, or with `every` those of all its places; valid until the next
        pass."""
        if self.recordings is None or every or not isinstance(work, PagedPass) or not self.recordings.serve(work):
            return self._compute(work, every)
        return self.recordings.replay(work)

    @torch.inference_mode()
    def record(self, record: Record, forms: Collection[Form], batch_invariant: bool) -> None:
        """Make recordings of passes of some forms, where the cache's can be recorded. Raises whatever a model raises
        that does what cannot be; it is computed plainly then."""
        blank = self.cache.blank(forms, self.device, batch_invariant)
        if blank is None:
            return
        self._compute(blank.part(Form(1, 0, 0, 1), width=1))  # from then on it is known who attends
        if self.cache.gathers:
            raise UnsupportedModelError("its attention copies all blocks that a table could name")
        self.recordings = Recordings(self._compute, record, blank, forms)
        self.cache.forms = self.recordings.forms

    @property
    def computed_by(self) -> str:
        """`program`, `kernels` or `torch`: see `engines.cpu` and `engines.cuda`."""
        if self._program is not None:
            return "program"
        return "kernels" if self._faster is not None and self._faster.has_kernels() else "torch"

    @property
    def products(self) -> tuple[ProductFacts, ...]:
        """What computes the linear layers, where that was chosen."""
        return () if self._faster is None else self._faster.products(self.model)

    def _compute(self, work: PackedPass, every: bool = False) -> torch.Tensor:
        if self._program is not None:
            hidden = self._program.forward(work, self.cache)
            logits = self._of_hidden(hidden if every else hidden[work.wanted])
        else:
            logits = self._by_modules(work, every)
        return logits if every else logits[: work.num_wanted]

    def _of_hidden(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of last hidden states `[tokens, hidden]`, by the model's own code behind its layers."""
        layers = self.model.base_model
        before = vars(layers).get("forward")
        layers.forward = lambda **_: MoeModelOutputWithPast(last_hidden_state=hidden[None])
        try:
            logits: torch.Tensor = self.model(input_ids=None, use_cache=False).logits[0]
        finally:
            if before is None:
                del layers.forward
            else:
                layers.forward = before
        return logits

    def _by_modules(self, work: PackedPass, every: bool) -> torch.Tensor:
        self._current = work
        with self._bound():
            out = self.model(
                input_ids=work.input_ids,
                position_ids=work.position_ids,
                past_key_values=self._pass_cache,
                use_cache=True,
                logits_to_keep=0 if every else work.wanted,
            )
        logits: torch.Tensor = out.logits[0]
        return logits

    @contextmanager
    def _bound(self) -> Iterator[None]:
        """Let the model and its parts use the KV cache's attention, for the time of a pass."""
        before = [config._attn_implementation_internal for config in self._configs]
        for config in self._configs:
            config._attn_implementation_internal = _NAME
        token = _at_work.set(self)
        try:
            yield
        finally:
            _at_work.reset(token)
            for config, implementation in zip(self._configs, before, strict=True):
                config._attn_implementation_internal = implementation

    def attention(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        is_causal: bool | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        """What the model calls in each layer: keeps the new keys and values, and attends over those of the cache."""
        if attention_mask is not None:
            raise UnsupportedModelError("it makes an attention mask of its own")
        if is_causal is False or getattr(module, "is_causal", True) is False:
            raise UnsupportedModelError("its attention is not causal")
        if others.get("position_bias") is not None or others.get("head_mask") is not None:
            raise UnsupportedModelError("its attention adds a bias of its own")
        layer: int = module.layer_idx  # every attention module of a decoder has it
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        spec = self.scorings[layer] = AttentionSpec(scale, sliding_window, softcap, s_aux)
        return self.cache.attend(self.current, layer, query, key, value, spec, self._faster), None


def _attention(module: torch.nn.Module, *tensors: Any, **settings: Any) -> tuple[torch.Tensor, None]:
    return _at_work.get().attention(module, *tensors, **settings)


AttentionInterface.register(_NAME, _attention)


def _configs(model: Any) -> list[Any]:
    """The configurations of a model and its parts, each once."""
    found = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    return list(found.values())
