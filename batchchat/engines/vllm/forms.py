"""Keeps answers of vLLM in their forms: it asks here what each may go on with, where it would ask a library of its own.

So a form is the same for every local engine: which schemas there are, where reasoning ends, how the answer may end.
vLLM's own way needs a tokenizer of its own, and knows neither the turn that an answer continues nor our white space.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

from batchchat.chats import Request
from batchchat.engines.answer import no_token
from batchchat.errors import BadRow
from batchchat.sampling.constraints import ConstrainedRow, constrained_row
from batchchat.sampling.masks import Texts

_WORD_BITS = 32


class Forms:
    """vLLM's backend of structured outputs (`StructuredOutputBackend`). What it takes for a grammar is the name of a
    request, whose form is opened here before."""

    def __init__(self, engine: Any, texts: Callable[[], Texts]):
        """`texts`: of the model's tokens; asked with the first form."""
        self._engine = engine
        self._texts = texts
        self._vocab_size: int = engine.vllm_config.model_config.get_vocab_size()
        self._forms: dict[str, _Form] = {}
        self._is_attached = False

    def open(self, name: str, request: Request) -> ConstrainedRow:
        """The form of a request's answer. Raises BadRow where it cannot be kept."""
        row = constrained_row(request, self._texts(), self._vocab_size)
        if row.failure is not None:
            raise BadRow(row.failure)
        if not self._is_attached:
            self._attach()
        self._forms[name] = _Form(row, request)
        return row

    def close(self, names: Collection[str]) -> None:
        """Requests of these names have ended."""
        for name in names:
            self._forms.pop(name, None)

    def compile_grammar(self, kind: Any, grammar: str, stop_token_ids: Any = None) -> _Form:
        return self._forms[grammar]

    def allocate_token_bitmask(self, max_num_seqs: int) -> Any:
        """A tensor [sequences, words] int32 that allows everything."""
        import torch

        return torch.full((max_num_seqs, -(-self._vocab_size // _WORD_BITS)), -1, dtype=torch.int32)

    def submit(self, compile_: Callable[..., _Form], request: Any) -> Future[_Form]:
        """Stands for the threads in which vLLM compiles forms: here they are compiled when they are opened."""
        found: Future[_Form] = Future()
        found.set_result(compile_(request))
        return found

    def destroy(self) -> None:
        """Nothing is held."""

    def _attach(self) -> None:
        """Stand where vLLM asks. What it would make from a tokenizer of its own it has not made without one."""
        try:
            manager = self._engine.engine_core.engine_core.structured_output_manager
            checks = self._engine.input_processor
            known = hasattr(checks, "structured_outputs_config") and hasattr(manager, "backend")
        except AttributeError:
            known = False
        if not known:
            import vllm

            raise BadRow(
                f"vLLM {vllm.__version__} keeps forms in another way than 0.32, which is not known here; leave "
                "generation.structured out, or set engine.kind=continuous"
            )
        checks.structured_outputs_config = None  # forms were looked at here
        manager.backend = manager.executor = self
        self._is_attached = True


class _Form:
    """The form of one answer while it is written (vLLM's `StructuredOutputGrammar`). Guesses are refused with it, so
    nothing is ever taken back."""

    def __init__(self, row: ConstrainedRow, request: Request):
        self._row = row
        self._request = request
        self._allowed: Any = None
        self._num_tokens = 0

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        for token in tokens:
            self._num_tokens += 1
            if self._row.failure is None and not self._may_be(token):
                self._row.failure = no_token(self._request, self._num_tokens)
            self._row.take(token)
        return True

    def fill_bitmask(self, bitmask: Any, place: int) -> None:
        """A row that can go on with nothing ends, and the engine finds why."""
        import torch

        self._allowed = self._row.allowed()
        bitmask[place] = torch.from_numpy(self._allowed if self._row.failure is None else self._row.ends)

    def is_terminated(self) -> bool:
        return False

    def _may_be(self, token: int) -> bool:
        """Where all tokens are forbidden, vLLM chooses one all the same."""
        settings = self._request.settings
        if token in settings.stop_token_ids and self._num_tokens <= settings.min_new_tokens:
            return False
        word, bit = divmod(token, _WORD_BITS)
        return bool(int(self._allowed[word]) >> bit & 1)
