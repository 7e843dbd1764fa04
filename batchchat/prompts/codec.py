"""The run's tokenizer and chat template as one thing: chats to prompt ids, completions to messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from batchchat.chats import Completion, Message
from batchchat.errors import BadRow, UsageError
from batchchat.prompts.answers import (
    ParsedAnswer,
    answer_text,
    parsed_answer,
    plain_answer,
    thinking_answer,
    uses_thinking,
)
from batchchat.prompts.arguments import ArgumentForms, find_forms, with_arguments
from batchchat.prompts.literal import LiteralText, require_characters, within_vocabulary
from batchchat.prompts.token_texts import TokenTexts, token_texts

Tools = Sequence[Mapping[str, Any]] | None

_QUERY = "batchchat-query"
"""Stands for a user's turn that is yet to be written: a text that templates leave as it is."""


class Codec(Protocol):
    """What the run needs of a tokenizer and its template."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""
        ...

    @property
    def context_length(self) -> int | None:
        """Tokens of prompt and answer together that the model takes; None where nothing says so."""
        ...

    @property
    def template(self) -> str | None:
        """The chat template's source."""
        ...

    def render(self, messages: Sequence[Message], tools: Tools = None, *, prefill: bool = False) -> tuple[int, ...]:
        """Prompt ids of a chat. With `prefill` its last turn, the assistant's, is left open to be continued."""
        ...

    def render_query(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Prompt ids of a chat (which may be empty) and of what the template writes before a user's turn behind it: the
        model goes on with such a turn. Raises UsageError where that is nothing, or there are no token ids."""
        ...

    def query_ends(self) -> tuple[tuple[int, ...], str | None]:
        """What ends a turn that a model writes behind `render_query`: the special tokens, and the text that the
        template writes behind a user's turn, where that begins with none. Raises as `render_query`."""
        ...

    def render_text(self, messages: Sequence[Message], tools: Tools = None, *, prefill: bool = False) -> str:
        """The prompt as the template wrote it."""
        ...

    def encode_prompt(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """Ids of a prompt that no template rendered: of a text, with special tokens where it names them and where the
        tokenizer adds them, or ids as they are. Raises BadRow for an id that is none."""
        ...

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Ids of a text inside an answer, special tokens in it taken as text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Raw text, special tokens included."""
        ...

    def token_texts(self) -> TokenTexts:
        """What each token adds to a text. Raises UsageError for a tokenizer of which that cannot be said."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[tuple[str, bool]]:
        """Raw text in pieces; True goes with special tokens."""
        ...

    def parse(self, completion: Completion) -> ParsedAnswer:
        """The assistant's message in a completion; of a continued turn, its continuation."""
        ...


class TokenizerCodec:
    """A transformers tokenizer with its own chat template or the one given.

    `template` replaces the tokenizer's; `template_kwargs` are variables for it (`enable_thinking`, …);
    `eos_token_ids` are those of the model's generation config, the tokenizer's own end token if empty.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        eos_token_ids: Sequence[int] = (),
        context_length: int | None = None,
    ):
        self.tokenizer = tokenizer
        own_end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        self.eos_token_ids: tuple[int, ...] = tuple(eos_token_ids) or own_end
        self.context_length = context_length
        self.template_kwargs = dict(template_kwargs or {})
        self._given_template = template
        self._literal = LiteralText(tokenizer)
        self._token_texts: TokenTexts | None = None
        self._argument_forms: dict[bool, ArgumentForms] = {}
        self._thinks = uses_thinking(tokenizer, self.template)

    @property
    def vocab_size(self) -> int:
        return len(self.tokenizer)

    @property
    def template(self) -> str | None:
        """The template in use; of several, the one for chats without tools."""
        if self._given_template is not None:
            return self._given_template
        own = self.tokenizer.chat_template
        return own.get("default") if isinstance(own, dict) else own

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that the tokenizer treats as special."""
        added = (number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special)
        return frozenset(added) | frozenset(self.tokenizer.all_special_ids)

    def render(self, messages: Sequence[Message], tools: Tools = None, *, prefill: bool = False) -> tuple[int, ...]:
        """Prompt ids, tokenized once from the rendered text: special tokens come from the template alone.

        Raises BadRow with the template's own words where it refuses the chat, UsageError without a template.
        """
        return self._ids(messages, tools, add_generation_prompt=not prefill, continue_final_message=prefill)

    def render_finished(self, messages: Sequence[Message], tools: Tools = None) -> tuple[int, ...]:
        """Ids of a conversation that nothing is to be added to, its last turn closed. Raises as `render` does."""
        return self._ids(messages, tools, add_generation_prompt=False, continue_final_message=False)

    def _ids(self, messages: Sequence[Message], tools: Tools, **end: bool) -> tuple[int, ...]:
        chat, schemas = self._plain(messages, tools)
        if not self._literal.occurs_in((chat, schemas)):
            return tuple(self._literal.encode(self._apply(chat, schemas, **end)))
        marks = self._literal.marks_for((chat, schemas))
        marked_chat, marked_schemas = self._literal.mark(chat, marks), self._literal.mark(schemas, marks)
        return tuple(self._literal.encode_marked(self._apply(marked_chat, marked_schemas, **end), marks))

    def render_query(self, messages: Sequence[Message]) -> tuple[int, ...]:
        chat, _ = self._plain(messages, None)
        if not self._literal.occurs_in(chat):
            return tuple(self._literal.encode(self._around_query(chat)[0]))
        marks = self._literal.marks_for(chat)
        return tuple(self._literal.encode_marked(self._around_query(self._literal.mark(chat, marks))[0], marks))

    def query_ends(self) -> tuple[tuple[int, ...], str | None]:
        before, behind = self._around_query([])
        if not before.replace(self.tokenizer.bos_token or "", "").strip():
            raise UsageError(
                "the model's chat template writes nothing before a user's turn, so the model cannot be asked to write "
                "one; set simulate.method=goal, or give another template with chat.template=FILE"
            )
        piece, special = next(self._literal.split(behind.strip()), ("", True))
        return tuple(sorted({*self.special_ids, *self.eos_token_ids})), None if special else piece.strip() or None

    def render_text(self, messages: Sequence[Message], tools: Tools = None, *, prefill: bool = False) -> str:
        chat, schemas = self._plain(messages, tools)
        return self._apply(chat, schemas, add_generation_prompt=not prefill, continue_final_message=prefill)

    def encode_prompt(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        if not isinstance(prompt, str):
            return within_vocabulary(prompt, self.vocab_size)
        require_characters(prompt)
        return tuple(self.tokenizer(prompt)["input_ids"])

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(self._literal.encode_text(text))

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def token_texts(self) -> TokenTexts:
        if self._token_texts is None:
            self._token_texts = token_texts(
                self.tokenizer, self.decode, self.special_ids, self.encode_text, self._thinks
            )
        if self._token_texts is None:
            raise UsageError(
                "generation.bad_words cannot be kept out, nor generation.structured or strict tools kept: this model's "
                "tokenizer writes a token differently beside others; leave them out, or forbid tokens with "
                "generation.suppress_tokens"
            )
        return self._token_texts

    def pieces(self, ids: Sequence[int]) -> list[tuple[str, bool]]:
        specials = self.special_ids
        out: list[tuple[str, bool]] = []
        start = 0
        for place, number in enumerate(ids):
            if number in specials:
                if place > start:
                    out.append((self.decode(ids[start:place]), False))
                out.append((self.decode([number]), True))
                start = place + 1
        if start < len(ids):
            out.append((self.decode(ids[start:]), False))
        return out

    def special_in(self, text: str) -> str | None:
        """The first special token that a text holds, None for none."""
        return next((piece for piece, special in self._literal.split(text) if special), None)

    def content_text(self, text: str) -> str:
        """Raw text without special tokens."""
        return self._literal.strip(text)

    def parse(self, completion: Completion) -> ParsedAnswer:
        """Content, reasoning and tool calls by the tokenizer's response template where it has one; else reasoning
        between think marks where the model knows them, and all else content. A response template that fails leaves
        all text as content, and a note. To a prompt that no template rendered the answer is a text."""
        if completion.request.prompt is not None:
            return plain_answer(completion, self.content_text)
        if getattr(self.tokenizer, "response_template", None) is not None:
            return self._parse_by_template(completion)
        if self._thinks and not _opens_reasoning(completion.request.messages):
            prompt_end = self.decode(completion.request.prompt_ids[-8:])
            return thinking_answer(completion, prompt_end, self.content_text)
        return plain_answer(completion, self.content_text)

    def _parse_by_template(self, completion: Completion) -> ParsedAnswer:
        request = completion.request
        tools = None if request.tools is None else [dict(tool) for tool in request.tools]
        try:
            parsed = self.tokenizer.parse_response(
                answer_text(completion), prefix=self.decode(request.prompt_ids), tools=tools
            )
            return ParsedAnswer(parsed_answer(parsed, request.continued))
        except Exception as error:  # the response template is the model's and may raise anything on odd output
            note = f"the tokenizer's response template could not read the answer ({_words(error)}): all is content"
            return ParsedAnswer(plain_answer(completion, self.content_text).message, note)

    def _plain(
        self, messages: Sequence[Message], tools: Tools
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Mappings as templates read them. No tools and an empty list of tools are the same to a chat, not to every
        template, so both are None."""
        chat = [message.as_dict() for message in messages]
        schemas = [dict(tool) for tool in tools] if tools else None
        if any(message.tool_calls for message in messages):
            forms = self._argument_forms.get(bool(schemas)) or find_forms(
                chat, lambda probe: self._apply(probe, schemas, add_generation_prompt=True)
            )
            if forms is not None:
                self._argument_forms[bool(schemas)] = forms
                chat = with_arguments(chat, forms.choose)
        return chat, schemas

    def _around_query(self, chat: list[dict[str, Any]]) -> tuple[str, str]:
        """What the template writes before and behind the text of a user's turn that follows the chat."""
        text = self._apply(
            [*chat, {"role": "user", "content": _QUERY}],
            None,
            add_generation_prompt=False,
            continue_final_message=False,
        )
        before, found, behind = text.rpartition(_QUERY)
        if not found:
            raise UsageError(
                "the model's chat template changes or drops the text of a user's turn, so none can be begun; set "
                "simulate.method=goal, or give another template with chat.template=FILE"
            )
        return before, behind

    def _apply(self, chat: list[dict[str, Any]], tools: list[dict[str, Any]] | None, **end: bool) -> str:
        if self._given_template is None and not self.tokenizer.chat_template:
            raise UsageError(
                "the model's tokenizer has no chat template, so chats cannot become prompts; give one with "
                "chat.template=FILE (a Jinja file)"
            )
        if not chat:
            raise BadRow("the chat has no messages; give it at least one user turn")
        try:
            text: str = self.tokenizer.apply_chat_template(
                chat,
                tools=tools,
                chat_template=self._given_template,
                tokenize=False,
                **end,
                **self.template_kwargs,
            )
        except Exception as error:  # a template is a program of the model's publisher and may raise anything
            raise BadRow(f"the chat template refuses this chat: {_words(error)}") from error
        return text


def _opens_reasoning(messages: Sequence[Message]) -> bool:
    """Whether the turn to be continued is within its reasoning: what is written then stays one text with it."""
    start = messages[-1].content or "" if messages and messages[-1].role == "assistant" else ""
    return start.rfind("<think>") > start.rfind("</think>")


def _words(error: Exception) -> str:
    """An exception's own words in one line, at most 400 characters of them; its type where it has none."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 400 else words[:399] + "…"
