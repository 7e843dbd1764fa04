"""The tools that conversations offer: everyday ones, and made-up ones so that the offer must be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from scripts.tiny_chat.draw import Draw
from scripts.tiny_chat.facts import CITIES, NAMES, NOUNS, VERBS, WORDS

PLACES = ("room", "place", "city", "label", "owner")
"""What the parameter of a made-up tool is called."""
MORE_PLACES = (*PLACES, "name", "age", "colour", "text", "minutes", "degrees", "sky")
"""The same in drills: the more there are, the less a guess is worth."""


class ToolUse(NamedTuple):
    """A tool, a request that it fits, the arguments to call it with, what it returned and the sentence made of that."""

    schema: dict[str, Any]
    request: str
    arguments: dict[str, Any]
    result: str
    answer: str

    @property
    def name(self) -> str:
        return str(self.schema["function"]["name"])


def _schema(name: str, description: str, /, **types: str) -> dict[str, Any]:
    properties = {key: {"type": kind, "description": f"The {key}."} for key, kind in types.items()}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _weather(draw: Draw) -> ToolUse:
    city, degrees, sky = draw.choice(CITIES), draw.randint(1, 40), draw.choice(("sunny", "cloudy", "rainy", "windy"))
    templates = (
        "What is the weather in {c}?",
        "How is the weather in {c} today?",
        "Is it raining in {c}?",
        "What's the weather like in {c}?",
    )
    return ToolUse(
        _schema("get_weather", "Get the weather in a city.", city="string"),
        draw.ask(templates, c=city),
        {"city": city},
        f'{{"degrees": {degrees}, "sky": "{sky}"}}',
        f"It is {sky} and {degrees} degrees in {city}.",
    )


def _time(draw: Draw) -> ToolUse:
    city, hour, minute = draw.choice(CITIES), draw.randint(0, 23), draw.randint(0, 59)
    return ToolUse(
        _schema("get_time", "Get the time in a city.", city="string"),
        draw.ask(("What time is it in {c}?", "Tell me the time in {c}.", "What is the time in {c}?"), c=city),
        {"city": city},
        f"{hour:02}:{minute:02}",
        f"It is {hour:02}:{minute:02} in {city}.",
    )


def _timer(draw: Draw) -> ToolUse:
    minutes = draw.randint(2, 99)
    templates = ("Set a timer for {n} minutes.", "Start a {n} minute timer.", "Remind me in {n} minutes.")
    return ToolUse(
        _schema("set_timer", "Set a timer.", minutes="integer"),
        draw.ask(templates, n=minutes),
        {"minutes": minutes},
        "ok",
        "It is done.",
    )


def _message(draw: Draw) -> ToolUse:
    name, text = draw.choice(NAMES), " ".join(draw.sample(WORDS, draw.randint(1, 3)))
    templates = ('Send "{t}" to {n}.', 'Send the message "{t}" to {n}.', 'Tell {n} "{t}".', 'Write "{t}" to {n}.')
    return ToolUse(
        _schema("send_message", "Send a message to a person.", name="string", text="string"),
        draw.ask(templates, t=text, n=name),
        {"name": name, "text": text},
        "ok",
        "It is done.",
    )


class MadeUp(NamedTuple):
    """A tool whose name says nothing of its parameter: that has to be read."""

    verb: str
    noun: str
    place: str

    @property
    def name(self) -> str:
        return f"{self.verb}_{self.noun}"

    @classmethod
    def any(cls, draw: Draw, places: tuple[str, ...] = PLACES) -> MadeUp:
        return cls(draw.choice(VERBS), draw.choice(NOUNS), draw.choice(places))

    def near(self, draw: Draw) -> MadeUp:
        """Another tool of the same verb or for the same noun."""
        other = MadeUp.any(draw)
        return self._replace(verb=other.verb) if draw.chance(0.5) else self._replace(noun=other.noun)

    def use(self, draw: Draw) -> ToolUse:
        value = draw.word()
        templates = (
            "{v} the {n} {x}.",
            "Please {v} the {n} {x}.",
            "Can you {v} the {n} {x}?",
            "I want you to {v} the {n} {x}.",
        )
        request = draw.ask(templates, v=self.verb, n=self.noun, x=value)
        return ToolUse(
            _schema(self.name, f"{self.verb.capitalize()} the {self.noun}.", **{self.place: "string"}),
            request[0].upper() + request[1:],
            {self.place: value},
            "ok",
            "It is done.",
        )


def _made_up(draw: Draw) -> ToolUse:
    return MadeUp.any(draw).use(draw)


EVERYDAY = (_weather, _time, _timer, _message)


def kept(draw: Draw, make: Callable[[Draw], ToolUse]) -> ToolUse:
    """A use of a tool on this generator's side of the split."""

    def attempt() -> tuple[str, ToolUse]:
        use = make(draw)
        return f"tool {use.name} {use.arguments}", use

    return draw.until(attempt)


def tool_use(draw: Draw) -> ToolUse:
    """A tool with a request for it."""
    return kept(draw, lambda draw: draw.choice((*EVERYDAY, _made_up, _made_up, _made_up))(draw))


def offer(draw: Draw, *wanted: ToolUse, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The schemas of the wanted tools among up to three others, in random order; none is named in `without`."""
    schemas = {use.name: use.schema for use in wanted}
    for _ in range(draw.randint(0 if wanted else 1, 3)):
        other = draw.choice((*EVERYDAY, _made_up, _made_up))(draw)
        if other.name not in without:
            schemas.setdefault(other.name, other.schema)
    names = list(schemas)
    draw.shuffle(names)
    return [schemas[name] for name in names]
