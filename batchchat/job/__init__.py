"""One run: reading rows, answering them, scoring, and what can be said beforehand."""
