"""What the figures of a report mean, by the names under which its tables show them."""

from __future__ import annotations

_MEANING = {
    "rows in": "Rows of the input; each is answered or stands in errors.jsonl.",
    "answered": "Rows with all their samples.",
    "samples answered": "Independent answers to the rows that are complete.",
    "failed (errors.jsonl)": "Rows with at least one sample that could not be answered; errors.jsonl says why.",
    "turns written": "Answers that the model wrote; a chat may ask for several.",
    "finish reasons": "Why answers ended: stop is the model's own end, length the token limit.",
    "prompt tokens": "Of each turn's whole prompt, without padding, over all sessions.",
    "generated tokens": "Of all answers, end tokens included, over all sessions.",
    "generated tokens/s": "Tokens of answers by the seconds of the phase generate. Loading is no part of it.",
    "turns/s": "Answers by the seconds of the phase generate.",
    "padding efficiency": "Share of the computed token places that held a token; the rest was padding or wrong drafts.",
    "batches, mean rows": "Batches, or steps of in-flight batching, and how many chats one computed in the mean.",
    "latency": "From entering the engine to the end of an answer; so many percent took at most so long.",
    "wall": "The last process from start to end.",
    "sessions": "Processes that worked on this run; it was interrupted and went on.",
    "load": "Reading and preparing the model.",
    "read": "Reading rows of the input.",
    "plan": "Deciding which requests share a batch.",
    "prompt": "Rendering chat templates to tokens.",
    "generate": "Computing answers.",
    "store": "Writing answers to the run store, synchronized.",
    "export": "Writing outputs and errors in the order of the input.",
    "score": "Scoring answers.",
    "judge": "Runs of the judges.",
    "keep": "Choosing the answers that are kept.",
    "host, peak": "Largest resident memory of the process.",
    "model": "Weights and buffers as they lie in memory.",
    "parameters, active": "All weights, and those that one token uses.",
    "batch tokens that fit": "Learned from a batch that did not fit into memory.",
    "prefill": "Computing prompts: what was achieved, and its share of what this device can do at best, measured.",
    "decode": "Computing answers token by token: what was achieved, and its share of what this device can do at best.",
    "drafts by": "What guessed ahead.",
    "drafts accepted": "Guessed tokens that the model would have written itself.",
    "tokens per row and step": "1 without drafts; what is above was gained.",
    "speed-up of steps with drafts": "How much longer these steps would have taken without drafts.",
    "steps without drafts": "Where guessing would have cost more than it saved.",
    "treatments": "What became of answers that are not complete: score as any other, wrong, or skip.",
    "win rate": "Share of comparisons that the answer won, a tie counting half.",
    "length controlled win rate": "The win rate with the effect of the answers' lengths taken out.",
    "flips": "How often the judge's verdict changed when the two answers changed places.",
    "disagreements": "How often the two orders gave opposite winners.",
    "first place": "How often the winner stood first; half is fair.",
    "parse failures": "Judgements in which no grade or verdict could be read.",
    "length bias": "Rank correlation of grade and length, 0 for none; longer answers may also be better.",
    "repeat agreement": "How often two judgements of one answer are the same.",
    "human agreement": "How often judge and people agree.",
    "kappa": "Agreement with people beyond what chance would give (Cohen).",
}
_ENDINGS = {
    "peak allocated": "Most that tensors took on this device.",
    "peak reserved": "Most that torch held on this device.",
    "normalisation": "What is done to answer and reference before they are held against each other.",
}


def meaning(name: str) -> str | None:
    """A sentence on a figure, None for one that says itself what it is."""
    plain = name.strip()
    if plain in _MEANING:
        return _MEANING[plain]
    return next((said for ending, said in _ENDINGS.items() if plain.endswith(ending)), None)
