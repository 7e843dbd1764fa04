"""Reward models: sequence classifiers that give a conversation a number, in padded batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from batchchat.chats import Message
from batchchat.errors import BadRow, UsageError
from batchchat.models.arithmetic import computing_dtype
from batchchat.models.checkpoint import require_files, require_whole
from batchchat.models.loading import place_of, show_loading
from batchchat.models.names import explained, hub_arguments, locate
from batchchat.models.text import context_length, load_config, load_tokenizer
from batchchat.prompts import TokenizerCodec
from batchchat.recipe.rewards import RewardSection

log = logging.getLogger("batchchat")

_TOLERANCE = 0.02
"""Of a number's size, by which padding may change it: 16-bit weights round."""


class RewardModel:
    """A loaded reward model. Raises UsageError for a model that is none, EnvironmentFault for what is lacking."""

    def __init__(self, name: str, section: RewardSection):
        from transformers import AutoModelForSequenceClassification

        self._where = f"rewards.{name}"
        model = section.model
        config = load_config(model)
        place = locate(model)
        show_loading(False)
        log.info("loading the reward model %s …", model.name)
        require_files(model.name, place)
        with explained(model.name):
            try:
                self._model, found = AutoModelForSequenceClassification.from_pretrained(
                    place,
                    config=config,
                    dtype=computing_dtype(model, config),
                    device_map=place_of(model),
                    max_memory=None if model.max_memory is None else dict(model.max_memory),
                    attn_implementation=model.attn_implementation,
                    offload_folder=model.offload_folder,
                    use_safetensors=True,
                    output_loading_info=True,
                    **hub_arguments(model),
                )
            except ValueError as error:
                if "Unrecognized configuration class" not in str(error):
                    raise
                raise UsageError(
                    f"{self._where}.model: {model.name} is of type {config.model_type!r}, which transformers loads as "
                    "no sequence classifier; name a reward model"
                ) from error
            require_whole(model.name, found, config)
        self._model.eval()
        self._column = _label(self._where, section, self._model.config)
        tokenizer = load_tokenizer(model)
        self._codec = TokenizerCodec(tokenizer)
        self._is_pair = section.input == "pair" or (section.input == "auto" and not tokenizer.chat_template)
        if section.input == "template" and not tokenizer.chat_template:
            raise UsageError(
                f"{self._where}.input is template, but {model.name} has no chat template; write input: pair"
            )
        self._most = context_length(config)
        self._rows = section.max_batch_rows
        self._padding: bool | None = None
        """Whether a row's number is the same beside longer ones; None before that was tried."""

    def scores(self, conversations: Sequence[Sequence[Message]]) -> list[float | str]:
        """The number of each conversation, whose last turn is the answer, or why it has none."""
        found: list[float | str] = ["" for _ in conversations]
        rows: dict[int, tuple[list[int], list[int]]] = {}
        for place, conversation in enumerate(conversations):
            try:
                rows[place] = self._encoded(conversation)
            except BadRow as error:
                found[place] = str(error)
        order = sorted(rows, key=lambda place: len(rows[place][0]), reverse=True)
        for batch in self._batches(order, rows):
            for place, value in zip(batch, self._computed([rows[place] for place in batch]), strict=True):
                found[place] = value
        return found

    def _batches(self, order: list[int], rows: dict[int, Any]) -> list[list[int]]:
        """Rows of like length together; of the same length alone where padding changes the numbers."""
        if self._padding is None and len(order) > 1 and len(rows[order[0]][0]) > len(rows[order[-1]][0]):
            long, short = rows[order[0]], rows[order[-1]]
            (alone,), (_, beside) = self._computed([short]), self._computed([long, short])
            self._padding = abs(alone - beside) <= _TOLERANCE * max(1.0, abs(alone))
            if not self._padding:
                log.warning("%s: padding changes its numbers, so only texts of equal length share a batch", self._where)
        batches: list[list[int]] = []
        for place in order:
            last = batches[-1] if batches else []
            fits = 0 < len(last) < self._rows
            if fits and (self._padding or len(rows[last[0]][0]) == len(rows[place][0])):
                last.append(place)
            else:
                batches.append([place])
        return batches

    def _encoded(self, conversation: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Token ids and, of a pair, which text each belongs to. Special tokens in texts stay text."""
        if self._is_pair:
            texts = [_text(message) for message in _asked_and_answer(conversation)]
            encoded = self._codec.tokenizer(*texts, split_special_tokens=True, verbose=False)
            ids = list(encoded["input_ids"])
            kinds = list(encoded.get("token_type_ids", [0] * len(ids)))
        else:
            ids = list(self._codec.render_finished(conversation))
            kinds = [0] * len(ids)
        if not ids:
            raise BadRow("the conversation is empty to the reward model's tokenizer")
        if self._most is not None and len(ids) > self._most:
            raise BadRow(f"the conversation has {len(ids):,} tokens, and the reward model takes {self._most:,}")
        return ids, kinds

    def _computed(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        import torch

        width = max(len(ids) for ids, _ in rows)
        pad = self._pad(rows)
        self._model.config.pad_token_id = pad  # by which the model finds each row's last token
        padded = [(ids + [pad] * (width - len(ids)), kinds + [0] * (width - len(ids))) for ids, kinds in rows]
        mask = [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows]
        device = self._model.get_input_embeddings().weight.device
        inputs = {
            "input_ids": torch.tensor([ids for ids, _ in padded], device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }
        if getattr(self._model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = torch.tensor([kinds for _, kinds in padded], device=device)
        with torch.inference_mode():
            logits = self._model(**inputs).logits.float()
        if logits.shape[-1] == 1:
            return [float(value) for value in logits[:, 0]]
        return [float(value) for value in logits.softmax(-1)[:, self._column]]

    def _pad(self, rows: Sequence[tuple[list[int], list[int]]]) -> int:
        """An id that stands in none of the rows: models take what stands before the first pad for the end, and the end
        token of a template is the pad of many tokenizers."""
        used = {token for ids, _ in rows for token in ids}
        own = self._codec.tokenizer.pad_token_id
        if own is not None and own not in used:
            return int(own)
        return next(token for token in range(self._model.config.get_text_config().vocab_size) if token not in used)


def _label(where: str, section: RewardSection, config: Any) -> int:
    names = {str(name): int(number) for number, name in config.id2label.items()}
    if section.label is None:
        if config.num_labels != 1:
            raise UsageError(
                f"{where}.model has {config.num_labels} labels; say which one counts: {where}.label={next(iter(names))}"
            )
        return 0
    number = section.label if isinstance(section.label, int) else names.get(section.label, -1)
    if not 0 <= number < config.num_labels:
        raise UsageError(f"{where}.label is {section.label}, which the model does not have; it has {', '.join(names)}")
    return number


def _asked_and_answer(conversation: Sequence[Message]) -> tuple[Message, Message]:
    asked = next((one for one in reversed(conversation[:-1]) if one.role == "user"), Message("user", ""))
    return asked, conversation[-1]


def _text(message: Message) -> str:
    return message.content or ""
