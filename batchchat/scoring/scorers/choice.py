"""`choice`: which option of a multiple-choice question the answer settles on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from batchchat.scoring.base import Answer, BadReference, Score, ScoreFunction, ScorerOptions, column, is_missing
from batchchat.scoring.choices import chosen_letter
from batchchat.scoring.limited import findall, search, time_limit


class Options(ScorerOptions):
    """Options of `choice`."""

    agrees_with: Literal["batchchat", "mmlu_pro"] = Field(
        default="batchchat",
        alias="as",
        description="`mmlu_pro` reads the letter exactly as MMLU-Pro's own evaluation does, down to its slips (an "
        "answer without a letter, for which that guesses, counts as wrong); by default what the answer settles on.",
    )
    letters: str = Field(
        default="ABCD",
        min_length=2,
        description="The letters of the options, in order. Where `as` is mmlu_pro and nothing is set, ABCDEFGHIJ.",
    )
    choices: str | None = Field(
        default=None,
        description="Column with the list of the options' texts. An answer without a letter then counts where it "
        "names exactly one of them.",
    )
    seconds: float = Field(
        default=1.0, gt=0, description="Time limit per row; an answer that exceeds it is an error of that row."
    )


def make(options: Options) -> ScoreFunction:
    """1 where the chosen letter is the reference's, else 0. A reference is a letter, an option's text (with
    `choices`), or a position counted from 0. A reference that is none of them raises BadReference."""
    letters = options.letters.upper()
    if options.agrees_with == "mmlu_pro" and "letters" not in options.model_fields_set:
        letters = "ABCDEFGHIJ"
    chosen = _READERS[options.agrees_with]

    def letter_of(reference: Any, texts: Sequence[str]) -> str:
        if isinstance(reference, int) and not isinstance(reference, bool) and 0 <= reference < len(letters):
            return letters[reference]
        text = str(reference).strip()
        bare = text.strip("().[] ").upper()
        if len(bare) == 1 and bare in letters:
            return bare
        if text in texts and texts.index(text) < len(letters):
            return letters[texts.index(text)]
        raise BadReference(f"the reference {text[:80]!r} is neither one of {letters}, a position nor an option")

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        held = column(columns, options.choices) if options.choices else None
        texts = [str(text) for text in held] if isinstance(held, list | tuple) else []
        references = reference if isinstance(reference, list | tuple) else (reference,)
        expected = [letter_of(entry, texts) for entry in references if not is_missing(entry)]
        wanted = ", ".join(expected)
        with time_limit(options.seconds, "the search for a choice"):
            given = chosen(answer.text, letters, texts)
        if given is None:
            return Score(0.0, "the answer settles on no single option", None, wanted)
        right = given in expected
        return Score(float(right), "the right option" if right else "another option", given, wanted)

    return score


def _as_mmlu_pro(text: str, letters: str, texts: Sequence[str] = ()) -> str | None:
    """The first `answer is (X)`; else what the first line with `answer:` says last; else the last letter on its own."""
    found = search(rf"answer is \(?([{letters}])\)?", text)
    if found is None:
        found = search(rf".*[aA]nswer:\s*([{letters}])", text)
    if found is not None:
        return str(found[1])
    alone = findall(rf"\b[{letters}]\b", text)
    return alone[-1] if alone else None


_READERS: Mapping[str, Callable[[str, str, Sequence[str]], str | None]] = {
    "batchchat": chosen_letter,
    "mmlu_pro": _as_mmlu_pro,
}
