"""Chats to token ids and token ids back to messages. The tokenizer is passed in; no model, no torch."""

from batchchat.prompts.bytes_codec import ByteCodec
from batchchat.prompts.codec import Codec, ParsedAnswer, TokenizerCodec
from batchchat.prompts.doctor import diagnose
from batchchat.prompts.findings import Finding
from batchchat.prompts.messages_codec import MessagesCodec
from batchchat.prompts.overflow import Prompt, fit
from batchchat.prompts.settings import SettingsResolver, leaked_defaults, resolve_settings, row_samples, row_seed

__all__ = [
    "ByteCodec",
    "Codec",
    "Finding",
    "MessagesCodec",
    "ParsedAnswer",
    "Prompt",
    "SettingsResolver",
    "TokenizerCodec",
    "diagnose",
    "fit",
    "leaked_defaults",
    "resolve_settings",
    "row_samples",
    "row_seed",
]
