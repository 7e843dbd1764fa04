"""Skills whose answers are computed: sums, differences, letters of words, counting, repeating."""

from __future__ import annotations

from collections.abc import Callable

from scripts.tiny_chat.draw import Draw, Turn
from scripts.tiny_chat.facts import NAMES, THINGS

MOST = 100
"""No operand and no sum is larger."""


def _number(draw: Draw) -> int:
    """Mostly of two digits."""
    return draw.randint(10, 99) if draw.chance(0.75) else draw.randint(0, 9)


def _sum(draw: Draw) -> tuple[int, int]:
    def make() -> tuple[str, tuple[int, int]]:
        a = _number(draw)
        b = min(_number(draw), draw.randint(0, MOST - a))
        pair = (a, b) if draw.chance(0.5) else (b, a)
        return f"sum {min(pair)} {max(pair)}", pair

    return draw.until(make)


def _difference(draw: Draw) -> tuple[int, int]:
    def make() -> tuple[str, tuple[int, int]]:
        low, high = sorted((_number(draw), _number(draw)))
        a, b = (low, high) if draw.chance(0.05) else (high, low)
        return f"difference {a} {b}", (a, b)

    return draw.until(make)


def sums(draw: Draw) -> Turn:
    if draw.chance(0.2):
        return _worksheet(draw, "+", _sum)
    a, b = _sum(draw)
    templates = (
        "What is {a} + {b}?",
        "{a} + {b}",
        "{a}+{b}",
        "{a} + {b} = ?",
        "How much is {a} plus {b}?",
        "What is {a} plus {b}?",
        "Add {a} and {b}.",
        "Calculate {a} + {b}.",
        "What is the sum of {a} and {b}?",
        "{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?",
    )
    return draw.ask(templates, a=a, b=b, name=draw.choice(NAMES), thing=draw.choice(THINGS)), str(a + b)


def bare(draw: Draw) -> Turn:
    """A sum or a difference in the fewest tokens: what a drill is made of."""
    sign = draw.choice("+-")
    a, b = _sum(draw) if sign == "+" else _difference(draw)
    templates = ("{a} {s} {b}", "{a}{s}{b}", "{a} {s} {b} = ?", "What is {a} {s} {b}?")
    return draw.choice(templates).format(a=a, b=b, s=sign), str(a + b if sign == "+" else a - b)


def differences(draw: Draw) -> Turn:
    if draw.chance(0.2):
        return _worksheet(draw, "-", _difference)
    a, b = _difference(draw)
    templates = (
        "What is {a} - {b}?",
        "{a} - {b}",
        "{a}-{b}",
        "{a} - {b} = ?",
        "How much is {a} minus {b}?",
        "What is {a} minus {b}?",
        "Subtract {b} from {a}.",
        "Calculate {a} - {b}.",
        "What is the difference of {a} and {b}?",
    )
    story = ("{name} has {a} {thing} and gives away {b}. How many {thing} are left?",)
    phrasings = templates + story if a >= b else templates
    return draw.ask(phrasings, a=a, b=b, name=draw.choice(NAMES), thing=draw.choice(THINGS)), str(a - b)


def _worksheet(draw: Draw, sign: str, pick: Callable[[Draw], tuple[int, int]]) -> Turn:
    """Several exercises at once: many answers for few prompt tokens."""
    pairs = [pick(draw) for _ in range(draw.randint(2, 4))]
    exercises = ", ".join(f"{a} {sign} {b}" for a, b in pairs)
    answers = ", ".join(str(a + b if sign == "+" else a - b) for a, b in pairs)
    return draw.ask(("Work these out: {x}", "Solve: {x}", "What are {x}?"), x=exercises), answers


def _fresh_word(draw: Draw, purpose: str) -> str:
    def make() -> tuple[str, str]:
        word = draw.word()
        return f"{purpose} {word}", word

    return draw.until(make)


def reverse(draw: Draw) -> Turn:
    word = _fresh_word(draw, "reverse")
    templates = (
        'Reverse the word "{w}".',
        "Reverse the word {w}.",
        "Reverse {w}.",
        "Spell {w} backwards.",
        'Write "{w}" backwards.',
        "What is {w} backwards?",
        "Turn the word {w} around.",
        "Reverse this word: {w}",
    )
    return draw.ask(templates, w=word), word[::-1]


def upper(draw: Draw) -> Turn:
    words = " ".join(_fresh_word(draw, "upper") for _ in range(draw.choice((1, 1, 1, 2, 3))))
    templates = (
        'Write "{w}" in capitals.',
        "Write {w} in capital letters.",
        "Put {w} in upper case.",
        "Upper-case this: {w}",
        "Make this upper case: {w}",
        'What is "{w}" in capital letters?',
        "Convert {w} to uppercase.",
    )
    return draw.ask(templates, w=words), words.upper()


def letters(draw: Draw) -> Turn:
    word = _fresh_word(draw, "letters")
    kind = draw.randrange(4)
    if kind == 0:
        return draw.ask(("Spell {w}.", "How do you spell {w}?", 'Spell the word "{w}".'), w=word), "-".join(word)
    if kind == 1:
        templates = ("How many letters are in {w}?", 'Count the letters of "{w}".', "How long is the word {w}?")
        return draw.ask(templates, w=word), str(len(word))
    place, letter = ("first", word[0]) if kind == 2 else ("last", word[-1])
    templates = ("What is the {p} letter of {w}?", 'Tell me the {p} letter of "{w}".', "Which letter is {p} in {w}?")
    return draw.ask(templates, p=place, w=word), letter


def count(draw: Draw) -> Turn:
    def make() -> tuple[str, tuple[int, int, int]]:
        step = draw.choice((1, 1, 1, 1, 1, 1, 1, 2, 5, 10))
        first = draw.choice((1, draw.randint(0, 60)))
        length = draw.randint(2, draw.choice((6, 10, 20, 40)))
        last = min(first + step * (length - 1), 100)
        last -= (last - first) % step
        if draw.chance(0.25):
            first, last = last, first
        return f"count {first} {last} {step}", (first, last, step)

    first, last, step = draw.until(make)
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    answer = ", ".join(map(str, numbers))
    direction = "" if first <= last else draw.choice((" down", " backwards", ""))
    if step > 1:
        by = draw.choice((f" in steps of {step}", f" by {step}s"))
        return draw.ask(("Count{d} from {a} to {b}{by}.",), d=direction, a=first, b=last, by=by), answer
    if first == 1 and draw.chance(0.4):
        return draw.ask(("Count to {b}.", "Please count up to {b}.", "Can you count to {b}?"), b=last), answer
    templates = (
        "Count{d} from {a} to {b}.",
        "List the numbers from {a} to {b}.",
        "Say the numbers {a} to {b}.",
        "Can you count{d} from {a} to {b}?",
    )
    return draw.ask(templates, d=direction, a=first, b=last), answer


def repeat(draw: Draw) -> Turn:
    def make() -> tuple[str, tuple[str, int]]:
        word, times = draw.word(), draw.randint(1, draw.choice((4, 8, 12)))
        return f"repeat {word} {times}", (word, times)

    word, times = draw.until(make)
    templates = (
        'Say "{w}" {n} time{s}.',
        "Say {w} {n} time{s}.",
        "Repeat the word {w} {n} time{s}.",
        "Repeat {w} {n} time{s}.",
        "Write {w} {n} time{s}.",
        "Say {n} time{s}: {w}",
    )
    return draw.ask(templates, w=word, n=times, s="s" * (times > 1)), " ".join([word] * times)
