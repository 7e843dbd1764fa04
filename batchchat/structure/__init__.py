"""The form that an answer must have: what it allows next, what of it cannot be kept, and whether an answer has it."""

from batchchat.structure.agreement import Agreement, agreement
from batchchat.structure.bounds import unbounded
from batchchat.structure.matching import Matcher, Matchers, TokenBytes
from batchchat.structure.refusals import malformed, refusal

__all__ = ["Agreement", "Matcher", "Matchers", "TokenBytes", "agreement", "malformed", "refusal", "unbounded"]
