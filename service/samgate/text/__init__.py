"""Prompts in words: which of an image's objects a text means."""
