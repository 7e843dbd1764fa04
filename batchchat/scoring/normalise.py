"""Text normalisation as explicit options: every step is a switch, and the steps taken can be printed."""

from __future__ import annotations

import re
import string
import unicodedata

from pydantic import Field

from batchchat.scoring.base import ScorerOptions

_ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_STEPS = ("unicode", "ignore_case", "ignore_punctuation", "ignore_articles", "collapse_spaces", "strip")


class TextOptions(ScorerOptions):
    """Options of scorers that compare texts. Steps are taken in the order of the fields."""

    unicode: bool = Field(
        default=True, description="Bring both texts to Unicode form NFKC (full-width letters, ligatures, wide spaces)."
    )
    ignore_case: bool = Field(default=False, description="Compare without regard to upper and lower case.")
    ignore_punctuation: bool = Field(
        default=False,
        description="Delete every ASCII sign that is no letter, digit or space (`$` and `+` are such, as in SQuAD) and "
        " every character of the Unicode punctuation categories from both texts.",
    )
    ignore_articles: bool = Field(default=False, description="Delete the English articles a, an and the.")
    collapse_spaces: bool = Field(default=True, description="Read every run of white space as one space.")
    strip: bool = Field(default=True, description="Ignore white space at both ends.")

    def normalise(self, text: str) -> str:
        """`text` after the steps that are on."""
        if self.unicode:
            text = unicodedata.normalize("NFKC", text)
        if self.ignore_case:
            text = text.casefold()
        if self.ignore_punctuation:
            text = "".join(character for character in text if not _is_punctuation(character))
        if self.ignore_articles:
            text = _ARTICLES.sub(" ", text)
        if self.collapse_spaces:
            text = _SPACES.sub(" ", text)
        return text.strip() if self.strip else text

    def steps(self) -> tuple[str, ...]:
        """Names of the steps that are on, in order, for the report."""
        return tuple(step for step in _STEPS if getattr(self, step))


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
