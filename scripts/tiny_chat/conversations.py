"""Makes the conversations that the model is trained and tested on, endless and reproducible from a seed.

Every question has a key, and a hash of the key decides whether it is ever trained on. So "fresh" questions are fresh by
construction: no list of them is kept, and no order of drawing can leak one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scripts.tiny_chat import exercises, knowledge
from scripts.tiny_chat.draw import Draw, Turn
from scripts.tiny_chat.facts import NAMES
from scripts.tiny_chat.tools import EVERYDAY, MORE_PLACES, MadeUp, kept, offer, tool_use

NO_TOOL = "I have no tool for that."

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Messages that end with the assistant's turn which is scored, and the tools that were offered."""

    skill: str
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None


TURN_SKILLS: dict[str, Callable[[Draw], Turn]] = {
    "sums": exercises.sums,
    "differences": exercises.differences,
    "reverse": exercises.reverse,
    "upper case": exercises.upper,
    "letters": exercises.letters,
    "count": exercises.count,
    "repeat": exercises.repeat,
    "capitals": knowledge.capitals,
    "colours": knowledge.colours,
    "json": knowledge.json_answer,
    "identity": knowledge.identity,
    "unknown": knowledge.unknown,
}

# Relative frequency of each skill in training: what is hard to learn is seen more often.
TURN_WEIGHTS = {
    "sums": 20,
    "differences": 20,
    "reverse": 10,
    "upper case": 8,
    "letters": 8,
    "count": 10,
    "repeat": 10,
    "capitals": 12,
    "colours": 8,
    "json": 6,
    "identity": 4,
    "unknown": 8,
}
CHAT_WEIGHTS = {"memory": 12, "system prompt": 12, "tool call": 10, "tool result": 4, "no tool": 8}
SKILLS = (*TURN_WEIGHTS, *CHAT_WEIGHTS)
# What each stage of training draws from: the first drills what takes the longest to learn, sums and the reading of
# tools on offer; the second is about everything, and most about instructions and tools; the third is about what was
# still unsure then: long counts, and requests that no tool fits.
FIRST_MIX = {
    **TURN_WEIGHTS,
    **CHAT_WEIGHTS,
    "drill in sums": 10,
    "drill in bare sums": 70,
    "drill in letters": 12,
    "drill in endings": 6,
    "drill in tools": 20,
    "drill in offers": 30,
}
SECOND_MIX = {
    **TURN_WEIGHTS,
    "sums": 30,
    "differences": 40,
    "letters": 14,
    "identity": 6,
    "memory": 20,
    "system prompt": 50,
    "tool call": 60,
    "tool result": 6,
    "no tool": 50,
    "drill in sums": 25,
    "drill in bare sums": 40,
    "drill in letters": 6,
    "drill in endings": 5,
    "drill in offers": 45,
}
THIRD_MIX = {
    **TURN_WEIGHTS,
    "differences": 30,
    "count": 60,
    "memory": 12,
    "system prompt": 25,
    "tool call": 40,
    "tool result": 4,
    "no tool": 110,
    "drill in sums": 12,
    "drill in bare sums": 12,
    "drill in counts": 30,
    "drill in offers": 30,
}
MIXES = (FIRST_MIX, SECOND_MIX, THIRD_MIX)

NEUTRAL_SYSTEM = (
    "You are a helpful assistant.",
    "You are a helpful and friendly assistant.",
    "Answer the user's questions.",
    "Be brief.",
)


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def any_turn(draw: Draw) -> Turn:
    (skill,) = draw.choices(list(TURN_WEIGHTS), list(TURN_WEIGHTS.values()))
    return TURN_SKILLS[skill](draw)


def small_talk(draw: Draw, most: int) -> list[Message]:
    """Up to `most` turns of any skill: what came before must not disturb the answer."""
    return [message for _ in range(draw.randint(0, most)) for message in turn(*any_turn(draw))]


def single(draw: Draw, skill: str) -> Conversation:
    """A question of a turn skill, often after other turns, sometimes under a neutral system prompt."""
    start = [system(draw.choice(NEUTRAL_SYSTEM))] if draw.chance(0.15) else []
    before = small_talk(draw, draw.choice((0, 0, 0, 0, 0, 0, 3, 3, 3, 10, 10, 30)))
    return Conversation(skill, [*start, *before, *turn(*TURN_SKILLS[skill](draw))])


