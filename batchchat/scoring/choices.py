"""Reading which option of a multiple-choice question an answer settles on."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import regex

from batchchat.scoring.limited import finditer, search
from batchchat.scoring.numbers import boxed

_OPEN, _CLOSE = r"[\s\"'“”‘’(\[{*_<《「【:]*", r"[\s\"'“”‘’)\]}*_>》」】.:]*"
_NOUN = (
    r"(?:answers?|options?|choices?|solutions?|ones?|responses?|letters?|antwort|respuesta|réponse|risposta|resposta|"
    r"ответ)"
)
_IS = r"(?:should\s+be|would\s+be|must\s+be|is|are|lautet|ist|es|est|è|é)"
_BEFORE = (
    # English and its neighbours: "the answer is", "Answer:", "the right one would be", "I choose", "die Antwort lautet"
    rf"\b{_NOUN}(?:\s+(?:here|to\s+this(?:\s+question)?|{_IS}))?"
    r"\s*(?:most\s+likely\s+|clearly\s+|therefore\s+|definitely\s+)?[:=]?(?:\s*\n)?",
    r"\b(?:i|we)(?:'d|'ll|\s+would|\s+will)?\s+(?:choose|pick|select|go\s+(?:with|for)|chose|vote\s+for)",
    # Chinese, Japanese, Korean
    r"(?:答案|答|正确选项|正确的选项|正确答案|正解|答え|解答|回答|정답|답)\s*(?:应该|应)?(?:是|为|選|选|は|:|은|는)?\s*",
    r"(?:故选择?|应选择?|应该选择?|选择?|選)\s*",
)
_AFTER = (
    r"(?:is|would\s+be|must\s+be|seems)\s+(?:clearly\s+|therefore\s+|indeed\s+)?(?:the\s+)?"
    r"(?:right|correct|best|true|answer|most\s+accurate|proper|final)|正确|が正解|が正しい|是正确|이\s*정답"
)
_WRONG_AFTER = (
    r"(?:(?:is|are|was|would\s+be|seems|looks|can\s+be|could\s+be)\s+)?(?:\w+ly\s+)?"
    r"(?:wrong\b|incorrect\b|false\b|not\b|invalid\b|excluded\b|eliminated\b|ruled\s+out\b|impossible\b|untrue\b|"
    r"(?:is|are|does|do|can)n't\b|cannot\b|can't\b)|错误|不正确|不对|不是|は誤り|は間違い|ist\s+falsch|est\s+fausse?"
)
_WRONG_BEFORE = (
    r"(?:\bnot|n't|\bnever|\bunlike|\bthan|\bneither|\bnor|\breject(?:ing)?|\beliminat(?:e|ing)|\bexclud(?:e|ing)|"
    r"\brul(?:e|ing)\s+out|\binstead\s+of|\brather\s+than|不是|不选|排除|\bkein|\bnicht)\s*"
    r"(?:the\s+)?(?:options?|choices?|answers?)?\s*[(\[\"'*]*"
)
_ARTICLE = (
    r"[ ](?<=A[ ])(?!(?:and|or|because|since|as|but|which|is|are|was|for|due|unlike|not|while|so|given|with|rather|"
    r"instead|by|in)\b)[a-z]"
)
"""`A good one` is no choice."""
_FORMULA_AFTER = r"\s*(?:[=<>≈≠+^_]|[-−*/]\s*\w)|['’]\w|-\w"
_JOIN = r"(?:\s*(?:,|/|&|\band\b|\bor\b|\bsowie\b|\bund\b|\boder\b|、|和|或|と)\s*(?:and\s+|or\s+)?)"
_WRAPPERS = regex.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|boxed)\b|\\[,;!: ]|[{}$]")


@dataclass(frozen=True)
class _Signs:
    claim: regex.Pattern[str]
    judged: regex.Pattern[str]
    own_line: regex.Pattern[str]
    listed: regex.Pattern[str]
    marked: regex.Pattern[str]
    line_start: regex.Pattern[str]
    clause: regex.Pattern[str]
    in_box: regex.Pattern[str]
    wrong_after: regex.Pattern[str]
    wrong_before: regex.Pattern[str]
    formula_after: regex.Pattern[str]


class Undecided(Exception):
    """The answer names several options as its choice."""


def chosen_letter(text: str, letters: str, texts: Sequence[str] = ()) -> str | None:
    """The letter that an answer settles on, from the surest sign to the weakest; None where it settles on none or on
    several.

    A box that holds a letter; the last claim (`the answer is`, `正解は`, `C is correct`); a line of its own; an option
    that is marked, and is not one of those that the answer only restates; a letter that makes a clause. A letter that
    is said to be wrong or stands in a formula is no sign. `texts` are the options' texts: without a letter, an answer
    that names exactly one of them has chosen it.
    """
    text = unicodedata.normalize("NFKC", text)
    signs = _signs(letters)
    content = boxed(text)
    try:
        if content is not None:
            letter = _in_box(content, letters, texts, signs)
            if letter is not None:
                return letter
            text = text.replace(content, " ")
        for found in (
            _claimed(text, signs),
            _last(text, signs.own_line, signs),
            _marked(text, signs),
            _clause(text, signs),
        ):
            if found is not None:
                return found
    except Undecided:
        return None
    return _named(text, letters, texts)


def _in_box(content: str, letters: str, texts: Sequence[str], signs: _Signs) -> str | None:
    inner = _WRAPPERS.sub(" ", content).strip()
    found = signs.in_box.fullmatch(inner)
    if found is not None:
        return _single(found)
    held = [letter for letter, option in zip(letters, texts, strict=False) if _same(inner, option)]
    return held[0] if len(held) == 1 else None


def _claimed(text: str, signs: _Signs) -> str | None:
    """The last claim that is not taken back."""
    last: tuple[int, regex.Match[str]] | None = None
    for pattern in (signs.claim, signs.judged):
        for found in finditer(pattern, text):
            if not _refuted(text, found, signs) and (last is None or found.start("first") > last[0]):
                last = (found.start("first"), found)
    return None if last is None else _single(last[1])


def _last(text: str, pattern: regex.Pattern[str], signs: _Signs) -> str | None:
    found = [match for match in finditer(pattern, text) if not _refuted(text, match, signs)]
    return _single(found[-1]) if found else None


def _marked(text: str, signs: _Signs) -> str | None:
    """A bracketed or bold letter, or one that begins a line; where the answer lists several options in lines of
    their own, those lines only restate the question."""
    starts = list(finditer(signs.listed, text))
    if len({match["first"].upper() for match in starts}) > 1:
        text = signs.listed.sub(lambda match: " " * len(match[0]), text)
    found = _last(text, signs.marked, signs)
    return found if found is not None else _last(text, signs.line_start, signs)


def _clause(text: str, signs: _Signs) -> str | None:
    found = {
        match["first"].upper(): match for match in finditer(signs.clause, text) if not _refuted(text, match, signs)
    }
    return next(iter(found)) if len(found) == 1 else None


def _refuted(text: str, found: regex.Match[str], signs: _Signs) -> bool:
    """Whether what stands around a letter takes it back, or makes it a variable."""
    start = found.start("first")
    end = found.end("more") if found["more"] else found.end("first")
    if signs.formula_after.match(text, end) or signs.wrong_after.match(text, end):
        return True
    return signs.wrong_before.search(text, max(0, start - 60), start) is not None


def _single(found: regex.Match[str]) -> str:
    letters = {letter.upper() for letter in [found["first"], *found.captures("more")]}
    if len(letters) > 1:
        raise Undecided
    return letters.pop()


def _named(text: str, letters: str, texts: Sequence[str]) -> str | None:
    named = [
        letter
        for letter, option in zip(letters, texts, strict=False)
        if option and search(rf"(?<!\w){regex.escape(_plain(option))}(?!\w)", text, regex.IGNORECASE)
    ]
    return named[0] if len(named) == 1 else None


def _same(one: str, other: str) -> bool:
    return _plain(one).strip(" .").casefold() == _plain(other).strip(" .").casefold()


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


@lru_cache(maxsize=32)
def _signs(letters: str) -> _Signs:
    upper, both = f"[{regex.escape(letters)}]", f"[{regex.escape(letters + letters.lower())}]"
    # A letter with nothing of a word around it. Scripts without spaces may touch it.
    alone = r"(?<![A-Za-z0-9_/\\])", r"(?![A-Za-z0-9_/]|['’]\w|\.\w)"
    first, more = (
        rf"{alone[0]}(?P<first>{upper}){alone[1]}",
        rf"(?:{_JOIN}[(\[\"']*(?P<more>{upper}){alone[1]}[)\]\"']*)*",
    )
    small, small_more = (
        rf"{alone[0]}(?P<first>{both}){alone[1]}",
        rf"(?:{_JOIN}[(\[\"']*(?P<more>{both}){alone[1]}[)\]\"']*)*",
    )
    nothing = r"(?P<more>(*FAIL))?"
    close = r"[)\]\"'*]*"
    before = "|".join(_BEFORE)
    return _Signs(
        claim=regex.compile(
            rf"(?i:{before}){_OPEN}(?i:(?:the\s+)?(?:option|choice|letter|answer)\s+)?{_OPEN}"
            rf"(?:{first}(?!{_ARTICLE}){close}{more}|{small}{close}{small_more}{_CLOSE}(?=\s*$))",
            regex.MULTILINE,
        ),
        judged=regex.compile(rf"{first}{close}{more}{_CLOSE}(?=(?i:{_AFTER}))"),
        own_line=regex.compile(rf"^[^\w\n]*{small}{nothing}[^\w\n]*$", regex.MULTILINE),
        listed=regex.compile(rf"^[ \t>*_-]*[(\[]?(?P<first>{upper})[).:\]][^\n]*$", regex.MULTILINE),
        marked=regex.compile(
            rf"(?:(?i:option)\s+{first}|[(\[]{first}[)\]]|\*\*{first}[.):]?\*\*|\*\*[(\[]?{first}[.):\]]){nothing}"
        ),
        line_start=regex.compile(rf"^[ \t*_]*[(\[]?{first}[.):\]]{nothing}(?=\s|$|\*)", regex.MULTILINE),
        clause=regex.compile(
            r"(?:^|[.!?:;,\n—–]\s*|\b(?:is|be|say|guess|think|it's|so|thus|hence|therefore|choice|option)\s+|→\s*)"
            rf"[(\[\"'*]*{first}{nothing}{close}(?=\s*(?:$|[.,;:!?\n]|because\b|since\b|as\b|due\b))",
            regex.MULTILINE,
        ),
        in_box=regex.compile(
            rf"(?i:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+is)?)?[\W_]*{small}{close}{small_more}"
            r"(?:[\W_]*|[.):\]]\s+.*)",
            regex.DOTALL,
        ),
        wrong_after=regex.compile(rf"{_CLOSE}(?i:{_WRONG_AFTER})"),
        wrong_before=regex.compile(rf"(?i:{_WRONG_BEFORE})$"),
        formula_after=regex.compile(_FORMULA_AFTER),
    )
