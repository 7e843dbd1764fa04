"""The form that an answer must have: what it allows next, what of it cannot be kept, and whether an answer has it."""

from batchchat.structure.agreement import Agreement, agreement, calls_agreement
from batchchat.structure.backends import matchers_of
from batchchat.structure.bounds import unbounded
from batchchat.structure.calls import calls_structure, read_calls, strict_schemas
from batchchat.structure.matching import Matcher, Matchers, TokenBytes
from batchchat.structure.refusals import malformed, refusal

__all__ = [
    "Agreement",
    "Matcher",
    "Matchers",
    "TokenBytes",
    "agreement",
    "calls_agreement",
    "calls_structure",
    "malformed",
    "matchers_of",
    "read_calls",
    "refusal",
    "strict_schemas",
    "unbounded",
]
