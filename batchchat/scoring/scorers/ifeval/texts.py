"""Words, sentences and paragraphs as IFEval counts them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from batchchat.scoring.extras import need

_ABBREVIATIONS = """
jr sr vs etc inc ltd co corp dept est
a.m p.m e.g i.e cf al u.s u.k u.n d.c ph.d b.a m.a b.c a.d p.s p.p.s approx appt ave blvd rd mt ft
"""
_STARTERS = """
a after although an and as at because before but even every for from he her here his how however i if in it its many
moreover my no not now on once one our she so some such that the their then there these they this those though to
what when where while who why with yes you your
"""
"""Words that, written with a capital behind an abbreviation, begin a sentence: `at 5 p.m. Then`."""
_TITLE = re.compile(r"\b(mr|mrs|ms|dr|prof|st|rev|gen|col|sgt|capt|lt|gov|sen|rep|hon)\.(?=\s+[A-Z])", re.IGNORECASE)
"""Before a name, which may be any word (`Dr. No`)."""
_BEFORE_NUMBER = re.compile(
    r"\b(no|nos|fig|figs|vol|pp|ch|sec|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec"
    r"|mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun)\.(?=\s+\d|,)",
    re.IGNORECASE,
)
"""Abbreviations that are ordinary words elsewhere (`He sat.`, `the sun.`, `no.`), and so only before a number."""


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores: `don't` is two."""
    return len(re.findall(r"\w+", text))


def count_sentences(text: str) -> int:
    """Sentences by the Punkt rules of nltk, with a list of English abbreviations in place of its trained model
    (which nltk would download)."""
    text = _TITLE.sub(r"\1", _BEFORE_NUMBER.sub(r"\1", text))
    return len(_sentence_tokenizer().tokenize(text))


def words_in_capitals(text: str) -> int:
    """Tokens (Penn Treebank rules, by nltk) whose letters are all capitals, `I` and `A` included."""
    tokens = _word_tokenizer().tokenize(text)
    return sum(1 for token in tokens if token.isupper())


def leading_word(paragraph: str) -> str:
    """The first word in lower case, without an opening quotation mark and up to its first punctuation mark."""
    word = paragraph.split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower()


@lru_cache(maxsize=1)
def _sentence_tokenizer() -> Any:
    punkt = need("nltk.tokenize.punkt", "the scorer 'ifeval'")
    parameters = punkt.PunktParameters()
    parameters.abbrev_types = set(_ABBREVIATIONS.split())
    parameters.sent_starters = set(_STARTERS.split())
    return punkt.PunktSentenceTokenizer(parameters)


@lru_cache(maxsize=1)
def _word_tokenizer() -> Any:
    return need("nltk.tokenize.destructive", "the scorer 'ifeval'").NLTKWordTokenizer()
