"""Small real parts for tests: tokenizers trained on a few sentences, templates, models with random weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from batchchat.chats import Request, Settings

torch.set_num_threads(1)  # such small models run fastest, and steadily on a busy machine, on one thread


SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "How many letters are in the word banana? There are six letters in it.",
    "Äpfel, naïve café, 東京, Привет мир, 😀 and other words of the world.",
    "user assistant system tool Hello, how are you today? I am fine, thank you!",
    "{'name': 'get_weather', 'arguments': {'city': 'Paris'}} <think> 1 + 2 = 3 </think>\n\n",
)
TURNS = ("How many letters are in the word banana?", "And in naïve café?", "東京 😀")
SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<unk>")

CHATML = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}"
    "<|im_start|>{{ message.role + '\n' }}"
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{{ '\n' }}{% endif %}"
    "{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ call | tojson }}{% endfor %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = "{{ strftime_now('%d %b %Y') }}\n" + CHATML


def _wrap(backend: Tokenizer, template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = template
    return tokenizer


def byte_bpe(template: str | None = CHATML, vocab_size: int = 480) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every Unicode string goes in and comes out."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES * 4, trainer)
    return _wrap(backend, template)


def metaspace_bpe(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """BPE with a word mark and byte fallback, a space put before every text, as converted sentencepiece models have."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(SPECIALS), show_progress=False)
    backend.train_from_iterator([line.replace(" ", "▁") for line in SENTENCES * 4], trainer)
    state = json.loads(backend.to_str())
    vocabulary = state["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    state["model"]["byte_fallback"] = True
    return _wrap(Tokenizer.from_str(json.dumps(state)), template)


def unigram(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Unigram with a word mark; its special tokens stand in the model's vocabulary too."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=list(SPECIALS), unk_token="<unk>", show_progress=False, initial_alphabet=[]
    )
    backend.train_from_iterator(SENTENCES * 4, trainer)
    return _wrap(backend, template)


@cache
def llama(vocab_size: int = 480, seed: int = 0, layers: int = 2) -> LlamaForCausalLM:
    """A Llama with random weights, large enough to give lively logits."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@dataclass
class Clock:
    """A meter that counts its readings and keeps what it is told."""

    time: float = 0.0
    batches: list[tuple[int, int, int, int]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)

    def now(self, wait: bool = True) -> float:
        self.time += 1.0
        return self.time

    def batch(self, rows: int, prompt_tokens: int, generated_tokens: int, padded_tokens: int) -> None:
        self.batches.append((rows, prompt_tokens, generated_tokens, padded_tokens))

    def event(self, name: str, detail: str) -> None:
        self.events.append((name, detail))


def request(index: int, prompt_ids: tuple[int, ...] = (5, 6, 7), seed: int | None = None, **settings: Any) -> Request:
    """A request with these settings; its seed is its own."""
    return Request(
        chat_id=f"chat-{index}",
        index=index,
        sample=0,
        turn=0,
        prompt_ids=prompt_ids,
        settings=Settings(**{"max_new_tokens": 8, **settings}),
        seed=(index * 0x9E3779B97F4A7C15 + 77) % 2**64 if seed is None else seed,
    )
