"""Comparisons of runs: tables, figures and reports."""