def memory(draw: Draw) -> Conversation:
    """A name and a number are told, other turns pass, and one of them (or one never told) is asked for."""

    def make() -> tuple[str, tuple[str, int]]:
        name = draw.choice(NAMES) if draw.chance(0.7) else draw.word().capitalize()
        number = draw.randint(0, 999)
        return f"memory {name} {number}", (name, number)

    name, number = draw.until(make)
    tell_name = (
        draw.choice(("My name is {}.", "I am {}.", "Call me {}.", "Hello, I'm {}.")).format(name),
        f"Nice to meet you, {name}.",
    )
    templates = (
        "My number is {}.",
        "My lucky number is {}.",
        "Remember the number {}.",
        "Please remember my number: {}.",
    )
    tell_number = (draw.choice(templates).format(number), f"I will remember the number {number}.")
    ask_name = draw.ask(
        ("What is my name?", "What's my name?", "Do you remember my name?", "Who am I?", "Tell me my name.")
    )
    ask_number = draw.ask(
        ("What is my number?", "What's my number?", "Which number did I tell you?", "Do you remember my number?")
    )
    both = (
        f"My name is {name} and my number is {number}.",
        f"Nice to meet you, {name}. I will remember the number {number}.",
    )
    ask_both = draw.ask(("What are my name and my number?", "Do you remember my name and number?"))
    start = [system(draw.choice(NEUTRAL_SYSTEM))] if draw.chance(0.1) else []
    if draw.chance(0.15):  # what was never told is asked for: saying so is the right answer
        no_name = (tell_number, (ask_name, "You have not told me your name."))
        no_number = (tell_name, (ask_number, "You have not told me your number."))
        other, missing = draw.choice((no_name, no_number))
        told = turn(*other) if draw.chance(0.5) else []
        return Conversation("memory", [*start, *told, *small_talk(draw, 2), *turn(*missing)])
    parts = [turn(*both)] if draw.chance(0.4) else [turn(*tell_name), turn(*tell_number)]
    draw.shuffle(parts)
    messages = [
        message for part in parts for message in (*part, *small_talk(draw, draw.choice((0, 0, 1, 1, 3, 3, 6, 15))))
    ]
    questions = [
        (ask_name, f"Your name is {name}."),
        (ask_number, f"Your number is {number}."),
        (ask_both, f"Your name is {name} and your number is {number}."),
    ]
    draw.shuffle(questions)
    asked = [message for question in questions[: draw.randint(1, 3)] for message in turn(*question)]
    return Conversation("memory", [*start, *messages, *asked])


def system_prompt(draw: Draw) -> Conversation:
    """A system prompt sets the model's name, or how every answer is written."""

    def make() -> tuple[str, str]:
        name = draw.choice(NAMES) if draw.chance(0.5) else draw.word().capitalize()
        return f"system {name}", name

    skills = ("capitals", "colours", "repeat", "sums")
    if draw.chance(0.4):
        name = draw.until(make)
        templates = ("Your name is {}.", "You are {}.", "You are {}, a helpful assistant.", "You are called {}.")
        text = draw.choice(templates).format(name)
        questions = (
            "What is your name?",
            "What's your name?",
            "Who are you?",
            "What are you called?",
            "Tell me your name.",
        )
        before = [TURN_SKILLS[draw.choice(skills)](draw) for _ in range(draw.randint(0, 2))]
        turns = [*before, (draw.ask(questions), f"My name is {name}.")]
        return Conversation("system prompt", [system(text), *(m for pair in turns for m in turn(*pair))])
    rules: tuple[tuple[tuple[str, ...], Callable[[str], str]], ...] = (
        (("Answer in capitals.", "Always write in capital letters.", "Answer only in upper case."), str.upper),
        (("Answer in lower case.", "Never use capital letters.", "Always write in small letters."), str.lower),
        (('End every answer with "Sir".', 'Always say "Sir" at the end.'), lambda answer: f"{answer} Sir"),
    )
    texts, rule = draw.choice(rules)
    turns = [TURN_SKILLS[draw.choice((*skills, "identity"))](draw) for _ in range(draw.randint(1, 3))]
    messages = [message for question, answer in turns for message in turn(question, rule(answer))]
    opening = draw.choice(("", "", "You are a helpful assistant. "))
    return Conversation("system prompt", [system(opening + draw.choice(texts)), *messages])


def call_messages(request: str, name: str, arguments: dict[str, Any]) -> list[Message]:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return [{"role": "user", "content": request}, {"role": "assistant", "content": "", "tool_calls": [call]}]


def tool_call(draw: Draw) -> Conversation:
    use = tool_use(draw)
    start = [system(draw.choice(NEUTRAL_SYSTEM))] if draw.chance(0.3) else []
    messages = [*start, *small_talk(draw, draw.choice((0, 0, 2))), *call_messages(use.request, use.name, use.arguments)]
    return Conversation("tool call", messages, offer(draw, use))


def tool_result(draw: Draw) -> Conversation:
    use = tool_use(draw)
    messages = call_messages(use.request, use.name, use.arguments)
    result = [{"role": "tool", "content": use.result}, {"role": "assistant", "content": use.answer}]
    return Conversation("tool result", [*messages, *result], offer(draw, use))


def no_tool(draw: Draw) -> Conversation:
    """A question that no tool is needed for, or a request that no tool on offer fits."""
    if draw.chance(0.5):
        return Conversation("no tool", [*small_talk(draw, 1), *turn(*any_turn(draw))], offer(draw))
    use = tool_use(draw)
    tools = offer(draw, without=(use.name,)) if draw.chance(0.7) else None
    return Conversation("no tool", [*small_talk(draw, 1), *turn(use.request, NO_TOOL)], tools or None)


