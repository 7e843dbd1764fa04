"""What a row's settings do to its logits before a token is chosen: penalties, biases and bans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from batchchat.chats import Request, Settings
from batchchat.sampling.staging import staged


class Texts(Protocol):
    """What each token of a vocabulary adds to a text (`prompts.token_texts`)."""

    def holding(self, text: bytes, /) -> Sequence[int]:
        """Ids of the tokens in which a text stands whole."""
        ...

    def completing(self, text: bytes, tail: bytes) -> Sequence[int]:
        """Ids of the tokens with which a text that `tail` begins would be complete."""
        ...

    def joined(self, ids: Sequence[int]) -> bytes:
        """The bytes of some tokens in a row."""
        ...


class RowPenalties:
    """Changes logits row by row, in the order of the rows: biases, penalties, bans, as transformers does. Rows without
    such settings cost nothing."""

    def __init__(self, vocab_size: int, device: torch.device, texts: Callable[[], Texts] | None = None):
        self._texts = texts
        self._tails: list[bytes] = []
        """Per row, the last bytes of the answer so far; kept for rows with texts that must not be written."""
        self._vocab_size = vocab_size
        self._device = device
        self._settings: list[Settings] = []
        self._history: list[list[int]] = []
        """Per row the prompt, and of rows with words or texts that must not be written the answer so far."""
        self._written: list[int] = []
        """Per row, how many tokens the answer has."""
        self._counted: list[int] = []
        """Rows whose tokens are counted, in the order of the two tensors below."""
        self._counts = torch.zeros((0, vocab_size), dtype=torch.float32, device=device)
        """[counted rows, vocabulary]: how often the answer holds each token."""
        self._in_prompt = torch.zeros((0, vocab_size), dtype=torch.bool, device=device)
        self._no_ids = torch.zeros(0, dtype=torch.int64, device=device)
        self._fixed: dict[tuple[object, ...], torch.Tensor] = {}
        """Ids that rows may never take, by their settings: many rows have the same."""
        self._arrange()

    def extend(self, requests: Sequence[Request]) -> None:
        """Add rows at the end. Raises ValueError for a token id that the model does not have."""
        first = len(self._settings)
        for request in requests:
            if reason := self.refusal(request.settings):
                raise ValueError(reason)
            self._settings.append(request.settings)
            self._history.append(list(request.prompt_ids))
            self._written.append(0)
            self._tails.append(b"")
        new = [row for row in range(first, len(self._settings)) if _counts_tokens(self._settings[row])]
        self._counted += new
        self._counts = torch.cat([self._counts, self._counts.new_zeros((len(new), self._vocab_size))])
        in_prompt = self._in_prompt.new_zeros((len(new), self._vocab_size))
        for place, row in enumerate(new):
            in_prompt[place, staged(self._history[row], self._device, torch.int64)] = True
        self._in_prompt = torch.cat([self._in_prompt, in_prompt])
        self._arrange()

    def select(self, rows: Sequence[int]) -> None:
        """Keep the rows with these numbers, in this order."""
        place_of = {row: place for place, row in enumerate(self._counted)}
        kept = [(new, place_of[old]) for new, old in enumerate(rows) if old in place_of]
        places = staged([place for _, place in kept], self._device, torch.int64)
        self._counted = [new for new, _ in kept]
        self._counts, self._in_prompt = self._counts[places], self._in_prompt[places]
        self._settings = [self._settings[row] for row in rows]
        self._history = [self._history[row] for row in rows]
        self._written = [self._written[row] for row in rows]
        self._tails = [self._tails[row] for row in rows]
        self._arrange()

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits` [rows, vocabulary] as the rows' settings change them; the tensor itself where none does."""
        if self._bias_rows.numel():
            logits = logits.index_put((self._bias_rows, self._bias_ids), self._bias, accumulate=True)
        if self._counted:
            logits = logits.index_copy(0, self._counted_rows, self._penalized(logits[self._counted_rows]))
        if self._fixed_rows.numel():
            logits = logits.index_put((self._fixed_rows, self._fixed_ids), logits.new_full((), -torch.inf))
        bans = self._moving_bans()
        if bans:
            rows, ids = staged(bans, self._device, torch.int64).unbind(-1)
            logits = logits.index_put((rows, ids), logits.new_full((), -torch.inf))
        return logits

    def append(self, ids: torch.Tensor, rows: Sequence[int] | None = None) -> None:
        """Tokens [rows] that the rows took, or that only those in `rows` took. Waits for the device only where words of
        several tokens, or texts, must not be written."""
        taking = range(len(self._settings)) if rows is None else rows
        if self._counted:
            taken = ids.to(self._device)[self._counted_rows]
            places = torch.arange(len(self._counted), device=self._device)
            once = staged([float(row in taking) for row in self._counted], self._device)
            self._counts.index_put_((places, taken), once, accumulate=True)
        for row in taking:
            self._written[row] += 1
        read = [row for row in taking if self._reads[row]]
        if read:
            tokens = ids.tolist()
            for row in read:
                self._history[row].append(tokens[row])
                if self._words[row]:
                    self._tails[row] = self._tail(row, tokens[row])

    def _arrange(self) -> None:
        settings = self._settings
        self._counted_rows = staged(self._counted, self._device, torch.int64)
        counted = [settings[row] for row in self._counted]
        self._repetition = self._column([s.repetition_penalty for s in counted])
        self._presence = self._column([s.presence_penalty for s in counted])
        self._frequency = self._column([s.frequency_penalty for s in counted])
        biases = [(row, token, bias) for row, s in enumerate(settings) for token, bias in s.logit_bias]
        self._bias_rows = staged([row for row, _, _ in biases], self._device, torch.int64)
        self._bias_ids = staged([token for _, token, _ in biases], self._device, torch.int64)
        self._bias = staged([bias for _, _, bias in biases], self._device, torch.float32)
        self._words = [tuple(text.encode("utf-8", "surrogatepass") for text in s.bad_texts) for s in settings]
        fixed = [self._fixed_bans(s, words) for s, words in zip(settings, self._words, strict=True)]
        self._fixed_ids = torch.cat([self._no_ids, *fixed])
        self._fixed_rows = staged(
            [row for row, ids in enumerate(fixed) for _ in range(len(ids))], self._device, torch.int64
        )
        self._reads = [bool(s.bad_texts) or any(len(word) > 1 for word in s.bad_words) for s in settings]
        self._moving = [row for row, s in enumerate(settings) if s.min_new_tokens or self._reads[row]]

    def _column(self, values: list[float]) -> torch.Tensor:
        return staged(values, self._device, torch.float32)[:, None]

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
            if self._written[row] < settings.min_new_tokens:
                bans += [(row, token) for token in settings.stop_token_ids if token < self._vocab_size]
            for word in settings.bad_words:
                begun = len(word) - 1
                if begun and tuple(history[-begun:]) == word[:-1]:
                    bans.append((row, word[-1]))
            for text in self._words[row]:
                bans += [(row, token) for token in self._completing(text, self._tails[row])]
        return bans

    def _known_texts(self) -> Texts:
        assert self._texts is not None, "bad_texts need the texts of the tokens"
        return self._texts()

    def _fixed_bans(self, settings: Settings, texts: tuple[bytes, ...]) -> torch.Tensor:
        """Ids that are banned at every step. An end token is no part of the text."""
        if not settings.bad_words and not texts:
            return self._no_ids
        key = (settings.bad_words, texts, settings.stop_token_ids)
        if key not in self._fixed:
            ids = {token for text in texts for token in self._known_texts().holding(text)}
            ids.difference_update(settings.stop_token_ids)
            ids.update(word[0] for word in settings.bad_words if len(word) == 1)
            known = sorted(token for token in ids if token < self._vocab_size)
            self._fixed[key] = staged(known, self._device, torch.int64)
        return self._fixed[key]

    def _completing(self, text: bytes, tail: bytes) -> list[int]:
        return [token for token in self._known_texts().completing(text, tail) if token < self._vocab_size]

    def _tail(self, row: int, token: int) -> bytes:
        """As many of the answer's last bytes as a text may have that is not complete yet."""
        longest = max(map(len, self._words[row]))
        whole = self._tails[row] + self._known_texts().joined([token])
        return whole[max(0, len(whole) - longest + 1) :]

    def refusal(self, settings: Settings) -> str | None:
        """Why a row with these settings cannot be added, in one sentence; None if it can."""
        named = [("logit_bias", token) for token, _ in settings.logit_bias]
        named += [("bad_words", token) for word in settings.bad_words for token in word]
        for setting, token in named:
            if not 0 <= token < self._vocab_size:
                return f"{setting} names the token id {token}, but the model's vocabulary has {self._vocab_size} tokens"
        return None


def _counts_tokens(settings: Settings) -> bool:
    return bool(settings.repetition_penalty != 1.0 or settings.presence_penalty or settings.frequency_penalty)
