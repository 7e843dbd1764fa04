"""Speculative decoding: who drafts, and whether drafts pay."""
