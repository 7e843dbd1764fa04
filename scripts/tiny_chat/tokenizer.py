"""Makes the byte-level BPE tokenizer and gives it its chat template and its response template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from scripts.tiny_chat.conversations import Conversation
from scripts.tiny_chat.facts import SPELT

TEMPLATE_FILE = Path(__file__).parent / "chat_template.jinja"
COMMON = 0.005  # a word is common if it appears this many times per conversation
SPACE = "Ġ"  # how the byte-level alphabet writes a space

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
SPECIAL = [PAD, BEGIN, END, *ROLES]

# What may be one token: a capitalised word, a lower-case word after a space, or two digits of a number, from its end.
# Words in upper case and lower-case words that follow no space are single characters: a reversed word is letters.
PIECES = (
    r'</?tool_call>| ?"[a-z_]+":| ?"(?:string|integer)"'  # the markers of a tool call, keys of JSON, types
    r"| ?\p{Lu}\p{Ll}*| \p{Ll}+|\p{L}"
    r"|\p{N}{1,2}(?=(?:\p{N}{2})*(?!\p{N}))"
    r"| ?[^\s\p{L}\p{N}]|\s"
)
NUMBERS = [f"{number:02}" for number in range(100)]

# How `parse_response` reads an answer back into a message. The leftover text between the calls is the content.
RESPONSE_TEMPLATE = {
    "version": 1,
    "defaults": {"role": "assistant", "content": ""},
    "start_anchor": "<|assistant|>",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "content_args": {"allow_non_json": True},
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close": END, "content": "text", "content_args": {"strip": False}},
    },
}


def _wrap(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=ROLES,
        padding_side="left",
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE_FILE.read_text(encoding="utf-8"),
        response_template=RESPONSE_TEMPLATE,
    )


def train_tokenizer(conversations: Iterable[Conversation], vocab_size: int, context: int) -> PreTrainedTokenizerFast:
    """At most `vocab_size` tokens: special tokens, bytes, numbers, and the commonest words of rendered conversations.

    It is a byte-level BPE without merges: a piece that is in the vocabulary is one token, any other piece is its bytes.
    Words that are spelt, reversed or copied are never whole, so that the model always sees their letters.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    renderer = _wrap(tokenizer, context)
    counts: Counter[str] = Counter()
    num_conversations = 0
    for chat in conversations:
        text = renderer.apply_chat_template(chat.messages, tools=chat.tools, tokenize=False)
        counts.update(piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
        num_conversations += 1
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    common = [
        piece
        for piece, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if len(piece) > 1
        and count >= COMMON * num_conversations
        and piece not in NUMBERS
        and piece.strip(SPACE).lower() not in SPELT
    ]
    tokens = [*SPECIAL, *alphabet, *NUMBERS, *common][:vocab_size]
    tokenizer.model = models.BPE({token: number for number, token in enumerate(tokens)}, [], ignore_merges=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return _wrap(tokenizer, context)
