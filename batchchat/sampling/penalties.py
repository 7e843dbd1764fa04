"""What a row's settings do to its logits before a token is chosen: penalties, biases and bans."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from batchchat.chats import Request, Settings


class RowPenalties:
    """Changes logits row by row, in the order of the rows. Rows without such settings cost nothing."""

    def __init__(self, vocab_size: int, device: torch.device):
        self._vocab_size = vocab_size
        self._device = device
        self._settings: list[Settings] = []
        self._history: list[list[int]] = []
        """Per row, prompt and answer so far."""
        self._prompt_lengths: list[int] = []
        self._counted: list[int] = []
        """Rows whose tokens are counted, in the order of the two tensors below."""
        self._counts = torch.zeros((0, vocab_size), dtype=torch.float32, device=device)
        """[counted rows, vocabulary]: how often the answer holds each token."""
        self._in_prompt = torch.zeros((0, vocab_size), dtype=torch.bool, device=device)
        self._arrange()

    def extend(self, requests: Sequence[Request]) -> None:
        """Add rows at the end. Raises ValueError for a token id that the model does not have."""
        first = len(self._settings)
        for request in requests:
            self._check(request.settings)
            self._settings.append(request.settings)
            self._history.append(list(request.prompt_ids))
            self._prompt_lengths.append(len(request.prompt_ids))
        new = [row for row in range(first, len(self._settings)) if _counts_tokens(self._settings[row])]
        self._counted += new
        self._counts = torch.cat([self._counts, self._counts.new_zeros((len(new), self._vocab_size))])
        in_prompt = self._in_prompt.new_zeros((len(new), self._vocab_size))
        for place, row in enumerate(new):
            in_prompt[place, torch.tensor(self._history[row], dtype=torch.int64, device=self._device)] = True
        self._in_prompt = torch.cat([self._in_prompt, in_prompt])
        self._arrange()

    def select(self, rows: Sequence[int]) -> None:
        """Keep the rows with these numbers, in this order."""
        place_of = {row: place for place, row in enumerate(self._counted)}
        kept = [(new, place_of[old]) for new, old in enumerate(rows) if old in place_of]
        places = torch.tensor([place for _, place in kept], dtype=torch.int64, device=self._device)
        self._counted = [new for new, _ in kept]
        self._counts, self._in_prompt = self._counts[places], self._in_prompt[places]
        self._settings = [self._settings[row] for row in rows]
        self._history = [self._history[row] for row in rows]
        self._prompt_lengths = [self._prompt_lengths[row] for row in rows]
        self._arrange()

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits` [rows, vocabulary] as the rows' settings change them; the tensor itself where none does."""
        if self._counted:
            logits = logits.index_copy(0, self._counted_rows, self._penalized(logits[self._counted_rows]))
        if self._bias_rows.numel():
            logits = logits.index_put((self._bias_rows, self._bias_ids), self._bias, accumulate=True)
        bans = [*self._fixed_bans, *self._moving_bans()]
        if bans:
            rows, ids = torch.tensor(bans, dtype=torch.int64, device=self._device).unbind(-1)
            logits = logits.index_put((rows, ids), logits.new_tensor(-torch.inf))
        return logits

    def append(self, ids: torch.Tensor, rows: Sequence[int] | None = None) -> None:
        """Tokens [rows] that the rows took, or that only those in `rows` took."""
        taking = range(len(self._settings)) if rows is None else rows
        if self._counted:
            taken = ids.to(self._device)[self._counted_rows]
            places = torch.arange(len(self._counted), device=self._device)
            once = torch.tensor([float(row in taking) for row in self._counted], device=self._device)
            self._counts.index_put_((places, taken), once, accumulate=True)
        if self._moving:
            tokens = ids.tolist()
            for row in taking:
                self._history[row].append(tokens[row])

    def _arrange(self) -> None:
        settings = self._settings
        self._counted_rows = torch.tensor(self._counted, dtype=torch.int64, device=self._device)
        counted = [settings[row] for row in self._counted]
        self._repetition = self._column([s.repetition_penalty for s in counted])
        self._presence = self._column([s.presence_penalty for s in counted])
        self._frequency = self._column([s.frequency_penalty for s in counted])
        biases = [(row, token, bias) for row, s in enumerate(settings) for token, bias in s.logit_bias]
        self._bias_rows = torch.tensor([row for row, _, _ in biases], dtype=torch.int64, device=self._device)
        self._bias_ids = torch.tensor([token for _, token, _ in biases], dtype=torch.int64, device=self._device)
        self._bias = torch.tensor([bias for _, _, bias in biases], dtype=torch.float32, device=self._device)
        self._fixed_bans = [(row, word[0]) for row, s in enumerate(settings) for word in s.bad_words if len(word) == 1]
        self._moving = [
            row for row, s in enumerate(settings) if s.min_new_tokens or any(len(word) > 1 for word in s.bad_words)
        ]

    def _column(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]

    def _penalized(self, logits: torch.Tensor) -> torch.Tensor:
        repeated = torch.where(logits > 0, logits / self._repetition, logits * self._repetition)
        held = self._counts > 0
        logits = torch.where(held | self._in_prompt, repeated, logits)
        return logits - self._presence * held - self._frequency * self._counts

    def _moving_bans(self) -> list[tuple[int, int]]:
        """Row and token of the bans that hold at this step only."""
        bans: list[tuple[int, int]] = []
        for row in self._moving:
            settings, history = self._settings[row], self._history[row]
            if len(history) - self._prompt_lengths[row] < settings.min_new_tokens:
                bans += [(row, token) for token in settings.stop_token_ids if token < self._vocab_size]
            for word in settings.bad_words:
                begun = len(word) - 1
                if begun and tuple(history[-begun:]) == word[:-1]:
                    bans.append((row, word[-1]))
        return bans

    def _check(self, settings: Settings) -> None:
        named = [("logit_bias", token) for token, _ in settings.logit_bias]
        named += [("bad_words", token) for word in settings.bad_words for token in word]
        for setting, token in named:
            if not 0 <= token < self._vocab_size:
                raise ValueError(
                    f"{setting} names the token id {token}, but the model's vocabulary has {self._vocab_size} tokens"
                )


def _counts_tokens(settings: Settings) -> bool:
    return bool(settings.repetition_penalty != 1.0 or settings.presence_penalty or settings.frequency_penalty)
