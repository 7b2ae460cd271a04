"""Exams of language models: can it spell, does it know grammar? Each question is a minimal pair."""
