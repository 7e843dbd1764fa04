"""The files that keeping leaves in a run directory."""

KEPT = "kept.jsonl"
"""What went through all steps."""
REMOVED = "removed.jsonl"
"""What did not, each with the step and the reason."""
PAIRS = "pairs.jsonl"
"""Better answers with worse ones."""
