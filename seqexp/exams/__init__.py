"""Exams of language models in spelling and grammar. Each question is a minimal pair."""