def drill(draw: Draw, skills: tuple[str, ...]) -> Conversation:
    """Many turns of the skills that take the longest to learn: most answers for the tokens."""
    turns = [TURN_SKILLS[draw.choice(skills)](draw) for _ in range(draw.randint(4, 12))]
    return Conversation("drill", [message for pair in turns for message in turn(*pair)])


def drill_in_sums(draw: Draw) -> Conversation:
    return drill(draw, ("sums", "differences"))


def drill_in_letters(draw: Draw) -> Conversation:
    return drill(draw, ("reverse", "upper case", "letters", "repeat", "count"))


def drill_in_bare_sums(draw: Draw) -> Conversation:
    return Conversation("drill", [message for _ in range(20) for message in turn(*exercises.bare(draw))])


def drill_in_endings(draw: Draw) -> Conversation:
    """Short counts and repetitions: when to stop is what is hard about them."""
    pairs = [TURN_SKILLS[draw.choice(("count", "count", "repeat"))](draw) for _ in range(14)]
    return Conversation("drill", [message for pair in pairs if len(pair[1]) < 30 for message in turn(*pair)])


def drill_in_counts(draw: Draw) -> Conversation:
    return Conversation("drill", [m for _ in range(draw.randint(2, 5)) for m in turn(*exercises.count(draw))])


def drill_in_tools(draw: Draw) -> Conversation:
    """Many requests under one offer, half of which it fits: what a tool is called, what its parameter is called and
    whether it is there can only be read. Those that it does not fit are nearly the same as others."""
    tools = [MadeUp.any(draw) for _ in range(draw.randint(1, 2))]
    everyday = draw.sample(EVERYDAY, draw.randint(0, 1))
    fitting = [*(tool.use for tool in tools), *everyday]
    offered = {use.name: use.schema for use in (make(draw) for make in fitting)}
    messages: list[Message] = []
    for _ in range(draw.randint(2, 5)):
        if draw.chance(0.55):
            use = kept(draw, draw.choice(fitting))
        else:
            others = [make for make in EVERYDAY if make not in everyday]
            use = kept(draw, draw.choice(tools).near(draw).use if draw.chance(0.7) else draw.choice(others))
        if use.name in offered:
            schema = offered[use.name]
            arguments = dict(zip(schema["function"]["parameters"]["properties"], use.arguments.values(), strict=True))
            result = [{"role": "tool", "content": use.result}, {"role": "assistant", "content": use.answer}]
            messages += [*call_messages(use.request, use.name, arguments), *result]
        else:
            messages += turn(use.request, NO_TOOL)
    schemas = list(offered.values())
    draw.shuffle(schemas)
    return Conversation("drill", messages, schemas)


def drill_in_offers(draw: Draw) -> Conversation:
    """The same with each tool wanted once, so that nothing can be copied from an earlier call, and with parameters of
    more names, so that a guess is worth less."""
    tools = [MadeUp.any(draw, MORE_PLACES) for _ in range(draw.randint(1, 3))]
    everyday = draw.sample(EVERYDAY, draw.randint(0, 1))
    offered = {use.name: use.schema for use in (make(draw) for make in (*(tool.use for tool in tools), *everyday))}
    wanted = [*(tool.use for tool in tools), *everyday]
    others = [tool.near(draw).use for tool in tools if draw.chance(0.4)]
    others += draw.sample([make for make in EVERYDAY if make not in everyday], draw.randint(0, 1))
    makers = [*wanted, *others]
    draw.shuffle(makers)
    messages: list[Message] = []
    for make in makers:
        use = kept(draw, make)
        if use.name in offered:
            schema = offered[use.name]
            arguments = dict(zip(schema["function"]["parameters"]["properties"], use.arguments.values(), strict=True))
            messages += call_messages(use.request, use.name, arguments)
            if draw.chance(0.3):
                messages += [{"role": "tool", "content": use.result}, {"role": "assistant", "content": use.answer}]
        else:
            messages += turn(use.request, NO_TOOL)
    schemas = list(offered.values())
    draw.shuffle(schemas)
    return Conversation("drill", messages, schemas)


CHAT_SKILLS: dict[str, Callable[[Draw], Conversation]] = {
    "memory": memory,
    "system prompt": system_prompt,
    "tool call": tool_call,
    "tool result": tool_result,
    "no tool": no_tool,
    "drill in sums": drill_in_sums,
    "drill in letters": drill_in_letters,
    "drill in bare sums": drill_in_bare_sums,
    "drill in endings": drill_in_endings,
    "drill in counts": drill_in_counts,
    "drill in tools": drill_in_tools,
    "drill in offers": drill_in_offers,
}


def conversation(
    number: int, *, fresh: bool, skill: str | None = None, mix: Mapping[str, int] = FIRST_MIX
) -> Conversation:
    """Conversation `number` of the training side or the fresh side; of one skill, or of any skill by its weight."""
    draw = Draw(f"{'fresh' if fresh else 'train'} {skill or 'any'} {number}", fresh)
    if skill is None:
        (skill,) = draw.choices(list(mix), list(mix.values()))
    return CHAT_SKILLS[skill](draw) if skill in CHAT_SKILLS else single(draw, skill)


__all__ = ["SKILLS", "Conversation", "Message", "conversation"]
