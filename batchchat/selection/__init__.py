"""Keeping the good answers of a run: filters, duplicates, contamination, the best of several; nothing vanishes."""
