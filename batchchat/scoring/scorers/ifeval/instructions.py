"""The 25 kinds of instruction of IFEval (arXiv 2311.07911), each a predicate on a response.

Written from the published definitions and held to the published data. Where the definition is odd it is kept, since
scores are compared across tools: a keyword is a regular expression, `less than` and `at least` are the only relations,
a response whose language cannot be told counts as following.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from batchchat.scoring.scorers.ifeval.texts import count_sentences, count_words, leading_word, words_in_capitals
from batchchat.scoring.scorers.language import language_detector


def _holds(count: int, relation: str, bound: int) -> bool:
    """`count` against `bound`; ValueError for a relation that IFEval does not have."""
    if relation == "at least":
        return count >= bound
    if relation == "less than":
        return count < bound
    raise ValueError(f"the relation '{relation}' is neither 'at least' nor 'less than'")


def in_language(response: str, language: str) -> bool:
    """True where the response is in `language`, or where its language cannot be told."""
    found = language_detector("the scorer 'ifeval'")(response)
    return found is None or found == language


# keywords


def keywords_exist(response: str, *, keywords: list[str]) -> bool:
    return all(re.search(keyword, response, re.IGNORECASE) for keyword in keywords)


def keyword_frequency(response: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return _holds(len(re.findall(keyword.strip(), response, re.IGNORECASE)), relation, frequency)


def words_forbidden(response: str, *, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", response, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(response: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _holds(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


# language and case


def response_language(response: str, *, language: str) -> bool:
    return in_language(response, language)


def english_capital(response: str) -> bool:
    return response.isupper() and in_language(response, "en")


def english_lowercase(response: str) -> bool:
    return response.islower() and in_language(response, "en")


def capital_word_frequency(response: str, *, capital_frequency: int, capital_relation: str) -> bool:
    return _holds(words_in_capitals(response), capital_relation, capital_frequency)


# length


def number_sentences(response: str, *, num_sentences: int, relation: str) -> bool:
    return _holds(count_sentences(response), relation, num_sentences)


def number_words(response: str, *, num_words: int, relation: str) -> bool:
    return _holds(count_words(response), relation, num_words)


def number_paragraphs(response: str, *, num_paragraphs: int) -> bool:
    """Paragraphs are divided by `***`; one that is empty is allowed only before the first and after the last mark."""
    paragraphs = [paragraph.strip() for paragraph in re.split(r"\s?\*\*\*\s?", response)]
    if any(not paragraph for paragraph in paragraphs[1:-1]):
        return False
    return sum(1 for paragraph in paragraphs if paragraph) == num_paragraphs


def nth_paragraph_first_word(response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Paragraphs are divided by blank lines; the n-th of the pieces, empty ones counted, begins with the word."""
    pieces = re.split(r"\n\n", response)
    count = sum(1 for piece in pieces if piece.strip())
    if nth_paragraph > count or not pieces[nth_paragraph - 1].strip():
        return False
    return count == num_paragraphs and leading_word(pieces[nth_paragraph - 1]) == first_word.lower()


# content and format


def number_placeholders(response: str, *, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", response)) >= num_placeholders


def postscript(response: str, *, postscript_marker: str) -> bool:
    marker = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(postscript_marker)
    return re.search(marker or re.escape(postscript_marker.lower()), response.lower()) is not None


def number_bullet_lists(response: str, *, num_bullets: int) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", response, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", response, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def constrained_response(response: str) -> bool:
    return any(option in response for option in ("My answer is yes.", "My answer is no.", "My answer is maybe."))


def number_highlighted_sections(response: str, *, num_highlights: int) -> bool:
    """`*text*` and `**text**` on one line; the second shape also counts where the first one finds its halves empty."""
    single = [found for found in re.findall(r"\*[^\n\*]*\*", response) if found.strip("*").strip()]
    double = [found for found in re.findall(r"\*\*[^\n\*]*\*\*", response) if found[2:-2].strip()]
    return len(single) + len(double) >= num_highlights


def multiple_sections(response: str, *, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{section_spliter.strip()}\s?\d+", response)) >= num_sections


def json_format(response: str) -> bool:
    bare = response.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        bare = bare.removeprefix(fence)
    try:
        json.loads(bare.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(response: str) -> bool:
    return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", response))


# combination, start and end, punctuation


def two_responses(response: str) -> bool:
    """Two different responses divided by six asterisks; an empty piece is allowed only at either end."""
    pieces = [piece.strip() for piece in response.split("******")]
    if any(not piece for piece in pieces[1:-1]):
        return False
    responses = [piece for piece in pieces if piece]
    return len(responses) == 2 and responses[0] != responses[1]


def repeat_prompt(response: str, *, prompt_to_repeat: str) -> bool:
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(response: str, *, end_phrase: str) -> bool:
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(response: str) -> bool:
    bare = response.strip()
    return len(bare) > 1 and bare[0] == '"' and bare[-1] == '"'


def no_comma(response: str) -> bool:
    return "," not in response


INSTRUCTIONS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": keywords_exist,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": words_forbidden,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": number_words,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}
