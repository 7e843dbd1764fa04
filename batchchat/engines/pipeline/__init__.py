"""Padded batches through the text-generation pipeline of transformers."""
