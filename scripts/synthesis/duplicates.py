"""What it takes to find duplicates: seconds and memory for many texts, of which some are said again in nearly the same
words."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator

from batchchat.chats import Chat, Message, Place
from batchchat.evaluation import Answered
from batchchat.recipe.keeping import Duplicates
from batchchat.reporting.meters import host_peak_bytes
from batchchat.results.sample import Sample
from batchchat.selection.duplicates import Deduplication
from scripts.parts import require

_WORDS = 128
_VOCABULARY = 20_000


def samples(count: int, again: float, seed: int = 0) -> Iterator[Sample]:
    """Chats of one answer each, made when they are asked for; the share `again` says what an earlier one said, three
    words changed."""
    rng = random.Random(seed)
    vocabulary = [f"{rng.choice('bdfgklmnprst')}{rng.choice('aeiou')}{number:x}" for number in range(_VOCABULARY)]
    earlier: list[list[str]] = []
    for number in range(count):
        if earlier and rng.random() < again:
            words = list(rng.choice(earlier))
            for _ in range(3):
                words[rng.randrange(_WORDS)] = rng.choice(vocabulary)
        else:
            words = rng.choices(vocabulary, k=_WORDS)
            if len(earlier) < 10_000:
                earlier.append(words)
        place = Place("made.jsonl", number + 1)
        chat = Chat(f"c{number}", number, place, ((Message("user", f"question {number}"),),))
        answer = Message("assistant", " ".join(words).capitalize() + ".")
        yield Sample(Answered(chat.id, number, 0, {}, chat, (answer,), ("stop",)), "answered", ({},))


def show(texts: int, again: float = 0.1, near: float = 0.8) -> Iterator[str]:
    """`again`: the share of texts that are nearly another's."""
    making = time.process_time()
    for _ in samples(texts, again):
        pass
    making = time.process_time() - making
    removed: Counter[str] = Counter()
    began, worked = time.perf_counter(), time.process_time()
    step = Deduplication(Duplicates(near=near, of="answer"))
    kept = sum(1 for _ in step.apply(samples(texts, again), lambda one, why: removed.update([why[:3]])))
    seconds, work = time.perf_counter() - began, time.process_time() - worked
    gone = sum(removed.values())
    yield (
        f"{texts:,} texts of {_WORDS} words: {kept:,} kept, {gone:,} removed, in {seconds:.1f} s ({work:.1f} s of "
        f"processor time, of which {making:.1f} s make the texts), {host_peak_bytes() / 1e6:,.0f} MB at most"
    )
    require(kept + gone == texts, "texts were lost")
    require(0.9 * again < gone / texts < 1.1 * again, f"{gone / texts:.1%} were found to be another's, not {again:.0%}")
